//! Output of commands in the bucket that they name.

use std::{fs, time::Duration};

use anyhow::{Context, Result, ensure};
use moorline_tests::{Aws, Cable, Endpoint, Node, PATIENCE, S3Server, Site, wait_for};
use serde_json::{Value, json};

/// A site whose endpoint brings output to this server.
async fn site(store: &S3Server, settings: &str) -> Result<Site> {
    node_of(endpoint_of(store, store.url()).await?, settings).await
}

/// An endpoint that reaches the server under this URL.
async fn endpoint_of(store: &S3Server, url: &str) -> Result<Endpoint> {
    let credentials = store.credentials()?.to_string_lossy().into_owned();
    Endpoint::start_serving(&[
        "--output-store-credentials",
        &credentials,
        "--output-store-endpoint",
        url,
    ])
    .await
}

async fn node_of(endpoint: Endpoint, settings: &str) -> Result<Site> {
    let mut node = Node::register(&endpoint, &[]).await?;
    if !settings.is_empty() {
        node.configure(settings)?;
    }
    node.start().await?;
    Ok(Site { node, endpoint })
}

/// Sends a document and waits for its end on the node; the command.
async fn run(site: &Site, document: &str, parameters: Value, bucket: &str) -> Result<String> {
    let input = json!({"DocumentName": document, "InstanceIds": [site.node.id()], "Parameters": parameters,
        "OutputS3BucketName": bucket, "OutputS3KeyPrefix": "of/us"});
    let sent = site.api().call("SendCommand", input).await?;
    let id = sent["Command"]["CommandId"]
        .as_str()
        .context("no command")?
        .to_owned();
    site.finished(&id).await?;
    Ok(id)
}

async fn run_script(site: &Site, script: &str, bucket: &str) -> Result<String> {
    run(site, "AWS-RunShellScript", json!({"commands": [script]}), bucket).await
}

/// The invocation as `ListCommandInvocations` has it, with its steps.
async fn listed(site: &Site, id: &str) -> Result<Value> {
    let input = json!({"CommandId": id, "InstanceId": site.node.id(), "Details": true});
    let listed = site.api().call("ListCommandInvocations", input).await?;
    Ok(listed["CommandInvocations"][0].clone())
}

/// Waits until the invocation's trace says this.
async fn traced(site: &Site, id: &str, text: &str) -> Result<String> {
    wait_for(
        &format!("the trace of {id} to say {text:?}"),
        PATIENCE,
        async || {
            let listed = listed(site, id).await?;
            let trace = listed["TraceOutput"].as_str().unwrap_or_default();
            Ok(trace.contains(text).then(|| trace.to_owned()))
        },
    )
    .await
}

/// Waits for the URL of the only step's output.
async fn uploaded(site: &Site, id: &str) -> Result<String> {
    wait_for("the output to be in the bucket", PATIENCE, async || {
        let listed = listed(site, id).await?;
        let url = listed["StandardOutputUrl"].as_str().unwrap_or_default();
        Ok((!url.is_empty()).then(|| url.to_owned()))
    })
    .await
}

#[tokio::test]
async fn moorline_run_names_a_bucket_as_well() -> Result<()> {
    let store = S3Server::start("output").await?;
    let site = site(&store, "").await?;
    let place = ["--output-bucket", "output", "--output-prefix", "by/run"];
    let mut words = vec!["run", "--node", site.node.id(), "--detach"];
    words.extend(place);
    words.extend(["--", "echo brought"]);
    let sent = site.cli().run(&words).await?.success()?;
    let url = uploaded(&site, sent.stdout.trim()).await?;
    let key = url.strip_prefix(&format!("{}/output/", store.url()));
    let key = key.with_context(|| url.clone())?;
    ensure!(key.starts_with("by/run/"), "{url}");
    ensure!(store.read(key).await? == b"brought\n");
    let refused = site
        .cli()
        .run(&["run", "--node", "a", "--output-prefix", "p", "--", "true"])
        .await?;
    ensure!(
        refused.code == 64 && refused.stderr.contains("--output-bucket"),
        "{refused:?}"
    );
    Ok(())
}

