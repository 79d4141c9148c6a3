//! A file that no disk holds, for what a program is to read and nobody is to find.

use std::{
    ffi::CStr,
    fs::File,
    io::{self, Seek as _, Write as _},
};

use nix::{
    libc,
    sys::memfd::{MFdFlags, memfd_create},
};

/// A file that only those can read who are given it; it goes with the last of them.
pub(crate) fn memory_file(name: &CStr, bytes: &[u8]) -> io::Result<File> {
    let plain = MFdFlags::MFD_CLOEXEC;
    // a kernel may insist on it, and one before 6.3 does not know it
    let sealed = plain | MFdFlags::from_bits_retain(libc::MFD_NOEXEC_SEAL);
    let created = memfd_create(name, sealed).or_else(|_| memfd_create(name, plain));
    let mut file = File::from(created?);
    file.write_all(bytes)?;
    file.rewind()?;
    Ok(file)
}
