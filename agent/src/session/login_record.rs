//! Who is logged in, as `who` and `last` tell it: a record in utmp and one in wtmp for the beginning of a session, and
//! one each for its end.
//!
//! Nobody waits for it. The files may be locked by others, or on a disk that does not answer, so this happens in
//! threads that end on their own; and a machine without the files has chosen to have no records.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    mem::{offset_of, size_of},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::mpsc,
    thread::{Builder, JoinHandle, park_timeout},
    time::Duration,
};

use nix::{
    fcntl::{FcntlArg, fcntl},
    libc::{self, c_short, utmpx},
    unistd::Pid,
};

const UTMP: &str = "/var/run/utmp";
const WTMP: &str = "/var/log/wtmp";
/// A larger list of those logged in is not searched.
const MAX_UTMP_BYTES: u64 = 4 * 1024 * 1024;
/// How often a lock is tried, and the pause between.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(50);
/// How long a worker that is done waits for the last record.
const LAST_RECORD_PATIENCE: Duration = Duration::from_secs(1);
/// A thread that writes 384 bytes needs little.
const STACK_BYTES: usize = 64 * 1024;
const RECORD_BYTES: usize = size_of::<utmpx>();

type Record = [u8; RECORD_BYTES];

/// One session in these files.
#[derive(Debug, Clone)]
struct Entry {
    /// Without `/dev/`.
    line: String,
    user: String,
    operator: String,
    pid: i32,
}

/// A session that was recorded, or is being.
#[derive(Debug)]
pub(super) struct LoginRecord {
    entry: Entry,
    begun: JoinHandle<()>,
}

/// The record of the end on its way.
#[derive(Debug)]
pub(super) struct LastRecord {
    written: mpsc::Receiver<()>,
}

impl LoginRecord {
    /// Records the beginning. `None`: there is nobody to do it.
    pub(super) fn begin(
        terminal: &str,
        user: &str,
        operator: &str,
        pid: Pid,
        unix_millis: u64,
    ) -> Option<Self> {
        let entry = Entry {
            line: terminal.strip_prefix("/dev/").unwrap_or(terminal).to_owned(),
            user: user.to_owned(),
            operator: operator.to_owned(),
            pid: pid.as_raw(),
        };
        let record = entry.record(libc::USER_PROCESS, unix_millis);
        let begun = in_thread(move || put_everywhere(&record))?;
        Some(Self { entry, begun })
    }

    /// Records the end.
    pub(super) fn end(self, unix_millis: u64) -> Option<LastRecord> {
        let record = self.entry.record(libc::DEAD_PROCESS, unix_millis);
        let begun = self.begun;
        let (sender, written) = mpsc::sync_channel(1);
        in_thread(move || {
            // A beginning after its end would stay for ever. A panic there was no beginning.
            let _begun = begun.join();
            put_everywhere(&record);
            // nobody may be left to hear it
            let _heard = sender.send(());
        })?;
        Some(LastRecord { written })
    }
}

impl LastRecord {
    /// Waits for it, not for long.
    pub(super) fn wait(self) {
        if let Err(error) = self.written.recv_timeout(LAST_RECORD_PATIENCE) {
            tracing::debug!(%error, "the end of the session is not recorded in utmp and wtmp");
        }
    }
}

fn in_thread(work: impl FnOnce() + Send + 'static) -> Option<JoinHandle<()>> {
    let started = Builder::new()
        .name("login-record".to_owned())
        .stack_size(STACK_BYTES)
        .spawn(work);
    match started {
        Ok(thread) => Some(thread),
        Err(error) => {
            tracing::debug!(%error, "no record in utmp and wtmp");
            None
        }
    }
}

fn put_everywhere(record: &Record) {
    for (path, put) in [
        (UTMP, replace as fn(&Path, &Record) -> io::Result<()>),
        (WTMP, append),
    ] {
        if let Err(error) = put(Path::new(path), record) {
            tracing::debug!(%error, path, "login record not written");
        }
    }
}

