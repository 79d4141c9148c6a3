//! Where port sessions lead, as rules name it: `10.0.0.0/8:5432`, `[2001:db8::/32]:*`, `*.db.internal:5432`,
//! `localhost:*`.

use std::net::IpAddr;

use serde::Deserialize;

use super::{
    pattern::Pattern,
    rule::{Effect, Truth},
};
use crate::runtime::{Network, canonical, embedded};

/// What a session wants to reach, as far as it is known.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Destination<'a> {
    /// As the session names it; empty: this node.
    pub(crate) host: &'a str,
    /// `None`: the name has not been looked up.
    pub(crate) address: Option<IpAddr>,
    pub(crate) port: u16,
}

/// Hosts and a port.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Target {
    hosts: Hosts,
    /// `None`: every port.
    port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Hosts {
    /// By the address that is reached, whatever name led to it.
    Network(Network),
    /// By the name that the session has.
    Name(Pattern),
}

impl Target {
    /// Whether the destination is one of these. A refusal holds for every form that an address has, a permission for
    /// the address that is reached.
    pub(super) fn is(&self, destination: &Destination<'_>, effect: Effect) -> Truth {
        if self.port.is_some_and(|port| port != destination.port) {
            return Truth::No;
        }
        match &self.hosts {
            Hosts::Name(pattern) => {
                let host = match destination.host {
                    "" => "localhost",
                    host => host,
                };
                pattern.matches(&host.to_ascii_lowercase()).into()
            }
            Hosts::Network(network) => match destination.address {
                None => Truth::Unknown,
                Some(address) => {
                    let reached = canonical(address);
                    let others = [Some(address), embedded(reached).map(IpAddr::V4)];
                    let others = others.into_iter().flatten().filter(|_| effect == Effect::Deny);
                    std::iter::once(reached)
                        .chain(others)
                        .any(|form| network.contains(form))
                        .into()
                }
            },
        }
    }
}

impl TryFrom<String> for Target {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let shape = || {
            format!("{text:?} is no HOST:PORT, as in 10.0.0.0/8:5432, [2001:db8::/32]:*, *.db.internal:22")
        };
        let (host, port) = text.rsplit_once(':').ok_or_else(shape)?;
        let port = match port {
            "*" => None,
            number => Some(number.parse().ok().filter(|port| *port != 0).ok_or_else(shape)?),
        };
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = bracketed.unwrap_or(host);
        let is_network = bracketed.is_some() || host.contains('/') || host.parse::<IpAddr>().is_ok();
        let hosts = match is_network {
            // Where an address ends and the port begins cannot be told.
            _ if bracketed.is_none() && host.contains(':') => return Err(shape()),
            true => Hosts::Network(host.parse().map_err(|error| format!("{text:?}: {error}"))?),
            false => Hosts::Name(Pattern::try_from(host.to_ascii_lowercase())?),
        };
        Ok(Self { hosts, port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(text: &str) -> Result<Target, String> {
        Target::try_from(text.to_owned())
    }

    fn is(text: &str, host: &str, address: Option<&str>, effect: Effect) -> Truth {
        let destination = Destination {
            host,
            address: address.map(|address| address.parse().unwrap()),
            port: 5432,
        };
        target(text).unwrap().is(&destination, effect)
    }

    #[test]
    fn a_network_is_decided_by_the_address_that_is_reached() {
        let table = [
            ("10.0.0.0/8:5432", Some("10.1.2.3"), Truth::Yes),
            ("10.0.0.0/8:*", Some("10.1.2.3"), Truth::Yes),
            ("10.0.0.0/8:22", Some("10.1.2.3"), Truth::No),
            ("10.0.0.0/8:22", None, Truth::No),
            ("10.0.0.0/8:5432", None, Truth::Unknown),
            ("10.0.0.0/8:5432", Some("::ffff:10.1.2.3"), Truth::Yes),
            ("10.0.0.1:5432", Some("10.0.0.2"), Truth::No),
            ("[2001:db8::/32]:*", Some("2001:db8::7"), Truth::Yes),
        ];
        for (text, address, expected) in table {
            assert_eq!(
                is(text, "db", address, Effect::Allow),
                expected,
                "{text} {address:?}"
            );
        }
        // What a translator would make of it is refused with its network, and not allowed with it.
        let translated = Some("64:ff9b::10.1.2.3");
        assert_eq!(is("10.0.0.0/8:*", "db", translated, Effect::Deny), Truth::Yes);
        assert_eq!(is("10.0.0.0/8:*", "db", translated, Effect::Allow), Truth::No);
    }

    #[test]
    fn a_name_is_that_of_the_session() {
        assert_eq!(is("*.db:5432", "A.DB", None, Effect::Allow), Truth::Yes);
        assert_eq!(is("*.db:*", "a.web", None, Effect::Allow), Truth::No);
        assert_eq!(
            is("localhost:*", "", Some("127.0.0.1"), Effect::Allow),
            Truth::Yes
        );
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "a",
            "a:",
            "a:0",
            "a:65536",
            "10.0.0.1/8:1",
            "::1:22",
            "[a]:22",
            ":22",
        ] {
            assert!(target(text).is_err(), "{text}");
        }
    }
}
