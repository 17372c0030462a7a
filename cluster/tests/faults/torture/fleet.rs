//! The processes: ours and the services', who of them is struck when, and who starts them again.
//!
//! Each is looked after alone, as a service manager does: what ended is started again a moment
//! later. Whoever strikes does not wait for what is being started, so several may be away at once.

use std::process::Child;
use std::time::{Duration, Instant};

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use crate::harness::own::Own;
use crate::harness::{Place, Process, free_port, send};
use crate::torture::pipeline;
use crate::torture::pipeline::Difference;

/// Between one strike and the next.
const GAP: std::ops::Range<Duration> = Duration::from_millis(50)..Duration::from_secs(7);
/// How long something stands still.
const PAUSE: std::ops::Range<f64> = 0.1..6.0;
/// How long after its end something is started again.
const AGAIN: std::ops::Range<Duration> = Duration::from_millis(20)..Duration::from_secs(2);
/// How soon a process must have noticed that its peer was killed.
const PEER_NOTICED: Duration = Duration::from_secs(60);
/// How often starting a service may fail: what is left of the killed one may still be ending.
const STARTS_MAX: usize = 20;
/// How soon everything must run again, and then all views be right.
const SETTLED: Duration = Duration::from_secs(900);
const TICK: Duration = Duration::from_millis(10);

/// Whom a strike is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Ingest,
    Dataflow,
    /// All of the dataflow, which then goes on with another number of processes and workers.
    Regroup,
    /// A random process of PostgreSQL but its first.
    Backend,
    Service(usize),
}

const SERVICES: [&str; 4] = ["postgres", "kafka", "cassandra", "registry"];

/// What 25 kills are for, in random order.
fn deck(random: &mut StdRng) -> Vec<Victim> {
    use Victim::{Backend, Dataflow, Ingest, Regroup, Service};
    let each = [
        (Ingest, 6),
        (Dataflow, 6),
        (Regroup, 3),
        (Backend, 2),
        (Service(0), 2),
        (Service(1), 2),
        (Service(2), 2),
        (Service(3), 2),
    ];
    let all = each.iter().flat_map(|(one, count)| vec![*one; *count]);
    let mut deck: Vec<_> = all.collect();
    deck.shuffle(random);
    deck
}

/// One of our processes.
struct Job {
    name: String,
    command: &'static str,
    flags: Vec<String>,
    process: Option<Process>,
    again: Instant,
    paused: Option<Instant>,
}

impl Job {
    fn new(name: String, command: &'static str, flags: Vec<String>) -> Self {
        Self {
            name,
            command,
            flags,
            process: None,
            again: Instant::now(),
            paused: None,
        }
    }

    fn is_up(&self) -> bool {
        self.process.is_some() && self.paused.is_none()
    }

    /// Starts it if it is time to, and lets it go on if it has stood still long enough.
    fn tend(&mut self, place: &Place) {
        let now = Instant::now();
        match &self.process {
            None if now >= self.again => {
                let flags: Vec<_> = self.flags.iter().map(String::as_str).collect();
                self.process = Some(place.start(self.command, &flags));
                self.paused = None;
            }
            Some(process) if self.paused.is_some_and(|until| now >= until) => {
                process.signal("CONT");
                self.paused = None;
            }
            _ => {}
        }
    }
}

/// One of the services.
enum State {
    Up,
    Paused { until: Instant, processes: Vec<u32> },
    Down { again: Instant, failed: usize },
    Starting { start: Child, failed: usize },
}

/// All of them.
pub(crate) struct Fleet {
    place: Place,
    own: Own,
    api: String,
    random: StdRng,
    ingest: Job,
    dataflow: Vec<Job>,
    /// When a process of the dataflow was last killed.
    dataflow_killed: Option<Instant>,
    services: [State; 4],
    deck: Vec<Victim>,
    began: Instant,
    kills: usize,
    pauses: usize,
    said: Vec<String>,
}

