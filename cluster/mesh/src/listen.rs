//! The listener of the mesh: accepts other processes of the job, and refuses everybody else, as
//! long as the process lives.
//!
//! Invariants:
//! 1. At most [`PENDING_MAX`] connections are in their handshake. A further one ends the oldest, so
//!    silent connections keep no process out.
//! 2. Each handshake may take [`HANDSHAKE_MAX`] in all.
//!
//! In: TCP connections. Out: filled slots of the roster ([`super::roster`]), and counted refusals.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

use super::handshake::{Proven, accept, turn_away};
use super::limits::{HANDSHAKE_MAX, PENDING_MAX};
use super::refusal::{REFUSALS_EVERY, Refusal};
use super::roster::Reservation;
use super::shared::Shared;
use super::socket::{Link, bound};

/// How often counted refusals are checked for their log line.
const LOOK: Duration = Duration::from_secs(1);
/// Pause after the system could not accept a connection, for example with too many open files.
const PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections until the runtime ends.
pub(super) async fn listen(listener: TcpListener, shared: Arc<Shared>) {
    let mut pending = JoinSet::new();
    let mut oldest: VecDeque<(AbortHandle, SocketAddr)> = VecDeque::new();
    let mut untold = false;
    let mut look = tokio::time::interval(LOOK);
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    oldest.retain(|(handle, _)| !handle.is_finished());
                    if oldest.len() >= PENDING_MAX
                        && let Some((handle, peer)) = oldest.pop_front()
                    {
                        handle.abort();
                        shared.refusals.tell(peer, &Refusal::Crowded);
                    }
                    let handle = pending.spawn(meet(stream, peer, Arc::clone(&shared)));
                    oldest.push_back((handle, peer));
                    untold = true;
                }
                Err(error) => {
                    tracing::warn!(%error, "no connection can be accepted");
                    tokio::time::sleep(PAUSE).await;
                }
            },
            Some(_) = pending.join_next() => {}
            // While nobody connects this does not wake up.
            _ = look.tick(), if untold => {
                untold = shared.refusals.sum_up(REFUSALS_EVERY) || !pending.is_empty();
            }
        }
    }
}

/// Does the handshake with one connection, and logs how it ended.
async fn meet(stream: TcpStream, peer: SocketAddr, shared: Arc<Shared>) {
    let met = tokio::time::timeout(HANDSHAKE_MAX, let_in(stream, &shared)).await;
    match met.unwrap_or(Err(Refusal::Silent)) {
        Ok(from) => tracing::info!(process = from, %peer, "a process of the job is connected"),
        Err(why) => shared.refusals.tell(peer, &why),
    }
}

/// Does the handshake, over TLS if the mesh uses it, and puts the connection into the roster.
///
/// # Errors
/// The refusal of either side, or an I/O error as a refusal.
async fn let_in(stream: TcpStream, shared: &Arc<Shared>) -> Result<usize, Refusal> {
    bound(&stream)?;
    let (from, reservation, link) = match &shared.tls {
        None => {
            let mut stream = stream;
            let (from, reservation) = known(&mut stream, shared).await?;
            (from, reservation, Link::Tcp(stream.into_std()?))
        }
        Some(tls) => {
            let mut stream = tls.accept(stream).await?;
            let (from, reservation) = known(&mut stream, shared).await?;
            (from, reservation, tls.carried(stream, from)?)
        }
    };
    reservation.fill(link);
    Ok(from)
}

/// Does the accepting side of the handshake. A side that is refused is told why.
///
/// # Errors
/// Why the other side is refused.
async fn known<S>(stream: &mut S, shared: &Arc<Shared>) -> Result<(usize, Reservation), Refusal>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let admitted = admit(stream, shared).await;
    let (proven, reservation) = match admitted {
        Ok(admitted) => admitted,
        Err(why) => {
            turn_away(stream, &why).await;
            return Err(why);
        }
    };
    let from = proven.from;
    proven.welcome(stream, &shared.secret).await?;
    Ok((from, reservation))
}

/// Admits a process that has proved its identity and is not connected yet.
///
/// # Errors
/// Why the other side is refused. A second process of an index gets [`Refusal::Connected`].
async fn admit<S>(stream: &mut S, shared: &Arc<Shared>) -> Result<(Proven, Reservation), Refusal>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let proven = accept(stream, &shared.me, &shared.secret).await?;
    let reserved = shared.roster.reserve(proven.from);
    let reservation = reserved.ok_or(Refusal::Connected(proven.from))?;
    Ok((proven, reservation))
}
