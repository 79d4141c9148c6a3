//! The image as a file system of this machine: requests of the kernel, one after the other.

use std::{
    collections::HashMap,
    ffi::{OsStr, OsString},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use fuser::{
    BsdFileFlags, Errno as Refusal, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use nix::errno::Errno;

use super::image::{Attributes, Image, Kind, Status};

/// The kernel may remember everything: nothing changes without it.
const TTL: Duration = Duration::from_secs(24 * 3600);
/// A disk without power answers nobody this long, and then everybody with an error: a test that went wrong ends.
const FROZEN: Duration = Duration::from_secs(30);
const BLOCK: u32 = 4096;
/// What the disk says it has free.
const FREE_BLOCKS: u64 = 16 * 1024 * 1024;

/// Whether the disk answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Power {
    On,
    /// It has gone: nobody gets an answer.
    Frozen,
    /// Everybody gets an error.
    Off,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) image: Image,
    pub(super) power: Power,
    /// After how many more changes and syncs the power goes.
    pub(super) cut_in: Option<u64>,
    /// How many there were.
    pub(super) changes: u64,
    listings: HashMap<u64, Vec<(u64, Kind, OsString)>>,
    next_listing: u64,
}

/// What the driver's thread and the test share.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    pub(super) fn new(image: Image) -> Self {
        Self {
            state: Mutex::new(State {
                image,
                power: Power::On,
                cut_in: None,
                changes: 0,
                listings: HashMap::new(),
                next_listing: 1,
            }),
            changed: Condvar::new(),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_power(&self, power: Power) {
        self.lock().power = power;
        self.changed.notify_all();
    }

    /// Waits while the disk is frozen. `None`: there is no power.
    fn enter(&self, is_change: bool) -> Option<MutexGuard<'_, State>> {
        let mut state = self.lock();
        if is_change && state.power == Power::On {
            state.changes += 1;
            state.cut_in = match state.cut_in {
                Some(0 | 1) => {
                    state.power = Power::Frozen;
                    None
                }
                Some(left) => Some(left - 1),
                None => None,
            };
        }
        let until = Instant::now() + FROZEN;
        while state.power == Power::Frozen {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                state.power = Power::Off;
            }
            state = self
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        (state.power == Power::On).then_some(state)
    }

    fn look<T>(&self, work: impl FnOnce(&mut State) -> Result<T, Errno>) -> Result<T, Errno> {
        self.enter(false)
            .map_or(Err(Errno::EIO), |mut state| work(&mut state))
    }

    fn change<T>(&self, work: impl FnOnce(&mut Image) -> Result<T, Errno>) -> Result<T, Errno> {
        let state = self.enter(true);
        state.map_or(Err(Errno::EIO), |mut state| work(&mut state.image))
    }
}

/// One mount of the disk.
#[derive(Debug)]
pub(super) struct Driver(pub(super) Arc<Shared>);

impl Driver {
    fn create_at(
        &self,
        request: &Request,
        (parent, name): (INodeNo, &OsStr),
        kind: Kind,
        mode: u32,
    ) -> Result<FileAttr, Errno> {
        let attributes = Attributes {
            mode: permissions(mode),
            uid: request.uid(),
            gid: request.gid(),
            modified: SystemTime::now(),
        };
        self.0.change(|image| {
            let inode = image.create(parent.0, name, kind, attributes)?;
            image.status(inode).map(attributes_of)
        })
    }

    fn remove(&self, parent: INodeNo, name: &OsStr, kind: Kind, reply: ReplyEmpty) {
        done(self.0.change(|image| image.remove(parent.0, name, kind)), reply);
    }
}

fn permissions(mode: u32) -> u16 {
    u16::try_from(mode & 0o7777).unwrap_or_default()
}

fn refusal(error: Errno) -> Refusal {
    Refusal::from_i32(error as i32)
}

fn done(outcome: Result<(), Errno>, reply: ReplyEmpty) {
    match outcome {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(refusal(error)),
    }
}

fn entry(outcome: Result<FileAttr, Errno>, reply: ReplyEntry) {
    match outcome {
        Ok(attributes) => reply.entry(&TTL, &attributes, Generation(0)),
        Err(error) => reply.error(refusal(error)),
    }
}

fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::File => FileType::RegularFile,
        Kind::Directory => FileType::Directory,
    }
}

fn attributes_of(status: Status) -> FileAttr {
    let Attributes {
        mode,
        uid,
        gid,
        modified,
    } = status.attributes;
    FileAttr {
        ino: INodeNo(status.inode),
        size: status.size,
        blocks: status.size.div_ceil(512),
        atime: modified,
        mtime: modified,
        ctime: modified,
        crtime: modified,
        kind: file_type(status.kind),
        perm: mode,
        nlink: 1,
        uid,
        gid,
        rdev: 0,
        blksize: BLOCK,
        flags: 0,
    }
}

