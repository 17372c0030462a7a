//! The child's side of the protocol between a worker and the processes that it runs: orders as
//! lines on stdin, and what the process tells of itself as lines on stdout.
//!
//! Invariants: nothing else is printed on stdout; a process whose stdin ends, or whose words nobody
//! takes any more, has lost its worker and ends at once with [`exit::PEER_LOST`]; it beats from the
//! first order on, whatever its other threads do.

use std::io::{BufRead, BufReader, Read};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, channel, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};

use crate::observe::{self, Shown};
use crate::protocol::{FromChild, Part, ProcessKey, ToChild};
use crate::{exit, heartbeat, output};

/// Time between two beats.
const BEAT: Duration = Duration::from_millis(500);
/// Bytes of one order.
const ORDER_BYTES_MAX: u64 = 1 << 20;
/// Lines that wait to be printed; beats that do not fit are left out.
const UNTOLD_MAX: usize = 16;
/// How long the last word before the end may take.
const LAST_WORD_MAX: Duration = Duration::from_millis(300);
/// How soon a stop is seen.
const LOOK: Duration = Duration::from_millis(50);

/// Lines on their way to stdout; the sender is told when one was printed.
static OUT: OnceLock<SyncSender<(FromChild, SyncSender<()>)>> = OnceLock::new();

/// How a worker wants this process to run.
pub(crate) struct Begin {
    pub(crate) key: ProcessKey,
    pub(crate) threads: usize,
    pub(crate) processes: usize,
    pub(crate) secret: String,
    pub(crate) host: String,
}

/// The orders that follow.
#[derive(Debug)]
pub(crate) struct Updates {
    peers: Receiver<Vec<String>>,
}

/// Waits for the first order, to run `part`, then takes further ones beside: `stop` is set when it
/// shall end.
pub(crate) fn begin(part: Part, stop: &Arc<AtomicBool>) -> anyhow::Result<(Begin, Updates)> {
    let mut stdin = BufReader::new(std::io::stdin());
    let begin = match next(&mut stdin)? {
        Some(ToChild::Begin {
            key,
            threads,
            processes,
            secret,
            host,
        }) => Begin {
            key,
            threads,
            processes,
            secret,
            host,
        },
        Some(other) => bail!("the first order is not how to begin: {other:?}"),
        None => return Err(exit::PeerLost("stdin ended before the first order".into()).into()),
    };
    let (key, processes) = (&begin.key, begin.processes);
    if key.part != part || begin.threads == 0 || key.index >= processes {
        bail!("the first order is not one for this command: {key:?} of {processes} processes");
    }
    let (tell_peers, peers) = channel();
    let stop = Arc::clone(stop);
    let take = move || loop {
        match next(&mut stdin) {
            Ok(Some(ToChild::Peers { addresses })) => {
                // Nobody asks for them twice.
                let _ = tell_peers.send(addresses);
            }
            Ok(Some(ToChild::Drain)) => {
                tracing::info!("the worker asks for a clean end");
                stop.store(true, Relaxed);
            }
            Ok(Some(ToChild::Begin { .. })) => {
                tracing::error!("a second order to begin");
                signal_hook::low_level::exit(i32::from(exit::ERROR));
            }
            Ok(None) => worker_is_gone("stdin ended"),
            Err(error) => {
                tracing::error!("an order cannot be read: {error:#}");
                signal_hook::low_level::exit(i32::from(exit::ERROR));
            }
        }
    };
    thread::Builder::new().name("orders".into()).spawn(take)?;
    let (tell, told) = sync_channel(UNTOLD_MAX);
    let print = move || print(&told);
    thread::Builder::new().name("telling".into()).spawn(print)?;
    let _ = OUT.set(tell);
    Ok((begin, Updates { peers }))
}

