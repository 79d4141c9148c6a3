//! `{{ssm-secure:NAME}}` in a script: the value of a SecureString reaches the script's environment, and nothing else of
//! ours. Off, unless the node's owner names parameters in `[command] secure_parameters`.
//!
//! In the text of a script the reference becomes `${MOORLINE_SECRET_n}`, which the shell looks up (in PowerShell `${env:…}`); the whole value of an
//! `environment` input becomes the variable's value. So what is in files, in the journal and in arguments is the
//! reference.

use std::{collections::BTreeMap, fmt, sync::LazyLock, time::Duration};

use moorline_ssm::parameter::{GetParameter, GetParameterRequest, ParameterType};
use moorline_transport::CallError;
use regex::{Captures, Regex};

use super::script::Language;
use crate::{
    command::worker::WorkerTask,
    identity::{Registration, RegistrationError, RoleCredentialsError},
    runtime::{Backoff, random_u32},
};

/// Parameters that one script can name.
const MOST_NAMES: usize = 10;
/// Pauses between attempts to reach the endpoint.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(4);
/// Attempts to reach it.
const ATTEMPTS: u32 = 6;

/// A reference and what it names (documents.md §1.4).
static REFERENCE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"\{\{ *ssm-secure:([0-9A-Za-z_.:/-]+) *\}\}").expect("the pattern is constant and tested")
});

/// Why a script does not get what it names. No text of these has a value in it.
#[derive(Debug, thiserror::Error)]
pub(super) enum SecureParameterError {
    #[error(
        "the script names the parameter {0}, which this node's owner does not let documents read: [command] \
         secure_parameters in agent.toml"
    )]
    NotAllowed(String),
    #[error("the script names {0} parameters; {MOST_NAMES} is the limit")]
    TooMany(usize),
    #[error("the registration cannot be used to read parameter {name}")]
    Registration {
        name: String,
        #[source]
        source: RegistrationError,
    },
    #[error("there are no role credentials to read parameter {name}")]
    Credentials {
        name: String,
        #[source]
        source: RoleCredentialsError,
    },
    #[error("parameter {name} could not be read")]
    Call {
        name: String,
        #[source]
        source: CallError,
    },
    #[error("secure prefix ssm-secure: is used for a non-secure type: parameter {0}")]
    NotSecure(String),
    #[error("parameter {0} has a value that no environment variable can have")]
    Value(String),
}

/// A script with its environment, without references.
pub(super) struct Revealed {
    pub(super) script: String,
    /// Some of the values are secret.
    pub(super) environment: Vec<(String, String)>,
    /// Those values.
    pub(super) secrets: Vec<String>,
}

impl fmt::Debug for Revealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.environment.iter().map(|(name, _)| name);
        f.debug_list().entries(names).finish()
    }
}

/// What a script names, in the order in which it does.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Named(Vec<String>);

impl Named {
    fn of(script: &str, environment: &[(String, String)]) -> Result<Self, SecureParameterError> {
        let mut names: Vec<String> = Vec::new();
        let in_script = REFERENCE
            .captures_iter(script)
            .map(|captures| captures[1].to_owned());
        let in_environment = environment.iter().filter_map(|(_, value)| whole(value));
        for name in in_script.chain(in_environment) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        match names.len() {
            count if count > MOST_NAMES => Err(SecureParameterError::TooMany(count)),
            _ => Ok(Self(names)),
        }
    }

    /// Every name has to match one of the owner's patterns, whatever its version or label.
    fn check(&self, allowed: &[String]) -> Result<(), SecureParameterError> {
        let refused = self.0.iter().find(|name| {
            let plain = name.split(':').next().unwrap_or_default();
            !allowed.iter().any(|pattern| matches(pattern, plain))
        });
        refused.map_or(Ok(()), |name| Err(SecureParameterError::NotAllowed(name.clone())))
    }

    fn reveal(
        &self,
        language: Language,
        script: &str,
        environment: Vec<(String, String)>,
        values: &BTreeMap<String, String>,
    ) -> Revealed {
        let text = REFERENCE.replace_all(script, |captures: &Captures<'_>| {
            let position = self.0.iter().position(|name| *name == captures[1]);
            language.looked_up(&variable(position.unwrap_or_default()))
        });
        let mut revealed: Vec<(String, String)> = environment
            .into_iter()
            .map(|(variable, text)| {
                let value = whole(&text).and_then(|name| values.get(&name).cloned());
                (variable, value.unwrap_or(text))
            })
            .collect();
        let numbered = self.0.iter().enumerate();
        revealed.extend(
            numbered.filter_map(|(position, name)| Some((variable(position), values.get(name)?.clone()))),
        );
        Revealed {
            script: text.into_owned(),
            environment: revealed,
            secrets: values.values().cloned().collect(),
        }
    }
}

/// The name of the only reference of a text, if the text is nothing else.
fn whole(text: &str) -> Option<String> {
    let captures = REFERENCE.captures(text)?;
    (captures[0].len() == text.len()).then(|| captures[1].to_owned())
}

fn variable(position: usize) -> String {
    format!("MOORLINE_SECRET_{}", position + 1)
}

/// A pattern is a name, or ends with `*`, which stands for anything.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == pattern,
    }
}

