//! The control center of the real binary: its answers beside the OpenAPI document and beside the
//! database, its screens in a real browser, its buttons, its token and its audit log. Embedded
//! engines, so that no service has to run.
//!
//! Pictures of all screens, in both themes and at two widths, are written to `target/screens`.

use std::path::PathBuf;
use std::process::Command;

use reqwest::blocking::{Client, RequestBuilder};
use serde_json::{Value, json};

use crate::harness::browser::Browser;
use crate::harness::database::Database;
use crate::harness::{PATIENCE, Place, Process, free_port, until};

pub(super) const OPENAPI: &str = include_str!("../../../web/src/api/openapi.json");
const TOKEN: &str = "center-token";
/// The widths of the pictures, in px.
const WIDTHS: [u32; 2] = [1280, 360];

const INGEST: &str = r#"
[schedule]
every = "50ms"
last_page = 4
[fetch]
url = "https://randomuser.me/api/1.4/"
records = "results"
page_size = 50
page_size_parameter = "results"
page_parameter = "page"
parameters = { seed = "center" }
[land]
table = "users"
key = "id"
columns = [
    { name = "id", path = "login.uuid", type = "text" },
    { name = "country", path = "location.country", type = "text" },
]
"#;

const VIEWS: &str = "
CREATE TABLE users WITH (topic = 'users', format = 'avro', envelope = 'debezium');
CREATE MATERIALIZED VIEW people WITH (primary_key = 'id') AS
  SELECT id, country FROM users;
CREATE MATERIALIZED VIEW countries WITH (primary_key = 'country') AS
  SELECT country, count(*) AS people FROM people GROUP BY country;
";

/// The screens of a job and those of the whole server, each with a text that it must show.
const OF_JOB: [(&str, &str); 8] = [
    ("river", "Topic"),
    ("freshness", "Freshness"),
    ("ingest", "Landed"),
    ("views?view=countries", "Reduce by country"),
    ("operators", "countries: Reduce by country"),
    ("sink", "countries"),
    ("cluster", "dataflow 0"),
    ("alerts", "services_down"),
];

/// A server that shows the control center.
struct Center {
    http: Client,
    at: String,
}

impl Center {
    fn new(at: String) -> Self {
        // Another test of this program may have installed it.
        let _there = rustls::crypto::ring::default_provider().install_default();
        let http = Client::builder().no_proxy().timeout(PATIENCE).build();
        Self {
            http: http.unwrap(),
            at,
        }
    }

    /// The answer to a GET below `/api/v1`: its status and its JSON.
    fn get(&self, path: &str) -> (u16, Value) {
        sent(
            self.http
                .get(format!("{}/api/v1/{path}", self.at))
                .bearer_auth(TOKEN),
        )
    }

    /// The JSON of a path that answers.
    #[track_caller]
    fn told(&self, path: &str) -> Value {
        let (status, body) = self.get(path);
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    /// Waits until a job's status is so.
    #[track_caller]
    fn until(&self, job: &str, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        until(what, PATIENCE, || {
            let (_, found) = self.get(&format!("jobs/{job}"));
            is(&found).then_some(found)
        })
    }
}

/// Sends a request; a body that is no JSON is null.
fn sent(request: RequestBuilder) -> (u16, Value) {
    let answer = request.send().unwrap();
    let status = answer.status().as_u16();
    let text = answer.text().unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::Null))
}

