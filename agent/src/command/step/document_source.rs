//! Documents of the endpoint, as a step names them: `NAME`, `NAME:VERSION` or an ARN.

use std::{path::Path, time::Duration};

use moorline_protocol::error_chain;
use moorline_ssm::document::{
    AttachmentContent, DescribeDocument, DescribeDocumentRequest, DocumentType, GetDocument,
    GetDocumentRequest, GetDocumentResult,
};
use moorline_transport::{CallError, Trust};
use ring::digest;

use crate::{
    identity::{Registration, RoleCredentialsError},
    runtime::{Backoff, random_u32},
};

/// Pauses between attempts to reach the endpoint, and their number.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(4);
const ATTEMPTS: u32 = 6;

/// A document of the endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FetchedDocument {
    /// Without ARN and version.
    pub(super) name: String,
    /// JSON or YAML.
    pub(super) content: String,
}

/// A package of the endpoint.
#[derive(Debug)]
pub(super) struct FetchedPackage {
    /// The manifest, JSON.
    pub(super) content: String,
    pub(super) attachments: Vec<AttachmentContent>,
    /// Whom to believe where the attachments are; `None`: whom the system believes.
    pub(super) trust: Option<Trust>,
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
    let failed =
        |error: anyhow::Error| format!("failed to get the document {name}: {}", error_chain(&*error));
    let registration = Registration::load(state_dir).map_err(|error| failed(error.into()))?;
    let wanted = Wanted {
        name: full_name,
        version,
        version_name: None,
    };
    let got = wanted.get(&registration).await.map_err(failed)?;
    Ok(FetchedDocument {
        content: got.content.unwrap_or_default(),
        name,
    })
}

/// Gets a package in the version of this name, or its default one, with its content checked in the same way.
///
/// # Errors
/// As [`fetch`]; or the document is no package.
pub(super) async fn fetch_package(
    state_dir: &Path,
    name: &str,
    version_name: Option<&str>,
) -> Result<FetchedPackage, String> {
    let failed = |error: anyhow::Error| {
        format!(
            "failed to get the package document {name}: {}",
            error_chain(&*error)
        )
    };
    let registration = Registration::load(state_dir).map_err(|error| failed(error.into()))?;
    let wanted = Wanted {
        name,
        version: None,
        version_name,
    };
    let got = wanted.get(&registration).await.map_err(failed)?;
    if got.document_type != Some(DocumentType::Package) {
        return Err(failed(anyhow::anyhow!("it is no document of type Package")));
    }
    Ok(FetchedPackage {
        content: got.content.unwrap_or_default(),
        attachments: got.attachments_content.unwrap_or_default(),
        trust: registration.is_moorline.then_some(registration.trust),
    })
}

/// What is asked of the endpoint.
#[derive(Debug, Clone, Copy)]
struct Wanted<'a> {
    /// Or ARN.
    name: &'a str,
    version: Option<&'a str>,
    version_name: Option<&'a str>,
}

impl Wanted<'_> {
    /// Asks until the endpoint answers, for a bounded time: it may be on its way back.
    async fn get(&self, registration: &Registration) -> anyhow::Result<GetDocumentResult> {
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        let mut attempt = 1;
        loop {
            match self.get_once(registration).await {
                Err(error) if is_passing(&error) && attempt < ATTEMPTS => {
                    attempt += 1;
                    tokio::time::sleep(backoff.next(random_u32())).await;
                }
                result => return result,
            }
        }
    }

    async fn get_once(&self, registration: &Registration) -> anyhow::Result<GetDocumentResult> {
        let credentials = registration.request_role_credentials().await?.credentials;
        let client = registration.api_client();
        // AWS hashes a form of the document that it does not hand out, so there nothing is compared.
        let described = match registration.is_moorline {
            false => None,
            true => {
                let request = DescribeDocumentRequest {
                    name: Some(self.name.to_owned()),
                    document_version: self.version.map(str::to_owned),
                    version_name: self.version_name.map(str::to_owned),
                };
                let described = client
                    .call::<DescribeDocument>(Some(&credentials), &request)
                    .await;
                described?.document
            }
        };
        let found = described.as_ref();
        let request = GetDocumentRequest {
            name: Some(self.name.to_owned()),
            document_version: match found {
                Some(found) => found.document_version.clone(),
                None => self.version.map(str::to_owned),
            },
            version_name: self.version_name.map(str::to_owned),
            // As it was stored: a converted one has another hash.
            document_format: found.and_then(|found| found.document_format.clone()),
        };
        let got = client.call::<GetDocument>(Some(&credentials), &request).await?;
        if registration.is_moorline {
            let expected = described.and_then(|found| found.hash).unwrap_or_default();
            let content = got.content.as_deref().unwrap_or_default();
            check_hash(content, &expected).map_err(anyhow::Error::msg)?;
        }
        Ok(got)
    }
}

/// Whether the endpoint could not be reached, rather than has refused.
fn is_passing(error: &anyhow::Error) -> bool {
    let call = match error.downcast_ref::<RoleCredentialsError>() {
        Some(RoleCredentialsError::Call(call)) => Some(call),
        _ => error.downcast_ref::<CallError>(),
    };
    match call {
        Some(CallError::Http { .. }) => true,
        Some(CallError::Service { source, .. }) => source.status >= 500,
        Some(CallError::Shape { .. }) | None => false,
    }
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
