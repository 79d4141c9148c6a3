//! The registration: one file with the node's id and private key, mode 0600.

use std::{
    fs,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use moorline_protocol::{
    sigv4::{self, Credentials, SignableRequest},
    types::InstanceId,
};
use moorline_ssm::{
    Operation,
    node::{RequestManagedInstanceRoleToken, RequestManagedInstanceRoleTokenRequest},
};
use moorline_transport::{
    ApiClient, CallError, Endpoint, EndpointError, HttpClient, Service, Services, TlsError, Trust,
};
use serde::{Deserialize, Serialize};

use super::{KeyError, NodeKey, fingerprint::fingerprint};
use crate::runtime::{AGENT_VERSION, RoleCredentials};

/// Why there is no usable registration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RegistrationError {
    #[error("this node is not registered: {path} does not exist; run `moorline-agent register` first")]
    Missing { path: PathBuf },
    #[error("failed to read {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{path} is not a registration; restore it, or register the node anew")]
    Malformed {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("failed to write {path}")]
    Write {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{path} holds an unusable endpoint")]
    Endpoint {
        path: PathBuf,
        #[source]
        source: EndpointError,
    },
    #[error("{path} holds unusable certificates")]
    Trust {
        path: PathBuf,
        #[source]
        source: TlsError,
    },
    #[error("{path} holds an unusable key")]
    Key {
        path: PathBuf,
        #[source]
        source: KeyError,
    },
}

/// Why no role credentials came.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RoleCredentialsError {
    #[error("failed to sign with the registration key")]
    Sign(#[source] KeyError),
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("the endpoint's answer lacks {0}")]
    Incomplete(&'static str),
}

/// Where the node belongs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Home {
    /// A Moorline endpoint; `ca_pem` replaces the system's certificates when present.
    Endpoint { url: String, ca_pem: Option<String> },
    /// AWS Systems Manager in the registration's region.
    Aws,
}

/// The file's content. Its private key is why the file is 0600.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct RegistrationFile {
    /// Version of this layout.
    pub(crate) format: u32,
    pub(crate) instance_id: InstanceId,
    pub(crate) region: String,
    pub(crate) home: Home,
    pub(crate) fingerprint_salt: String,
    pub(crate) private_key: String,
    pub(crate) public_key: String,
}

impl std::fmt::Debug for RegistrationFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RegistrationFile")
            .field("instance_id", &self.instance_id)
            .finish_non_exhaustive()
    }
}

/// The layout that this version writes and reads.
pub(crate) const REGISTRATION_FORMAT: u32 = 1;

/// Where the registration is kept.
pub(crate) fn registration_path(state_dir: &Path) -> PathBuf {
    state_dir.join("registration.json")
}

impl RegistrationFile {
    /// Writes the file atomically: a crash leaves the old one or the new one, on disk.
    pub(crate) fn store(&self, state_dir: &Path) -> Result<(), RegistrationError> {
        let path = registration_path(state_dir);
        let temporary = state_dir.join("registration.json.new");
        let write = || -> std::io::Result<()> {
            let mut file = fs::OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&temporary)?;
            file.write_all(&serde_json::to_vec_pretty(self)?)?;
            file.sync_all()?;
            fs::rename(&temporary, &path)?;
            fs::File::open(state_dir)?.sync_all()
        };
        write().map_err(|source| RegistrationError::Write {
            path: path.clone(),
            source,
        })
    }
}

/// A node that was registered by an activation.
#[derive(Debug)]
pub(crate) struct Registration {
    pub(crate) instance_id: InstanceId,
    /// Region that requests are signed for.
    pub(crate) region: String,
    pub(crate) services: Services,
    pub(crate) trust: Trust,
    /// Whether the endpoint is Moorline's (`--endpoint`) and not AWS (`--region`): our extensions go to ours only.
    pub(crate) is_moorline: bool,
    key: NodeKey,
    fingerprint: String,
}

impl Home {
    /// Where the services are, and whom to trust for them.
    pub(crate) fn resolve(&self, region: &str, path: &Path) -> Result<(Services, Trust), RegistrationError> {
        let endpoint = |source| RegistrationError::Endpoint {
            path: path.to_owned(),
            source,
        };
        let trust = |source| RegistrationError::Trust {
            path: path.to_owned(),
            source,
        };
        match self {
            Self::Endpoint { url, ca_pem } => {
                let services = Services::one(Endpoint::parse(url).map_err(endpoint)?);
                let trusted = match ca_pem {
                    Some(pem) => Trust::ca_pem(pem.as_bytes(), path),
                    None => Trust::system(),
                };
                Ok((services, trusted.map_err(trust)?))
            }
            Self::Aws => Ok((
                Services::aws(region).map_err(endpoint)?,
                Trust::system().map_err(trust)?,
            )),
        }
    }
}

