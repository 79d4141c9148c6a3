//! `PutParameter`: a new parameter, or a new version of one.
//!
//! AWS: API_PutParameter. What a new version leaves out (description, pattern, tier, key, policies) stays as it is.
//! Deviations: data type `text` only; tiers differ in limits, and cost nothing.

use moorline_protocol::document::AllowedPattern;
use moorline_ssm::{
    ErrorCode,
    parameter::{ParameterTier, ParameterType, PutParameterRequest, PutParameterResult},
};

use super::{invalid_name, value};
use crate::{
    api::{ApiError, ApiResult, RequestContext, tag::checked_tags},
    engine::parameter::{Policies, PolicyError, check_name},
    store::{NewParameterVersion, PresentParameter, Tags},
};

/// Bytes of a value.
const MOST_STANDARD_BYTES: usize = 4096;
const MOST_ADVANCED_BYTES: usize = 8192;
/// Parameters of a tier.
const MOST_STANDARD: i64 = 10_000;
const MOST_ADVANCED: i64 = 100_000;
/// Characters of a pattern.
const MOST_PATTERN_CHARACTERS: usize = 1024;
/// Looks at what is there, each of which but the first finds another pattern than the one before.
const LOOKS: usize = 4;

pub(super) async fn put_parameter(
    cx: RequestContext,
    input: PutParameterRequest,
) -> ApiResult<PutParameterResult> {
    let request = Request::read(input)?;
    let (name, value) = (request.name.clone(), request.value.clone());
    // Compiling a pattern takes a while, for which no other write is to wait: it is done between two looks.
    let mut matched = None;
    for _ in 0..LOOKS {
        let (request, matching) = (request.clone(), matched.as_deref());
        let put = cx
            .app
            .store
            .put_parameter(&name, cx.now, |present| decide(&cx, request, present, matching))
            .await?;
        match put {
            Ok((version, tier)) => {
                return Ok(PutParameterResult {
                    version: Some(version),
                    tier: Some(tier),
                });
            }
            Err(Undecided::Refused(error)) => return Err(error),
            Err(Undecided::Pattern(pattern)) => {
                check_pattern(&pattern, &value)?;
                matched = Some(pattern);
            }
        }
    }
    Err(ApiError::new(
        ErrorCode::TooManyUpdates,
        format!("The allowed pattern of {name} is being changed by others; try again."),
    ))
}

/// Why nothing is written yet.
enum Undecided {
    Refused(ApiError),
    /// The value is to match this, and nobody has looked whether it does.
    Pattern(String),
}

impl From<ApiError> for Undecided {
    fn from(error: ApiError) -> Self {
        Self::Refused(error)
    }
}

/// A request without what is wrong with it by itself.
#[derive(Clone)]
struct Request {
    name: String,
    value: String,
    parameter_type: Option<ParameterType>,
    key_id: Option<String>,
    description: Option<String>,
    allowed_pattern: Option<String>,
    data_type: Option<String>,
    tier: Option<ParameterTier>,
    policies: Option<Policies>,
    overwrite: bool,
    tags: Tags,
}

impl Request {
    fn read(input: PutParameterRequest) -> ApiResult<Self> {
        let name = input.name.unwrap_or_default();
        check_name(&name).map_err(|error| invalid_name(&error))?;
        let value = input.value.unwrap_or_default();
        if value.is_empty() {
            return Err(ApiError::validation("Parameter value can't be empty."));
        }
        if let Some(ParameterType::Unknown(kind)) = &input.r#type {
            let message = format!("The parameter type {kind} is not supported.");
            return Err(ApiError::new(ErrorCode::UnsupportedParameterType, message));
        }
        if let Some(other) = input
            .data_type
            .as_deref()
            .filter(|data_type| *data_type != "text")
        {
            return Err(ApiError::validation(format!(
                "The following data type is not supported: {other}. This endpoint has the data type text only (Data \
                 type names are all lowercase.)"
            )));
        }
        let overwrite = input.overwrite.unwrap_or_default();
        let tags = checked_tags(input.tags.as_deref(), ErrorCode::ValidationException)?;
        if overwrite && !tags.is_empty() {
            return Err(ApiError::validation(
                "Invalid request: tags and overwrite can't be used together. To create a parameter with tags, please \
                 remove overwrite flag. To update tags for an existing parameter, please use AddTagsToResource or \
                 RemoveTagsFromResource.",
            ));
        }
        let policies = input.policies.as_deref().map(Policies::parse).transpose();
        Ok(Self {
            name,
            value,
            parameter_type: input.r#type,
            key_id: input.key_id,
            description: input.description,
            allowed_pattern: input.allowed_pattern,
            data_type: input.data_type,
            tier: input.tier,
            policies: policies.map_err(|error| invalid_policy(&error))?,
            overwrite,
            tags,
        })
    }
}

