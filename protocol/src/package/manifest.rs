//! The manifest: for which systems a package is, and which file is for which.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::{document::MAX_CONTENT_BYTES, hex};

/// Files of one package, as many as a document has attachments.
pub const MAX_FILES: usize = 20;
/// Largest file, in bytes.
pub const MAX_FILE_BYTES: u64 = 1024 * 1024 * 1024;

/// Stands for every platform, version or architecture.
const ANY: &str = "_any";

/// Why a text is no manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    #[error("the manifest has {0} bytes; {MAX_CONTENT_BYTES} are read")]
    TooLarge(usize),
    #[error("the manifest is not what one is: {0}")]
    Malformed(String),
    #[error("the manifest has schemaVersion {0:?}; 2.0 is known")]
    SchemaVersion(String),
    #[error(
        "the manifest has the version {0:?}; one has 1 to 128 letters, digits, dots, dashes and underscores"
    )]
    Version(String),
    #[error(
        "the manifest names {0:?}, which cannot be the name of an attachment: 3 to 128 letters, digits, . _ and -"
    )]
    FileName(String),
    #[error("the manifest names the file {0} for a platform, and says nothing of it under files")]
    UnknownFile(String),
    #[error("the manifest has {0} files; 1 to {MAX_FILES} are possible")]
    FileCount(usize),
    #[error("the manifest gives no SHA-256 of {0}: 64 hexadecimal digits under checksums")]
    NoChecksum(String),
    #[error("the manifest says that {0} has {1} bytes; {MAX_FILE_BYTES} are possible")]
    FileSize(String, u64),
}

/// The package has nothing for this node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the package has no file for platform {}, version {}, architecture {}",
    .0.platform, .0.version, .0.architecture
)]
pub struct NoFile(pub Target);

/// The node that a file is wanted for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// As [`super::platform_name`] has it.
    pub platform: String,
    /// Of the platform, such as `22.04`.
    pub version: String,
    /// As the kernel says it, such as `x86_64` or `aarch64`.
    pub architecture: String,
}

/// A file of a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackageFile {
    pub sha256: [u8; 32],
    /// In bytes, where the manifest says it.
    pub size: Option<u64>,
}

/// A manifest that was checked: every file that it names is described.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Of the package.
    pub version: String,
    /// By platform, its version, and architecture: the name of a file.
    packages: BTreeMap<String, BTreeMap<String, BTreeMap<String, String>>>,
    files: BTreeMap<String, PackageFile>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawManifest {
    schema_version: String,
    version: String,
    packages: BTreeMap<String, BTreeMap<String, BTreeMap<String, RawChoice>>>,
    files: BTreeMap<String, RawFile>,
}

#[derive(Deserialize)]
struct RawChoice {
    file: String,
}

#[derive(Deserialize)]
struct RawFile {
    #[serde(default)]
    checksums: BTreeMap<String, String>,
    #[serde(default)]
    size: Option<u64>,
}

impl Manifest {
    /// Reads the JSON of a manifest.
    ///
    /// # Errors
    /// It is larger than a document, of another shape, or contradicts itself.
    pub fn parse(text: &str) -> Result<Self, ManifestError> {
        if text.len() > MAX_CONTENT_BYTES {
            return Err(ManifestError::TooLarge(text.len()));
        }
        let raw: RawManifest =
            serde_json::from_str(text).map_err(|error| ManifestError::Malformed(error.to_string()))?;
        if raw.schema_version != "2.0" {
            return Err(ManifestError::SchemaVersion(raw.schema_version));
        }
        if !is_version(&raw.version) {
            return Err(ManifestError::Version(raw.version));
        }
        if !(1..=MAX_FILES).contains(&raw.files.len()) {
            return Err(ManifestError::FileCount(raw.files.len()));
        }
        let mut files = BTreeMap::new();
        for (name, file) in raw.files {
            files.insert(name.clone(), described(name, &file)?);
        }
        let mut packages: BTreeMap<String, BTreeMap<String, BTreeMap<String, String>>> = BTreeMap::new();
        for (platform, versions) in raw.packages {
            for (version, architectures) in versions {
                for (architecture, RawChoice { file }) in architectures {
                    if !files.contains_key(&file) {
                        return Err(ManifestError::UnknownFile(file));
                    }
                    let versions = packages.entry(platform.clone()).or_default();
                    let architectures = versions.entry(version.clone()).or_default();
                    architectures.insert(architecture, file);
                }
            }
        }
        Ok(Self {
            version: raw.version,
            packages,
            files,
        })
    }

