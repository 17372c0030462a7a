//! The master's mailbox and thread: a bounded queue feeds the state machine, and its actions are
//! carried out.
//!
//! In: messages from HTTP handlers, from the thread that writes documents, and from threads that
//! mint generations. Each message carries the time at which it was sent. Out: replies, assignments,
//! documents, and log lines.
//!
//! ```text
//! HTTP handlers ──try_send──►┌─────────┐       ┌───────────────┐──Reply──► HTTP handlers
//! thread `store` ───send────►│ mailbox │──────►│ state machine │──Write──► thread `store`
//! threads `mint` ───send────►└─────────┘       └───────────────┘──Mint───► threads `mint`
//! ```
//!
//! 1. This thread never waits for the store or the network. Other threads write documents and mint
//!    generations, and send the results as messages.
//! 2. When the queue is full, an HTTP handler fails at once with [`Busy`] (HTTP 503), and the
//!    worker or client tries again.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use tidemill_log::Kind;
use tidemill_log::backoff::Backoff;
use tidemill_protocol::{Assignment, JobSpec, Report, Status, WorkerId};
use tidemill_state::{journal, store};
use tokio::sync::{oneshot, watch};

use super::state_log::{StateLog, Written};
use super::transition_log::Logged;
use crate::machine::durable::{Author, Durable};
use crate::machine::event::{Action, Command, Event, Minted, Refusal, Unminted};
use crate::machine::{State, status};

/// Limit of messages in the queue.
const MESSAGES_MAX: usize = 4096;
/// How often the state machine receives [`Event::Tick`].
const TICK: Duration = Duration::from_millis(100);
/// How often an idle writer checks whether another master took over.
const LOOK: Duration = Duration::from_secs(1);
/// Longest pause between attempts to reach the store.
const STORE_PAUSE_MAX: Duration = Duration::from_secs(2);

/// A message to the master's thread.
enum Message {
    /// An event without a reply.
    Event(Event),
    /// A worker's report. The reply is the worker's assignment, or `None` when the master has no
    /// room for another worker.
    Report(Box<Report>, oneshot::Sender<Option<Arc<Assignment>>>),
    /// A user's command. The reply comes after the change is durable.
    Command(Command, oneshot::Sender<Result<String, Refusal>>),
    /// A request for the whole status.
    Status(oneshot::Sender<Status>),
    /// Another master took over, which ends this one.
    Overtaken(Author),
    /// The state cannot be written, and trying again does not help: this master ends.
    Broken(anyhow::Error),
}

/// Handle to the master's thread, for HTTP handlers. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Mailbox {
    messages: SyncSender<(u64, Message)>,
    clock: Clock,
    shown: Arc<Shown>,
}

/// What HTTP handlers read without a message to the master's thread.
#[derive(Default)]
struct Shown {
    /// The current assignment of each worker; long polls wait for a newer one.
    orders: Mutex<BTreeMap<WorkerId, watch::Sender<Arc<Assignment>>>>,
    /// The store does not answer. Then the master is not ready (`/readyz` is 503).
    store_away: AtomicBool,
}

/// The queue is full, or the master is ending.
#[derive(Debug)]
pub(crate) struct Busy;

/// A clock in milliseconds since 1970 that never goes back: the wall clock at the start plus a
/// monotonic clock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    began: Instant,
    began_ms: u64,
}

impl Clock {
    /// Reads the wall clock once.
    pub(crate) fn start() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let began_ms = since.map_or(0, |it| u64::try_from(it.as_millis()).unwrap_or(0));
        let began = Instant::now();
        Self { began, began_ms }
    }

    /// Milliseconds since 1970.
    pub(crate) fn now(&self) -> u64 {
        let passed = self.began.elapsed().as_millis();
        self.began_ms + u64::try_from(passed).unwrap_or(u64::MAX / 2)
    }
}

impl Mailbox {
    /// Puts a message into the queue without waiting.
    fn send(&self, message: Message) -> Result<(), Busy> {
        let sent = self.messages.try_send((self.clock.now(), message));
        sent.map_err(|error| match error {
            TrySendError::Full(_) | TrySendError::Disconnected(_) => Busy,
        })
    }

    /// Delivers a worker's report.
    ///
    /// Returns the worker's assignment, or `None` when the master has no room for another worker.
    ///
    /// # Errors
    ///
    /// [`Busy`]: the worker sends its next report in any case.
    pub(crate) async fn report(&self, report: Report) -> Result<Option<Arc<Assignment>>, Busy> {
        let (answer, answered) = oneshot::channel();
        self.send(Message::Report(Box::new(report), answer))?;
        answered.await.map_err(|_| Busy)
    }

    /// Carries out a user's command and waits until its change is durable.
    ///
    /// # Errors
    ///
    /// The outer error is [`Busy`]. The inner one is the master's [`Refusal`].
    pub(crate) async fn command(&self, command: Command) -> Result<Result<String, Refusal>, Busy> {
        let (answer, answered) = oneshot::channel();
        self.send(Message::Command(command, answer))?;
        answered.await.map_err(|_| Busy)
    }

