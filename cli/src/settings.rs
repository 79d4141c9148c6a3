//! Where the endpoint is, whom to trust and who the operator is: the variables and files of the AWS CLI.
//!
//! Where both tell the access key, an explicit profile wins over the variables, and the variables over `AWS_PROFILE`:
//! so does the AWS CLI.

mod ini;

use std::path::PathBuf;

use moorline_protocol::sigv4::Credentials;
use moorline_transport::{Endpoint, EndpointError, Service, Services, TlsError, Trust};

use self::ini::Ini;

/// Shared files are small; a larger one is not ours.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// Why the settings do not suffice.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettingsError {
    #[error("{name} is not set")]
    Missing { name: &'static str },
    #[error("{name} is set, but {other} is not")]
    Half { name: &'static str, other: &'static str },
    #[error("profile {profile:?} has no access key in {}", path.display())]
    NoProfile { profile: String, path: PathBuf },
    #[error("failed to read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the home directory is not known: HOME is not set")]
    NoHome,
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    #[error(transparent)]
    Trust(#[from] TlsError),
}

impl SettingsError {
    /// What sets the missing.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Missing { .. } | Self::Half { .. } => Some(
                "`. DIR/admin.env` sets it, where DIR is the state directory of the control endpoint"
                    .to_owned(),
            ),
            Self::Trust(_) => {
                Some("AWS_CA_BUNDLE must name the endpoint's ca.pem, which `. DIR/admin.env` does".to_owned())
            }
            _ => None,
        }
    }
}

/// Everything that a call needs.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) endpoint: Endpoint,
    /// Where data keys of encrypted sessions are made.
    pub(crate) kms_endpoint: Endpoint,
    pub(crate) region: String,
    pub(crate) credentials: Credentials,
    pub(crate) trust: Trust,
}

/// One environment: that of the process, or a test's.
pub(crate) struct Environment<'a> {
    variable: &'a dyn Fn(&str) -> Option<String>,
    profile: Option<&'a str>,
}

impl Settings {
    /// From the process's environment; `profile` is what the user gave on the command line.
    ///
    /// # Errors
    /// Something is missing or unusable; the error names it.
    pub(crate) fn load(profile: Option<&str>) -> Result<Self, SettingsError> {
        let environment = Environment::of_process(profile);
        let endpoint = Endpoint::parse(&environment.endpoint()?)?;
        let region = environment.region().ok_or(SettingsError::Missing {
            name: "AWS_DEFAULT_REGION",
        })?;
        Ok(Self {
            kms_endpoint: environment.kms_endpoint(&region, &endpoint)?,
            endpoint,
            region,
            credentials: environment.credentials()?,
            trust: environment.trust()?,
        })
    }
}

impl Settings {
    /// For a caller that has told region and endpoint; without an endpoint it is AWS's own.
    ///
    /// # Errors
    /// Something is missing or unusable.
    pub(crate) fn for_plugin(
        profile: Option<&str>,
        region: &str,
        endpoint: Option<&str>,
    ) -> Result<Self, SettingsError> {
        let environment = Environment::of_process(profile);
        let endpoint = match endpoint {
            Some(endpoint) => Endpoint::parse(endpoint)?,
            None => Services::aws(region)?.endpoint(Service::Ssm).clone(),
        };
        Ok(Self {
            kms_endpoint: environment.kms_endpoint(region, &endpoint)?,
            endpoint,
            region: region.to_owned(),
            credentials: environment.credentials()?,
            trust: environment.trust()?,
        })
    }
}

fn process_variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

impl<'a> Environment<'a> {
    /// The variables of this process.
    pub(crate) fn of_process(profile: Option<&'a str>) -> Self {
        Self {
            variable: &process_variable,
            profile,
        }
    }

    fn variable(&self, name: &str) -> Option<String> {
        (self.variable)(name)
    }

    fn profile_name(&self) -> String {
        self.profile
            .map(str::to_owned)
            .or_else(|| self.variable("AWS_PROFILE"))
            .or_else(|| self.variable("AWS_DEFAULT_PROFILE"))
            .unwrap_or_else(|| "default".to_owned())
    }

    fn endpoint(&self) -> Result<String, SettingsError> {
        self.variable("AWS_ENDPOINT_URL_SSM")
            .or_else(|| self.variable("AWS_ENDPOINT_URL"))
            .or_else(|| self.configured("endpoint_url"))
            .ok_or(SettingsError::Missing {
                name: "AWS_ENDPOINT_URL",
            })
    }

