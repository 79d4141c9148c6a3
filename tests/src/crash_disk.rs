//! A disk whose power can be cut: a file system in this process's memory that knows what was synced, and drops the rest.
//!
//! It is mounted by FUSE. What was not synced is on the disk after a cut or is not, as the dice say: see
//! `crash_disk/image.rs` for what that means.

mod driver;
mod image;

use std::{
    fs::DirBuilder,
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result};
use fuser::{BackgroundSession, Config, MountOption, SessionACL};
use nix::mount::{MntFlags, umount2};
use tempfile::TempDir;

use self::{
    driver::{Driver, Power, Shared},
    image::{Attributes, Image, Survivors},
};
use crate::Dice;

/// A mounted disk. Processes that use it must be gone before it is.
#[derive(Debug)]
pub struct CrashDisk {
    path: PathBuf,
    shared: Arc<Shared>,
    session: Option<BackgroundSession>,
    /// Goes when nothing is mounted in it any more.
    _dir: TempDir,
}

impl CrashDisk {
    /// Why this machine cannot have one; `None`: it can.
    pub fn missing() -> Option<&'static str> {
        if !Path::new("/dev/fuse").exists() {
            return Some("a disk whose power can be cut takes /dev/fuse, which is not there");
        }
        if !crate::is_root() {
            return Some("a disk whose power can be cut is mounted by root alone");
        }
        let probe = tempfile::tempdir().and_then(|dir| {
            let image = Image::new(root_attributes(dir.path())?);
            mount(dir.path(), &Arc::new(Shared::new(image))).map(|session| (session, dir))
        });
        match probe {
            Ok((session, dir)) => {
                unmount(dir.path());
                drop(session);
                None
            }
            Err(_) => Some("a disk whose power can be cut takes the right to mount, which is not there"),
        }
    }

    /// Mounts an empty disk.
    ///
    /// # Errors
    /// It cannot be mounted.
    pub fn mount() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("disk");
        DirBuilder::new().mode(0o700).create(&path)?;
        let shared = Arc::new(Shared::new(Image::new(root_attributes(&path)?)));
        let session = mount(&path, &shared).context("failed to mount a disk whose power can be cut")?;
        Ok(Self {
            path,
            shared,
            session: Some(session),
            _dir: dir,
        })
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The power goes after this many more changes and syncs.
    pub fn cut_in(&self, changes: u64) {
        self.shared.lock().cut_in = Some(changes);
    }

    /// The power goes now: what is asked of the disk is done no more, and gets no answer until [`Self::off`].
    pub fn freeze(&self) {
        let mut state = self.shared.lock();
        state.cut_in = None;
        state.power = Power::Frozen;
    }

    /// Whether the power has gone.
    pub fn is_frozen(&self) -> bool {
        self.shared.lock().power != Power::On
    }

    /// How many changes and syncs there were since the disk was mounted.
    pub fn changes(&self) -> u64 {
        self.shared.lock().changes
    }

    /// Whoever still waits for the disk gets an error. To be called when all who could make something of it have
    /// been killed: they end only now.
    pub fn off(&self) {
        self.shared.set_power(Power::Off);
    }

    /// There was no cut after all: who waited gets what was asked for.
    pub fn thaw(&self) {
        self.shared.set_power(Power::On);
    }

    /// The power comes back: what was not synced is there, in parts, or not.
    ///
    /// # Errors
    /// It cannot be mounted again.
    pub fn on_again(&mut self, dice: &mut Dice) -> Result<()> {
        self.off();
        unmount(&self.path);
        self.session = None;
        let empty = Image::new(root_attributes(&self.path)?);
        let image = std::mem::replace(&mut self.shared.lock().image, empty);
        let survivors = match dice.below(5) {
            0 => Survivors::Nothing,
            1 => Survivors::Everything,
            2 => Survivors::Some { piece: 512 },
            3 => Survivors::Some { piece: 4096 },
            _ => Survivors::UpToAPoint,
        };
        let image = image.cut(survivors, |below| dice.below(below));
        self.shared = Arc::new(Shared::new(image));
        let session = mount(&self.path, &self.shared).context("failed to mount the disk again")?;
        self.session = Some(session);
        Ok(())
    }
}

impl Drop for CrashDisk {
    fn drop(&mut self) {
        self.off();
        unmount(&self.path);
    }
}

fn root_attributes(path: &Path) -> io::Result<Attributes> {
    let metadata = path.metadata()?;
    Ok(Attributes {
        mode: u16::try_from(metadata.mode() & 0o7777).unwrap_or(0o700),
        uid: metadata.uid(),
        gid: metadata.gid(),
        modified: metadata.modified()?,
    })
}

fn mount(path: &Path, shared: &Arc<Shared>) -> io::Result<BackgroundSession> {
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::FSName("moorline-crash-disk".to_owned()),
        MountOption::DefaultPermissions,
    ];
    config.acl = SessionACL::All;
    fuser::spawn_mount(Driver(Arc::clone(shared)), path, &config)
}

/// Lazily: a process that is about to end may still hold it. What is not mounted needs nothing.
fn unmount(path: &Path) {
    let _unmounted = umount2(path, MntFlags::MNT_DETACH);
}

#[cfg(test)]
mod tests;
