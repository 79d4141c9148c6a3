//! The control endpoint: one binary, one TLS port.
//!
//! `api` holds the SSM operations, `gateway` the channels of nodes and sessions, `engine` decisions without HTTP or
//! SQL, `store` what is kept, `auth` who may do what, `audit` who did what, `server` the listener and the first start.

mod api;
mod app;
mod audit;
mod auth;
#[cfg(test)]
#[path = "../../tests/documentation/command_lines.rs"]
mod documentation;
mod engine;
mod gateway;
mod log_lines;
mod private_directory;
mod server;
mod store;
#[cfg(test)]
mod test_support;

fn main() -> std::process::ExitCode {
    server::main()
}
