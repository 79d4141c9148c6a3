//! Whole commands in real shells, from the journal to the replies in it.

use std::{
    collections::BTreeMap,
    os::unix::fs::PermissionsExt,
    sync::{Mutex, MutexGuard, PoisonError},
};

use moorline_protocol::message::{AgentJobReply, ReplyContent, StepReply};
use serde_json::{Value, json};
use tempfile::TempDir;

use tokio::time::Instant;

use super::*;

mod documents;
mod groups;
mod limits;
mod owner_policy;
mod reboots;

/// A file that another thread's new process still holds open for writing cannot be executed; so one at a time.
static SHELLS: Mutex<()> = Mutex::new(());

/// Far before the scripts end by themselves, on a machine that may be busy.
const SOON: Duration = Duration::from_secs(60);
/// What is killed is so after a grace of two seconds: what ended before did so at once.
const AT_ONCE: Duration = Duration::from_secs(2);

struct Node {
    dir: TempDir,
    task: WorkerTask,
    stop: watch::Sender<Option<StopReason>>,
    _alone: MutexGuard<'static, ()>,
}

/// What the endpoint would know in the end.
#[derive(Debug)]
struct Told {
    status: ResultStatus,
    trace: String,
    steps: BTreeMap<String, StepReply>,
    ends: usize,
    is_refused: bool,
}

impl Node {
    fn new() -> Self {
        let alone = SHELLS.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = tempfile::tempdir().unwrap();
        let task = WorkerTask {
            state_dir: dir.path().to_owned(),
            command_id: "c1".to_owned(),
            instance_id: "mi-0123456789abcdef0".to_owned(),
            region: "eu-test-1".to_owned(),
            platform: Platform {
                name: "Test Linux".to_owned(),
                version: "7".to_owned(),
            },
            is_moorline: true,
            reboot_command: vec!["true".to_owned()],
            secure_parameters: Vec::new(),
            s3: S3Config::default(),
            output: OutputLimits::default(),
            groups: None,
            limits: ResourceLimits::default(),
            transcript: TranscriptConfig::default(),
            seals: false,
            policy_folder: dir.path().join("policy.d"),
        };
        let (stop, _) = watch::channel(None);
        Self {
            dir,
            task,
            stop,
            _alone: alone,
        }
    }

    fn accept(&self, document: &Value, parameters: &Value) {
        let content = json!({"CommandId": "c1", "DocumentName": "d", "DocumentContent": document,
            "Parameters": parameters, "CloudWatchOutputEnabled": "false"});
        let mut journal = Journal::open(self.dir.path(), Opener::Daemon).unwrap();
        assert!(
            journal
                .accept("c1", "aws.ssm.c1.mi-0", &content.to_string(), now_millis())
                .unwrap()
        );
    }

    async fn work(&self) {
        run(&self.task, &self.stop, || ()).await.unwrap();
    }

    fn told(&self) -> Told {
        let journal = Journal::open(self.dir.path(), Opener::Daemon).unwrap();
        let mut told = Told {
            status: ResultStatus::InProgress,
            trace: String::new(),
            steps: BTreeMap::new(),
            ends: 0,
            is_refused: false,
        };
        for reply in journal.replies_after(0, 1000).unwrap() {
            let reply: AgentJobReply = serde_json::from_str(&reply.payload).unwrap();
            assert_eq!(reply.job_id, "aws.ssm.c1.mi-0");
            let content: ReplyContent = serde_json::from_str(&reply.content).unwrap();
            told.steps.extend(content.steps());
            if content.document_status.is_terminal() {
                told.ends += 1;
                told.status = content.document_status;
                told.is_refused = content.moorline_refused == Some(true);
                told.trace = content.document_trace_output;
            }
        }
        told
    }

    async fn run(&self, document: &Value) -> Told {
        self.accept(document, &json!({}));
        self.work().await;
        self.told()
    }
}

