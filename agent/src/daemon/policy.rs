//! `moorline-agent policy`: what the owner's policy says, and what it would say about a command or a session.

use std::{
    io::Write,
    net::IpAddr,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{ArgGroup, Args, Subcommand};
use moorline_protocol::{
    document::{Digest, SessionType},
    signed_command::Purpose,
};
use serde_json::Value;

use crate::{
    command,
    config::Config,
    policy::{Asked, Destination, Facts, Policy, Verdict, unix_seconds},
};

/// The policy cannot be decided on what was said.
const EXIT_UNDECIDED: u8 = 2;

#[derive(Args)]
pub(super) struct PolicyArguments {
    #[command(subcommand)]
    verb: PolicyVerb,
    /// Directory of the registration, where settings may be
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/var/lib/moorline",
        global = true,
        display_order = 100
    )]
    state_dir: PathBuf,
    /// Settings file [default: agent.toml in the state directory, else /etc/moorline/agent.toml]
    #[arg(long, value_name = "FILE", global = true, display_order = 101)]
    config: Option<PathBuf>,
}

#[derive(Subcommand)]
enum PolicyVerb {
    /// Show the rules in the order in which they are asked, and the fingerprint that the endpoint is told
    Show,
    /// Say what would become of a command or a session, and by which rule; exit code 0 allowed, 1 refused, 2 undecided
    Check(CheckArguments),
    /// Show the digest by which rules know a document, however it is written down
    Digest {
        /// Document in JSON or YAML, or - for standard input
        #[arg(value_name = "FILE|-")]
        document: PathBuf,
    },
}

#[derive(Args)]
#[command(group = ArgGroup::new("what").args(["document", "session_type"]).required(true).multiple(true))]
struct CheckArguments {
    /// Document in JSON or YAML, or - for standard input
    #[arg(long, value_name = "FILE|-")]
    document: Option<PathBuf>,
    /// The name by which the document would come [default: none]
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    name: String,
    /// Parameters: a map in JSON or YAML, or NAME=VALUE; may be repeated
    #[arg(long, value_name = "MAP|NAME=VALUE")]
    parameters: Vec<String>,
    /// ARN of who would send it [default: nobody is known]
    #[arg(long, value_name = "ARN")]
    operator: Option<String>,
    /// The signer of this policy who would have signed it [default: nobody]
    #[arg(long, value_name = "SIGNER")]
    signed_by: Option<String>,
    /// Ask about a session: Standard_Stream, InteractiveCommands, NonInteractiveCommands or Port
    #[arg(long, value_name = "TYPE", value_parser = session_type)]
    session_type: Option<SessionType>,
    /// Whose shell it would be
    #[arg(long, value_name = "USER", requires = "session_type")]
    user: Option<String>,
    /// Where a Port session would lead [default: this node]
    #[arg(
        long,
        value_name = "HOST",
        requires = "port",
        default_value = "",
        hide_default_value = true
    )]
    host: String,
    /// And to which port
    #[arg(
        long,
        value_name = "PORT",
        requires = "session_type",
        required_if_eq("session_type", "Port")
    )]
    port: Option<u16>,
}

fn session_type(text: &str) -> Result<SessionType, String> {
    SessionType::from_name(text).ok_or_else(|| {
        "it is none of Standard_Stream, InteractiveCommands, NonInteractiveCommands and Port".to_owned()
    })
}

/// Answers on standard output.
///
/// # Errors
/// The settings, the policy or a document cannot be read.
pub(super) fn execute(arguments: &PolicyArguments) -> anyhow::Result<ExitCode> {
    match &arguments.verb {
        PolicyVerb::Show => {
            say(&arguments.load()?.text())?;
            Ok(ExitCode::SUCCESS)
        }
        PolicyVerb::Check(question) => check(question, &arguments.load()?),
        PolicyVerb::Digest { document } => {
            say(&format!("{}\n", Digest::of(&command::document(document)?)))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

impl PolicyArguments {
    fn load(&self) -> anyhow::Result<Policy> {
        let config = Config::load(self.config.as_deref(), &self.state_dir)?;
        Ok(Policy::load(&config.policy.folder)?)
    }
}

fn check(arguments: &CheckArguments, policy: &Policy) -> anyhow::Result<ExitCode> {
    let verdict = match (arguments.session_type, &arguments.document) {
        (Some(session_type), document) => {
            let content = match document {
                Some(path) => command::document(path)?,
                None => Value::Null,
            };
            let signer = arguments.signed_by.as_deref();
            match policy.check_signer(Purpose::Session, signer, &arguments.name) {
                Ok(()) => policy.judge(&arguments.session(session_type, &content), unix_seconds()),
                Err(refusal) => refusal.into(),
            }
        }
        (None, document) => {
            let question = command::Question {
                document: document.as_deref().unwrap_or_else(|| Path::new("-")),
                name: &arguments.name,
                parameters: &arguments.parameters,
                operator: arguments.operator.as_deref(),
                signed_by: arguments.signed_by.as_deref(),
            };
            command::explain_command(&question, policy)?
        }
    };
    let (word, by, code) = match verdict {
        Verdict::Allowed(grant) => ("allowed", grant.to_string(), ExitCode::SUCCESS),
        Verdict::Refused(by) => ("refused", by.to_string(), ExitCode::FAILURE),
        Verdict::Undecided(by) => ("undecided", by.to_string(), ExitCode::from(EXIT_UNDECIDED)),
    };
    say(&format!("{word}: {by}\n"))?;
    Ok(code)
}

impl CheckArguments {
    fn session<'a>(&'a self, session_type: SessionType, content: &Value) -> Facts<'a> {
        let asked = match session_type {
            SessionType::Port => Asked::Port(Destination {
                host: &self.host,
                address: match self.host.as_str() {
                    "" => Some(IpAddr::from([127, 0, 0, 1])),
                    host => host.parse().ok(),
                },
                port: self.port.unwrap_or_default(),
            }),
            _ => Asked::Program {
                session_type,
                user: self.user.as_deref(),
            },
        };
        Facts {
            document: &self.name,
            digest: Digest::of(content),
            operator: self.operator.as_deref(),
            asked,
        }
    }
}

fn say(text: &str) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}
