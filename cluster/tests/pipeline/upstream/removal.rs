//! `drop` and `reset`: what a pipeline left is gone from every service, and nothing else is; a
//! removal that was interrupted is finished by the next.

use std::collections::BTreeSet;

use arrow::datatypes::DataType;
use tidemill_state::store;

use crate::harness::database::Database;
use crate::harness::{PATIENCE, Place, Process, View, feed, unique, until};

const SIGABRT: i32 = 6;
const HELD: i32 = 5;

/// A pipeline with a landed table and a source table of the user's own, which another pipeline
/// captures as well.
struct Left {
    place: Place,
    other: String,
    landed: String,
    own: String,
    views: [String; 2],
    database: Database,
}

impl Left {
    fn new(place: Place) -> Self {
        let name = place.name.clone();
        let mut it = Self {
            other: unique("other"),
            landed: format!("l_{name}"),
            own: format!("o_{name}"),
            views: ["landed", "owned"].map(|view| format!("{view}_{name}")),
            database: Database::open(&place.database),
            place,
        };
        let own = &it.own;
        for sql in [
            format!("CREATE TABLE {own} (id integer PRIMARY KEY, n integer)"),
            format!("INSERT INTO {own} VALUES (1, 10), (2, 20), (3, 30)"),
        ] {
            assert!(it.database.execute(&sql), "{sql}");
        }
        it.write();
        it
    }

