//! A version of a document as a request gives it: what CreateDocument and UpdateDocument have in common.

use moorline_protocol::document::TextFormat;
use moorline_ssm::document::{AttachmentsSource, DocumentFormat};

use super::{
    attachment,
    content::{Checked, invalid, sha256_hex},
};
use crate::{
    api::{ApiResult, RequestContext},
    store::NewVersion,
};

#[derive(Debug)]
pub(super) struct Given {
    pub(super) attachments: Option<Vec<AttachmentsSource>>,
    pub(super) content: Option<String>,
    pub(super) display_name: Option<String>,
    pub(super) format: Option<DocumentFormat>,
    pub(super) target_type: Option<String>,
    pub(super) version_name: Option<String>,
}

impl Given {
    /// The version to store, after its content was parsed as the agent will parse it and its attachments are here.
    pub(super) async fn checked(
        self,
        cx: &RequestContext,
        name: &str,
        document_type: &str,
    ) -> ApiResult<NewVersion> {
        let format = match self.format {
            None | Some(DocumentFormat::Json) => TextFormat::Json,
            Some(DocumentFormat::Yaml) => TextFormat::Yaml,
            Some(other) => {
                return Err(invalid(format!(
                    "DocumentFormat must be JSON or YAML, not {other}"
                )));
            }
        };
        let content = self.content.unwrap_or_default();
        let checked = Checked::parse(name, document_type, format, &content)?;
        // What installs a package asks for this name.
        let version_name = match (self.version_name, checked.package_version) {
            (Some(given), Some(version)) if given != version => {
                return Err(invalid(format!(
                    "VersionName: {given} is not the version of the package, which is {version}"
                )));
            }
            (given, version) => given.or(version),
        };
        let sources = self.attachments.unwrap_or_default();
        let attachments = attachment::resolve(cx, sources, &checked.files).await?;
        Ok(NewVersion {
            document_format: format.as_str().to_owned(),
            schema_version: checked.schema_version,
            display_name: self.display_name,
            version_name,
            target_type: self.target_type,
            description: checked.description,
            sha256: sha256_hex(content.as_bytes()),
            content,
            attachments,
        })
    }
}
