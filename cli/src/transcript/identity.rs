//! The key that opens an encrypted transcript: a file of age identities, as age-keygen writes it.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use age::x25519;
use base64::{Engine, prelude::BASE64_STANDARD};
use moorline_protocol::transcript::{DataKey, Encryption};

use crate::error::CliError;

/// Thousands of identities.
const MAX_BYTES: u64 = 1024 * 1024;

/// The identities of a file.
pub(super) struct Identity {
    path: PathBuf,
    identities: Vec<x25519::Identity>,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Identity {
    /// Reads a file.
    pub(super) fn read(path: &Path) -> Result<Self, CliError> {
        let failed = |source| CliError::io(format!("read {}", path.display()), source);
        let mut text = String::new();
        File::open(path)
            .and_then(|file| file.take(MAX_BYTES).read_to_string(&mut text))
            .map_err(failed)?;
        let keys = text.lines().map(str::trim);
        let keys = keys.filter(|line| !line.is_empty() && !line.starts_with('#'));
        let identities: Result<Vec<x25519::Identity>, &str> = keys.map(str::parse).collect();
        match identities {
            Ok(identities) if !identities.is_empty() => Ok(Self {
                path: path.to_owned(),
                identities,
            }),
            // what is wrong with a line is not told: it may be a secret
            _ => Err(CliError::Usage(format!(
                "{} holds no age identities: lines that begin with AGE-SECRET-KEY-1",
                path.display()
            ))),
        }
    }

    /// Opens the data key of a recording.
    pub(super) fn data_key(&self, encryption: &Encryption) -> Result<DataKey, CliError> {
        let failed = |why: &dyn std::fmt::Display| {
            CliError::Transcript(format!(
                "the key of the transcript does not open with {}: {why}",
                self.path.display()
            ))
        };
        let file = BASE64_STANDARD
            .decode(&encryption.key)
            .map_err(|error| failed(&error))?;
        let file = age::Decryptor::new(file.as_slice()).map_err(|error| failed(&error))?;
        let identities = self.identities.iter().map(|one| one as &dyn age::Identity);
        let opened = file.decrypt(identities).map_err(|error| failed(&error))?;
        let mut key = Vec::new();
        opened
            .take(33)
            .read_to_end(&mut key)
            .map_err(|error| failed(&error))?;
        let key = key.try_into().map_err(|_| failed(&"it has not 32 bytes"))?;
        Ok(DataKey::new(key))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use age::secrecy::ExposeSecret;

    use super::*;

    fn written(identity: &x25519::Identity) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.txt");
        let secret = identity.to_string();
        fs::write(
            &path,
            format!("# created by a test\n{}\n", secret.expose_secret()),
        )
        .unwrap();
        (folder, path)
    }

    #[test]
    fn the_data_key_opens_with_the_identity_that_it_is_for_and_no_other() {
        let (mine, other) = (x25519::Identity::generate(), x25519::Identity::generate());
        let key = age::encrypt(&mine.to_public(), &[7; 32]).unwrap();
        let encryption = Encryption {
            recipients: vec![mine.to_public().to_string()],
            key: BASE64_STANDARD.encode(key),
        };
        let (_folder, path) = written(&mine);
        assert!(Identity::read(&path).unwrap().data_key(&encryption).is_ok());
        let (_folder, path) = written(&other);
        assert!(Identity::read(&path).unwrap().data_key(&encryption).is_err());
    }

    #[test]
    fn what_is_no_identity_is_told_without_its_content() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.txt");
        fs::write(&path, "AGE-SECRET-KEY-1NOT\n").unwrap();
        let told = Identity::read(&path).unwrap_err().to_string();
        assert!(
            told.contains("holds no age identities") && !told.contains("1NOT"),
            "{told}"
        );
    }
}
