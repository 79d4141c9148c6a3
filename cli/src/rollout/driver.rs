//! Carries a roll-out out: calls, clock and Ctrl-C around the state machine.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use moorline_ssm::{
    Operation,
    command::{
        CancelCommand, CancelCommandRequest, CommandInvocationStatus, CommandStatus, ListCommandInvocations,
        ListCommandInvocationsRequest, ListCommands, ListCommandsRequest, PlanCommand, PlanCommandRequest,
        PlannedState, SendCommandRequest, SendCommandWave, SendCommandWaveRequest,
    },
};
use moorline_transport::CallError;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{Instant, sleep},
};
use uuid::Uuid;

use super::{
    heartbeat::Heartbeats,
    machine::{Action, Event, Halt, Machine},
    report::{Ended, Report, tell},
    wave::Wave,
};
use crate::{
    error::{self, CliError},
    operator::{Operator, is_passing},
    sign::Signer,
};

/// Between two looks at a command.
const PAUSE: Duration = Duration::from_millis(200);
/// Between two looks at who is connected, at least; and so many times what a look takes, since it lists the fleet.
const HEARTBEAT_PAUSE: Duration = Duration::from_secs(2);
const HEARTBEAT_SHARE: u32 = 10;
/// How long the endpoint may be out of reach.
const PATIENCE: Duration = Duration::from_secs(300);
const RETRY_PAUSE: Duration = Duration::from_millis(500);
const PAGE: i32 = 50;
/// What the API takes as a comment.
const COMMENT_CHARACTERS: usize = 100;

/// What is rolled out.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) request: SendCommandRequest,
    pub(super) probe: Option<SendCommandRequest>,
    /// Signs each wave's command when it is sent; `None`: it is not signed.
    pub(super) signer: Option<Signer>,
    pub(super) probe_signer: Option<Signer>,
    pub(super) allowed_errors: usize,
    pub(super) heartbeat_grace: Duration,
}

/// A roll-out under way.
#[derive(Debug)]
pub(super) struct Driver<'a> {
    operator: &'a Operator,
    report: &'a mut Report,
    id: String,
    order: Order,
    machine: Machine,
    next: Action,
    heartbeats: Heartbeats,
    /// Nodes of all waves that were sent.
    touched: BTreeSet<String>,
    errors: usize,
    interrupts: Signal,
    origin: Instant,
    heartbeats_due: Instant,
}

/// A command of the roll-out that is under way.
#[derive(Debug)]
struct UnderWay {
    wave: usize,
    is_probe: bool,
    command_id: String,
}

impl<'a> Driver<'a> {
    /// Nothing is sent yet.
    ///
    /// # Errors
    /// Ctrl-C cannot be watched.
    pub(super) fn begin(
        operator: &'a Operator,
        order: Order,
        waves: Vec<Wave>,
        report: &'a mut Report,
    ) -> Result<Self, CliError> {
        let (machine, next) = Machine::begin(waves, order.probe.is_some(), order.allowed_errors);
        let now = Instant::now();
        Ok(Self {
            operator,
            report,
            id: Uuid::new_v4().to_string(),
            heartbeats: Heartbeats::new(order.heartbeat_grace),
            order,
            machine,
            next,
            touched: BTreeSet::new(),
            errors: 0,
            interrupts: signal(SignalKind::interrupt())
                .map_err(|source| CliError::io("watch for Ctrl-C", source))?,
            origin: now,
            heartbeats_due: now,
        })
    }

    /// Until it is through or halted.
    ///
    /// # Errors
    /// The endpoint refused something, or was out of reach for too long: nothing further is sent.
    pub(super) async fn run(mut self) -> Result<Ended, CliError> {
        loop {
            let (wave, is_probe) = match self.next.clone() {
                Action::Send(wave) => (wave, false),
                Action::Probe(wave) => (wave, true),
                Action::Finish => return Ok(self.ended(None)),
                Action::Halt(halt) => return Ok(self.ended(Some(halt))),
            };
            let under_way = self.send(wave, is_probe).await?;
            self.next = self.follow(&under_way).await?;
        }
    }

