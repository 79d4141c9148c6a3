//! `GetPublicKeys`: the public halves of the keys that sign here, and of those that nodes seal with. Ours, not AWS's.

use moorline_ssm::public_key::{
    EndpointPublicKey, GetPublicKeysRequest, GetPublicKeysResponse, NodeSigningKey,
};

use crate::{
    api::{ApiResult, RequestContext, pagination::Listing},
    store::TranscriptKeyRow,
};

/// Keys of nodes in one answer.
const MOST_NODE_KEYS: u32 = 1000;

pub(super) async fn get_public_keys(
    cx: RequestContext,
    input: GetPublicKeysRequest,
) -> ApiResult<GetPublicKeysResponse> {
    let key = cx.app.signing_key.public();
    let listing = Listing::new(&cx, "GetPublicKeys", &());
    let position = listing.position(input.next_token.as_deref())?;
    let behind = position.as_deref().and_then(|position| position.split_once(' '));
    let nodes = cx
        .app
        .store
        .all_transcript_keys(behind, MOST_NODE_KEYS + 1)
        .await?;
    let more = u32::try_from(nodes.len()).is_ok_and(|count| count > MOST_NODE_KEYS);
    let page = nodes.get(..nodes.len() - usize::from(more)).unwrap_or_default();
    let next_token = page
        .last()
        .filter(|_| more)
        .map(|last| listing.token(&format!("{} {}", last.node, last.key.id())));
    Ok(GetPublicKeysResponse {
        endpoint: Some(vec![EndpointPublicKey {
            key_id: Some(key.id().to_string()),
            public_key: Some(key.to_base64()),
        }]),
        nodes: Some(page.iter().map(told).collect()),
        next_token,
    })
}

fn told(row: &TranscriptKeyRow) -> NodeSigningKey {
    NodeSigningKey {
        instance_id: Some(row.node.clone()),
        key_id: Some(row.key.id().to_string()),
        public_key: Some(row.key.to_base64()),
    }
}

#[cfg(test)]
mod tests {
    use moorline_protocol::public_keys::PublicKey;
    use moorline_ssm::public_key::GetPublicKeys;

    use super::*;
    use crate::test_support::{TestApp, node_id};

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

    #[tokio::test]
    async fn every_key_of_every_node_is_told_page_by_page() {
        let test = TestApp::new().await;
        for index in 0..1_001_u32 {
            let mut key = [0; 32];
            key[..4].copy_from_slice(&index.to_be_bytes());
            let (store, node) = (&test.app.store, node_id(index));
            assert!(
                store
                    .register_transcript_key(&node, PublicKey(key), 0)
                    .await
                    .unwrap()
            );
        }
        let mut nodes = Vec::new();
        let mut request = GetPublicKeysRequest::default();
        loop {
            let page = test.call::<GetPublicKeys>(request).await.unwrap();
            nodes.extend(page.nodes.unwrap());
            match page.next_token {
                Some(token) => {
                    request = GetPublicKeysRequest {
                        next_token: Some(token),
                    }
                }
                None => break,
            }
        }
        assert_eq!(nodes.len(), 1_001);
        assert_eq!(nodes[1_000].instance_id.as_deref(), Some(node_id(1_000).as_str()));
    }
}
