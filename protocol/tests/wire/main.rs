//! The public side of the crate against what a real agent sent, and two ends of a channel against a bad network.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod conversations;
mod frames;
mod lossy_link;
mod signatures;
mod throughput;
mod vectors;
