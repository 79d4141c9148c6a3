//! Documents with what must come of them, one file of `tests/documents` for each group of rules: run by a node for its
//! endpoint, and on the machine without one. Both must come to the same.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use moorline_protocol::document::read_text;
use moorline_tests::{Api, Endpoint, Node, wait_for};
use serde_json::{Map, Value, json};

/// All documents of a file run at the same time, on a machine that other tests load.
const PATIENCE: Duration = Duration::from_secs(180);

/// One document and what must come of it.
pub(super) struct Case {
    name: String,
    /// The directory that `{dir}` stands for, with the files that the case has.
    dir: PathBuf,
    members: Map<String, Value>,
}

impl Case {
    /// The cases of a file; each gets a directory below `dir`.
    pub(super) fn read_all(file: &Path, dir: &Path) -> Result<Vec<Self>> {
        let read = |text: &str| read_text(text).with_context(|| format!("{}", file.display()));
        let cases = read(&fs::read_to_string(file)?)?;
        let cases = cases.as_array().context("a file of cases is a list")?.clone();
        let stem = file.file_stem().context("a name")?.to_string_lossy().into_owned();
        let with_directory = |(index, case): (usize, Value)| {
            let dir = dir.join(format!("{stem}-{index}"));
            fs::create_dir(&dir)?;
            // Filled in in the text, so that it is in documents inside texts too.
            let text = case.to_string().replace("{dir}", &dir.display().to_string());
            let Value::Object(members) = serde_json::from_str(&text)? else {
                bail!("{}: a case is a map", file.display());
            };
            let name = members
                .get("case")
                .and_then(Value::as_str)
                .context("a case has a name")?;
            for (name, text) in members
                .get("file")
                .and_then(Value::as_object)
                .into_iter()
                .flatten()
            {
                fs::write(dir.join(name), text.as_str().context("a file is a text")?)?;
            }
            Ok(Self {
                name: format!("{stem}: {name}"),
                dir,
                members,
            })
        };
        cases.into_iter().enumerate().map(with_directory).collect()
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The texts of a list.
    pub(super) fn list(&self, name: &str) -> impl Iterator<Item = &str> {
        let list = self.members.get(name).and_then(Value::as_array);
        list.into_iter().flatten().filter_map(Value::as_str)
    }

    pub(super) fn number(&self, name: &str) -> Option<u64> {
        self.members.get(name).and_then(Value::as_u64)
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.members.get(name).and_then(Value::as_str)
    }

    pub(super) fn runs(&self, place: &str) -> bool {
        self.text("only").is_none_or(|only| only == place)
    }

    /// The case with what comes of it on the stock agent, where that differs; `None`: it is not for the stock agent.
    pub(super) fn on_the_stock_agent(mut self) -> Result<Option<Self>> {
        let Some(mut stock) = self.members.remove("stock") else {
            return Ok(Some(self));
        };
        let stock = stock.as_object_mut().context("stock is a map")?;
        let why = stock.remove("why");
        ensure!(
            why.is_some_and(|why| why.is_string()),
            "{}: no reason why",
            self.name
        );
        if stock.remove("runs") == Some(json!(false)) {
            return Ok(None);
        }
        for (member, other) in std::mem::take(stock) {
            self.members.insert(member, other);
        }
        Ok(Some(self))
    }

    pub(super) fn document(&self) -> Result<&str> {
        self.text("document").context("a case has a document")
    }

    /// What is done at a terminal, if it takes one.
    pub(super) fn acts(&self) -> Option<&[Value]> {
        self.members
            .get("acts")
            .and_then(Value::as_array)
            .map(Vec::as_slice)
    }

    pub(super) fn parameters(&self) -> Map<String, Value> {
        let given = self.members.get("parameters").and_then(Value::as_object);
        given.cloned().unwrap_or_default()
    }

    /// Checks what has come of a step; `output` is both streams as they are told together.
    fn check_step(&self, name: &str, told: &Told) -> Result<()> {
        let expected = self.members.get("steps").and_then(|steps| steps.get(name));
        let expected = expected.with_context(|| format!("the case says nothing of the step {name}"))?;
        let expected = expected.as_object().context("a step is a map")?;
        for (key, value) in expected {
            let text = value.as_str().unwrap_or_default();
            let holds = match key.as_str() {
                "status" => told.status == text,
                "code" => json!(told.code) == *value,
                "stdout" => told.stdout == text,
                "stderr" => told.stderr == text,
                "stdoutHas" => told.stdout.contains(text),
                "stderrHas" => told.stderr.contains(text),
                "stdoutBytes" => json!(told.stdout.len()) == *value,
                "says" => told.output.contains(text),
                other => bail!("a step has no {other}"),
            };
            ensure!(holds, "{name}: not {key} {value}: {told:?}");
        }
        Ok(())
    }

    /// What must not have run leaves a file when it does.
    pub(super) fn check_nothing_else_ran(&self) -> Result<()> {
        ensure!(!self.dir.join("ran").exists(), "what must not run has run");
        Ok(())
    }

    fn steps(&self) -> impl Iterator<Item = &String> {
        let steps = self.members.get("steps").and_then(Value::as_object);
        steps.into_iter().flat_map(Map::keys)
    }
}

/// What has come of a step.
#[derive(Debug, Default)]
struct Told {
    status: String,
    code: i64,
    stdout: String,
    stderr: String,
    output: String,
}

/// A parameter as the API has it: a list of texts.
fn of_api(value: &Value) -> Value {
    match value {
        Value::String(_) => json!([value]),
        Value::Array(_) => value.clone(),
        other => json!([other.to_string()]),
    }
}

/// Sends the command of a case, and returns its id; `None`: it was refused, as it must be.
pub(super) async fn send(api: &Api, node: &str, case: &Case, number: usize) -> Result<Option<String>> {
    let name = format!("Case-{number}");
    let document = case.document()?;
    let format = if document.starts_with('{') { "JSON" } else { "YAML" };
    let create =
        json!({"Name": name, "DocumentType": "Command", "DocumentFormat": format, "Content": document});
    let parameters: Map<String, Value> = case
        .parameters()
        .iter()
        .map(|(name, value)| (name.clone(), of_api(value)))
        .collect();
    let send = json!({"DocumentName": name, "InstanceIds": [node], "Parameters": parameters});
    let sent = match api.call("CreateDocument", create).await {
        Ok(_) => api.call("SendCommand", send).await,
        refused => refused,
    };
    if let Some(reason) = case.text("refused") {
        let error = sent.err().context("it was not refused")?;
        let error = format!("{error:#}");
        ensure!(error.contains(reason), "refused for another reason: {error}");
        return Ok(None);
    }
    let sent = sent?;
    let command_id = sent["Command"]["CommandId"].as_str().context("no command")?;
    Ok(Some(command_id.to_owned()))
}

/// Waits for the end of the command, and checks it.
pub(super) async fn check_remote(api: &Api, node: &str, case: &Case, command_id: &str) -> Result<()> {
    let ended = wait_for("the command to end", PATIENCE, async || {
        let listed = json!({"CommandId": command_id, "Details": true});
        let listed = api.call("ListCommandInvocations", listed).await?;
        let invocation = listed["CommandInvocations"][0].clone();
        let is_open = ["Pending", "InProgress", "Delayed"]
            .contains(&invocation["Status"].as_str().unwrap_or("Pending"));
        Ok((!is_open).then_some(invocation))
    });
    let ended = ended.await?;
    for plugin in ended["CommandPlugins"].as_array().context("no plugins")? {
        let name = plugin["Name"].as_str().context("no name")?;
        let get = json!({"CommandId": command_id, "InstanceId": node, "PluginName": name});
        let got = api.call("GetCommandInvocation", get).await?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let told = Told {
            status: match plugin["StatusDetails"].as_str() {
                // A skipped step is a success to the API.
                Some("Skipped") => "Skipped".to_owned(),
                _ => text(&plugin["Status"]),
            },
            code: plugin["ResponseCode"].as_i64().unwrap_or_default(),
            stdout: text(&got["StandardOutputContent"]),
            stderr: text(&got["StandardErrorContent"]),
            output: text(&plugin["Output"]),
        };
        case.check_step(name, &told)?;
    }
    let count = ended["CommandPlugins"].as_array().map_or(0, Vec::len);
    ensure!(count == case.steps().count(), "it has {count} steps: {ended}");
    let status = case.text("status").unwrap_or_default();
    ensure!(ended["Status"] == status, "not {status}: {ended}");
    case.check_nothing_else_ran()
}

/// Runs a case on the machine, by hand.
async fn run_local(node: &Node, case: &Case) -> Result<()> {
    let document = case.dir.join("document");
    fs::write(&document, case.document()?)?;
    let document = document.display().to_string();
    let parameters = Value::Object(case.parameters()).to_string();
    let ended = node
        .agent("run-document", &[&document, "--parameters", &parameters])
        .await?;
    if let Some(reason) = case.text("refused") {
        ensure!(
            ended.code == 1 && ended.stderr.contains(reason) && ended.stdout.is_empty(),
            "not refused for {reason}: {ended:?}"
        );
        return case.check_nothing_else_ran();
    }
    let status = case.text("status").unwrap_or_default();
    ensure!(ended.code == i32::from(status != "Success"), "{ended:?}");
    // `=== NAME (ACTION): STATUS, code CODE`, and what the step wrote
    let mut blocks = ended.stdout.split("=== ").skip(1);
    for name in case.steps() {
        let block = blocks
            .next()
            .with_context(|| format!("{name} is missing: {ended:?}"))?;
        let (head, output) = block.split_once('\n').context("a block has a head")?;
        let head = head
            .strip_prefix(name.as_str())
            .with_context(|| format!("not {name}: {head}"))?;
        let (_, ending) = head.split_once("): ").context("a status")?;
        let (status, code) = ending.split_once(", code ").context("a code")?;
        let expected = &case.members["steps"][name];
        ensure!(expected["status"] == status, "{name}: {block}");
        ensure!(
            expected["code"].is_null() || expected["code"] == code.parse::<i64>()?,
            "{name}: {block}"
        );
        for key in ["stdout", "stderr", "stdoutHas", "stderrHas", "says"] {
            let text = expected[key].as_str().unwrap_or_default();
            // What 168 hides is not shown here either, so both streams are looked for in what is shown.
            ensure!(output.contains(text), "{name}: no {key} {text:?}: {block}");
        }
    }
    case.check_nothing_else_ran()
}

/// A node of an endpoint whose documents may be many at once, and which is never rebooted.
async fn node(endpoint: &Endpoint) -> Result<Node> {
    let mut node = Node::register(endpoint, &[]).await?;
    node.configure("[command]\nworkers = 8\nqueue = 1000\nreboot_command = []\n")?;
    node.start().await?;
    Ok(node)
}

/// The files of a folder of the table.
pub(super) fn files(folder: &str) -> Result<Vec<PathBuf>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("documents")
        .join(folder);
    let listed = fs::read_dir(&folder).with_context(|| format!("{}", folder.display()))?;
    let mut files = listed
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>>>()?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    ensure!(!files.is_empty(), "there are no documents");
    Ok(files)
}

