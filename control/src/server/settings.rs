//! The command line.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand};
use rustls::pki_types::ServerName;

use super::s3_options::{Purpose, S3Options};

/// Names that the server certificate has when none is given.
const DEFAULT_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// A self-hosted control endpoint for managed nodes, speaking the protocols of AWS Systems Manager.
#[derive(Debug, Parser)]
#[command(name = "moorline-control", version)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve nodes and operators until a signal ends it
    Serve(ServeArguments),
}

#[derive(Debug, Args)]
struct ServeArguments {
    /// Directory for everything that is kept; the first start makes it
    #[arg(long, value_name = "DIR")]
    state_dir: PathBuf,
    /// Address and port to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: SocketAddr,
    /// Host name or address for the server certificate, once for each [default: localhost, 127.0.0.1, ::1]
    #[arg(long = "name", value_name = "HOST", value_parser = certificate_name)]
    names: Vec<String>,
    /// Region that clients are told to sign for
    #[arg(long, value_name = "REGION", default_value = "us-east-1")]
    region: String,
    /// File with the keys that encrypt sessions and parameters; the first start makes it [default: kms.key in the state directory]
    #[arg(long, value_name = "FILE")]
    kms_key_file: Option<PathBuf>,
    /// How long transcripts are kept after they were closed; 0 keeps them for ever
    #[arg(long, value_name = "DAYS", default_value_t = 90)]
    transcript_retention: u32,
    #[command(flatten)]
    transcript_store: StoreArguments,
    #[command(flatten)]
    attachment_source: S3Options<AttachmentSource>,
    #[command(flatten)]
    output_store: S3Options<OutputStorePurpose>,
}

/// Out of where files are attached to documents.
#[derive(Debug)]
pub(super) struct AttachmentSource;

impl Purpose for AttachmentSource {
    const CREDENTIALS: &'static str = "attachment-source-credentials";
    const CREDENTIALS_HELP: &'static str = "Let documents have attachments out of S3, or of a server that speaks as \
        S3 does, read with the AWS_ACCESS_KEY_ID=… and AWS_SECRET_ACCESS_KEY=… of this file";
    const ENDPOINT: &'static str = "attachment-source-endpoint";
    const REGION: &'static str = "attachment-source-region";
    const SWITCH: &'static str = Self::CREDENTIALS;
}

/// Where output of commands goes.
#[derive(Debug)]
pub(super) struct OutputStorePurpose;

impl Purpose for OutputStorePurpose {
    const CREDENTIALS: &'static str = "output-store-credentials";
    const CREDENTIALS_HELP: &'static str = "Bring the output of commands that name a bucket (OutputS3BucketName) to S3, \
        or to a server that speaks as S3 does, with the AWS_ACCESS_KEY_ID=… and AWS_SECRET_ACCESS_KEY=… of this file";
    const ENDPOINT: &'static str = "output-store-endpoint";
    const REGION: &'static str = "output-store-region";
    const SWITCH: &'static str = Self::CREDENTIALS;
}

/// Where finished transcripts go.
#[derive(Debug)]
pub(super) struct TranscriptStore;

impl Purpose for TranscriptStore {
    const CREDENTIALS: &'static str = "transcript-store-credentials";
    const CREDENTIALS_HELP: &'static str = "File with AWS_ACCESS_KEY_ID=… and AWS_SECRET_ACCESS_KEY=… \
        [default: the environment]";
    const ENDPOINT: &'static str = "transcript-store-endpoint";
    const REGION: &'static str = "transcript-store-region";
    const SWITCH: &'static str = "transcript-store";
}

/// Where finished transcripts go.
#[derive(Debug, Clone, Args)]
pub(super) struct StoreArguments {
    /// Bring finished transcripts to a bucket of S3, or of a server that speaks as S3 does
    #[arg(
        long = "transcript-store",
        value_name = "s3://BUCKET[/PREFIX]",
        id = "transcript-store"
    )]
    pub(super) url: Option<String>,
    #[command(flatten)]
    pub(super) s3: S3Options<TranscriptStore>,
}

