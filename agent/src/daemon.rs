//! The process: arguments, wiring, drain. No logic of its own.

/// Entry point of the binary.
pub(crate) fn main() -> std::process::ExitCode {
    todo!()
}
