//! TLS of the mesh: both sides show a certificate that the job's authority signed. The accepting
//! side's certificate must be for the host name or address that the other side connects to.
//!
//! Timely reads and writes a socket from two threads, and a TLS stream cannot be used by two
//! threads. Therefore timely gets one end of a local socket pair, and a task copies the bytes
//! between the other end and the TLS stream, at most [`CARRY_BYTES`] at a time in each direction.
//! The end of one direction is sent as TLS's own end of data. A connection that ends without it
//! ends the local socket too.
//!
//! ```text
//! timely ─► local socket pair ─► task ─► TLS stream ─► network ─► … ─► timely of the other process
//! ```
//!
//! The client certificate is required and verified (`WebPkiClientVerifier`), so both sides are
//! known before the handshake of the mesh begins.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional_with_sizes};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use super::refusal::Refusal;
use super::socket::Link;

/// Size of the copy buffer in each direction of a connection, in bytes.
const CARRY_BYTES: usize = 64 * 1024;

/// The PEM files of `--mesh-cert`, `--mesh-key` and `--mesh-ca`.
#[derive(Debug, Clone)]
pub(crate) struct TlsFiles {
    /// The certificate of this process, with its chain.
    pub(crate) cert: PathBuf,
    /// The private key of that certificate.
    pub(crate) key: PathBuf,
    /// The authorities that may sign the certificates of all processes.
    pub(crate) ca: PathBuf,
}

/// The TLS settings of both sides.
pub(super) struct Tls {
    /// The accepting side.
    acceptor: TlsAcceptor,
    /// The connecting side.
    connector: TlsConnector,
    /// Its reference count is one above the number of connections that are being copied.
    carrying: Arc<()>,
}

impl Tls {
    /// Reads certificate, key and authority.
    ///
    /// # Errors
    ///
    /// A file cannot be read, is not PEM, or the key does not belong to the certificate. The
    /// message names the flag.
    pub(super) fn open(files: &TlsFiles) -> anyhow::Result<Self> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&files.ca)? {
            let added = roots.add(certificate);
            added.with_context(|| format!("--mesh-ca: {}", files.ca.display()))?;
        }
        let own = certificates(&files.cert)?;
        let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| {
            anyhow::anyhow!(
                "--mesh-key: {} holds no private key: {error}",
                files.key.display()
            )
        })?;
        let fits = || {
            let (cert, key) = (files.cert.display(), files.key.display());
            format!("--mesh-cert and --mesh-key: {cert} and {key} are no pair that can be used")
        };
        let roots = Arc::new(roots);
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider));
        let verifier = verifier.build().context("--mesh-ca")?;
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(verifier)
            .with_single_cert(own.clone(), key.clone_key())
            .with_context(fits)?;
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_client_auth_cert(own, key)
            .with_context(fits)?;
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(server)),
            connector: TlsConnector::from(Arc::new(client)),
            carrying: Arc::new(()),
        })
    }

    /// The TLS handshake of the accepting side, which asks for a certificate.
    ///
    /// # Errors
    /// [`Refusal::Tls`] when the other side shows no certificate of the authority.
    pub(super) async fn accept(
        &self,
        stream: TcpStream,
    ) -> Result<server::TlsStream<TcpStream>, Refusal> {
        self.acceptor.accept(stream).await.map_err(refusal)
    }

    /// The TLS handshake of the connecting side. `address` is `host:port`; the certificate must be
    /// for the host.
    ///
    /// # Errors
    /// [`Refusal::Tls`] when the certificate is not of the authority, or is for another host.
    pub(super) async fn connect(
        &self,
        address: &str,
        stream: TcpStream,
    ) -> Result<client::TlsStream<TcpStream>, Refusal> {
        let name = address.rsplit_once(':').map_or(address, |(host, _)| host);
        let name = name
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        let name = ServerName::try_from(name).map_err(|error| Refusal::Tls(error.to_string()))?;
        self.connector.connect(name, stream).await.map_err(refusal)
    }

    /// Starts to copy between the TLS stream to process `index` and a new local socket pair;
    /// returns timely's end.
    ///
    /// # Errors
    /// No socket pair can be made.
    pub(super) fn carried<S>(&self, mut stream: S, index: usize) -> Result<Link, Refusal>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (ours, mut theirs) = UnixStream::pair()?;
        let carrying = Arc::clone(&self.carrying);
        tokio::spawn(async move {
            let (sent, received) = (CARRY_BYTES, CARRY_BYTES);
            let carried =
                copy_bidirectional_with_sizes(&mut theirs, &mut stream, sent, received).await;
            if let Err(error) = carried {
                tracing::warn!(process = index, %error, "the connection with a process broke");
            }
            drop(carrying);
        });
        Ok(Link::Unix(ours.into_std()?))
    }

    /// Whether no connection is being copied any more.
    pub(super) fn is_done(&self) -> bool {
        Arc::strong_count(&self.carrying) == 1
    }
}

/// An I/O error of a TLS stream as a refusal.
fn refusal(error: std::io::Error) -> Refusal {
    match Refusal::from(error) {
        Refusal::Unreached(why) => Refusal::Tls(why),
        other => other,
    }
}

/// All certificates of a PEM file, at least one.
///
/// # Errors
/// The file cannot be read, is not PEM, or has no certificate.
fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_reader_iter(BufReader::new(file)).collect();
    let read = read.map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))?;
    anyhow::ensure!(
        !read.is_empty(),
        "{} holds no certificate in PEM",
        path.display()
    );
    Ok(read)
}
