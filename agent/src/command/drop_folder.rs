//! Documents without an endpoint, for air-gapped hosts: what the node's owner puts into a folder is run once, as a
//! command, and its result is written beside it.
//!
//! `NAME.json` or `NAME.yaml` is taken by giving it another name (`….taken`), then accepted into the journal under an id
//! that the file itself makes, then removed: whatever is killed in between, the next look goes on from there, and the
//! journal knows what it has. `NAME.parameters.json`, which has to be there first, goes with it.

mod result;

use std::{
    collections::BinaryHeap,
    fs::{self, File, Metadata, OpenOptions, ReadDir},
    io::{self, Read},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use moorline_protocol::{
    document::{CommandDocument, MAX_TEXT_BYTES, read_text},
    message::SendCommandContent,
};
use nix::{fcntl::OFlag, unistd::geteuid};
use ring::digest;
use serde_json::{Map, Value};

use super::journal::LOCAL_MARK;

pub(super) use result::{ended as ended_text, refused as refused_text};

/// Names that one look reads; the next goes on with the others, which results of earlier documents may be.
const MAX_NAMES: usize = 20_000;
/// Longest NAME.
const MAX_NAME_BYTES: usize = 100;
/// Largest file of parameters.
const MAX_PARAMETERS_BYTES: usize = 1024 * 1024;

/// Suffix of a document that was taken, and of one that cannot be run.
const TAKEN: &str = "taken";
const REFUSED: &str = "refused";

/// Write permission of others than its owner.
const OTHERS_WRITE: u32 = 0o022;
const STICKY: u32 = 0o1000;

/// A folder whose documents are run.
#[derive(Debug, Clone)]
pub(super) struct DropFolder {
    path: PathBuf,
}

/// A document that was taken, on its way into the journal.
#[derive(Debug)]
pub(super) struct Taken {
    name: String,
    /// The document, by its present name.
    pub(super) path: PathBuf,
    pub(super) command_id: String,
    /// JSON text of a `SendCommandContent`, or why there is none.
    pub(super) content: Result<String, String>,
}

impl Taken {
    /// What stands for a job id: it names the file, and no endpoint can use it.
    pub(super) fn job_id(&self) -> String {
        format!("{LOCAL_MARK}{}", self.name)
    }
}

impl DropFolder {
    /// `None`: the owner has named no folder.
    pub(super) fn new(setting: &Path) -> Option<Self> {
        (!setting.as_os_str().is_empty()).then(|| Self {
            path: setting.to_owned(),
        })
    }

    /// The first documents by name among those that this look reads, at most so many. `rest` is what the last look has
    /// not read, and is left what this one does not.
    ///
    /// # Errors
    /// The folder cannot be read, or others than the agent's user may write to it: nothing may be taken.
    pub(super) fn look(&self, rest: &mut Option<ReadDir>, count: usize) -> io::Result<Vec<Dropped>> {
        check_folder(&self.path)?;
        let mut listed = match rest.take() {
            Some(rest) => rest,
            None => fs::read_dir(&self.path)?,
        };
        let mut found = BinaryHeap::new();
        let mut names = 0;
        for entry in listed.by_ref().take(MAX_NAMES) {
            let file_name = entry?.file_name();
            names += 1;
            if let Some(dropped) = file_name.to_str().and_then(Dropped::read) {
                found.push(dropped);
                if found.len() > count {
                    found.pop();
                }
            }
        }
        *rest = (names == MAX_NAMES).then_some(listed);
        Ok(found.into_sorted_vec())
    }

    /// Takes one of them, which may have a megabyte of parameters: so it is done with before the next.
    ///
    /// # Errors
    /// It cannot be moved, or is gone.
    pub(super) fn take(&self, dropped: &Dropped) -> io::Result<Taken> {
        let path = self.path.join(format!("{}.{TAKEN}", dropped.file_name));
        if !dropped.is_taken {
            fs::rename(self.path.join(&dropped.file_name), &path)?;
        }
        let read = read_file(&path, MAX_TEXT_BYTES);
        let text = read.as_ref().map_or("", |(text, _)| text);
        let content = match &read {
            Ok(_) => content(&dropped.file_name, text, || self.parameters(&dropped.name)),
            Err(reason) => Err(reason.clone()),
        };
        Ok(Taken {
            name: dropped.name.clone(),
            command_id: command_id(&dropped.file_name, text, &fs::symlink_metadata(&path)?),
            path,
            content,
        })
    }

    /// The map in the first file of parameters that is there.
    fn parameters(&self, name: &str) -> Result<Map<String, Value>, String> {
        for path in self.parameter_files(name) {
            if path.symlink_metadata().is_err() {
                continue;
            }
            let (text, _) = read_file(&path, MAX_PARAMETERS_BYTES)?;
            let read =
                serde_json::from_str(&text).or_else(|_| read_text(&text).map_err(|error| error.to_string()));
            return match read.map_err(|error| format!("{}: {error}", path.display()))? {
                Value::Object(members) => Ok(members),
                _ => Err(format!("{} is no map", path.display())),
            };
        }
        Ok(Map::new())
    }

    fn parameter_files(&self, name: &str) -> [PathBuf; 2] {
        ["json", "yaml"].map(|extension| self.path.join(format!("{name}.parameters.{extension}")))
    }

    /// The document is in the journal, or was before: it leaves the folder.
    ///
    /// # Errors
    /// It cannot be removed; the next look tries again.
    pub(super) fn accepted(&self, taken: &Taken) -> io::Result<()> {
        for path in self.parameter_files(&taken.name) {
            remove(&path)?;
        }
        remove(&taken.path)
    }

    /// The document cannot be run: it stays under another name, and the result says why.
    ///
    /// # Errors
    /// That cannot be written; the next look tries again.
    pub(super) fn refuse(&self, taken: &Taken, reason: &str) -> io::Result<()> {
        self.write_result(&taken.name, &refused_text(reason))?;
        fs::rename(&taken.path, taken.path.with_extension(REFUSED))
    }

    /// Writes `NAME.result.json`, whole or not at all.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn write_result(&self, name: &str, text: &str) -> io::Result<()> {
        let path = self.path.join(format!("{name}.result.json"));
        let temporary = self.path.join(format!(".{name}.result.new"));
        // Whatever else has this name, a pipe that nobody reads might be waited for.
        remove(&temporary)?;
        let mut file = OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(0o600)
            .open(&temporary)?;
        io::Write::write_all(&mut file, text.as_bytes())?;
        // The journal forgets it then.
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
        File::open(&self.path)?.sync_all()
    }
}

