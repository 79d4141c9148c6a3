//! The state directory: made by the first start, held by one process, secrets readable by its owner only.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use rcgen::KeyPair;

use super::certificate::{Authority, CertificateError};
use crate::{
    auth::{EndpointSigningKey, MasterKey, random},
    private_directory::make_private_directory,
    store::{AttachmentFiles, TranscriptFiles},
};

/// Owner only.
pub(super) const SECRET: u32 = 0o600;
/// For everyone who may look into the directory.
const PUBLIC: u32 = 0o644;
/// No file of ours is larger; a wrong file is not read to its end.
const MOST_FILE_BYTES: u64 = 64 * 1024;

/// Why the state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum StateDirError {
    #[error("failed to make a certificate of the endpoint's own authority")]
    Certificate(#[from] CertificateError),
    #[error("failed to {doing} {path}")]
    File {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "{path} is the certificate of another key than {key}: clients that trust it would trust no server of this \
         endpoint; restore ca.pem and ca.key both from one backup (or, to begin anew and hand a new ca.pem to every \
         client, remove both)",
        key = path.with_extension("key").display()
    )]
    OtherAuthority { path: PathBuf },
    #[error("{path} is held by another moorline-control; stop it first, or take another --state-dir")]
    Held { path: PathBuf },
    #[error(
        "{path} does not hold a master key of {} bytes; restore it from a backup",
        MasterKey::LENGTH
    )]
    NoMasterKey { path: PathBuf },
    #[error(
        "{path} does not hold a signing key; restore it from a backup, or nobody can tell the audit log's later part from a forgery"
    )]
    NoSigningKey { path: PathBuf },
}

/// The directory, locked for as long as this value lives.
#[derive(Debug)]
pub(super) struct StateDir {
    path: PathBuf,
    _lock: File,
}

impl StateDir {
    /// Makes the directory if it is not there, and takes it.
    pub(super) fn open(path: &Path) -> Result<Self, StateDirError> {
        make_private_directory(path).map_err(failed("make", path))?;
        let path = path.canonicalize().map_err(failed("resolve", path))?;
        let lock_path = path.join("control.lock");
        let lock = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(SECRET)
            .open(&lock_path)
            .map_err(failed("open", &lock_path))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path, _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(StateDirError::Held { path }),
            Err(TryLockError::Error(source)) => Err(failed("lock", &lock_path)(source)),
        }
    }

    /// Absolute.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn master_key(&self) -> Result<MasterKey, StateDirError> {
        let path = self.path.join("master.key");
        let bytes = match read(&path)? {
            Some(bytes) => bytes,
            None => {
                let bytes = random::<{ MasterKey::LENGTH }>();
                replace(&path, SECRET, &bytes)?;
                bytes.to_vec()
            }
        };
        let bytes: [u8; MasterKey::LENGTH] = bytes
            .try_into()
            .map_err(|_| StateDirError::NoMasterKey { path })?;
        Ok(MasterKey::from_bytes(&bytes))
    }

    /// What the endpoint signs its audit log and received transcripts with.
    pub(super) fn signing_key(&self) -> Result<EndpointSigningKey, StateDirError> {
        let path = self.path.join("signing.key");
        let bytes = match read(&path)? {
            Some(bytes) => bytes,
            None => {
                let bytes = EndpointSigningKey::new_file();
                replace(&path, SECRET, &bytes)?;
                bytes
            }
        };
        EndpointSigningKey::read(&bytes).ok_or(StateDirError::NoSigningKey { path })
    }

    /// The certificate authority; the first start makes its key and certificate.
    pub(super) fn authority(&self) -> Result<Authority, StateDirError> {
        let (key_path, certificate_path) = (self.path.join("ca.key"), self.path.join("ca.pem"));
        let certificate = read(&certificate_path)?;
        let key = match read(&key_path)? {
            None if certificate.is_some() => {
                return Err(StateDirError::OtherAuthority {
                    path: certificate_path,
                });
            }
            Some(pem) => KeyPair::from_pem(&String::from_utf8_lossy(&pem)).map_err(CertificateError::from)?,
            None => {
                let key = KeyPair::generate().map_err(CertificateError::from)?;
                replace(&key_path, SECRET, key.serialize_pem().as_bytes())?;
                key
            }
        };
        let authority = Authority::new(key)?;
        match certificate {
            // Clients may have copied it, so it stays as it is.
            Some(pem) if authority.is_of(&pem) => {}
            Some(_) => {
                return Err(StateDirError::OtherAuthority {
                    path: certificate_path,
                });
            }
            None => replace(&certificate_path, PUBLIC, authority.certificate_pem()?.as_bytes())?,
        }
        Ok(authority)
    }

    /// Where the keys of our KMS are, unless their owner wants them elsewhere.
    pub(super) fn kms_key_path(&self) -> PathBuf {
        self.path.join("kms.key")
    }

    /// Where the audit log is; it makes the directory itself, with its first record.
    pub(super) fn audit_path(&self) -> PathBuf {
        self.path.join("audit")
    }

    pub(super) fn authority_certificate_path(&self) -> PathBuf {
        self.path.join("ca.pem")
    }

    /// Where the bytes of attachments are.
    pub(super) fn attachments(&self) -> Result<AttachmentFiles, StateDirError> {
        let path = self.directory("attachments")?;
        let files = AttachmentFiles::new(path.clone());
        files
            .remove_parts()
            .map_err(failed("remove what was not uploaded whole from", &path))?;
        Ok(files)
    }

    pub(super) fn transcripts(
        &self,
        signer: Arc<EndpointSigningKey>,
    ) -> Result<TranscriptFiles, StateDirError> {
        Ok(TranscriptFiles::new(self.directory("transcripts")?, signer))
    }

    fn directory(&self, name: &str) -> Result<PathBuf, StateDirError> {
        let path = self.path.join(name);
        make_private_directory(&path).map_err(failed("make", &path))?;
        Ok(path)
    }
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StateDirError {
    let path = path.to_owned();
    move |source| StateDirError::File { doing, path, source }
}