/// What is written over what is there, if the value is known to match the pattern.
fn decide(
    cx: &RequestContext,
    request: Request,
    present: PresentParameter,
    matched: Option<&str>,
) -> Result<NewParameterVersion, Undecided> {
    let parameter_type = parameter_type(&request, &present)?;
    let policies = match request.policies {
        Some(policies) => policies,
        None => Policies::of_texts(&present.policies).map_err(ApiError::internal)?,
    };
    let tier = tier(request.tier, &request.value, &policies, &present)?;
    let earlier = present.latest;
    let version = earlier.as_ref().map_or(1, |earlier| earlier.version + 1);
    if let Some(held) = present.held_version {
        let error = ApiError::new(
            ErrorCode::ParameterMaxVersionLimitExceeded,
            format!(
                "You attempted to create a new version of {} by calling the PutParameter API with the overwrite flag. \
                 Version {held}, the oldest version, can't be deleted because it has a label associated with it. Move \
                 the label to another version of the parameter, and try again.",
                request.name
            ),
        );
        return Err(error.into());
    }
    let (old_key, old_description, old_pattern) = earlier.map_or((None, None, None), |earlier| {
        (earlier.key_id, earlier.description, earlier.allowed_pattern)
    });
    let allowed_pattern = request.allowed_pattern.or(old_pattern);
    if let Some(pattern) = allowed_pattern
        .as_deref()
        .filter(|pattern| matched != Some(pattern))
    {
        return Err(Undecided::Pattern(pattern.to_owned()));
    }
    let (value, key_id) = match parameter_type {
        ParameterType::SecureString => {
            let key_id = value::key_id(cx, request.key_id.or(old_key).as_deref())?;
            let sealed = value::seal(cx, &key_id, &request.name, version, &request.value)?;
            (sealed, Some(key_id))
        }
        _ if request.key_id.is_some() => {
            let error = ApiError::validation("KeyId is required for SecureString type parameter only.");
            return Err(error.into());
        }
        _ => (request.value, None),
    };
    Ok(NewParameterVersion {
        version,
        parameter_type,
        value,
        key_id,
        description: request.description.or(old_description),
        allowed_pattern,
        data_type: request.data_type.unwrap_or_else(|| "text".to_owned()),
        tier,
        modified_by: cx.principal.arn(),
        expires_at: policies.expires_at(),
        policies: policies.at(cx.now).map_err(|error| invalid_policy(&error))?,
        tags: request.tags,
    })
}

fn parameter_type(request: &Request, present: &PresentParameter) -> ApiResult<ParameterType> {
    let Some(latest) = &present.latest else {
        return request.parameter_type.clone().ok_or_else(|| {
            ApiError::validation("A parameter type is required when you create a parameter.")
        });
    };
    if !request.overwrite {
        return Err(ApiError::new(
            ErrorCode::ParameterAlreadyExists,
            "The parameter already exists. To overwrite this value, set the overwrite option in the request to true.",
        ));
    }
    match &request.parameter_type {
        Some(other) if *other != latest.parameter_type => Err(ApiError::new(
            ErrorCode::HierarchyTypeMismatchException,
            format!(
                "The parameter {} is of type {}, and its type cannot be changed to {other}. Create a parameter with \
                 another name.",
                request.name, latest.parameter_type
            ),
        )),
        _ => Ok(latest.parameter_type.clone()),
    }
}

