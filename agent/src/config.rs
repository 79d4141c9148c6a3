//! Settings of the node's owner: one TOML file, and after it the `conf.d/*.toml` beside it in the order of their
//! names. A key that nobody knows is an error with file and line, never ignored.

use std::{
    fs,
    path::{Path, PathBuf},
};

use moorline_protocol::mux::MAX_STREAMS;
use serde::{Deserialize, Serialize};

use crate::runtime::{Network, NetworkError, Recipient, RecipientError, ResourceLimits};

/// The file that is read when none is named and the state directory has no `agent.toml`.
const SYSTEM_FILE: &str = "/etc/moorline/agent.toml";
/// A settings file is small; a larger one is a mistake.
const MAX_FILE_BYTES: u64 = 256 * 1024;

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error("failed to read settings from {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{path} is larger than {MAX_FILE_BYTES} bytes")]
    TooLarge { path: PathBuf },
    // toml's text names line and column and shows the line.
    #[error("failed to understand {path}")]
    Parse {
        path: PathBuf,
        #[source]
        source: Box<toml::de::Error>,
    },
    #[error("{key} must be between {least} and {most}, not {value}")]
    Range {
        key: &'static str,
        least: usize,
        most: usize,
        value: usize,
    },
    #[error("policy.folder must be an absolute path, not {path}")]
    RelativeFolder { path: PathBuf },
    #[error("{key} has the value {value:?}")]
    Network {
        key: &'static str,
        value: String,
        #[source]
        source: NetworkError,
    },
    #[error("transcript.recipients has {value:?}, which is no age recipient")]
    Recipient {
        value: String,
        #[source]
        source: RecipientError,
    },
    #[error("{key} is {value:?}, which cannot be {what}")]
    Name {
        key: &'static str,
        what: &'static str,
        value: String,
    },
}

/// All settings, each with its default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) command: CommandConfig,
    pub(crate) session: SessionConfig,
    pub(crate) forward: ForwardConfig,
    pub(crate) transcript: TranscriptConfig,
    pub(crate) local: LocalConfig,
    pub(crate) policy: PolicyConfig,
}

/// `[policy]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct PolicyConfig {
    /// Absolute path of the folder with the files that say which commands and sessions this node takes
    /// (docs/policy.md).
    pub(crate) folder: PathBuf,
}

impl Default for PolicyConfig {
    fn default() -> Self {
        Self {
            folder: PathBuf::from("/etc/moorline/policy.d"),
        }
    }
}

/// `[command]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct CommandConfig {
    /// Commands that run at the same time.
    pub(crate) workers: usize,
    /// Commands that are accepted and wait.
    pub(crate) queue: usize,
    /// Program and arguments that reboot the node when a step asks for it; empty: it is never rebooted.
    pub(crate) reboot_command: Vec<String>,
    /// SecureStrings that documents may read with `{{ssm-secure:NAME}}`: names, or with `*` at the end what names begin
    /// with. None by default.
    pub(crate) secure_parameters: Vec<String>,
    /// Days for which the files of a command are kept after its end.
    pub(crate) keep_days: usize,
    /// Commands whose files are kept: the newest.
    pub(crate) keep_count: usize,
    /// Most that the files of all of them may take, in MiB.
    pub(crate) keep_mib: usize,
    /// What output may take on the disk.
    pub(crate) output: OutputLimits,
    /// What each step may use.
    pub(crate) limits: ResourceLimits,
    /// Where downloads out of S3 come from.
    pub(crate) s3: S3Config,
}

/// `[command.output]`: what of a step's output is kept in files on the node. What is reported and recorded does not
/// depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct OutputLimits {
    /// Of one stream of a step, in MiB.
    pub(crate) stream_mib: usize,
    /// Of all streams of a command together, in MiB.
    pub(crate) command_mib: usize,
}

impl Default for OutputLimits {
    fn default() -> Self {
        Self {
            stream_mib: 64,
            command_mib: 256,
        }
    }
}

/// `[command.s3]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct S3Config {
    /// URL of a server that speaks as S3 does; empty: Amazon's.
    pub(crate) endpoint: String,
    /// Of buckets whose URL names none; empty: the node's own.
    pub(crate) region: String,
    /// A file with `AWS_ACCESS_KEY_ID=…` and `AWS_SECRET_ACCESS_KEY=…`; empty: only what everybody may read.
    pub(crate) credentials_file: String,
}

