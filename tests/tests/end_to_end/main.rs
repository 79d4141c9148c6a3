//! The real programs together, used by real clients: ours, the AWS CLI, boto3, and a stock agent's half of captured
//! conversations.

mod activation;
mod attach;
mod audit;
mod aws_cli;
mod bad_input;
mod boto3;
mod command_documents;
mod documents;
mod encryption;
mod leave;
mod other_clients;
mod parameters;
mod port_forwarding;
mod port_forwarding_programs;
mod recording;
mod run_command;
mod session_documents;
mod session_processes;
mod shell;
mod shutdown;
mod ssh_proxy;
mod stock_agent;
mod stock_peers;
mod transcript;
mod users;
