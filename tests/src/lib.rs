//! The testkit: the real programs, started for one test and gone after it.
//!
//! But for the last of these nothing stands in for a part of Moorline. An [`Endpoint`] is a `moorline-control` process, a [`Node`] a
//! registered `moorline-agent` process with its workers, [`Cli`] and [`Aws`] run the clients an operator would type,
//! a [`Terminal`] is what such a client believes to be a screen, a [`Cable`] is the network between two of them, to
//! be cut, a [`StockAgent`] is the other agent of this protocol, by script, and a
//! [`SimulatedFleet`] many nodes that only say what agents say. Each cleans up after itself, stops
//! only what it started, and listens on loopback only.
//!
//! Tests wait for conditions, with [`wait_for`], never for time to pass.

mod api;
mod audit;
mod aws;
mod cable;
mod captured;
mod cli;
mod crash_disk;
mod dice;
mod endpoint;
mod forward;
pub mod fuzz;
mod git_server;
mod node;
mod process;
mod programs;
mod raw_http;
mod recording;
mod reserved_port;
mod running;
mod s3_server;
mod simulated;
mod site;
mod ssh_server;
mod stock_agent;
mod stock_process;
mod terminal;
mod wait;

pub use api::Api;
pub use audit::{audit_keys, audit_records};
pub use aws::{Aws, python_program};
pub use cable::Cable;
pub use captured::{CapturedRequest, CapturedRun};
pub use cli::Cli;
pub use crash_disk::CrashDisk;
pub use dice::{Dice, soak};
pub use endpoint::Endpoint;
pub use forward::Forward;
pub use git_server::GitServer;
pub use node::{Node, WorkerKind, register_agent, register_at_terminal};
pub use process::{Finished, is_root, kill_process, run, skipped};
pub use raw_http::{RawResponse, raw_request};
pub use recording::Recording;
pub use reserved_port::ReservedPort;
pub use running::Running;
pub use s3_server::S3Server;
pub use simulated::SimulatedFleet;
pub use site::{Site, finished, send_script};
pub use ssh_server::SshServer;
pub use stock_agent::{NodeIdentity, StockAgent, StockChannel};
pub use stock_process::StockProcess;
pub use terminal::Terminal;
pub use wait::{PATIENCE, epoch, wait_for, wait_until};
