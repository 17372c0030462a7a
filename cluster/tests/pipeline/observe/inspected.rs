//! What a job's process shows of its services over HTTP, beside what the services say themselves:
//! topics and messages, schemas, the slot, rows, dead letters.

use std::collections::BTreeSet;
use std::time::Duration;

use arrow::datatypes::DataType;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use reqwest::Url;
use reqwest::blocking::{Client, RequestBuilder};
use serde_json::{Value, json};
use tidemill_log::log::Record;

use super::browsed::browse;
use super::center::{OPENAPI, breaches};
use crate::harness::database::Database;
use crate::harness::web::Web;
use crate::harness::{PATIENCE, Place, Process, View, until};
use crate::verify::damage::Tables;

pub(super) const TOKEN: &str = "inspected-token";
const USERS: usize = 100;

/// A pipeline with a landed table of 100 users and a topic of JSON.
pub(super) struct Shown {
    pub(super) place: Place,
    pub(super) users: String,
    pub(super) carts: String,
    /// The process, and where it answers.
    pub(super) run: Process,
    pub(super) at: String,
    http: Client,
}

fn ingest(users: &str) -> String {
    format!(
        r#"
[schedule]
every = "20ms"
last_page = 2
[fetch]
url = "https://randomuser.me/api/1.4/"
records = "results"
page_size = 50
page_size_parameter = "results"
page_parameter = "page"
parameters = {{ seed = "inspected" }}
[land]
table = "{users}"
key = "id"
columns = [
    {{ name = "id", path = "login.uuid", type = "text" }},
    {{ name = "country", path = "location.country", type = "text" }},
]
[publish]
partitions = 3
"#
    )
}

fn views(users: &str, carts: &str) -> String {
    format!(
        "CREATE TABLE {users} WITH (topic = '{users}', format = 'avro', envelope = 'debezium');
         CREATE TABLE carts (id text, pieces bigint)
           WITH (topic = '{carts}', format = 'json', envelope = 'upsert');
         CREATE MATERIALIZED VIEW people WITH (primary_key = 'id') AS
           SELECT id, country FROM {users};
         CREATE MATERIALIZED VIEW countries WITH (primary_key = 'country') AS
           SELECT country, count(*) AS people FROM people GROUP BY country;
         CREATE MATERIALIZED VIEW sizes WITH (primary_key = 'id') AS
           SELECT id, pieces FROM carts;"
    )
}

