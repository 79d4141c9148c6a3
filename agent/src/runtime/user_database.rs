//! The user database of this machine, asked so that a session opens even where it does not answer.
//!
//! The C library may ask a directory service that hangs, or be told of a module that is not there. So it is asked on
//! a thread that is left behind when it takes too long, and then `/etc/passwd` and `/etc/group` are read as they are:
//! they hold the same users, without those of the directory. Nobody becomes another user by that; what does happen
//! with a user who is not found is `login`'s to say.

use std::{
    ffi::CString,
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{RecvTimeoutError, sync_channel},
    },
    thread,
    time::Duration,
};

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};

const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";
/// What is read of either.
const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024;
/// What a lookup may take. A directory service that is alive answers sooner.
const LIMIT: Duration = Duration::from_secs(3);
const MAX_GROUPS: usize = 1024;

/// The C library is not asked any more: it hung once, or there is no process to spare for the asking.
static FILES_ONLY: AtomicBool = AtomicBool::new(false);
/// It hung, as it would in whatever asks it.
static HANGS: AtomicBool = AtomicBool::new(false);
/// What was wrong first.
static TROUBLE: Mutex<Option<String>> = Mutex::new(None);

/// From now on only the files are read.
pub(crate) fn read_files_only() {
    FILES_ONLY.store(true, Ordering::Relaxed);
}

/// Whether a lookup did not come back. Programs that ask for a user's name will not either.
pub(crate) fn hangs() -> bool {
    HANGS.load(Ordering::Relaxed)
}

/// What was wrong with the C library's answers, if anything was.
pub(crate) fn trouble() -> Option<String> {
    TROUBLE.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

pub(crate) fn user_by_name(name: &str) -> Option<User> {
    let Ok(wanted) = CString::new(name) else {
        return None;
    };
    let asked = name.to_owned();
    match ask(move || User::from_name(&asked)) {
        Some(Some(user)) => Some(user),
        answer => {
            let user = user_in(&read(Path::new(PASSWD)), |user| {
                user.name.as_bytes() == wanted.as_bytes()
            });
            note_hidden(answer.is_some(), user.as_ref());
            user
        }
    }
}

pub(crate) fn user_by_id(uid: Uid) -> Option<User> {
    match ask(move || User::from_uid(uid)) {
        Some(Some(user)) => Some(user),
        answer => {
            let user = user_in(&read(Path::new(PASSWD)), |user| user.uid == uid);
            note_hidden(answer.is_some(), user.as_ref());
            user
        }
    }
}

/// All groups of a user, the first one included.
pub(crate) fn groups_of(user: &User) -> Vec<Gid> {
    let (name, gid) = (user.name.clone(), user.gid);
    let asked = ask(move || getgrouplist(&CString::new(name).unwrap_or_default(), gid));
    asked.unwrap_or_else(|| groups_in(&read(Path::new(GROUP)), &user.name, gid))
}

pub(crate) fn group_by_name(name: &'static str) -> Option<Gid> {
    match ask(move || Group::from_name(name)) {
        Some(group) => group.map(|group| group.gid),
        None => group_in(&read(Path::new(GROUP)), name),
    }
}

/// An answer of the C library that came in time.
fn ask<T: Send + 'static>(question: impl FnOnce() -> nix::Result<T> + Send + 'static) -> Option<T> {
    if FILES_ONLY.load(Ordering::Relaxed) {
        return None;
    }
    let (answered, answer) = sync_channel(1);
    let asked = thread::Builder::new().name("users".to_owned()).spawn(move || {
        // nobody may be left who waits
        let _heard = answered.send(question());
    });
    if asked.is_err() {
        return None;
    }
    match answer.recv_timeout(LIMIT) {
        Ok(Ok(answer)) => return Some(answer),
        Ok(Err(error)) => note_trouble(format!(
            "the user database of this machine cannot be asked ({error})"
        )),
        Err(RecvTimeoutError::Timeout) => {
            HANGS.store(true, Ordering::Relaxed);
            read_files_only();
            note_trouble(format!(
                "the user database of this machine does not answer within {} s (see /etc/nsswitch.conf)",
                LIMIT.as_secs()
            ));
        }
        Err(RecvTimeoutError::Disconnected) => {}
    }
    None
}

fn note_trouble(text: String) {
    tracing::warn!("{text}; /etc/passwd and /etc/group are read instead");
    TROUBLE
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .get_or_insert(text);
}

