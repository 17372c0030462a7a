//! The version of the mesh's protocol, and the limits of its handshakes.

use std::time::Duration;

/// The version of what follows.
pub(super) const VERSION: u16 = 1;
/// How long a handshake may take.
pub(super) const HANDSHAKE_MAX: Duration = Duration::from_secs(5);
/// Connections in their handshake at a time.
pub(super) const PENDING_MAX: usize = 128;
