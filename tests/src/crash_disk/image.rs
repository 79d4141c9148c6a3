//! What a disk holds: what processes see of it, and what a power cut leaves of that. Pure: requests in, answers out.
//!
//! A write reaches the disk with a sync of its file, the making, renaming or removing of a name with a sync of its
//! directory, and each of them by itself at any time before, in any order. This is less than any journalling file
//! system promises, and all that POSIX does. Modes, owners and times are not held back.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ffi::{OsStr, OsString},
    time::SystemTime,
};

use nix::errno::Errno;

/// Number of the root directory.
pub(super) const ROOT: u64 = 1;
/// When more than this of one file is not synced, the older half reaches the disk by itself, as a kernel would do.
const UNSYNCED_BYTES: usize = 4 * 1024 * 1024;

#[derive(Debug, Clone)]
pub(super) struct Attributes {
    pub(super) mode: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) modified: SystemTime,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Directory,
}

/// What a power cut leaves of what was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Survivors {
    Nothing,
    Everything,
    /// Each piece of this many bytes, and each change of a name, or not.
    Some {
        piece: usize,
    },
    /// Of each file, and of the names, what was done up to some point.
    UpToAPoint,
}

/// A change of a file's content.
#[derive(Debug, Clone)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Length(usize),
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write { offset, bytes } => {
                let end = offset + bytes.len();
                if content.len() < end {
                    content.resize(end, 0);
                }
                if let Some(target) = content.get_mut(*offset..end) {
                    target.copy_from_slice(bytes);
                }
            }
            Self::Length(length) => content.resize(*length, 0),
        }
    }

    /// The change as the disk does it: piece by piece, cut at multiples of `piece`.
    fn pieces(&self, piece: usize) -> Vec<Self> {
        let Self::Write { offset, bytes } = self else {
            return vec![self.clone()];
        };
        let mut pieces = Vec::new();
        let (mut at, mut rest) = (*offset, bytes.as_slice());
        while !rest.is_empty() {
            let (now, later) = rest.split_at((piece - at % piece).min(rest.len()));
            pieces.push(Self::Write {
                offset: at,
                bytes: now.to_vec(),
            });
            at += now.len();
            rest = later;
        }
        pieces
    }

    fn size(&self) -> usize {
        match self {
            Self::Write { bytes, .. } => bytes.len(),
            Self::Length(_) => 0,
        }
    }
}

#[derive(Debug, Default)]
struct Content {
    seen: Vec<u8>,
    kept: Vec<u8>,
    unsynced: Vec<Change>,
    unsynced_bytes: usize,
}

impl Content {
    fn change(&mut self, change: Change) {
        change.apply(&mut self.seen);
        self.unsynced_bytes += change.size();
        self.unsynced.push(change);
        if self.unsynced_bytes > UNSYNCED_BYTES {
            self.flush(self.unsynced.len().div_ceil(2));
        }
    }

    /// The first `count` changes reach the disk.
    fn flush(&mut self, count: usize) {
        for change in self.unsynced.drain(..count) {
            self.unsynced_bytes -= change.size();
            change.apply(&mut self.kept);
        }
    }
}

type Names = BTreeMap<OsString, u64>;

#[derive(Debug, Default)]
struct Directory {
    seen: Names,
    kept: Names,
}

#[derive(Debug)]
enum Body {
    File(Content),
    Directory(Directory),
}

#[derive(Debug)]
struct Inode {
    attributes: Attributes,
    body: Body,
}

type Place = (u64, OsString);

/// One change of names: of both at once, when something is renamed.
#[derive(Debug, Clone)]
struct NameChange {
    inode: u64,
    from: Option<Place>,
    to: Option<Place>,
}

impl NameChange {
    fn concerns(&self, directory: u64) -> bool {
        let places = self.from.iter().chain(&self.to);
        places.into_iter().any(|(parent, _)| *parent == directory)
    }
}

/// What one node of the tree is, for `stat`.
#[derive(Debug, Clone)]
pub(super) struct Status {
    pub(super) inode: u64,
    pub(super) kind: Kind,
    pub(super) size: u64,
    pub(super) attributes: Attributes,
}

#[derive(Debug)]
pub(super) struct Image {
    inodes: HashMap<u64, Inode>,
    next: u64,
    unsynced: Vec<NameChange>,
}