/// What of a value its schema in the OpenAPI document does not allow. A field that the schema does
/// not name is not allowed either.
pub(super) fn breaches(document: &Value, schema: &Value, value: &Value, at: &str) -> Vec<String> {
    if let Some(name) = schema["$ref"].as_str() {
        let found = document.pointer(name.trim_start_matches('#'));
        let found = found.unwrap_or_else(|| panic!("{name} is not in the document"));
        return breaches(document, found, value, at);
    }
    if let Some(any) = schema["oneOf"].as_array() {
        let mut all = any.iter().map(|one| breaches(document, one, value, at));
        return match all.any(|found| found.is_empty()) {
            true => Vec::new(),
            false => vec![format!("{at}: none of oneOf allows {value}")],
        };
    }
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let is = |allowed: &Value| allowed == kind || (allowed == "number" && kind == "integer");
    let allowed = match &schema["type"] {
        Value::Array(kinds) => kinds.iter().any(is),
        one => is(one),
    };
    let listed = schema["enum"].as_array();
    let mut found = Vec::new();
    if !allowed || listed.is_some_and(|listed| !listed.contains(value)) {
        found.push(format!("{at}: {value} is not of {schema}"));
    }
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        found.extend(breaches(
            document,
            &schema["items"],
            item,
            &format!("{at}[{index}]"),
        ));
    }
    for name in schema["required"].as_array().into_iter().flatten() {
        if value.get(name.as_str().unwrap()).is_none() {
            found.push(format!("{at}: {name} is missing"));
        }
    }
    for (name, field) in value.as_object().into_iter().flatten() {
        let of = [&schema["properties"][name], &schema["additionalProperties"]];
        match of.into_iter().find(|it| !it.is_null()) {
            Some(of) => found.extend(breaches(document, of, field, &format!("{at}.{name}"))),
            None if schema["properties"].is_null() => {}
            None => found.push(format!("{at}.{name} is not in the document")),
        }
    }
    found
}

/// Asks every GET of the document whose parameters are known here, and compares the answers with
/// their schemas. Returns how many were asked.
fn matches_its_document(center: &Center, job: &str, left_out: &[&str]) -> usize {
    let document: Value = serde_json::from_str(OPENAPI).unwrap();
    let mut asked = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        let at = path.replace("{job}", job);
        let schema = &methods["get"]["responses"]["200"]["content"]["application/json"]["schema"];
        if schema.is_null() || at.contains('{') || left_out.iter().any(|it| at.ends_with(it)) {
            continue;
        }
        let body = center.told(at.trim_start_matches("/api/v1/"));
        let wrong = breaches(&document, schema, &body, &at);
        assert!(wrong.is_empty(), "{wrong:#?}");
        asked += 1;
    }
    asked
}

/// Where the picture of a screen goes.
fn picture(name: &str, theme: &str, width: u32) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    folder.join(format!("../screens/{name}-{theme}-{width}.png"))
}

/// Goes to a screen, waits for a text of it, and takes pictures in which nothing is inaccessible.
#[track_caller]
pub(super) fn look(browser: &Browser, url: &str, name: &str, text: &str) {
    browser.look_as(WIDTHS[0], "light");
    browser.go(url);
    browser.sees(&[text]);
    for theme in ["light", "dark"] {
        for width in WIDTHS {
            browser.look_as(width, theme);
            let frames = "const done = arguments[arguments.length - 1];
                requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 50)))";
            browser.command("execute/async", &json!({"script": frames, "args": []}));
            let wide = browser.js("return document.documentElement.scrollWidth - innerWidth");
            assert!(
                wide.as_i64().unwrap() <= 0,
                "{name} is wider than {width} px"
            );
            browser.picture(&picture(name, theme, width));
        }
        let found = browser.inaccessible();
        assert!(found.is_empty(), "{name}, {theme}: {found:#?}");
    }
}

/// The number of rows of a table in the embedded file.
fn rows(place: &Place, table: &str) -> u64 {
    let mut database = Database::open(&place.database);
    let rows = database.rows(&format!("SELECT count(*) FROM {table}"));
    rows.first().unwrap()[0].parse().unwrap()
}

