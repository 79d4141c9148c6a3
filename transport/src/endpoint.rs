//! Where the services are: one Moorline endpoint, or the hosts of an AWS region (agent-wire §1.2-1.3).

use std::fmt;

use rustls::pki_types::ServerName;

/// Why a text is not an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    #[error("endpoint {0:?} must have the form https://HOST[:PORT]")]
    Form(String),
    #[error("region {0:?} must have 1 to 100 characters of A-Z a-z 0-9 -")]
    Region(String),
}

/// One HTTPS host.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint {
    host: String,
    port: u16,
    server_name: ServerName<'static>,
}

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
        })
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
        Ok(Self {
            ssm: host(Service::Ssm)?,
            ssm_messages: host(Service::SsmMessages)?,
            ec2_messages: host(Service::Ec2Messages)?,
            kms: host(Service::Kms)?,
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
