//! One command on one managed node: from accepted to exactly one final state.
//!
//! Whatever arrives in whatever order, twice or too late, an invocation ends once and stays ended. What the node
//! never told is called unknown: a job that may have reached the node is not "not delivered", and a job that was
//! taken is not "failed" for want of a result. Late replies still bring their output.

#[cfg(test)]
mod captured;
mod explanation;
mod outcome;
#[cfg(test)]
mod property;
#[cfg(test)]
mod tests;

pub(crate) use explanation::{Circumstances, explain};
pub(crate) use outcome::Outcome;

use std::collections::BTreeMap;

use moorline_protocol::message::JobAckCode;
use uuid::Uuid;

use super::reply::Reply;

/// An un-acknowledged or refused job is delivered again after this time, in milliseconds.
pub(crate) const REDELIVERY_MILLIS: u64 = 5_000;
/// After the end of a document this much time is left for results of steps that its final reply overtook.
pub(crate) const SETTLING_MILLIS: u64 = 2_000;
/// A node that took a job repeats un-acknowledged replies every 5 minutes. When it has confirmed a cancellation and
/// says nothing of the job for longer than that, the job never reached it.
pub(crate) const CANCEL_SILENCE_MILLIS: u64 = 6 * 60 * 1000;

/// Where an invocation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The node has not answered yet.
    Pending,
    /// The node refused the job for now; it gets it again.
    Delayed,
    /// The node took the job.
    InProgress,
    /// The document has ended; the result of a step is still on its way.
    Settling(Outcome),
    /// Final.
    Ended(Outcome),
}

/// What is known of the way of the job to the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// It waits for its turn among the nodes of its command.
    Held,
    Unsent,
    /// Sent, unanswered: the node may have it.
    Sent,
    /// The node answered the last delivery with a refusal, so it does not have it.
    Refused,
    /// The node has it, or had it.
    Taken,
}

/// The times that a command grants, in milliseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Deadlines {
    /// Not sent after this; what was held has a time of its own.
    pub(crate) delivery: u64,
    /// What the steps may take, by their own time-outs: a duration.
    pub(crate) execution_millis: u64,
}

/// What decides between two results of one step: the later and more final one counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct StepRank {
    pub(crate) is_final: bool,
    pub(crate) made_at: i64,
}

/// When what happened, in milliseconds since the Unix epoch. They decide nothing: they answer those who ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Times {
    /// It was held and had its turn.
    pub(crate) released_at: Option<u64>,
    /// The job left for the first time.
    pub(crate) sent_at: Option<u64>,
    /// The node was first known to have it.
    pub(crate) taken_at: Option<u64>,
    /// An operator wanted it to end.
    pub(crate) cancel_requested_at: Option<u64>,
}

/// One command on one node. Fields are what the store keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Invocation {
    pub(crate) stage: Stage,
    pub(crate) delivery: Delivery,
    /// Message id of the last delivery; an answer to an earlier one says nothing about this one.
    pub(crate) sent_message_id: Option<Uuid>,
    /// When the job is to be sent (again); `None`: not at all.
    pub(crate) next_send_at: Option<u64>,
    pub(crate) cancel_requested: bool,
    /// When the cancel job is to be sent (again).
    pub(crate) cancel_next_send_at: Option<u64>,
    /// When the endpoint decides by itself what became of it; `None` once that is final.
    pub(crate) deadline_at: Option<u64>,
    pub(crate) ended_at: Option<u64>,
    pub(crate) times: Times,
    /// `TraceOutput`: what is to be told besides the output of steps.
    pub(crate) trace: String,
    /// Results that are kept, by step name.
    pub(crate) steps: BTreeMap<String, StepRank>,
}