    fn ended(self, halt: Option<Halt>) -> Ended {
        Ended {
            id: self.id,
            halt,
            errors: self.errors,
        }
    }

    /// Sends the command of a wave. Under the same id it is accepted once, however often it is sent.
    async fn send(&mut self, wave: usize, is_probe: bool) -> Result<UnderWay, CliError> {
        let waves = self.machine.waves();
        let of = waves.len();
        let Some(Wave { name, nodes }) = waves.get(wave).cloned() else {
            return Err(CliError::Usage(format!("there is no wave {wave}")));
        };
        let mut request = self.order.request.clone();
        if let (true, Some(probe)) = (is_probe, &self.order.probe) {
            request = SendCommandRequest {
                targets: request.targets,
                instance_ids: request.instance_ids,
                timeout_seconds: request.timeout_seconds,
                max_concurrency: request.max_concurrency,
                comment: request.comment,
                ..probe.clone()
            };
        } else {
            request.max_errors = Some(self.machine.errors_left().to_string());
        }
        let what = if is_probe { " health" } else { "" };
        let place = format!("roll-out {}, wave {} of {of} {name}{what}", self.id, wave + 1);
        request.comment = Some(comment(&place, request.comment.as_deref()));
        let signer = match is_probe {
            true => &self.order.probe_signer,
            false => &self.order.signer,
        };
        let signed = signer.as_ref().map(|signer| signer.sign(&nodes));
        request.moorline_signature = signed.transpose()?;
        let command_id = Uuid::new_v4().to_string();
        let input = SendCommandWaveRequest {
            command: Some(request),
            command_id: Some(command_id.clone()),
            only_instance_ids: Some(nodes.clone()),
        };
        if is_probe {
            self.report.probing(wave, &command_id);
        }
        let sent = self.call::<SendCommandWave>(&input).await?;
        let targets = sent.command.and_then(|command| command.target_count).unwrap_or(0);
        if !is_probe {
            self.report
                .sent(wave, &command_id, usize::try_from(targets).unwrap_or(0));
            self.touched.extend(nodes);
        }
        Ok(UnderWay {
            wave,
            is_probe,
            command_id,
        })
    }

    /// Until the command has ended and every node is there, or something is wrong.
    async fn follow(&mut self, under_way: &UnderWay) -> Result<Action, CliError> {
        loop {
            let is_over = self.is_over(&under_way.command_id).await?;
            let lost = if is_over || Instant::now() >= self.heartbeats_due {
                self.lost().await?
            } else {
                BTreeSet::new()
            };
            let event = if !lost.is_empty() {
                Some(Event::HeartbeatsLost(lost))
            } else if is_over && !self.heartbeats.waits() {
                Some(self.result(under_way).await?)
            } else {
                tokio::select! {
                    () = interrupted(&mut self.interrupts) => Some(Event::Interrupted),
                    () = sleep(PAUSE) => None,
                }
            };
            let Some(action) = event.and_then(|event| self.machine.on(event)) else {
                continue;
            };
            if let (Action::Halt(_), false) = (&action, is_over) {
                self.cancel(&under_way.command_id).await;
            }
            return Ok(action);
        }
    }

    async fn is_over(&mut self, command_id: &str) -> Result<bool, CliError> {
        let request = ListCommandsRequest {
            command_id: Some(command_id.to_owned()),
            ..ListCommandsRequest::default()
        };
        let page = self.call::<ListCommands>(&request).await?;
        let status = page
            .commands
            .into_iter()
            .flatten()
            .next()
            .and_then(|command| command.status);
        Ok(matches!(
            status,
            Some(
                CommandStatus::Success
                    | CommandStatus::Cancelled
                    | CommandStatus::Failed
                    | CommandStatus::TimedOut
            )
        ))
    }

