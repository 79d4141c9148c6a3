//! A directory that content is written into. Nothing below it is reached through a link: an earlier download may have
//! brought one that leads elsewhere, and in a directory that others may write to anybody may plant one at any time.

use std::{
    ffi::{OsStr, OsString},
    fs::{File, Permissions},
    io::{self, Write as _},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    },
    path::{Component, Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, AtFlags, OFlag, openat, renameat},
    libc,
    sys::stat::{Mode, fstatat, mkdirat},
    unistd::{UnlinkatFlags, linkat, symlinkat, unlinkat},
};

use super::{super::make_private_directory, MODE};

/// As it is now, wherever its name leads later.
#[derive(Debug)]
pub(super) struct Folder {
    directory: OwnedFd,
    /// To be shown.
    path: PathBuf,
}

impl Folder {
    /// The directory that a document names, made where it is missing. Links on the way to it are its owner's.
    pub(super) fn named(path: &Path) -> io::Result<Self> {
        make_private_directory(path)?;
        Self::open(AT_FDCWD, path.as_os_str(), OFlag::empty(), path)
    }

    /// A directory below, made where it is missing.
    ///
    /// # Errors
    /// Something else is in its place, as a link, or it would not be below.
    pub(super) fn below(self, relative: &Path) -> io::Result<Self> {
        relative.components().try_fold(self, |folder, part| match part {
            Component::Normal(name) => folder.child(name),
            Component::CurDir => Ok(folder),
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => Err(io::Error::other(
                format!("{} leads out of {}", relative.display(), folder.path.display()),
            )),
        })
    }

    /// As [`Self::below`], of one directory in this one.
    pub(super) fn child(&self, name: &OsStr) -> io::Result<Self> {
        match mkdirat(&self.directory, name, Mode::S_IRWXU) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let path = self.path.join(name);
        Self::open(&self.directory, name, OFlag::O_NOFOLLOW, &path).map_err(|error| {
            match error.raw_os_error().map(Errno::from_raw) {
                Some(Errno::ENOTDIR | Errno::ELOOP) => io::Error::other(format!(
                    "{} is a link or a file and not a folder; links are not followed: remove it, or let \
                     destinationPath name the folder that it leads to",
                    path.display()
                )),
                _ => error,
            }
        })
    }

    fn open(at: impl std::os::fd::AsFd, name: &OsStr, more: OFlag, path: &Path) -> io::Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | more;
        Ok(Self {
            directory: openat(at, name, flags, Mode::empty())?,
            path: path.to_owned(),
        })
    }

    /// Where something in it is, to be shown.
    pub(super) fn path_of(&self, name: &OsStr) -> PathBuf {
        self.path.join(name)
    }

    /// Whether this is a directory in it, and no link to one.
    pub(super) fn has_directory(&self, name: &OsStr) -> bool {
        let status = fstatat(&self.directory, name, AtFlags::AT_SYMLINK_NOFOLLOW);
        status.is_ok_and(|status| status.st_mode & libc::S_IFMT == libc::S_IFDIR)
    }

    /// A file that appears in it when it is whole, in place of what is there.
    pub(super) fn create(&self, name: &OsStr) -> io::Result<NewFile<'_>> {
        let mut random = [0; 8];
        let source = ring::rand::SystemRandom::new();
        ring::rand::SecureRandom::fill(&source, &mut random)
            .map_err(|_| io::Error::other("the system gives no random numbers"))?;
        let temporary = OsString::from(format!(".moorline-{:016x}.part", u64::from_ne_bytes(random)));
        let new = |file: OwnedFd, is_named: bool| NewFile {
            file: File::from(file),
            folder: self,
            temporary: temporary.clone(),
            name: name.to_owned(),
            is_named,
        };
        // A file without a name goes with whoever writes it, however that ends. It gets one by way of /proc.
        let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC;
        let nameless = match Path::new(OWN_FILES).is_dir() {
            true => openat(&self.directory, ".", flags | OFlag::O_TMPFILE, Mode::S_IRWXU),
            false => Err(Errno::EOPNOTSUPP),
        };
        match nameless {
            // No /proc, or a file system or a kernel that knows no such files.
            Err(Errno::EOPNOTSUPP | Errno::EISDIR | Errno::EINVAL | Errno::ENOENT) => {}
            other => return Ok(new(other?, false)),
        }
        // Whatever has this name, be it a link, is not ours.
        let flags = flags | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW;
        let file = openat(&self.directory, temporary.as_os_str(), flags, Mode::S_IRWXU)?;
        Ok(new(file, true))
    }

    /// A link in place of what is there.
    pub(super) fn create_link(&self, name: &OsStr, to: &Path) -> io::Result<()> {
        self.remove(name)?;
        Ok(symlinkat(to, &self.directory, name)?)
    }

    /// Moves a file of ours, which is no link, in place of what is there.
    pub(super) fn take(&self, from: &Path, name: &OsStr) -> io::Result<()> {
        let mut file = std::fs::OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW)
            .open(from)?;
        file.set_permissions(Permissions::from_mode(MODE))?;
        match renameat(AT_FDCWD, from, &self.directory, name) {
            // Another file system.
            Err(Errno::EXDEV) => {
                let mut new = self.create(name)?;
                io::copy(&mut file, &mut new.file)?;
                new.finish()
            }
            other => Ok(other?),
        }
    }

    fn remove(&self, name: &OsStr) -> io::Result<()> {
        match unlinkat(&self.directory, name, UnlinkatFlags::NoRemoveDir) {
            Err(Errno::ENOENT) => Ok(()),
            other => Ok(other?),
        }
    }
}

