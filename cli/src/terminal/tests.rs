use std::{os::fd::AsFd, process::Stdio};

use nix::{
    pty::openpty,
    sys::termios::{LocalFlags, tcgetattr},
};

use super::*;

/// Set in the child that has the pseudo terminal as its standard input.
const MARK: &str = "MOORLINE_TEST_PANIC_IN_RAW_MODE";

/// Not a test by itself: the child of the one below.
#[test]
fn child_that_panics_in_raw_mode() {
    if std::env::var_os(MARK).is_some() {
        let _raw = RawMode::enter().unwrap().expect("standard input is a terminal");
        let mode = tcgetattr(io::stdin()).unwrap();
        assert!(!mode.local_flags.contains(LocalFlags::ECHO), "raw");
        panic!("on purpose");
    }
}

#[test]
fn a_panic_gives_the_terminal_its_mode_back() {
    let pty = openpty(None, None).unwrap();
    let before = tcgetattr(pty.slave.as_fd()).unwrap();
    assert!(before.local_flags.contains(LocalFlags::ECHO | LocalFlags::ICANON));
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "terminal::tests::child_that_panics_in_raw_mode",
            "--nocapture",
        ])
        .env(MARK, "1")
        .stdin(Stdio::from(pty.slave.try_clone().unwrap()))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("on purpose"), "{said}");
    let after = tcgetattr(pty.slave.as_fd()).unwrap();
    assert_eq!(after.local_flags, before.local_flags);
    assert_eq!(after.input_flags, before.input_flags);
    assert_eq!(after.output_flags, before.output_flags);
}

#[test]
fn a_terminal_tells_its_size() {
    let size = nix::pty::Winsize {
        ws_row: 50,
        ws_col: 132,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let pty = openpty(Some(&size), None).unwrap();
    assert_eq!(size_of(&pty.slave), Some(TerminalSize { cols: 132, rows: 50 }));
    let file = tempfile::tempfile().unwrap();
    assert_eq!(size_of(&file), None);
}
