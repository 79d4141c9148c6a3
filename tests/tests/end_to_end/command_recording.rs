//! What the node records of commands.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use moorline_tests::{Endpoint, Node, PATIENCE, Recording, Site, wait_for, wait_until};
use serde_json::{Value, json};

/// A node whose owner has said this.
async fn site(settings: &str) -> Result<Site> {
    let endpoint = Endpoint::start().await?;
    let mut node = Node::register(&endpoint, &[]).await?;
    node.configure(settings)?;
    node.start().await?;
    Ok(Site { node, endpoint })
}

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

#[tokio::test]
async fn what_ends_a_command_early_is_in_its_recording() -> Result<()> {
    let site = Site::start().await?;
    let cancelled = site.send("echo begun; sleep 300").await?;
    wait_until("the output to be at the endpoint", async || {
        let name = format!("transcripts/{cancelled}.{}.cast", site.node.id());
        let recorded = std::fs::read_to_string(site.endpoint.state_dir().join(name));
        Ok(recorded.is_ok_and(|text| text.contains("begun")))
    })
    .await?;
    let input = json!({"CommandId": cancelled});
    site.api().call("CancelCommand", input).await?;
    site.finished(&cancelled).await?;
    let recording = Recording::of_command(&site.cli(), site.node.dir(), &cancelled).await?;
    let steps = ended_steps(&recording)?;
    ensure!(steps.len() == 1 && steps[0].1 == "Cancelled", "{steps:?}");
    ensure!(
        recording.ours("end")?[0]["reason"] == "Cancelled",
        "{}",
        recording.text
    );

    let content = json!({"schemaVersion": "2.2", "mainSteps": [{
        "action": "aws:runShellScript", "name": "slow",
        "inputs": {"runCommand": ["echo begun; sleep 300"], "timeoutSeconds": "5"},
    }]});
    let late = run_document(&site, "Slow", &content, json!({})).await?;
    site.finished(&late).await?;
    let recording = Recording::of_command(&site.cli(), site.node.dir(), &late).await?;
    let steps = ended_steps(&recording)?;
    ensure!(steps == [("slow".to_owned(), "TimedOut".to_owned())], "{steps:?}");
    Ok(())
}

/// The value of a SecureString, and that of a parameter that is marked.
const SECRETS: [&str; 2] = ["swordfish-4711-b", "open-sesame-0815-c"];

#[tokio::test]
async fn a_secret_that_a_command_prints_is_masked_in_all_that_keeps_it() -> Result<()> {
    let site = site("[command]\nsecure_parameters = [\"/db/*\"]\n").await?;
    let [secure, marked] = SECRETS;
    let put = json!({"Name": "/db/password", "Value": secure, "Type": "SecureString"});
    site.api().call("PutParameter", put).await?;
    let (kept, go) = (site.node.dir().join("kept"), site.node.dir().join("go"));
    let content = json!({
        "schemaVersion": "2.2",
        "parameters": {"word": {"type": "String", "noEcho": true, "interpolationType": "ENV_VAR"}},
        "mainSteps": [
            script("first", &[
                "s=\"{{ssm-secure:/db/password}}\"",
                &format!("printf %s \"$s\" > {}", kept.display()),
                "echo \"one $s\"; echo \"two $s\" >&2; printf 'three %s' \"${s%-b}\"; sleep 0.3; echo -b",
                "echo \"four {{ word }}\"",
                &format!("until [ -e {} ]; do sleep 0.05; done", go.display()),
            ]),
            script("second", &[&format!("echo five; cat {}", kept.display())]),
        ],
    });
    let id = run_document(&site, "Secret", &content, json!({"word": [marked]})).await?;
    wait_until("the first step to have printed its secret", async || {
        let stdout = site
            .node
            .state_dir()
            .join("commands")
            .join(&id)
            .join("0-first/stdout");
        Ok(std::fs::read_to_string(stdout).is_ok_and(|text| text.contains("four")))
    })
    .await?;
    for process in std::fs::read_dir("/proc")?.flatten() {
        let arguments = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        ensure!(!holds(&arguments, &SECRETS), "{}", process.path().display());
    }
    check_files(site.node.state_dir(), &[secure])?;
    std::fs::File::create(&go)?;
    let first = site.finished(&id).await?;
    ensure!(first["Status"] == "Success", "{first}");
    let output = first["StandardOutputContent"].to_string();
    for shown in ["one ***", "three ***", "four ***", "***"] {
        ensure!(output.contains(shown), "{output}");
    }
    ensure!(!holds(first.to_string().as_bytes(), &SECRETS), "{first}");
    let recording = Recording::of_command(&site.cli(), site.node.dir(), &id).await?;
    ensure!(!holds(recording.text.as_bytes(), &SECRETS), "{}", recording.text);
    ensure!(
        recording.header["moorline"]["parameters"]["word"] == "***",
        "{}",
        recording.header
    );
    ensure!(
        recording.ours("masked")?.len() == 5,
        "{:?}",
        recording.ours("masked")?
    );
    check_files(site.node.state_dir(), &[secure])?;
    check_files(&site.node.state_dir().join("commands"), &SECRETS)?;
    check_files(&site.endpoint.state_dir().join("transcripts"), &SECRETS)?;
    for log in [site.node.log(), site.endpoint.log()] {
        ensure!(!holds(log.as_bytes(), &SECRETS), "a log has it");
    }
    Ok(())
}

