//! A pipeline that runs, alone in `tidemill run` or on a cluster of two workers, and everything
//! that it says of itself.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::web::Web;
use crate::harness::{PATIENCE, Process, free_port, until};
use crate::outages::services::Services;

/// From one line of the display to the next.
const LINE: Duration = Duration::from_secs(1);

/// Where a pipeline runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Where {
    Run,
    Cluster,
}

/// A pipeline that runs on services of its own.
pub(crate) struct Job {
    pub(crate) services: Services,
    /// The process of `tidemill run`, or the master and the workers.
    processes: Vec<Process>,
    at: At,
}

enum At {
    Run(Web),
    Cluster(String),
}

/// What is known of what waits, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Waits {
    pub(crate) lag: u64,
    pub(crate) freshness: u64,
}

impl Job {
    /// Starts it, and waits until all is well.
    pub(crate) fn start(test: &str, place: Where) -> Option<Self> {
        let services = Services::start(test)?;
        let (processes, at) = match place {
            Where::Run => run(&services),
            Where::Cluster => cluster(&services),
        };
        let mut job = Self {
            services,
            processes,
            at,
        };
        job.services.river.fill();
        job.is_well("the start");
        Some(job)
    }

    /// Some changes in the database.
    pub(crate) fn load(&mut self) {
        self.services.river.change();
    }

