//! Tests of the control center's pages in a real browser ([`Browser`]).
//!
//! The server is a fake one with the real routes and a status that the test changes ([`Master`]),
//! so that each state of a job can be shown. Tests of the real master and of `tidemill run` are in
//! `cluster/tests`.

use std::sync::{Arc, Mutex};

use serde_json::json;
use tidemill_protocol::token::Token;
use tidemill_protocol::{
    DependencyStatus, Exit, Failure, IngestStatus, JobState, JobStatus, MasterStatus,
    OperatorHeartbeat, Part, Phase, ProcessStatus, Status, WorkerStatus,
};

use super::api::history;
use super::driver::Browser;
use super::tests::facts;
use super::{answer, app, listen, master_router};

/// Markup that shows if it is ever treated as more than text.
const HOSTILE: &str = "<img src=x onerror=\"window.hit=1\"><script>window.hit=2</script>";
/// Limit of what a browser loads, in bytes.
const LOADED_BYTES: usize = 250 * 1024;

/// A fake master with a status that the test sets. It ends when dropped.
struct Master {
    /// The status, except for the clock, which is the system's.
    status: Arc<Mutex<Status>>,
    /// `host:port` of the page.
    address: String,
    /// Serves the page. Dropping the runtime closes the listener and all connections.
    _runtime: tokio::runtime::Runtime,
}

impl Master {
    /// A master at `address`, with port 0 for any free port, and a token if one is given.
    fn at(address: &str, status: Status, token: Option<&str>) -> Self {
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
        let mut facts = facts(now);
        facts.session.token = token.map(|token| Arc::new(Token::new(token).unwrap()));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        runtime.spawn(history::sample(facts.clone()));
        runtime.spawn(answer(listener, master_router(facts)));
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

    /// The address of a screen.
    fn screen(&self, hash: &str) -> String {
        format!("http://{}/{hash}", self.address)
    }
}

/// An operator that was busy for `busy_us` µs and holds `rows` rows of 2 KiB each, if it holds any.
fn operator(name: &str, busy_us: u64, rows: Option<i64>) -> OperatorHeartbeat {
    OperatorHeartbeat {
        name: name.to_owned(),
        busy_us,
        rows,
        bytes: rows.map(|rows| rows * 2048),
        threads_us: vec![busy_us / 4, busy_us - busy_us / 4],
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
        records: 4_321,
        operators: vec![operator("users_by_country: Write", 1000, None)],
    }
}

/// A service that is up, or down with an error.
fn service(dependency: &str, engine: &str, error: Option<&str>) -> DependencyStatus {
    DependencyStatus {
        dependency: dependency.to_owned(),
        engine: engine.to_owned(),
        at: format!("{dependency}.example:1"),
        state: if error.is_some() { "down" } else { "up" }.to_owned(),
        since_ms: 1_800_000_000_000,
        error: error.map(str::to_owned),
    }
}

/// A cluster with one job, in which every part of the pages has something to show: a reason why
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
        state: JobState::Running,
        why: Some("wants 6 workers, 4 slots are free".into()),
        generation: 12,
        restarts: 1,
        workers_wanted: 6,
        workers: 4,
        epoch: 1_800_000_000_000,
        behind: Some(1234),
        lag_ms: Some(900),
        freshness_p50_ms: Some(42),
        freshness_p99_ms: Some(7300),
        records: 9_876_543,
        records_per_second: 48123.4,
        dead_letters: 17,
        disk_free: Some(25 << 30),
        disk_size: Some(100 << 30),
        dependencies: vec![
            service("database", "PostgreSQL", None),
            service("log", "Kafka", None),
            service("views", "Cassandra", None),
        ],
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
            drained: false,
        }],
        jobs: vec![users],
    }
}

