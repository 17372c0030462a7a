//! Tests of the status page in a real browser, driven by chromedriver over WebDriver.
//!
//! The page's script is tested as a reader sees it: what is asserted is the visible text, the title
//! and the computed style, never the page's own functions. The master is a fake one with a status
//! that the test changes ([`Master`]).
//!
//! ```text
//! test ─► WebDriver (HTTP, JSON) ─► chromedriver ─► browser ─► page ─► /v1/status of Master
//! ```
//!
//! The protocol is the W3C's WebDriver (<https://www.w3.org/TR/webdriver2/>). Two commands are
//! needed, so no client library is used. Without [`DRIVER`] the tests print that they were left out
//! and pass.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tidemill_protocol::{
    Exit, Failure, JobStatus, MasterStatus, OperatorHeartbeat, Part, Phase, ProcessStatus, Status,
    WorkerStatus,
};

use super::tests::facts;
use super::{answer, listen, master_router};

/// Names the chromedriver. Without the variable the tests are skipped.
const DRIVER: &str = "TIDEMILL_TEST_CHROMEDRIVER";
/// How long a test waits for a text on the page, and for an answer of the driver.
const PATIENCE: Duration = Duration::from_secs(60);
/// Markup that shows if it is ever treated as more than text.
const HOSTILE: &str = "<img src=x onerror=\"window.hit=1\"><script>window.hit=2</script>";

/// A browser with one page; ends with the test.
struct Browser {
    /// The chromedriver's process, which starts the browser and ends it with the session.
    driver: Child,
    /// The port that the driver chose (`--port=0`).
    port: u16,
    /// The id of the WebDriver session; empty until it is made.
    session: String,
    /// The browser's profile, so that no test sees what another one stored.
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Starts the driver and a session. `None` without [`DRIVER`].
    fn open() -> Option<Self> {
        let Ok(driver) = std::env::var(DRIVER) else {
            // Past the harness, which hides what a passing test prints.
            let line = format!("left out: the status page in a browser needs {DRIVER} (./test)\n");
            let _unseen = std::io::stderr().write_all(line.as_bytes());
            return None;
        };
        let mut driver = Command::new(driver)
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port = said.find_map(|line| {
            let line = line.unwrap();
            let port = line.split_once("started successfully on port ")?.1;
            port.trim_end_matches('.').parse().ok()
        });
        // Later output is not needed, but must not fill the pipe.
        std::thread::spawn(move || said.for_each(drop));
        let profile = tempfile::tempdir().unwrap();
        let mut browser = Self {
            driver,
            port: port.unwrap(),
            session: String::new(),
            _profile: profile,
        };
        let folder = format!("--user-data-dir={}", browser._profile.path().display());
        let args = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
            &folder,
        ];
        let chrome = json!({"goog:chromeOptions": {"args": args}});
        let wanted = json!({"capabilities": {"alwaysMatch": chrome}});
        let session = browser.call("POST", "/session", &wanted);
        let id = session["sessionId"].as_str();
        browser.session = id.unwrap_or_else(|| panic!("no session: {session}")).into();
        Some(browser)
    }

    /// One WebDriver call; returns its value.
    ///
    /// `method` and `path` are those of the WebDriver protocol. An error of the driver comes as a
    /// value with a field `error`, and the caller checks for it.
    fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let body = body.to_string();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\
             Content-Type: application/json\r\nConnection: close\r\n\r\n",
            body.len()
        );
        stream.write_all((head + &body).as_bytes()).unwrap();
        // chromedriver keeps the connection open, so the length alone tells where the body ends.
        let mut stream = BufReader::new(stream);
        let mut length = 0;
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).unwrap();
            let line = line.trim_end().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(told) = line.strip_prefix("content-length:") {
                length = told.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).unwrap();
        let mut answer: Value = serde_json::from_slice(&body).unwrap();
        answer["value"].take()
    }

    /// A command of this session, such as `url` or `execute/sync`.
    fn command(&self, name: &str, body: &Value) -> Value {
        let path = format!("/session/{}/{name}", self.session);
        self.call("POST", &path, body)
    }

    /// Runs a script in the page and returns its result.
    ///
    /// The script is the body of a function; its `return` is the result. The test fails if the
    /// script throws.
    #[track_caller]
    fn js(&self, script: &str) -> Value {
        let value = self.command("execute/sync", &json!({"script": script, "args": []}));
        assert!(value["error"].is_null(), "{script}: {value}");
        value
    }

    /// A command of the Chrome DevTools protocol, which emulates the device and its settings.
    fn devtools(&self, command: &str, parameters: Value) {
        let body = json!({"cmd": command, "params": parameters});
        let value = self.command("goog/cdp/execute", &body);
        assert!(value["error"].is_null(), "{command}: {value}");
    }

    /// The visible text of the page.
    fn text(&self) -> String {
        let text = self.js("return document.body.innerText");
        text.as_str().unwrap_or_default().to_owned()
    }

    /// Waits until the page shows all of `parts`, and fails after [`PATIENCE`] with the whole text.
    /// The page updates once a second, so a text may take a moment.
    #[track_caller]
    fn sees(&self, parts: &[&str]) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let text = self.text();
            let missing = parts.iter().find(|part| !text.contains(**part));
            let Some(missing) = missing else { return };
            assert!(Instant::now() < deadline, "no `{missing}` in:\n{text}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty() {
            let path = format!("/session/{}", self.session);
            let _closed = self.call("DELETE", &path, &json!({}));
        }
        let _ended = self.driver.kill();
        let _reaped = self.driver.wait();
    }
}

