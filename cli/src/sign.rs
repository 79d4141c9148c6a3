//! Signed commands and sessions (docs/signed-commands.md): `--sign-with KEY`, and `moorline key new`.

mod session;

pub(crate) use session::{SessionSignOptions, sign_session};

use std::{
    fs::File,
    io::{Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use jiff::Timestamp;
use moorline_protocol::{
    document::{CommandDocument, Digest, MAX_TEXT_BYTES, one_form, read_text},
    signed_command::{Purpose, SignedCommand, SigningKey, Statement, public_key_line},
};
use moorline_ssm::{
    command::SendCommandRequest,
    document::{GetDocument, GetDocumentRequest},
};
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::{Map, Value};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::{
    console,
    error::CliError,
    operator::Operator,
    plan::{self, Ask},
};

/// A key's file has a few hundred bytes.
const MAX_KEY_BYTES: u64 = 16 * 1024;

/// Of `moorline run`.
#[derive(Debug, Args)]
pub(crate) struct SignOptions {
    /// Sign the command with this private key of OpenSSH (ssh-ed25519, without a passphrase), for nodes whose owner
    /// asks for that
    #[arg(long, value_name = "FILE")]
    pub(crate) sign_with: Option<PathBuf>,
    /// How long nodes accept the signature, a day at most
    #[arg(long, value_name = "MINUTES", default_value_t = 60, requires = "sign_with",
          value_parser = clap::value_parser!(u64).range(1..=1440))]
    pub(crate) sign_for: u64,
    /// Sign nothing but what this file says, in JSON or YAML: the endpoint's document must be the same
    #[arg(long, value_name = "FILE", requires = "sign_with")]
    pub(crate) sign_document: Option<PathBuf>,
}

/// `moorline key`
#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Make a key to sign commands with, and show its public half as node owners need it
    New {
        /// The file for the private key; that for the public one has .pub behind it
        file: PathBuf,
        /// What stands behind the public key
        #[arg(long, value_name = "TEXT", default_value = "moorline")]
        comment: String,
    },
}

/// `moorline key`
pub(crate) fn key(command: &KeyCommand, json: bool) -> Result<u8, CliError> {
    let KeyCommand::New { file, comment } = command;
    let mut seed = Zeroizing::new([0; 32]);
    let drawn = SystemRandom::new().fill(&mut *seed);
    drawn.map_err(|_| CliError::Usage("the operating system gives no randomness".to_owned()))?;
    let line = public_key_line(&SigningKey::from_seed(&seed).public(), comment);
    write_new(file, 0o600, SigningKey::file(&seed, comment).as_bytes())?;
    let mut public = file.clone().into_os_string();
    public.push(".pub");
    write_new(Path::new(&public), 0o644, format!("{line}\n").as_bytes())?;
    if json {
        console::print_json(&serde_json::json!({ "PublicKey": line }))?;
    } else {
        console::print_line(&line)?;
    }
    Ok(0)
}

fn write_new(path: &Path, mode: u32, bytes: &[u8]) -> Result<(), CliError> {
    let failed = |source| CliError::io(format!("make the file {}", path.display()), source);
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .map_err(failed)?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .map_err(failed)
}

/// The request with a signature over everything that nodes do for it, sent to exactly the nodes that it is for.
///
/// # Errors
/// The key, the document or the nodes cannot be had, or what they make together cannot be signed.
pub(crate) async fn sign(
    operator: &Operator,
    request: SendCommandRequest,
    options: &SignOptions,
) -> Result<SendCommandRequest, CliError> {
    let Some(signer) = Signer::new(operator, &request, options).await? else {
        return Ok(request);
    };
    let nodes = match &request.instance_ids {
        Some(ids) => ids.clone(),
        None => nodes_of(operator, &request).await?,
    };
    let token = signer.sign(&nodes)?;
    Ok(SendCommandRequest {
        instance_ids: Some(nodes),
        targets: None,
        moorline_signature: Some(token),
        ..request
    })
}

/// Signs a command for nodes: the document as it is now, for all that are signed with it.
#[derive(Debug)]
pub(crate) struct Signer {
    key: SigningKey,
    name: String,
    document: Digest,
    parameters: Digest,
    life_seconds: u64,
}

impl Signer {
    /// `None`: nothing is to be signed.
    ///
    /// # Errors
    /// The key or the document cannot be had, or what they make together cannot be signed.
    pub(crate) async fn new(
        operator: &Operator,
        request: &SendCommandRequest,
        options: &SignOptions,
    ) -> Result<Option<Self>, CliError> {
        let Some(path) = &options.sign_with else {
            return Ok(None);
        };
        let key = read_key(path)?;
        let (name, content) = document(operator, request, options).await?;
        Ok(Some(Self {
            key,
            name,
            parameters: Digest::of_map(&parameters(&content, request)?),
            document: Digest::of(&content),
            life_seconds: options.sign_for * 60,
        }))
    }

    /// As [`Self::new`], of the health probe of a roll-out, which no file of the operator's is compared with.
    ///
    /// # Errors
    /// As there.
    pub(crate) async fn of_probe(
        operator: &Operator,
        probe: Option<&SendCommandRequest>,
        options: &SignOptions,
    ) -> Result<Option<Self>, CliError> {
        let Some(probe) = probe else {
            return Ok(None);
        };
        let options = SignOptions {
            sign_with: options.sign_with.clone(),
            sign_for: options.sign_for,
            sign_document: None,
        };
        Self::new(operator, probe, &options).await
    }

