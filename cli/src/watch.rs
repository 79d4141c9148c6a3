//! `moorline watch`: a session as its user sees it, without a part in it. It is shown from the recording, which the
//! node sends while it is made; so any number may watch, and nothing of it reaches the node.

use std::{io, time::Duration};

use bytes::Bytes;
use futures_util::{FutureExt, future::BoxFuture};
use moorline_protocol::message::TerminalSize;
use moorline_ssm::{
    session::{DescribeSessions, DescribeSessionsRequest, SessionFilter, SessionFilterKey, SessionState},
    transcript::{GetTranscript, GetTranscriptRequest, GetTranscriptResponse},
};
use moorline_transport::CallError;
use tokio::{sync::mpsc, time::sleep};

use crate::{
    console::{self, one_line},
    error::CliError,
    operator::{Operator, is_passing},
    pick_session::{self, OpenSession},
    terminal::{
        self, RawMode,
        escape::{Escape, EscapeFilter},
        input,
        output::{OutputWriter, Stream},
        signals::{Signal, Signals},
    },
    transcript::{
        cast::{Cast, Line},
        play::{RESET, Shown},
    },
};

/// Of what was there before: a few screens.
const TAIL_BYTES: i32 = 64 * 1024;
/// Enough for the size of the terminal, which stands in the first line, with the parameters of its document.
const HEAD_BYTES: i32 = 64 * 1024;
/// A recording begins within a moment of its session, if there is one.
const BEGIN_WAIT_MILLIS: i32 = 3000;
/// The endpoint answers at once when there is something, and else after this time.
const WAIT_MILLIS: i32 = 20_000;
/// An endpoint that was restarted is back soon.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
const INTERRUPT: u8 = 0x03;

type Answer = Result<GetTranscriptResponse, CallError>;

pub(crate) async fn execute(operator: &Operator, session: Option<&str>, raw: bool) -> Result<u8, CliError> {
    let session = pick_session::open(operator, session).await?;
    let id = session.id.clone();
    let mut watcher = Watcher::start(operator, session, Shown::new(raw)).await?;
    let use_terminal = |source| CliError::io("use the terminal", source);
    let mut signals = Signals::listen().map_err(use_terminal)?;
    let raw = RawMode::enter().map_err(use_terminal)?;
    let mut keys = match raw {
        Some(_) => input::start().map_err(use_terminal)?,
        None => mpsc::channel(1).1,
    };
    let ended = watcher.run(&mut keys, &mut signals).await;
    if terminal::size().is_some() {
        watcher
            .writer
            .push(Stream::Out, Bytes::from_static(RESET.as_bytes()));
    }
    if let Err(source) = watcher.writer.finish().await
        && source.kind() != io::ErrorKind::BrokenPipe
    {
        return Err(CliError::Output(source));
    }
    drop(raw);
    if ended? {
        let reason = reason(operator, &id).await?.unwrap_or_default();
        let colon = if reason.is_empty() { "" } else { ": " };
        console::note(&format!("the session has ended{colon}{}", one_line(&reason)));
    }
    Ok(0)
}

/// Why it ended, where there is something to say.
async fn reason(operator: &Operator, id: &str) -> Result<Option<String>, CallError> {
    let request = DescribeSessionsRequest {
        state: Some(SessionState::History),
        filters: Some(vec![SessionFilter {
            key: Some(SessionFilterKey::SessionId),
            value: Some(id.to_owned()),
        }]),
        ..DescribeSessionsRequest::default()
    };
    let page = operator.call::<DescribeSessions>(&request).await?;
    let session = page.sessions.unwrap_or_default().into_iter().next();
    Ok(session.and_then(|session| session.details))
}

struct Watcher<'a> {
    operator: &'a Operator,
    session_id: String,
    offset: i64,
    cast: Cast,
    shown: Shown,
    writer: OutputWriter,
    size: Option<TerminalSize>,
    told_size: Option<TerminalSize>,
    /// The session had ended at the last answer.
    has_ended: bool,
}

impl<'a> Watcher<'a> {
    /// Finds the recording and shows its end.
    async fn start(operator: &'a Operator, session: OpenSession, shown: Shown) -> Result<Self, CliError> {
        let head = GetTranscriptRequest {
            session_id: Some(session.id.clone()),
            max_bytes: Some(HEAD_BYTES),
            wait_millis: Some(BEGIN_WAIT_MILLIS),
            ..GetTranscriptRequest::default()
        };
        let head = operator.call::<GetTranscript>(&head).await.map_err(|error| match error {
            CallError::Service { ref source, .. } if source.code == "DoesNotExistException" => {
                CliError::Transcript(format!(
                    "session {} is not recorded, so there is nothing to watch: its node runs another agent",
                    session.id
                ))
            }
            other => other.into(),
        })?;
        let target = one_line(session.target.as_deref().unwrap_or("-"));
        console::note(&format!(
            "watching session {} on {target}; Ctrl-C leaves",
            session.id
        ));
        let mut watcher = Self {
            operator,
            session_id: session.id,
            offset: 0,
            cast: Cast::default(),
            shown,
            writer: OutputWriter::start().map_err(|source| CliError::io("use the terminal", source))?,
            size: None,
            told_size: None,
            has_ended: false,
        };
        // only the size of it: what was shown comes with the end
        for line in watcher
            .cast
            .push(head.data.as_deref().unwrap_or_default().as_bytes())
        {
            if let Ok(Line::Size { width, height }) = line {
                watcher.size = size(width, height);
            }
        }
        watcher.cast.skip_partial();
        let tail = GetTranscriptRequest {
            session_id: Some(watcher.session_id.clone()),
            tail_bytes: Some(TAIL_BYTES),
            wait_millis: Some(0),
            ..GetTranscriptRequest::default()
        };
        let tail = operator.call::<GetTranscript>(&tail).await?;
        if tail.data.as_deref().is_some_and(|data| data.starts_with('{')) {
            // of a short recording this is the begin once more
            watcher.cast = Cast::default();
        }
        watcher.take(&tail)?;
        Ok(watcher)
    }

