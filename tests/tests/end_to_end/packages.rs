//! Packages from their publication to their removal: with our CLI, with the AWS CLI, and when things go wrong.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use moorline_tests::{
    Aws, Cli, Endpoint, Finished, Node, S3Server, Site, WorkerKind, is_root, kill_process, skipped,
    wait_until,
};
use moorline_transport::{Download, Progress};
use serde_json::{Value, json};
use tempfile::TempDir;

const NAME: &str = "Greeter";

/// Folders of versions, and a place where their scripts write what they do.
struct Workshop {
    dir: TempDir,
}

impl Workshop {
    fn new() -> Result<Self> {
        Ok(Self {
            dir: tempfile::tempdir()?,
        })
    }

    fn diary_path(&self) -> PathBuf {
        self.dir.path().join("diary")
    }

    /// What scripts have written, line by line.
    fn diary(&self) -> String {
        fs::read_to_string(self.diary_path()).unwrap_or_default()
    }

    /// A version whose scripts write their name and version; `scripts` are what else some of them do.
    fn version(&self, version: &str, scripts: &[(&str, &str)]) -> Result<PathBuf> {
        let folder = self.dir.path().join(version);
        fs::create_dir_all(&folder)?;
        let diary = self.diary_path();
        for script in ["install", "uninstall", "update", "validate"] {
            let more = scripts.iter().find(|(name, _)| *name == script);
            let more = more.map_or("", |(_, more)| more);
            let text = format!(
                "echo \"{script} {version} $SSM_GREETING\" >> {}\necho $BWS_ACTION_NAME for $BWS_PLATFORM_NAME\n{more}\n",
                diary.display()
            );
            write(&folder.join(format!("{script}.sh")), &text)?;
        }
        write(&folder.join("data/text"), version)?;
        Ok(folder)
    }