impl Shown {
    /// Starts the pipeline, and waits until it does its work.
    fn start(place: Place) -> Self {
        let (users, carts) = (format!("u_{}", place.name), format!("{}.carts", place.name));
        place.write("ingest.toml", &ingest(&users));
        place.write("views.sql", &views(&users, &carts));
        place.topic(&carts, 2);
        let mut command = place.command(&["run"], &["--http", "127.0.0.1:0"]);
        command.env("TIDEMILL_TOKEN", TOKEN);
        let mut run = Process::start(command, place.folder());
        let web = Web::of(&mut run);
        web.until("/readyz", 200);
        let at = format!("http://{}/api/v1/jobs/{}", web.0, place.name);
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(30))
            .build()
            .unwrap();
        Self {
            place,
            users,
            carts,
            run,
            at,
            http,
        }
    }

    fn answer(&self, request: RequestBuilder) -> (u16, String) {
        let answer = request.send().unwrap();
        (answer.status().as_u16(), answer.text().unwrap())
    }

    fn url(&self, path: &str, query: &[(&str, &str)]) -> Url {
        Url::parse_with_params(&format!("{}{path}", self.at), query).unwrap()
    }

    /// Asks for a page that must be there.
    #[track_caller]
    fn get(&self, path: &str, query: &[(&str, &str)]) -> Value {
        let request = self.http.get(self.url(path, query));
        let (status, text) = self.answer(request.bearer_auth(TOKEN));
        assert_eq!(status, 200, "{path}: {text}");
        let answer = serde_json::from_str(&text).unwrap();
        self.is_as_documented("get", path, &answer);
        answer
    }

    /// Checks an answer against the schema of its path in the OpenAPI document.
    #[track_caller]
    fn is_as_documented(&self, method: &str, path: &str, answer: &Value) {
        let document: Value = serde_json::from_str(OPENAPI).unwrap();
        let parts: Vec<&str> = path.split('/').collect();
        let is_it = |described: &&String| {
            let all: Vec<&str> = described.split('/').skip(4).collect();
            let same = |(one, other): (&&str, &&str)| one == other || one.starts_with('{');
            let rest = all.get(1..).unwrap_or_default();
            rest.len() == parts.len() - 1 && rest.iter().zip(&parts[1..]).all(same)
        };
        let paths = document["paths"].as_object().unwrap();
        let found = paths.keys().filter(is_it);
        let mut found = found.filter(|it| !paths[*it][method].is_null());
        let found = found.next();
        let found = found.unwrap_or_else(|| panic!("{path} is not in the document"));
        let answers = &paths[found][method]["responses"]["200"]["content"];
        let schema = &answers["application/json"]["schema"];
        let wrong = breaches(&document, schema, answer, path);
        assert!(wrong.is_empty(), "{found}: {wrong:#?}");
    }

    /// Asks for what must be refused with this status, and gives the words.
    #[track_caller]
    fn refused(&self, path: &str, query: &[(&str, &str)], status: u16) -> String {
        let request = self.http.get(self.url(path, query));
        let (found, text) = self.answer(request.bearer_auth(TOKEN));
        assert_eq!(found, status, "{path}: {text}");
        let answer: Value = serde_json::from_str(&text).unwrap();
        answer["error"].as_str().unwrap().to_owned()
    }

    fn replay(&self, what: &Value) -> Value {
        let request = self.http.post(format!("{}/dead-letters/replay", self.at));
        let (status, text) = self.answer(request.bearer_auth(TOKEN).json(what));
        assert_eq!(status, 200, "{text}");
        let answer = serde_json::from_str(&text).unwrap();
        self.is_as_documented("post", "/dead-letters/replay", &answer);
        answer
    }

    /// Posts what must be done, and gives the sentence of the answer.
    #[track_caller]
    fn post(&self, path: &str, what: &Value) -> String {
        let request = self.http.post(format!("{}{path}", self.at));
        let (status, text) = self.answer(request.bearer_auth(TOKEN).json(what));
        assert_eq!(status, 200, "{path}: {text}");
        let answer: Value = serde_json::from_str(&text).unwrap();
        self.is_as_documented("post", path, &answer);
        answer["message"].as_str().unwrap().to_owned()
    }

    /// Verifies a view, and waits for the result.
    fn verified(&self, view: &str, repair: bool) -> Value {
        self.post(
            &format!("/views/{view}/verify"),
            &json!({ "repair": repair }),
        );
        until("the verification has ended", PATIENCE, || {
            let told = self.get("/verification", &[]);
            (told["ended_ms"].is_u64() && told["view"] == view).then_some(told)
        })
    }

    /// The rows of the view of people, as the sink has them.
    pub(super) fn people(&self) -> BTreeSet<Vec<String>> {
        let columns = [("id", DataType::Utf8), ("country", DataType::Utf8)];
        self.place.view(&View::new("people", &columns))
    }

    fn ids(&self) -> BTreeSet<String> {
        let sql = format!("SELECT id FROM {}", self.users);
        let rows = Database::open(&self.place.database).rows(&sql);
        rows.into_iter().flatten().collect()
    }
}

fn cart(shown: &Shown, key: &str, value: Option<&str>) -> Record {
    Record {
        topic: shown.carts.clone(),
        partition: Some(0),
        key: Some(key.as_bytes().to_vec()),
        value: value.map(|it| it.as_bytes().to_vec()),
        timestamp_ms: 1_700_000_000_000,
    }
}

