//! Downloads out of a real S3 server: one object, folders, signed and unsigned, and a script of AWS-RunRemoteScript.

use std::{fs, os::unix::fs::symlink, path::Path};

use anyhow::{Context, Result, ensure};
use moorline_tests::{Endpoint, Node, S3Server, Site};
use serde_json::{Value, json};

/// A site whose node gets its downloads from `s3`.
async fn site(s3: &S3Server, signs: bool) -> Result<Site> {
    let endpoint = Endpoint::start().await?;
    let mut node = Node::register(&endpoint, &[]).await?;
    let credentials = match signs {
        true => s3.credentials()?.display().to_string(),
        false => String::new(),
    };
    node.configure(&format!(
        "[command.s3]\nendpoint = {:?}\ncredentials_file = {credentials:?}\n",
        s3.url()
    ))?;
    node.start().await?;
    Ok(Site { node, endpoint })
}

async fn put(s3: &S3Server, dir: &Path, key: &str, content: &[u8]) -> Result<()> {
    use std::io::Write as _;
    let file = dir.join("object");
    fs::File::create(&file)?.write_all(content)?;
    s3.put(key, &file).await
}

/// Downloads to a folder of its own, and returns the invocation with what is in it.
async fn download(site: &Site, path: &str, destination: &Path) -> Result<Value> {
    let document = json!({"schemaVersion": "2.2", "parameters": {"path": {"type": "String"}, "to": {"type": "String"}},
        "mainSteps": [{"action": "aws:downloadContent", "name": "get", "inputs": {
            "sourceType": "S3", "sourceInfo": {"path": "{{ path }}"}, "destinationPath": "{{ to }}"}}]});
    let create = json!({"Name": "Get", "DocumentType": "Command", "Content": document.to_string()});
    // it is there from the second time on
    drop(site.api().call("CreateDocument", create).await);
    let input = json!({"DocumentName": "Get", "InstanceIds": [site.node.id()],
        "Parameters": {"path": [path], "to": [destination.display().to_string()]}});
    let sent = site.api().call("SendCommand", input).await?;
    let command_id = sent["Command"]["CommandId"].as_str().context("no command")?;
    site.finished(command_id).await
}

