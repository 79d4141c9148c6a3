//! Whose signature a command or a session needs (docs/signed-commands.md).

use std::path::Path;

use moorline_protocol::{
    document::Digest,
    public_keys::PublicKey,
    signed_command::{MAX_LIFE_SECONDS, Purpose, Sent, SignedCommand, Statement, read_public_key},
};
use serde::Deserialize;

use super::{Policy, Refusal, pattern::Pattern, rule::Effect};

/// Why no session can be opened at all.
pub(super) const NO_SESSIONS: &str = "no signer of this policy may sign sessions (sessions = true)";

/// Actions that bring programs from the endpoint, which no signature covers.
const ACTIONS_OF_THE_ENDPOINT: [&str; 1] = ["aws:configurePackage"];

/// `[[signer]]`, as its file has it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Signer {
    pub(super) name: String,
    public_key: Key,
    documents: Option<Vec<Pattern>>,
    /// Whether sessions are accepted that it signs.
    #[serde(default)]
    sessions: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
struct Key(PublicKey);

impl TryFrom<String> for Key {
    type Error = String;

    fn try_from(line: String) -> Result<Self, String> {
        let read = read_public_key(&line);
        read.map(Self).map_err(|error| format!("public_key: {error}"))
    }
}

impl Signer {
    /// # Errors
    /// It can sign nothing.
    pub(super) fn check(&self) -> Result<(), String> {
        match self.documents.as_ref().is_some_and(Vec::is_empty) {
            true => Err("documents is empty, which lets the signer sign nothing; leave it out".to_owned()),
            false => Ok(()),
        }
    }

    pub(super) fn may_sign_sessions(&self) -> bool {
        self.sessions
    }

    /// # Errors
    /// Why what it signs is not accepted here.
    fn check_right(&self, purpose: Purpose, document: &str) -> Result<(), String> {
        let name = &self.name;
        if purpose == Purpose::Session && !self.sessions {
            return Err(format!("signer {name:?} may not sign sessions (sessions = true)"));
        }
        let patterns = self.documents.as_ref();
        match patterns.is_none_or(|patterns| patterns.iter().any(|pattern| pattern.matches(document))) {
            true => Ok(()),
            false => Err(format!("signer {name:?} may not sign {document}")),
        }
    }
}

fn word(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::Command => "command",
        Purpose::Session => "session",
    }
}

fn refused(path: &Path, reason: &str) -> Refusal {
    Refusal(format!(
        "{} has require_signature = true, and {reason}",
        path.display()
    ))
}

/// A signed command or session that may run, once: this is what it is remembered by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Once {
    /// In hexadecimal.
    pub(crate) nonce: String,
    /// Seconds since the Unix epoch, after which nobody accepts it any more.
    pub(crate) expires: u64,
}

impl Policy {
    /// What a command or a session needs besides the rules: nothing, or the signature of one of the signers over exactly
    /// this.
    ///
    /// # Errors
    /// There is no such signature, or it is for something else.
    pub(crate) fn check_signature(
        &self,
        purpose: Purpose,
        token: Option<&str>,
        sent: &Sent<'_>,
    ) -> Result<Option<Once>, Refusal> {
        let Some(path) = &self.signed_only else {
            return Ok(None);
        };
        let what = word(purpose);
        let refused = |reason: String| refused(path, &reason);
        if purpose == Purpose::Session && !self.signers.iter().any(Signer::may_sign_sessions) {
            return Err(refused(NO_SESSIONS.to_owned()));
        }
        let token = token.ok_or_else(|| refused(format!("the {what} is not signed")))?;
        let signed = SignedCommand::parse(token).map_err(|error| refused(error.to_string()))?;
        let is_signers = |signer: &&Signer| signed.is_by(&signer.public_key.0, purpose);
        let Some(signer) = self.signers.iter().find(is_signers) else {
            return Err(refused(format!("no signer of this policy signed the {what}")));
        };
        let Statement {
            document_name,
            nonce,
            not_before,
            ..
        } = signed.statement();
        let name = &signer.name;
        signer.check_right(purpose, document_name).map_err(refused)?;
        let covered = signed.covers(sent);
        covered.map_err(|mismatch| refused(format!("{mismatch} (signer {name:?})")))?;
        Ok(Some(Once {
            nonce: nonce.iter().map(|byte| format!("{byte:02x}")).collect(),
            expires: not_before.saturating_add(MAX_LIFE_SECONDS),
        }))
    }

