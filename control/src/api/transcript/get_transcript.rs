//! `GetTranscript`: a piece of a recording, whole lines. Ours, not AWS's.
//!
//! It works while the session runs: a piece may be empty, and the next one begins at `NextOffset`. `Complete` is true
//! when nothing follows. With `WaitMillis` an empty answer comes only when nothing was added for so long: so a session
//! is watched live, and at rest costs nothing. `TailBytes` begins so near the end of what is there, at a line.

use std::time::Duration;

use moorline_protocol::types::TranscriptId;
use moorline_ssm::{
    ErrorCode,
    transcript::{GetTranscriptRequest, GetTranscriptResponse},
};

use tokio::time::{Instant, timeout_at};

use super::{existing, missing, state};
use crate::{
    api::{ApiError, ApiResult, RequestContext},
    store::Place,
};

/// Bytes of a piece when the request does not say.
const DEFAULT_BYTES: u64 = 256 * 1024;

/// How far before the begin of a tail its first line's begin is looked for, in bytes.
const LINE_BYTES: u64 = 256 * 1024;

pub(super) async fn get_transcript(
    cx: RequestContext,
    input: GetTranscriptRequest,
) -> ApiResult<GetTranscriptResponse> {
    let given = input.session_id.clone().unwrap_or_default();
    let id: TranscriptId = given.parse().map_err(|_| missing(&given))?;
    let wait = input.wait_millis.and_then(|millis| u64::try_from(millis).ok());
    let until = Instant::now() + Duration::from_millis(wait.unwrap_or(0));
    loop {
        // before the look, so that nothing is missed in between
        let change = cx.app.transcripts.change();
        tokio::pin!(change);
        change.as_mut().enable();
        let found = look(&cx, &id, &input).await;
        let is_worth_waiting = match &found {
            Ok(response) => is_empty_yet(response),
            Err(error) => error.code == ErrorCode::DoesNotExistException,
        };
        if !is_worth_waiting || timeout_at(until, change).await.is_err() {
            return found;
        }
    }
}

/// Nothing is there now, and something may come.
fn is_empty_yet(response: &GetTranscriptResponse) -> bool {
    response.data.as_deref().is_none_or(str::is_empty)
        && response.complete != Some(true)
        && response.session_ended != Some(true)
}

/// What is there now.
async fn look(
    cx: &RequestContext,
    id: &TranscriptId,
    input: &GetTranscriptRequest,
) -> ApiResult<GetTranscriptResponse> {
    let row = existing(cx, Some(id.as_str())).await?;
    cx.record.is_about_nodes([row.node.as_str()]);
    let length = cx.app.transcripts.length(id).await?;
    let length =
        length.ok_or_else(
            || match row.place == Place::Store && !cx.app.transcripts.has_remote() {
                true => in_no_store(id),
                false => missing(id.as_str()),
            },
        )?;
    let offset = match input.tail_bytes.and_then(|tail| u64::try_from(tail).ok()) {
        Some(tail) => begin_of_tail(cx, id, length, tail).await?,
        None => u64::try_from(input.offset.unwrap_or(0)).unwrap_or(0),
    };
    if offset > length {
        return Err(ApiError::validation(format!(
            "Offset {offset} is behind the end of the transcript, which has {length} bytes"
        )));
    }
    let limit = input
        .max_bytes
        .and_then(|most| u64::try_from(most).ok())
        .unwrap_or(DEFAULT_BYTES);
    let mut piece = cx
        .app
        .transcripts
        .read(id, offset, limit.min(length - offset))
        .await?;
    let read_all = offset + bytes(&piece) >= length;
    let is_over = row.completed_at.is_some() && read_all;
    if !is_over {
        piece.truncate(whole_lines(&piece, !read_all));
    }
    let next = offset + bytes(&piece);
    Ok(GetTranscriptResponse {
        session_id: Some(id.to_string()),
        data: Some(String::from_utf8_lossy(&piece).into_owned()),
        next_offset: Some(i64::try_from(next).unwrap_or(i64::MAX)),
        complete: Some(row.completed_at.is_some() && next >= length),
        session_ended: Some(row.ended_at.is_some()),
        state: Some(state(&row)),
    })
}

/// It was brought there before the settings changed.
fn in_no_store(id: &TranscriptId) -> ApiError {
    let message = format!(
        "the transcript {id} was brought to an object store, and the endpoint has none now: start it with that one's \
         --transcript-store"
    );
    ApiError::new(ErrorCode::ServiceUnavailable, message)
}

/// Where the first line begins that lies in the last `tail` bytes as a whole.
async fn begin_of_tail(cx: &RequestContext, id: &TranscriptId, length: u64, tail: u64) -> ApiResult<u64> {
    let begin = length.saturating_sub(tail);
    if begin == 0 {
        return Ok(0);
    }
    let piece = cx.app.transcripts.read(id, begin, LINE_BYTES).await?;
    let line = piece.iter().position(|byte| *byte == b'\n');
    Ok(line.map_or(length, |end| begin + bytes(piece.get(..=end).unwrap_or_default())))
}

fn bytes(piece: &[u8]) -> u64 {
    u64::try_from(piece.len()).unwrap_or(u64::MAX)
}

/// Length of the whole lines in the piece. A line that is longer than the piece goes out in parts, between
/// characters.
fn whole_lines(piece: &[u8], more_follows: bool) -> usize {
    if let Some(end) = piece.iter().rposition(|byte| *byte == b'\n') {
        return end + 1;
    }
    if !more_follows {
        return 0;
    }
    match std::str::from_utf8(piece) {
        Ok(_) => piece.len(),
        // one character may be cut; what is broken otherwise goes out as it is
        Err(error) if error.error_len().is_none() && error.valid_up_to() > 0 => error.valid_up_to(),
        Err(_) => piece.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::whole_lines;

    #[test]
    fn a_piece_ends_with_a_line_or_between_characters() {
        assert_eq!(whole_lines(b"ab\ncd\nef", true), 6);
        assert_eq!(whole_lines(b"ab\ncd\nef", false), 6);
        assert_eq!(whole_lines(b"abcdef", true), 6, "a line longer than the piece");
        assert_eq!(
            whole_lines(b"abcdef", false),
            0,
            "a line that is still being written"
        );
        assert_eq!(whole_lines("abé".as_bytes().split_last().unwrap().1, true), 2);
        assert_eq!(whole_lines(b"", false), 0);
    }
}
