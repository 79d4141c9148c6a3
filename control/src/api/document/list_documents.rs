//! `ListDocuments`: the documents that there are, by name.
//!
//! AWS: API_ListDocuments. Deviations: owner `Amazon` or `Public` means the documents that come with the endpoint,
//! `Self` or `Private` those of operators.

use moorline_ssm::{
    EpochSeconds, ErrorCode,
    document::{DocumentFormat, DocumentIdentifier, DocumentType, ListDocumentsRequest, ListDocumentsResult},
};

use super::content::platforms;
use crate::{
    api::{
        ApiError, ApiResult, RequestContext,
        filters::{matches_tags, matches_value},
        pagination::{Listing, limit},
        tag::wire_tags,
    },
    store::DocumentRow,
};

const DEFAULT_PAGE: usize = 50;

/// A filter of either form.
#[derive(Debug)]
struct Filter {
    key: String,
    values: Vec<String>,
}

pub(super) async fn list_documents(
    cx: RequestContext,
    input: ListDocumentsRequest,
) -> ApiResult<ListDocumentsResult> {
    let filters = filters(&input)?;
    let mut rows = cx.app.store.documents().await?;
    rows.retain(|row| filters.iter().all(|filter| matches(filter, row)));
    let (page, next_token) = Listing::new(&cx, "ListDocuments", &filters).page(
        rows,
        |row| row.name.clone(),
        input.next_token.as_deref(),
        limit(input.max_results, DEFAULT_PAGE),
    )?;
    let list = page.into_iter().map(identifier).collect();
    Ok(ListDocumentsResult {
        document_identifiers: Some(list),
        next_token,
    })
}

fn filters(input: &ListDocumentsRequest) -> ApiResult<Vec<Filter>> {
    let older = input.document_filter_list.iter().flatten().map(|filter| Filter {
        key: filter.key.as_ref().map_or("", |key| key.as_str()).to_owned(),
        values: filter.value.iter().cloned().collect(),
    });
    let newer = input.filters.iter().flatten().map(|filter| Filter {
        key: filter.key.clone().unwrap_or_default(),
        values: filter.values.clone().unwrap_or_default(),
    });
    let filters: Vec<Filter> = older.chain(newer).collect();
    match filters.iter().find(|filter| !is_known(&filter.key)) {
        None => Ok(filters),
        Some(Filter { key, .. }) => Err(ApiError::new(
            ErrorCode::InvalidFilterKey,
            format!("there is no filter {key}"),
        )),
    }
}

fn is_known(key: &str) -> bool {
    let plain = [
        "DocumentType",
        "Name",
        "Owner",
        "PlatformTypes",
        "SearchKeyword",
        "TargetType",
        "tag-key",
    ];
    plain.contains(&key) || key.strip_prefix("tag:").is_some_and(|tag| !tag.is_empty())
}

fn matches(filter: &Filter, row: &DocumentRow) -> bool {
    let values = &filter.values;
    match filter.key.as_str() {
        "DocumentType" => matches_value(values, Some(&row.document_type)),
        "Name" => values.iter().any(|prefix| row.name.starts_with(prefix)),
        "Owner" => values.iter().any(|owner| is_owner(owner, row)),
        "PlatformTypes" => platforms(row)
            .iter()
            .any(|platform| matches_value(values, Some(platform.as_str()))),
        "SearchKeyword" => values.iter().all(|word| contains(row, word)),
        "TargetType" => matches_value(values, row.target_type.as_deref()),
        key => matches_tags(key, values, &row.tags).unwrap_or(false),
    }
}

fn is_owner(owner: &str, row: &DocumentRow) -> bool {
    match owner {
        "All" => true,
        "Amazon" | "Public" => row.is_built_in(),
        "Private" | "Self" => !row.is_built_in(),
        name => row.owner == name,
    }
}

fn contains(row: &DocumentRow, word: &str) -> bool {
    let word = word.to_lowercase();
    let texts = [
        Some(&row.name),
        row.description.as_ref(),
        row.display_name.as_ref(),
    ];
    texts
        .into_iter()
        .flatten()
        .any(|text| text.to_lowercase().contains(&word))
}