fn script(name: &str, inputs: Value) -> Value {
    json!({"action": "aws:runShellScript", "name": name, "inputs": inputs})
}

fn document(steps: &[Value]) -> Value {
    json!({"schemaVersion": "2.2", "mainSteps": steps})
}

fn one(line: &str) -> Value {
    document(&[script("s", json!({"runCommand": [line]}))])
}

/// Runs a future on a thread of its own, as the worker does.
fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(work)
}

#[test]
fn a_command_runs_and_its_output_is_told_and_kept() {
    let node = Node::new();
    let told = block_on(node.run(&one("echo out; echo err >&2")));
    assert_eq!((told.status, told.ends), (ResultStatus::Success, 1));
    let step = told.steps.get("s").unwrap();
    assert_eq!(
        (step.status, step.code, step.name.as_str()),
        (ResultStatus::Success, 0, "aws:runShellScript")
    );
    assert_eq!(
        (step.standard_output.as_str(), step.standard_error.as_str()),
        ("out\n", "err\n")
    );
    assert_eq!(step.output, "out\n\n----------ERROR-------\nerr\n");
    let directory = node.dir.path().join("commands/c1/0-s");
    for (name, text, mode) in [("stdout", "out\n", 0o600), ("stderr", "err\n", 0o600)] {
        let path = directory.join(name);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            mode
        );
    }
    assert_eq!(
        std::fs::metadata(&directory).unwrap().permissions().mode() & 0o777,
        0o700
    );
    assert_eq!(
        std::fs::metadata(directory.join("_script.sh"))
            .unwrap()
            .permissions()
            .mode()
            & 0o777,
        0o700
    );
}

#[test]
fn no_more_output_is_kept_than_the_owner_allows_and_all_of_it_is_told() {
    let mut node = Node::new();
    node.task.output = OutputLimits {
        stream_mib: 1,
        command_mib: 1,
    };
    let told = block_on(node.run(&one("head -c 2000000 /dev/zero; echo end; echo err >&2")));
    let step = told.steps.get("s").unwrap();
    assert!(
        step.standard_output.ends_with("\0end\n"),
        "{:?}",
        step.standard_output.len()
    );
    assert_eq!(step.standard_error, "err\n");
    let kept = |name: &str| {
        let file = node.dir.path().join("commands/c1/0-s").join(name);
        std::fs::metadata(file).unwrap().len()
    };
    assert_eq!((kept("stdout"), kept("stderr")), (1024 * 1024, 0));
}

#[test]
fn the_second_worker_of_a_command_runs_nothing() {
    let node = Node::new();
    let counter = node.dir.path().join("runs");
    node.accept(&one(&format!("echo run >> {}", counter.display())), &json!({}));
    block_on(async {
        node.work().await;
        node.work().await;
    });
    assert_eq!(std::fs::read_to_string(counter).unwrap(), "run\n");
    assert_eq!(node.told().ends, 1);
}

#[test]
fn a_failed_step_names_its_exit_status_and_the_next_one_runs() {
    let node = Node::new();
    let steps = [
        script("a", json!({"runCommand": ["echo A; exit 3"]})),
        script("b", json!({"runCommand": ["echo B"]})),
    ];
    let told = block_on(node.run(&document(&steps)));
    assert_eq!(told.status, ResultStatus::Failed);
    let first = told.steps.get("a").unwrap();
    assert_eq!(
        (first.code, first.standard_error.as_str()),
        (3, "failed to run commands: exit status 3")
    );
    assert_eq!(
        first.output,
        "A\n\n----------ERROR-------\nfailed to run commands: exit status 3"
    );
    assert_eq!(told.steps.get("b").unwrap().standard_output, "B\n");
}