    /// Beside an endpoint of ours KMS is at the same place; AWS's own has a host of its own, and callers name AWS's
    /// endpoint of SSM even when the user has named none.
    fn kms_endpoint(&self, region: &str, ssm: &Endpoint) -> Result<Endpoint, SettingsError> {
        let named = self
            .variable("AWS_ENDPOINT_URL_KMS")
            .or_else(|| self.variable("AWS_ENDPOINT_URL"))
            .or_else(|| self.configured("endpoint_url"));
        if let Some(named) = named {
            return Ok(Endpoint::parse(&named)?);
        }
        let aws = Services::aws(region).ok();
        let of_aws = aws.filter(|services| services.endpoint(Service::Ssm) == ssm);
        Ok(of_aws.map_or_else(|| ssm.clone(), |services| services.endpoint(Service::Kms).clone()))
    }

    fn region(&self) -> Option<String> {
        self.variable("AWS_REGION")
            .or_else(|| self.variable("AWS_DEFAULT_REGION"))
            .or_else(|| self.configured("region"))
    }

    /// The certificates that vouch for the endpoint.
    ///
    /// # Errors
    /// The file that a variable names is unusable, or the system has no certificates.
    pub(crate) fn trust(&self) -> Result<Trust, SettingsError> {
        let file = self
            .variable("AWS_CA_BUNDLE")
            .or_else(|| self.variable("SSL_CERT_FILE"))
            .or_else(|| self.configured("ca_bundle"));
        match file {
            Some(file) => Ok(Trust::ca_file(file.as_ref())?),
            None => Ok(Trust::system()?),
        }
    }

    /// The operator's access key.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn credentials(&self) -> Result<Credentials, SettingsError> {
        const ID: &str = "AWS_ACCESS_KEY_ID";
        const SECRET: &str = "AWS_SECRET_ACCESS_KEY";
        if self.profile.is_some() {
            return self.profile_credentials();
        }
        match (self.variable(ID), self.variable(SECRET)) {
            (Some(access_key_id), Some(secret_access_key)) => Ok(Credentials {
                access_key_id,
                secret_access_key,
                session_token: self.variable("AWS_SESSION_TOKEN"),
            }),
            (Some(_), None) => Err(SettingsError::Half {
                name: ID,
                other: SECRET,
            }),
            (None, Some(_)) => Err(SettingsError::Half {
                name: SECRET,
                other: ID,
            }),
            (None, None) => self.profile_credentials().map_err(|error| {
                let is_chosen = self.variable("AWS_PROFILE").is_some();
                if is_chosen {
                    error
                } else {
                    SettingsError::Missing { name: ID }
                }
            }),
        }
    }

    fn profile_credentials(&self) -> Result<Credentials, SettingsError> {
        let path = self.shared_file("AWS_SHARED_CREDENTIALS_FILE", "credentials")?;
        let profile = self.profile_name();
        let ini = read(&path)?;
        let value = |key| ini.value(&profile, key).map(str::to_owned);
        match (value("aws_access_key_id"), value("aws_secret_access_key")) {
            (Some(access_key_id), Some(secret_access_key)) => Ok(Credentials {
                access_key_id,
                secret_access_key,
                session_token: value("aws_session_token"),
            }),
            _ => Err(SettingsError::NoProfile { profile, path }),
        }
    }

    /// A value of the profile in the config file, where there is such a file.
    fn configured(&self, key: &str) -> Option<String> {
        let path = self.shared_file("AWS_CONFIG_FILE", "config").ok()?;
        let ini = read(&path).ok()?;
        let profile = self.profile_name();
        let section = if profile == "default" {
            profile
        } else {
            format!("profile {profile}")
        };
        ini.value(&section, key).map(str::to_owned)
    }

    fn shared_file(&self, variable: &str, name: &str) -> Result<PathBuf, SettingsError> {
        if let Some(path) = self.variable(variable) {
            return Ok(path.into());
        }
        let home = self.variable("HOME").ok_or(SettingsError::NoHome)?;
        Ok(PathBuf::from(home).join(".aws").join(name))
    }
}

