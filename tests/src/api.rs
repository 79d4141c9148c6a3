//! Calls of the API as JSON, signed as any operator's client signs them.

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use moorline_protocol::sigv4::{Credentials, SignableRequest, SigningScope, sign};
use moorline_transport::{Endpoint as Host, HttpClient, Response, ServiceError, Trust};
use serde_json::Value;

use crate::wait::epoch;

/// A client of the API with one key pair. Cheap to clone and to change.
#[derive(Debug, Clone)]
pub struct Api {
    host: Host,
    trust: Trust,
    credentials: Credentials,
    region: String,
    /// Added to the clock when signing, in milliseconds.
    skew: i64,
}

impl Api {
    pub fn new(host: Host, trust: Trust, credentials: Credentials, region: &str) -> Self {
        Self {
            host,
            trust,
            credentials,
            region: region.to_owned(),
            skew: 0,
        }
    }

    /// The same client with a clock that is off.
    #[must_use]
    pub fn with_skew(&self, skew_millis: i64) -> Self {
        let mut other = self.clone();
        other.skew = skew_millis;
        other
    }

    /// The same client with other keys.
    #[must_use]
    pub fn with_credentials(&self, credentials: Credentials) -> Self {
        let mut other = self.clone();
        other.credentials = credentials;
        other
    }

    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    pub fn host(&self) -> &Host {
        &self.host
    }

    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    pub fn region(&self) -> &str {
        &self.region
    }

    /// Calls an SSM operation.
    ///
    /// # Errors
    /// No answer, or a refusal: then the error is a [`ServiceError`].
    pub async fn call(&self, operation: &str, input: Value) -> Result<Value> {
        let response = self
            .post(&format!("AmazonSSM.{operation}"), input.to_string().into_bytes())
            .await?;
        if response.status != 200 {
            return Err(ServiceError::read(&response)).context(operation.to_owned());
        }
        Ok(serde_json::from_slice(&response.body)?)
    }

    /// Calls an operation that must be refused, and returns the refusal.
    ///
    /// # Errors
    /// No answer, or the call was not refused.
    pub async fn refusal(&self, operation: &str, input: Value) -> Result<ServiceError> {
        let response = self
            .post(&format!("AmazonSSM.{operation}"), input.to_string().into_bytes())
            .await?;
        if response.status == 200 {
            bail!(
                "{operation} was not refused: {}",
                String::from_utf8_lossy(&response.body)
            );
        }
        Ok(ServiceError::read(&response))
    }

    /// One signed POST with any target and any body, on a connection of its own: the endpoint may have been
    /// restarted since the last.
    ///
    /// # Errors
    /// No answer came.
    pub async fn post(&self, target: &str, body: Vec<u8>) -> Result<Response> {
        let authority = self.host.authority();
        let headers = [
            ("host", authority.as_str()),
            ("content-type", "application/x-amz-json-1.1"),
            ("x-amz-target", target),
        ];
        let request = SignableRequest {
            method: "POST",
            uri: "/",
            headers: &headers,
            body: &body,
        };
        let scope = SigningScope {
            region: &self.region,
            service: "ssm",
            unix_millis: epoch().saturating_add_signed(self.skew),
        };
        let signed = sign(&request, &scope, &self.credentials);
        let all: Vec<(&str, &str)> = headers
            .into_iter()
            .chain(signed.iter().map(|(name, value)| (name.as_str(), value.as_str())))
            .collect();
        let client = HttpClient::new(self.host.clone(), self.trust.clone());
        Ok(client.request("POST", "/", &all, Bytes::from(body)).await?)
    }
}
