//! Parameter Store: by the AWS CLI, boto3 and our client, in commands, and over kills of the endpoint.

use std::path::Path;

use anyhow::{Result, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use moorline_tests::{Aws, Endpoint, Site, wait_until};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Stands in no program, document or log that does not have it from Parameter Store.
const SECRET: &str = "vErY-sEcReT-4711-ValUe";
const SECRET_SHA256: &str = "9b20c3994ed068a3c97d24d3698d8f496224439af07d66f6e7510e1136531d87";

#[tokio::test]
async fn boto3_drives_every_operation_of_parameter_store() -> Result<()> {
    let endpoint = Endpoint::start().await?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/parameters_with_boto3.py");
    let ran = Aws::of(&endpoint)?.python(&script, &[]).await?.success()?;
    ensure!(ran.stdout.ends_with("all checks passed\n"), "{ran:?}");
    Ok(())
}

#[tokio::test]
async fn the_aws_cli_keeps_parameters() -> Result<()> {
    let endpoint = Endpoint::start().await?;
    let aws = Aws::of(&endpoint)?;
    let put = [
        "put-parameter",
        "--name",
        "/cli/a",
        "--type",
        "SecureString",
        "--value",
        "v1",
    ];
    let made: Value = serde_json::from_str(&aws.ssm(&put).await?.success()?.stdout)?;
    ensure!(made == json!({"Version": 1, "Tier": "Standard"}), "{made}");
    let refused = aws.ssm(&put).await?;
    ensure!(refused.stderr.contains("(ParameterAlreadyExists)"), "{refused:?}");
    let overwrite = [
        "put-parameter",
        "--name",
        "/cli/a",
        "--overwrite",
        "--value",
        "v2",
    ];
    aws.ssm(&overwrite).await?.success()?;
    aws.ssm(&[
        "label-parameter-version",
        "--name",
        "/cli/a",
        "--parameter-version",
        "1",
        "--labels",
        "old",
    ])
    .await?
    .success()?;
    let get = ["get-parameter", "--name", "/cli/a:old", "--with-decryption"];
    let got: Value = serde_json::from_str(&aws.ssm(&get).await?.success()?.stdout)?;
    ensure!(
        got["Parameter"]["Value"] == "v1" && got["Parameter"]["Selector"] == ":old",
        "{got}"
    );
    let list = [
        "get-parameters-by-path",
        "--path",
        "/cli",
        "--with-decryption",
        "--query",
        "Parameters[].Value",
    ];
    let listed: Value = serde_json::from_str(&aws.ssm(&list).await?.success()?.stdout)?;
    ensure!(listed == json!(["v2"]), "{listed}");
    let history = ["get-parameter-history", "--name", "/cli/a", "--max-items", "1"];
    let history: Value = serde_json::from_str(&aws.ssm(&history).await?.success()?.stdout)?;
    ensure!(
        history["Parameters"].as_array().is_some_and(|one| one.len() == 1),
        "{history}"
    );
    aws.ssm(&[
        "unlabel-parameter-version",
        "--name",
        "/cli/a",
        "--parameter-version",
        "1",
        "--labels",
        "old",
    ])
    .await?
    .success()?;
    aws.ssm(&["delete-parameter", "--name", "/cli/a"])
        .await?
        .success()?;
    let described = aws.ssm(&["describe-parameters"]).await?.success()?;
    ensure!(
        serde_json::from_str::<Value>(&described.stdout)?["Parameters"] == json!([]),
        "{described:?}"
    );
    Ok(())
}

#[tokio::test]
async fn our_client_asks_for_a_secret_on_a_terminal_and_does_not_show_it() -> Result<()> {
    let site = Site::start().await?;
    let cli = site.cli();
    let put = ["parameter", "put", "/cli/typed", "--type", "SecureString"];
    let mut terminal = cli.at_terminal(&put)?;
    terminal.expect("value (what you type is not shown): ").await?;
    terminal.send(&format!("{SECRET}\n"))?;
    terminal.expect("\r\n/cli/typed version 1\r\n").await?;
    ensure!(terminal.wait().await? == 0);
    ensure!(!terminal.text().contains(SECRET), "{}", terminal.text());
    let got = cli
        .run(&["parameter", "get", "/cli/typed", "--with-decryption"])
        .await?
        .success()?;
    ensure!(got.stdout == format!("{SECRET}\n"), "{got:?}");
    Ok(())
}

#[tokio::test]
async fn our_client_stores_no_part_of_a_secret_that_is_too_much_for_a_terminal() -> Result<()> {
    let site = Site::start().await?;
    let cli = site.cli();
    let put = ["parameter", "put", "/cli/pasted", "--type", "SecureString"];
    // behind 4095 bytes, a terminal drops what comes
    for pasted in ["x".repeat(4095), "x".repeat(5000), "BEGIN\nsecond".to_owned()] {
        let mut terminal = cli.at_terminal(&put)?;
        terminal.expect("value (what you type is not shown): ").await?;
        terminal.send(&format!("{pasted}\n"))?;
        terminal.expect("--value-file").await?;
        ensure!(terminal.wait().await? == 1);
    }
    let longest = "x".repeat(4094);
    let mut terminal = cli.at_terminal(&put)?;
    terminal.expect("value (what you type is not shown): ").await?;
    terminal.send(&format!("{longest}\n"))?;
    terminal.expect("\r\n/cli/pasted version 1\r\n").await?;
    let got = cli
        .run(&["parameter", "get", "/cli/pasted", "--with-decryption"])
        .await?
        .success()?;
    ensure!(got.stdout == format!("{longest}\n"), "{}", got.stdout.len());
    Ok(())
}

#[tokio::test]
async fn our_client_takes_a_secret_on_standard_input_and_refuses_it_as_an_argument() -> Result<()> {
    let site = Site::start().await?;
    let cli = site.cli();
    let put = ["parameter", "put", "/cli/secret", "--type", "SecureString"];
    let done = cli
        .run_with_input(&put, format!("{SECRET}\n").as_bytes())
        .await?
        .success()?;
    ensure!(done.stdout == "/cli/secret version 1\n", "{done:?}");
    // another one: a test beside this looks at the arguments of every process
    let argument = [&put[..], &["--overwrite", "--value", "shown"]].concat();
    let refused = cli.run(&argument).await?.with_code(64)?;
    ensure!(refused.stderr.contains("--value-file"), "{refused:?}");
    let got = cli
        .run(&["parameter", "get", "/cli/secret", "--with-decryption"])
        .await?
        .success()?;
    ensure!(got.stdout == format!("{SECRET}\n"), "{got:?}");
    cli.run(&["parameter", "label", "/cli/secret", "prod"])
        .await?
        .success()?;
    cli.run(&["parameter", "put", "/cli/plain", "--value", "-x"])
        .await?
        .success()?;
    let listed = cli
        .run(&["parameter", "list", "/cli", "--json"])
        .await?
        .success()?;
    let listed: Value = serde_json::from_str(&listed.stdout)?;
    ensure!(
        listed[0]["Name"] == "/cli/plain" && listed[1]["Type"] == "SecureString",
        "{listed}"
    );
    let history = cli
        .run(&["parameter", "history", "/cli/secret", "--json"])
        .await?
        .success()?;
    let history: Value = serde_json::from_str(&history.stdout)?;
    ensure!(history[0]["Labels"] == json!(["prod"]), "{history}");
    cli.run(&["parameter", "delete", "/cli/secret", "/cli/none"])
        .await?
        .with_code(1)?;
    cli.run(&["parameter", "get", "/cli/secret"])
        .await?
        .with_code(1)?;
    Ok(())
}

#[tokio::test]
async fn a_put_that_was_answered_is_there_after_a_kill() -> Result<()> {
    let mut endpoint = Endpoint::start().await?;
    for round in 1..=5 {
        let put =
            json!({"Name": "/kept", "Value": format!("v{round}"), "Type": "SecureString", "Overwrite": true});
        let done = endpoint.api().call("PutParameter", put).await?;
        endpoint.kill().await?;
        endpoint.start_again().await?;
        let get = json!({"Name": "/kept", "WithDecryption": true});
        let got = endpoint.api().call("GetParameter", get).await?;
        ensure!(
            done["Version"] == round && got["Parameter"]["Version"] == round,
            "{done} {got}"
        );
        ensure!(got["Parameter"]["Value"] == format!("v{round}"), "{got}");
    }
    Ok(())
}

#[tokio::test]
async fn a_secret_reaches_a_script_by_its_environment_and_leaves_no_trace() -> Result<()> {
    let mut site = Site::start().await?;
    let put = json!({"Name": "/db/password", "Value": "first", "Type": "SecureString"});
    site.api().call("PutParameter", put).await?;
    // a new version does not say that it is secret
    let put = json!({"Name": "/db/password", "Value": SECRET, "Overwrite": true});
    site.api().call("PutParameter", put).await?;
    let (seen, go) = (site.node.dir().join("seen"), site.node.dir().join("go"));
    let script = format!(
        "printf %s \"{{{{ssm-secure:/db/password}}}}\" | sha256sum > {seen}; until [ -e {go} ]; do sleep 0.05; done; \
         echo done",
        seen = seen.display(),
        go = go.display()
    );

    // the owner has not said anything
    let refused = site.send(&script).await?;
    let invocation = site.finished(&refused).await?;
    ensure!(invocation["Status"] == "Failed", "{invocation}");
    ensure!(
        invocation["StandardErrorContent"]
            .to_string()
            .contains("secure_parameters"),
        "{invocation}"
    );
    ensure!(!seen.exists(), "the script was started");

    site.node.stop_daemon().await?;
    site.node
        .configure("[command]\nsecure_parameters = [\"/db/*\"]\n")?;
    site.node.start().await?;
    let command = site.send(&script).await?;
    wait_until("the script to have its secret", async || {
        Ok(std::fs::read_to_string(&seen).is_ok_and(|text| text.ends_with('\n')))
    })
    .await?;
    for process in std::fs::read_dir("/proc")?.flatten() {
        let arguments = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        ensure!(
            !holds(&arguments),
            "{} has it in its arguments",
            process.path().display()
        );
    }
    check_files(site.node.state_dir())?;
    check_files(site.endpoint.state_dir())?;
    std::fs::File::create(&go)?;
    let invocation = site.finished(&command).await?;
    ensure!(invocation["StandardOutputContent"] == "done\n", "{invocation}");
    let hash = std::fs::read_to_string(&seen)?;
    ensure!(
        hash.starts_with(SECRET_SHA256),
        "the script saw something else: {hash}"
    );
    check_files(site.node.state_dir())?;
    check_files(site.endpoint.state_dir())?;
    ensure!(
        !holds(site.node.log().as_bytes()) && !holds(site.endpoint.log().as_bytes()),
        "a log has it"
    );
    let listed = site
        .api()
        .call("ListCommands", json!({"CommandId": command}))
        .await?;
    ensure!(!holds(listed.to_string().as_bytes()), "{listed}");
    Ok(())
}

fn holds(bytes: &[u8]) -> bool {
    bytes
        .windows(SECRET.len())
        .any(|window| window == SECRET.as_bytes())
}

/// Every file below a directory: journal, database and its log, scripts, output.
fn check_files(directory: &Path) -> Result<()> {
    for entry in std::fs::read_dir(directory)?.flatten() {
        if entry.file_type()?.is_dir() {
            check_files(&entry.path())?;
        } else {
            let bytes = std::fs::read(entry.path()).unwrap_or_default();
            ensure!(!holds(&bytes), "{} holds the secret", entry.path().display());
        }
    }
    Ok(())
}

#[tokio::test]
async fn the_secret_of_a_download_is_a_secure_string_where_the_owner_allows_it() -> Result<()> {
    let mut site = Site::start().await?;
    site.node
        .configure("[command]\nsecure_parameters = [\"/files/*\"]\n")?;
    site.node.kill_daemon().await?;
    site.node.start().await?;
    for name in ["/files/password", "/other/password"] {
        let put = json!({"Name": name, "Type": "SecureString", "Value": SECRET});
        site.api().call("PutParameter", put).await?;
    }
    let server = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/file", server.local_addr()?);
    let served = tokio::spawn(async move {
        let (mut socket, _) = server.accept().await?;
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(socket.read_u8().await?);
        }
        socket
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfile")
            .await?;
        anyhow::Ok(String::from_utf8(request)?)
    });
    let document = json!({"schemaVersion": "2.2", "parameters": {"secret": {"type": "String"}}, "mainSteps": [
        {"action": "aws:downloadContent", "name": "get", "inputs": {"sourceType": "HTTP", "sourceInfo": {
            "url": url, "authMethod": "Basic", "username": "me", "password": "{{ secret }}",
            "allowInsecureDownload": true}, "destinationPath": "file"}}]});
    let create = json!({"Name": "Get", "DocumentType": "Command", "Content": document.to_string()});
    site.api().call("CreateDocument", create).await?;
    let get = async |name: &str| {
        let input = json!({"DocumentName": "Get", "InstanceIds": [site.node.id()],
            "Parameters": {"secret": [format!("{{{{ssm-secure:{name}}}}}")]}});
        let sent = site.api().call("SendCommand", input).await?;
        let command_id = sent["Command"]["CommandId"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        site.finished(&command_id).await
    };
    let refused = get("/other/password").await?;
    let error = refused["StandardErrorContent"].as_str().unwrap_or_default();
    ensure!(
        refused["Status"] == "Failed" && error.contains("secure_parameters"),
        "{refused}"
    );
    let got = get("/files/password").await?;
    ensure!(got["Status"] == "Success", "{got}");
    let request = served.await??;
    let user = STANDARD.encode(format!("me:{SECRET}"));
    ensure!(request.contains(&format!("Basic {user}")), "{request}");
    Ok(())
}
