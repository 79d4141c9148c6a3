//! Where the services are: one Moorline endpoint, or the hosts of an AWS region (agent-wire §1.2-1.3).

use std::{fmt, net::IpAddr, sync::Arc, time::Duration};

use rustls::pki_types::ServerName;

use crate::{
    clock::EndpointClock,
    known_addresses::{KnownAddresses, NameLookup},
};

/// Why a text is not an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    #[error("endpoint {0:?} must have the form https://HOST[:PORT]")]
    Form(String),
    #[error("{0:?} must have the form https://HOST[:PORT]/PATH")]
    Url(String),
    #[error("region {0:?} must have 1 to 100 characters of A-Z a-z 0-9 -")]
    Region(String),
}

/// One HTTPS host, with what its clones learn about it.
#[derive(Clone)]
pub struct Endpoint {
    host: String,
    port: u16,
    server_name: ServerName<'static>,
    addresses: Arc<KnownAddresses>,
    clock: Arc<EndpointClock>,
}

impl PartialEq for Endpoint {
    fn eq(&self, other: &Self) -> bool {
        (&self.host, self.port) == (&other.host, other.port)
    }
}

impl Eq for Endpoint {}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.url())
    }
}

impl Endpoint {
    /// Parses `https://HOST[:PORT]`, with an optional final slash; `wss` is taken as well.
    ///
    /// # Errors
    /// The text has another form.
    pub fn parse(url: &str) -> Result<Self, EndpointError> {
        let form = || EndpointError::Form(url.to_owned());
        let uri: http::Uri = url.parse().map_err(|_| form())?;
        if !matches!(uri.scheme_str(), Some("https" | "wss"))
            || !matches!(uri.path(), "" | "/")
            || uri.query().is_some()
        {
            return Err(form());
        }
        Self::from_uri(&uri).ok_or_else(form)
    }

    /// The host of a stream URL, `wss://HOST[:PORT]/path?query`, and its path with query.
    ///
    /// # Errors
    /// The text has another form.
    pub fn parse_stream_url(url: &str) -> Result<(Self, String), EndpointError> {
        let form = || EndpointError::Form(url.to_owned());
        let uri: http::Uri = url.parse().map_err(|_| form())?;
        if uri.scheme_str() != Some("wss") {
            return Err(form());
        }
        let path = uri.path_and_query().ok_or_else(form)?.to_string();
        Ok((Self::from_uri(&uri).ok_or_else(form)?, path))
    }

    /// The host of any URL to download from, whether the connection is encrypted, and the path with query.
    ///
    /// # Errors
    /// The text is no `https` or `http` URL.
    pub(crate) fn parse_download_url(url: &str) -> Result<(Self, bool, String), EndpointError> {
        let form = || EndpointError::Url(url.split('?').next().unwrap_or_default().to_owned());
        let uri: http::Uri = url.parse().map_err(|_| form())?;
        let (is_encrypted, default_port) = match uri.scheme_str() {
            Some("https") => (true, 443),
            Some("http") => (false, 80),
            _ => return Err(form()),
        };
        let path = uri
            .path_and_query()
            .map_or("/", http::uri::PathAndQuery::as_str)
            .to_owned();
        let mut endpoint = Self::from_uri(&uri).ok_or_else(form)?;
        endpoint.port = uri.port_u16().unwrap_or(default_port);
        Ok((endpoint, is_encrypted, path))
    }

    fn from_uri(uri: &http::Uri) -> Option<Self> {
        let host = uri
            .host()?
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        let server_name = ServerName::try_from(host.clone()).ok()?;
        Some(Self {
            host,
            port: uri.port_u16().unwrap_or(443),
            server_name,
            addresses: Arc::new(KnownAddresses::new()),
            clock: Arc::default(),
        })
    }

    /// What is known of its addresses.
    pub(crate) fn addresses(&self) -> &KnownAddresses {
        &self.addresses
    }

    /// Addresses at which it was reached, best first; none when it is named by its address.
    pub fn known_addresses(&self) -> Vec<IpAddr> {
        match self.host.parse::<IpAddr>() {
            Ok(_) => Vec::new(),
            Err(_) => self.addresses.remembered(),
        }
    }

    /// Addresses at which it was reached before, for when its name cannot be looked up.
    pub fn remember_addresses(&self, addresses: &[IpAddr]) {
        self.addresses.remember(addresses);
    }

    /// The address at which it is reached right now: tried before its name is looked up.
    pub fn address_works(&self, address: IpAddr) {
        self.addresses.worked(address);
    }

    /// How looking its name up went last.
    pub fn name_lookup(&self) -> NameLookup {
        self.addresses.last_lookup()
    }

    /// As [`Self::name_lookup`], of another process.
    pub fn set_name_lookup(&self, last: NameLookup) {
        self.addresses.set_last_lookup(last);
    }

    /// Looks the name up, only to know whether that works; `limit` bounds the wait. A host that is named by its
    /// address needs no lookup.
    pub async fn check_name_lookup(&self, limit: Duration) {
        if self.host.parse::<IpAddr>().is_err() {
            self.addresses.check(&self.host, self.port, limit).await;
        }
    }

    pub(crate) fn clock(&self) -> &EndpointClock {
        &self.clock
    }

    /// Milliseconds since the Unix epoch by the endpoint's clock, as far as that is known to differ from ours.
    pub fn unix_millis(&self) -> u64 {
        self.clock.unix_millis()
    }

