//! `moorline document`: documents of the endpoint, with their attachments, and what is wrong with one.

mod content;
mod lint;
mod options;

pub(crate) use content::{sum, upload};
pub(crate) use options::{ContentOptions, DocumentCommand, PackageCommand, PackageOptions};

use std::path::Path;

use moorline_ssm::document::{
    AttachmentsSource, CreateDocument, CreateDocumentRequest, DeleteDocument, DeleteDocumentRequest,
    DescribeDocument, DescribeDocumentRequest, DocumentDescription, DocumentFormat, DocumentKeyValuesFilter,
    DocumentType, GetDocument, GetDocumentRequest, ListDocuments, ListDocumentsRequest, UpdateDocument,
    UpdateDocumentDefaultVersion, UpdateDocumentDefaultVersionRequest, UpdateDocumentRequest,
};
use serde_json::json;

use self::options::Kind;
use crate::{
    console::{self, one_line},
    error::CliError,
    operator::Operator,
};

pub(crate) async fn execute(
    connect: impl FnOnce() -> Result<Operator, CliError>,
    command: DocumentCommand,
    json: bool,
) -> Result<u8, CliError> {
    match command {
        DocumentCommand::Create { name, content, kind } => {
            let operator = connect()?;
            let version = Version::read(&operator, content).await?;
            let kind = kind.unwrap_or_else(|| version.kind());
            told(&version.create(&operator, &name, kind).await?, json)
        }
        DocumentCommand::Update {
            name,
            content,
            make_default,
        } => {
            let operator = connect()?;
            let version = Version::read(&operator, content).await?;
            told(&version.update(&operator, &name, make_default).await?, json)
        }
        DocumentCommand::List { all } => list(&connect()?, all, json).await,
        DocumentCommand::Show { name, version } => show(&connect()?, name, version, json).await,
        DocumentCommand::Delete { name, version } => {
            let request = DeleteDocumentRequest {
                name: Some(name),
                document_version: version,
                ..DeleteDocumentRequest::default()
            };
            connect()?.call::<DeleteDocument>(&request).await?;
            Ok(0)
        }
        DocumentCommand::Lint { file, kind } => lint::execute(&file, kind, json),
    }
}

/// A version as it goes to the endpoint.
#[derive(Debug)]
pub(crate) struct Version {
    pub(crate) text: String,
    pub(crate) format: DocumentFormat,
    pub(crate) attachments: Vec<AttachmentsSource>,
    pub(crate) version_name: Option<String>,
}

impl Version {
    async fn read(operator: &Operator, options: ContentOptions) -> Result<Self, CliError> {
        let text = content::read_file(&options.content)?;
        let mut attachments = Vec::new();
        for path in &options.attachments {
            attachments.push(upload(operator, Path::new(path)).await?);
        }
        Ok(Self {
            format: content::format_of(&text),
            text,
            attachments,
            version_name: options.version_name,
        })
    }

    fn kind(&self) -> Kind {
        let value = moorline_protocol::document::read_text(&self.text);
        lint::guess(&value.unwrap_or_default())
    }

    async fn create(
        self,
        operator: &Operator,
        name: &str,
        kind: Kind,
    ) -> Result<DocumentDescription, CliError> {
        let request = CreateDocumentRequest {
            name: Some(name.to_owned()),
            content: Some(self.text),
            document_format: Some(self.format),
            document_type: Some(match kind {
                Kind::Command => DocumentType::Command,
                Kind::Package => DocumentType::Package,
                Kind::Policy => DocumentType::Policy,
                Kind::Session => DocumentType::Session,
            }),
            version_name: self.version_name,
            attachments: Some(self.attachments),
            ..CreateDocumentRequest::default()
        };
        let made = operator.call::<CreateDocument>(&request).await?;
        Ok(made.document_description.unwrap_or_default())
    }

