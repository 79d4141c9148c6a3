//! Bodies of the fuzz targets: bytes of an attacker in, no panic and no broken invariant out.
//!
//! `tests/fuzz` has the cargo-fuzz targets that call these with libFuzzer; the test below runs the same bodies over
//! the committed corpus and a seeded series of mutations, on a stable toolchain.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use moorline_protocol::{
    audit,
    channel::{DataChannel, Role},
    document::{
        AfterRun, CommandDocument, Ending, Flow, MAX_REBOOTS, Next, Platform, Ran, SessionDocument, Step,
        StepResult, TextFormat, read_text, write_yaml,
    },
    message::{
        Acknowledge, AgentJob, AgentJobAck, AgentJobReply, AgentJobReplyAck, AgentMessage, AgentSessionState,
        AgentTaskComplete, CancelCommandContent, ChannelClosed, HandshakeRequest, HandshakeResponse,
        InteractiveShell, OpenControlChannel, OpenDataChannel, ReplyContent, SendCommandContent,
        StartSessionContent, TerminalSize,
    },
    mux::{Mux, MuxEvent, Side},
    package::{Directory, Entry, Manifest, NoFile, Target as NodeTarget},
    public_keys::{Keys, PublicKey},
    signed_command::{Purpose, SignedCommand, SigningKey, public_key_line, read_public_key},
    sigv4::{Claim, SignableRequest, is_rsa_public_key, verify_registration},
    time::Now,
    transcript::{
        Header, OutputReader, Receiver, RecordingId, Survey, TerminalFilter, Verdict, Verifier, Weaver,
    },
};
use ring::signature::{Ed25519KeyPair, KeyPair as _};

/// One target.
pub type Target = fn(&[u8]);

/// All targets, by the name of their corpus.
pub const TARGETS: [(&str, Target); 12] = [
    ("audit", audit_log),
    ("channel", channel),
    ("document", document),
    ("frame", frame),
    ("mux", mux),
    ("package", package),
    ("payload", payload),
    ("remains", remains),
    ("signed_command", signed_command),
    ("sigv4", sigv4),
    ("terminal", terminal),
    ("transcript", transcript),
];

/// A file that says it is an audit log, in two ways to cut it, and a key file.
pub fn audit_log(data: &[u8]) {
    let keys = Keys::default();
    let verify = |size: usize| {
        let mut verifier = audit::Verifier::new(&keys);
        data.chunks(size).for_each(|piece| verifier.push(piece));
        verifier.finish()
    };
    let outcome = verify(data.len().max(1));
    assert_eq!(outcome, verify(7));
    assert!(!outcome.is_intact(), "no key is known, so nothing is signed");
    for line in data.split_inclusive(|byte| *byte == b'\n') {
        let Ok(parsed) = audit::Line::parse(line) else {
            continue;
        };
        let chain = audit::Chain::behind(line).expect("a line can be followed");
        assert_eq!(chain.index(), parsed.index);
        if let audit::Body::Event(event) = parsed.body {
            let again = audit::Chain::new().append(parsed.time.unix_millis(), &event);
            let again = audit::Line::parse(again.as_bytes()).expect("what is written can be read");
            assert_eq!(again.body, audit::Body::Event(event));
        }
    }
    if let Ok(keys) = Keys::parse(data) {
        assert_eq!(Keys::parse(keys.to_file().as_bytes()).ok(), Some(keys));
    }
}