/// The list of topics says what the log itself says.
fn topics(shown: &Shown) {
    let found = shown.get("/topics", &[]);
    assert_eq!(found["problem"], Value::Null, "{found}");
    let log = tidemill_log::log::open(&shown.place.log).unwrap();
    let mut names = BTreeSet::new();
    for topic in found["topics"].as_array().unwrap() {
        let name = topic["name"].as_str().unwrap();
        names.insert(name.to_owned());
        let ranges = log.ranges(name).unwrap();
        let told = topic["partitions"].as_array().unwrap();
        let told = told
            .iter()
            .map(|it| json!([it["partition"], it["low"], it["high"]]));
        let held = ranges
            .iter()
            .map(|it| json!([it.partition, it.low, it.high]));
        assert_eq!(
            told.collect::<Vec<_>>(),
            held.collect::<Vec<_>>(),
            "{topic}"
        );
    }
    let letters = format!("{}.dead-letters", shown.place.name);
    let expected = [shown.users.clone(), shown.carts.clone(), letters];
    assert_eq!(names, expected.into_iter().collect());
    let one = shown.get(&format!("/topics/{}", shown.users), &[]);
    assert!(
        one["bytes_about"].as_u64() > Some(USERS as u64 * 50),
        "{one}"
    );
    assert!(one["records_per_s"].as_f64() > Some(0.0), "{one}");
    let said = shown.refused("/topics/of_somebody_else", &[], 404);
    assert!(said.contains("none of job"), "{said}");
}

/// Paging through a topic gives each record once, decoded.
fn messages(shown: &Shown) {
    let path = format!("/topics/{}/messages", shown.users);
    let (mut from, mut seen, mut ids) = (None::<String>, BTreeSet::new(), BTreeSet::new());
    loop {
        let start = from.unwrap_or_else(|| "0:0,1:0,2:0".to_owned());
        let page = shown.get(&path, &[("from", &start), ("limit", "17")]);
        for message in page["messages"].as_array().unwrap() {
            assert!(seen.insert((message["partition"].as_u64(), message["offset"].as_i64())));
            let value = &message["value"];
            assert_eq!(
                (&value["form"], &value["problem"]),
                (&json!("avro"), &Value::Null)
            );
            assert!(value["schema_id"].as_u64() > Some(0));
            let row: Value = serde_json::from_str(value["text"].as_str().unwrap()).unwrap();
            if row["op"] != "t" {
                let key: Value =
                    serde_json::from_str(message["key"]["text"].as_str().unwrap()).unwrap();
                assert_eq!(key["id"], row["after"]["id"]);
                ids.insert(row["after"]["id"].as_str().unwrap().to_owned());
            }
        }
        if page["ended"] == "end" {
            break;
        }
        assert_eq!(page["ended"], "limit", "{page}");
        let next = page["next"].as_object().unwrap().iter();
        let next: Vec<String> = next.map(|(it, offset)| format!("{it}:{offset}")).collect();
        from = Some(next.join(","));
    }
    assert_eq!(seen.len(), shown.place.records(&shown.users).len());
    assert_eq!(ids, shown.ids());
    let id = ids.first().unwrap();
    let found = shown.get(&path, &[("filter", &id.to_uppercase())]);
    let found = found["messages"].as_array().unwrap();
    assert_eq!(found.len(), 1);
    assert!(found[0]["value"]["text"].as_str().unwrap().contains(id));
    let at = found[0]["at_ms"].to_string();
    let since = shown.get(&path, &[("at_ms", &at), ("filter", id)]);
    assert_eq!(since["messages"].as_array().unwrap().len(), 1);
    let later = shown.get(&path, &[("at_ms", "9999999999999")]);
    assert_eq!(
        (&later["messages"], &later["ended"]),
        (&json!([]), &json!("end"))
    );
    let said = shown.refused(&path, &[("partition", "3")], 400);
    assert!(said.contains("no partition 3"), "{said}");
    let said = shown.refused(&path, &[("from", "x")], 400);
    assert!(said.contains("partition:offset"), "{said}");
}

