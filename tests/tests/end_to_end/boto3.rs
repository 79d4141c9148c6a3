//! boto3 from PyPI, unmodified: `tests/python/with_boto3.py` is a program as an operator writes one.

use std::path::Path;

use anyhow::{Result, ensure};
use moorline_tests::{Aws, Site};

#[tokio::test]
async fn boto3_works_with_its_paginators_waiters_and_exceptions() -> Result<()> {
    let site = Site::start().await?;
    let aws = Aws::of(&site.endpoint)?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/with_boto3.py");
    let ran = aws.python(&script, &[site.node.id()]).await?.success()?;
    ensure!(ran.stdout.ends_with("all checks passed\n"), "{ran:?}");
    site.check_commands_work().await
}