    /// Whether a signature that nobody has made yet would be accepted: `Ok(true)` where one is needed.
    ///
    /// # Errors
    /// There is no signer who may make it.
    pub(crate) fn can_be_signed(&self, purpose: Purpose, document: &str) -> Result<bool, Refusal> {
        let Some(path) = &self.signed_only else {
            return Ok(false);
        };
        match self.signers_of(purpose, document).is_empty() {
            false => Ok(true),
            true => Err(refused(path, &self.no_signer(purpose, document))),
        }
    }

    /// As [`Self::check_signature`], of what nobody has sent: signed by this signer and as it is to be, or not signed.
    ///
    /// # Errors
    /// It would be refused.
    pub(crate) fn check_signer(
        &self,
        purpose: Purpose,
        signed_by: Option<&str>,
        document: &str,
    ) -> Result<(), Refusal> {
        let Some(path) = &self.signed_only else {
            return Ok(());
        };
        let refused = |reason: String| refused(path, &reason);
        let Some(name) = signed_by else {
            let able = self.signers_of(purpose, document);
            return Err(refused(match able.as_slice() {
                [] => self.no_signer(purpose, document),
                able => format!(
                    "the {} is not signed; who may sign it: {}",
                    word(purpose),
                    able.join(", ")
                ),
            }));
        };
        let signer = self.signers.iter().find(|signer| signer.name == name);
        let signer = signer.ok_or_else(|| refused(format!("there is no signer {name:?}")))?;
        signer.check_right(purpose, document).map_err(refused)
    }

    fn no_signer(&self, purpose: Purpose, document: &str) -> String {
        match purpose {
            Purpose::Session if !self.signers.iter().any(Signer::may_sign_sessions) => NO_SESSIONS.to_owned(),
            Purpose::Session | Purpose::Command => {
                format!(
                    "no signer of this policy may sign a {} with {document:?}",
                    word(purpose)
                )
            }
        }
    }

    fn signers_of(&self, purpose: Purpose, document: &str) -> Vec<&str> {
        let able = self
            .signers
            .iter()
            .filter(|signer| signer.check_right(purpose, document).is_ok());
        able.map(|signer| signer.name.as_str()).collect()
    }

    /// Whether a document may run that the endpoint hands out, which no signature covers: where signatures are required
    /// only if a rule that allows names its content.
    ///
    /// # Errors
    /// It may not.
    pub(crate) fn check_document_of_endpoint(&self, digest: &Digest) -> Result<(), Refusal> {
        let Some(path) = &self.signed_only else {
            return Ok(());
        };
        let is_known = self
            .rules
            .iter()
            .any(|source| source.rule.effect == Effect::Allow && source.rule.names_content(digest));
        match is_known {
            true => Ok(()),
            false => Err(Refusal(format!(
                "{} has require_signature = true, a signature does not cover documents that the endpoint hands out, \
                 and no rule that allows has the sha256 of this one, {digest}",
                path.display()
            ))),
        }
    }

    /// Whether the actions bring nothing from the endpoint that no signature covers.
    ///
    /// # Errors
    /// One does, and signatures are required.
    pub(crate) fn check_actions<'a>(
        &self,
        mut actions: impl Iterator<Item = &'a str>,
    ) -> Result<(), Refusal> {
        let Some(path) = &self.signed_only else {
            return Ok(());
        };
        match actions.find(|action| ACTIONS_OF_THE_ENDPOINT.contains(action)) {
            None => Ok(()),
            Some(action) => Err(Refusal(format!(
                "{} has require_signature = true, and {action} runs programs of the endpoint, which a signature does \
                 not cover",
                path.display()
            ))),
        }
    }
}
