//! The SSM API: a folder per capability, a file per operation, one line per route.

mod activation;
mod association;
mod audit;
mod command;
mod compliance;
mod context;
mod document;
mod error;
mod filters;
mod inventory;
mod kms;
mod message_delivery;
mod node;
mod node_group;
mod operator;
mod pagination;
mod parameter;
mod public_key;
mod router;
mod session;
mod tag;
mod transcript;

pub(crate) use context::RequestContext;
pub(crate) use document::built_in_documents;
pub(crate) use error::{ApiError, ApiResult, CONTENT_TYPE};
pub(crate) use router::Router;

/// Every operation that this endpoint answers.
pub(crate) fn router() -> Router {
    let router = Router::default();
    let router = activation::routes(router);
    let router = association::routes(router);
    let router = audit::routes(router);
    let router = command::routes(router);
    let router = compliance::routes(router);
    let router = document::routes(router);
    let router = inventory::routes(router);
    let router = kms::routes(router);
    let router = message_delivery::routes(router);
    let router = node::routes(router);
    let router = node_group::routes(router);
    let router = operator::routes(router);
    let router = parameter::routes(router);
    let router = public_key::routes(router);
    let router = session::routes(router);
    let router = tag::routes(router);
    transcript::routes(router)
}
