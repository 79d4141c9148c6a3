//! What every capability of the agent stands on: the node's context, worker processes, backoff, waiting.

mod age;
mod background;
mod backoff;
mod closed_memory;
mod context;
mod control_group;
mod disk_space;
mod footprint;
mod memory_file;
mod network;
mod private_directory;
mod resource_limits;
mod state_lock;
pub(crate) mod user_database;
mod worker_log;
mod worker_process;

use tokio::time::{Instant, sleep_until};

pub(crate) use age::{Recipient, RecipientError, seal as seal_to};
pub(crate) use background::yield_to_others;
pub(crate) use backoff::Backoff;
pub(crate) use closed_memory::{close_memory, give_back_core_limit, set_own};
pub(crate) use context::{AGENT_VERSION, NodeContext, Platform, RoleCredentials};
pub(crate) use control_group::{Abandoned, ControlGroup, GroupPlaces, enter, hierarchies, remove_leftovers};
pub(crate) use disk_space::has_space;
pub(crate) use footprint::shrink;
pub(crate) use memory_file::memory_file;
pub(crate) use network::{Network, NetworkError, canonical, embedded};
pub(crate) use private_directory::make_private_directory;
pub(crate) use resource_limits::{CpuQuota, MemoryMax, ResourceLimits};
pub(crate) use state_lock::lock_state_dir;
pub(crate) use worker_log::start_worker_log;
pub(crate) use worker_process::{
    PROCESS_PATIENCE, PROCESS_PAUSE, ProcessKey, WorkerKind, WorkerProcess, is_refused, own_program,
};

/// Waits until then; for ever where nothing is due.
pub(crate) async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

/// A random number for jitter.
pub(crate) fn random_u32() -> u32 {
    let mut bytes = [0; 4];
    // Without randomness the jitter is none, which is no reason to stop.
    match ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut bytes) {
        Ok(()) => u32::from_ne_bytes(bytes),
        Err(ring::error::Unspecified) => u32::MAX,
    }
}