/// Where a process finds what it has open.
const OWN_FILES: &str = "/proc/self/fd";

/// A file that appears under its name only when it is whole. Until then it has none, or where the file system knows no
/// such files one that nobody can guess, and what is given up goes.
#[derive(Debug)]
pub(super) struct NewFile<'a> {
    pub(super) file: File,
    folder: &'a Folder,
    temporary: OsString,
    name: OsString,
    /// It is there, under its temporary name.
    is_named: bool,
}

impl NewFile<'_> {
    pub(super) fn finish_with(mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.finish()
    }

    pub(super) fn finish(mut self) -> io::Result<()> {
        self.file.set_permissions(Permissions::from_mode(MODE))?;
        let directory = &self.folder.directory;
        if !self.is_named {
            // It takes no name that is taken, and so not the one of what it replaces.
            let own = format!("{OWN_FILES}/{}", self.file.as_raw_fd());
            let temporary = self.temporary.as_os_str();
            linkat(
                AT_FDCWD,
                own.as_str(),
                directory,
                temporary,
                AtFlags::AT_SYMLINK_FOLLOW,
            )?;
            self.is_named = true;
        }
        renameat(
            directory,
            self.temporary.as_os_str(),
            directory,
            self.name.as_os_str(),
        )?;
        self.is_named = false;
        Ok(())
    }
}

impl Drop for NewFile<'_> {
    fn drop(&mut self) {
        if self.is_named {
            // What cannot be removed is half a file with a name that says so.
            drop(self.folder.remove(&self.temporary));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{MetadataExt as _, symlink},
    };

    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_appears_when_it_is_whole_and_leaves_nothing_when_it_is_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let victim = dir.path().join("victim");
        fs::write(&victim, "old").unwrap();
        let shared = dir.path().join("shared");
        let folder = Folder::named(&shared).unwrap();
        // Planted by somebody who knows what comes.
        for name in ["f", "f.part", ".f.part"] {
            symlink(&victim, shared.join(name)).unwrap();
        }
        let mut given_up = folder.create(OsStr::new("f")).unwrap();
        given_up.file.write_all(b"half").unwrap();
        assert_eq!(names(&shared), [".f.part", "f", "f.part"]);
        drop(given_up);
        assert_eq!(names(&shared), [".f.part", "f", "f.part"]);
        folder
            .create(OsStr::new("f"))
            .unwrap()
            .finish_with(b"new")
            .unwrap();
        assert_eq!(fs::read(&victim).unwrap(), b"old");
        assert_eq!(fs::read(shared.join("f")).unwrap(), b"new");
        let mode = fs::symlink_metadata(shared.join("f")).unwrap().mode();
        assert_eq!(mode & 0o170_777, 0o100_700);
    }

    #[test]
    fn a_link_is_followed_where_the_document_names_it_and_nowhere_below() {
        let dir = tempfile::tempdir().unwrap();
        let elsewhere = dir.path().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        symlink(&elsewhere, dir.path().join("own")).unwrap();
        let folder = || Folder::named(&dir.path().join("own")).unwrap();
        let deep = folder().below(Path::new("./a/b")).unwrap();
        deep.create(OsStr::new("f")).unwrap().finish_with(b"1").unwrap();
        assert!(elsewhere.join("a/b/f").is_file());
        symlink(dir.path(), elsewhere.join("planted")).unwrap();
        assert!(!folder().has_directory(OsStr::new("planted")));
        assert!(folder().has_directory(OsStr::new("a")));
        for refused in ["planted", "planted/x", "a/b/f/x"] {
            let error = folder().below(Path::new(refused)).unwrap_err().to_string();
            assert!(error.contains("is a link or a file"), "{error}");
        }
        assert!(folder().below(Path::new("a/../..")).is_err());
        assert_eq!(names(dir.path()), ["elsewhere", "own"]);
    }
}
