//! `aws:downloadContent` from real Git repositories, of owners who mean no good as well.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
};

use anyhow::{Context, Result, ensure};
use moorline_tests::{Endpoint, Finished, GitServer, Node, SshServer};
use serde_json::{Value, json};

/// Downloads with the agent alone, as it would for a command: each of these sources to its destination.
async fn run(node: &Node, downloads: &[(&Value, &str)]) -> Result<Finished> {
    let step = |(number, (info, destination)): (usize, &(&Value, &str))| {
        json!({"action": "aws:downloadContent", "name": format!("get{number}"), "inputs": {
            "sourceType": "Git", "sourceInfo": info, "destinationPath": destination}})
    };
    let steps: Vec<Value> = downloads.iter().enumerate().map(step).collect();
    let document = json!({"schemaVersion": "2.2", "mainSteps": steps});
    let path = node.dir().join("document.json");
    fs::write(&path, document.to_string())?;
    node.agent("run-document", &[&path.display().to_string()]).await
}

async fn download(node: &Node, info: Value, destination: &Path) -> Result<Finished> {
    run(node, &[(&info, &format!("{}/", destination.display()))]).await
}

/// What was downloaded of the one file that there is.
fn text(destination: &Path) -> Result<String> {
    fs::read_to_string(destination.join("file")).context("no file was downloaded")
}

#[tokio::test]
async fn a_commit_is_the_one_with_that_id_whatever_else_is_called_so() -> Result<()> {
    let Some(git) = GitServer::start(&[("file", "meant")]).await? else {
        return Ok(());
    };
    let meant = git.git(&["rev-parse", "HEAD"]).await?;
    let tree = git.git(&["rev-parse", "HEAD^{tree}"]).await?;
    fs::write(git.work_tree().join("file"), "other")?;
    git.git(&["commit", "--quiet", "--all", "--message", "second"])
        .await?;
    let short = meant.get(..8).context("an id is longer")?;
    // A tag and a branch that are called like the begin, and the branch that everybody gets like the whole.
    for name in [
        format!("refs/tags/{short}"),
        format!("refs/heads/{short}"),
        format!("refs/heads/{meant}"),
    ] {
        git.git(&["update-ref", &name, "HEAD"]).await?;
    }
    git.git(&["symbolic-ref", "HEAD", &format!("refs/heads/{meant}")])
        .await?;
    let endpoint = Endpoint::start().await?;
    let mut node = Node::register(&endpoint, &[]).await?;
    for format in ["files", "reftable"] {
        // What git does not know it does not heed.
        node.set_environment("GIT_DEFAULT_REF_FORMAT", format);
        for (number, id) in [short, &meant, &meant.to_uppercase()].into_iter().enumerate() {
            let destination = node.dir().join(format!("{format}-{number}"));
            let info = json!({"repository": git.url(), "getOptions": format!("commitID:{id}")});
            download(&node, info, &destination).await?.success()?;
            ensure!(
                text(&destination)? == "meant",
                "{format} {id}: {}",
                text(&destination)?
            );
        }
        for (id, reason) in [
            (tree.as_str(), "no commit whose id is or begins with"),
            ("0123456789abcdef", "no commit whose id is or begins with"),
        ] {
            let destination = node.dir().join("refused");
            let info = json!({"repository": git.url(), "getOptions": format!("commitID:{id}")});
            let refused = download(&node, info, &destination).await?.with_code(1)?;
            ensure!(
                format!("{refused:?}").contains(reason) && !destination.exists(),
                "{id}: {refused:?}"
            );
        }
    }
    Ok(())
}

#[tokio::test]
async fn no_download_goes_through_a_link_that_another_one_has_brought() -> Result<()> {
    let Some(git) = GitServer::start(&[("file", "text")]).await? else {
        return Ok(());
    };
    let endpoint = Endpoint::start().await?;
    let node = Node::register(&endpoint, &[]).await?;
    let outside = node.dir().join("outside");
    fs::create_dir(&outside)?;
    symlink(&outside, git.work_tree().join("x"))?;
    git.git(&["add", "."]).await?;
    git.git(&["commit", "--quiet", "--message", "a link"]).await?;
    let info = json!({"repository": git.url()});
    for second in ["x/", "x/deeper/"] {
        let refused = run(&node, &[(&info, ""), (&info, second)]).await?.with_code(1)?;
        ensure!(
            format!("{refused:?}").contains("x is a link or a file and not a folder"),
            "{refused:?}"
        );
        ensure!(
            fs::read_dir(&outside)?.next().is_none(),
            "{second}: it went through"
        );
    }
    // What the owner of a machine has linked is meant so.
    let own = node.dir().join("own");
    symlink(&outside, &own)?;
    download(&node, info, &own).await?.success()?;
    ensure!(text(&outside)? == "text");
    Ok(())
}

