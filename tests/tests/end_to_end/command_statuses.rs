//! Every way in which a command ends, as boto3 and the AWS CLI see it; and with whom a document is shared.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use moorline_tests::{Aws, Node, Site};
use serde_json::{Map, Value, json};

#[tokio::test]
async fn boto3_and_the_aws_cli_see_every_way_in_which_a_command_ends() -> Result<()> {
    let site = Site::start().await?;
    let away = Node::register(&site.endpoint, &[]).await?;
    let gone = Node::register(&site.endpoint, &[]).await?;
    let aws = Aws::of(&site.endpoint)?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/statuses_with_boto3.py");
    let ran = aws
        .python(&script, &[site.node.id(), away.id(), gone.id()])
        .await?
        .success()?;
    let last = ran.stdout.lines().last().context("no output")?;
    let ends: Map<String, Value> = serde_json::from_str(last)?;
    ensure!(ends.len() == 9, "{ends:?}");
    for (name, end) in &ends {
        let text = |index: usize| end[index].as_str().unwrap_or_default();
        let of = ["--command-id", text(0), "--instance-id", text(1)];
        let got = aws
            .ssm(&[&["get-command-invocation"], &of[..]].concat())
            .await?
            .success()?
            .json()?;
        ensure!(
            got["Status"] == text(2) && got["StatusDetails"] == text(3),
            "{name}: {got}"
        );
    }
    for (name, code) in [("success", 0), ("failed", 255)] {
        let end = &ends[name];
        let (command, node) = (
            end[0].as_str().unwrap_or_default(),
            end[1].as_str().unwrap_or_default(),
        );
        let wait = [
            "wait",
            "command-executed",
            "--command-id",
            command,
            "--instance-id",
            node,
        ];
        let waited = aws.ssm(&wait).await?;
        ensure!(waited.code == code, "{waited:?}");
    }
    Ok(())
}

#[tokio::test]
async fn the_aws_cli_shares_a_document_and_finds_and_describes_it() -> Result<()> {
    let site = Site::start().await?;
    let aws = Aws::of(&site.endpoint)?;
    let ssm = async |arguments: &[&str]| aws.ssm(arguments).await?.success();
    let content = json!({"schemaVersion": "2.2", "parameters": {"Word": {"type": "String", "default": "a"}},
        "mainSteps": [{"action": "aws:runShellScript", "name": "only", "inputs": {"runCommand": ["echo {{ Word }}"]}}]});
    let content = content.to_string();
    let create = [
        "create-document",
        "--name",
        "Shared",
        "--document-type",
        "Command",
        "--content",
        &content,
    ];
    ssm(&[&create[..], &["--tags", "Key=Team,Value=web"]].concat()).await?;
    let of = ["--name", "Shared", "--permission-type", "Share"];
    let modify = [&["modify-document-permission"], &of[..]].concat();
    ssm(&[
        &modify[..],
        &["--account-ids-to-add", "111122223333", "444455556666"],
    ]
    .concat())
    .await?;
    ssm(&[&modify[..], &["--account-ids-to-remove", "444455556666"]].concat()).await?;
    let shared = ssm(&[&["describe-document-permission"], &of[..]].concat())
        .await?
        .json()?;
    ensure!(shared["AccountIds"] == json!(["111122223333"]), "{shared}");
    let described = ssm(&["describe-document", "--name", "Shared"]).await?.json()?;
    let described = &described["Document"];
    ensure!(
        described["Parameters"][0]["Name"] == "Word"
            && described["HashType"] == "Sha256"
            && described["PlatformTypes"]
                .as_array()
                .is_some_and(|types| types.contains(&json!("Linux")))
            && described["Status"] == "Active",
        "{described}"
    );
    for filter in [
        "Key=tag:Team,Values=web",
        "Key=Owner,Values=Self",
        "Key=Name,Values=Sha",
    ] {
        let listed = ssm(&["list-documents", "--filters", filter]).await?.json()?;
        let names = listed["DocumentIdentifiers"].as_array().context("no documents")?;
        ensure!(
            names.len() == 1 && names[0]["Name"] == "Shared",
            "{filter}: {listed}"
        );
    }
    // The checksum of the content is what a caller may insist on.
    let hash = described["Hash"].as_str().context("no hash")?;
    let send = [
        "send-command",
        "--document-name",
        "Shared",
        "--instance-ids",
        site.node.id(),
    ];
    let with = ["--document-hash-type", "Sha256", "--document-hash"];
    let sent = ssm(&[&send[..], &with[..], &[hash]].concat()).await?.json()?;
    let command_id = sent["Command"]["CommandId"].as_str().context("no command")?;
    ensure!(site.finished(command_id).await?["StandardOutputContent"] == "a\n");
    let wrong = "0".repeat(64);
    let refused = aws.ssm(&[&send[..], &with[..], &[&wrong]].concat()).await?;
    ensure!(
        refused.code != 0 && refused.stderr.contains("InvalidDocument"),
        "{refused:?}"
    );
    Ok(())
}
