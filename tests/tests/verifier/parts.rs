//! Parts of a command around its reboots, as a node that lies could have made them, given to both verifiers.

use std::{fs, path::Path};

use anyhow::{Result, ensure};
use moorline_protocol::transcript::{Code, Digest, RecordingKind, Time, Verifier, event_line};
use moorline_tests::{Cli, python_program};
use tokio::process::Command;

use crate::recording::{export, header, keys};

const FIRST: &str = "5e6f7a8b-0000-4000-8000-000000000001.mi-0123456789abcdef0";
const GOES_ON: &str = r#"{"event":"end","reason":"the node is rebooted","continues":true}"#;
const ENDS: &str = r#"{"event":"end","reason":"Success"}"#;

/// A part, and the hash of its last record.
fn part(number: u32, follows: Option<Digest>, end: &str) -> (Vec<u8>, Digest) {
    let id = match number {
        1 => FIRST.to_owned(),
        _ => format!("{FIRST}.{number}"),
    };
    named(&id, follows, end)
}

/// The same under any name.
fn named(id: &str, follows: Option<Digest>, end: &str) -> (Vec<u8>, Digest) {
    let mut header = header(id);
    header.origin.kind = RecordingKind::Command;
    header.origin.follows = follows;
    let events = vec![event_line(Time::default(), Code::Ours, end)];
    let file = export(&header, &[events], None);
    let mut verifier = Verifier::new(keys());
    verifier.push(&file);
    (file, verifier.finish().hash)
}

#[tokio::test]
async fn a_part_that_is_missing_doubled_exchanged_or_of_another_run_is_found_by_both_verifiers() -> Result<()>
{
    let (one, end_of_one) = part(1, None, GOES_ON);
    let (two, end_of_two) = part(2, Some(end_of_one), GOES_ON);
    let (three, _) = part(3, Some(end_of_two), ENDS);
    // sealed by the node itself, later or elsewhere
    let (cut_short, _) = part(1, None, ENDS);
    let (other_one, _) = part(1, None, r#"{"event":"end","continues":true,"reason":"else"}"#);
    let (loose, _) = part(2, None, ENDS);
    let (last, _) = part(2, Some(end_of_one), ENDS);
    let (skipping, _) = part(3, Some(end_of_one), ENDS);
    // names that are no part's
    let strange = [".2.3", ".4294967296", "x.y"].map(|end| named(&format!("{FIRST}{end}"), None, ENDS).0);
    let table: [(&[&[u8]], i32, &str); 12] = [
        (&[&cut_short, &strange[0], &strange[1], &strange[2]], 0, ""),
        (&[&one, &two, &three], 0, ""),
        (&[&three, &two, &one], 0, ""),
        (&[&one, &last], 0, ""),
        // the node lost its power before it could say how part 1 ended
        (&[&cut_short, &loose], 0, ""),
        (&[&one, &loose], 1, "it does not follow part 1 as that is here"),
        (
            &[&other_one, &last],
            1,
            "it does not follow part 1 as that is here",
        ),
        (
            &[&one, &two, &skipping],
            1,
            "it does not follow part 2 as that is here",
        ),
        (&[&one, &three], 1, "part 2, in which it goes on, is not there"),
        (&[&two, &three], 1, "part 1, which it follows, is not there"),
        (&[&one, &two], 1, "part 3, in which it goes on, is not there"),
        (&[&one, &last, &two, &three], 1, "part 2 is there twice"),
    ];
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name).display().to_string();
    let keys_path = path("keys");
    fs::write(&keys_path, keys().to_file())?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("verifier/verify_transcript.py");
    for (row, (parts, expected, what)) in table.into_iter().enumerate() {
        let mut files = Vec::new();
        for (number, content) in parts.iter().enumerate() {
            let file = path(&number.to_string());
            fs::write(&file, content)?;
            files.push(file);
        }
        let names: Vec<&str> = files.iter().map(String::as_str).collect();
        let arguments = [&["transcript", "verify", "--keys", &keys_path], &names[..]].concat();
        let ours = Cli::without_endpoint().run(&arguments).await?;
        ensure!(
            ours.code == expected && ours.stdout.contains(what),
            "row {row}: {ours:?}"
        );
        let mut python = Command::new(python_program("python3")?);
        python
            .arg(&script)
            .args(["--keys", &keys_path])
            .args(&names)
            .kill_on_drop(true);
        let theirs = python.output().await?;
        ensure!(theirs.status.code() == Some(expected), "row {row}: {theirs:?}");
    }
    Ok(())
}
