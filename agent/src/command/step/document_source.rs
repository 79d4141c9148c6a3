//! Documents of the endpoint, as a step names them: `NAME`, `NAME:VERSION` or an ARN.

use std::path::Path;

use moorline_ssm::document::{DescribeDocument, DescribeDocumentRequest, GetDocument, GetDocumentRequest};
use ring::digest;

use crate::identity::Registration;

/// A document of the endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FetchedDocument {
    /// Without ARN and version.
    pub(super) name: String,
    /// JSON or YAML.
    pub(super) content: String,
}

/// Gets a document, and checks that its content has the hash under which it is described.
///
/// # Errors
/// The node is not registered, the endpoint refuses or is out of reach, or the content is not what it should be.
pub(super) async fn fetch(state_dir: &Path, reference: &str) -> Result<FetchedDocument, String> {
    let (full_name, version) = parse(reference);
    let name = full_name.rsplit('/').next().unwrap_or(full_name).to_owned();
    if name.is_empty() {
        return Err("Document Path must be provided".to_owned());
    }
    let failed = |error: anyhow::Error| format!("failed to get the document {name}: {error:#}");
    let registration = Registration::load(state_dir).map_err(|error| failed(error.into()))?;
    let credentials = registration.request_role_credentials().await;
    let credentials = credentials.map_err(|error| failed(error.into()))?.credentials;
    let client = registration.api_client();
    // AWS hashes a form of the document that it does not hand out, so there nothing is compared.
    let described = match registration.is_moorline {
        false => None,
        true => {
            let request = DescribeDocumentRequest {
                name: Some(full_name.to_owned()),
                document_version: version.map(str::to_owned),
                ..Default::default()
            };
            let described = client
                .call::<DescribeDocument>(Some(&credentials), &request)
                .await;
            described.map_err(|error| failed(error.into()))?.document
        }
    };
    let found = described.as_ref();
    let request = GetDocumentRequest {
        name: Some(full_name.to_owned()),
        document_version: match found {
            Some(found) => found.document_version.clone(),
            None => version.map(str::to_owned),
        },
        // As it was stored: a converted one has another hash.
        document_format: found.and_then(|found| found.document_format.clone()),
        ..Default::default()
    };
    let got = client.call::<GetDocument>(Some(&credentials), &request).await;
    let content = got
        .map_err(|error| failed(error.into()))?
        .content
        .unwrap_or_default();
    if registration.is_moorline {
        let expected = described.and_then(|found| found.hash).unwrap_or_default();
        check_hash(&content, &expected).map_err(|reason| failed(anyhow::anyhow!(reason)))?;
    }
    Ok(FetchedDocument { name, content })
}

fn check_hash(content: &str, expected: &str) -> Result<(), String> {
    let hash = digest::digest(&digest::SHA256, content.as_bytes());
    let hash: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    if hash.eq_ignore_ascii_case(expected) {
        return Ok(());
    }
    Err(format!(
        "its content has the hash {hash} and is described with {expected}; nothing is run"
    ))
}

/// Name, or the ARN without its version, and version.
fn parse(reference: &str) -> (&str, Option<&str>) {
    let (before, name) = reference.split_at(reference.rfind('/').map_or(0, |slash| slash + 1));
    match name.split_once(':') {
        Some((plain, version)) => (
            reference.get(..before.len() + plain.len()).unwrap_or(plain),
            Some(version).filter(|version| !version.is_empty()),
        ),
        None => (reference, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_named_in_three_ways() {
        let arn = "arn:aws:ssm:eu-west-1:123456789012:document/Mine";
        let with_version = format!("{arn}:$LATEST");
        let table = [
            ("Mine", ("Mine", None)),
            ("Mine:3", ("Mine", Some("3"))),
            ("Mine:", ("Mine", None)),
            (arn, (arn, None)),
            (&with_version, (arn, Some("$LATEST"))),
        ];
        for (reference, expected) in table {
            assert_eq!(parse(reference), expected, "{reference}");
        }
    }

    #[test]
    fn content_with_another_hash_is_refused() {
        let sha256_of_abc = "BA7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(check_hash("abc", sha256_of_abc), Ok(()));
        assert!(
            check_hash("abd", sha256_of_abc)
                .unwrap_err()
                .contains("nothing is run")
        );
        assert!(check_hash("abc", "").is_err());
    }
}
