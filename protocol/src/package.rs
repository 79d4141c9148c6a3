//! Packages that `aws:configurePackage` installs (documents.md §2.4): the manifest, which is the content of a document
//! of type Package, and the zip files that it names.
//!
//! Both come from whoever may write documents, or from a peer, and are bounded before they are looked at.

mod archive;
mod manifest;
mod platform;

pub use archive::{
    ArchiveError, ArchiveWriter, Directory, Entry, EntryKind, LOCAL_HEADER_BYTES, MAX_ENTRIES,
    MAX_UNPACKED_BYTES, Method, TAIL_BYTES,
};
pub use manifest::{
    MAX_FILE_BYTES, MAX_FILES, Manifest, ManifestError, NoFile, PackageFile, Target, is_attachment_name,
};
pub use platform::{platform_family, platform_name};
