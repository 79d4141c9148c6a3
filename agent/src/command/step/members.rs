//! Everything that a step has started, which ends together: its control group, whatever sessions its processes gave
//! themselves; where there is no such group its process group.

use std::{process::Command, time::Duration};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::time::{Instant, sleep};

use crate::{
    command::step_limits::Limit,
    runtime::{ControlGroup, enter},
};

use super::{Outputs, StepContext};

/// How long what was killed may take to leave its group; the daemon removes later what stays.
const REMOVAL: Duration = Duration::from_millis(500);
const REMOVAL_LOOK: Duration = Duration::from_millis(10);

/// The processes of one program and all below it.
#[derive(Debug)]
pub(super) struct Members {
    /// `None`: it has not been started, or cannot be any more.
    leader: Option<Pid>,
    group: Option<ControlGroup>,
}

impl Members {
    /// Prepares a program to lead a process group, in a control group of its own where one can be had.
    ///
    /// # Errors
    /// Its limits cannot be kept, though this machine could when the agent was started.
    pub(super) fn prepare(command: &mut Command, context: &mut StepContext<'_>) -> Result<Self, String> {
        use std::os::unix::process::CommandExt;
        command.process_group(0);
        context.programs += 1;
        let limits = context.limits.values();
        let made = context.limits.groups.as_ref().map(|places| {
            let group = ControlGroup::make(places, &limits, context.programs)?;
            match group.entrances() {
                Ok(entrances) => Ok((group, entrances)),
                Err(error) => {
                    group.remove();
                    Err(error)
                }
            }
        });
        let group = match made {
            None => None,
            Some(Ok((group, entrances))) => {
                #[expect(
                    unsafe_code,
                    reason = "only the child can enter the group before it is the program"
                )]
                // SAFETY: between fork and exec `enter` makes system calls only, and allocates nothing.
                unsafe {
                    command.pre_exec(move || enter(&entrances));
                }
                Some(group)
            }
            Some(Err(error)) if !limits.is_none() => {
                return Err(format!("its limits ({}) cannot be set: {error}", context.limits));
            }
            Some(Err(error)) => {
                tracing::warn!(%error, "a step runs without a control group");
                None
            }
        };
        Ok(Self { leader: None, group })
    }

    pub(super) fn group(&self) -> Option<&ControlGroup> {
        self.group.as_ref()
    }

    /// The program runs.
    pub(super) fn lead(&mut self, pid: Option<u32>) {
        self.leader = pid.and_then(|pid| i32::try_from(pid).ok()).map(Pid::from_raw);
    }

    /// Asks all to end.
    pub(super) fn terminate(&self) {
        match &self.group {
            Some(group) => group.terminate(),
            None => self.signal_process_group(Some(Signal::SIGTERM)),
        }
    }

    /// Kills all.
    pub(super) fn kill(&self) {
        self.signal_process_group(Some(Signal::SIGKILL));
        if let Some(group) = &self.group {
            group.kill();
        }
    }

    /// Whether none is left. The number of a process group is not given to a new process while the group has one.
    pub(super) fn is_gone(&self) -> bool {
        match (&self.group, self.leader) {
            (Some(group), _) => group.is_empty(),
            (None, Some(leader)) => killpg(leader, None).is_err(),
            (None, None) => true,
        }
    }

    fn signal_process_group(&self, signal: Option<Signal>) {
        if let Some(leader) = self.leader {
            // Nobody left to signal is what was wanted.
            killpg(leader, signal).ok();
        }
    }

    /// Tells what the limits have done, and removes the group if nothing lives in it: what a script has left to run on
    /// purpose keeps its limits.
    pub(super) async fn leave(self, was_stopped: bool, context: &StepContext<'_>, outputs: &mut Outputs) {
        let Some(group) = self.group else { return };
        let exceeded = group.exceeded();
        let limits = &context.limits;
        if let (1.., Some(Limit { value, by })) = (exceeded.memory, &limits.memory) {
            outputs.complain(format_args!(
                "out of memory: the step has used the {value} that the node's owner allows it \
                 ({by}), and {} of its processes were killed",
                exceeded.memory
            ));
        }
        if let (1.., Some(Limit { value, by })) = (exceeded.tasks, &limits.tasks) {
            outputs.complain(format_args!(
                "too many processes: the step has run the {value} tasks that the node's owner allows it \
                 ({by}), and {} more were refused",
                exceeded.tasks
            ));
        }
        let begun = Instant::now();
        while !group.remove() && was_stopped && begun.elapsed() < REMOVAL {
            sleep(REMOVAL_LOOK).await;
        }
    }
}
