//! `moorline transcript keys`: what an auditor verifies with.

use std::{io::Write as _, path::Path};

use moorline_protocol::public_keys::{Keys, NodeKey, PublicKey};
use moorline_ssm::public_key::{GetPublicKeys, GetPublicKeysRequest};

use crate::{error::CliError, operator::Operator, output_file::OutputFile};

const OPERATION: &str = "GetPublicKeys";

/// Writes the public keys of the endpoint and of all nodes into a file.
pub(super) async fn write(operator: &Operator, path: &Path) -> Result<(), CliError> {
    let keys = fetch(operator).await?;
    let failed = |source| CliError::io(format!("write {}", path.display()), source);
    let mut file = OutputFile::create(path).map_err(failed)?;
    file.write_all(keys.to_file().as_bytes()).map_err(failed)?;
    file.finish().map_err(failed)
}

/// All public keys that the endpoint knows.
pub(super) async fn fetch(operator: &Operator) -> Result<Keys, CliError> {
    let mut keys = Keys::default();
    let mut request = GetPublicKeysRequest::default();
    loop {
        let page = operator.call::<GetPublicKeys>(&request).await?;
        for key in page.endpoint.unwrap_or_default() {
            let key = public_key(key.public_key)?;
            if !keys.endpoint.contains(&key) {
                keys.endpoint.push(key);
            }
        }
        for key in page.nodes.unwrap_or_default() {
            let node = key.instance_id.and_then(|id| id.parse().ok());
            keys.nodes.push(NodeKey {
                node: node.ok_or_else(|| missing("InstanceId"))?,
                key: public_key(key.public_key)?,
            });
        }
        request.next_token = page.next_token.filter(|token| !token.is_empty());
        if request.next_token.is_none() {
            return Ok(keys);
        }
    }
}

fn public_key(base64: Option<String>) -> Result<PublicKey, CliError> {
    base64
        .and_then(|text| PublicKey::from_base64(&text))
        .ok_or_else(|| missing("PublicKey"))
}

fn missing(member: &'static str) -> CliError {
    CliError::Incomplete {
        operation: OPERATION,
        member,
    }
}
