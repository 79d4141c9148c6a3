//! Two operations of KMS, which make and open the data keys of encrypted sessions, as real KMS would
//! (docs/deviations.md).

mod decrypt;
mod generate_data_key;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use moorline_ssm::{
    ErrorCode,
    kms::{Decrypt, GenerateDataKey, RecipientInfo},
};

use super::{ApiError, ApiResult, Router};
use crate::{auth::Resource, log_lines::shown};

const SESSION_ID: &str = "aws:ssm:SessionId";
const TARGET_ID: &str = "aws:ssm:TargetId";

pub(super) fn routes(router: Router) -> Router {
    router
        .on::<Decrypt, _, _>(
            |input| bound_to(input.encryption_context.as_ref(), input.key_id.as_ref()),
            decrypt::decrypt,
        )
        .on::<GenerateDataKey, _, _>(
            |input| Resource::Key(input.key_id.clone().unwrap_or_default()),
            generate_data_key::generate_data_key,
        )
}

/// What a data key belongs to. It opens for its own context only, so whoever claims another has nothing from it.
fn bound_to(context: Option<&BTreeMap<String, String>>, key_id: Option<&String>) -> Resource {
    let entry = |name| context.and_then(|context| context.get(name));
    match (entry(SESSION_ID), entry(TARGET_ID)) {
        (None, None) => Resource::Key(key_id.cloned().unwrap_or_default()),
        (_, node) => Resource::SessionKey {
            node: node.cloned().unwrap_or_default(),
        },
    }
}

fn no_such_key(key_id: &str) -> ApiError {
    let message = format!("Key '{}' does not exist", shown(key_id));
    ApiError::new(ErrorCode::NotFoundException, message)
}

/// Whoever asks for something that we would not do must not get something else.
fn refuse_extras(dry_run: Option<bool>, recipient: Option<&RecipientInfo>) -> ApiResult<()> {
    if recipient.is_some() {
        return Err(ApiError::validation(
            "Recipient is not supported by this endpoint",
        ));
    }
    if dry_run == Some(true) {
        let message = "The request would have succeeded, but the DryRun option is set.";
        return Err(ApiError::new(ErrorCode::DryRunOperationException, message));
    }
    Ok(())
}
