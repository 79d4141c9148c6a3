//! The owner's policy, asked about commands and about the documents that they bring.

use std::path::Path;

use moorline_protocol::{
    document::{CommandDocument, Decision, Digest, Step, read_text},
    message::{PolicyAnswer, PolicyQuestion},
    signed_command::{Purpose, Sent},
};
use serde_json::{Map, Value};

use super::{
    intake,
    journal::{Journal, Opener},
    local,
    node::Node,
    step_limits::StepLimits,
    worker::PLATFORM,
};
use crate::policy::{self, Asked, Facts, Grant, Once, Policy, Refusal, Verdict};

/// A document that is to run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate<'a> {
    pub(super) name: &'a str,
    pub(super) content: &'a Value,
    pub(super) operator: Option<&'a str>,
    pub(super) steps: &'a [Step],
    pub(super) origin: Origin<'a>,
}

/// Where a document comes from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Origin<'a> {
    /// A command of the endpoint.
    Command {
        parameters: &'a Map<String, Value>,
        signature: Option<&'a str>,
        /// The node's id.
        node: &'a str,
        /// None of its steps has run.
        is_new: bool,
    },
    /// Handed out by the endpoint for a step.
    Endpoint,
    /// A file of this node.
    File,
}

/// A document may run.
#[derive(Debug, Clone)]
pub(super) struct Permission {
    /// It may run only once.
    pub(super) once: Option<Once>,
    pub(super) grant: Grant,
}

impl<'a> Candidate<'a> {
    /// Actions of the steps that would run: others need no leave.
    fn actions(self) -> impl Iterator<Item = &'a str> {
        let steps = self.steps.iter();
        steps
            .filter(|step| step.decision == Decision::Run)
            .map(|step| step.action.as_str())
    }

    fn facts(self) -> Facts<'a> {
        Facts {
            document: self.name,
            digest: Digest::of(self.content),
            operator: self.operator,
            asked: Asked::Command {
                actions: self.actions().collect(),
            },
        }
    }

    /// Asks the policy as it is now. What may run only once is to be remembered first.
    ///
    /// # Errors
    /// The document may not run here.
    pub(super) fn permit(self, folder: &Path) -> Result<Permission, Refusal> {
        let (policy, now) = (policy::load_or_refuse(folder)?, policy::unix_seconds());
        let facts = self.facts();
        let once = self.check_signature(&policy, facts.digest, now)?;
        let grant = policy.permit(&facts, now)?;
        Ok(Permission { once, grant })
    }

    fn check_signature(self, policy: &Policy, digest: Digest, now: u64) -> Result<Option<Once>, Refusal> {
        policy.check_actions(self.actions())?;
        match self.origin {
            Origin::File => Ok(None),
            Origin::Endpoint => policy.check_document_of_endpoint(&digest).map(|()| None),
            Origin::Command {
                parameters,
                signature,
                node,
                is_new,
            } => {
                let sent = Sent {
                    document_name: self.name,
                    document: digest,
                    parameters: Digest::of_map(parameters),
                    node,
                    reason: None,
                    now: is_new.then_some(now),
                };
                policy.check_signature(Purpose::Command, signature, &sent)
            }
        }
    }
}

/// Notes that a signed session begins, so that no other one does with its signature.
///
/// # Errors
/// Another one did, or it cannot be noted.
pub(crate) fn begin_signed_session(state_dir: &Path, once: &Once, session_id: &str) -> Result<(), Refusal> {
    let noted = Journal::open(state_dir, Opener::Worker)
        .and_then(|mut journal| journal.spend_on_session(once, session_id));
    match noted {
        Ok(true) => Ok(()),
        Ok(false) => Err(Refusal::of_second_session()),
        Err(error) => Err(Refusal::of_no_note(&error)),
    }
}

/// Whether a document may be downloaded that the endpoint hands out.
///
/// # Errors
/// It may not.
pub(super) fn permit_download(folder: &Path, content: &str) -> Result<(), Refusal> {
    let policy = policy::load_or_refuse(folder)?;
    // What is no document is known by its text.
    let content = read_text(content).unwrap_or_else(|_| content.into());
    policy.check_document_of_endpoint(&Digest::of(&content))
}

