//! Sessions that are encrypted between client and node, with data keys of the endpoint's KMS.

use std::{os::unix::fs::PermissionsExt as _, time::Duration};

use anyhow::{Context, Result, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use moorline_tests::{Aws, Site, Terminal, WorkerKind, wait_until};
use serde_json::{Value, json};

const DOCUMENT: &str = "EncryptedShell";
const ALIAS: &str = "alias/moorline";
const GREETING: &str = "This session is encrypted end to end with key alias/moorline.";

/// A site with a session document that names this key.
async fn site_with_key(key_id: &str) -> Result<Site> {
    let site = Site::start().await?;
    let content = json!({
        "schemaVersion": "1.0",
        "sessionType": "Standard_Stream",
        "inputs": {"kmsKeyId": key_id},
    });
    create_document(&site, DOCUMENT, &content).await?;
    Ok(site)
}

async fn create_document(site: &Site, name: &str, content: &Value) -> Result<()> {
    let input = json!({"Name": name, "DocumentType": "Session", "Content": content.to_string()});
    site.api().call("CreateDocument", input).await?;
    Ok(())
}

async fn encrypted_shell(site: &Site) -> Result<Terminal> {
    let arguments = ["shell", site.node.id(), "--document", DOCUMENT];
    let mut command = site.cli().command(&arguments)?;
    let remarks = tempfile::NamedTempFile::new()?;
    let mut terminal = Terminal::start_with(&mut command, 80, 24, Some(remarks.reopen()?))?;
    terminal.send("stty -echo; PS1=; echo rea''dy\n")?;
    terminal.expect("ready").await?;
    let said = std::fs::read_to_string(remarks.path())?;
    ensure!(said.contains(GREETING), "{said}");
    Ok(terminal)
}

#[tokio::test]
async fn a_shell_is_encrypted_and_recorded_by_its_node() -> Result<()> {
    let site = site_with_key(ALIAS).await?;
    let mut terminal = encrypted_shell(&site).await?;
    terminal.send("echo sec''ret; stty size; seq 1 20000; exit 6\n")?;
    terminal.expect("secret").await?;
    terminal.expect("24 80").await?;
    terminal.expect("\r\n20000\r\n").await?;
    ensure!(terminal.wait().await? == 6, "{}", terminal.text());
    let cli = site.cli();
    wait_until("the transcript", async || {
        let text = cli.run(&["transcript", "text"]).await?.success()?.stdout;
        Ok(text.contains("secret") && text.contains("20000"))
    })
    .await
}

/// Its output is there before anybody can read it.
#[tokio::test]
async fn a_command_that_ends_at_once_loses_no_output_to_the_handshake() -> Result<()> {
    let site = Site::start().await?;
    let content = json!({
        "schemaVersion": "1.0",
        "sessionType": "InteractiveCommands",
        "inputs": {"kmsKeyId": ALIAS},
        "properties": {"linux": {"commands": "echo al''l-of-it; exit 9"}},
    });
    create_document(&site, "EncryptedCommand", &content).await?;
    let arguments = ["shell", site.node.id(), "--document", "EncryptedCommand"];
    let ran = site.cli().run(&arguments).await?.with_code(9)?;
    ensure!(
        ran.stderr.contains(GREETING) && !ran.stdout.contains(GREETING) && ran.stdout.contains("all-of-it"),
        "{ran:?}"
    );
    Ok(())
}

/// Neither a command nor a shell with its profile.
#[tokio::test]
async fn what_is_to_be_encrypted_does_not_begin_before_its_key_is_agreed() -> Result<()> {
    let site = Site::start().await?;
    let mark = site.node.dir().join("mark");
    let touch = format!("touch {}", mark.display());
    let started_with = |key_id: &str| {
        let command = json!({
            "schemaVersion": "1.0",
            "sessionType": "InteractiveCommands",
            "inputs": {"kmsKeyId": key_id},
            "properties": {"linux": {"commands": touch}},
        });
        let shell = json!({
            "schemaVersion": "1.0",
            "sessionType": "Standard_Stream",
            "inputs": {"kmsKeyId": key_id, "shellProfile": {"linux": format!("{touch}; exit")}},
        });
        [command, shell]
    };
    for (number, content) in started_with("alias/somebody-elses").iter().enumerate() {
        let name = format!("Refused{number}");
        create_document(&site, &name, content).await?;
        let arguments = ["shell", site.node.id(), "--document", &name];
        site.cli().run(&arguments).await?.with_code(255)?;
        site.node.wait_workers(WorkerKind::Session, 0).await?;
        ensure!(!mark.exists(), "{name} has run");
    }
    for (number, content) in started_with(ALIAS).iter().enumerate() {
        let name = format!("Agreed{number}");
        create_document(&site, &name, content).await?;
        let arguments = ["shell", site.node.id(), "--document", &name];
        site.cli().run(&arguments).await?.success()?;
        std::fs::remove_file(&mark)?;
    }
    Ok(())
}

#[tokio::test]
async fn an_encrypted_session_survives_the_endpoint_without_a_lost_or_doubled_byte() -> Result<()> {
    let mut site = site_with_key(ALIAS).await?;
    let mut terminal = encrypted_shell(&site).await?;
    terminal.send("for i in $(seq 1 1500); do echo $i; sleep 0.002; done; echo coun''ted\n")?;
    for line in ["\r\n200\r\n", "\r\n900\r\n"] {
        terminal.expect(line).await?;
        site.endpoint.kill().await?;
        site.endpoint.start_again().await?;
    }
    terminal
        .expect_within("counted", Duration::from_secs(120))
        .await?;
    let text = terminal.text();
    let from = text.find("1\r\n2\r\n").context("no output")?;
    let expected: String = (1..=1500).map(|number| format!("{number}\r\n")).collect();
    ensure!(
        text.get(from..)
            .is_some_and(|output| output.starts_with(&expected)),
        "bytes were lost or doubled: {text}"
    );
    terminal.send("exit 4\n")?;
    ensure!(terminal.wait().await? == 4);
    Ok(())
}

#[tokio::test]
async fn the_aws_cli_opens_an_encrypted_session_through_our_plugin() -> Result<()> {
    let site = site_with_key(ALIAS).await?;
    let aws = Aws::of(&site.endpoint)?;
    let mut terminal = aws.at_terminal(&[
        "start-session",
        "--target",
        site.node.id(),
        "--document-name",
        DOCUMENT,
    ])?;
    terminal.expect(GREETING).await?;
    terminal.send("stty -echo; echo sum-$((40+2))\n")?;
    terminal.expect("sum-42").await?;
    terminal.send("exit\n")?;
    ensure!(terminal.wait().await? == 0, "{}", terminal.text());
    site.node.wait_workers(WorkerKind::Session, 0).await?;
    Ok(())
}

#[tokio::test]
async fn a_key_that_the_endpoint_does_not_have_is_told_before_there_is_a_session() -> Result<()> {
    let site = site_with_key("alias/somebody-elses").await?;
    let refused = site
        .cli()
        .run(&["shell", site.node.id(), "--document", DOCUMENT])
        .await?
        .with_code(255)?;
    for told in [DOCUMENT, "alias/somebody-elses", ALIAS] {
        ensure!(refused.stderr.contains(told), "{refused:?}");
    }
    let sessions = site
        .api()
        .call("DescribeSessions", json!({"State": "History"}))
        .await?;
    ensure!(sessions["Sessions"] == json!([]), "{sessions}");
    Ok(())
}

#[tokio::test]
async fn the_aws_cli_makes_and_opens_data_keys() -> Result<()> {
    let site = Site::start().await?;
    let aws = Aws::of(&site.endpoint)?;
    let made = aws
        .service(
            "kms",
            &[
                "generate-data-key",
                "--key-id",
                ALIAS,
                "--number-of-bytes",
                "64",
                "--encryption-context",
                "purpose=test",
            ],
        )
        .await?
        .success()?
        .json()?;
    let ciphertext = made["CiphertextBlob"].as_str().context("no ciphertext")?;
    let dir = tempfile::tempdir()?;
    std::fs::write(dir.path().join("blob"), STANDARD.decode(ciphertext)?)?;
    let blob = format!("fileb://{}/blob", dir.path().display());
    let decrypt = async |context: &str| {
        let blob = ["decrypt", "--ciphertext-blob", &blob];
        let context = ["--encryption-context", context];
        aws.service("kms", &[&blob[..], &context].concat()).await
    };
    let opened = decrypt("purpose=test").await?.success()?.json()?;
    ensure!(
        opened["Plaintext"] == made["Plaintext"] && opened["KeyId"] == made["KeyId"],
        "the keys differ"
    );
    let refused = decrypt("purpose=other").await?;
    ensure!(
        refused.stderr.contains("InvalidCiphertextException"),
        "{refused:?}"
    );
    // a session's data key is its node's, whoever made it
    let session = format!("aws:ssm:SessionId=s-1,aws:ssm:TargetId={}", site.node.id());
    let refused = decrypt(&session).await?;
    ensure!(refused.stderr.contains("AccessDeniedException"), "{refused:?}");
    let unknown = [
        "generate-data-key",
        "--key-id",
        "alias/other",
        "--key-spec",
        "AES_256",
    ];
    let refused = aws.service("kms", &unknown).await?;
    ensure!(refused.stderr.contains("NotFoundException"), "{refused:?}");
    Ok(())
}

#[tokio::test]
async fn the_key_file_is_readable_by_its_owner_only() -> Result<()> {
    let site = Site::start().await?;
    let path = site.endpoint.state_dir().join("kms.key");
    let mode = std::fs::metadata(&path)?.permissions().mode();
    ensure!(mode & 0o777 == 0o600, "{mode:o}");
    Ok(())
}
