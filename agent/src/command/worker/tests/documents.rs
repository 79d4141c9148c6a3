//! Documents in documents, and what they download.

use std::{io::Write, os::unix::process::CommandExt as _, path::Path, process::Stdio};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;

/// A step that runs the document in a file.
pub(super) fn nested(name: &str, path: &Path, parameters: Value) -> Value {
    json!({"action": "aws:runDocument", "name": name, "inputs": {
        "documentType": "LocalPath", "documentPath": path, "documentParameters": parameters}})
}

impl Node {
    pub(super) fn write(&self, path: &Path, text: &str) {
        let options = std::fs::OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .open(path);
        options.unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// Runs a document that only runs the one in this text, and returns the step.
    fn run_nested(&self, inner: &str, parameters: Value) -> StepReply {
        let path = self.dir.path().join("inner");
        self.write(&path, inner);
        let told = block_on(self.run(&document(&[nested("s", &path, parameters)])));
        assert_eq!(told.ends, 1);
        told.steps.get("s").unwrap().clone()
    }
}

const GREETING: &str = "schemaVersion: '2.2'
parameters:
  Name:
    type: String
    interpolationType: ENV_VAR
    default: nobody
    maxChars: 40
  Lines: {type: StringList, default: []}
mainSteps:
- action: aws:runShellScript
  name: greet
  inputs:
    runCommand:
    - echo \"hello {{ Name }}\"
    - '{{ Lines }}'
- action: aws:runPowerShellScript
  name: windows
  precondition: {StringEquals: [platformType, Windows]}
  inputs: {runCommand: [exit 1]}
- action: aws:runShellScript
  name: fail
  inputs: {runCommand: ['exit 168']}
- action: aws:runShellScript
  name: never
  inputs: {runCommand: ['echo never; exit 1']}
";

#[test]
fn a_yaml_document_runs_inside_another_with_its_parameters() {
    let parameters = [
        (
            json!({"Name": "$(id) `id` \"x\"", "Lines": ["echo a", "echo b"], "unknown": 1}),
            "hello $(id) `id` \"x\"\na\nb\n",
        ),
        (json!("{\"Name\": \"json\"}"), "hello json\n"),
        (json!("Name: yaml\nLines:"), "hello yaml\n"),
        (json!(""), "hello nobody\n"),
    ];
    for (given, expected) in parameters {
        let node = Node::new();
        let step = node.run_nested(GREETING, given.clone());
        assert_eq!(
            (step.status, step.code),
            (ResultStatus::Success, 0),
            "{given}: {step:?}"
        );
        let expected = format!("--- greet ---\n{expected}--- windows ---\n");
        assert!(
            step.standard_output.starts_with(&expected),
            "{given}: {}",
            step.standard_output
        );
        assert!(!step.standard_output.contains("\nnever\n"));
    }
}

#[test]
fn what_cannot_run_inside_says_why_and_runs_nothing() {
    let deep = format!("a: {}", "[".repeat(500));
    let bomb = (1..12).fold("a0: &a0 [x, x, x, x, x, x, x, x]\n".to_owned(), |text, level| {
        let below = format!("*a{}, ", level - 1).repeat(8);
        format!("{text}a{level}: &a{level} [{below}]\n")
    });
    let large = format!("# {}", "x".repeat(1024 * 1024));
    let table = [
        (GREETING, json!({"Name": "x".repeat(41)}), "max chars"),
        (GREETING, json!([1]), "documentParameters must be a map"),
        (GREETING, json!("a: ["), "documentParameters must be a map"),
        ("{}", json!({}), "schema version"),
        ("schemaVersion: '2.2'", json!({}), "Unsupported schema format"),
        (&deep, json!({}), "cannot run"),
        (&bomb, json!({}), "aliases"),
        (&large, json!({}), "bytes"),
        ("\u{0}\u{1}", json!({}), "cannot run"),
    ];
    for (inner, parameters, expected) in table {
        let node = Node::new();
        let step = node.run_nested(inner, parameters);
        assert_eq!(step.status, ResultStatus::Failed, "{expected}");
        assert!(
            step.standard_error.contains(expected),
            "{expected}: {}",
            step.standard_error
        );
        assert!(!node.dir.path().join("commands/c1/0-s/steps").exists());
    }
}

#[test]
fn the_inputs_of_a_nested_document_are_checked() {
    let table = [
        (json!({"documentPath": "AWS-Noop"}), ResultStatus::Success, ""),
        (
            json!({"documentPath": "x"}),
            ResultStatus::Failed,
            "Document Type must be specified",
        ),
        (
            json!({"documentType": "LocalPath"}),
            ResultStatus::Failed,
            "Document Path must be provided",
        ),
        (
            json!({"documentType": "LocalPath", "documentPath": "/dev/zero"}),
            ResultStatus::Failed,
            "it is no file",
        ),
        (
            json!({"documentType": "SSMDocument", "documentPath": "Mine"}),
            ResultStatus::Failed,
            "this node is not registered",
        ),
    ];
    for (inputs, status, expected) in table {
        let node = Node::new();
        let step = json!({"action": "aws:runDocument", "name": "s", "inputs": inputs});
        let told = block_on(node.run(&document(&[step])));
        let step = told.steps.get("s").unwrap();
        assert_eq!(step.status, status, "{inputs}");
        assert!(
            step.standard_error.contains(expected),
            "{inputs}: {}",
            step.standard_error
        );
    }
}

#[test]
fn documents_that_run_each_other_come_to_an_end() {
    let node = Node::new();
    let path = |name: &str| node.dir.path().join(name);
    node.write(
        &path("self"),
        &document(&[nested("again", &path("self"), json!({}))]).to_string(),
    );
    for (name, next) in [("d1", "d2"), ("d2", "d3"), ("d3", "d4")] {
        node.write(
            &path(name),
            &document(&[nested("next", &path(next), json!({}))]).to_string(),
        );
    }
    node.write(&path("d4"), &one("echo too deep").to_string());
    let steps = [
        nested("cyclic", &path("self"), json!({})),
        nested("deep", &path("d1"), json!({})),
    ];
    let told = block_on(node.run(&document(&steps)));
    let error = |name: &str| told.steps.get(name).unwrap().standard_error.clone();
    assert!(
        error("cyclic").contains("run itself without end"),
        "{}",
        error("cyclic")
    );
    assert!(
        error("deep").contains("Maximum depth for document execution exceeded"),
        "{}",
        error("deep")
    );
    assert_eq!(told.status, ResultStatus::Failed);
}

#[test]
fn a_cancellation_reaches_the_step_inside() {
    let node = Node::new();
    let path = node.dir.path().join("inner");
    let started = node.dir.path().join("started");
    let line = format!("echo begun; touch {}; sleep 300", started.display());
    let steps = [
        script("slow", json!({"runCommand": [line]})),
        script("next", json!({"runCommand": ["echo next"]})),
    ];
    node.write(&path, &document(&steps).to_string());
    node.accept(&document(&[nested("s", &path, json!({}))]), &json!({}));
    block_on(async {
        let cancel = async {
            while !started.exists() {
                sleep(Duration::from_millis(10)).await;
            }
            node.stop.send_replace(Some(StopReason::Cancelled));
        };
        tokio::join!(node.work(), cancel);
    });
    let told = node.told();
    let step = told.steps.get("s").unwrap();
    assert_eq!((told.status, step.code), (ResultStatus::Cancelled, 137));
    assert!(step.standard_output.contains("begun") && !step.standard_output.contains("\nnext\n"));
}

/// Serves each connection one answer, and returns the URL.
async fn serve(answers: Vec<(u16, &'static str, Vec<u8>)>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        for (status, headers, body) in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            let count = stream.read(&mut request).await.unwrap();
            assert!(count > 0);
            let length = body.len();
            let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n{headers}\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
            stream.write_all(&body).await.unwrap();
        }
    });
    url
}

