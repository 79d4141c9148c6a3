//! What this node learned about its endpoint, for those who come after: workers get it with their task, a later
//! daemon finds it in a file. It helps where DNS is gone or the clock is wrong, and is proof of nothing.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read, Write},
    net::IpAddr,
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use moorline_transport::{NameLookup, Service};
use serde::{Deserialize, Serialize};

use super::Registration;

/// In the state directory. Written when the control channel stands, if that can be; nothing depends on it.
const FILE: &str = "addresses.json";
const MAX_FILE_BYTES: u64 = 64 * 1024;
const SERVICES: [Service; 4] = [
    Service::Ssm,
    Service::SsmMessages,
    Service::Ec2Messages,
    Service::Kms,
];

/// Addresses by host name, best first.
type Addresses = BTreeMap<String, Vec<IpAddr>>;

/// On its way into a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Learned {
    addresses: Addresses,
    clock_ahead_millis: i64,
    name_lookup_fails: bool,
}

impl Learned {
    pub(crate) fn of(registration: &Registration) -> Self {
        let messages = registration.services.endpoint(Service::SsmMessages);
        Self {
            addresses: addresses(registration),
            clock_ahead_millis: messages.clock_ahead_millis(),
            name_lookup_fails: messages.name_lookup() == NameLookup::Fails,
        }
    }

    /// In a worker, whose daemon has a connection now: its address needs no lookup.
    pub(crate) fn hand_to(&self, registration: &Registration) {
        remember(registration, &self.addresses);
        let messages = registration.services.endpoint(Service::SsmMessages);
        if let Some(first) = messages.known_addresses().first() {
            messages.address_works(*first);
        }
        messages.set_clock_ahead_millis(self.clock_ahead_millis);
        if self.name_lookup_fails {
            messages.set_name_lookup(NameLookup::Fails);
        }
    }
}

fn addresses(registration: &Registration) -> Addresses {
    SERVICES
        .iter()
        .map(|service| registration.services.endpoint(*service))
        .map(|endpoint| (endpoint.host().to_owned(), endpoint.known_addresses()))
        .filter(|(_, addresses)| !addresses.is_empty())
        .collect()
}

fn remember(registration: &Registration, addresses: &Addresses) {
    for service in SERVICES {
        let endpoint = registration.services.endpoint(service);
        if let Some(known) = addresses.get(endpoint.host()) {
            endpoint.remember_addresses(known);
        }
    }
}

/// Reads what an earlier daemon left.
pub(crate) fn recall(registration: &Registration, state_dir: &Path) {
    match read(&state_dir.join(FILE)) {
        Ok(addresses) => remember(registration, &addresses),
        Err(error) => tracing::debug!(%error, "no addresses of an earlier daemon"),
    }
}

/// Leaves what is known for a later daemon. A disk that takes nothing costs nothing.
pub(crate) fn note(registration: &Registration, state_dir: &Path) {
    let (path, known) = (state_dir.join(FILE), addresses(registration));
    if known.is_empty() || read(&path).is_ok_and(|noted| noted == known) {
        return;
    }
    if let Err(error) = write(&path, &known) {
        tracing::debug!(%error, "the endpoint's addresses are not noted");
    }
}

fn read(path: &Path) -> io::Result<Addresses> {
    let mut text = Vec::new();
    fs::File::open(path)?
        .take(MAX_FILE_BYTES)
        .read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

/// Atomically, so that a full disk does not take the old ones away.
fn write(path: &Path, addresses: &Addresses) -> io::Result<()> {
    let temporary = path.with_extension("new");
    fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?
        .write_all(&serde_json::to_vec(addresses)?)?;
    fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_is_recalled_and_nonsense_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        let known = Addresses::from([("h.example".to_owned(), vec!["10.0.0.1".parse().unwrap()])]);
        write(&path, &known).unwrap();
        assert_eq!(read(&path).unwrap(), known);
        for nonsense in ["", "[]", "{\"h\": [\"10.0.0\"]}"] {
            fs::write(&path, nonsense).unwrap();
            assert!(read(&path).is_err(), "{nonsense}");
        }
    }
}