#[tokio::test]
async fn a_private_key_opens_a_repository_and_is_in_no_file_of_the_step() -> Result<()> {
    let endpoint = Endpoint::start().await?;
    let environment = endpoint.environment();
    let Some(ssh) = SshServer::start(environment, &["/usr/bin/ssh"]).await? else {
        return Ok(());
    };
    let Some(git) = GitServer::start(&[("file", "behind the key")]).await? else {
        return Ok(());
    };
    let mut node = Node::register(&endpoint, &[]).await?;
    let key = fs::read_to_string(ssh.key())?;
    let line = key.lines().nth(1).context("a key has lines")?;
    let (bin, mark, found) = ["bin", "mark", "found"].map(|name| node.dir().join(name)).into();
    fs::create_dir(&bin)?;
    fs::write(&mark, line)?;
    // The real ssh, behind a look at what the step has on the disk just now.
    let script = format!(
        "#!/bin/sh\n{{ echo looked; grep -rlF -f {mark} {state}/commands; }} > {found}\nexec /usr/bin/ssh \"$@\"\n",
        mark = mark.display(),
        state = node.state_dir().display(),
        found = found.display(),
    );
    fs::write(bin.join("ssh"), script)?;
    fs::set_permissions(bin.join("ssh"), fs::Permissions::from_mode(0o755))?;
    node.set_environment("PATH", &format!("{}:/usr/bin:/bin", bin.display()));
    let url = format!("ssh://root@127.0.0.1:{}{}", ssh.port(), git.work_tree().display());
    // Without the end of its last line, as a parameter may have it.
    for key in [key.as_str(), key.trim_end()] {
        let destination = node.dir().join("destination");
        let info = json!({"repository": url, "privateSSHKey": key, "skipHostKeyChecking": true});
        download(&node, info, &destination).await?.success()?;
        ensure!(text(&destination)? == "behind the key");
        let found = fs::read_to_string(&found)?;
        ensure!(found == "looked\n", "the key was in {found}");
        fs::remove_dir_all(&destination)?;
    }
    let wrong = json!({"repository": url, "privateSSHKey": "no key", "skipHostKeyChecking": true});
    let refused = download(&node, wrong, &node.dir().join("refused"))
        .await?
        .with_code(1)?;
    ensure!(
        format!("{refused:?}").contains("git ended with exit status"),
        "{refused:?}"
    );
    Ok(())
}

#[tokio::test]
async fn a_repository_that_is_larger_than_a_download_may_be_is_left_while_it_comes_and_goes() -> Result<()> {
    let endpoint = Endpoint::start().await?;
    let mut node = Node::register(&endpoint, &[]).await?;
    let (bin, seen) = (node.dir().join("bin"), node.dir().join("seen"));
    fs::create_dir(&bin)?;
    // In git's place: what it brings is large, has no end, and takes nothing of the disk that this test runs on.
    let script = format!(
        "#!/bin/sh\nfor clone; do :; done\nmkdir -p \"$clone\"\ntruncate -s 5G \"$clone/pack\"\n\
         echo \"$clone\" > {}\nexec sleep 600\n",
        seen.display()
    );
    fs::write(bin.join("git"), script)?;
    fs::set_permissions(bin.join("git"), fs::Permissions::from_mode(0o755))?;
    node.set_environment("PATH", &format!("{}:/usr/bin:/bin", bin.display()));
    let destination = node.dir().join("destination");
    let info = json!({"repository": "https://git.example/endless"});
    let refused = download(&node, info, &destination).await?.with_code(1)?;
    ensure!(
        format!("{refused:?}").contains("takes more than the 4 GiB that a download may take"),
        "{refused:?}"
    );
    let clone = fs::read_to_string(&seen)?;
    ensure!(
        !Path::new(clone.trim()).exists() && !destination.exists(),
        "{clone}"
    );
    Ok(())
}
