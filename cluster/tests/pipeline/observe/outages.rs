//! Services that freeze, die and refuse under load: what a job's status, readiness and metrics say
//! of each, and how soon. The services are this test's own.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::own::Own;
use crate::harness::web::Web;
use crate::harness::{PATIENCE, Place, Process, feed, free_port, send, until};
use crate::observe::river::{LAND, VIEWS};

/// Each service, what it is for a job, and how soon it is known that it is frozen or gone: the time
/// between two probes, the time that an answer may take, and two for telling.
const SERVICES: [(&str, &str, u64); 5] = [
    ("kafka", "log", 7),
    ("cassandra", "views", 7),
    ("registry", "registry", 7),
    ("s3", "state", 15),
    ("postgres", "database", 7),
];
/// What a busy machine may add.
const BUSY: Duration = Duration::from_secs(8);

/// A cluster with one job on services of its own.
struct Cluster {
    own: Own,
    place: Place,
    url: String,
    workers: Process,
    master: Process,
}

impl Cluster {
    fn start(test: &str) -> Option<Self> {
        let names: Vec<&str> = SERVICES.iter().map(|(name, ..)| *name).collect();
        let own = Own::start(test, &names)?;
        let [postgres, kafka] = ["postgres", "kafka"].map(|name| own.url(name));
        let registry = own.url("registry");
        let mut place = Place::on("outage", postgres, kafka, registry, &own.url("cassandra"));
        place.keep_state_at("s3://tidemill/outage");
        place.write("ingest.toml", &(feed("outage") + LAND));
        place.write("views.sql", VIEWS);
        let url = format!("http://127.0.0.1:{}", free_port());
        let run = |arguments: &[&str]| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
            command.args(arguments).current_dir(place.folder());
            command.envs(aws(&own));
            Process::start(command, place.folder())
        };
        let state = format!("file://{}", place.folder().join("cluster").display());
        let listen = url.trim_start_matches("http://");
        let master = run(&["master", "--listen", listen, "--state", &state]);
        let workers = run(&["worker", "--master", &url, "--slots", "2", "--name", "w"]);
        let submit = place.arguments("submit", &["--master", &url]);
        let submit: Vec<&str> = submit.iter().map(String::as_str).collect();
        let said = run(&submit).ends(0, 2 * PATIENCE);
        assert!(said.contains("running with 2"), "{said}");
        Some(Self {
            own,
            place,
            url,
            workers,
            master,
        })
    }

    /// What `status` says of the job.
    fn job(&self, more: &[&str]) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
        command.args(["status", &self.place.name, "--master", &self.url]);
        let output = command.args(more).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.job(&["--json"])).unwrap()
    }

    /// Where a part of the job answers.
    fn web(&self, part: &str) -> Web {
        let job = self.json();
        let processes = job["processes"].as_array().unwrap();
        let process = processes.iter().find(|it| it["part"] == part).unwrap();
        Web(process["http"].as_str().unwrap().to_owned())
    }

    /// Waits until the job runs and everything is up.
    fn recovers(&self, after: &str) {
        let began = Instant::now();
        let mut last = Value::Null;
        let recovered = |last: &mut Value| {
            *last = self.json();
            let up = states(last).values().all(|state| state == "up");
            (up && last["state"] == "running" && last["behind"].is_u64()).then_some(())
        };
        while recovered(&mut last).is_none() {
            assert!(began.elapsed() < PATIENCE, "after {after}: {last:#}");
            std::thread::sleep(Duration::from_millis(100));
        }
        eprintln!("{after}: all is well after {:.1?}", began.elapsed());
        for part in ["ingest", "dataflow"] {
            self.web(part).until("/readyz", 200);
        }
    }

    /// Waits until a service is down in the job's status.
    fn is_down(&self, role: &str, why: &str, bound: u64) {
        let (began, bound) = (Instant::now(), Duration::from_secs(bound));
        loop {
            let job = self.json();
            if states(&job).get(role).map(String::as_str) == Some("down") {
                assert_eq!(job["state"], "degraded", "{why}: {job:#}");
                let told = job["why"].as_str().unwrap_or_default();
                assert!(told.contains(&format!("({role}) is down since")), "{told}");
                break;
            }
            assert!(began.elapsed() < bound + BUSY, "{why}: {job:#}");
            std::thread::sleep(Duration::from_millis(50));
        }
        eprintln!("{role} {why}: seen after {:.1?}", began.elapsed());
    }

    /// What is not ready says so, names the service, and has a metric that does.
    fn part_says(&self, part: &str, role: &str) {
        let web = self.web(part);
        let answer = web.until("/readyz", 503);
        let body: Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(body["ready"], false);
        let all = body["dependencies"].as_array().unwrap();
        let found = all.iter().find(|it| it["dependency"] == role).unwrap();
        assert_eq!(found["state"], "down", "{body:#}");
        assert!(found["error"].is_string() && found["since_ms"].as_u64() > Some(0));
        let up = |scrape: &crate::harness::exposition::Scrape| {
            scrape.value("tidemill_dependency_up", &[("dependency", role)])
        };
        let scrape = web.scrape();
        assert_eq!(up(&scrape), Some(0.0));
        assert_eq!(scrape.value("tidemill_ready", &[]), Some(0.0));
        assert_eq!(web.get("/healthz").body, "ok\n");
    }
}