    /// All files, by name.
    pub fn files(&self) -> impl Iterator<Item = (&str, &PackageFile)> {
        self.files.iter().map(|(name, file)| (name.as_str(), file))
    }

    /// The platforms that the package is for, as it names them.
    pub fn platforms(&self) -> impl Iterator<Item = &str> {
        self.packages.keys().map(String::as_str)
    }

    /// The file for a node, with its name. What is meant for this very platform goes before what is meant for any, and
    /// so it goes with the version and the architecture.
    ///
    /// # Errors
    /// There is none.
    pub fn select(&self, target: &Target) -> Result<(&str, &PackageFile), NoFile> {
        let platforms = [target.platform.as_str(), ANY];
        let versions = platforms
            .iter()
            .filter_map(|platform| self.packages.get(*platform));
        let file = versions
            .flat_map(|versions| by_version(versions, &target.version))
            .find_map(|architectures| by_architecture(architectures, &target.architecture));
        let described = file.and_then(|file| self.files.get_key_value(file));
        let (name, file) = described.ok_or_else(|| NoFile(target.clone()))?;
        Ok((name, file))
    }
}

/// The entries that fit a version: itself, the longest pattern such as `7.*`, then the two spellings of any.
fn by_version<'a, T>(versions: &'a BTreeMap<String, T>, wanted: &str) -> Vec<&'a T> {
    let mut patterns: Vec<(&str, &T)> = versions
        .iter()
        .filter_map(|(pattern, entry)| Some((pattern.strip_suffix(".*")?, entry)))
        .filter(|(start, _)| {
            let rest = wanted.strip_prefix(start);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        })
        .collect();
    patterns.sort_by_key(|(start, _)| std::cmp::Reverse(start.len()));
    let exact = versions.get(wanted).into_iter();
    let any = [ANY, "*"].into_iter().filter_map(|any| versions.get(any));
    exact
        .chain(patterns.into_iter().map(|(_, entry)| entry))
        .chain(any)
        .collect()
}

/// Architectures have two names each: that of the kernel, and that of Debian and Go.
fn by_architecture<'a>(architectures: &'a BTreeMap<String, String>, wanted: &str) -> Option<&'a String> {
    let other = match wanted {
        "x86_64" => "amd64",
        "amd64" => "x86_64",
        "aarch64" => "arm64",
        "arm64" => "aarch64",
        "i386" | "i486" | "i586" | "i686" => "386",
        other => other,
    };
    let names = [wanted, other, ANY];
    names.iter().find_map(|name| architectures.get(*name))
}

fn described(name: String, file: &RawFile) -> Result<PackageFile, ManifestError> {
    if !is_attachment_name(&name) {
        return Err(ManifestError::FileName(name));
    }
    let sha256 = file
        .checksums
        .iter()
        .find(|(kind, _)| kind.eq_ignore_ascii_case("sha256"))
        .and_then(|(_, digits)| hex::parse(digits.to_ascii_lowercase().as_bytes()));
    let Some(sha256) = sha256 else {
        return Err(ManifestError::NoChecksum(name));
    };
    match file.size {
        Some(size) if size > MAX_FILE_BYTES => Err(ManifestError::FileSize(name, size)),
        size => Ok(PackageFile { sha256, size }),
    }
}

/// Whether an attachment can be called so (API_AttachmentsSource): it is safe as the name of a file, too.
pub fn is_attachment_name(name: &str) -> bool {
    (3..=128).contains(&name.len())
        && name.bytes().all(is_name_byte)
        && !name.bytes().all(|byte| byte == b'.')
}