/// JSON, text, bytes and tombstones, headers, and the file of JSON lines.
fn forms(shown: &Shown) {
    let big = r#"{"id": "a", "pieces": 9007199254740993}"#;
    shown.place.append(&[
        cart(shown, "a", Some(big)),
        cart(shown, "b", None),
        cart(shown, "c", Some("<b>not JSON</b>")),
    ]);
    let has_headers = with_headers(shown);
    let path = format!("/topics/{}/messages", shown.carts);
    let page = shown.get(&path, &[("partition", "0"), ("offset", "0")]);
    let messages = page["messages"].as_array().unwrap();
    let value = |index: usize| &messages[index]["value"];
    assert_eq!(
        (&value(0)["form"], &value(0)["text"]),
        (&json!("json"), &json!(big))
    );
    assert_eq!(value(1), &Value::Null);
    assert_eq!(value(2)["text"], "<b>not JSON</b>");
    assert_eq!(messages[0]["at_ms"], 1_700_000_000_000_i64);
    if has_headers {
        assert_eq!(value(3)["form"], "bytes");
        assert_eq!(value(3)["text"], "fffe");
        assert_eq!(messages[3]["headers"][0][0], "origin");
        assert_eq!(messages[3]["headers"][0][1]["text"], "a test");
        let found = shown.get(&path, &[("filter", "A TEST")]);
        assert_eq!(found["messages"].as_array().unwrap().len(), 1);
    }
    let query = [
        ("partition", "0"),
        ("offset", "0"),
        ("limit", "1"),
        ("lines", "true"),
    ];
    let request = shown.http.get(shown.url(&path, &query));
    let (status, lines) = shown.answer(request.bearer_auth(TOKEN));
    let lines: Vec<&str> = lines.lines().collect();
    assert_eq!((status, lines.len()), (200, 2), "{lines:?}");
    assert!(lines[0].contains("9007199254740993"), "{lines:?}");
    assert_eq!(lines[1], r#"{"goes_on_from":"0:1"}"#);
}

/// Appends a record of bytes with a header, if the log is Kafka; checks that no group reads.
fn with_headers(shown: &Shown) -> bool {
    let Some(brokers) = shown.place.log.strip_prefix("kafka://") else {
        return false;
    };
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers);
    let producer: BaseProducer = config.create().unwrap();
    let header = Header {
        key: "origin",
        value: Some("a test"),
    };
    let record = BaseRecord::to(&shown.carts)
        .partition(0)
        .key("d")
        .payload(&[0xff, 0xfe])
        .headers(OwnedHeaders::new().insert(header));
    producer.send(record).map_err(|(error, _)| error).unwrap();
    producer.flush(PATIENCE).unwrap();
    let consumer: BaseConsumer = config.create().unwrap();
    let groups = consumer.fetch_group_list(None, PATIENCE).unwrap();
    assert!(groups.groups().iter().all(|it| it.name() != "tidemill"));
    true
}

/// Registers a version of the users' schema with one more column, as an altered table does.
fn with_one_more_column(shown: &Shown, subject: &str) {
    let registry = tidemill_log::registry::open(&shown.place.registry).unwrap();
    let newest = registry.latest(subject).unwrap().unwrap();
    let mut schema: Value = serde_json::from_str(&newest.schema).unwrap();
    let fields = schema["fields"].as_array_mut().unwrap();
    let before = fields.iter_mut().find(|it| it["name"] == "before").unwrap();
    let row = before["type"][1]["fields"].as_array_mut().unwrap();
    row.push(json!({"name": "nick", "type": ["null", "string"], "default": null}));
    registry.register(subject, &schema.to_string()).unwrap();
}

