//! `GetPublicKeys`: the public halves of the keys that sign here. Ours, not AWS's.

use moorline_ssm::public_key::{EndpointPublicKey, GetPublicKeysRequest, GetPublicKeysResponse};

use crate::api::{ApiResult, RequestContext};

pub(super) async fn get_public_keys(
    cx: RequestContext,
    _: GetPublicKeysRequest,
) -> ApiResult<GetPublicKeysResponse> {
    let key = cx.app.signing_key.public();
    Ok(GetPublicKeysResponse {
        endpoint: Some(vec![EndpointPublicKey {
            key_id: Some(key.id().to_string()),
            public_key: Some(key.to_base64()),
        }]),
        ..GetPublicKeysResponse::default()
    })
}

#[cfg(test)]
mod tests {
    use moorline_protocol::public_keys::PublicKey;
    use moorline_ssm::public_key::GetPublicKeys;

    use super::*;
    use crate::test_support::TestApp;

    #[tokio::test]
    async fn the_key_that_is_told_verifies_what_the_endpoint_signs() {
        let test = TestApp::new().await;
        let told = test
            .call::<GetPublicKeys>(GetPublicKeysRequest::default())
            .await
            .unwrap();
        let [key] = told.endpoint.unwrap().try_into().unwrap();
        let public = PublicKey::from_base64(&key.public_key.unwrap()).unwrap();
        assert_eq!(key.key_id, Some(public.id().to_string()));
        assert!(public.has_signed(b"text", &test.app.signing_key.sign(b"text")));
    }
}