/// A manifest, and an archive: no name of an entry leads out of its directory, whatever wrote it.
pub fn package(data: &[u8]) {
    if let Ok(manifest) =
        std::str::from_utf8(data).map_or(Err(()), |text| Manifest::parse(text).map_err(drop))
    {
        let target = NodeTarget {
            platform: "ubuntu".to_owned(),
            version: "22.04".to_owned(),
            architecture: "x86_64".to_owned(),
        };
        match manifest.select(&target) {
            Ok((name, file)) => assert!(manifest.files().any(|known| known == (name, file))),
            Err(NoFile(asked)) => assert_eq!(asked, target),
        }
    }
    let length = u64::try_from(data.len()).unwrap_or(u64::MAX);
    let Ok(directory) = Directory::find(data, length) else {
        return;
    };
    let begin = usize::try_from(directory.offset).unwrap_or(usize::MAX);
    let bytes = data.get(begin..begin.saturating_add(directory.bytes));
    let Ok(entries) = directory.read(bytes.expect("the directory is in the file")) else {
        return;
    };
    for Entry { name, .. } in &entries {
        let mut parts = std::path::Path::new(name).components();
        let is_inside = parts.all(|part| matches!(part, std::path::Component::Normal(_)));
        assert!(is_inside && !name.is_empty(), "{name:?}");
    }
}

/// `AgentMessage`: what decodes, encodes, and decodes to the same.
pub fn frame(data: &[u8]) {
    let Ok(message) = AgentMessage::decode(&Bytes::copy_from_slice(data)) else {
        return;
    };
    let again = AgentMessage::decode(&message.encode()).expect("our own frame decodes");
    assert_eq!(again, message);
}

/// Every JSON payload that a peer sends.
pub fn payload(data: &[u8]) {
    fn read<T: serde::de::DeserializeOwned>(data: &[u8]) {
        let _unread: Result<T, _> = serde_json::from_slice(data);
    }
    read::<Acknowledge>(data);
    read::<AgentJob>(data);
    read::<AgentJobAck>(data);
    read::<AgentJobReply>(data);
    read::<AgentJobReplyAck>(data);
    read::<AgentSessionState>(data);
    read::<AgentTaskComplete>(data);
    read::<CancelCommandContent>(data);
    read::<ChannelClosed>(data);
    read::<HandshakeRequest>(data);
    read::<HandshakeResponse>(data);
    read::<InteractiveShell>(data);
    read::<OpenControlChannel>(data);
    read::<OpenDataChannel>(data);
    read::<SendCommandContent>(data);
    read::<StartSessionContent>(data);
    read::<TerminalSize>(data);
    if let Ok(reply) = serde_json::from_slice::<ReplyContent>(data) {
        reply.steps();
    }
}

/// Command and session documents in JSON and YAML, with their own parameter names given back to them, and the course
/// of their steps.
pub fn document(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let Ok(content) = read_text(&text) else {
        return;
    };
    let written = write_yaml(&content);
    if let Ok(again) = TextFormat::Yaml.read(&written) {
        assert_eq!(
            again, content,
            "what is written as YAML is read as something else"
        );
    }
    let platform = Platform {
        platform_type: "Linux",
        handled_actions: &["aws:runShellScript"],
    };
    if let Ok(document) = CommandDocument::parse(&content) {
        let given: BTreeMap<String, Vec<String>> = document
            .parameters
            .iter()
            .map(|(name, _)| (name.to_owned(), vec!["{{ x }} $$".to_owned()]))
            .collect();
        if let Ok(parameters) = document.parameters.resolve_lists(&given) {
            let _plan = document.plan(parameters.as_map(), platform);
        }
        let given = serde_json::Map::from_iter(given.into_keys().map(|name| (name, content.clone())));
        let _typed = document.parameters.typed_values(&given);
        if let Ok(steps) = document.plan(&serde_json::Map::new(), platform) {
            course(&steps, data);
        }
    }
    if let Ok(document) = SessionDocument::parse(&content) {
        let _checked = document.check_inputs();
        let _inputs = document.resolved_inputs(&serde_json::Map::new());
        let _plan = document.plan(&serde_json::Map::new());
    }
}

