//! Whose shell it is: the default user and how he is made, PAM, the environment, the records of logins. Each node has
//! users, homes and logins of its own, in a mount namespace.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use moorline_tests::{
    Endpoint, Finished, Node, PATIENCE, Site, WorkerKind, is_root, skipped, wait_for, wait_until,
};
use tokio::time::Instant;

/// Set-up scripts run as root, and some tests need programs that not every machine has.
fn is_possible(needed: &[&str]) -> bool {
    if !is_root() {
        skipped("only root makes users and namespaces");
        return false;
    }
    let missing = needed.iter().find(|path| !Path::new(path).exists());
    if let Some(path) = missing {
        skipped(&format!("this machine has no {path}"));
    }
    missing.is_none()
}

/// A site whose node was set up by a script, with these settings.
async fn site(settings: &str, special: &str) -> Result<Site> {
    let endpoint = Endpoint::start().await?;
    let mut node = Node::register(&endpoint, &[]).await?;
    node.configure(settings)?;
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("own_users.sh");
    node.isolate(&script, special);
    node.start().await?;
    Ok(Site { node, endpoint })
}

/// What a shell of the node answers to these lines.
async fn answer(site: &Site, lines: &str) -> Result<String> {
    let input = format!("stty -echo; PS1=\n{lines}\nexit\n");
    let ran = site
        .cli()
        .run_with_input(&["shell", site.node.id()], input.as_bytes())
        .await?
        .success()?;
    Ok(ran.stdout)
}

/// The end of a session that does not begin.
async fn refused(site: &Site) -> Result<Finished> {
    let ran = site
        .cli()
        .run_with_input(&["shell", site.node.id()], b"exit 0\n")
        .await?;
    ensure!(ran.code != 0, "{ran:?}");
    Ok(ran)
}

const USERADD: &str = "/usr/sbin/useradd";
const VISUDO: &str = "/usr/sbin/visudo";

#[tokio::test]
async fn the_default_user_is_made_with_the_first_session_and_a_right_that_was_taken_stays_taken() -> Result<()>
{
    if !is_possible(&[USERADD, VISUDO, "/bin/bash"]) {
        return Ok(());
    }
    let site = site("", "").await?;
    // Two first sessions at once make one user.
    let ask = "echo \"me:$(id -un):$HOME:$PWD:$SHELL:$0\"; echo \"sudo:$(sudo -n id -u)\"";
    let attributed =
        "[ ! -e /proc/self/loginuid ] || [ \"$(cat /proc/self/loginuid)\" = $(id -u) ] && echo attr''ibuted";
    let (one, two) = tokio::join!(answer(&site, ask), answer(&site, ask));
    for shown in [one?, two?] {
        ensure!(
            shown.contains("me:ssm-user:/home/ssm-user:/home/ssm-user:/bin/bash:-bash"),
            "{shown}"
        );
    }
    let shown = answer(&site, attributed).await?;
    ensure!(shown.contains("attributed"), "{shown}");
    let shown = answer(
        &site,
        "echo \"sudo:$(sudo -n id -u)\"; sudo stat -c 'mode:%a:%U' /etc/sudoers.d/moorline-agent; \
         sudo ls /etc/sudoers.d; sudo rm /etc/sudoers.d/moorline-agent",
    )
    .await?;
    ensure!(
        shown.contains("sudo:0") && shown.contains("mode:440:root") && !shown.contains("unchecked"),
        "{shown}"
    );
    let shown = answer(&site, "echo \"sudo:$(sudo -n id -u 2> /dev/null):\"").await?;
    ensure!(shown.contains("sudo::"), "the right is back: {shown}");
    Ok(())
}

#[tokio::test]
async fn the_owner_may_want_another_user_without_sudo_or_none_that_is_made() -> Result<()> {
    if !is_possible(&[USERADD]) {
        return Ok(());
    }
    let named = site("[session]\ndefault_user = \"ops\"\nsudo = false\n", "").await?;
    let shown = answer(
        &named,
        "echo \"me:$(id -un):$(ls /etc/sudoers.d 2>&1 | grep -c moorline)\"",
    )
    .await?;
    ensure!(shown.contains("me:ops:0"), "{shown}");
    drop(named);

    let off = site("[session]\ncreate_user = false\nsudo = false\n", "").await?;
    let ran = refused(&off).await?;
    ensure!(
        ran.stderr.contains("ssm-user") && ran.stderr.contains("session.create_user"),
        "{ran:?}"
    );
    Ok(())
}