impl Fleet {
    /// Starts our processes; the services run.
    pub(crate) fn start(place: Place, own: Own, api: String, mut random: StdRng) -> Self {
        let flags = vec!["--api".to_owned(), api.clone()];
        let ingest = Job::new("ingest".into(), "ingest", flags);
        let deck = deck(&mut random);
        let mut fleet = Self {
            place,
            own,
            api,
            random,
            ingest,
            dataflow: Vec::new(),
            dataflow_killed: None,
            services: [const { State::Up }; 4],
            deck,
            began: Instant::now(),
            kills: 0,
            pauses: 0,
            said: Vec::new(),
        };
        fleet.group(2);
        let api = fleet.api.clone();
        fleet.say(&format!("users come from {api}"));
        fleet
    }

    /// How often something was made to stand still.
    pub(crate) fn pauses(&self) -> usize {
        self.pauses
    }

    /// Notes what happens, with its time.
    pub(crate) fn say(&mut self, what: &str) {
        let line = format!("{:8.2} s  {what}", self.began.elapsed().as_secs_f64());
        eprintln!("{line}");
        self.said.push(line);
    }

    /// Makes the dataflow of this many processes.
    fn group(&mut self, processes: usize) {
        let hosts: Vec<_> = (0..processes)
            .map(|_| format!("127.0.0.1:{}", free_port()))
            .collect();
        let workers = self.random.random_range(1..=4 / processes).to_string();
        self.dataflow = (0..processes)
            .map(|process| {
                let mut flags = vec!["-w".to_owned(), workers.clone()];
                if processes > 1 {
                    let of = ["-n", &processes.to_string(), "-p", &process.to_string()];
                    flags.extend(of.map(str::to_owned));
                    flags.extend(["--hosts".to_owned(), hosts.join(",")]);
                }
                flags.extend(["--checkpoint-every".to_owned(), "300ms".to_owned()]);
                Job::new(format!("dataflow {process}"), "dataflow", flags)
            })
            .collect();
        self.say(&format!(
            "the dataflow has {processes} processes with {workers} workers each"
        ));
    }

    /// Goes on until this many were killed.
    pub(crate) fn torture(&mut self, kills: usize) {
        let last = self.kills + kills;
        while self.kills < last {
            let next = Instant::now() + self.random.random_range(GAP);
            while Instant::now() < next {
                self.tend();
            }
            self.strike();
        }
    }

    /// Looks after everybody for a moment.
    pub(crate) fn tend(&mut self) {
        for index in 0..SERVICES.len() {
            self.tend_service(index);
        }
        self.ends();
        for job in self.dataflow.iter_mut().chain([&mut self.ingest]) {
            job.tend(&self.place);
        }
        std::thread::sleep(TICK);
    }

    /// What ended by itself: only a peer of a killed one may.
    fn ends(&mut self) {
        let peers = self.dataflow.len() > 1;
        let killed = self.dataflow_killed;
        let noticed = peers && killed.is_some_and(|at| at.elapsed() < PEER_NOTICED);
        let mut ended = Vec::new();
        for job in self.dataflow.iter_mut().chain([&mut self.ingest]) {
            let Some(process) = &mut job.process else {
                continue;
            };
            let Some(status) = process.ended() else {
                continue;
            };
            let may = noticed && job.command == "dataflow" && status.code() == Some(3);
            assert!(may, "{} ended: {status}\n{}", job.name, process.said());
            job.process = None;
            job.again = Instant::now() + self.random.random_range(AGAIN);
            ended.push(job.name.clone());
        }
        for name in ended {
            self.say(&format!("{name} ended, since its peer was gone"));
        }
    }