/// Steps that end with the exit codes told by the bytes: every document comes to an end, resumed or not.
fn course(steps: &[Step], codes: &[u8]) {
    let mut codes = codes.iter().copied().chain(std::iter::repeat(0));
    let (mut results, mut reboots) = (Vec::new(), 0);
    for _ in 0..=steps.len() + usize::try_from(MAX_REBOOTS).unwrap_or_default() {
        let mut flow = Flow::resume(steps, &results, reboots);
        let outcome = match flow.next(None) {
            Next::Over(status) => return assert!(status.is_terminal()),
            Next::Settled(_, outcome) => outcome,
            Next::Run(_) => {
                let ran = Ran {
                    ending: Ending::Exited(i32::from(codes.next().unwrap_or_default())),
                    stdout: String::new(),
                    stderr: String::new(),
                };
                match flow.ran(ran) {
                    AfterRun::Outcome(outcome) => outcome,
                    AfterRun::Reboot => {
                        reboots += 1;
                        continue;
                    }
                }
            }
        };
        results.push(StepResult {
            status: outcome.status,
            code: outcome.code,
        });
    }
    panic!("a document of {} steps does not end", steps.len());
}

/// The signature of a request: an `Authorization` header, or after a NUL byte a presigned URI, all hostile.
pub fn sigv4(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (authorization, uri) = text.split_once('\0').unwrap_or((&text, "/"));
    let headers = [
        ("host", "h"),
        ("x-amz-date", "20261122T060842Z"),
        ("x-amz-content-sha256", uri),
        ("authorization", authorization),
    ];
    for (method, headers) in [("POST", &headers[..]), ("GET", &headers[..2])] {
        let request = SignableRequest {
            method,
            uri,
            headers,
            body: b"{}",
        };
        if let Ok(claim) = Claim::parse(&request) {
            assert!(
                claim
                    .verify(&request, "not the secret", 1_795_327_722_000)
                    .is_err(),
                "nothing here is signed"
            );
            let refused = verify_registration(&claim, &request, authorization, 1_795_327_722_000);
            assert!(refused.is_err(), "nothing here is signed");
        }
    }
    is_rsa_public_key(&text);
}

/// A signed command, or the file or line of a key.
pub fn signed_command(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let text = text.trim_end();
    if let Ok(signed) = SignedCommand::parse(text) {
        assert_eq!(signed.token(), text, "a signed command has one text");
        let stranger = SigningKey::from_seed(&[1; 32]).public();
        for purpose in [Purpose::Command, Purpose::Session] {
            assert!(!signed.is_by(&stranger, purpose), "nobody signs here");
        }
    }
    if let Ok(key) = read_public_key(text) {
        assert_eq!(read_public_key(&public_key_line(&key, "")), Ok(key));
    }
    if let Ok(key) = SigningKey::read(text) {
        assert!(read_public_key(&public_key_line(&key.public(), "")).is_ok());
    }
}

/// A whole data channel under a hostile peer: frames of up to 255 bytes each after a length byte, and time passes.
pub fn channel(data: &[u8]) {
    for role in [Role::Agent, Role::Client] {
        let mut channel = DataChannel::new(role, [7; 32], 64 * 1024);
        let mut now = Now {
            monotonic: Duration::ZERO,
            unix_millis: 1_700_000_000_000,
        };
        channel.connected(now);
        let mut rest = data;
        while let Some((&length, tail)) = rest.split_first() {
            let (frame, tail) = tail.split_at(usize::from(length).min(tail.len()));
            rest = tail;
            now.monotonic += Duration::from_millis(u64::from(length));
            channel.receive(now, &Bytes::copy_from_slice(frame));
            channel.timeout(now);
            let mut outputs = 0;
            while channel.poll().is_some() {
                outputs += 1;
                assert!(outputs < 100_000, "one frame makes the machine talk without end");
            }
        }
    }
}

