//! Ranges of IP addresses as settings name them, and the addresses that hide in other addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// `10.0.0.0/8`, or a single address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Network {
    address: IpAddr,
    prefix: u8,
}

/// Why a text names no network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NetworkError {
    #[error("not an IP address, nor one with a prefix length as in 10.0.0.0/8")]
    Form,
    #[error("a prefix length between 0 and {0} is needed")]
    Prefix(u8),
    #[error("there are bits beyond the prefix; the network is {0}")]
    Host(IpAddr),
}

impl Network {
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        is_v4(self.address) == is_v4(address) && self.mask(address) == bits(self.address)
    }

    fn mask(&self, address: IpAddr) -> u128 {
        let beyond = u32::from(width(self.address) - self.prefix);
        let bits = bits(address).checked_shr(beyond).unwrap_or(0);
        bits.checked_shl(beyond).unwrap_or(0)
    }
}

impl std::str::FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| NetworkError::Form)?;
        let widest = width(address);
        let prefix = match prefix {
            None => widest,
            Some(prefix) => prefix
                .parse()
                .ok()
                .filter(|prefix| *prefix <= widest)
                .ok_or(NetworkError::Prefix(widest))?,
        };
        let network = Self { address, prefix };
        let masked = network.mask(address);
        if masked != bits(address) {
            return Err(NetworkError::Host(from_bits(masked, address)));
        }
        Ok(network)
    }
}

fn is_v4(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(_))
}

fn width(address: IpAddr) -> u8 {
    if is_v4(address) { 32 } else { 128 }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

fn from_bits(bits: u128, like: IpAddr) -> IpAddr {
    match u32::try_from(bits) {
        Ok(bits) if is_v4(like) => Ipv4Addr::from_bits(bits).into(),
        _ => Ipv6Addr::from_bits(bits).into(),
    }
}

/// The address that a connection reaches: IPv4 in its IPv6 forms, and this node for the unspecified address.
pub(crate) fn canonical(address: IpAddr) -> IpAddr {
    let address = match address {
        IpAddr::V6(v6) => match v6.segments() {
            // ::a.b.c.d is as good as ::ffff:a.b.c.d, other than :: and ::1
            [0, 0, 0, 0, 0, 0, high, _] if high != 0 => last_four(v6).into(),
            _ => v6.to_canonical(),
        },
        v4 @ IpAddr::V4(_) => v4,
    };
    match address {
        IpAddr::V4(v4) if v4.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(v6) if v6.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        other => other,
    }
}

/// The IPv4 address that a translator or a tunnel would make of an IPv6 address: NAT64, 6to4, Teredo.
pub(crate) fn embedded(address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(v6) = address else { return None };
    match v6.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, ..] | [0x64, 0xff9b, 1, ..] => Some(last_four(v6)),
        [0x2002, high, low, ..] => Some(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low))),
        // a Teredo client's address stands there with its bits turned round
        [0x2001, 0, ..] => Some(Ipv4Addr::from_bits(!last_four(v6).to_bits())),
        _ => None,
    }
}

fn last_four(v6: Ipv6Addr) -> Ipv4Addr {
    let [.., a, b, c, d] = v6.octets();
    Ipv4Addr::new(a, b, c, d)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_network_contains_its_addresses_and_no_other() {
        let cases = [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.0", false),
            ("0.0.0.0/0", "1.2.3.4", true),
            ("0.0.0.0/0", "::1", false),
            ("::/0", "::1", true),
            ("192.0.2.7", "192.0.2.7", true),
            ("192.0.2.7", "192.0.2.6", false),
            ("fe80::/10", "febf::1", true),
            ("fe80::/10", "fec0::1", false),
            ("::1/128", "::1", true),
        ];
        for (network, candidate, expected) in cases {
            let network: Network = network.parse().unwrap();
            assert_eq!(
                network.contains(address(candidate)),
                expected,
                "{network:?} {candidate}"
            );
        }
    }

    #[test]
    fn what_is_no_network_says_why() {
        let cases = [
            ("10.0.0.1/8", "the network is 10.0.0.0"),
            ("fe80::1/10", "the network is fe80::"),
            ("10.0.0.0/33", "between 0 and 32"),
            ("::/129", "between 0 and 128"),
            ("10.0.0.0/", "between 0 and 32"),
            ("10/8", "not an IP address"),
            ("example.com", "not an IP address"),
            ("", "not an IP address"),
        ];
        for (text, reason) in cases {
            let error = text.parse::<Network>().unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn an_address_in_another_form_is_the_same_address() {
        for (text, same) in [
            ("::ffff:169.254.169.254", "169.254.169.254"),
            ("::169.254.169.254", "169.254.169.254"),
            ("0.0.0.0", "127.0.0.1"),
            ("::", "::1"),
            ("::1", "::1"),
            ("::ffff:0.0.0.0", "127.0.0.1"),
            ("2001:db8::1", "2001:db8::1"),
        ] {
            assert_eq!(canonical(address(text)), address(same), "{text}");
        }
        for (text, inside) in [
            ("64:ff9b::a9fe:a9fe", Some("169.254.169.254")),
            ("64:ff9b:1::a9fe:a9fe", Some("169.254.169.254")),
            ("2002:a9fe:a9fe::1", Some("169.254.169.254")),
            ("2001:0:1:2:3:4:5601:5601", Some("169.254.169.254")),
            ("2001:db8::a9fe:a9fe", None),
            ("169.254.169.254", None),
        ] {
            let inside = inside.map(|inside| inside.parse().unwrap());
            assert_eq!(embedded(address(text)), inside, "{text}");
        }
    }
}