#[tokio::test]
async fn documents_of_every_rule_come_to_what_the_table_says_with_an_endpoint_and_without() -> Result<()> {
    let endpoint = Endpoint::start().await?;
    let node = node(&endpoint).await?;
    let (here, there) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let mut remote = Vec::new();
    let mut local = Vec::new();
    for file in files("")? {
        let cases = Case::read_all(&file, there.path())?;
        remote.extend(cases.into_iter().filter(|case| case.runs("endpoint")));
        let cases = Case::read_all(&file, here.path())?;
        local.extend(cases.into_iter().filter(|case| case.runs("local")));
    }
    ensure!(remote.len() + local.len() > 80, "cases are missing");
    let (api, id) = (endpoint.api(), node.id());
    let mut wrong = Vec::new();
    let mut sent = Vec::new();
    for (number, case) in remote.iter().enumerate() {
        match send(api, id, case, number).await {
            Ok(command_id) => sent.push((case, command_id)),
            Err(error) => wrong.push(error.context(format!("with an endpoint, {}", case.name))),
        }
    }
    // Those go on while these run on the machine itself.
    for case in &local {
        let ran = run_local(&node, case).await;
        wrong.extend(
            ran.with_context(|| format!("without an endpoint, {}", case.name))
                .err(),
        );
    }
    for (case, command_id) in sent {
        let ran = match command_id {
            Some(command_id) => check_remote(api, id, case, &command_id).await,
            None => case.check_nothing_else_ran(),
        };
        wrong.extend(
            ran.with_context(|| format!("with an endpoint, {}", case.name))
                .err(),
        );
    }
    let told: Vec<String> = wrong.iter().map(|error| format!("{error:#}")).collect();
    ensure!(told.is_empty(), "{} cases:\n{}", told.len(), told.join("\n"));
    Ok(())
}
