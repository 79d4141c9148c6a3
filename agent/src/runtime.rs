//! What every capability of the agent stands on: the node's context, worker processes, backoff.

mod backoff;
mod context;
mod worker_process;

pub(crate) use backoff::Backoff;
pub(crate) use context::{NodeContext, RoleCredentials};
pub(crate) use worker_process::{ProcessKey, WorkerKind, WorkerProcess, WorkerSpawnError};
