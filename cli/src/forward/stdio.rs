//! One connection on standard input and output, as for ssh's ProxyCommand: nothing but its bytes there.
//!
//! The protocol has no word for the end of input alone. So when ours has ended, the rest of the output is waited for:
//! until the node closes, the reader of our output goes (which is how ssh leaves), or nothing comes any more.

use std::{io, time::Duration};

use bytes::Bytes;
use moorline_protocol::message::PayloadType;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until},
};

use crate::{
    attach::Ending,
    error::CliError,
    session_client::{SessionClient, SessionEvent},
    terminal::{
        input,
        output::{self, OutputWriter, Stream},
        signals::{EndSignal, EndSignals},
    },
};

/// After the end of input, a session that has been silent for this long is left.
const SILENCE_AFTER_INPUT: Duration = Duration::from_secs(30);

struct Joined<'a> {
    client: &'a mut SessionClient,
    writer: OutputWriter,
    /// Input has ended.
    ended: Option<Ended>,
}

struct Ended {
    leave_at: Instant,
    reader_gone: oneshot::Receiver<()>,
}

/// Serves until the session ends, one of the streams does, or a signal comes. `is_interruptible`: by Ctrl-C as well;
/// under ssh it is not for us.
///
/// # Errors
/// The streams cannot be used.
pub(super) async fn serve(
    client: &mut SessionClient,
    signals: &mut EndSignals,
    is_interruptible: bool,
) -> Result<Ending, CliError> {
    let use_streams = |source| CliError::io("use standard input and output", source);
    let mut joined = Joined {
        client,
        writer: OutputWriter::start().map_err(use_streams)?,
        ended: None,
    };
    let mut input = input::start().map_err(use_streams)?;
    let ending = joined
        .run(&mut input, signals, is_interruptible)
        .await
        .map_err(use_streams)?;
    if let Ending::Closed { .. } | Ending::Expired = ending {
        tokio::select! {
            result = joined.writer.finish() => match result {
                Err(source) if source.kind() != io::ErrorKind::BrokenPipe => {
                    return Err(CliError::Output(source));
                }
                _ => {}
            },
            _hurry = signals.next() => {}
        }
    }
    Ok(ending)
}

impl Joined<'_> {
    async fn run(
        &mut self,
        input: &mut mpsc::Receiver<Bytes>,
        signals: &mut EndSignals,
        is_interruptible: bool,
    ) -> io::Result<Ending> {
        loop {
            let has_room = self.writer.has_room();
            let takes_input = self.client.takes_input() && self.ended.is_none();
            let ending = tokio::select! {
                event = self.client.next(has_room) => self.on_event(event),
                read = input.recv(), if takes_input => {
                    self.on_input(read)?;
                    None
                }
                () = self.writer.room(), if !has_room => None,
                () = self.writer.gone() => Some(Ending::OutputClosed),
                ending = after_input(&mut self.ended) => ending,
                signal = signals.next() => match signal {
                    EndSignal::Interrupt if !is_interruptible => None,
                    signal => Some(super::ending_of(signal)),
                },
            };
            if let Some(ending) = ending {
                return Ok(ending);
            }
        }
    }

    fn on_event(&mut self, event: SessionEvent) -> Option<Ending> {
        if let Some(ended) = &mut self.ended {
            ended.leave_at = Instant::now() + SILENCE_AFTER_INPUT;
        }
        match event {
            SessionEvent::Data {
                payload_type: PayloadType::Output,
                payload,
            } => (!self.writer.push(Stream::Out, payload)).then_some(Ending::OutputClosed),
            other => super::on_other_event(other),
        }
    }

    fn on_input(&mut self, read: Option<Bytes>) -> io::Result<()> {
        match read {
            Some(read) => self.client.write(PayloadType::Output, read),
            None => {
                self.ended = Some(Ended {
                    leave_at: Instant::now() + SILENCE_AFTER_INPUT,
                    reader_gone: output::watch_reader()?,
                });
            }
        }
        Ok(())
    }
}

/// What is waited for once input has ended, beside the session itself.
async fn after_input(ended: &mut Option<Ended>) -> Option<Ending> {
    match ended {
        None => std::future::pending().await,
        Some(ended) => tokio::select! {
            _gone = &mut ended.reader_gone => Some(Ending::OutputClosed),
            () = sleep_until(ended.leave_at) => Some(Ending::Left),
        },
    }
}
