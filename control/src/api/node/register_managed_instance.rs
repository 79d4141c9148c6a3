//! `RegisterManagedInstance`: a machine becomes a managed node, with an activation and a key of its own.
//!
//! Not in the public API; agent-only, unsigned: the activation code is the proof. Deviations: tags come from the
//! activation only, `IamRole` and `Tags` of the request are ignored.

use moorline_protocol::{sigv4::is_rsa_public_key, types::InstanceId};
use moorline_ssm::{
    ErrorCode,
    node::{RegisterManagedInstanceRequest, RegisterManagedInstanceResult},
};

use crate::{
    api::{ApiError, ApiResult, RequestContext, activation::is_code},
    auth::random,
    log_lines::Pace,
    store::{NewNode, RegistrationRefusal},
};

/// Anyone may try, so the log takes so many refusals a second. `moorline_registrations_total` counts them all.
static REFUSALS: Pace = Pace::per_second(5);

pub(super) async fn register_managed_instance(
    cx: RequestContext,
    input: RegisterManagedInstanceRequest,
) -> ApiResult<RegisterManagedInstanceResult> {
    let public_key = input.public_key.unwrap_or_default();
    if !is_rsa_public_key(&public_key) {
        let message = "PublicKey is not the base64 of an RSA public key of 2048 to 4096 bits";
        return Err(ApiError::new(ErrorCode::InvalidPublicKey, message));
    }
    let activation_id = input
        .activation_id
        .unwrap_or_default()
        .parse()
        .map_err(|_| wrong_code())?;
    let code = input.activation_code.unwrap_or_default();
    let instance_id = new_instance_id()?;
    let node = NewNode {
        instance_id: instance_id.clone(),
        fingerprint: input.fingerprint.unwrap_or_default(),
        public_key,
        registered_from: cx.peer.map(|peer| peer.to_string()),
    };
    let keys = &cx.app.keys;
    let matches = |hash: &str| is_code(keys, &activation_id, &code, hash);
    let registered = cx
        .app
        .store
        .register_node(&activation_id, &node, cx.now, matches)
        .await?;
    let outcome = if registered.is_ok() {
        "registered"
    } else {
        "refused"
    };
    cx.app
        .metrics
        .counter("moorline_registrations_total", &[("outcome", outcome)])
        .increment();
    if let Err(refusal) = registered {
        if let Some(held_back) = REFUSALS.admit(cx.now) {
            tracing::warn!(activation = %activation_id, peer = ?cx.peer, ?refusal, held_back, "registration refused");
        }
        return Err(refused(refusal));
    }
    tracing::info!(node = %instance_id, activation = %activation_id, peer = ?cx.peer, "node registered");
    Ok(RegisterManagedInstanceResult {
        instance_id: Some(instance_id.to_string()),
    })
}

fn new_instance_id() -> ApiResult<InstanceId> {
    let digits: String = random::<17>()
        .iter()
        .map(|byte| char::from(b"0123456789abcdef"[usize::from(byte & 15)]))
        .collect();
    format!("mi-{digits}").parse().map_err(ApiError::internal)
}

/// One text for an unknown id and for a wrong code, so that ids cannot be tried out.
fn wrong_code() -> ApiError {
    ApiError::new(
        ErrorCode::InvalidActivation,
        "the activation id or code is wrong, or the activation was deleted",
    )
}

fn refused(refusal: RegistrationRefusal) -> ApiError {
    match refusal {
        RegistrationRefusal::WrongCode => wrong_code(),
        RegistrationRefusal::Expired => ApiError::new(
            ErrorCode::ActivationExpired,
            "the activation has expired; ask for a new one",
        ),
        RegistrationRefusal::KeyInUse => ApiError::new(
            ErrorCode::InstanceAlreadyRegistered,
            "a managed node is registered with this key already; register with a fresh key",
        ),
        RegistrationRefusal::LimitReached => ApiError::new(
            ErrorCode::RegistrationLimitExceeded,
            "the activation has registered as many nodes as it may; ask for a new one",
        ),
    }
}

#[cfg(test)]
mod tests {
    use moorline_ssm::{
        activation::{CreateActivation, CreateActivationRequest, CreateActivationResult, Tag},
        node::RegisterManagedInstance,
    };

    use super::*;
    use crate::{
        auth::Principal,
        test_support::{FINGERPRINT, PUBLIC_KEY, TestApp},
    };

    async fn activation(test: &TestApp) -> CreateActivationResult {
        let input = CreateActivationRequest {
            iam_role: Some("role".to_owned()),
            default_instance_name: Some("web".to_owned()),
            tags: Some(vec![Tag {
                key: Some("env".to_owned()),
                value: Some("test".to_owned()),
            }]),
            ..Default::default()
        };
        test.call::<CreateActivation>(input).await.unwrap()
    }

