//! The wire protocols of managed nodes and session clients: bytes and values in, bytes and values out.
//!
//! Nothing here does I/O, reads a clock or draws a random number; time and randomness are arguments. So the
//! same state machines run in the agent, the control endpoint, the CLI and in tests under virtual time.

pub mod audit;
pub mod channel;
pub mod document;
mod error_chain;
mod hex;
pub mod message;
pub mod mux;
pub mod package;
pub mod public_keys;
pub mod signed_command;
pub mod sigv4;
pub mod time;
pub mod transcript;
pub mod types;

pub use error_chain::error_chain;
