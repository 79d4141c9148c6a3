//! A version of a package, from the endpoint's document onto this node's disk.

use std::fs;

use anyhow::Context as _;
use moorline_protocol::{
    document::read_text,
    package::{MAX_FILE_BYTES, Manifest, Target},
};
use moorline_transport::Trust;
use ring::digest;

use super::{
    super::{
        StepContext, document_source,
        resumable::{self, Source},
    },
    installer::Version,
    state::PackageState,
    unpack::unpack,
};

/// The version, whose files are in its directory: downloaded, compared with the manifest, unpacked.
///
/// # Errors
/// There is no such package or version, nothing in it for this node, or the archive is not what the manifest says.
pub(super) async fn get(
    reference: &str,
    version: Option<&str>,
    target: &Target,
    state: &PackageState,
    context: &StepContext<'_>,
) -> anyhow::Result<Version> {
    let package = document_source::fetch_package(&context.task.state_dir, reference, version);
    let package = unless_stopped(context, package)
        .await?
        .map_err(anyhow::Error::msg)?;
    // The document may be kept in YAML; the manifest is the same.
    let manifest = Manifest::parse(&read_text(&package.content)?.to_string())?;
    let (file_name, file) = manifest.select(target)?;
    let sha256: String = file.sha256.iter().map(|byte| format!("{byte:02x}")).collect();
    let version = Version {
        name: manifest.version.clone(),
        sha256,
    };
    let directory = state.version_directory(&version.sha256);
    if directory.is_dir() {
        return Ok(version);
    }
    let attachment = package
        .attachments
        .into_iter()
        .find(|attachment| attachment.name.as_deref() == Some(file_name))
        .with_context(|| format!("the document has no attachment {file_name}"))?;
    let url = attachment
        .url
        .with_context(|| format!("the endpoint gives no URL of {file_name}"))?;
    let mut archive = state.archive()?;
    let trust = match package.trust {
        Some(trust) => trust,
        None => Trust::system()?,
    };
    let source = Source {
        url: &url,
        allow_insecure: false,
        max_bytes: file.size.unwrap_or(MAX_FILE_BYTES),
        before: 0,
    };
    let downloaded = resumable::download(&source, &trust, Vec::new, &archive);
    unless_stopped(context, downloaded)
        .await?
        .with_context(|| format!("failed to download {file_name}"))?;
    let expected = file.sha256;
    let lock = state.hold()?;
    let stop = context.stop.clone();
    // A thread ends only by itself: it is told of the stop, and awaited, and nobody else works on the package before.
    let unpacking = tokio::task::spawn_blocking(move || -> anyhow::Result<()> {
        let found = sha256_of(&mut archive).context("failed to read what was downloaded")?;
        anyhow::ensure!(
            found == expected,
            "the attachment has another SHA-256 than the manifest says; nothing of it is run"
        );
        unpack(&mut archive, &directory, &|| stop.borrow().is_some())?;
        drop(lock);
        Ok(())
    });
    unpacking
        .await
        .context("unpacking panicked")?
        .with_context(|| format!("{file_name} of version {} is refused", version.name))?;
    Ok(version)
}

/// Work that can be left in the middle.
async fn unless_stopped<T>(context: &StepContext<'_>, work: impl Future<Output = T>) -> anyhow::Result<T> {
    let mut stop = context.stop.clone();
    tokio::select! {
        done = work => Ok(done),
        Ok(_) = stop.wait_for(Option::is_some) => anyhow::bail!("the command was stopped"),
    }
}

fn sha256_of(file: &mut fs::File) -> std::io::Result<[u8; 32]> {
    use std::io::{Read, Seek, SeekFrom};
    file.seek(SeekFrom::Start(0))?;
    let mut hash = digest::Context::new(&digest::SHA256);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = file.read(&mut buffer)?;
        match buffer.get(..count) {
            None | Some([]) => break,
            Some(bytes) => hash.update(bytes),
        }
    }
    let mut sum = [0; 32];
    sum.copy_from_slice(hash.finish().as_ref());
    Ok(sum)
}
