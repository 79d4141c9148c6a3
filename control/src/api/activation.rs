//! Hybrid activations: the id and code with which a machine becomes a managed node.

mod create_activation;
mod delete_activation;
mod describe_activations;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use moorline_protocol::types::ActivationId;
use moorline_ssm::activation::{CreateActivation, DeleteActivation, DescribeActivations};

use super::Router;
use crate::auth::{MasterKey, Purpose, Resource};

pub(super) fn routes(router: Router) -> Router {
    router
        .on::<CreateActivation, _, _>(|_| Resource::Any, create_activation::create_activation)
        .on::<DeleteActivation, _, _>(
            |input| Resource::Activation(input.activation_id.clone().unwrap_or_default()),
            delete_activation::delete_activation,
        )
        .on::<DescribeActivations, _, _>(|_| Resource::Any, describe_activations::describe_activations)
}

/// What is kept of an activation code: its keyed hash, together with the id it belongs to.
fn code_hash(keys: &MasterKey, id: &ActivationId, code: &str) -> String {
    URL_SAFE_NO_PAD.encode(keys.mac(Purpose::ActivationCode, &code_message(id, code)))
}

/// Whether this is the code, in constant time.
pub(super) fn is_code(keys: &MasterKey, id: &ActivationId, code: &str, hash: &str) -> bool {
    let tag = URL_SAFE_NO_PAD.decode(hash).unwrap_or_default();
    keys.is_mac(Purpose::ActivationCode, &code_message(id, code), &tag)
}

fn code_message(id: &ActivationId, code: &str) -> Vec<u8> {
    format!("{id} {code}").into_bytes()
}
