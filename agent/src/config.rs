//! Settings of the node's owner: `config.toml` in the state directory or /etc/moorline, and `conf.d/*.toml` after it.

/// All settings, each with its default.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) command: CommandConfig,
    pub(crate) session: SessionConfig,
}

/// `[command]`
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct CommandConfig {
    /// Commands that run at the same time.
    pub(crate) workers: usize,
    /// Commands that are accepted and wait.
    pub(crate) queue: usize,
}

impl Default for CommandConfig {
    fn default() -> Self {
        Self {
            workers: 5,
            queue: 100,
        }
    }
}

/// `[session]`
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct SessionConfig {
    /// User of a shell when the session names none; empty: `ssm-user` if it exists, else the agent's own user.
    pub(crate) default_user: String,
    /// Sessions that run at the same time.
    pub(crate) limit: usize,
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self {
            default_user: String::new(),
            limit: 1000,
        }
    }
}
