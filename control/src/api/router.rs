//! From `X-Amz-Target` to an operation: decode, validate, authorize, handle, encode.

use std::{collections::BTreeMap, future::Future};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use moorline_ssm::Operation;

use super::{ApiResult, RequestContext};
use crate::auth::Resource;

type Handler = Box<dyn Fn(RequestContext, Bytes) -> BoxFuture<'static, ApiResult<Vec<u8>>> + Send + Sync>;

/// The table of operations.
#[derive(Default)]
pub(crate) struct Router {
    _handlers: BTreeMap<(&'static str, &'static str), Handler>,
}

impl Router {
    /// Adds an operation. `resource` names what it acts on, for authorization.
    ///
    /// # Panics
    /// At start, if the operation already has a handler.
    pub(crate) fn on<O, F, Fut>(self, resource: fn(&O::Input) -> Resource, handler: F) -> Self
    where
        O: Operation,
        F: Fn(RequestContext, O::Input) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ApiResult<O::Output>> + Send + 'static,
    {
        let _ = (resource, handler);
        todo!()
    }

    /// Answers one request whose principal is proven. The target is the `X-Amz-Target` header.
    pub(crate) async fn call(&self, cx: RequestContext, target: &str, body: Bytes) -> ApiResult<Vec<u8>> {
        let _ = (cx, target, body);
        todo!()
    }
}