    /// How the command ended on each node.
    async fn result(&mut self, under_way: &UnderWay) -> Result<Event, CliError> {
        let mut failed = BTreeMap::new();
        let mut next_token = None;
        loop {
            let request = ListCommandInvocationsRequest {
                command_id: Some(under_way.command_id.clone()),
                max_results: Some(PAGE),
                next_token,
                ..ListCommandInvocationsRequest::default()
            };
            let page = self.call::<ListCommandInvocations>(&request).await?;
            for listed in page.command_invocations.into_iter().flatten() {
                if listed.status == Some(CommandInvocationStatus::Success) {
                    continue;
                }
                let status = listed.status_details.unwrap_or_default();
                failed.insert(listed.instance_id.unwrap_or_default(), status);
            }
            next_token = page.next_token.filter(|token| !token.is_empty());
            if next_token.is_none() {
                break;
            }
        }
        if under_way.is_probe {
            self.report.probe_ended(under_way.wave, &failed);
            return Ok(Event::ProbeEnded { failed });
        }
        self.errors += failed.len();
        self.report.wave_ended(under_way.wave, &failed);
        Ok(Event::WaveEnded { failed })
    }

    /// Nodes of the waves so far whose heartbeat is lost.
    async fn lost(&mut self) -> Result<BTreeSet<String>, CliError> {
        let began = Instant::now();
        let mut away = BTreeSet::new();
        let mut next_token = None;
        loop {
            let request = PlanCommandRequest {
                command: Some(self.order.request.clone()),
                ask_nodes: None,
                max_results: None,
                next_token,
            };
            let page = self.call::<PlanCommand>(&request).await?;
            let nodes = page.nodes.into_iter().flatten();
            let waiting = nodes.filter(|node| node.state == Some(PlannedState::Waits));
            away.extend(
                waiting
                    .filter_map(|node| node.instance_id)
                    .filter(|id| self.touched.contains(id)),
            );
            next_token = page.next_token.filter(|token| !token.is_empty());
            if next_token.is_none() {
                break;
            }
        }
        let now = Instant::now();
        let pause = (now.duration_since(began) * HEARTBEAT_SHARE).max(HEARTBEAT_PAUSE);
        self.heartbeats_due = now + pause;
        Ok(self.heartbeats.looked(now.duration_since(self.origin), &away))
    }

    /// Halted: what is under way is not to reach further nodes.
    async fn cancel(&mut self, command_id: &str) {
        let request = CancelCommandRequest {
            command_id: Some(command_id.to_owned()),
            instance_ids: None,
        };
        match self.call::<CancelCommand>(&request).await {
            Ok(_) => tell(&format!(
                "command {command_id} is cancelled where it has not ended"
            )),
            Err(error) => tell(&format!(
                "command {command_id} was not cancelled: {}",
                error::chain(&error)
            )),
        }
    }

    /// Every call of a roll-out may be repeated, so an endpoint that is away is waited for.
    async fn call<O: Operation>(&mut self, input: &O::Input) -> Result<O::Output, CallError> {
        let mut away_since = None;
        loop {
            match self.operator.call::<O>(input).await {
                Ok(output) => {
                    if away_since.is_some() {
                        tell("the endpoint answers again");
                        self.heartbeats.endpoint_was_away();
                    }
                    return Ok(output);
                }
                Err(error) if is_passing(&error) => {
                    let now = Instant::now();
                    let since = *away_since.get_or_insert_with(|| {
                        tell(&format!("{}; still trying", error::chain(&error)));
                        now
                    });
                    if now.duration_since(since) > PATIENCE {
                        return Err(error);
                    }
                    sleep(RETRY_PAUSE).await;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// Which roll-out and wave a command is of, and the user's own note as far as there is room.
fn comment(place: &str, own: Option<&str>) -> String {
    let own = own.map_or_else(String::new, |own| format!(": {own}"));
    format!("{place}{own}").chars().take(COMMENT_CHARACTERS).collect()
}

/// A signal's next time; never, when it cannot be watched any more.
async fn interrupted(interrupts: &mut Signal) {
    if interrupts.recv().await.is_none() {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::comment;

    #[test]
    fn a_comment_names_roll_out_and_wave_and_fits_the_api() {
        assert_eq!(
            comment("roll-out x, wave 1 of 2 a", None),
            "roll-out x, wave 1 of 2 a"
        );
        assert_eq!(
            comment("roll-out x, wave 1 of 2 a", Some("why")),
            "roll-out x, wave 1 of 2 a: why"
        );
        assert_eq!(comment("roll-out x", Some(&"é".repeat(200))).chars().count(), 100);
    }
}
