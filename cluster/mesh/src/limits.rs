//! Limits of the mesh's handshakes, and the version of the protocol.
//!
//! The limits protect a process from strangers: before the handshake is done, a connection costs
//! one socket, one task and at most [`super::hello::HELLO_BYTES_MAX`] bytes.

use std::time::Duration;

/// The version of the handshake's format. Another version is refused.
pub(super) const VERSION: u16 = 1;
/// How long one handshake may take in all, TLS included.
pub(super) const HANDSHAKE_MAX: Duration = Duration::from_secs(5);
/// Limit of connections in their handshake at a time.
pub(super) const PENDING_MAX: usize = 128;
