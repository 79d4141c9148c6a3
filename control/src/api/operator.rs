//! Operators and their tags: ours, not AWS's, where they would be users of IAM.

mod list_operators;
mod tag_operator;
mod untag_operator;

#[cfg(test)]
mod tests;

use moorline_ssm::{
    ErrorCode,
    operator::{ListOperators, TagOperator, UntagOperator},
};

use super::{
    ApiError, Router,
    tag::{MOST_TAGS, checked_tags, wire_tags},
};
use crate::{auth::Resource, store::TagRefusal};

pub(super) fn routes(router: Router) -> Router {
    router
        .on::<ListOperators, _, _>(|_| Resource::Any, list_operators::list_operators)
        .on::<TagOperator, _, _>(
            |input| operator(input.user_name.as_ref()),
            tag_operator::tag_operator,
        )
        .on::<UntagOperator, _, _>(
            |input| operator(input.user_name.as_ref()),
            untag_operator::untag_operator,
        )
}

fn operator(user_name: Option<&String>) -> Resource {
    Resource::Operator(user_name.cloned().unwrap_or_default())
}

fn refused(refusal: TagRefusal, user_name: &str) -> ApiError {
    match refusal {
        TagRefusal::NoSuchResource => ApiError::new(
            ErrorCode::DoesNotExistException,
            format!("there is no operator {user_name}"),
        ),
        TagRefusal::TooMany => ApiError::new(
            ErrorCode::TooManyTagsError,
            format!("{user_name} would have more than {MOST_TAGS} tags; remove some first"),
        ),
    }
}
