//! Socket options of the mesh: how soon a connection ends when the other machine is gone, and a
//! check whether a connection is still up.
//!
//! Without these options, a connection on which nothing is sent never ends when the network is cut,
//! and the job would stand still. `TCP_USER_TIMEOUT` is described in tcp(7) and RFC 5482.

use std::mem::MaybeUninit;
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

/// TCP keepalive: idle time before the first probe.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(3);
/// TCP keepalive: time between two probes.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(1);
/// How long sent data or probes may stay unacknowledged before the connection ends
/// (`TCP_USER_TIMEOUT`, Linux only).
const UNANSWERED_MAX: Duration = Duration::from_secs(8);

/// Sets the options that end the connection when the network is cut or the other machine is gone,
/// also while nothing is sent.
///
/// # Errors
/// The system refuses an option.
pub(super) fn bound(stream: &impl AsFd) -> std::io::Result<()> {
    let socket = SockRef::from(stream);
    socket.set_tcp_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(UNANSWERED_MAX))?;
    Ok(())
}

/// A connection to another process. The socket is non-blocking until timely takes it over.
#[derive(Debug)]
pub(super) enum Link {
    /// A TCP connection, which timely uses itself.
    Tcp(TcpStream),
    /// A local socket pair, whose other end is copied over TLS.
    Unix(UnixStream),
}

impl Link {
    /// Whether the connection has not ended. Bytes that arrived are not consumed.
    pub(super) fn is_up(&self) -> bool {
        let mut byte = [MaybeUninit::uninit()];
        let seen = match self {
            Self::Tcp(stream) => SockRef::from(stream).peek(&mut byte),
            Self::Unix(stream) => SockRef::from(stream).peek(&mut byte),
        };
        match seen {
            Ok(bytes) => bytes > 0,
            Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_link_is_up_until_the_other_side_closes() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        bound(&near).unwrap();
        let socket = SockRef::from(&near);
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), KEEPALIVE_IDLE);
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), KEEPALIVE_INTERVAL);
        #[cfg(target_os = "linux")]
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(UNANSWERED_MAX));
        near.set_nonblocking(true).unwrap();
        let near = Link::Tcp(near);
        assert!(near.is_up());
        far.write_all(b"x").unwrap();
        assert!(near.is_up());
        drop(far);
        // What came before the end is still there to be read.
        let Link::Tcp(mut stream) = near else {
            unreachable!()
        };
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        let mut byte = [0];
        while std::io::Read::read(&mut stream, &mut byte).is_err() {
            assert!(std::time::Instant::now() < deadline);
        }
        let near = Link::Tcp(stream);
        while near.is_up() {
            assert!(std::time::Instant::now() < deadline);
        }
        let (near, far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        let near = Link::Unix(near);
        assert!(near.is_up());
        drop(far);
        assert!(!near.is_up());
    }
}
