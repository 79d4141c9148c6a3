//! At most one worker for each session, on the whole machine and across daemons.
//!
//! An endpoint tells of a session again until its node is attached, and a daemon that was killed meanwhile has
//! forgotten which workers it started. So a worker takes a name that is the kernel's: an abstract unix address, bound
//! and never listened on or read. It needs no disk, and it is free again the moment the worker is gone.

use std::{
    fmt::Write,
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram},
    },
};

use moorline_protocol::types::{InstanceId, SessionId};
use ring::digest::{SHA256, digest};

/// Held for as long as the session is served here.
#[derive(Debug)]
pub(super) struct SessionLock {
    _bound: UnixDatagram,
}

impl SessionLock {
    /// `None`: another worker serves this session of this node.
    ///
    /// # Errors
    /// The operating system gives no such address.
    pub(super) fn acquire(node: &InstanceId, session: &SessionId) -> io::Result<Option<Self>> {
        match UnixDatagram::bind_addr(&address(node, session)?) {
            Ok(bound) => Ok(Some(Self { _bound: bound })),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Everybody on the machine can list these names, and they have room for 107 bytes: so a digest.
fn address(node: &InstanceId, session: &SessionId) -> io::Result<SocketAddr> {
    let mut name = String::from("moorline-session-");
    for byte in digest(&SHA256, format!("{node}/{session}").as_bytes()).as_ref() {
        // a text takes everything
        let _written = write!(name, "{byte:02x}");
    }
    SocketAddr::from_abstract_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_of_a_node_is_served_once_at_a_time() {
        let node = |id: &str| id.parse::<InstanceId>().unwrap();
        let session: SessionId = format!("me-{}", std::process::id()).parse().unwrap();
        let one = node("mi-0123456789abcdef0");
        let lock = SessionLock::acquire(&one, &session).unwrap().unwrap();
        assert!(SessionLock::acquire(&one, &session).unwrap().is_none());
        let other = node("mi-0123456789abcdef1");
        assert!(SessionLock::acquire(&other, &session).unwrap().is_some());
        drop(lock);
        assert!(SessionLock::acquire(&one, &session).unwrap().is_some());
    }

    #[test]
    fn the_longest_ids_fit() {
        let node: InstanceId = "mi-0123456789abcdef0".parse().unwrap();
        let session: SessionId = "s".repeat(96).parse().unwrap();
        assert!(address(&node, &session).is_ok());
    }
}