#[test]
fn step_control_decides_what_runs() {
    let table = [
        (
            "exit 168",
            json!({}),
            ResultStatus::Success,
            ResultStatus::Skipped,
        ),
        ("exit 169", json!({}), ResultStatus::Failed, ResultStatus::Skipped),
        (
            "exit 1",
            json!({"onFailure": "exit"}),
            ResultStatus::Failed,
            ResultStatus::Skipped,
        ),
        (
            "exit 1",
            json!({"onFailure": "successAndExit"}),
            ResultStatus::Success,
            ResultStatus::Skipped,
        ),
        (
            "exit 0",
            json!({"onSuccess": "exit"}),
            ResultStatus::Success,
            ResultStatus::Skipped,
        ),
        ("exit 1", json!({}), ResultStatus::Failed, ResultStatus::Success),
        (
            "kill -9 $$",
            json!({}),
            ResultStatus::Failed,
            ResultStatus::Success,
        ),
    ];
    for (line, mut inputs, first, second) in table {
        let node = Node::new();
        inputs["runCommand"] = json!([line]);
        let steps = [script("a", inputs), script("b", json!({"runCommand": ["true"]}))];
        let told = block_on(node.run(&document(&steps)));
        let statuses = (
            told.steps.get("a").unwrap().status,
            told.steps.get("b").unwrap().status,
        );
        assert_eq!(statuses, (first, second), "{line}");
    }
}

#[test]
fn a_script_runs_with_its_own_interpreter_environment_and_directory() {
    let node = Node::new();
    let place = node.dir.path().join("it's a place");
    std::fs::create_dir(&place).unwrap();
    let steps = [script(
        "a 'quoted' $(name)",
        json!({
            "runCommand": ["#!/bin/cat"],
        }),
    )];
    let told = block_on(node.run(&document(&steps)));
    assert_eq!(
        told.steps.values().next().unwrap().standard_output,
        "#!/bin/cat\n"
    );

    drop(node);
    let node = Node::new();
    let place = node.dir.path().join("place");
    std::fs::create_dir(&place).unwrap();
    let lines = "pwd; echo $WORD $SSM_COMMAND_ID $AWS_SSM_INSTANCE_ID $AWS_SSM_REGION_NAME; \
                 echo $AWS_SSM_PLATFORM_NAME $AWS_SSM_PLATFORM_VERSION; \
                 test -n \"$HOME\" && test -n \"$USER\" && test -n \"$PATH\"; read line; echo \"$?\"";
    let inputs = json!({"runCommand": [lines], "workingDirectory": place, "environment": {"WORD": "given"}});
    let told = block_on(node.run(&document(&[script("s", inputs)])));
    let expected = format!(
        "{}\ngiven c1 mi-0123456789abcdef0 eu-test-1\nTest Linux 7\n1\n",
        place.canonicalize().unwrap().display()
    );
    assert_eq!(told.steps.get("s").unwrap().standard_output, expected);
}

#[test]
fn parameters_reach_the_script_and_missing_ones_refuse_it() {
    let definition = json!({"schemaVersion": "2.2",
        "parameters": {"commands": {"type": "StringList"}},
        "mainSteps": [script("s", json!({"runCommand": "{{ commands }}"}))]});
    let node = Node::new();
    node.accept(&definition, &json!({"commands": ["echo 1", "echo 2"]}));
    block_on(node.work());
    assert_eq!(node.told().steps.get("s").unwrap().standard_output, "1\n2\n");

    drop(node);
    let node = Node::new();
    let told = block_on(node.run(&definition));
    assert_eq!((told.status, told.ends), (ResultStatus::Failed, 1));
    assert!(told.trace.contains("commands"), "{}", told.trace);
    assert!(told.steps.get("s").unwrap().standard_error.contains("commands"));
}

#[test]
fn schema_1_runs_every_set_of_properties_in_one_result() {
    let node = Node::new();
    let definition = json!({"schemaVersion": "1.2", "runtimeConfig": {"aws:runShellScript": {"properties": [
        {"id": "0.aws:runShellScript", "runCommand": ["echo 1; exit 4"]},
        {"id": "1.aws:runShellScript", "runCommand": ["echo 2"]}]}}});
    let told = block_on(node.run(&definition));
    let step = told.steps.get("aws:runShellScript").unwrap();
    assert_eq!(
        (step.status, step.code, step.standard_output.as_str()),
        (ResultStatus::Failed, 4, "1\n\n2\n")
    );
}

