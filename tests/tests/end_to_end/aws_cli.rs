//! The AWS CLI from PyPI, unmodified.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use moorline_tests::{Aws, Endpoint, Node, PATIENCE, Site, WorkerKind, wait_for};
use serde_json::{Value, json};

/// Looks until an answer fits: what the AWS CLI's own users do in a loop.
async fn until(aws: &Aws, arguments: &[&str], fits: impl Fn(&Value) -> bool) -> Result<Value> {
    wait_for(
        &format!("aws ssm {}", arguments.join(" ")),
        PATIENCE,
        async || {
            let answer = aws.ssm(arguments).await?.success()?.json()?;
            Ok(Some(answer).filter(&fits))
        },
    )
    .await
}

#[tokio::test]
async fn the_aws_cli_makes_an_activation_and_finds_the_node() -> Result<()> {
    let endpoint = Endpoint::start().await?;
    let aws = Aws::of(&endpoint)?;
    let created = aws
        .ssm(&[
            "create-activation",
            "--iam-role",
            "service-role/Any",
            "--registration-limit",
            "3",
            "--default-instance-name",
            "web-1",
            "--tags",
            "Key=Role,Value=web",
        ])
        .await?
        .success()?
        .json()?;
    let text = |name: &str| created[name].as_str().context("create-activation's answer");
    let activation = (text("ActivationId")?, text("ActivationCode")?);
    ensure!(activation.1.len() >= 20, "a stock agent takes no shorter code");
    let dir = tempfile::tempdir()?;
    let state_dir = dir.path().join("agent");
    let mut node = Node::register_with(&endpoint, &endpoint.url(), activation, dir, state_dir).await?;
    node.start().await?;

    let described = aws.ssm(&["describe-activations"]).await?.success()?.json()?;
    let listed = &described["ActivationList"][0];
    ensure!(
        listed["ActivationId"] == activation.0 && listed["RegistrationsCount"] == 1,
        "{described}"
    );
    ensure!(
        !described.to_string().contains(activation.1),
        "the code is told again"
    );

    let filter = [
        "describe-instance-information",
        "--filters",
        "Key=tag:Role,Values=web",
    ];
    let nodes = until(&aws, &filter, |nodes| {
        nodes["InstanceInformationList"][0]["PingStatus"] == "Online"
    })
    .await?;
    let listed = &nodes["InstanceInformationList"][0];
    ensure!(
        listed["InstanceId"] == node.id() && listed["ResourceType"] == "ManagedInstance",
        "{nodes}"
    );
    ensure!(listed["Name"] == "web-1", "{nodes}");
    let status = aws
        .ssm(&["get-connection-status", "--target", node.id()])
        .await?
        .success()?
        .json()?;
    ensure!(status["Status"] == "connected", "{status}");

    let resource = ["--resource-type", "ManagedInstance", "--resource-id", node.id()];
    let tag = async |verb: &[&str]| aws.ssm(&[verb, &resource].concat()).await?.success();
    tag(&["add-tags-to-resource", "--tags", "Key=Stage,Value=prod"]).await?;
    tag(&["remove-tags-from-resource", "--tag-keys", "Role"]).await?;
    let tags = tag(&["list-tags-for-resource"]).await?.json()?;
    ensure!(
        tags["TagList"] == json!([{"Key": "Stage", "Value": "prod"}]),
        "{tags}"
    );

    aws.ssm(&["delete-activation", "--activation-id", activation.0])
        .await?
        .success()?;
    let described = aws.ssm(&["describe-activations"]).await?.success()?.json()?;
    ensure!(described["ActivationList"] == json!([]), "{described}");
    Ok(())
}