    /// The status of the master, all workers and all jobs.
    pub(crate) async fn status(&self) -> Result<Status, Busy> {
        let (answer, answered) = oneshot::channel();
        self.send(Message::Status(answer))?;
        answered.await.map_err(|_| Busy)
    }

    /// The assignment of a worker, now and after each change; `None` for a worker that has not
    /// reported to this master.
    pub(crate) fn orders(&self, worker: &str) -> Option<watch::Receiver<Arc<Assignment>>> {
        let orders = self.shown.orders.lock();
        let orders = orders.unwrap_or_else(PoisonError::into_inner);
        orders.get(worker).map(watch::Sender::subscribe)
    }

    /// Reports the begin or the end of a worker's long poll. A full queue drops the event, which is
    /// harmless: a worker that is gone is also noticed by its silence.
    pub(crate) fn tell(&self, event: Event) {
        let _said_later = self.send(Message::Event(event));
    }

    /// Readiness: whether the store of the master's state answers.
    pub(crate) fn is_ready(&self) -> bool {
        !self.shown.store_away.load(Ordering::Relaxed)
    }
}

/// The master's thread: the state machine and its surroundings.
pub(crate) struct Master {
    state: State,
    mailbox: Mailbox,
    /// The receiving end of the mailbox.
    messages: Receiver<(u64, Message)>,
    /// The queue to the thread that writes documents; holds one document.
    documents: SyncSender<(u64, Durable)>,
    /// Who waits for the reply to a command, by request number.
    answers: BTreeMap<u64, oneshot::Sender<Result<String, Refusal>>>,
    /// The number of the last request.
    requests: u64,
    logged: Logged,
}

impl Master {
    /// Builds the master of a state that [`StateLog::take_over`] returned, and starts the thread
    /// that writes documents.
    ///
    /// # Errors
    ///
    /// The thread cannot be started.
    pub(crate) fn new(durable: Durable, state_log: StateLog) -> anyhow::Result<Self> {
        let (messages, heard) = sync_channel(MESSAGES_MAX);
        let (documents, to_write) = sync_channel(1);
        let clock = Clock::start();
        let mailbox = Mailbox {
            messages,
            clock,
            shown: Arc::default(),
        };
        let state = State::new(durable, clock.now());
        let writer = Writer {
            number: state.number(),
            state_log,
            mailbox: mailbox.clone(),
        };
        thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || writer.run(&to_write))?;
        Ok(Self {
            state,
            mailbox,
            messages: heard,
            documents,
            answers: BTreeMap::new(),
            requests: 0,
            logged: Logged::default(),
        })
    }

    /// A handle to this thread.
    pub(crate) fn mailbox(&self) -> Mailbox {
        self.mailbox.clone()
    }

    /// Runs the state machine until `stop` is set.
    ///
    /// # Errors
    ///
    /// Another master took over, the state cannot be written, or a thread cannot be started.
    pub(crate) fn run(mut self, stop: &AtomicBool) -> anyhow::Result<()> {
        let mut ticked = 0;
        while !stop.load(Ordering::Relaxed) {
            match self.messages.recv_timeout(TICK) {
                Ok((now, message)) => self.take(message, now)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            // The tick has the current time. A queued message has the earlier time at which it was
            // sent.
            let now = self.mailbox.clock.now();
            if now >= ticked + TICK.as_millis() as u64 {
                ticked = now;
                self.drain_messages()?;
                self.next(Event::Tick, now)?;
            }
        }
        tracing::info!("stops; what runs goes on");
        Ok(())
    }

    /// Processes the queued messages before a tick: a waiting report proves that its worker is
    /// alive.
    fn drain_messages(&mut self) -> anyhow::Result<()> {
        for _ in 0..MESSAGES_MAX {
            let Ok((now, message)) = self.messages.try_recv() else {
                break;
            };
            self.take(message, now)?;
        }
        Ok(())
    }

    /// Processes one message with the time at which it was sent.
    fn take(&mut self, message: Message, now: u64) -> anyhow::Result<()> {
        match message {
            Message::Event(event) => self.next(event, now),
            Message::Report(report, answer) => {
                let worker = report.worker.clone();
                self.next(Event::Report(*report), now)?;
                // The handler may have ended meanwhile.
                let _unheard = answer.send(self.state.orders.get(&worker).cloned());
                Ok(())
            }
            Message::Command(command, answer) => {
                self.requests += 1;
                let request = self.requests;
                self.answers.insert(request, answer);
                self.next(Event::Command { request, command }, now)
            }
            Message::Status(answer) => {
                let _unheard = answer.send(status::of(&self.state));
                Ok(())
            }
            Message::Overtaken(by) => {
                let number = self.state.author().generation;
                anyhow::bail!(
                    "another master took over from this one, which was generation {number}: \
                     {by}; this one ends, and all jobs go on"
                )
            }
            Message::Broken(error) => Err(error),
        }
    }

    /// Runs the state machine with one event, carries out its actions, then publishes the new
    /// assignments and logs the changes.
    fn next(&mut self, event: Event, now: u64) -> anyhow::Result<()> {
        for action in self.state.next(event, now) {
            match action {
                Action::Write { number, document } => {
                    // At most one document is written at a time, so the queue has room.
                    let sent = self.documents.send((number, document));
                    sent.map_err(|_| anyhow::anyhow!("the thread that writes has ended"))?;
                }
                Action::Mint { job, spec } => self.mint(job, spec)?,
                Action::Reply { request, answer } => {
                    if let Some(waits) = self.answers.remove(&request) {
                        let _unheard = waits.send(answer);
                    }
                }
            }
        }
        self.show_orders();
        self.logged.tell(&self.state);
        Ok(())
    }

    /// Publishes the assignments of all workers. Long polls wake up when the version changed.
    fn show_orders(&self) {
        let shown = self.mailbox.shown.orders.lock();
        let mut shown = shown.unwrap_or_else(PoisonError::into_inner);
        shown.retain(|worker, _| self.state.orders.contains_key(worker));
        for (worker, orders) in &self.state.orders {
            match shown.get(worker) {
                None => {
                    let (sender, _) = watch::channel(Arc::clone(orders));
                    shown.insert(worker.clone(), sender);
                }
                Some(sender) => {
                    sender.send_if_modified(|shown| {
                        let is_new = shown.version != orders.version;
                        *shown = Arc::clone(orders);
                        is_new
                    });
                }
            }
        }
    }

    /// Mints a generation on a thread of its own, because the journal may be slow or down.
    fn mint(&self, job: String, spec: Arc<JobSpec>) -> anyhow::Result<()> {
        let mailbox = self.mailbox.clone();
        let mint = move || {
            let minted = mint(&spec);
            let event = Event::Minted { job, minted };
            let now = mailbox.clock.now();
            // The receiver is gone when the master has ended.
            let _unheard = mailbox.messages.send((now, Message::Event(event)));
        };
        let started = thread::Builder::new().name("mint".to_owned()).spawn(mint);
        started.context("no thread can be started")?;
        Ok(())
    }
}

