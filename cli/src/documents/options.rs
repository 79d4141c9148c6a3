//! What may be typed after `moorline document` and `moorline package`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

#[derive(Debug, Subcommand)]
pub(crate) enum DocumentCommand {
    /// Make a document
    Create {
        /// Three letters, digits, or . _ - at least
        name: String,
        #[command(flatten)]
        content: ContentOptions,
        /// What the document is for [default: what its content looks like]
        #[arg(long = "type", value_name = "TYPE", value_enum, ignore_case = true)]
        kind: Option<Kind>,
    },
    /// Add a version to a document
    Update {
        /// As `moorline document list` shows it
        name: String,
        #[command(flatten)]
        content: ContentOptions,
        /// Use this version from now on where none is named
        #[arg(long)]
        make_default: bool,
    },
    /// List the documents
    List {
        /// With those that come with the endpoint
        #[arg(long)]
        all: bool,
    },
    /// Print a document's content; with --json, all that is known of it
    Show {
        /// As `moorline document list` shows it
        name: String,
        /// A number, or $LATEST [default: the default version]
        #[arg(long, value_name = "VERSION")]
        version: Option<String>,
    },
    /// Delete a document, or one version of it
    Delete {
        /// As `moorline document list` shows it
        name: String,
        /// The number of a version that is not the default one [default: all of them]
        #[arg(long, value_name = "VERSION")]
        version: Option<String>,
    },
    /// Tell what is wrong with a document, without an endpoint
    ///
    /// Reads JSON and YAML as the endpoint and nodes do. Exit code: 0 nothing, 1 each thing that is wrong or had
    /// better be changed is told, 2 the file cannot be read.
    Lint {
        /// JSON or YAML
        file: PathBuf,
        /// What the document is for [default: what its content looks like]
        #[arg(long = "type", value_name = "TYPE", value_enum, ignore_case = true)]
        kind: Option<Kind>,
    },
}

/// A version's content, and what belongs to it.
#[derive(Debug, Args)]
pub(crate) struct ContentOptions {
    /// JSON or YAML; - reads standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) content: PathBuf,
    /// A file that is kept with the version, for its readers; may be repeated
    #[arg(long = "attachment", value_name = "FILE")]
    pub(crate) attachments: Vec<PathBuf>,
    /// A name for the version; of a package its version, without being told
    #[arg(long, value_name = "NAME")]
    pub(crate) version_name: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    Command,
    Package,
    Policy,
    Session,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PackageCommand {
    /// Make a package of a folder and publish it at the endpoint
    ///
    /// The folder has install.sh and uninstall.sh, may have update.sh and validate.sh, and whatever they need. Nodes
    /// install it with the document AWS-ConfigureAWSPackage.
    Publish {
        #[command(flatten)]
        package: PackageOptions,
        /// Of the package, and of the document that it becomes
        #[arg(long)]
        name: String,
        /// Do not use this version yet where none is named
        #[arg(long)]
        keep_default: bool,
    },
    /// Make the archive and the manifest of a package, for another place than the endpoint
    Build {
        #[command(flatten)]
        package: PackageOptions,
        /// A folder for both
        #[arg(long, value_name = "FOLDER")]
        out: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct PackageOptions {
    /// With install.sh, uninstall.sh and what they need
    pub(crate) folder: PathBuf,
    /// Letters, digits, dots, dashes and underscores
    #[arg(long)]
    pub(crate) version: String,
    /// What it is for, such as ubuntu, ubuntu/22.04, redhat/8.*/x86_64; may be repeated [default: everything]
    #[arg(long = "platform", value_name = "PLATFORM[/VERSION[/ARCHITECTURE]]")]
    pub(crate) platforms: Vec<String>,
}
