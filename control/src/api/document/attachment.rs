//! Attachments of a version: where the request says that they are, and where readers of the document get them.
//!
//! AWS: API_AttachmentsSource. `SourceUrl` is a folder of S3, `S3FileUrl` a file of it, `AttachmentReference` a file of
//! another version as `DOCUMENT/VERSION/FILE`. Ours beside it: `sha256:HEX`, a file that PutAttachment brought. Files out
//! of S3 must be described with their SHA-256 in the content's `files`, as AWS has it in its examples.

use std::collections::BTreeMap;

use moorline_protocol::package::{MAX_FILE_BYTES, MAX_FILES, is_attachment_name};
use moorline_ssm::document::{
    AttachmentContent, AttachmentHashType, AttachmentInformation, AttachmentsSource, AttachmentsSourceKey,
};

use super::{choice, content::invalid, plain_name};
use crate::{
    api::{ApiError, ApiResult, RequestContext},
    store::{AttachmentRow, S3Source, S3SourceError, VersionChoice},
};

/// Begins the reference to a file that PutAttachment brought.
const UPLOADED: &str = "sha256:";

/// What the content says of its files: their SHA-256 in lower-case hex, by name.
pub(super) type Described = BTreeMap<String, String>;

/// Gets the attachments of a version that is to be stored. Each file that the content describes is to be there.
pub(super) async fn resolve(
    cx: &RequestContext,
    sources: Vec<AttachmentsSource>,
    described: &Described,
) -> ApiResult<Vec<AttachmentRow>> {
    let mut attachments: BTreeMap<String, AttachmentRow> = BTreeMap::new();
    for source in sources {
        for attachment in from_source(cx, &source, described).await? {
            let name = attachment.file_name.clone();
            if attachments.insert(name.clone(), attachment).is_some() {
                return Err(invalid(format!("Attachments: {name} is attached twice")));
            }
        }
    }
    if attachments.len() > MAX_FILES {
        return Err(invalid(format!(
            "Attachments: there are {}; a document has {MAX_FILES} at most",
            attachments.len()
        )));
    }
    for (name, sha256) in described {
        match attachments.get(name) {
            Some(attachment) if attachment.sha256 == *sha256 => {}
            Some(attachment) => {
                return Err(invalid(format!(
                    "Attachments: {name} has the SHA-256 {}; the content says {sha256}",
                    attachment.sha256
                )));
            }
            None => {
                return Err(invalid(format!(
                    "Attachments: {name} is missing, which the content describes"
                )));
            }
        }
    }
    Ok(attachments.into_values().collect())
}

async fn from_source(
    cx: &RequestContext,
    source: &AttachmentsSource,
    described: &Described,
) -> ApiResult<Vec<AttachmentRow>> {
    let value = match source.values.as_deref() {
        Some([value]) => value.as_str(),
        _ => return Err(invalid("Attachments: Values must have one element".to_owned())),
    };
    let name = source.name.as_deref();
    match &source.key {
        Some(AttachmentsSourceKey::AttachmentReference) => {
            let attachment = match value.strip_prefix(UPLOADED) {
                Some(sha256) => uploaded(cx, sha256, name).await?,
                None => of_another_version(cx, value, name).await?,
            };
            Ok(vec![attachment])
        }
        Some(AttachmentsSourceKey::S3FileUrl) => {
            let (bucket, key) = s3_place(value)?;
            let name = checked_name(name.unwrap_or_else(|| key.rsplit('/').next().unwrap_or_default()))?;
            let described = described
                .get_key_value(&name)
                .ok_or_else(|| not_described(&name))?;
            Ok(vec![from_s3(cx, (bucket, key), described).await?])
        }
        Some(AttachmentsSourceKey::SourceUrl) => {
            let (bucket, folder) = s3_place(value)?;
            if described.is_empty() {
                return Err(not_described("the folder's files"));
            }
            let mut attachments = Vec::new();
            for described in described {
                let key = match folder.trim_end_matches('/') {
                    "" => described.0.clone(),
                    folder => format!("{folder}/{}", described.0),
                };
                attachments.push(from_s3(cx, (bucket, &key), described).await?);
            }
            Ok(attachments)
        }
        other => {
            let key = other.as_ref().map(ToString::to_string).unwrap_or_default();
            Err(invalid(format!("Attachments: Key {key:?} is not known")))
        }
    }
}

fn not_described(what: &str) -> ApiError {
    invalid(format!(
        "Attachments: {what} must be described in the content, with its SHA-256: \"files\": {{\"NAME\": \
         {{\"checksums\": {{\"sha256\": \"…\"}}}}}}"
    ))
}

fn checked_name(name: &str) -> ApiResult<String> {
    if is_attachment_name(name) {
        return Ok(name.to_owned());
    }
    Err(invalid(format!(
        "Attachments: {name:?} cannot be the name of an attachment: 3 to 128 letters, digits, . _ and -"
    )))
}

