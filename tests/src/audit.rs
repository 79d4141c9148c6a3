//! The audit log of an endpoint, as an auditor gets it.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use moorline_protocol::public_keys::{Keys, PublicKey};
use serde_json::Value;

use crate::{Cli, Endpoint};

/// Writes the endpoint's public keys to a file.
///
/// # Errors
/// The endpoint does not tell them.
pub async fn audit_keys(endpoint: &Endpoint) -> Result<PathBuf> {
    let told = endpoint
        .api()
        .post("Moorline.GetPublicKeys", b"{}".to_vec())
        .await?;
    ensure!(told.status == 200, "GetPublicKeys: {}", told.status);
    let told: Value = serde_json::from_slice(&told.body)?;
    let mut keys = Keys::default();
    for key in told["Endpoint"].as_array().context("no key is told")? {
        let key = key["PublicKey"].as_str().and_then(PublicKey::from_base64);
        keys.endpoint.push(key.context("it is no public key")?);
    }
    let path = endpoint.home().join("audit-keys.json");
    std::fs::write(&path, keys.to_file())?;
    Ok(path)
}

/// The records that `moorline audit FILTER` lists.
///
/// # Errors
/// They cannot be listed.
pub async fn audit_records(endpoint: &Endpoint, filter: &[&str]) -> Result<Vec<Value>> {
    let arguments = [&["audit", "--json"], filter].concat();
    let listed = Cli::of(endpoint).run(&arguments).await?.success()?.stdout;
    let record = |line: &str| Ok(serde_json::from_str(line)?);
    listed.lines().map(record).collect()
}