#[test]
fn a_time_out_ends_the_whole_process_group() {
    let node = Node::new();
    let begun = Instant::now();
    let lines = "sleep 300 & echo $!; wait";
    let told = block_on(node.run(&document(&[script(
        "s",
        json!({"runCommand": [lines], "timeoutSeconds": "5"}),
    )])));
    assert!(begun.elapsed() < SOON);
    let step = told.steps.get("s").unwrap();
    assert_eq!(
        (told.status, step.status, step.code),
        (ResultStatus::TimedOut, ResultStatus::TimedOut, 137)
    );
    let child: i32 = step.standard_output.trim().parse().unwrap();
    assert!(
        crate::runtime::ProcessKey::of(child).is_none(),
        "a child outlived its script"
    );
}

#[test]
fn a_cancellation_ends_the_script_at_once_and_later_steps_do_not_start() {
    // a busy machine may be slow at times, and what waits is so each time
    let fastest = (0..5).map(|_| end_of_cancelled()).find(|took| *took < AT_ONCE);
    assert!(fastest.is_some());
}

/// Cancels a script; how long it took to its end.
fn end_of_cancelled() -> Duration {
    let node = Node::new();
    let started = node.dir.path().join("started");
    let steps = [
        script(
            "a",
            json!({"runCommand": [format!("echo start; touch {}; sleep 300", started.display())]}),
        ),
        script("b", json!({"runCommand": ["echo B"]})),
    ];
    node.accept(&document(&steps), &json!({}));
    let cancelled_at = block_on(async {
        let cancel = async {
            while !started.exists() {
                sleep(Duration::from_millis(5)).await;
            }
            node.stop.send_replace(Some(StopReason::Cancelled));
            Instant::now()
        };
        let (cancelled_at, ()) = tokio::join!(cancel, node.work());
        cancelled_at
    });
    let took = cancelled_at.elapsed();
    let told = node.told();
    assert_eq!((told.status, told.ends), (ResultStatus::Cancelled, 1));
    let (first, second) = (told.steps.get("a").unwrap(), told.steps.get("b").unwrap());
    assert_eq!(
        (first.status, first.code, first.standard_output.as_str()),
        (ResultStatus::Cancelled, 137, "start\n")
    );
    assert_eq!((second.status, second.code), (ResultStatus::Cancelled, 1));
    took
}

#[test]
fn a_script_that_ignores_sigterm_is_killed_after_a_short_grace() {
    let node = Node::new();
    let started = node.dir.path().join("started");
    let line = format!("trap '' TERM; touch {}; sleep 300", started.display());
    node.accept(&one(&line), &json!({}));
    let begun = Instant::now();
    block_on(async {
        let cancel = async {
            while !started.exists() {
                sleep(Duration::from_millis(5)).await;
            }
            node.stop.send_replace(Some(StopReason::Cancelled));
        };
        tokio::join!(cancel, node.work());
    });
    assert!(begun.elapsed() < SOON);
    assert_eq!(node.told().status, ResultStatus::Cancelled);
}

#[test]
fn a_command_cancelled_before_it_was_begun_runs_nothing() {
    let node = Node::new();
    let marker = node.dir.path().join("ran");
    node.accept(&one(&format!("touch {}", marker.display())), &json!({}));
    let mut journal = Journal::open(node.dir.path(), Opener::Daemon).unwrap();
    // A worker process exists already, so the command is only marked.
    journal
        .cancel("c1", true, 0, |_| unreachable!("it has a process"))
        .unwrap();
    block_on(node.work());
    assert!(!marker.exists());
    assert_eq!(node.told().status, ResultStatus::Cancelled);
}

