//! The fingerprint that binds a registration to its machine (agent-wire §2.4).
//!
//! A UUID made from a random salt, kept with the registration, and the machine's id. Memory, disks, addresses and
//! names may change freely; a registration copied to another machine has another fingerprint and is refused. A clone
//! with the same machine id is told apart by its second control channel (docs/deviations.md).

use std::{fs, path::Path};

/// The fingerprint of this machine for a registration with this salt.
pub(crate) fn fingerprint(salt: &str) -> String {
    from_parts(salt, machine_id(Path::new("/")).as_deref())
}

fn machine_id(root: &Path) -> Option<String> {
    ["etc/machine-id", "var/lib/dbus/machine-id"]
        .iter()
        .find_map(|path| fs::read_to_string(root.join(path)).ok())
        .map(|id| id.trim().to_owned())
        .filter(|id| !id.is_empty())
}

fn from_parts(salt: &str, machine_id: Option<&str>) -> String {
    let text = format!("moorline fingerprint\n{salt}\n{}", machine_id.unwrap_or("none"));
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    let mut bytes = [0; 16];
    bytes
        .iter_mut()
        .zip(digest.as_ref())
        .for_each(|(to, from)| *to = *from);
    uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_machine_or_another_registration_has_another_fingerprint() {
        let here = from_parts("salt", Some("machine"));
        assert_eq!(here, from_parts("salt", Some("machine")));
        assert_ne!(here, from_parts("salt", Some("clone")));
        assert_ne!(here, from_parts("other", Some("machine")));
        assert_eq!(here.len(), 36);
    }

    #[test]
    fn an_empty_machine_id_counts_as_none() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("etc")).unwrap();
        fs::File::create(root.path().join("etc/machine-id")).unwrap();
        assert_eq!(machine_id(root.path()), None);
    }
}
