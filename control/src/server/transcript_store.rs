//! The object store for finished transcripts, and where its credentials come from: a file, or the environment.

use std::{collections::BTreeMap, path::PathBuf};

use super::{
    kms_key_file::{KmsKeyFileError, is_private},
    settings::StoreArguments,
    state_dir::{StateDirError, read},
};
use crate::store::{RemoteStore, RemoteStoreError, RemoteStoreSettings};

const KEY_ID: &str = "AWS_ACCESS_KEY_ID";
const SECRET: &str = "AWS_SECRET_ACCESS_KEY";
const TOKEN: &str = "AWS_SESSION_TOKEN";

/// Why there is no object store.
#[derive(Debug, thiserror::Error)]
pub(super) enum TranscriptStoreError {
    #[error("--transcript-store cannot be used")]
    Store(#[from] RemoteStoreError),
    #[error(transparent)]
    File(#[from] StateDirError),
    #[error(transparent)]
    Private(#[from] KmsKeyFileError),
    #[error("{} is not there; it is to hold {KEY_ID}=… and {SECRET}=…", .0.display())]
    NoFile(PathBuf),
    #[error("{0} is neither in the file with the credentials nor in the environment")]
    Missing(&'static str),
}

/// The store that the settings name, if they name one.
pub(super) fn open(settings: &StoreArguments) -> Result<Option<RemoteStore>, TranscriptStoreError> {
    let Some(url) = settings.url.clone() else {
        return Ok(None);
    };
    let credentials = ObjectStoreCredentials::read(settings.credentials.clone())?;
    let store = RemoteStore::new(&RemoteStoreSettings {
        url,
        endpoint: settings.endpoint.clone(),
        region: settings.region.clone(),
        access_key_id: credentials.access_key_id,
        secret_access_key: credentials.secret_access_key,
        session_token: credentials.session_token,
    })?;
    Ok(Some(store))
}

/// What an object store takes us for.
pub(super) struct ObjectStoreCredentials {
    pub(super) access_key_id: String,
    pub(super) secret_access_key: String,
    pub(super) session_token: Option<String>,
}

impl ObjectStoreCredentials {
    /// Out of a file that nobody else can read, or else out of the environment.
    pub(super) fn read(path: Option<PathBuf>) -> Result<Self, TranscriptStoreError> {
        let mut credentials = match path {
            Some(path) => {
                let bytes = read(&path)?.ok_or_else(|| TranscriptStoreError::NoFile(path.clone()))?;
                is_private(&path)?;
                assignments(&String::from_utf8_lossy(&bytes))
            }
            None => [KEY_ID, SECRET, TOKEN]
                .into_iter()
                .filter_map(|name| Some((name.to_owned(), std::env::var(name).ok()?)))
                .collect(),
        };
        let mut take = |name| {
            credentials
                .remove(name)
                .ok_or(TranscriptStoreError::Missing(name))
        };
        Ok(Self {
            access_key_id: take(KEY_ID)?,
            secret_access_key: take(SECRET)?,
            session_token: take(TOKEN).ok(),
        })
    }
}

/// `NAME=VALUE` lines, as a file of systemd's `EnvironmentFile=` has them; other lines are comments.
fn assignments(text: &str) -> BTreeMap<String, String> {
    text.lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.trim().to_owned(), value.trim().trim_matches('"').to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};

    use super::*;

    fn settings(dir: &tempfile::TempDir, content: &str) -> StoreArguments {
        let path = dir.path().join(uuid::Uuid::new_v4().to_string());
        let mut options = std::fs::OpenOptions::new();
        let mut file = options
            .create_new(true)
            .write(true)
            .mode(0o600)
            .open(&path)
            .unwrap();
        std::io::Write::write_all(&mut file, content.as_bytes()).unwrap();
        StoreArguments {
            url: Some("s3://bucket/some/where".to_owned()),
            endpoint: Some("http://127.0.0.1:1".to_owned()),
            region: "us-east-1".to_owned(),
            credentials: Some(path),
        }
    }

    #[test]
    fn credentials_come_from_a_file_that_others_cannot_read() {
        let dir = tempfile::tempdir().unwrap();
        let good = settings(
            &dir,
            "# of the bucket\nAWS_ACCESS_KEY_ID=a\nAWS_SECRET_ACCESS_KEY=\"b=\"\n",
        );
        assert!(open(&good).unwrap().is_some());
        let path = good.credentials.clone().unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(open(&good), Err(TranscriptStoreError::Private(_))));
        let without = settings(&dir, "AWS_ACCESS_KEY_ID=a\n");
        assert!(matches!(
            open(&without),
            Err(TranscriptStoreError::Missing(SECRET))
        ));
        for url in ["http://bucket", "s3://", "s3:///prefix"] {
            let other = StoreArguments {
                url: Some(url.to_owned()),
                ..settings(&dir, "AWS_ACCESS_KEY_ID=a\nAWS_SECRET_ACCESS_KEY=b\n")
            };
            assert!(
                matches!(open(&other), Err(TranscriptStoreError::Store(_))),
                "{url}"
            );
        }
    }
}
