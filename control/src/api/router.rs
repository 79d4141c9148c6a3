//! From `X-Amz-Target` to an operation: decode, validate, authorize, handle, encode.

use std::{collections::BTreeMap, fmt, future::Future, sync::Arc};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use moorline_ssm::{ErrorCode, Operation};

use super::{ApiError, ApiResult, RequestContext};
use crate::{
    auth::{Resource, authorize},
    log_lines::{shown, shown_line},
};

type Handler = Box<dyn Fn(RequestContext, Bytes) -> BoxFuture<'static, ApiResult<Vec<u8>>> + Send + Sync>;

/// The table of operations.
#[derive(Default)]
pub(crate) struct Router {
    handlers: BTreeMap<(&'static str, &'static str), Handler>,
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.handlers.keys()).finish()
    }
}

impl Router {
    /// Adds an operation. `resource` names what it acts on, for authorization.
    ///
    /// # Panics
    /// At start, if the operation already has a handler.
    pub(crate) fn on<O, F, Fut>(mut self, resource: fn(&O::Input) -> Resource, handler: F) -> Self
    where
        O: Operation,
        F: Fn(RequestContext, O::Input) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ApiResult<O::Output>> + Send + 'static,
    {
        let handler = Arc::new(handler);
        let action: Arc<str> = action(O::PREFIX, O::NAME).into();
        let boxed: Handler = Box::new(move |cx, body| {
            let (handler, action) = (Arc::clone(&handler), Arc::clone(&action));
            Box::pin(async move {
                let input = O::decode_input(&body).map_err(|source| malformed(&source))?;
                let resource = resource(&input);
                cx.record.is_call_of::<O>(&action, &input, &resource);
                cx.record.mask_marked_secrets(&cx.app.store).await;
                authorize(&cx.principal, &action, &resource)?;
                moorline_ssm::validate(&input)?;
                cx.record.accept().await?;
                let result = handler(cx, input).await;
                if let Err(error) = &result {
                    debug_assert!(error.is_one_of(O::ERRORS), "{} does not answer {error}", O::NAME);
                }
                result.map(|output| O::encode_output(&output))
            })
        });
        let taken = self.handlers.insert((O::PREFIX, O::NAME), boxed);
        assert!(taken.is_none(), "{}.{} has two handlers", O::PREFIX, O::NAME);
        self
    }

    /// Answers one request whose principal is proven. The target is the `X-Amz-Target` header.
    pub(crate) async fn call(&self, cx: RequestContext, target: &str, body: Bytes) -> ApiResult<Vec<u8>> {
        let app = Arc::clone(&cx.app);
        tracing::debug!(
            request_id = cx.request_id,
            target,
            by = cx.principal.arn(),
            "operation"
        );
        let (prefix, name) = target.split_once('.').unwrap_or(("", target));
        let Some(((_, name), handler)) = self.handlers.get_key_value(&(prefix, name)) else {
            app.metrics
                .counter("moorline_api_unknown_operations_total", &[])
                .increment();
            return Err(unknown(prefix, name));
        };
        let result = handler(cx, body).await;
        let code = result.as_ref().map_or_else(|error| error.code.as_str(), |_| "");
        let labels = [("operation", *name), ("error", code)];
        app.metrics
            .counter("moorline_api_requests_total", &labels)
            .increment();
        result
    }

    /// The operations that have a handler, as `Prefix.Name`.
    #[cfg(test)]
    pub(crate) fn operations(&self) -> Vec<String> {
        self.handlers
            .keys()
            .map(|(prefix, name)| format!("{prefix}.{name}"))
            .collect()
    }
}

/// What `authorize` calls an operation: `ssm:SendCommand`.
fn action(prefix: &str, name: &str) -> String {
    let service = match prefix {
        "AmazonSSM" => "ssm",
        "EC2WindowsMessageDeliveryService" => "ec2messages",
        "TrentService" => "kms",
        _ => "moorline",
    };
    format!("{service}:{name}")
}

fn malformed(source: &serde_json::Error) -> ApiError {
    ApiError::new(
        ErrorCode::SerializationException,
        format!(
            "the request's body cannot be read: {}",
            shown_line(&source.to_string())
        ),
    )
}

fn unknown(prefix: &str, name: &str) -> ApiError {
    let shown = shown(name);
    let message = if moorline_ssm::is_known_operation(prefix, name) {
        format!("Moorline does not implement the operation {shown} yet")
    } else {
        format!("there is no operation {shown}")
    };
    ApiError::new(ErrorCode::UnknownOperationException, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::router,
        auth::Principal,
        test_support::{TestApp, administrator},
    };

    #[test]
    fn every_generated_operation_has_a_handler() {
        let generated = include_str!("../../../protocol/ssm/model/operations.txt");
        let mut generated: Vec<&str> = generated
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.split(' ').next())
            .collect();
        generated.sort_unstable();
        assert_eq!(router().operations(), generated);
    }

    #[test]
    #[should_panic(expected = "has two handlers")]
    fn a_second_handler_for_an_operation_stops_the_start() {
        let _router = super::super::tag::routes(router());
    }

    async fn refuse(test: &TestApp, principal: Principal, target: &str, body: &'static [u8]) -> ApiError {
        let body = Bytes::from_static(body);
        test.router
            .call(test.context(principal), target, body)
            .await
            .unwrap_err()
    }

    #[tokio::test]
    async fn an_operation_is_known_by_service_and_name() {
        let test = TestApp::new().await;
        for target in [
            "ListDocuments",
            "EC2WindowsMessageDeliveryService.ListDocuments",
            "AmazonSSM.",
            "",
        ] {
            let error = refuse(&test, administrator(), target, b"{}").await;
            assert_eq!(error.code, ErrorCode::UnknownOperationException, "{target}");
        }
        let error = refuse(&test, administrator(), "AmazonSSM.CreateOpsItem", b"{}").await;
        assert_eq!(
            error.message,
            "Moorline does not implement the operation CreateOpsItem yet"
        );
    }

    #[tokio::test]
    async fn names_and_values_of_a_request_stay_on_one_line_of_the_refusal() {
        let test = TestApp::new().await;
        let error = refuse(&test, administrator(), "AmazonSSM.No\nSuch", b"{}").await;
        assert_eq!(error.message, "there is no operation No\\nSuch");
        let body = br#"{"Targets":"\nWARN all is lost"}"#;
        let error = refuse(&test, administrator(), "AmazonSSM.SendCommand", body).await;
        assert!(error.message.contains("WARN"), "{}", error.message);
        assert!(!error.message.contains('\n'), "{}", error.message);
    }

    #[tokio::test]
    async fn authorization_comes_before_validation_and_reading_before_both() {
        let test = TestApp::new().await;
        let target = "AmazonSSM.CreateActivation";
        let error = refuse(&test, Principal::Anonymous, target, b"[]").await;
        assert_eq!(error.code, ErrorCode::SerializationException);
        let error = refuse(&test, Principal::Anonymous, target, b"{}").await;
        assert_eq!(error.code, ErrorCode::MissingAuthenticationToken);
        let error = refuse(&test, administrator(), target, b"").await;
        assert_eq!(error.code, ErrorCode::ValidationException);
    }
}
