//! Values of SecureStrings: sealed before they are stored, opened when somebody asks for them with decryption.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use moorline_ssm::{ErrorCode, parameter::ParameterType};

use crate::{
    api::{ApiError, ApiResult, RequestContext},
    auth::UnsealError,
    engine::parameter::arn,
    store::ParameterRow,
};

/// The key that seals where a request names none.
pub(super) const DEFAULT_KEY: &str = "alias/moorline";
/// What clients of AWS name when they mean the default.
const AWS_DEFAULT_KEY: &str = "alias/aws/ssm";

/// The key of a request, by a name that our KMS knows.
pub(super) fn key_id(cx: &RequestContext, named: Option<&str>) -> ApiResult<String> {
    let name = match named {
        None | Some(AWS_DEFAULT_KEY) => DEFAULT_KEY,
        Some(name) => name,
    };
    if cx.app.kms.has(name) {
        return Ok(name.to_owned());
    }
    Err(invalid_key(name))
}

/// What a sealed value is bound to: moved to another parameter or version it does not open.
fn context(name: &str, version: i64) -> BTreeMap<String, String> {
    BTreeMap::from([
        ("PARAMETER_ARN".to_owned(), arn(name)),
        ("PARAMETER_VERSION".to_owned(), version.to_string()),
    ])
}

/// Seals a value for one version of a parameter.
pub(super) fn seal(
    cx: &RequestContext,
    key_id: &str,
    name: &str,
    version: i64,
    value: &str,
) -> ApiResult<String> {
    let sealed = cx.app.kms.seal(key_id, &context(name, version), value.as_bytes());
    let (_, sealed) = sealed.ok_or_else(|| invalid_key(key_id))?;
    Ok(STANDARD.encode(sealed))
}

/// The value as the caller gets it: a SecureString stays sealed, unless it is asked for with decryption.
pub(super) fn shown(cx: &RequestContext, row: &ParameterRow, with_decryption: bool) -> ApiResult<String> {
    if row.parameter_type != ParameterType::SecureString || !with_decryption {
        return Ok(row.value.clone());
    }
    let sealed = STANDARD.decode(&row.value).map_err(ApiError::internal)?;
    let opened = cx.app.kms.unseal(None, &context(&row.name, row.version), &sealed);
    match opened {
        Ok((_, value)) => String::from_utf8(value).map_err(ApiError::internal),
        Err(UnsealError::Invalid | UnsealError::OtherKey) => {
            let message = format!(
                "the value of parameter {} version {} does not open: the endpoint's KMS keys are not those that it was \
                 sealed with, or its row was changed",
                row.name, row.version
            );
            tracing::error!("{message}");
            Err(ApiError::new(ErrorCode::InvalidKeyId, message))
        }
    }
}

fn invalid_key(name: &str) -> ApiError {
    let message = format!(
        "there is no key {}; the default is {DEFAULT_KEY}",
        crate::log_lines::shown(name)
    );
    ApiError::new(ErrorCode::InvalidKeyId, message)
}
