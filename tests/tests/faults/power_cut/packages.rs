//! What a node calls installed is whole after a power cut, and not there in pieces.

use std::{fs, io::Write as _, path::Path};

use anyhow::{Context, Result, ensure};
use moorline_tests::{Cli, Dice, finished, soak};
use serde_json::{Value, json};

use super::PowerSite;

/// Cuts of one run; `MOORLINE_SOAK` multiplies them.
const CUTS: u64 = 4;
/// Files of the package, besides its scripts.
const FILES: usize = 12;
const NAME: &str = "Whole";

fn write(path: &Path, text: &str) -> Result<()> {
    Ok(fs::File::create(path)?.write_all(text.as_bytes())?)
}

#[tokio::test]
async fn a_package_that_is_called_installed_is_whole_after_a_power_cut() -> Result<()> {
    let mut dice = Dice::of_this_run();
    let Some(mut site) = PowerSite::start().await? else {
        return Ok(());
    };
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data/below");
    fs::create_dir_all(&data)?;
    for script in ["install.sh", "uninstall.sh"] {
        write(&folder.path().join(script), "true")?;
    }
    let shown = folder.path().display().to_string();
    for round in 0..CUTS * soak() {
        let version = format!("{round}.0");
        let text = format!("of {version}\n").repeat(1000);
        for number in 0..FILES {
            write(&data.join(number.to_string()), &text)?;
        }
        let publish = [
            "package",
            "publish",
            &shown,
            "--name",
            NAME,
            "--version",
            &version,
        ];
        Cli::of(&site.endpoint).run(&publish).await?.success()?;
        let input = json!({
            "DocumentName": "AWS-ConfigureAWSPackage", "InstanceIds": [site.node.id()],
            "Parameters": {"name": [NAME], "action": ["Install"]},
        });
        let sent = site.endpoint.api().call("SendCommand", input).await?;
        let command_id = sent["Command"]["CommandId"].as_str().context("no command")?;
        let invocation = finished(site.endpoint.api(), site.node.id(), command_id).await?;
        ensure!(invocation["Status"] == "Success", "{invocation}");

        site.cut_node(&mut dice).await?;
        let package = site.node.state_dir().join("packages").join(NAME);
        let record = fs::read(package.join("state.json"));
        let record = record.with_context(|| format!("round {round}: nothing is known of the package"))?;
        let record: Value = serde_json::from_slice(&record)?;
        let installed = &record["installed"];
        ensure!(installed["name"] == version.as_str(), "round {round}: {record}");
        let files = package.join(installed["sha256"].as_str().context("no hash")?);
        for number in 0..FILES {
            let path = files.join("data/below").join(number.to_string());
            let found = fs::read_to_string(&path).with_context(|| format!("round {round}: {path:?}"))?;
            ensure!(found == text, "round {round}: {path:?} is there in pieces");
        }
        site.node.wait_online().await?;
    }
    Ok(())
}
