//! What runs in a session: a real login shell, or the commands of the session document.

use std::{
    ffi::{OsStr, OsString},
    path::PathBuf,
};

use moorline_protocol::document::{SessionPlan, SessionType, member};
use serde_json::{Map, Value};

use super::{environment::Environment, login::LoginUser};

/// Why there is nothing to run.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ProgramError {
    #[error("the session document has no commands for Linux (properties.linux.commands)")]
    NoCommands,
    #[error("a quote in the command is not closed, or its last character is a backslash")]
    UnclosedQuote,
    #[error(
        "{0} must have at most {MAX_PREFIX_CHARS} characters of 0-9 a-z A-Z _ : - carriage return and newline"
    )]
    Prefix(&'static str),
}

/// Longest text in front of a piece of output. A piece has room for it in the smallest payload.
const MAX_PREFIX_CHARS: usize = 30;

/// Standard output and standard error told apart, each with a text that its pieces begin with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Separation {
    pub(super) stdout_prefix: String,
    pub(super) stderr_prefix: String,
}

/// What a plan wants to be run, before it is known for whom.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    LoginShell,
    Commands {
        text: String,
        elevated: bool,
    },
    /// One program with its arguments, on pipes and without a shell.
    Words {
        words: Vec<String>,
        elevated: bool,
        separation: Option<Separation>,
    },
}

impl Wanted {
    /// `None`: nothing is run in a port session.
    ///
    /// # Errors
    /// The document's commands cannot be run.
    pub(super) fn from_plan(plan: &SessionPlan) -> Result<Option<Self>, ProgramError> {
        match plan.session_type {
            SessionType::StandardStream => Ok(Some(Self::LoginShell)),
            SessionType::InteractiveCommands => Self::commands(&plan.properties).map(Some),
            SessionType::NonInteractiveCommands => Self::words(&plan.properties).map(Some),
            SessionType::Port => Ok(None),
        }
    }

    fn commands(properties: &Value) -> Result<Self, ProgramError> {
        let linux = linux(properties)?;
        Ok(Self::Commands {
            text: command_text(linux)?,
            elevated: is_on(linux, "runAsElevated"),
        })
    }

    /// Split as a shell would, and not run by one: what a parameter inserts can add words, and no second command.
    fn words(properties: &Value) -> Result<Self, ProgramError> {
        let linux = linux(properties)?;
        let words = shlex::split(&command_text(linux)?).ok_or(ProgramError::UnclosedQuote)?;
        if words.is_empty() {
            return Err(ProgramError::NoCommands);
        }
        let separation = Separation {
            stdout_prefix: prefix(linux, "stdoutSeparatorPrefix")?,
            stderr_prefix: prefix(linux, "stderrSeparatorPrefix")?,
        };
        Ok(Self::Words {
            words,
            elevated: is_on(linux, "runAsElevated"),
            separation: is_on(linux, "separateOutputStream").then_some(separation),
        })
    }

    pub(super) fn is_elevated(&self) -> bool {
        matches!(
            self,
            Self::Commands { elevated: true, .. } | Self::Words { elevated: true, .. }
        )
    }

    /// As the recording names it: a shell, or the document whose commands it runs. These may hold secrets.
    pub(super) fn shown(&self, user: &LoginUser, document_name: &str) -> String {
        match self {
            Self::LoginShell => user.shell.to_string_lossy().into_owned(),
            Self::Commands { .. } | Self::Words { .. } => document_name.to_owned(),
        }
    }
}

fn linux(properties: &Value) -> Result<&Map<String, Value>, ProgramError> {
    properties
        .as_object()
        .and_then(|properties| member(properties, "linux"))
        .and_then(Value::as_object)
        .ok_or(ProgramError::NoCommands)
}

/// A text, or a list of lines.
fn command_text(linux: &Map<String, Value>) -> Result<String, ProgramError> {
    let text = match member(linux, "commands") {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(lines)) => {
            let lines: Vec<&str> = lines.iter().filter_map(Value::as_str).collect();
            lines.join("\n")
        }
        _ => String::new(),
    };
    if text.trim().is_empty() {
        return Err(ProgramError::NoCommands);
    }
    Ok(text)
}

/// Whether this is the name of a command and words in which nothing but quotes means anything to a shell.
fn is_one_command(text: &str) -> bool {
    let is_plain = |c: char| c.is_alphanumeric() || "_@%+:,./-".contains(c);
    let (name, words) = text.split_once(' ').unwrap_or((text, ""));
    !name.is_empty()
        && name.chars().all(is_plain)
        && words.chars().all(|c| is_plain(c) || " '\"=".contains(c))
}

