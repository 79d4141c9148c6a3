//! `PutAttachment`: a piece of a file that is to be attached to documents. Ours: with it a file gets here without S3.
//!
//! The reply says where the next piece is to begin, so an upload that broke off goes on (from its begin, if the
//! endpoint was restarted), and a first call with an empty piece asks. CreateDocument and UpdateDocument name the file
//! as the AttachmentReference `sha256:HEX`. What no document names within a day is removed.

use moorline_ssm::document::{PutAttachmentRequest, PutAttachmentResponse};

use crate::{
    api::{ApiError, ApiResult, RequestContext},
    store::{Put, Upload},
};

pub(super) async fn put_attachment(
    cx: RequestContext,
    input: PutAttachmentRequest,
) -> ApiResult<PutAttachmentResponse> {
    let sha256 = input.sha256.unwrap_or_default();
    let count = |number: Option<i64>| u64::try_from(number.unwrap_or_default()).unwrap_or_default();
    let (size, offset) = (count(input.size), count(input.offset));
    let piece = input.data.map(|data| data.0).unwrap_or_default();
    let upload = Upload {
        by: &cx.principal.arn(),
        sha256: &sha256,
        size,
    };
    let put = cx.app.attachments.put(upload, offset, piece.into()).await?;
    match put {
        Put::Next(offset) => Ok(PutAttachmentResponse {
            next_offset: Some(i64::try_from(offset).unwrap_or(i64::MAX)),
            complete: Some(false),
        }),
        Put::Whole => Ok(PutAttachmentResponse {
            next_offset: Some(i64::try_from(size).unwrap_or(i64::MAX)),
            complete: Some(true),
        }),
        Put::OtherHash => Err(ApiError::validation(format!(
            "Sha256: the file that came has another SHA-256 than {sha256}; it was not kept"
        ))),
        Put::Full => Err(ApiError::validation(
            "Size: there is no more room for attachments at this endpoint; delete versions of documents that have \
             some, and wait a day",
        )),
    }
}

#[cfg(test)]
mod tests {
    use moorline_ssm::{Blob, ErrorCode, document::PutAttachment};

    use super::*;
    use crate::{
        auth::Principal,
        test_support::{TestApp, node_id},
    };

    fn piece(offset: i64, data: &[u8]) -> PutAttachmentRequest {
        PutAttachmentRequest {
            sha256: Some("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad".to_owned()),
            size: Some(3),
            offset: Some(offset),
            data: Some(Blob(data.to_vec())),
        }
    }

    #[tokio::test]
    async fn the_reply_says_where_to_go_on() {
        let test = TestApp::new().await;
        for (offset, data, next, complete) in [
            (0, &b""[..], 0, false),
            (0, b"ab", 2, false),
            (0, b"abc", 2, false),
            (2, b"c", 3, true),
            (0, b"", 3, true),
        ] {
            let reply = test.call::<PutAttachment>(piece(offset, data)).await.unwrap();
            assert_eq!((reply.next_offset, reply.complete), (Some(next), Some(complete)));
        }
    }

    #[tokio::test]
    async fn other_bytes_and_other_principals_are_refused() {
        let test = TestApp::new().await;
        let error = test.refuse::<PutAttachment>(piece(0, b"abd")).await;
        assert!(error.message.contains("another SHA-256"), "{error}");
        let node = Principal::Node(node_id(0));
        let error = test.refuse_as::<PutAttachment>(node, piece(0, b"abc")).await;
        assert_eq!(error.code, ErrorCode::AccessDeniedException);
    }
}