/// A multiplexer under a hostile peer, in pieces of a size that the first byte gives: it answers what it can read.
pub fn mux(data: &[u8]) {
    let Some((&first, rest)) = data.split_first() else {
        return;
    };
    for (side, version) in [(Side::Accepts, 1), (Side::Accepts, 2), (Side::Opens, 2)] {
        let mut mux = Mux::new(side, version);
        let own = mux.open();
        assert_eq!(own.is_some(), side == Side::Opens);
        for piece in rest.chunks(usize::from(first).max(1)) {
            if !mux.may_receive() || mux.receive(piece).is_err() {
                break;
            }
            let mut events = 0;
            while let Some(event) = mux.poll_event() {
                events += 1;
                assert!(events < 10_000, "a piece makes the multiplexer talk without end");
                let id = event.stream();
                match event {
                    MuxEvent::Opened(_) => drop(mux.write(id, b"hello")),
                    MuxEvent::Readable(_) => drop(mux.read(id, usize::from(first))),
                    MuxEvent::Finished(_) => mux.finish(id),
                    MuxEvent::Writable(_) => mux.reset(id),
                    // a peer may have opened the same number again
                    MuxEvent::Closed(_) | MuxEvent::Reset(_) | MuxEvent::Refused(_) => {}
                }
            }
            while let Some(said) = mux.transmit(1024) {
                assert!(said.len() <= 1024);
            }
            assert!(!mux.has_output());
        }
    }
}

/// A file that says it is a transcript: verified, received and exported, in two ways to cut it.
pub fn transcript(data: &[u8]) {
    let verify = |size: usize| {
        let mut verifier = Verifier::new(Keys::default());
        data.chunks(size).for_each(|piece| verifier.push(piece));
        verifier.finish()
    };
    let outcome = verify(data.len().max(1));
    assert_eq!(outcome, verify(7));
    assert!(
        !matches!(outcome.verdict, Verdict::Intact(_)),
        "no key is known, so nothing is signed"
    );
    assert_eq!(
        outcome.header.is_some(),
        !matches!(outcome.verdict, Verdict::Unreadable(_))
    );
    if let Some(header) = outcome.header {
        assert_eq!(Header::parse(header.to_line().as_bytes()), Ok(header));
    }
    let id = RecordingId::parse("alice-1").expect("a session's id");
    let mut receiver = Receiver::new(id, "mi-0123456789abcdef0".to_owned(), Vec::new());
    let refused = data.chunks(7).any(|piece| {
        let taken = receiver.push(piece, |_| unreachable!("no key is known"));
        taken.is_err()
    });
    assert!(
        refused || !data.contains(&b'\n'),
        "a header that names an unknown key"
    );
    let mut exported = Vec::new();
    let mut weaver = Weaver::new([String::from_utf8_lossy(data).into_owned()]);
    data.chunks(7).for_each(|piece| weaver.push(piece, &mut exported));
    weaver.finish(&mut exported);
    assert!(exported.starts_with(data), "an export keeps what was recorded");
    let output = |size: usize| {
        let mut reader = OutputReader::default();
        let pieces: Result<Vec<_>, _> = data.chunks(size).map(|piece| reader.push(piece)).collect();
        pieces.map(|pieces| pieces.concat())
    };
    assert_eq!(output(data.len().max(1)), output(7));
}

/// Output of a program on its way to an auditor's terminal, in two ways to cut it.
pub fn terminal(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let whole = TerminalFilter::default().filter(&text);
    let mut filter = TerminalFilter::default();
    let pieces = text.split_inclusive(|c: char| u32::from(c) % 3 == 0);
    let again: String = pieces.map(|piece| filter.filter(piece)).collect();
    assert_eq!(whole, again);
    let is_obeyed = |c: char| c.is_control() && !matches!(c, '\u{7}'..='\u{f}' | '\u{1b}');
    assert!(!whole.contains(is_obeyed), "{whole:?}");
    assert_eq!(TerminalFilter::default().filter(&whole), whole);
}

