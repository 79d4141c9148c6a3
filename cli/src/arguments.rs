//! What may be typed.

mod transcript;

use std::{path::PathBuf, time::Duration};

use clap::{ArgGroup, Args, Parser, Subcommand};
use moorline_ssm::command::Target;

pub(crate) use self::transcript::{
    HoldOptions, Recording, TranscriptCommand, TranscriptFilter, TranscriptKind, TranscriptState, Which,
};

use crate::{
    audit::AuditOptions,
    documents::{DocumentCommand, PackageCommand},
    forward::Spec,
    group::GroupCommand,
    parameters::ParameterCommand,
    rollout::RolloutOptions,
    sign::{KeyCommand, SessionSignOptions, SignOptions},
};

/// Operates managed nodes: finds them, runs documents on them, opens recorded shells.
///
/// The endpoint and the access key come from the environment: `. STATE_DIR/admin.env` of the control endpoint sets
/// them. AWS_ENDPOINT_URL, AWS_DEFAULT_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN,
/// AWS_CA_BUNDLE and AWS_PROFILE mean what they mean to the AWS CLI.
#[derive(Debug, Parser)]
#[command(name = "moorline", version, max_term_width = 100)]
pub(crate) struct Arguments {
    /// Take the access key from this profile of the shared credentials file
    #[arg(long, global = true, value_name = "NAME", display_order = 100)]
    pub(crate) profile: Option<String>,
    /// Print JSON for programs
    #[arg(long, global = true, display_order = 101)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make, list and delete activations, with which nodes register
    Activation {
        #[command(subcommand)]
        command: ActivationCommand,
    },
    /// List the managed nodes
    Nodes(NodesOptions),
    /// Run a command or a document on nodes, and show what comes out
    ///
    /// One COMMAND word is a line of a shell script, taken as it is; several words are one command with its
    /// arguments, quoted for the shell. Exit code: 0 when it succeeded everywhere, 1 when it failed on any node or
    /// there was none, 3 when a roll-out in waves was halted, 130 when it was cancelled by Ctrl-C.
    Run(Box<RunOptions>),
    /// Cancel a command on all its nodes, or on some
    ///
    /// What has not begun does not begin, what runs is ended, and this waits until it is seen to have ended; Ctrl-C
    /// leaves at once. What had ended before stays as it is. Exit code: 0 when it has ended on all of these nodes, now or
    /// before; 1 when it was not cancelled; 130 after Ctrl-C.
    Cancel(CancelOptions),
    /// Tell why a command ran on a node, or did not
    Explain {
        /// The command's id
        #[arg(value_name = "COMMAND-ID")]
        command: String,
        /// The node, by its id or by a name that only one node has
        node: String,
    },
    /// Show all that a command put out on a node
    ///
    /// It comes from the node's recording of the command, with both outputs apart. Bytes that are no UTF-8 are shown as
    /// U+FFFD. Exit code: 0, or 1 when some of the output is missing.
    Output(OutputOptions),
    /// Open a recorded shell on a node, or run one recorded command
    ///
    /// At the start of a line, `~.` ends the session, `~d` leaves it running for `moorline attach`, and `~?` shows what else there is. Without a terminal, standard
    /// input is sent to the shell. A command after `--` gets a terminal when this program has one; otherwise its
    /// standard output and standard error stay apart, and nothing is read from standard input. One COMMAND word is a
    /// line of a shell script, taken as it is; several words are one command with its arguments. Exit code: that of
    /// the shell or command, or 255 when there was no session.
    Shell(ShellOptions),
    /// Forward a local port or Unix socket to a port of a node, or of a host that the node reaches
    ///
    /// Local programs connect to LOCAL, up to 512 at once. It serves until Ctrl-C. Exit code: 0 after Ctrl-C, 255
    /// when there was no session or it broke.
    Forward(ForwardOptions),
    /// Carry one SSH connection on standard input and output: ssh's ProxyCommand
    SshProxy(SshProxyOptions),
    /// Go on with a session that is open, in this terminal
    ///
    /// Shows what was there last and takes the session from the client that has it, wherever that is, or was: `~d` at
    /// the start of a line leaves a session that way, and so does a client that was killed or lost its network. Exit
    /// code: as of `moorline shell`.
    Attach {
        /// Its id, or what only its id begins with [default: your only open one]
        session: Option<String>,
    },
    /// Watch a session live: see and touch nothing
    ///
    /// Any number may watch. Shows the last screens and then what the session's user sees. Ctrl-C leaves.
    Watch {
        /// Its id, or what only its id begins with [default: your only open one]
        session: Option<String>,
        /// Pass on everything that the program writes, also what sets the clipboard or makes the terminal answer
        #[arg(long)]
        raw: bool,
    },
    /// List sessions: the open ones, or with --history the ended ones
    Sessions(SessionsOptions),
    /// End a session of anybody, whose user is told by whom
    ///
    /// Exit code: 0 when it has ended, now or before, and 1 when it was not ended.
    Terminate {
        /// Its id, or what only its id begins with
        session: String,
    },
    /// Show the audit log: who did what, from where, on which node, and how it went
    ///
    /// Repeated reads and refusals are counted: one record at first, and one a minute with their number.
    Audit(Box<AuditOptions>),
    /// Read, keep, verify and delete the recordings of sessions and commands
    Transcript {
        #[command(subcommand)]
        command: TranscriptCommand,
    },
    /// Name groups of nodes by their tags
    Group {
        #[command(subcommand)]
        command: GroupCommand,
    },
    /// Change and list the tags of a node
    Tag {
        #[command(subcommand)]
        command: TagCommand,
    },
    /// List operators, and change their tags: SSMSessionRunAs is the user on nodes that their sessions run as
    Operator {
        #[command(subcommand)]
        command: OperatorCommand,
    },
    /// Keep values for documents and scripts, secret ones sealed: Parameter Store
    Parameter {
        #[command(subcommand)]
        command: ParameterCommand,
    },
    /// Make, list and delete documents, and tell what is wrong with one
    Document {
        #[command(subcommand)]
        command: DocumentCommand,
    },
    /// Make packages, which nodes install
    Package {
        #[command(subcommand)]
        command: PackageCommand,
    },
    /// Make a key to sign commands and sessions with
    Key {
        #[command(subcommand)]
        command: KeyCommand,
    },
    /// Let the AWS CLI open sessions through this program: makes the symbolic link session-manager-plugin
    InstallPlugin {
        /// A directory that is there and in PATH [default: the one of this program]
        directory: Option<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ActivationCommand {
    /// Make an activation
    Create(ActivationOptions),
    /// List the activations
    List,
    /// Delete an activation: nodes that registered with it stay
    Delete {
        /// As `moorline activation list` shows it
        #[arg(value_name = "ACTIVATION-ID")]
        activation_id: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct ActivationOptions {
    /// A tag for the nodes that register with it; may be repeated
    #[arg(long = "tag", value_name = "K=V", value_parser = parse_pair)]
    pub(crate) tags: Vec<(String, String)>,
    /// How many nodes may register with it
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(i32).range(1..=1000))]
    pub(crate) limit: i32,
    /// How long it is valid: a number and s, m, h, d or w
    #[arg(long, default_value = "24h", value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) expires: Duration,
    /// The name of the nodes that register with it
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// A note on what it is for
    #[arg(long, value_name = "TEXT")]
    pub(crate) description: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct NodesOptions {
    /// Only nodes with this tag; may be repeated
    #[arg(long = "tag", value_name = "K=V", value_parser = parse_pair)]
    pub(crate) tags: Vec<(String, String)>,
    /// Do not ask for the tags of each node: faster for large fleets
    #[arg(long)]
    pub(crate) no_tags: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CancelOptions {
    /// The command's id
    #[arg(value_name = "COMMAND-ID")]
    pub(crate) command: String,
    /// Only on these nodes, by their ids or by names that only one node has
    #[arg(value_name = "NODE")]
    pub(crate) nodes: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct OutputOptions {
    /// The command's id
    #[arg(value_name = "COMMAND-ID")]
    pub(crate) command: String,
    /// The node, by its id or by a name that only one node has; needed where the command was sent to several
    pub(crate) node: Option<String>,
    /// Only what this step put out
    #[arg(long, value_name = "NAME")]
    pub(crate) step: Option<String>,
    /// While the command runs, go on with what comes
    #[arg(long)]
    pub(crate) follow: bool,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("which").args(["nodes", "tags", "targets"]).required(true).multiple(true))]
pub(crate) struct RunOptions {
    /// A node, by its id or by a name that only one node has; may be repeated
    #[arg(long = "node", value_name = "NODE", conflicts_with_all = ["tags", "targets"])]
    pub(crate) nodes: Vec<String>,
    /// All nodes with this tag; may be repeated: of several values of one key any fits, of several keys all must
    #[arg(long = "tag", value_name = "K=V", value_parser = parse_pair)]
    pub(crate) tags: Vec<(String, String)>,
    /// All nodes that this target has: tag:K=V,V, tag-key=K,K, InstanceIds=ID,ID or resource-groups:Name=GROUP; may be
    /// repeated: of several targets all must fit
    #[arg(long = "targets", value_name = "TARGET", value_parser = crate::run::parse_target)]
    pub(crate) targets: Vec<Target>,
    /// The document to run
    #[arg(long, value_name = "NAME", default_value = "AWS-RunShellScript")]
    pub(crate) document: String,
    /// A parameter of the document; repeated, its values make a list
    #[arg(long = "param", value_name = "K=V", value_parser = parse_pair)]
    pub(crate) parameters: Vec<(String, String)>,
    /// Stop the command on a node after this long, at least 5 s: the document's parameter executionTimeout [default:
    /// the document's]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(5..=172_800))]
    pub(crate) timeout: Option<u32>,
    /// Have the command on its way to at most so many nodes at the same time: a number, or a share such as 10%
    #[arg(long, value_name = "N", default_value = "50")]
    pub(crate) max_concurrency: String,
    /// Send it to no further node after more errors than this: a number, or a share such as 10%
    #[arg(long, value_name = "N", default_value = "0")]
    pub(crate) max_errors: String,
    /// Give up on a node that has not taken the command within this time [default: 3600]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(i32).range(30..=2_592_000))]
    pub(crate) delivery_timeout: Option<i32>,
    /// A note, kept with the command
    #[arg(long, value_name = "TEXT")]
    pub(crate) comment: Option<String>,
    /// Have the endpoint bring each step's output to this S3 bucket as well
    #[arg(long, value_name = "BUCKET")]
    pub(crate) output_bucket: Option<String>,
    /// What the names of the objects in the bucket begin with
    #[arg(long, value_name = "PREFIX", requires = "output_bucket")]
    pub(crate) output_prefix: Option<String>,
    /// The bucket's region [default: the one of the endpoint's store]
    #[arg(long, value_name = "REGION", requires = "output_bucket")]
    pub(crate) output_region: Option<String>,
    /// Print the command's id and do not wait for it
    #[arg(long)]
    pub(crate) detach: bool,
    #[command(flatten)]
    pub(crate) sign: SignOptions,
    #[command(flatten)]
    pub(crate) rollout: RolloutOptions,
    /// What to run
    #[arg(trailing_var_arg = true)]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ShellOptions {
    /// The node, by its id or by a name that only one node has
    pub(crate) node: String,
    /// The session document [default: the preferences, SSM-SessionManagerRunShell]
    #[arg(long, value_name = "NAME")]
    pub(crate) document: Option<String>,
    /// A parameter of the document; repeated, its values make a list
    #[arg(long = "param", value_name = "K=V", value_parser = parse_pair)]
    pub(crate) parameters: Vec<(String, String)>,
    /// Why, for the record
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
    #[command(flatten)]
    pub(crate) sign: SessionSignOptions,
    /// What to run instead of a shell
    #[arg(last = true, conflicts_with_all = ["document", "parameters"])]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ForwardOptions {
    /// The node, by its id or by a name that only one node has
    pub(crate) node: String,
    /// LOCAL:PORT or LOCAL:HOST:PORT; LOCAL is a port (0 is any free one) of the loopback addresses, ADDRESS:PORT,
    /// or the path of a Unix socket
    #[arg(value_name = "LOCAL:[HOST:]PORT", value_parser = Spec::parse)]
    pub(crate) spec: Spec,
    /// Why, for the record
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
    #[command(flatten)]
    pub(crate) sign: SessionSignOptions,
}

#[derive(Debug, Args)]
pub(crate) struct SshProxyOptions {
    /// The node, by its id or by a name that only one node has
    pub(crate) node: String,
    /// The port of the SSH server on the node
    #[arg(default_value_t = 22, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: u16,
    /// Why, for the record
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
    #[command(flatten)]
    pub(crate) sign: SessionSignOptions,
}

#[derive(Debug, Args)]
pub(crate) struct SessionsOptions {
    /// Sessions that have ended, newest first
    #[arg(long)]
    pub(crate) history: bool,
    /// Only those on this node
    #[arg(long, value_name = "NODE")]
    pub(crate) node: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TagCommand {
    /// Set tags of a node
    Add {
        /// The node, by its id or by a name that only one node has
        node: String,
        /// Key and value
        #[arg(required = true, value_name = "K=V", value_parser = parse_pair)]
        tags: Vec<(String, String)>,
    },
    /// Remove tags of a node
    Remove {
        /// The node, by its id or by a name that only one node has
        node: String,
        /// The keys of the tags
        #[arg(required = true, value_name = "K")]
        keys: Vec<String>,
    },
    /// List the tags of a node
    List {
        /// The node, by its id or by a name that only one node has
        node: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum OperatorCommand {
    /// List the operators, with their access keys and tags
    List,
    /// Set tags of an operator
    Tag {
        /// As `moorline operator list` shows it
        #[arg(value_name = "OPERATOR")]
        name: String,
        /// Key and value
        #[arg(required = true, value_name = "K=V", value_parser = parse_pair)]
        tags: Vec<(String, String)>,
    },
    /// Remove tags of an operator
    Untag {
        /// As `moorline operator list` shows it
        #[arg(value_name = "OPERATOR")]
        name: String,
        /// The keys of the tags
        #[arg(required = true, value_name = "K")]
        keys: Vec<String>,
    },
}

/// `K=V`; the value may hold further equal signs or be empty.
pub(crate) fn parse_pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("it must have the form KEY=VALUE".to_owned()),
    }
}

/// A number and a unit.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || "it must be a number and one of s, m, h, d, w, such as 24h".to_owned();
    let unit = text.chars().last().ok_or_else(wrong)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        'w' => 604_800,
        _ => return Err(wrong()),
    };
    let number: u32 = text
        .strip_suffix(unit)
        .and_then(|number| number.parse().ok())
        .filter(|number| *number > 0)
        .ok_or_else(wrong)?;
    Ok(Duration::from_secs(u64::from(number) * seconds))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definitions_are_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_command_line_of_the_documentation_is_one() {
        let refused = crate::documentation::refused(&Arguments::command());
        assert!(refused.is_empty(), "{}", refused.join("\n"));
    }

    #[test]
    fn everything_after_the_first_word_of_a_command_belongs_to_it() {
        let run = |words: &[&str]| {
            let words = ["moorline", "run", "--node", "mi-1"].iter().chain(words);
            match Arguments::try_parse_from(words).map(|a| (a.json, a.command)) {
                Ok((json, Command::Run(options))) => Some((json, options.command.clone())),
                _ => None,
            }
        };
        let owned = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        assert_eq!(
            run(&["uname", "-a", "--json"]),
            Some((false, owned(&["uname", "-a", "--json"])))
        );
        assert_eq!(
            run(&["--json", "--", "ls", "-l"]),
            Some((true, owned(&["ls", "-l"])))
        );
        assert_eq!(run(&["--bogus"]), None);
    }

    #[test]
    fn a_command_of_a_session_stands_behind_two_dashes_and_needs_no_document() {
        let shell = |words: &[&str]| {
            let words = ["moorline", "shell", "mi-1"].iter().chain(words);
            match Arguments::try_parse_from(words).map(|arguments| arguments.command) {
                Ok(Command::Shell(options)) => Some(options.command),
                _ => None,
            }
        };
        assert_eq!(shell(&[]), Some(Vec::new()));
        assert_eq!(
            shell(&["--", "ls", "--json"]),
            Some(vec!["ls".to_owned(), "--json".to_owned()])
        );
        assert_eq!(shell(&["ls"]), None);
        assert_eq!(shell(&["--document", "D", "--", "ls"]), None);
    }

    #[test]
    fn every_command_and_value_is_explained_and_has_its_unit() {
        let unexplained = crate::documentation::unexplained(&Arguments::command());
        assert!(unexplained.is_empty(), "{}", unexplained.join("\n"));
    }

    #[test]
    fn what_a_list_shows_can_be_typed_as_a_filter() {
        for words in [
            ["transcript", "list", "--kind", "Session"],
            ["transcript", "list", "--state", "Complete"],
            ["document", "lint", "--type=Package", "FILE"],
        ] {
            let parsed = Arguments::try_parse_from(["moorline"].iter().chain(&words));
            assert!(parsed.is_ok(), "{words:?}");
        }
    }

    #[test]
    fn nodes_are_named_or_found_by_tag_but_not_both() {
        let parses =
            |words: &[&str]| Arguments::try_parse_from(["moorline", "run"].iter().chain(words)).is_ok();
        assert!(parses(&["--node", "a", "--node", "b", "true"]));
        assert!(parses(&["--tag", "a=b", "--", "true"]));
        assert!(!parses(&["true"]));
        assert!(!parses(&["--node", "a", "--tag", "a=b", "true"]));
        assert!(!parses(&["--tag", "ab", "true"]));
        let missing = Arguments::try_parse_from(["moorline", "run", "true"]).unwrap_err();
        assert!(
            missing
                .to_string()
                .contains("--node <NODE>|--tag <K=V>|--targets"),
            "{missing}"
        );
    }

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(parse_duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("24h"), Ok(Duration::from_secs(86_400)));
        assert_eq!(parse_duration("2w"), Ok(Duration::from_secs(1_209_600)));
        for bad in ["", "h", "0h", "24", "-1h", "1.5h", "1µ"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_pair_is_cut_at_its_first_equal_sign() {
        assert_eq!(parse_pair("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert_eq!(parse_pair("a="), Ok(("a".to_owned(), String::new())));
        assert!(parse_pair("=b").is_err());
        assert!(parse_pair("ab").is_err());
    }
}