/// `tidemill run` names its control center in its first line. Its answers are as the document says,
/// and its screens show what the database holds.
#[test]
fn run_shows_its_own_pipeline() {
    let place = Place::embedded("center");
    place.write("ingest.toml", INGEST);
    place.write("views.sql", VIEWS);
    let mut run = place.start("run", &["--no-live"]);
    run.says("control center: ");
    let said = run.said();
    let first = said.lines().next().unwrap();
    let at = first
        .split(' ')
        .find(|word| word.starts_with("http://"))
        .unwrap();
    let center = Center::new(at.trim_end_matches('/').to_owned());
    let job = &place.name;
    let all = center.until(job, "all records are in the views", |job| {
        job["views"]["people"] == 200 && job["state"] == "running" && job["behind"] == 0
    });
    assert_eq!(rows(&place, "people"), 200);
    assert_eq!(all["views"]["countries"], rows(&place, "countries"));
    let runs = center.told(&format!("jobs/{job}/runs"));
    let pages = runs["runs"].as_array().unwrap();
    assert_eq!(pages.len(), 4);
    let landed: u64 = pages
        .iter()
        .map(|run| run["records"].as_u64().unwrap())
        .sum();
    assert_eq!(landed, 200);
    until("a sample was taken", PATIENCE, || {
        let (status, _) = center.get(&format!("jobs/{job}/history"));
        (status == 200).then_some(())
    });
    let asked = matches_its_document(&center, job, &["/targets"]);
    assert!(asked >= 12, "{asked} answers were compared");
    // A name of another site that points to this machine is refused.
    let elsewhere = center.http.get(format!("{}/api/v1/status", center.at));
    let (status, _) = sent(
        elsewhere
            .header("host", "elsewhere.example")
            .header("user-agent", "Mozilla/5.0"),
    );
    assert_eq!(status, 403);

    let Some(browser) = Browser::open() else {
        return;
    };
    let countries = rows(&place, "countries").to_string();
    browser.go(&format!("{}/#/jobs/{job}/river", center.at));
    browser.sees(&["200 rows", &format!("{countries} rows"), "SQLite"]);
    browser.go(&format!("{}/#/jobs/{job}/ingest", center.at));
    browser.sees(&["Pages shown\n4", "Landed\n4"]);
    for (screen, text) in OF_JOB {
        let name = screen.split('?').next().unwrap();
        look(
            &browser,
            &format!("{}/#/jobs/{job}/{screen}", center.at),
            name,
            text,
        );
    }
    let menu = browser.js("return document.querySelector('.menus').innerText");
    assert!(!menu.as_str().unwrap().contains("Workers"));
    ask_the_fetcher(&browser, &center, job);
    verify_a_view(&browser, &center, job);
    let logs = format!("{}/#/logs", center.at);
    browser.go(&logs);
    browser.sees(&["fetching is paused"]);
    look(&browser, &logs, "run-logs", "fetching is paused");
    let audit = format!("{}/#/audit", center.at);
    look(&browser, &audit, "run-audit", "fetching/backfill");
}

/// Presses the buttons of the fetcher.
fn ask_the_fetcher(browser: &Browser, center: &Center, job: &str) {
    browser.look_as(1280, "light");
    browser.go(&format!("{}/#/jobs/{job}/ingest", center.at));
    browser.sees(&["Pages shown\n4"]);
    let press = |label: &str| {
        browser.click(label);
        browser.click(label);
    };
    press("Pause");
    browser.sees(&["Fetching is paused since", "Fetching is paused."]);
    center.until(job, "the status says so", |job| {
        job["ingest"]["paused_ms"].is_u64()
    });
    press("Resume");
    browser.sees_no("Fetching is paused");
    press("Fetch now");
    browser.sees(&["nothing to fetch before its time"]);
    browser.click("Backfill");
    browser.js(
        "const boxes = document.querySelectorAll('dialog[open] input');
         const give = (box, value) => { box.value = value; box.dispatchEvent(new Event('input')); };
         give(boxes[0], 1); give(boxes[1], 2);
         boxes[2].checked = true; boxes[2].dispatchEvent(new Event('change')); return 1",
    );
    browser.click("Backfill");
    browser.sees(&["2 pages are due"]);
    let runs = format!("jobs/{job}/runs");
    until("two pages were fetched again", PATIENCE, || {
        let runs = center.told(&runs);
        let runs = runs["runs"].as_array().unwrap().iter();
        let again = runs.filter(|it| it["attempts"] == 2 && it["state"] == "done");
        (again.count() == 2).then_some(())
    });
}