/// Reads what a script names and puts it into its environment.
///
/// # Errors
/// The owner does not allow a name, or a value cannot be had.
pub(super) async fn reveal(
    language: Language,
    script: &str,
    environment: Vec<(String, String)>,
    task: &WorkerTask,
) -> Result<Revealed, SecureParameterError> {
    let named = Named::of(script, &environment)?;
    named.check(&task.secure_parameters)?;
    let mut values = BTreeMap::new();
    for name in &named.0 {
        values.insert(name.clone(), read(name, task).await?);
    }
    Ok(named.reveal(language, script, environment, &values))
}

async fn read(name: &str, task: &WorkerTask) -> Result<String, SecureParameterError> {
    let registration =
        Registration::load(&task.state_dir).map_err(|source| SecureParameterError::Registration {
            name: name.to_owned(),
            source,
        })?;
    let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
    let mut attempt = 1;
    loop {
        match read_once(name, &registration).await {
            Err(error) if error.is_passing() && attempt < ATTEMPTS => {
                attempt += 1;
                tokio::time::sleep(backoff.next(random_u32())).await;
            }
            result => return result,
        }
    }
}

impl SecureParameterError {
    /// Whether the endpoint could not be reached, rather than has refused.
    fn is_passing(&self) -> bool {
        match self {
            Self::Call { source, .. }
            | Self::Credentials {
                source: RoleCredentialsError::Call(source),
                ..
            } => match source {
                CallError::Http { .. } => true,
                CallError::Service { source, .. } => source.status >= 500,
                CallError::Shape { .. } => false,
            },
            _ => false,
        }
    }
}

async fn read_once(name: &str, registration: &Registration) -> Result<String, SecureParameterError> {
    let role = registration.request_role_credentials().await.map_err(|source| {
        SecureParameterError::Credentials {
            name: name.to_owned(),
            source,
        }
    })?;
    let request = GetParameterRequest {
        name: Some(name.to_owned()),
        with_decryption: Some(true),
    };
    let reply = registration
        .api_client()
        .call::<GetParameter>(Some(&role.credentials), &request)
        .await
        .map_err(|source| SecureParameterError::Call {
            name: name.to_owned(),
            source,
        })?;
    let parameter = reply.parameter.unwrap_or_default();
    if parameter.r#type != Some(ParameterType::SecureString) {
        return Err(SecureParameterError::NotSecure(name.to_owned()));
    }
    let value = parameter.value.unwrap_or_default();
    if value.contains('\0') {
        return Err(SecureParameterError::Value(name.to_owned()));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(value: &str) -> Vec<(String, String)> {
        vec![("DB".to_owned(), value.to_owned())]
    }

    #[test]
    fn a_script_names_what_it_names_once_and_gets_variables_for_it() {
        let script = "a {{ssm-secure:/x}} \"{{ ssm-secure:/y:2 }}\" {{ssm-secure:/x}} {{ssm:/z}}";
        let named = Named::of(script, &environment("{{ssm-secure:/w}}")).unwrap();
        assert_eq!(named.0, ["/x", "/y:2", "/w"]);
        let values = ["/x", "/y:2", "/w"].map(|name| (name.to_owned(), format!("value of {name} ${{1}}")));
        let revealed = named.reveal(
            Language::Shell,
            script,
            environment("{{ssm-secure:/w}}"),
            &values.into(),
        );
        let text = "a ${MOORLINE_SECRET_1} \"${MOORLINE_SECRET_2}\" ${MOORLINE_SECRET_1} {{ssm:/z}}";
        assert_eq!(revealed.script, text);
        assert!(
            revealed
                .environment
                .contains(&("DB".to_owned(), "value of /w ${1}".to_owned()))
        );
        assert!(
            revealed
                .environment
                .contains(&("MOORLINE_SECRET_2".to_owned(), "value of /y:2 ${1}".to_owned()))
        );
        assert!(!format!("{revealed:?}").contains("value of"));
    }

    #[test]
    fn a_variable_that_holds_more_than_a_reference_is_left_alone() {
        let named = Named::of("", &environment("x{{ssm-secure:/w}}")).unwrap();
        assert_eq!(named.0, [""; 0]);
    }

    #[test]
    fn the_owner_allows_by_name_or_by_what_a_name_begins_with_and_nothing_by_default() {
        let named = Named::of("{{ssm-secure:/db/pass:3}}", &[]).unwrap();
        let allowed = |patterns: &[&str]| {
            let patterns: Vec<String> = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
            named.check(&patterns).is_ok()
        };
        assert!(allowed(&["/db/pass"]) && allowed(&["/x", "/db/*"]) && allowed(&["*"]));
        for patterns in [&[][..], &["/db"], &["/db/"], &["/db/passw*"], &["/db/*x"]] {
            assert!(!allowed(patterns), "{patterns:?}");
        }
    }

    #[test]
    fn eleven_parameters_are_too_many() {
        let script: String = (0..11)
            .map(|number| format!("{{{{ssm-secure:p{number}}}}}"))
            .collect();
        assert!(matches!(
            Named::of(&script, &[]),
            Err(SecureParameterError::TooMany(11))
        ));
    }
}
