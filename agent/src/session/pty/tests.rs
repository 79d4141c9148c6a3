use std::ffi::OsString;

use tokio::time::{Duration, timeout};

use super::*;
use crate::{
    config::SessionConfig,
    session::{
        environment::Environment,
        login::{Login, UserRequest},
        program::Wanted,
    },
};

fn own_user() -> LoginUser {
    LoginUser::own()
}

fn start(program: &Program, user: &LoginUser, size: Size) -> Result<(Pty, Shell), PtyError> {
    let (pty, slave) = open_for(user, size)?;
    Ok((pty, start_on(slave, program, user)?))
}

fn shell(script: &str) -> Program {
    let wanted = Wanted::Commands {
        text: script.to_owned(),
        elevated: false,
    };
    let user = own_user();
    let environment = Environment::of_login(&user, None);
    Program::new(&wanted, &user, environment)
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
async fn exit_code_of(shell: &Shell) -> i32 {
    let mut changed = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::child()).unwrap();
    loop {
        if let Some(code) = shell.exit_code() {
            assert_eq!(shell.exit_code(), Some(code), "it is still there to be asked");
            return code;
        }
        timeout(Duration::from_millis(50), changed.recv()).await.ok();
    }
}

async fn exit_code(shell: Shell) -> i32 {
    let code = exit_code_of(&shell).await;
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
async fn commands_are_no_secret_of_the_process_list_and_have_the_terminal_for_themselves() {
    let (pty, shell) = run(concat!(
        "echo pass''word $# $0; tr '\\0' ' ' < /proc/$$/cmdline | grep -c password\n",
        "trap 'read last; echo \"last $last\"' EXIT; read first; echo \"first $first\"; exit 4 # end",
    ));
    pty.write(b"one\ntwo\n").await.unwrap();
    let shown = output(&pty).await;
    let lines: Vec<&str> = shown
        .lines()
        .filter(|line| !matches!(*line, "one" | "two"))
        .collect();
    assert_eq!(lines, ["password 0 sh", "0", "first one", "last two"], "{shown}");
    assert_eq!(exit_code(shell).await, 4);
}

#[tokio::test]
async fn one_program_takes_the_place_of_its_shell_and_lives_through_control_c() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("program");
    let script = "#!/bin/sh\ntrap 'echo got; exit 9' INT\necho ready $PPID\nwhile :; do sleep 0.02; done\n";
    // by another process: what a test beside this one starts may hold for a moment what is open here, and keep it busy
    let write = "printf %s \"$1\" > \"$2\" && chmod 755 \"$2\"";
    let mut writer = Command::new("sh");
    writer.args(["-c", write, "sh", script]).arg(&path);
    assert!(writer.status().unwrap().success());
    let (pty, shell) = run(&format!("{} 'an argument'", path.display()));
    read_until(&pty, &format!("ready {}", std::process::id())).await;
    pty.write(b"\x03").await.unwrap();
    assert!(output(&pty).await.contains("got"));
    assert_eq!(exit_code(shell).await, 9);
    // a builtin is none, and runs all the same
    for (command, shown) in [("echo 'a  b' c=d", "a  b c=d\r\n"), ("umask", "0022\r\n")] {
        let (pty, shell) = run(command);
        assert_eq!(output(&pty).await, shown);
        assert_eq!(exit_code(shell).await, 0);
    }
    let (pty, shell) = run("no-such-program");
    assert!(output(&pty).await.contains("not found"));
    assert_eq!(exit_code(shell).await, 127);
}

#[tokio::test]
async fn much_text_can_be_run() {
    let (pty, shell) = run(&format!("{}echo done\n\n", ": a long line\n".repeat(50_000)));
    assert_eq!(output(&pty).await, "done\r\n");
    exit_code(shell).await;
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
    let (pty, shell) = run("read line; trap 'exit 9' INT; echo \"got $line\"; while :; do sleep 0.02; done");
    assert_eq!(pty.write(b"hello\n").await.unwrap(), 6);
    read_until(&pty, "got hello").await;
    pty.write(b"\x03").await.unwrap();
    output(&pty).await;
    assert_eq!(exit_code(shell).await, 9);
}

