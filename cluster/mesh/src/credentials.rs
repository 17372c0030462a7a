//! Credentials of a process in the mesh: the shared secret, and a certificate if the mesh uses TLS.
//!
//! In: the flags `--mesh-cert`, `--mesh-key`, `--mesh-ca`, the variables `TIDEMILL_MESH_SECRET` and
//! `TIDEMILL_MESH_SECRET_FILE`, and the secret that a master may have chosen. Out: [`Credentials`].
//! The secret is no flag, because other users of a machine can read a process's arguments.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use tidemill_protocol::exit::Usage;

use super::hello::Secret;
use super::tls::{Tls, TlsFiles};

/// Variable of the environment with the secret.
const SECRET: &str = "TIDEMILL_MESH_SECRET";
/// Variable of the environment that names a file with the secret.
const SECRET_FILE: &str = "TIDEMILL_MESH_SECRET_FILE";
/// Minimum length of a secret given by a user, in bytes.
const SECRET_LEN_MIN: usize = 16;

/// Flags of the mesh.
#[derive(Debug, Clone, Default, Args)]
#[command(
    next_help_heading = "The mesh of the job's processes; its secret is in \
    TIDEMILL_MESH_SECRET or in the file that TIDEMILL_MESH_SECRET_FILE names"
)]
pub struct MeshArgs {
    /// This process's certificate, in PEM: the mesh is encrypted
    #[arg(long, value_name = "FILE", env = "TIDEMILL_MESH_CERT",
          requires_all = ["mesh_key", "mesh_ca"])]
    pub(crate) mesh_cert: Option<PathBuf>,
    /// The key of that certificate
    #[arg(
        long,
        value_name = "FILE",
        env = "TIDEMILL_MESH_KEY",
        requires = "mesh_cert"
    )]
    pub(crate) mesh_key: Option<PathBuf>,
    /// The authority that signed the certificates of all processes
    #[arg(
        long,
        value_name = "FILE",
        env = "TIDEMILL_MESH_CA",
        requires = "mesh_cert"
    )]
    pub(crate) mesh_ca: Option<PathBuf>,
}

impl MeshArgs {
    /// The files of `--mesh-cert`, `--mesh-key` and `--mesh-ca`, if all are given.
    fn tls(&self) -> Option<TlsFiles> {
        let (cert, key, ca) = (&self.mesh_cert, &self.mesh_key, &self.mesh_ca);
        let (cert, (key, ca)) = cert.clone().zip(key.clone().zip(ca.clone()))?;
        Some(TlsFiles { cert, key, ca })
    }

    /// The credentials that the flags and the environment give. `told` is the secret that a master
    /// chose; it wins over the environment.
    ///
    /// # Errors
    ///
    /// The secret is too short or given twice ([`Usage`], exit code 2), or a file cannot be read.
    pub fn credentials(&self, told: Option<&str>) -> anyhow::Result<Credentials> {
        let secret = match told {
            Some(secret) => Some(secret.to_owned()),
            None => secret()?,
        };
        let tls = self.tls().map(|files| Tls::open(&files)).transpose()?;
        Ok(Credentials {
            authenticated: secret.is_some() || tls.is_some(),
            secret: Secret::new(secret.as_deref().unwrap_or_default()),
            tls,
        })
    }
}

/// What a process proves its membership with.
pub struct Credentials {
    /// Whether there is a secret or a certificate. Without either, anybody who reaches the port can
    /// pass for a process of the job.
    pub authenticated: bool,
    /// The shared secret; the empty one if none was given.
    pub(super) secret: Secret,
    /// The certificate and the authority, if the mesh uses TLS.
    pub(super) tls: Option<Tls>,
}

/// The secret that the environment names; `None` when there is none.
///
/// An empty variable counts as not given. White space around the secret is removed, because a file
/// usually ends with a line break.
///
/// # Errors
/// Both variables are given ([`Usage`]), the file cannot be read, or the secret is too short
/// ([`Usage`]).
fn secret() -> anyhow::Result<Option<String>> {
    let given = |name| std::env::var(name).ok().filter(|text| !text.is_empty());
    let (secret, place) = match (given(SECRET), given(SECRET_FILE)) {
        (None, None) => return Ok(None),
        (Some(_), Some(_)) => {
            let why = format!("{SECRET} and {SECRET_FILE}: only one of them may be given");
            return Err(Usage(why).into());
        }
        (Some(secret), None) => (secret, SECRET),
        (None, Some(file)) => {
            let read = std::fs::read_to_string(&file);
            let read = read.with_context(|| format!("{SECRET_FILE}: cannot read {file}"))?;
            (read, SECRET_FILE)
        }
    };
    checked(secret.trim(), place).map(Some)
}

/// Refuses a secret that is too short.
///
/// `place` is the variable, for the message. The message does not contain the secret.
///
/// # Errors
/// [`Usage`], when the secret has fewer than [`SECRET_LEN_MIN`] bytes.
fn checked(secret: &str, place: &str) -> anyhow::Result<String> {
    if secret.len() < SECRET_LEN_MIN {
        let why = format!(
            "{place}: a mesh secret has at least {SECRET_LEN_MIN} characters, as `openssl rand \
             -hex 32` makes one"
        );
        return Err(Usage(why).into());
    }
    Ok(secret.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_secret_is_refused_without_being_shown() {
        checked("0123456789abcdef", SECRET).unwrap();
        for short in ["", "hunter2hunter2!"] {
            let error = checked(short, SECRET_FILE).unwrap_err().to_string();
            assert!(
                error.contains("TIDEMILL_MESH_SECRET_FILE: a mesh secret"),
                "{error}"
            );
            assert!(short.is_empty() || !error.contains(short), "{error}");
        }
    }
}