/// Versions, what reads a field, and the difference of two versions.
fn schemas(shown: &Shown) {
    let subject = format!("{}-value", shown.users);
    with_one_more_column(shown, &subject);
    let registry = tidemill_log::registry::open(&shown.place.registry).unwrap();
    let held = registry.versions(&subject).unwrap();
    assert_eq!(
        held.len(),
        2,
        "the ingest's own version, and the altered one"
    );
    let all = shown.get("/schemas", &[]);
    let of = |name: &str| {
        let all = all["subjects"].as_array().unwrap();
        all.iter().find(|it| it["subject"] == name).cloned()
    };
    let listed = of(&subject).unwrap();
    assert_eq!(listed["versions"], json!([1, 2]));
    assert_eq!(listed["views"], json!(["countries", "people"]));
    assert!(listed["compatibility"].is_string(), "{listed}");
    assert!(of(&format!("{}-key", shown.users)).is_some());
    let one = shown.get(&format!("/schemas/{subject}"), &[]);
    let versions = one["versions"].as_array().unwrap();
    assert_eq!(versions.len(), held.len());
    for (told, held) in versions.iter().zip(&held) {
        assert_eq!(told["schema_id"], held.id);
        assert_eq!(told["schema"], held.schema.as_str());
    }
    let country = versions[0]["fields"].as_array().unwrap().iter();
    let country = country.clone().find(|it| it["name"] == "country").unwrap();
    assert_eq!(country["views"], json!(["countries", "people"]));
    let path = format!("/schemas/{subject}/difference");
    let found = shown.get(&path, &[("from", "1"), ("to", "2")]);
    assert_eq!(found["added"][0]["name"], "nick");
    assert_eq!(
        (&found["plans"], &found["removed"]),
        (&json!(true), &json!([]))
    );
    let back = shown.get(&path, &[("from", "2"), ("to", "1")]);
    assert_eq!(back["removed"][0]["name"], "nick");
    assert_eq!(back["removed"][0]["views"], json!([]));
    shown.refused(&path, &[("from", "1"), ("to", "9")], 404);
    shown.refused("/schemas/of_nobody-value", &[], 404);
}

/// The slot as PostgreSQL itself shows it.
fn capture(shown: &Shown) {
    let Some(_) = shown.place.database.strip_prefix("postgres") else {
        assert_eq!(shown.get("/capture", &[])["engine"], "sqlite");
        return;
    };
    let mut database = Database::open(&shown.place.database);
    let sql = format!(
        "SELECT restart_lsn, confirmed_flush_lsn, active_pid, wal_status
         FROM pg_replication_slots WHERE slot_name = 'tidemill_{}'",
        shown.place.name
    );
    // The capture confirms while it is asked; once both agree they show one moment.
    until("both show the same slot", PATIENCE, || {
        let before = database.rows(&sql);
        let told = shown.get("/capture", &[]);
        let slot = &told["slot"];
        let text = |name: &str| slot[name].as_str().unwrap_or_default().to_owned();
        let told_row = vec![
            text("restart_lsn"),
            text("confirmed_flush_lsn"),
            slot["active_pid"].to_string(),
            text("wal_status"),
        ];
        assert_eq!(slot["active"], true);
        assert!(slot["retained_bytes"].is_u64(), "{told}");
        (before == BTreeSet::from([told_row])).then_some(())
    });
    until("the rate of the WAL is known", PATIENCE, || {
        let told = shown.get("/capture", &[]);
        told["slot"]["wal_bytes_per_s"].is_number().then_some(())
    });
    let told = shown.get("/capture", &[]);
    assert!(told["snapshot"]["ended_ms"].is_u64(), "{told}");
    assert_eq!(told["snapshot"]["tables"][0][0], shown.users.as_str());
}

/// Rows as the sink itself gives them, and the row of a key.
fn rows(shown: &Shown) {
    let held = until("all rows are in the table", PATIENCE, || {
        let held = shown.people();
        (held.len() == USERS).then_some(held)
    });
    let text = |row: &Value| -> Vec<String> {
        let row = row.as_array().unwrap().iter();
        row.map(|it| it.as_str().unwrap().to_owned()).collect()
    };
    let told = shown.get("/views/people/rows", &[("limit", "1000")]);
    let all: BTreeSet<_> = told["rows"].as_array().unwrap().iter().map(text).collect();
    assert_eq!(all, held);
    assert_eq!(told["count"], USERS);
    assert_eq!(told["columns"][0]["key"], 1);
    let first = held.first().unwrap();
    let key = json!({ "id": first[0] }).to_string();
    let one = shown.get("/views/people/rows", &[("key", &key)]);
    assert_eq!(one["rows"], json!([first]));
    let none = json!({ "id": "nobody" }).to_string();
    let none = shown.get("/views/people/rows", &[("key", &none)]);
    assert_eq!(none["rows"], json!([]));
    let said = shown.refused("/views/people/rows", &[("key", "{}")], 400);
    assert!(said.contains("`id` is missing"), "{said}");
    shown.refused("/views/nothing/rows", &[], 404);
}