#[tokio::test]
async fn the_aws_cli_sends_lists_and_cancels_commands() -> Result<()> {
    let site = Site::start().await?;
    let aws = Aws::of(&site.endpoint)?;
    let node = site.node.id();
    let sent = aws
        .ssm(&[
            "send-command",
            "--document-name",
            "AWS-RunShellScript",
            "--targets",
            "Key=tag:Role,Values=test",
            "--comment",
            "from the CLI",
            "--parameters",
            "commands=[\"echo hello\",\"echo oops >&2\"],executionTimeout=60",
        ])
        .await?
        .success()?
        .json()?;
    let command = sent["Command"]["CommandId"].as_str().context("no command id")?;
    site.finished(command).await?;
    let of_command = ["--command-id", command];
    let invocation = aws
        .ssm(
            &[
                &["get-command-invocation", "--instance-id", node],
                &of_command[..],
            ]
            .concat(),
        )
        .await?
        .success()?
        .json()?;
    ensure!(invocation["StandardOutputContent"] == "hello\n", "{invocation}");
    ensure!(invocation["StandardErrorContent"] == "oops\n", "{invocation}");
    ensure!(
        invocation["ResponseCode"] == 0 && invocation["PluginName"] == "aws:runShellScript",
        "{invocation}"
    );
    let listed = aws
        .ssm(&[&["list-commands"], &of_command[..]].concat())
        .await?
        .success()?
        .json()?;
    let listed = &listed["Commands"][0];
    ensure!(
        listed["Status"] == "Success" && listed["TargetCount"] == 1,
        "{listed}"
    );
    ensure!(
        listed["Comment"] == "from the CLI" && listed["CompletedCount"] == 1,
        "{listed}"
    );
    let details = aws
        .ssm(&[&["list-command-invocations", "--details"], &of_command[..]].concat())
        .await?
        .success()?
        .json()?;
    let plugin = &details["CommandInvocations"][0]["CommandPlugins"][0];
    ensure!(
        plugin["Status"] == "Success" && plugin["ResponseCode"] == 0,
        "{details}"
    );
    ensure!(
        plugin["Output"]
            .as_str()
            .is_some_and(|output| output.contains("hello")),
        "{details}"
    );

    let slow = site.send("sleep 1000").await?;
    site.in_progress(&slow).await?;
    aws.ssm(&["cancel-command", "--command-id", &slow])
        .await?
        .success()?;
    let cancelled = site.finished(&slow).await?;
    ensure!(cancelled["Status"] == "Cancelled", "{cancelled}");
    Ok(())
}

#[tokio::test]
async fn the_aws_cli_keeps_documents() -> Result<()> {
    let endpoint = Endpoint::start().await?;
    let aws = Aws::of(&endpoint)?;
    let content = json!({
        "schemaVersion": "2.2",
        "description": "says hello",
        "parameters": {"Who": {"type": "String", "description": "whom", "default": "you"}},
        "mainSteps": [{"action": "aws:runShellScript", "name": "hello", "inputs": {"runCommand": ["echo {{Who}}"]}}],
    })
    .to_string();
    let created = aws
        .ssm(&[
            "create-document",
            "--name",
            "Hello",
            "--document-type",
            "Command",
            "--content",
            &content,
        ])
        .await?
        .success()?
        .json()?;
    ensure!(
        created["DocumentDescription"]["SchemaVersion"] == "2.2",
        "{created}"
    );
    let got = aws
        .ssm(&["get-document", "--name", "Hello"])
        .await?
        .success()?
        .json()?;
    ensure!(got["Content"] == content.as_str(), "{got}");
    let described = aws
        .ssm(&["describe-document", "--name", "Hello"])
        .await?
        .success()?
        .json()?;
    let parameter = &described["Document"]["Parameters"][0];
    ensure!(
        parameter["Name"] == "Who" && parameter["DefaultValue"] == "you",
        "{described}"
    );
    let owner = ["list-documents", "--filters", "Key=Owner,Values=Self"];
    let listed = aws.ssm(&owner).await?.success()?.json()?;
    ensure!(listed["DocumentIdentifiers"][0]["Name"] == "Hello", "{listed}");
    let again = aws
        .ssm(&["create-document", "--name", "Hello", "--content", &content])
        .await?;
    ensure!(
        again.code != 0 && again.stderr.contains("DocumentAlreadyExists"),
        "{again:?}"
    );
    aws.ssm(&["delete-document", "--name", "Hello"])
        .await?
        .success()?;
    let gone = aws.ssm(&["get-document", "--name", "Hello"]).await?;
    ensure!(
        gone.code != 0 && gone.stderr.contains("InvalidDocument"),
        "{gone:?}"
    );
    Ok(())
}

