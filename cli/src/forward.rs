//! Port sessions: `moorline forward`, `moorline ssh-proxy`, and the plugin's part (client-wire §5).
//!
//! A session carries either one connection on standard input and output ([`stdio`]), or those of a local
//! [`listener`]: many at once ([`multiplexed`], [`streams`], [`connection`]), or, with old agents, one after another
//! ([`basic`]). A connection that the data channel loses is restored beneath all of them, and they do not notice.

mod basic;
mod connection;
mod flag;
mod listener;
mod multiplexed;
mod port;
mod spec;
mod stdio;
mod streams;
mod voice;

use std::{collections::BTreeMap, io::IsTerminal, sync::Arc, time::Duration};

use moorline_protocol::message::PayloadType;
use moorline_ssm::session::StartSessionRequest;
use tokio::time::{Instant, sleep_until};

use self::{
    listener::Listener,
    port::{Framing, Place},
};
use crate::{
    EXIT_NO_SESSION,
    arguments::{ForwardOptions, SshProxyOptions},
    attach::Ending,
    console,
    error::CliError,
    operator::Operator,
    pick,
    session_client::{Grant, Link, SessionClient, SessionEvent},
    shell,
    sign::{SessionSignOptions, sign_session},
    terminal::signals::{EndSignal, EndSignals},
};

pub(crate) use self::{spec::Spec, voice::Voice};

/// The type of session that this is about.
pub(crate) const SESSION_TYPE: &str = "Port";
/// One connection on standard input and output.
pub(crate) const SSH_DOCUMENT: &str = "AWS-StartSSHSession";
const PORT_DOCUMENT: &str = "AWS-StartPortForwardingSession";
const REMOTE_HOST_DOCUMENT: &str = "AWS-StartPortForwardingSessionToRemoteHost";
/// How long a session that we end may take to say goodbye.
const GOODBYE_LIMIT: Duration = Duration::from_secs(3);

/// `moorline forward`.
pub(crate) async fn forward(
    operator: Operator,
    options: &ForwardOptions,
    json: bool,
) -> Result<u8, CliError> {
    let spec = &options.spec;
    // before the session: a port that is taken needs none
    let listener = bind(&spec.local).await?;
    let mut parameters = parameters(spec.port);
    let (document, target) = match &spec.host {
        Some(host) => {
            parameters.insert("host".to_owned(), vec![host.clone()]);
            let target = format!("{host} port {} through {}", spec.port, options.node);
            (REMOTE_HOST_DOCUMENT, target)
        }
        None => (PORT_DOCUMENT, format!("{} port {}", options.node, spec.port)),
    };
    let target = console::one_line(&target);
    let request = (document, parameters, options.reason.clone());
    let mut session = Session::start(operator, &options.node, request, &options.sign).await?;
    if let Some(ending) = session.open().await {
        return Ok(session.conclude(ending).await);
    }
    let address = listener.address();
    console::note(&format!("forwarding {address} to {target}; Ctrl-C ends it"));
    if json {
        let line = serde_json::json!({ "Address": address, "SessionId": session.grant.session_id });
        if let Err(error) = console::print_line(&line.to_string()) {
            session.leave().await;
            return Err(error);
        }
    }
    let mut voice = Voice::own(target);
    let ending = listen(&mut session.client, listener, &mut voice, &mut session.signals).await;
    Ok(session.conclude(ending).await)
}

/// `moorline ssh-proxy`.
pub(crate) async fn ssh_proxy(operator: Operator, options: &SshProxyOptions) -> Result<u8, CliError> {
    let request = (SSH_DOCUMENT, parameters(options.port), options.reason.clone());
    let mut session = Session::start(operator, &options.node, request, &options.sign).await?;
    if let Some(ending) = session.open().await {
        return Ok(session.conclude(ending).await);
    }
    let is_interruptible = std::io::stdin().is_terminal();
    let served = stdio::serve(&mut session.client, &mut session.signals, is_interruptible).await;
    match served {
        Ok(Ending::Closed { reason, .. }) if reason.is_empty() => Ok(0),
        Ok(ending) => Ok(session.conclude(ending).await),
        Err(error) => {
            session.leave().await;
            Err(error)
        }
    }
}

/// Whether standard input and output carry the connection, as the handshake has it.
pub(crate) fn is_on_stdio(client: &SessionClient) -> bool {
    matches!(Place::of(client.channel().session_properties()), Ok(Place::Stdio))
}

/// The plugin's part: serves a session whose handshake has shown that it is about ports.
///
/// # Errors
/// It cannot be served here.
pub(crate) async fn serve(client: &mut SessionClient, session_id: &str) -> Result<Ending, CliError> {
    let mut signals = EndSignals::listen().map_err(|source| CliError::io("listen for signals", source))?;
    match Place::of(client.channel().session_properties()).map_err(CliError::Usage)? {
        Place::Stdio => {
            let is_interruptible = std::io::stdin().is_terminal();
            stdio::serve(client, &mut signals, is_interruptible).await
        }
        Place::Listen(local) => {
            let listener = bind(&local).await?;
            let mut voice = Voice::plugin(session_id);
            Ok(listen(client, listener, &mut voice, &mut signals).await)
        }
    }
}

/// Asks the node to end the session, and waits for a while until it has. Returns whether it has.
pub(crate) async fn leave(client: &mut SessionClient) -> bool {
    client.write(PayloadType::Flag, flag::payload(flag::TERMINATE));
    let limit = Instant::now() + GOODBYE_LIMIT;
    loop {
        tokio::select! {
            event = client.next(true) => match event {
                SessionEvent::Closed { .. } | SessionEvent::Expired => return true,
                SessionEvent::Failed(_) | SessionEvent::Lost(_) => return false,
                _ => {}
            },
            () = sleep_until(limit) => return false,
        }
    }
}

