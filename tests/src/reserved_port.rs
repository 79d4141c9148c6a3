//! A port of the loopback address that the kernel gives to nobody else.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Result;
use tokio::net::{TcpListener, TcpSocket};

/// As long as it is held, no program that asks for any port gets this one, neither for a server nor for a connection.
/// A program that is told its number may listen there, and again after its end; until it does, connections are refused.
#[derive(Debug)]
pub struct ReservedPort {
    socket: TcpSocket,
    address: SocketAddr,
}

impl ReservedPort {
    /// # Errors
    /// No port could be had.
    pub fn new() -> Result<Self> {
        let socket = TcpSocket::new_v4()?;
        // servers set it as well: then two may have the port, of whom one listens
        socket.set_reuseaddr(true)?;
        socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
        let address = socket.local_addr()?;
        Ok(Self { socket, address })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn number(&self) -> u16 {
        self.address.port()
    }

    /// Takes connections from here on.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn listen(self) -> Result<TcpListener> {
        Ok(self.socket.listen(128)?)
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener as StdListener;

    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn a_reserved_port_is_its_servers_again_and_again_and_nobody_elses() {
        let port = ReservedPort::new().unwrap();
        for _ in 0..3 {
            TcpStream::connect(port.address()).await.unwrap_err();
            // as servers do, which set the option
            let server = StdListener::bind(port.address()).unwrap();
            TcpStream::connect(port.address()).await.unwrap();
            drop(server);
        }
        // as who asks for a source of a connection does
        let other = TcpSocket::new_v4().unwrap();
        other.bind(port.address()).unwrap_err();
        let server = port.listen().unwrap();
        TcpStream::connect(server.local_addr().unwrap()).await.unwrap();
    }
}
