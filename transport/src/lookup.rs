//! Looking a name up without the runtime's threads.
//!
//! A lookup is the C library's, on a thread of its own, which may hang for as long as it likes. The runtime's own
//! lookups take a thread too, and end the process where the machine gives none.

use std::{
    io,
    net::{SocketAddr, ToSocketAddrs},
    sync::{Mutex, PoisonError},
    thread,
};

use tokio::sync::watch;

type Answer = Result<Vec<SocketAddr>, String>;

/// Looks one name up, on one thread at a time: who asks while a lookup runs gets its answer.
#[derive(Debug, Default)]
pub struct Lookup(Mutex<Option<watch::Receiver<Option<Answer>>>>);

impl Lookup {
    /// The addresses of the host, always the same one. Takes as long as the system's resolver does.
    ///
    /// # Errors
    /// There are none, or no thread can be started to ask for them.
    pub async fn addresses(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let mut running = self.running(host, port).map_err(|error| {
            let reason = format!("no thread can be started for the lookup: {error}");
            io::Error::new(error.kind(), reason)
        })?;
        match running.wait_for(Option::is_some).await {
            Ok(answer) => answer.clone().unwrap_or_else(|| Ok(Vec::new())),
            Err(_) => Err("the lookup ended without an answer".to_owned()),
        }
        .map_err(io::Error::other)
    }

    /// The lookup that runs, or a new one.
    fn running(&self, host: &str, port: u16) -> io::Result<watch::Receiver<Option<Answer>>> {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = &*last
            && running.borrow().is_none()
            && running.has_changed().is_ok()
        {
            return Ok(running.clone());
        }
        let (answered, answer) = watch::channel(None);
        let host = host.to_owned();
        thread::Builder::new().name("lookup".to_owned()).spawn(move || {
            let found = (host.as_str(), port).to_socket_addrs();
            answered.send_replace(Some(
                found.map(Iterator::collect).map_err(|error| error.to_string()),
            ));
        })?;
        *last = Some(answer.clone());
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn addresses_are_their_own_names_and_names_have_addresses() {
        let own = Lookup::default().addresses("192.0.2.1", 80).await.unwrap();
        assert_eq!(own, ["192.0.2.1:80".parse().unwrap()]);
        let local = Lookup::default().addresses("localhost", 1).await.unwrap();
        assert!(!local.is_empty() && local.iter().all(|address| address.ip().is_loopback()));
        let nowhere = Lookup::default();
        for _ in 0..2 {
            assert!(nowhere.addresses("no-such-host.invalid", 80).await.is_err());
        }
    }
}
