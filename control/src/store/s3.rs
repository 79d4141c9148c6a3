//! S3, or a server that speaks as S3 does: which one, and what it takes us for.

use std::{fmt, time::Duration};

use object_store::{
    BackoffConfig, ClientOptions, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder},
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A request that fails is tried again so often; whoever wanted something comes back later anyway.
const RETRIES: usize = 2;
const RETRY_TIMEOUT: Duration = Duration::from_secs(30);

/// Where objects are.
#[derive(Clone)]
pub(crate) struct S3Server {
    /// Of a server other than Amazon's; http or https.
    pub(crate) endpoint: Option<String>,
    pub(crate) region: String,
    pub(crate) access_key_id: String,
    pub(crate) secret_access_key: String,
    pub(crate) session_token: Option<String>,
}

impl fmt::Debug for S3Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Server")
            .field("endpoint", &self.endpoint)
            .field("region", &self.region)
            .finish_non_exhaustive()
    }
}

impl S3Server {
    /// A client for one bucket, whose requests may take so long; nothing is asked of the server yet.
    ///
    /// # Errors
    /// The settings make none.
    pub(super) fn bucket(
        &self,
        bucket: &str,
        region: &str,
        request_timeout: Duration,
        more: impl FnOnce(ClientOptions) -> ClientOptions,
    ) -> Result<AmazonS3, object_store::Error> {
        // its HTTP client takes the process's own
        let _installed_before = rustls::crypto::ring::default_provider().install_default();
        let options = ClientOptions::new()
            .with_timeout(request_timeout)
            .with_connect_timeout(CONNECT_TIMEOUT);
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(bucket)
            .with_region(region)
            .with_access_key_id(&self.access_key_id)
            .with_secret_access_key(&self.secret_access_key)
            .with_client_options(more(options))
            .with_retry(RetryConfig {
                backoff: BackoffConfig::default(),
                max_retries: RETRIES,
                retry_timeout: RETRY_TIMEOUT,
            });
        if let Some(token) = &self.session_token {
            builder = builder.with_token(token);
        }
        if let Some(endpoint) = &self.endpoint {
            builder = builder
                .with_endpoint(endpoint)
                .with_allow_http(endpoint.starts_with("http://"));
        }
        builder.build()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_of_a_server_holds_no_credentials() {
        let server = S3Server {
            endpoint: Some("https://s3.example.org".to_owned()),
            region: "us-east-1".to_owned(),
            access_key_id: "a-key-id".to_owned(),
            secret_access_key: "a-secret".to_owned(),
            session_token: Some("a-token".to_owned()),
        };
        let shown = format!("{server:?}");
        assert!(shown.contains("s3.example.org"), "{shown}");
        for hidden in ["a-key-id", "a-secret", "a-token"] {
            assert!(!shown.contains(hidden), "{shown}");
        }
    }
}