    /// What readiness or status says of the job.
    fn says(&self) -> Value {
        let text = match &self.at {
            At::Run(web) => web.get("/readyz").body,
            At::Cluster(url) => self.status(url, &["--json"]),
        };
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    fn status(&self, url: &str, more: &[&str]) -> String {
        let name = &self.services.river.place.name;
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
        command.args(["status", name, "--master", url]).args(more);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// A service of the job, as it is now.
    pub(crate) fn dependency(&self, role: &str) -> Value {
        let says = self.says();
        let all = says["dependencies"].as_array().unwrap();
        let found = all.iter().find(|it| it["dependency"] == role);
        found
            .unwrap_or_else(|| panic!("no {role}: {says:#}"))
            .clone()
    }

    /// Where the processes of a part answer.
    fn parts(&self, part: &str) -> Vec<Web> {
        match &self.at {
            At::Run(web) => vec![Web(web.0.clone())],
            At::Cluster(_) => {
                let says = self.says();
                let all = says["processes"].as_array().unwrap().iter();
                let of = all.filter(|it| it["part"] == part);
                of.map(|it| Web(it["http"].as_str().unwrap().to_owned()))
                    .collect()
            }
        }
    }

    /// How old the oldest change is that waits, and freshness; none while nobody knows anything.
    pub(crate) fn waits(&self) -> Option<Waits> {
        match &self.at {
            At::Cluster(_) => {
                let says = self.says();
                Some(Waits {
                    lag: says["lag_ms"].as_u64()?,
                    freshness: says["freshness_p99_ms"].as_u64()?,
                })
            }
            At::Run(web) => {
                let scrape = web.scrape();
                let value = |name: &str, labels: &[(&str, &str)]| scrape.value(name, labels);
                let ms = |seconds: Option<f64>| (seconds.unwrap_or(0.0) * 1000.0) as u64;
                let lag = ms(value("tidemill_lag_seconds", &[]));
                let landing = ms(value("tidemill_ingest_lag_seconds", &[]));
                let quantile = [("quantile", "0.99")];
                let recent = ms(value("tidemill_recent_freshness_seconds", &quantile));
                // What waits before the log is the ingest's, which freshness of the dataflow
                // cannot know: the display has both.
                Some(Waits {
                    lag: lag.max(landing),
                    freshness: recent.max(landing),
                })
            }
        }
    }

    /// Everywhere that people and machines look, a service is down, and nothing says that all is
    /// well. `parts` are those that use it.
    pub(crate) fn tells(&self, role: &str, parts: &[&str]) {
        let told = format!("({role}) is down since");
        match &self.at {
            At::Run(_) => {
                // A line of the display comes each second.
                until("the display names it", 3 * LINE, || {
                    let said = self.processes[0].said();
                    let line = said
                        .lines()
                        .rev()
                        .find(|line| line.contains("  fetched "))?;
                    line.contains(&told).then_some(())
                });
            }
            At::Cluster(url) => {
                let says = self.says();
                assert_eq!(says["state"], "degraded", "{says:#}");
                assert!(says["why"].as_str().unwrap().contains(&told), "{says:#}");
                let text = self.status(url, &[]);
                assert!(text.contains("degraded") && text.contains(&told), "{text}");
                let scrape = Web(url.trim_start_matches("http://").to_owned()).scrape();
                let job = ("job", self.services.river.place.name.as_str());
                let of = [job, ("dependency", role)];
                assert_eq!(scrape.value("tidemill_job_dependency_up", &of), Some(0.0));
                let degraded = scrape.value("tidemill_job_degraded", &[job]);
                assert_eq!(degraded, Some(1.0), "{role}");
            }
        }
        for part in parts {
            for web in self.parts(part) {
                part_tells(&web, role);
            }
        }
    }

    /// Waits until everything is up and the views are read; all processes are those of the start.
    pub(crate) fn is_well(&mut self, after: &str) {
        let began = Instant::now();
        loop {
            self.processes.iter_mut().for_each(Process::runs);
            let says = self.says();
            let all = says["dependencies"].as_array().cloned();
            let all = all.unwrap_or_default();
            let up = all.len() == 7 && all.iter().all(|it| it["state"] == "up");
            let runs = match &self.at {
                At::Run(_) => says["ready"] == true,
                At::Cluster(_) => says["state"] == "running" && says["behind"].is_u64(),
            };
            if up && runs {
                break;
            }
            assert!(began.elapsed() < PATIENCE, "after {after}: {says:#}");
            std::thread::sleep(Duration::from_millis(100));
        }
        for part in ["ingest", "dataflow"] {
            for web in self.parts(part) {
                web.until("/readyz", 200);
            }
        }
        if let At::Cluster(_) = &self.at {
            let says = self.says();
            let restarts = (&says["restarts"], &says["ingest"]["restarts"]);
            assert!(*restarts.0 == 0 && *restarts.1 == 0, "{after}: {says:#}");
        }
        eprintln!("{after}: all is well after {:.1?}", began.elapsed());
    }

    /// Waits until every view holds PostgreSQL's answer.
    pub(crate) fn is_right(&mut self, after: &str) {
        self.services.api_has_more(false);
        let mut all: Vec<&mut Process> = self.processes.iter_mut().collect();
        self.services.river.settle(after, &mut all);
        self.services.api_has_more(true);
    }

    /// Stops all processes.
    pub(crate) fn stops(&mut self) {
        for mut process in self.processes.drain(..).rev() {
            process.stop("TERM");
        }
    }

    /// Starts `tidemill run` again.
    pub(crate) fn begins(&mut self) {
        (self.processes, self.at) = run(&self.services);
    }

    /// Starts `tidemill run` again, which ends and says why.
    pub(crate) fn is_refused(&self, why: &str) {
        let mut refused = Process::start(
            run_command(&self.services),
            self.services.river.place.folder(),
        );
        let said = refused.ends(1, PATIENCE);
        assert!(said.contains(why), "{said}");
    }
}

fn part_tells(web: &Web, role: &str) {
    let answer = web.until("/readyz", 503);
    let body: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(body["ready"], false);
    let why = body["why"].as_str().unwrap();
    assert!(why.contains(&format!("({role}) is down since")), "{why}");
    let all = body["dependencies"].as_array().unwrap();
    let found = all.iter().find(|it| it["dependency"] == role).unwrap();
    assert_eq!(found["state"], "down", "{body:#}");
    let scrape = web.scrape();
    let of = [("dependency", role)];
    assert_eq!(scrape.value("tidemill_dependency_up", &of), Some(0.0));
    assert_eq!(scrape.value("tidemill_ready", &[]), Some(0.0));
    let since = "tidemill_dependency_since_timestamp_seconds";
    let since = scrape.value(since, &of).unwrap();
    let told = found["since_ms"].as_u64().unwrap() as f64 / 1000.0;
    assert!((since - told).abs() < 1.0, "{since} is not {told}");
}

const EVERY: [&str; 4] = ["--every", "1s", "--checkpoint-every", "2s"];

fn run_command(services: &Services) -> Command {
    let api = services.api_url();
    let flags = ["--api", &api, "--http", "127.0.0.1:0"];
    let place = &services.river.place;
    let mut command = place.command(&["run"], &[&flags[..], &EVERY].concat());
    command.envs(services.environment());
    command
}

fn run(services: &Services) -> (Vec<Process>, At) {
    let folder = services.river.place.folder();
    let mut run = Process::start(run_command(services), folder);
    let web = Web::of(&mut run);
    (vec![run], At::Run(web))
}

fn cluster(services: &Services) -> (Vec<Process>, At) {
    let place = &services.river.place;
    let url = format!("http://127.0.0.1:{}", free_port());
    let start = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
        command.args(arguments).current_dir(place.folder());
        command.envs(services.environment());
        Process::start(command, place.folder())
    };
    let state = format!("file://{}", place.folder().join("cluster").display());
    let listen = url.trim_start_matches("http://");
    let mut all = vec![start(&["master", "--listen", listen, "--state", &state])];
    for name in ["left", "right"] {
        let slots = ["--slots", "1", "--name", name, "--dir", name];
        all.push(start(&[&["worker", "--master", &url][..], &slots].concat()));
    }
    let api = services.api_url();
    let flags = [
        "--master",
        &url,
        "--workers",
        "2",
        "--wait-for-slots",
        "--api",
        &api,
    ];
    let submit = place.arguments("submit", &[&flags[..], &EVERY].concat());
    let submit: Vec<&str> = submit.iter().map(String::as_str).collect();
    start(&submit).ends(0, 2 * PATIENCE);
    (all, At::Cluster(url))
}
