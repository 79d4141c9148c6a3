//! The public side of the crate against what a real agent sent, and two ends of a channel against a bad network.

mod conversations;
mod frames;
mod lossy_link;
mod signatures;
mod vectors;
