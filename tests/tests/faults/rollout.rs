//! A roll-out in waves whose endpoint is killed.

use anyhow::{Result, ensure};
use moorline_tests::{Node, Site, wait_until};

#[tokio::test]
async fn a_roll_out_in_waves_goes_on_when_its_endpoint_was_killed_in_the_middle_of_one() -> Result<()> {
    let mut site = Site::start().await?;
    let mut others = Vec::new();
    for _ in 0..2 {
        let mut node = Node::register(&site.endpoint, &[("Role", "test")]).await?;
        node.start().await?;
        others.push(node);
    }
    let (ran, go) = (site.node.dir().join("ran"), site.node.dir().join("go"));
    let script = format!(
        "echo $AWS_SSM_INSTANCE_ID >> {ran}; until [ -e {go} ]; do sleep 0.05; done",
        ran = ran.display(),
        go = go.display()
    );
    let words = [
        "run",
        "--tag",
        "Role=test",
        "--wave",
        "first=1,then=all",
        "--health-command",
        "true",
        // nodes come back to an endpoint after a pause that grows with the time for which it was away
        "--heartbeat-grace",
        "20s",
        "--yes",
        "--json",
        "--",
        &script,
    ];
    let roll_out = site.cli().start(&words)?;
    wait_until("the first wave to run", async || Ok(ran.exists())).await?;
    site.endpoint.kill().await?;
    std::fs::File::create(&go)?;
    site.endpoint.start_again().await?;
    let ended = roll_out.wait_with_output().await?;
    let told = String::from_utf8_lossy(&ended.stderr);
    ensure!(ended.status.success(), "{told}");
    let report: serde_json::Value = serde_json::from_slice(&ended.stdout)?;
    ensure!(report["Status"] == "Complete", "{report}");
    let mut nodes: Vec<String> = std::fs::read_to_string(&ran)?
        .lines()
        .map(str::to_owned)
        .collect();
    nodes.sort();
    let mut expected = vec![site.node.id(), others[0].id(), others[1].id()];
    expected.sort_unstable();
    ensure!(nodes == expected, "each node runs it once: {nodes:?}");
    Ok(())
}