#[tokio::test]
async fn a_program_inherits_no_ignored_signal_no_environment_and_no_descriptor() {
    let (pty, shell) = run(concat!(
        "grep SigIgn /proc/self/status; env | sed 's/=.*//' | sort | tr '\\n' ' '; echo;",
        "ls -m /proc/self/fd; umask; pwd",
    ));
    let shown = output(&pty).await;
    let lines: Vec<&str> = shown.lines().collect();
    let [ignored, names, descriptors, umask, directory] = lines.as_slice() else {
        panic!("{shown}");
    };
    let ignored = u64::from_str_radix(ignored.trim_start_matches("SigIgn:").trim(), 16).unwrap();
    assert_eq!(
        ignored & 0x7fff_ffff,
        0,
        "no signal that a program may use is ignored"
    );
    assert_eq!(*names, "HOME LANG LOGNAME PATH PWD SHELL TERM USER ");
    // The fourth is the folder that `ls` reads.
    assert_eq!(*descriptors, "0, 1, 2, 3");
    assert_eq!(*umask, "0022");
    let home = own_user().home;
    let home = if home.is_dir() { home } else { PathBuf::from("/") };
    assert_eq!(*directory, home.to_str().unwrap());
    exit_code(shell).await;
}

/// The opposite of the daemon's protection, since only root may have that.
#[tokio::test]
async fn a_program_is_not_spared_nor_chosen_when_memory_runs_out() {
    let own = "/proc/self/oom_score_adj";
    let before = std::fs::read_to_string(own).unwrap();
    std::fs::write(own, "300").unwrap();
    let (pty, shell) = run("cat /proc/$$/oom_score_adj");
    std::fs::write(own, before.trim()).unwrap();
    assert_eq!(output(&pty).await, "0\r\n");
    exit_code(shell).await;
}

#[tokio::test]
async fn a_shell_that_cannot_be_executed_is_reported() {
    let program = Program {
        path: PathBuf::from("/nowhere/zsh"),
        name: OsString::from("-zsh"),
        arguments: Vec::new(),
        input: None,
        environment: Environment::default(),
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

#[test]
fn only_the_group_tty_may_write_to_a_terminal() {
    let (tty, own) = (Gid::from_raw(5), Gid::from_raw(100));
    let private = Mode::S_IRUSR | Mode::S_IWUSR;
    assert_eq!(terminal_access(Some(tty), own), (tty, private | Mode::S_IWGRP));
    assert_eq!(terminal_access(None, own), (own, private));
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
    let resolved = LoginUser::resolve(&request, &SessionConfig::default(), Path::new("/")).await;
    let Login { user, .. } = resolved.unwrap();
    let program = shell("cat /proc/self/loginuid; echo; id -un; id -ur; id -G; stat -c '%U %a' $(tty); pwd");
    let (pty, child) = start(&program, &user, Size::default()).unwrap();
    let shown = output(&pty).await;
    let mut lines = shown.lines();
    if lines.next() != Some(user.uid.to_string().as_str()) {
        println!("not checked: this kernel keeps no loginuid");
    }
    assert_eq!(lines.next(), Some("nobody"));
    assert_eq!(lines.next(), Some(user.uid.to_string().as_str()));
    let groups: Vec<String> = user.groups.unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(lines.next(), Some(groups.join(" ").as_str()));
    assert_eq!(lines.next(), Some("nobody 620"));
    assert_eq!(lines.next(), Some("/"));
    assert_eq!(exit_code(child).await, 0);
}

/// As a session that has printed much.
fn run_ahead(script: &str) -> (Pty, Shell) {
    let (mut pty, shell) = run(script);
    pty.read_ahead();
    assert!(pty.ahead.is_some());
    (pty, shell)
}

#[tokio::test]
async fn what_is_read_ahead_is_all_that_was_written_in_order_to_the_end() {
    let (pty, shell) = run_ahead("i=0; while [ $i -lt 60000 ]; do echo \"line $i\"; i=$((i+1)); done");
    let shown = output(&pty).await;
    let expected: String = (0..60_000).map(|line| format!("line {line}\r\n")).collect();
    assert!(shown == expected, "{} bytes of {}", shown.len(), expected.len());
    assert_eq!(pty.read(&mut [0; 10]).await.unwrap(), 0, "and the end stays");
    assert_eq!(exit_code(shell).await, 0);
}

#[tokio::test]
async fn what_is_typed_reaches_a_program_that_is_read_ahead() {
    let (pty, shell) = run_ahead("stty -echo; echo ready; read line; echo \"got $line\"");
    read_until(&pty, "ready").await;
    assert_eq!(pty.write(b"this\n").await.unwrap(), 5);
    assert_eq!(output(&pty).await.trim_start(), "got this\r\n");
    assert_eq!(exit_code(shell).await, 0);
}

#[tokio::test]
async fn a_terminal_that_is_read_ahead_is_hung_up_when_it_is_dropped_full_or_not() {
    for script in ["echo ready; while :; do sleep 0.05; done", "echo ready; yes"] {
        let (pty, shell) = run_ahead(script);
        read_until(&pty, "ready").await;
        drop(pty);
        let code = timeout(Duration::from_secs(20), exit_code(shell)).await;
        assert_eq!(code.expect("it ends"), 128 + libc::SIGHUP, "{script}");
    }
}