fn holds(bytes: &[u8], secrets: &[&str]) -> bool {
    let mut secrets = secrets.iter();
    secrets.any(|secret| {
        bytes
            .windows(secret.len())
            .any(|window| window == secret.as_bytes())
    })
}

/// Every file below a directory.
fn check_files(directory: &Path, secrets: &[&str]) -> Result<()> {
    for entry in std::fs::read_dir(directory)?.flatten() {
        if entry.file_type()?.is_dir() {
            check_files(&entry.path(), secrets)?;
        } else {
            let bytes = std::fs::read(entry.path()).unwrap_or_default();
            ensure!(!holds(&bytes, secrets), "{} has it", entry.path().display());
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_command_that_cannot_be_recorded_runs_or_is_refused_as_the_owner_wants() -> Result<()> {
    let recipient = age::x25519::Identity::generate().to_public();
    for (policy, runs) in [("open", true), ("refuse", false)] {
        let settings = format!("[transcript]\nrequired = \"{policy}\"\nrecipients = [\"{recipient}\"]\n");
        let site = site(&settings).await?;
        std::fs::write(site.node.state_dir().join("transcript.key"), "damaged")?;
        let marker = site.node.dir().join("ran");
        let id = site
            .send(&format!("touch {}; echo ran", marker.display()))
            .await?;
        let invocation = site.finished(&id).await?;
        if runs {
            ensure!(invocation["StandardOutputContent"] == "ran\n", "{invocation}");
            wait_until("the log to say so", async || {
                Ok(site.node.log().contains("the command is not recorded"))
            })
            .await?;
        } else {
            ensure!(invocation["Status"] == "Failed", "{invocation}");
            let said = invocation.to_string();
            ensure!(
                said.contains("cannot be recorded") && said.contains("transcript.required"),
                "{said}"
            );
            ensure!(!marker.exists(), "it ran");
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_command_recorded_for_recipients_is_read_by_them_alone_and_verified_by_all() -> Result<()> {
    let identity = age::x25519::Identity::generate();
    let settings = format!("[transcript]\nrecipients = [\"{}\"]\n", identity.to_public());
    let site = site(&settings).await?;
    let id = site.send("echo for-few-eyes").await?;
    site.finished(&id).await?;
    let recording = Recording::of_command(&site.cli(), site.node.dir(), &id).await?;
    ensure!(!recording.text.contains("for-few-eyes"), "{}", recording.text);
    ensure!(
        recording.header["moorline"]["parameters"].is_null(),
        "{}",
        recording.header
    );
    let key = site.node.dir().join("key.txt");
    std::fs::write(
        &key,
        age::secrecy::ExposeSecret::expose_secret(&identity.to_string()),
    )?;
    let key = key.display().to_string();
    let read = ["transcript", "text", &id, "--identity", &key];
    let text = site.cli().run(&read).await?.success()?.stdout;
    ensure!(
        text.contains("for-few-eyes") && text.contains("step aws:runShellScript"),
        "{text}"
    );
    Ok(())
}

#[tokio::test]
async fn inner_steps_are_recorded_once_and_as_parts_of_theirs() -> Result<()> {
    let site = Site::start().await?;
    let inner = json!({
        "schemaVersion": "2.2",
        "mainSteps": [script("in-1", &["echo from-inside"]), script("in-2", &["exit 7"])],
    });
    let input = json!({"Name": "Inner", "DocumentType": "Command", "Content": inner.to_string()});
    site.api().call("CreateDocument", input).await?;
    let outer = json!({"schemaVersion": "2.2", "mainSteps": [{
        "action": "aws:runDocument", "name": "out",
        "inputs": {"documentType": "SSMDocument", "documentPath": "Inner"},
    }]});
    let id = run_document(&site, "Outer", &outer, json!({})).await?;
    site.finished(&id).await?;
    let recording = Recording::of_command(&site.cli(), site.node.dir(), &id).await?;
    let shown = recording.texts("o");
    ensure!(shown.matches("from-inside").count() == 1, "{shown}");
    let steps = ended_steps(&recording)?;
    let expected = [("in-1", "Success"), ("in-2", "Failed"), ("out", "Failed")];
    let expected = expected.map(|(name, status)| (name.to_owned(), status.to_owned()));
    ensure!(steps == expected, "{steps:?}");
    let inner = recording.ours("step")?;
    let within = inner.iter().filter(|step| step["within"] == "out").count();
    ensure!(within == 4, "{inner:?}");
    Ok(())
}