/// The file's content, or `None` if there is no file.
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>, StateDirError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("open", path)(error)),
    };
    let mut content = Vec::new();
    file.take(MOST_FILE_BYTES)
        .read_to_end(&mut content)
        .map_err(failed("read", path))?;
    Ok(Some(content))
}

/// Writes a file whole or not at all, whatever is killed when.
pub(super) fn replace(path: &Path, mode: u32, content: &[u8]) -> Result<(), StateDirError> {
    let draft = path.with_added_extension("new");
    let write = || {
        // A draft that a killed process left may have another mode.
        match fs::remove_file(&draft) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&draft)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&draft, path)?;
        path.parent()
            .map_or(Ok(()), |parent| File::open(parent)?.sync_all())
    };
    write().map_err(failed("write", path))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::auth::Purpose;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn the_first_start_makes_everything_private_and_the_second_keeps_it() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("state");
        let first = StateDir::open(&path).unwrap();
        let tag = first.master_key().unwrap().mac(Purpose::NextToken, b"x");
        first.authority().unwrap();
        let signing_key = first.signing_key().unwrap().id();
        let pem = fs::read(first.authority_certificate_path()).unwrap();
        assert_eq!(mode(&path), 0o700);
        for name in ["master.key", "signing.key", "ca.key", "control.lock"] {
            assert_eq!(mode(&path.join(name)), 0o600, "{name}");
        }
        drop(first);
        let second = StateDir::open(&path).unwrap();
        assert_eq!(second.master_key().unwrap().mac(Purpose::NextToken, b"x"), tag);
        assert_eq!(second.signing_key().unwrap().id(), signing_key);
        second.authority().unwrap();
        assert_eq!(fs::read(second.authority_certificate_path()).unwrap(), pem);
    }

    #[test]
    fn a_certificate_without_its_own_key_stops_the_start_and_stays() {
        let temporary = tempfile::tempdir().unwrap();
        let state_dir = StateDir::open(temporary.path()).unwrap();
        state_dir.authority().unwrap();
        let (key, certificate) = (temporary.path().join("ca.key"), temporary.path().join("ca.pem"));
        let pem = fs::read(&certificate).unwrap();
        fs::remove_file(&key).unwrap();
        let refused = state_dir.authority().unwrap_err();
        assert!(
            refused.to_string().contains("restore ca.pem and ca.key both"),
            "{refused}"
        );
        assert!(!key.exists());
        fs::write(&key, KeyPair::generate().unwrap().serialize_pem()).unwrap();
        assert!(matches!(
            state_dir.authority(),
            Err(StateDirError::OtherAuthority { .. })
        ));
        assert_eq!(fs::read(&certificate).unwrap(), pem);
        // The key alone is enough to make the certificate again.
        fs::remove_file(&certificate).unwrap();
        state_dir.authority().unwrap();
        state_dir.authority().unwrap();
    }

    #[test]
    fn one_directory_serves_one_process() {
        let temporary = tempfile::tempdir().unwrap();
        let _first = StateDir::open(temporary.path()).unwrap();
        assert!(matches!(
            StateDir::open(temporary.path()),
            Err(StateDirError::Held { .. })
        ));
    }

    #[test]
    fn a_key_file_that_holds_something_else_is_refused_not_replaced() {
        let temporary = tempfile::tempdir().unwrap();
        let state_dir = StateDir::open(temporary.path()).unwrap();
        fs::write(temporary.path().join("master.key"), b"short").unwrap();
        assert!(matches!(
            state_dir.master_key(),
            Err(StateDirError::NoMasterKey { .. })
        ));
        fs::write(temporary.path().join("signing.key"), b"short").unwrap();
        assert!(matches!(
            state_dir.signing_key(),
            Err(StateDirError::NoSigningKey { .. })
        ));
    }
}