impl Image {
    /// An empty disk.
    pub(super) fn new(root: Attributes) -> Self {
        let root = Inode {
            attributes: root,
            body: Body::Directory(Directory::default()),
        };
        Self {
            inodes: HashMap::from([(ROOT, root)]),
            next: ROOT + 1,
            unsynced: Vec::new(),
        }
    }

    pub(super) fn status(&self, inode: u64) -> Result<Status, Errno> {
        let found = self.inodes.get(&inode).ok_or(Errno::ENOENT)?;
        let (kind, size) = match &found.body {
            Body::File(content) => (Kind::File, content.seen.len()),
            Body::Directory(_) => (Kind::Directory, 0),
        };
        Ok(Status {
            inode,
            kind,
            size: size as u64,
            attributes: found.attributes.clone(),
        })
    }

    pub(super) fn set_attributes(
        &mut self,
        inode: u64,
        change: impl FnOnce(&mut Attributes),
    ) -> Result<(), Errno> {
        let found = self.inodes.get_mut(&inode).ok_or(Errno::ENOENT)?;
        change(&mut found.attributes);
        Ok(())
    }

    pub(super) fn lookup(&self, parent: u64, name: &OsStr) -> Result<u64, Errno> {
        self.names(parent)?.get(name).copied().ok_or(Errno::ENOENT)
    }

    pub(super) fn names(&self, directory: u64) -> Result<&Names, Errno> {
        match self.inodes.get(&directory).map(|inode| &inode.body) {
            Some(Body::Directory(directory)) => Ok(&directory.seen),
            Some(Body::File(_)) => Err(Errno::ENOTDIR),
            None => Err(Errno::ENOENT),
        }
    }

    pub(super) fn create(
        &mut self,
        parent: u64,
        name: &OsStr,
        kind: Kind,
        attributes: Attributes,
    ) -> Result<u64, Errno> {
        if self.names(parent)?.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        let body = match kind {
            Kind::File => Body::File(Content::default()),
            Kind::Directory => Body::Directory(Directory::default()),
        };
        let inode = self.next;
        self.next += 1;
        self.inodes.insert(inode, Inode { attributes, body });
        self.change_names(NameChange {
            inode,
            from: None,
            to: Some((parent, name.to_owned())),
        });
        Ok(inode)
    }

    pub(super) fn remove(&mut self, parent: u64, name: &OsStr, kind: Kind) -> Result<(), Errno> {
        let inode = self.lookup(parent, name)?;
        match (kind, self.status(inode)?.kind) {
            (Kind::File, Kind::Directory) => return Err(Errno::EISDIR),
            (Kind::Directory, Kind::File) => return Err(Errno::ENOTDIR),
            (Kind::Directory, Kind::Directory) if !self.names(inode)?.is_empty() => {
                return Err(Errno::ENOTEMPTY);
            }
            _ => {}
        }
        self.change_names(NameChange {
            inode,
            from: Some((parent, name.to_owned())),
            to: None,
        });
        Ok(())
    }

    pub(super) fn rename(&mut self, from: (u64, &OsStr), to: (u64, &OsStr)) -> Result<(), Errno> {
        let inode = self.lookup(from.0, from.1)?;
        if let Some(replaced) = self.names(to.0)?.get(to.1).copied() {
            if replaced == inode {
                return Ok(());
            }
            if self.names(replaced).is_ok_and(|names| !names.is_empty()) {
                return Err(Errno::ENOTEMPTY);
            }
        }
        self.change_names(NameChange {
            inode,
            from: Some((from.0, from.1.to_owned())),
            to: Some((to.0, to.1.to_owned())),
        });
        Ok(())
    }

    pub(super) fn read(&self, inode: u64, offset: u64, size: u32) -> Result<&[u8], Errno> {
        let Some(Body::File(content)) = self.inodes.get(&inode).map(|inode| &inode.body) else {
            return Err(Errno::EISDIR);
        };
        let length = content.seen.len();
        let start = position(offset).min(length);
        let end = start.saturating_add(size as usize).min(length);
        Ok(content.seen.get(start..end).unwrap_or_default())
    }

    pub(super) fn write(&mut self, inode: u64, offset: u64, bytes: &[u8]) -> Result<(), Errno> {
        self.content(inode)?.change(Change::Write {
            offset: position(offset),
            bytes: bytes.to_vec(),
        });
        Ok(())
    }

