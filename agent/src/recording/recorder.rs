//! The recorder: what the terminal showed, as asciicast version 2, with the time at which each piece was read, and sealed
//! record by record (docs/transcript-format.md).
//!
//! Output is bytes and asciicast is text: a character that is not complete yet is held back to the next event, and
//! bytes that are no UTF-8 become U+FFFD, so the concatenated events are exactly the lossy text of the output. Of a
//! command, an event before says which bytes they were.

mod json_text;
mod mask;

use std::{fmt::Write as _, io::Write as _, time::Duration};

use moorline_protocol::transcript::{
    Code, DataKey, Digest, Encryption, Encryptor, Header, Origin, RecordingId, RecordingKind, Sealer, Time,
    event_line,
};
use serde_json::{Map, Value, json};

use self::json_text::{escape, escape_lossy};
pub(crate) use self::mask::{Masker, Piece};

use crate::identity::TranscriptKey;

/// A record is closed after this much activity at the latest, and at this length.
const RECORD_TIME: Duration = Duration::from_secs(1);
const RECORD_BYTES: u64 = 1024 * 1024;
/// Events are encrypted together up to this length; a line of the file holds them all.
const ENCRYPTED_BYTES: usize = 64 * 1024;
/// What stands in the place of a secret.
pub(crate) const MASK: &str = "***";

/// Terminal size in columns and rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) cols: u16,
    pub(crate) rows: u16,
}

impl Default for Size {
    fn default() -> Self {
        Self { cols: 80, rows: 24 }
    }
}

/// What the first line says of the session or command.
#[derive(Debug, Clone)]
pub(crate) struct About {
    pub(crate) id: RecordingId,
    pub(crate) node: String,
    pub(crate) kind: RecordingKind,
    pub(crate) document: String,
    pub(crate) document_version: Option<String>,
    /// `None`: the endpoint does not say.
    pub(crate) operator: Option<String>,
    pub(crate) reason: Option<String>,
    /// `None`: nobody's, as of a port session.
    pub(crate) user: Option<String>,
    pub(crate) parameters: Map<String, Value>,
    /// What runs.
    pub(crate) command: String,
    /// Hash of the last record of the part before.
    pub(crate) follows: Option<Digest>,
    pub(crate) unix_secs: u64,
}

/// Writes one recording into `written`, from where it is taken.
#[derive(Debug)]
pub(crate) struct Recorder {
    /// Until it is written.
    about: Option<About>,
    seal: Option<Seal>,
    cipher: Option<Cipher>,
    size: Size,
    /// What a command writes can be had as it was.
    tells_replaced: bool,
    output: Track,
    errors: Track,
    input: Track,
    /// Bytes that there was no room for, since the last event.
    gap: u64,
    /// The size that the terminal has since then.
    missed_size: Option<Size>,
    pub(crate) written: Vec<u8>,
}

/// One stream of bytes on its way to being text without secrets.
#[derive(Debug, Default)]
struct Track {
    masker: Masker,
    /// Begin of a character whose end has not been read; at most 3 bytes.
    tail: Vec<u8>,
}

/// What a track records.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Output,
    Errors,
    Input,
}

/// Only recipients of the recording read its events.
#[derive(Debug)]
struct Cipher {
    header: Encryption,
    encryptor: Encryptor,
    /// Event lines that are not encrypted yet.
    open: Vec<u8>,
}

/// What closes records.
#[derive(Debug)]
struct Seal {
    sealer: Sealer,
    key: TranscriptKey,
    /// When the open record began.
    begun: Option<Duration>,
}

impl Recorder {
    /// The header is written with the first event, so that it has the size the client asked for in the meantime.
    /// Without a key nothing is sealed, and the recording says nothing of the session.
    pub(crate) fn new(about: About, key: Option<TranscriptKey>) -> Self {
        Self {
            seal: key.map(|key| Seal {
                sealer: Sealer::new(about.id.clone()),
                key,
                begun: None,
            }),
            tells_replaced: about.kind == RecordingKind::Command,
            about: Some(about),
            cipher: None,
            size: Size::default(),
            output: Track::default(),
            errors: Track::default(),
            input: Track::default(),
            gap: 0,
            missed_size: None,
            written: Vec::new(),
        }
    }

