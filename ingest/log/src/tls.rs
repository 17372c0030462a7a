//! TLS as a client of PostgreSQL or Cassandra: whom it trusts, and what it shows of itself.
//!
//! Flows in: the files that the user named and how much of the server's certificate is to be
//! verified. Flows out: rustls's configuration, on the `ring` provider. Every handshake's signature
//! is verified, so that even where anybody is trusted the other end has the key of what it shows.

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
    /// Nothing: what goes over the wire is encrypted, for whoever answers.
    Anyone,
    /// That an authority of this PEM file issued it.
    Authority(PathBuf),
    /// That as well, and that it is for the host that was asked for, or for one of these names.
    Host(PathBuf, Vec<String>),
}

/// A certificate of the client's own, with its key: two PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The certificate and what stands between it and the authority.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Makes `ring` the provider of everything in the process that does not name one.
pub fn install_provider() {
    // An error says that one is installed already, which serves as well.
    ring::default_provider().install_default().ok();
}

/// The file of authorities that the system trusts: `SSL_CERT_FILE`, else where systems keep it.
pub fn system_authorities() -> Option<PathBuf> {
    openssl_probe::probe().cert_file
}

/// A client's configuration.
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
        .map_err(|error| unusable(key, "expected a private key in PEM form", error))?;
    builder
        .with_client_auth_cert(chain, secret)
        .map_err(|error| unusable(key, "it is not the key of the client's certificate", error))
}

/// What is wrong with the other side's certificate, or with ours, if that is what failed.
pub fn refusal(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<rustls::Error>() {
            return said(error);
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

fn said(error: &rustls::Error) -> Option<String> {
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

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let all = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let all: Vec<_> =
        all.map_err(|error| unusable(path, "expected certificates in PEM form", error))?;
    if all.is_empty() {
        let what = format!("{}: there is no certificate in it", path.display());
        return Err(Error::new(Kind::Data, what));
    }
    Ok(all)
}

fn unusable(
    path: &Path,
    why: &str,
    error: impl std::error::Error + Send + Sync + 'static,
) -> Error {
    let what = format!("{}: {why}: {error}", path.display());
    Error::with_source(Kind::Data, what, error)
}

#[derive(Debug)]
struct Verifier {
    provider: Arc<CryptoProvider>,
    /// None where anybody is trusted.
    authority: Option<Arc<WebPkiServerVerifier>>,
    /// Further names that the certificate may be for; none when any name will do.
    names: Option<Vec<ServerName<'static>>>,
}

impl Verifier {
    fn new(trust: &Trust, provider: &Arc<CryptoProvider>) -> Result<Self> {
        let (file, names) = match trust {
            Trust::Anyone => (None, None),
            Trust::Authority(file) => (Some(file), None),
            Trust::Host(file, names) => {
                // What is no name cannot be in a certificate either.
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
                Some(built.build().map_err(|error| unusable(file, none, error))?)
            }
        };
        Ok(Self {
            provider: Arc::clone(provider),
            authority,
            names,
        })
    }
}

fn is_for_another_name(error: &rustls::Error) -> bool {
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
            // The name is looked at last, so all else was right.
            (Err(error), None) if is_for_another_name(&error) => {
                Ok(ServerCertVerified::assertion())
            }
            (Err(error), Some(names)) if is_for_another_name(&error) => {
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
