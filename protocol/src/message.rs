//! `AgentMessage`: the binary frame of control and data channels (agent-wire §5, client-wire §3), and the JSON
//! payloads that travel in it.
//!
//! A peer may send any bytes here: nothing below indexes or slices without a check.

#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

mod control;
mod data;
mod frame;

pub use control::*;
pub use data::*;
pub use frame::*;
