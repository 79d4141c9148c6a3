use std::ffi::OsString;

use tokio::time::{Duration, timeout};

use super::*;
use crate::session::{login::UserRequest, program::Wanted};

fn own_user() -> LoginUser {
    LoginUser::resolve(&UserRequest::default()).unwrap()
}

fn shell(script: &str) -> Program {
    let wanted = Wanted::Commands {
        text: script.to_owned(),
        elevated: false,
    };
    Program::new(&wanted, &own_user(), None)
}

fn run(script: &str) -> (Pty, Shell) {
    start(&shell(script), &own_user(), Size { cols: 101, rows: 33 }).unwrap()
}

/// Reads to the end of the terminal.
async fn output(pty: &Pty) -> String {
    let mut all = Vec::new();
    let mut buffer = [0; 32 * 1024];
    loop {
        let read = timeout(Duration::from_secs(20), pty.read(&mut buffer));
        match read.await.expect("the terminal ends").unwrap() {
            0 => return String::from_utf8(all).unwrap(),
            n => all.extend_from_slice(&buffer[..n]),
        }
    }
}

/// Reads until this text was shown.
async fn read_until(pty: &Pty, text: &str) {
    let mut all = Vec::new();
    let mut buffer = [0; 4096];
    while !String::from_utf8_lossy(&all).contains(text) {
        let read = timeout(Duration::from_secs(20), pty.read(&mut buffer)).await;
        let n = read.expect("the terminal shows something").unwrap();
        assert!(n > 0, "ended after {:?}", String::from_utf8_lossy(&all));
        all.extend_from_slice(&buffer[..n]);
    }
}

/// The terminal's end is seen a moment before the process is a zombie.
async fn exit_code(shell: Shell) -> i32 {
    let mut changed = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::child()).unwrap();
    let code = loop {
        if let Some(code) = shell.exit_code() {
            break code;
        }
        timeout(Duration::from_millis(50), changed.recv()).await.ok();
    };
    assert_eq!(shell.exit_code(), Some(code), "it is still there to be asked");
    shell.reap();
    code
}

#[tokio::test]
async fn a_program_has_a_controlling_terminal_of_the_wanted_size() {
    let (pty, shell) = run("stty size; tty -s && echo terminal; stty size < /dev/tty");
    assert_eq!(output(&pty).await, "33 101\r\nterminal\r\n33 101\r\n");
    assert_eq!(exit_code(shell).await, 0);
}

#[tokio::test]
async fn a_resize_reaches_the_program() {
    let (pty, shell) = run("trap 'stty size; exit 3' WINCH; echo ready; while :; do sleep 0.02; done");
    read_until(&pty, "ready").await;
    pty.resize(Size { cols: 44, rows: 11 }).unwrap();
    read_until(&pty, "11 44").await;
    assert_eq!(exit_code(shell).await, 3);
}

#[tokio::test]
async fn the_exit_code_is_the_programs_or_128_and_the_signal() {
    for (script, expected) in [("exit 7", 7), ("kill -TERM $$", 143), ("kill -KILL $$", 137)] {
        let (pty, shell) = run(script);
        output(&pty).await;
        assert_eq!(exit_code(shell).await, expected, "{script}");
    }
}

#[tokio::test]
async fn input_arrives_and_control_c_interrupts() {
    let (pty, shell) = run("read line; echo \"got $line\"; trap 'exit 9' INT; while :; do sleep 0.02; done");
    assert_eq!(pty.write(b"hello\n").await.unwrap(), 6);
    read_until(&pty, "got hello").await;
    pty.write(b"\x03").await.unwrap();
    output(&pty).await;
    assert_eq!(exit_code(shell).await, 9);
}

#[tokio::test]
async fn a_program_inherits_no_ignored_signal_no_environment_and_no_descriptor() {
    let (pty, shell) = run(
        "grep SigIgn /proc/self/status; env | sed 's/=.*//' | sort | tr '\\n' ' '; ls /proc/$$/fd; umask; pwd",
    );
    let shown = output(&pty).await;
    assert!(shown.contains("SigIgn:\t0000000000000000"), "{shown}");
    let home = own_user().home;
    let home = if home.is_dir() { home } else { PathBuf::from("/") };
    assert!(
        shown.ends_with(&format!("0022\r\n{}\r\n", home.display())),
        "{shown}"
    );
    for name in ["CARGO", "RUST"] {
        assert!(!shown.contains(name), "{shown}");
    }
    let descriptors = shown
        .lines()
        .filter(|line| line.parse::<u32>().is_ok_and(|fd| (3..10).contains(&fd)));
    assert_eq!(descriptors.count(), 0, "{shown}");
    exit_code(shell).await;
}

#[tokio::test]
async fn a_shell_that_cannot_be_executed_is_reported() {
    let program = Program {
        path: PathBuf::from("/nowhere/zsh"),
        name: OsString::from("-zsh"),
        arguments: Vec::new(),
        environment: Vec::new(),
    };
    let error = start(&program, &own_user(), Size::default()).unwrap_err();
    let text = format!("{:#}", anyhow::Error::from(error));
    assert!(
        text.contains("/nowhere/zsh") && text.contains("No such file"),
        "{text}"
    );
}

#[tokio::test]
async fn much_output_arrives_complete() {
    let (pty, shell) = run("seq 1 200000");
    let shown = output(&pty).await;
    assert!(shown.starts_with("1\r\n2\r\n") && shown.ends_with("199999\r\n200000\r\n"));
    assert_eq!(shown.lines().count(), 200_000);
    exit_code(shell).await;
}

/// Only root can become somebody else.
#[tokio::test]
async fn another_users_shell_has_that_users_identity_and_owns_its_terminal() {
    if !Uid::effective().is_root() {
        return;
    }
    let request = UserRequest {
        run_as_enabled: true,
        run_as_user: "nobody",
        ..UserRequest::default()
    };
    let user = LoginUser::resolve(&request).unwrap();
    let program = shell("id -un; id -ur; id -G; stat -c '%U %a' $(tty); pwd");
    let (pty, child) = start(&program, &user, Size::default()).unwrap();
    let shown = output(&pty).await;
    let mut lines = shown.lines();
    assert_eq!(lines.next(), Some("nobody"));
    assert_eq!(lines.next(), Some(user.uid.to_string().as_str()));
    let groups: Vec<String> = user.groups.unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(lines.next(), Some(groups.join(" ").as_str()));
    assert_eq!(lines.next(), Some("nobody 620"));
    assert_eq!(lines.next(), Some("/"));
    assert_eq!(exit_code(child).await, 0);
}
