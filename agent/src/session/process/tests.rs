use moorline_protocol::message::PayloadType;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{Duration, timeout},
};

use super::*;
use crate::session::{
    environment::Environment,
    pipes::Pipes,
    program::{Separation, Wanted},
};

const PATIENCE: Duration = Duration::from_secs(20);

fn waiting(words: &[&str], separation: Option<Separation>) -> (Pipes, Process) {
    let user = LoginUser::own();
    let (pipes, write_ends) = Pipes::new(separation.as_ref()).unwrap();
    let wanted = Wanted::Words {
        words: words.iter().map(|&word| word.to_owned()).collect(),
        elevated: false,
        separation,
    };
    let launch = Launch {
        program: Program::new(&wanted, &user, Environment::of_login(&user, None)),
        user,
        write_ends,
    };
    (pipes, Process::Waiting(Box::new(launch)))
}

fn started(script: &str, separation: Option<Separation>) -> (Pipes, Process) {
    let (pipes, mut process) = waiting(&["sh", "-c", script], separation);
    process.launch();
    (pipes, process)
}

/// Reads to the end of both pipes.
async fn outputs(pipes: &mut Pipes) -> (String, String) {
    let (mut output, mut error) = (Vec::new(), Vec::new());
    let mut buffer = [0; 32 * 1024];
    loop {
        let read = timeout(PATIENCE, pipes.read(&mut buffer)).await;
        match read.expect("the pipes end").unwrap() {
            (kind, 0) => {
                if pipes.close(kind) {
                    let text = |bytes| String::from_utf8(bytes).unwrap();
                    return (text(output), text(error));
                }
            }
            (PayloadType::StdErr, length) => error.extend_from_slice(&buffer[..length]),
            (_, length) => output.extend_from_slice(&buffer[..length]),
        }
    }
}

async fn exit_code(process: Process) -> i32 {
    let mut changed = signal(SignalKind::child()).unwrap();
    loop {
        if let Some(code) = process.exit_code() {
            process.reap();
            return code;
        }
        timeout(Duration::from_millis(50), changed.recv()).await.ok();
    }
}

#[tokio::test]
async fn nothing_runs_before_the_launch() {
    let (pipes, process) = waiting(&["echo", "early"], None);
    assert_eq!((process.pid(), process.exit_code()), (None, None));
    let mut buffer = [0; 16];
    let early = timeout(Duration::from_millis(50), pipes.read(&mut buffer)).await;
    assert!(early.is_err(), "{early:?}");
}

#[tokio::test]
async fn a_program_has_two_outputs_no_input_no_terminal_and_a_session_of_its_own() {
    let script = concat!(
        "cat; echo out; echo err >&2; (: < /dev/tty) 2> /dev/null || echo no terminal;",
        "readlink /proc/self/fd/0; [ $(ps -o sid= -p $$) = $$ ] && echo leader",
    );
    let (mut pipes, process) = started(script, Some(Separation::default()));
    let (output, error) = outputs(&mut pipes).await;
    assert_eq!(output, "out\nno terminal\n/dev/null\nleader\n");
    assert_eq!(error, "err\n");
    assert_eq!(exit_code(process).await, 0);
}

#[tokio::test]
async fn both_outputs_are_one_when_they_are_not_told_apart() {
    let (mut pipes, process) = started("echo 1; echo 2 >&2; echo 3; exit 7", None);
    assert_eq!(outputs(&mut pipes).await, ("1\n2\n3\n".to_owned(), String::new()));
    assert_eq!(exit_code(process).await, 7);
}

#[tokio::test]
async fn a_signal_reaches_the_program_and_what_it_started() {
    for (signal, expected) in [(Signal::SIGINT, 130), (Signal::SIGQUIT, 131)] {
        let (mut pipes, process) = started("ulimit -c 0; echo up; sleep 1000; echo no", None);
        let mut buffer = [0; 16];
        timeout(PATIENCE, pipes.read(&mut buffer)).await.unwrap().unwrap();
        // a shell that is just starting a program can lose one: who types it then types it again
        let mut tries = 0;
        let ended = loop {
            process.interrupt(signal);
            match timeout(Duration::from_millis(100), outputs(&mut pipes)).await {
                Ok(ended) => break ended,
                Err(_) => tries += 1,
            }
            assert!(tries < 200, "{signal}");
        };
        assert_eq!(ended, Default::default(), "{signal}");
        assert_eq!(exit_code(process).await, expected);
    }
}

#[tokio::test]
async fn a_program_that_is_not_there_or_cannot_be_executed_ends_as_in_a_shell() {
    for (path, expected, words) in [
        ("no-such-program", 127, "No such file"),
        ("/etc/passwd", 126, "Permission denied"),
        ("/", 126, "Permission denied"),
    ] {
        let (mut pipes, mut process) = waiting(&[path], None);
        process.launch();
        assert_eq!(process.exit_code(), Some(expected), "{path}");
        let reason = &process.not_started().unwrap().reason;
        assert!(reason.contains(path) && reason.contains(words), "{reason}");
        assert_eq!(outputs(&mut pipes).await, Default::default());
        process.launch();
        assert_eq!(process.exit_code(), Some(expected), "a second launch is none");
    }
}
