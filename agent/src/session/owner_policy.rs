//! The owner's policy, asked about a session: by the daemon before there is a worker, by the worker when it knows
//! whose program it is to start, and for every address that a port session is to reach.

use std::path::Path;

use moorline_protocol::{
    document::{Digest, SessionDocument, SessionPlan, SessionType},
    message::StartSessionContent,
    signed_command::{Purpose, Sent},
};

use super::port_session::{ForwardPolicy, Target, texts};
use crate::{
    config::ForwardConfig,
    policy::{self, Asked, Destination, Facts, Once, Policy, Refusal, Verdict},
};

/// A session, as the policy sees it.
#[derive(Debug, Clone)]
struct Wanted {
    document: String,
    digest: Digest,
    operator: String,
    session_type: SessionType,
    parameters: Digest,
    reason: Option<String>,
    signature: Option<String>,
}

impl Wanted {
    fn new(content: &StartSessionContent, session_type: SessionType) -> Self {
        Self {
            document: content.document_name.clone(),
            digest: Digest::of(&content.document_content),
            operator: content.session_owner.clone(),
            session_type,
            parameters: Digest::of_map(&content.parameters),
            reason: content.moorline_reason.clone(),
            signature: content.moorline_signature.clone(),
        }
    }

    /// Where signatures are asked for: what the session is remembered by.
    fn check_signature(&self, policy: &Policy, node: &str) -> Result<Option<Once>, Refusal> {
        let sent = Sent {
            document_name: &self.document,
            document: self.digest,
            parameters: self.parameters,
            node,
            reason: self.reason.as_deref(),
            now: Some(policy::unix_seconds()),
        };
        policy.check_signature(Purpose::Session, self.signature.as_deref(), &sent)
    }

    fn facts<'a>(&'a self, asked: Asked<'a>) -> Facts<'a> {
        Facts {
            document: &self.document,
            digest: self.digest,
            operator: Some(self.operator.as_str()).filter(|operator| !operator.is_empty()),
            asked,
        }
    }

    fn program<'a>(&'a self, user: Option<&'a str>) -> Facts<'a> {
        self.facts(Asked::Program {
            session_type: self.session_type,
            user,
        })
    }
}

/// The policy at the beginning of a session, which is asked until its end.
#[derive(Debug)]
pub(super) struct Leave {
    policy: Policy,
    wanted: Wanted,
}

impl Leave {
    /// Asks what can be asked before anything is begun. What may be begun once only is to be noted first.
    ///
    /// # Errors
    /// The session may not be.
    pub(super) fn ask(
        content: &StartSessionContent,
        session_type: SessionType,
        (folder, node): (&Path, &str),
    ) -> Result<(Self, Option<Once>), Refusal> {
        let leave = Self {
            policy: policy::load_or_refuse(folder)?,
            wanted: Wanted::new(content, session_type),
        };
        let once = leave.wanted.check_signature(&leave.policy, node)?;
        if session_type != SessionType::Port {
            leave.not_refused(&leave.wanted.program(None))?;
        }
        Ok((leave, once))
    }

    fn not_refused(&self, facts: &Facts<'_>) -> Result<(), Refusal> {
        match self.policy.judge(facts, policy::unix_seconds()) {
            Verdict::Undecided(_) => Ok(()),
            Verdict::Allowed(_) => Ok(()),
            Verdict::Refused(_) => self.policy.permit(facts, policy::unix_seconds()).map(drop),
        }
    }

    /// # Errors
    /// The session may not be this user's.
    pub(super) fn permit_user(&self, user: &str) -> Result<(), Refusal> {
        let facts = self.wanted.program(Some(user));
        self.policy.permit(&facts, policy::unix_seconds()).map(drop)
    }

    /// Asks about a destination before its name is looked up.
    ///
    /// # Errors
    /// The session may lead there in no case.
    pub(super) fn foresee(&self, destination: Destination<'_>) -> Result<(), Refusal> {
        self.not_refused(&self.wanted.facts(Asked::Port(destination)))
    }

    /// # Errors
    /// The session may not lead there.
    pub(super) fn permit_destination(&self, destination: Destination<'_>) -> Result<(), Refusal> {
        let facts = self.wanted.facts(Asked::Port(destination));
        self.policy.permit(&facts, policy::unix_seconds()).map(drop)
    }
}

/// What the daemon can say before there is a worker. What it cannot read is the worker's to tell.
///
/// # Errors
/// The session may not be.
pub(super) fn foresee(content: &StartSessionContent, folder: &Path, node: &str) -> Result<(), Refusal> {
    if !folder.exists() {
        return Ok(());
    }
    let planned = SessionDocument::parse(&content.document_content)
        .and_then(|document| document.plan(&content.parameters));
    let Ok(plan) = planned else {
        return Ok(());
    };
    let wanted = Wanted::new(content, plan.session_type);
    if let Ok(policy) = Policy::load(folder) {
        wanted.check_signature(&policy, node)?;
    }
    if plan.session_type != SessionType::Port {
        return policy::foresee(folder, &wanted.program(None));
    }
    match destination(&plan) {
        Some(target) => policy::foresee(folder, &wanted.facts(Asked::Port(target.destination()))),
        None => Ok(()),
    }
}

/// Where a port session is to lead, if its properties say so.
fn destination(plan: &SessionPlan) -> Option<Target> {
    let forward = ForwardPolicy::new(&ForwardConfig::default()).ok()?;
    Target::new(&texts(&plan.properties), forward).ok()
}
