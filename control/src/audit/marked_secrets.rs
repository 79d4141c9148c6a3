//! Parameters that their document marks as secrets (`noEcho`): the log shows their values no more than a recording does.

use moorline_protocol::document::{PREFERENCES_DOCUMENT, marked_secrets};
use serde_json::{Map, Value};

use super::{CallRecord, mask::MASKED};
use crate::store::{Store, StoreError, VersionChoice};

/// The member of a call that has a request within it, as a plan has that of its command.
const INNER: &str = "Command";

impl CallRecord {
    /// Masks the values of parameters that the document of the call marks as secrets. Where the document cannot be read
    /// that is of all parameters.
    pub(crate) async fn mask_marked_secrets(&self, store: &Store) {
        let named = self.with_parameters(|request| document_of(request)).flatten();
        let Some((document, version)) = named else {
            return;
        };
        let marked = marked(store, &document, &version).await.ok();
        self.with_parameters(|request| {
            mask(request, marked.as_deref());
            if let Some(Value::Object(inner)) = request.get_mut(INNER) {
                mask(inner, marked.as_deref());
            }
        });
    }
}

/// Name and version of the document that parameters are given to.
fn document_of(request: &Map<String, Value>) -> Option<(String, String)> {
    let request = match request.get(INNER) {
        Some(Value::Object(inner)) => inner,
        _ => request,
    };
    request.get("Parameters").filter(|values| values.is_object())?;
    let text = |name| request.get(name).and_then(Value::as_str);
    let name = text("DocumentName").unwrap_or(PREFERENCES_DOCUMENT);
    let name = name.rsplit_once(":document/").map_or(name, |(_, name)| name);
    Some((
        name.to_owned(),
        text("DocumentVersion").unwrap_or_default().to_owned(),
    ))
}

/// `marked`: which parameters; `None`: all.
fn mask(request: &mut Map<String, Value>, marked: Option<&[String]>) {
    let values = request.get_mut("Parameters").and_then(Value::as_object_mut);
    for (name, value) in values.into_iter().flatten() {
        if marked.is_none_or(|marked| marked.contains(name)) {
            *value = MASKED.into();
        }
    }
}

async fn marked(store: &Store, name: &str, version: &str) -> Result<Vec<String>, StoreError> {
    let choice = match version.parse() {
        Ok(number) => VersionChoice::Number(number),
        Err(_) if version == "$LATEST" || name == PREFERENCES_DOCUMENT => VersionChoice::Latest,
        Err(_) => VersionChoice::Default,
    };
    let row = store.document_version(name, choice).await?;
    // most say nothing of the kind, and need not be read
    let row = row.filter(|row| row.content.contains("noEcho"));
    let document = row.and_then(|row| row.value().ok());
    let marked = document.iter().flat_map(marked_secrets);
    Ok(marked.map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use moorline_ssm::{
        audit::{ListAuditRecords, ListAuditRecordsRequest},
        command::{PlanCommand, PlanCommandRequest, SendCommand, SendCommandRequest},
        document::{CreateDocument, CreateDocumentRequest, DocumentType},
        session::{StartSession, StartSessionRequest},
    };
    use serde_json::json;

    use crate::test_support::TestApp;

    async fn document(test: &TestApp, name: &str, document_type: DocumentType, content: serde_json::Value) {
        let request = CreateDocumentRequest {
            name: Some(name.to_owned()),
            document_type: Some(document_type),
            content: Some(content.to_string()),
            ..CreateDocumentRequest::default()
        };
        test.call::<CreateDocument>(request).await.unwrap();
    }

    #[tokio::test]
    async fn a_value_that_its_document_marks_as_a_secret_is_not_in_the_log() {
        let test = TestApp::new().await;
        let node = test.register_node(1, &[]).await;
        let parameters = json!({"pin": {"type": "String", "noEcho": true}, "host": {"type": "String"}});
        let login = json!({
            "schemaVersion": "1.0", "sessionType": "InteractiveCommands", "parameters": parameters,
            "properties": {"linux": {"commands": "login {{ host }} {{ pin }}"}},
        });
        document(&test, "Login", DocumentType::Session, login).await;
        let step = json!({"action": "aws:runShellScript", "name": "s", "inputs": {"runCommand": ["login {{ pin }}"]}});
        let command = json!({"schemaVersion": "2.2", "parameters": parameters, "mainSteps": [step]});
        document(&test, "Deploy", DocumentType::Command, command).await;
        let values = || {
            let values = [("pin", "hidden-4711"), ("host", "shown-host")];
            Some(
                values
                    .map(|(name, value)| (name.to_owned(), vec![value.to_owned()]))
                    .into(),
            )
        };
        // refused: the node is not connected
        let start = StartSessionRequest {
            target: Some(node.to_string()),
            document_name: Some("Login".to_owned()),
            parameters: values(),
            ..StartSessionRequest::default()
        };
        test.refuse::<StartSession>(start).await;
        let send = SendCommandRequest {
            document_name: Some("Deploy".to_owned()),
            instance_ids: Some(vec![node.to_string()]),
            parameters: values(),
            ..SendCommandRequest::default()
        };
        let plan = PlanCommandRequest {
            command: Some(send.clone()),
            ..PlanCommandRequest::default()
        };
        test.call::<PlanCommand>(plan).await.unwrap();
        test.call::<SendCommand>(send).await.unwrap();
        let request = ListAuditRecordsRequest::default();
        let lines = test
            .call::<ListAuditRecords>(request)
            .await
            .unwrap()
            .records
            .unwrap();
        let of = |operation: &str| {
            let mut lines = lines.iter();
            lines.any(|line| line.contains(operation) && line.contains("shown-host"))
        };
        assert!(of("ssm:StartSession") && of("ssm:SendCommand"), "{lines:?}");
        assert!(
            !lines.iter().any(|line| line.contains("hidden-4711")),
            "{lines:?}"
        );
    }
}
