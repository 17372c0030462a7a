//! A master and its workers, each on a machine of its own, and a river that flows through them.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::Value;

use crate::harness::river::River;
use crate::harness::{PATIENCE, Place, Process, free_port, seed, unique, until};
use crate::network::Network;

/// How long a generation may take to end after its cause was seen, and the next to be live.
pub(crate) const HEALED: Duration = Duration::from_secs(15);
/// How long a killed or frozen process, or a cut network, may go unseen; the issue of each says
/// less. A busy machine is slower.
const SEEN: Duration = Duration::from_secs(40);

/// What these processes know each other by.
const TOKEN: &str = "a-token-for-tests-0123456789";

/// One at a time: they share two cores, and measure how long things take.
static ONE: Mutex<()> = Mutex::new(());

/// A cluster that runs.
pub(crate) struct Fleet {
    pub(crate) network: Network,
    pub(crate) river: River,
    master: Option<Process>,
    listen: String,
    pub(crate) workers: Vec<Option<Process>>,
    _alone: MutexGuard<'static, ()>,
}

impl Fleet {
    /// A master, so many workers with two slots each, and a river; nothing is submitted yet.
    pub(crate) fn start(test: &str, workers: usize) -> Option<Self> {
        let alone = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        // The first in this process wins.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let place = Place::services(test)?;
        let network = Network::new(test, workers, &ports(&place))?;
        let random = StdRng::seed_from_u64(seed(test));
        let mut fleet = Self {
            listen: format!("{}:{}", network.host(), free_port()),
            network,
            river: River::new(place, random),
            master: None,
            workers: Vec::new(),
            _alone: alone,
        };
        fleet.start_master();
        for machine in 0..workers {
            fleet.workers.push(None);
            fleet.start_worker(machine, 2);
        }
        fleet.has_workers(workers);
        Some(fleet)
    }

    fn url(&self) -> String {
        format!("http://{}", self.listen)
    }

    fn run(&self, mut command: Command, arguments: &[&str]) -> Process {
        for (name, _) in std::env::vars() {
            if name.starts_with("TIDEMILL_") || name == "RUST_LOG" {
                command.env_remove(name);
            }
        }
        let folder = self.river.place.folder();
        command.args(arguments).current_dir(folder);
        command.env("TIDEMILL_TOKEN", TOKEN);
        Process::start_in(command, folder)
    }

    /// Starts the master, the first or the next.
    pub(crate) fn start_master(&mut self) {
        let state = format!(
            "file://{}",
            self.river.place.folder().join("cluster").display()
        );
        let binary = Command::new(env!("CARGO_BIN_EXE_tidemill"));
        let arguments = ["master", "--listen", &self.listen, "--state", &state];
        self.master = Some(self.run(binary, &arguments));
    }

    /// Starts a worker on a machine.
    pub(crate) fn start_worker(&mut self, machine: usize, slots: usize) {
        self.start_worker_beside(machine, machine, slots);
    }

    /// Starts worker `index` on a machine.
    pub(crate) fn start_worker_beside(&mut self, machine: usize, index: usize, slots: usize) {
        let (url, address) = (self.url(), self.network.address(machine));
        let (slots, name) = (slots.to_string(), format!("m{index}"));
        let dir = self.river.place.folder().join(&name).display().to_string();
        let binary = self
            .network
            .command(machine, env!("CARGO_BIN_EXE_tidemill"));
        let arguments = [
            "worker", "--master", &url, "--slots", &slots, "--name", &name, "--host", &address,
            "--dir", &dir,
        ];
        self.workers[index] = Some(self.run(binary, &arguments));
    }

    pub(crate) fn kill_master(&mut self) {
        self.master.take().unwrap().kill();
    }

    pub(crate) fn kill_worker(&mut self, machine: usize) {
        self.workers[machine].take().unwrap().kill();
    }

    pub(crate) fn master(&mut self) -> &mut Process {
        self.master.as_mut().unwrap()
    }

    pub(crate) fn worker(&mut self, machine: usize) -> &mut Process {
        self.workers[machine].as_mut().unwrap()
    }

    /// Runs a client's command to its end.
    #[track_caller]
    pub(crate) fn client(&self, arguments: &[&str]) -> String {
        self.client_ends(arguments, 0)
    }

    /// The same, to an end with this exit code.
    #[track_caller]
    pub(crate) fn client_ends(&self, arguments: &[&str], code: i32) -> String {
        let url = self.url();
        let arguments = [arguments, &["--master", &url]].concat();
        let binary = Command::new(env!("CARGO_BIN_EXE_tidemill"));
        let mut client = self.run(binary, &arguments);
        client.ends(code, 2 * PATIENCE)
    }

    /// Submits the river's pipeline.
    #[track_caller]
    pub(crate) fn submit(&self, workers: usize, more: &[&str]) {
        let workers = workers.to_string();
        let url = self.url();
        let flags = ["--workers", &workers, "--every", "1h", "--master", &url];
        let place = &self.river.place;
        let arguments = place.arguments("submit", &[&flags[..], more].concat());
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let binary = Command::new(env!("CARGO_BIN_EXE_tidemill"));
        self.run(binary, &arguments).ends(0, 2 * PATIENCE);
    }