/// What the name of a document's version can be.
fn is_version(version: &str) -> bool {
    (1..=128).contains(&version.len()) && version.bytes().all(is_name_byte)
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const SUM: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn manifest(packages: &Value) -> Value {
        let file = json!({"checksums": {"sha256": SUM}, "size": 3});
        json!({
            "schemaVersion": "2.0", "version": "1.0.0", "publisher": "us", "packages": packages,
            "files": {"one.zip": file, "two.zip": file, "six.zip": file},
        })
    }

    fn target(platform: &str, version: &str, architecture: &str) -> Target {
        Target {
            platform: platform.to_owned(),
            version: version.to_owned(),
            architecture: architecture.to_owned(),
        }
    }

    #[test]
    fn the_closest_description_of_a_node_wins() {
        let of = |file: &str| json!({ "file": file });
        let parsed = Manifest::parse(
            &manifest(&json!({
                "redhat": {
                    "7.*": {"x86_64": of("one.zip")},
                    "7.4.*": {"x86_64": of("two.zip")},
                    "7.4.1": {"x86_64": of("six.zip")},
                },
                "ubuntu": {"22.04": {"arm64": of("one.zip")}, "_any": {"_any": of("two.zip")}},
                "debian": {"*": {"386": of("six.zip")}},
                "_any": {"_any": {"aarch64": of("one.zip")}},
            }))
            .to_string(),
        )
        .unwrap();
        let table = [
            (("redhat", "7.4.1", "x86_64"), Some("six.zip")),
            (("redhat", "7.4.2", "amd64"), Some("two.zip")),
            (("redhat", "7.4", "x86_64"), Some("two.zip")),
            (("redhat", "7", "x86_64"), Some("one.zip")),
            (("redhat", "7.40", "x86_64"), Some("one.zip")),
            (("redhat", "70", "x86_64"), None),
            (("redhat", "8", "aarch64"), Some("one.zip")),
            (("ubuntu", "22.04", "aarch64"), Some("one.zip")),
            (("ubuntu", "22.04", "x86_64"), Some("two.zip")),
            (("debian", "12", "i686"), Some("six.zip")),
            (("debian", "12", "x86_64"), None),
            (("arch", "", "arm64"), Some("one.zip")),
        ];
        for ((platform, version, architecture), expected) in table {
            let target = target(platform, version, architecture);
            let selected = parsed.select(&target).ok().map(|(name, _)| name);
            assert_eq!(selected, expected, "{target:?}");
        }
        let (_, file) = parsed.select(&target("arch", "", "arm64")).unwrap();
        assert_eq!((file.sha256[0], file.size), (0xba, Some(3)));
    }

    #[test]
    fn what_contradicts_itself_is_refused_with_the_reason() {
        let good = manifest(&json!({"_any": {"_any": {"_any": {"file": "one.zip"}}}}));
        Manifest::parse(&good.to_string()).unwrap();
        let with = |pointer: &str, value: Value| {
            let mut changed = good.clone();
            *changed.pointer_mut(pointer).unwrap() = value;
            Manifest::parse(&changed.to_string()).unwrap_err()
        };
        assert_eq!(
            with("/schemaVersion", json!("1.0")),
            ManifestError::SchemaVersion("1.0".to_owned())
        );
        assert_eq!(
            with("/version", json!("1 0")),
            ManifestError::Version("1 0".to_owned())
        );
        assert_eq!(
            with("/packages/_any/_any/_any/file", json!("other.zip")),
            ManifestError::UnknownFile("other.zip".to_owned())
        );
        assert_eq!(
            with("/files/one.zip/checksums/sha256", json!("ba78")),
            ManifestError::NoChecksum("one.zip".to_owned())
        );
        assert_eq!(
            with("/files/one.zip/size", json!(MAX_FILE_BYTES + 1)),
            ManifestError::FileSize("one.zip".to_owned(), MAX_FILE_BYTES + 1)
        );
        assert_eq!(with("/files", json!({})), ManifestError::FileCount(0));
        let name = "../x.zip".to_owned();
        assert_eq!(
            with("/files", json!({&name: {"checksums": {"sha256": SUM}}})),
            ManifestError::FileName(name)
        );
        assert!(matches!(
            with("/packages", json!([])),
            ManifestError::Malformed(_)
        ));
        assert_eq!(
            Manifest::parse(&" ".repeat(MAX_CONTENT_BYTES + 1)),
            Err(ManifestError::TooLarge(MAX_CONTENT_BYTES + 1))
        );
    }

    #[test]
    fn no_name_of_an_attachment_leads_out_of_a_directory() {
        for name in ["...", "..", "a/b", "a b c", "ab", "", "x\0yz"] {
            assert!(!is_attachment_name(name), "{name:?}");
        }
        assert!(is_attachment_name("a-b_c.zip"));
    }
}
