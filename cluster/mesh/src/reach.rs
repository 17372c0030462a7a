//! The connector of the mesh: connects to the processes with lower indices, and tries again until
//! they are there.
//!
//! In: the address of one process. Out: a filled slot of the roster. The task ends when the
//! connections were handed to timely, or with the mesh.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tidemill_log::backoff::Backoff;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::handshake::connect;
use super::limits::HANDSHAKE_MAX;
use super::refusal::Refusal;
use super::shared::Shared;
use super::socket::{Link, bound};

/// Timeout of one TCP connection.
const CONNECT_MAX: Duration = Duration::from_secs(3);
/// Shortest and longest back-off pause between two attempts.
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// The longest back-off pause.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// How soon a connection that ended is noticed.
const LOOK: Duration = Duration::from_millis(200);
/// How long the same error is not logged again.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// Keeps this process connected to process `to`, until the connections are handed to timely.
pub(super) async fn reach(to: usize, address: String, shared: Arc<Shared>) {
    let mut backoff = Backoff::new(PAUSE_MIN, PAUSE_MAX);
    let mut said: Option<(Instant, String)> = None;
    while !shared.roster.is_taken() {
        if !shared.roster.missing().contains(&to) {
            sleep(LOOK).await;
            continue;
        }
        let why = match attempt(to, &address, &shared).await {
            Ok(()) => {
                tracing::info!(process = to, address, "connected with a process of the job");
                (backoff, said) = (Backoff::new(PAUSE_MIN, PAUSE_MAX), None);
                continue;
            }
            Err(why) => why.to_string(),
        };
        let fresh = said
            .as_ref()
            .is_none_or(|(at, before)| *before != why || at.elapsed() >= SAY_EVERY);
        if fresh {
            tracing::info!(process = to, address, "cannot reach a process yet: {why}");
            said = Some((Instant::now(), why.clone()));
        }
        shared.trouble(to, &format!("at {address}: {why}"));
        sleep(backoff.pause()).await;
    }
}

/// One attempt: TCP, TLS if the mesh uses it, and the handshake.
///
/// The slot is reserved before the handshake, so two attempts never connect to one process.
///
/// # Errors
/// Why it failed. The caller tries again, whatever the reason: a process of another generation may
/// be replaced by one of this generation.
async fn attempt(to: usize, address: &str, shared: &Arc<Shared>) -> Result<(), Refusal> {
    let none = || Refusal::Unreached(format!("no answer in {CONNECT_MAX:?}"));
    let connecting = timeout(CONNECT_MAX, TcpStream::connect(address)).await;
    let mut stream = connecting
        .map_err(|_| none())?
        .map_err(|error| Refusal::Unreached(error.to_string()))?;
    bound(&stream)?;
    let reserved = shared.roster.reserve(to);
    let reservation = reserved.ok_or(Refusal::Connected(to))?;
    let handshake = async {
        match &shared.tls {
            None => {
                connect(&mut stream, &shared.me, to, &shared.secret).await?;
                Ok(Link::Tcp(stream.into_std()?))
            }
            Some(tls) => {
                let mut stream = tls.connect(address, stream).await?;
                connect(&mut stream, &shared.me, to, &shared.secret).await?;
                tls.carried(stream, to)
            }
        }
    };
    let link = timeout(HANDSHAKE_MAX, handshake).await;
    reservation.fill(link.unwrap_or(Err(Refusal::Silent))?);
    Ok(())
}
