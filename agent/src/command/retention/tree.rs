//! A directory with all below it, measured or removed piece by piece. Commands have made what is there: any number of
//! files, directories in directories to any depth, symbolic links, which are never followed.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Instant,
};

use super::pace::Pace;

/// Directories inside one another that are read at a time, each by a descriptor of its own.
const MAX_OPEN: usize = 16;
/// Directories deeper than that which wait to be measured; what is beyond is not counted.
const MAX_WAITING: usize = 256;
/// Names that are tried for a directory on its way up.
const MAX_NAMES: usize = 1_000_000;

/// Bytes of the files below a directory, as far as they are found until then: a program that a step left running may
/// make files for ever. `None`: the pace ended.
pub(super) fn measure(directory: &Path, until: Instant, pace: &mut Pace) -> Option<u64> {
    let mut bytes = 0_u64;
    let mut waiting = vec![directory.to_owned()];
    while let Some(directory) = waiting.pop() {
        let mut open: Vec<fs::ReadDir> = fs::read_dir(directory).into_iter().collect();
        while let Some(listed) = open.last_mut() {
            if !pace.goes_on() {
                return None;
            }
            if Instant::now() > until {
                return Some(bytes);
            }
            let Some(entry) = listed.next() else {
                open.pop();
                continue;
            };
            let Some((entry, metadata)) = entry
                .ok()
                .and_then(|entry| Some((entry.path(), entry.metadata().ok()?)))
            else {
                continue;
            };
            if !metadata.is_dir() {
                bytes = bytes.saturating_add(metadata.len());
            } else if open.len() < MAX_OPEN {
                open.extend(fs::read_dir(entry));
            } else if waiting.len() < MAX_WAITING {
                waiting.push(entry);
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
/// Something of it cannot be removed; what else there is may be gone. Or it is still not empty at the time that is named:
/// a program that a step left running may make files as fast as they are removed.
pub(super) fn remove(directory: &Path, until: Instant, pace: &mut Pace) -> io::Result<bool> {
    if !fs::symlink_metadata(directory)?.is_dir() {
        return fs::remove_file(directory).map(|()| true);
    }
    let mut goes_on = || {
        let is_late = Instant::now() > until;
        match pace.goes_on() {
            true if is_late => Err(io::ErrorKind::TimedOut.into()),
            goes_on => Ok(goes_on),
        }
    };
    let mut numbers = 0..MAX_NAMES;
    loop {
        let mut is_empty = true;
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            is_empty = false;
            if !entry.file_type()?.is_dir() {
                fs::remove_file(entry.path())?;
            } else if !empty(&entry.path(), directory, &mut numbers, &mut goes_on)? {
                return Ok(false);
            }
            if !goes_on()? {
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
    goes_on: &mut impl FnMut() -> io::Result<bool>,
) -> io::Result<bool> {
    // Again when something was made meanwhile, as by a program that a step left running.
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => move_up(&entry.path(), top, numbers)?,
            false => fs::remove_file(entry.path())?,
        }
        if !goes_on()? {
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
        time::Duration,
    };

    use super::*;

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(3600)
    }

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
        assert!(remove(&tree, later(), &mut pace).unwrap());
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
        assert!(remove(&link, later(), &mut pace).unwrap());
        let file = folder.path().join("file");
        fs::write(&file, "x").unwrap();
        assert!(remove(&file, later(), &mut pace).unwrap());
        assert!(target.exists() && !link.exists() && !file.exists());
        assert!(remove(&file, later(), &mut pace).is_err());
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
        assert_eq!(measure(folder.path(), later(), &mut pace), Some(1500 + link));
        assert_eq!(measure(Path::new("/nowhere/at/all"), later(), &mut pace), Some(0));
    }

    #[test]
    fn however_many_and_deep_directories_are_all_are_measured() {
        // in memory where there is such a place: a busy disk takes minutes for so many
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let folder = folder.unwrap();
        let mut deep = folder.path().to_owned();
        for _ in 0..3 * MAX_OPEN {
            deep.push("d");
        }
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join("x"), [0; 100_000]).unwrap();
        for number in 0..12_000 {
            let wide = folder.path().join(format!("w{number}"));
            fs::create_dir(&wide).unwrap();
            fs::write(wide.join("x"), "x").unwrap();
        }
        let (_bell, mut pace) = pace();
        assert_eq!(measure(folder.path(), later(), &mut pace), Some(112_000));
    }

    #[test]
    fn what_takes_longer_than_its_turn_is_left_for_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let large = folder.path().join("large");
        fs::create_dir(&large).unwrap();
        for number in 0..100 {
            fs::write(large.join(number.to_string()), "x").unwrap();
        }
        let (_bell, mut pace) = pace();
        let past = Instant::now();
        assert_eq!(measure(&large, past, &mut pace), Some(0));
        let refused = remove(&large, past, &mut pace).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::TimedOut);
        assert!(fs::read_dir(&large).unwrap().count() < 100, "each turn goes on");
        assert!(remove(&large, later(), &mut pace).unwrap());
    }

    #[test]
    fn who_is_to_leave_leaves_the_rest() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("a/b")).unwrap();
        fs::write(folder.path().join("a/x"), "x").unwrap();
        let (bell, mut pace) = pace();
        drop(bell);
        assert!(!pace.wait(later(), later()));
        assert!(!remove(folder.path(), later(), &mut pace).unwrap());
        assert_eq!(measure(folder.path(), later(), &mut pace), None);
        assert!(folder.path().exists());
    }
}
