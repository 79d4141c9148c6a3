//! The process: arguments, wiring, drain. No logic of its own.

mod arguments;
mod control_channel;
mod health;
mod policy;
mod run;
mod status;
mod transcript_key;

pub(crate) use arguments::main;
