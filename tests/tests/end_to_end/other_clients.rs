//! Session clients that others wrote, unmodified (client-wire §6): one from PyPI that is stricter than the stock
//! plugin about what it reads, and two, from PyPI and npm, that are laxer about what they send.

use std::{collections::BTreeMap, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use moorline_tests::{Aws, Endpoint, Node, Site, is_root, run, skipped};
use serde_json::json;

/// The only host names that the library from PyPI connects to are AWS's own.
const AWS_NAME: &str = "ssmmessages.us-east-1.amazonaws.com";
/// Where `cargo xtask test` keeps the client from npm.
const NODE_MODULES: &str = "MOORLINE_TEST_NODE_MODULES";
const LIMIT: Duration = Duration::from_secs(120);

#[tokio::test]
async fn the_ssm_bridge_library_from_pypi_works() -> Result<()> {
    if !is_root() {
        skipped("only root can give the endpoint a name of AWS's in a namespace of its own");
        return Ok(());
    }
    let endpoint = Endpoint::start_named(&[AWS_NAME, "127.0.0.1"]).await?;
    let mut node = Node::register(&endpoint, &[]).await?;
    node.start().await?;
    let hosts = endpoint.home().join("hosts");
    std::fs::write(&hosts, format!("127.0.0.1 localhost {AWS_NAME}\n"))?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/with_ssm_bridge.py");
    let url = format!("https://{AWS_NAME}:{}", endpoint.address().port());
    let aws = Aws::of(&endpoint)?.with("AWS_ENDPOINT_URL", &url);
    let ran = aws.python_with_hosts(&hosts, &script, &[node.id()]).await?;
    ensure!(ran.success()?.stdout.ends_with("all checks passed\n"));
    Ok(())
}

#[tokio::test]
async fn the_pyssm_client_library_from_pypi_runs_a_command_in_a_shell() -> Result<()> {
    let site = Site::start().await?;
    let aws = Aws::of(&site.endpoint)?;
    if aws.tool("pyssm").is_none() {
        skipped("pyssm-client installs with Python 3.12 and later");
        return Ok(());
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/with_pyssm_client.py");
    let ran = aws.python(&script, &[site.node.id()]).await?;
    ensure!(ran.success()?.stdout.ends_with("all checks passed\n"));
    site.check_commands_work().await
}

#[tokio::test]
async fn the_browser_client_from_npm_opens_a_shell() -> Result<()> {
    let Some(modules) = std::env::var_os(NODE_MODULES) else {
        skipped("npm was not found when the tests were prepared");
        return Ok(());
    };
    let site = Site::start().await?;
    let started = site
        .api()
        .call("StartSession", json!({"Target": site.node.id()}))
        .await?;
    let text = |name: &str| started[name].as_str().context("StartSession");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("node/with_ssm_session.js");
    let mut environment: BTreeMap<String, String> = site.endpoint.environment().clone();
    environment.insert(
        "NODE_EXTRA_CA_CERTS".to_owned(),
        site.endpoint.ca().display().to_string(),
    );
    environment.insert("NODE_PATH".to_owned(), Path::new(&modules).display().to_string());
    let script = script.display().to_string();
    let arguments = [script.as_str(), text("StreamUrl")?, text("TokenValue")?];
    let ran = run("node", &arguments, &environment, None, LIMIT)
        .await?
        .success()?;
    let lines: String = (1..=3000).map(|number| format!("{number}\r\n")).collect();
    ensure!(ran.stdout.contains("41 101\r\n"), "{ran:?}");
    ensure!(ran.stdout.contains(&lines), "lines are missing: {ran:?}");
    ensure!(ran.stdout.contains("sum-42\r\n"), "{ran:?}");
    site.check_commands_work().await
}
