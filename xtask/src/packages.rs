//! Programs from Debian packages that a few tests drive: an SSH server and client, rsync, sudo, and busybox.

use std::{path::Path, process::Command};

use crate::processes::must_succeed;

/// A program, and the package it is in.
const PROGRAMS: [(&str, &str); 5] = [
    ("/usr/sbin/sshd", "openssh-server"),
    ("/usr/bin/ssh", "openssh-client"),
    ("/usr/bin/rsync", "rsync"),
    ("/usr/bin/sudo", "sudo"),
    ("/bin/busybox", "busybox"),
];

/// Installs what is missing, where that is possible. A test that lacks its program says so and does nothing, hence
/// nothing here fails the run.
pub(crate) fn prepare() {
    let missing: Vec<&str> = PROGRAMS
        .iter()
        .filter(|(program, _)| !Path::new(program).exists())
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() {
        return;
    }
    let missing = missing.join(" ");
    if !nix::unistd::geteuid().is_root() || !Path::new("/usr/bin/apt-get").exists() {
        println!("== tests are skipped for lack of {missing}: only root can install them, with apt-get");
        return;
    }
    println!("== installing {missing}");
    let apt_get = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive").args(arguments);
        must_succeed(&mut command)
    };
    let mut install = vec!["install", "-qq", "--no-install-recommends"];
    install.extend(missing.split(' '));
    if let Err(error) = apt_get(&["update", "-qq"]).and_then(|()| apt_get(&install)) {
        println!("== tests are skipped for lack of {missing}: {error:#}");
    }
}
