//! The environment of what runs in a session.
//!
//! Nothing of the agent's own gets into it, with the exception of the language: the stock agent hands its whole
//! environment to whoever opens a shell. What the machine's owner wrote for every login does (`/etc/environment`, and
//! what PAM's modules set), and so does what names the session and its operator.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs::File,
    io::Read,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::Path,
};

use super::login::LoginUser;

/// What every login of this machine has, whoever asks for it.
const SYSTEM_FILE: &str = "/etc/environment";
/// More of it is not read.
const MAX_FILE_BYTES: u64 = 64 * 1024;
/// A variable that is longer is left out.
const MAX_ENTRY_BYTES: usize = 8 * 1024;
/// More variables of one source are left out.
const MAX_ENTRIES: usize = 512;
/// What is told of an operator.
const MAX_OPERATOR_CHARS: usize = 512;
/// These say who and where, and nobody but us does.
const FIXED: [&str; 5] = ["HOME", "LOGNAME", "SHELL", "TERM", "USER"];
const OURS: &str = "MOORLINE_";
/// Names a session to its programs, and them to whoever looks for what it left.
pub(super) const SESSION_ID: &str = "MOORLINE_SESSION_ID";

/// Variables by their names, each once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Environment {
    variables: BTreeMap<OsString, OsString>,
}

impl Environment {
    /// What a user's login has. `language` is the agent's own `LANG`, if it has one.
    pub(super) fn of_login(user: &LoginUser, language: Option<OsString>) -> Self {
        let path = if user.uid.is_root() {
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        } else {
            "/usr/local/bin:/usr/bin:/bin"
        };
        let language = language.filter(|language| !language.is_empty());
        let variables = [
            ("HOME", user.home.clone().into()),
            ("LANG", language.unwrap_or_else(|| OsString::from("C.UTF-8"))),
            ("LOGNAME", OsString::from(&user.name)),
            ("PATH", OsString::from(path)),
            ("SHELL", user.shell.clone().into()),
            ("TERM", OsString::from("xterm-256color")),
            ("USER", OsString::from(&user.name)),
        ];
        Self {
            variables: variables
                .into_iter()
                .map(|(name, value)| (OsString::from(name), value))
                .collect(),
        }
    }

    /// Adds what this machine has for every login. A file that cannot be read is none.
    pub(super) fn with_system(self) -> Self {
        self.with_file(Path::new(SYSTEM_FILE))
    }

    fn with_file(mut self, path: &Path) -> Self {
        let mut text = Vec::new();
        let read = File::open(path).and_then(|file| file.take(MAX_FILE_BYTES).read_to_end(&mut text));
        if let Err(error) = read {
            tracing::debug!(%error, path = %path.display(), "not read");
            return self;
        }
        if text.len() as u64 == MAX_FILE_BYTES {
            tracing::warn!(path = %path.display(), "only the first {MAX_FILE_BYTES} bytes are read");
        }
        self.add(text.split(|byte| *byte == b'\n').filter_map(assignment));
        self
    }

    /// Adds which session it is, and whose.
    pub(super) fn with_session(mut self, session_id: &str, operator: &str) -> Self {
        self.variables.insert(SESSION_ID.into(), session_id.into());
        if !operator.is_empty() {
            self.variables
                .insert(format!("{OURS}OPERATOR").into(), operator.into());
        }
        self
    }

    /// Adds variables from elsewhere; the later one wins, but not over what is ours to say.
    pub(super) fn add(&mut self, variables: impl IntoIterator<Item = (OsString, OsString)>) {
        let accepted = variables
            .into_iter()
            .filter(|(name, value)| is_name(name) && name.len() + value.len() <= MAX_ENTRY_BYTES)
            .filter(|(name, _)| !is_fixed(name));
        self.variables.extend(accepted.take(MAX_ENTRIES));
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&OsStr, &OsStr)> {
        self.variables
            .iter()
            .map(|(name, value)| (name.as_os_str(), value.as_os_str()))
    }
}

impl FromIterator<(OsString, OsString)> for Environment {
    fn from_iter<T: IntoIterator<Item = (OsString, OsString)>>(variables: T) -> Self {
        Self {
            variables: variables.into_iter().collect(),
        }
    }
}

/// The name of an operator as a log, an environment or the list of those logged in can hold it.
pub(super) fn plain_operator(owner: &str) -> String {
    owner
        .chars()
        .take(MAX_OPERATOR_CHARS)
        .map(|c| if c.is_ascii_graphic() { c } else { '?' })
        .collect()
}

fn is_fixed(name: &OsStr) -> bool {
    FIXED.iter().any(|fixed| name == *fixed) || name.as_bytes().starts_with(OURS.as_bytes())
}

fn is_name(name: &OsStr) -> bool {
    let name = name.as_bytes();
    name.first()
        .is_some_and(|b| b.is_ascii_alphabetic() || *b == b'_')
        && name.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_')
}