#[tokio::test]
async fn where_no_user_can_be_made_root_stands_in_only_if_the_user_would_have_been_roots_equal() -> Result<()>
{
    if !is_possible(&[USERADD]) {
        return Ok(());
    }
    let read_only = "mount -o remount,ro /etc";
    let full = "mount -o remount,size=64k \"$work\"; cat /dev/zero > \"$work/fill\" || true";
    for special in [read_only, full] {
        let sick = site("", special).await?;
        let shown = answer(&sick, "echo \"me:$(id -un)\"").await?;
        ensure!(
            shown.contains("moorline: the default user ssm-user could not be made")
                && shown.contains("me:root"),
            "{special}: {shown}"
        );
    }
    let strict = site("[session]\nsudo = false\n", read_only).await?;
    let ran = refused(&strict).await?;
    ensure!(
        ran.stderr
            .contains("ssm-user does not exist and could not be made"),
        "{ran:?}"
    );
    Ok(())
}

/// BusyBox's adduser, by a stand-in that takes its options only and has useradd do the work.
#[tokio::test]
async fn a_machine_without_useradd_makes_the_user_with_adduser() -> Result<()> {
    if !is_possible(&[USERADD, "/usr/sbin/adduser"]) {
        return Ok(());
    }
    let special = "cp /usr/sbin/useradd /run/useradd; mount --bind /dev/null $(readlink -f /usr/sbin/useradd); \
        printf '#!/bin/sh\n[ \"$1$2\" = -D-s ] && exec /run/useradd -m -s \"$3\" \"$4\"\n' > /run/adduser; \
        chmod 755 /run/adduser; mount --bind /run/adduser $(readlink -f /usr/sbin/adduser)";
    let site = site("", special).await?;
    let shown = answer(&site, "echo \"me:$(id -un):$PWD\"").await?;
    ensure!(shown.contains("me:ssm-user:/home/ssm-user"), "{shown}");
    Ok(())
}

#[tokio::test]
async fn a_session_that_begins_while_the_user_is_being_made_has_a_home() -> Result<()> {
    if !is_possible(&[USERADD]) {
        return Ok(());
    }
    let slowly = "cp /usr/sbin/useradd /run/useradd; \
        printf '#!/bin/sh\n/run/useradd -M -s \"$3\" \"$4\"; sleep 2; install -d -o \"$4\" /home/\"$4\"\n' > /run/slowly; \
        chmod 755 /run/slowly; mount --bind /run/slowly $(readlink -f /usr/sbin/useradd)";
    let site = site("", slowly).await?;
    let daemon = site.node.daemon_pid().context("the daemon runs")?;
    let ask = "echo \"me:$(id -un):$PWD\"";
    let (first, second) = tokio::join!(answer(&site, ask), async {
        wait_until("the user to be found", async || {
            let users = std::fs::read_to_string(format!("/proc/{daemon}/root/etc/passwd"))?;
            Ok(users.contains("ssm-user"))
        })
        .await?;
        answer(&site, ask).await
    });
    for shown in [first?, second?] {
        ensure!(shown.contains("me:ssm-user:/home/ssm-user"), "{shown}");
    }
    Ok(())
}

#[tokio::test]
async fn a_tool_that_hangs_delays_a_session_for_a_bounded_time() -> Result<()> {
    if !is_possible(&[USERADD]) {
        return Ok(());
    }
    let hangs = "printf '#!/bin/sh\\nexec sleep 1000\\n' > /run/hangs; chmod 755 /run/hangs; \
                 mount --bind /run/hangs $(readlink -f /usr/sbin/useradd)";
    let site = site("", hangs).await?;
    let began = Instant::now();
    let shown = answer(&site, "echo \"me:$(id -un)\"").await?;
    ensure!(
        shown.contains("did not end within 10 seconds") && shown.contains("me:root"),
        "{shown}"
    );
    ensure!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
    Ok(())
}

#[tokio::test]
async fn a_shell_has_the_machines_environment_and_names_its_session_and_operator() -> Result<()> {
    if !is_possible(&[]) {
        return Ok(());
    }
    let special = "printf 'PATH=\"/opt/tools:/usr/bin:/bin\"\\nexport REGION=here # comment\\nHOME=/evil\\n' > /etc/environment";
    let site = site("[session]\ncreate_user = false\n", special).await?;
    let shown = answer(
        &site,
        "tr '\\0' '\\n' < /proc/$$/environ; echo \"operator:$MOORLINE_OPERATOR:\"; echo \"session:$MOORLINE_SESSION_ID:\"",
    )
    .await?;
    let lines: Vec<&str> = shown.lines().collect();
    for line in ["PATH=/opt/tools:/usr/bin:/bin", "REGION=here", "HOME=/root"] {
        ensure!(lines.contains(&line), "{line}: {shown}");
    }
    let after = |mark: &str| {
        let line = lines.iter().find_map(|line| line.strip_prefix(mark));
        line.map(|line| line.trim_end_matches(':').to_owned())
            .with_context(|| format!("no {mark} in {shown}"))
    };
    let (operator, session) = (after("operator:")?, after("session:")?);
    ensure!(operator.starts_with("arn:moorline:"), "{operator}");
    let log = site.node.log();
    let started = log
        .lines()
        .find(|line| line.contains("session started"))
        .context(log.clone())?;
    for part in [&operator, &session] {
        ensure!(started.contains(part.as_str()), "{started}");
    }
    ensure!(
        started.contains("user=") && started.contains("document="),
        "{started}"
    );
    Ok(())
}

