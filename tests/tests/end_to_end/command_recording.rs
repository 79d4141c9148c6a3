//! What the node records of commands.

use anyhow::{Context, Result, ensure};
use moorline_tests::{PATIENCE, Recording, Site, wait_for};
use serde_json::{Value, json};

/// Creates a document of these steps and runs it on the node; the command's id.
async fn run_document(site: &Site, name: &str, content: &Value, parameters: Value) -> Result<String> {
    let input = json!({"Name": name, "DocumentType": "Command", "Content": content.to_string()});
    site.api().call("CreateDocument", input).await?;
    let input = json!({
        "DocumentName": name, "InstanceIds": [site.node.id()], "Parameters": parameters,
        "Comment": "ticket 4711",
    });
    let sent = site.api().call("SendCommand", input).await?;
    let id = sent["Command"]["CommandId"].as_str().context("no id")?;
    Ok(id.to_owned())
}

fn script(name: &str, lines: &[&str]) -> Value {
    json!({"action": "aws:runShellScript", "name": name, "inputs": {"runCommand": lines}})
}

/// Name and status of each step that a recording says to have ended.
fn ended_steps(recording: &Recording) -> Result<Vec<(String, String)>> {
    let text = |event: &Value, name: &str| event[name].as_str().unwrap_or_default().to_owned();
    let steps = recording.ours("step")?;
    let ended = steps.iter().filter(|step| step["status"].is_string());
    Ok(ended
        .map(|step| (text(step, "name"), text(step, "status")))
        .collect())
}

#[tokio::test]
async fn a_command_is_recorded_with_its_steps_their_output_and_how_it_ended() -> Result<()> {
    let site = Site::start().await?;
    let content = json!({
        "schemaVersion": "2.2",
        "parameters": {"word": {"type": "String"}, "ApiToken": {"type": "String"}},
        "mainSteps": [
            script("first", &["echo first says {{ word }}", "echo to-err >&2"]),
            script("second", &["echo second; exit 3"]),
            script("third", &["echo third"]),
        ],
    });
    let parameters = json!({"word": ["plain"], "ApiToken": ["tok-123456"]});
    let id = run_document(&site, "Three", &content, parameters).await?;
    site.finished(&id).await?;
    let recording = Recording::of_command(&site.cli(), site.node.dir(), &id).await?;
    let about = &recording.header["moorline"];
    ensure!(about["id"] == format!("{id}.{}", site.node.id()), "{about}");
    ensure!(
        about["kind"] == "Command" && about["document"] == "Three",
        "{about}"
    );
    ensure!(about["reason"] == "ticket 4711", "{about}");
    ensure!(
        about["operator"]
            .as_str()
            .is_some_and(|arn| arn.contains("admin")),
        "{about}"
    );
    ensure!(
        about["parameters"]["word"] == "plain" && about["parameters"]["ApiToken"] == "***",
        "{about}"
    );
    let shown = recording.texts("o");
    ensure!(
        shown.contains("first says plain\r\n") && shown.contains("third\r\n"),
        "{shown}"
    );
    let errors = recording.ours("stderr")?;
    ensure!(
        errors.iter().any(|event| event["data"] == "to-err\r\n"),
        "{errors:?}"
    );
    let steps = ended_steps(&recording)?;
    let expected = [("first", "Success"), ("second", "Failed"), ("third", "Success")];
    let expected = expected.map(|(name, status)| (name.to_owned(), status.to_owned()));
    ensure!(steps == expected, "{steps:?}");
    ensure!(
        recording.texts("m").contains("second (aws:runShellScript)"),
        "{}",
        recording.text
    );
    ensure!(recording.texts("x") == "3", "{}", recording.text);
    let end = recording.ours("end")?;
    ensure!(end.len() == 1 && end[0]["reason"] == "Failed", "{end:?}");

    // by the command, and by the command and its node
    for arguments in [
        &["transcript", "text", &id][..],
        &["transcript", "text", &id, "--node", site.node.id()],
    ] {
        let text = site.cli().run(arguments).await?.success()?.stdout;
        ensure!(
            text.contains("step second (aws:runShellScript): Failed, code 3"),
            "{text}"
        );
    }
    let listed = site
        .cli()
        .run(&["transcript", "list", "--kind", "command"])
        .await?
        .success()?;
    ensure!(
        listed.stdout.contains("Three") && listed.stdout.contains("Command"),
        "{listed:?}"
    );
    let none = site
        .cli()
        .run(&["transcript", "list", "--kind", "session", "--json"])
        .await?;
    ensure!(none.success()?.json()? == json!([]));
    wait_for("the spool to be empty", PATIENCE, async || {
        let left = std::fs::read_dir(site.node.state_dir().join("spool"))?.count();
        Ok((left == 0).then_some(()))
    })
    .await
}
