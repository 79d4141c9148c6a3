//! What an auditor does with a file: `moorline transcript verify`, `play` and `text`, and a stock player.

use std::{fs, path::PathBuf};

use age::secrecy::ExposeSecret;
use anyhow::{Context, Result, ensure};
use base64::{Engine, prelude::BASE64_STANDARD};
use moorline_protocol::transcript::{
    Code, DataKey, Encryption, Encryptor, Header, RecordingId, Time, event_line,
};
use moorline_tests::{Cli, Terminal, python_program};
use tempfile::TempDir;
use tokio::process::Command;

use crate::recording::{Recording, export, header, keys, keys_of};

/// A directory with files.
struct Desk(TempDir);

impl Desk {
    fn new() -> Result<Self> {
        let desk = Self(tempfile::tempdir()?);
        desk.put("keys", keys().to_file().as_bytes())?;
        Ok(desk)
    }

    fn put(&self, name: &str, content: &[u8]) -> Result<String> {
        let path = self.path(name);
        fs::write(&path, content)?;
        Ok(path.to_str().context("a path in UTF-8")?.to_owned())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Exit code and standard output of a verification.
    async fn verify(&self, content: &[u8], keys: &str) -> Result<(i32, String)> {
        let file = self.put("session.cast", content)?;
        let keys = self.path(keys);
        let keys = keys.to_str().context("a path in UTF-8")?;
        let ran = Cli::without_endpoint()
            .run(&["transcript", "verify", &file, "--keys", keys])
            .await?;
        Ok((ran.code, ran.stdout + &ran.stderr))
    }
}

fn output(seconds: u64, text: &str) -> String {
    event_line(Time::from_micros(seconds * 1_000_000), Code::Output, text)
}

#[tokio::test]
async fn the_verifier_for_an_outsider_names_each_file_says_what_was_cut_and_needs_a_file() -> Result<()> {
    let desk = Desk::new()?;
    let whole = desk.put("whole.cast", &Recording::new("alice-1", false).bytes())?;
    let cut = desk.put("cut.cast", &Recording::new("alice-2", true).bytes())?;
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("verifier/verify_transcript.py");
    let verify = async |files: &[&str]| -> Result<(Option<i32>, String)> {
        let mut python = Command::new(python_program("python3")?);
        python
            .arg(&script)
            .args(files)
            .arg("--keys")
            .arg(desk.path("keys"));
        let ran = python.kill_on_drop(true).output().await?;
        Ok((ran.status.code(), String::from_utf8(ran.stdout)?))
    };
    let (code, said) = verify(&[&whole, &cut]).await?;
    let expected = format!("{whole}: intact\n{cut}: intact (cut: it was not recorded to the end)\n");
    ensure!(code == Some(0) && said == expected, "{said}");
    let (code, said) = verify(&[]).await?;
    ensure!(code == Some(2) && said.is_empty(), "{code:?} {said}");
    let (code, said) = verify(&["missing.cast"]).await?;
    ensure!(
        code == Some(2) && said.starts_with("missing.cast: unreadable\n"),
        "{said}"
    );
    Ok(())
}

#[tokio::test]
async fn verify_ends_with_0_intact_1_altered_with_the_place_2_unreadable() -> Result<()> {
    let desk = Desk::new()?;
    let recording = Recording::new("alice-1", false);
    let (code, said) = desk.verify(&recording.bytes(), "keys").await?;
    ensure!(
        code == 0 && said.contains("intact: alice-1 on mi-0123456789abcdef0 by alice, 4 records, complete"),
        "{said}"
    );
    let (code, said) = desk
        .verify(&Recording::new("alice-1", true).bytes(), "keys")
        .await?;
    ensure!(code == 0 && said.contains("cut"), "{said}");

    let altered = String::from_utf8(recording.bytes())?.replace("alice-1 2.1", "alice-1 2.7");
    let (code, said) = desk.verify(altered.as_bytes(), "keys").await?;
    let place = "line 8, record 2: the events of this record are not those that the node sealed";
    ensure!(
        code == 1 && said.contains(place) && said.contains(": altered: "),
        "{said}"
    );

    desk.put("others", keys_of(3, 3).to_file().as_bytes())?;
    let (code, said) = desk.verify(&recording.bytes(), "others").await?;
    ensure!(
        code == 1 && said.contains("not among the keys of this node"),
        "{said}"
    );

    for foreign in [
        &b""[..],
        b"\n",
        b"\xff\x00",
        b"{}\n",
        b"{\"version\":2,\"width\":80,\"height\":24}\n[0.1,\"o\",\"x\"]\n",
    ] {
        let (code, said) = desk.verify(foreign, "keys").await?;
        ensure!(code == 2 && said.contains("unreadable"), "{foreign:?}: {said}");
    }
    desk.put("none", b"{\"format\":1,\"endpoint\":[],\"nodes\":[]}")?;
    for keys in ["none", "session.cast", "is-not-there"] {
        let (code, said) = desk.verify(&recording.bytes(), keys).await?;
        ensure!(code == 2 && said.contains(keys), "{keys}: {said}");
    }
    Ok(())
}

/// xorshift64*: the same mutations in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let value = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33;
        usize::try_from(value).unwrap() % bound.max(1)
    }
}

