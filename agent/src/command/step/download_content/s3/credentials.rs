//! Whom S3 takes the node for: a file of its owner's, with `AWS_ACCESS_KEY_ID=…` and `AWS_SECRET_ACCESS_KEY=…`.

use std::{fs::File, io::Read as _, os::unix::fs::MetadataExt as _, path::Path};

use moorline_protocol::sigv4::Credentials;
use nix::unistd::geteuid;

const MAX_BYTES: u64 = 64 * 1024;

/// Reads them.
///
/// # Errors
/// The file is not there, others can read it or it is another user's, or it lacks one of the two.
pub(super) fn read(path: &Path) -> Result<Credentials, String> {
    let failed = |reason: &str| {
        format!(
            "the credentials for S3 in {} cannot be used: {reason}",
            path.display()
        )
    };
    let file = File::open(path).map_err(|error| failed(&error.to_string()))?;
    let metadata = file.metadata().map_err(|error| failed(&error.to_string()))?;
    if metadata.mode() & 0o077 != 0 {
        return Err(failed("others can read the file; chmod 600 it"));
    }
    if metadata.uid() != geteuid().as_raw() {
        return Err(failed("the file is not the agent's own user's"));
    }
    let mut text = String::new();
    file.take(MAX_BYTES)
        .read_to_string(&mut text)
        .map_err(|error| failed(&error.to_string()))?;
    let value = |name: &str| {
        let lines = text.lines().filter_map(|line| line.split_once('='));
        lines
            .filter(|(key, _)| key.trim() == name)
            .map(|(_, value)| value.trim().trim_matches('"').to_owned())
            .find(|value| !value.is_empty())
    };
    let needed = |name: &str| value(name).ok_or_else(|| failed(&format!("there is no {name}=… in it")));
    Ok(Credentials {
        access_key_id: needed("AWS_ACCESS_KEY_ID")?,
        secret_access_key: needed("AWS_SECRET_ACCESS_KEY")?,
        session_token: value("AWS_SESSION_TOKEN"),
    })
}

#[cfg(test)]
mod tests {
    use std::{fs::Permissions, io::Write as _, os::unix::fs::PermissionsExt as _};

    use super::*;

    #[test]
    fn credentials_come_from_a_file_that_others_cannot_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s3");
        let put = |text: &str, mode| {
            File::create(&path).unwrap().write_all(text.as_bytes()).unwrap();
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            read(&path)
        };
        let good = "# of the bucket\nAWS_ACCESS_KEY_ID=a\nAWS_SECRET_ACCESS_KEY=\"b=\"\n";
        let credentials = put(good, 0o600).unwrap();
        assert_eq!(
            (
                credentials.access_key_id.as_str(),
                credentials.secret_access_key.as_str()
            ),
            ("a", "b=")
        );
        assert!(put(good, 0o640).unwrap_err().contains("chmod 600"));
        let lacking = put("AWS_ACCESS_KEY_ID=a\n", 0o600).unwrap_err();
        assert!(lacking.contains("AWS_SECRET_ACCESS_KEY"), "{lacking}");
    }
}