#[test]
fn a_child_that_keeps_the_output_open_delays_the_step_only_a_little() {
    let node = Node::new();
    let begun = Instant::now();
    let told = block_on(node.run(&one("sleep 300 & echo $!")));
    assert!(begun.elapsed() < SOON);
    let step = told.steps.get("s").unwrap();
    assert_eq!(step.status, ResultStatus::Success);
    let child = nix::unistd::Pid::from_raw(step.standard_output.trim().parse().unwrap());
    nix::sys::signal::kill(child, nix::sys::signal::Signal::SIGKILL)
        .expect("a background child is left alone");
}

#[test]
fn output_without_end_is_cut_and_costs_no_memory() {
    let node = Node::new();
    let told = block_on(node.run(&one(
        "head -c 70000000 /dev/zero | tr '\\0' x; echo last; head -c 30000 /dev/zero | tr '\\0' e >&2",
    )));
    let step = told.steps.get("s").unwrap();
    assert_eq!(step.standard_output.len(), 24_000);
    assert!(step.standard_output.contains("x\n--output truncated--\nx"));
    assert!(
        step.standard_output.ends_with("xlast\n"),
        "the end of a stream is told"
    );
    assert!(step.standard_error.contains("e\n--output truncated--\ne"));
    assert!(step.output.len() <= 2_500 && step.output.contains("---Output truncated---"));
    let kept = std::fs::metadata(node.dir.path().join("commands/c1/0-s/stdout"))
        .unwrap()
        .len();
    assert_eq!(kept, 64 * 1024 * 1024);
}

#[test]
fn what_cannot_be_started_fails_and_says_why() {
    let table = [
        (
            json!({"runCommand": ["true"], "workingDirectory": "/nowhere/at/all"}),
            "/nowhere/at/all",
        ),
        (json!({"runCommand": [1]}), "runCommand"),
        (json!({}), "runCommand"),
        (
            json!({"runCommand": ["true"], "environment": {"A=B": "x"}}),
            "A=B",
        ),
        (json!({"runCommand": ["true"], "environment": "x"}), "environment"),
    ];
    for (inputs, needle) in table {
        let node = Node::new();
        let told = block_on(node.run(&document(&[script("s", inputs)])));
        let step = told.steps.get("s").unwrap();
        assert_eq!((step.status, step.code), (ResultStatus::Failed, 1));
        assert!(step.standard_error.contains(needle), "{}", step.standard_error);
    }
}

#[test]
fn preconditions_and_unknown_actions_are_answered_without_running() {
    let node = Node::new();
    let steps = [
        script("a", json!({"runCommand": ["echo A"]})),
        json!({"action": "aws:runShellScript", "name": "b", "inputs": {"runCommand": ["echo B"]},
            "precondition": {"StringEquals": ["platformType", "Windows"]}}),
        json!({"action": "aws:nope", "name": "c", "inputs": {}}),
    ];
    let told = block_on(node.run(&document(&steps)));
    assert_eq!(told.status, ResultStatus::Failed);
    let statuses: Vec<(ResultStatus, i64)> =
        told.steps.values().map(|step| (step.status, step.code)).collect();
    assert_eq!(
        statuses,
        [
            (ResultStatus::Success, 0),
            (ResultStatus::Skipped, 0),
            (ResultStatus::Failed, 1)
        ]
    );
    assert!(
        told.steps
            .get("c")
            .unwrap()
            .output
            .starts_with("Plugin with name aws:nope is not supported")
    );
}

#[test]
fn a_state_directory_that_takes_no_file_still_runs_the_script() {
    let node = Node::new();
    // A file where the directory should be: nothing can be written below it, whoever we are.
    std::fs::File::create(node.dir.path().join("commands")).unwrap();
    let told = block_on(node.run(&one("echo out")));
    let step = told.steps.get("s").unwrap();
    if step.status == ResultStatus::Success {
        assert_eq!(step.standard_output, "out\n");
    } else {
        assert!(
            step.standard_error.contains("the script cannot be written"),
            "{}",
            step.standard_error
        );
    }
}