    /// Makes a package.
    pub(crate) async fn create_package(
        self,
        operator: &Operator,
        name: &str,
    ) -> Result<DocumentDescription, CliError> {
        self.create(operator, name, Kind::Package).await
    }

    /// Adds the version behind the latest one.
    pub(crate) async fn update(
        self,
        operator: &Operator,
        name: &str,
        make_default: bool,
    ) -> Result<DocumentDescription, CliError> {
        let request = UpdateDocumentRequest {
            name: Some(name.to_owned()),
            content: Some(self.text),
            document_format: Some(self.format),
            document_version: Some("$LATEST".to_owned()),
            version_name: self.version_name,
            attachments: Some(self.attachments),
            ..UpdateDocumentRequest::default()
        };
        let updated = operator.call::<UpdateDocument>(&request).await?;
        let mut description = updated.document_description.unwrap_or_default();
        if make_default {
            let request = UpdateDocumentDefaultVersionRequest {
                name: Some(name.to_owned()),
                document_version: description.document_version.clone(),
            };
            operator.call::<UpdateDocumentDefaultVersion>(&request).await?;
            description.default_version = description.document_version.clone();
        }
        Ok(description)
    }
}

/// Tells which version there is now, and what its author had better change.
pub(crate) fn told(made: &DocumentDescription, json: bool) -> Result<u8, CliError> {
    let text = |text: &Option<String>| one_line(text.as_deref().unwrap_or_default());
    if json {
        console::print_json(made)?;
    } else {
        console::print_line(&format!(
            "{} version {}",
            text(&made.name),
            text(&made.document_version)
        ))?;
        if let Some(warning) = &made.status_information {
            console::note(&one_line(warning));
        }
    }
    Ok(0)
}

async fn list(operator: &Operator, all: bool, json: bool) -> Result<u8, CliError> {
    let owner = if all { "All" } else { "Self" };
    let mut request = ListDocumentsRequest {
        filters: Some(vec![DocumentKeyValuesFilter {
            key: Some("Owner".to_owned()),
            values: Some(vec![owner.to_owned()]),
        }]),
        ..ListDocumentsRequest::default()
    };
    let mut found = Vec::new();
    loop {
        let page = operator.call::<ListDocuments>(&request).await?;
        found.extend(page.document_identifiers.unwrap_or_default());
        request.next_token = page.next_token.filter(|token| !token.is_empty());
        if request.next_token.is_none() {
            break;
        }
    }
    if json {
        console::print_json(&found)?;
        return Ok(0);
    }
    let mut table = console::table(&["NAME", "TYPE", "VERSION", "VERSION NAME", "FORMAT", "OWNER"]);
    for document in found {
        let text = |text: Option<String>| one_line(text.as_deref().unwrap_or("-"));
        table.add_row([
            text(document.name),
            text(document.document_type.map(|kind| kind.to_string())),
            text(document.document_version),
            text(document.version_name),
            text(document.document_format.map(|format| format.to_string())),
            text(document.owner),
        ]);
    }
    console::print_table(&table)?;
    Ok(0)
}

async fn show(
    operator: &Operator,
    name: String,
    version: Option<String>,
    json: bool,
) -> Result<u8, CliError> {
    let request = DescribeDocumentRequest {
        name: Some(name.clone()),
        document_version: version.clone(),
        ..DescribeDocumentRequest::default()
    };
    let described = operator.call::<DescribeDocument>(&request).await?;
    let description = described.document.unwrap_or_default();
    let request = GetDocumentRequest {
        name: Some(name),
        document_version: version,
        // as it was written
        document_format: description.document_format.clone(),
        ..GetDocumentRequest::default()
    };
    let got = operator.call::<GetDocument>(&request).await?;
    if json {
        console::print_json(&json!({
            "Description": description,
            "Content": got.content,
            "AttachmentsContent": got.attachments_content,
        }))?;
    } else {
        console::print_line(got.content.as_deref().unwrap_or_default().trim_end())?;
    }
    Ok(0)
}