impl Invocation {
    /// Accepted, to be delivered at once.
    pub(crate) fn accepted(now: u64, deadlines: Deadlines) -> Self {
        Self {
            stage: Stage::Pending,
            delivery: Delivery::Unsent,
            sent_message_id: None,
            next_send_at: Some(now),
            cancel_requested: false,
            cancel_next_send_at: None,
            deadline_at: Some(deadlines.delivery),
            ended_at: None,
            times: Times::default(),
            trace: String::new(),
            steps: BTreeMap::new(),
        }
    }

    /// Accepted, to be delivered when it has its turn. Until then no time runs.
    pub(crate) fn held(now: u64, deadlines: Deadlines) -> Self {
        Self {
            delivery: Delivery::Held,
            next_send_at: None,
            deadline_at: None,
            ..Self::accepted(now, deadlines)
        }
    }

    /// It has its turn, and `delivery_millis` to reach the node.
    pub(crate) fn release(&mut self, now: u64, delivery_millis: u64) {
        if self.delivery == Delivery::Held && self.stage == Stage::Pending {
            self.delivery = Delivery::Unsent;
            self.next_send_at = Some(now);
            self.deadline_at = Some(now.saturating_add(delivery_millis));
            self.times.released_at = Some(now);
        }
    }

    /// It will never have its turn.
    pub(crate) fn terminate(&mut self, now: u64) {
        if self.delivery == Delivery::Held && self.stage == Stage::Pending {
            self.end(Outcome::Terminated, now);
        }
    }

    /// The document cannot run on this node's platform.
    pub(crate) fn of_wrong_platform(now: u64, deadlines: Deadlines, trace: String) -> Self {
        let mut this = Self::accepted(now, deadlines);
        this.trace = trace;
        this.end(Outcome::InvalidPlatform, now);
        this
    }

