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
    node::{
        DescribeInstanceInformation, DescribeInstanceInformationRequest, InstanceInformationStringFilter,
        PingStatus,
    },
};
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
/// As [`PATIENCE`], when all that is left to do is to cancel.
const CANCEL_PATIENCE: Duration = Duration::from_secs(30);
const RETRY_PAUSE: Duration = Duration::from_millis(500);
const PAGE: i32 = 50;
/// Nodes that one question names, whose answer is one page.
const MOST_VALUES: usize = 50;
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
    interrupts: Interrupts,
    origin: Instant,
    heartbeats_due: Instant,
}

/// A command of the roll-out that is under way.
#[derive(Debug)]
struct UnderWay {
    wave: usize,
    is_probe: bool,
    command_id: String,
    /// Nodes that it went to, once it was sent.
    targets: usize,
    /// It may be on nodes: it was sent, perhaps without an answer, and has not ended.
    may_run: bool,
}

/// Why a call was not answered.
#[derive(Debug)]
enum Stop {
    Interrupted,
    Refused(CliError),
    /// The endpoint was out of reach for too long.
    Away(CliError),
}

impl From<Stop> for Event {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Interrupted => Self::Interrupted,
            Stop::Refused(error) | Stop::Away(error) => Self::CallFailed(error::chain(&error)),
        }
    }
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
            interrupts: Interrupts::watch().map_err(|source| CliError::io("watch for Ctrl-C", source))?,
            origin: now,
            heartbeats_due: now,
        })
    }

    /// Until it is through or halted.
    pub(super) async fn run(mut self) -> Ended {
        self.report.begins(&self.id);
        loop {
            self.next = match self.next.clone() {
                Action::Send(wave) => self.carry_out(wave, false).await,
                Action::Probe(wave) => self.carry_out(wave, true).await,
                Action::Watch => self.watch().await,
                Action::Finish => return self.ended(None),
                Action::Halt(halt) => return self.ended(Some(halt)),
            };
        }
    }

    fn ended(self, halt: Option<Halt>) -> Ended {
        Ended {
            id: self.id,
            halt,
            errors: self.errors,
        }
    }

    /// The command of a wave, or its probe, from its begin to its end on every node.
    async fn carry_out(&mut self, wave: usize, is_probe: bool) -> Action {
        let mut under_way = UnderWay {
            wave,
            is_probe,
            command_id: Uuid::new_v4().to_string(),
            targets: 0,
            may_run: false,
        };
        let mut event = match self.send(&mut under_way).await {
            Ok(()) => self.follow(&mut under_way).await.unwrap_or_else(Event::from),
            Err(stop) => stop.into(),
        };
        loop {
            if let Some(action) = self.machine.on(event) {
                if under_way.may_run {
                    self.cancel(&under_way.command_id).await;
                }
                return action;
            }
            event = self.follow(&mut under_way).await.unwrap_or_else(Event::from);
        }
    }

    /// Sends the command of a wave. Under the same id it is accepted once, however often it is sent.
    async fn send(&mut self, under_way: &mut UnderWay) -> Result<(), Stop> {
        let UnderWay { wave, is_probe, .. } = *under_way;
        let waves = self.machine.waves();
        let of = waves.len();
        let Some(Wave { name, nodes }) = waves.get(wave).cloned() else {
            let error = CliError::Usage(format!("there is no wave {wave}"));
            return Err(Stop::Refused(error));
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
        request.moorline_signature = signed.transpose().map_err(Stop::Refused)?;
        let input = SendCommandWaveRequest {
            command: Some(request),
            command_id: Some(under_way.command_id.clone()),
            only_instance_ids: Some(nodes.clone()),
        };
        under_way.may_run = true;
        let sent = self.call::<SendCommandWave>(&input, PATIENCE).await;
        under_way.may_run = !matches!(sent, Err(Stop::Refused(_)));
        if under_way.may_run {
            self.report.sent(wave, is_probe, &under_way.command_id);
        }
        let targets = sent?
            .command
            .and_then(|command| command.target_count)
            .unwrap_or(0);
        under_way.targets = usize::try_from(targets).unwrap_or(0);
        if under_way.targets == 0 {
            // a wave that nobody got proves nothing, and the next one stands on it
            under_way.may_run = false;
            let error = CliError::Usage(match nodes.len() {
                1 => "its only node is no target any more".to_owned(),
                count => format!("none of its {count} nodes is a target any more"),
            });
            return Err(Stop::Refused(error));
        }
        if !is_probe {
            let mut got = nodes;
            let mut no_targets = Vec::new();
            if under_way.targets < got.len() {
                let invocations = self.invocations(&under_way.command_id).await?;
                (got, no_targets) = got.into_iter().partition(|id| invocations.contains_key(id));
            }
            self.report.targets(wave, under_way.targets, no_targets);
            self.touched.extend(got);
        }
        Ok(())
    }

    /// Until the command has ended and every node is there, or something is wrong.
    async fn follow(&mut self, under_way: &mut UnderWay) -> Result<Event, Stop> {
        let mut ended = None;
        loop {
            if ended.is_none() && self.is_over(&under_way.command_id).await? {
                under_way.may_run = false;
                ended = Some(self.result(under_way).await?);
                self.heartbeats_due = Instant::now();
            }
            if Instant::now() >= self.heartbeats_due {
                let lost = self.lost().await?;
                if !lost.is_empty() {
                    return Ok(Event::HeartbeatsLost(lost));
                }
            }
            match ended.take() {
                Some(event) if !self.heartbeats.waits() => return Ok(event),
                waiting => ended = waiting,
            }
            self.pause(PAUSE).await?;
        }
    }

    /// All waves are through: what they did to a node may cost it its connection a little later. A node that is away at
    /// the end of that time has as long again to come back.
    async fn watch(&mut self) -> Action {
        let grace = self.order.heartbeat_grace;
        self.report.watching(self.touched.len(), grace);
        loop {
            let event = self.heartbeats_kept(grace).await.unwrap_or_else(Event::from);
            if let Some(action) = self.machine.on(event) {
                return action;
            }
        }
    }

    async fn heartbeats_kept(&mut self, time: Duration) -> Result<Event, Stop> {
        let until = Instant::now() + time;
        loop {
            // before the look: what it finds is of a time behind the end
            let is_time_over = Instant::now() >= until;
            let lost = self.lost().await?;
            if !lost.is_empty() {
                return Ok(Event::HeartbeatsLost(lost));
            }
            if is_time_over {
                self.touched = self.heartbeats.missing();
                if self.touched.is_empty() {
                    return Ok(Event::Watched);
                }
            }
            let next = match is_time_over {
                true => self.heartbeats_due,
                false => self.heartbeats_due.min(until),
            };
            self.pause(next.duration_since(Instant::now())).await?;
        }
    }

    /// Lets time pass.
    async fn pause(&mut self, time: Duration) -> Result<(), Stop> {
        tokio::select! {
            () = self.interrupts.next() => Err(Stop::Interrupted),
            () = sleep(time) => Ok(()),
        }
    }

    async fn is_over(&mut self, command_id: &str) -> Result<bool, Stop> {
        let request = ListCommandsRequest {
            command_id: Some(command_id.to_owned()),
            ..ListCommandsRequest::default()
        };
        let page = self.call::<ListCommands>(&request, PATIENCE).await?;
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
    async fn result(&mut self, under_way: &UnderWay) -> Result<Event, Stop> {
        let invocations = self.invocations(&under_way.command_id).await?;
        // of whom nothing is told nothing good is assumed
        if invocations.len() < under_way.targets {
            return Err(Stop::Refused(CliError::Incomplete {
                operation: "ListCommandInvocations",
                member: "CommandInvocations",
            }));
        }
        let failed: BTreeMap<_, _> = invocations
            .into_iter()
            .filter_map(|(id, failure)| Some((id, failure?)))
            .collect();
        if under_way.is_probe {
            self.report.probe_ended(under_way.wave, &failed);
            return Ok(Event::ProbeEnded { failed });
        }
        self.errors += failed.len();
        self.report.wave_ended(under_way.wave, &failed);
        Ok(Event::WaveEnded { failed })
    }

    /// The nodes that a command is for, with the status of those where it is no success.
    async fn invocations(&mut self, command_id: &str) -> Result<BTreeMap<String, Option<String>>, Stop> {
        let mut invocations = BTreeMap::new();
        let mut next_token = None;
        loop {
            let request = ListCommandInvocationsRequest {
                command_id: Some(command_id.to_owned()),
                max_results: Some(PAGE),
                next_token,
                ..ListCommandInvocationsRequest::default()
            };
            let page = self.call::<ListCommandInvocations>(&request, PATIENCE).await?;
            for listed in page.command_invocations.into_iter().flatten() {
                let is_success = listed.status == Some(CommandInvocationStatus::Success);
                let failure = (!is_success).then(|| listed.status_details.unwrap_or_default());
                invocations.insert(listed.instance_id.unwrap_or_default(), failure);
            }
            next_token = page.next_token.filter(|token| !token.is_empty());
            if next_token.is_none() {
                return Ok(invocations);
            }
        }
    }

    /// Nodes of the waves so far whose heartbeat is lost.
    async fn lost(&mut self) -> Result<BTreeSet<String>, Stop> {
        let began = Instant::now();
        let mut away = BTreeSet::new();
        let mut no_targets = self.touched.clone();
        let mut next_token = None;
        loop {
            let request = PlanCommandRequest {
                command: Some(self.order.request.clone()),
                ask_nodes: None,
                max_results: None,
                next_token,
            };
            let page = self.call::<PlanCommand>(&request, PATIENCE).await?;
            for node in page.nodes.into_iter().flatten() {
                let Some(id) = node.instance_id.filter(|id| no_targets.remove(id)) else {
                    continue;
                };
                if node.state == Some(PlannedState::Waits) {
                    away.insert(id);
                }
            }
            next_token = page.next_token.filter(|token| !token.is_empty());
            if next_token.is_none() {
                break;
            }
        }
        away.extend(self.not_connected(no_targets).await?);
        let now = Instant::now();
        let pause = (now.duration_since(began) * HEARTBEAT_SHARE).max(HEARTBEAT_PAUSE);
        self.heartbeats_due = now + pause;
        Ok(self.heartbeats.looked(now.duration_since(self.origin), &away))
    }

    /// Of nodes that the plan does not have any more: those that are gone, and not only tagged otherwise.
    async fn not_connected(&mut self, mut nodes: BTreeSet<String>) -> Result<BTreeSet<String>, Stop> {
        let ids: Vec<String> = nodes.iter().cloned().collect();
        for some in ids.chunks(MOST_VALUES) {
            let filter = InstanceInformationStringFilter {
                key: Some("InstanceIds".to_owned()),
                values: Some(some.to_vec()),
            };
            let request = DescribeInstanceInformationRequest {
                filters: Some(vec![filter]),
                max_results: Some(PAGE),
                ..DescribeInstanceInformationRequest::default()
            };
            let page = self
                .call::<DescribeInstanceInformation>(&request, PATIENCE)
                .await?;
            for node in page.instance_information_list.into_iter().flatten() {
                if node.ping_status == Some(PingStatus::Online) {
                    nodes.remove(&node.instance_id.unwrap_or_default());
                }
            }
        }
        Ok(nodes)
    }

    /// Halted: what is under way is not to reach further nodes.
    async fn cancel(&mut self, command_id: &str) {
        tell("cancelling what is under way; press Ctrl-C to leave at once");
        let request = CancelCommandRequest {
            command_id: Some(command_id.to_owned()),
            instance_ids: None,
        };
        match self.call::<CancelCommand>(&request, CANCEL_PATIENCE).await {
            Ok(_) => tell(&format!(
                "command {command_id} is cancelled where it has not ended"
            )),
            Err(Stop::Interrupted) => tell(&format!("command {command_id} may still run")),
            Err(Stop::Refused(error) | Stop::Away(error)) => tell(&format!(
                "command {command_id} was not cancelled: {}",
                error::chain(&error)
            )),
        }
    }

    /// Every call of a roll-out may be repeated, so an endpoint that is away is waited for.
    async fn call<O: Operation>(&mut self, input: &O::Input, patience: Duration) -> Result<O::Output, Stop> {
        let operator = self.operator;
        let mut away_since = None;
        loop {
            let answer = tokio::select! {
                () = self.interrupts.next() => return Err(Stop::Interrupted),
                answer = operator.call::<O>(input) => answer,
            };
            match answer {
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
                    if now.duration_since(since) > patience {
                        return Err(Stop::Away(error.into()));
                    }
                    self.pause(RETRY_PAUSE).await?;
                }
                Err(error) => return Err(Stop::Refused(error.into())),
            }
        }
    }
}

/// Which roll-out and wave a command is of, and the user's own note as far as there is room.
fn comment(place: &str, own: Option<&str>) -> String {
    let own = own.map_or_else(String::new, |own| format!(": {own}"));
    format!("{place}{own}").chars().take(COMMENT_CHARACTERS).collect()
}

/// Ctrl-C, and the signal by which services and jobs are asked to end.
#[derive(Debug)]
struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupts {
    fn watch() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// The next one; never, when they cannot be watched any more.
    async fn next(&mut self) {
        let next = tokio::select! {
            next = self.interrupt.recv() => next,
            next = self.terminate.recv() => next,
        };
        if next.is_none() {
            std::future::pending::<()>().await;
        }
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
