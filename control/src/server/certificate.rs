//! The endpoint's own certificate authority, and the server certificate it issues.
//!
//! The server's key and certificate live in memory only: each start issues new ones for the names it was given, and
//! a process that runs for long replaces them before they end. What clients trust is the authority's certificate.

use std::{
    fmt::Write as _,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PublicKeyData as _, date_time_ymd,
};
use rustls::{
    ServerConfig,
    crypto::ring::{default_provider, sign::any_supported_type},
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject as _},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use crate::app::Clock;

const DAY_MILLIS: u64 = 24 * 60 * 60 * 1000;
/// Browsers and some libraries refuse server certificates for longer.
/// How far behind a client's clock may be.
const BACKDATED_DAYS: u64 = 31;
const SERVER_LIFETIME_DAYS: u64 = 397;
/// Issued again when this much is left.
const SERVER_RENEWAL_DAYS: u64 = 30;
const RENEWAL_LOOK: Duration = Duration::from_secs(60 * 60);
/// The authority's certificate is copied to every client, so it must outlive the fleet.
const AUTHORITY_FROM_YEAR: i32 = 2020;
const AUTHORITY_TO_YEAR: i32 = 2060;

/// Why a certificate was not made.
#[derive(Debug, thiserror::Error)]
pub(super) enum CertificateError {
    #[error("the certificate's dates cannot be computed from the system clock")]
    Date(#[source] jiff::Error),
    #[error("failed to make a certificate")]
    Make(#[from] rcgen::Error),
    #[error("failed to set TLS up")]
    Tls(#[from] rustls::Error),
}

/// Signs server certificates.
#[derive(Debug)]
pub(super) struct Authority {
    key: KeyPair,
    params: CertificateParams,
}

impl Authority {
    /// The parameters follow from the key alone, so that a restarted endpoint signs under the same name.
    pub(super) fn new(key: KeyPair) -> Result<Self, CertificateError> {
        let digest = ring::digest::digest(&ring::digest::SHA256, &key.subject_public_key_info());
        let mut name = String::from("Moorline control endpoint ");
        for byte in digest.as_ref().iter().take(4) {
            write!(name, "{byte:02x}").expect("a String takes every text");
        }
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = date_time_ymd(AUTHORITY_FROM_YEAR, 1, 1);
        params.not_after = date_time_ymd(AUTHORITY_TO_YEAR, 1, 1);
        Ok(Self { key, params })
    }

    /// Whether this is a certificate of the authority's key, whose encoding stands in it as it is.
    pub(super) fn is_of(&self, certificate_pem: &[u8]) -> bool {
        let key = self.key.subject_public_key_info();
        CertificateDer::from_pem_slice(certificate_pem)
            .is_ok_and(|certificate| certificate.windows(key.len()).any(|part| part == key))
    }

    pub(super) fn certificate_pem(&self) -> Result<String, CertificateError> {
        Ok(self.params.self_signed(&self.key)?.pem())
    }

    fn issue(&self, names: &[String], now: u64) -> Result<CertifiedKey, CertificateError> {
        let mut params = CertificateParams::new(names.to_vec())?;
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, "Moorline control endpoint");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        // Strict verifiers, such as Python's, want to find the authority's key by its id.
        params.use_authority_key_identifier_extension = true;
        // Valid since long ago, for clients whose clock is behind: nobody could set it otherwise.
        let (year, month, day) = civil_date(now.saturating_sub(BACKDATED_DAYS * DAY_MILLIS))?;
        params.not_before = date_time_ymd(year, month, day);
        let (year, month, day) = civil_date(now.saturating_add(SERVER_LIFETIME_DAYS * DAY_MILLIS))?;
        params.not_after = date_time_ymd(year, month, day);
        let key = KeyPair::generate()?;
        let issuer = Issuer::from_params(&self.params, &self.key);
        let certificate = params.signed_by(&key, &issuer)?;
        let private = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let chain = vec![CertificateDer::from(certificate.der().to_vec())];
        Ok(CertifiedKey::new(chain, any_supported_type(&private)?))
    }
}

/// Year, month and day; finer than that rcgen does not need.
fn civil_date(unix_millis: u64) -> Result<(i32, u8, u8), CertificateError> {
    let seconds = i64::try_from(unix_millis / 1000).unwrap_or(i64::MAX);
    let time = jiff::Timestamp::from_second(seconds).map_err(CertificateError::Date)?;
    let date = time.to_zoned(jiff::tz::TimeZone::UTC).date();
    Ok((
        i32::from(date.year()),
        date.month().unsigned_abs(),
        date.day().unsigned_abs(),
    ))
}

/// The server certificate in use.
#[derive(Debug)]
pub(super) struct ServerCertificate {
    authority: Authority,
    names: Vec<String>,
    current: Arc<Current>,
}

#[derive(Debug)]
struct Current(RwLock<(u64, Arc<CertifiedKey>)>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(
            &self.0.read().unwrap_or_else(PoisonError::into_inner).1,
        ))
    }
}

