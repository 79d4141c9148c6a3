//! The first administrator, and `admin.env`, which points every client at this endpoint.

use super::{
    settings::Settings,
    state_dir::{SECRET, StateDir, StateDirError, replace},
};
use crate::{
    app::Clock,
    auth::{MasterKey, Purpose, random_text},
    store::{AccessKeyRow, Store, StoreError},
};

const ID_ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
const SECRET_ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
const FIRST_USER: &str = "admin";

/// Why clients could not be given what they need.
#[derive(Debug, thiserror::Error)]
pub(super) enum AdminError {
    #[error(
        "the administrator's secret in the store does not open with master.key: \
         the two are not from the same endpoint; restore both from one backup"
    )]
    ForeignMasterKey,
    #[error(transparent)]
    StateDir(#[from] StateDirError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Makes the first administrator, unless there is one, and writes `admin.env` for the port that is listened on.
pub(super) async fn write_environment(
    state_dir: &StateDir,
    store: &Store,
    keys: &MasterKey,
    settings: &Settings,
    port: u16,
    clock: &Clock,
) -> Result<(), AdminError> {
    let (access_key_id, secret) = first_administrator(store, keys, clock.unix_millis()).await?;
    let authority = state_dir.authority_certificate_path().display().to_string();
    let url = format!("https://{}:{port}", settings.url_host());
    let lines = [
        ("AWS_ACCESS_KEY_ID", access_key_id.as_str()),
        ("AWS_SECRET_ACCESS_KEY", secret.as_str()),
        ("AWS_DEFAULT_REGION", settings.region.as_str()),
        ("AWS_ENDPOINT_URL", url.as_str()),
        ("AWS_CA_BUNDLE", authority.as_str()),
        ("SSL_CERT_FILE", authority.as_str()),
    ]
    .map(|(name, value)| format!("export {name}={}\n", quoted(value)));
    replace(
        &state_dir.path().join("admin.env"),
        SECRET,
        lines.concat().as_bytes(),
    )?;
    Ok(())
}

async fn first_administrator(
    store: &Store,
    keys: &MasterKey,
    now: u64,
) -> Result<(String, String), AdminError> {
    if let Some(id) = store.first_access_key().await?
        && let Some(key) = store.access_key(&id).await?
    {
        let secret = keys
            .unseal(Purpose::AccessKeySecret, &id, &key.sealed_secret)
            .ok_or(AdminError::ForeignMasterKey)?;
        return Ok((id, secret));
    }
    let id = format!("AKIA{}", random_text(ID_ALPHABET, 16));
    let secret = random_text(SECRET_ALPHABET, 40);
    let key = AccessKeyRow {
        sealed_secret: keys.seal(Purpose::AccessKeySecret, &id, &secret),
        access_key_id: id.clone(),
        user_name: FIRST_USER.to_owned(),
    };
    store.insert_access_key(&key, now).await?;
    Ok((id, secret))
}

/// One word for a POSIX shell.
fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quoted_value_is_one_word_whatever_it_holds() {
        assert_eq!(quoted("/a b/$x'y"), "'/a b/$x'\\''y'");
    }

    #[tokio::test]
    async fn the_second_start_finds_the_first_administrator() {
        let store = Store::temporary().await;
        let keys = MasterKey::from_bytes(&[1; 32]);
        let first = first_administrator(&store, &keys, 1).await.unwrap();
        assert_eq!(first_administrator(&store, &keys, 2).await.unwrap(), first);
        let other = MasterKey::from_bytes(&[2; 32]);
        let refused = first_administrator(&store, &other, 3).await;
        assert!(matches!(refused, Err(AdminError::ForeignMasterKey)));
    }
}
