//! A file that the user asked for. What it is to replace stays until all of the new one is on the disk: a full disk, a
//! lost connection or a kill in the middle costs no older file, and leaves no half of a new one under its name. Where
//! the file system has no files without a name, a kill leaves a hidden `.moorline-UUID` beside it. Where another file
//! cannot have the name of the old one, the new one is copied into that when it is whole.

use std::{
    fs::{self, File, Metadata, OpenOptions, Permissions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::{
        fd::AsRawFd as _,
        unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown},
    },
    path::{Path, PathBuf},
};

use nix::{
    fcntl::{AT_FDCWD, AtFlags, OFlag},
    unistd::linkat,
};
use uuid::Uuid;

/// As many links lead to a file as Linux follows.
const MOST_LINKS: usize = 40;

/// A file that is being written.
#[derive(Debug)]
pub(crate) struct OutputFile {
    file: File,
    /// `None`: it is written where it is, as a pipe is.
    beside: Option<Beside>,
}

impl OutputFile {
    /// One that whoever may look at the user's files may look at.
    ///
    /// # Errors
    /// It cannot be made.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        Self::create_with_mode(path, 0o666)
    }

    /// One for its owner only, unless the file is there and others may look at it.
    ///
    /// # Errors
    /// It cannot be made.
    pub(crate) fn create_private(path: &Path) -> io::Result<Self> {
        Self::create_with_mode(path, 0o600)
    }

    fn create_with_mode(path: &Path, mode: u32) -> io::Result<Self> {
        let (target, old) = match fs::metadata(path) {
            Ok(there) if there.is_file() => {
                // whether the user may write it and the system follows the links to it is the system's to say; whether
                // another put it there for the user to write, it is only asked where a file could be made
                let old = OpenOptions::new()
                    .write(true)
                    .create(true)
                    .truncate(false)
                    .mode(mode)
                    .open(path)?;
                let old = Old::of(old)?;
                let target = behind_links(path).filter(|target| is_the_same(target, &old.metadata));
                (target, Some(old))
            }
            // a link that is there from here on is another's
            Err(_) if !path.is_symlink() => (in_its_folder(path), None),
            _ => (None, None),
        };
        let Some(target) = target else {
            return Self::in_place(path, mode);
        };
        // nobody gets a look at it before it has the mode of the old one
        let first_mode = old.as_ref().map_or(mode, |_| 0o600);
        let (file, mut beside) = match Beside::open(target, first_mode) {
            // the file may be the user's to write where the folder is not
            Err(error) if old.is_some() && is_kept(&error) => {
                return Self::in_place(path, mode);
            }
            opened => opened?,
        };
        if let Some(old) = old {
            old.give_access(&file)?;
            beside.old = Some(old);
        }
        let beside = Some(beside);
        Ok(Self { file, beside })
    }

    fn in_place(path: &Path, mode: u32) -> io::Result<Self> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(mode)
            .open(path)?;
        Ok(Self { file, beside: None })
    }

    /// All is written: from here on it is the file of its name.
    ///
    /// # Errors
    /// It could not be brought to the disk, and what was there still is, unless that could only be overwritten.
    pub(crate) fn finish(self) -> io::Result<()> {
        match self.beside {
            Some(beside) => beside.replace(&self.file),
            None => Ok(()),
        }
    }
}

impl Read for OutputFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read(buffer)
    }
}

impl Write for OutputFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Seek for OutputFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

/// The file that is to be replaced, open to be written.
#[derive(Debug)]
struct Old {
    file: File,
    metadata: Metadata,
}

impl Old {
    fn of(file: File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self { file, metadata })
    }

    /// The new file is for whom this one is, and for nobody else.
    fn give_access(&self, new: &File) -> io::Result<()> {
        let (owner, group) = (Some(self.metadata.uid()), Some(self.metadata.gid()));
        // only root can give it away, and needs to; a user can give it to a group of theirs
        let is_of_group = fchown(new, owner, group).is_ok() || fchown(new, None, group).is_ok();
        let kept = if is_of_group { 0o777 } else { 0o707 };
        new.set_permissions(Permissions::from_mode(self.metadata.mode() & kept))
    }

    /// A kill or a full disk leaves a half of it: there is no other way to this one.
    fn overwrite(&self, mut new: &File) -> io::Result<()> {
        new.rewind()?;
        self.file.set_len(0)?;
        io::copy(&mut new, &mut &self.file)?;
        self.file.sync_all()
    }
}

