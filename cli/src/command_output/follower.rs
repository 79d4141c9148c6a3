//! Follows the recording of a command on one node.

use std::time::Duration;

use moorline_protocol::transcript::{OutputError, OutputPiece, OutputReader};
use moorline_ssm::transcript::{GetTranscript, GetTranscriptRequest};
use tokio::time::sleep;

use crate::{error::CliError, operator::Operator};

const END_PAUSE: Duration = Duration::from_millis(200);

/// Where the output of a command on a node is being read.
#[derive(Debug)]
pub(crate) struct Follower<'a> {
    operator: &'a Operator,
    /// `COMMAND-ID.NODE-ID`.
    invocation: String,
    /// Each reboot begins another recording.
    part: u32,
    offset: i64,
    reader: OutputReader,
    is_cut: bool,
}

/// What one look brings.
#[derive(Debug)]
pub(crate) enum News {
    /// More of the output; none where nothing was added in time.
    Output(Vec<OutputPiece>),
    /// The last of the output: the command is over on the node.
    Last(Vec<OutputPiece>),
}

impl<'a> Follower<'a> {
    pub(crate) fn new(operator: &'a Operator, command: &str, node: &str) -> Self {
        Self {
            operator,
            invocation: format!("{command}.{node}"),
            part: 1,
            offset: 0,
            reader: OutputReader::default(),
            is_cut: false,
        }
    }

    /// Whether the recording is over and has no end: what made it died before the command was over.
    pub(crate) fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// Looks once. The endpoint answers when something was added, or after so many milliseconds.
    ///
    /// # Errors
    /// There is no recording by then, it cannot be read, or no answer came. After an error of the connection it may be
    /// asked again.
    pub(crate) async fn look(&mut self, wait_millis: i32) -> Result<News, CliError> {
        let request = GetTranscriptRequest {
            session_id: Some(self.recording()),
            offset: Some(self.offset),
            wait_millis: Some(wait_millis),
            ..GetTranscriptRequest::default()
        };
        let answer = self.operator.call::<GetTranscript>(&request).await?;
        let data = answer.data.unwrap_or_default();
        let pieces = self.reader.push(data.as_bytes()).map_err(unreadable)?;
        self.offset = answer.next_offset.unwrap_or(self.offset);
        // one that was cut is complete and has no end of its own
        let is_whole = answer.complete == Some(true);
        self.is_cut = is_whole && !self.reader.has_ended();
        if self.reader.has_exited() || self.is_cut {
            return Ok(News::Last(pieces));
        }
        if data.is_empty() && answer.session_ended == Some(true) {
            // the endpoint does not wait any more, and the end of the recording follows in a moment
            sleep(END_PAUSE).await;
        }
        if self.reader.has_ended() {
            self.part += 1;
            self.offset = 0;
            self.reader = OutputReader::default();
        }
        Ok(News::Output(pieces))
    }

    fn recording(&self) -> String {
        match self.part {
            1 => self.invocation.clone(),
            part => format!("{}.{part}", self.invocation),
        }
    }
}

fn unreadable(error: OutputError) -> CliError {
    CliError::Transcript(match error {
        OutputError::Encrypted => {
            "the recording is encrypted; its recipients read it with `moorline transcript text --identity`"
                .to_owned()
        }
        OutputError::Form(_) => error.to_string(),
    })
}