/// Pages are fetched again once, a pause is shown, and what cannot be is refused.
fn fetching(shown: &Shown) {
    let attempts = || {
        let runs = shown.get("/runs", &[]);
        let runs = runs["runs"].as_array().unwrap().clone();
        let states = runs.iter().all(|it| it["state"] == "done");
        let of = |it: &Value| it["attempts"].as_u64().unwrap();
        (states, runs.iter().map(of).collect::<Vec<_>>())
    };
    until("both pages have landed", PATIENCE, || {
        (attempts() == (true, vec![1, 1])).then_some(())
    });
    let said = shown.post("/fetching/backfill", &json!({ "first": 1, "last": 2 }));
    assert!(said.starts_with("0 pages are due; 2 are done"), "{said}");
    let again = json!({ "first": 1, "last": 2, "again": true });
    let said = shown.post("/fetching/backfill", &again);
    assert!(said.starts_with("2 pages are due"), "{said}");
    until(
        "both are fetched again by the running process",
        PATIENCE,
        || (attempts() == (true, vec![2, 2])).then_some(()),
    );
    let said = shown.post("/fetching/now", &Value::Null);
    assert!(said.starts_with("nothing to fetch"), "{said}");
    assert!(
        shown
            .post("/fetching/pause", &Value::Null)
            .contains("is paused")
    );
    let state = || shown.get("", &[])["ingest"]["paused_ms"].is_u64();
    until("the status says so", PATIENCE, || state().then_some(()));
    assert!(shown.get("/runs", &[])["paused_ms"].is_i64());
    for (path, what, status) in [
        ("/fetching/now", Value::Null, 400),
        ("/fetching/backfill", json!({ "first": 2, "last": 3 }), 400),
        ("/fetching/backfill", json!({ "first": 2 }), 400),
        ("/fetching/backfill", json!({ "first": 2, "to": 3 }), 400),
        ("/fetching/nothing", Value::Null, 404),
    ] {
        let request = shown.http.post(format!("{}{path}", shown.at));
        let (found, text) = shown.answer(request.bearer_auth(TOKEN).json(&what));
        assert_eq!(found, status, "{path}: {text}");
    }
    let plain = shown.http.post(format!("{}/fetching/resume", shown.at));
    assert_eq!(shown.answer(plain).0, 401);
    assert_eq!(
        shown.post("/fetching/resume", &Value::Null),
        "fetching goes on"
    );
    until("the status says that too", PATIENCE, || {
        (!state()).then_some(())
    });
}

