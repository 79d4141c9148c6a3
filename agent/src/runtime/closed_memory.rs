//! What is in the memory of the agent's own processes, keys and SecureStrings among it, goes into no core file, and other
//! processes of the agent's user can neither read nor trace it. What is started here is no affair of ours: it gets back
//! what it would have without us.

use std::{ffi::CStr, sync::OnceLock};

use nix::{
    fcntl::{OFlag, open},
    sys::{
        prctl::{get_dumpable, set_dumpable},
        resource::{Resource, getrlimit, rlim_t, setrlimit},
        stat::Mode,
    },
    unistd::write,
};

/// How large core files may be, as this process was started.
static CORE_LIMIT: OnceLock<(rlim_t, rlim_t)> = OnceLock::new();

/// The first act of the process. The mark that nobody may look inside is lost when another program is executed, so each
/// worker does it anew.
///
/// # Errors
/// The kernel refuses, as a filter for system calls may have it; the process is open as others are.
pub(crate) fn close_memory() -> nix::Result<()> {
    set_dumpable(false)?;
    let (soft, hard) = getrlimit(Resource::RLIMIT_CORE)?;
    setrlimit(Resource::RLIMIT_CORE, 0, hard)?;
    // A second call would remember the zero of the first.
    CORE_LIMIT.get_or_init(|| (soft, hard));
    Ok(())
}

/// In a new process, before it becomes a program: system calls only. Where it is refused, it leaves no core file.
pub(crate) fn give_back_core_limit() {
    if let Some((soft, hard)) = CORE_LIMIT.get() {
        let _without = setrlimit(Resource::RLIMIT_CORE, *soft, *hard);
    }
}

/// Writes into a file that the kernel has of this process, also in a new one before it becomes a program: system calls
/// only. Of a process that nobody may look into they are root's, so for an agent of another user it is open meanwhile.
///
/// # Errors
/// The kernel refuses it.
pub(crate) fn set_own(file: &CStr, value: &[u8]) -> nix::Result<()> {
    let is_open = get_dumpable()?;
    set_dumpable(true)?;
    let written = open(file, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())
        .and_then(|file| write(file, value).map(drop));
    set_dumpable(is_open)?;
    written
}
