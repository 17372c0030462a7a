//! TLS client configuration: trusted authorities, host name verification, client certificates.
//!
//! For the clients of PostgreSQL, Cassandra and the schema registry. (librdkafka has TLS of its
//! own.) In: the PEM files that the user names, and how much of the server's certificate is
//! verified. Out: a rustls configuration on the provider `ring`.
//!
//! Invariant: the signature of each handshake is verified, also with [`Trust::Anyone`], so that the
//! peer owns the key of the certificate that it sends.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};

use crate::{Error, Kind, Result};

/// How much of the server's certificate is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// Nothing (`sslmode=require`): the connection is encrypted, with whoever answers.
    Anyone,
    /// The chain (`sslmode=verify-ca`): an authority in this PEM file issued the certificate.
    Authority(PathBuf),
    /// The chain and the name (`sslmode=verify-full`): the certificate is for the requested host,
    /// or for one of these further names.
    Host(PathBuf, Vec<String>),
}

/// A client certificate and its key, as two PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The certificate, followed by its intermediate certificates.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// Makes `ring` the default provider of the process.
pub fn install_provider() {
    // An error means that a provider is installed already, which is as good.
    ring::default_provider().install_default().ok();
}

/// The system's bundle of trusted authorities: the file in `SSL_CERT_FILE`, or else in one of the
/// usual places.
pub fn system_authorities() -> Option<PathBuf> {
    openssl_probe::probe().cert_file
}

/// A client configuration that verifies the server as `trust` says and shows `identity`, if any.
///
/// # Errors
/// `Data` when a file cannot be read, holds no certificate or key in PEM form, or the key does not
/// belong to the certificate.
pub fn client(trust: &Trust, identity: Option<&Identity>) -> Result<ClientConfig> {
    let provider = Arc::new(ring::default_provider());
    let verifier = Verifier::new(trust, &provider)?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::with_source(Kind::Bug, "TLS cannot be set up", error))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let Some(Identity { certificate, key }) = identity else {
        return Ok(builder.with_no_client_auth());
    };
    let chain = certificates(certificate)?;
    let secret = PrivateKeyDer::from_pem_file(key)
        .map_err(|error| unusable_file(key, "expected a private key in PEM form", error))?;
    builder
        .with_client_auth_cert(chain, secret)
        .map_err(|error| unusable_file(key, "it is not the key of the client's certificate", error))
}

/// A sentence for people, if the cause of `error` is that one side refused the certificate of the
/// other.
pub fn refusal(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<rustls::Error>() {
            return explanation(error);
        }
        // An I/O error is transparent: its source is that of what it carries.
        let carried = error.downcast_ref::<std::io::Error>();
        cause = match carried.and_then(std::io::Error::get_ref) {
            Some(carried) => Some(carried),
            None => error.source(),
        };
    }
    None
}

/// The sentence for an error of rustls; `None` for errors that are not about certificates.
fn explanation(error: &rustls::Error) -> Option<String> {
    let said = match error {
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "the server's certificate was not issued by an authority that is trusted here"
        }
        rustls::Error::InvalidCertificate(why) => {
            return Some(format!("the server's certificate is refused: {why}"));
        }
        rustls::Error::AlertReceived(alert) => {
            return Some(format!(
                "the server refused the client's side of TLS: {alert:?}"
            ));
        }
        _ => return None,
    };
    Some(said.to_owned())
}

/// All certificates of a PEM file; at least one.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let all = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let all: Vec<_> =
        all.map_err(|error| unusable_file(path, "expected certificates in PEM form", error))?;
    if all.is_empty() {
        let what = format!("{}: there is no certificate in it", path.display());
        return Err(Error::new(Kind::Data, what));
    }
    Ok(all)
}

/// An error of a file that the user named.
fn unusable_file(
    path: &Path,
    why: &str,
    error: impl std::error::Error + Send + Sync + 'static,
) -> Error {
    let what = format!("{}: {why}: {error}", path.display());
    Error::with_source(Kind::Data, what, error)
}

/// rustls's certificate verifier with the three levels of [`Trust`].
#[derive(Debug)]
struct Verifier {
    provider: Arc<CryptoProvider>,
    /// The verifier of the chain; `None` for [`Trust::Anyone`].
    authority: Option<Arc<WebPkiServerVerifier>>,
    /// Further names that the certificate may have; `None` when the name is not verified.
    names: Option<Vec<ServerName<'static>>>,
}

impl Verifier {
    /// Reads the authorities that `trust` names.
    fn new(trust: &Trust, provider: &Arc<CryptoProvider>) -> Result<Self> {
        let (file, names) = match trust {
            Trust::Anyone => (None, None),
            Trust::Authority(file) => (Some(file), None),
            Trust::Host(file, names) => {
                // A text that is not a valid name cannot be in a certificate.
                let names = names.iter().cloned().map(ServerName::try_from);
                (
                    Some(file),
                    Some(names.filter_map(|name| name.ok()).collect()),
                )
            }
        };
        let authority = match file {
            None => None,
            Some(file) => {
                let mut roots = RootCertStore::empty();
                let (_, _) = roots.add_parsable_certificates(certificates(file)?);
                let built = WebPkiServerVerifier::builder_with_provider(
                    Arc::new(roots),
                    Arc::clone(provider),
                );
                let none = "there is no certificate of an authority in it";
                Some(
                    built
                        .build()
                        .map_err(|error| unusable_file(file, none, error))?,
                )
            }
        };
        Ok(Self {
            provider: Arc::clone(provider),
            authority,
            names,
        })
    }
}

/// Whether only the name of the certificate is wrong.
fn is_name_mismatch(error: &rustls::Error) -> bool {
    use CertificateError::{NotValidForName, NotValidForNameContext};
    matches!(
        error,
        rustls::Error::InvalidCertificate(NotValidForName | NotValidForNameContext { .. })
    )
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        asked: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        let Some(authority) = &self.authority else {
            return Ok(ServerCertVerified::assertion());
        };
        let verify = |name| authority.verify_server_cert(certificate, between, name, ocsp, now);
        match (verify(asked), &self.names) {
            // webpki verifies the name last, so the chain was valid.
            (Err(error), None) if is_name_mismatch(&error) => Ok(ServerCertVerified::assertion()),
            (Err(error), Some(names)) if is_name_mismatch(&error) => {
                let mut verified = names.iter().filter_map(|name| verify(name).ok());
                verified.next().ok_or(error)
            }
            (verified, _) => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let known = &self.provider.signature_verification_algorithms;
        known.supported_schemes()
    }
}