    /// With these values hidden wherever they appear.
    #[must_use]
    pub(crate) fn masking(mut self, secrets: &[String]) -> Self {
        for track in [&mut self.output, &mut self.errors, &mut self.input] {
            track.masker = Masker::new(secrets);
        }
        self
    }

    /// With its events encrypted with this key, which the header holds for its recipients.
    #[must_use]
    pub(crate) fn encrypted(mut self, key: &DataKey, header: Encryption) -> Self {
        self.cipher = self.about.as_ref().map(|about| Cipher {
            header,
            encryptor: Encryptor::new(key, about.id.clone()),
            open: Vec::new(),
        });
        self
    }

    /// Records output that was read `at` this time after the begin.
    pub(crate) fn output(&mut self, at: Duration, bytes: &[u8]) {
        self.close_gap(at);
        self.track(at, Kind::Output, bytes, false);
    }

    /// Records what a program without terminal wrote to its standard error.
    pub(crate) fn errors(&mut self, at: Duration, bytes: &[u8]) {
        self.close_gap(at);
        self.track(at, Kind::Errors, bytes, false);
    }

    /// Records input that the terminal echoed.
    pub(crate) fn input(&mut self, at: Duration, bytes: &[u8]) {
        self.close_gap(at);
        self.track(at, Kind::Input, bytes, false);
    }

    /// Records output that was a secret of so many bytes.
    pub(crate) fn secret_output(&mut self, at: Duration, bytes: usize) {
        self.secret(at, Kind::Output, bytes);
    }

    /// The same of standard error.
    pub(crate) fn secret_errors(&mut self, at: Duration, bytes: usize) {
        self.secret(at, Kind::Errors, bytes);
    }

    fn secret(&mut self, at: Duration, kind: Kind, bytes: usize) {
        self.close_gap(at);
        self.end_text(at, kind);
        self.write_text(at, kind, MASK.as_bytes());
        self.masked(at, bytes);
    }

    /// Records that so many bytes are not shown, since they may be a secret.
    pub(crate) fn masked(&mut self, at: Duration, bytes: usize) {
        self.note(at, &json!({"event": "masked", "bytes": bytes}));
    }

    /// Records output that waits for what comes next, to be told from the begin of a secret.
    pub(crate) fn release(&mut self, at: Duration) {
        self.track(at, Kind::Output, &[], true);
        self.track(at, Kind::Errors, &[], true);
    }

    /// No output follows: what was held back is no character.
    pub(crate) fn end_output(&mut self, at: Duration) {
        self.release(at);
        for kind in [Kind::Output, Kind::Errors] {
            self.end_text(at, kind);
        }
    }

    /// Whether what it writes is sealed.
    pub(crate) fn seals(&self) -> bool {
        self.seal.is_some()
    }

    /// Bytes of output that were read and are not recorded yet.
    pub(crate) fn held_bytes(&self) -> usize {
        [&self.output, &self.errors]
            .iter()
            .map(|track| track.masker.held_bytes() + track.tail.len())
            .sum()
    }

    /// Bytes that are recorded and were not taken.
    pub(crate) fn waiting(&self) -> usize {
        self.written.len() + self.cipher.as_ref().map_or(0, |cipher| cipher.open.len())
    }

    /// There is no room for so much; the next event is preceded by one that says so.
    pub(crate) fn skip(&mut self, bytes: usize) {
        self.gap = self.gap.saturating_add(bytes as u64);
    }

    /// There is no room for a new size; it is recorded before the next event.
    pub(crate) fn skip_resize(&mut self, size: Size) {
        self.missed_size = Some(size);
    }