    /// Publishes it with our CLI.
    async fn publish(&self, site: &Site, version: &str, scripts: &[(&str, &str)]) -> Result<()> {
        let folder = self.version(version, scripts)?.display().to_string();
        let arguments = [
            "package",
            "publish",
            &folder,
            "--name",
            NAME,
            "--version",
            version,
        ];
        site.cli().run(&arguments).await?.success()?;
        Ok(())
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    use std::io::Write as _;
    if let Some(above) = path.parent() {
        fs::create_dir_all(above)?;
    }
    Ok(fs::File::create(path)?.write_all(text.as_bytes())?)
}

async fn send(site: &Site, parameters: Value) -> Result<String> {
    let mut given = json!({"name": [NAME]});
    for (name, value) in parameters.as_object().context("parameters")? {
        given[name] = json!([value]);
    }
    let input = json!({
        "DocumentName": "AWS-ConfigureAWSPackage", "InstanceIds": [site.node.id()], "Parameters": given,
    });
    let sent = site.api().call("SendCommand", input).await?;
    let command_id = sent["Command"]["CommandId"].as_str();
    Ok(command_id.context("no command")?.to_owned())
}

/// Does something with the package, and returns the invocation.
async fn configure(site: &Site, parameters: Value) -> Result<Value> {
    let command_id = send(site, parameters).await?;
    site.finished(&command_id).await
}

fn check(invocation: &Value, status: &str, text: &str) -> Result<()> {
    let shown = format!(
        "{}{}",
        invocation["StandardOutputContent"].as_str().unwrap_or_default(),
        invocation["StandardErrorContent"].as_str().unwrap_or_default()
    );
    ensure!(
        invocation["Status"] == status && shown.contains(text),
        "wanted {status} with {text:?}: {invocation}"
    );
    Ok(())
}

#[tokio::test]
async fn publishing_leaves_the_temporary_folder_as_it_was() -> Result<()> {
    let endpoint = Endpoint::start().await?;
    let (workshop, temporary) = (Workshop::new()?, tempfile::tempdir()?);
    let folder = workshop.version("1.0", &[])?.display().to_string();
    fs::write(temporary.path().join("1.0.zip"), "somebody else's")?;
    let cli = Cli::of(&endpoint).with("TMPDIR", &temporary.path().display().to_string());
    let publish = ["package", "publish", &folder, "--name", NAME, "--version", "1.0"];
    cli.run(&publish).await?.success()?;
    ensure!(fs::read_dir(temporary.path())?.count() == 1);
    ensure!(fs::read(temporary.path().join("1.0.zip"))? == b"somebody else's");
    Ok(())
}

#[tokio::test]
async fn a_package_is_published_installed_updated_downgraded_and_removed() -> Result<()> {
    let site = Site::start().await?;
    let workshop = Workshop::new()?;
    workshop.publish(&site, "1.0", &[]).await?;
    let arguments = json!({"action": "Install", "additionalArguments": r#"{"SSM_GREETING": "hello 'you'"}"#});
    let invocation = configure(&site, arguments).await?;
    check(&invocation, "Success", "Successfully installed Greeter 1.0")?;
    check(
        &invocation,
        "Success",
        "Plugin aws:runShellScript ResultStatus Success",
    )?;
    check(&invocation, "Success", "install for ")?;
    ensure!(
        workshop.diary() == "install 1.0 hello 'you'\nvalidate 1.0 hello 'you'\n",
        "{}",
        workshop.diary()
    );
    let again = configure(&site, json!({"action": "Install"})).await?;
    check(&again, "Success", "Greeter 1.0 is already installed")?;

    workshop.publish(&site, "2.0", &[]).await?;
    fs::remove_file(workshop.diary_path())?;
    let in_place = json!({"action": "Install", "installationType": "In-place update"});
    check(
        &configure(&site, in_place).await?,
        "Success",
        "Successfully installed Greeter 2.0",
    )?;
    let back = configure(&site, json!({"action": "Install", "version": "1.0"})).await?;
    check(&back, "Success", "Successfully installed Greeter 1.0")?;
    let other = configure(&site, json!({"action": "Uninstall", "version": "2.0"})).await?;
    check(&other, "Success", "version 1.0 is")?;
    let gone = configure(&site, json!({"action": "Uninstall"})).await?;
    check(&gone, "Success", "Successfully uninstalled Greeter")?;
    let expected = [
        "update 2.0 ",
        "validate 2.0 ",
        "uninstall 2.0 ",
        "install 1.0 ",
        "validate 1.0 ",
        "uninstall 1.0 ",
    ];
    ensure!(workshop.diary().lines().eq(expected), "{}", workshop.diary());
    let nothing = configure(&site, json!({"action": "Uninstall"})).await?;
    check(&nothing, "Success", "Greeter is not installed")?;
    let folder = site.node.state_dir().join("packages").join(NAME);
    let left: Vec<_> = fs::read_dir(folder)?
        .map(|entry| Ok(entry?.file_name()))
        .collect::<Result<_>>()?;
    ensure!(left.len() == 2, "only the lock and the record are left: {left:?}");
    Ok(())
}

#[tokio::test]
async fn a_version_that_fails_gives_way_to_the_one_before() -> Result<()> {
    let site = Site::start().await?;
    let workshop = Workshop::new()?;
    workshop.publish(&site, "1.0", &[]).await?;
    check(
        &configure(&site, json!({"action": "Install"})).await?,
        "Success",
        "installed",
    )?;
    workshop
        .publish(&site, "2.0", &[("validate", "echo broken; exit 3")])
        .await?;
    fs::remove_file(workshop.diary_path())?;
    let failed = configure(&site, json!({"action": "Install"})).await?;
    check(
        &failed,
        "Failed",
        "RolledBack: Greeter 1.0 is installed as before",
    )?;
    check(&failed, "Failed", "validate.sh ended with exit status 3")?;
    let expected = [
        "uninstall 1.0 ",
        "install 2.0 ",
        "validate 2.0 ",
        "uninstall 2.0 ",
        "install 1.0 ",
        "validate 1.0 ",
    ];
    ensure!(workshop.diary().lines().eq(expected), "{}", workshop.diary());
    let again = configure(&site, json!({"action": "Install", "version": "1.0"})).await?;
    check(&again, "Success", "Greeter 1.0 is already installed")
}

#[tokio::test]
async fn a_script_that_asks_for_a_reboot_goes_on_behind_it() -> Result<()> {
    if !is_root() {
        skipped("another boot is made in a mount namespace, which takes root");
        return Ok(());
    }
    let mut site = Site::start().await?;
    site.node.kill_daemon().await?;
    let dir = site.node.dir().to_owned();
    let asked = dir.join("asked");
    let settings = format!(
        "[command]\nreboot_command = [\"touch\", {:?}]\n",
        asked.display().to_string()
    );
    site.node.configure(&settings)?;
    site.node.next_boot()?;
    site.node.start().await?;
    let workshop = Workshop::new()?;
    let marker = workshop.dir.path().join("rebooted");
    let reboot = format!("[ -e {0} ] || {{ touch {0}; exit 194; }}", marker.display());
    workshop.publish(&site, "1.0", &[]).await?;
    check(
        &configure(&site, json!({"action": "Install"})).await?,
        "Success",
        "installed",
    )?;
    workshop.publish(&site, "2.0", &[("install", &reboot)]).await?;
    fs::remove_file(workshop.diary_path())?;
    let command_id = send(&site, json!({"action": "Install"})).await?;
    wait_until("the reboot to be asked for", async || Ok(asked.exists())).await?;
    site.node.kill_daemon().await?;
    site.node.next_boot()?;
    site.node.start().await?;
    check(
        &site.finished(&command_id).await?,
        "Success",
        "Successfully installed Greeter 2.0",
    )?;
    let expected = ["uninstall 1.0 ", "install 2.0 ", "install 2.0 ", "validate 2.0 "];
    ensure!(workshop.diary().lines().eq(expected), "{}", workshop.diary());
    Ok(())
}

#[tokio::test]
async fn a_worker_that_is_killed_in_the_middle_leaves_a_package_that_the_next_one_puts_in_order() -> Result<()>
{
    let site = Site::start().await?;
    let workshop = Workshop::new()?;
    workshop.publish(&site, "1.0", &[]).await?;
    check(
        &configure(&site, json!({"action": "Install"})).await?,
        "Success",
        "installed",
    )?;
    let marker = workshop.dir.path().join("begun");
    let hang = format!("[ -e {0} ] || {{ touch {0}; sleep 600; }}", marker.display());
    workshop.publish(&site, "2.0", &[("install", &hang)]).await?;
    fs::remove_file(workshop.diary_path())?;
    let command_id = send(&site, json!({"action": "Install"})).await?;
    wait_until("the script to begin", async || Ok(marker.exists())).await?;
    let busy = configure(&site, json!({"action": "Uninstall"})).await?;
    check(
        &busy,
        "Failed",
        "another command is doing something with this package",
    )?;
    // that of the command which has failed may still be ending
    let workers = site.node.wait_workers(WorkerKind::Command, 1).await?;
    kill_process(workers[0]);
    check(&site.finished(&command_id).await?, "Failed", "")?;
    let again = configure(&site, json!({"action": "Install"})).await?;
    check(&again, "Success", "Successfully installed Greeter 2.0")?;
    let expected = [
        "uninstall 1.0 ",
        "install 2.0 ",
        "uninstall 2.0 ",
        "install 2.0 ",
        "validate 2.0 ",
    ];
    ensure!(workshop.diary().lines().eq(expected), "{}", workshop.diary());
    Ok(())
}

#[tokio::test]
async fn a_tampered_attachment_and_an_absent_endpoint_change_nothing() -> Result<()> {
    let mut site = Site::start().await?;
    let workshop = Workshop::new()?;
    workshop.publish(&site, "1.0", &[]).await?;
    check(
        &configure(&site, json!({"action": "Install"})).await?,
        "Success",
        "installed",
    )?;
    workshop.publish(&site, "2.0", &[]).await?;
    fs::remove_file(workshop.diary_path())?;
    let shown = site.api().call("GetDocument", json!({"Name": NAME})).await?;
    let sha256 = shown["AttachmentsContent"][0]["Hash"]
        .as_str()
        .context("no hash")?;
    let stored = site.endpoint.state_dir().join("attachments").join(sha256);
    let mode = fs::metadata(&stored)?.permissions().mode() & 0o777;
    ensure!(mode == 0o600, "{mode:o}");
    let mut bytes = fs::read(&stored)?;
    bytes[40] ^= 1;
    {
        use std::io::Write as _;
        fs::OpenOptions::new()
            .write(true)
            .truncate(true)
            .open(&stored)?
            .write_all(&bytes)?;
    }
    let refused = configure(&site, json!({"action": "Install"})).await?;
    check(
        &refused,
        "Failed",
        "another SHA-256 than the manifest says; nothing of it is run",
    )?;
    ensure!(workshop.diary().is_empty(), "{}", workshop.diary());
    let package = site.node.state_dir().join("packages").join(NAME);
    let left = fs::read_dir(&package)?.count();
    ensure!(left == 3, "a version, its record and a lock are there: {left}");
    bytes[40] ^= 1;
    {
        use std::io::Write as _;
        fs::OpenOptions::new()
            .write(true)
            .truncate(true)
            .open(&stored)?
            .write_all(&bytes)?;
    }

    // The step waits until the endpoint is away; what it then asks for comes when it is back.
    let gate = workshop.dir.path().join("gate");
    let document = json!({"schemaVersion": "2.2", "mainSteps": [
        {"action": "aws:runShellScript", "name": "wait", "inputs": {
            "runCommand": [format!("touch {0}.there; until [ -e {0} ]; do sleep 0.05; done", gate.display())]}},
        {"action": "aws:configurePackage", "name": "install", "inputs": {"action": "Install", "name": NAME}},
    ]});
    let create = json!({"Name": "Late", "DocumentType": "Command", "Content": document.to_string()});
    site.api().call("CreateDocument", create).await?;
    let input = json!({"DocumentName": "Late", "InstanceIds": [site.node.id()]});
    let sent = site.api().call("SendCommand", input).await?;
    let command_id = sent["Command"]["CommandId"]
        .as_str()
        .context("no command")?
        .to_owned();
    let there = gate.with_extension("there");
    wait_until("the first step to begin", async || Ok(there.exists())).await?;
    site.endpoint.kill().await?;
    write(&gate, "")?;
    wait_until("the agent to miss its endpoint", async || {
        Ok(site.node.log().contains("control channel lost"))
    })
    .await?;
    site.endpoint.start_again().await?;
    let invocation = site.finished(&command_id).await?;
    ensure!(invocation["Status"] == "Success", "{invocation}");
    let expected = ["uninstall 1.0 ", "install 2.0 ", "validate 2.0 "];
    ensure!(workshop.diary().lines().eq(expected), "{}", workshop.diary());
    Ok(())
}

/// An endpoint that has attachments from an S3 server, with a node and a package whose archive is there.
async fn site_with_s3(workshop: &Workshop) -> Result<(S3Server, Site, PathBuf)> {
    let s3 = S3Server::start("packages").await?;
    let credentials = s3.credentials()?.display().to_string();
    let endpoint = Endpoint::start_serving(&[
        "--attachment-source-endpoint",
        s3.url(),
        "--attachment-source-credentials",
        &credentials,
    ])
    .await?;
    let mut node = Node::register(&endpoint, &[]).await?;
    node.start().await?;
    let site = Site { node, endpoint };
    let folder = workshop.version("1.0", &[])?.display().to_string();
    let out = workshop.dir.path().join("out");
    let to = out.display().to_string();
    let build = ["package", "build", &folder, "--version", "1.0", "--out", &to];
    site.cli().run(&build).await?.success()?;
    s3.put("some/where/1.0.zip", &out.join("1.0.zip")).await?;
    Ok((s3, site, out))
}

/// `aws ssm create-document`.
async fn create_package(aws: &Aws, name: &str, content: &str, attachments: &str) -> Result<Finished> {
    aws.ssm(&[
        "create-document",
        "--name",
        name,
        "--document-type",
        "Package",
        "--content",
        content,
        "--attachments",
        attachments,
    ])
    .await
}

#[tokio::test]
async fn the_aws_cli_publishes_out_of_s3_and_gets_attachments_back() -> Result<()> {
    let workshop = Workshop::new()?;
    let (_s3, site, out) = site_with_s3(&workshop).await?;
    let aws = Aws::of(&site.endpoint)?;
    let content = format!("file://{}", out.join("manifest.json").display());
    let folder = "Key=SourceUrl,Values=s3://packages/some/where";
    let created = create_package(&aws, NAME, &content, folder)
        .await?
        .success()?
        .json()?;
    let described = &created["DocumentDescription"];
    ensure!(
        described["DocumentType"] == "Package"
            && described["VersionName"] == "1.0"
            && described["AttachmentsInformation"][0]["Name"] == "1.0.zip",
        "{created}"
    );
    let got = aws
        .ssm(&["get-document", "--name", NAME])
        .await?
        .success()?
        .json()?;
    let attachment = &got["AttachmentsContent"][0];
    let original = fs::read(out.join("1.0.zip"))?;
    ensure!(
        attachment["Size"] == original.len() && attachment["HashType"] == "Sha256",
        "{got}"
    );
    let mut downloaded = Vec::new();
    let download = Download {
        url: attachment["Url"].as_str().context("no URL")?,
        headers: &[],
        allow_insecure: false,
        max_bytes: 1 << 20,
    };
    let take = |_, bytes: &[u8]| {
        downloaded.extend_from_slice(bytes);
        Ok(())
    };
    let trust = site.api().trust();
    download.run(trust, &mut Progress::default(), take).await?;
    ensure!(downloaded == original, "{} bytes", downloaded.len());

    let sent = aws
        .ssm(&[
            "send-command",
            "--document-name",
            "AWS-ConfigureAWSPackage",
            "--instance-ids",
            site.node.id(),
            "--parameters",
            "action=Install,name=Greeter,version=1.0",
        ])
        .await?
        .success()?
        .json()?;
    let command_id = sent["Command"]["CommandId"].as_str().context("no command")?;
    let invocation = site.finished(command_id).await?;
    check(&invocation, "Success", "Successfully installed Greeter 1.0")?;
    let reference = "Key=AttachmentReference,Values=Greeter/1/1.0.zip";
    create_package(&aws, "Copy", &content, reference)
        .await?
        .success()?;
    Ok(())
}

#[tokio::test]
async fn boto3_attaches_describes_and_downloads_what_another_version_has() -> Result<()> {
    let site = Site::start().await?;
    let workshop = Workshop::new()?;
    workshop.publish(&site, "1.0", &[]).await?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/attachments_with_boto3.py");
    let aws = Aws::of(&site.endpoint)?;
    let ran = aws.python(&script, &[NAME, site.node.id()]).await?.success()?;
    ensure!(ran.stdout.ends_with("all checks passed\n"), "{ran:?}");
    Ok(())
}

#[tokio::test]
async fn attachments_that_are_not_there_or_not_what_they_should_be_are_refused_by_name() -> Result<()> {
    let workshop = Workshop::new()?;
    let (s3, site, out) = site_with_s3(&workshop).await?;
    let aws = Aws::of(&site.endpoint)?;
    s3.put("other/1.0.zip", &out.join("manifest.json")).await?;
    let content = fs::read_to_string(out.join("manifest.json"))?;
    for (attachments, expected) in [
        (
            "Key=SourceUrl,Values=s3://packages/elsewhere",
            "s3://packages/elsewhere/1.0.zip",
        ),
        (
            "Key=SourceUrl,Values=s3://packages/other",
            "does not have the SHA-256",
        ),
        (
            "Key=SourceUrl,Values=http://169.254.169.254/latest",
            "is no URL of S3",
        ),
        (
            "Key=AttachmentReference,Values=Greeter/9/1.0.zip",
            "there is no attachment",
        ),
        (
            "Key=AttachmentReference,Values=sha256:00,Name=1.0.zip",
            "upload it first",
        ),
    ] {
        let refused = create_package(&aws, "Bad", &content, attachments).await?;
        ensure!(
            refused.code != 0
                && refused.stderr.contains("InvalidDocumentContent")
                && refused.stderr.contains(expected),
            "{attachments}: {refused:?}"
        );
    }
    let without = site.api().refusal(
        "CreateDocument",
        json!({"Name": "Bad", "DocumentType": "Package", "Content": content}),
    );
    let without = without.await?;
    ensure!(without.message.contains("1.0.zip is missing"), "{without:?}");
    Ok(())
}

#[tokio::test]
async fn documents_are_kept_and_judged_with_our_cli() -> Result<()> {
    let site = Site::start().await?;
    let dir = tempfile::tempdir()?;
    let content = dir.path().join("greet.yaml");
    write(
        &content,
        "schemaVersion: '2.2'\nparameters:\n  Who: {type: String}\nmainSteps:\n- action: aws:runShellScript\n  name: \
         greet\n  inputs:\n    runCommand: [\"echo {{ Who }}\"]\n",
    )?;
    let attached = dir.path().join("notes.txt");
    write(&attached, &"long ".repeat(300_000))?;
    let (content, attached) = (content.display().to_string(), attached.display().to_string());
    let lint = site
        .cli()
        .run(&["document", "lint", &content])
        .await?
        .with_code(1)?;
    ensure!(lint.stdout.contains("warning: parameter Who"), "{lint:?}");
    let as_json = site
        .cli()
        .run(&["--json", "document", "lint", &content])
        .await?
        .with_code(1)?;
    ensure!(as_json.json()?[0]["Severity"] == "warning", "{as_json:?}");
    site.cli()
        .run(&["document", "lint", "/nowhere"])
        .await?
        .with_code(2)?;

    let create = [
        "document",
        "create",
        "Greet",
        "--content",
        &content,
        "--attachment",
        &attached,
    ];
    site.cli().run(&create).await?.success()?;
    let shown = site
        .cli()
        .run(&["--json", "document", "show", "Greet"])
        .await?
        .success()?
        .json()?;
    ensure!(
        shown["AttachmentsContent"][0]["Size"] == 1_500_000
            && shown["Description"]["DocumentFormat"] == "YAML",
        "{shown}"
    );
    let fixed = fs::read_to_string(&content)?.replace("String}", "String, allowedPattern: '^[a-z]*$'}");
    write(Path::new(&content), &fixed)?;
    site.cli().run(&["document", "lint", &content]).await?.success()?;
    let update = [
        "document",
        "update",
        "Greet",
        "--content",
        &content,
        "--make-default",
    ];
    site.cli().run(&update).await?.success()?;
    let listed = site.cli().run(&["document", "list"]).await?.success()?;
    ensure!(
        listed.stdout.contains("Greet") && !listed.stdout.contains("AWS-"),
        "{listed:?}"
    );
    let printed = site.cli().run(&["document", "show", "Greet"]).await?.success()?;
    ensure!(printed.stdout.contains("allowedPattern"), "{printed:?}");
    site.cli()
        .run(&["document", "delete", "Greet"])
        .await?
        .success()?;
    site.cli()
        .run(&["document", "show", "Greet"])
        .await?
        .with_code(1)?;
    Ok(())
}
