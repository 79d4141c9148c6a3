//! A host that is not well, in every way that an operator meets: the conditions are real, made by mount namespaces,
//! small file systems and control groups. In each a session opens, says what is wrong, and runs what is typed; for a
//! daemon that ran before, and for one that starts when all is lost already.

use std::{
    fs,
    net::UdpSocket,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use moorline_tests::{Cli, Endpoint, Node, PATIENCE, Recording, WorkerKind, is_root, run, skipped, wait_for};
use tempfile::TempDir;

/// A session must be there within this time, on a machine that may be busy with other tests.
const LIMIT: Duration = Duration::from_secs(30);

/// The default user is who it is on other machines.
const SETTINGS: &str = "[session]\ncreate_user = false\n";

/// Why a condition cannot be made here.
fn is_possible() -> bool {
    if !is_root() {
        skipped("only root makes namespaces and control groups");
    }
    is_root()
}

/// A node in a mount namespace of its own, not started.
struct Host {
    node: Node,
    endpoint: Endpoint,
}

impl Host {
    async fn new() -> Result<Self> {
        let endpoint = Endpoint::start().await?;
        let url = endpoint.url();
        Self::at(endpoint, &url).await
    }

    async fn at(endpoint: Endpoint, url: &str) -> Result<Self> {
        let node = Node::register_through(&endpoint, url, &[]).await?;
        node.configure(SETTINGS)?;
        Ok(Self { node, endpoint })
    }

    /// Starts the daemon on a machine that this script has changed.
    async fn start(&mut self, special: &str) -> Result<()> {
        let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("own_users.sh");
        self.node.isolate(&script, special);
        self.node.start().await
    }

    /// Changes the machine under the running daemon.
    async fn change(&self, script: &str) -> Result<()> {
        let pid = self.node.daemon_pid().context("no daemon")?.to_string();
        let arguments = ["-t", &pid, "-m", "--", "/bin/sh", "-ec", script];
        let environment = [("PATH".to_owned(), std::env::var("PATH")?)].into();
        run("nsenter", &arguments, &environment, None, PATIENCE)
            .await?
            .success()?;
        Ok(())
    }

    /// A session opens in time, says what is wrong, and runs what is typed.
    async fn check_session(&self, wrong: &[&str]) -> Result<()> {
        let mut terminal = Cli::of(&self.endpoint).at_terminal(&["shell", self.node.id()])?;
        terminal
            .expect_within("moorline: this node is degraded: ", LIMIT)
            .await?;
        // the second is computed, so that it is not the echo of what is typed
        terminal.send("echo still-''here $((6 * 7)); exit 7\n")?;
        terminal.expect_within("still-here 42", LIMIT).await?;
        ensure!(terminal.wait().await? == 7, "{}", terminal.text());
        let shown = terminal.text().replace(['\r', '\n'], "");
        for text in wrong {
            ensure!(shown.contains(text), "{text:?} is not said:\n{}", terminal.text());
        }
        Ok(())
    }

    /// As [`Self::check_session`], for what a session has only a blink to find out: on a busy machine it may not, but not
    /// each time.
    async fn check_one_session(&self, wrong: &[&str]) -> Result<()> {
        for _ in 0..4 {
            if self.check_session(wrong).await.is_ok() {
                return Ok(());
            }
        }
        self.check_session(wrong).await
    }

    /// Makes the machine ill below a running daemon, looks, and looks again with a daemon that starts ill.
    async fn check_both(&mut self, illness: &str, wrong: &[&str]) -> Result<()> {
        self.check_both_after("", illness, wrong).await
    }

    /// As [`Self::check_both`], on a machine that was prepared for it.
    async fn check_both_after(&mut self, before: &str, illness: &str, wrong: &[&str]) -> Result<()> {
        self.start(before).await?;
        self.change(illness).await?;
        self.check_session(wrong).await?;
        self.node.kill_daemon().await?;
        self.start(&format!("{before}{illness}")).await?;
        self.check_session(wrong).await
    }
}

/// What a daemon has of something when it does nothing: the least that is seen, when less has not been for a while.
async fn at_rest(count: impl Fn() -> Result<u64>) -> Result<u64> {
    const LOOKS: u32 = 30;
    let (mut least, mut looks) = (u64::MAX, 0);
    wait_for("the daemon to be at rest", PATIENCE, async || {
        let now = count()?;
        looks = if now < least { 0 } else { looks + 1 };
        least = least.min(now);
        Ok((looks >= LOOKS).then_some(least))
    })
    .await
}

/// A control group that goes with the test.
struct ControlGroup {
    folder: PathBuf,
}

impl ControlGroup {
    /// One in which a controller can set limits; `None`, with the reason said, where this machine has none.
    fn new(controller: &str) -> Option<Self> {
        let name = format!("moorline-test-{}-{controller}", uuid::Uuid::new_v4());
        let root = Path::new("/sys/fs/cgroup");
        let folder = [root.join(controller), root.to_owned()]
            .into_iter()
            .find(|root| root.is_dir())?
            .join(name);
        let made = fs::create_dir(&folder);
        let group = Self { folder };
        if made.is_err() || group.file(&group.limit_names(controller)).is_none() {
            skipped(&format!("no control group for {controller} can be made here"));
            return None;
        }
        Some(group)
    }

    fn limit_names(&self, controller: &str) -> [String; 2] {
        [
            format!("{controller}.max"),
            format!("{controller}.limit_in_bytes"),
        ]
    }

    fn file(&self, names: &[String]) -> Option<PathBuf> {
        let mut paths = names.iter().map(|name| self.folder.join(name));
        paths.find(|path| path.exists())
    }

    fn set_limit(&self, controller: &str, limit: u64) -> Result<()> {
        let file = self.file(&self.limit_names(controller)).context("no limit")?;
        Ok(fs::write(file, limit.to_string())?)
    }

    fn used(&self, names: [&str; 2]) -> Result<u64> {
        let file = self.file(&names.map(str::to_owned)).context("no use")?;
        Ok(fs::read_to_string(file)?.trim().parse()?)
    }

    /// A line of a script that puts what it executes into the group.
    fn join(&self) -> String {
        format!("echo $$ > {}/cgroup.procs\n", self.folder.display())
    }

    fn take(&self, pid: i32) -> Result<()> {
        Ok(fs::write(self.folder.join("cgroup.procs"), pid.to_string())?)
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        // a group goes when its last process is gone, which may take a moment
        let started = Instant::now();
        while fs::remove_dir(&self.folder).is_err() && started.elapsed() < Duration::from_secs(2) {
            std::thread::yield_now();
        }
    }
}

/// A small file system on /var that is filled to its last byte or file.
fn full_var(options: &str, fill: &str) -> String {
    format!(
        "mount -t tmpfs -o {options} full /var; mkdir /var/tmp /var/log; cd /var\n\
         ( {fill} ) 2> /dev/null || true\n\
         ! echo x > /var/one-more 2> /dev/null; cd /\n"
    )
}

#[tokio::test]
async fn a_session_opens_where_no_block_is_free() -> Result<()> {
    if !is_possible() {
        return Ok(());
    }
    let fill = "cat /dev/zero > filler; while echo x > f$((n += 1)); do :; done";
    let illness = full_var("size=1m,nr_inodes=4096", fill);
    let mut host = Host::new().await?;
    host.check_both(&illness, &["/var is full (0 KiB free)"]).await
}

#[tokio::test]
async fn a_session_opens_where_no_inode_is_free() -> Result<()> {
    if !is_possible() {
        return Ok(());
    }
    let fill = "n=0; while [ $n -lt 100 ]; do : > f$n || exit 0; n=$((n + 1)); done";
    let illness = full_var("size=1m,nr_inodes=50", fill);
    let mut host = Host::new().await?;
    host.check_both(&illness, &["/var is full (0 files more)"]).await
}

#[tokio::test]
async fn a_session_opens_where_everything_is_read_only() -> Result<()> {
    if !is_possible() {
        return Ok(());
    }
    // The kernel lets nothing become read-only that is open for writing: what the daemon has open gets a mount of its
    // own, over which another one is laid.
    let state = "mount --bind /tmp /tmp\n";
    let illness = "for place in /etc /run /home /var/log /tmp; do\n\
                   mount --bind $place $place; mount -o remount,bind,ro $place; done\n\
                   mount -o remount,bind,ro /\n\
                   ! touch /etc/x /tmp/x /x 2> /dev/null\n";
    let mut host = Host::new().await?;
    let wrong = ["/ is mounted read-only", "/etc is mounted read-only"];
    host.check_both_after(state, illness, &wrong).await
}

#[tokio::test]
async fn a_session_opens_with_the_last_two_processes() -> Result<()> {
    if !is_possible() {
        return Ok(());
    }
    let Some(group) = ControlGroup::new("pids") else {
        return Ok(());
    };
    let mut host = Host::new().await?;
    host.start("").await?;
    let daemon = host.node.daemon_pid().context("no daemon")?;
    group.take(daemon)?;
    let threads = at_rest(|| group.used(["pids.current", "pids.current"])).await?;
    ensure!(threads <= 3, "an idle daemon has {threads} threads");
    group.set_limit("pids", threads + 2)?;
    host.check_session(&["processes are in use"]).await?;
    host.node.kill_daemon().await?;

    // with the threads that a daemon has at its start, and two
    host.start(&format!(
        "{}echo {} > {}/pids.max\n",
        group.join(),
        threads + 2,
        group.folder.display()
    ))
    .await?;
    host.check_session(&["processes are in use"]).await
}

#[tokio::test]
async fn a_session_that_gets_no_process_is_told_why() -> Result<()> {
    if !is_possible() {
        return Ok(());
    }
    let Some(group) = ControlGroup::new("pids") else {
        return Ok(());
    };
    let mut host = Host::new().await?;
    host.start("").await?;
    group.take(host.node.daemon_pid().context("no daemon")?)?;
    let threads = at_rest(|| group.used(["pids.current", "pids.current"])).await?;
    group.set_limit("pids", threads)?;
    let refused = Cli::of(&host.endpoint)
        .run_with_input(&["shell", host.node.id()], b"exit 0\n")
        .await?;
    ensure!(refused.code != 0, "{refused:?}");
    let said = format!("{}{}", refused.stdout, refused.stderr);
    ensure!(said.contains("failed to start a session worker"), "{said}");
    // and it comes as soon as there is one
    group.set_limit("pids", 100)?;
    let ran = Cli::of(&host.endpoint)
        .run_with_input(&["shell", host.node.id()], b"exit 3\n")
        .await?;
    ran.with_code(3)?;
    Ok(())
}

/// A lookup needs a thread, and a runtime that is refused one ends its process.
#[tokio::test]
async fn a_port_of_a_host_that_cannot_be_looked_up_for_want_of_a_thread_is_told() -> Result<()> {
    if !is_possible() {
        return Ok(());
    }
    let Some(group) = ControlGroup::new("pids") else {
        return Ok(());
    };
    let mut host = Host::new().await?;
    host.start("").await?;
    group.take(host.node.daemon_pid().context("no daemon")?)?;
    // for the worker, and nothing beside it
    let threads = at_rest(|| group.used(["pids.current", "pids.current"])).await?;
    group.set_limit("pids", threads + 1)?;
    let words = ["forward", host.node.id(), "0:localhost:1"];
    let refused = Cli::of(&host.endpoint).run(&words).await?.with_code(255)?;
    ensure!(
        refused.stderr.contains("no thread can be started for the lookup"),
        "{refused:?}"
    );
    Ok(())
}

/// A file in memory, which takes memory from a control group for as long as it is there.
struct Ballast(PathBuf);

impl Drop for Ballast {
    fn drop(&mut self) {
        let _gone = fs::remove_file(&self.0);
    }
}

#[tokio::test]
async fn a_session_opens_where_memory_is_short() -> Result<()> {
    if !is_possible() {
        return Ok(());
    }
    let Some(group) = ControlGroup::new("memory") else {
        return Ok(());
    };
    let mut host = Host::new().await?;
    host.start("").await?;
    let ballast = Ballast(PathBuf::from(format!(
        "/dev/shm/moorline-test-{}",
        std::process::id()
    )));
    let fill = format!("{}head -c 320m /dev/zero > {}", group.join(), ballast.0.display());
    run(
        "/bin/sh",
        &["-ec", &fill],
        &[("PATH".to_owned(), std::env::var("PATH")?)].into(),
        None,
        PATIENCE,
    )
    .await?
    .success()?;
    group.take(host.node.daemon_pid().context("no daemon")?)?;
    // what two processes need, and not much more
    let used = group.used(["memory.current", "memory.usage_in_bytes"])?;
    group.set_limit("memory", used + 20 * 1024 * 1024)?;
    host.check_session(&["memory is short"]).await?;
    host.node.kill_daemon().await?;
    host.start(&group.join()).await?;
    host.check_session(&["memory is short"]).await
}

/// Takes the names of the machine away: what `localhost` is, only `server` could say.
fn nameless(server: &str) -> String {
    format!(
        "echo > /etc/hosts; echo 'hosts: files dns' > /etc/nsswitch.conf; rm -f /etc/resolv.conf\n\
         echo 'nameserver {server}' > /etc/resolv.conf\n"
    )
}

/// A node that knows its endpoint by name.
async fn named_host() -> Result<Host> {
    let endpoint = Endpoint::start().await?;
    let url = format!("https://localhost:{}", endpoint.address().port());
    Host::at(endpoint, &url).await
}

#[tokio::test]
async fn a_session_opens_where_no_name_server_is() -> Result<()> {
    if !is_possible() {
        return Ok(());
    }
    // nothing listens there, also where systemd has a name server of its own: each lookup fails at once
    let illness = nameless("127.0.0.92");
    let wrong = ["DNS does not answer"];
    let mut host = named_host().await?;
    host.start("").await?;
    host.change(&illness).await?;
    host.check_one_session(&wrong).await?;
    host.node.kill_daemon().await?;
    host.start(&illness).await?;
    host.check_session(&wrong).await
}

#[tokio::test]
async fn a_session_opens_where_the_name_server_does_not_answer() -> Result<()> {
    if !is_possible() {
        return Ok(());
    }
    let Ok(silent) = UdpSocket::bind("127.0.0.91:53") else {
        skipped("port 53 of 127.0.0.91 is taken");
        return Ok(());
    };
    let mut host = named_host().await?;
    host.start("").await?;
    host.node.kill_daemon().await?;
    host.start(&nameless("127.0.0.91")).await?;
    host.check_session(&["DNS does not answer"]).await?;
    silent.set_nonblocking(true)?;
    let mut query = [0; 512];
    ensure!(silent.recv(&mut query).is_ok(), "it was not even asked");
    Ok(())
}

/// Compiles a library for a program to load.
async fn library(source: &str, dir: &Path, name: &str) -> Result<PathBuf> {
    let source = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("sick")
        .join(source);
    let library = dir.join(name);
    let (source, output) = (source.display().to_string(), library.display().to_string());
    let environment = [("PATH".to_owned(), std::env::var("PATH")?)].into();
    run(
        "cc",
        &["-shared", "-fPIC", "-o", &output, &source],
        &environment,
        None,
        PATIENCE,
    )
    .await?
    .success()?;
    Ok(library)
}

/// With the clock of the node off by this much, for a daemon that ran before and for one that starts so.
async fn check_clock(seconds: i64, said: &str) -> Result<()> {
    let dir = TempDir::new()?;
    let wrong = dir.path().join("seconds");
    let preloaded = library("wrong_clock.c", dir.path(), "wrong_clock.so").await?;
    let endpoint = Endpoint::start().await?;
    let url = endpoint.url();
    let mut host = Host::at(endpoint, &url).await?;
    host.node
        .set_environment("LD_PRELOAD", &preloaded.display().to_string());
    host.node
        .set_environment("WRONG_CLOCK", &wrong.display().to_string());
    fs::write(&wrong, "0")?;
    host.node.start().await?;
    fs::write(&wrong, seconds.to_string())?;
    host.check_session(&[said]).await?;
    host.node.kill_daemon().await?;
    // which takes a role token, a control channel and a ping
    host.node.start().await?;
    host.check_session(&[said]).await?;
    let command = moorline_tests::send_script(host.endpoint.api(), host.node.id(), "echo ran").await?;
    let invocation = moorline_tests::finished(host.endpoint.api(), host.node.id(), &command).await?;
    ensure!(invocation["Status"] == "Success", "{invocation}");
    Ok(())
}

#[tokio::test]
async fn a_session_opens_where_the_clock_is_a_day_ahead() -> Result<()> {
    check_clock(86_400, "the clock is wrong: 24 h 0 min ahead of the endpoint's").await
}

#[tokio::test]
async fn a_session_opens_where_the_clock_is_a_day_behind() -> Result<()> {
    check_clock(-86_400, "the clock is wrong: 24 h 0 min behind the endpoint's").await
}

#[tokio::test]
async fn a_session_opens_where_the_user_database_names_a_module_that_is_missing() -> Result<()> {
    if !is_possible() {
        return Ok(());
    }
    // whom only /etc/passwd knows
    let illness = "echo 'ssm-user:x:4711:4712::/nowhere:/bin/sh' >> /etc/passwd\n\
                   echo 'passwd: no_such_module' > /etc/nsswitch.conf\n\
                   echo 'group: no_such_module' >> /etc/nsswitch.conf\n";
    let mut host = Host::new().await?;
    host.check_both(
        illness,
        &["the user database of this machine does not know ssm-user"],
    )
    .await?;
    let shown = Cli::of(&host.endpoint)
        .run_with_input(&["shell", host.node.id()], b"echo me:$(id -u):$(id -g)\nexit\n")
        .await?
        .success()?;
    ensure!(shown.stdout.contains("me:4711:4712"), "{}", shown.stdout);
    Ok(())
}

#[tokio::test]
async fn a_session_opens_where_the_user_database_hangs() -> Result<()> {
    if !is_possible() {
        return Ok(());
    }
    let dir = TempDir::new()?;
    library("hanging_users.c", dir.path(), "libnss_hangs.so.2").await?;
    let illness = "echo 'passwd: hangs files' > /etc/nsswitch.conf\n\
                   echo 'group: hangs files' >> /etc/nsswitch.conf\n";
    let mut host = Host::new().await?;
    host.node
        .set_environment("LD_LIBRARY_PATH", &dir.path().display().to_string());
    host.node.configure("[session]\n")?; // a user is wanted, and not made
    host.check_both(illness, &["does not answer within", "this shell is a plain one"])
        .await
}

#[tokio::test]
async fn a_session_opens_where_nobody_is_in_passwd_and_is_roots_only_if_its_user_had_those_rights()
-> Result<()> {
    if !is_possible() {
        return Ok(());
    }
    let illness = "rm /etc/passwd /etc/group; mkdir /etc/passwd";
    let mut host = Host::new().await?;
    host.check_both(illness, &["cannot be read"]).await?;
    host.node.kill_daemon().await?;
    host.node
        .configure("[session]\ncreate_user = false\nsudo = false\n")?;
    host.start(illness).await?;
    let refused = Cli::of(&host.endpoint)
        .run_with_input(&["shell", host.node.id()], b"exit 0\n")
        .await?;
    ensure!(refused.code != 0, "{refused:?}");
    Ok(())
}

#[tokio::test]
async fn a_session_opens_where_the_users_shell_and_home_are_gone() -> Result<()> {
    if !is_possible() {
        return Ok(());
    }
    let illness = "echo 'ssm-user:x:4711:4712::/nowhere:/opt/no-such-shell' >> /etc/passwd\n";
    let mut host = Host::new().await?;
    host.check_both(
        illness,
        &["/opt/no-such-shell cannot be executed, this shell is /bin/sh"],
    )
    .await
}

#[tokio::test]
async fn a_session_is_recorded_with_what_it_says_is_wrong() -> Result<()> {
    if !is_possible() {
        return Ok(());
    }
    let mut host = Host::new().await?;
    host.start(&full_var("size=1m", "cat /dev/zero > filler")).await?;
    host.check_session(&["/var is full"]).await?;
    let folder = tempfile::tempdir()?;
    let recording = Recording::newest(&Cli::of(&host.endpoint), folder.path()).await?;
    ensure!(
        recording.text.contains("this node is degraded"),
        "{}",
        recording.text
    );
    Ok(())
}

#[tokio::test]
async fn a_session_opens_and_ends_where_proc_is_not_mounted() -> Result<()> {
    if !is_possible() {
        return Ok(());
    }
    let mut host = Host::new().await?;
    host.check_both("umount -l /proc\n", &["/proc is not mounted"])
        .await?;
    // and one that would stay ends with its session
    let mut terminal = Cli::of(&host.endpoint).at_terminal(&["shell", host.node.id()])?;
    terminal.send("trap '' HUP TERM; echo de''af\n")?;
    terminal.expect("deaf").await?;
    terminal.send("\r~.")?;
    terminal.wait().await?;
    host.node.wait_workers(WorkerKind::Session, 0).await?;
    Ok(())
}

#[tokio::test]
async fn where_no_terminal_can_be_had_it_is_said_and_a_command_without_one_repairs_it() -> Result<()> {
    if !is_possible() {
        return Ok(());
    }
    let mut host = Host::new().await?;
    host.start("mount -t tmpfs none /dev/pts\n").await?;
    let cli = Cli::of(&host.endpoint);
    let refused = cli
        .run_with_input(&["shell", host.node.id()], b"exit 0\n")
        .await?;
    ensure!(
        refused.code != 0 && refused.stderr.contains("devpts is not mounted on /dev/pts"),
        "{refused:?}"
    );
    cli.run(&["shell", host.node.id(), "--", "mount -t devpts devpts /dev/pts"])
        .await?
        .success()?;
    let ran = cli
        .run_with_input(&["shell", host.node.id()], b"exit 3\n")
        .await?;
    ran.with_code(3)?;
    Ok(())
}

/// Descriptors that an idle daemon may have more, for what it does by itself.
const SPARE_FILES: u64 = 3;

async fn limit_files(pid: i32, limit: u64) -> Result<()> {
    let (pid, limit) = (pid.to_string(), format!("--nofile={limit}:"));
    let environment = [("PATH".to_owned(), std::env::var("PATH")?)].into();
    run("prlimit", &["--pid", &pid, &limit], &environment, None, PATIENCE)
        .await?
        .success()?;
    Ok(())
}

#[tokio::test]
async fn where_the_daemon_may_open_no_more_files_it_is_said_and_a_session_opens_with_ten_more() -> Result<()>
{
    if !is_possible() {
        return Ok(());
    }
    let mut host = Host::new().await?;
    host.start("").await?;
    let daemon = host.node.daemon_pid().context("no daemon")?;
    let descriptors = format!("/proc/{daemon}/fd");
    let open = at_rest(|| Ok(fs::read_dir(&descriptors)?.count() as u64)).await?;
    limit_files(daemon, open + SPARE_FILES).await?;
    let cli = Cli::of(&host.endpoint);
    let refused = cli
        .run_with_input(&["shell", host.node.id()], b"exit 0\n")
        .await?;
    ensure!(
        refused.code != 0
            && refused
                .stderr
                .contains("failed to start a session worker: Too many open files"),
        "{refused:?}"
    );
    // what its sessions inherit is said, too
    limit_files(daemon, open + SPARE_FILES + 10).await?;
    host.check_session(&["no program may open more than"]).await
}