/// What will have the name of the old file.
#[derive(Debug)]
struct Beside {
    target: PathBuf,
    /// In the same folder.
    temporary: PathBuf,
    /// Otherwise the file has no name yet, and is gone when the process is.
    has_temporary: bool,
    old: Option<Old>,
}

impl Beside {
    fn open(target: PathBuf, mode: u32) -> io::Result<(File, Self)> {
        let unnamed = Self::new(target, false);
        let mut options = OpenOptions::new();
        options.read(true).write(true).mode(mode);
        let opened = options
            .clone()
            .custom_flags(OFlag::O_TMPFILE.bits())
            .open(unnamed.folder());
        match opened {
            Ok(file) if name_of_open(&file).exists() => Ok((file, unnamed)),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(error),
            // some file systems, such as those of a network, have no files without a name
            _ => Self::open_named(unnamed, &mut options),
        }
    }

    fn open_named(mut self, options: &mut OpenOptions) -> io::Result<(File, Self)> {
        let file = options.create_new(true).open(&self.temporary)?;
        self.has_temporary = true;
        Ok((file, self))
    }

    fn new(target: PathBuf, has_temporary: bool) -> Self {
        let temporary = target.with_file_name(format!(".moorline-{}", Uuid::new_v4()));
        Self {
            target,
            temporary,
            has_temporary,
            old: None,
        }
    }

    fn folder(&self) -> &Path {
        self.target.parent().unwrap_or_else(|| Path::new("/"))
    }

    fn replace(mut self, file: &File) -> io::Result<()> {
        file.sync_all()?;
        if !self.has_temporary {
            let (from, to) = (name_of_open(file), &self.temporary);
            linkat(AT_FDCWD, &from, AT_FDCWD, to, AtFlags::AT_SYMLINK_FOLLOW)?;
            self.has_temporary = true;
        }
        if let Err(error) = fs::rename(&self.temporary, &self.target) {
            return match &self.old {
                Some(old) if is_kept(&error) && is_the_same(&self.target, &old.metadata) => {
                    old.overwrite(file)
                }
                _ => Err(error),
            };
        }
        self.has_temporary = false;
        // the old file is a whole one, too, where a folder cannot be synced
        drop(File::open(self.folder()).and_then(|folder| folder.sync_all()));
        Ok(())
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        if self.has_temporary {
            drop(fs::remove_file(&self.temporary));
        }
    }
}

/// A name that an open file has even where no folder has it.
fn name_of_open(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// Whether a file may be one to write where it is, although it cannot be replaced: it is mounted on its own, is
/// another's in a folder such as `/tmp`, or the folder is not the user's to write.
fn is_kept(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ResourceBusy | io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
    )
}

fn is_the_same(path: &Path, file: &Metadata) -> bool {
    fs::symlink_metadata(path).is_ok_and(|there| (there.dev(), there.ino()) == (file.dev(), file.ino()))
}

/// Which file a name is of, behind its links. `None` as for [`in_its_folder`].
fn behind_links(path: &Path) -> Option<PathBuf> {
    let mut target = in_its_folder(path)?;
    for _ in 0..MOST_LINKS {
        match fs::read_link(&target) {
            Ok(link) => target = in_its_folder(&target.parent()?.join(link))?,
            Err(_) => return Some(target),
        }
    }
    None
}

