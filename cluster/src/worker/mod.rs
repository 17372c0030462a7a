//! `tidemill worker`: the agent of a cluster on one machine, like Flink's TaskManager. It offers
//! slots to a master and runs the assigned processes as children.
//!
//! ```text
//!         assignment          event            start, kill, Begin, Peers, Drain
//! master ───────────► link ─────────► worker ───────────────────────────────► child
//!        ◄───────────      ◄─────────        ◄───────────────────────────────
//!           report             report          Listening, Live, heartbeats, exit
//! ```
//!
//! In: assignments, what the children say, signals. Out: reports, lines to the children, and an end
//! of each child that is not assigned. [`reconcile`] decides what to do, [`child`] does it to one
//! process, [`link`] talks to the master, [`serve`] answers over HTTP.
//!
//! Invariants:
//! 1. One thread owns all state. It waits neither for the master nor for a child, except while the
//!    worker leaves.
//! 2. A master that does not answer disturbs no child.
//! 3. No child outlives this process: the child's stdin ends, and then the child ends.
//! 4. Every queue is bounded: [`EVENTS_MAX`].

mod child;
mod event;
pub(crate) mod files;
mod link;
mod reconcile;
mod serve;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::UdpSocket;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use child::{Child, Setting};
use clap::Args;
use event::Event;
use link::Link;
use reconcile::Action;
use tidemill_logs::logging;
use tidemill_logs::logging::{LogArgs, Origin};
use tidemill_protocol::api::{Master, WhichMaster};
use tidemill_protocol::exit::Usage;
use tidemill_protocol::token::Token;
use tidemill_protocol::{Assignment, ProcessAssignment, ProcessKey, Report, ToChild, exit};

/// Limit of events in the queue. A sender waits when it is full.
const EVENTS_MAX: usize = 1024;
/// Time between two reports when nothing changes.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// How often the worker checks its children and the assignment when no event comes.
const LOOK: Duration = Duration::from_millis(100);
/// The same while a child is ending.
const ENDING_LOOK: Duration = Duration::from_millis(5);
/// A gap of this length between two checks means that this process itself did not run. Then no
/// child counts as silent for that time.
const HELD: Duration = Duration::from_secs(2);
/// How long the children may drain when the worker is asked to end. Then they are killed.
const LEAVE_PATIENCE: Duration = Duration::from_secs(45);
/// Limit of a worker's name, in characters.
const WORKER_NAME_LEN_MAX: usize = 64;

#[derive(Debug, Args)]
pub(crate) struct WorkerArgs {
    #[command(flatten)]
    pub(crate) master: WhichMaster,
    /// Worker threads that it offers
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) slots: u16,
    /// What people call it [default: HOST-PID]
    #[arg(long, value_name = "NAME", value_parser = name)]
    pub(crate) name: Option<String>,
    /// The address that other workers reach this machine by [default: the one that the way to the
    /// master begins at]
    #[arg(long, value_name = "ADDR")]
    pub(crate) host: Option<String>,
    /// Where it answers over HTTP [default: a free port of --host]
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) http: Option<String>,
    /// The folder for pipelines and logs
    #[arg(long, value_name = "DIR", default_value = "tidemill-worker")]
    pub(crate) dir: PathBuf,
    #[command(flatten)]
    pub(crate) log: LogArgs,
}

/// Parses `--name`.
fn name(given: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let good = given.chars().all(fits) && given.starts_with(|c: char| c.is_ascii_alphanumeric());
    if !good || given.len() > WORKER_NAME_LEN_MAX {
        let right = "letters, digits, `-`, `_` and `.`, the first a letter or a digit";
        return Err(format!("expected 1 to {WORKER_NAME_LEN_MAX} {right}"));
    }
    Ok(given.to_owned())
}

/// Runs a worker until SIGTERM or Ctrl-C. Then the children drain for at most [`LEAVE_PATIENCE`].
///
/// # Errors
///
/// * [`Usage`] (exit code 2): the master's URL or a flag is invalid.
/// * Another worker uses the folder, no route leads to the master, the port is in use, or a thread
///   cannot be started.
/// * The master refuses this worker, for example because of a wrong token, and has accepted no
///   report of it before.
pub(crate) fn run(args: &WorkerArgs) -> anyhow::Result<()> {
    let master = Master::new(&args.master)?;
    let pid = std::process::id();
    let name = match &args.name {
        Some(name) => name.clone(),
        None => format!("{}-{pid}", machine()),
    };
    let folder = args.dir.join(&name);
    let logs = match &args.log.log_dir {
        Some(logs) => logs.join(&name),
        None => folder.join("logs"),
    };
    let _lock = alone(&folder, &name)?;
    let mut log = args.log.clone();
    log.log_dir = Some(logs.clone());
    let origin = Origin {
        part: "worker",
        ..Origin::default()
    };
    logging::start(&log, "info", &origin)?;
    exit::exit_on_panic();
    let stop = exit::stop_on_signal()?;
    let host = match &args.host {
        Some(host) => host.clone(),
        None => near(&master)?,
    };
    let at = args
        .http
        .clone()
        .unwrap_or_else(|| match host.contains(':') {
            true => format!("[{host}]:0"),
            false => format!("{host}:0"),
        });
    let (listener, bound) = serve::listen(&at)?;
    let http = match bound.ip().is_unspecified() {
        true => format!("{host}:{}", bound.port()),
        false => bound.to_string(),
    };
    let pipelines = folder.join("pipelines");
    files::remove(&pipelines);
    tracing::info!(slots = args.slots, host, http, "worker {name} starts");
    let (events, heard) = mpsc::sync_channel(EVENTS_MAX);
    let token = master.token().map(Token::new).transpose()?;
    let id = format!("{:016x}", rand::random::<u64>());
    let link = Link::start(master, id.clone(), &events)?;
    serve::start(
        listener,
        Arc::clone(&link),
        (name.clone(), logs.clone()),
        token,
    )?;
    let worker = Worker {
        id,
        name,
        http,
        slots: usize::from(args.slots),
        setting: Setting {
            pipelines,
            logs,
            host,
            log,
        },
        children: BTreeMap::new(),
        orders: None,
        sequence: 0,
        events,
        link,
    };
    worker.run(&heard, &stop)
}

