//! A managed node of one test.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io::{ErrorKind, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tempfile::TempDir;
use tokio::process::Command;

use crate::{
    Api, CrashDisk, Endpoint, Finished, Terminal,
    process::{
        Process, arguments_of, bare_environment, children_of, is_root, kill_process, marked_processes,
        processes_with_argument, run,
    },
    programs::program,
    wait::{PATIENCE, wait_for, wait_until},
};

/// How long an agent may take to be connected: one that was cut off again and again pauses for up to two minutes.
const RECONNECT_PATIENCE: Duration = Duration::from_secs(180);

/// A variable that only one node's processes have with one value.
const MARK: &str = "MOORLINE_TEST_NODE";

/// A test makes no users on the machine it runs on, and its shells are those of whoever runs it: a default user may
/// be there, and could not write where the test can.
const SETTINGS: &str = "[session]\ncreate_user = false\n";
const SETTINGS_OF_ROOT: &str = "[session]\ncreate_user = false\ndefault_user = \"root\"\n";

/// What a worker process of a node does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerKind {
    Command,
    Session,
}

impl WorkerKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Session => "session",
        }
    }
}

/// A registered `moorline-agent`, with its state in a temporary directory.
#[derive(Debug)]
pub struct Node {
    id: String,
    /// The process goes before its directory.
    process: Option<Process>,
    /// Where the log of the present daemon begins, in bytes.
    log_start: usize,
    state_dir: PathBuf,
    environment: BTreeMap<String, String>,
    /// What the daemon is started by, if not directly.
    launcher: Vec<OsString>,
    /// The program on this machine, if it is not the one that was built.
    installed: Option<PathBuf>,
    /// Boots that it has seen since boots are the test's.
    boots: u32,
    api: Api,
    dir: TempDir,
}

impl Node {
    /// Registers a node at the endpoint, with an activation of its own. It is not started.
    ///
    /// # Errors
    /// The endpoint or `moorline-agent register` refuses.
    pub async fn register(endpoint: &Endpoint, tags: &[(&str, &str)]) -> Result<Self> {
        Self::register_through(endpoint, &endpoint.url(), tags).await
    }

