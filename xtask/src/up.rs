//! `up`: the five minutes of a newcomer in one command.

use std::{
    fs,
    io::Write,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::Value;

use crate::{
    processes::{Background, cargo, must_succeed, output_of, wait_until},
    root, target_dir,
};

#[derive(Args)]
pub(crate) struct Options {
    /// No terminal: run the command, run a scripted shell session, show its transcript, end
    #[arg(long)]
    once: bool,
    /// Where the endpoint listens
    #[arg(long, default_value = "127.0.0.1:8443")]
    listen: String,
}

impl Options {
    pub(crate) fn once() -> Self {
        Self {
            once: true,
            listen: "127.0.0.1:8443".to_owned(),
        }
    }
}

/// Builds the three programs.
pub(crate) fn build() -> Result<()> {
    must_succeed(cargo().args([
        "build",
        "-p",
        "moorline-control",
        "-p",
        "moorline-agent",
        "-p",
        "moorline",
    ]))
}

pub(crate) fn run(options: &Options) -> Result<()> {
    println!("== building");
    build()?;
    if options.once {
        // A place and a port of its own, so that it runs beside anything.
        let dir = tempfile::tempdir().context("failed to make a temporary directory")?;
        return Place {
            dir: dir.path().to_owned(),
            listen: "127.0.0.1:0".to_owned(),
        }
        .once();
    }
    Place {
        dir: root()?.join("up"),
        listen: options.listen.clone(),
    }
    .interactive()
}

/// Where the endpoint and the node of this `up` keep their state.
struct Place {
    dir: PathBuf,
    listen: String,
}

/// A running endpoint and a node that is online.
struct Running {
    environment: Vec<(String, String)>,
    instance_id: String,
    // Dropped in this order: the node first.
    agent: Background,
    _control: Background,
}

impl Place {
    fn control_dir(&self) -> PathBuf {
        self.dir.join("control")
    }

    fn node_dir(&self) -> PathBuf {
        self.dir.join("node")
    }

    fn start(&self) -> Result<Running> {
        fs::create_dir_all(&self.dir)?;
        println!("== starting the control endpoint");
        let mut serve = Command::new(program("moorline-control")?);
        serve
            .arg("serve")
            .arg("--state-dir")
            .arg(self.control_dir())
            .args(["--listen", &self.listen]);
        // A terminal's Ctrl-C is for us; we end what we started in order.
        serve.process_group(0).stderr(self.log("control.log")?);
        let (control, line) = Background::start_and_hear("moorline-control", &mut serve)?;
        println!("{line}");
        let environment = read_exports(&self.control_dir().join("admin.env"))?;
        if !self.node_dir().join("registration.json").exists() {
            self.register(&environment)?;
        }
        println!("== starting the agent");
        let mut run = Command::new(program("moorline-agent")?);
        run.arg("run")
            .arg("--state-dir")
            .arg(self.node_dir())
            .process_group(0)
            .stderr(self.log("agent.log")?);
        let mut agent = Background::start("moorline-agent", &mut run)?;
        let mut status = Value::Null;
        wait_until("the node's connection", Duration::from_secs(30), || {
            agent.must_run()?;
            status = self.agent_status()?;
            Ok(status["Connected"] == true)
        })?;
        let instance_id = status["InstanceId"]
            .as_str()
            .context("the agent has no id")?
            .to_owned();
        println!("{instance_id} is online");
        Ok(Running {
            environment,
            instance_id,
            agent,
            _control: control,
        })
    }

    fn register(&self, environment: &[(String, String)]) -> Result<()> {
        println!("== joining this machine as a managed node, by hybrid activation");
        let created = output_of(
            Command::new(program("moorline")?)
                .args(["activation", "create", "--tag", "Started=by-up", "--json"])
                .envs(environment.iter().cloned()),
        )?;
        let created: Value = serde_json::from_str(&created)?;
        let text = |name: &str| {
            created[name]
                .as_str()
                .with_context(|| format!("the activation has no {name}"))
        };
        let endpoint = variable(environment, "AWS_ENDPOINT_URL")?;
        let mut register = Command::new(program("moorline-agent")?)
            .arg("register")
            .arg("--state-dir")
            .arg(self.node_dir())
            .args(["--endpoint", endpoint, "--activation-id", text("ActivationId")?])
            .arg("--ca")
            .arg(self.control_dir().join("ca.pem"))
            .args(["--activation-code-file", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .context("failed to start moorline-agent")?;
        register
            .stdin
            .take()
            .context("no standard input")?
            .write_all(text("ActivationCode")?.as_bytes())?;
        let status = register.wait()?;
        if !status.success() {
            bail!("moorline-agent register ended with {status}");
        }
        // A trial makes no users on the machine it is tried on.
        fs::write(
            self.node_dir().join("agent.toml"),
            "[session]\ncreate_user = false\n",
        )?;
        Ok(())
    }

    /// `status` ends with 1 while the node is not connected, so only its text counts.
    fn agent_status(&self) -> Result<Value> {
        let output = Command::new(program("moorline-agent")?)
            .args(["status", "--json", "--state-dir"])
            .arg(self.node_dir())
            .output()?;
        Ok(serde_json::from_slice(&output.stdout).unwrap_or_default())
    }

    fn log(&self, name: &str) -> Result<fs::File> {
        let path = self.dir.join(name);
        fs::File::create(&path).with_context(|| format!("failed to write {}", path.display()))
    }

    fn once(&self) -> Result<()> {
        let running = self.start()?;
        running.hello()?;
        println!("== a recorded shell session, by script");
        let mut shell = running
            .moorline(&["shell", &running.instance_id])?
            .stdin(Stdio::piped())
            .spawn()
            .context("failed to start moorline shell")?;
        shell
            .stdin
            .take()
            .context("no standard input")?
            .write_all(b"echo moorline-$((6*7))\nexit 3\n")?;
        let status = shell.wait()?;
        if status.code() != Some(3) {
            bail!("the shell's exit code is 3, moorline shell ended with {status}");
        }
        println!("== its transcript");
        let text = output_of(&mut running.moorline(&["transcript", "text"])?)?;
        println!("{text}");
        if !text.contains("moorline-42") {
            bail!("the transcript does not hold what the shell printed");
        }
        println!("== up --once: everything worked");
        Ok(())
    }

    fn interactive(&self) -> Result<()> {
        let mut running = self.start()?;
        running.hello()?;
        println!(
            "== a recorded shell on {}; leave it with `exit` or ~.",
            running.instance_id
        );
        let status = running.moorline(&["shell", &running.instance_id])?.status()?;
        println!("== the shell ended with {status}; its recording:");
        must_succeed(&mut running.moorline(&["transcript", "list"])?)?;
        println!();
        println!("The endpoint and the node keep running. In another terminal:");
        println!("    . {}", self.control_dir().join("admin.env").display());
        println!("    export PATH={}:$PATH", target_dir()?.join("debug").display());
        println!(
            "    moorline nodes; moorline run --node {} -- uptime",
            running.instance_id
        );
        println!("    moorline transcript play");
        println!("Logs and state: {}. Press Enter to stop.", self.dir.display());
        let mut line = String::new();
        std::io::stdin().read_line(&mut line)?;
        running.agent.must_run()
    }
}

impl Running {
    fn moorline(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new(program("moorline")?);
        command.args(arguments).envs(self.environment.iter().cloned());
        Ok(command)
    }

    fn hello(&self) -> Result<()> {
        println!(
            "== a command on it: moorline run --node {} -- uname -sr",
            self.instance_id
        );
        must_succeed(&mut self.moorline(&["run", "--node", &self.instance_id, "--", "uname", "-sr"])?)
    }
}

fn program(name: &str) -> Result<PathBuf> {
    Ok(target_dir()?.join("debug").join(name))
}

fn variable<'a>(environment: &'a [(String, String)], name: &str) -> Result<&'a str> {
    let found = environment.iter().find(|(key, _)| key == name);
    found
        .map(|(_, value)| value.as_str())
        .with_context(|| format!("admin.env has no {name}"))
}

/// The `export NAME=value` lines of admin.env, by the shell that they are written for.
fn read_exports(path: &Path) -> Result<Vec<(String, String)>> {
    const NAMES: [&str; 6] = [
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_DEFAULT_REGION",
        "AWS_ENDPOINT_URL",
        "AWS_CA_BUNDLE",
        "SSL_CERT_FILE",
    ];
    NAMES
        .iter()
        .map(|name| {
            let script = format!(". \"$1\"; printf %s \"${name}\"");
            let value = output_of(Command::new("sh").args(["-c", &script, "sh"]).arg(path))?;
            Ok(((*name).to_owned(), value))
        })
        .collect()
}