    /// Submits a small pipeline of its own, without an ingest; its name.
    pub(crate) fn submit_other(&self, workers: usize) -> String {
        let place = &self.river.place;
        let (name, topic) = (format!("{}_other", place.name), unique("clicks"));
        place.topic(&topic, 2);
        let folder = place.folder().join(&name);
        std::fs::create_dir(&folder).unwrap();
        let sql = format!(
            "CREATE TABLE clicks (id text, page text) WITH (topic = '{topic}', format = 'json');
             CREATE MATERIALIZED VIEW pages WITH (primary_key = 'page') AS
               SELECT page, count(*) AS clicks FROM clicks GROUP BY page;"
        );
        std::fs::write(folder.join("views.sql"), sql).unwrap();
        let (workers, url) = (workers.to_string(), self.url());
        let flags = ["--workers", &workers, "--master", &url];
        let mut arguments = place.arguments("submit", &flags);
        arguments[1].clone_from(&name);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let binary = Command::new(env!("CARGO_BIN_EXE_tidemill"));
        self.run(binary, &arguments).ends(0, 2 * PATIENCE);
        name
    }

    /// Where the master listens.
    pub(crate) fn listen(&self) -> &str {
        &self.listen
    }

    /// The ports that are listened on in a machine for others than itself.
    pub(crate) fn listening(&self, machine: usize) -> Vec<u16> {
        let mut cat = self.network.command(machine, "cat");
        let table = cat.arg("/proc/net/tcp").output().unwrap().stdout;
        let table = String::from_utf8(table).unwrap();
        let lines = table.lines().skip(1).map(str::split_whitespace);
        let sockets = lines.map(|mut line| (line.nth(1).unwrap(), line.nth(1).unwrap()));
        // State 0A listens; 0100007F is the loopback.
        let listening = sockets.filter(|(at, state)| *state == "0A" && !at.starts_with("0100007F"));
        let ports = listening.map(|(at, _)| at.rsplit_once(':').unwrap().1);
        ports
            .map(|port| u16::from_str_radix(port, 16).unwrap())
            .collect()
    }

    /// What the master says of everything; none while it is away.
    pub(crate) fn status(&self) -> Option<Value> {
        let url = format!("{}/api/v1/status", self.url());
        let client = reqwest::blocking::Client::builder()
            .timeout(Duration::from_secs(5))
            .build()
            .unwrap();
        let answer = client.get(url).bearer_auth(TOKEN).send().ok()?;
        answer.error_for_status().ok()?.json().ok()
    }

    /// What it says of a job.
    pub(crate) fn job(&self, name: &str) -> Option<Value> {
        let status = self.status()?;
        let jobs = status["jobs"].as_array()?;
        jobs.iter().find(|job| job["name"] == name).cloned()
    }

    #[track_caller]
    pub(crate) fn has_workers(&self, count: usize) {
        until("the workers are there", PATIENCE, || {
            let status = self.status()?;
            (status["workers"].as_array()?.len() == count).then_some(())
        });
    }

    /// Waits until the river's job runs with so many workers; its generation then.
    #[track_caller]
    pub(crate) fn runs_with(&self, workers: usize) -> u64 {
        let name = &self.river.place.name;
        let mut last = None;
        let deadline = Instant::now() + 2 * PATIENCE;
        loop {
            last = self.job(name).or(last);
            if let Some(job) = &last
                && job["state"] == "running"
                && job["workers"] == workers
            {
                return job["generation"].as_u64().unwrap();
            }
            assert!(Instant::now() < deadline, "{workers} workers: {last:#?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until a generation after `before` is live with `workers`, and says how long it took
    /// until the end of the one before was seen, and from then on.
    #[track_caller]
    pub(crate) fn heals(&self, before: u64, workers: usize) -> (Duration, Duration) {
        let began = Instant::now();
        let name = &self.river.place.name;
        until("the failure is seen", SEEN, || {
            let job = self.job(name)?;
            let newer = job["generation"].as_u64()? > before;
            (newer || job["state"] != "running").then_some(())
        });
        let seen = Instant::now();
        let generation = self.runs_with(workers);
        assert!(generation > before, "{generation} after {before}");
        (seen - began, seen.elapsed())
    }

    /// Some changes, and then every view holds what the database answers.
    #[track_caller]
    pub(crate) fn settle(&mut self, after: &str) {
        for _ in 0..50 {
            self.river.change();
        }
        let master = self.master.iter_mut();
        let mut all: Vec<&mut Process> = master.chain(self.workers.iter_mut().flatten()).collect();
        self.river.settle(after, &mut all);
    }

    /// Ends the job and checks that nothing was counted twice.
    pub(crate) fn end(mut self) {
        let name = self.river.place.name.clone();
        self.client(&["stop", &name]);
        for worker in self.workers.iter_mut().flatten() {
            worker.stop("TERM");
        }
        self.master().stop("TERM");
        self.river.end();
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        self.river.place.keep();
        let folder = self.river.place.folder().display();
        eprintln!("what all processes said is in {folder}; the last of it:");
        let workers = self.workers.iter().flatten();
        for process in self.master.iter().chain(workers) {
            let said = process.said();
            let lines: Vec<&str> = said.lines().rev().take(15).collect();
            let lines: Vec<&str> = lines.into_iter().rev().collect();
            eprintln!("--\n{}", lines.join("\n"));
        }
    }
}

/// The children that a process has now.
pub(crate) fn children(process: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let children = tasks.map(|task| std::fs::read_to_string(task.unwrap().path().join("children")));
    let all: String = children.map(Result::unwrap_or_default).collect();
    let all = all.split_whitespace();
    all.map(|child| child.parse().unwrap()).collect()
}

/// The ports of this machine's loopback that a pipeline's connections name.
fn ports(place: &Place) -> BTreeSet<u16> {
    let urls = [&place.database, &place.log, &place.registry, &place.sink];
    let parts = urls.iter().flat_map(|url| url.split("127.0.0.1:").skip(1));
    let digits = parts.map(|part| {
        let end = part.find(|c: char| !c.is_ascii_digit());
        &part[..end.unwrap_or(part.len())]
    });
    digits.map(|port| port.parse().unwrap()).collect()
}