    fn tend_service(&mut self, index: usize) {
        let (name, now) = (SERVICES[index], Instant::now());
        let next = match &mut self.services[index] {
            State::Paused { until, processes } if now >= *until => {
                // Some of them may have ended meanwhile.
                processes.iter().for_each(|one| _ = send("CONT", *one));
                State::Up
            }
            State::Down { again, failed } if now >= *again => State::Starting {
                start: self.own.begin(name),
                failed: *failed,
            },
            State::Starting { start, failed } => match start.try_wait().unwrap() {
                Some(status) if status.success() => State::Up,
                Some(status) => {
                    *failed += 1;
                    assert!(*failed < STARTS_MAX, "{name} does not start: {status}");
                    State::Down {
                        again: now + Duration::from_millis(300),
                        failed: *failed,
                    }
                }
                None => return,
            },
            _ => return,
        };
        let up = matches!(next, State::Up);
        self.services[index] = next;
        if up {
            self.say(&format!("{name} is up"));
        }
    }

    /// Kills somebody or makes somebody stand still.
    fn strike(&mut self) {
        let next = |fleet: &Self| fleet.deck.iter().rposition(|one| fleet.may_strike(*one));
        if next(self).is_none() {
            // Whoever is left is being started: others are struck meanwhile.
            let rest = std::mem::take(&mut self.deck);
            self.deck = [rest, deck(&mut self.random)].concat();
        }
        let Some(place) = next(self) else {
            return;
        };
        if self.random.random_bool(0.3) {
            let victim = self.deck[place];
            return self.pause(victim);
        }
        let victim = self.deck.remove(place);
        if self.deck.is_empty() {
            self.deck = deck(&mut self.random);
        }
        self.kills += 1;
        self.kill(victim);
    }

    fn may_strike(&self, victim: Victim) -> bool {
        match victim {
            Victim::Ingest => self.ingest.process.is_some(),
            Victim::Dataflow | Victim::Regroup => {
                self.dataflow.iter().any(|job| job.process.is_some())
            }
            Victim::Backend => matches!(self.services[0], State::Up),
            Victim::Service(index) => matches!(self.services[index], State::Up),
        }
    }

    fn kill(&mut self, victim: Victim) {
        let number = self.kills;
        let again = Instant::now() + self.random.random_range(AGAIN);
        let of = match victim {
            Victim::Ingest => {
                self.ingest.again = again;
                self.ingest.process.take().unwrap().kill();
                "ingest".to_owned()
            }
            Victim::Dataflow => {
                self.dataflow_killed = Some(Instant::now());
                let running = self.dataflow.iter_mut().filter(|job| job.process.is_some());
                let mut running: Vec<_> = running.collect();
                let chosen = self.random.random_range(0..running.len());
                let job = &mut running[chosen];
                job.again = again;
                job.process.take().unwrap().kill();
                job.name.clone()
            }
            Victim::Regroup => {
                let killed = self.dataflow.drain(..).filter_map(|job| job.process);
                let killed = killed.map(Process::kill).count();
                self.group(if killed == 1 { 2 } else { 1 });
                self.dataflow_killed = None;
                "all of the dataflow".to_owned()
            }
            Victim::Backend => {
                let processes = children(self.own.pid("postgres"));
                let Some(one) = processes.get(self.random.random_range(0..processes.len().max(1)))
                else {
                    return;
                };
                send("KILL", *one);
                "a process of postgres".to_owned()
            }
            Victim::Service(index) => {
                send("KILL", self.own.pid(SERVICES[index]));
                self.services[index] = State::Down { again, failed: 0 };
                SERVICES[index].to_owned()
            }
        };
        self.say(&format!("kill {number}: {of}"));
    }

    fn pause(&mut self, victim: Victim) {
        // Short ones as often as long ones.
        let (least, most) = (PAUSE.start.ln(), PAUSE.end.ln());
        let pause = Duration::from_secs_f64(self.random.random_range(least..most).exp());
        let until = Instant::now() + pause;
        let of = match victim {
            Victim::Service(_) | Victim::Backend => {
                let index = match victim {
                    Victim::Service(index) => index,
                    _ => 0,
                };
                let first = self.own.pid(SERVICES[index]);
                let mut processes = vec![first];
                processes.extend(children(first));
                processes.retain(|one| send("STOP", *one));
                self.services[index] = State::Paused { until, processes };
                SERVICES[index].to_owned()
            }
            Victim::Ingest | Victim::Dataflow | Victim::Regroup => {
                let all = match victim {
                    Victim::Ingest => std::slice::from_mut(&mut self.ingest),
                    _ => &mut self.dataflow[..],
                };
                let mut running: Vec<_> = all.iter_mut().filter(|job| job.is_up()).collect();
                if running.is_empty() {
                    return;
                }
                let chosen = self.random.random_range(0..running.len());
                let job = &mut running[chosen];
                if let Some(process) = &job.process {
                    process.signal("STOP");
                    job.paused = Some(until);
                }
                job.name.clone()
            }
        };
        self.pauses += 1;
        self.say(&format!(
            "{of} stands still for {:.1} s",
            pause.as_secs_f64()
        ));
    }