/// `[export ]NAME=VALUE`, the value bare up to a comment, or quoted; as pam_env reads it, and no shell.
fn assignment(line: &[u8]) -> Option<(OsString, OsString)> {
    let line = line.trim_ascii();
    let line = match line.strip_prefix(b"export") {
        Some(rest) if rest.first().is_some_and(u8::is_ascii_whitespace) => rest.trim_ascii_start(),
        _ => line,
    };
    let equals = line.iter().position(|byte| *byte == b'=')?;
    let (name, value) = line.split_at(equals);
    let value = plain_value(value.get(1..)?)?;
    let (name, value) = (
        OsString::from_vec(name.to_vec()),
        OsString::from_vec(value.to_vec()),
    );
    (is_name(&name) && !value.as_bytes().contains(&0)).then_some((name, value))
}

/// `None`: the quote has no end, and what was meant is anybody's guess.
fn plain_value(value: &[u8]) -> Option<&[u8]> {
    if let Some(quote @ (b'"' | b'\'')) = value.first().copied() {
        let inner = value.get(1..)?;
        let end = inner.iter().position(|byte| *byte == quote)?;
        return inner.get(..end);
    }
    let comment = value
        .windows(2)
        .position(|pair| matches!(pair, [b' ' | b'\t', b'#']))
        .unwrap_or(value.len());
    Some(value.get(..comment)?.trim_ascii_end())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use nix::unistd::{Gid, Uid};

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

    fn shown(environment: &Environment) -> Vec<String> {
        environment
            .iter()
            .map(|(name, value)| format!("{}={}", name.to_string_lossy(), value.to_string_lossy()))
            .collect()
    }

    fn assigned(line: &str) -> Option<String> {
        let (name, value) = assignment(line.as_bytes())?;
        Some(format!("{}:{}", name.to_string_lossy(), value.to_string_lossy()))
    }

    #[test]
    fn the_environment_is_clean_and_complete() {
        assert_eq!(
            shown(&Environment::of_login(&user(1000), None)),
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
        let root = shown(&Environment::of_login(&user(0), Some("de_DE.UTF-8".into())));
        assert!(root.contains(&"LANG=de_DE.UTF-8".to_owned()));
        assert!(
            root.iter()
                .any(|line| line.starts_with("PATH=") && line.contains("/usr/sbin"))
        );
    }

    #[test]
    fn a_line_for_every_login_is_read_as_pam_reads_it() {
        for (line, expected) in [
            ("PATH=/opt/bin:/bin", Some("PATH:/opt/bin:/bin")),
            ("  export  LANG = no", None),
            ("export LANG=de_DE.UTF-8", Some("LANG:de_DE.UTF-8")),
            ("exported=1", Some("exported:1")),
            (
                "A=\"with # and 'quotes'\" # comment",
                Some("A:with # and 'quotes'"),
            ),
            ("A='x'", Some("A:x")),
            ("A=b#c  # comment", Some("A:b#c")),
            ("A=", Some("A:")),
            ("A=\"open", None),
            ("# A=1", None),
            ("1A=x", None),
            ("=x", None),
            ("A", None),
            ("A=nul\0", None),
            ("", None),
        ] {
            assert_eq!(assigned(line).as_deref(), expected, "{line:?}");
        }
    }

    #[test]
    fn the_machines_file_changes_path_and_language_but_not_who_and_where() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("environment");
        let text = "PATH=/opt/bin\nLANG=C\nHOME=/evil\nSHELL=/evil\nUSER=x\nLOGNAME=x\nTERM=x\nMOORLINE_OPERATOR=x\nZ=\"a b\"\n";
        std::fs::write(&file, text).unwrap();
        let environment = Environment::of_login(&user(1000), None)
            .with_file(&file)
            .with_file(&dir.path().join("gone"))
            .with_session("me-1", "arn:x");
        assert_eq!(
            shown(&environment),
            [
                "HOME=/srv/ops",
                "LANG=C",
                "LOGNAME=ops",
                "MOORLINE_OPERATOR=arn:x",
                "MOORLINE_SESSION_ID=me-1",
                "PATH=/opt/bin",
                "SHELL=/usr/bin/zsh",
                "TERM=xterm-256color",
                "USER=ops",
                "Z=a b",
            ]
        );
    }

    #[test]
    fn the_machines_file_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("environment");
        let many: String = (0..2000).map(|n| format!("V{n}=1\n")).collect();
        std::fs::write(&file, format!("LONG={}\n{many}", "x".repeat(MAX_ENTRY_BYTES))).unwrap();
        let environment = Environment::default().with_file(&file);
        assert_eq!(environment.iter().count(), MAX_ENTRIES);
        std::fs::write(&file, "A=1\n".repeat(100_000)).unwrap();
        assert_eq!(shown(&Environment::default().with_file(&file)), ["A=1"]);
        assert_eq!(
            Environment::default().with_file(dir.path()),
            Environment::default()
        );
    }

    #[test]
    fn an_operator_is_plain_text_of_bounded_length() {
        assert_eq!(plain_operator("arn:x:user/jo"), "arn:x:user/jo");
        assert_eq!(plain_operator("a b\n\x1b[1mé"), "a?b??[1m?");
        assert_eq!(plain_operator(&"a".repeat(2000)).len(), MAX_OPERATOR_CHARS);
    }
}