    /// As [`Self::register`], for a node that reaches the endpoint at `url`, as through a cable.
    ///
    /// # Errors
    /// As [`Self::register`].
    pub async fn register_through(endpoint: &Endpoint, url: &str, tags: &[(&str, &str)]) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let state_dir = dir.path().join("agent");
        Self::register_in(endpoint, url, tags, dir, state_dir).await
    }

    /// As [`Self::register_through`], with a state directory that the test prepared.
    ///
    /// # Errors
    /// As [`Self::register`].
    pub async fn register_in(
        endpoint: &Endpoint,
        url: &str,
        tags: &[(&str, &str)],
        dir: TempDir,
        state_dir: PathBuf,
    ) -> Result<Self> {
        let tags: Vec<_> = tags
            .iter()
            .map(|(key, value)| json!({"Key": key, "Value": value}))
            .collect();
        let mut input = json!({"IamRole": "moorline-node", "RegistrationLimit": 1});
        if !tags.is_empty() {
            input["Tags"] = tags.into();
        }
        let activation = endpoint.api().call("CreateActivation", input).await?;
        let text = |name: &str| activation[name].as_str().context("CreateActivation's answer");
        let activation = (text("ActivationId")?, text("ActivationCode")?);
        Self::register_with(endpoint, url, activation, dir, state_dir).await
    }

    /// Registers with an activation (id and code) that the test has.
    ///
    /// # Errors
    /// As [`Self::register`].
    pub async fn register_with(
        endpoint: &Endpoint,
        url: &str,
        activation: (&str, &str),
        dir: TempDir,
        state_dir: PathBuf,
    ) -> Result<Self> {
        register_agent(dir.path(), &state_dir, url, &endpoint.ca(), activation)
            .await?
            .success()?;
        Self::registered(endpoint, dir, state_dir)
    }

    /// A node that is registered, with its state in this directory. It is not started.
    ///
    /// # Errors
    /// It is not registered.
    pub fn registered(endpoint: &Endpoint, dir: TempDir, state_dir: PathBuf) -> Result<Self> {
        let registration = std::fs::read(state_dir.join("registration.json"))?;
        let registration: serde_json::Value = serde_json::from_slice(&registration)?;
        let id = registration["instance_id"]
            .as_str()
            .context("the registration names no node")?
            .to_owned();
        write_settings(&state_dir, if is_root() { SETTINGS_OF_ROOT } else { SETTINGS })?;
        Ok(Self {
            id,
            process: None,
            log_start: 0,
            state_dir,
            environment: node_environment(dir.path()),
            launcher: Vec::new(),
            installed: None,
            boots: 0,
            api: endpoint.api().clone(),
            dir,
        })
    }

    /// A second node with a copy of this one's state, as from a cloned disk. It is not started.
    ///
    /// # Errors
    /// The state cannot be copied.
    pub fn copy_of(original: &Self) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let state_dir = dir.path().join("agent");
        std::fs::create_dir(&state_dir)?;
        for entry in std::fs::read_dir(&original.state_dir)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                match std::fs::copy(entry.path(), state_dir.join(entry.file_name())) {
                    // a file on its way to its name
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    copied => drop(copied?),
                }
            }
        }
        Ok(Self {
            id: original.id.clone(),
            process: None,
            log_start: 0,
            state_dir,
            environment: node_environment(dir.path()),
            launcher: Vec::new(),
            installed: None,
            boots: 0,
            api: original.api.clone(),
            dir,
        })
    }

    /// Runs the agent until it is killed, and waits until the endpoint sees it connected.
    ///
    /// # Errors
    /// It does not come online; the error holds its log.
    pub async fn start(&mut self) -> Result<()> {
        self.launch()?;
        self.wait_online().await
    }

    /// As [`Self::start`], without waiting.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn launch(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "the agent is already running");
        let log = self.dir.path().join("agent.log");
        self.log_start = std::fs::metadata(&log).map_or(Ok(0), |metadata| usize::try_from(metadata.len()))?;
        let mut words = self.launcher.clone();
        words.push(self.program()?.into());
        let mut words = words.into_iter();
        let mut command = Command::new(words.next().context("a program")?);
        command
            .args(words)
            .args(["run", "--state-dir"])
            .arg(&self.state_dir)
            .env_clear()
            .envs(&self.environment)
            .current_dir("/");
        self.process = Some(Process::start(&mut command, &log)?);
        Ok(())
    }

    /// Waits until this daemon and the endpoint both see the control channel. The endpoint alone would not do: it may
    /// not yet have noticed that a killed predecessor is gone.
    ///
    /// # Errors
    /// It does not come up.
    pub async fn wait_online(&mut self) -> Result<()> {
        let what = format!("{} to be connected", self.id);
        wait_for(&what, RECONNECT_PATIENCE, async || {
            if let Some(process) = &mut self.process {
                process.check_alive()?;
                let log = process.log_text();
                if !log
                    .get(self.log_start..)
                    .is_some_and(|log| log.contains("control channel connected"))
                {
                    return Ok(None);
                }
            }
            let is_online =
                is_connected(&self.api, &self.id).await? && has_pinged(&self.api, &self.id).await?;
            Ok(is_online.then_some(()))
        })
        .await
    }

    /// Waits until the endpoint sees this node gone.
    ///
    /// # Errors
    /// It does not.
    pub async fn wait_offline(&self) -> Result<()> {
        wait_until(&format!("{} to be disconnected", self.id), async || {
            Ok(!is_connected(&self.api, &self.id).await?)
        })
        .await
    }

    /// `kill -9` of the daemon alone: its workers stay.
    ///
    /// # Errors
    /// It was not running.
    pub async fn kill_daemon(&mut self) -> Result<()> {
        let mut process = self.process.take().context("the agent is not running")?;
        process.kill().await
    }

    /// The machine loses its power: all of its processes end at once, and its disk does no more.
    ///
    /// # Errors
    /// One of them does not end.
    pub async fn lose_power(&mut self, disk: &CrashDisk) -> Result<()> {
        disk.freeze();
        if let Some(daemon) = self.daemon_pid() {
            let children = children_of(daemon);
            kill_process(daemon);
            children.into_iter().for_each(kill_process);
        }
        disk.off();
        // All others, who see errors of the disk meanwhile: to find them may take what waits for the disk.
        wait_until("the node's processes to end", async || {
            let left = self.processes();
            left.iter().copied().for_each(kill_process);
            Ok(left.is_empty())
        })
        .await?;
        match self.process.take() {
            Some(mut process) => process.kill().await,
            None => Ok(()),
        }
    }

    /// `kill -9` of what the daemon has started, also while its disk gives no answer.
    pub fn kill_children(&self) {
        let children = self.daemon_pid().map(children_of);
        children.into_iter().flatten().for_each(kill_process);
    }

    /// Ends the daemon alone, as a service manager does: its workers stay.
    ///
    /// # Errors
    /// It was not running, or does not end.
    pub async fn stop_daemon(&mut self) -> Result<()> {
        let mut process = self.process.take().context("the agent is not running")?;
        process.stop().await
    }

    /// Puts a program of its own on this machine, in the place of the one before, as a package manager does: under
    /// another name first. The daemon's next start is the new program's.
    ///
    /// # Errors
    /// It cannot be copied.
    pub fn install(&mut self) -> Result<PathBuf> {
        let path = self.dir.path().join("moorline-agent");
        let unpacked = self.dir.path().join("moorline-agent.new");
        // by another process: what is started by another test meanwhile would inherit the file open for writing, and
        // such a file nobody can execute
        let copied = std::process::Command::new("cp")
            .arg(program("moorline-agent")?)
            .arg(&unpacked)
            .status()?;
        ensure!(copied.success(), "the program cannot be copied: {copied}");
        std::fs::rename(&unpacked, &path)?;
        self.installed = Some(path.clone());
        Ok(path)
    }

    /// What the daemon's next start executes.
    ///
    /// # Errors
    /// It was not built.
    pub fn program(&self) -> Result<PathBuf> {
        match &self.installed {
            Some(installed) => Ok(installed.clone()),
            None => program("moorline-agent"),
        }
    }

    /// Fails when the daemon has ended by itself.
    ///
    /// # Errors
    /// It has.
    pub fn check_alive(&mut self) -> Result<()> {
        self.process
            .as_mut()
            .context("the agent is not running")?
            .check_alive()
    }

    /// The daemon, its workers, and what these started with the daemon's environment.
    pub fn processes(&self) -> Vec<i32> {
        let state_dir = self.state_dir.display().to_string();
        let mut found = marked_processes(&self.mark());
        // the agent's own have their environment closed to all but root
        found.extend(processes_with_argument(&state_dir));
        found.sort_unstable();
        found.dedup();
        found
    }

    /// The daemon's process, while it runs.
    pub fn daemon_pid(&self) -> Option<i32> {
        self.process.as_ref().map(Process::pid)
    }

    /// Worker processes of one kind.
    pub fn workers(&self, kind: WorkerKind) -> Vec<i32> {
        self.processes()
            .into_iter()
            .filter(|pid| {
                let arguments = arguments_of(*pid);
                arguments.get(1).is_some_and(|verb| verb == "worker")
                    && arguments.get(2).is_some_and(|word| word == kind.as_str())
            })
            .collect()
    }

    /// Waits until there are exactly `count` workers of a kind, and returns them.
    ///
    /// # Errors
    /// There are not.
    pub async fn wait_workers(&self, kind: WorkerKind, count: usize) -> Result<Vec<i32>> {
        wait_for(
            &format!("{count} {} workers", kind.as_str()),
            PATIENCE,
            async || {
                let workers = self.workers(kind);
                Ok((workers.len() == count).then_some(workers))
            },
        )
        .await
    }

    /// Runs another verb of `moorline-agent` with this node's state directory.
    ///
    /// # Errors
    /// It does not end.
    pub async fn agent(&self, verb: &str, arguments: &[&str]) -> Result<Finished> {
        let state_dir = self.state_dir.display().to_string();
        let mut all = vec![verb, "--state-dir", &state_dir];
        all.extend(arguments);
        run(
            program("moorline-agent")?,
            &all,
            &self.environment,
            None,
            PATIENCE,
        )
        .await
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    pub fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    /// A directory that goes with the node: for files that its commands write.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn log(&self) -> String {
        self.process.as_ref().map(Process::log_text).unwrap_or_default()
    }

    /// What the present daemon has logged.
    pub fn log_of_this_start(&self) -> String {
        let log = self.log();
        log.get(self.log_start..).unwrap_or_default().to_owned()
    }

    /// Adds to the daemon's environment from its next start.
    pub fn set_environment(&mut self, name: &str, value: &str) {
        self.environment.insert(name.to_owned(), value.to_owned());
    }

    /// Puts other settings in the place of the tests' own, from the daemon's next start.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn configure(&self, settings: &str) -> Result<()> {
        write_settings(&self.state_dir, settings)
    }

    /// Makes this the policy of the node's owner. A daemon that was started without one looks for it elsewhere.
    ///
    /// # Errors
    /// The files cannot be written.
    pub fn set_policy(&self, rules: &str) -> Result<()> {
        let folder = self.state_dir.join("policy.d");
        let settings = format!("[policy]\nfolder = {:?}\n", folder.display().to_string());
        let drop_in = self.state_dir.join("conf.d/policy.toml");
        for (path, text) in [(folder.join("10-test.toml"), rules), (drop_in, settings.as_str())] {
            let parent = path.parent().context("a file is in a folder")?;
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(parent)?;
            let unfinished = path.with_extension("new");
            let mut options = std::fs::File::options();
            let mut file = options
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o644)
                .open(&unfinished)?;
            file.write_all(text.as_bytes())?;
            std::fs::rename(&unfinished, &path)?;
        }
        Ok(())
    }

    /// From its next start the daemon has users, homes, logins and `/run` of its own: a script sets up a mount
    /// namespace, then what is special to the test, and executes the daemon.
    pub fn isolate(&mut self, script: &Path, special: &str) {
        self.launcher = ["unshare", "-m", "--", "/bin/sh"]
            .map(OsString::from)
            .into_iter()
            .chain([script.as_os_str().to_owned()])
            .collect();
        self.set_environment("SPECIAL", special);
    }

    /// From its next start the daemon is started by this program, which executes it in the end.
    pub fn start_by(&mut self, words: &[&str]) {
        self.launcher = words.iter().map(OsString::from).collect();
    }

    /// The machine has booted: from its next start the daemon sees a boot id of the test's own, and another one for each
    /// call. Takes root, and a daemon that does not run.
    ///
    /// # Errors
    /// The file for it cannot be written.
    pub fn next_boot(&mut self) -> Result<()> {
        const SCRIPT: &str = "mount --bind \"$SPECIAL\" /proc/sys/kernel/random/boot_id && exec \"$@\"\n";
        ensure!(self.process.is_none(), "the agent is running");
        let (file, script) = (self.dir.path().join("boot_id"), self.dir.path().join("boot.sh"));
        self.boots += 1;
        std::fs::write(&file, format!("0b54f77e-0000-4000-8000-{:012}\n", self.boots))?;
        if self.boots == 1 {
            std::fs::write(&script, SCRIPT)?;
            self.isolate(&script, &file.display().to_string());
        }
        Ok(())
    }

    fn mark(&self) -> String {
        let mark = self.environment.get(MARK);
        format!("{MARK}={}", mark.map_or("", String::as_str))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.process = None;
        // workers outlive the daemon, as they should, and what they started outlives them: twice, for those born
        // in between
        for _ in 0..2 {
            for pid in self.processes() {
                kill_process(pid);
            }
        }
    }
}