/// A row that somebody deleted is found and written again, beside the running job.
fn verification(shown: &Shown) {
    assert_eq!(shown.get("/verification", &[])["view"], Value::Null);
    let told = shown.verified("people", false);
    assert_eq!(told["error"], Value::Null, "{told:#}");
    assert_eq!(
        (&told["result"]["rows"], &told["result"]["left"]),
        (&json!(USERS), &json!(0))
    );
    assert!(!told["steps"].as_array().unwrap().is_empty(), "{told:#}");
    let held = shown.people();
    let gone = held.first().unwrap();
    Tables::of(&shown.place).run(&format!("DELETE FROM people WHERE id = '{}'", gone[0]));
    let told = shown.verified("people", false);
    assert_eq!(
        (&told["result"]["missing"], &told["result"]["left"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(told["differences"][0]["key"], json!({ "id": gone[0] }));
    assert_eq!(shown.people().len(), USERS - 1, "nothing was written");
    let told = shown.verified("people", true);
    assert_eq!(
        (&told["result"]["missing"], &told["result"]["left"]),
        (&json!(1), &json!(0))
    );
    assert_eq!(shown.people(), held);
    let request = shown
        .http
        .post(format!("{}/views/nothing/verify", shown.at));
    let (found, text) = shown.answer(request.bearer_auth(TOKEN).json(&json!({})));
    assert_eq!(found, 404, "{text}");
}

/// A broken record is a letter, which is put back once.
fn letters(shown: &Shown) {
    let broken = until("the broken record is a letter", PATIENCE, || {
        let told = shown.get("/dead-letters", &[("stage", "decode")]);
        let letters = told["letters"].as_array().unwrap().clone();
        letters.into_iter().find(|it| {
            let source = it["source"].as_str().unwrap();
            source.contains("partition 0, offset 2")
        })
    });
    let told = shown.get("/dead-letters", &[]);
    let counted = told["groups"].as_array().unwrap().iter();
    let counted: u64 = counted.map(|it| it["count"].as_u64().unwrap()).sum();
    assert_eq!(told["count"].as_u64(), Some(counted));
    assert_eq!(shown.place.dead_letters().len() as u64, counted);
    let number = broken["number"].as_i64().unwrap();
    let one = shown.get(&format!("/dead-letters/{number}"), &[]);
    assert_eq!(one["value"]["decoded"]["text"], "<b>not JSON</b>");
    assert!(one["value"]["hex"].as_str().unwrap().starts_with("3c623e"));
    let before = shown.place.records(&shown.carts).len();
    let done = shown.replay(&json!({ "numbers": [number, 99_999] }));
    assert_eq!(done["done"][0]["number"], number, "{done}");
    assert_eq!(done["missing"], json!([99_999]));
    assert_eq!(shown.place.records(&shown.carts).len(), before + 1);
    let again = shown.replay(&json!({ "numbers": [number] }));
    let why = again["left"][0]["how"].as_str().unwrap();
    assert!(why.contains("it was replayed"), "{again}");
    let one = shown.get(&format!("/dead-letters/{number}"), &[]);
    assert!(one["replayed"]["how"].is_string(), "{one}");
    // What was put back is refused again, as a letter of its own.
    let group = until("it is refused again", PATIENCE, || {
        let told = shown.get("/dead-letters", &[("stage", "decode")]);
        let groups = told["groups"].as_array().unwrap().clone();
        // The other one of Kafka is the record with headers.
        let count = counted + 1;
        groups
            .into_iter()
            .find(|it| it["count"].as_u64() == Some(count))
    });
    let group = &group["group"];
    // Each is refused again as a new letter, which is not replayed in the same order.
    let (mut done, mut after, mut up_to) = (0, Value::Null, Value::Null);
    loop {
        let what = json!({"all": true, "group": group, "after": after, "up_to": up_to});
        let told = shown.replay(&what);
        done += told["done"].as_array().unwrap().len() as u64;
        (after, up_to) = (told["goes_on_after"].clone(), told["up_to"].clone());
        if after.is_null() {
            break;
        }
    }
    assert_eq!(done, counted);
}

#[test]
fn a_process_shows_what_its_services_hold() {
    let places = Place::all("inspected");
    let last = places.len();
    for (number, place) in (1..).zip(places) {
        let mut shown = Shown::start(place);
        let plain = shown.http.get(format!("{}/topics", shown.at));
        assert_eq!(shown.answer(plain).0, 401);
        let foreign = shown.http.get(format!("{}/topics", shown.at));
        let foreign = foreign
            .bearer_auth(TOKEN)
            .header("Origin", "http://elsewhere");
        assert_eq!(shown.answer(foreign).0, 403);
        until("all users are published", PATIENCE, || {
            (shown.ids().len() == USERS && shown.place.records(&shown.users).len() >= USERS)
                .then_some(())
        });
        topics(&shown);
        messages(&shown);
        forms(&shown);
        schemas(&shown);
        rows(&shown);
        fetching(&shown);
        verification(&shown);
        capture(&shown);
        letters(&shown);
        shown.run.runs();
        // In the browser on the services, if there are any.
        if number == last {
            browse(&mut shown);
        }
        // It has ended already if there is a browser.
        if shown.run.ended().is_none() {
            shown.run.stop("TERM");
        }
        if shown.place.database.starts_with("postgres") {
            let (name, users) = (&shown.place.name, shown.users.as_str());
            Database::open(&shown.place.database).clean(name, &[users]);
        }
    }
}
