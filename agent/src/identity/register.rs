//! `register`: a node joins by hybrid activation (agent-wire §2.2).

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use moorline_protocol::types::{ActivationId, InstanceId};
use moorline_ssm::node::{RegisterManagedInstance, RegisterManagedInstanceRequest};
use moorline_transport::{ApiClient, CallError, DialError, HttpClient, HttpError, Service};
use nix::fcntl::Flock;

use super::{
    NodeKey, TranscriptKey,
    fingerprint::fingerprint,
    registration::{Home, REGISTRATION_FORMAT, RegistrationError, RegistrationFile, registration_path},
};
use crate::runtime::{AGENT_VERSION, lock_state_dir, make_private_directory};

/// Region that nodes of a Moorline endpoint sign for; the endpoint accepts any.
const MOORLINE_REGION: &str = "us-east-1";

/// What `register` was told.
pub(crate) struct Registrar {
    pub(crate) state_dir: PathBuf,
    /// `None`: AWS in `region`.
    pub(crate) endpoint: Option<String>,
    pub(crate) ca: Option<PathBuf>,
    pub(crate) region: Option<String>,
    pub(crate) activation_id: ActivationId,
    /// Secret.
    pub(crate) activation_code: String,
    /// Replace an existing registration.
    pub(crate) force: bool,
}

/// Registers and stores the registration. The key is made and the directory proven writable before the activation is
/// used, so that a full disk does not cost one.
pub(crate) async fn register(registrar: &Registrar) -> anyhow::Result<InstanceId> {
    let path = registration_path(&registrar.state_dir);
    if path.exists() && !registrar.force {
        bail!(
            "this node is already registered ({}). With --force it becomes a new node, with another id and key: what \
             the old one has still to report is set aside, and it stays listed at its endpoint until it is \
             deregistered there",
            path.display()
        );
    }
    let home = match &registrar.endpoint {
        Some(url) => Home::Endpoint {
            url: url.clone(),
            ca_pem: registrar.ca.as_deref().map(read_ca).transpose()?,
        },
        None => Home::Aws,
    };
    let region = registrar
        .region
        .clone()
        .unwrap_or_else(|| MOORLINE_REGION.to_owned());
    let (services, trust) = home
        .resolve(
            &region,
            registrar.ca.as_deref().unwrap_or_else(|| Path::new("--ca")),
        )
        .map_err(|error| match error {
            RegistrationError::Endpoint { source, .. } => anyhow::Error::new(source),
            other => other.into(),
        })?;
    let _lock = prepare(&registrar.state_dir)?;
    let key = NodeKey::generate()?;
    let salt = uuid::Uuid::new_v4().to_string();

    let http = HttpClient::new(services.endpoint(Service::Ssm).clone(), trust);
    let client = ApiClient::new(http, region.clone(), format!("moorline-agent/{AGENT_VERSION}"));
    let input = RegisterManagedInstanceRequest {
        activation_code: Some(registrar.activation_code.clone()),
        activation_id: Some(registrar.activation_id.to_string()),
        fingerprint: Some(fingerprint(&salt)),
        public_key: Some(key.public_key.clone()),
        public_key_type: Some("Rsa".into()),
        ..Default::default()
    };
    let output = client
        .call::<RegisterManagedInstance>(None, &input)
        .await
        .map_err(|error| {
            let what = not_registered(&error);
            anyhow::Error::new(error).context(what)
        })?;
    let instance_id: InstanceId = output
        .instance_id
        .context("the endpoint's answer lacks InstanceId")?
        .parse()?;
    let file = RegistrationFile {
        format: REGISTRATION_FORMAT,
        instance_id: instance_id.clone(),
        region,
        home,
        fingerprint_salt: salt,
        private_key: key.private_key,
        public_key: key.public_key,
    };
    set_journal_aside(&registrar.state_dir)?;
    set_spool_aside(&registrar.state_dir)?;
    TranscriptKey::make(&registrar.state_dir).context("failed to make the key that seals transcripts")?;
    file.store(&registrar.state_dir)
        .with_context(|| format!("the endpoint registered {instance_id}, deregister it there"))?;
    Ok(instance_id)
}

/// With what helps, where we know it.
fn not_registered(error: &CallError) -> &'static str {
    match error {
        CallError::Http {
            source: HttpError::Dial(DialError::Tls { source, .. }),
            ..
        } if source.to_string().contains("certificate") => {
            "the node was not registered (give the endpoint's ca.pem with --ca, and with --endpoint a host name that \
             the endpoint was started with)"
        }
        _ => "the node was not registered",
    }
}

