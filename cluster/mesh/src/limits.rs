//! Limits of the mesh's handshakes, and the version of the protocol.

use std::time::Duration;

/// The version of the handshake's format. Another version is refused.
pub(super) const VERSION: u16 = 1;
/// How long one handshake may take in all, TLS included.
pub(super) const HANDSHAKE_MAX: Duration = Duration::from_secs(5);
/// Limit of connections in their handshake at a time.
pub(super) const PENDING_MAX: usize = 128;
