//! The API with the operator's own key.

use moorline_protocol::sigv4::Credentials;
use moorline_ssm::Operation;
use moorline_transport::{ApiClient, CallError, HttpClient, Trust};

use crate::settings::Settings;

/// Calls operations of the endpoint as the operator.
#[derive(Debug)]
pub(crate) struct Operator {
    api: ApiClient,
    kms: ApiClient,
    credentials: Credentials,
}

impl Operator {
    pub(crate) fn new(settings: Settings) -> Self {
        let client = |endpoint| {
            let http = HttpClient::new(endpoint, settings.trust.clone());
            let user_agent = concat!("moorline/", env!("CARGO_PKG_VERSION")).to_owned();
            ApiClient::new(http, settings.region.clone(), user_agent)
        };
        Self {
            api: client(settings.endpoint),
            kms: client(settings.kms_endpoint),
            credentials: settings.credentials,
        }
    }

    /// Calls an operation.
    ///
    /// # Errors
    /// No answer came, the service refused, or the answer has another shape.
    pub(crate) async fn call<O: Operation>(&self, input: &O::Input) -> Result<O::Output, CallError> {
        self.api.call::<O>(Some(&self.credentials), input).await
    }

    /// Calls an operation of KMS.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub(crate) async fn call_kms<O: Operation>(&self, input: &O::Input) -> Result<O::Output, CallError> {
        self.kms.call::<O>(Some(&self.credentials), input).await
    }

    pub(crate) fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    pub(crate) fn region(&self) -> &str {
        self.api.region()
    }

    pub(crate) fn trust(&self) -> &Trust {
        self.api.http().trust()
    }

    /// Where the endpoint is, for what we tell the user.
    pub(crate) fn endpoint_url(&self) -> String {
        self.api.http().endpoint().url()
    }
}

/// Whether the same call may succeed later: nobody answered, or the endpoint is not well or too busy. Calls for which
/// this is asked must be harmless when repeated.
pub(crate) fn is_passing(error: &CallError) -> bool {
    match error {
        CallError::Http { .. } => true,
        CallError::Service { source, .. } => source.status >= 500 || source.code == "ThrottlingException",
        CallError::Shape { .. } => false,
    }
}
