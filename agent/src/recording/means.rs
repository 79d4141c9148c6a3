//! What this node has to record with: the key that seals, and the recipients that its owner names.

use std::{io, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use moorline_protocol::transcript::{DataKey, Encryption};
use ring::rand::{SecureRandom as _, SystemRandom};

use super::{About, Recorder};
use crate::{
    config::{ConfigError, TranscriptConfig},
    identity::TranscriptKey,
    runtime::seal_to,
};

/// Why there is no recorder.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Missing {
    #[error("the endpoint takes no recordings")]
    NotWanted,
    #[error("the endpoint does not know the key of this node that seals recordings")]
    NotRegistered,
    #[error("there is no key to seal it with: {0}")]
    Key(io::Error),
    #[error("it cannot be encrypted to its recipients: {0}")]
    Recipients(String),
}

/// What a recorder is made with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Means<'a> {
    pub(crate) state_dir: &'a Path,
    pub(crate) config: &'a TranscriptConfig,
    /// Whether the endpoint knows the key that seals.
    pub(crate) seals: bool,
}

impl Means<'_> {
    /// What is not sealed proves nothing, and what must be encrypted is not sent otherwise; only without either wish an
    /// unsealed recording is better than none.
    ///
    /// # Errors
    /// What the owner wants of it cannot be had.
    pub(crate) fn recorder(&self, about: About) -> Result<Recorder, Missing> {
        let id = about.id.clone();
        let key = match self.sealing_key() {
            Ok(key) => Some(key),
            Err(missing) if self.config.is_required() || !self.config.recipients.is_empty() => {
                return Err(missing);
            }
            Err(missing) => {
                tracing::warn!(recording = %id, %missing, "the recording is not sealed");
                None
            }
        };
        let recorder = Recorder::new(about, key);
        if self.config.recipients.is_empty() {
            return Ok(recorder);
        }
        let (key, header) = self.data_key().map_err(Missing::Recipients)?;
        Ok(recorder.encrypted(&key, header))
    }

    /// A key for this recording alone, and the header's member that lets its recipients have it.
    fn data_key(&self) -> Result<(DataKey, Encryption), String> {
        let recipients = self
            .config
            .parsed_recipients()
            .map_err(|error: ConfigError| error.to_string())?;
        let mut bytes = [0; 32];
        let file = SystemRandom::new()
            .fill(&mut bytes)
            .and_then(|()| seal_to(&recipients, &bytes))
            .map_err(|_| "a recipient is no key, or the operating system gives no randomness".to_owned())?;
        let header = Encryption {
            recipients: self.config.recipients.clone(),
            key: STANDARD.encode(file),
        };
        Ok((DataKey::new(bytes), header))
    }

    fn sealing_key(&self) -> Result<TranscriptKey, Missing> {
        if !self.seals {
            return Err(Missing::NotRegistered);
        }
        match TranscriptKey::load(self.state_dir) {
            Ok(Some(key)) => Ok(key),
            Ok(None) => Err(Missing::Key(io::ErrorKind::NotFound.into())),
            Err(error) => Err(Missing::Key(error)),
        }
    }
}

/// A path of an HTTP request that needs no escape: what is appended to it stays where it belongs.
pub(crate) fn is_plain_path(path: &str) -> bool {
    path.len() <= 256
        && path.starts_with('/')
        && path
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'.' | b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transcript_goes_to_a_path_and_nowhere_else() {
        assert!(is_plain_path("/v1/transcript/me-0abc.1_2"));
        for bad in [
            "",
            "v1",
            "https://h/x",
            "/a?offset=0",
            "/a b",
            "/a\r\nx: y",
            "/%2e",
            "/é",
        ] {
            assert!(!is_plain_path(bad), "{bad}");
        }
        assert!(!is_plain_path(&"/a".repeat(200)));
    }
}
