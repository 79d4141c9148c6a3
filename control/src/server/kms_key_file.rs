//! The file that holds the keys of our KMS: in the state directory, or wherever its owner wants it.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use super::state_dir::{SECRET, StateDirError, read, replace};
use crate::auth::{KmsFileError, KmsKeys};

/// Access that a file with keys must not give: any to those who are neither its owner nor of its group.
const OTHERS: u32 = 0o007;

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub(super) enum KmsKeyFileError {
    #[error(transparent)]
    File(#[from] StateDirError),
    #[error("failed to look at {path}")]
    Look {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "{path} can be used by everybody on this machine: `chmod 600` it, and count what it holds as known"
    )]
    Open { path: PathBuf },
    #[error("{path} does not hold keys of Moorline's KMS; restore it from where its copy is kept")]
    Form {
        path: PathBuf,
        #[source]
        source: KmsFileError,
    },
}

/// Reads the keys; where there is no file, makes one with a new key.
pub(super) fn open(path: &Path) -> Result<KmsKeys, KmsKeyFileError> {
    let bytes = match read(path)? {
        Some(bytes) => {
            is_private(path)?;
            bytes
        }
        None => {
            let made = KmsKeys::new_file();
            replace(path, SECRET, made.as_bytes())?;
            tracing::info!(path = %path.display(), "made a new key for session encryption");
            made.into_bytes()
        }
    };
    KmsKeys::read(&String::from_utf8_lossy(&bytes)).map_err(|source| KmsKeyFileError::Form {
        path: path.to_owned(),
        source,
    })
}

/// Whether only those may read it who may.
pub(super) fn is_private(path: &Path) -> Result<(), KmsKeyFileError> {
    let path = path.to_owned();
    match fs::metadata(&path) {
        Ok(found) if found.permissions().mode() & OTHERS == 0 => Ok(()),
        Ok(_) => Err(KmsKeyFileError::Open { path }),
        Err(source) => Err(KmsKeyFileError::Look { path, source }),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;

    use super::*;

    #[test]
    fn the_first_start_makes_a_private_file_and_the_second_keeps_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kms.key");
        let made = format!("{:?}", open(&path).unwrap());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(format!("{:?}", open(&path).unwrap()), made);
    }

    #[test]
    fn a_file_that_everybody_can_read_or_that_holds_something_else_stops_the_start_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kms.key");
        open(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(open(&path), Err(KmsKeyFileError::Open { .. })));
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        open(&path).unwrap();
        fs::write(&path, "something else").unwrap();
        assert!(matches!(open(&path), Err(KmsKeyFileError::Form { .. })));
        assert_eq!(fs::read(&path).unwrap(), b"something else");
    }
}
