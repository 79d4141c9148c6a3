//! `GenerateDataKey`: random bytes, in clear and sealed for a context.
//!
//! KMS: API_GenerateDataKey. Grants are not known here, so tokens of them add nothing.

use moorline_ssm::{
    Blob,
    kms::{DataKeySpec, GenerateDataKeyRequest, GenerateDataKeyResponse},
};
use ring::rand::{SecureRandom as _, SystemRandom};

use super::{no_such_key, refuse_extras};
use crate::api::{ApiError, ApiResult, RequestContext};

pub(super) async fn generate_data_key(
    cx: RequestContext,
    input: GenerateDataKeyRequest,
) -> ApiResult<GenerateDataKeyResponse> {
    let length = match (input.number_of_bytes, &input.key_spec) {
        (Some(bytes), None) => usize::try_from(bytes).map_err(ApiError::internal)?,
        (None, Some(DataKeySpec::Aes128)) => 16,
        (None, Some(_)) => 32,
        (Some(_), Some(_)) | (None, None) => {
            return Err(ApiError::validation(
                "Please specify either number of bytes or key spec.",
            ));
        }
    };
    let key_id = input.key_id.as_deref().unwrap_or_default();
    if !cx.app.kms.has(key_id) {
        return Err(no_such_key(key_id));
    }
    refuse_extras(input.dry_run, input.recipient.as_ref())?;
    let mut plaintext = vec![0; length];
    SystemRandom::new()
        .fill(&mut plaintext)
        .map_err(|_| ApiError::internal("the operating system gives no random bytes"))?;
    let context = input.encryption_context.unwrap_or_default();
    let sealed = cx.app.kms.seal(key_id, &context, &plaintext);
    let (arn, ciphertext) = sealed.ok_or_else(|| no_such_key(key_id))?;
    Ok(GenerateDataKeyResponse {
        ciphertext_blob: Some(Blob(ciphertext)),
        plaintext: Some(Blob(plaintext)),
        key_id: Some(arn),
        ..GenerateDataKeyResponse::default()
    })
}