/// Verifies a view by its button, and repairs it.
fn verify_a_view(browser: &Browser, center: &Center, job: &str) {
    let sink = format!("{}/#/jobs/{job}/sink", center.at);
    browser.go(&sink);
    browser.sees(&["Nothing was verified", "people"]);
    for (button, said) in [("Verify", "verified"), ("Repair", "verified and repaired")] {
        browser.click(button);
        browser.click(button);
        browser.sees(&[said, "The table is what the view should hold."]);
    }
    look(browser, &sink, "sink-verified", "The table is what");
}

/// A master and a worker with a token, on one machine.
struct Cluster {
    center: Center,
    folder: tempfile::TempDir,
    port: u16,
    master: Process,
    _worker: Process,
}

impl Cluster {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let master = Self::master(&folder, port);
        let at = format!("http://127.0.0.1:{port}");
        let logs = folder.path().join("logs").display().to_string();
        let arguments = ["worker", "--master", &at, "--slots", "4", "--name", "node1"];
        let mut worker = Self::command(&arguments);
        worker.args(["--log-dir", &logs]).current_dir(folder.path());
        Self {
            center: Center::new(at),
            master,
            _worker: Process::start(worker, folder.path()),
            folder,
            port,
        }
    }

    fn master(folder: &tempfile::TempDir, port: u16) -> Process {
        let state = format!("file://{}", folder.path().join("state").display());
        let listen = format!("127.0.0.1:{port}");
        let mut command = Self::command(&["master", "--listen", &listen, "--state", &state]);
        command.current_dir(folder.path());
        let mut master = Process::start(command, folder.path());
        master.says("tidemill master answers at");
        master
    }

    fn command(arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
        command.args(arguments).env("TIDEMILL_TOKEN", TOKEN);
        command
    }
}

/// Whether a job runs and has all records in its views.
fn is_whole(job: &Value) -> bool {
    job["state"] == "running" && job["views"]["people"] == 200
}

