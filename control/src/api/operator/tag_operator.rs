//! `TagOperator`: adds tags to an operator or changes their values, all or none. `SSMSessionRunAs` names the user on
//! nodes that their sessions run as, where the preferences turn RunAs on.

use moorline_ssm::{
    ErrorCode,
    operator::{TagOperatorRequest, TagOperatorResponse},
};

use super::{MOST_TAGS, checked_tags, refused};
use crate::{
    api::{ApiError, ApiResult, RequestContext},
    engine::preferences::{RUN_AS_TAG, is_user_name},
    store::TaggedResource,
};

pub(super) async fn tag_operator(
    cx: RequestContext,
    input: TagOperatorRequest,
) -> ApiResult<TagOperatorResponse> {
    let user_name = input.user_name.unwrap_or_default();
    let tags = checked_tags(input.tags.as_deref(), ErrorCode::ValidationException)?;
    if let Some(user) = tags.get(RUN_AS_TAG).filter(|user| !is_user_name(user)) {
        return Err(ApiError::validation(format!(
            "tag {RUN_AS_TAG}: {user:?} cannot be the name of a user; remove the tag to have none"
        )));
    }
    let resource = TaggedResource::Operator(&user_name);
    let added = cx.app.store.add_tags(resource, &tags, MOST_TAGS).await?;
    added.map_err(|refusal| refused(refusal, &user_name))?;
    let keys: Vec<&str> = tags.keys().map(String::as_str).collect();
    tracing::info!(
        operator = user_name,
        ?keys,
        by = cx.principal.arn(),
        "operator tagged"
    );
    Ok(TagOperatorResponse {})
}
