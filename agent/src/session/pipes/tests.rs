use std::{fs::File, io::Write, time::Duration};

use tokio::time::timeout;

use super::*;

fn separated(stdout_prefix: &str, stderr_prefix: &str) -> (Pipes, WriteEnds) {
    let separation = Separation {
        stdout_prefix: stdout_prefix.to_owned(),
        stderr_prefix: stderr_prefix.to_owned(),
    };
    Pipes::new(Some(&separation)).unwrap()
}

async fn read(pipes: &Pipes) -> (PayloadType, Vec<u8>) {
    let mut buffer = [0; 4096];
    let read = timeout(Duration::from_secs(20), pipes.read(&mut buffer));
    let (payload_type, length) = read.await.expect("there is something to read").unwrap();
    (payload_type, buffer[..length].to_vec())
}

#[tokio::test]
async fn what_is_told_apart_ends_when_both_have_ended() {
    let (mut pipes, ends) = separated("", "");
    let mut output = File::from(ends.output);
    let mut error = File::from(ends.error);
    error.write_all(b"wrong").unwrap();
    assert_eq!(read(&pipes).await, (PayloadType::StdErr, b"wrong".to_vec()));
    drop(error);
    assert_eq!(read(&pipes).await, (PayloadType::StdErr, Vec::new()));
    assert!(!pipes.close(PayloadType::StdErr), "the other is open");
    output.write_all(b"right").unwrap();
    assert_eq!(read(&pipes).await, (PayloadType::Output, b"right".to_vec()));
    drop(output);
    assert_eq!(read(&pipes).await, (PayloadType::Output, Vec::new()));
    assert!(pipes.close(PayloadType::Output));
}

#[tokio::test]
async fn what_is_not_told_apart_keeps_its_order() {
    let (mut pipes, ends) = Pipes::new(None).unwrap();
    let mut output = File::from(ends.output);
    let mut error = File::from(ends.error);
    for _ in 0..3 {
        output.write_all(b"o").unwrap();
        error.write_all(b"e").unwrap();
    }
    assert_eq!(read(&pipes).await, (PayloadType::Output, b"oeoeoe".to_vec()));
    drop((output, error));
    assert_eq!(read(&pipes).await, (PayloadType::Output, Vec::new()));
    assert!(pipes.close(PayloadType::Output) && !pipes.is_separated());
    assert_eq!((pipes.piece_bytes(), pipes.prefix_bytes()), (None, 0));
}

#[tokio::test]
async fn a_flood_of_output_does_not_hide_an_error() {
    let (pipes, ends) = separated("", "");
    let (mut output, mut error) = (File::from(ends.output), File::from(ends.error));
    std::thread::spawn(move || while output.write_all(&[b'x'; 4096]).is_ok() {});
    assert_eq!(read(&pipes).await.0, PayloadType::Output);
    error.write_all(b"wrong").unwrap();
    let mut reads = 0;
    while read(&pipes).await.0 == PayloadType::Output {
        reads += 1;
        assert!(reads < 1000);
    }
}

#[tokio::test]
async fn a_prefix_stands_before_the_first_piece_and_after_each_line_end() {
    let (mut pipes, _ends) = separated("OUT:", "ERR:");
    for (payload_type, piece, sent) in [
        (PayloadType::Output, "a", "OUT:a"),
        (PayloadType::Output, "b\nc", "b\nc"),
        (PayloadType::StdErr, "x\n", "ERR:x\n"),
        (PayloadType::Output, "d\n", "d\n"),
        (PayloadType::Output, "e\n", "OUT:e\n"),
        (PayloadType::StdErr, "y", "ERR:y"),
        (PayloadType::StdErr, "z", "z"),
    ] {
        let got = pipes.with_prefix(payload_type, piece.as_bytes());
        assert_eq!(String::from_utf8_lossy(&got), sent);
    }
}

#[tokio::test]
async fn a_piece_and_its_prefix_fit_into_the_smallest_payload() {
    let (pipes, _ends) = separated("123456789_", "123456789_123456789_123456789_");
    assert_eq!((pipes.piece_bytes(), pipes.prefix_bytes()), (Some(994), 30));
    let (pipes, _ends) = separated("", "");
    assert_eq!((pipes.piece_bytes(), pipes.prefix_bytes()), (None, 0));
}