/// The host name up to the first dot, as the default begin of a worker's name.
fn machine() -> String {
    let known = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let known = known.split('.').next().unwrap_or_default().trim();
    match name(known) {
        Ok(name) => name,
        Err(_) => "worker".to_owned(),
    }
}

/// Locks the worker's folder until the file is dropped. Two workers of one name would overwrite
/// each other's files.
///
/// # Errors
///
/// Another worker holds the lock, or the folder cannot be written.
fn alone(folder: &std::path::Path, name: &str) -> anyhow::Result<File> {
    let opened = || -> std::io::Result<File> {
        fs::create_dir_all(folder)?;
        let mut open = File::options();
        open.create(true)
            .truncate(false)
            .write(true)
            .open(folder.join("lock"))
    };
    let file = opened().with_context(|| format!("--dir: cannot write to {}", folder.display()))?;
    file.try_lock().map_err(|_| {
        anyhow!(
            "another worker named {name} runs in {}; give this one a --name or a --dir of its own",
            folder.display()
        )
    })?;
    Ok(file)
}

/// The address of this machine from which the route to the master starts: the default of `--host`.
/// Nothing is sent, because connecting a UDP socket only chooses a route.
fn near(master: &Master) -> anyhow::Result<String> {
    let (host, port) = master
        .host_and_port()
        .ok_or_else(|| Usage("--master: expected http://host:port".to_owned()))?;
    let way = || -> std::io::Result<String> {
        let any = if host.contains(':') {
            "[::]:0"
        } else {
            "0.0.0.0:0"
        };
        let socket = UdpSocket::bind(any)?;
        socket.connect((host, port))?;
        Ok(socket.local_addr()?.ip().to_string())
    };
    way().with_context(|| {
        format!("there is no way to the master at {host}:{port}; see --master, or give --host")
    })
}

/// The worker: all its state, owned by one thread.
struct Worker {
    /// A random id, new in each start.
    id: String,
    /// The name for people.
    name: String,
    /// The address of the worker's HTTP server.
    http: String,
    /// Slots that the worker offers; 0 once it leaves.
    slots: usize,
    /// What all children have in common.
    setting: Setting,
    /// The children, also those that ended and are still assigned.
    children: BTreeMap<ProcessKey, Child>,
    /// The assignment that the worker follows; `None` before the first.
    orders: Option<Assignment>,
    /// The number of the last report.
    sequence: u64,
    /// Where children send their events.
    events: SyncSender<Event>,
    /// The connection to the master.
    link: Arc<Link>,
}

impl Worker {
    /// The main loop: take in events, reap children, act on the assignment, report.
    fn run(mut self, heard: &Receiver<Event>, stop: &AtomicBool) -> anyhow::Result<()> {
        let mut looked = Instant::now();
        let mut reported: Option<Instant> = None;
        let mut leaving: Option<Instant> = None;
        loop {
            let ending = self.children.values().any(Child::is_ending);
            let mut changed = self.hear(heard, if ending { ENDING_LOOK } else { LOOK })?;
            let now = Instant::now();
            if now.saturating_duration_since(looked) >= HELD {
                tracing::warn!("this process was held; its children may have been heard late");
                self.children
                    .values_mut()
                    .for_each(|child| child.known.heard = now);
            }
            looked = now;
            for child in self.children.values_mut() {
                changed |= child.reap(&self.setting.logs, now);
            }
            if leaving.is_none() && stop.load(Relaxed) {
                tracing::info!(children = self.children.len(), "leaving");
                leaving = Some(now);
                self.slots = 0;
                self.children
                    .values_mut()
                    .for_each(|child| child.tell(&ToChild::Drain));
                changed = true;
            }
            changed |= self.act(now, leaving.is_some());
            if let Some(since) = leaving {
                let out_of_time = now.saturating_duration_since(since) >= LEAVE_PATIENCE;
                if out_of_time || self.children.values().all(|child| child.known.ended) {
                    return self.leave(heard, out_of_time);
                }
            }
            let due = reported.is_none_or(|at| now.saturating_duration_since(at) >= REPORT_EVERY);
            if changed || due {
                let report = self.report();
                self.link.report(report);
                reported = Some(now);
            }
        }
    }