#[tokio::test]
async fn objects_and_folders_come_out_of_s3_whole() -> Result<()> {
    let s3 = S3Server::start("things").await?;
    let site = site(&s3, true).await?;
    let dir = tempfile::tempdir()?;
    let large: Vec<u8> = (0..3_000_000_u32).map(|number| number.to_le_bytes()[1]).collect();
    put(&s3, dir.path(), "folder/run.sh", b"echo ran").await?;
    put(&s3, dir.path(), "folder/deep/a b+c&=ü.txt", b"named").await?;
    put(&s3, dir.path(), "large.bin", &large).await?;
    let one = dir.path().join("one");
    let got = download(&site, "s3://things/large.bin", &one).await?;
    ensure!(got["Status"] == "Success", "{got}");
    ensure!(fs::read(&one)? == large, "another file");
    let as_url = dir.path().join("as-url/");
    let url = format!("{}/things/folder/deep/a%20b%2Bc%26%3D%C3%BC.txt", s3.url());
    let got = download(&site, &url, &as_url).await?;
    ensure!(got["Status"] == "Success", "{got}");
    ensure!(fs::read(as_url.join("a b+c&=ü.txt"))? == b"named", "another file");
    let all = dir.path().join("all");
    let got = download(&site, "https://things.s3.eu-west-1.amazonaws.com/folder", &all).await?;
    ensure!(got["Status"] == "Success", "{got}");
    ensure!(
        fs::read(all.join("run.sh"))? == b"echo ran" && fs::read(all.join("deep/a b+c&=ü.txt"))? == b"named",
        "not all of the folder"
    );
    for (path, expected) in [
        ("s3://things/absent", "404"),
        ("s3://things/absent/", "there is nothing in s3://things/absent/"),
        ("https://example.com/things/a", "invalid S3 path parameter"),
    ] {
        let refused = download(&site, path, &dir.path().join("none")).await?;
        let error = refused["StandardErrorContent"].as_str().unwrap_or_default();
        ensure!(
            refused["Status"] == "Failed" && error.contains(expected),
            "{path}: {refused}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_folder_of_more_objects_than_a_page_has_comes_whole_and_no_key_leaves_its_folder() -> Result<()> {
    let s3 = S3Server::start("things").await?;
    let site = site(&s3, true).await?;
    let dir = tempfile::tempdir()?;
    let many = dir.path().join("many");
    fs::create_dir(&many)?;
    for number in 0..620 {
        fs::File::create(many.join(format!("{number:03}")))?;
    }
    s3.put_folder("many", &many).await?;
    let to = dir.path().join("to");
    let got = download(&site, "s3://things/many/", &to).await?;
    ensure!(got["Status"] == "Success", "{got}");
    ensure!(
        fs::read_dir(&to)?.count() == 620,
        "{} files",
        fs::read_dir(&to)?.count()
    );
    put(&s3, dir.path(), "bad/../../escaped", b"x").await?;
    let refused = download(&site, "s3://things/bad", &dir.path().join("deep/bad")).await?;
    let error = refused["StandardErrorContent"].as_str().unwrap_or_default();
    ensure!(
        refused["Status"] == "Failed" && error.contains("no name of a file in a folder"),
        "{refused}"
    );
    ensure!(!dir.path().join("escaped").exists(), "it left its folder");
    Ok(())
}

#[tokio::test]
async fn a_link_that_lies_in_the_way_leads_no_object_elsewhere() -> Result<()> {
    let s3 = S3Server::start("things").await?;
    let site = site(&s3, true).await?;
    let dir = tempfile::tempdir()?;
    put(&s3, dir.path(), "folder/x/file", b"new").await?;
    let [to, outside, own] = ["to", "outside", "own"].map(|name| dir.path().join(name));
    fs::create_dir(&to)?;
    fs::create_dir(&outside)?;
    symlink(&outside, to.join("x"))?;
    let refused = download(&site, "s3://things/folder", &to).await?;
    let error = refused["StandardErrorContent"].as_str().unwrap_or_default();
    ensure!(
        refused["Status"] == "Failed" && error.contains("links are not followed"),
        "{refused}"
    );
    ensure!(fs::read_dir(&outside)?.next().is_none(), "it went through");
    // Planted by somebody who knows what a file is called on its way.
    let victim = outside.join("victim");
    fs::write(&victim, "old")?;
    for name in ["file.part", "file"] {
        symlink(&victim, to.join(name))?;
    }
    let got = download(&site, "s3://things/folder/x/file", &to).await?;
    ensure!(got["Status"] == "Success", "{got}");
    ensure!(fs::read(to.join("file"))? == b"new" && fs::read(&victim)? == b"old");
    // What the owner of a machine has linked is meant so.
    symlink(&outside, &own)?;
    let got = download(&site, "s3://things/folder/x", &own).await?;
    ensure!(got["Status"] == "Success", "{got}");
    ensure!(fs::read(outside.join("file"))? == b"new");
    Ok(())
}

#[tokio::test]
async fn a_script_out_of_s3_is_run_by_the_published_document() -> Result<()> {
    let s3 = S3Server::start("things").await?;
    let site = site(&s3, false).await?;
    let dir = tempfile::tempdir()?;
    put(&s3, dir.path(), "hello.sh", b"#!/bin/sh\necho hello $1\n").await?;
    // one object that everybody may read, in a bucket that nobody may list
    s3.publish("hello.sh").await?;
    let input = json!({"DocumentName": "AWS-RunRemoteScript", "InstanceIds": [site.node.id()], "Parameters": {
        "sourceType": ["S3"], "sourceInfo": [json!({"path": "s3://things/hello.sh"}).to_string()],
        "commandLine": ["./hello.sh you"]}});
    let sent = site.api().call("SendCommand", input).await?;
    let command_id = sent["Command"]["CommandId"].as_str().context("no command")?;
    let invocation = site.finished(command_id).await?;
    ensure!(
        invocation["Status"] == "Success"
            && invocation["StandardOutputContent"]
                .as_str()
                .unwrap_or_default()
                .contains("hello you\n"),
        "{invocation}"
    );
    Ok(())
}
