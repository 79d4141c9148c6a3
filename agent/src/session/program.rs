//! What runs in a session: a real login shell, or the commands of the session document, in a clean environment.
//!
//! Nothing of the agent's own environment gets into it, with the exception of the language: the stock agent hands
//! its whole environment to whoever opens a shell.

use std::{
    ffi::{OsStr, OsString},
    path::PathBuf,
};

use moorline_protocol::document::{SessionPlan, SessionType, member};
use serde_json::Value;

use super::login::LoginUser;

/// Why there is nothing to run.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ProgramError {
    #[error("session type {0} is not supported yet by this node")]
    UnsupportedType(&'static str),
    #[error("the session document has no commands for Linux (properties.linux.commands)")]
    NoCommands,
}

/// What a plan wants to be run, before it is known for whom.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    LoginShell,
    Commands { text: String, elevated: bool },
}

impl Wanted {
    /// # Errors
    /// This node cannot serve such a session.
    pub(super) fn from_plan(plan: &SessionPlan) -> Result<Self, ProgramError> {
        match plan.session_type {
            SessionType::StandardStream => Ok(Self::LoginShell),
            SessionType::InteractiveCommands => Self::commands(&plan.properties),
            SessionType::NonInteractiveCommands | SessionType::Port => {
                Err(ProgramError::UnsupportedType(plan.session_type.as_str()))
            }
        }
    }

    fn commands(properties: &Value) -> Result<Self, ProgramError> {
        let linux = properties
            .as_object()
            .and_then(|properties| member(properties, "linux"))
            .and_then(Value::as_object)
            .ok_or(ProgramError::NoCommands)?;
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
        let elevated = match member(linux, "runAsElevated") {
            Some(Value::Bool(elevated)) => *elevated,
            Some(Value::String(text)) => text.eq_ignore_ascii_case("true"),
            _ => false,
        };
        Ok(Self::Commands { text, elevated })
    }

    pub(super) fn is_elevated(&self) -> bool {
        matches!(self, Self::Commands { elevated: true, .. })
    }
}

/// Runs what it reads from its standard input, and from then on has the terminal as its standard input: commands may
/// have secrets among their parameters, and everybody on the machine can read arguments. The shell keeps neither a
/// descriptor nor a variable of it.
const RUN_INPUT: &str = r#"set -- "$(cat)"; exec <&1; eval "shift;$1""#;

/// A program, ready to be executed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Program {
    pub(super) path: PathBuf,
    /// Its name for itself; a leading `-` makes a shell a login shell.
    pub(super) name: OsString,
    pub(super) arguments: Vec<OsString>,
    /// What it finds at its standard input instead of the terminal.
    pub(super) input: Option<String>,
    pub(super) environment: Vec<(&'static str, OsString)>,
}

impl Program {
    /// `language` is the agent's own `LANG`, if it has one.
    pub(super) fn new(wanted: &Wanted, user: &LoginUser, language: Option<OsString>) -> Self {
        let environment = environment(user, language);
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
                arguments: vec![OsString::from("-c"), OsString::from(RUN_INPUT)],
                input: Some(text.clone()),
                environment,
            },
        }
    }

    /// As the recording names it: a shell, or the document whose commands it runs.
    pub(super) fn shown(&self, document_name: &str) -> String {
        match self.input {
            None => self.path.to_string_lossy().into_owned(),
            Some(_) => document_name.to_owned(),
        }
    }
}

fn environment(user: &LoginUser, language: Option<OsString>) -> Vec<(&'static str, OsString)> {
    let path = if user.uid.is_root() {
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    } else {
        "/usr/local/bin:/usr/bin:/bin"
    };
    let language = language.filter(|language| !language.is_empty());
    vec![
        ("HOME", user.home.clone().into()),
        ("LANG", language.unwrap_or_else(|| OsString::from("C.UTF-8"))),
        ("LOGNAME", OsString::from(&user.name)),
        ("PATH", OsString::from(path)),
        ("SHELL", user.shell.clone().into()),
        ("TERM", OsString::from("xterm-256color")),
        ("USER", OsString::from(&user.name)),
    ]
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
        let plan = SessionDocument::parse(&document)
            .unwrap()
            .plan(&serde_json::Map::new());
        Wanted::from_plan(&plan.unwrap())
    }

    #[test]
    fn a_shell_session_runs_the_users_own_shell_as_login_shell() {
        let wanted = wanted(json!({"schemaVersion": "1.0", "sessionType": "Standard_Stream"})).unwrap();
        let program = Program::new(&wanted, &user(1000), None);
        assert_eq!(program.path, PathBuf::from("/usr/bin/zsh"));
        assert_eq!(program.name, "-zsh");
        assert_eq!(program.shown("Mine"), "/usr/bin/zsh");
    }

    #[test]
    fn the_environment_is_clean_and_complete() {
        let program = Program::new(&Wanted::LoginShell, &user(1000), None);
        let shown: Vec<String> = program
            .environment
            .iter()
            .map(|(name, value)| format!("{name}={}", value.to_string_lossy()))
            .collect();
        assert_eq!(
            shown,
            [
                "HOME=/srv/ops",
                "LANG=C.UTF-8",
                "LOGNAME=ops",
                "PATH=/usr/local/bin:/usr/bin:/bin",
                "SHELL=/usr/bin/zsh",
                "TERM=xterm-256color",
                "USER=ops",
            ]
        );
        let root = Program::new(&Wanted::LoginShell, &user(0), Some("de_DE.UTF-8".into()));
        assert!(root.environment.contains(&("LANG", "de_DE.UTF-8".into())));
        assert!(
            root.environment
                .iter()
                .any(|(name, path)| *name == "PATH" && path.to_string_lossy().contains("/usr/sbin"))
        );
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
        let program = Program::new(&expected("top -b").unwrap(), &user(0), None);
        assert_eq!(program.shown("Mine"), "Mine");
        assert_eq!(program.input.as_deref(), Some("top -b"));
        assert!(
            program
                .arguments
                .iter()
                .all(|argument| !argument.to_string_lossy().contains("top"))
        );
    }

    #[test]
    fn what_cannot_be_served_yet_is_refused_by_name() {
        for name in ["Port", "NonInteractiveCommands"] {
            let refused = wanted(json!({"schemaVersion": "1.0", "sessionType": name})).unwrap_err();
            assert_eq!(
                refused.to_string(),
                format!("session type {name} is not supported yet by this node")
            );
        }
    }
}
