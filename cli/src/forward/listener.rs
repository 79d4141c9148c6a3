//! Where local programs connect: ports of the loopback addresses, one address, or a Unix socket.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::{
        fs::{FileTypeExt, MetadataExt},
        net::UnixStream as BlockingUnixStream,
    },
    path::{Path, PathBuf},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use nix::sys::stat::{Mode, umask};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    time::sleep,
};

use super::spec::Local;

/// After an `accept` that failed, as for lack of descriptors: it would fail again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// How often a free port is sought that is free on both loopback addresses.
const TRIES: usize = 8;

/// Takes connections of local programs.
#[derive(Debug)]
pub(crate) struct Listener {
    sockets: Vec<Socket>,
    /// Whether the last `accept` failed.
    is_pausing: bool,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

/// The name of a Unix socket, which goes with it.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    /// Device and inode: what someone else put in its place meanwhile stays.
    identity: (u64, u64),
}

impl Listener {
    /// # Errors
    /// The address or path cannot be used.
    pub(crate) async fn bind(local: &Local) -> io::Result<Self> {
        let sockets = match local {
            Local::Loopback(port) => loopback(*port).await?,
            Local::Address(address, port) => vec![Socket::Tcp(TcpListener::bind((*address, *port)).await?)],
            Local::Unix(path) => vec![unix(path)?],
        };
        Ok(Self {
            sockets,
            is_pausing: false,
        })
    }

    /// The port, if it is one.
    pub(crate) fn port(&self) -> Option<u16> {
        self.tcp_address().map(|address| address.port())
    }

    /// What a program connects to: `ADDRESS:PORT`, or a path.
    pub(crate) fn address(&self) -> String {
        match self.sockets.first() {
            Some(Socket::Unix(_, file)) => file.path.display().to_string(),
            _ => self
                .tcp_address()
                .map_or_else(String::new, |address| address.to_string()),
        }
    }

    fn tcp_address(&self) -> Option<SocketAddr> {
        match self.sockets.first()? {
            Socket::Tcp(listener) => listener.local_addr().ok(),
            Socket::Unix(..) => None,
        }
    }

    /// The next connection. May be dropped at any await.
    ///
    /// # Errors
    /// None can be taken now. The next call waits a little.
    pub(crate) async fn accept(&mut self) -> io::Result<LocalStream> {
        if self.is_pausing {
            sleep(ACCEPT_PAUSE).await;
            self.is_pausing = false;
        }
        let accepted = std::future::poll_fn(|cx| self.poll_accept(cx)).await;
        self.is_pausing = accepted.is_err();
        accepted
    }

    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<LocalStream>> {
        for socket in &self.sockets {
            let accepted = match socket {
                Socket::Tcp(listener) => listener
                    .poll_accept(cx)
                    .map_ok(|(stream, _)| LocalStream::Tcp(stream)),
                Socket::Unix(listener, _) => listener
                    .poll_accept(cx)
                    .map_ok(|(stream, _)| LocalStream::Unix(stream)),
            };
            if let Poll::Ready(Ok(LocalStream::Tcp(stream))) = &accepted {
                // a keystroke must not wait for the one before it to be acknowledged
                let _slower = stream.set_nodelay(true);
            }
            if accepted.is_ready() {
                return accepted;
            }
        }
        Poll::Pending
    }
}

/// The same port on both loopback addresses, as far as this machine has them.
async fn loopback(port: u16) -> io::Result<Vec<Socket>> {
    let bind = async |address: IpAddr, port| TcpListener::bind((address, port)).await;
    let (v4, v6) = (
        IpAddr::from(Ipv4Addr::LOCALHOST),
        IpAddr::from(Ipv6Addr::LOCALHOST),
    );
    let mut tries = if port == 0 { TRIES } else { 1 };
    loop {
        tries -= 1;
        let first = match bind(v4, port).await {
            Ok(first) => first,
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
                return Ok(vec![Socket::Tcp(bind(v6, port).await?)]);
            }
            Err(error) => return Err(error),
        };
        let second = bind(v6, first.local_addr()?.port()).await;
        match second {
            Ok(second) => return Ok(vec![Socket::Tcp(first), Socket::Tcp(second)]),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries > 0 => {}
            // a machine without IPv6, or another program has the port there
            Err(_) => return Ok(vec![Socket::Tcp(first)]),
        }
    }
}

/// A socket that only its owner can use. One that is left over, on which nobody listens, is replaced.
fn unix(path: &Path) -> io::Result<Socket> {
    let is_left_over = |path: &Path| {
        fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket())
            && BlockingUnixStream::connect(path)
                .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    };
    let bind = || {
        let before = umask(Mode::from_bits_truncate(0o177));
        let bound = UnixListener::bind(path);
        umask(before);
        bound
    };
    let listener = match bind() {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_left_over(path) => {
            fs::remove_file(path)?;
            bind()?
        }
        bound => bound?,
    };
    let metadata = fs::symlink_metadata(path)?;
    let file = SocketFile {
        path: path.to_owned(),
        identity: (metadata.dev(), metadata.ino()),
    };
    Ok(Socket::Unix(listener, file))
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path)
            .is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.identity)
        {
            // one that stays is replaced by the next
            let _stays = fs::remove_file(&self.path);
        }
    }
}

/// A connection of a local program.
#[derive(Debug)]
pub(crate) enum LocalStream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl LocalStream {
    /// Closes it so that the program sees an error and takes nothing for the whole that was cut short.
    pub(super) fn abort(self) {
        if let Self::Tcp(stream) = self {
            let _closed_anyway = stream.set_zero_linger();
        }
    }
}

impl AsyncRead for LocalStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for LocalStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, data),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, data),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn any_free_port_is_the_same_on_both_loopback_addresses() {
        let mut listener = Listener::bind(&Local::Loopback(0)).await.unwrap();
        let port = listener.port().unwrap();
        assert_eq!(listener.address(), format!("127.0.0.1:{port}"));
        for address in ["127.0.0.1", "::1"] {
            let Ok(mut client) = TcpStream::connect((address, port)).await else {
                assert_eq!(address, "::1", "only IPv6 may be missing");
                continue;
            };
            let mut accepted = listener.accept().await.unwrap();
            client.write_all(b"x").await.unwrap();
            assert_eq!(accepted.read_u8().await.unwrap(), b'x');
        }
        let taken = Listener::bind(&Local::Loopback(port)).await.unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
    }

    #[tokio::test]
    async fn a_unix_socket_is_its_owners_and_goes_with_the_listener() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let local = Local::Unix(path.clone());
        let listener = Listener::bind(&local).await.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        // one that is in use is not taken over
        assert!(Listener::bind(&local).await.is_err());
        drop(listener);
        assert!(!path.exists());
        // what a killed program left over is replaced
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let listener = Listener::bind(&local).await.unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "another's").unwrap();
        assert!(Listener::bind(&local).await.is_err());
        drop(listener);
        assert!(path.exists());
    }
}