#[tokio::test]
async fn output_is_in_the_bucket_under_the_names_of_the_original_byte_for_byte() -> Result<()> {
    let store = S3Server::start("output").await?;
    let site = site(&store, "").await?;
    let id = run_script(&site, "cat /bin/ls; printf 'no\\377\\n' >&2", "output").await?;
    let url = uploaded(&site, &id).await?;
    let key = |stream: &str| {
        let node = site.node.id();
        format!("of/us/{id}/{node}/awsrunShellScript/0.awsrunShellScript/{stream}")
    };
    ensure!(
        url == format!("{}/output/{}", store.url(), key("stdout")),
        "{url}"
    );
    ensure!(
        store.read(&key("stdout")).await? == fs::read("/bin/ls")?,
        "another file"
    );
    ensure!(store.read(&key("stderr")).await? == b"no\xff\n");
    let aws = Aws::of(&site.endpoint)?;
    let arguments = [
        "get-command-invocation",
        "--command-id",
        &id,
        "--instance-id",
        site.node.id(),
    ];
    let got = aws.ssm(&arguments).await?.success()?.json()?;
    ensure!(got["StandardOutputUrl"] == url.as_str(), "{got}");
    ensure!(
        got["StandardErrorUrl"] == format!("{}/output/{}", store.url(), key("stderr")),
        "{got}"
    );
    let step = listed(&site, &id).await?["CommandPlugins"][0].clone();
    ensure!(step["StandardOutputUrl"] == url.as_str(), "{step}");
    ensure!(step["OutputS3BucketName"] == "output", "{step}");
    let prefix = format!("of/us/{id}/{}/awsrunShellScript", site.node.id());
    ensure!(step["OutputS3KeyPrefix"] == prefix.as_str(), "{step}");

    // of two steps, one of which says nothing and both of which hide a secret
    let content = json!({"schemaVersion": "2.2",
    "parameters": {"word": {"type": "String", "noEcho": true, "interpolationType": "ENV_VAR"}},
    "mainSteps": [
        {"action": "aws:runShellScript", "name": "first",
            "inputs": {"runCommand": ["echo one {{ word }}", "echo \"two {{ word }}\" >&2"]}},
        {"action": "aws:runShellScript", "name": "second", "inputs": {"runCommand": ["true"]}},
        {"action": "aws:runDocument", "name": "third", "inputs": {"documentType": "SSMDocument",
            "documentPath": "AWS-RunShellScript", "documentParameters": {"commands": ["echo within"]}}},
    ]});
    let create = json!({"Name": "Steps", "DocumentType": "Command", "Content": content.to_string()});
    site.api().call("CreateDocument", create).await?;
    let id = run(&site, "Steps", json!({"word": ["open-sesame"]}), "output").await?;
    let key = |name: &str| format!("of/us/{id}/{}/{name}", site.node.id());
    let expected = [
        key("awsrunDocument/third/stdout"),
        key("awsrunShellScript/first/stderr"),
        key("awsrunShellScript/first/stdout"),
    ];
    let objects = wait_for("the objects", PATIENCE, async || {
        let objects = store.objects().await?.into_iter();
        let objects: Vec<String> = objects.filter(|object| object.contains(&id)).collect();
        Ok((objects.len() == expected.len()).then_some(objects))
    })
    .await?;
    ensure!(objects == expected, "{objects:?}");
    ensure!(store.read(&expected[0]).await? == b"within\n");
    ensure!(store.read(&expected[1]).await? == b"two ***\n");
    ensure!(store.read(&expected[2]).await? == b"one ***\n");
    let listed = listed(&site, &id).await?;
    ensure!(
        listed["StandardOutputUrl"] == "",
        "as in SSM, of one step only: {listed}"
    );
    let empty = &listed["CommandPlugins"][1];
    ensure!(
        empty["Name"] == "second" && empty["StandardOutputUrl"] == "",
        "{empty}"
    );
    Ok(())
}

