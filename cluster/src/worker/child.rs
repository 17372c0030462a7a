//! One child of a worker: a `tidemill dataflow` or `tidemill ingest`, from its start to its exit
//! status.
//!
//! The worker writes the pipeline's files, starts the child, and exchanges lines of JSON with it
//! over stdin and stdout.
//!
//! ```text
//! worker                                   child
//! start, Begin ──────────stdin───────────► reads who it is
//!              ◄─────────stdout─────────── Listening     (not if it is alone)
//! Peers        ──────────────────────────► connects to the other processes
//!              ◄────────────────────────── Live
//!              ◄────────────────────────── Heartbeat, every 500 ms
//! Drain        ──────────────────────────► completes its epochs, takes a checkpoint
//! reaps it     ◄────────────────────────── exit status, end of stdout and stderr
//! ```
//!
//! In: an assignment. Out: what the child says, as events, and how it ended.
//!
//! Invariants:
//! 1. The end of a child is reported after everything that the child said, unless its output stays
//!    open for longer than [`WORDS_PATIENCE`].
//! 2. All lines to a child (Begin, Peers, Drain) fit into the pipe together, so no write waits.
//! 3. A child is in a process group of its own, so Ctrl-C in a terminal reaches only the worker.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use clap::ValueEnum;
use tidemill_logs::logging::LogArgs;
use tidemill_protocol::{
    Exit, FromChild, Heartbeat, Part, Phase, ProcessAssignment, ProcessKey, ProcessReport, ToChild,
    exit,
};

use super::event::Event;
use super::files;
use super::reconcile::Known;

/// Lines of a child's log and stderr that are reported when it ended.
const TAIL_LINES: usize = 20;
/// Limit of one line from a child, in bytes. A longer line is read in parts.
const SAID_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// How long the worker waits for the rest of the output of a child that ended.
const WORDS_PATIENCE: Duration = Duration::from_secs(1);

/// Variables of the environment that children do not inherit.
const HIDDEN: [&str; 3] = ["TIDEMILL_TOKEN", "TIDEMILL_TOKEN_FILE", "TIDEMILL_MASTER"];

/// Flags of a job's definition that each component takes, by name.
const INGEST_FLAGS: [&str; 2] = ["api", "every"];
const DATAFLOW_FLAGS: [&str; 2] = ["checkpoint-every", "codec"];

/// What all children of a worker have in common.
#[derive(Debug)]
pub(super) struct Setting {
    /// The folder for the pipelines' files.
    pub(super) pipelines: PathBuf,
    /// The folder for the children's log files.
    pub(super) logs: PathBuf,
    /// The address at which children listen for other processes.
    pub(super) host: String,
    /// Log level, format and size, passed on to the children.
    pub(super) log: LogArgs,
}

/// A child, from its start until no assignment names it any more.
#[derive(Debug)]
pub(super) struct Child {
    /// What [`super::reconcile`] decides by.
    pub(super) known: Known,
    /// The child's progress.
    phase: Phase,
    /// The child's newest heartbeat.
    beat: Option<Heartbeat>,
    /// Job, component, generation and index.
    key: ProcessKey,
    /// The folder with the child's pipeline files.
    place: Option<PathBuf>,
    /// The process; `None` if it could not be started.
    process: Option<std::process::Child>,
    /// The child's stdin. Closing it ends the child.
    stdin: Option<ChildStdin>,
    /// The last lines of the child's stderr.
    words: Arc<Mutex<VecDeque<String>>>,
    /// The thread that reads stderr.
    stderr: Option<JoinHandle<()>>,
    /// Whether the child's stdout has ended.
    closed: bool,
    /// The exit status, and when the worker saw it.
    status: Option<(ExitStatus, Instant)>,
    /// Whether the worker killed the child as frozen.
    frozen: bool,
    /// Processes that the child said it lost.
    unreachable: Vec<usize>,
}

impl Child {
    /// Starts an assigned process. A child that cannot be started counts as ended at once, with the
    /// error as its last lines.
    pub(super) fn start(
        order: &ProcessAssignment,
        setting: &Setting,
        events: &SyncSender<Event>,
        now: Instant,
    ) -> Self {
        let mut child = Self::new(order.key.clone(), now);
        if let Err(error) = child.spawn(order, setting, events) {
            tracing::error!("{} cannot be started: {error:#}", files::stem(&order.key));
            let code = i32::from(exit::code_of(&error));
            let tail = error.chain().map(ToString::to_string).collect();
            child.kill();
            // The process is dead: waiting takes no time and leaves no zombie.
            let _ended = child.process.as_mut().map(std::process::Child::wait);
            child.end(Some(code), None, tail);
        }
        child
    }

