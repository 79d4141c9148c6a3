//! A script while it runs: its output, its time, and its end.

use std::{
    os::unix::process::CommandExt,
    pin::{Pin, pin},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use moorline_protocol::document::{Ending, StopReason};
use nix::{
    errno::Errno,
    sys::{
        prctl::set_pdeathsig,
        signal::Signal,
        stat::{Mode, umask},
    },
    unistd::{Pid, getpid, getppid},
};
use tokio::{
    io::AsyncReadExt,
    process::{Child, Command},
    time::{Instant, sleep_until},
};

use crate::runtime::{give_back_core_limit, set_own};

use super::{
    Outputs, StepContext,
    members::Members,
    process_record::{self, ScriptRecord},
};

/// How long processes that a finished script left behind may hold its pipes before the step ends without them.
const DRAIN: Duration = Duration::from_secs(5);
/// The same after the script was stopped.
const DRAIN_STOPPED: Duration = Duration::from_millis(500);
/// Between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(2);
/// A process that does not end this long after SIGKILL hangs in the kernel, and is given up.
const KILL_PATIENCE: Duration = Duration::from_secs(10);
/// How often those are counted that have been asked to end and outlive the script.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

const READ_BYTES: usize = 32 * 1024;

/// Runs a program as the leader of a process group, and where there is one of a control group, of its own. With a stop
/// everything ends that it has started.
pub(super) async fn run(
    command: Command,
    timeout: Duration,
    context: &mut StepContext<'_>,
    outputs: &mut Outputs,
) -> Ending {
    run_until(std::future::pending(), command, timeout, context, outputs).await
}

/// As [`run`], of a program that is cancelled as well when `enough` is over.
pub(super) async fn run_until(
    enough: impl Future<Output = ()>,
    mut command: Command,
    timeout: Duration,
    context: &mut StepContext<'_>,
    outputs: &mut Outputs,
) -> Ending {
    let record = process_record::path(&context.run_directory);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut members = match Members::prepare(command.as_std_mut(), context) {
        Ok(members) => members,
        Err(reason) => return Ending::NotStarted(reason),
    };
    become_script(command.as_std_mut());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            members.leave(false, context, outputs).await;
            return Ending::NotStarted(error.to_string());
        }
    };
    members.lead(child.id());
    // Should this worker be killed, the daemon ends what the script has started.
    let recorded = child
        .id()
        .and_then(|pid| ScriptRecord::write(&record, pid, members.group()));
    let mut script = RunningScript {
        members,
        state: State::Runs {
            time_out: Instant::now() + timeout,
        },
        exit: None,
    };
    let stop = &mut context.stop;
    let stopped = async {
        // A closed channel means that nobody can stop us any more; the time-out still does.
        match stop.wait_for(Option::is_some).await {
            Ok(reason) => reason.unwrap_or(StopReason::Cancelled),
            Err(_) => std::future::pending().await,
        }
    };
    let stopped = async {
        tokio::select! {
            reason = stopped => reason,
            () = enough => StopReason::Cancelled,
        }
    };
    let ending = script.run(&mut child, pin!(stopped), outputs).await;
    let was_stopped = matches!(ending, Ending::Stopped(_));
    script.members.leave(was_stopped, context, outputs).await;
    drop(recorded);
    ending
}

/// Gives the process what a script expects, instead of what the agent's unit has for the agent itself, and binds its
/// life to that of the thread which starts it: in a worker that is the main thread, so a script never goes on when
/// nobody is left who could report or cancel it.
fn become_script(command: &mut std::process::Command) {
    let worker = getpid();
    #[expect(unsafe_code, reason = "only the child can change what it has inherited")]
    // SAFETY: between fork and exec `leave_agent` makes system calls only, and allocates nothing.
    unsafe {
        command.pre_exec(move || leave_agent(worker));
    }
}

/// In the child.
fn leave_agent(worker: Pid) -> std::io::Result<()> {
    set_pdeathsig(Signal::SIGKILL)?;
    if getppid() != worker {
        // It died before that.
        return Err(Errno::ESRCH.into());
    }
    umask(Mode::S_IWGRP | Mode::S_IWOTH);
    give_back_core_limit();
    // Where it is refused, the script is only a little safer from the kernel than it should be.
    let _unchanged = set_own(c"/proc/self/oom_score_adj", b"0");
    Ok(())
}

struct RunningScript {
    members: Members,
    state: State,
    exit: Option<ExitStatus>,
}

/// How far it is on its way to the end.
#[derive(Debug, Clone, Copy)]
enum State {
    Runs {
        time_out: Instant,
    },
    /// All were asked to end, and have until then.
    Asked {
        reason: StopReason,
        kill_at: Instant,
    },
    /// All were killed; whoever has not ended until then hangs in the kernel.
    Killed {
        reason: StopReason,
        give_up_at: Instant,
    },
    /// It has ended by itself. What it has left may hold its pipes until then.
    Drains {
        until: Instant,
    },
}

