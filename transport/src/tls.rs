//! Whom we trust.

use std::{path::Path, path::PathBuf, sync::Arc};

use rustls::{ClientConfig, RootCertStore, pki_types::CertificateDer, pki_types::pem::PemObject};

/// Why no trust could be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("failed to open {path}")]
    OpenCa {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("failed to read certificates from {path}")]
    ReadCa {
        path: PathBuf,
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    #[error("{path} holds no certificate")]
    EmptyCa { path: PathBuf },
    #[error("the system has no trusted certificates; give a CA file")]
    NoSystemRoots,
    #[error("TLS cannot be set up")]
    Setup(#[source] rustls::Error),
}

/// A TLS client configuration, shared by every connection.
#[derive(Debug, Clone)]
pub struct Trust(pub(crate) Arc<ClientConfig>);

impl Trust {
    /// Trusts exactly the certificates of a PEM file: a private CA replaces the system's, it is not added to them,
    /// so that no public CA can vouch for a private endpoint.
    ///
    /// # Errors
    /// The file cannot be read or holds no certificate.
    pub fn ca_file(path: &Path) -> Result<Self, TlsError> {
        let pem = std::fs::read(path).map_err(|source| TlsError::OpenCa {
            path: path.to_owned(),
            source,
        })?;
        Self::ca_pem(&pem, path)
    }

    /// As [`Self::ca_file`], from PEM text; `origin` names it in errors.
    ///
    /// # Errors
    /// The text holds no readable certificate.
    pub fn ca_pem(pem: &[u8], origin: &Path) -> Result<Self, TlsError> {
        let read = |source| TlsError::ReadCa {
            path: origin.to_owned(),
            source,
        };
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            roots.add(certificate.map_err(read)?).map_err(TlsError::Setup)?;
        }
        if roots.is_empty() {
            return Err(TlsError::EmptyCa {
                path: origin.to_owned(),
            });
        }
        Self::from_roots(roots)
    }

    /// Trusts the system's certificates, or those of `SSL_CERT_FILE`/`SSL_CERT_DIR` when set.
    ///
    /// # Errors
    /// No usable certificate was found.
    pub fn system() -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            return Err(TlsError::NoSystemRoots);
        }
        Self::from_roots(roots)
    }

    fn from_roots(roots: RootCertStore) -> Result<Self, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Setup)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        // Websockets need HTTP/1.1; a server that knows more must not choose it.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // A node talks to one endpoint: one remembered session is enough, the default keeps 256.
        config.resumption = rustls::client::Resumption::in_memory_sessions(2);
        Ok(Self(Arc::new(config)))
    }
}
