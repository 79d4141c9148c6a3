//! Where a port session may lead. It is decided by the address that is dialled, whatever name or spelling led to it.

use std::net::IpAddr;

use crate::{
    config::{ConfigError, ForwardConfig, networks},
    policy::{Destination, Refusal},
    runtime::{Network, canonical, embedded},
    session::owner_policy::Leave,
};

/// What clouds serve to whoever asks from within a machine: credentials above all. Link-local networks as a whole,
/// since most of it lives there, and what some have elsewhere.
const METADATA: [&str; 8] = [
    "169.254.0.0/16",
    "fe80::/10",
    "fd00:ec2::/32",
    "fd20:ce::254",
    "168.63.129.16",
    "100.100.100.200",
    "192.0.0.192",
    "fd00:42::42",
];

/// The node owner's settings, and what is never allowed.
#[derive(Debug)]
pub(in crate::session) struct ForwardPolicy {
    remote: bool,
    allow: Vec<Network>,
    deny: Vec<Network>,
    /// Asked about what the settings allow.
    leave: Option<Leave>,
}

impl ForwardPolicy {
    /// # Errors
    /// A setting names no network.
    pub(in crate::session) fn new(config: &ForwardConfig) -> Result<Self, ConfigError> {
        let mut deny = networks("forward.deny", &config.deny)?;
        deny.extend(METADATA.iter().map(|text| {
            text.parse::<Network>()
                .expect("the metadata networks are networks")
        }));
        Ok(Self {
            remote: config.remote,
            allow: networks("forward.allow", &config.allow)?,
            deny,
            leave: None,
        })
    }

    /// With the policy of the session besides.
    pub(in crate::session) fn asking(self, leave: Leave) -> Self {
        Self {
            leave: Some(leave),
            ..self
        }
    }

    /// Whether the owner's policy may let the session lead there.
    ///
    /// # Errors
    /// It does not in any case.
    pub(super) fn foresee(&self, destination: Destination<'_>) -> Result<(), Refusal> {
        match &self.leave {
            Some(leave) => leave.foresee(destination),
            None => Ok(()),
        }
    }

    /// Whether the owner's policy lets the session lead there.
    ///
    /// # Errors
    /// It does not.
    pub(super) fn permit(&self, destination: Destination<'_>) -> Result<(), Refusal> {
        match &self.leave {
            Some(leave) => leave.permit_destination(destination),
            None => Ok(()),
        }
    }

    /// Whether connections may go to this address.
    pub(super) fn allows(&self, address: IpAddr) -> bool {
        let reached = canonical(address);
        let forms = [Some(address), Some(reached), embedded(reached).map(IpAddr::V4)];
        let is_denied = forms
            .into_iter()
            .flatten()
            .any(|form| self.deny.iter().any(|network| network.contains(form)));
        if is_denied {
            return false;
        }
        // this node itself
        if reached.is_loopback() {
            return true;
        }
        self.remote && (self.allow.is_empty() || self.allow.iter().any(|network| network.contains(reached)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(remote: bool, allow: &[&str], deny: &[&str]) -> ForwardPolicy {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        ForwardPolicy::new(&ForwardConfig {
            remote,
            allow: texts(allow),
            deny: texts(deny),
            ..ForwardConfig::default()
        })
        .unwrap()
    }

    #[track_caller]
    fn check(policy: &ForwardPolicy, cases: &[(&str, bool)]) {
        for (address, expected) in cases {
            assert_eq!(policy.allows(address.parse().unwrap()), *expected, "{address}");
        }
    }

    #[test]
    fn no_form_of_a_metadata_address_is_reached() {
        let open = policy(true, &["0.0.0.0/0", "::/0"], &[]);
        for address in [
            "169.254.169.254",
            "169.254.169.253",
            "169.254.169.123",
            "169.254.169.250",
            "169.254.169.251",
            "169.254.170.2",
            "169.254.170.23",
            "fd00:ec2::254",
            "fd00:ec2::253",
            "fd00:ec2::240",
            "fd00:ec2::23",
            "fe80::a9fe:a9fe",
            "168.63.129.16",
            "100.100.100.200",
            "192.0.0.192",
            "::ffff:169.254.169.254",
            "::169.254.169.254",
            "64:ff9b::169.254.169.254",
            "64:ff9b:1::169.254.169.254",
            "2002:a9fe:a9fe::1",
            "2001:0:1:2:3:4:5601:5601",
            "::ffff:168.63.129.16",
        ] {
            check(&open, &[(address, false)]);
        }
        check(
            &open,
            &[
                ("10.1.2.3", true),
                ("127.0.0.1", true),
                ("::1", true),
                ("2001:db8::1", true),
                ("169.253.169.254", true),
            ],
        );
    }

    #[test]
    fn the_owner_decides_which_networks_are_reached() {
        let some = policy(true, &["10.0.0.0/8"], &["10.9.0.0/16", "127.0.0.2"]);
        check(
            &some,
            &[
                ("10.1.2.3", true),
                ("::ffff:10.1.2.3", true),
                ("10.9.2.3", false),
                ("::ffff:10.9.2.3", false),
                ("64:ff9b::10.1.2.3", false),
                ("192.0.2.1", false),
                ("127.0.0.1", true),
                ("0.0.0.0", true),
                ("127.0.0.2", false),
            ],
        );
        let closed = policy(false, &["10.0.0.0/8"], &["::1"]);
        check(
            &closed,
            &[
                ("10.1.2.3", false),
                ("127.0.0.1", true),
                ("::1", false),
                ("::", false),
            ],
        );
    }
}