impl Entry {
    /// The bytes of a `struct utmpx`, as libc of this machine lays it out.
    fn record(&self, kind: c_short, unix_millis: u64) -> Record {
        let mut record = [0; RECORD_BYTES];
        let mut put = |offset: usize, bytes: &[u8]| {
            if let Some(place) = record.get_mut(offset..offset + bytes.len()) {
                place.copy_from_slice(bytes);
            }
        };
        let id = self.line.len().saturating_sub(4);
        put(offset_of!(utmpx, ut_type), &kind.to_ne_bytes());
        put(offset_of!(utmpx, ut_pid), &self.pid.to_ne_bytes());
        put(offset_of!(utmpx, ut_line), cut(&self.line, 32));
        put(
            offset_of!(utmpx, ut_id),
            cut(self.line.get(id..).unwrap_or_default(), 4),
        );
        if kind == libc::USER_PROCESS {
            put(offset_of!(utmpx, ut_user), cut(&self.user, 32));
            put(offset_of!(utmpx, ut_host), cut(&self.operator, 256));
        }
        let (seconds, micros) = (unix_millis / 1000, unix_millis % 1000 * 1000);
        let time = offset_of!(utmpx, ut_tv);
        if offset_of!(utmpx, ut_addr_v6) - time == 8 {
            // Two numbers of 32 bits, on 64-bit machines too, so that both kinds of programs share the file.
            let short = |number| u32::try_from(number).unwrap_or(u32::MAX).to_ne_bytes();
            put(time, &short(seconds));
            put(time + 4, &short(micros));
        } else {
            put(time, &seconds.to_ne_bytes());
            put(time + 8, &micros.to_ne_bytes());
        }
        record
    }
}

/// A text that fills its place has no NUL at its end.
fn cut(text: &str, room: usize) -> &[u8] {
    text.as_bytes().get(..room).unwrap_or(text.as_bytes())
}

/// Puts a record in the place of the terminal's last one.
fn replace(path: &Path, record: &Record) -> io::Result<()> {
    let mut file = open_locked(OpenOptions::new().read(true).write(true), path)?;
    let mut all = Vec::new();
    Read::by_ref(&mut file)
        .take(MAX_UTMP_BYTES)
        .read_to_end(&mut all)?;
    let place = all
        .chunks_exact(RECORD_BYTES)
        .position(|other| is_of_same_terminal(other, record))
        .unwrap_or(all.len() / RECORD_BYTES);
    file.seek(SeekFrom::Start((place * RECORD_BYTES) as u64))?;
    file.write_all(record)
}

/// Every program leaves the records of a terminal in one place, found by its id.
fn is_of_same_terminal(other: &[u8], record: &Record) -> bool {
    let field = |bytes: &[u8], offset: usize, length: usize| -> Vec<u8> {
        bytes.get(offset..offset + length).unwrap_or_default().to_vec()
    };
    let kind = field(other, offset_of!(utmpx, ut_type), size_of::<c_short>());
    let kind = kind.try_into().map_or(libc::EMPTY, c_short::from_ne_bytes);
    let id = |bytes| field(bytes, offset_of!(utmpx, ut_id), 4);
    matches!(
        kind,
        libc::INIT_PROCESS | libc::LOGIN_PROCESS | libc::USER_PROCESS | libc::DEAD_PROCESS
    ) && id(other) == id(record)
}

/// Adds a record to the history, whole or not at all.
fn append(path: &Path, record: &Record) -> io::Result<()> {
    let mut file = open_locked(OpenOptions::new().append(true), path)?;
    let length = file.metadata()?.len();
    let end = length - length % RECORD_BYTES as u64;
    if end != length {
        file.set_len(end)?;
    }
    file.write_all(record).inspect_err(|_| {
        if let Err(error) = file.set_len(end) {
            tracing::debug!(%error, "half a login record is left behind");
        }
    })
}