/// A database that does not know who stands in the file is not in order.
fn note_hidden(has_answered: bool, user: Option<&User>) {
    if let (true, Some(user)) = (has_answered, user) {
        note_trouble(format!(
            "the user database of this machine does not know {}, who is in {PASSWD} (see /etc/nsswitch.conf)",
            user.name
        ));
    }
}

/// What cannot be read is empty, and so has nobody.
fn read(path: &Path) -> String {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_FILE_BYTES).read_to_end(&mut bytes));
    if let Err(error) = read {
        note_trouble(format!("{} cannot be read ({error})", path.display()));
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn user_in(passwd: &str, is_wanted: impl Fn(&User) -> bool) -> Option<User> {
    passwd.lines().filter_map(user).find(|user| is_wanted(user))
}

/// passwd(5). A line that is no user is none, as those that begin with `+` or `-`.
fn user(line: &str) -> Option<User> {
    let mut fields = line.split(':');
    let mut field = || fields.next();
    let name = field()?;
    let password = field()?;
    let (uid, gid) = (field()?.parse().ok()?, field()?.parse().ok()?);
    let (gecos, dir, shell) = (field()?, field()?, field()?);
    if name.is_empty() || name.starts_with(['+', '-', '#']) || field().is_some() {
        return None;
    }
    Some(User {
        name: name.to_owned(),
        passwd: CString::new(password).ok()?,
        uid: Uid::from_raw(uid),
        gid: Gid::from_raw(gid),
        gecos: CString::new(gecos).ok()?,
        dir: PathBuf::from(dir),
        shell: PathBuf::from(shell),
    })
}

/// group(5)
fn group(line: &str) -> Option<(&str, Gid, &str)> {
    let mut fields = line.split(':');
    let name = fields.next().filter(|name| !name.is_empty())?;
    let gid = fields.nth(1)?.parse().ok()?;
    Some((name, Gid::from_raw(gid), fields.next()?))
}

fn group_in(groups: &str, wanted: &str) -> Option<Gid> {
    groups
        .lines()
        .filter_map(group)
        .find(|(name, _, _)| *name == wanted)
        .map(|(_, gid, _)| gid)
}

fn groups_in(groups: &str, user: &str, first: Gid) -> Vec<Gid> {
    let mut all = vec![first];
    for (_, gid, members) in groups.lines().filter_map(group) {
        if all.len() < MAX_GROUPS && !all.contains(&gid) && members.split(',').any(|member| member == user) {
            all.push(gid);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const USERS: &str = "root:x:0:0:root:/root:/bin/bash\n\
        # a remark\n\
        +nis:x:1:1:::\n\
        -gone:x:2:2:::\n\
        broken:x:one:1::/:/bin/sh\n\
        short:x:3:3\n\
        ops:x:1001:1002:Ops,,,:/srv/ops:\n\
        ops:x:0:0:second:/:/bin/sh\n";

    #[test]
    fn the_first_line_that_is_a_user_counts() {
        let found = |name: &str| user_in(USERS, |user| user.name == name);
        let ops = found("ops").unwrap();
        assert_eq!((ops.uid, ops.gid), (Uid::from_raw(1001), Gid::from_raw(1002)));
        assert_eq!((ops.dir, ops.shell), (PathBuf::from("/srv/ops"), PathBuf::new()));
        for nobody in ["", "+nis", "nis", "-gone", "broken", "short", "# a remark"] {
            assert!(found(nobody).is_none(), "{nobody}");
        }
    }

    #[test]
    fn groups_are_those_that_name_the_user() {
        let groups = "root:x:0:\ntty:x:5:\nadm:x:4:syslog,ops\nops:x:1002:ops\nopsers:x:9:ops2\nbad:x::ops\n";
        let ids: Vec<u32> = groups_in(groups, "ops", Gid::from_raw(1002))
            .iter()
            .map(|gid| gid.as_raw())
            .collect();
        assert_eq!(ids, [1002, 4]);
        assert_eq!(group_in(groups, "tty"), Some(Gid::from_raw(5)));
        assert_eq!(group_in(groups, "nobody-here"), None);
    }

    #[test]
    fn this_machines_users_are_found_and_strangers_are_not() {
        assert_eq!(user_by_id(Uid::effective()).unwrap().uid, Uid::effective());
        assert!(user_by_name("nobody-of-this-name").is_none());
        assert!(user_by_name("root\0x").is_none());
    }
}
