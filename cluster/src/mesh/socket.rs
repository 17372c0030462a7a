//! A connection as timely gets it: how soon it ends when the other side is gone, and whether it
//! still is.

use std::mem::MaybeUninit;
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

/// How long a connection may be silent before the other machine is asked whether it is there.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(3);
/// From one such question to the next.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(1);
/// How long the other machine may leave data or such questions without an answer.
const UNANSWERED_MAX: Duration = Duration::from_secs(8);

/// Makes a cut network and a machine that is gone end the connection, also when nothing is sent.
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

/// A connection with another process; reading and writing do not block until timely has it.
#[derive(Debug)]
pub(super) enum Link {
    Tcp(TcpStream),
    /// The other end is carried over TLS.
    Unix(UnixStream),
}

impl Link {
    /// Whether it did not end. What came is left where it is.
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