fn read_ca(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("failed to read the CA file {}", path.display()))
}

/// Makes the state directory and proves it writable; a running daemon must not lose its registration underneath it.
fn prepare(state_dir: &Path) -> anyhow::Result<Flock<fs::File>> {
    make_private_directory(state_dir)
        .with_context(|| format!("failed to make the state directory {}", state_dir.display()))?;
    lock_state_dir(state_dir).context("the node cannot be registered now; stop the agent first")
}

/// A new registration is another node, perhaps of another owner: it must neither run what the old one accepted nor
/// deliver what that has to report.
fn set_journal_aside(state_dir: &Path) -> anyhow::Result<()> {
    for name in ["journal.db", "journal.db-wal", "journal.db-shm"] {
        let path = state_dir.join(name);
        match fs::rename(&path, state_dir.join(format!("{name}.old"))) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(error).with_context(|| format!("failed to set {} aside", path.display()));
            }
        }
    }
    Ok(())
}

/// What the old node recorded is nothing for the endpoint of the new one. What an earlier registration set aside goes.
fn set_spool_aside(state_dir: &Path) -> anyhow::Result<()> {
    let (spool, aside) = (state_dir.join("spool"), state_dir.join("spool.old"));
    if !spool.exists() {
        return Ok(());
    }
    match fs::remove_dir_all(&aside) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("failed to remove {}", aside.display()));
        }
        _ => {}
    }
    fs::rename(&spool, &aside).with_context(|| format!("failed to set {} aside", spool.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recordings_of_the_node_before_are_set_aside_and_not_delivered_by_the_next() {
        let dir = tempfile::tempdir().unwrap();
        set_spool_aside(dir.path()).unwrap();
        for text in ["one", "two"] {
            fs::create_dir(dir.path().join("spool")).unwrap();
            fs::write(dir.path().join("spool/s.open"), text).unwrap();
            set_spool_aside(dir.path()).unwrap();
            assert!(!dir.path().join("spool").exists());
            assert_eq!(
                fs::read_to_string(dir.path().join("spool.old/s.open")).unwrap(),
                text
            );
        }
    }

    fn registrar(state_dir: &Path, endpoint: &str) -> Registrar {
        Registrar {
            state_dir: state_dir.to_owned(),
            endpoint: Some(endpoint.to_owned()),
            ca: None,
            region: None,
            activation_id: "12345678-1234-1234-1234-123456789012".parse().unwrap(),
            activation_code: "code".to_owned(),
            force: false,
        }
    }

    #[tokio::test]
    async fn an_endpoint_that_is_none_is_named_and_no_file_is_blamed() {
        let dir = tempfile::tempdir().unwrap();
        let refused = register(&registrar(dir.path(), "http://127.0.0.1:1")).await;
        let text = format!("{:#}", refused.unwrap_err());
        assert!(
            text.starts_with("endpoint \"http://127.0.0.1:1\" must have the form"),
            "{text}"
        );
    }

    #[test]
    fn where_the_certificate_is_not_trusted_it_is_said_how_to_give_it() {
        let failed = |why: &str| CallError::Http {
            operation: "RegisterManagedInstance",
            source: HttpError::Dial(DialError::Tls {
                endpoint: "https://h".to_owned(),
                source: std::io::Error::other(why.to_owned()),
            }),
        };
        assert!(not_registered(&failed("invalid peer certificate: UnknownIssuer")).contains("--ca"));
        assert!(!not_registered(&failed("unexpected end of file")).contains("--ca"));
    }

    #[tokio::test]
    async fn a_registered_node_is_told_what_force_would_mean_and_keeps_what_it_has() {
        let dir = tempfile::tempdir().unwrap();
        let path = registration_path(dir.path());
        let mut file = fs::File::create(&path).unwrap();
        std::io::Write::write_all(&mut file, b"the registration").unwrap();
        let registrar = registrar(dir.path(), "https://127.0.0.1:1");
        let text = register(&registrar).await.unwrap_err().to_string();
        for part in [path.to_str().unwrap(), "--force", "another id", "deregistered"] {
            assert!(text.contains(part), "{text}");
        }
        assert_eq!(fs::read(&path).unwrap(), b"the registration");
    }
}
