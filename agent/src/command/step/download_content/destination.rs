//! Where a document wants its content.

use std::{
    ffi::{OsStr, OsString},
    io,
    path::{Component, Path, PathBuf},
};

use super::folder::Folder;

/// What the document says, and as what it is taken.
#[derive(Debug)]
pub(super) struct Destination {
    /// To be shown.
    pub(super) path: PathBuf,
    /// Reached in whatever way: a folder that the document names from the root on, or the command's own.
    named: PathBuf,
    /// What lies below that, on a way that earlier downloads may have made: it has no links.
    below: PathBuf,
    is_directory: bool,
}

impl Destination {
    pub(super) fn new(downloads: &Path, wanted: &str) -> Self {
        let path = downloads.join(wanted);
        let (named, below) = match inside(wanted) {
            Some(below) => (downloads.to_owned(), below),
            None => (path.clone(), PathBuf::new()),
        };
        Self {
            path,
            named,
            below,
            // A name with a slash behind it is that of a directory, as is no name.
            is_directory: wanted.is_empty() || wanted.ends_with('/'),
        }
    }

    /// As the directory of what is downloaded.
    pub(super) fn folder(&self) -> io::Result<Folder> {
        Folder::named(&self.named)?.below(&self.below)
    }

    /// As the place of a single file with this name of its own: its directory, and its name there.
    pub(super) fn file(&self, name: &OsStr) -> io::Result<(Folder, OsString)> {
        if Path::new(name).file_name() != Some(name) {
            return Err(io::Error::other(format!(
                "{} is no name of a file",
                name.display()
            )));
        }
        let is_named = self.below.as_os_str().is_empty();
        let last = if is_named { &self.named } else { &self.below }.file_name();
        let Some(last) = last.filter(|_| !self.is_directory) else {
            return Ok((self.folder()?, name.to_owned()));
        };
        if is_named {
            return match self.named.is_dir() {
                true => Ok((self.folder()?, name.to_owned())),
                false => {
                    let above = self.named.parent().unwrap_or(&self.named);
                    Ok((Folder::named(above)?, last.to_owned()))
                }
            };
        }
        let above = self.below.parent().unwrap_or_else(|| Path::new(""));
        let above = Folder::named(&self.named)?.below(above)?;
        match above.has_directory(last) {
            true => Ok((above.child(last)?, name.to_owned())),
            false => Ok((above, last.to_owned())),
        }
    }
}

/// A path that stays below where it begins, without detours. `None`: it does not.
fn inside(wanted: &str) -> Option<PathBuf> {
    let mut below = PathBuf::new();
    for part in Path::new(wanted).components() {
        match part {
            Component::Normal(name) => below.push(name),
            Component::CurDir => {}
            Component::ParentDir if below.pop() => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(below)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn a_single_file_goes_into_a_directory_or_takes_the_name() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("there")).unwrap();
        let place = |wanted: &str| {
            let (folder, name) = Destination::new(dir.path(), wanted)
                .file(OsStr::new("f"))
                .unwrap();
            folder.path_of(&name)
        };
        let absolute = dir.path().join("there").display().to_string();
        let other = dir.path().join("other").display().to_string();
        for (wanted, expected) in [
            ("", "f"),
            ("a/b", "a/b"),
            ("a/b/", "a/b/f"),
            ("there", "there/f"),
            ("./a/../there/./", "there/f"),
            (&absolute, "there/f"),
            (&other, "other"),
        ] {
            assert_eq!(place(wanted), dir.path().join(expected), "{wanted}");
        }
        for name in ["..", ".", "", "a/b"] {
            let refused = Destination::new(dir.path(), "").file(OsStr::new(name));
            assert!(refused.is_err(), "{name}");
        }
    }

    #[test]
    fn what_an_earlier_download_has_brought_leads_no_later_one_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let (downloads, elsewhere) = (dir.path().join("downloads"), dir.path().join("elsewhere"));
        fs::create_dir(&downloads).unwrap();
        fs::create_dir(&elsewhere).unwrap();
        symlink(&elsewhere, downloads.join("x")).unwrap();
        for wanted in ["x/", "x/y/", "x/file", "./x/file"] {
            let destination = Destination::new(&downloads, wanted);
            assert!(destination.folder().is_err(), "{wanted}");
            assert!(destination.file(OsStr::new("f")).is_err(), "{wanted}");
        }
        // The link itself gives way to a file.
        let (folder, name) = Destination::new(&downloads, "x").file(OsStr::new("f")).unwrap();
        assert_eq!(folder.path_of(&name), downloads.join("x"));
        // One that the document names from the root on is its owner's.
        let own = downloads.join("x").display().to_string();
        let (folder, name) = Destination::new(&downloads, &own).file(OsStr::new("f")).unwrap();
        folder.create(&name).unwrap().finish_with(b"new").unwrap();
        assert_eq!(fs::read(elsewhere.join("f")).unwrap(), b"new");
    }
}
