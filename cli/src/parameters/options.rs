//! What may be typed after `moorline parameter`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum ParameterCommand {
    /// Make a parameter, or with --overwrite a new version of it
    ///
    /// The value comes from standard input, unless --value or --value-file is given. One line end at its end is left out.
    /// At a terminal a SecureString is asked for, one line that is not shown.
    Put(ParameterPutOptions),
    /// Print the value of a parameter
    Get {
        /// NAME, NAME:VERSION or NAME:LABEL
        name: String,
        /// Open a SecureString
        #[arg(long)]
        with_decryption: bool,
    },
    /// List parameters, without values
    List {
        /// Only those below this path, as /app/db
        path: Option<String>,
    },
    /// List the versions of a parameter, without values
    History {
        /// As /app/db/host
        name: String,
    },
    /// Delete parameters with all their versions
    Delete {
        /// As /app/db/host
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
    /// Give labels to a version; a label that another version has moves
    Label {
        /// As /app/db/host
        name: String,
        /// What NAME:LABEL is to find the version by
        #[arg(required = true, value_name = "LABEL")]
        labels: Vec<String>,
        /// The version's number [default: the latest]
        #[arg(long, value_name = "N")]
        version: Option<i64>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct ParameterPutOptions {
    /// As /app/db/host
    pub(crate) name: String,
    /// What it is; a SecureString is stored sealed
    #[arg(long = "type", value_name = "TYPE", default_value = "String", value_parser = ["String", "StringList", "SecureString"])]
    pub(crate) kind: String,
    /// The value, if it is no secret
    #[arg(long, conflicts_with = "value_file", allow_hyphen_values = true)]
    pub(crate) value: Option<String>,
    /// A file with the value
    #[arg(long, value_name = "FILE")]
    pub(crate) value_file: Option<PathBuf>,
    /// Make a new version if there is such a parameter
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// A note on what it is for
    #[arg(long, value_name = "TEXT")]
    pub(crate) description: Option<String>,
    /// The key that seals a SecureString [default: alias/moorline]
    #[arg(long, value_name = "KEY")]
    pub(crate) key_id: Option<String>,
}