    /// Takes in the events that wait, or waits `patience` for one. Returns whether something
    /// changed.
    ///
    /// # Errors
    ///
    /// The master refuses this worker.
    fn hear(&mut self, heard: &Receiver<Event>, patience: Duration) -> anyhow::Result<bool> {
        let mut changed = false;
        let mut next = heard.recv_timeout(patience).ok();
        // At most one full queue, so that the children are checked meanwhile.
        for _ in 0..EVENTS_MAX {
            let Some(event) = next else {
                break;
            };
            match event {
                Event::Said(key, said) => {
                    if let Some(child) = self.children.get_mut(&key) {
                        changed |= child.hear(said, Instant::now());
                    }
                }
                Event::Assignment(orders) => {
                    if reconcile::newer(&orders, self.orders.as_ref()) {
                        self.link.follows(orders.version);
                        self.orders = Some(orders);
                    }
                }
                Event::Refused(why) => return Err(anyhow!("{why}")),
            }
            next = heard.try_recv().ok();
        }
        Ok(changed)
    }

    /// Acts on the difference between the assignment and the children. Returns whether something
    /// changed. A worker that leaves starts nothing.
    fn act(&mut self, now: Instant, leaving: bool) -> bool {
        let Some(orders) = &self.orders else {
            return false;
        };
        let known = self.children.iter();
        let known = known
            .map(|(key, child)| (key.clone(), child.known))
            .collect();
        let mut changed = false;
        for action in reconcile::actions(&known, orders, now) {
            changed |= match action {
                Action::Start(order) if !leaving => self.start(&order, now),
                Action::Start(_) => false,
                Action::Forget(key) => self.children.remove(&key).is_some(),
                Action::Tell(key, addresses) => {
                    self.with(&key, |child| child.tell(&ToChild::Peers { addresses }))
                }
                Action::Drain(key) => self.with(&key, |child| child.tell(&ToChild::Drain)),
                Action::Kill(key) => self.with(&key, |child| {
                    tracing::info!("{} is not wanted any more", files::stem(&key));
                    child.kill();
                }),
                Action::KillFrozen(key) => self.with(&key, |child| {
                    tracing::warn!("{} says nothing: killed", files::stem(&key));
                    child.kill_frozen();
                }),
            };
        }
        changed
    }

    /// Starts a child and remembers it.
    fn start(&mut self, order: &ProcessAssignment, now: Instant) -> bool {
        let child = Child::start(order, &self.setting, &self.events, now);
        self.children.insert(order.key.clone(), child);
        true
    }

    /// Does something to a child. Returns false: this alone is not worth a report.
    fn with(&mut self, key: &ProcessKey, what: impl FnOnce(&mut Child)) -> bool {
        if let Some(child) = self.children.get_mut(key) {
            what(child);
        }
        false
    }

    /// Builds the next report: the state of all children.
    fn report(&mut self) -> Report {
        self.sequence += 1;
        Report {
            worker: self.id.clone(),
            sequence: self.sequence,
            name: self.name.clone(),
            http: self.http.clone(),
            slots: self.slots,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            processes: self.children.values().map(Child::report).collect(),
        }
    }

    /// Kills the children that are left, waits for their ends, and sends the last report.
    fn leave(mut self, heard: &Receiver<Event>, out_of_time: bool) -> anyhow::Result<()> {
        if out_of_time {
            tracing::warn!("children did not end in {LEAVE_PATIENCE:?}: killed");
            let mut alive: Vec<_> = self.children.values_mut().collect();
            alive.retain(|child| !child.known.ended);
            alive.into_iter().for_each(Child::kill);
            while self.children.values().any(|child| !child.known.ended) {
                self.hear(heard, ENDING_LOOK)?;
                let now = Instant::now();
                for child in self.children.values_mut() {
                    child.reap(&self.setting.logs, now);
                }
            }
        }
        let report = self.report();
        self.link.leave(&report);
        tracing::info!("left");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_workers_are_names_of_folders() {
        for good in ["node1", "a.b-c_d", "9"] {
            assert_eq!(name(good).as_deref(), Ok(good));
        }
        for bad in ["", ".", "..", "-a", "a/b", "a b", &"x".repeat(65)] {
            assert!(name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_folder_belongs_to_one_worker() {
        let folder = tempfile::tempdir().unwrap();
        let first = alone(folder.path(), "w").unwrap();
        let second = alone(folder.path(), "w").unwrap_err().to_string();
        assert!(second.contains("another worker named w"), "{second}");
        drop(first);
        assert!(alone(folder.path(), "w").is_ok());
    }
}