/// The state of each service of a job.
fn states(job: &Value) -> BTreeMap<String, String> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let all = job["dependencies"].as_array().unwrap();
    all.iter()
        .map(|it| (text(&it["dependency"]), text(&it["state"])))
        .collect()
}

/// What S3's clients are told of the store.
fn aws(own: &Own) -> Vec<(String, String)> {
    let env = std::fs::read_to_string(own.folder().join("services.env")).unwrap();
    let words = env.split_whitespace().filter(|it| it.starts_with("AWS_"));
    let pair = |word: &str| {
        let (name, value) = word.split_once('=').unwrap();
        (name.to_owned(), value.trim_matches('\'').to_owned())
    };
    words.map(pair).collect()
}

/// The processes of a service.
fn processes(own: &Own, name: &str) -> Vec<u32> {
    let first = own.pid(name);
    let tasks = std::fs::read_dir(format!("/proc/{first}/task")).unwrap();
    let children = tasks.map(|task| std::fs::read_to_string(task.unwrap().path().join("children")));
    let children: String = children.map(Result::unwrap_or_default).collect();
    let children = children.split_whitespace().map(|pid| pid.parse().unwrap());
    std::iter::once(first).chain(children).collect()
}

#[test]
fn every_service_that_freezes_or_dies_is_seen_and_named() {
    let test = "every_service_that_freezes_or_dies_is_seen_and_named";
    let Some(mut cluster) = Cluster::start(test) else {
        return;
    };
    cluster.recovers("the start");
    let mut frozen = Vec::new();
    for (number, (name, role, bound)) in SERVICES.into_iter().enumerate() {
        for process in processes(&cluster.own, name) {
            if send("STOP", process) {
                frozen.push(process);
            }
        }
        cluster.is_down(role, "frozen", bound);
        // Those that follow are still up, so that each is known by itself.
        let states = states(&cluster.json());
        for (_, later, _) in SERVICES.iter().skip(number + 1) {
            assert_eq!(states[*later], "up", "{name} is frozen: {states:?}");
        }
    }
    let first = cluster.json();
    assert!(first["behind"].is_null(), "nobody can tell: {first:#}");
    for (part, roles) in [
        ("dataflow", &["log", "views", "state", "registry"][..]),
        ("ingest", &["log", "database"]),
    ] {
        for role in roles {
            cluster.part_says(part, role);
        }
    }
    let text = cluster.job(&[]);
    for part in [
        "degraded",
        "behind              unknown",
        "Kafka (log) is down since",
    ] {
        assert!(text.contains(part), "`{part}` is missing in\n{text}");
    }
    let of_master = Web(cluster.url.trim_start_matches("http://").to_owned()).scrape();
    let name = ("job", cluster.place.name.as_str());
    for (_, role, _) in SERVICES {
        let labels = [name, ("dependency", role)];
        let up = of_master.value("tidemill_job_dependency_up", &labels);
        assert_eq!(up, Some(0.0), "{role}");
    }
    assert_eq!(of_master.value("tidemill_job_degraded", &[name]), Some(1.0));
    assert_eq!(of_master.value("tidemill_job_lag_records", &[name]), None);
    // What waits gets older, by the clock.
    let later = until("lag and freshness grow", PATIENCE, || {
        let later = cluster.json();
        let grows = |of: &str| later[of].as_u64() >= first[of].as_u64().map(|ms| ms + 1_000);
        (grows("lag_ms") && grows("freshness_p99_ms")).then_some(later)
    });
    assert!(later["lag_ms"].as_u64() > Some(5_000), "{later:#}");
    for process in frozen {
        assert!(send("CONT", process));
    }
    cluster.recovers("a thaw");
    for (name, ..) in SERVICES {
        for process in processes(&cluster.own, name) {
            send("KILL", process);
        }
    }
    for (_, role, bound) in SERVICES {
        cluster.is_down(role, "killed", bound);
    }
    let starting = SERVICES.map(|(name, ..)| cluster.own.begin(name));
    for mut start in starting {
        assert!(start.wait().unwrap().success());
    }
    cluster.recovers("a new start");
    cluster.workers.stop("TERM");
    cluster.master.stop("TERM");
}