fn tier(
    asked: Option<ParameterTier>,
    value: &str,
    policies: &Policies,
    present: &PresentParameter,
) -> ApiResult<ParameterTier> {
    let was_advanced = present
        .latest
        .as_ref()
        .is_some_and(|latest| latest.tier == ParameterTier::Advanced);
    let needs_advanced = value.len() > MOST_STANDARD_BYTES || !policies.is_empty();
    let is_full = present.latest.is_none() && present.standard_count >= MOST_STANDARD;
    let is_advanced = match asked {
        Some(ParameterTier::Advanced) => true,
        Some(ParameterTier::IntelligentTiering) => was_advanced || needs_advanced || is_full,
        Some(ParameterTier::Standard) if was_advanced => {
            return Err(ApiError::validation(
                "This parameter uses the advanced-parameter tier. You can't downgrade a parameter from the \
                 advanced-parameter tier to the standard-parameter tier. If necessary, you can delete the advanced \
                 parameter and recreate it as a standard parameter.",
            ));
        }
        Some(ParameterTier::Standard) | None => was_advanced,
        Some(ParameterTier::Unknown(tier)) => {
            return Err(ApiError::validation(format!("there is no tier {tier}")));
        }
    };
    if !is_advanced && !policies.is_empty() {
        return Err(ApiError::validation(
            "Parameter policies are supported by the advanced-parameter tier only: give --tier Advanced.",
        ));
    }
    if !is_advanced && value.len() > MOST_STANDARD_BYTES {
        return Err(ApiError::validation(format!(
            "Standard tier parameters support a maximum parameter value of {MOST_STANDARD_BYTES} characters. To create a \
             larger parameter value, upgrade the parameter to use the advanced-parameter tier."
        )));
    }
    if value.len() > MOST_ADVANCED_BYTES {
        return Err(ApiError::validation(format!(
            "Advanced tier parameters support a maximum parameter value of {MOST_ADVANCED_BYTES} characters."
        )));
    }
    let is_advanced_full = is_advanced && !was_advanced && present.advanced_count >= MOST_ADVANCED;
    if is_advanced_full || (!is_advanced && is_full) {
        let message =
            "You have exceeded the number of parameters of this tier: delete parameters and try again.";
        return Err(ApiError::new(ErrorCode::ParameterLimitExceeded, message));
    }
    Ok(if is_advanced {
        ParameterTier::Advanced
    } else {
        ParameterTier::Standard
    })
}

fn check_pattern(pattern: &str, value: &str) -> ApiResult<()> {
    let invalid = |reason: &str| {
        let message = format!("The allowed pattern is not valid: {reason}");
        ApiError::new(ErrorCode::InvalidAllowedPatternException, message)
    };
    if pattern.chars().count() > MOST_PATTERN_CHARACTERS {
        return Err(invalid("it has more than 1024 characters"));
    }
    let compiled = AllowedPattern::new(pattern).map_err(|reason| invalid(&reason))?;
    if compiled.is_match(value) {
        return Ok(());
    }
    // the value may be a secret
    let message = format!("Parameter value, cannot be validated against allowedPattern: {pattern}");
    Err(ApiError::new(
        ErrorCode::ParameterPatternMismatchException,
        message,
    ))
}

fn invalid_policy(error: &PolicyError) -> ApiError {
    let code = match error {
        PolicyError::Type => ErrorCode::InvalidPolicyTypeException,
        PolicyError::Attribute(_) => ErrorCode::InvalidPolicyAttributeException,
        PolicyError::Incompatible(_) => ErrorCode::IncompatiblePolicyException,
        PolicyError::TooMany => ErrorCode::PoliciesLimitExceededException,
    };
    ApiError::new(code, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{auth::Principal, test_support::TestApp};

    #[tokio::test]
    async fn no_pattern_is_compiled_while_other_writes_wait() {
        // nobody can compile this
        const PATTERN: &str = "(";
        let test = TestApp::new().await;
        let cx = test.context(Principal::Anonymous);
        let input = PutParameterRequest {
            name: Some("a".to_owned()),
            r#type: Some(ParameterType::String),
            value: Some("x".to_owned()),
            allowed_pattern: Some(PATTERN.to_owned()),
            ..PutParameterRequest::default()
        };
        let present = || PresentParameter {
            latest: None,
            policies: Vec::new(),
            held_version: None,
            standard_count: 0,
            advanced_count: 0,
        };
        let request = Request::read(input).unwrap();
        let decided = decide(&cx, request.clone(), present(), None);
        assert!(matches!(decided, Err(Undecided::Pattern(pattern)) if pattern == PATTERN));
        let decided = decide(&cx, request.clone(), present(), Some("another"));
        assert!(matches!(decided, Err(Undecided::Pattern(_))));
        assert!(decide(&cx, request, present(), Some(PATTERN)).is_ok());
    }
}