/// The name of a file that is a document, or was taken as one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Dropped {
    /// Without the suffix of one that was taken.
    file_name: String,
    name: String,
    is_taken: bool,
}

impl Dropped {
    fn read(present_name: &str) -> Option<Self> {
        let (file_name, is_taken) = match present_name.strip_suffix(&format!(".{TAKEN}")) {
            Some(file_name) => (file_name, true),
            None => (present_name, false),
        };
        let (name, extension) = file_name.rsplit_once('.')?;
        let is_document = matches!(extension, "json" | "yaml" | "yml")
            && !name.ends_with(".parameters")
            && !name.ends_with(".result");
        let is_plain = (1..=MAX_NAME_BYTES).contains(&name.len())
            && !name.starts_with('.')
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'));
        (is_document && is_plain).then(|| Self {
            file_name: file_name.to_owned(),
            name: name.to_owned(),
            is_taken,
        })
    }
}

/// The name in a job id of [`Taken::job_id`].
pub(super) fn name_of(job_id: &str) -> Option<&str> {
    job_id.strip_prefix(LOCAL_MARK)
}

/// What makes a file another one than the last of its name: it was put there anew, or has another text.
fn command_id(file_name: &str, text: &str, metadata: &Metadata) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    let numbers = [
        metadata.ino(),
        metadata.mtime().cast_unsigned(),
        metadata.mtime_nsec().cast_unsigned(),
    ];
    for number in numbers {
        context.update(&number.to_be_bytes());
    }
    context.update(file_name.as_bytes());
    context.update(&[0]);
    context.update(text.as_bytes());
    let hash: String = context
        .finish()
        .as_ref()
        .iter()
        .take(16)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("{LOCAL_MARK}{hash}")
}