    /// A child before its start.
    fn new(key: ProcessKey, now: Instant) -> Self {
        Self {
            known: Known {
                ended: false,
                killed: false,
                told_peers: false,
                told_drain: false,
                heard: now,
            },
            phase: Phase::Started,
            beat: None,
            key,
            place: None,
            process: None,
            stdin: None,
            words: Arc::default(),
            stderr: None,
            closed: false,
            status: None,
            frozen: false,
            unreachable: Vec::new(),
        }
    }

    /// Starts the process and its two reading threads, and sends the first line.
    ///
    /// # Errors
    /// The files cannot be written, or the process or a thread cannot be started.
    fn spawn(
        &mut self,
        order: &ProcessAssignment,
        setting: &Setting,
        events: &SyncSender<Event>,
    ) -> anyhow::Result<()> {
        let place = files::write(&setting.pipelines, &order.key, &order.spec)?;
        let binary = std::env::current_exe().context("the binary of this process is not known")?;
        let mut command = Command::new(&binary);
        command.args(arguments(order, &place, setting));
        self.place = Some(place);
        for name in HIDDEN {
            command.env_remove(name);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        command.stderr(Stdio::piped()).process_group(0);
        let spawned = command.spawn();
        let process = self
            .process
            .insert(spawned.with_context(|| format!("cannot start {}", binary.display()))?);
        self.stdin = process.stdin.take();
        let (out, err) = (process.stdout.take(), process.stderr.take());
        let (key, events) = (order.key.clone(), events.clone());
        let name = format!("out-{}", files::stem(&key));
        thread::Builder::new()
            .name(name)
            .spawn(move || hear(out, &key, &events))?;
        let (stem, kept) = (files::stem(&order.key), Arc::clone(&self.words));
        self.stderr = Some(
            thread::Builder::new()
                .name(format!("err-{stem}"))
                .spawn(move || keep(err, &stem, &kept))?,
        );
        tracing::info!(
            pid = self.process.as_ref().map(std::process::Child::id),
            threads = order.threads,
            "{} of generation {} started",
            files::stem(&order.key),
            order.key.generation
        );
        self.tell(&ToChild::Begin {
            key: order.key.clone(),
            threads: order.threads,
            processes: order.processes,
            secret: order.secret.clone(),
            host: setting.host.clone(),
        });
        Ok(())
    }

    /// Sends a line to the child. If the child has ended, [`Child::reap`] notices.
    pub(super) fn tell(&mut self, what: &ToChild) {
        match what {
            ToChild::Peers { .. } => self.known.told_peers = true,
            ToChild::Drain => self.known.told_drain = true,
            ToChild::Begin { .. } => {}
        }
        let Ok(mut line) = serde_json::to_string(what) else {
            return;
        };
        line.push('\n');
        if let Some(stdin) = &mut self.stdin
            && let Err(error) = stdin.write_all(line.as_bytes())
        {
            tracing::debug!("{}: {error}", files::stem(&self.key));
        }
    }

    /// Takes in a line of the child, or the end of its stdout. Returns whether that is worth a
    /// report at once.
    pub(super) fn hear(&mut self, said: Option<FromChild>, now: Instant) -> bool {
        self.known.heard = now;
        match said {
            None => self.closed = true,
            Some(FromChild::Heartbeat(beat)) => self.beat = Some(*beat),
            Some(FromChild::Unreachable { indices }) => self.unreachable = indices,
            Some(FromChild::Listening { address }) if self.phase == Phase::Started => {
                self.phase = Phase::Listening { address };
                return true;
            }
            Some(FromChild::Live) if !matches!(self.phase, Phase::Exited(_)) => {
                self.phase = Phase::Live;
                return true;
            }
            Some(FromChild::Listening { .. } | FromChild::Live) => {}
        }
        false
    }

    /// Kills the child with SIGKILL, which also ends a stopped process.
    pub(super) fn kill(&mut self) {
        self.known.killed = true;
        if let Some(process) = &mut self.process
            && let Err(error) = process.kill()
        {
            tracing::warn!("{} cannot be killed: {error}", files::stem(&self.key));
        }
    }

    /// Kills a child that has sent nothing for too long, and marks it as frozen.
    pub(super) fn kill_frozen(&mut self) {
        self.frozen = true;
        self.kill();
    }

    /// Checks whether the child has ended. Returns true once, when its exit and its last lines are
    /// known.
    pub(super) fn reap(&mut self, logs: &Path, now: Instant) -> bool {
        if self.known.ended {
            return false;
        }
        if self.status.is_none() {
            let waited = self.process.as_mut().map(std::process::Child::try_wait);
            match waited {
                Some(Ok(Some(status))) => self.status = Some((status, now)),
                Some(Err(error)) => tracing::warn!("{}: {error}", files::stem(&self.key)),
                Some(Ok(None)) | None => {}
            }
        }
        let Some((status, since)) = self.status else {
            return false;
        };
        let said_all = self.closed && self.stderr.as_ref().is_none_or(JoinHandle::is_finished);
        if !said_all && now.saturating_duration_since(since) < WORDS_PATIENCE {
            return false;
        }
        let mut tail = tidemill_logs::tail(
            logs,
            &files::stem(&self.key),
            self.key.generation,
            TAIL_LINES,
        );
        let words = self.words.lock().unwrap_or_else(PoisonError::into_inner);
        tail.extend(words.iter().cloned());
        drop(words);
        let surplus = tail.len().saturating_sub(TAIL_LINES);
        tail.drain(..surplus);
        self.end(status.code(), status.signal(), tail);
        true
    }

    /// Whether the child is about to end: its stdout ended, it was killed, or its exit status is
    /// known.
    pub(super) fn is_ending(&self) -> bool {
        !self.known.ended && (self.closed || self.known.killed || self.status.is_some())
    }

    /// Records how the child ended.
    fn end(&mut self, code: Option<i32>, signal: Option<i32>, tail: Vec<String>) {
        self.known.ended = true;
        self.stdin = None;
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let (name, frozen) = (files::stem(&self.key), self.frozen);
        tracing::info!(code, signal, frozen, "{name} ended");
        self.phase = Phase::Exited(Exit {
            code,
            signal,
            frozen: self.frozen,
            unreachable: std::mem::take(&mut self.unreachable),
            at_ms: since.map_or(0, |since| since.as_millis() as u64),
            tail,
        });
    }

    /// The child in a report to the master.
    pub(super) fn report(&self) -> ProcessReport {
        ProcessReport {
            key: self.key.clone(),
            phase: self.phase.clone(),
            beat: self.beat.clone(),
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if let Some(place) = &self.place {
            files::remove(place);
        }
    }
}

/// The command line of a child. Each flag and its value are one argument, so no value can be taken
/// for a flag.
fn arguments(order: &ProcessAssignment, place: &Path, setting: &Setting) -> Vec<String> {
    let spec = &order.spec;
    let mut words = vec![
        order.key.part.name().to_owned(),
        place.display().to_string(),
        "--orders".to_owned(),
        format!("--name={}", spec.name),
        format!("--log-dir={}", setting.logs.display()),
        "--log-files-only".to_owned(),
        format!("--log-size={}", setting.log.log_size),
        format!("--log-keep={}", setting.log.log_keep),
    ];
    if let Some(format) = setting.log.log_format.to_possible_value() {
        words.push(format!("--log-format={}", format.get_name()));
    }
    words.extend(setting.log.log.iter().map(|level| format!("--log={level}")));
    let taken: &[&str] = match order.key.part {
        Part::Ingest => &INGEST_FLAGS,
        Part::Dataflow => &DATAFLOW_FLAGS,
    };
    let flags = spec.flags.iter();
    let flags = flags.filter(|(name, _)| taken.contains(&name.as_str()));
    for (name, value) in spec.connections.iter().chain(flags) {
        words.push(match name.strip_prefix("sink.") {
            Some(sink) => format!("--sink={sink}={value}"),
            None => format!("--{name}={value}"),
        });
    }
    words
}

/// Thread: parses the lines of a child's stdout and sends them as events. The end of stdout is the
/// event `None`.
fn hear(out: Option<impl Read>, key: &ProcessKey, events: &SyncSender<Event>) {
    let send = |said| {
        // The receiver is gone only when the worker ends.
        let (key, said) = (key.clone(), said);
        events.send(Event::Said(key, said)).is_ok()
    };
    let read = lines(out, |line| match serde_json::from_str(line) {
        Ok(said) => send(Some(said)),
        Err(error) => {
            tracing::warn!("{} said `{line}`: {error}", files::stem(key));
            true
        }
    });
    if let Err(error) = read {
        tracing::warn!("{}: {error}", files::stem(key));
    }
    send(None);
}

/// Thread: keeps the last lines of a child's stderr, and logs them in the worker's log.
fn keep(err: Option<impl Read>, stem: &str, kept: &Mutex<VecDeque<String>>) {
    let read = lines(err, |line| {
        tracing::warn!("{stem}: {line}");
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == TAIL_LINES {
            kept.pop_front();
        }
        kept.push_back(line.to_owned());
        true
    });
    if let Err(error) = read {
        tracing::warn!("{stem}: {error}");
    }
}

/// Calls `each` with every line until it returns false. A line longer than [`SAID_BYTES_MAX`] comes
/// in parts.
///
/// # Errors
/// The pipe cannot be read.
fn lines(from: Option<impl Read>, mut each: impl FnMut(&str) -> bool) -> io::Result<()> {
    let Some(from) = from else {
        return Ok(());
    };
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    loop {
        line.clear();
        if from
            .by_ref()
            .take(SAID_BYTES_MAX)
            .read_until(b'\n', &mut line)?
            == 0
        {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&line);
        if !each(text.trim_end()) {
            return Ok(());
        }
    }
}
