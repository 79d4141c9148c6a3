//! Commands that go on after a reboot: until it comes, or is known not to come.

use std::time::Duration;

use tokio::{sync::oneshot, time::Instant};

use crate::command::{now_millis, reboot, reply};

use super::{Executor, LAST_RETRY};

/// How long a reboot that a step has asked for may take to begin; meanwhile no further command is started.
const REBOOT_PATIENCE: Duration = Duration::from_secs(15 * 60);

/// One of them.
#[derive(Debug)]
pub(super) struct Rebooting {
    given_up_at: Instant,
    /// What the machine says to the daemon, which asks where the worker could not.
    answer: Option<oneshot::Receiver<String>>,
    /// What its end will say, if it ends here.
    reason: String,
}

impl Rebooting {
    pub(super) fn given_up_at(&self) -> Instant {
        self.given_up_at
    }

    /// Whether the daemon has asked.
    #[cfg(test)]
    pub(super) fn is_asked_for(&self) -> bool {
        self.answer.is_some()
    }

    /// Whether there is no use in waiting any longer.
    fn is_late(&mut self, now: Instant) -> bool {
        let refused = self.answer.as_mut().and_then(|answer| answer.try_recv().ok());
        if let Some(reason) = refused {
            self.reason = reason;
            self.given_up_at = now;
            self.answer = None;
        }
        self.given_up_at <= now
    }
}

impl Executor {
    /// The worker has gone, and the machine is still up. Where the worker was killed before it asked for the reboot, or
    /// before it could say that it has, the daemon asks: a machine that is asked twice goes down once.
    pub(super) fn await_reboot(&mut self, command_id: String, is_arranged: bool) {
        tracing::info!(
            command_id,
            is_arranged,
            "a command waits for the reboot that it has asked for"
        );
        let answer = (!is_arranged).then(|| self.ask_for_reboot(command_id.clone()));
        let rebooting = Rebooting {
            given_up_at: Instant::now() + REBOOT_PATIENCE,
            answer,
            reason: reply::NO_REBOOT.to_owned(),
        };
        self.rebooting.insert(command_id, rebooting);
    }

    /// Asks for the reboot beside everything else, for that may take its time. Only a refusal is answered.
    fn ask_for_reboot(&self, command_id: String) -> oneshot::Receiver<String> {
        let (refused, answer) = oneshot::channel();
        let (journal, nudged) = (self.journal.clone(), self.nudged.clone());
        let command = self.node.limits.reboot_command.clone();
        tokio::spawn(async move {
            match reboot::reboot(&command).await {
                Ok(()) => {
                    let noted = journal.call(move |journal| journal.reboot_arranged(&command_id));
                    if let Err(error) = noted.await {
                        let error = &error as &dyn std::error::Error;
                        tracing::warn!(error, "the reboot may be asked for once more");
                    }
                }
                // Nobody waits any more: the daemon ends, and the next one asks.
                Err(reason) => drop(refused.send(reason)),
            }
            nudged.notify_one();
        });
        answer
    }

    /// Ends commands whose reboot has not come, so that others may run.
    pub(super) async fn give_up_reboots(&mut self) {
        let now = Instant::now();
        let late: Vec<(String, String)> = self
            .rebooting
            .iter_mut()
            .filter_map(|(command_id, rebooting)| {
                rebooting
                    .is_late(now)
                    .then(|| (command_id.clone(), rebooting.reason.clone()))
            })
            .collect();
        for (command_id, reason) in late {
            let (id, shown) = (command_id.clone(), reason.clone());
            let given_up = self.journal.call(move |journal| {
                let now = now_millis();
                journal.give_up_reboot(&id, now, |job_id, steps| {
                    reply::lost(job_id, steps, &reason, |_, _| Default::default(), now)
                })
            });
            match given_up.await {
                Ok(_) => {
                    tracing::warn!(
                        command_id,
                        reason = shown,
                        "a step asked for a reboot, and the node was not rebooted"
                    );
                    self.rebooting.remove(&command_id);
                    self.has_ended = true;
                    self.nudged.notify_one();
                }
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(command_id, error, "a command waits for the journal");
                    if let Some(rebooting) = self.rebooting.get_mut(&command_id) {
                        rebooting.given_up_at = now + LAST_RETRY;
                    }
                }
            }
        }
    }
}
