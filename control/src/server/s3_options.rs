//! How the command line says which S3 is meant, the same for all that is brought there or read from there, and where
//! credentials come from: a file, or the environment.

use std::{
    collections::BTreeMap,
    marker::PhantomData,
    path::{Path, PathBuf},
};

use clap::{Arg, ArgMatches, Args, Command, FromArgMatches, value_parser};

use super::{
    kms_key_file::{KmsKeyFileError, is_private},
    state_dir::{StateDirError, read},
};
use crate::store::S3Server;

const KEY_ID: &str = "AWS_ACCESS_KEY_ID";
const SECRET: &str = "AWS_SECRET_ACCESS_KEY";
const TOKEN: &str = "AWS_SESSION_TOKEN";

/// What S3 is used for: it gives the options their names.
pub(super) trait Purpose {
    /// `PURPOSE-credentials`.
    const CREDENTIALS: &'static str;
    const CREDENTIALS_HELP: &'static str;
    /// `PURPOSE-endpoint`.
    const ENDPOINT: &'static str;
    /// `PURPOSE-region`.
    const REGION: &'static str;
    /// The option without which the others mean nothing.
    const SWITCH: &'static str;
}

/// `--PURPOSE-credentials`, `--PURPOSE-endpoint` and `--PURPOSE-region`.
#[derive(Debug)]
pub(super) struct S3Options<P> {
    pub(super) credentials: Option<PathBuf>,
    pub(super) endpoint: Option<String>,
    pub(super) region: String,
    pub(super) purpose: PhantomData<P>,
}

impl<P> Clone for S3Options<P> {
    fn clone(&self) -> Self {
        Self {
            credentials: self.credentials.clone(),
            endpoint: self.endpoint.clone(),
            region: self.region.clone(),
            purpose: PhantomData,
        }
    }
}

