//! `GetTranscript`: a piece of a recording, whole lines. Ours, not AWS's.
//!
//! It works while the session runs: a piece may be empty, and the next one begins at `NextOffset`. `Complete` is true
//! when nothing follows.

use moorline_protocol::types::SessionId;
use moorline_ssm::{
    ErrorCode,
    transcript::{GetTranscriptRequest, GetTranscriptResponse},
};

use crate::{
    api::{ApiError, ApiResult, RequestContext},
    store::TranscriptQuery,
};

/// Bytes of a piece when the request does not say.
const DEFAULT_BYTES: u64 = 256 * 1024;

pub(super) async fn get_transcript(
    cx: RequestContext,
    input: GetTranscriptRequest,
) -> ApiResult<GetTranscriptResponse> {
    let given = input.session_id.unwrap_or_default();
    let missing = || {
        let message = format!("there is no transcript of session {given}");
        ApiError::new(ErrorCode::DoesNotExistException, message)
    };
    let session: SessionId = given.parse().map_err(|_| missing())?;
    let query = TranscriptQuery {
        session_id: Some(given.clone()),
        limit: 1,
        ..TranscriptQuery::default()
    };
    let row = cx
        .app
        .store
        .transcripts(&query)
        .await?
        .pop()
        .ok_or_else(missing)?;
    let length = cx.app.transcripts.length(&session).await?.ok_or_else(missing)?;
    let offset = u64::try_from(input.offset.unwrap_or(0)).unwrap_or(0);
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
        .read(&session, offset, limit.min(length - offset))
        .await?;
    let read_all = offset + bytes(&piece) >= length;
    let is_over = row.completed_at.is_some() && read_all;
    if !is_over {
        piece.truncate(whole_lines(&piece, !read_all));
    }
    let next = offset + bytes(&piece);
    Ok(GetTranscriptResponse {
        session_id: Some(session.to_string()),
        data: Some(String::from_utf8_lossy(&piece).into_owned()),
        next_offset: Some(i64::try_from(next).unwrap_or(i64::MAX)),
        complete: Some(row.completed_at.is_some() && next >= length),
    })
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