    /// `Status`, as the API shows it.
    pub(crate) fn status(&self) -> &'static str {
        match self.stage {
            Stage::Ended(outcome) => outcome.status(),
            _ if self.cancel_requested => "Cancelling",
            Stage::Pending => "Pending",
            Stage::Delayed => "Delayed",
            Stage::InProgress | Stage::Settling(_) => "InProgress",
        }
    }

    /// `StatusDetails`, as the API shows it.
    pub(crate) fn status_details(&self) -> &'static str {
        match self.stage {
            Stage::Ended(outcome) => outcome.details(),
            _ => self.status(),
        }
    }

    pub(crate) fn outcome(&self) -> Option<Outcome> {
        match self.stage {
            Stage::Ended(outcome) => Some(outcome),
            Stage::Pending | Stage::Delayed | Stage::InProgress | Stage::Settling(_) => None,
        }
    }

    /// How it ended by its node's word. `None`: it has not, or without that.
    pub(crate) fn told_end(&self) -> Option<Outcome> {
        let outcome = self.outcome()?;
        // a node that did not take it can only have refused it for good
        let is_told = match self.delivery {
            Delivery::Taken => !outcome.is_unknown(),
            Delivery::Held | Delivery::Unsent | Delivery::Sent | Delivery::Refused => {
                outcome == Outcome::Failed
            }
        };
        is_told.then_some(outcome)
    }

    /// The job goes out on the node's control channel with this message id.
    pub(crate) fn sent(&mut self, message_id: Uuid, now: u64) {
        if self.delivery != Delivery::Taken {
            self.delivery = Delivery::Sent;
        }
        self.times.sent_at.get_or_insert(now);
        self.sent_message_id = Some(message_id);
        self.next_send_at = Some(now + REDELIVERY_MILLIS);
    }

    /// The node answered a delivery of the job.
    pub(crate) fn job_acknowledged(
        &mut self,
        code: JobAckCode,
        message_id: Option<Uuid>,
        deadlines: Deadlines,
        now: u64,
    ) {
        if let (Stage::Settling(outcome), true) = (self.stage, is_final_refusal(code)) {
            // refused for good: no step has run, so there is no result to wait for
            self.end(outcome, now);
        }
        let is_open = matches!(self.stage, Stage::Pending | Stage::Delayed);
        // of what is held it can know nothing
        if matches!(self.delivery, Delivery::Held | Delivery::Taken) || !is_open {
            return;
        }
        if matches!(code, JobAckCode::Successful | JobAckCode::DuplicateCommand) {
            self.taken(deadlines, now);
            self.stage = Stage::InProgress;
        } else if message_id != self.sent_message_id {
            // an answer to an earlier delivery: the last one is still open
        } else if is_final_refusal(code) {
            let (number, text) = code.wire();
            self.trace = format!("the node refused the command: {number} {text}");
            self.end(Outcome::Failed, now);
        } else if self.cancel_requested {
            self.end(Outcome::Cancelled, now);
        } else {
            self.delivery = Delivery::Refused;
            self.stage = Stage::Delayed;
            self.next_send_at = Some(now + REDELIVERY_MILLIS);
        }
    }

    /// An operator wants it to end.
    pub(crate) fn cancel(&mut self, now: u64) {
        match (self.stage, self.delivery) {
            // its document has ended already
            (Stage::Settling(_) | Stage::Ended(_), _) => {}
            _ if self.cancel_requested => {}
            (_, Delivery::Held | Delivery::Unsent | Delivery::Refused) => {
                self.times.cancel_requested_at = Some(now);
                self.end(Outcome::Cancelled, now);
            }
            (_, Delivery::Sent | Delivery::Taken) => {
                self.times.cancel_requested_at = Some(now);
                self.cancel_requested = true;
                self.next_send_at = None;
                self.cancel_next_send_at = Some(now);
            }
        }
    }

    /// The cancel job goes out.
    pub(crate) fn cancel_sent(&mut self, now: u64) {
        self.cancel_next_send_at = Some(now + REDELIVERY_MILLIS);
    }

    /// The node answered the cancel job. That is all it ever says of it; the end comes as a reply of the command.
    pub(crate) fn cancel_acknowledged(&mut self, code: JobAckCode, now: u64) {
        if self.cancel_next_send_at.is_none() {
            return;
        }
        if code.is_retryable() {
            self.cancel_next_send_at = Some(now + REDELIVERY_MILLIS);
            return;
        }
        self.cancel_next_send_at = None;
        if self.delivery == Delivery::Sent {
            let silence_ends = now + CANCEL_SILENCE_MILLIS;
            self.deadline_at = self.deadline_at.map(|deadline| deadline.min(silence_ends));
        }
    }

    /// The node reported. `step_names` are the document's steps. Returns the indices of the results to keep.
    pub(crate) fn replied(
        &mut self,
        reply: &Reply,
        step_names: &[String],
        deadlines: Deadlines,
        now: u64,
    ) -> Vec<usize> {
        let kept = self.merge_steps(reply, step_names);
        let reported = Outcome::from_document(reply.document_status, reply.is_refused);
        if let Stage::Ended(outcome) = self.stage {
            if let (true, Some(reported)) = (outcome.is_unknown(), reported) {
                self.note(&format!("reported later: {}", reported.details()));
                self.cancel_next_send_at = None;
            }
            return kept;
        }
        if !reply.trace.is_empty() {
            self.trace.clone_from(&reply.trace);
        }
        self.taken(deadlines, now);
        if matches!(self.stage, Stage::Pending | Stage::Delayed) {
            self.stage = Stage::InProgress;
        }
        if let (Stage::InProgress, Some(outcome)) = (self.stage, reported) {
            self.stage = Stage::Settling(outcome);
            self.deadline_at = Some(now + SETTLING_MILLIS);
        }
        match self.stage {
            Stage::Settling(outcome) if self.has_every_result(step_names) => self.end(outcome, now),
            Stage::InProgress => {
                // it lives: grant it the time of its steps from now
                let alive_until = now.saturating_add(deadlines.execution_millis);
                self.deadline_at = self.deadline_at.map(|deadline| deadline.max(alive_until));
            }
            _ => {}
        }
        kept
    }

    /// The node reported something that cannot be read. It may have been the end: whoever waits should know.
    pub(crate) fn unreadable_reply(&mut self) {
        self.note("a reply of the node could not be read");
    }

    /// Time passed. Returns whether anything changed.
    pub(crate) fn time_passed(&mut self, now: u64) -> bool {
        if self.deadline_at.is_none_or(|deadline| now < deadline) {
            return false;
        }
        let outcome = match (self.stage, self.delivery) {
            (Stage::Ended(_), _) => return false,
            (Stage::Settling(outcome), _) => outcome,
            (_, Delivery::Taken) => Outcome::ResultUnknown,
            (_, Delivery::Sent) if self.cancel_requested => Outcome::CancelUnconfirmed,
            (_, Delivery::Sent) => Outcome::DeliveryUnconfirmed,
            (_, Delivery::Held | Delivery::Unsent | Delivery::Refused) => Outcome::DeliveryTimedOut,
        };
        self.end(outcome, now);
        true
    }

    /// The node was deregistered: nothing will come from it any more.
    pub(crate) fn node_left(&mut self, now: u64) {
        let outcome = match (self.stage, self.delivery) {
            (Stage::Ended(_), _) => return,
            (Stage::Settling(outcome), _) => outcome,
            (_, Delivery::Held | Delivery::Unsent | Delivery::Refused) => Outcome::Undeliverable,
            (_, Delivery::Sent | Delivery::Taken) => Outcome::ResultUnknown,
        };
        self.note("the node was deregistered");
        self.end(outcome, now);
        self.cancel_next_send_at = None;
    }

    fn taken(&mut self, deadlines: Deadlines, now: u64) {
        if self.delivery != Delivery::Taken {
            self.delivery = Delivery::Taken;
            self.times.taken_at = Some(now);
            // one that was held had until later than its command to be delivered
            let delivery = self.deadline_at.unwrap_or_default().max(deadlines.delivery);
            self.deadline_at = Some(delivery.saturating_add(deadlines.execution_millis));
        }
        self.next_send_at = None;
    }

    /// The only way into a final state; there is none out of it.
    fn end(&mut self, outcome: Outcome, now: u64) {
        self.stage = Stage::Ended(outcome);
        self.ended_at = Some(now);
        self.deadline_at = None;
        self.next_send_at = None;
        // a node that comes back after all shall still end what nobody waits for any more
        if !outcome.is_unknown() {
            self.cancel_next_send_at = None;
        }
    }

    fn note(&mut self, text: &str) {
        if self.trace.contains(text) || self.trace.len() > super::reply::OUTPUT_BYTES {
            return;
        }
        if !self.trace.is_empty() {
            self.trace.push('\n');
        }
        self.trace.push_str(text);
    }

    /// The number of results is bounded by the number of steps, so that a node cannot fill the store.
    fn merge_steps(&mut self, reply: &Reply, step_names: &[String]) -> Vec<usize> {
        let mut kept = Vec::new();
        for (index, (name, step)) in reply.steps.iter().enumerate() {
            let rank = StepRank {
                is_final: step.status.is_terminal(),
                made_at: reply.made_at,
            };
            let is_settled = |known: &StepRank| self.outcome().is_some() && known.is_final;
            let is_better = match self.steps.get(name) {
                // what operators read after the end, and acted on, is not rewritten
                Some(known) => !is_settled(known) && *known < rank,
                None => self.steps.len() < step_names.len().max(1),
            };
            if is_better {
                self.steps.insert(name.clone(), rank);
                kept.push(index);
            }
        }
        kept
    }

    fn has_every_result(&self, step_names: &[String]) -> bool {
        let results = self.steps.values().filter(|rank| rank.is_final).count();
        results >= step_names.len()
    }
}

fn is_final_refusal(code: JobAckCode) -> bool {
    !code.is_retryable() && !matches!(code, JobAckCode::Successful | JobAckCode::DuplicateCommand)
}