/// With the lock that libc takes for these files, on the file as we have it open.
fn open_locked(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let file = options
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let whole = libc::flock {
        l_type: c_short::try_from(libc::F_WRLCK).unwrap_or(c_short::MAX),
        l_whence: c_short::try_from(libc::SEEK_SET).unwrap_or(c_short::MAX),
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    let mut tries = 1;
    while let Err(error) = fcntl(&file, FcntlArg::F_OFD_SETLK(&whole)) {
        if tries == TRIES {
            return Err(error.into());
        }
        tries += 1;
        // nobody wakes this thread: a pause
        park_timeout(PAUSE);
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn entry(line: &str, user: &str) -> Entry {
        Entry {
            line: line.to_owned(),
            user: user.to_owned(),
            operator: "arn:moorline:user/jo".to_owned(),
            pid: i32::try_from(std::process::id()).unwrap(),
        }
    }

    fn said(program: &str, arguments: &[&str], file: &Path) -> Option<String> {
        let output = Command::new(program)
            .args(arguments)
            .arg(file)
            .env("LC_ALL", "C")
            .output();
        match output {
            Ok(output) => Some(String::from_utf8(output.stdout).unwrap()),
            Err(_) => {
                println!("skipped: this machine has no {program}");
                None
            }
        }
    }

    const BEGIN: u64 = 1_790_000_000_000;
    const END: u64 = 1_790_000_061_000;

    #[test]
    fn who_shows_a_session_until_its_end_in_one_place_of_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("utmp");
        std::fs::write(&file, b"").unwrap();
        let (one, two) = (entry("pts/1", "ops"), entry("pts/2", "other"));
        for begun in [&one, &two] {
            replace(&file, &begun.record(libc::USER_PROCESS, BEGIN)).unwrap();
        }
        if let Some(who) = said("who", &[], &file) {
            let first = who.lines().next().unwrap();
            assert!(
                first.starts_with("ops ") && first.contains("pts/1") && first.contains("jo)"),
                "{who}"
            );
            assert_eq!(who.lines().count(), 2, "{who}");
        }
        replace(&file, &one.record(libc::DEAD_PROCESS, END)).unwrap();
        if let Some(who) = said("who", &[], &file) {
            assert!(who.starts_with("other ") && who.lines().count() == 1, "{who}");
        }
        replace(&file, &one.record(libc::USER_PROCESS, END)).unwrap();
        assert_eq!(std::fs::metadata(&file).unwrap().len(), 2 * RECORD_BYTES as u64);
    }

    #[test]
    fn last_shows_how_long_a_session_was_and_half_a_record_spoils_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("wtmp");
        std::fs::write(&file, b"half").unwrap();
        let one = entry("pts/1", "ops");
        append(&file, &one.record(libc::USER_PROCESS, BEGIN)).unwrap();
        append(&file, &one.record(libc::DEAD_PROCESS, END)).unwrap();
        assert_eq!(std::fs::metadata(&file).unwrap().len(), 2 * RECORD_BYTES as u64);
        if let Some(last) = said("last", &["-f"], &file) {
            assert!(last.starts_with("ops ") && last.contains("(00:01)"), "{last}");
        }
    }

    #[test]
    fn a_file_that_is_missing_locked_or_none_costs_a_moment_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("utmp");
        let record = entry("pts/1", "ops").record(libc::USER_PROCESS, BEGIN);
        assert!(
            replace(&file, &record).is_err() && !file.exists(),
            "it is not made"
        );
        assert!(replace(dir.path(), &record).is_err());
        std::fs::write(&file, b"").unwrap();
        let held = open_locked(OpenOptions::new().read(true).write(true), &file).unwrap();
        assert!(replace(&file, &record).is_err());
        drop(held);
        assert!(replace(&file, &record).is_ok());
    }

    #[test]
    fn long_texts_are_cut() {
        let long = entry(&"p".repeat(100), &"u".repeat(1000)).record(libc::USER_PROCESS, u64::MAX);
        assert_eq!(long.len(), RECORD_BYTES);
    }
}
