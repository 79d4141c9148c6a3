//! Session documents with what must come of them: `tests/documents/sessions`.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use moorline_tests::{Endpoint, Finished, Node, Site, Terminal, is_root, skipped};
use serde_json::{Value, json};

use super::document_table::{Case, files};

/// Makes the document; the error is the refusal.
async fn create(site: &Site, case: &Case, name: &str) -> Result<()> {
    let document = case.document()?;
    let format = if document.starts_with('{') { "JSON" } else { "YAML" };
    let input =
        json!({"Name": name, "DocumentType": "Session", "DocumentFormat": format, "Content": document});
    site.api().call("CreateDocument", input).await?;
    Ok(())
}

fn arguments(site: &Site, case: &Case, name: &str) -> Vec<String> {
    let mut arguments = ["shell", site.node.id(), "--document", name]
        .map(str::to_owned)
        .to_vec();
    for (name, value) in case.parameters() {
        let value = value.as_str().unwrap_or_default();
        arguments.extend(["--param".to_owned(), format!("{name}={value}")]);
    }
    arguments
}

/// What the user does at the terminal, and sees there.
async fn act(terminal: &mut Terminal, act: &Value) -> Result<()> {
    let (verb, what) = act
        .as_object()
        .and_then(|act| act.iter().next())
        .context("an act is a map")?;
    match (verb.as_str(), what) {
        ("expect", Value::String(text)) => terminal.expect(text).await,
        ("send", Value::String(text)) => terminal.send(text),
        ("resize", Value::Array(size)) => {
            let side = |at: usize| {
                size.get(at)
                    .and_then(Value::as_u64)
                    .and_then(|side| side.try_into().ok())
            };
            let (columns, rows) = side(0).zip(side(1)).context("a size is two numbers")?;
            terminal.resize(columns, rows)
        }
        _ => bail!("nobody can {act}"),
    }
}

fn check_output(case: &Case, ran: &Finished) -> Result<()> {
    if let Some(stdout) = case.text("stdout") {
        ensure!(ran.stdout == stdout, "{ran:?}");
    }
    let errors = case.text("stderrHas").unwrap_or_default();
    ensure!(ran.stderr.contains(errors), "{ran:?}");
    Ok(())
}

async fn check(site: &Site, case: &Case, name: &str) -> Result<()> {
    if let Some(reason) = case.text("refused") {
        let told = match create(site, case, name).await {
            Err(refused) => format!("{refused:#}"),
            Ok(()) => {
                let arguments = arguments(site, case, name);
                let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
                let ran = site.cli().run(&arguments).await?;
                ensure!(ran.code != 0, "it was opened: {ran:?}");
                ran.stderr
            }
        };
        ensure!(told.contains(reason), "refused for another reason: {told}");
        return case.check_nothing_else_ran();
    }
    create(site, case, name).await?;
    let arguments = arguments(site, case, name);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let code = match case.acts() {
        None => {
            let ran = site.cli().run(&arguments).await?;
            check_output(case, &ran)?;
            ran.code
        }
        Some(acts) => {
            let mut terminal = site.cli().at_terminal(&arguments)?;
            for one in acts {
                act(&mut terminal, one).await?;
            }
            terminal.wait().await?
        }
    };
    ensure!(
        u64::try_from(code).ok() == case.number("code"),
        "it ended with {code}"
    );
    case.check_nothing_else_ran()
}

#[tokio::test]
async fn session_documents_come_to_what_the_table_says() -> Result<()> {
    check_table(&Site::start().await?).await
}

const BUSYBOX: &str = "/bin/busybox";
/// Every program that is in the places for programs is busybox, and root's shell is one of them.
const ALL_BUSYBOX: &str = r#"
userland=$(mktemp -d "$HOME/busybox.XXXXXX")
cp /bin/busybox "$userland"
"$userland/busybox" --install -s "$userland"
chmod 755 "$userland"
sed -i 's,^root:.*,root:x:0:0:root:/root:/bin/sh,' /etc/passwd
for folder in /bin /sbin /usr/bin /usr/sbin; do
    if [ -L $folder ]; then continue; fi
    mount -o bind "$userland" $folder
done
"#;

#[tokio::test]
async fn session_documents_come_to_the_same_where_busybox_is_all_there_is() -> Result<()> {
    if !is_root() || !Path::new(BUSYBOX).exists() {
        skipped("it takes root, and busybox");
        return Ok(());
    }
    let endpoint = Endpoint::start().await?;
    let mut node = Node::register(&endpoint, &[]).await?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("own_users.sh");
    node.isolate(&script, ALL_BUSYBOX);
    node.start().await?;
    let site = Site { node, endpoint };
    let command = site
        .send("readlink -f /bin/sh; ls --help 2>&1 | head -n 1")
        .await?;
    let told = site.finished(&command).await?["StandardOutputContent"].to_string();
    ensure!(
        told.contains("/busybox\\n") && told.contains("BusyBox v"),
        "{told}"
    );
    check_table(&site).await
}

async fn check_table(site: &Site) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut wrong = Vec::new();
    let mut count = 0;
    for file in files("sessions")? {
        for case in Case::read_all(&file, dir.path())? {
            count += 1;
            if let Err(error) = check(site, &case, &format!("Session-{count}")).await {
                wrong.push(format!("{}: {error:#}", case.name()));
            }
        }
    }
    ensure!(count >= 10, "cases are missing");
    ensure!(wrong.is_empty(), "{} cases:\n{}", wrong.len(), wrong.join("\n"));
    Ok(())
}