impl Registration {
    /// Reads `STATE_DIR/registration.json`. Only reads: a worker does this too, with the disk full.
    ///
    /// # Errors
    /// The file is missing, unreadable, or not a registration.
    pub(crate) fn load(state_dir: &Path) -> Result<Self, RegistrationError> {
        let path = registration_path(state_dir);
        let text = fs::read(&path).map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => RegistrationError::Missing { path: path.clone() },
            _ => RegistrationError::Read {
                path: path.clone(),
                source,
            },
        })?;
        let file: RegistrationFile = serde_json::from_slice(&text)
            .and_then(|file: RegistrationFile| match file.format {
                REGISTRATION_FORMAT => Ok(file),
                other => Err(serde::de::Error::custom(format!(
                    "format {other} is newer than this agent"
                ))),
            })
            .map_err(|source| RegistrationError::Malformed {
                path: path.clone(),
                source,
            })?;
        let (services, trust) = file.home.resolve(&file.region, &path)?;
        let key = NodeKey::from_base64(&file.private_key)
            .map_err(|source| RegistrationError::Key { path, source })?;
        Ok(Self {
            instance_id: file.instance_id,
            region: file.region,
            services,
            trust,
            is_moorline: matches!(file.home, Home::Endpoint { .. }),
            key,
            fingerprint: fingerprint(&file.fingerprint_salt),
        })
    }

    /// Milliseconds since the Unix epoch by the endpoint's clock: what it says about time is compared with this.
    pub(crate) fn endpoint_millis(&self) -> u64 {
        self.services.endpoint(Service::SsmMessages).unix_millis()
    }

    /// A client of the SSM API for this node.
    pub(crate) fn api_client(&self) -> ApiClient {
        self.client_of(Service::Ssm)
    }

    /// A client of KMS for this node.
    pub(crate) fn kms_client(&self) -> ApiClient {
        self.client_of(Service::Kms)
    }

    fn client_of(&self, service: Service) -> ApiClient {
        let http = HttpClient::new(self.services.endpoint(service).clone(), self.trust.clone());
        ApiClient::new(
            http,
            self.region.clone(),
            format!("moorline-agent/{}", AGENT_VERSION),
        )
    }

    /// Asks for role credentials, signed with the registration key (agent-wire §2.5).
    ///
    /// # Errors
    /// The endpoint refused, or could not be reached.
    pub(crate) async fn request_role_credentials(&self) -> Result<RoleCredentials, RoleCredentialsError> {
        let input = RequestManagedInstanceRoleTokenRequest {
            fingerprint: Some(self.fingerprint.clone()),
        };
        let body = Bytes::from(RequestManagedInstanceRoleToken::encode_input(&input));
        let client = self.api_client();
        let authority = client.http().endpoint().authority();
        let sign = |now| {
            let mut headers = vec![
                ("host".to_owned(), authority.clone()),
                ("content-type".to_owned(), "application/x-amz-json-1.1".to_owned()),
                (
                    "x-amz-target".to_owned(),
                    "AmazonSSM.RequestManagedInstanceRoleToken".to_owned(),
                ),
            ];
            let borrowed: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            let request = SignableRequest {
                method: "POST",
                uri: "/",
                headers: &borrowed,
                body: &body,
            };
            let sign = |text: &[u8]| self.key.sign_pss(text);
            let signed =
                sigv4::sign_registration(&request, self.instance_id.as_str(), &self.region, now, sign)
                    .map_err(RoleCredentialsError::Sign)?;
            headers.extend(signed);
            Ok::<_, RoleCredentialsError>(headers)
        };
        let output = client
            .post::<RequestManagedInstanceRoleToken, _>(&body, sign)
            .await?;
        let lacks = RoleCredentialsError::Incomplete;
        Ok(RoleCredentials {
            credentials: Credentials {
                access_key_id: output.access_key_id.ok_or_else(|| lacks("AccessKeyId"))?,
                secret_access_key: output.secret_access_key.ok_or_else(|| lacks("SecretAccessKey"))?,
                session_token: Some(output.session_token.ok_or_else(|| lacks("SessionToken"))?),
            },
            expires_at: output
                .token_expiration_date
                .ok_or_else(|| lacks("TokenExpirationDate"))?
                .millis(),
        })
    }
}