fn download(source: &str, info: Value, destination: &str) -> Value {
    json!({"action": "aws:downloadContent", "name": source, "inputs": {
        "SourceType": source, "SourceInfo": info.to_string(), "DestinationPath": destination}})
}

#[test]
fn a_script_runs_in_the_directory_of_what_was_downloaded() {
    let node = Node::new();
    let told = block_on(async {
        let script_text = b"#!/bin/sh\necho downloaded $1\n".to_vec();
        let url = serve(vec![
            (302, "location: /elsewhere\r\n", Vec::new()),
            (200, "", script_text),
        ])
        .await;
        let info = json!({"url": format!("{url}/run.sh"), "allowInsecureDownload": true});
        let steps = [
            download("HTTP", info, ""),
            script(
                "run",
                json!({"runCommand": ["./run.sh x; pwd"], "workingDirectory": ""}),
            ),
        ];
        node.run(&document(&steps)).await
    });
    assert_eq!(told.status, ResultStatus::Success, "{told:?}");
    let output = &told.steps.get("run").unwrap().standard_output;
    assert!(output.starts_with("downloaded x\n"), "{output}");
    assert!(output.trim_end().ends_with("commands/c1/downloads"), "{output}");
    let told = &told.steps.get("HTTP").unwrap().standard_output;
    assert!(told.starts_with("Content downloaded to "), "{told}");
}

#[test]
fn a_download_that_is_not_whole_or_not_allowed_leaves_nothing() {
    let table: [(u16, &str, bool, &str); 4] = [
        (404, "", true, "Failed to download file: Status: 404"),
        (302, "location: ftp://x/\r\n", true, "leads nowhere"),
        (302, "", true, "leads nowhere"),
        (200, "", false, "insecure downloads are not allowed"),
    ];
    for (status, headers, is_allowed, expected) in table {
        let node = Node::new();
        let told = block_on(async {
            let url = serve(vec![(status, headers, b"body".to_vec())]).await;
            let info = json!({"url": format!("{url}/a?token=s3cret"), "allowInsecureDownload": is_allowed});
            node.run(&document(&[download("HTTP", info, "")])).await
        });
        let step = told.steps.get("HTTP").unwrap();
        assert_eq!(step.status, ResultStatus::Failed);
        assert!(
            step.standard_error.contains(expected),
            "{expected}: {}",
            step.standard_error
        );
        assert!(!step.standard_error.contains("s3cret"), "{}", step.standard_error);
        let left = std::fs::read_dir(node.dir.path().join("commands/c1/downloads"));
        assert_eq!(left.unwrap().count(), 0);
    }
}