    fn request(activation: &CreateActivationResult) -> RegisterManagedInstanceRequest {
        RegisterManagedInstanceRequest {
            activation_id: activation.activation_id.clone(),
            activation_code: activation.activation_code.clone(),
            fingerprint: Some(FINGERPRINT.to_owned()),
            public_key: Some(PUBLIC_KEY.trim().to_owned()),
            ..Default::default()
        }
    }

    async fn refuse(test: &TestApp, input: RegisterManagedInstanceRequest) -> ErrorCode {
        test.refuse_as::<RegisterManagedInstance>(Principal::Anonymous, input)
            .await
            .code
    }

    #[tokio::test]
    async fn a_machine_with_the_code_becomes_a_node_with_the_activations_name_and_tags() {
        let test = TestApp::new().await;
        let activation = activation(&test).await;
        let reply = test
            .call_as::<RegisterManagedInstance>(Principal::Anonymous, request(&activation))
            .await;
        let id: InstanceId = reply.unwrap().instance_id.unwrap().parse().unwrap();
        let node = test.app.store.node(&id).await.unwrap().unwrap();
        assert_eq!(node.name.as_deref(), Some("web"));
        assert_eq!(node.tags.get("env").map(String::as_str), Some("test"));
        assert_eq!(node.fingerprint, FINGERPRINT);
        let listed = test.app.store.activations().await.unwrap();
        assert_eq!(listed[0].registrations_count, 1);
    }

    #[tokio::test]
    async fn a_used_up_activation_registers_nobody() {
        let test = TestApp::new().await;
        let activation = activation(&test).await;
        test.call_as::<RegisterManagedInstance>(Principal::Anonymous, request(&activation))
            .await
            .unwrap();
        assert_eq!(
            refuse(&test, request(&activation)).await,
            ErrorCode::RegistrationLimitExceeded
        );
    }

    #[tokio::test]
    async fn an_expired_activation_registers_nobody() {
        let test = TestApp::new().await;
        let activation = activation(&test).await;
        test.advance_millis(24 * 60 * 60 * 1000);
        assert_eq!(
            refuse(&test, request(&activation)).await,
            ErrorCode::ActivationExpired
        );
    }

    #[tokio::test]
    async fn a_wrong_code_and_an_unknown_activation_are_not_told_apart() {
        let test = TestApp::new().await;
        let activation = activation(&test).await;
        let wrong = RegisterManagedInstanceRequest {
            activation_code: Some("01234567890123456789".to_owned()),
            ..request(&activation)
        };
        let unknown = RegisterManagedInstanceRequest {
            activation_id: Some("00000000-0000-0000-0000-000000000000".to_owned()),
            ..request(&activation)
        };
        let wrong = test
            .refuse_as::<RegisterManagedInstance>(Principal::Anonymous, wrong)
            .await;
        let unknown = test
            .refuse_as::<RegisterManagedInstance>(Principal::Anonymous, unknown)
            .await;
        assert_eq!(wrong.code, ErrorCode::InvalidActivation);
        assert_eq!((wrong.code, wrong.message), (unknown.code, unknown.message));
    }

    #[tokio::test]
    async fn a_wrong_code_waits_for_no_writer() {
        let test = TestApp::new().await;
        let activation = activation(&test).await;
        let wrong = RegisterManagedInstanceRequest {
            activation_code: Some("01234567890123456789".to_owned()),
            ..request(&activation)
        };
        let _writing = test.app.store.writer.begin().await.unwrap();
        let refused = tokio::time::timeout(std::time::Duration::from_secs(20), refuse(&test, wrong)).await;
        assert_eq!(refused.unwrap(), ErrorCode::InvalidActivation);
    }

    #[tokio::test]
    async fn a_key_that_is_no_rsa_key_or_is_taken_is_refused() {
        let test = TestApp::new().await;
        let first = activation(&test).await;
        let input = RegisterManagedInstanceRequest {
            public_key: Some("AAAA".to_owned()),
            ..request(&first)
        };
        assert_eq!(refuse(&test, input).await, ErrorCode::InvalidPublicKey);
        test.call_as::<RegisterManagedInstance>(Principal::Anonymous, request(&first))
            .await
            .unwrap();
        let second = activation(&test).await;
        assert_eq!(
            refuse(&test, request(&second)).await,
            ErrorCode::InstanceAlreadyRegistered
        );
        let listed = test.app.store.activations().await.unwrap();
        assert_eq!(listed.iter().map(|one| one.registrations_count).sum::<i64>(), 1);
    }
}
