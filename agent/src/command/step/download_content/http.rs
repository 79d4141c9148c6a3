//! A file of an HTTP server.

use std::{ffi::OsStr, path::PathBuf};

use base64::Engine;
use moorline_protocol::error_chain;
use moorline_transport::Trust;
use serde_json::{Map, Value};

use super::{
    super::{
        resumable::{self, Source},
        room::MOST_BYTES,
    },
    Destination, secret, switch, text,
};

/// What to get, and as whom.
#[derive(Debug)]
pub(super) struct File<'a> {
    url: &'a str,
    /// Name and password.
    user: Option<(&'a str, &'a str)>,
    allow_insecure: bool,
}

impl<'a> File<'a> {
    pub(super) fn read(info: &'a Map<String, Value>) -> Result<Self, String> {
        let url = match text(info, "url")? {
            "" => return Err("URL in SourceInfo must be specified".to_owned()),
            url => url,
        };
        let user = match text(info, "authMethod")? {
            "" | "None" => None,
            "Basic" => Some((secret(info, "username")?, secret(info, "password")?)),
            other => {
                return Err(format!(
                    "authMethod {other} is not known here: it must be None or Basic"
                ));
            }
        };
        Ok(Self {
            url,
            user,
            allow_insecure: switch(info, "allowInsecureDownload"),
        })
    }

    /// What the file is called on the server.
    fn name(&self) -> &str {
        let path = self.url.split(['?', '#']).next().unwrap_or_default();
        let path = path.split_once("://").map_or(path, |(_, rest)| rest);
        match path.rsplit_once('/').map(|(_, name)| name) {
            Some(name) if !matches!(name, "" | "." | "..") => name,
            _ => "download",
        }
    }
}

pub(super) async fn download(file: &File<'_>, destination: &Destination) -> Result<PathBuf, String> {
    let place = destination.file(OsStr::new(file.name()));
    let (folder, name) =
        place.map_err(|error| format!("failed to write {}: {error}", destination.path.display()))?;
    let path = folder.path_of(&name);
    let unwritten = |error: std::io::Error| format!("failed to write {}: {error}", path.display());
    let new = folder.create(&name).map_err(unwritten)?;
    let headers = || {
        let header = file.user.map(|(name, password)| {
            let user = base64::engine::general_purpose::STANDARD.encode(format!("{name}:{password}"));
            ("authorization".to_owned(), format!("Basic {user}"))
        });
        header.into_iter().collect()
    };
    let source = Source {
        url: file.url,
        allow_insecure: file.allow_insecure,
        max_bytes: MOST_BYTES,
        before: 0,
    };
    let trust = Trust::system().map_err(|error| error_chain(&error))?;
    resumable::download(&source, &trust, headers, &new.file)
        .await
        .map_err(|error| error_chain(&error))?;
    new.finish().map_err(unwritten)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_called_as_on_the_server() {
        let table = [
            ("https://h/a/b.sh", "b.sh"),
            ("https://h/a/b.sh?x=/y", "b.sh"),
            ("https://h/a/", "download"),
            ("https://h", "download"),
            ("https://h/a/..", "download"),
        ];
        for (url, expected) in table {
            let file = File {
                url,
                user: None,
                allow_insecure: false,
            };
            assert_eq!(file.name(), expected, "{url}");
        }
    }
}
