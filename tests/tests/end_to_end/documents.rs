//! Documents with versions, kept with the AWS CLI.

use anyhow::{Context, Result, ensure};
use moorline_tests::{Aws, Endpoint};
use serde_json::{Value, json};

fn preferences(inputs: &Value) -> String {
    json!({"schemaVersion": "1.0", "sessionType": "Standard_Stream", "inputs": inputs}).to_string()
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
