//! The recording of a command (docs/transcript-format.md): its steps, what they write, and how it ended.
//!
//! The worker puts it into the spool, whole lines at a time, and does nothing over the network: the daemon delivers it
//! while it grows. Nothing that runs waits for it: where the disk takes nothing, a little of it waits in memory, and
//! what comes then is a gap.

use std::{
    cell::RefCell,
    fmt,
    path::Path,
    rc::Rc,
    time::{Duration, Instant},
};

use moorline_protocol::{
    document::{CommandDocument, Step, StepOutcome},
    message::{ResultStatus, SendCommandContent},
    transcript::{Digest, HeaderError, MAX_RECORDING_BYTES, RecordingId, RecordingKind},
};
use moorline_transport::unix_millis;
use serde_json::{Map, Value, json};
use tokio::{sync::Notify, time::sleep};

use crate::{
    config::TranscriptConfig,
    recording::{
        About, Deliverer, MASK, Masker, Means, Missing, Piece, Recorder, Spool, SpoolLimits, as_on_terminal,
        is_plain_path,
    },
    runtime::until,
};

/// What is recorded is on the disk after this time: less than a tenth of a second is worth no write of its own.
const GATHER: Duration = Duration::from_millis(100);
/// This much is written at once.
const FULL_BYTES: usize = 64 * 1024;
/// Where the disk takes nothing, output beyond this is not recorded.
const MOST_HELD_BYTES: usize = 1536 * 1024;
/// Before the disk is asked again.
const PAUSE: Duration = Duration::from_secs(5);
/// How long the worker stays for what the disk did not take of the end. The daemon makes room for it, a piece at a time.
const END_PATIENCE: Duration = Duration::from_secs(300);
const END_PAUSE: Duration = Duration::from_millis(200);
/// A recording takes no more output than this, so that its end has room.
const MOST_BYTES: u64 = MAX_RECORDING_BYTES - 8 * 1024 * 1024;

/// Why a command must not begin.
#[derive(Debug, thiserror::Error)]
pub(super) enum RecordingError {
    #[error("the endpoint names {0:?} as the place of the recording, which is no path")]
    Path(String),
    #[error("the command's id cannot name a recording")]
    Id(#[source] HeaderError),
    #[error(
        "the command cannot be recorded, and this node's owner wants it to be (transcript.required): {0}"
    )]
    Required(Missing),
}

/// A command that may be recorded.
#[derive(Debug)]
pub(super) struct Wish<'a> {
    pub(super) command_id: &'a str,
    pub(super) node: &'a str,
    /// Reboots that it has asked for.
    pub(super) reboots: u32,
    /// Hash of the last record of the part before this one.
    pub(super) follows: Option<Digest>,
    pub(super) content: &'a SendCommandContent,
    /// Unless it cannot be read.
    pub(super) document: Option<&'a CommandDocument>,
    pub(super) state_dir: &'a Path,
    pub(super) config: &'a TranscriptConfig,
    /// Whether the endpoint knows the key that seals.
    pub(super) seals: bool,
    pub(super) is_moorline: bool,
}

/// Which of its outputs a program wrote to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    Output,
    Errors,
}

/// A handle to the recording, or to none.
#[derive(Clone, Default)]
pub(super) struct CommandRecording(Option<Rc<Shared>>);

struct Shared {
    state: RefCell<State>,
    /// Something is due earlier than it was.
    changed: Notify,
    /// The rest is not recorded.
    failed: Notify,
}

struct State {
    recorder: Recorder,
    spool: Spool,
    begun: Instant,
    /// Bytes in the spool.
    spooled: u64,
    /// When what is in memory goes to the disk.
    spool_at: Option<Instant>,
    /// The steps that run, each within the one before.
    steps: Vec<String>,
    /// Values that are masked in texts of ours as well.
    secrets: Vec<String>,
    /// Exit code of the first step that did not end with 0.
    code: i32,
    is_over: bool,
    /// Why the rest is not recorded.
    failure: Option<String>,
    is_told: bool,
    /// Tells the daemon that there is more.
    nudge: fn(),
}

impl fmt::Debug for CommandRecording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CommandRecording")
            .field(&self.0.is_some())
            .finish()
    }
}

impl CommandRecording {
    /// Begins the recording. Without a recorder the command runs unrecorded or is refused, as the node's owner wants.
    ///
    /// # Errors
    /// The command must not begin.
    pub(super) fn begin(wish: &Wish<'_>, nudge: fn()) -> Result<Self, RecordingError> {
        let Some(state) = State::begin(wish, nudge)? else {
            return Ok(Self::default());
        };
        Ok(Self(Some(Rc::new(Shared {
            state: RefCell::new(state),
            changed: Notify::new(),
            failed: Notify::new(),
        }))))
    }