#[tokio::test]
async fn hostile_recordings_get_a_verdict_and_text_shows_no_control_character_of_them() -> Result<()> {
    let desk = Desk::new()?;
    let hostile = "\u{1b}]52;c;ZXZpbA==\u{7}\u{1b}[2J\u{1b}[6n\u{9b}31m\u{90}q\u{9c}\u{85}\u{7f}\u{8}\u{1b}c\u{0}text\r\n";
    let note = r#"{"event":"gap","bytes":1,"reason":"\u001b[2J\u009b2J"}"#;
    let records = [
        vec![output(0, hostile), event_line(Time::default(), Code::Ours, note)],
        vec![
            event_line(Time::default(), Code::Marker, hostile),
            output(0, hostile),
        ],
    ];
    let mut named = header("alice-1");
    named.origin.operator = Some(hostile.to_owned());
    named.title = Some(hostile.to_owned());
    let base = export(&named, &records, None);
    let mut random = Random(20_261_126);
    for round in 0..60 {
        let mut file = base.clone();
        for _ in 0..(round % 4) {
            let at = random.below(file.len());
            match random.below(4) {
                0 => file.truncate(at),
                1 if !file.is_empty() => file[at] ^= 1 << random.below(8),
                2 => drop(file.drain(..at)),
                _ => file.extend_from_within(at..),
            }
        }
        let (code, _) = desk.verify(&file, "keys").await?;
        ensure!((0..=2).contains(&code), "round {round}: verify ended with {code}");
        let path = desk.path("session.cast");
        let path = path.to_str().context("a path in UTF-8")?;
        let cli = Cli::without_endpoint();
        let shown = cli.run(&["transcript", "text", "--file", path]).await?;
        let played = cli
            .run(&[
                "transcript",
                "play",
                "--speed",
                "10000",
                "--idle-limit",
                "0",
                "--file",
                path,
            ])
            .await?;
        ensure!(shown.code <= 1 && played.code <= 1, "{shown:?} {played:?}");
        let is_harmful = |c: char| c.is_control() && c != '\n';
        ensure!(
            !shown.stdout.contains(is_harmful),
            "round {round}: {:?}",
            shown.stdout
        );
        ensure!(
            !shown.stderr.contains(is_harmful),
            "round {round}: {:?}",
            shown.stderr
        );
        ensure!(
            round > 0 || (code == 0 && shown.stdout.contains("text")),
            "{shown:?}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn play_passes_on_what_is_seen_and_nothing_that_a_terminal_answers_or_keeps() -> Result<()> {
    let desk = Desk::new()?;
    let pieces = [
        "\u{1b}[31mred\u{1b}[",
        "6n\u{1b}]52;c;ZXZp",
        "bA==\u{7}\u{1b}[2J\u{1b}[21t",
        "end\r\n",
    ];
    let records = [pieces.map(|piece| output(0, piece)).to_vec()];
    desk.put("session.cast", &export(&header("alice-1"), &records, None))?;
    let file = desk.path("session.cast").display().to_string();
    let cli = Cli::without_endpoint();
    let play = ["transcript", "play", "--speed", "100", "--file", &file];
    let played = cli.run(&play).await?.success()?;
    ensure!(played.stdout == "\u{1b}[31mred\u{1b}[2Jend\r\n", "{played:?}");
    let raw = cli.run(&[&play[..], &["--raw"]].concat()).await?.success()?;
    ensure!(raw.stdout == pieces.concat(), "{raw:?}");
    Ok(())
}

#[tokio::test]
async fn a_stock_player_shows_an_exported_recording() -> Result<()> {
    let desk = Desk::new()?;
    let records = [
        vec![
            output(0, "first\r\n"),
            event_line(Time::default(), Code::Ours, r#"{"event":"gap"}"#),
        ],
        vec![
            event_line(Time::default(), Code::Resize, "100x30"),
            output(1, "second\r\n"),
        ],
    ];
    let file = desk.put("session.cast", &export(&header("alice-1"), &records, None))?;
    let asciinema = python_program("asciinema")?;
    let command = |arguments: &[&str]| {
        let mut command = Command::new(&asciinema);
        command.args(arguments).arg(&file);
        command
            .env_clear()
            .env("TERM", "xterm-256color")
            .env("LC_ALL", "C.UTF-8")
            .env("HOME", desk.0.path());
        command
    };
    let mut cat = Terminal::start(&mut command(&["cat"]), 80, 24)?;
    cat.expect("first\r\nsecond\r\n").await?;
    ensure!(cat.wait().await? == 0, "{}", cat.text());
    let mut play = Terminal::start(&mut command(&["play", "--speed", "20"]), 80, 24)?;
    play.expect("first\r\nsecond\r\n").await?;
    ensure!(play.wait().await? == 0, "{}", play.text());
    Ok(())
}

#[tokio::test]
async fn play_starts_where_it_should_pauses_jumps_and_ends() -> Result<()> {
    let desk = Desk::new()?;
    let records = [vec![
        output(0, "first"),
        output(100, "second"),
        output(3600, "third"),
    ]];
    let file = desk.put("session.cast", &export(&header("alice-1"), &records, None))?;
    let cli = Cli::without_endpoint();
    let mut play = cli.at_terminal(&["transcript", "play", "--file", &file, "--start-at", "90"])?;
    play.expect("first").await?;
    ensure!(!play.text().contains("second"), "{}", play.text());
    play.send(" \x1b[C\x1b[C\x1b[C ")?;
    play.expect("second").await?;
    ensure!(!play.text().contains("third"), "{}", play.text());
    play.send("\x1b[D\x1b[D")?;
    play.expect("first").await?;
    play.send("q")?;
    ensure!(play.wait().await? == 0, "{}", play.text());
    Ok(())
}

/// A file of an identity, and the encryption to it.
fn encryption(desk: &Desk, key: &[u8; 32]) -> Result<(String, Encryption)> {
    let identity = age::x25519::Identity::generate();
    let file = desk.put("identity", identity.to_string().expose_secret().as_bytes())?;
    let encryption = Encryption {
        recipients: vec![identity.to_public().to_string()],
        key: BASE64_STANDARD.encode(age::encrypt(&identity.to_public(), key)?),
    };
    Ok((file, encryption))
}

#[tokio::test]
async fn an_encrypted_recording_is_verified_without_a_secret_and_read_with_it() -> Result<()> {
    let desk = Desk::new()?;
    let (identity, encryption) = encryption(&desk, &[7; 32])?;
    let id = RecordingId::parse("alice-1")?;
    let mut encryptor = Encryptor::new(&DataKey::new([7; 32]), id);
    let mut encrypt = |lines: &[String]| encryptor.encrypt(Time::default(), lines.concat().as_bytes());
    let records = [
        vec![encrypt(&[output(0, "the secret "), output(1, "is\r\n")])],
        vec![encrypt(&[output(2, "shown\r\n")])],
    ];
    let mut header: Header = header("alice-1");
    header.origin.encryption = Some(encryption);
    let content = export(&header, &records, None);
    let (code, said) = desk.verify(&content, "keys").await?;
    ensure!(code == 0, "{said}");
    let file = desk.path("session.cast");
    let file = file.to_str().context("a path in UTF-8")?;
    let cli = Cli::without_endpoint();
    let blind = cli.run(&["transcript", "text", "--file", file]).await?;
    ensure!(
        blind.code == 1 && blind.stderr.contains("--identity"),
        "{blind:?}"
    );
    ensure!(!blind.stdout.contains("secret"), "{blind:?}");
    let read = cli
        .run(&[
            "transcript",
            "text",
            "--no-time",
            "--file",
            file,
            "--identity",
            &identity,
        ])
        .await?
        .success()?;
    ensure!(read.stdout == "the secret is\nshown\n", "{read:?}");
    let played = cli
        .run(&[
            "transcript",
            "play",
            "--speed",
            "10000",
            "--file",
            file,
            "--identity",
            &identity,
        ])
        .await?
        .success()?;
    ensure!(played.stdout == "the secret is\r\nshown\r\n", "{played:?}");
    Ok(())
}

#[tokio::test]
async fn what_stands_behind_a_line_that_is_no_event_is_shown_and_the_place_is_marked() -> Result<()> {
    let desk = Desk::new()?;
    let cast = "{\"version\":2,\"width\":80,\"height\":24}\n[0,\"o\",\"before\\r\\n\"]\nno event\n\
                [1,\"o\",\"between\\r\\n\"]\n[2,\"o\"]\n[3,\"o\",\"behind\\r\\n\"]\n";
    let long = format!(
        "{cast}[4,\"o\",\"{}\"]\n[5,\"o\",\"last\\r\\n\"]\n",
        "x".repeat(9 << 20)
    );
    let cli = Cli::without_endpoint();
    let file = desk.put("broken.cast", long.as_bytes())?;
    let text = cli
        .run(&["transcript", "text", "--no-time", "--file", &file])
        .await?;
    let broken = |line: u32| format!("line {line} of the transcript is not asciicast v2");
    ensure!(
        text.stdout
            == format!(
                "before\n-- {}\nbetween\n-- {}\nbehind\n-- {}\nlast\n",
                broken(3),
                broken(5),
                broken(7)
            ),
        "{text:?}"
    );
    ensure!(text.code == 1 && text.stderr.contains(&broken(3)), "{text:?}");
    let play = ["transcript", "play", "--speed", "10000", "--file", &file];
    let played = cli.run(&play).await?;
    ensure!(
        played.stdout == "before\r\nbetween\r\nbehind\r\nlast\r\n",
        "{played:?}"
    );
    ensure!(
        played.code == 1
            && [3, 5, 7]
                .iter()
                .all(|line| played.stderr.contains(&broken(*line))),
        "{played:?}"
    );
    Ok(())
}

#[tokio::test]
async fn what_stands_behind_a_damaged_line_of_an_encrypted_recording_is_shown_as_well() -> Result<()> {
    let desk = Desk::new()?;
    let (identity, encryption) = encryption(&desk, &[7; 32])?;
    let mut encryptor = Encryptor::new(&DataKey::new([7; 32]), RecordingId::parse("alice-1")?);
    let lines: Vec<String> = ["before", "damaged", "behind"]
        .iter()
        .map(|text| encryptor.encrypt(Time::default(), output(0, &format!("{text}\r\n")).as_bytes()))
        .collect();
    let mut header: Header = header("alice-1");
    header.origin.encryption = Some(encryption);
    let whole = export(&header, std::slice::from_ref(&lines), None);
    let at = whole
        .windows(lines[1].len())
        .position(|window| window == lines[1].as_bytes())
        .context("the line stands there")?;
    let cli = Cli::without_endpoint();
    // of the text, which does not open; a bit that leaves no character; the form; an end of line in the midst of it
    for (in_line, byte) in [(20, b'!'), (20, 0xc3), (0, b'x'), (20, b'\n')] {
        let mut damaged = whole.clone();
        damaged[at + in_line] = byte;
        let file = desk.put("session.cast", &damaged)?;
        let text = [
            "transcript",
            "text",
            "--no-time",
            "--file",
            &file,
            "--identity",
            &identity,
        ];
        let text = cli.run(&text).await?;
        ensure!(text.stdout.starts_with("before\n-- "), "{byte}: {text:?}");
        ensure!(
            text.stdout.ends_with("\nbehind\n") && text.code == 1,
            "{byte}: {text:?}"
        );
        ensure!(
            !text.stdout.contains("-- the encrypted line 2"),
            "{byte}: {text:?}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn an_encrypted_line_that_is_millions_of_lines_takes_little_memory() -> Result<()> {
    let desk = Desk::new()?;
    let (identity, encryption) = encryption(&desk, &[7; 32])?;
    let mut encryptor = Encryptor::new(&DataKey::new([7; 32]), RecordingId::parse("alice-1")?);
    let hostile = "x\n".repeat(2 << 20);
    let line = encryptor.encrypt(Time::default(), hostile.as_bytes());
    let mut header: Header = header("alice-1");
    header.origin.encryption = Some(encryption);
    let file = desk.put("session.cast", &export(&header, &[vec![line]], None))?;
    let cli = Cli::without_endpoint();
    let command = cli.command(&["transcript", "text", "--file", &file, "--identity", &identity])?;
    let mut limited = Command::new("sh");
    limited
        .args(["-c", "ulimit -v 200000; \"$0\" \"$@\" 2>&1 | head -n 2"])
        .arg(command.as_std().get_program())
        .args(command.as_std().get_args())
        .kill_on_drop(true);
    let shown = limited.output().await?;
    ensure!(
        String::from_utf8_lossy(&shown.stdout).contains("line 2 of the transcript is not asciicast"),
        "{shown:?}"
    );
    Ok(())
}