async fn bind(local: &spec::Local) -> Result<Listener, CliError> {
    Listener::bind(local)
        .await
        .map_err(|source| CliError::io(format!("listen on {local}"), source))
}

async fn listen(
    client: &mut SessionClient,
    listener: Listener,
    voice: &mut Voice,
    signals: &mut EndSignals,
) -> Ending {
    voice.opened(&listener);
    match Framing::of(client.channel()) {
        Framing::Basic => basic::serve(client, listener, voice, signals).await,
        Framing::Multiplexed { version, keep_alive } => {
            multiplexed::serve(client, listener, voice, signals, (version, keep_alive)).await
        }
    }
}

fn parameters(port: u16) -> BTreeMap<String, Vec<String>> {
    [("portNumber".to_owned(), vec![port.to_string()])].into()
}

/// What is the same in every kind of session with ports.
fn on_other_event(event: SessionEvent) -> Option<Ending> {
    match event {
        SessionEvent::Data { .. } | SessionEvent::Type(_) | SessionEvent::InputTaken => None,
        SessionEvent::Message(text) => {
            console::note(&console::one_line(&text));
            None
        }
        SessionEvent::Lost(reason) => {
            let reason = console::one_line(&reason);
            console::note(&format!("connection lost ({reason}); restoring it"));
            None
        }
        SessionEvent::Restored => {
            console::note("connection restored");
            None
        }
        SessionEvent::Closed { reason, exit_code } => Some(Ending::Closed { reason, exit_code }),
        SessionEvent::Expired => Some(Ending::Expired),
        SessionEvent::Failed(error) => Some(Ending::Failed(error)),
    }
}

fn ending_of(signal: EndSignal) -> Ending {
    match signal {
        EndSignal::Interrupt => Ending::Left,
        EndSignal::Terminate(number) => Ending::Signalled(number),
    }
}

/// A session of our own commands.
struct Session {
    operator: Arc<Operator>,
    grant: Grant,
    client: SessionClient,
    signals: EndSignals,
}

impl Session {
    /// Starts one and connects to it. `request`: document, parameters, reason.
    async fn start(
        operator: Operator,
        node: &str,
        (document, parameters, reason): (&str, BTreeMap<String, Vec<String>>, Option<String>),
        sign: &SessionSignOptions,
    ) -> Result<Self, CliError> {
        let operator = Arc::new(operator);
        let request = StartSessionRequest {
            target: Some(pick::node(&operator, node).await?),
            document_name: Some(document.to_owned()),
            reason,
            parameters: Some(parameters),
            moorline_signature: None,
        };
        let request = sign_session(&operator, request, sign).await?;
        let grant = shell::start_session(&operator, &request).await?;
        let link = Link::new(
            Some(Arc::clone(&operator)),
            operator.trust().clone(),
            &grant.session_id,
        );
        let opened = async {
            let signals =
                EndSignals::listen().map_err(|source| CliError::io("listen for signals", source))?;
            let client = SessionClient::open(link, &grant).await?;
            Ok((client, signals))
        };
        match opened.await {
            Ok((client, signals)) => Ok(Self {
                operator,
                grant,
                client,
                signals,
            }),
            Err(error) => {
                // what was started and cannot be used must not stay open
                shell::terminate(&operator, &grant.session_id).await;
                Err(error)
            }
        }
    }

    /// Waits until the node takes part. Returns how the session ended if it does not.
    async fn open(&mut self) -> Option<Ending> {
        loop {
            let event = tokio::select! {
                event = self.client.next(true) => event,
                signal = self.signals.next() => return Some(ending_of(signal)),
            };
            match event {
                SessionEvent::Type(session_type) if session_type == SESSION_TYPE => return None,
                SessionEvent::Type(session_type) => return Some(Ending::WrongType(session_type)),
                // a session with ports begins with a handshake
                SessionEvent::Data { .. } => return Some(Ending::WrongType("Standard_Stream".to_owned())),
                other => {
                    if let Some(ending) = on_other_event(other) {
                        return Some(ending);
                    }
                }
            }
        }
    }

    async fn leave(&mut self) {
        if !leave(&mut self.client).await {
            shell::terminate(&self.operator, &self.grant.session_id).await;
        }
    }

    /// Ends what has not ended, tells why, and gives the exit code.
    async fn conclude(mut self, ending: Ending) -> u8 {
        match ending {
            Ending::Closed { reason, .. } => {
                let reason = console::one_line(&reason);
                console::note(format!("session ended: {reason}").trim_end_matches([':', ' ']));
                EXIT_NO_SESSION
            }
            Ending::Expired => {
                console::note("the session ended while the connection was lost");
                EXIT_NO_SESSION
            }
            // there is no terminal to leave it from, and nothing serves a port without us
            Ending::Left | Ending::Detached | Ending::OutputClosed => {
                self.leave().await;
                0
            }
            Ending::Signalled(number) => {
                self.leave().await;
                number.saturating_add(128)
            }
            Ending::WrongType(session_type) => {
                self.leave().await;
                console::note(&format!("error: the session is of type {session_type}"));
                EXIT_NO_SESSION
            }
            Ending::Failed(error) => {
                shell::terminate(&self.operator, &self.grant.session_id).await;
                console::complain(&CliError::Session(error));
                EXIT_NO_SESSION
            }
        }
    }
}