/// Runs git in a directory; false: there is no git.
fn git(directory: &Path, arguments: &[&str]) -> bool {
    let mut command = std::process::Command::new("git");
    let identity = ["-c", "user.name=t", "-c", "user.email=t@localhost"];
    command.args(identity).args(arguments).current_dir(directory);
    match command.stdout(Stdio::null()).status() {
        Ok(status) => {
            assert!(status.success(), "{arguments:?}");
            true
        }
        Err(_) => false,
    }
}

/// A server of repositories. `git daemon` is two processes, hence a process group; it ends with this.
struct GitDaemon(std::process::Child);

impl GitDaemon {
    fn start(port: u16, base: &Path) -> Self {
        let mut command = std::process::Command::new("git");
        command
            .args([
                "daemon",
                "--reuseaddr",
                "--listen=127.0.0.1",
                "--export-all",
                "--enable=upload-pack",
            ])
            .arg(format!("--port={port}"))
            .arg(format!("--base-path={}", base.display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0);
        Self(command.spawn().unwrap())
    }
}

impl Drop for GitDaemon {
    fn drop(&mut self) {
        let group = nix::unistd::Pid::from_raw(self.0.id().cast_signed());
        nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL).unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn a_git_repository_is_cloned_by_branch_and_commit() {
    let node = Node::new();
    let work = node.dir.path().join("work");
    std::fs::create_dir(&work).unwrap();
    if !git(&work, &["init", "--quiet", "--initial-branch", "main"]) {
        return println!("skipped: there is no git");
    }
    let commit = |text: &str| {
        node.write(&work.join("run.sh"), &format!("echo {text}\n"));
        git(&work, &["add", "."]);
        git(&work, &["commit", "--quiet", "-m", text]);
    };
    commit("first");
    let output = std::process::Command::new("git")
        .args(["rev-parse", "HEAD"])
        .current_dir(&work)
        .output();
    let first = String::from_utf8(output.unwrap().stdout)
        .unwrap()
        .trim()
        .to_owned();
    commit("second");
    git(&work, &["checkout", "--quiet", "-b", "side"]);
    commit("side");
    git(&work, &["checkout", "--quiet", "main"]);
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let _server = GitDaemon::start(port, node.dir.path());
    let options = [
        ("main", ""),
        ("side", "branch:side"),
        ("first", &format!("commitID:{first}")),
        ("none", "branch:none"),
    ];
    let steps: Vec<Value> = options
        .iter()
        .flat_map(|(name, options)| {
            let info = json!({"repository": format!("git://127.0.0.1:{port}/work"), "getOptions": options});
            let mut step = download("Git", info, name);
            step["name"] = json!(name);
            let run = json!({"runCommand": [format!("sh {name}/run.sh; ls -d {name}/.git")]});
            [step, script(&format!("run-{name}"), run)]
        })
        .collect();
    let told = block_on(async {
        while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            sleep(Duration::from_millis(10)).await;
        }
        node.run(&document(&steps)).await
    });
    for (name, expected) in [("main", "second"), ("side", "side"), ("first", "first")] {
        let output = &told.steps.get(&format!("run-{name}")).unwrap().standard_output;
        assert_eq!(output, &format!("{expected}\n{name}/.git\n"), "{told:?}");
    }
    let none = told.steps.get("none").unwrap();
    assert_eq!(none.status, ResultStatus::Failed);
    assert!(none.standard_error.contains("none"), "{}", none.standard_error);
}

#[test]
fn every_byte_value_of_a_parameter_reaches_a_script_whole_or_is_refused() {
    let content = json!({
        "schemaVersion": "2.2",
        "parameters": {"Value": {"type": "String", "interpolationType": "ENV_VAR"}},
        "mainSteps": [script("s", json!({"runCommand": ["printf %s \"{{Value}}\" | od -An -tx1 -v | tr -d ' \\n'"]}))],
    });
    let value: String = (1..=255_u8).map(char::from).collect();
    let run = |value: &str| {
        let node = Node::new();
        node.accept(&content, &json!({ "Value": value }));
        block_on(node.work());
        node.told().steps.remove("s").unwrap()
    };
    let expected: String = value.bytes().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(run(&value).standard_output, expected);
    let step = run("a\0b");
    assert_eq!(step.status, ResultStatus::Failed);
    assert!(
        step.standard_error.contains("NUL byte"),
        "{}",
        step.standard_error
    );
}
