//! The listener: lets other processes of the job in, and refuses everybody else, as long as the
//! process lives.
//!
//! Invariants: at most [`PENDING_MAX`] connections are in their handshake; when there are more the
//! oldest goes, so that connections that say nothing keep no process out; each has
//! [`super::HANDSHAKE_MAX`] in all.

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

/// How soon counted refusals may be logged.
const LOOK: Duration = Duration::from_secs(1);
/// Time before the next connection is accepted when the system could not give one.
const PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections for ever.
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
            // Nothing wakes up when nobody comes.
            _ = look.tick(), if untold => {
                untold = shared.refusals.sum_up(REFUSALS_EVERY) || !pending.is_empty();
            }
        }
    }
}

/// Somebody connected.
async fn meet(stream: TcpStream, peer: SocketAddr, shared: Arc<Shared>) {
    let met = tokio::time::timeout(HANDSHAKE_MAX, let_in(stream, &shared)).await;
    match met.unwrap_or(Err(Refusal::Silent)) {
        Ok(from) => tracing::info!(process = from, %peer, "a process of the job is connected"),
        Err(why) => shared.refusals.tell(peer, &why),
    }
}

/// Connects with whoever is at the other end, if it belongs here.
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

/// Whoever has proved to be a process that is not connected yet.
async fn admit<S>(stream: &mut S, shared: &Arc<Shared>) -> Result<(Proven, Reservation), Refusal>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let proven = accept(stream, &shared.me, &shared.secret).await?;
    let reserved = shared.roster.reserve(proven.from);
    let reservation = reserved.ok_or(Refusal::Connected(proven.from))?;
    Ok((proven, reservation))
}