impl Default for CommandConfig {
    fn default() -> Self {
        Self {
            workers: 5,
            queue: 100,
            reboot_command: ["shutdown", "-r", "+1"].map(str::to_owned).to_vec(),
            secure_parameters: Vec::new(),
            keep_days: 14,
            keep_count: 1_000,
            keep_mib: 1_024,
            output: OutputLimits::default(),
            limits: ResourceLimits::default(),
            s3: S3Config::default(),
        }
    }
}

/// `[local]`: what is run without an endpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LocalConfig {
    /// The folder whose documents are run; empty: none.
    pub(crate) drop_folder: PathBuf,
}

/// `[session]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct SessionConfig {
    /// User of a shell when the session names none; empty: `ssm-user`, and of an agent that is not root its own.
    pub(crate) default_user: String,
    /// Whether a default user who does not exist is made.
    pub(crate) create_user: bool,
    /// Whether a default user whom the agent makes may become root.
    pub(crate) sudo: bool,
    /// Whether a shell gets a PAM session.
    pub(crate) pam: bool,
    /// The file of `/etc/pam.d` for it; without the file there is none.
    pub(crate) pam_service: String,
    /// Whether what a shell left in the background outlives it.
    pub(crate) linger: bool,
    /// Sessions that run at the same time.
    pub(crate) limit: usize,
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self {
            default_user: String::new(),
            create_user: true,
            sudo: true,
            pam: true,
            pam_service: "moorline".to_owned(),
            linger: false,
            limit: 1000,
        }
    }
}

/// `[forward]`: where port sessions may lead. This node itself is reached in any case, unless it is in `deny`;
/// addresses of metadata services never are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ForwardConfig {
    /// Whether to other hosts at all.
    pub(crate) remote: bool,
    /// Networks of other hosts; empty: all.
    pub(crate) allow: Vec<String>,
    /// Networks that are refused, whatever is allowed.
    pub(crate) deny: Vec<String>,
    /// Connections at the same time, in each session.
    pub(crate) connections: usize,
}

impl Default for ForwardConfig {
    fn default() -> Self {
        Self {
            remote: true,
            allow: Vec::new(),
            deny: Vec::new(),
            connections: MAX_STREAMS,
        }
    }
}

/// `[transcript]`: how sessions are recorded (docs/transcripts.md).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct TranscriptConfig {
    /// What becomes of a session that cannot be recorded.
    pub(crate) required: Required,
    /// Whether output waits until the endpoint has its recording on disk.
    pub(crate) strict: bool,
    /// Whether input is recorded that the terminal echoes.
    pub(crate) input: bool,
    /// Who alone can read recordings; empty: who can read them at the endpoint.
    pub(crate) recipients: Vec<String>,
    /// Most of one recording that waits on the disk for the endpoint, in MiB.
    pub(crate) spool_mib: usize,
    /// And of all together.
    pub(crate) spool_total_mib: usize,
}

/// A session that cannot be recorded …
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Required {
    /// … is opened, and says so.
    #[default]
    Open,
    /// … is refused, or ended.
    Refuse,
}

impl Default for TranscriptConfig {
    fn default() -> Self {
        Self {
            required: Required::Open,
            strict: false,
            input: false,
            recipients: Vec::new(),
            spool_mib: 256,
            spool_total_mib: 1024,
        }
    }
}

impl TranscriptConfig {
    /// # Errors
    /// A text names no recipient.
    pub(crate) fn parsed_recipients(&self) -> Result<Vec<Recipient>, ConfigError> {
        let parse = |value: &String| {
            value.parse().map_err(|source| ConfigError::Recipient {
                value: value.clone(),
                source,
            })
        };
        self.recipients.iter().map(parse).collect()
    }

    /// Whether a session without recording must not go on. Output that waits for its recording would wait for ever.
    pub(crate) fn is_required(&self) -> bool {
        self.strict || self.required == Required::Refuse
    }
}

/// The networks of a setting.
///
/// # Errors
/// A value names no network.
pub(crate) fn networks(key: &'static str, values: &[String]) -> Result<Vec<Network>, ConfigError> {
    let parse = |value: &String| {
        value.parse().map_err(|source| ConfigError::Network {
            key,
            value: value.clone(),
            source,
        })
    };
    values.iter().map(parse).collect()
}