const ANSWERS: u8 = 0;
const FAILS: u8 = 1;
const FREEZES: u8 = 2;

/// An API whose answers a test decides on; ends with the test's process.
fn api(mode: &Arc<AtomicU8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let mode = Arc::clone(mode);
    std::thread::spawn(move || {
        let mut held = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 4096];
            // Whoever only connects says nothing.
            stream
                .set_read_timeout(Some(Duration::from_secs(1)))
                .unwrap();
            let _said = stream.read(&mut request);
            let (status, body) = match mode.load(Ordering::Relaxed) {
                ANSWERS => ("200 OK", r#"{"results": []}"#),
                FAILS => ("503 Service Unavailable", "closed for repairs"),
                _ => {
                    held.push(stream);
                    continue;
                }
            };
            let length = body.len();
            let head = format!("HTTP/1.1 {status}\r\nConnection: close\r\n");
            let answer = format!("{head}Content-Length: {length}\r\n\r\n{body}");
            let _gone = stream.write_all(answer.as_bytes());
        }
    });
    url
}

#[test]
fn an_api_that_fails_freezes_or_is_gone_is_named_with_its_error() {
    let place = Place::embedded("api");
    let timeout = "timeout = \"2s\"\nbackoff = \"100ms\"\nbackoff_max = \"200ms\"\n";
    let fetch = feed("api").replace("[fetch]\n", &format!("[fetch]\n{timeout}"));
    place.write("ingest.toml", &(fetch + LAND));
    place.write("views.sql", VIEWS);
    let mode = Arc::new(AtomicU8::new(ANSWERS));
    let url = api(&mode);
    let flags = ["--api", &url, "--http", "127.0.0.1:0"];
    let mut ingest = place.start("ingest", &flags);
    let web = Web::of(&mut ingest);
    let says = |status: u16, part: &str| {
        until(&format!("{status} and {part}"), PATIENCE, || {
            let answer = web.get("/readyz");
            (answer.status == status && answer.body.contains(part)).then_some(())
        });
    };
    says(200, r#""dependency":"api","engine":"HTTP API""#);
    mode.store(FAILS, Ordering::Relaxed);
    says(503, "HTTP 503 Service Unavailable");
    mode.store(ANSWERS, Ordering::Relaxed);
    says(200, r#""state":"up""#);
    mode.store(FREEZES, Ordering::Relaxed);
    says(503, "no answer");
    let up = web
        .scrape()
        .value("tidemill_dependency_up", &[("dependency", "api")]);
    assert_eq!(up, Some(0.0));
    mode.store(ANSWERS, Ordering::Relaxed);
    says(200, r#""state":"up""#);
    ingest.stop("TERM");
    let nobody = format!("http://127.0.0.1:{}/", free_port());
    let mut ingest = place.start("ingest", &["--api", &nobody, "--http", "127.0.0.1:0"]);
    let web = Web::of(&mut ingest);
    until("it says that the API refuses", PATIENCE, || {
        let answer = web.get("/readyz");
        (answer.status == 503 && answer.body.contains("Connection refused")).then_some(())
    });
    ingest.stop("TERM");
}