    /// For these nodes, from now on; as it travels.
    ///
    /// # Errors
    /// An id is none, or there are too many for one signature.
    pub(crate) fn sign(&self, nodes: &[String]) -> Result<String, CliError> {
        let parsed: Result<_, _> = nodes.iter().map(|id| id.parse()).collect();
        let now = Timestamp::now().as_second().cast_unsigned();
        let statement = Statement {
            document_name: self.name.clone(),
            document: self.document,
            parameters: self.parameters,
            nodes: parsed.map_err(|error| CliError::Usage(format!("{error}")))?,
            nonce: Uuid::new_v4().into_bytes(),
            not_before: now,
            expires: now + self.life_seconds,
            reason: None,
        };
        let signed = SignedCommand::sign(statement, Purpose::Command, &self.key);
        let signed = signed.map_err(|error| CliError::Usage(error.to_string()))?;
        let (name, digest) = (&self.name, self.document);
        console::note(&format!("signed {name} ({digest}) for {}", nodes.join(", ")));
        Ok(signed.token())
    }
}

fn read_key(path: &Path) -> Result<SigningKey, CliError> {
    let text = Zeroizing::new(read(path, MAX_KEY_BYTES)?);
    SigningKey::read(&text).map_err(|error| CliError::Usage(format!("{}: {error}", path.display())))
}

/// The nodes that a target has now: those are signed for, and no others.
async fn nodes_of(operator: &Operator, request: &SendCommandRequest) -> Result<Vec<String>, CliError> {
    let planned = plan::fetch(operator, request, Ask::Nobody).await?;
    let nodes = planned.nodes.unwrap_or_default();
    Ok(nodes.into_iter().filter_map(|node| node.instance_id).collect())
}

/// Name and content, as nodes will get them.
async fn document(
    operator: &Operator,
    request: &SendCommandRequest,
    options: &SignOptions,
) -> Result<(String, Value), CliError> {
    let name = plain_name(request.document_name.as_deref().unwrap_or_default());
    let content = fetched(operator, name, request.document_version.clone()).await?;
    let read_document = |text: &str, whose: &dyn std::fmt::Display| {
        read_text(text).map_err(|error| CliError::Usage(format!("{whose}: {error}")))
    };
    if let Some(path) = &options.sign_document {
        let own = read_document(&read(path, MAX_TEXT_BYTES as u64)?, &path.display())?;
        let (own, theirs) = (Digest::of(&own), Digest::of(&content));
        if own != theirs {
            let text = format!(
                "the endpoint's document {name} has the digest {theirs} and {} has {own}: nothing is signed",
                path.display()
            );
            return Err(CliError::Usage(text));
        }
    }
    Ok((name.to_owned(), content))
}

/// The name of a document out of its ARN (`arn:aws:ssm:REGION:ACCOUNT:document/NAME`), or the name as it is. This is
/// what nodes get, and so what is signed.
fn plain_name(name_or_arn: &str) -> &str {
    name_or_arn.rsplit_once('/').map_or(name_or_arn, |(_, name)| name)
}

/// The content that the endpoint has for a document. The name is the operator's: owners' rules go by it, and the
/// endpoint does not choose which document somebody signs.
async fn fetched(operator: &Operator, name: &str, version: Option<String>) -> Result<Value, CliError> {
    let input = GetDocumentRequest {
        name: Some(name.to_owned()),
        document_version: version,
        ..Default::default()
    };
    let got = operator.call::<GetDocument>(&input).await?;
    let missing = |member| CliError::Incomplete {
        operation: "GetDocument",
        member,
    };
    let given = got.name.ok_or_else(|| missing("Name"))?;
    if given != name {
        return Err(CliError::Usage(format!(
            "the endpoint was asked for the document {name} and gave {given}: nothing is signed"
        )));
    }
    let content = got.content.ok_or_else(|| missing("Content"))?;
    read_text(&content).map_err(|error| CliError::Usage(format!("{name}: {error}")))
}

/// The parameters as nodes will get them: typed, with the document's defaults.
fn parameters(content: &Value, request: &SendCommandRequest) -> Result<Map<String, Value>, CliError> {
    let refused = |error: &dyn std::fmt::Display| CliError::Usage(error.to_string());
    let document = CommandDocument::parse(content).map_err(|error| refused(&error))?;
    let given = request.parameters.clone().unwrap_or_default();
    let resolved = document.parameters.resolve_lists(&given);
    let resolved = resolved.map_err(|error| refused(&error))?;
    let text = one_form(&Value::Object(resolved.as_map().clone()));
    let is_filled_in = |token: &str| token.trim_start().starts_with("ssm:");
    if text.split("{{").skip(1).any(is_filled_in) {
        let reason =
            "{{ssm:…}} in a parameter is filled in by the endpoint, so what it becomes cannot be signed";
        return Err(CliError::Usage(reason.to_owned()));
    }
    Ok(resolved.as_map().clone())
}

fn read(path: &Path, limit: u64) -> Result<String, CliError> {
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(limit).read_to_string(&mut text))
        .map_err(|source| CliError::io(format!("read {}", path.display()), source))?;
    Ok(text)
}
