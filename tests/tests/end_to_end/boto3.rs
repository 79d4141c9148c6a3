//! boto3 from PyPI, unmodified: `tests/python/with_boto3.py` is a program as an operator writes one.

use std::path::Path;

use anyhow::{Result, ensure};
use moorline_tests::{Aws, Node, Site};
use serde_json::json;

#[tokio::test]
async fn boto3_works_with_its_paginators_waiters_and_exceptions() -> Result<()> {
    let site = Site::start().await?;
    let aws = Aws::of(&site.endpoint)?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/with_boto3.py");
    let ran = aws.python(&script, &[site.node.id()]).await?.success()?;
    ensure!(ran.stdout.ends_with("all checks passed\n"), "{ran:?}");
    site.check_commands_work().await
}

#[tokio::test]
async fn boto3_targets_limits_cancels_and_lists_commands_and_is_refused_by_name() -> Result<()> {
    let site = Site::start().await?;
    let mut second = Node::register(&site.endpoint, &[("Role", "test")]).await?;
    second.start().await?;
    let gone = Node::register(&site.endpoint, &[("Role", "test")]).await?;
    let input = json!({"InstanceId": gone.id()});
    site.api().call("DeregisterManagedInstance", input).await?;
    let aws = Aws::of(&site.endpoint)?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/commands_with_boto3.py");
    let nodes = [site.node.id(), second.id(), gone.id()];
    let ran = aws.python(&script, &nodes).await?.success()?;
    ensure!(ran.stdout.ends_with("all checks passed\n"), "{ran:?}");
    Ok(())
}
