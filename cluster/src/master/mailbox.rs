//! The master's thread: the state machine, fed by a bounded queue, and what it decides carried out.
//!
//! In: messages of the HTTP handlers, of the thread that writes documents and of those that mint,
//! each with the time at which it came. Out: answers, orders for whoever waits for them, documents,
//! and log lines.
//!
//! 1. Nothing here waits for the store or the network: documents and generations are written on
//!    threads of their own and come back as messages.
//! 2. When the queue is full a handler is told so at once, and the worker tries again.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use tidemill_dataflow::{Kind, journal, store};
use tidemill_log::backoff::Backoff;
use tokio::sync::{oneshot, watch};

use super::durable::{Author, Durable};
use super::event::{Action, Command, Event, Minted, Refusal, Unminted};
use super::state::State;
use super::state_log::{Book, Written};
use super::status;
use super::transition_log::Spoken;
use crate::protocol::{Assignment, JobSpec, Report, Status, WorkerId};

/// Messages that wait for the master's thread.
const MESSAGES_MAX: usize = 4096;
/// How often the state machine sees the time when nothing happens.
const TICK: Duration = Duration::from_millis(100);
/// How often it is looked whether another master took over.
const LOOK: Duration = Duration::from_secs(1);
/// The longest pause before a store that is away is tried again.
const STORE_PAUSE_MAX: Duration = Duration::from_secs(2);

/// What the master's thread hears.
enum Message {
    Event(Event),
    /// The answer says that the report was taken in.
    Report(Box<Report>, oneshot::Sender<Option<Arc<Assignment>>>),
    Command(Command, oneshot::Sender<Result<String, Refusal>>),
    Status(oneshot::Sender<Status>),
    Overtaken(Author),
    Broken(anyhow::Error),
}

/// The way to the master's thread.
#[derive(Clone)]
pub(crate) struct Desk {
    messages: SyncSender<(u64, Message)>,
    clock: Clock,
    shown: Arc<Shown>,
}

/// What handlers look at without asking.
#[derive(Default)]
struct Shown {
    orders: Mutex<BTreeMap<WorkerId, watch::Sender<Arc<Assignment>>>>,
    /// The store does not answer.
    store_away: AtomicBool,
}

/// The master has too much to do, or ends.
#[derive(Debug)]
pub(crate) struct Busy;

/// Milliseconds since 1970 that never go back.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    began: Instant,
    began_ms: u64,
}

impl Clock {
    pub(crate) fn start() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let began_ms = since.map_or(0, |it| u64::try_from(it.as_millis()).unwrap_or(0));
        let began = Instant::now();
        Self { began, began_ms }
    }

    pub(crate) fn now(&self) -> u64 {
        let passed = self.began.elapsed().as_millis();
        self.began_ms + u64::try_from(passed).unwrap_or(u64::MAX / 2)
    }
}

impl Desk {
    fn send(&self, message: Message) -> Result<(), Busy> {
        let sent = self.messages.try_send((self.clock.now(), message));
        sent.map_err(|error| match error {
            TrySendError::Full(_) | TrySendError::Disconnected(_) => Busy,
        })
    }

    /// Takes a report in; the worker's orders, or none when there is no room for the worker.
    pub(crate) async fn report(&self, report: Report) -> Result<Option<Arc<Assignment>>, Busy> {
        let (answer, answered) = oneshot::channel();
        self.send(Message::Report(Box::new(report), answer))?;
        answered.await.map_err(|_| Busy)
    }

    /// Does what is asked, durably.
    pub(crate) async fn command(&self, command: Command) -> Result<Result<String, Refusal>, Busy> {
        let (answer, answered) = oneshot::channel();
        self.send(Message::Command(command, answer))?;
        answered.await.map_err(|_| Busy)
    }

    /// Everything at a glance.
    pub(crate) async fn status(&self) -> Result<Status, Busy> {
        let (answer, answered) = oneshot::channel();
        self.send(Message::Status(answer))?;
        answered.await.map_err(|_| Busy)
    }

    /// The orders of a worker that reported, now and later.
    pub(crate) fn orders(&self, worker: &str) -> Option<watch::Receiver<Arc<Assignment>>> {
        let orders = self.shown.orders.lock();
        let orders = orders.unwrap_or_else(PoisonError::into_inner);
        orders.get(worker).map(watch::Sender::subscribe)
    }

    /// Something happened to a worker's wait for orders. When there is no room for that, silence
    /// says the same, later.
    pub(crate) fn tell(&self, event: Event) {
        let _said_later = self.send(Message::Event(event));
    }

    /// Whether the master can do its work.
    pub(crate) fn is_ready(&self) -> bool {
        !self.shown.store_away.load(Ordering::Relaxed)
    }
}

/// The state machine and what it needs.
pub(crate) struct Master {
    state: State,
    desk: Desk,
    messages: Receiver<(u64, Message)>,
    documents: SyncSender<(u64, Durable)>,
    answers: BTreeMap<u64, oneshot::Sender<Result<String, Refusal>>>,
    requests: u64,
    spoken: Spoken,
}