    /// Until the user leaves (`false`) or the session ends (`true`).
    async fn run(
        &mut self,
        keys: &mut mpsc::Receiver<Bytes>,
        signals: &mut Signals,
    ) -> Result<bool, CliError> {
        let mut escapes = EscapeFilter::new();
        let mut has_keys = true;
        let mut asked = Some(self.ask());
        self.tell_size();
        loop {
            let has_room = self.writer.has_room();
            tokio::select! {
                answer = answered(asked.as_mut()), if has_room => {
                    asked = None;
                    if self.on_answer(answer).await? {
                        return Ok(true);
                    }
                }
                typed = keys.recv(), if has_keys => match typed {
                    Some(typed) if !leaves(&mut escapes, &typed) => {}
                    Some(_) => return Ok(false),
                    // without a terminal there are none, and that means nothing
                    None => has_keys = false,
                },
                signal = signals.next() => match signal {
                    Signal::Forward(INTERRUPT) | Signal::Terminate(_) => return Ok(false),
                    Signal::Resized => self.tell_size(),
                    Signal::Forward(_) | Signal::Continued => {}
                },
                () = self.writer.room(), if !has_room => {}
                () = self.writer.gone() => return Ok(false),
            }
            if asked.is_none() {
                asked = Some(self.ask());
            }
        }
    }

    fn ask(&self) -> BoxFuture<'a, Answer> {
        let request = GetTranscriptRequest {
            session_id: Some(self.session_id.clone()),
            offset: Some(self.offset),
            wait_millis: Some(WAIT_MILLIS),
            ..GetTranscriptRequest::default()
        };
        let operator = self.operator;
        async move { operator.call::<GetTranscript>(&request).await }.boxed()
    }

    /// Whether the session is over and everything was shown.
    async fn on_answer(&mut self, answer: Answer) -> Result<bool, CliError> {
        match answer {
            Ok(piece) => {
                let is_empty = piece.data.as_deref().is_none_or(str::is_empty);
                self.take(&piece)?;
                if piece.complete == Some(true) || (self.has_ended && is_empty) {
                    return Ok(true);
                }
                if piece.session_ended == Some(true) {
                    // the end of the recording may follow in a moment
                    self.has_ended = true;
                    sleep(RETRY_PAUSE).await;
                }
            }
            Err(error) if is_passing(&error) => sleep(RETRY_PAUSE).await,
            Err(error) => return Err(error.into()),
        }
        Ok(false)
    }

    fn take(&mut self, piece: &GetTranscriptResponse) -> Result<(), CliError> {
        self.offset = piece.next_offset.unwrap_or(self.offset);
        let mut output = String::new();
        for line in self
            .cast
            .push(piece.data.as_deref().unwrap_or_default().as_bytes())
        {
            match line? {
                Line::Output { data, .. } => output.push_str(&self.shown.of(&data)),
                Line::Size { width, height } => {
                    self.size = size(width, height);
                }
                Line::Event { .. } => {}
            }
        }
        if !output.is_empty() {
            self.writer.push(Stream::Out, output.into());
        }
        self.tell_size();
        Ok(())
    }

    /// Once for each size: what fits there may not fit here.
    fn tell_size(&mut self) {
        let (Some(size), Some(here)) = (self.size, terminal::size()) else {
            return;
        };
        if size == here {
            self.told_size = None;
        } else if self.told_size != Some(size) {
            self.told_size = Some(size);
            let text = format!(
                "\r\nmoorline: the session's terminal has {}x{} characters, this one {}x{}\r\n",
                size.cols, size.rows, here.cols, here.rows
            );
            self.writer.push(Stream::Err, text.into());
        }
    }
}

fn size(width: u64, height: u64) -> Option<TerminalSize> {
    Some(TerminalSize {
        cols: u32::try_from(width).ok()?,
        rows: u32::try_from(height).ok()?,
    })
}

/// Keys are for nobody but us.
fn leaves(escapes: &mut EscapeFilter, typed: &[u8]) -> bool {
    let mut others = Vec::new();
    let mut rest = typed;
    while let Some((escape, after)) = escapes.filter(rest, &mut others) {
        if matches!(escape, Escape::Terminate | Escape::Detach) {
            return true;
        }
        rest = after;
    }
    others.contains(&INTERRUPT)
}

async fn answered(asked: Option<&mut BoxFuture<'_, Answer>>) -> Answer {
    match asked {
        Some(asked) => asked.await,
        None => std::future::pending().await,
    }
}