/// Logs in, and presses each button of a job but the last.
fn press_the_buttons(browser: &Browser, center: &Center, job: &str) {
    let url = format!("{}/#/jobs/{job}/cluster", center.at);
    browser.look_as(1280, "light");
    browser.go(&url);
    browser.sees(&["needs the cluster's token"]);
    browser.js(&format!(
        "document.querySelector('#token').value = '{TOKEN}'; return 1"
    ));
    browser.click("Log in");
    browser.sees(&["dataflow 0", "ingest 0", "node1", "2 of 2"]);
    browser.click("Rescale");
    browser.js("const box = document.querySelector('dialog[open] input');
                box.value = 3; box.dispatchEvent(new Event('input')); return 1");
    browser.click("Rescale");
    center.until(job, "it has three workers", |job| {
        job["workers"] == 3 && job["state"] == "running"
    });
    browser.sees(&["3 of 3"]);
    browser.click("Drain and stop");
    browser.click("Drain and stop");
    center.until(job, "it is stopped", |job| job["state"] == "stopped");
    browser.sees(&["stopped", "No process of the job runs"]);
    browser.click("Start");
    browser.click("Start");
    center.until(job, "it runs again", is_whole);
    drain_the_worker(browser, center, job);
}

/// Drains the only worker: its job waits for slots until the worker gets processes again.
fn drain_the_worker(browser: &Browser, center: &Center, job: &str) {
    browser.go(&format!("{}/#/workers", center.at));
    browser.sees(&["node1", "Drain"]);
    browser.click("Drain");
    browser.click("Drain");
    browser.sees(&["drained", "its processes move to other workers"]);
    let waits = center.until(job, "nothing takes its processes", |job| {
        job["state"] == "waiting"
    });
    let why = waits["why"].as_str().unwrap();
    assert!(
        why.contains("no worker is there that takes processes"),
        "{why}"
    );
    assert_eq!(center.told("status")["workers"][0]["drained"], true);
    browser.click("Undrain");
    browser.click("Undrain");
    center.until(job, "it runs on the worker again", is_whole);
}

/// The audit log has each change, and nothing else.
#[track_caller]
fn is_remembered(center: &Center, job: &str) {
    let audit = center.told("audit");
    // The id of the worker is another one each time.
    let what = |entry: &Value| {
        let what = entry["what"].as_str().unwrap();
        let parts: Vec<&str> = what.split('/').collect();
        match parts[..] {
            ["", "api", "v1", "workers", _, word] => format!("/api/v1/workers/{word}"),
            _ => what.to_owned(),
        }
    };
    let changes: Vec<String> = audit.as_array().unwrap().iter().rev().map(what).collect();
    let path = format!("/api/v1/jobs/{job}");
    let expected = [
        "/api/v1/jobs".to_owned(),
        format!("{path}/rescale?workers=3"),
        format!("{path}/stop"),
        format!("{path}/restart"),
        "/api/v1/workers/drain".to_owned(),
        "/api/v1/workers/undrain".to_owned(),
    ];
    assert_eq!(changes, expected);
    let by: Vec<&Value> = audit
        .as_array()
        .unwrap()
        .iter()
        .rev()
        .map(|it| &it["by"])
        .collect();
    assert_eq!(by, ["program", "page", "page", "page", "page", "page"]);
}

/// The token is asked for; each button does its work; every change is in the audit log, also after
/// the master was killed; and the logs, the workers and the processes are shown.
#[test]
fn buttons_change_the_cluster_and_are_remembered() {
    let Some(browser) = Browser::open() else {
        return;
    };
    let mut cluster = Cluster::start();
    let place = Place::embedded("buttons");
    place.write("ingest.toml", INGEST);
    place.write("views.sql", VIEWS);
    let job = place.name.clone();
    let mut submit = place.command(&["submit"], &["--master", &cluster.center.at]);
    submit.env("TIDEMILL_TOKEN", TOKEN);
    Process::start(submit, place.folder()).ends(0, PATIENCE);
    cluster
        .center
        .until(&job, "all records are in the views", |job| {
            job["views"]["people"] == 200 && job["state"] == "running"
        });
    let (status, _) = sent(
        cluster
            .center
            .http
            .get(format!("{}/api/v1/status", cluster.center.at)),
    );
    assert_eq!(status, 401, "it answers without the token");

    press_the_buttons(&browser, &cluster.center, &job);
    let asked = matches_its_document(&cluster.center, &job, &[]);
    assert!(asked >= 14, "{asked} answers were compared");

    // The page goes on with the next master, which has the audit log.
    cluster.master.signal("KILL");
    cluster.master.end(PATIENCE);
    browser.sees(&["Not up to date"]);
    cluster.master = Cluster::master(&cluster.folder, cluster.port);
    cluster
        .center
        .until(&job, "the next master knows it", is_whole);
    browser.sees(&["generation"]);
    browser.sees_no("Not up to date");
    is_remembered(&cluster.center, &job);
    for (hash, name, text) in [
        ("#/jobs", "jobs", job.as_str()),
        ("#/workers", "workers", "node1"),
        ("#/audit", "audit", "rescale?workers=3"),
        ("#/logs", "logs", "node1/"),
    ] {
        look(
            &browser,
            &format!("{}/{hash}", cluster.center.at),
            name,
            text,
        );
    }
}