impl Master {
    /// A master that took over with `durable`.
    pub(crate) fn new(durable: Durable, book: Book) -> anyhow::Result<Self> {
        let (messages, heard) = sync_channel(MESSAGES_MAX);
        let (documents, to_write) = sync_channel(1);
        let clock = Clock::start();
        let desk = Desk {
            messages,
            clock,
            shown: Arc::default(),
        };
        let state = State::new(durable, clock.now());
        let writer = Writer {
            number: state.number(),
            book,
            desk: desk.clone(),
        };
        thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || writer.run(&to_write))?;
        Ok(Self {
            state,
            desk,
            messages: heard,
            documents,
            answers: BTreeMap::new(),
            requests: 0,
            spoken: Spoken::default(),
        })
    }

    pub(crate) fn desk(&self) -> Desk {
        self.desk.clone()
    }

    /// Goes on until it is stopped, or another master took over.
    pub(crate) fn run(mut self, stop: &AtomicBool) -> anyhow::Result<()> {
        let mut ticked = 0;
        while !stop.load(Ordering::Relaxed) {
            match self.messages.recv_timeout(TICK) {
                Ok((now, message)) => self.take(message, now)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            // With its own time, which is that of the last message while some wait.
            let now = self.desk.clock.now();
            if now >= ticked + TICK.as_millis() as u64 {
                ticked = now;
                self.drain_messages()?;
                self.next(Event::Tick, now)?;
            }
        }
        tracing::info!("stops; what runs goes on");
        Ok(())
    }

    /// Takes in what came before now: a report that waits here says that its worker is there.
    fn drain_messages(&mut self) -> anyhow::Result<()> {
        for _ in 0..MESSAGES_MAX {
            let Ok((now, message)) = self.messages.try_recv() else {
                break;
            };
            self.take(message, now)?;
        }
        Ok(())
    }

    fn take(&mut self, message: Message, now: u64) -> anyhow::Result<()> {
        match message {
            Message::Event(event) => self.next(event, now),
            Message::Report(report, answer) => {
                let worker = report.worker.clone();
                self.next(Event::Report(*report), now)?;
                // Whoever asked may be gone.
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

    fn next(&mut self, event: Event, now: u64) -> anyhow::Result<()> {
        for action in self.state.next(event, now) {
            match action {
                Action::Write { number, document } => {
                    // One at a time, so there is room.
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
        self.spoken.tell(&self.state);
        Ok(())
    }

    fn show_orders(&self) {
        let shown = self.desk.shown.orders.lock();
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

    fn mint(&self, job: String, spec: Arc<JobSpec>) -> anyhow::Result<()> {
        let desk = self.desk.clone();
        let mint = move || {
            let minted = mint(&spec);
            let event = Event::Minted { job, minted };
            let now = desk.clock.now();
            // Nobody hears it when the master has ended.
            let _unheard = desk.messages.send((now, Message::Event(event)));
        };
        let started = thread::Builder::new().name("mint".to_owned()).spawn(mint);
        started.context("no thread can be started")?;
        Ok(())
    }
}

/// Lets a job's journal have its next generation.
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

/// Writes documents, and looks whether another master does.
struct Writer {
    /// The last number that was written.
    number: u64,
    book: Book,
    desk: Desk,
}

impl Writer {
    fn run(mut self, documents: &Receiver<(u64, Durable)>) {
        loop {
            let message = match documents.recv_timeout(LOOK) {
                Ok((number, document)) => {
                    self.number = number;
                    let written = self.insist(|book| book.write(number, &document));
                    match written {
                        Ok(Written::Done) => Message::Event(Event::Wrote(number)),
                        Ok(Written::Overtaken(by)) => Message::Overtaken(by),
                        Err(error) => Message::Broken(error),
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    let number = self.number;
                    match self.insist(|book| book.overtaken(number)) {
                        Ok(None) => continue,
                        Ok(Some(by)) => Message::Overtaken(by),
                        Err(error) => Message::Broken(error),
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let now = self.desk.clock.now();
            if self.desk.messages.send((now, message)).is_err() {
                return;
            }
        }
    }

    /// Tries until the store is there.
    fn insist<T>(&self, ask: impl Fn(&Book) -> anyhow::Result<T>) -> anyhow::Result<T> {
        let mut backoff = Backoff::new(TICK, STORE_PAUSE_MAX);
        loop {
            let error = match ask(&self.book) {
                Ok(answer) => {
                    if self.desk.shown.store_away.swap(false, Ordering::Relaxed) {
                        tracing::info!("the store answers again");
                    }
                    return Ok(answer);
                }
                Err(error) => error,
            };
            let kind = error
                .downcast_ref::<tidemill_dataflow::Error>()
                .map(|it| it.kind());
            if kind != Some(Kind::Retry) {
                return Err(error.context("the master's state cannot be written"));
            }
            if !self.desk.shown.store_away.swap(true, Ordering::Relaxed) {
                tracing::warn!("the store is away, nothing changes until it is back: {error:#}");
            }
            thread::sleep(backoff.pause());
        }
    }
}