/// The next order; none when stdin has ended.
fn next(stdin: &mut impl BufRead) -> anyhow::Result<Option<ToChild>> {
    let mut line = String::new();
    let read = stdin.by_ref().take(ORDER_BYTES_MAX).read_line(&mut line);
    if read.context("stdin")? == 0 {
        return Ok(None);
    }
    // A line that was cut off by the end of the worker is the end of the worker.
    if !line.ends_with('\n') && (line.len() as u64) < ORDER_BYTES_MAX {
        return Ok(None);
    }
    let order = serde_json::from_str(&line);
    // The line itself may hold the mesh's secret.
    order
        .context("is the worker of the same version?")
        .map(Some)
}

fn print(told: &Receiver<(FromChild, SyncSender<()>)>) {
    while let Ok((line, printed)) = told.recv() {
        let text = match serde_json::to_string(&line) {
            Ok(text) => text,
            Err(error) => {
                tracing::error!(%error, "what is to be told makes no JSON");
                continue;
            }
        };
        if let Err(error) = output::told(&text) {
            worker_is_gone(&format!("stdout: {error}"));
        }
        // Most do not wait for it.
        let _ = printed.try_send(());
    }
}

fn worker_is_gone(why: &str) -> ! {
    tracing::error!("the worker that started this process is gone ({why}): it ends too");
    signal_hook::low_level::exit(i32::from(exit::PEER_LOST))
}

/// Tells the worker something.
pub(crate) fn tell(line: FromChild) {
    if let Some(out) = OUT.get() {
        // The thread at the other end ends with the process.
        let _ = out.send((line, sync_channel(1).0));
    }
}

/// Tells the worker something before the process ends, unless the worker takes nothing.
pub(crate) fn tell_at_last(line: FromChild) {
    if let Some(out) = OUT.get() {
        let (printed, is_printed) = sync_channel(1);
        if out.try_send((line, printed)).is_ok() {
            let _ = is_printed.recv_timeout(LAST_WORD_MAX);
        }
    }
}

/// Tells which processes are gone, before this one ends for that reason.
pub(crate) fn tell_lost(index: Option<usize>) {
    tell_at_last(FromChild::Unreachable {
        indices: index.into_iter().collect(),
    });
}

/// Beats from now on, and serves HTTP on any free port of the host. The first beat is told when
/// this returns: nobody takes a process that is live for one that waits for nothing.
pub(crate) fn beat(host: &str, shown: Shown) -> anyhow::Result<()> {
    let http = observe::serve((host, 0), observe::own_router(shown.clone())?)?;
    let http = http.to_string();
    let once = move || {
        let beat = FromChild::Heartbeat(Box::new(heartbeat::of(&shown, &http)));
        if let Some(out) = OUT.get() {
            // The next one says all that this one would.
            let _ = out.try_send((beat, sync_channel(1).0));
        }
    };
    once();
    let beats = move || loop {
        thread::sleep(BEAT);
        once();
    };
    thread::Builder::new().name("beat".into()).spawn(beats)?;
    Ok(())
}

impl Updates {
    /// Where all processes listen, as soon as the worker says so; none when stopped before.
    pub(crate) fn peers(&self, stop: &AtomicBool) -> anyhow::Result<Option<Vec<String>>> {
        while !stop.load(Relaxed) {
            match self.peers.recv_timeout(LOOK) {
                Ok(addresses) => return Ok(Some(addresses)),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => bail!("no more orders can be read"),
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_lines_and_a_cut_one_is_the_end() {
        let mut stdin =
            std::io::Cursor::new(b"\"drain\"\n{\"peers\":{\"addresses\":[\"a:1\"]}}\n\"dra");
        assert_eq!(next(&mut stdin).unwrap(), Some(ToChild::Drain));
        let addresses = vec!["a:1".to_owned()];
        assert_eq!(
            next(&mut stdin).unwrap(),
            Some(ToChild::Peers { addresses })
        );
        assert_eq!(next(&mut stdin).unwrap(), None);
        assert_eq!(next(&mut stdin).unwrap(), None);
        next(&mut std::io::Cursor::new(b"nonsense\n")).unwrap_err();
    }
}