    /// These values are masked in what is recorded from now on.
    pub(super) fn hide(&self, secrets: &[String]) {
        if let Some(shared) = &self.0 {
            shared.state.borrow_mut().secrets = secrets.to_vec();
        }
    }

    /// Records what a step wrote, which holds no secrets any more.
    pub(super) fn wrote(&self, stream: Stream, bytes: &[u8]) {
        self.with_output(bytes.len(), |recorder, at| {
            let shown = as_on_terminal(bytes);
            match stream {
                Stream::Output => recorder.output(at, &shown),
                Stream::Errors => recorder.errors(at, &shown),
            }
        });
    }

    /// Records that it wrote a secret of so many bytes.
    pub(super) fn wrote_secret(&self, stream: Stream, bytes: usize) {
        self.with_output(bytes, |recorder, at| match stream {
            Stream::Output => recorder.secret_output(at, bytes),
            Stream::Errors => recorder.secret_errors(at, bytes),
        });
    }

    /// A step writes no more.
    pub(super) fn end_output(&self) {
        self.with(|state, at| state.recorder.end_output(at));
    }

    /// A step begins, perhaps within another.
    pub(super) fn step_begins(&self, step: &Step) {
        self.with(|state, at| {
            state
                .recorder
                .mark(at, &format!("{} ({})", step.name, step.action));
            let event = state.event(step, Map::new());
            state.recorder.note(at, &event);
            state.steps.push(step.name.clone());
        });
    }

    /// The step that began last is over for now; what it came to is told by [`Self::step_ended`].
    pub(super) fn step_returns(&self) {
        self.with(|state, _| drop(state.steps.pop()));
    }

    /// What a step came to, whether it ran or not.
    pub(super) fn step_ended(&self, step: &Step, outcome: &StepOutcome) {
        self.with(|state, at| {
            let mut more = Map::new();
            more.insert("status".to_owned(), outcome.status.as_str().into());
            more.insert("code".to_owned(), outcome.code.into());
            if let Some(text) = &outcome.text {
                more.insert("text".to_owned(), masked(text, &state.secrets).into());
            }
            let event = state.event(step, more);
            state.recorder.note(at, &event);
            // an inner step is part of its outer one
            if state.steps.is_empty() && state.code == 0 {
                state.code = i32::try_from(outcome.code).unwrap_or(i32::MAX);
            }
        });
    }

    /// A step asks for a reboot, after which another recording goes on. This one is whole; the hash of its last record,
    /// which the other is to know.
    pub(super) fn reboots(&self) -> Option<Digest> {
        let mut state = self.0.as_ref()?.state.borrow_mut();
        if std::mem::replace(&mut state.is_over, true) {
            return None;
        }
        let at = state.begun.elapsed();
        let reason = "the node is rebooted; the next recording of this command goes on";
        let hash = state.recorder.finish_part(at, reason, unix_millis());
        state.spool(true);
        hash
    }

    /// There was no reboot after all.
    pub(super) fn goes_on(&self, wish: &Wish<'_>) {
        let Some(shared) = &self.0 else { return };
        let mut state = shared.state.borrow_mut();
        match State::begin(wish, state.nudge) {
            Ok(Some(next)) => {
                let secrets = std::mem::take(&mut state.secrets);
                *state = State { secrets, ..next };
            }
            Ok(None) => {}
            // its steps have run: it cannot be refused any more
            Err(error) => {
                state.failure = Some(error.to_string());
                shared.failed.notify_one();
            }
        }
    }

    /// Why the rest of the command is not recorded, if it is not, and if that was not asked before.
    pub(super) fn take_failure(&self) -> Option<String> {
        let mut state = self.0.as_ref()?.state.borrow_mut();
        state.look();
        let failure = state.failure.clone();
        failure.filter(|_| !std::mem::replace(&mut state.is_told, true))
    }

    /// Ends when the rest of the command is not recorded.
    pub(super) async fn fails(&self) {
        match &self.0 {
            Some(shared) => shared.failed.notified().await,
            None => std::future::pending().await,
        }
    }

