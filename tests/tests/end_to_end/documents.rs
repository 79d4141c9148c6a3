//! Documents with versions, and the session preferences, kept with the AWS CLI and with ours.

use anyhow::{Context, Result, ensure};
use moorline_tests::{Aws, Endpoint, Site, is_root};
use serde_json::{Value, json};

const PREFERENCES: &str = "SSM-SessionManagerRunShell";

fn preferences(inputs: &Value) -> String {
    json!({"schemaVersion": "1.0", "sessionType": "Standard_Stream", "inputs": inputs}).to_string()
}

/// As AWS's own procedure for preferences has it.
async fn prefer(aws: &Aws, inputs: &Value) -> Result<Value> {
    let content = preferences(inputs);
    aws.ssm(&[
        "update-document",
        "--name",
        PREFERENCES,
        "--content",
        &content,
        "--document-version",
        "$LATEST",
    ])
    .await?
    .success()?
    .json()
}

#[tokio::test]
async fn the_aws_cli_keeps_versions_of_a_document() -> Result<()> {
    let endpoint = Endpoint::start().await?;
    let aws = Aws::of(&endpoint)?;
    let ssm = async |arguments: &[&str]| aws.ssm(arguments).await?.success()?.json();
    let content = |minutes: u32| preferences(&json!({ "idleSessionTimeout": minutes }));
    let create = ["create-document", "--name", "Mine", "--document-type", "Session"];
    ssm(&[&create[..], &["--version-name", "one", "--content", &content(1)]].concat()).await?;
    let update = ["update-document", "--name", "Mine", "--content", &content(2)];
    let updated = ssm(&[&update[..], &["--document-version", "$LATEST"]].concat()).await?;
    let described = &updated["DocumentDescription"];
    ensure!(
        described["LatestVersion"] == "2" && described["DefaultVersion"] == "1",
        "{updated}"
    );
    let stale = aws
        .ssm(&[&update[..], &["--document-version", "1"]].concat())
        .await?;
    ensure!(
        stale.code != 0 && stale.stderr.contains("InvalidDocumentVersion"),
        "{stale:?}"
    );
    let same = aws
        .ssm(&[&update[..], &["--document-version", "2"]].concat())
        .await?;
    ensure!(
        same.code != 0 && same.stderr.contains("DuplicateDocumentContent"),
        "{same:?}"
    );
    let get = ["get-document", "--name", "Mine"];
    for (asked, minutes) in [
        (&[][..], 1),
        (&["--document-version", "$LATEST"], 2),
        (&["--version-name", "one"], 1),
    ] {
        let got = ssm(&[&get[..], asked].concat()).await?;
        ensure!(got["Content"] == content(minutes).as_str(), "{asked:?}: {got}");
    }
    ssm(&[
        "update-document-default-version",
        "--name",
        "Mine",
        "--document-version",
        "2",
    ])
    .await?;
    let listed = ssm(&["list-document-versions", "--name", "Mine"]).await?;
    let versions = listed["DocumentVersions"].as_array().context("no versions")?;
    let versions: Vec<_> = versions
        .iter()
        .map(|version| {
            (
                version["DocumentVersion"].as_str(),
                version["IsDefaultVersion"].as_bool(),
            )
        })
        .collect();
    ensure!(
        versions == [(Some("2"), Some(true)), (Some("1"), Some(false))],
        "{listed}"
    );
    aws.ssm(&["delete-document", "--name", "Mine", "--document-version", "1"])
        .await?
        .success()?;
    let gone = aws
        .ssm(&[&get[..], &["--document-version", "1"]].concat())
        .await?;
    ensure!(
        gone.code != 0 && gone.stderr.contains("InvalidDocumentVersion"),
        "{gone:?}"
    );
    Ok(())
}

#[tokio::test]
async fn updated_preferences_take_effect_and_outlive_the_endpoints_restart() -> Result<()> {
    let mut site = Site::start().await?;
    let aws = Aws::of(&site.endpoint)?;
    let profile = "stty -echo; echo pro''filed";
    let inputs = json!({
        "idleSessionTimeout": "7", "maxSessionDuration": "90", "shellProfile": {"linux": profile},
    });
    prefer(&aws, &inputs).await?;
    let mut terminal = aws.at_terminal(&["start-session", "--target", site.node.id()])?;
    terminal.expect("profiled").await?;
    let active = aws
        .ssm(&["describe-sessions", "--state", "Active"])
        .await?
        .success()?
        .json()?;
    let session = &active["Sessions"][0];
    ensure!(
        session["MaxSessionDuration"] == "90" && session["DocumentName"] == PREFERENCES,
        "{active}"
    );
    terminal.send("exit\n")?;
    ensure!(terminal.wait().await? == 0, "{}", terminal.text());
    let refused = aws
        .ssm(&[
            "update-document",
            "--name",
            PREFERENCES,
            "--document-version",
            "$LATEST",
            "--content",
            &preferences(&json!({"idleSessionTimeout": "61"})),
        ])
        .await?;
    ensure!(
        refused.code != 0 && refused.stderr.contains("idleSessionTimeout"),
        "{refused:?}"
    );
    site.endpoint.kill().await?;
    site.endpoint.start_again().await?;
    let got = aws
        .ssm(&[
            "get-document",
            "--name",
            PREFERENCES,
            "--document-version",
            "$LATEST",
        ])
        .await?
        .success()?
        .json()?;
    ensure!(got["Content"] == preferences(&inputs).as_str(), "{got}");
    Ok(())
}

#[tokio::test]
async fn sessions_run_as_the_user_of_the_callers_tag_whatever_their_document() -> Result<()> {
    let site = Site::start().await?;
    let aws = Aws::of(&site.endpoint)?;
    let cli = site.cli();
    prefer(
        &aws,
        &json!({"runAsEnabled": true, "runAsDefaultUser": "no-such-user"}),
    )
    .await?;
    let who = [
        "shell",
        site.node.id(),
        "--document",
        "AWS-StartInteractiveCommand",
        "--param",
        "command=echo I am $(id -un)",
    ];
    let wrong = cli
        .run(&["operator", "tag", "admin", "SSMSessionRunAs=-x"])
        .await?;
    ensure!(
        wrong.code != 0 && wrong.stderr.contains("SSMSessionRunAs"),
        "{wrong:?}"
    );
    cli.run(&["operator", "tag", "admin", "SSMSessionRunAs=nobody"])
        .await?
        .success()?;
    let listed = cli
        .run(&["operator", "list", "--json"])
        .await?
        .success()?
        .json()?;
    ensure!(
        listed[0]["UserName"] == "admin" && listed[0]["Tags"]["SSMSessionRunAs"] == "nobody",
        "{listed}"
    );
    let mut terminal = cli.at_terminal(&who)?;
    // only root can become somebody else
    let expected = if is_root() {
        "I am nobody"
    } else {
        "the agent must run as root to use RunAs"
    };
    terminal.expect(expected).await?;
    terminal.wait().await?;

    cli.run(&["operator", "untag", "admin", "SSMSessionRunAs"])
        .await?
        .success()?;
    let mut terminal = cli.at_terminal(&who)?;
    let expected = if is_root() {
        "RunAs user no-such-user does not exist"
    } else {
        "the agent must run as root to use RunAs"
    };
    terminal.expect(expected).await?;
    terminal.wait().await?;
    Ok(())
}