/// One page is loaded once. Everything after that reaches it by its own requests: new numbers, a
/// job that fails, the end of the master, and a master of the next generation at the same address.
#[test]
fn the_pages_are_live_and_say_when_the_master_is_away() {
    let Some(browser) = Browser::open() else {
        return;
    };
    let master = Master::at("127.0.0.1:0", status(), None);
    let address = master.address.clone();
    browser.go(&master.screen("#/jobs/users/river"));
    browser.sees(&[
        "wants 6 workers, 4 slots are free",
        "42 ms / 7.3 s",
        "1,234 records",
        "48,123.4/s",
        "4 of 6",
        "17 dead letters",
        "users_by_country",
        "195 rows",
        "Kafka",
    ]);
    browser.js("document.querySelector('main').dataset.kept = 'yes'; return 1");
    master.change(|status| {
        let job = &mut status.jobs[0];
        (job.state, job.why) = (JobState::Degraded, Some("Kafka (log) is down".into()));
        (job.behind, job.lag_ms) = (Some(777), Some(75_000));
        job.dependencies[1] = service("log", "Kafka", Some("no answer from a:9092"));
    });
    browser.sees(&[
        "Kafka (log) is down",
        "777 records wait; the oldest change that is not readable has waited for 75 s",
        "no answer from a:9092",
    ]);
    let red = browser.js(
        "return [...document.querySelectorAll('.graph .bad')].map((it) =>
        it.querySelector('title').textContent.split('\\n')[0])",
    );
    assert!(red.to_string().contains("Topic"), "{red}");
    browser.is_titled("(1 degraded) Tidemill");
    let kept = browser.js("return document.querySelector('main').dataset.kept");
    assert_eq!(kept, "yes", "the page was built anew");

    // From the first screen, red leads to the cause by one click.
    browser.go(&master.screen(""));
    browser.sees(&["degraded", "Kafka (log) is down"]);
    browser.click("users");
    browser.sees(&["no answer from a:9092"]);

    // The master ends, and comes back.
    drop(master);
    browser.sees(&["Not up to date: nobody answers"]);
    browser.is_titled("(away) Tidemill");
    let mut back = status();
    back.jobs[0].views.insert("added".into(), 31);
    let _back = Master::at(&address, back, None);
    browser.sees(&["added", "31 rows"]);
    browser.sees_no("Not up to date");
}

/// Every screen says what is so while there is nothing to show, and each shows its numbers.
#[test]
fn each_screen_shows_its_numbers_and_says_when_there_are_none() {
    let Some(browser) = Browser::open() else {
        return;
    };
    let master = Master::at("127.0.0.1:0", status(), None);
    for (hash, parts) in [
        (
            "#/workers",
            &["node1-4711", "3 of 4", "3.4 s ago", "Drain"][..],
        ),
        (
            "#/jobs/users/operators",
            &[
                "users_by_country: Reduce by country",
                "390 KiB",
                "1.5 ×",
                "1.1: 1 ms",
                "Where the time goes",
            ],
        ),
        (
            "#/jobs/users/sink",
            &["Cassandra", "users_by_country", "195", "1 ms"],
        ),
        (
            "#/jobs/users/cluster",
            &[
                "killed by signal 9",
                "process 1 on node2",
                "4,321",
                "25 GiB free of 100 GiB",
                "75 %",
            ],
        ),
        ("#/jobs/users/freshness", &["7.3 s", "5 s", "0 %"]),
        ("#/jobs/users/freshness?target=8s", &["100 %"]),
        (
            "#/jobs/users/freshness?target=soon",
            &["A target is written as 500ms, 2s or 1m"],
        ),
        ("#/jobs/users/ingest", &["something else fills its topics"]),
        (
            "#/jobs/users/views",
            &["The plan cannot be shown: HTTP 404"],
        ),
        (
            "#/jobs/none/river",
            &["The pipeline cannot be shown: no job `none`"],
        ),
        ("#/nowhere", &["there is no screen “nowhere”"]),
    ] {
        browser.go(&master.screen(hash));
        browser.sees(parts);
    }
    each_says_when_there_is_nothing(&browser, &master);
}

/// The same screens once there is nothing to show.
fn each_says_when_there_is_nothing(browser: &Browser, master: &Master) {
    browser.go(&master.screen("#/jobs/users/cluster"));
    browser.sees(&["process 1 on node2"]);
    browser.js("document.querySelector('details').open = true; return 1");
    browser.sees(&["its last words"]);
    master.change(|status| {
        status.workers.clear();
        let job = &mut status.jobs[0];
        (job.operators, job.processes, job.failures) = Default::default();
    });
    browser.sees(&[
        "No process of the job runs",
        "No generation has ended by itself",
    ]);
    browser.go(&master.screen("#/workers"));
    browser.sees(&["No worker yet"]);
    browser.go(&master.screen("#/jobs/users/operators"));
    browser.sees(&["nobody counts its operators"]);
    master.change(|status| status.jobs.clear());
    browser.go(&master.screen("#/jobs"));
    browser.sees(&["No job yet"]);
}

/// A status in which every text is markup, and a job with a name as long as one may be.
fn hostile() -> Status {
    let mut hostile = status();
    let text = || HOSTILE.to_owned();
    let job = &mut hostile.jobs[0];
    (job.name, job.why) = (text(), Some(text()));
    job.views = [(text(), 1)].into();
    job.operators = vec![operator(HOSTILE, 1, Some(1))];
    job.dependencies = vec![service(HOSTILE, HOSTILE, Some(HOSTILE))];
    (job.processes[0].worker, job.processes[0].http) = (text(), text());
    (job.failures[0].process, job.failures[0].what) = (text(), text());
    job.failures[0].tail = vec![text()];
    let worker = &mut hostile.workers[0];
    (worker.name, worker.http, worker.version) = (text(), text(), text());
    hostile.master.version = text();
    let mut plain = status().jobs.remove(0);
    plain.name = "a_name_as_long_as_a_name_of_a_job_may_be_but_not_longer".into();
    hostile.jobs.push(plain);
    hostile
}