/// The job's content, with parameters that fit the document.
fn content(
    file_name: &str,
    text: &str,
    parameters: impl FnOnce() -> Result<Map<String, Value>, String>,
) -> Result<String, String> {
    let document_content = read_text(text).map_err(|error| error.to_string())?;
    let document = CommandDocument::parse(&document_content).map_err(|error| error.to_string())?;
    let given = document.parameters.typed_values(&parameters()?);
    let content = SendCommandContent {
        command_id: String::new(),
        document_name: file_name.to_owned(),
        document_content,
        parameters: given.map_err(|error| error.to_string())?,
        output_s3_bucket_name: String::new(),
        output_s3_key_prefix: String::new(),
        cloud_watch_log_group_name: String::new(),
        cloud_watch_output_enabled: "false".to_owned(),
        moorline_transcript_path: None,
        moorline_document_version: None,
        moorline_operator: None,
        moorline_reason: None,
        moorline_signature: None,
    };
    serde_json::to_string(&content).map_err(|error| error.to_string())
}

/// A file that nobody but the agent's user, or root, can have written.
fn read_file(path: &Path, limit: usize) -> Result<(String, Metadata), String> {
    let failed = |error: &dyn std::fmt::Display| format!("{} cannot be read: {error}", path.display());
    // Neither a link to elsewhere, nor a pipe that nobody writes to.
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits())
        .open(path)
        .map_err(|error| failed(&error))?;
    let metadata = file.metadata().map_err(|error| failed(&error))?;
    if !metadata.is_file() {
        return Err(failed(&"it is no regular file"));
    }
    check_owner(&metadata, OTHERS_WRITE).map_err(|reason| failed(&reason))?;
    let mut bytes = Vec::new();
    file.take(limit as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| failed(&error))?;
    if bytes.len() > limit {
        return Err(failed(&format!("it is larger than {limit} bytes")));
    }
    let text = String::from_utf8(bytes).map_err(|error| failed(&error))?;
    Ok((text, metadata))
}

/// Whoever may write here can have anything run as the agent's user.
fn check_folder(path: &Path) -> io::Result<()> {
    for (depth, folder) in path.ancestors().enumerate() {
        let metadata = match depth {
            0 => fs::symlink_metadata(folder)?,
            _ => fs::metadata(folder)?,
        };
        // Above, a sticky directory lets nobody rename what is ours.
        let is_safe_for_others = depth > 0 && metadata.mode() & STICKY != 0;
        let others = if is_safe_for_others { 0 } else { OTHERS_WRITE };
        let reason = match metadata.is_dir() {
            true => check_owner(&metadata, others).err(),
            false => Some("it is no directory".to_owned()),
        };
        if let Some(reason) = reason {
            let text = format!(
                "nothing in {} is run: of {}: {reason}",
                path.display(),
                folder.display()
            );
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
    }
    Ok(())
}

fn check_owner(metadata: &Metadata, others: u32) -> Result<(), String> {
    let (owner, mode) = (metadata.uid(), metadata.mode());
    if owner != 0 && owner != geteuid().as_raw() {
        return Err(format!(
            "its owner is the user {owner}, and must be the agent's or root"
        ));
    }
    match mode & others {
        0 => Ok(()),
        _ => Err(format!("others may write to it (mode {:o})", mode & 0o7777)),
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

#[cfg(test)]
mod tests;
