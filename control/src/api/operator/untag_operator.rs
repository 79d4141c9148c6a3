//! `UntagOperator`: removes the tags of an operator that are there; others are no error.

use moorline_ssm::operator::{UntagOperatorRequest, UntagOperatorResponse};

use super::refused;
use crate::{
    api::{ApiResult, RequestContext},
    store::TaggedResource,
};

pub(super) async fn untag_operator(
    cx: RequestContext,
    input: UntagOperatorRequest,
) -> ApiResult<UntagOperatorResponse> {
    let user_name = input.user_name.unwrap_or_default();
    let keys = input.tag_keys.unwrap_or_default();
    let resource = TaggedResource::Operator(&user_name);
    let removed = cx.app.store.remove_tags(resource, &keys).await?;
    removed.map_err(|refusal| refused(refusal, &user_name))?;
    tracing::info!(
        operator = user_name,
        ?keys,
        by = cx.principal.arn(),
        "tags of an operator removed"
    );
    Ok(UntagOperatorResponse {})
}