fn read(path: &PathBuf) -> Result<Ini, SettingsError> {
    use std::io::Read;
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_FILE_BYTES).read_to_string(&mut text))
        .map_err(|source| SettingsError::Read {
            path: path.clone(),
            source,
        })?;
    Ok(Ini::parse(&text))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn check<T>(variables: &[(&str, &str)], profile: Option<&str>, ask: impl Fn(&Environment<'_>) -> T) -> T {
        let variables: BTreeMap<&str, &str> = variables.iter().copied().collect();
        let variable = |name: &str| variables.get(name).map(|&value| value.to_owned());
        ask(&Environment {
            variable: &variable,
            profile,
        })
    }

    #[test]
    fn a_missing_variable_is_named() {
        let home = tempfile::tempdir().unwrap();
        let home = home.path().to_str().unwrap();
        let error = check(&[("HOME", home)], None, |e| e.endpoint().unwrap_err());
        assert_eq!(error.to_string(), "AWS_ENDPOINT_URL is not set");
        assert!(error.hint().unwrap().contains("admin.env"));
        let error = check(&[("HOME", home)], None, |e| e.credentials().unwrap_err());
        assert_eq!(error.to_string(), "AWS_ACCESS_KEY_ID is not set");
        let variables = [("HOME", home), ("AWS_ACCESS_KEY_ID", "AKIA")];
        let error = check(&variables, None, |e| e.credentials().unwrap_err());
        assert_eq!(
            error.to_string(),
            "AWS_ACCESS_KEY_ID is set, but AWS_SECRET_ACCESS_KEY is not"
        );
    }

    #[test]
    fn the_more_special_variable_wins() {
        let variables = [
            ("AWS_ENDPOINT_URL", "https://general"),
            ("AWS_ENDPOINT_URL_SSM", "https://special"),
            ("AWS_DEFAULT_REGION", "local"),
        ];
        check(&variables, None, |e| {
            assert_eq!(e.endpoint().unwrap(), "https://special");
            assert_eq!(e.region().unwrap(), "local");
        });
    }

    #[test]
    fn kms_is_where_it_is_said_to_be_or_beside_ssm() {
        let home = tempfile::tempdir().unwrap();
        let home = ("HOME", home.path().to_str().unwrap());
        let kms = |variables: &[(&str, &str)], ssm: &str| {
            let ssm = Endpoint::parse(ssm).unwrap();
            let all = [&[home], variables].concat();
            check(&all, None, |e| e.kms_endpoint("eu-west-1", &ssm).unwrap().url())
        };
        let (general, special) = (
            ("AWS_ENDPOINT_URL", "https://general"),
            ("AWS_ENDPOINT_URL_KMS", "https://special"),
        );
        assert_eq!(kms(&[general, special], "https://h:1"), "https://special");
        assert_eq!(kms(&[general], "https://h:1"), "https://general");
        assert_eq!(kms(&[], "https://h:1"), "https://h:1");
        assert_eq!(
            kms(&[], "https://ssm.eu-west-1.amazonaws.com"),
            "https://kms.eu-west-1.amazonaws.com"
        );
    }

    #[test]
    fn an_explicit_profile_wins_over_the_variables() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("keys");
        std::fs::write(
            &file,
            "[default]\naws_access_key_id = D\naws_secret_access_key = d\n\
             [ops]\naws_access_key_id=O\naws_secret_access_key=o\naws_session_token=t\n",
        )
        .unwrap();
        let file = file.to_str().unwrap();
        let key = |variables: &[(&str, &str)], profile| {
            let mut all = vec![("AWS_SHARED_CREDENTIALS_FILE", file)];
            all.extend(variables);
            check(&all, profile, |e| e.credentials().map(|c| c.access_key_id).ok())
        };
        let pair = [("AWS_ACCESS_KEY_ID", "E"), ("AWS_SECRET_ACCESS_KEY", "e")];
        assert_eq!(key(&[], None).as_deref(), Some("D"));
        assert_eq!(key(&pair, None).as_deref(), Some("E"));
        assert_eq!(key(&pair, Some("ops")).as_deref(), Some("O"));
        assert_eq!(key(&[("AWS_PROFILE", "ops")], None).as_deref(), Some("O"));
        assert_eq!(key(&pair, Some("nobody")), None);
    }

    #[test]
    fn the_config_file_may_tell_the_endpoint() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("config");
        std::fs::write(
            &file,
            "[profile ops]\nregion = local\nendpoint_url = https://h:1\n",
        )
        .unwrap();
        let variables = [("AWS_CONFIG_FILE", file.to_str().unwrap())];
        check(&variables, Some("ops"), |e| {
            assert_eq!(e.endpoint().unwrap(), "https://h:1");
            assert_eq!(e.region().unwrap(), "local");
        });
        check(&variables, None, |e| assert!(e.endpoint().is_err()));
    }
}