    pub(super) fn set_length(&mut self, inode: u64, length: u64) -> Result<(), Errno> {
        self.content(inode)?.change(Change::Length(position(length)));
        Ok(())
    }

    /// The whole content of a file is on the disk.
    pub(super) fn sync_file(&mut self, inode: u64) -> Result<(), Errno> {
        let content = self.content(inode)?;
        content.flush(content.unsynced.len());
        Ok(())
    }

    /// All names of a directory are on the disk.
    pub(super) fn sync_directory(&mut self, inode: u64) -> Result<(), Errno> {
        self.names(inode)?;
        let changes = std::mem::take(&mut self.unsynced);
        for change in changes {
            if change.concerns(inode) {
                self.keep(&change);
            } else {
                self.unsynced.push(change);
            }
        }
        Ok(())
    }

    /// The power goes, and comes back. `dice` gives numbers below its argument.
    pub(super) fn cut(mut self, survivors: Survivors, mut dice: impl FnMut(u64) -> u64) -> Self {
        let changes = std::mem::take(&mut self.unsynced);
        for change in survive(changes, survivors, &mut dice) {
            self.keep(&change);
        }
        // in an order that the same seed gives again
        let numbers: BTreeSet<u64> = self.inodes.keys().copied().collect();
        for number in numbers {
            if let Ok(content) = self.content(number) {
                let piece = match survivors {
                    Survivors::Some { piece } => piece,
                    _ => usize::MAX,
                };
                let changes = std::mem::take(&mut content.unsynced);
                let pieces = changes.iter().flat_map(|change| change.pieces(piece)).collect();
                for change in survive(pieces, survivors, &mut dice) {
                    change.apply(&mut content.kept);
                }
                content.unsynced_bytes = 0;
                content.seen.clone_from(&content.kept);
            }
        }
        self.reachable()
    }

    /// What the names lead to; nothing else is left.
    fn reachable(mut self) -> Self {
        let mut found = HashMap::new();
        let mut waiting = vec![ROOT];
        while let Some(number) = waiting.pop() {
            if let Some(mut inode) = self.inodes.remove(&number) {
                if let Body::Directory(directory) = &mut inode.body {
                    directory.seen.clone_from(&directory.kept);
                    waiting.extend(directory.kept.values());
                }
                found.insert(number, inode);
            }
        }
        self.inodes = found;
        self
    }

    fn content(&mut self, inode: u64) -> Result<&mut Content, Errno> {
        match self.inodes.get_mut(&inode).map(|inode| &mut inode.body) {
            Some(Body::File(content)) => Ok(content),
            Some(Body::Directory(_)) => Err(Errno::EISDIR),
            None => Err(Errno::ENOENT),
        }
    }

    fn change_names(&mut self, change: NameChange) {
        self.apply(&change, |directory| &mut directory.seen);
        self.unsynced.push(change);
    }

    fn keep(&mut self, change: &NameChange) {
        self.apply(change, |directory| &mut directory.kept);
    }

    fn apply(&mut self, change: &NameChange, side: impl Fn(&mut Directory) -> &mut Names) {
        let mut names_of = |place: &Place, act: &dyn Fn(&mut Names)| {
            if let Some(Inode {
                body: Body::Directory(directory),
                ..
            }) = self.inodes.get_mut(&place.0)
            {
                act(side(directory));
            }
        };
        if let Some(from) = &change.from {
            names_of(from, &|names| {
                if names.get(&from.1) == Some(&change.inode) {
                    names.remove(&from.1);
                }
            });
        }
        if let Some(to) = &change.to {
            names_of(to, &|names| {
                names.insert(to.1.clone(), change.inode);
            });
        }
    }
}

/// Which of the changes that were not synced are on the disk after all.
fn survive<T>(changes: Vec<T>, survivors: Survivors, dice: &mut impl FnMut(u64) -> u64) -> Vec<T> {
    match survivors {
        Survivors::Nothing => Vec::new(),
        Survivors::Everything => changes,
        Survivors::Some { .. } => changes.into_iter().filter(|_| dice(2) == 0).collect(),
        Survivors::UpToAPoint => {
            let count = position(dice(changes.len() as u64 + 1));
            changes.into_iter().take(count).collect()
        }
    }
}

/// A position in a file that lies in memory.
fn position(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