/// For the owner only, as all in this directory.
fn write_settings(state_dir: &Path, settings: &str) -> Result<()> {
    let mut file = std::fs::File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(state_dir.join("agent.toml"))?;
    file.write_all(settings.as_bytes())?;
    // the owner's file is not what a power cut is to take
    file.sync_all()?;
    Ok(std::fs::File::open(state_dir)?.sync_all()?)
}

/// The daemon's environment, with the mark by which all that it starts is found.
fn node_environment(home: &Path) -> BTreeMap<String, String> {
    let mut environment = bare_environment(home);
    environment.insert(MARK.to_owned(), uuid::Uuid::new_v4().to_string());
    environment
}

/// Runs `moorline-agent register`; the code goes through standard input.
///
/// # Errors
/// It does not end.
pub async fn register_agent(
    home: &Path,
    state_dir: &Path,
    url: &str,
    ca: &Path,
    (activation_id, activation_code): (&str, &str),
) -> Result<Finished> {
    let arguments = register_arguments(state_dir, url, ca, activation_id);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    run(
        program("moorline-agent")?,
        &arguments,
        &bare_environment(home),
        Some(format!("{activation_code}\n").as_bytes()),
        Duration::from_secs(120),
    )
    .await
}

/// As [`register_agent`], on a terminal, where the code is typed. A script for the shell starts it, as `"$@"`.
///
/// # Errors
/// It cannot be started.
pub fn register_at_terminal(
    home: &Path,
    script: &str,
    url: &str,
    ca: &Path,
    activation_id: &str,
) -> Result<Terminal> {
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", script, "sh"])
        .arg(program("moorline-agent")?)
        .args(register_arguments(&home.join("agent"), url, ca, activation_id))
        .env_clear()
        .envs(bare_environment(home));
    Terminal::start(&mut command, 80, 24)
}

fn register_arguments(state_dir: &Path, url: &str, ca: &Path, activation_id: &str) -> Vec<String> {
    let (state_dir, ca) = (state_dir.display().to_string(), ca.display().to_string());
    let arguments = [
        "register",
        "--state-dir",
        &state_dir,
        "--endpoint",
        url,
        "--ca",
        &ca,
        "--activation-id",
        activation_id,
        "--activation-code-file",
        "-",
    ];
    arguments.map(str::to_owned).to_vec()
}

async fn is_connected(api: &Api, node: &str) -> Result<bool> {
    let status = api.call("GetConnectionStatus", json!({"Target": node})).await?;
    Ok(status["Status"] == "connected")
}

async fn has_pinged(api: &Api, node: &str) -> Result<bool> {
    let filters = json!({"Filters": [{"Key": "InstanceIds", "Values": [node]}]});
    let listed = api.call("DescribeInstanceInformation", filters).await?;
    Ok(listed["InstanceInformationList"][0]["PlatformType"].is_string())
}