    /// Records a new terminal size.
    pub(crate) fn resize(&mut self, at: Duration, size: Size) {
        self.missed_size = None;
        if size == self.size {
            return;
        }
        self.size = size;
        if self.about.is_none() {
            self.event(at, Code::Resize, &format!("{}x{}", size.cols, size.rows));
        }
    }

    /// Records a place to jump to.
    pub(crate) fn mark(&mut self, at: Duration, label: &str) {
        self.close_gap(at);
        self.begin(at);
        self.event(at, Code::Marker, label);
    }

    /// Records something that a terminal does not show.
    pub(crate) fn note(&mut self, at: Duration, event: &Value) {
        self.close_gap(at);
        self.begin(at);
        self.event(at, Code::Ours, &event.to_string());
    }

    /// Nothing follows: what was held back is no character. The last record is closed.
    pub(crate) fn finish(
        &mut self,
        at: Duration,
        exit_code: Option<i32>,
        reason: Option<&str>,
        unix_millis: u64,
    ) {
        self.close_gap(at);
        self.end_output(at);
        self.track(at, Kind::Input, &[], true);
        self.end_text(at, Kind::Input);
        self.begin(at);
        if let Some(exit_code) = exit_code {
            self.event(at, Code::Exit, &exit_code.to_string());
        }
        if let Some(reason) = reason {
            self.note(at, &json!({"event": "end", "reason": reason}));
        }
        self.close_record(at, unix_millis);
    }

    /// The same at the end of a part of a command: another recording goes on. The hash of the last record, by which that
    /// one says what it follows; `None`: it is not sealed.
    pub(crate) fn finish_part(&mut self, at: Duration, reason: &str, unix_millis: u64) -> Option<Digest> {
        self.close_gap(at);
        self.end_output(at);
        self.note(at, &json!({"event": "end", "reason": reason, "continues": true}));
        self.finish(at, None, None, unix_millis);
        self.seal.as_ref().map(|seal| seal.sealer.last_hash())
    }

    /// When the open record must be closed.
    pub(crate) fn seal_due(&self) -> Option<Duration> {
        let begun = self.seal.as_ref()?.begun?;
        Some(begun + RECORD_TIME)
    }

    /// Closes the open record if it is time.
    pub(crate) fn seal_if_due(&mut self, at: Duration, unix_millis: u64) {
        let waiting = self.cipher.as_ref().map_or(0, |cipher| cipher.open.len()) as u64;
        let is_long = |seal: &Seal| seal.sealer.open_bytes() + waiting >= RECORD_BYTES;
        if self.seal_due().is_some_and(|due| due <= at) || self.seal.as_ref().is_some_and(is_long) {
            self.close_record(at, unix_millis);
        }
    }

    /// Puts into `written` what is recorded so far.
    pub(crate) fn flush(&mut self, at: Duration) {
        let Some(cipher) = &mut self.cipher else { return };
        if cipher.open.is_empty() {
            return;
        }
        let line = cipher.encryptor.encrypt(time(at), &cipher.open);
        cipher.open.clear();
        self.chain(at, |written| written.extend_from_slice(line.as_bytes()));
    }

    fn close_record(&mut self, at: Duration, unix_millis: u64) {
        self.flush(at);
        let Some(seal) = &mut self.seal else { return };
        let key = &seal.key;
        if let Some(line) = seal.sealer.seal(time(at), unix_millis, |text| key.sign(text)) {
            self.written.extend_from_slice(line.as_bytes());
        }
        seal.begun = None;
    }

    fn close_gap(&mut self, at: Duration) {
        let (bytes, size) = (std::mem::take(&mut self.gap), self.missed_size.take());
        if bytes > 0 {
            let gap = json!({"event": "gap", "bytes": bytes, "reason": "there was no room for it"});
            self.note(at, &gap);
        }
        if let Some(size) = size {
            self.resize(at, size);
        }
    }

