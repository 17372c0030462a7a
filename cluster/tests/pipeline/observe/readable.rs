//! `tidemill wait`: whatever was committed before is in the views when it says so, also when
//! nothing is committed meanwhile, and whoever captures.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

use arrow::datatypes::DataType;
use jiff::Timestamp;

use crate::harness::database::Database;
use crate::harness::web::Web;
use crate::harness::{PATIENCE, Place, Process, View, unique};

/// A captured table and a view of it.
struct Counted {
    place: Place,
    database: Database,
    table: String,
    rows: usize,
}

impl Counted {
    fn new(place: Place) -> Self {
        let table = unique("counted");
        let ingest = format!("[capture]\ntables = [\"{table}\"]\n");
        place.write("ingest.toml", &ingest);
        place.write(
            "views.sql",
            &format!(
                "CREATE TABLE {table} WITH (topic = '{table}', format = 'avro',
                     envelope = 'debezium');
                 CREATE MATERIALIZED VIEW v_{table} WITH (primary_key = 'id') AS
                   SELECT id, n * 2 AS doubled FROM {table};"
            ),
        );
        let mut database = Database::open(&place.database);
        let create = format!("CREATE TABLE {table} (id int PRIMARY KEY, n int NOT NULL)");
        assert!(database.execute(&create));
        Self {
            place,
            database,
            table,
            rows: 0,
        }
    }

    fn insert(&mut self) {
        self.rows += 1;
        let (table, id) = (&self.table, self.rows);
        let insert = format!("INSERT INTO {table} VALUES ({id}, {})", id * 10);
        assert!(self.database.execute(&insert));
    }

    /// Fails unless the view shows every row now, without waiting.
    #[track_caller]
    fn shows_all(&self) {
        let columns = [("id", DataType::Int32), ("doubled", DataType::Int32)];
        let view = View::new(&format!("v_{}", self.table), &columns);
        let rows = (1..=self.rows).map(|id| vec![id.to_string(), (id * 20).to_string()]);
        assert_eq!(self.place.view(&view), rows.collect::<BTreeSet<_>>());
    }

    /// `tidemill wait` at an address, to its end with this exit code.
    #[track_caller]
    fn wait(&self, at: &Web, more: &[&str], code: i32) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
        let (name, at) = (&self.place.name, &at.0);
        command.args(["wait", name, "--master", at]).args(more);
        Process::start(command, self.place.folder()).ends(code, PATIENCE)
    }

    fn end(mut self) {
        if !self.place.database.starts_with("sqlite:") {
            let name = self.place.name.clone();
            self.database.clean(&name, &[&self.table]);
        }
    }
}

#[test]
fn what_was_committed_is_in_the_views_when_wait_says_so() {
    for place in Place::all("waited") {
        let mut counted = Counted::new(place);
        counted.insert();
        let mut run = counted.place.start("run", &["--http", "127.0.0.1:0"]);
        let web = Web::of(&mut run);
        for _ in 0..10 {
            counted.wait(&web, &[], 0);
            counted.shows_all();
            counted.insert();
        }
        counted.wait(&web, &[], 0);
        counted.shows_all();
        // Nothing is committed any more.
        for _ in 0..3 {
            let said = counted.wait(&web, &["--timeout", "30s"], 0);
            assert!(said.contains("is in every view"), "{said}");
        }
        let soon = Timestamp::now() + Duration::from_millis(1500);
        let began = Instant::now();
        counted.wait(&web, &["--committed-before", &soon.to_string()], 0);
        assert!(began.elapsed() >= Duration::from_secs(1), "{began:?}");
        let ago = Timestamp::now() - Duration::from_secs(60);
        counted.wait(&web, &["--committed-before", &ago.to_string()], 0);

        let said = counted.wait(&web, &["--lsn", "here"], 2);
        assert!(said.contains("expected an LSN such as 0/16B3748"), "{said}");
        let beyond = match counted.place.database.starts_with("sqlite:") {
            true => ["9223372036854775807", "0/1"],
            false => ["FFFFFFF/0", "17"],
        };
        let said = counted.wait(&web, &["--lsn", beyond[0], "--timeout", "1s"], 6);
        assert!(said.contains("not everything before"), "{said}");
        let said = counted.wait(&web, &["--lsn", beyond[1]], 1);
        assert!(said.contains("is no place in this database"), "{said}");
        run.stop("TERM");
        let said = counted.wait(&web, &["--timeout", "1s"], 6);
        assert!(said.contains("does not answer"), "{said}");
        counted.end();
    }
}

/// The dataflow alone, and an ingest that runs now and then: one that ends, or one that stays.
#[test]
fn a_wait_ends_when_an_ingest_that_ends_has_published() {
    let Some(place) = Place::services("waited_once") else {
        return;
    };
    let mut counted = Counted::new(place);
    counted.insert();
    let ingest = |counted: &Counted| {
        let mut ingest = counted.place.start("ingest", &["--once"]);
        let said = ingest.ends(0, PATIENCE);
        let told: serde_json::Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
        told["lsn"].as_str().unwrap().to_owned()
    };
    let lsn = ingest(&counted);
    let mut dataflow = counted.place.start("dataflow", &["--http", "127.0.0.1:0"]);
    let web = Web::of(&mut dataflow);
    counted.wait(&web, &["--lsn", &lsn], 0);
    counted.shows_all();
    for _ in 0..3 {
        counted.insert();
        let said = counted.wait(&web, &["--timeout", "300ms"], 6);
        assert!(said.contains("is captured and published yet"), "{said}");
        let lsn = ingest(&counted);
        counted.wait(&web, &["--lsn", &lsn], 0);
        counted.shows_all();
    }
    // Beside one that captures; that one publishes.
    let mut stays = counted.place.start("ingest", &[]);
    stays.says("INFO");
    counted.insert();
    let lsn = ingest(&counted);
    counted.wait(&web, &["--lsn", &lsn], 0);
    counted.shows_all();
    stays.runs();
    // Killed, it holds the slot for some seconds; the next one waits for that.
    stays.kill();
    counted.insert();
    let lsn = ingest(&counted);
    counted.wait(&web, &["--lsn", &lsn], 0);
    counted.shows_all();
    // One that is asked to end before it is done says so.
    let mut held = counted.place.start("ingest", &[]);
    held.says("INFO");
    held.signal("STOP");
    counted.insert();
    let mut stopped = counted.place.start("ingest", &["--once"]);
    stopped.says("INFO");
    stopped.signal("TERM");
    let said = stopped.ends(6, PATIENCE);
    assert!(said.contains("started again it goes on"), "{said}");
    held.signal("CONT");
    held.kill();
    dataflow.stop("TERM");
    counted.end();
}
