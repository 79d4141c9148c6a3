//! The hub: which node's control channel ends here. One per node; a second one replaces the first, unless it comes
//! from another machine that uses a copy of the registration.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use moorline_protocol::{message::PolicyAnswer, types::InstanceId};
use tokio::sync::Notify;

use super::{questions::Questions, socket::CLOSE_NORMAL};
use crate::app::{NotAnswered, QUESTION_PATIENCE};

/// How long the present channel may take to show that it is alive.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

#[derive(Debug, Default)]
pub(super) struct Hub {
    channels: Mutex<HashMap<InstanceId, Arc<ControlChannel>>>,
}

/// A living machine with another process id holds this node's control channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("another node is connected with this registration; register this one anew")]
pub(super) struct CopiedKey;

/// What the rest of the gateway sees of a control channel. Its task owns the websocket and obeys.
#[derive(Debug, Default)]
pub(super) struct ControlChannel {
    process_id: Option<String>,
    answers_policy: bool,
    questions: Mutex<Questions>,
    orders: Mutex<Orders>,
    ordered: Notify,
    /// A probe was answered, or the channel has ended.
    probed: Notify,
    ended: AtomicBool,
}

/// Not a queue: orders of one kind are one order.
#[derive(Debug, Default)]
pub(super) struct Orders {
    pub(super) look: bool,
    pub(super) ping: bool,
    /// There are questions to send.
    pub(super) ask: bool,
    pub(super) close: Option<(u16, String)>,
}

impl ControlChannel {
    fn order(&self, give: impl FnOnce(&mut Orders)) {
        give(&mut self.orders.lock().unwrap_or_else(PoisonError::into_inner));
        self.ordered.notify_one();
    }

    /// The next orders; waits until there are some.
    pub(super) async fn orders(&self) -> Orders {
        self.ordered.notified().await;
        std::mem::take(&mut self.orders.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What the policy of the node's owner would make of a command.
    pub(super) async fn ask_policy(&self, content: &Arc<str>) -> Result<PolicyAnswer, NotAnswered> {
        if !self.answers_policy {
            return Err(NotAnswered::Unable);
        }
        let answer = self.questions().ask(content).ok_or(NotAnswered::Busy)?;
        self.order(|orders| orders.ask = true);
        match tokio::time::timeout(QUESTION_PATIENCE, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(NotAnswered::Offline),
            Err(_) => Err(NotAnswered::Silent),
        }
    }

    pub(super) fn questions(&self) -> MutexGuard<'_, Questions> {
        self.questions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The channel's task received a pong.
    pub(super) fn was_answered(&self) {
        self.probed.notify_waiters();
    }

    /// Asks for a sign of life. Only an answer counts: a daemon that was killed may have left frames on the way, and
    /// the end of its connection is read just when its successor knocks.
    async fn is_alive(&self) -> bool {
        let probed = self.probed.notified();
        tokio::pin!(probed);
        probed.as_mut().enable();
        self.order(|orders| orders.ping = true);
        !self.ended.load(Ordering::Acquire)
            && tokio::time::timeout(PROBE_TIMEOUT, probed).await.is_ok()
            && !self.ended.load(Ordering::Acquire)
    }

    /// A stock agent names no process, so two channels without a name may be of one. A name against none are two
    /// programs: leaving the name out must not be a way past the question.
    fn is_of_another_process(&self, process_id: Option<&str>) -> bool {
        self.process_id.as_deref() != process_id
    }
}

impl Hub {
    /// Takes the node's place, or finds it taken by another machine.
    pub(super) async fn admit(
        &self,
        node: &InstanceId,
        process_id: Option<String>,
        answers_policy: bool,
    ) -> Result<Arc<ControlChannel>, CopiedKey> {
        let channel = Arc::new(ControlChannel {
            process_id,
            answers_policy,
            ..ControlChannel::default()
        });
        loop {
            let present = self.channel(node);
            if let Some(present) = &present
                && present.is_of_another_process(channel.process_id.as_deref())
                && present.is_alive().await
            {
                return Err(CopiedKey);
            }
            let mut channels = self.channels();
            let now = channels.get(node);
            // somebody else may have come in the meantime: then the question is asked again
            if now.map(Arc::as_ptr) == present.as_ref().map(Arc::as_ptr) {
                channels.insert(node.clone(), Arc::clone(&channel));
                drop(channels);
                if let Some(replaced) = present {
                    let reason = "replaced by a newer connection of this node".to_owned();
                    replaced.order(|orders| orders.close = Some((CLOSE_NORMAL, reason)));
                }
                return Ok(channel);
            }
        }
    }

    /// The channel's task has ended.
    pub(super) fn leave(&self, node: &InstanceId, channel: &Arc<ControlChannel>) {
        channel.ended.store(true, Ordering::Release);
        channel.probed.notify_waiters();
        // nobody answers them any more
        *channel.questions() = Questions::default();
        let mut channels = self.channels();
        if channels
            .get(node)
            .is_some_and(|present| Arc::ptr_eq(present, channel))
        {
            channels.remove(node);
        }
    }

    pub(super) fn is_connected(&self, node: &InstanceId) -> bool {
        self.channels().contains_key(node)
    }

    pub(super) fn nudge(&self, node: &InstanceId) {
        if let Some(channel) = self.channel(node) {
            channel.order(|orders| orders.look = true);
        }
    }

    pub(super) fn close(&self, node: &InstanceId, code: u16, reason: &str) {
        if let Some(channel) = self.channel(node) {
            channel.order(|orders| orders.close = Some((code, reason.to_owned())));
        }
    }

    pub(super) fn channel(&self, node: &InstanceId) -> Option<Arc<ControlChannel>> {
        self.channels().get(node).cloned()
    }

    fn channels(&self) -> MutexGuard<'_, HashMap<InstanceId, Arc<ControlChannel>>> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