impl Config {
    /// Reads the named file, or `STATE_DIR/agent.toml`, or `/etc/moorline/agent.toml`, whichever is first, and its
    /// drop-ins. No file at all means the defaults; a named file must exist.
    ///
    /// # Errors
    /// A file cannot be read or understood, or a value is out of range.
    pub(crate) fn load(named: Option<&Path>, state_dir: &Path) -> Result<Self, ConfigError> {
        let file = match named {
            Some(path) => path.to_owned(),
            None => Some(state_dir.join("agent.toml"))
                .filter(|path| path.exists())
                .unwrap_or_else(|| PathBuf::from(SYSTEM_FILE)),
        };
        let mut merged = match read(&file)? {
            Some(table) => table,
            None if named.is_some() => {
                let source = std::io::Error::from(std::io::ErrorKind::NotFound);
                return Err(ConfigError::Read { path: file, source });
            }
            None => toml::Table::new(),
        };
        for path in drop_ins(&file)? {
            if let Some(table) = read(&path)? {
                merge(&mut merged, table);
            }
        }
        let config: Self = merged.try_into().map_err(|source| ConfigError::Parse {
            path: file,
            source: Box::new(source),
        })?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let range = |key, value, least, most| match (least..=most).contains(&value) {
            true => Ok(()),
            false => Err(ConfigError::Range {
                key,
                least,
                most,
                value,
            }),
        };
        range("command.workers", self.command.workers, 1, 1000)?;
        range("command.queue", self.command.queue, 1, 10_000)?;
        range("command.keep_days", self.command.keep_days, 1, 36_500)?;
        range("command.keep_count", self.command.keep_count, 0, 100_000)?;
        range("command.keep_mib", self.command.keep_mib, 0, 1024 * 1024)?;
        let OutputLimits {
            stream_mib,
            command_mib,
        } = self.command.output;
        range("command.output.stream_mib", stream_mib, 0, 1024 * 1024)?;
        range("command.output.command_mib", command_mib, 0, 1024 * 1024)?;
        let folder = &self.local.drop_folder;
        if !folder.as_os_str().is_empty() && !folder.is_absolute() {
            return Err(ConfigError::Name {
                key: "local.drop_folder",
                what: "a folder: it is no absolute path",
                value: folder.display().to_string(),
            });
        }
        range("session.limit", self.session.limit, 0, 100_000)?;
        range("forward.connections", self.forward.connections, 1, MAX_STREAMS)?;
        let TranscriptConfig {
            recipients,
            spool_mib,
            spool_total_mib,
            ..
        } = &self.transcript;
        range("transcript.spool_mib", *spool_mib, 0, 1024)?;
        range("transcript.spool_total_mib", *spool_total_mib, 0, 1024 * 1024)?;
        range("transcript.recipients' number", recipients.len(), 0, 20)?;
        self.transcript.parsed_recipients()?;
        if !self.policy.folder.is_absolute() {
            return Err(ConfigError::RelativeFolder {
                path: self.policy.folder.clone(),
            });
        }
        networks("forward.allow", &self.forward.allow)?;
        networks("forward.deny", &self.forward.deny)?;
        let name = |key, what, value: &str, is_one| match is_one {
            true => Ok(()),
            false => Err(ConfigError::Name {
                key,
                what,
                value: value.to_owned(),
            }),
        };
        let user = &self.session.default_user;
        name(
            "session.default_user",
            "the name of a user",
            user,
            is_user_name(user),
        )?;
        let service = &self.session.pam_service;
        name(
            "session.pam_service",
            "a file name",
            service,
            is_service_name(service),
        )
    }
}

/// What can stand in passwd(5); directories of large companies have `DOMAIN\user` and `user@domain`.
fn is_user_name(name: &str) -> bool {
    name.len() <= 256 && !name.starts_with('-') && !name.contains([':', '/', '\0', '\n', ' '])
}

/// A file of `/etc/pam.d`, and nothing elsewhere.
fn is_service_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && !name.starts_with('.')
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

