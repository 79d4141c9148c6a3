//! What is left on a disk that is not the agent's alone.

use std::{io, os::fd::AsFd};

use nix::sys::statvfs::fstatvfs;

/// What is left free for others: so much, or a tenth of a small disk.
const RESERVED_BYTES: u64 = 256 * 1024 * 1024;
const RESERVED_PART: u64 = 10;

/// Whether so much may be added where this file is, and enough is left for others.
///
/// # Errors
/// The file system does not tell.
pub(crate) fn has_space(file: impl AsFd, added: u64) -> io::Result<bool> {
    let space = fstatvfs(file)?;
    let unit = space.fragment_size();
    let reserved = RESERVED_BYTES.min(space.blocks().saturating_mul(unit) / RESERVED_PART);
    Ok(space.blocks_available().saturating_mul(unit) >= reserved.saturating_add(added))
}