    /// Waits until everything runs and every view is what PostgreSQL answers; the changes have
    /// stopped. How many rows each view has.
    pub(crate) fn settle(&mut self) -> String {
        let deadline = Instant::now() + SETTLED;
        let begin = Instant::now();
        let mut differences: Vec<Difference> = Vec::new();
        loop {
            self.tend();
            let up = self.services.iter().all(|one| matches!(one, State::Up));
            if up && let Some((found, rows)) = self.compare() {
                if found.is_empty() {
                    let changes = pipeline::check_topics(&self.place);
                    let letters = self.place.dead_letters();
                    assert!(letters.is_empty(), "dead letters: {letters:?}");
                    let took = begin.elapsed().as_secs_f64();
                    return format!("{rows}; {changes} changes; settled in {took:.1} s");
                }
                differences = found;
            }
            if Instant::now() > deadline {
                for one in &differences {
                    self.say(&format!(
                        "view {}: missing {:?}; wrong {:?}",
                        one.view, one.missing, one.wrong
                    ));
                }
                panic!(
                    "the views are not right {} s after the last change",
                    SETTLED.as_secs()
                );
            }
        }
    }

    fn compare(&self) -> Option<(Vec<Difference>, String)> {
        let mut config: postgres::Config = self.place.database.parse().unwrap();
        config.connect_timeout(Duration::from_secs(5));
        let mut client = config.connect(postgres::NoTls).ok()?;
        let (found, rows) = pipeline::compare(&self.place, &mut client).ok()?;
        Some((found, format!("{rows:?}")))
    }

    /// Asks everybody to stop, which must go well.
    pub(crate) fn end(&mut self) {
        let journal = self.place.folder().join("journal");
        let checkpoints = count_named(&journal, "manifest");
        assert!(checkpoints > 0, "no checkpoint in {}", journal.display());
        if let Some(process) = &mut self.ingest.process {
            process.stop("TERM");
        }
        // All of them stop when one is asked to.
        if let Some(process) = &mut self.dataflow[0].process {
            process.stop("TERM");
        }
        for job in &mut self.dataflow[1..] {
            if let Some(process) = &mut job.process {
                process.ends(0, crate::harness::PATIENCE);
            }
        }
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.place.keep();
            eprintln!(
                "what our processes said is in {}, what the services said in {}",
                self.place.folder().display(),
                self.own.folder().display()
            );
        }
        for state in &mut self.services {
            match state {
                State::Paused { processes, .. } => {
                    processes.iter().for_each(|one| _ = send("CONT", *one));
                }
                State::Starting { start, .. } => _ = start.wait(),
                State::Up | State::Down { .. } => {}
            }
        }
    }
}

/// The processes that a process started and that are still there.
fn children(process: u32) -> Vec<u32> {
    let path = format!("/proc/{process}/task/{process}/children");
    let children = std::fs::read_to_string(path).unwrap_or_default();
    let children = children.split_whitespace().map(|one| one.parse().unwrap());
    children.collect()
}

/// How many files below a folder have this name.
fn count_named(folder: &std::path::Path, name: &str) -> usize {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let counts = entries.map(|entry| match entry.path() {
        path if path.is_dir() => count_named(&path, name),
        path => usize::from(path.file_name().is_some_and(|found| found == name)),
    });
    counts.sum()
}