impl<P: Purpose> Args for S3Options<P> {
    fn augment_args(command: Command) -> Command {
        let credentials = Arg::new(P::CREDENTIALS)
            .long(P::CREDENTIALS)
            .value_name("FILE")
            .value_parser(value_parser!(PathBuf))
            .help(P::CREDENTIALS_HELP);
        let credentials = match P::SWITCH == P::CREDENTIALS {
            true => credentials,
            false => credentials.requires(P::SWITCH),
        };
        let endpoint = Arg::new(P::ENDPOINT)
            .long(P::ENDPOINT)
            .value_name("URL")
            .value_parser(endpoint)
            .requires(P::SWITCH)
            .help("URL of that server, if it is not Amazon's");
        let region = Arg::new(P::REGION)
            .long(P::REGION)
            .value_name("REGION")
            .default_value("us-east-1")
            .help("Region of its buckets");
        command.args([credentials, endpoint, region])
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<P: Purpose> FromArgMatches for S3Options<P> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self {
            credentials: matches.get_one(P::CREDENTIALS).cloned(),
            endpoint: matches.get_one(P::ENDPOINT).cloned(),
            region: matches.get_one(P::REGION).cloned().unwrap_or_default(),
            purpose: PhantomData,
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

fn endpoint(text: &str) -> Result<String, String> {
    match text.starts_with("http://") || text.starts_with("https://") {
        true => Ok(text.trim_end_matches('/').to_owned()),
        false => Err("it is not an http or https URL".to_owned()),
    }
}

/// Why S3 cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum S3OptionsError {
    #[error(transparent)]
    File(#[from] StateDirError),
    #[error(transparent)]
    Private(#[from] KmsKeyFileError),
    #[error("{} is not there; it is to hold {KEY_ID}=… and {SECRET}=…", .0.display())]
    NoFile(PathBuf),
    #[error("{0} is neither in the file with the credentials nor in the environment")]
    Missing(&'static str),
}

impl<P: Purpose> S3Options<P> {
    /// The server, with the credentials out of the file, or else out of the environment.
    pub(super) fn server(&self) -> Result<S3Server, S3OptionsError> {
        let mut credentials = match &self.credentials {
            Some(path) => assignments(path)?,
            None => [KEY_ID, SECRET, TOKEN]
                .into_iter()
                .filter_map(|name| Some((name.to_owned(), std::env::var(name).ok()?)))
                .collect(),
        };
        let mut take = |name| credentials.remove(name).ok_or(S3OptionsError::Missing(name));
        let server = S3Server {
            endpoint: self.endpoint.clone(),
            region: self.region.clone(),
            access_key_id: take(KEY_ID)?,
            secret_access_key: take(SECRET)?,
            session_token: take(TOKEN).ok(),
        };
        if let Some(endpoint) = self.endpoint.as_deref().filter(|url| url.starts_with("http://")) {
            tracing::warn!(
                endpoint,
                option = P::ENDPOINT,
                "the object store is spoken to without TLS"
            );
        }
        Ok(server)
    }
}

/// `NAME=VALUE` lines of a file that nobody else can read, as one of systemd's `EnvironmentFile=` has them; other lines
/// are comments.
fn assignments(path: &Path) -> Result<BTreeMap<String, String>, S3OptionsError> {
    let bytes = read(path)?.ok_or_else(|| S3OptionsError::NoFile(path.to_owned()))?;
    is_private(path)?;
    let text = String::from_utf8_lossy(&bytes);
    Ok(text
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.trim().to_owned(), value.trim().trim_matches('"').to_owned()))
        .collect())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};

    use super::*;

    #[derive(Debug)]
    struct Anything;

    impl Purpose for Anything {
        const CREDENTIALS: &'static str = "anything-credentials";
        const CREDENTIALS_HELP: &'static str = "Use it";
        const ENDPOINT: &'static str = "anything-endpoint";
        const REGION: &'static str = "anything-region";
        const SWITCH: &'static str = "anything-credentials";
    }

    fn parsed(arguments: &[&str]) -> Result<S3Options<Anything>, clap::Error> {
        let command = S3Options::<Anything>::augment_args(Command::new("program"));
        let matches = command.try_get_matches_from([&["program"], arguments].concat())?;
        S3Options::from_arg_matches(&matches)
    }

    #[test]
    fn an_endpoint_is_a_url_and_means_nothing_without_credentials() {
        let given = ["--anything-credentials", "/c", "--anything-endpoint"];
        let good = parsed(&[&given[..], &["https://s3.example.org/"]].concat()).unwrap();
        assert_eq!(good.endpoint.as_deref(), Some("https://s3.example.org"));
        assert_eq!(good.region, "us-east-1");
        assert!(parsed(&[&given[..], &["s3.example.org"]].concat()).is_err());
        assert!(parsed(&["--anything-endpoint", "https://s3.example.org"]).is_err());
        assert!(parsed(&[]).unwrap().credentials.is_none());
    }

    #[test]
    fn credentials_come_from_a_file_that_others_cannot_read() {
        let dir = tempfile::tempdir().unwrap();
        let options = |content: &str| {
            let path = dir.path().join(uuid::Uuid::new_v4().to_string());
            let mut options = std::fs::OpenOptions::new();
            let mut file = options
                .create_new(true)
                .write(true)
                .mode(0o600)
                .open(&path)
                .unwrap();
            std::io::Write::write_all(&mut file, content.as_bytes()).unwrap();
            parsed(&["--anything-credentials", path.to_str().unwrap()]).unwrap()
        };
        let good = options("# of the bucket\nAWS_ACCESS_KEY_ID=a\nAWS_SECRET_ACCESS_KEY=\"b=\"\n");
        let server = good.server().unwrap();
        assert_eq!(
            (server.access_key_id.as_str(), server.secret_access_key.as_str()),
            ("a", "b=")
        );
        assert_eq!(server.session_token, None);
        let path = good.credentials.clone().unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(good.server(), Err(S3OptionsError::Private(_))));
        let without = options("AWS_ACCESS_KEY_ID=a\n");
        assert!(matches!(without.server(), Err(S3OptionsError::Missing(SECRET))));
    }
}