    /// How far the endpoint's clock is known to be ahead of ours; 0 when both agree.
    pub fn clock_ahead_millis(&self) -> i64 {
        self.clock.ahead_millis()
    }

    /// As [`Self::clock_ahead_millis`], of another process.
    pub fn set_clock_ahead_millis(&self, ahead: i64) {
        self.clock.set_ahead_millis(ahead);
    }

    /// The endpoint said what time it is there.
    pub fn learn_time(&self, unix_millis: u64) {
        self.clock.learn(unix_millis);
    }

    /// Host name or address, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn server_name(&self) -> &ServerName<'static> {
        &self.server_name
    }

    /// The value of the `Host` header, which is signed: the port stands only when it is not 443.
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') {
            format!("[{}]", self.host)
        } else {
            self.host.clone()
        };
        if self.port == 443 {
            host
        } else {
            format!("{host}:{}", self.port)
        }
    }

    /// `https://HOST[:PORT]`.
    pub fn url(&self) -> String {
        format!("https://{}", self.authority())
    }
}

/// The planes of the protocol (agent-wire §0).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    Ssm,
    SsmMessages,
    Ec2Messages,
    Kms,
}

impl Service {
    /// Name in the signing scope and in AWS's host names.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ssm => "ssm",
            Self::SsmMessages => "ssmmessages",
            Self::Ec2Messages => "ec2messages",
            Self::Kms => "kms",
        }
    }
}

/// Where each plane is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Services {
    ssm: Endpoint,
    ssm_messages: Endpoint,
    ec2_messages: Endpoint,
    kms: Endpoint,
}

impl Services {
    /// Everything on one endpoint.
    pub fn one(endpoint: Endpoint) -> Self {
        Self {
            ssm: endpoint.clone(),
            ssm_messages: endpoint.clone(),
            ec2_messages: endpoint.clone(),
            kms: endpoint,
        }
    }

    /// AWS's own hosts for a region (agent-wire §1.2).
    ///
    /// # Errors
    /// The region's name breaks its grammar.
    pub fn aws(region: &str) -> Result<Self, EndpointError> {
        let valid = (1..=100).contains(&region.len())
            && region.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if !valid {
            return Err(EndpointError::Region(region.to_owned()));
        }
        const DOMAINS: [(&str, &str); 6] = [
            ("cn-", "amazonaws.com.cn"),
            ("us-iso-", "c2s.ic.gov"),
            ("us-isob-", "sc2s.sgov.gov"),
            ("us-isof-", "csp.hci.ic.gov"),
            ("eu-isoe-", "cloud.adc-e.uk"),
            ("eusc-de-", "amazonaws.eu"),
        ];
        let domain = DOMAINS
            .iter()
            .find(|(prefix, _)| region.starts_with(prefix))
            .map_or("amazonaws.com", |(_, d)| d);
        let host =
            |service: Service| Endpoint::parse(&format!("https://{}.{region}.{domain}", service.as_str()));
        let ssm = host(Service::Ssm)?;
        // one clock for all hosts of a region
        let beside = |service: Service| {
            Ok(Endpoint {
                clock: Arc::clone(&ssm.clock),
                ..host(service)?
            })
        };
        Ok(Self {
            ssm_messages: beside(Service::SsmMessages)?,
            ec2_messages: beside(Service::Ec2Messages)?,
            kms: beside(Service::Kms)?,
            ssm,
        })
    }

    /// The endpoint of one plane.
    pub fn endpoint(&self, service: Service) -> &Endpoint {
        match service {
            Service::Ssm => &self.ssm,
            Service::SsmMessages => &self.ssm_messages,
            Service::Ec2Messages => &self.ec2_messages,
            Service::Kms => &self.kms,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_needs_https_and_no_path() {
        for bad in [
            "127.0.0.1:8443",
            "http://h",
            "https://h/path",
            "https://h?x",
            "localhost",
            "https://",
            "https://h h",
        ] {
            assert!(Endpoint::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(
            Endpoint::parse("https://h.example/").unwrap().authority(),
            "h.example"
        );
        assert_eq!(
            Endpoint::parse("https://127.0.0.1:8443").unwrap().authority(),
            "127.0.0.1:8443"
        );
        assert_eq!(
            Endpoint::parse("https://[::1]:8443").unwrap().authority(),
            "[::1]:8443"
        );
    }

    #[test]
    fn a_stream_url_is_dialled_as_given() {
        let (endpoint, path) =
            Endpoint::parse_stream_url("wss://h:1/v1/data-channel/s?role=publish_subscribe").unwrap();
        assert_eq!(endpoint.authority(), "h:1");
        assert_eq!(path, "/v1/data-channel/s?role=publish_subscribe");
    }

    #[test]
    fn a_region_gives_the_hosts_of_its_partition() {
        let host = |region: &str, service| Services::aws(region).unwrap().endpoint(service).host().to_owned();
        assert_eq!(
            host("eu-central-1", Service::Ssm),
            "ssm.eu-central-1.amazonaws.com"
        );
        assert_eq!(
            host("cn-north-1", Service::SsmMessages),
            "ssmmessages.cn-north-1.amazonaws.com.cn"
        );
        assert_eq!(
            host("us-isob-east-1", Service::Ec2Messages),
            "ec2messages.us-isob-east-1.sc2s.sgov.gov"
        );
        assert_eq!(
            host("eu-central-1", Service::Kms),
            "kms.eu-central-1.amazonaws.com"
        );
        assert!(Services::aws("eu central").is_err());
    }
}