impl RunningScript {
    async fn run(
        &mut self,
        child: &mut Child,
        mut stopped: Pin<&mut impl Future<Output = StopReason>>,
        outputs: &mut Outputs,
    ) -> Ending {
        let (mut stdout, mut stderr) = (child.stdout.take(), child.stderr.take());
        let (mut stdout_buffer, mut stderr_buffer) = (vec![0; READ_BYTES], vec![0; READ_BYTES]);
        while self.exit.is_none() || stdout.is_some() || stderr.is_some() || self.is_asked() {
            let deadline = self.deadline();
            tokio::select! {
                status = child.wait(), if self.exit.is_none() => match status {
                    Ok(status) => self.has_exited(status),
                    Err(error) => return Ending::NotStarted(format!("cannot be waited for: {error}")),
                },
                read = read(&mut stdout, &mut stdout_buffer), if stdout.is_some() => match read {
                    Some(bytes) => outputs.stdout.push(bytes),
                    None => stdout = None,
                },
                read = read(&mut stderr, &mut stderr_buffer), if stderr.is_some() => match read {
                    Some(bytes) => outputs.stderr.push(bytes),
                    None => stderr = None,
                },
                reason = &mut stopped, if matches!(self.state, State::Runs { .. }) => self.ask_to_end(reason),
                () = sleep_until(deadline) => {
                    if self.is_over_by_time() {
                        break;
                    }
                }
            }
        }
        self.ending()
    }

    fn is_asked(&self) -> bool {
        matches!(self.state, State::Asked { .. })
    }

    /// When to look next, if nothing happens.
    fn deadline(&self) -> Instant {
        match self.state {
            State::Runs { time_out } => time_out,
            // The script is gone, and nothing tells when the last of those is that it started.
            State::Asked { kill_at, .. } if self.exit.is_some() => kill_at.min(Instant::now() + LOOK_AGAIN),
            State::Asked { kill_at, .. } => kill_at,
            State::Killed { give_up_at, .. } => give_up_at,
            State::Drains { until } => until,
        }
    }

    fn has_exited(&mut self, status: ExitStatus) {
        self.exit = Some(status);
        match self.state {
            State::Runs { .. } => {
                self.state = State::Drains {
                    until: Instant::now() + DRAIN,
                }
            }
            State::Killed { reason, .. } => {
                self.state = State::Killed {
                    reason,
                    give_up_at: Instant::now() + DRAIN_STOPPED,
                }
            }
            // Those that it started have the same time as it had.
            State::Asked { .. } | State::Drains { .. } => {}
        }
    }

    fn ask_to_end(&mut self, reason: StopReason) {
        self.members.terminate();
        self.state = State::Asked {
            reason,
            kill_at: Instant::now() + GRACE,
        };
    }

    /// It is time to look. True: nothing more is waited for.
    fn is_over_by_time(&mut self) -> bool {
        match self.state {
            State::Runs { .. } => {
                self.ask_to_end(StopReason::TimedOut);
                false
            }
            State::Asked { reason, kill_at } => {
                let is_gone = self.exit.is_some() && self.members.is_gone();
                if is_gone || kill_at <= Instant::now() {
                    self.members.kill();
                    let patience = match self.exit {
                        Some(_) => DRAIN_STOPPED,
                        None => KILL_PATIENCE,
                    };
                    self.state = State::Killed {
                        reason,
                        give_up_at: Instant::now() + patience,
                    };
                }
                false
            }
            State::Killed { .. } | State::Drains { .. } => true,
        }
    }

    fn ending(&self) -> Ending {
        use std::os::unix::process::ExitStatusExt;
        match (self.state, self.exit) {
            (State::Asked { reason, .. } | State::Killed { reason, .. }, _) => Ending::Stopped(reason),
            (State::Runs { .. } | State::Drains { .. }, Some(status)) => match status.code() {
                Some(code) => Ending::Exited(code),
                None => Ending::Killed(status.signal().unwrap_or_default()),
            },
            (State::Runs { .. } | State::Drains { .. }, None) => {
                Ending::NotStarted("it has no exit status".to_owned())
            }
        }
    }
}

/// The next bytes; `None` at the end of the stream, or when it cannot be read.
async fn read<'a>(stream: &mut Option<impl AsyncReadExt + Unpin>, buffer: &'a mut [u8]) -> Option<&'a [u8]> {
    let count = stream.as_mut()?.read(buffer).await.ok()?;
    buffer.get(..count).filter(|bytes| !bytes.is_empty())
}

#[cfg(test)]
mod tests {
    use nix::{
        fcntl::{OFlag, open},
        unistd::write,
    };

    use super::*;

    #[test]
    fn a_script_dies_with_the_thread_that_started_it() {
        let start = || {
            let mut command = std::process::Command::new("sleep");
            become_script(command.arg("300"));
            command.spawn().unwrap()
        };
        let mut script = std::thread::spawn(start).join().unwrap();
        let status = script.wait().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
    }

    #[test]
    fn a_script_has_neither_the_mask_nor_the_protection_of_the_agent() {
        let mut command = std::process::Command::new("sh");
        command.args(["-c", "umask; cat /proc/self/oom_score_adj"]);
        let as_the_unit_has_it = || {
            umask(Mode::S_IRWXG | Mode::S_IRWXO);
            // Less protection instead of more, which takes no privilege.
            let file = open(c"/proc/self/oom_score_adj", OFlag::O_WRONLY, Mode::empty())?;
            write(file, b"300")?;
            Ok(())
        };
        #[expect(unsafe_code, reason = "what the child inherits")]
        // SAFETY: system calls only.
        unsafe {
            command.pre_exec(as_the_unit_has_it);
        }
        become_script(&mut command);
        let output = command.output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "0022\n0\n");
    }
}