#[tokio::test]
async fn a_large_output_reaches_its_bucket_in_one_upload_and_little_memory_though_the_endpoint_is_killed()
-> Result<()> {
    const KILLS: usize = 3;
    const PART_OF_A_PART: u64 = 1_000_000;
    let store = S3Server::start("output").await?;
    // so slow that no upload ends before its endpoint is killed
    let slow = Cable::to(store.address()?).await?;
    slow.delay(Duration::from_millis(10));
    let mut site = node_of(
        endpoint_of(&store, &format!("http://{}", slow.address())).await?,
        "",
    )
    .await?;
    let large = site.node.dir().join("large");
    let script = format!(
        "head -c 60000000 /dev/urandom | base64 > {0}; cat {0}",
        large.display()
    );
    let id = run_script(&site, &script, "output").await?;
    let mut seen = Vec::new();
    for _ in 0..KILLS {
        // of an upload that the endpoint does not know yet nothing is on its way
        let before = slow.bytes();
        wait_for("a part to be on its way", PATIENCE, async || {
            Ok((slow.bytes() > before + PART_OF_A_PART).then_some(()))
        })
        .await?;
        seen.extend(store.uploads().await?);
        site.endpoint.kill().await?;
        if seen.len() == KILLS {
            slow.delay(Duration::ZERO);
        }
        site.endpoint.start_again().await?;
    }
    uploaded(&site, &id).await?;
    ensure!(
        seen.len() == KILLS && seen.iter().all(|upload| *upload == seen[0]),
        "{seen:?}"
    );
    ensure!(store.uploads().await?.is_empty(), "parts are left");
    let objects = store.objects().await?;
    ensure!(objects.len() == 1, "{objects:?}");
    ensure!(
        store.read(&objects[0]).await? == fs::read(&large)?,
        "another file"
    );
    let pid = site.endpoint.pid().context("it runs")?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let most = most.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    let length = fs::metadata(&large)?.len();
    ensure!(
        most.is_some_and(|most| most * 1024 < length),
        "the endpoint took {most:?} KiB for an output of {length} bytes"
    );
    Ok(())
}

#[tokio::test]
async fn a_bucket_that_is_not_there_is_tried_again_and_told_of() -> Result<()> {
    let store = S3Server::start("output").await?;
    let site = site(&store, "").await?;
    let id = run_script(&site, "echo late", "missing").await?;
    // it is tried again every few seconds, and this may look late
    let trace = traced(&site, &id, "tried ").await?;
    ensure!(
        trace.starts_with("The output is not in bucket missing yet: the bucket is not there: "),
        "{trace}"
    );
    let explained = site
        .cli()
        .run(&["explain", &id, site.node.id()])
        .await?
        .success()?;
    ensure!(
        explained
            .stdout
            .contains("The output is not in bucket missing yet"),
        "{explained:?}"
    );
    store.create_bucket("missing").await?;
    let url = uploaded(&site, &id).await?;
    ensure!(
        url.starts_with(&format!("{}/missing/of/us/{id}/", store.url())),
        "{url}"
    );
    ensure!(listed(&site, &id).await?["TraceOutput"] == "");
    // a name that is none goes nowhere
    for (bucket, region, prefix) in [
        ("../x", "us-east-1", ""),
        ("output", "evil.example/", ""),
        ("output", "us-east-1", "a/../b"),
    ] {
        let input = json!({"DocumentName": "AWS-RunShellScript", "InstanceIds": [site.node.id()],
            "Parameters": {"commands": ["true"]}, "OutputS3BucketName": bucket, "OutputS3Region": region,
            "OutputS3KeyPrefix": prefix});
        let refusal = site.api().refusal("SendCommand", input).await?;
        ensure!(refusal.code == "InvalidOutputFolder", "{refusal:?}");
    }
    Ok(())
}

#[tokio::test]
async fn why_output_is_in_no_bucket_is_told() -> Result<()> {
    // the endpoint has none
    let endpoint = Endpoint::start().await?;
    let without = node_of(endpoint, "").await?;
    let id = run_script(&without, "echo here", "output").await?;
    let listed = listed(&without, &id).await?;
    ensure!(
        listed["StandardOutputUrl"] == "" && listed["Status"] == "Success",
        "{listed}"
    );
    let trace = listed["TraceOutput"].as_str().unwrap_or_default();
    ensure!(trace.contains("the endpoint had no store for output"), "{trace}");
    // the node does not record, or for others than the endpoint
    let store = S3Server::start("output").await?;
    let endpoint = endpoint_of(&store, store.url()).await?;
    let mut node = Node::register(&endpoint, &[]).await?;
    // before its daemon makes a folder of it, and writes there
    fs::write(node.state_dir().join("spool"), "no folder")?;
    node.start().await?;
    let unrecorded = Site { node, endpoint };
    let id = run_script(&unrecorded, "echo here", "output").await?;
    traced(&unrecorded, &id, "there is none: the node does not record").await?;
    let recipient = "age1lvyvwawkr0mcnnnncaghunadrqkmuf9e6507x9y920xxpp866cnql7dp2z";
    let encrypted = site(&store, &format!("[transcript]\nrecipients = [\"{recipient}\"]\n")).await?;
    let id = run_script(&encrypted, "echo here", "output").await?;
    let trace = traced(&encrypted, &id, "was not brought to bucket output").await?;
    ensure!(trace.contains("its recipients alone can read it"), "{trace}");
    ensure!(store.objects().await?.is_empty());
    Ok(())
}