#[tokio::test]
async fn the_aws_cli_opens_a_session_through_our_plugin() -> Result<()> {
    let site = Site::start().await?;
    let aws = Aws::of(&site.endpoint)?;
    let mut terminal =
        aws.at_terminal(&["start-session", "--target", site.node.id(), "--reason", "a test"])?;
    terminal.expect("Starting session with SessionId: ").await?;
    terminal.send("stty -echo; echo sum-$((40+2)); stty size\n")?;
    terminal.expect("sum-42").await?;
    terminal.expect("24 80").await?;
    let active = aws
        .ssm(&["describe-sessions", "--state", "Active"])
        .await?
        .success()?
        .json()?;
    let session = &active["Sessions"][0];
    ensure!(
        session["Target"] == site.node.id() && session["Status"] == "Connected",
        "{active}"
    );
    ensure!(session["Reason"] == "a test", "{active}");
    // Ctrl-C belongs to the shell
    terminal.send(
        "sh -c 'trap \"echo interrupted; exit 3\" INT; echo waiting; while :; do sleep 0.05; done'\n",
    )?;
    terminal.expect("waiting").await?;
    terminal.send("\x03")?;
    terminal.expect("interrupted").await?;
    terminal.send("exit 5\n")?;
    // the AWS CLI shows the whole command line when its plugin fails, so the plugin never does
    ensure!(terminal.wait().await? == 0, "{}", terminal.text());
    site.node.wait_workers(WorkerKind::Session, 0).await?;
    Ok(())
}

#[tokio::test]
async fn the_aws_cli_terminates_and_resumes_sessions() -> Result<()> {
    let site = Site::start().await?;
    let aws = Aws::of(&site.endpoint)?;
    let mut terminal = site.cli().shell(site.node.id()).await?;
    let active = aws
        .ssm(&["describe-sessions", "--state", "Active"])
        .await?
        .success()?
        .json()?;
    let session = active["Sessions"][0]["SessionId"]
        .as_str()
        .context("no session")?;
    let of_session = ["--session-id", session];
    let resumed = aws
        .ssm(&[&["resume-session"], &of_session[..]].concat())
        .await?
        .success()?
        .json()?;
    ensure!(
        resumed["SessionId"] == session && resumed["TokenValue"].is_string(),
        "{resumed}"
    );
    aws.ssm(&[&["terminate-session"], &of_session[..]].concat())
        .await?
        .success()?;
    terminal.wait().await?;
    site.node.wait_workers(WorkerKind::Session, 0).await?;
    let filter = format!("key=SessionId,value={session}");
    let history = ["describe-sessions", "--state", "History", "--filters", &filter];
    until(&aws, &history, |history| {
        history["Sessions"][0]["Status"] == "Terminated"
    })
    .await?;
    // the stock plugin hangs on an error here; the token opens a channel whose first word is why the session ended
    let ended = aws
        .ssm(&[&["resume-session"], &of_session[..]].concat())
        .await?
        .success()?
        .json()?;
    ensure!(
        ended["SessionId"] == session && ended["TokenValue"].is_string(),
        "{ended}"
    );
    let details = aws.ssm(&history).await?.success()?.json()?;
    ensure!(
        details["Sessions"][0]["Details"] == "terminated by admin",
        "{details}"
    );
    Ok(())
}

#[tokio::test]
async fn the_plugin_answers_as_the_aws_cli_expects() -> Result<()> {
    use moorline_tests::{Cli, run};
    let dir = tempfile::tempdir()?;
    Cli::link_plugin(dir.path())?;
    let plugin = dir.path().join("session-manager-plugin");
    let environment = Default::default();
    let limit = Duration::from_secs(20);
    let version = run(&plugin, &["--version"], &environment, None, limit)
        .await?
        .success()?
        .stdout;
    let parts: Vec<u32> = version
        .trim()
        .split('.')
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    ensure!(
        parts >= vec![1, 2, 764, 0],
        "the AWS CLI calls {version} outdated"
    );
    let installed = run(&plugin, &[], &environment, None, limit)
        .await?
        .success()?
        .stdout;
    ensure!(installed.contains("was installed successfully"), "{installed:?}");
    let unknown = run(&plugin, &["nonsense"], &environment, None, limit)
        .await?
        .success()?
        .stdout;
    ensure!(unknown.contains("Unknown operation nonsense"), "{unknown:?}");
    Ok(())
}
