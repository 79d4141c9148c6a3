//! Directories that are there after a power cut.

use std::{
    fs::{DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::Path,
};

/// Makes a directory for its owner alone, and those above it that are missing. When this returns, their names are on
/// the disk: else all that is in a directory is lost with it, however well that was synced. So they are also when the
/// directory is there already, since who made it may have been killed before.
///
/// # Errors
/// It cannot be made, or its name not be synced.
pub(crate) fn make_private_directory(path: &Path) -> io::Result<()> {
    let above = match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => return Ok(()),
    };
    let make = || DirBuilder::new().mode(0o700).create(path);
    let made = match make() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_private_directory(above)?;
            make()
        }
        other => other,
    };
    match made {
        Ok(()) => File::open(above)?.sync_all(),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {
            match File::open(above) {
                Ok(above) => above.sync_all(),
                // whoever may not look into the directory above did not make this one
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
                Err(error) => Err(error),
            }
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_directory_and_those_above_it_are_made_for_their_owner() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/c");
        make_private_directory(&path).unwrap();
        make_private_directory(&path).unwrap();
        for made in ["a", "a/b", "a/b/c"] {
            let mode = dir.path().join(made).metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o700, "{made}");
        }
    }

    #[test]
    fn a_file_in_its_place_is_an_error_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "content").unwrap();
        assert!(make_private_directory(&path).is_err());
        assert!(make_private_directory(&path.join("below")).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"content");
    }
}
