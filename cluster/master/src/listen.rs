//! The master's TCP listener, with optional TLS, and its limits against slow or silent clients.
//!
//! In: a listening socket. Out: connections whose TLS handshake is done, for axum to serve.
//!
//! 1. A connection must send the head of its first request within [`FIRST_REQUEST_MAX`], TLS
//!    handshake included. Otherwise it is closed, whatever it sent. Such a connection delays no
//!    other one.
//! 2. There are never more than [`CONNECTIONS_MAX`] connections. The next one waits in the kernel's
//!    queue until one is closed.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::Context as _;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Sleep;
use tokio_rustls::TlsAcceptor;

/// Limit of connections at a time.
const CONNECTIONS_MAX: usize = 800;
/// Limit of accepted connections that the server has not taken yet.
const READY_MAX: usize = 64;
/// Time from accepting a connection to the end of its first request's head, TLS handshake included.
const FIRST_REQUEST_MAX: Duration = Duration::from_secs(5);
/// TCP keepalive: idle time before the first probe, and the pause between probes. The kernel
/// decides how many probes may stay unanswered (`tcp_keepalive_probes`, 9 by default on Linux).
const KEEPALIVE: Duration = Duration::from_secs(4);

/// The bytes that end the head of an HTTP request.
const HEAD_END: &[u8] = b"\r\n\r\n";

/// The listener that axum serves: receives ready connections from the task that accepts them.
pub(crate) struct Ready {
    /// The connections whose handshake is done.
    connections: mpsc::Receiver<(Connection, SocketAddr)>,
    /// The address on which the master listens.
    at: SocketAddr,
}

/// A connection, which holds one of the [`CONNECTIONS_MAX`] permits until it is dropped.
pub(crate) struct Connection {
    stream: Stream,
    /// When the connection is closed; `None` after the first request's head was read.
    deadline: Option<Pin<Box<Sleep>>>,
    /// How many bytes of [`HEAD_END`] were seen in a row.
    seen: usize,
    /// The permit, held until the connection is dropped.
    _place: OwnedSemaphorePermit,
}

/// The socket, with or without TLS.
enum Stream {
    Plain(TcpStream),
    Tls(Box<tokio_rustls::server::TlsStream<TcpStream>>),
}

/// Reads the certificate chain and the key of `--tls-cert` and `--tls-key`.
///
/// # Errors
///
/// A file cannot be read or is not PEM, or the certificate does not belong to the key. The message
/// names the flag and the file.
pub(crate) fn tls(certificate: &Path, key: &Path) -> anyhow::Result<TlsAcceptor> {
    let said = |flag: &str, path: &Path| format!("{flag} {}: cannot be read", path.display());
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(|| said("--tls-cert", certificate))?;
    let key = PrivateKeyDer::from_pem_file(key).with_context(|| said("--tls-key", key))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .with_context(|| format!("--tls-cert {}: does not fit the key", certificate.display()))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

impl Ready {
    /// Starts the task that accepts connections.
    ///
    /// # Errors
    ///
    /// The socket has no local address.
    pub(crate) fn start(listener: TcpListener, tls: Option<TlsAcceptor>) -> io::Result<Self> {
        let at = listener.local_addr()?;
        let (ready, connections) = mpsc::channel(READY_MAX);
        tokio::spawn(accept(listener, tls, ready));
        Ok(Self { connections, at })
    }
}

/// Accepts connections until the runtime ends; each handshake runs in a task of its own.
async fn accept(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    ready: mpsc::Sender<(Connection, SocketAddr)>,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // For example too many open files. The next connection that closes frees one.
                tracing::warn!(%error, "a connection cannot be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (tls, ready) = (tls.clone(), ready.clone());
        tokio::spawn(async move {
            match Connection::begin(stream, tls, place).await {
                // The receiver is gone when the server has ended.
                Ok(connection) => drop(ready.send((connection, from)).await),
                Err(error) => tracing::debug!(%from, %error, "a connection was closed"),
            }
        });
    }
}

impl axum::serve::Listener for Ready {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.connections.recv().await {
            Some(accepted) => accepted,
            // The accepting task ends only with the runtime.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Ok(self.at)
    }
}

impl Connection {
    /// Sets the socket's options and does the TLS handshake.
    async fn begin(
        stream: TcpStream,
        tls: Option<TlsAcceptor>,
        place: OwnedSemaphorePermit,
    ) -> io::Result<Self> {
        let deadline = tokio::time::sleep(FIRST_REQUEST_MAX);
        stream.set_nodelay(true)?;
        let keepalive = TcpKeepalive::new()
            .with_time(KEEPALIVE)
            .with_interval(KEEPALIVE);
        SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
        let stream = match tls {
            None => Stream::Plain(stream),
            Some(tls) => {
                let shaken = tokio::time::timeout(FIRST_REQUEST_MAX, tls.accept(stream)).await;
                Stream::Tls(Box::new(shaken.map_err(io::Error::other)??))
            }
        };
        Ok(Self {
            stream,
            deadline: Some(Box::pin(deadline)),
            seen: 0,
            _place: place,
        })
    }

    /// Searches the bytes that were read for the end of the first request's head, and removes the
    /// deadline there.
    fn look(&mut self, read: &[u8]) {
        for byte in read {
            let fits = HEAD_END.get(self.seen) == Some(byte);
            self.seen = match fits {
                true => self.seen + 1,
                false => usize::from(HEAD_END.first() == Some(byte)),
            };
            if self.seen == HEAD_END.len() {
                self.deadline = None;
                return;
            }
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Stream::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        };
        let Some(deadline) = &mut self.deadline else {
            return read;
        };
        if deadline.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let new = buffer.filled().get(before..).unwrap_or_default();
        self.look(new);
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Stream::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(context),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