fn identifier(row: DocumentRow) -> DocumentIdentifier {
    let platforms = platforms(&row);
    DocumentIdentifier {
        name: Some(row.name),
        created_date: Some(EpochSeconds::from_millis(row.created_at)),
        display_name: row.display_name,
        owner: Some(row.owner),
        version_name: row.version_name,
        platform_types: Some(platforms),
        document_version: Some(row.version.to_string()),
        document_type: Some(DocumentType::from(row.document_type.as_str())),
        schema_version: Some(row.schema_version),
        document_format: Some(DocumentFormat::from(row.document_format.as_str())),
        target_type: row.target_type,
        tags: Some(wire_tags(row.tags)),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use moorline_ssm::document::{
        DocumentFilter, DocumentFilterKey, DocumentKeyValuesFilter, ListDocuments, PlatformType,
    };

    use super::*;
    use crate::{
        store::{NewDocument, NewVersion},
        test_support::TestApp,
    };

    async fn seeded() -> TestApp {
        let test = TestApp::new().await;
        test.app
            .store
            .seed_documents(&crate::api::built_in_documents(), 0)
            .await
            .unwrap();
        test
    }

    fn by(key: &str, value: &str) -> ListDocumentsRequest {
        let filter = DocumentKeyValuesFilter {
            key: Some(key.to_owned()),
            values: Some(vec![value.to_owned()]),
        };
        ListDocumentsRequest {
            filters: Some(vec![filter]),
            ..Default::default()
        }
    }

    async fn count(test: &TestApp, input: ListDocumentsRequest) -> usize {
        test.call::<ListDocuments>(input)
            .await
            .unwrap()
            .document_identifiers
            .unwrap()
            .len()
    }

    #[tokio::test]
    async fn filters_of_both_forms_select() {
        let test = seeded().await;
        assert_eq!(count(&test, by("Name", "AWS-Run")).await, 4);
        assert_eq!(count(&test, by("DocumentType", "Session")).await, 7);
        assert_eq!(count(&test, by("Owner", "Self")).await, 0);
        let built_in = crate::api::built_in_documents();
        assert_eq!(count(&test, by("Owner", "Amazon")).await, built_in.len());
        let of_windows = count(&test, by("PlatformTypes", "Windows")).await;
        assert!((1..built_in.len()).contains(&of_windows), "{of_windows}");
        assert_eq!(count(&test, by("SearchKeyword", "SSH")).await, 1);
        assert_eq!(count(&test, by("tag:team", "a")).await, 0);
        let older = DocumentFilter {
            key: Some(DocumentFilterKey::DocumentType),
            value: Some("Command".to_owned()),
        };
        let input = ListDocumentsRequest {
            document_filter_list: Some(vec![older]),
            ..Default::default()
        };
        let commands = built_in.iter().filter(|one| one.document_type == "Command");
        assert_eq!(count(&test, input).await, commands.count());
        let error = test.refuse::<ListDocuments>(by("Nonsense", "x")).await;
        assert_eq!(error.code, ErrorCode::InvalidFilterKey);
    }

    #[tokio::test]
    async fn a_list_reads_no_pattern() {
        let test = TestApp::new().await;
        let content = serde_json::json!({"schemaVersion": "2.2",
            "parameters": {"a": {"type": "String", "allowedPattern": "(?=no pattern that can be compiled)"}},
            "mainSteps": [{"action": "aws:runShellScript", "name": "a", "inputs": {}}]})
        .to_string();
        let document = NewDocument {
            name: "mine".to_owned(),
            document_type: "Command".to_owned(),
            owner: "me".to_owned(),
            tags: Default::default(),
            version: NewVersion {
                document_format: "JSON".to_owned(),
                schema_version: "2.2".to_owned(),
                display_name: None,
                version_name: None,
                target_type: None,
                description: None,
                sha256: super::super::content::sha256_hex(content.as_bytes()),
                content,
                attachments: Vec::new(),
            },
        };
        assert!(test.app.store.insert_document(&document, false, 1).await.unwrap());
        let list = test.call::<ListDocuments>(ListDocumentsRequest::default()).await;
        let [listed] = list.unwrap().document_identifiers.unwrap().try_into().unwrap();
        let platforms = [PlatformType::Linux, PlatformType::MacOS];
        assert_eq!(listed.platform_types.as_deref(), Some(&platforms[..]));
    }

    #[tokio::test]
    async fn pages_show_every_document_once() {
        let test = seeded().await;
        let (mut names, mut next_token) = (Vec::new(), None);
        loop {
            let input = ListDocumentsRequest {
                max_results: Some(3),
                next_token,
                ..Default::default()
            };
            let page = test.call::<ListDocuments>(input).await.unwrap();
            names.extend(
                page.document_identifiers
                    .unwrap()
                    .into_iter()
                    .map(|one| one.name.unwrap()),
            );
            next_token = page.next_token;
            if next_token.is_none() {
                break;
            }
        }
        assert_eq!(names.len(), crate::api::built_in_documents().len());
        assert!(names.is_sorted());
    }
}
