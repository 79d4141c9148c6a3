//! `ModifyDocumentPermission`: records with which accounts a document is shared.
//!
//! AWS: API_ModifyDocumentPermission. Deviation: an endpoint is one account, so this gives nobody anything; it is kept
//! for clients that manage it.

use moorline_ssm::{
    ErrorCode,
    document::{ModifyDocumentPermissionRequest, ModifyDocumentPermissionResponse},
};

use super::no_such_document;
use crate::{
    api::{ApiError, ApiResult, RequestContext},
    store::ShareRow,
};

/// AWS's quota for a document.
const MOST_ACCOUNTS: i64 = 1000;

pub(super) async fn modify_document_permission(
    cx: RequestContext,
    input: ModifyDocumentPermissionRequest,
) -> ApiResult<ModifyDocumentPermissionResponse> {
    let name = input.name.unwrap_or_default();
    let document = cx.app.store.document(&name).await?;
    let document = document.ok_or_else(|| no_such_document(&name))?;
    if document.is_built_in() {
        let message =
            format!("{name} comes with the endpoint; create a document of another name from it to share it");
        return Err(ApiError::new(ErrorCode::InvalidDocument, message));
    }
    // The model takes $DEFAULT, $LATEST and $ALL only.
    let version = input.shared_document_version;
    let share = |account_id: String| ShareRow {
        account_id: plain(&account_id),
        version: version.clone(),
    };
    let added: Vec<ShareRow> = input
        .account_ids_to_add
        .unwrap_or_default()
        .into_iter()
        .map(share)
        .collect();
    let removed: Vec<String> = input
        .account_ids_to_remove
        .unwrap_or_default()
        .iter()
        .map(|account_id| plain(account_id))
        .collect();
    if !cx
        .app
        .store
        .share_document(&name, &added, &removed, MOST_ACCOUNTS)
        .await?
    {
        let message = format!("document {name} would be shared with more than {MOST_ACCOUNTS} accounts");
        return Err(ApiError::new(ErrorCode::DocumentPermissionLimit, message));
    }
    tracing::info!(document = name, by = cx.principal.arn(), "document shared");
    Ok(ModifyDocumentPermissionResponse::default())
}

/// `all` may be written in any case.
fn plain(account_id: &str) -> String {
    account_id.to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use moorline_ssm::document::{
        CreateDocument, CreateDocumentRequest, DeleteDocument, DeleteDocumentRequest,
        DescribeDocumentPermission, DescribeDocumentPermissionRequest, DocumentPermissionType,
        ModifyDocumentPermission,
    };

    use super::*;
    use crate::test_support::TestApp;

    const CONTENT: &str = r#"{"schemaVersion":"2.2","mainSteps":[{"action":"aws:runShellScript","name":"a","inputs":{"runCommand":["true"]}}]}"#;

    async fn create(test: &TestApp) {
        let input = CreateDocumentRequest {
            name: Some("Mine".to_owned()),
            content: Some(CONTENT.to_owned()),
            ..Default::default()
        };
        test.call::<CreateDocument>(input).await.unwrap();
    }

    fn change(
        name: &str,
        added: &[&str],
        removed: &[&str],
        version: Option<&str>,
    ) -> ModifyDocumentPermissionRequest {
        let texts = |texts: &[&str]| Some(texts.iter().map(|text| (*text).to_owned()).collect());
        ModifyDocumentPermissionRequest {
            name: Some(name.to_owned()),
            permission_type: Some(DocumentPermissionType::Share),
            account_ids_to_add: texts(added),
            account_ids_to_remove: texts(removed),
            shared_document_version: version.map(str::to_owned),
        }
    }

    async fn shared(test: &TestApp) -> Vec<(String, Option<String>)> {
        let input = DescribeDocumentPermissionRequest {
            name: Some("Mine".to_owned()),
            permission_type: Some(DocumentPermissionType::Share),
            ..Default::default()
        };
        let told = test.call::<DescribeDocumentPermission>(input).await.unwrap();
        let shares = told.account_sharing_info_list.unwrap();
        let ids: Vec<_> = shares
            .iter()
            .filter_map(|share| share.account_id.clone())
            .collect();
        assert_eq!(told.account_ids.unwrap(), ids);
        let pair = |share: moorline_ssm::document::AccountSharingInfo| {
            (share.account_id.unwrap(), share.shared_document_version)
        };
        shares.into_iter().map(pair).collect()
    }

    #[tokio::test]
    async fn sharing_is_kept_changed_and_gone_with_the_document() {
        let test = TestApp::new().await;
        create(&test).await;
        assert!(shared(&test).await.is_empty());
        let (one, two) = ("111111111111", "222222222222");
        let call = async |input| test.call::<ModifyDocumentPermission>(input).await.unwrap();
        call(change("Mine", &[one, two, "All"], &[], None)).await;
        call(change("Mine", &[two], &[one], Some("$LATEST"))).await;
        let expected = [
            (two.to_owned(), Some("$LATEST".to_owned())),
            ("all".to_owned(), None),
        ];
        assert_eq!(shared(&test).await, expected);
        let delete = DeleteDocumentRequest {
            name: Some("Mine".to_owned()),
            ..Default::default()
        };
        test.call::<DeleteDocument>(delete).await.unwrap();
        create(&test).await;
        assert!(shared(&test).await.is_empty());
    }

    #[tokio::test]
    async fn what_cannot_be_shared_is_refused_by_name() {
        let test = TestApp::new().await;
        create(&test).await;
        let seeds = crate::api::built_in_documents();
        test.app.store.seed_documents(&seeds, 0).await.unwrap();
        let one = "111111111111";
        let table = [
            (change("Absent", &[one], &[], None), ErrorCode::InvalidDocument),
            (
                change("AWS-RunShellScript", &[one], &[], None),
                ErrorCode::InvalidDocument,
            ),
            (
                change("Mine", &[one], &[], Some("7")),
                ErrorCode::ValidationException,
            ),
            (change("Mine", &["1"], &[], None), ErrorCode::ValidationException),
            (
                ModifyDocumentPermissionRequest {
                    permission_type: Some(DocumentPermissionType::from("Sell")),
                    ..change("Mine", &[one], &[], None)
                },
                ErrorCode::ValidationException,
            ),
        ];
        for (input, code) in table {
            let error = test.refuse::<ModifyDocumentPermission>(input.clone()).await;
            assert_eq!(error.code, code, "{input:?}: {error}");
        }
        assert!(shared(&test).await.is_empty());
    }
}