    /// `is_end`: what may be the begin of a secret is none.
    fn track(&mut self, at: Duration, kind: Kind, bytes: &[u8], is_end: bool) {
        let mut masker = std::mem::take(&mut self.track_of(kind).masker);
        let piece = |piece: Piece<'_>| match piece {
            Piece::Plain(plain) => self.text(at, kind, plain),
            Piece::Secret(bytes) => self.secret(at, kind, bytes),
        };
        match is_end {
            true => masker.flush(piece),
            false => masker.push(bytes, piece),
        }
        self.track_of(kind).masker = masker;
    }

    fn track_of(&mut self, kind: Kind) -> &mut Track {
        match kind {
            Kind::Output => &mut self.output,
            Kind::Errors => &mut self.errors,
            Kind::Input => &mut self.input,
        }
    }

    /// Whole characters; the begin of one waits for its rest.
    fn text(&mut self, at: Duration, kind: Kind, bytes: &[u8]) {
        let tail = &mut self.track_of(kind).tail;
        if tail.is_empty() {
            let complete = complete_length(bytes);
            tail.extend_from_slice(bytes.get(complete..).unwrap_or_default());
            self.write_text(at, kind, bytes.get(..complete).unwrap_or(bytes));
        } else {
            let mut joined = std::mem::take(tail);
            joined.extend_from_slice(bytes);
            let complete = complete_length(&joined);
            *tail = joined.split_off(complete);
            self.write_text(at, kind, &joined);
        }
    }

    fn end_text(&mut self, at: Duration, kind: Kind) {
        let tail = std::mem::take(&mut self.track_of(kind).tail);
        self.write_text(at, kind, &tail);
    }

    fn write_text(&mut self, at: Duration, kind: Kind, bytes: &[u8]) {
        if self.tells_replaced
            && let Some(replaced) = replaced(bytes)
        {
            self.note(at, &json!({"event": "replaced", "bytes": replaced}));
        }
        let code = match kind {
            _ if bytes.is_empty() => return,
            Kind::Output => Code::Output,
            Kind::Input => Code::Input,
            Kind::Errors => {
                let data = String::from_utf8_lossy(bytes);
                return self.note(at, &json!({"event": "stderr", "data": data}));
            }
        };
        self.begin(at);
        // The bulk of every recording, hence without the detour over a text.
        self.line(at, |line| {
            // Writing into a Vec cannot fail.
            write!(line, "[{},\"{}\",\"", Seconds(at), code.as_char()).unwrap_or_default();
            // a look at the whole is many times faster than one character by character
            match std::str::from_utf8(bytes) {
                Ok(text) => escape(line, text.as_bytes()),
                Err(_) => escape_lossy(line, bytes),
            }
            line.extend_from_slice(b"\"]\n");
        });
    }

    fn event(&mut self, at: Duration, code: Code, text: &str) {
        let event = event_line(time(at), code, text);
        self.line(at, |line| line.extend_from_slice(event.as_bytes()));
    }

    /// Writes the first line, if that is not done.
    pub(crate) fn begin(&mut self, at: Duration) {
        let Some(about) = self.about.take() else {
            return;
        };
        let encryption = self.cipher.as_ref().map(|cipher| cipher.header.clone());
        let key = self.seal.as_ref().map(|seal| &seal.key);
        let line = header(about, self.size, key, encryption);
        self.chain(at, |written| written.extend_from_slice(line.as_bytes()));
    }

    /// One event.
    fn line(&mut self, at: Duration, write: impl FnOnce(&mut Vec<u8>)) {
        let Some(cipher) = &mut self.cipher else {
            return self.chain(at, write);
        };
        write(&mut cipher.open);
        let is_full = cipher.open.len() >= ENCRYPTED_BYTES;
        if let Some(seal) = &mut self.seal {
            seal.begun.get_or_insert(at);
        }
        if is_full {
            self.flush(at);
        }
    }

    /// What is written is in the open record.
    fn chain(&mut self, at: Duration, write: impl FnOnce(&mut Vec<u8>)) {
        let from = self.written.len();
        write(&mut self.written);
        if let Some(seal) = &mut self.seal {
            seal.sealer.push(self.written.get(from..).unwrap_or_default());
            seal.begun.get_or_insert(at);
        }
    }
}