/// A boolean, or its text as it comes from a parameter.
fn is_on(linux: &Map<String, Value>, name: &str) -> bool {
    match member(linux, name) {
        Some(Value::Bool(is_on)) => *is_on,
        Some(Value::String(text)) => text.eq_ignore_ascii_case("true"),
        _ => false,
    }
}

fn prefix(linux: &Map<String, Value>, name: &'static str) -> Result<String, ProgramError> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '\r' | '\n' | '_' | ':' | '-');
    match member(linux, name) {
        None | Some(Value::Null) => Ok(String::new()),
        Some(Value::String(text)) if text.len() <= MAX_PREFIX_CHARS && text.chars().all(is_allowed) => {
            Ok(text.clone())
        }
        Some(_) => Err(ProgramError::Prefix(name)),
    }
}

/// Runs what it reads from its standard input, and from then on has the terminal as its standard input: commands may
/// have secrets among their parameters, and everybody on the machine can read arguments. The shell keeps neither a
/// descriptor nor a variable of it.
const RUN_INPUT: &str = r#"set -- "$(cat)"; exec <&1; eval "shift;$1""#;
/// The same for one command. A program (no builtin) takes the shell's place, as with `sh -c COMMAND`: a shell that
/// waits ends by the Ctrl-C that its program lives through, and the exit code would be the shell's.
const RUN_ONE: &str = concat!(
    r#"set -- "$(cat)"; exec <&1; "#,
    r#"case $(command -v "${1%% *}") in /*) eval "shift;exec $1";; *) eval "shift;$1";; esac"#
);

/// A program, ready to be executed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Program {
    pub(super) path: PathBuf,
    /// Its name for itself; a leading `-` makes a shell a login shell.
    pub(super) name: OsString,
    pub(super) arguments: Vec<OsString>,
    /// What it finds at its standard input instead of the terminal.
    pub(super) input: Option<String>,
    pub(super) environment: Environment,
}