fn drop_ins(file: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let folder = file.parent().unwrap_or_else(|| Path::new("/")).join("conf.d");
    let listed = match fs::read_dir(&folder) {
        Ok(listed) => listed,
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(ConfigError::Read { path: folder, source }),
    };
    let mut files = Vec::new();
    for entry in listed {
        let path = entry
            .map_err(|source| ConfigError::Read {
                path: folder.clone(),
                source,
            })?
            .path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Each file is checked on its own, so that an error names the file and line it stands in.
fn read(path: &Path) -> Result<Option<toml::Table>, ConfigError> {
    let failed = |source| ConfigError::Read {
        path: path.to_owned(),
        source,
    };
    match fs::metadata(path) {
        Ok(metadata) if metadata.len() > MAX_FILE_BYTES => {
            return Err(ConfigError::TooLarge {
                path: path.to_owned(),
            });
        }
        Ok(_) => {}
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(failed(source)),
    }
    let text = fs::read_to_string(path).map_err(failed)?;
    let parse = |source| ConfigError::Parse {
        path: path.to_owned(),
        source: Box::new(source),
    };
    toml::from_str::<Config>(&text).map_err(parse)?;
    toml::from_str(&text).map(Some).map_err(parse)
}

fn merge(into: &mut toml::Table, from: toml::Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(toml::Value::Table(old)), toml::Value::Table(new)) => merge(old, new),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn put(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::File::create(path)
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
    }

    #[test]
    fn a_later_drop_in_wins_and_leaves_the_rest() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("agent.toml");
        put(&file, "[command]\nworkers = 2\nqueue = 7\n");
        put(&dir.path().join("conf.d/20-b.toml"), "[command]\nworkers = 4\n");
        put(
            &dir.path().join("conf.d/10-a.toml"),
            "[command]\nworkers = 3\n[session]\ndefault_user = \"ops\"\n",
        );
        put(&dir.path().join("conf.d/ignored.txt"), "nonsense");
        let config = Config::load(None, dir.path()).unwrap();
        assert_eq!((config.command.workers, config.command.queue), (4, 7));
        assert_eq!(config.session.default_user, "ops");
    }

    #[test]
    fn an_unknown_key_is_an_error_that_names_file_and_line() {
        let dir = tempfile::tempdir().unwrap();
        put(&dir.path().join("agent.toml"), "[command]\n");
        put(
            &dir.path().join("conf.d/typo.toml"),
            "[command]\nworkers = 2\nworker = 3\n",
        );
        let error = Config::load(None, dir.path()).unwrap_err();
        let text = format!("{:#}", anyhow::Error::from(error));
        assert!(
            text.contains("typo.toml") && text.contains("line 3") && text.contains("worker"),
            "{text}"
        );
    }

    #[test]
    fn a_value_out_of_range_is_refused_and_a_named_file_must_exist() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("x.toml");
        assert!(Config::load(Some(&file), dir.path()).is_err());
        for bad in [
            "[command]\nworkers = 0\n",
            "[command.output]\nstream_mib = 1048577\n",
            "[command.output]\ncommand_mib = 1048577\n",
        ] {
            put(&file, bad);
            assert!(
                matches!(
                    Config::load(Some(&file), dir.path()),
                    Err(ConfigError::Range { .. })
                ),
                "{bad}"
            );
        }
    }

    #[test]
    fn a_network_that_is_none_is_refused_with_key_and_value() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("agent.toml");
        put(
            &file,
            "[forward]\nallow = [\"10.0.0.0/8\", \"::1\"]\nremote = false\n",
        );
        assert!(!Config::load(Some(&file), dir.path()).unwrap().forward.remote);
        put(&file, "[forward]\ndeny = [\"10.0.0.0/8\", \"10.1.0.0/8\"]\n");
        let error = Config::load(Some(&file), dir.path()).unwrap_err();
        let text = format!("{:#}", anyhow::Error::from(error));
        assert!(
            text.contains("forward.deny") && text.contains("10.1.0.0/8") && text.contains("10.0.0.0"),
            "{text}"
        );
    }

    #[test]
    fn a_name_that_cannot_be_one_is_refused_with_its_key() {
        let dir = tempfile::tempdir().unwrap();
        for (line, key) in [
            ("default_user = \"a:b\"", "session.default_user"),
            ("default_user = \"-x\"", "session.default_user"),
            ("pam_service = \"../shadow\"", "session.pam_service"),
            ("pam_service = \"\"", "session.pam_service"),
        ] {
            put(&dir.path().join("agent.toml"), &format!("[session]\n{line}\n"));
            let error = Config::load(None, dir.path()).unwrap_err().to_string();
            assert!(error.contains(key), "{error}");
        }
    }
}