/// A command that somebody could send, as a command line has it.
#[derive(Debug)]
pub(crate) struct Question<'a> {
    /// JSON or YAML; `-` is standard input.
    pub(crate) document: &'a Path,
    /// The name it would come by.
    pub(crate) name: &'a str,
    /// Each a map in JSON or YAML, or `NAME=VALUE`.
    pub(crate) parameters: &'a [String],
    pub(crate) operator: Option<&'a str>,
    /// The signer whose signature it would have.
    pub(crate) signed_by: Option<&'a str>,
}

/// What the policy says about a command that nobody has sent.
///
/// # Errors
/// The document or its parameters cannot be read, or the policy.
pub(crate) fn explain_command(question: &Question<'_>, policy: &Policy) -> anyhow::Result<Verdict> {
    let content = document(question.document)?;
    let parsed = CommandDocument::parse(&content)?;
    let given = parsed
        .parameters
        .typed_values(&local::parameters(question.parameters, None)?)?;
    let candidate = Candidate {
        name: question.name,
        content: &content,
        operator: question.operator,
        steps: &parsed.plan(&given, PLATFORM)?,
        origin: Origin::File,
    };
    let signed = policy
        .check_actions(candidate.actions())
        .and_then(|()| policy.check_signer(Purpose::Command, question.signed_by, question.name));
    Ok(match signed {
        Ok(()) => policy.judge(&candidate.facts(), policy::unix_seconds()),
        Err(refusal) => refusal.into(),
    })
}

/// What would become of a command that nobody has sent, asked by the endpoint. A signature is not asked for, only told
/// of: whoever signs does so when the command is sent.
pub(super) fn answer(question: &PolicyQuestion, node: &Node) -> PolicyAnswer {
    let judged = judge(&question.content, node);
    let (is_allowed, reason, needs_signature) = match judged {
        Ok((grant, needs_signature)) => (true, grant.to_string(), needs_signature),
        Err(reason) => (false, reason, false),
    };
    PolicyAnswer {
        question_id: question.question_id,
        is_allowed,
        reason,
        needs_signature,
    }
}

fn judge(content: &str, node: &Node) -> Result<(Grant, bool), String> {
    let content = intake::read_content(content)?;
    let document = CommandDocument::parse(&content.document_content).map_err(|error| error.to_string())?;
    let steps = document.plan(&content.parameters, PLATFORM);
    let candidate = Candidate {
        name: &content.document_name,
        content: &content.document_content,
        operator: content.moorline_operator.as_deref(),
        steps: &steps.map_err(|error| error.to_string())?,
        origin: Origin::File,
    };
    let permit = || {
        let policy = policy::load_or_refuse(&node.policy_folder)?;
        policy.check_actions(candidate.actions())?;
        let needs_signature = policy.can_be_signed(Purpose::Command, candidate.name)?;
        let grant = policy.permit(&candidate.facts(), policy::unix_seconds())?;
        let limits = StepLimits::of_agent(&node.limits.limits, node.groups.as_ref());
        limits.within(&grant, &node.state_dir)?;
        Ok((grant, needs_signature))
    };
    permit().map_err(|refusal: Refusal| refusal.to_string())
}

/// A document's content, from a file in JSON or YAML, or standard input (`-`).
///
/// # Errors
/// It cannot be read.
pub(crate) fn document(path: &Path) -> anyhow::Result<Value> {
    let text = local::read(path)?;
    read_text(&text).map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))
}

/// What the daemon can say about a job before a worker is started. What it cannot read is the worker's to tell.
///
/// # Errors
/// The command may not run here.
pub(super) fn foresee(folder: &Path, content: &str, node: &str) -> Result<(), Refusal> {
    let Ok(content) = intake::read_content(content) else {
        return Ok(());
    };
    let planned = CommandDocument::parse(&content.document_content)
        .and_then(|document| document.plan(&content.parameters, PLATFORM));
    let (Ok(steps), Ok(policy)) = (planned, Policy::load(folder)) else {
        return Ok(());
    };
    let candidate = Candidate {
        name: &content.document_name,
        content: &content.document_content,
        operator: content.moorline_operator.as_deref(),
        steps: &steps,
        origin: Origin::Command {
            parameters: &content.parameters,
            signature: content.moorline_signature.as_deref(),
            node,
            is_new: true,
        },
    };
    let (facts, now) = (candidate.facts(), policy::unix_seconds());
    candidate.check_signature(&policy, facts.digest, now)?;
    // All is known of a command, so nothing is undecided.
    policy.permit(&facts, now).map(drop)
}