/// The name, in its folder behind all links. `None`: no folder has it, or it is one that is open already
/// (`/dev/stdout`), and whoever opened it goes on writing it.
fn in_its_folder(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?;
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder.canonicalize(),
        _ => Path::new(".").canonicalize(),
    };
    let folder = folder.ok().filter(|folder| !folder.starts_with("/proc"))?;
    Some(folder.join(name))
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::fs::{chown, symlink},
        thread,
    };

    use nix::{
        sys::stat::Mode,
        unistd::{geteuid, mkfifo, setfsgid, setfsuid},
    };

    use super::*;

    fn write(path: &Path, text: &str) -> io::Result<()> {
        let mut file = OutputFile::create(path)?;
        file.write_all(text.as_bytes())?;
        file.finish()
    }

    fn names(folder: &Path) -> Vec<String> {
        let names = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> = names
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn what_is_there_stays_until_all_of_the_new_file_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        fs::write(&path, "older").unwrap();
        let mut file = OutputFile::create(&path).unwrap();
        file.write_all(b"half").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"older");
        drop(file);
        assert_eq!(fs::read(&path).unwrap(), b"older");
        assert_eq!(names(folder.path()), ["a"]);
        write(&path, "new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(names(folder.path()), ["a"]);
    }

    #[test]
    fn a_file_system_without_unnamed_files_has_a_hidden_one_that_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let begin = || {
            let mut options = OpenOptions::new();
            options.read(true).write(true);
            Beside::new(path.clone(), false).open_named(&mut options).unwrap()
        };
        let (file, beside) = begin();
        let named = names(folder.path());
        assert!(
            named.len() == 1 && named[0].starts_with(".moorline-"),
            "{named:?}"
        );
        drop((file, beside));
        assert!(names(folder.path()).is_empty());
        let (mut file, beside) = begin();
        file.write_all(b"new").unwrap();
        beside.replace(&file).unwrap();
        assert_eq!(names(folder.path()), ["a"]);
        assert_eq!(fs::read(&path).unwrap(), b"new");
    }

    #[test]
    fn a_file_keeps_its_mode_and_a_new_one_has_that_of_the_umask_or_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let [plain, new, private] = ["plain", "new", "private"].map(|name| folder.path().join(name));
        File::create(&plain).unwrap();
        write(&new, "new").unwrap();
        assert_eq!(mode(&new), mode(&plain));
        OutputFile::create_private(&private).unwrap().finish().unwrap();
        assert_eq!(mode(&private), 0o600);
        for kept in [0o640, 0o600] {
            fs::set_permissions(&plain, Permissions::from_mode(kept)).unwrap();
            write(&plain, "new").unwrap();
            assert_eq!(mode(&plain), kept);
        }
    }

    #[test]
    fn a_link_stays_and_leads_to_the_new_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir(path("sub")).unwrap();
        symlink("sub/there", path("link")).unwrap();
        symlink(path("link"), path("linked")).unwrap();
        for text in ["first", "second"] {
            write(&path("linked"), text).unwrap();
            assert_eq!(fs::read_to_string(path("sub/there")).unwrap(), text);
        }
        assert!(path("linked").is_symlink() && path("link").is_symlink());
        assert_eq!(names(&path("sub")), ["there"]);
        symlink("loop", path("loop")).unwrap();
        assert!(OutputFile::create(&path("loop")).is_err());
        assert!(OutputFile::create(&path("sub")).is_err());
        assert!(OutputFile::create(&path("none/a")).is_err());
    }

    #[test]
    fn a_file_that_the_user_may_not_write_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kept");
        fs::write(&path, "older").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o444)).unwrap();
        if File::options().write(true).open(&path).is_ok() {
            // root may write it
            return;
        }
        assert!(OutputFile::create(&path).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"older");
    }

    #[test]
    fn what_is_no_file_or_open_already_is_written_where_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("fifo");
        mkfifo(&fifo, Mode::S_IRWXU).unwrap();
        let mut reader = OpenOptions::new().read(true).write(true).open(&fifo).unwrap();
        write(&fifo, "through").unwrap();
        let mut got = [0; 7];
        reader.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"through");

        let path = folder.path().join("open");
        let mut open = File::create_new(&path).unwrap();
        let link = folder.path().join("stdout");
        symlink(name_of_open(&open), &link).unwrap();
        write(&link, "first").unwrap();
        open.seek(SeekFrom::End(0)).unwrap();
        open.write_all(b", then this").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"first, then this");
    }

    const NOBODY: u32 = 65534;

    /// A folder that everybody may write, as a user who is not root sees it. Only root can become one.
    fn as_nobody(test: impl FnOnce(&Path) + Send) {
        if !geteuid().is_root() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(&folder, Permissions::from_mode(0o777)).unwrap();
        // it is a thread that has this user, and a test may have the last thread
        thread::scope(|scope| {
            scope.spawn(|| {
                setfsgid(NOBODY.into());
                setfsuid(NOBODY.into());
                test(folder.path());
            });
        });
    }

    fn as_root(change: impl FnOnce() -> io::Result<()> + Send) {
        thread::scope(|scope| {
            let changing = scope.spawn(|| {
                setfsuid(0.into());
                change().unwrap();
            });
            changing.join().unwrap();
        });
    }

    /// An old file of root and of this group.
    fn plant(path: &Path, group: u32, mode: u32) {
        as_root(|| {
            fs::write(path, "older")?;
            chown(path, Some(0), Some(group))?;
            fs::set_permissions(path, Permissions::from_mode(mode))
        });
    }

    #[test]
    fn a_file_that_another_put_there_is_refused_as_the_system_does() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("planted");
        fs::write(&path, "older").unwrap();
        fs::set_permissions(&folder, Permissions::from_mode(0o1777)).unwrap();
        if chown(&path, Some(NOBODY), None).is_err() {
            // only root can plant one
            return;
        }
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false);
        let is_refused = options.open(&path).is_err();
        assert_eq!(write(&path, "new").is_err(), is_refused);
        let expected = if is_refused { "older" } else { "new" };
        assert_eq!(fs::read_to_string(&path).unwrap(), expected);
    }

    #[test]
    fn a_link_that_is_put_where_a_new_file_was_to_be_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let [path, other] = ["a", "other"].map(|name| folder.path().canonicalize().unwrap().join(name));
        fs::write(&other, "older").unwrap();
        // after the look that found nothing
        symlink(&other, &path).unwrap();
        assert_eq!(in_its_folder(&path), Some(path.clone()));
        fs::remove_file(&path).unwrap();
        let mut file = OutputFile::create(&path).unwrap();
        symlink(&other, &path).unwrap();
        file.write_all(b"new").unwrap();
        file.finish().unwrap();
        assert!(!path.is_symlink());
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read(&other).unwrap(), b"older");
    }

    #[test]
    fn a_file_of_another_user_keeps_its_group_or_is_not_for_the_group_of_the_new_one() {
        as_nobody(|folder| {
            let path = folder.join("a");
            // a new file has the group of the folder
            as_root(|| chown(folder, None, Some(1)));
            as_root(|| fs::set_permissions(folder, Permissions::from_mode(0o2777)));
            for (group, expected) in [(NOBODY, (NOBODY, 0o666)), (2, (1, 0o606))] {
                plant(&path, group, 0o666);
                write(&path, "new").unwrap();
                let written = fs::metadata(&path).unwrap();
                assert_eq!(written.uid(), NOBODY);
                assert_eq!((written.gid(), written.mode() & 0o777), expected);
            }
        });
    }

    #[test]
    fn a_file_that_cannot_be_replaced_is_overwritten_by_a_whole_new_one() {
        as_nobody(|folder| {
            let path = folder.join("a");
            as_root(|| fs::set_permissions(folder, Permissions::from_mode(0o1777)));
            plant(&path, NOBODY, 0o660);
            let Ok(mut file) = OutputFile::create(&path) else {
                // the system refuses it in such a folder
                return;
            };
            file.write_all(b"new").unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"older");
            file.finish().unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"new");
            assert_eq!((mode(&path), fs::metadata(&path).unwrap().uid()), (0o660, 0));
            assert_eq!(names(folder), ["a"]);

            let mut file = OutputFile::create(&path).unwrap();
            file.write_all(b"newest").unwrap();
            // another one by now
            as_root(|| fs::remove_file(&path));
            plant(&path, NOBODY, 0o660);
            assert!(file.finish().is_err());
            assert_eq!(fs::read(&path).unwrap(), b"older");
        });
    }
}