impl ServerCertificate {
    pub(super) fn issue(
        authority: Authority,
        names: Vec<String>,
        clock: &Clock,
    ) -> Result<Self, CertificateError> {
        let now = clock.unix_millis();
        let first = Arc::new(authority.issue(&names, now)?);
        Ok(Self {
            authority,
            names,
            current: Arc::new(Current(RwLock::new((now, first)))),
        })
    }

    pub(super) fn tls_settings(&self) -> Result<ServerConfig, CertificateError> {
        let mut settings = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&self.current) as Arc<dyn ResolvesServerCert>);
        // Websockets begin as an upgrade of HTTP/1.1.
        settings.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(settings)
    }

    /// Issues the certificate again whenever it comes near its end. Never returns.
    pub(super) async fn keep_fresh(&self, clock: &Clock) {
        let mut look = tokio::time::interval(RENEWAL_LOOK);
        loop {
            look.tick().await;
            if let Err(error) = self.renew_if_due(clock.unix_millis()) {
                tracing::error!(%error, "failed to issue a new server certificate");
            }
        }
    }

    fn renew_if_due(&self, now: u64) -> Result<bool, CertificateError> {
        let issued_at = self.current.0.read().unwrap_or_else(PoisonError::into_inner).0;
        // A clock that went back behind the issue makes the certificate not yet valid: that is due, too.
        let age_days = now.checked_sub(issued_at).map(|age| age / DAY_MILLIS);
        if age_days.is_some_and(|days| days < SERVER_LIFETIME_DAYS - SERVER_RENEWAL_DAYS) {
            return Ok(false);
        }
        let next = Arc::new(self.authority.issue(&self.names, now)?);
        *self.current.0.write().unwrap_or_else(PoisonError::into_inner) = (now, next);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = crate::test_support::START_MILLIS;

    fn certificate() -> ServerCertificate {
        let authority = Authority::new(KeyPair::generate().unwrap()).unwrap();
        let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
        ServerCertificate::issue(authority, names, &Clock::from_fn(|| NOW)).unwrap()
    }

    #[test]
    fn a_certificate_is_replaced_before_it_ends() {
        let certificate = certificate();
        assert!(!certificate.renew_if_due(NOW + 300 * DAY_MILLIS).unwrap());
        assert!(certificate.renew_if_due(NOW + 368 * DAY_MILLIS).unwrap());
        assert!(!certificate.renew_if_due(NOW + 369 * DAY_MILLIS).unwrap());
    }

    #[test]
    fn the_authority_has_the_same_name_after_a_restart() {
        let pem = KeyPair::generate().unwrap().serialize_pem();
        let name = || {
            Authority::new(KeyPair::from_pem(&pem).unwrap())
                .unwrap()
                .params
                .distinguished_name
        };
        assert_eq!(name(), name());
    }

    #[test]
    fn a_client_that_trusts_the_authority_accepts_every_name() {
        use rustls::client::danger::ServerCertVerifier as _;
        let certificate = certificate();
        let mut roots = rustls::RootCertStore::empty();
        let authority = certificate
            .authority
            .params
            .self_signed(&certificate.authority.key)
            .unwrap();
        roots.add(authority.der().clone()).unwrap();
        let provider = Arc::new(default_provider());
        let verifier = rustls::client::WebPkiServerVerifier::builder_with_provider(roots.into(), provider);
        let verifier = verifier.build().unwrap();
        let key = Arc::clone(&certificate.current.0.read().unwrap().1);
        let now = rustls::pki_types::UnixTime::since_unix_epoch(Duration::from_millis(NOW));
        for name in ["localhost", "127.0.0.1", "::1"] {
            let name = name.try_into().unwrap();
            verifier
                .verify_server_cert(&key.cert[0], &[], &name, &[], now)
                .unwrap();
        }
        let other = "other.test".try_into().unwrap();
        assert!(
            verifier
                .verify_server_cert(&key.cert[0], &[], &other, &[], now)
                .is_err()
        );
    }
}