/// Every text that comes from outside (names, reasons, addresses, log lines) is markup in this
/// test. It must appear as text, make no element and run no script. The content security policy is
/// tested with a script element that the test inserts itself.
#[test]
fn what_a_job_says_is_text_and_fits_a_phone_in_the_dark() {
    let Some(browser) = Browser::open() else {
        return;
    };
    let master = Master::at("127.0.0.1:0", hostile(), None);
    browser.look_as(360, "dark");
    let screens = [
        "river",
        "freshness",
        "operators",
        "sink",
        "cluster",
        "ingest",
        "views",
    ];
    let name = HOSTILE
        .replace('%', "%25")
        .replace('/', "%2F")
        .replace('"', "%22");
    let name = name
        .replace(' ', "%20")
        .replace('<', "%3C")
        .replace('>', "%3E");
    let of_job = screens.map(|screen| format!("#/jobs/{name}/{screen}"));
    for hash in of_job
        .into_iter()
        .chain(["#/jobs".into(), "#/workers".into()])
    {
        browser.go(&master.screen(&hash));
        browser.sees(&[HOSTILE]);
        browser.js(
            "document.querySelectorAll('details').forEach((it) => it.open = true);
                    return 1",
        );
        assert_eq!(
            browser.js("return window.hit || 0"),
            0,
            "{hash}: markup was run"
        );
        let made = browser.js("return document.querySelectorAll('img, body script').length");
        assert_eq!(made, 0, "{hash}: markup became elements");
        let wide = browser.js("return document.documentElement.scrollWidth - innerWidth");
        assert!(
            wide.as_i64().unwrap() <= 0,
            "{hash}: {wide} px wider than the phone"
        );
    }
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

/// The token is asked for once, kept where no script can read it, and forgotten on request.
#[test]
fn the_token_is_asked_for() {
    let Some(browser) = Browser::open() else {
        return;
    };
    let master = Master::at("127.0.0.1:0", status(), Some("s3cret; with signs"));
    let type_in = |token: &str| {
        let script = format!(
            "document.querySelector('#token').value = {}; return 1",
            json!(token)
        );
        browser.js(&script);
        browser.click("Log in");
    };
    browser.go(&master.screen("#/jobs/users/river"));
    browser.sees(&["needs the cluster's token"]);
    assert!(!browser.text().contains("users_by_country"));
    assert_eq!(browser.inaccessible(), [""; 0]);
    type_in("wrong");
    browser.sees(&["the token is not this server's"]);
    type_in("s3cret; with signs");
    browser.sees(&["users_by_country"]);
    assert_eq!(
        browser.js("return document.cookie"),
        "",
        "a script can read it"
    );
    browser.go(&master.screen("#/workers"));
    browser.sees(&["node1-4711"]);
    browser.click("Log out");
    browser.sees(&["needs the cluster's token"]);
}

/// 50 jobs with 200 views each: the first screen is there, and a job's own is too.
#[test]
fn many_jobs_with_many_views_are_shown() {
    let Some(browser) = Browser::open() else {
        return;
    };
    let mut many = status();
    let job = many.jobs.remove(0);
    many.jobs = (0..50)
        .map(|number| JobStatus {
            name: format!("job{number:02}"),
            views: (0..200)
                .map(|view| (format!("view{view:03}"), view))
                .collect(),
            operators: (0..50)
                .map(|it| operator(&format!("v: o{it}"), it, Some(1)))
                .collect(),
            ..job.clone()
        })
        .collect();
    let master = Master::at("127.0.0.1:0", many, None);
    browser.go(&master.screen("#/jobs"));
    browser.sees(&["job00", "job49"]);
    let paint = "return performance.getEntriesByName('first-contentful-paint')[0].startTime";
    let first = browser.js(paint).as_f64().unwrap();
    browser.click("job49");
    browser.sees(&["view199"]);
    let slow = browser.command(
        "execute/async",
        &json!({"args": [], "script": "
            const done = arguments[arguments.length - 1];
            let last = performance.now(), most = 0, frames = 0;
            const step = (now) => {
              most = Math.max(most, now - last); last = now; frames += 1;
              if (frames < 120) requestAnimationFrame(step); else done(most);
            };
            requestAnimationFrame(step);"}),
    );
    // Not asserted, because it depends on what else the machine does.
    println!("first paint after {first} ms, longest of 120 frames {slow} ms");
}

/// Clicks the first red link of the page, for example a number that is wrong. False when nothing
/// leads on.
fn follow_red(browser: &Browser) -> bool {
    let red = "const one = [...document.querySelectorAll('main a')].find((it) =>
                 it.matches('.bad, .bad-text') || it.querySelector('.bad, .bad-text'));
               if (one) one.click(); return Boolean(one);";
    browser.js(red) == true
}

/// Something that goes wrong: what it is, how it shows in the status, and the screen of its cause.
type Fault = (&'static str, fn(&mut JobStatus), &'static str);

/// What goes wrong is found from the first screen by following red, in at most three clicks.
#[test]
fn red_leads_to_the_cause() {
    let Some(browser) = Browser::open() else {
        return;
    };
    let mut fine = status();
    let job = &mut fine.jobs[0];
    (job.why, job.restarts, job.workers, job.dead_letters) = (None, 0, 6, 0);
    (job.freshness_p99_ms, job.failures) = (Some(40), Vec::new());
    job.ingest = Some(IngestStatus {
        state: JobState::Running,
        ..IngestStatus::default()
    });
    // Otherwise the default rule about dead letters would still fire after its fault.
    job.alerts_file = Some("[[rule]]\nname = 'quiet'\nwhen = 'behind > 1000000'".into());
    let master = Master::at("127.0.0.1:0", fine.clone(), None);
    browser.go(&master.screen("#/jobs"));
    browser.sees(&["users", "running"]);
    assert!(!follow_red(&browser), "red while nothing is wrong");
    let stopped = |job: &mut JobStatus| {
        (job.state, job.why) = (
            JobState::Degraded,
            Some("ingest failed: no such host".into()),
        );
        let ingest = job.ingest.as_mut().unwrap();
        (ingest.state, ingest.why) = (JobState::Failed, Some("no such host".into()));
    };
    let full = |job: &mut JobStatus| {
        job.alerts_file = Some("[[rule]]\nname = 'slot-is-full'\nwhen = 'wal_kept > 1 GiB'".into());
        job.ingest.as_mut().unwrap().wal_kept = Some(20 << 30);
    };
    let dead = |job: &mut JobStatus| job.workers = 4;
    let letter = |job: &mut JobStatus| job.dead_letters = 1;
    let late = |job: &mut JobStatus| job.freshness_p99_ms = Some(60_000);
    let faults: [Fault; 5] = [
        ("an ingest that is stopped", stopped, "#/jobs/users/ingest"),
        ("a slot that is full", full, "#/jobs/users/capture"),
        ("a worker that is dead", dead, "#/jobs/users/cluster"),
        ("a dead letter", letter, "#/jobs/users/letters"),
        ("a view that is late", late, "#/jobs/users/freshness"),
    ];
    for (what, break_it, screen) in faults {
        // Another master, because alerts about an earlier fault resolve later.
        let mut broken = fine.clone();
        break_it(&mut broken.jobs[0]);
        let master = Master::at("127.0.0.1:0", broken, None);
        browser.go(&master.screen("#/jobs"));
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        let mut clicks = 0;
        while browser.js("return location.hash") != screen {
            assert!(
                std::time::Instant::now() < deadline,
                "{what}: nothing is red at {}\n{}",
                browser.js("return location.hash"),
                browser.text()
            );
            clicks += u32::from(follow_red(&browser));
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        assert!((1..=3).contains(&clicks), "{what} takes {clicks} clicks");
    }
}

/// What a browser loads is small, and what is vendored is what its list says.
#[test]
fn assets_are_small_and_vendored_files_are_unchanged() {
    let loaded = app::bytes_loaded();
    assert!(loaded <= LOADED_BYTES, "{loaded} bytes");
    let folders = [
        concat!(env!("CARGO_MANIFEST_DIR"), "/app/vendor"),
        concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/vendor"),
    ];
    for folder in folders {
        let list = std::fs::read_to_string(format!("{folder}/VENDORED.toml")).unwrap();
        let list: toml::Table = list.parse().unwrap();
        let files = std::fs::read_dir(folder).unwrap().map(|file| {
            let name = file.unwrap().file_name();
            name.to_str().unwrap().to_owned()
        });
        let is_library = |name: &String| {
            let ends = |end| name.ends_with(end);
            (ends(".mjs") || ends(".js") || ends(".css")) && !ends(".d.mts")
        };
        let files: Vec<String> = files.filter(is_library).collect();
        assert_eq!(files.len(), list.len(), "{folder}: {files:?}");
        for name in files {
            let bytes = std::fs::read(format!("{folder}/{name}")).unwrap();
            let digest = ring::digest::digest(&ring::digest::SHA256, &bytes);
            let digest: String = digest
                .as_ref()
                .iter()
                .map(|it| format!("{it:02x}"))
                .collect();
            assert_eq!(list[&name]["sha256"].as_str(), Some(&*digest), "{name}");
            for field in ["package", "version", "licence", "source"] {
                assert!(list[&name][field].is_str(), "{name} has no {field}");
            }
        }
    }
}
