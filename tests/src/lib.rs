//! The testkit.

pub mod fuzz;
