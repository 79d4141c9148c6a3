//! What a session's connections did, for its recording and for the log. Of what went over them there is the number of
//! bytes and nothing else.

use std::{fmt::Display, net::SocketAddr};

use serde_json::{Value, json};

use super::socket::Traffic;

/// One connection, from when it is dialled.
#[derive(Debug, Clone)]
pub(super) struct Connected {
    stream: u64,
    /// Where it leads; until that is known, what was dialled.
    address: String,
}

impl Connected {
    pub(super) fn new(stream: u64, to: &impl Display) -> Self {
        Self {
            stream,
            address: to.to_string(),
        }
    }
}

/// What happened since it was last asked for.
#[derive(Debug, Default)]
pub(super) struct ConnectionLog(Vec<Value>);

impl ConnectionLog {
    /// It stands.
    pub(super) fn opened(&mut self, connection: &mut Connected, peer: Option<SocketAddr>) {
        if let Some(peer) = peer {
            connection.address = peer.to_string();
        }
        let Connected { stream, address } = connection;
        self.0
            .push(json!({"event": "opened", "stream": stream, "address": address}));
    }

    /// It is over after this traffic, or never was.
    pub(super) fn closed(&mut self, connection: &Connected, traffic: Traffic, error: Option<&dyn Display>) {
        let Connected { stream, address } = connection;
        let mut event = json!({
            "event": "closed",
            "stream": stream,
            "address": address,
            "sent": traffic.in_bytes,
            "received": traffic.out_bytes,
        });
        if let (Some(error), Some(members)) = (error, event.as_object_mut()) {
            members.insert("error".to_owned(), error.to_string().into());
        }
        self.0.push(event);
    }

    pub(super) fn take(&mut self) -> Vec<Value> {
        std::mem::take(&mut self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_told_with_its_address_and_its_bytes_and_one_that_failed_with_its_reason() {
        let mut log = ConnectionLog::default();
        let mut one = Connected::new(1, &"localhost:80");
        log.opened(&mut one, Some(([127, 0, 0, 1], 80).into()));
        let mut traffic = Traffic::default();
        traffic.add_in(3);
        traffic.add_out(4);
        log.closed(&one, traffic, None);
        log.closed(
            &Connected::new(2, &"localhost:81"),
            Traffic::default(),
            Some(&"refused"),
        );
        assert_eq!(
            log.take(),
            [
                json!({"event": "opened", "stream": 1, "address": "127.0.0.1:80"}),
                json!({"event": "closed", "stream": 1, "address": "127.0.0.1:80", "sent": 3, "received": 4}),
                json!({"event": "closed", "stream": 2, "address": "localhost:81", "sent": 0, "received": 0,
                       "error": "refused"}),
            ]
        );
        assert!(log.take().is_empty());
    }
}