    fn write(&self) {
        let Self { landed, own, .. } = self;
        let [all, sums] = &self.views;
        let feed = feed("removal").replace("[fetch]", "last_page = 5\n[fetch]");
        let columns = "[{ name = \"id\", path = \"login.uuid\", type = \"text\" },
                        { name = \"age\", path = \"dob.age\", type = \"int\" }]";
        self.place.write(
            "ingest.toml",
            &format!(
                "{feed}[land]\ntable = \"{landed}\"\nkey = \"id\"\ncolumns = {columns}
                 [capture]\ntables = [\"{own}\"]\n"
            ),
        );
        let avro = "format = 'avro', envelope = 'debezium'";
        self.place.write(
            "views.sql",
            &format!(
                "CREATE TABLE {landed} WITH (topic = '{landed}', {avro});
                 CREATE TABLE {own} WITH (topic = '{own}', {avro});
                 CREATE MATERIALIZED VIEW {all} WITH (primary_key = 'id') AS
                   SELECT id, age FROM {landed};
                 CREATE MATERIALIZED VIEW {sums} WITH (primary_key = 'id') AS
                   SELECT id, n * 2 AS n FROM {own};"
            ),
        );
        // Another pipeline beside it, in a folder of its own.
        let folder = self.place.folder().join(&self.other);
        std::fs::create_dir_all(&folder).unwrap();
        let captures = format!("[capture]\ntables = [\"{own}\"]\n");
        std::fs::write(folder.join("ingest.toml"), captures).unwrap();
    }

    fn view(&self, which: usize) -> View {
        let column = [("age", DataType::Int32), ("n", self.id())];
        let key = [("id", DataType::Utf8), ("id", self.id())];
        View::new(
            &self.views[which],
            &[key[which].clone(), column[which].clone()],
        )
    }

    /// What a captured integer is in its view.
    fn id(&self) -> DataType {
        match self.place.database.starts_with("sqlite:") {
            true => DataType::Int64,
            false => DataType::Int32,
        }
    }

    /// Runs until the views hold what the database says, and stops.
    fn run(&mut self) {
        let mut run = self.place.start("run", &["--checkpoint-every", "300ms"]);
        let landed = format!("SELECT id FROM {}", self.landed);
        until("all pages land", PATIENCE, || {
            run.runs();
            let count = self
                .database
                .execute(&landed)
                .then(|| self.database.rows(&landed));
            (count?.len() == 100).then_some(())
        });
        self.is_right();
        run.stop("TERM");
    }

    #[track_caller]
    fn is_right(&mut self) {
        let sql = format!("SELECT id, age FROM {}", self.landed);
        let (all, own) = (self.database.rows(&sql), self.own_rows());
        self.place.expect(&self.view(0), &all);
        let doubled = own.into_iter().map(|row| {
            let n: i64 = row[1].parse().unwrap();
            vec![row[0].clone(), (n * 2).to_string()]
        });
        self.place.expect(&self.view(1), &doubled.collect());
    }

    fn own_rows(&mut self) -> BTreeSet<Vec<String>> {
        self.database
            .rows(&format!("SELECT id, n FROM {}", self.own))
    }

    /// The other pipeline publishes the same table, and stops.
    fn run_other(&self) {
        let before = self.place.records(&self.own).len();
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_tidemill"));
        let args = self.place.arguments("ingest", &[]).into_iter();
        let args = args.map(|arg| match arg == self.place.name {
            true => self.other.clone(),
            false => arg,
        });
        command.args(args).current_dir(self.place.folder());
        let mut other = Process::start(command, self.place.folder());
        until("the other pipeline publishes", PATIENCE, || {
            other.runs();
            (self.place.records(&self.own).len() > before).then_some(())
        });
        other.stop("TERM");
    }

    fn drop(&self, more: &[&str]) -> Process {
        self.place.start("drop", more)
    }

    fn has_topic(&self, topic: &str) -> bool {
        let log = tidemill_log::log::open(&self.place.log).unwrap();
        log.describe(topic).unwrap().is_some()
    }

    fn has_subject(&self, topic: &str) -> bool {
        let registry = tidemill_log::registry::open(&self.place.registry).unwrap();
        let subjects = ["key", "value"].map(|part| format!("{topic}-{part}"));
        let mut subjects = subjects.iter();
        subjects.any(|subject| !registry.versions(subject).unwrap().is_empty())
    }

    fn has_state(&self) -> bool {
        let store = store::open(&self.place.state()).unwrap();
        !store.list(&self.place.name).unwrap().is_empty()
    }

    /// What the database holds of this pipeline and of the other one, one word each.
    fn bookkeeping(&mut self) -> [BTreeSet<Vec<String>>; 2] {
        let (mine, others) = (self.place.name.clone(), self.other.clone());
        let postgres = self.place.database.starts_with("postgres");
        [mine, others].map(|name| {
            let slot = match postgres {
                true => format!("tidemill_{name}"),
                false => name.clone(),
            };
            let mut sql = format!(
                "SELECT 'run' FROM _tidemill_runs WHERE pipeline = '{name}'
                 UNION SELECT 'capture' FROM _tidemill_capture WHERE name = '{slot}'
                 UNION SELECT 'topics' FROM _tidemill_capture_topics WHERE name = '{slot}'
                 UNION SELECT 'tables' FROM _tidemill_capture_tables WHERE name = '{slot}'"
            );
            if postgres {
                sql += &format!(
                    " UNION SELECT 'slot' FROM pg_replication_slots WHERE slot_name = '{slot}'
                      UNION SELECT 'publication' FROM pg_publication WHERE pubname = '{slot}'"
                );
            }
            self.database.rows(&sql)
        })
    }

    #[track_caller]
    fn everything_is_there(&mut self) {
        let dead_letters = format!("{}.dead-letters", self.place.name);
        for topic in [&self.landed, &self.own, &dead_letters] {
            assert!(self.has_topic(topic), "{topic}");
        }
        assert!(self.has_state() && self.has_subject(&self.landed));
        let wanted = match self.place.database.starts_with("postgres") {
            true => 6,
            false => 4,
        };
        let [mine, _] = self.bookkeeping();
        assert_eq!(mine.len(), wanted, "{mine:?}");
    }

    #[track_caller]
    fn nothing_is_left(&mut self, others: &BTreeSet<Vec<String>>) {
        let dead_letters = format!("{}.dead-letters", self.place.name);
        assert!(!self.has_topic(&self.landed) && !self.has_topic(&dead_letters));
        assert!(!self.has_subject(&self.landed));
        assert!(!self.has_state());
        let filled = tidemill_sinks::open(&self.place.sink)
            .unwrap()
            .frontiers(&self.place.name);
        assert_eq!(filled.unwrap().len(), 0);
        for view in &self.views {
            assert!(!self.has_table(view), "{view}");
        }
        let [mine, theirs] = self.bookkeeping();
        assert_eq!(mine, BTreeSet::new());
        assert_eq!(theirs, *others, "what the other pipeline has");
        // The other pipeline's topic, and the user's table.
        assert!(self.has_topic(&self.own) && self.has_subject(&self.own));
        assert!(self.place.records(&self.own).len() >= 3);
        assert_eq!(self.own_rows().len(), 3);
    }

    /// Whether the sink has a table of this name.
    fn has_table(&self, table: &str) -> bool {
        let columns = [("id", DataType::Utf8)];
        let view = View::new(table, &columns);
        match self.place.sink.strip_prefix("sqlite://") {
            Some(file) => {
                let file = tidemill_log::sqlite::connect(file).unwrap();
                tidemill_log::sqlite::has_table(&file, table).unwrap()
            }
            None => !self.place.view(&view).is_empty(),
        }
    }
}

#[test]
fn a_dropped_pipeline_leaves_nothing_and_takes_nothing_of_others() {
    for place in Place::all("dropped") {
        let mut left = Left::new(place);
        left.run_other();
        let mut run = left.place.start("run", &[]);
        until("the run keeps its state", PATIENCE, || {
            left.has_state().then_some(())
        });
        let said = left.drop(&["--yes"]).ends(HELD, PATIENCE);
        assert!(said.contains(&format!("process {}", run.id())), "{said}");
        run.runs();
        run.stop("TERM");
        left.run();
        left.everything_is_there();
        let [_, others] = left.bookkeeping();
        // Nobody is asked, so nothing is removed, but all of it is named.
        let said = left.drop(&[]).ends(2, PATIENCE);
        for part in [&left.landed, &left.views[0], "--yes", "kept"] {
            assert!(said.contains(part), "`{part}` is missing in {said}");
        }
        left.everything_is_there();
        // Cut off twice, in the midst of the tables and of the state.
        for point in ["sink.drop.between", "journal.truncate.between-deletes"] {
            let mut cut = left
                .place
                .start_armed("drop", &["--yes"], &format!("{point}:1"));
            let ended = cut.end(PATIENCE);
            let signal = std::os::unix::process::ExitStatusExt::signal(&ended);
            assert_eq!(signal, Some(SIGABRT), "{point}: {}", cut.said());
        }
        left.drop(&["--yes"]).ends(0, PATIENCE);
        left.nothing_is_left(&others);
        assert_eq!(
            left.database
                .rows(&format!("SELECT id FROM {}", left.landed))
                .len(),
            100
        );
        let said = left.drop(&["--yes"]).ends(0, PATIENCE);
        assert!(
            said.contains("not there") && said.contains("nothing to remove"),
            "{said}"
        );
        // It begins as if it had never been.
        left.run();
        left.drop(&["--yes", "--tables"]).ends(0, PATIENCE);
        left.nothing_is_left(&others);
        let landed = format!("SELECT 1 FROM {}", left.landed);
        assert!(!left.database.execute(&landed), "the landed table is there");
        if left.place.database.starts_with("postgres") {
            let (other, own) = (left.other.clone(), left.own.clone());
            left.database.clean(&other, &[&own]);
        }
    }
}

#[test]
fn a_service_that_is_away_stops_a_drop_before_anything_is_removed() {
    let Some(place) = Place::services("away") else {
        return;
    };
    let mut left = Left::new(place);
    left.run();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_tidemill"));
    let args = left.place.arguments("drop", &["--yes"]).into_iter();
    let args = args.map(|arg| match arg == left.place.log {
        true => "127.0.0.1:1".to_owned(),
        false => arg,
    });
    command.args(args).current_dir(left.place.folder());
    let said = Process::start(command, left.place.folder()).ends(1, PATIENCE);
    assert!(
        said.contains("nothing was removed") && said.contains("Kafka"),
        "{said}"
    );
    left.everything_is_there();
    left.drop(&["--yes", "--tables"]).ends(0, PATIENCE);
    assert!(
        !left.has_topic(&left.own),
        "no other pipeline publishes to it"
    );
    assert_eq!(left.own_rows().len(), 3);
    left.database.execute(&format!("DROP TABLE {}", left.own));
}

#[test]
fn views_that_were_reset_are_filled_anew() {
    for place in Place::all("reset") {
        let mut left = Left::new(place);
        left.run();
        // Somebody spoils both views; what the job knows would leave them so.
        let one = left.views[1].clone();
        left.place
            .start("reset", &["no_such_view", "--yes"])
            .ends(1, PATIENCE);
        left.place
            .start("reset", &[&one, "--yes"])
            .ends(0, PATIENCE);
        let plan = left.place.start("plan", &[]).ends(0, PATIENCE);
        let is = |view: &str, fate: &str| {
            let line = plan.lines().find(|line| line.contains(view));
            line.is_some_and(|line| line.contains(fate))
        };
        assert!(is(&left.views[0], "kept") && is(&one, "new"), "{plan}");
        left.run();
        left.place.start("reset", &["--yes"]).ends(0, PATIENCE);
        assert!(!left.has_state());
        let plan = left.place.start("plan", &[]).ends(0, PATIENCE);
        assert!(plan.contains("checkpoint  none"), "{plan}");
        assert_eq!(
            plan.matches("new: its table is filled").count(),
            2,
            "{plan}"
        );
        left.run();
        let run = left.place.start("run", &[]);
        until("it runs", PATIENCE, || {
            run.said().contains("rows").then_some(())
        });
        left.place.start("reset", &["--yes"]).ends(HELD, PATIENCE);
        drop(run);
        left.drop(&["--yes", "--tables"]).ends(0, PATIENCE);
        left.database.execute(&format!("DROP TABLE {}", left.own));
    }
}
