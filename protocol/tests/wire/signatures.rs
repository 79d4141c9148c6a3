//! Every signature of the captured runs verifies, and none does once a bit is changed.

use moorline_protocol::sigv4::{
    Claim, SignableRequest, SignatureError, is_rsa_public_key, verify_registration,
};
use serde_json::Value;

use crate::vectors::{RUNS, Request, requests};

const ACCESS_KEY_ID: &str = "ASIAPROBE0000000001";
const SECRET_ACCESS_KEY: &str = "sek";
const INSTANCE_ID: &str = "mi-0123456789abcdef0";

/// What the endpoint knows of the node while it reads a run.
#[derive(Default)]
struct Node {
    public_key: String,
}

impl Node {
    fn verify(&self, request: &SignableRequest<'_>) -> Result<(), SignatureError> {
        let claim = Claim::parse(request)?;
        let now = claim.signed_at + 60_000;
        if claim.access_key_id == INSTANCE_ID {
            assert_eq!(claim.session_token, None);
            verify_registration(&claim, request, &self.public_key, now)
        } else {
            assert_eq!(claim.access_key_id, ACCESS_KEY_ID);
            assert_eq!(claim.session_token.as_deref(), Some("probe-session-token"));
            claim.verify(request, SECRET_ACCESS_KEY, now)
        }
    }

    /// Takes the key that a call registers or rotates to.
    fn learn(&mut self, operation: &str, body: &[u8]) {
        let member = match operation {
            "AmazonSSM.RegisterManagedInstance" => "PublicKey",
            "AmazonSSM.UpdateManagedInstancePublicKey" => "NewPublicKey",
            _ => return,
        };
        let body: Value = serde_json::from_slice(body).unwrap();
        body[member].as_str().unwrap().clone_into(&mut self.public_key);
        assert!(is_rsa_public_key(&self.public_key));
    }
}

/// Calls `check` with each signed request that can be checked, and the node as it is then. Returns how many there
/// were, and the operations of those whose body was too long to be kept.
fn for_each_signed(run: &str, mut check: impl FnMut(&Node, &SignableRequest<'_>)) -> (usize, Vec<String>) {
    let mut node = Node::default();
    let (mut checked, mut unchecked) = (0, Vec::new());
    for Request {
        method,
        uri,
        headers,
        body,
    } in &requests(run)
    {
        let borrowed: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let operation = borrowed.iter().find(|(name, _)| *name == "X-Amz-Target");
        let operation = operation.map_or("", |(_, value)| *value);
        let Some(body) = body else {
            unchecked.push(operation.to_owned());
            continue;
        };
        let request = SignableRequest {
            method,
            uri,
            headers: &borrowed,
            body,
        };
        if operation == "AmazonSSM.RegisterManagedInstance" {
            assert_eq!(Claim::parse(&request), Err(SignatureError::Missing));
        } else {
            check(&node, &request);
            checked += 1;
        }
        node.learn(operation, body);
    }
    (checked, unchecked)
}

/// 66 requests are signed; the body of the inventory of each run was not kept.
#[test]
fn captured_signatures_verify() {
    let mut total = 0;
    for run in RUNS {
        let (checked, unchecked) = for_each_signed(run, |node, request| {
            assert_eq!(
                node.verify(request),
                Ok(()),
                "{run} {} {}",
                request.method,
                request.uri
            );
        });
        assert_eq!(unchecked, ["AmazonSSM.PutInventory"]);
        total += checked;
    }
    assert_eq!(total, 64);
}

#[test]
fn captured_signatures_fail_when_a_bit_is_changed() {
    for run in RUNS {
        for_each_signed(run, |node, request| {
            if !request.body.is_empty() {
                let mut body = request.body.to_vec();
                let middle = body.len() / 2;
                body[middle] ^= 1;
                let changed = SignableRequest {
                    body: &body,
                    ..*request
                };
                let refused = node.verify(&changed).unwrap_err();
                let expected = [SignatureError::Mismatch, SignatureError::BodyHash];
                assert!(expected.contains(&refused), "{refused}");
            }
            let claim = Claim::parse(request).unwrap();
            for name in claim
                .signed_headers
                .iter()
                .map(String::as_str)
                .chain(["authorization"])
            {
                let mut headers: Vec<(&str, String)> = request
                    .headers
                    .iter()
                    .map(|(name, value)| (*name, (*value).to_owned()))
                    .collect();
                let (_, value) = headers
                    .iter_mut()
                    .find(|(n, _)| n.eq_ignore_ascii_case(name))
                    .unwrap();
                let Some(last) = value.trim_end_matches('=').chars().last() else {
                    continue;
                };
                // stays a hex digit, a date and a character of base64
                let other = if last == '1' { '0' } else { '1' };
                let end = value.rfind(last).unwrap();
                value.replace_range(end..=end, &other.to_string());
                let headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
                let changed = SignableRequest {
                    headers: &headers,
                    ..*request
                };
                let result = match Claim::parse(&changed) {
                    // the token is checked by the endpoint before the signature
                    Ok(_) if name == "x-amz-security-token" => continue,
                    Ok(_) => node.verify(&changed),
                    Err(refused) => Err(refused),
                };
                assert!(result.is_err(), "{run} {name} {}", request.uri);
            }
        });
    }
}

/// The key of run a is rotated by a call that the old key signs.
#[test]
fn the_rotation_is_signed_with_the_old_key() {
    let rotation = requests(RUNS[0])
        .into_iter()
        .find(|request| request.header("x-amz-target") == Some("AmazonSSM.UpdateManagedInstancePublicKey"))
        .unwrap();
    let mut rotated = Node::default();
    rotated.learn(
        "AmazonSSM.UpdateManagedInstancePublicKey",
        rotation.body.as_ref().unwrap(),
    );
    let headers: Vec<(&str, &str)> = rotation
        .headers
        .iter()
        .map(|(n, v)| (n.as_str(), v.as_str()))
        .collect();
    let request = SignableRequest {
        method: &rotation.method,
        uri: &rotation.uri,
        headers: &headers,
        body: rotation.body.as_ref().unwrap(),
    };
    assert_eq!(rotated.verify(&request), Err(SignatureError::Mismatch));
}