impl Filesystem for Driver {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.0.look(|state| {
            let inode = state.image.lookup(parent.0, name)?;
            state.image.status(inode).map(attributes_of)
        });
        entry(found, reply);
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.0.look(|state| state.image.status(inode.0)) {
            Ok(status) => reply.attr(&TTL, &attributes_of(status)),
            Err(error) => reply.error(refusal(error)),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        inode: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        modified: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let changed = self.0.change(|image| {
            if let Some(size) = size {
                image.set_length(inode.0, size)?;
            }
            image.set_attributes(inode.0, |attributes| {
                attributes.mode = mode.map_or(attributes.mode, permissions);
                attributes.uid = uid.unwrap_or(attributes.uid);
                attributes.gid = gid.unwrap_or(attributes.gid);
                attributes.modified = match modified {
                    Some(TimeOrNow::SpecificTime(time)) => time,
                    Some(TimeOrNow::Now) => SystemTime::now(),
                    None if size.is_some() => SystemTime::now(),
                    None => attributes.modified,
                };
            })?;
            image.status(inode.0)
        });
        match changed {
            Ok(status) => reply.attr(&TTL, &attributes_of(status)),
            Err(error) => reply.error(refusal(error)),
        }
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        entry(
            self.create_at(request, (parent, name), Kind::Directory, mode),
            reply,
        );
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        match self.create_at(request, (parent, name), Kind::File, mode) {
            Ok(attributes) => reply.created(
                &TTL,
                &attributes,
                Generation(0),
                FileHandle(0),
                FopenFlags::FOPEN_KEEP_CACHE,
            ),
            Err(error) => reply.error(refusal(error)),
        }
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.remove(parent, name, Kind::File, reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.remove(parent, name, Kind::Directory, reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let renamed = self.0.change(|image| {
            if flags.contains(RenameFlags::RENAME_EXCHANGE) {
                return Err(Errno::EINVAL);
            }
            if flags.contains(RenameFlags::RENAME_NOREPLACE) && image.lookup(new_parent.0, new_name).is_ok() {
                return Err(Errno::EEXIST);
            }
            image.rename((parent.0, name), (new_parent.0, new_name))
        });
        done(renamed, reply);
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
    }

    fn read(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let read = self
            .0
            .look(|state| state.image.read(inode.0, offset, size).map(<[u8]>::to_vec));
        match read {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(refusal(error)),
        }
    }

    fn write(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        bytes: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let written = self.0.change(|image| {
            image.write(inode.0, offset, bytes)?;
            image.set_attributes(inode.0, |attributes| attributes.modified = SystemTime::now())
        });
        match (written, u32::try_from(bytes.len())) {
            (Ok(()), Ok(length)) => reply.written(length),
            (Err(error), _) => reply.error(refusal(error)),
            (_, Err(_)) => reply.error(Refusal::EINVAL),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, inode: INodeNo, _: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        done(self.0.change(|image| image.sync_file(inode.0)), reply);
    }

    fn opendir(&self, _: &Request, inode: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        // a listing goes on where it was though names come and go in between
        let opened = self.0.look(|state| {
            let names = state.image.names(inode.0)?.iter();
            let listing: Result<Vec<_>, Errno> = names
                .map(|(name, inode)| Ok((*inode, state.image.status(*inode)?.kind, name.clone())))
                .collect();
            let handle = state.next_listing;
            state.next_listing += 1;
            state.listings.insert(handle, listing?);
            Ok(handle)
        });
        match opened {
            Ok(handle) => reply.opened(FileHandle(handle), FopenFlags::empty()),
            Err(error) => reply.error(refusal(error)),
        }
    }

    fn readdir(
        &self,
        _: &Request,
        inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let dots = [".", ".."].map(|name| (inode.0, Kind::Directory, OsString::from(name)));
        let listed = self
            .0
            .look(|state| state.listings.get(&handle.0).cloned().ok_or(Errno::EBADF));
        match listed {
            Ok(names) => {
                let names = dots.into_iter().chain(names).zip(1_u64..);
                let names = names.skip(usize::try_from(offset).unwrap_or(usize::MAX));
                for ((inode, kind, name), next) in names {
                    if reply.add(INodeNo(inode), next, file_type(kind), name) {
                        break;
                    }
                }
                reply.ok();
            }
            Err(error) => reply.error(refusal(error)),
        }
    }

    fn releasedir(&self, _: &Request, _: INodeNo, handle: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.0.lock().listings.remove(&handle.0);
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, inode: INodeNo, _: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        done(self.0.change(|image| image.sync_directory(inode.0)), reply);
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let (all, free) = (2 * FREE_BLOCKS, FREE_BLOCKS);
        reply.statfs(all, free, free, all, free, BLOCK, 255, BLOCK);
    }
}