/// What `serve` is to do.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) state_dir: PathBuf,
    pub(super) listen: SocketAddr,
    /// Never empty; the first one stands in the URL given to clients.
    pub(super) names: Vec<String>,
    pub(super) region: String,
    /// Elsewhere than in the state directory.
    pub(super) kms_key_file: Option<PathBuf>,
    /// `None`: for ever.
    pub(super) transcript_retention_days: Option<u32>,
    pub(super) transcript_store: StoreArguments,
    pub(super) attachment_source: S3Options<AttachmentSource>,
    pub(super) output_store: S3Options<OutputStorePurpose>,
}

impl Settings {
    pub(super) fn from_arguments() -> Result<Self, clap::Error> {
        Self::parse(std::env::args_os())
    }

    fn parse(arguments: impl IntoIterator<Item = std::ffi::OsString>) -> Result<Self, clap::Error> {
        let Command::Serve(serve) = CommandLine::try_parse_from(arguments)?.command;
        let names = match serve.names {
            none if none.is_empty() => DEFAULT_NAMES.map(str::to_owned).to_vec(),
            names => names,
        };
        Ok(Self {
            state_dir: serve.state_dir,
            listen: serve.listen,
            names,
            region: serve.region,
            kms_key_file: serve.kms_key_file,
            transcript_retention_days: Some(serve.transcript_retention).filter(|days| *days > 0),
            transcript_store: serve.transcript_store,
            attachment_source: serve.attachment_source,
            output_store: serve.output_store,
        })
    }

    /// The first name as it stands in a URL.
    pub(super) fn url_host(&self) -> String {
        let name = self.names.first().map_or("localhost", String::as_str);
        if name.contains(':') {
            format!("[{name}]")
        } else {
            name.to_owned()
        }
    }
}

/// A name that a certificate can have; an IPv6 address may stand in brackets.
fn certificate_name(text: &str) -> Result<String, String> {
    let name = text.trim_matches(['[', ']']);
    match ServerName::try_from(name) {
        Ok(_) => Ok(name.to_owned()),
        Err(_) => Err("it is neither a DNS name nor an IP address".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(arguments: &[&str]) -> Result<Settings, clap::Error> {
        let start = ["moorline-control", "serve"];
        Settings::parse(start.iter().chain(arguments).map(|text| (*text).into()))
    }

    #[test]
    fn every_command_and_value_is_explained_and_has_its_unit() {
        let unexplained = crate::documentation::unexplained(&CommandLine::command());
        assert!(unexplained.is_empty(), "{}", unexplained.join("\n"));
    }

    #[test]
    fn every_command_line_of_the_documentation_is_one() {
        let refused = crate::documentation::refused(&CommandLine::command());
        assert!(refused.is_empty(), "{}", refused.join("\n"));
    }

    #[test]
    fn without_names_the_certificate_is_for_this_machine() {
        let settings = parse(&["--state-dir", "/d", "--listen", "127.0.0.1:0"]).unwrap();
        assert_eq!(settings.names, DEFAULT_NAMES);
        assert_eq!(settings.url_host(), "localhost");
    }

    #[test]
    fn an_ipv6_name_is_bracketed_in_the_url_only() {
        let settings = parse(&[
            "--state-dir",
            "/d",
            "--listen",
            "[::1]:1",
            "--name",
            "[::1]",
            "--name",
            "a.test",
        ])
        .unwrap();
        assert_eq!(settings.names, ["::1", "a.test"]);
        assert_eq!(settings.url_host(), "[::1]");
    }

    #[test]
    fn a_listen_address_without_port_is_refused() {
        assert!(parse(&["--state-dir", "/d", "--listen", "127.0.0.1"]).is_err());
    }

    #[test]
    fn a_name_that_no_certificate_can_have_is_a_usage_error() {
        for name in ["a b", "", "https://a.test", "a.test:443"] {
            let refused = parse(&["--state-dir", "/d", "--listen", "127.0.0.1:0", "--name", name]);
            assert!(refused.is_err(), "{name}");
        }
    }
}
