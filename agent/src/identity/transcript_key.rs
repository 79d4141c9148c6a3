//! The key that this node seals its transcripts with (docs/transcript-format.md): made here, never leaves the node. Its
//! public half is registered with the endpoint, which verifies every seal.

use std::{
    fmt, fs, io,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use moorline_protocol::public_keys::PublicKey;
use ring::{
    rand::SystemRandom,
    signature::{Ed25519KeyPair, KeyPair as _},
};

/// An Ed25519 key.
pub(crate) struct TranscriptKey {
    pair: Ed25519KeyPair,
    public: PublicKey,
}

impl fmt::Debug for TranscriptKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TranscriptKey({})", self.public.id())
    }
}

impl TranscriptKey {
    /// Reads the key; `None`: there is none yet. Only reads, so that a full disk costs nothing.
    ///
    /// # Errors
    /// The file cannot be read, or holds no key.
    pub(crate) fn load(state_dir: &Path) -> io::Result<Option<Self>> {
        match fs::read(path(state_dir)) {
            Ok(bytes) => Self::read(&bytes).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads the key, or makes it: one of an earlier release has none.
    ///
    /// # Errors
    /// It cannot be read or written. A key that is damaged is not replaced: restore it, or remove the file.
    pub(crate) fn load_or_make(state_dir: &Path) -> io::Result<Self> {
        match Self::load(state_dir)? {
            Some(key) => Ok(key),
            None => Self::make(state_dir),
        }
    }

    /// Makes a new key in the place of one that may be there.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn make(state_dir: &Path) -> io::Result<Self> {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
            .map_err(|_| io::Error::other("the operating system gives no randomness"))?;
        let (path, temporary) = (path(state_dir), state_dir.join("transcript.key.new"));
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(document.as_ref())?;
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
        fs::File::open(state_dir)?.sync_all()?;
        Self::read(document.as_ref())
    }

    fn read(bytes: &[u8]) -> io::Result<Self> {
        let no_key = || io::Error::other("transcript.key holds no Ed25519 key");
        let pair = Ed25519KeyPair::from_pkcs8(bytes).map_err(|_| no_key())?;
        let public = pair.public_key().as_ref().try_into().map_err(|_| no_key())?;
        Ok(Self {
            pair,
            public: PublicKey(public),
        })
    }

    pub(crate) fn public(&self) -> PublicKey {
        self.public
    }

    pub(crate) fn sign(&self, text: &[u8]) -> [u8; 64] {
        let mut signature = [0; 64];
        signature.copy_from_slice(self.pair.sign(text).as_ref());
        signature
    }
}

fn path(state_dir: &Path) -> PathBuf {
    state_dir.join("transcript.key")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_key_is_made_once_readable_by_its_owner_only_and_signs_what_its_public_half_verifies() {
        let dir = tempfile::tempdir().unwrap();
        assert!(TranscriptKey::load(dir.path()).unwrap().is_none());
        let made = TranscriptKey::load_or_make(dir.path()).unwrap();
        let again = TranscriptKey::load_or_make(dir.path()).unwrap();
        assert_eq!(made.public(), again.public());
        assert!(made.public().has_signed(b"text", &again.sign(b"text")));
        let mode = fs::metadata(path(dir.path())).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let other = TranscriptKey::make(dir.path()).unwrap();
        assert_ne!(other.public(), made.public(), "a new registration has a new key");
    }

    #[test]
    fn a_damaged_key_is_told_and_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(path(dir.path()), b"no key").unwrap();
        assert!(TranscriptKey::load_or_make(dir.path()).is_err());
        assert_eq!(fs::read(path(dir.path())).unwrap(), b"no key");
    }
}
