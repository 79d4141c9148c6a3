//! What must survive: processes killed at any moment, connections cut at any byte, disks that are full. Nothing is
//! lost, nothing happens twice.
//!
//! The random tests print their seed; `MOORLINE_SEED` repeats one, `MOORLINE_SOAK` multiplies the rounds.

mod agent_killed;
mod audit_log;
mod change_of_hands;
mod command_recording;
mod connection_cut;
mod disk_full;
mod endpoint_killed;
mod endpoint_power_cut;
mod lost_lines;
mod many_run_directories;
mod network_lost;
mod power_cut;
mod random;
mod recording_interrupted;
mod rollout;
mod sick_host;
mod unfinished_recording;
mod upgrade;
mod worker_killed;