const PAM: &str = "/lib/x86_64-linux-gnu/libpam.so.0";
const PAM_EXEC: &str = "/lib/x86_64-linux-gnu/security/pam_exec.so";

/// A service with real modules: limits, variables, and a program that tells what it is asked.
const PAM_SERVICE: &str = "\
cat > /etc/pam.d/moorline <<'X'
session required pam_limits.so
session required pam_env.so readenv=1 envfile=/etc/environment.pam
session optional pam_umask.so umask=0027
session optional pam_exec.so /run/told
X
cat > /run/told <<'X'
#!/bin/sh
echo \"$PAM_TYPE:$PAM_SERVICE:$PAM_USER:$PAM_TTY:$PAM_RUSER:$(cat /proc/self/loginuid)\" >> /run/told.log
X
chmod 755 /run/told
echo '* hard nofile 777' > /etc/security/limits.d/test.conf
printf 'FROM_PAM=yes\\nHOME=/evil\\n' > /etc/environment.pam
";

/// The file as the node's processes see it.
async fn told(site: &Site, lines: usize) -> Result<String> {
    let daemon = site.node.daemon_pid().context("the daemon runs")?;
    let path = format!("/proc/{daemon}/root/run/told.log");
    let told = wait_for("PAM's modules to tell", PATIENCE, async || {
        let told = std::fs::read_to_string(&path).unwrap_or_default();
        Ok((told.lines().count() >= lines).then_some(told))
    })
    .await?;
    ensure!(told.lines().count() == lines, "{told}");
    Ok(told)
}

/// Processes of PAM sessions below any agent of these tests' namespaces: they have the daemon's root.
fn keepers(site: &Site) -> Result<Vec<i32>> {
    let daemon = site.node.daemon_pid().context("the daemon runs")?;
    let of = |pid: i32| std::fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
    let ours = of(daemon);
    let found = std::fs::read_dir("/proc")?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| of(*pid) == ours)
        .filter(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.windows(12).any(|part| part == b"worker\0login")
        });
    Ok(found.collect())
}

#[tokio::test]
async fn a_shell_has_a_pam_session_with_limits_and_variables_that_is_closed_at_its_end() -> Result<()> {
    if !is_possible(&[PAM, PAM_EXEC, USERADD]) {
        return Ok(());
    }
    let site = site("", PAM_SERVICE).await?;
    let mut terminal = site.cli().shell(site.node.id()).await?;
    terminal.send("echo \"me:$(id -un):$(id -Gn):$FROM_PAM:$HOME:$(ulimit -n):$(umask):\"\n")?;
    terminal
        .expect("me:ssm-user:ssm-user:yes:/home/ssm-user:777:0027:")
        .await?;
    // It is a login shell on a terminal of its own, with nothing of the way there left open.
    terminal
        .send("tty -s && echo \"fds:$(ls -m /proc/self/fd):$0:$(ps -o sid= -p $$ | tr -d ' '):$$:\"\n")?;
    terminal.expect("fds:0, 1, 2, 3:-bash:").await?;
    ensure!(keepers(&site)?.len() == 1);
    let opened = told(&site, 1).await?;
    let audited = Path::new("/proc/self/loginuid").exists();
    ensure!(
        !audited || !opened.trim_end().ends_with(":4294967295"),
        "{opened}"
    );
    ensure!(
        opened.starts_with("open_session:moorline:ssm-user:/dev/pts/") && opened.contains(":arn:moorline:"),
        "{opened}"
    );
    terminal.send("exit 7\n")?;
    ensure!(terminal.wait().await? == 7);
    let closed = told(&site, 2).await?;
    ensure!(
        closed.contains("\nclose_session:moorline:ssm-user:/dev/pts/"),
        "{closed}"
    );
    wait_until("the keeper to be gone", async || Ok(keepers(&site)?.is_empty())).await?;

    // Commands of a document come the same way, and are no secret of the process list.
    let input = "command=printf 'I am %s with %s:' $(id -un) $(ulimit -n); tr '\\0' ' ' < /proc/$$/cmdline | grep -c printf; read last; echo $last";
    let arguments = [
        "shell",
        site.node.id(),
        "--document",
        "AWS-StartInteractiveCommand",
        "--param",
        input,
    ];
    let ran = site
        .cli()
        .run_with_input(&arguments, b"typed\n")
        .await?
        .success()?;
    ensure!(
        ran.stdout.contains("I am ssm-user with 777:")
            && ran.stdout.contains("0\r\n")
            && ran.stdout.matches("typed").count() == 2,
        "{ran:?}"
    );
    told(&site, 4).await?;

    // A worker that is killed leaves no session open.
    let mut terminal = site.cli().shell(site.node.id()).await?;
    let workers = site.node.wait_workers(WorkerKind::Session, 1).await?;
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(workers[0]),
        nix::sys::signal::Signal::SIGKILL,
    )?;
    terminal.wait().await?;
    let closed = told(&site, 6).await?;
    ensure!(closed.matches("close_session:").count() == 3, "{closed}");
    wait_until("the keeper to be gone", async || Ok(keepers(&site)?.is_empty())).await
}

