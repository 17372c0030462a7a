//! The child's side of the protocol between a worker and its children: reads the assignment from
//! stdin, and writes heartbeats and progress to stdout. See [`tidemill_protocol::ToChild`] and
//! [`FromChild`].
//!
//! Invariants:
//! 1. Nothing else is printed on stdout.
//! 2. A process whose stdin ends, or whose stdout is closed, has lost its worker and ends at once
//!    with [`ExitCode::PeerLost`].
//! 3. From [`beat`] on, which each command calls right after [`begin`], heartbeats are sent
//!    whatever the other threads do.

pub(crate) mod heartbeat;

use std::io::{BufRead, BufReader, Read};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, channel, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};
use tidemill_protocol::exit::{ExitCode, PeerLost};
use tidemill_protocol::{FromChild, Part, ProcessKey, ToChild, output};
use tidemill_web::{self, Reach, Shown};

/// Time between two heartbeats.
const HEARTBEAT_EVERY: Duration = Duration::from_millis(500);
/// Limit of one line from the worker, in bytes.
const ORDER_BYTES_MAX: u64 = 1 << 20;
/// Limit of lines that wait to be printed. A heartbeat that does not fit is dropped.
const UNTOLD_MAX: usize = 16;
/// How long a process that ends waits until its last line is printed.
const LAST_WORD_MAX: Duration = Duration::from_millis(300);
/// How often a waiting thread checks whether a stop was asked for.
const LOOK: Duration = Duration::from_millis(50);

/// The queue of lines to stdout. The second element is notified when the line was printed.
static OUT: OnceLock<SyncSender<(FromChild, SyncSender<()>)>> = OnceLock::new();

/// The first line from the worker: who this process is and how it shall run.
pub(crate) struct Begin {
    /// Job, component, generation and index.
    pub(crate) key: ProcessKey,
    /// Worker threads of each process.
    pub(crate) threads: usize,
    /// Processes of the generation.
    pub(crate) processes: usize,
    /// The secret of the generation's mesh.
    pub(crate) secret: String,
    /// The address at which to listen for other processes, without a port.
    pub(crate) host: String,
}

/// The later lines from the worker that the command waits for.
#[derive(Debug)]
pub(crate) struct Updates {
    /// The addresses of all processes, when they come.
    peers: Receiver<Vec<String>>,
}

/// Reads the first line, which must be for `part`. Then a thread reads further lines; `stop` is set
/// when the worker asks for a drain.
///
/// # Errors
///
/// Stdin ended ([`PeerLost`], exit code 3), or the line is not a valid begin for this
/// command.
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
        None => return Err(PeerLost("stdin ended before the first order".into()).into()),
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
                // The receiver is gone when the command does not wait for the addresses any more.
                let _ = tell_peers.send(addresses);
            }
            Ok(Some(ToChild::Drain)) => {
                tracing::info!("the worker asks for a clean end");
                stop.store(true, Relaxed);
            }
            Ok(Some(ToChild::Begin { .. })) => {
                tracing::error!("a second order to begin");
                signal_hook::low_level::exit(ExitCode::Error.into());
            }
            Ok(None) => worker_is_gone("stdin ended"),
            Err(error) => {
                tracing::error!("an order cannot be read: {error:#}");
                signal_hook::low_level::exit(ExitCode::Error.into());
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

/// Reads the next line; `None` when stdin has ended.
///
/// # Errors
///
/// The line is not of this protocol.
fn next(stdin: &mut impl BufRead) -> anyhow::Result<Option<ToChild>> {
    let mut line = String::new();
    let read = stdin.by_ref().take(ORDER_BYTES_MAX).read_line(&mut line);
    if read.context("stdin")? == 0 {
        return Ok(None);
    }
    // A line without an end was cut off by the end of the worker.
    if !line.ends_with('\n') && (line.len() as u64) < ORDER_BYTES_MAX {
        return Ok(None);
    }
    let order = serde_json::from_str(&line);
    // The error does not quote the line, which may contain the mesh's secret.
    order
        .context("is the worker of the same version?")
        .map(Some)
}

/// The thread that prints lines to stdout.
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
        // Most senders do not wait for that.
        let _ = printed.try_send(());
    }
}

/// Ends this process, because its worker is gone.
fn worker_is_gone(why: &str) -> ! {
    tracing::error!("the worker that started this process is gone ({why}): it ends too");
    signal_hook::low_level::exit(ExitCode::PeerLost.into())
}

/// Sends a line to the worker.
pub(crate) fn tell(line: FromChild) {
    if let Some(out) = OUT.get() {
        // The printing thread ends only with the process.
        let _ = out.send((line, sync_channel(1).0));
    }
}

/// Sends the last line before the process ends, and waits a moment until it is printed.
pub(crate) fn tell_at_last(line: FromChild) {
    if let Some(out) = OUT.get() {
        let (printed, is_printed) = sync_channel(1);
        if out.try_send((line, printed)).is_ok() {
            let _ = is_printed.recv_timeout(LAST_WORD_MAX);
        }
    }
}

/// Reports which process was lost, before this process ends for that reason.
pub(crate) fn tell_lost(index: Option<usize>) {
    tell_at_last(FromChild::Unreachable {
        indices: index.into_iter().collect(),
    });
}

/// Starts to send heartbeats, and serves HTTP on a free port of the host. The first heartbeat is
/// queued when this returns, so it comes before `Live`: the master never takes a process without a
/// heartbeat for one that waits for nothing.
///
/// # Errors
///
/// No port is free, or no thread can be started.
pub(crate) fn beat(host: &str, shown: Shown) -> anyhow::Result<()> {
    let http = tidemill_web::serve(
        (host, 0),
        tidemill_web::own_router(shown.clone(), Reach::Cluster)?,
    )?;
    let http = http.to_string();
    let once = move || {
        let beat = FromChild::Heartbeat(Box::new(heartbeat::of(&shown, &http)));
        if let Some(out) = OUT.get() {
            // A dropped heartbeat loses nothing: the next one says everything.
            let _ = out.try_send((beat, sync_channel(1).0));
        }
    };
    once();
    let beats = move || loop {
        thread::sleep(HEARTBEAT_EVERY);
        once();
    };
    thread::Builder::new().name("beat".into()).spawn(beats)?;
    Ok(())
}

impl Updates {
    /// Waits until the worker sends the addresses of all processes. `None` when a stop was asked
    /// for before.
    ///
    /// # Errors
    ///
    /// The thread that reads stdin has ended.
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
