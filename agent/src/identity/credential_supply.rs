//! A supply of role credentials that renews itself: a worker is handed a set, and the daemon may be gone when that runs
//! out.

use moorline_protocol::sigv4::Credentials;
use tokio::sync::Mutex;

use super::{Registration, RoleCredentialsError};
use crate::runtime::RoleCredentials;

/// Credentials that end sooner are not used any more: the request still has to travel, and clocks differ.
const MARGIN_MILLIS: u64 = 60_000;

/// Role credentials, renewed when needed.
#[derive(Debug)]
pub(crate) struct CredentialSupply {
    current: Mutex<Option<RoleCredentials>>,
}

impl CredentialSupply {
    pub(crate) fn new(handed: Option<RoleCredentials>) -> Self {
        Self {
            current: Mutex::new(handed),
        }
    }

    /// Newer ones.
    pub(crate) async fn hand(&self, credentials: Option<RoleCredentials>) {
        *self.current.lock().await = credentials;
    }

    /// Credentials that are still good.
    ///
    /// # Errors
    /// They had to be renewed, and the endpoint refused or could not be reached.
    pub(crate) async fn valid(
        &self,
        registration: &Registration,
    ) -> Result<Credentials, RoleCredentialsError> {
        let mut current = self.current.lock().await;
        if let Some(held) = current
            .as_ref()
            .filter(|held| is_good(held, registration.endpoint_millis()))
        {
            return Ok(held.credentials.clone());
        }
        let renewed = registration.request_role_credentials().await?;
        let credentials = renewed.credentials.clone();
        *current = Some(renewed);
        Ok(credentials)
    }

    /// The endpoint did not accept these: the next request begins with new ones.
    pub(crate) async fn reject(&self, rejected: &Credentials) {
        let mut current = self.current.lock().await;
        if current.as_ref().is_some_and(|held| held.credentials == *rejected) {
            *current = None;
        }
    }
}

fn is_good(held: &RoleCredentials, now: u64) -> bool {
    held.expires_at > now.saturating_add(MARGIN_MILLIS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_rejected_credentials_are_thrown_away() {
        let credentials = |key: &str| Credentials {
            access_key_id: key.to_owned(),
            secret_access_key: String::new(),
            session_token: None,
        };
        let held = RoleCredentials {
            credentials: credentials("NEW"),
            expires_at: u64::MAX,
        };
        let supply = CredentialSupply::new(Some(held.clone()));
        supply.reject(&credentials("OLD")).await;
        assert_eq!(*supply.current.lock().await, Some(held));
        supply.reject(&credentials("NEW")).await;
        assert_eq!(*supply.current.lock().await, None);
    }

    #[test]
    fn credentials_that_are_about_to_end_are_not_used() {
        let ends = |expires_at| RoleCredentials {
            credentials: Credentials {
                access_key_id: String::new(),
                secret_access_key: String::new(),
                session_token: None,
            },
            expires_at,
        };
        assert!(is_good(&ends(160_000), 99_999));
        assert!(!is_good(&ends(160_000), 100_000));
        assert!(!is_good(&ends(0), 100_000));
    }
}