#[tokio::test]
async fn the_pam_service_of_our_package_is_understood() -> Result<()> {
    if !is_possible(&[PAM, "/etc/debian_version", "/etc/pam.d/common-session"]) {
        return Ok(());
    }
    let service = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/pam.d/moorline.debian");
    let site = site("", &format!("cp {service} /etc/pam.d/moorline")).await?;
    let mut terminal = site.cli().shell(site.node.id()).await?;
    terminal.send("echo \"me:$(id -un):$(umask):\"\n")?;
    terminal.expect("me:ssm-user:00").await?;
    ensure!(!terminal.text().contains("moorline:"), "{}", terminal.text());
    ensure!(keepers(&site)?.len() == 1);
    Ok(())
}

#[tokio::test]
async fn a_module_that_hangs_or_refuses_costs_the_pam_session_and_not_the_shell() -> Result<()> {
    if !is_possible(&[PAM, PAM_EXEC]) {
        return Ok(());
    }
    let settings = "[session]\ncreate_user = false\n";
    let hangs = "echo 'session required pam_exec.so quiet /bin/sleep 1000' > /etc/pam.d/moorline";
    let refuses = "echo 'session required pam_deny.so' > /etc/pam.d/moorline";
    for (special, reason) in [
        (hangs, "not done after 10 seconds"),
        (refuses, "pam_open_session failed"),
    ] {
        let site = site(settings, special).await?;
        let began = Instant::now();
        let shown = answer(&site, "tty -s && echo \"me:$(id -un)\"").await?;
        ensure!(
            shown.contains("moorline: this shell has no PAM session") && shown.contains(reason),
            "{shown}"
        );
        ensure!(shown.contains("me:root"), "{shown}");
        ensure!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
        wait_until("the keeper to be gone", async || Ok(keepers(&site)?.is_empty())).await?;
    }
    // Off, and a machine without libpam: nothing to talk about.
    let absent = format!("{hangs}; mount --bind /dev/null $(readlink -f {PAM})");
    for (settings, special) in [
        (format!("{settings}pam = false\n"), hangs),
        (settings.to_owned(), &absent),
    ] {
        let site = site(&settings, special).await?;
        let shown = answer(&site, "echo \"me:$(id -un)\"").await?;
        ensure!(shown.contains("me:root") && !shown.contains("PAM"), "{shown}");
    }
    Ok(())
}

#[tokio::test]
async fn who_and_last_show_a_session_and_its_end() -> Result<()> {
    if !is_possible(&["/usr/bin/who", "/usr/bin/last"]) {
        return Ok(());
    }
    let site = site("[session]\ncreate_user = false\n", "").await?;
    let mut terminal = site.cli().shell(site.node.id()).await?;
    terminal.send("until who | grep -q root; do :; done; who; echo t''ty:$(tty):\n")?;
    terminal.expect("(arn:moorline:").await?;
    terminal.expect("tty:/dev/pts/").await?;
    terminal.send("exit\n")?;
    terminal.wait().await?;
    site.node.wait_workers(WorkerKind::Session, 0).await?;
    // in the second in which it ends `last` takes a session for a running one
    let ended =
        "until last -w | grep -q '(00:0'; do :; done; until [ $(who | wc -l) = 1 ]; do :; done; echo en''ded";
    let shown = answer(&site, ended).await?;
    ensure!(shown.contains("ended"), "{shown}");
    Ok(())
}