/// Opens a job's store and journal and makes the next generation, with a new secret for its mesh.
///
/// # Errors
///
/// [`Unminted`], which says whether the master tries again.
fn mint(spec: &JobSpec) -> Result<Minted, Unminted> {
    let url = spec.connections.get("state").map_or("", String::as_str);
    let minted = store::open(url).and_then(|store| journal::mint(store, &spec.name));
    let generation = minted.map_err(|error| Unminted {
        may_mend: matches!(error.kind(), Kind::Retry | Kind::Fence),
        what: format!("{:#}", anyhow::Error::new(error)),
    })?;
    let secret: [u8; 32] = rand::random();
    let secret = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Minted { generation, secret })
}

/// The thread `store`: writes documents, and checks whether another master took over.
struct Writer {
    /// The number of the last document that was written.
    number: u64,
    state_log: StateLog,
    mailbox: Mailbox,
}

impl Writer {
    /// Writes each document that comes. While none comes, checks once per [`LOOK`] for a newer
    /// master.
    fn run(mut self, documents: &Receiver<(u64, Durable)>) {
        loop {
            let message = match documents.recv_timeout(LOOK) {
                Ok((number, document)) => {
                    self.number = number;
                    let written = self.insist(|state_log| state_log.write(number, &document));
                    match written {
                        Ok(Written::Done) => Message::Event(Event::Wrote(number)),
                        Ok(Written::Overtaken(by)) => Message::Overtaken(by),
                        Err(error) => Message::Broken(error),
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    let number = self.number;
                    match self.insist(|state_log| state_log.overtaken(number)) {
                        Ok(None) => continue,
                        Ok(Some(by)) => Message::Overtaken(by),
                        Err(error) => Message::Broken(error),
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let now = self.mailbox.clock.now();
            if self.mailbox.messages.send((now, message)).is_err() {
                return;
            }
        }
    }

    /// Asks the store until it answers.
    ///
    /// # Errors
    ///
    /// An error of any other kind than `Retry`.
    fn insist<T>(&self, ask: impl Fn(&StateLog) -> anyhow::Result<T>) -> anyhow::Result<T> {
        let mut backoff = Backoff::new(TICK, STORE_PAUSE_MAX);
        loop {
            let error = match ask(&self.state_log) {
                Ok(answer) => {
                    if self.mailbox.shown.store_away.swap(false, Ordering::Relaxed) {
                        tracing::info!("the store answers again");
                    }
                    return Ok(answer);
                }
                Err(error) => error,
            };
            let kind = error
                .downcast_ref::<tidemill_log::Error>()
                .map(|it| it.kind());
            if kind != Some(Kind::Retry) {
                return Err(error.context("the master's state cannot be written"));
            }
            if !self.mailbox.shown.store_away.swap(true, Ordering::Relaxed) {
                tracing::warn!("the store is away, nothing changes until it is back: {error:#}");
            }
            thread::sleep(backoff.pause());
        }
    }
}
