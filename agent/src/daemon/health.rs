//! The health ping: `UpdateInstanceInformation` at start and every five minutes (agent-wire §2.8), and when the policy of
//! the node's owner has changed.

use std::{net::IpAddr, sync::Arc, time::Duration};

use moorline_protocol::error_chain;
use moorline_ssm::node::{UpdateInstanceInformation, UpdateInstanceInformationRequest};
use moorline_transport::CallError;
use nix::{ifaddrs::getifaddrs, sys::socket::SockaddrStorage, unistd::gethostname};
use tokio::time::sleep;

use super::transcript_key;
use crate::policy::{Fingerprint, fingerprint, until_other_than};
use crate::runtime::{AGENT_VERSION, Backoff, NodeContext, random_u32};

/// Between pings; the stock agent's default.
const INTERVAL: Duration = Duration::from_secs(300);

/// Pings for as long as the daemon runs.
pub(super) async fn keep_reporting(context: Arc<NodeContext>) {
    let client = context.registration.api_client();
    let mut credentials = context.credentials.clone();
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(120));
    loop {
        let Ok(current) = credentials
            .wait_for(Option::is_some)
            .await
            .map(|guard| guard.clone())
        else {
            return;
        };
        let policy = fingerprint(&context.config.policy.folder);
        let signed = current.as_ref().map(|role| &role.credentials);
        let pause = match client
            .call::<UpdateInstanceInformation>(signed, &report(&context, &policy))
            .await
        {
            Ok(_) => {
                if let Some(role) = &current {
                    transcript_key::register(&context, &role.credentials).await;
                }
                backoff.reset();
                INTERVAL
            }
            Err(error) => {
                if is_rejection(&error) {
                    context.credentials_rejected.notify_one();
                }
                let pause = backoff.next(random_u32());
                tracing::warn!("health ping failed, next in {pause:.1?}: {}", error_chain(&error));
                pause
            }
        };
        tokio::select! {
            () = sleep(pause) => {}
            // Other endpoints are not told of it.
            () = until_other_than(&context.config.policy.folder, &policy), if context.registration.is_moorline => {}
        }
    }
}

/// The endpoint did not take the credentials, as after its restore from a backup.
fn is_rejection(error: &CallError) -> bool {
    const CODES: [&str; 4] = [
        "AccessDeniedException",
        "ExpiredTokenException",
        "InvalidSignatureException",
        "UnrecognizedClientException",
    ];
    error.code().is_some_and(|code| CODES.contains(&code))
}

fn report(context: &NodeContext, policy: &Fingerprint) -> UpdateInstanceInformationRequest {
    UpdateInstanceInformationRequest {
        agent_name: Some("amazon-ssm-agent".to_owned()),
        agent_status: Some("Active".to_owned()),
        agent_version: Some(AGENT_VERSION.to_owned()),
        computer_name: Some(host_name()),
        ip_address: Some(
            preferred_address(&addresses())
                .map(|ip| ip.to_string())
                .unwrap_or_default(),
        ),
        instance_id: Some(context.instance_id().to_string()),
        platform_name: Some(context.platform.name.clone()),
        platform_type: Some("Linux".into()),
        platform_version: Some(context.platform.version.clone()),
        ssm_connection_channel: Some("ssmmessages".into()),
        // Other endpoints would not know the member.
        moorline_policy: context.registration.is_moorline.then(|| policy.to_string()),
        ..Default::default()
    }
}

fn host_name() -> String {
    gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .unwrap_or_default()
}

fn addresses() -> Vec<IpAddr> {
    let Ok(interfaces) = getifaddrs() else {
        return Vec::new();
    };
    interfaces
        .filter_map(|interface| interface.address.as_ref().and_then(ip))
        .collect()
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    address
        .as_sockaddr_in()
        .map(|v4| v4.ip().into())
        .or_else(|| address.as_sockaddr_in6().map(|v6| v6.ip().into()))
}

/// The stock agent's order: IPv4 that is neither loopback nor link-local, IPv6 likewise, loopback.
fn preferred_address(addresses: &[IpAddr]) -> Option<IpAddr> {
    let rank = |ip: &IpAddr| match ip {
        IpAddr::V4(v4) if !v4.is_loopback() && !v4.is_link_local() => 0,
        IpAddr::V6(v6) if !v6.is_loopback() && !v6.is_unicast_link_local() => 1,
        IpAddr::V4(_) | IpAddr::V6(_) => 2,
    };
    addresses.iter().copied().min_by_key(rank)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_routable_ipv4_address_is_reported_first_and_loopback_last() {
        let parse = |list: &[&str]| -> Vec<IpAddr> { list.iter().map(|ip| ip.parse().unwrap()).collect() };
        let preferred = |list: &[&str]| preferred_address(&parse(list)).map(|ip| ip.to_string());
        assert_eq!(
            preferred(&["127.0.0.1", "fd00::1", "10.1.2.3"]).as_deref(),
            Some("10.1.2.3")
        );
        assert_eq!(
            preferred(&["127.0.0.1", "fe80::1", "fd00::1"]).as_deref(),
            Some("fd00::1")
        );
        assert_eq!(preferred(&["127.0.0.1"]).as_deref(), Some("127.0.0.1"));
        assert_eq!(preferred(&[]), None);
    }
}