/// A file that was uploaded before.
async fn uploaded(cx: &RequestContext, sha256: &str, name: Option<&str>) -> ApiResult<AttachmentRow> {
    let name = checked_name(name.unwrap_or_default())?;
    let is_hash = sha256.len() == 64 && sha256.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let size = match is_hash {
        true => cx.app.attachments.claim(sha256, cx.now).await?,
        false => None,
    };
    let size = size.ok_or_else(|| {
        invalid(format!(
            "Attachments: no file with the SHA-256 {sha256} was uploaded for {name}; upload it first"
        ))
    })?;
    Ok(AttachmentRow {
        file_name: name,
        sha256: sha256.to_owned(),
        size: i64::try_from(size).unwrap_or(i64::MAX),
    })
}

/// `DOCUMENT/VERSION/FILE`, the document by its name or ARN.
async fn of_another_version(
    cx: &RequestContext,
    reference: &str,
    name: Option<&str>,
) -> ApiResult<AttachmentRow> {
    let absent = || invalid(format!("Attachments: there is no attachment {reference}"));
    let mut parts = reference.rsplitn(3, '/');
    let (Some(file), Some(version), Some(document)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(absent());
    };
    let version = choice(Some(version), None).unwrap_or(VersionChoice::Number(0));
    let row = cx
        .app
        .store
        .document_version(plain_name(document), version)
        .await?
        .ok_or_else(absent)?;
    let attachments = cx.app.store.attachments(&row.name, row.version).await?;
    let found = attachments
        .into_iter()
        .find(|attachment| attachment.file_name == file);
    let found = found.ok_or_else(absent)?;
    // that version may go before the new one is stored, which may take as long as its other files
    if cx.app.attachments.claim(&found.sha256, cx.now).await?.is_none() {
        return Err(absent());
    }
    Ok(AttachmentRow {
        file_name: checked_name(name.unwrap_or(file))?,
        ..found
    })
}

/// Bucket and key of an URL of S3, in the three ways in which they are written.
fn s3_place(url: &str) -> ApiResult<(&str, &str)> {
    let refused = || {
        invalid(format!(
            "Attachments: {url:?} is no URL of S3, such as s3://BUCKET/FOLDER"
        ))
    };
    let place = match url.strip_prefix("s3://") {
        Some(place) => place,
        None => {
            let rest = url.strip_prefix("https://").ok_or_else(refused)?;
            let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
            match host.split_once(".s3.").or_else(|| host.split_once(".s3-")) {
                Some((bucket, _)) => return Ok((bucket, path)),
                None if host.starts_with("s3.") || host.starts_with("s3-") => path,
                None => return Err(refused()),
            }
        }
    };
    let (bucket, key) = place.split_once('/').unwrap_or((place, ""));
    if bucket.is_empty() {
        return Err(refused());
    }
    Ok((bucket, key))
}

async fn from_s3(
    cx: &RequestContext,
    (bucket, key): (&str, &str),
    (name, sha256): (&String, &String),
) -> ApiResult<AttachmentRow> {
    let no_source = || {
        invalid(
            "Attachments: this endpoint reads no files out of S3: its owner has to give it \
             --attachment-source-credentials; files can be uploaded without (`moorline document create --attachment`)"
                .to_owned(),
        )
    };
    let source: &S3Source = cx.app.attachment_source.as_ref().ok_or_else(no_source)?;
    let size = match cx.app.attachments.claim(sha256, cx.now).await? {
        Some(size) => size,
        None => source
            .copy(
                (bucket, key),
                (&cx.principal.arn(), sha256),
                MAX_FILE_BYTES,
                &cx.app.attachments,
            )
            .await
            .map_err(|error| from_s3_failed(error, bucket, key))?,
    };
    Ok(AttachmentRow {
        file_name: checked_name(name)?,
        sha256: sha256.clone(),
        size: i64::try_from(size).unwrap_or(i64::MAX),
    })
}

fn from_s3_failed(error: S3SourceError, bucket: &str, key: &str) -> ApiError {
    match error {
        S3SourceError::Store(error) => ApiError::internal(error),
        other => invalid(format!("Attachments: s3://{bucket}/{key}: {other}")),
    }
}

/// As descriptions have them.
pub(super) async fn informations(
    cx: &RequestContext,
    name: &str,
    version: i64,
) -> ApiResult<Option<Vec<AttachmentInformation>>> {
    let attachments = cx.app.store.attachments(name, version).await?;
    let information = |attachment: AttachmentRow| AttachmentInformation {
        name: Some(attachment.file_name),
    };
    Ok(Some(attachments.into_iter().map(information).collect::<Vec<_>>()).filter(|list| !list.is_empty()))
}

/// With URLs that lead whoever got them to the files, for a while.
pub(super) async fn contents(
    cx: &RequestContext,
    name: &str,
    version: i64,
) -> ApiResult<Option<Vec<AttachmentContent>>> {
    let attachments = cx.app.store.attachments(name, version).await?;
    let content = |attachment: AttachmentRow| {
        let AttachmentRow {
            file_name,
            sha256,
            size,
        } = attachment;
        let token = cx.app.keys.attachment_token(&sha256, cx.now);
        AttachmentContent {
            size: Some(size),
            hash: Some(sha256),
            hash_type: Some(AttachmentHashType::Sha256),
            url: Some(format!("https://{}/v1/attachments/{token}/{file_name}", cx.host)),
            name: Some(file_name),
        }
    };
    Ok(Some(attachments.into_iter().map(content).collect::<Vec<_>>()).filter(|list| !list.is_empty()))
}