/// A fake master with a status that the test sets. It ends when dropped.
struct Master {
    /// What `/v1/status` answers, except for the clock, which is the system's.
    status: Arc<Mutex<Status>>,
    /// `host:port` of the page.
    address: String,
    /// Serves the page. Dropping the runtime closes the listener and all connections.
    _runtime: tokio::runtime::Runtime,
}

impl Master {
    /// A master at `address`, with port 0 for any free port. The routes are the real ones, and
    /// `/v1/status` is the test's.
    fn at(address: &str, status: Status) -> Self {
        let listener = listen(&address).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let status = Arc::new(Mutex::new(status));
        let told = Arc::clone(&status);
        let now = move || {
            let mut status = told.lock().unwrap().clone();
            let since = std::time::UNIX_EPOCH.elapsed().unwrap();
            status.master.now_ms = since.as_millis() as u64;
            status
        };
        let router = master_router(facts(now));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        runtime.spawn(answer(listener, router));
        Self {
            status,
            address,
            _runtime: runtime,
        }
    }

    /// Changes the status that the next requests get.
    fn change(&self, change: impl FnOnce(&mut Status)) {
        change(&mut self.status.lock().unwrap());
    }
}

/// An operator that was busy for `busy_us` µs and holds `rows` rows of 2 KiB each, if it holds any.
fn operator(name: &str, busy_us: u64, rows: Option<i64>) -> OperatorHeartbeat {
    OperatorHeartbeat {
        name: name.to_owned(),
        busy_us,
        rows,
        bytes: rows.map(|rows| rows * 2048),
    }
}

/// Process `index` of a dataflow, in some phase.
fn process(index: usize, phase: Phase) -> ProcessStatus {
    ProcessStatus {
        part: Part::Dataflow,
        index,
        worker: format!("node{index}"),
        phase,
        http: format!("10.0.0.{index}:9"),
        records: 0,
        operators: Vec::new(),
    }
}

/// A cluster with one job, in which every part of the page has something to show: a reason why
/// workers are missing, a process that was killed, a failure with its last lines, an operator with
/// state.
fn status() -> Status {
    let killed = Exit {
        code: None,
        signal: Some(9),
        frozen: false,
        unreachable: Vec::new(),
        at_ms: 1_800_000_000_000,
        tail: Vec::new(),
    };
    let users = JobStatus {
        name: "users".into(),
        state: "running".into(),
        why: Some("wants 6 workers, 4 slots are free".into()),
        generation: 12,
        restarts: 1,
        workers_wanted: 6,
        workers: 4,
        epoch: 1_800_000_000_000,
        behind: Some(1234),
        freshness_p50_ms: Some(42),
        freshness_p99_ms: Some(7300),
        records: 9_876_543,
        records_per_second: 48123.4,
        dead_letters: 17,
        views: [("users_by_country".to_owned(), 195)].into(),
        operators: vec![
            operator("users_by_country: Write", 1000, None),
            operator("users_by_country: Reduce by country", 5000, Some(195)),
        ],
        processes: vec![process(1, Phase::Live), process(2, Phase::Exited(killed))],
        failures: vec![Failure {
            generation: 11,
            at_ms: 1_800_000_000_000,
            process: "process 1 on node2".into(),
            what: "killed by signal 9".into(),
            tail: vec!["its last words".into()],
        }],
        ..JobStatus::default()
    };
    Status {
        master: MasterStatus {
            generation: 3,
            version: "1.2.3".into(),
            started_ms: 1_800_000_000_000,
            now_ms: 0,
        },
        workers: vec![WorkerStatus {
            id: "w".into(),
            name: "node1-4711".into(),
            http: "10.0.0.1:9100".into(),
            slots: 4,
            slots_used: 3,
            silent_ms: 3400,
            version: "1.2.3".into(),
        }],
        jobs: vec![users],
    }
}