/// What a power cut may have left of a recording on the disk of the node whose key this is, looked at from a place that the
/// first byte gives, in two ways to cut it: what is said to be good is there, and what is sent for it verifies.
pub fn remains(data: &[u8]) {
    const NODE: &str = "mi-0123456789abcdef0";
    let Some((&first, left)) = data.split_first() else {
        return;
    };
    let from = left.len() * usize::from(first) / 256;
    let id = RecordingId::parse("alice-0a1b2c3d4e5f60718").expect("a session's id");
    let pair = Ed25519KeyPair::from_seed_unchecked(&[1; 32]).expect("a seed is 32 bytes");
    let public = pair.public_key().as_ref().try_into();
    let key = PublicKey(public.expect("a public key is 32 bytes"));
    let survey = |size: usize| {
        let mut survey = Survey::new(id.clone(), NODE.to_owned(), key, from as u64);
        left.get(from..)
            .unwrap_or_default()
            .chunks(size)
            .for_each(|piece| survey.push(piece));
        survey.finish()
    };
    let (Some(found), Some(again)) = (survey(left.len().max(1)), survey(7)) else {
        assert!(survey(left.len().max(1)).is_none() && survey(7).is_none());
        return;
    };
    assert_eq!((found.length, found.has_ended), (again.length, again.has_ended));
    let good = usize::try_from(found.length).unwrap_or(usize::MAX);
    assert!(from <= good && good <= left.len(), "{good} bytes are good");
    let lost = (left.len() - good) as u64;
    let closing = found.closing(lost, 1_795_000_000_000, |text| {
        let signed = pair.sign(text);
        signed.as_ref().try_into().expect("a signature is 64 bytes")
    });
    if from > 0 {
        return;
    }
    let mut receiver = Receiver::new(id, NODE.to_owned(), vec![key]);
    let mut sealed = None;
    let sent = [left.get(..good).unwrap_or_default(), closing.as_bytes()].concat();
    let taken = receiver.push(&sent, |position| sealed = Some(position.length));
    assert!(taken.is_ok(), "what is sent does not verify: {taken:?}");
    assert!(
        closing.is_empty() || sealed == Some(sent.len() as u64),
        "what closes it is sealed"
    );
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path, time::Instant};

    use super::*;

    /// xorshift64*: a seed gives the same mutations everywhere.
    struct Random(u64);

    impl Random {
        fn next(&mut self) -> u64 {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
        }

        fn below(&mut self, bound: usize) -> usize {
            usize::try_from(self.next() % u64::try_from(bound.max(1)).unwrap()).unwrap()
        }

        fn mutate(&mut self, seed: &[u8], other: &[u8]) -> Vec<u8> {
            let mut data = seed.to_vec();
            for _ in 0..=self.below(8) {
                let at = self.below(data.len());
                match self.below(6) {
                    0 if !data.is_empty() => data[at] ^= 1 << self.below(8),
                    1 if !data.is_empty() => data[at] = self.next().to_le_bytes()[0],
                    2 => data.insert(at, self.next().to_le_bytes()[0]),
                    3 => data.truncate(at),
                    4 if !data.is_empty() => {
                        data.remove(at);
                    }
                    _ => {
                        let from = self.below(other.len());
                        let length = self.below(64).min(other.len() - from);
                        data.splice(at..at, other[from..from + length].iter().copied());
                    }
                }
            }
            data
        }
    }

    #[test]
    fn no_target_breaks_on_its_corpus_or_on_seeded_mutations_of_it() {
        let seed = std::env::var("MOORLINE_FUZZ_SEED")
            .ok()
            .and_then(|seed| seed.parse().ok())
            .unwrap_or(20_261_122);
        let seconds = std::env::var("MOORLINE_FUZZ_SECONDS")
            .ok()
            .and_then(|s| s.parse().ok())
            .unwrap_or(4);
        println!("MOORLINE_FUZZ_SEED={seed}");
        for (name, target) in TARGETS {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("fuzz/corpus")
                .join(name);
            let mut files: Vec<_> = fs::read_dir(&folder)
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .collect();
            files.sort();
            assert!(!files.is_empty(), "{name} has no corpus");
            let corpus: Vec<Vec<u8>> = files.iter().map(|file| fs::read(file).unwrap()).collect();
            corpus.iter().for_each(|data| target(data));
            let mut random = Random(seed);
            let began = Instant::now();
            let mut runs = 0_u64;
            while began.elapsed() < Duration::from_secs(seconds) {
                let one = random.below(corpus.len());
                let two = random.below(corpus.len());
                target(&random.mutate(&corpus[one], &corpus[two]));
                runs += 1;
            }
            println!("{name}: {} seeds, {runs} mutations", corpus.len());
        }
    }
}