impl Program {
    pub(super) fn new(wanted: &Wanted, user: &LoginUser, environment: Environment) -> Self {
        match wanted {
            Wanted::LoginShell => {
                let mut name = OsString::from("-");
                name.push(user.shell.file_name().unwrap_or_else(|| OsStr::new("sh")));
                Self {
                    path: user.shell.clone(),
                    name,
                    arguments: Vec::new(),
                    input: None,
                    environment,
                }
            }
            Wanted::Commands { text, .. } => Self {
                path: PathBuf::from("/bin/sh"),
                name: OsString::from("sh"),
                arguments: vec![
                    OsString::from("-c"),
                    OsString::from(if is_one_command(text) { RUN_ONE } else { RUN_INPUT }),
                ],
                input: Some(text.clone()),
                environment,
            },
            Wanted::Words { words, .. } => {
                let mut words = words.iter().map(OsString::from);
                let name = words.next().unwrap_or_default();
                Self {
                    path: PathBuf::from(&name),
                    name,
                    arguments: words.collect(),
                    input: None,
                    environment,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use moorline_protocol::document::SessionDocument;
    use nix::unistd::{Gid, Uid};
    use serde_json::json;

    use super::*;

    fn user(uid: u32) -> LoginUser {
        LoginUser {
            name: "ops".to_owned(),
            uid: Uid::from_raw(uid),
            gid: Gid::from_raw(uid),
            home: PathBuf::from("/srv/ops"),
            shell: PathBuf::from("/usr/bin/zsh"),
            groups: None,
        }
    }

    fn wanted(document: Value) -> Result<Wanted, ProgramError> {
        planned(&document).map(Option::unwrap)
    }

    fn planned(document: &Value) -> Result<Option<Wanted>, ProgramError> {
        let plan = SessionDocument::parse(document).unwrap().plan(&Map::new());
        Wanted::from_plan(&plan.unwrap())
    }

    #[test]
    fn a_shell_session_runs_the_users_own_shell_as_login_shell() {
        let wanted = wanted(json!({"schemaVersion": "1.0", "sessionType": "Standard_Stream"})).unwrap();
        let program = Program::new(&wanted, &user(1000), Environment::default());
        assert_eq!(program.path, PathBuf::from("/usr/bin/zsh"));
        assert_eq!(program.name, "-zsh");
        assert_eq!(wanted.shown(&user(1000), "Mine"), "/usr/bin/zsh");
    }

    #[test]
    fn commands_come_as_text_or_as_lines() {
        let document = |commands: Value| {
            json!({"schemaVersion": "1.0", "sessionType": "InteractiveCommands",
                   "properties": {"Linux": {"commands": commands, "runAsElevated": "true"}}})
        };
        let expected = |text: &str| {
            Ok(Wanted::Commands {
                text: text.to_owned(),
                elevated: true,
            })
        };
        assert_eq!(wanted(document(json!("top"))), expected("top"));
        assert_eq!(wanted(document(json!(["cd /", "ls"]))), expected("cd /\nls"));
        assert_eq!(wanted(document(json!(" "))), Err(ProgramError::NoCommands));
        let program = Program::new(&expected("top -b").unwrap(), &user(0), Environment::default());
        assert_eq!(expected("top -b").unwrap().shown(&user(0), "Mine"), "Mine");
        assert_eq!(program.input.as_deref(), Some("top -b"));
        assert!(
            program
                .arguments
                .iter()
                .all(|argument| !argument.to_string_lossy().contains("top"))
        );
    }

    #[test]
    fn a_port_session_runs_nothing() {
        let document = json!({"schemaVersion": "1.0", "sessionType": "Port"});
        assert_eq!(planned(&document), Ok(None));
    }

    #[test]
    fn one_command_is_told_from_what_needs_a_shell() {
        for text in [
            "top",
            "python3 -i",
            "passwd jo@é",
            "env A=b '' \"a b\"",
            "/bin/ls /",
        ] {
            assert!(is_one_command(text), "{text}");
        }
        for text in [
            "A=b env",
            " ls",
            "",
            "ls;id",
            "ls\nid",
            "ls | wc",
            "echo $HOME",
            "echo `id`",
            "ls *",
            "a\\ b",
            "{ ls",
            "! ls",
            "'ls' /",
            "echo ~",
            "ls > x",
            "ls &",
            "echo a # b",
        ] {
            assert!(!is_one_command(text), "{text}");
        }
    }

    fn without_shell(linux: &Value) -> Result<Wanted, ProgramError> {
        wanted(
            json!({"schemaVersion": "1.0", "sessionType": "NonInteractiveCommands",
                      "properties": {"LINUX": linux}}),
        )
    }

    #[test]
    fn a_command_without_a_terminal_is_split_as_a_shell_would_and_run_without_one() {
        let command = r#"printf '%s|' "a  b" c\ d '$HOME;id' e'f'"g" "" # not this"#;
        let wanted = without_shell(&json!({ "commands": command })).unwrap();
        let program = Program::new(&wanted, &user(0), Environment::default());
        assert_eq!(program.path, PathBuf::from("printf"));
        assert_eq!(
            program.arguments,
            ["%s|", "a  b", "c d", "$HOME;id", "efg", ""].map(OsString::from)
        );
        assert_eq!((program.input, wanted.is_elevated()), (None, false));
        assert_eq!(wanted.shown(&user(0), "Mine"), "Mine");
        for (commands, error) in [
            (json!("echo 'a"), ProgramError::UnclosedQuote),
            (json!("echo a\\"), ProgramError::UnclosedQuote),
            (json!("# nothing"), ProgramError::NoCommands),
            (json!([]), ProgramError::NoCommands),
        ] {
            assert_eq!(
                without_shell(&json!({ "commands": commands })),
                Err(error),
                "{commands}"
            );
        }
    }

    #[test]
    fn outputs_are_told_apart_when_the_document_says_so_whatever_the_case_of_its_names() {
        let separation = |linux: &Value| match without_shell(linux)? {
            Wanted::Words { separation, .. } => Ok(separation),
            other => panic!("{other:?}"),
        };
        let both = Separation {
            stdout_prefix: "O:\n".to_owned(),
            stderr_prefix: "E-_".to_owned(),
        };
        for is_on in [json!(true), json!("true"), json!("True")] {
            let linux = json!({"Commands": "id", "SeparateOutputStream": is_on,
                               "stdOutSeparatorPrefix": "O:\n", "STDERRSEPARATORPREFIX": "E-_"});
            assert_eq!(separation(&linux), Ok(Some(both.clone())));
        }
        for is_off in [json!(false), json!("false"), json!(""), json!(null)] {
            let linux = json!({"commands": "id", "separateOutputStream": is_off});
            assert_eq!(separation(&linux), Ok(None));
        }
        for bad in [json!("a b"), json!("x".repeat(31)), json!("é"), json!(1)] {
            let linux = json!({"commands": "id", "stderrSeparatorPrefix": bad});
            assert_eq!(
                separation(&linux),
                Err(ProgramError::Prefix("stderrSeparatorPrefix"))
            );
        }
    }
}