fn header(about: About, size: Size, key: Option<&TranscriptKey>, encryption: Option<Encryption>) -> String {
    let (width, height) = (u32::from(size.cols), u32::from(size.rows));
    let Some(key) = key else {
        let plain = json!({
            "version": 2,
            "width": width,
            "height": height,
            "timestamp": about.unix_secs,
            "command": about.command,
            "title": about.id.as_str(),
        });
        return format!("{plain}\n");
    };
    // what was done is for those alone who can read it
    let is_open = encryption.is_none();
    Header {
        width,
        height,
        timestamp: Some(about.unix_secs),
        title: Some(about.id.as_str().to_owned()).filter(|_| is_open),
        command: Some(about.command).filter(|_| is_open),
        origin: Origin {
            id: about.id,
            node: about.node,
            node_key: key.public().id(),
            kind: about.kind,
            document: Some(about.document),
            document_version: about.document_version,
            operator: about.operator,
            reason: about.reason,
            user: about.user,
            parameters: Some(about.parameters).filter(|parameters| is_open && !parameters.is_empty()),
            follows: about.follows,
            encryption,
        },
    }
    .to_line()
}

fn time(at: Duration) -> Time {
    Time::from_micros(u64::try_from(at.as_micros()).unwrap_or(u64::MAX))
}

/// Seconds with microseconds, without going through a float.
struct Seconds(Duration);

impl std::fmt::Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{:06}", self.0.as_secs(), self.0.subsec_micros())
    }
}

/// The bytes behind each U+FFFD of the lossy text, in hex; `None`: it is not lossy.
fn replaced(bytes: &[u8]) -> Option<String> {
    const REPLACEMENT: char = '\u{fffd}';
    let mut words = String::new();
    let mut push = |bytes: &[u8]| {
        if !words.is_empty() {
            words.push(' ');
        }
        for byte in bytes {
            // Writing into a String cannot fail.
            write!(words, "{byte:02x}").unwrap_or_default();
        }
    };
    if std::str::from_utf8(bytes).is_ok() {
        return None;
    }
    for chunk in bytes.utf8_chunks() {
        for _own in chunk.valid().matches(REPLACEMENT) {
            push(REPLACEMENT.encode_utf8(&mut [0; 4]).as_bytes());
        }
        if !chunk.invalid().is_empty() {
            push(chunk.invalid());
        }
    }
    Some(words)
}

/// Length without an incomplete character at the end.
fn complete_length(bytes: &[u8]) -> usize {
    let from = bytes.len().saturating_sub(3);
    // The last byte that begins a character, among the last three: a complete one needs no more than four.
    let last_lead = bytes
        .iter()
        .enumerate()
        .skip(from)
        .rfind(|(_, byte)| **byte & 0xC0 != 0x80);
    let Some((start, _)) = last_lead else {
        return bytes.len();
    };
    match std::str::from_utf8(bytes.get(start..).unwrap_or_default()) {
        Err(error) if error.error_len().is_none() => start.saturating_add(error.valid_up_to()),
        _ => bytes.len(),
    }
}

/// As a terminal shows it, for the recording: a newline alone would leave the next line where this one ended.
pub(crate) fn as_on_terminal(output: &[u8]) -> Vec<u8> {
    let mut shown = Vec::with_capacity(output.len() + output.len() / 16);
    let mut copied = 0;
    for newline in memchr::memchr_iter(b'\n', output) {
        shown.extend_from_slice(output.get(copied..newline).unwrap_or_default());
        shown.push(b'\r');
        copied = newline;
    }
    shown.extend_from_slice(output.get(copied..).unwrap_or_default());
    shown
}

#[cfg(test)]
mod tests;