    /// What the disk did not take of the end is kept, and tried again; ends when it is there, or when it is not in time.
    pub(super) async fn deliver_end(&self) {
        let Some(shared) = &self.0 else { return };
        let give_up_at = tokio::time::Instant::now() + END_PATIENCE;
        loop {
            {
                let state = shared.state.borrow_mut();
                if state.has_delivered_end() {
                    return;
                }
                if tokio::time::Instant::now() >= give_up_at {
                    tracing::warn!("the end of a command's recording is lost: the disk does not take it");
                    return;
                }
            }
            sleep(END_PAUSE).await;
            shared.state.borrow_mut().spool(true);
        }
    }

    /// No step runs, for this reason.
    pub(super) fn refused(&self, reason: &str) {
        let reason = match &self.0 {
            Some(shared) => masked(reason, &shared.state.borrow().secrets),
            None => return,
        };
        // as the reply says of each step that does not run
        let reason = format!("{}: {reason}", ResultStatus::Failed.as_str());
        self.end(Some(1), &reason);
    }

    /// Nothing follows.
    pub(super) fn finish(&self, status: ResultStatus) {
        let code = self.0.as_ref().map(|shared| shared.state.borrow().code);
        self.end(code, status.as_str());
    }

    fn end(&self, code: Option<i32>, reason: &str) {
        let Some(shared) = &self.0 else { return };
        let mut state = shared.state.borrow_mut();
        if std::mem::replace(&mut state.is_over, true) {
            return;
        }
        let at = state.begun.elapsed();
        state.recorder.finish(at, code, Some(reason), unix_millis());
        state.spool(true);
    }

    /// Writes what is due, for ever.
    pub(super) async fn keep(&self) {
        let Some(shared) = &self.0 else {
            return std::future::pending().await;
        };
        loop {
            let due = shared.state.borrow().due();
            tokio::select! {
                () = until(due.map(Into::into)) => {
                    let mut state = shared.state.borrow_mut();
                    state.keep();
                    if state.failure.is_some() {
                        shared.failed.notify_one();
                    }
                }
                () = shared.changed.notified() => {}
            }
        }
    }

    fn with_output(&self, bytes: usize, record: impl FnOnce(&mut Recorder, Duration)) {
        self.with(|state, at| match state.has_room() {
            true => record(&mut state.recorder, at),
            false => state.recorder.skip(bytes),
        });
    }

    fn with(&self, record: impl FnOnce(&mut State, Duration)) {
        let Some(shared) = &self.0 else { return };
        let mut state = shared.state.borrow_mut();
        if state.is_over {
            return;
        }
        let at = state.begun.elapsed();
        record(&mut state, at);
        let was_due = state.due();
        state.recorder.seal_if_due(at, unix_millis());
        state.schedule();
        if state.failure.is_some() {
            shared.failed.notify_one();
        }
        if was_due != state.due() {
            shared.changed.notify_one();
        }
    }
}

impl State {
    /// `None`: there is no recording, and none must be.
    fn begin(wish: &Wish<'_>, nudge: fn()) -> Result<Option<Self>, RecordingError> {
        let Some(path) = &wish.content.moorline_transcript_path else {
            return without(wish, Missing::NotWanted);
        };
        if !wish.is_moorline {
            return without(wish, Missing::NotWanted);
        }
        let part = wish.reboots.saturating_add(1);
        let id = RecordingId::of_command(wish.command_id, wish.node, part).map_err(RecordingError::Id)?;
        let path = path_of(path, &id, wish.command_id)?;
        let means = Means {
            state_dir: wish.state_dir,
            config: wish.config,
            seals: wish.seals,
        };
        let mut recorder = match means.recorder(about(wish, id.clone())) {
            Ok(recorder) => recorder,
            Err(missing) => return without(wish, missing),
        };
        recorder.begin(Duration::ZERO);
        let name = (id.as_str(), path);
        let limits = SpoolLimits::new(wish.config);
        Ok(Some(Self {
            spool: Spool::new(wish.state_dir, name, Deliverer::Daemon, limits).sealed(recorder.seals()),
            recorder,
            begun: Instant::now(),
            spooled: 0,
            spool_at: Some(Instant::now() + GATHER),
            steps: Vec::new(),
            secrets: Vec::new(),
            code: 0,
            is_over: false,
            failure: None,
            is_told: false,
            nudge,
        }))
    }

    /// The event of a step.
    fn event(&self, step: &Step, more: Map<String, Value>) -> Value {
        let mut event = json!({"event": "step", "name": step.name, "action": step.action});
        if let Value::Object(members) = &mut event {
            if let Some(outer) = self.steps.last() {
                members.insert("within".to_owned(), outer.as_str().into());
            }
            members.extend(more);
        }
        event
    }

    fn has_room(&self) -> bool {
        let waiting = self.recorder.waiting();
        waiting <= MOST_HELD_BYTES && self.spooled.saturating_add(waiting as u64) < MOST_BYTES
    }

