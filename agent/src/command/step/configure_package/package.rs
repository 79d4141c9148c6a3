//! A version of a package, from the endpoint's document onto this node's disk.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;

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
    let package = document_source::fetch_package(&context.task.state_dir, reference, version).await;
    let package = package.map_err(anyhow::Error::msg)?;
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
    let path = state.archive();
    // What another attempt has left may be anything.
    drop(fs::remove_file(&path));
    let mut archive = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("failed to make {}", path.display()))?;
    let trust = match package.trust {
        Some(trust) => trust,
        None => Trust::system()?,
    };
    let source = Source {
        url: &url,
        allow_insecure: false,
        max_bytes: file.size.unwrap_or(MAX_FILE_BYTES),
    };
    resumable::download(&source, &trust, Vec::new, &mut archive)
        .await
        .with_context(|| format!("failed to download {file_name}"))?;
    let expected = file.sha256;
    let unpacking = tokio::task::spawn_blocking(move || -> anyhow::Result<()> {
        let found = sha256_of(&mut archive).context("failed to read what was downloaded")?;
        anyhow::ensure!(
            found == expected,
            "the attachment has another SHA-256 than the manifest says; nothing of it is run"
        );
        unpack(&mut archive, &directory)?;
        Ok(())
    });
    unpacking
        .await
        .context("unpacking panicked")?
        .with_context(|| format!("{file_name} of version {} is refused", version.name))?;
    // Only the unpacked files are needed; it goes with the next clean-up otherwise.
    drop(fs::remove_file(&path));
    Ok(version)
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