/// The page is loaded once. Everything after that reaches it by its own requests: new numbers, a
/// job that fails, the end of the master, and a master of the next generation at the same address.
#[test]
fn the_page_shows_the_cluster_live_and_says_when_the_master_is_away() {
    let Some(browser) = Browser::open() else {
        return;
    };
    let master = Master::at("127.0.0.1:0", status());
    let address = master.address.clone();
    browser.command("url", &json!({"url": format!("http://{address}/")}));
    browser.sees(&[
        "master 3, version 1.2.3",
        "1 of 1 run",
        "users",
        "running",
        "wants 6 workers, 4 slots are free",
        "42 ms / 7.3 s",
        "1,234 records",
        "48,123.4",
        "4 of 6",
        "9,876,543",
        "17",
        "195",
        "users_by_country: Reduce by country",
        "390 KiB",
        "killed by signal 9",
        "process 1 on node2",
        "node1-4711",
        "3 of 4",
        "3.4 s ago",
    ]);

    // The page updates by itself, and what a reader opened stays open.
    browser.js("document.querySelector('details').open = true; return 1");
    browser.sees(&["its last words"]);
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(3) {
        // Half of each second is spent in one operator.
        master.change(|status| {
            let busy = 5000 + began.elapsed().as_micros() as u64 / 2;
            status.jobs[0].operators[1].busy_us = busy;
        });
        std::thread::sleep(Duration::from_millis(20));
    }
    let most = browser.js("const row = [...document.querySelectorAll('tr')]
           .find((row) => row.textContent.includes('Reduce by country'));
         return [row.rowIndex, parseFloat(row.cells[1].textContent)];");
    assert_eq!(most[0], 1, "the busiest comes first");
    let share = most[1].as_f64().unwrap();
    assert!((10.0..=100.0).contains(&share), "{share} % of a core");
    master.change(|status| {
        status.jobs[0].state = "failed".into();
        status.jobs[0].behind = Some(777);
        status.jobs[0].views.insert("added".into(), 31);
        status.workers.clear();
    });
    browser.sees(&[
        "failed",
        "777 records",
        "added",
        "No worker yet",
        "its last words",
    ]);
    assert_eq!(browser.js("return document.title"), "(1 failed) Tidemill");
    let points = browser.js("return document.querySelector('polyline').getAttribute('points')");
    assert!(points.as_str().unwrap().split(' ').count() > 3, "{points}");

    // The master ends, and comes back.
    drop(master);
    browser.sees(&["The master is away since"]);
    assert_eq!(browser.js("return document.title"), "(away) Tidemill");
    let mut back = status();
    back.master.generation = 4;
    let _back = Master::at(&address, back);
    browser.sees(&["master 4,"]);
    assert!(!browser.text().contains("is away"));
}

/// Every text that comes from outside (names, reasons, addresses, log lines) is markup in this
/// test. It must appear as text, make no element and run no script. The content security policy is
/// tested with a script element that the test inserts itself.
#[test]
fn what_a_job_says_is_text_and_fits_a_phone_in_the_dark() {
    let Some(browser) = Browser::open() else {
        return;
    };
    let mut hostile = status();
    let text = || HOSTILE.to_owned();
    let job = &mut hostile.jobs[0];
    (job.name, job.state, job.why) = (text(), text(), Some(text()));
    job.views = [(text(), 1)].into();
    job.operators = vec![operator(HOSTILE, 1, Some(1))];
    (job.processes[0].worker, job.processes[0].http) = (text(), text());
    (job.failures[0].process, job.failures[0].what) = (text(), text());
    job.failures[0].tail = vec![text()];
    let worker = &mut hostile.workers[0];
    (worker.name, worker.http, worker.version) = (text(), text(), text());
    hostile.master.version = text();
    let mut plain = status().jobs.remove(0);
    plain.name = "a_name_as_long_as_a_name_of_a_job_may_be_but_not_longer".into();
    hostile.jobs.push(plain);
    let master = Master::at("127.0.0.1:0", hostile);
    let phone = json!({"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": true});
    browser.devtools("Emulation.setDeviceMetricsOverride", phone);
    let dark = json!({"features": [{"name": "prefers-color-scheme", "value": "dark"}]});
    browser.devtools("Emulation.setEmulatedMedia", dark);
    let url = format!("http://{}/", master.address);
    browser.command("url", &json!({"url": url}));
    browser.sees(&[HOSTILE, "a_name_as_long"]);
    browser.js("document.querySelectorAll('details').forEach((it) => it.open = true); return 1");
    browser.sees(&[HOSTILE]);
    assert_eq!(browser.js("return window.hit || 0"), 0, "markup was run");
    let made = browser.js("return document.querySelectorAll('img, body script').length");
    assert_eq!(made, 0, "markup became elements");
    let fits = "return document.documentElement.scrollWidth <= window.innerWidth";
    assert_eq!(browser.js(fits), true, "wider than the phone");
    let back = browser.js("return getComputedStyle(document.body).backgroundColor");
    let parts = back.as_str().unwrap().trim_start_matches("rgb(");
    let red: u32 = parts.split(',').next().unwrap().parse().unwrap();
    assert!(red < 64, "{back} is not dark");
    // The policy holds even for a script that got in.
    browser.js("const script = document.createElement('script');
         script.textContent = 'window.hit = 3';
         document.body.append(script); return 1");
    assert_eq!(
        browser.js("return window.hit || 0"),
        0,
        "an inline script ran"
    );
}