    fn due(&self) -> Option<Instant> {
        if self.is_over {
            return None;
        }
        let seal_at = self.recorder.seal_due().map(|due| self.begun + due);
        [seal_at, self.spool_at].into_iter().flatten().min()
    }

    fn schedule(&mut self) {
        let waiting = self.recorder.waiting();
        if waiting == 0 {
            return;
        }
        let is_refused = self.spool_at.is_some_and(|at| at > Instant::now() + GATHER);
        if waiting >= FULL_BYTES && !is_refused {
            self.spool(false);
        } else {
            self.spool_at.get_or_insert_with(|| Instant::now() + GATHER);
        }
    }

    /// Does what is due.
    fn keep(&mut self) {
        let at = self.begun.elapsed();
        self.recorder.seal_if_due(at, unix_millis());
        if self.spool_at.is_some_and(|due| due <= Instant::now()) {
            self.spool(false);
        }
        self.schedule();
    }

    /// Whether the recording goes on: the daemon removes the file when the endpoint takes no more of it.
    fn look(&mut self) {
        if self.failure.is_none() && self.spool.is_gone() {
            self.failure = Some("the endpoint does not take the rest of its recording".to_owned());
            self.is_over = true;
            self.recorder.written = Vec::new();
        }
    }

    fn has_delivered_end(&self) -> bool {
        !self.is_over || self.failure.is_some() || self.recorder.written.is_empty()
    }

    /// Puts on the disk what is in memory, if the disk takes it.
    fn spool(&mut self, is_last: bool) {
        self.spool_at = None;
        let at = self.begun.elapsed();
        self.recorder.flush(at);
        self.look();
        if self.recorder.written.is_empty() {
            return;
        }
        match self.spool.append_growing(&self.recorder.written, is_last) {
            Ok(count) => {
                self.spooled += count as u64;
                if count == self.recorder.written.len() {
                    self.recorder.written.clear();
                    if is_last {
                        self.spool.mark_whole();
                    }
                } else {
                    self.recorder.written.drain(..count);
                    self.spool_at = Some(Instant::now() + PAUSE);
                }
                (self.nudge)();
            }
            Err(error) => {
                tracing::debug!(%error, "the recording is kept in memory");
                self.spool_at = Some(Instant::now() + PAUSE);
            }
        }
    }
}

fn without(wish: &Wish<'_>, missing: Missing) -> Result<Option<State>, RecordingError> {
    if wish.config.is_required() {
        return Err(RecordingError::Required(missing));
    }
    // an endpoint of another kind never records, and nobody who uses it thinks so
    if wish.is_moorline {
        tracing::warn!(command_id = wish.command_id, %missing, "the command is not recorded");
    }
    Ok(None)
}

/// The endpoint's path is that of the command; each node adds what makes it that of its recording.
fn path_of(path: &str, id: &RecordingId, command_id: &str) -> Result<String, RecordingError> {
    let own = id.as_str().strip_prefix(command_id).unwrap_or_default();
    let whole = format!("{path}{own}");
    match is_plain_path(&whole) {
        true => Ok(whole),
        false => Err(RecordingError::Path(path.to_owned())),
    }
}

/// What the recording says of the command.
fn about(wish: &Wish<'_>, id: RecordingId) -> About {
    let content = wish.content;
    let parameters = match wish.document {
        Some(document) => document.parameters.masked(&content.parameters, MASK),
        None => Map::new(),
    };
    About {
        id,
        node: wish.node.to_owned(),
        kind: RecordingKind::Command,
        document: content.document_name.clone(),
        document_version: content.moorline_document_version.clone(),
        operator: content.moorline_operator.clone(),
        reason: content.moorline_reason.clone(),
        // what a step runs as is the agent's own user
        user: None,
        parameters,
        command: content.document_name.clone(),
        follows: wish.follows,
        unix_secs: unix_millis() / 1000,
    }
}

/// A text of ours that may name a secret.
fn masked(text: &str, secrets: &[String]) -> String {
    let mut masker = Masker::new(secrets);
    let mut shown = Vec::new();
    let mut show = |piece: Piece<'_>| match piece {
        Piece::Plain(plain) => shown.extend_from_slice(plain),
        Piece::Secret(_) => shown.extend_from_slice(MASK.as_bytes()),
    };
    masker.push(text.as_bytes(), &mut show);
    masker.flush(&mut show);
    String::from_utf8_lossy(&shown).into_owned()
}

#[cfg(test)]
mod tests;
