//! Session preferences in the content of a session (docs/session-preferences.md): what the preferences document adds to
//! sessions of other documents. The endpoint does so for the node, and whoever signs a session for what they sign.

use serde_json::{Map, Value};

use super::{DEFAULT_IDLE_MINUTES, SessionPlan, SessionType, member};

/// The document whose latest version holds the preferences. Sessions that name no document use it.
pub const PREFERENCES_DOCUMENT: &str = "SSM-SessionManagerRunShell";

/// Completes the content of a document of another name with the preferences that it does not set itself.
///
/// Shell sessions of every type take over RunAs and encryption too, since a document without inputs would otherwise
/// be a way around them; forwarded ports take the two time limits. `own` are the document's inputs with the
/// parameters filled in: an input that is missing, null or an empty text is not set.
pub fn complete_session(
    mut content: Value,
    own: &Map<String, Value>,
    session_type: SessionType,
    preferences: &SessionPlan,
) -> Value {
    let is_unset = |name: &str| match member(own, name) {
        None | Some(Value::Null) => true,
        Some(value) => value.as_str() == Some(""),
    };
    let mut added = inherited(session_type, preferences);
    added.retain(|name, _| is_unset(name));
    if let (Some(members), false) = (content.as_object_mut(), added.is_empty()) {
        let inputs = match take(members, "inputs") {
            Some(Value::Object(mut inputs)) => {
                for name in added.keys() {
                    while take(&mut inputs, name).is_some() {}
                }
                inputs.extend(added);
                inputs
            }
            _ => added,
        };
        members.insert("inputs".to_owned(), inputs.into());
    }
    content
}

fn inherited(session_type: SessionType, preferences: &SessionPlan) -> Map<String, Value> {
    let mut inherited = Map::new();
    if preferences.idle_session_timeout_minutes != DEFAULT_IDLE_MINUTES {
        let idle = preferences.idle_session_timeout_minutes.to_string();
        inherited.insert("idleSessionTimeout".to_owned(), idle.into());
    }
    if let Some(longest) = preferences.max_session_duration_minutes {
        inherited.insert("maxSessionDuration".to_owned(), longest.to_string().into());
    }
    if session_type == SessionType::Port {
        return inherited;
    }
    if preferences.run_as_enabled {
        inherited.insert("runAsEnabled".to_owned(), true.into());
    }
    for (name, text) in [
        ("runAsDefaultUser", &preferences.run_as_default_user),
        ("kmsKeyId", &preferences.kms_key_id),
    ] {
        if !text.is_empty() {
            inherited.insert(name.to_owned(), text.as_str().into());
        }
    }
    inherited
}

/// Removes the member that [`member`] finds.
fn take(members: &mut Map<String, Value>, name: &str) -> Option<Value> {
    if let Some(value) = members.remove(name) {
        return Some(value);
    }
    let key = members.keys().find(|key| key.eq_ignore_ascii_case(name))?.clone();
    members.remove(&key)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::SessionDocument, *};

    fn preferences(inputs: Value) -> SessionPlan {
        let content = json!({"schemaVersion": "1.0", "sessionType": "Standard_Stream", "inputs": inputs});
        let document = SessionDocument::parse(&content).unwrap();
        document.plan(&Map::new()).unwrap()
    }

    /// All of them.
    fn strict() -> SessionPlan {
        preferences(json!({
            "runAsEnabled": "true", "runAsDefaultUser": "ops", "kmsKeyId": "key",
            "idleSessionTimeout": 5, "maxSessionDuration": "30",
        }))
    }

    fn completed(content: Value, preferences: &SessionPlan) -> Value {
        let document = SessionDocument::parse(&content).unwrap();
        let own = document.resolved_inputs(&Map::new()).unwrap();
        complete_session(content, &own, document.session_type, preferences)
    }

    #[test]
    fn a_document_without_inputs_is_no_way_around_the_preferences() {
        for session_type in ["Standard_Stream", "InteractiveCommands", "NonInteractiveCommands"] {
            let content = json!({"schemaVersion": "1.0", "sessionType": session_type});
            let document = SessionDocument::parse(&completed(content, &strict())).unwrap();
            let plan = document.plan(&Map::new()).unwrap();
            assert!(plan.run_as_enabled, "{session_type}");
            assert_eq!(
                (plan.run_as_default_user.as_str(), plan.kms_key_id.as_str()),
                ("ops", "key")
            );
            assert_eq!(plan.idle_session_timeout_minutes, 5);
            assert_eq!(plan.max_session_duration_minutes, Some(30));
        }
    }

    #[test]
    fn a_forwarded_port_takes_the_time_limits_only() {
        let content = json!({"schemaVersion": "1.0", "sessionType": "Port"});
        assert_eq!(
            completed(content, &strict())["inputs"],
            json!({"idleSessionTimeout": "5", "maxSessionDuration": "30"})
        );
    }

    #[test]
    fn what_a_document_sets_itself_stays_and_what_it_leaves_empty_does_not() {
        let content = json!({
            "schemaVersion": "1.0", "sessionType": "Standard_Stream",
            "parameters": {"key": {"type": "String", "default": ""}},
            "Inputs": {"RunAsEnabled": false, "runasdefaultuser": "", "kmsKeyId": "{{ key }}", "s3BucketName": "b"},
        });
        assert_eq!(
            completed(content, &strict()),
            json!({
                "schemaVersion": "1.0", "sessionType": "Standard_Stream",
                "parameters": {"key": {"type": "String", "default": ""}},
                "inputs": {"RunAsEnabled": false, "runAsDefaultUser": "ops", "kmsKeyId": "key", "s3BucketName": "b",
                           "idleSessionTimeout": "5", "maxSessionDuration": "30"},
            })
        );
    }

    #[test]
    fn preferences_that_ask_for_nothing_change_nothing() {
        let content =
            json!({"schemaVersion": "1.0", "sessionType": "Standard_Stream", "inputs": {"kmsKeyId": null}});
        assert_eq!(completed(content.clone(), &preferences(json!({}))), content);
    }
}
