//! What recordings may take of their file system.

use std::{fs::File, io};

/// What recordings leave free on their file system, which the database shares: so much, or a twentieth of a small one.
pub(super) const RESERVED_BYTES: u64 = 256 * 1024 * 1024;
const RESERVED_PART: u64 = 20;

/// Of a file system, in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Space {
    pub(super) available: u64,
    pub(super) total: u64,
}

impl Space {
    pub(super) fn around(file: &File) -> io::Result<Self> {
        let file_system = nix::sys::statvfs::fstatvfs(file)?;
        let unit = file_system.fragment_size();
        Ok(Self {
            available: file_system.blocks_available().saturating_mul(unit),
            total: file_system.blocks().saturating_mul(unit),
        })
    }

    pub(super) fn has_room_for(self, bytes: u64) -> bool {
        self.available.saturating_sub(bytes) >= self.reserved()
    }

    /// Whether a node that has `share` already, and gets so much more, has then no more than what is left for all: a node
    /// alone may have half of the room there is, and another one always finds some.
    pub(super) fn leaves_as_much_as(self, share: u64, more: u64) -> bool {
        let left = self
            .available
            .saturating_sub(more)
            .saturating_sub(self.reserved());
        share.saturating_add(more) <= left
    }

    /// Compressing may take half of what recordings leave free: it gives back more than it takes, and a disk that
    /// recordings have filled would stay full without it.
    pub(super) fn has_room_to_pack(self, bytes: u64) -> bool {
        self.available.saturating_sub(bytes) >= self.reserved() / 2
    }

    fn reserved(self) -> u64 {
        RESERVED_BYTES.min(self.total / RESERVED_PART)
    }
}
