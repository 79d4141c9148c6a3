//! A directory with all below it, measured or removed piece by piece. Commands have made what is there: any number of
//! files, directories in directories to any depth, symbolic links, which are never followed.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::pace::Pace;

/// Directories that wait to be measured; what is beyond is not counted.
const MAX_WAITING: usize = 10_000;
/// Names that are tried for a directory on its way up.
const MAX_NAMES: usize = 1_000_000;

/// Bytes of the files below a directory. `None`: the pace ended.
pub(super) fn measure(directory: &Path, pace: &mut Pace) -> Option<u64> {
    let mut bytes = 0_u64;
    let mut waiting = vec![directory.to_owned()];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            if !pace.goes_on() {
                return None;
            }
            let Ok(metadata) = entry.metadata() else { continue };
            if !metadata.is_dir() {
                bytes = bytes.saturating_add(metadata.len());
            } else if waiting.len() < MAX_WAITING {
                waiting.push(entry.path());
            }
        }
    }
    Some(bytes)
}

/// Removes a directory, or a file that stands in its place. False: the pace ended, and the rest is for another time.
///
/// Nothing is deeper than two levels here: what is found there is moved up first, so that neither memory nor open
/// files depend on what was made.
///
/// # Errors
/// Something of it cannot be removed; what else there is may be gone.
pub(super) fn remove(directory: &Path, pace: &mut Pace) -> io::Result<bool> {
    if !fs::symlink_metadata(directory)?.is_dir() {
        return fs::remove_file(directory).map(|()| true);
    }
    let mut numbers = 0..MAX_NAMES;
    loop {
        let mut is_empty = true;
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            is_empty = false;
            if !entry.file_type()?.is_dir() {
                fs::remove_file(entry.path())?;
            } else if !empty(&entry.path(), directory, &mut numbers, pace)? {
                return Ok(false);
            }
            if !pace.goes_on() {
                return Ok(false);
            }
        }
        if is_empty {
            return fs::remove_dir(directory).map(|()| true);
        }
    }
}

/// Removes one of the directories in `top`, whose own directories move there.
fn empty(
    directory: &Path,
    top: &Path,
    numbers: &mut std::ops::Range<usize>,
    pace: &mut Pace,
) -> io::Result<bool> {
    // Again when something was made meanwhile, as by a program that a step left running.
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => move_up(&entry.path(), top, numbers)?,
            false => fs::remove_file(entry.path())?,
        }
        if !pace.goes_on() {
            return Ok(false);
        }
    }
    match fs::remove_dir(directory) {
        Err(error) if error.kind() != io::ErrorKind::DirectoryNotEmpty => Err(error),
        // Where reading has missed an entry, the next look at `top` finds the directory again.
        _ => Ok(true),
    }
}

fn move_up(directory: &Path, top: &Path, numbers: &mut std::ops::Range<usize>) -> io::Result<()> {
    for number in numbers {
        let place: PathBuf = top.join(format!(".{number}"));
        match fs::rename(directory, place) {
            // Whatever a command has called so: a directory with something in it, or a file.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::DirectoryNotEmpty
                        | io::ErrorKind::NotADirectory
                        | io::ErrorKind::AlreadyExists
                ) => {}
            moved => return moved,
        }
    }
    Err(io::ErrorKind::TooManyLinks.into())
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::fs::symlink,
        sync::mpsc::{SyncSender, sync_channel},
    };

    use super::*;

    fn pace() -> (SyncSender<()>, Pace) {
        let (sender, bell) = sync_channel(1);
        (sender, Pace::new(bell))
    }

    #[test]
    fn a_tree_of_any_depth_goes_and_what_its_links_name_stays() {
        let folder = tempfile::tempdir().unwrap();
        let outside = folder.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("file"), "stays").unwrap();
        let tree = folder.path().join("tree");
        // Deeper than a path may be long: it is made from the inside out.
        fs::create_dir(&tree).unwrap();
        for _ in 0..700 {
            let outer = folder.path().join("outer");
            fs::create_dir(&outer).unwrap();
            symlink(&outside, outer.join("link")).unwrap();
            fs::rename(&tree, outer.join("inner")).unwrap();
            fs::rename(&outer, &tree).unwrap();
        }
        // Names that directories get on their way up.
        fs::create_dir_all(tree.join(".0/.0/.1")).unwrap();
        fs::write(tree.join(".1"), "a file").unwrap();
        let (_bell, mut pace) = pace();
        assert!(remove(&tree, &mut pace).unwrap());
        assert!(!tree.exists());
        assert_eq!(fs::read(outside.join("file")).unwrap(), b"stays");
    }

    #[test]
    fn a_file_or_a_link_in_the_place_of_a_directory_goes_alone() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("target");
        fs::create_dir(&target).unwrap();
        let (_bell, mut pace) = pace();
        let link = folder.path().join("link");
        symlink(&target, &link).unwrap();
        assert!(remove(&link, &mut pace).unwrap());
        let file = folder.path().join("file");
        fs::write(&file, "x").unwrap();
        assert!(remove(&file, &mut pace).unwrap());
        assert!(target.exists() && !link.exists() && !file.exists());
        assert!(remove(&file, &mut pace).is_err());
    }

    #[test]
    fn files_are_measured_on_every_level_and_links_are_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("a/b/c");
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join("x"), [0; 1000]).unwrap();
        fs::write(folder.path().join("y"), [0; 500]).unwrap();
        symlink(folder.path(), deep.join("z")).unwrap();
        let link = u64::try_from(folder.path().as_os_str().len()).unwrap();
        let (_bell, mut pace) = pace();
        assert_eq!(measure(folder.path(), &mut pace), Some(1500 + link));
        assert_eq!(measure(Path::new("/nowhere/at/all"), &mut pace), Some(0));
    }

    #[test]
    fn who_is_to_leave_leaves_the_rest() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("a/b")).unwrap();
        fs::write(folder.path().join("a/x"), "x").unwrap();
        let (bell, mut pace) = pace();
        drop(bell);
        let hour = std::time::Instant::now() + std::time::Duration::from_secs(3600);
        assert!(!pace.wait(hour, hour));
        assert!(!remove(folder.path(), &mut pace).unwrap());
        assert_eq!(measure(folder.path(), &mut pace), None);
        assert!(folder.path().exists());
    }
}
