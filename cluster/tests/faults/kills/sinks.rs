//! Views of one job in two sinks, the embedded file and PostgreSQL, while its processes are killed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::harness::database::Database;
use crate::harness::{PATIENCE, Place, given, seed, unique, until};
use crate::kills::peers::{Events, two_with};
use crate::kills::river::{change, ingest, live};

const KILLS: usize = 5;
/// How soon a process follows one that was killed.
const SOON: Duration = Duration::from_secs(10);

/// A schema in PostgreSQL, as the sink `warehouse`.
struct Warehouse {
    schema: String,
    flag: String,
    database: Database,
}

impl Warehouse {
    /// `None` without a server.
    fn new(test: &str) -> Option<Self> {
        let url = given(test, "TIDEMILL_TEST_POSTGRES")?;
        let schema = unique("warehouse");
        let sign = if url.contains('?') { '&' } else { '?' };
        Some(Self {
            flag: format!("--sink=warehouse={url}{sign}schema={schema}"),
            database: Database::open(&url),
            schema,
        })
    }

    /// Waits until a query of the schema has these rows. `{}` in the query is the schema.
    #[track_caller]
    fn expect(&mut self, query: &str, rows: &BTreeSet<Vec<String>>) {
        let query = query.replace("{}", &self.schema);
        let found = until("the views in PostgreSQL are right", PATIENCE, || {
            // Before the first start made them, there are no tables.
            let there = self.database.execute(&query);
            let found = there.then(|| self.database.rows(&query))?;
            (found == *rows).then_some(found)
        });
        assert_eq!(found, *rows);
    }

    /// Drops the pipeline, and checks that nothing of it is left but the table of frontiers.
    fn is_dropped(&mut self, place: &Place) {
        let dropped = place
            .start("drop", &["--yes", &self.flag])
            .ends(0, PATIENCE);
        let said = "table `people` in sink `warehouse`";
        assert!(dropped.contains(said), "{dropped}");
        let left = format!(
            "SELECT relname FROM pg_class
             WHERE relnamespace = '{}'::regnamespace AND relkind = 'r'",
            self.schema
        );
        let frontiers = vec!["tidemill_frontiers".to_owned()];
        assert_eq!(self.database.rows(&left), BTreeSet::from([frontiers]));
    }
}

impl Drop for Warehouse {
    fn drop(&mut self) {
        let schema = &self.schema;
        self.database
            .execute(&format!("DROP SCHEMA IF EXISTS {schema} CASCADE"));
    }
}

#[test]
fn a_killed_run_goes_on_in_two_sinks() {
    let test = "a_killed_run_goes_on_in_two_sinks";
    let Some(mut warehouse) = Warehouse::new(test) else {
        return;
    };
    let mut random = StdRng::seed_from_u64(seed(test));
    let place = Place::embedded("sinks");
    let table = place.name.clone();
    place.write("ingest.toml", &ingest(&table));
    let views = format!(
        "CREATE TABLE {table} WITH (topic = '{table}', format = 'avro', envelope = 'debezium');
         CREATE MATERIALIZED VIEW people WITH (primary_key = 'id', sink = 'warehouse') AS
           SELECT id, first_name, country, age FROM {table};
         CREATE MATERIALIZED VIEW countries WITH (primary_key = 'country', sink = 'warehouse') AS
           SELECT country, count(*) AS users, sum(age) AS ages, max(first_name) AS last
           FROM {table} GROUP BY country;
         CREATE MATERIALIZED VIEW ages WITH (primary_key = 'age') AS
           SELECT age, count(*) AS users FROM {table} GROUP BY age;"
    );
    place.write("views.sql", &views);
    let mut database = Database::open(&place.database);
    for _ in 0..KILLS {
        let mut run = [place.start("run", &[&warehouse.flag])];
        let most = Duration::from_secs(3);
        live(&mut database, &table, &mut random, most, &mut run);
        let [run] = run;
        run.kill();
    }
    let mut run = place.start("run", &[&warehouse.flag]);
    until("users are fetched", PATIENCE, || {
        change(&mut database, &table, &mut random);
        run.runs();
        let there = database.execute(&format!("SELECT 1 FROM {table} LIMIT 1"));
        (there && database.rows(&format!("SELECT id FROM {table}")).len() > 300).then_some(())
    });
    run.stop("TERM");
    // What is left to do is done although nothing is fetched.
    let mut run = place.start("dataflow", &[&warehouse.flag]);
    let mut ingest = place.start("ingest", &["--until", "1"]);
    for (query, sql) in [
        (
            "SELECT id, first_name, country, age FROM {}.people",
            format!("SELECT id, first_name, country, age FROM {table}"),
        ),
        (
            "SELECT country, users, ages, last FROM {}.countries",
            format!("SELECT country, count(*), sum(age), max(first_name) FROM {table} GROUP BY 1"),
        ),
    ] {
        let rows = database.rows(&sql);
        assert!(rows.len() > 10, "only {} rows: {sql}", rows.len());
        warehouse.expect(query, &rows);
    }
    let ages = format!("SELECT age, count(*) FROM {table} GROUP BY 1");
    let ages = database.rows(&ages);
    until("the view in the file is right", PATIENCE, || {
        (database.rows("SELECT age, users FROM ages") == ages).then_some(())
    });
    place.is_published_once(&table);
    let verified = place.start("verify", &[&warehouse.flag]).ends(0, PATIENCE);
    for view in ["people", "countries", "ages"] {
        assert!(verified.contains(view), "{verified}");
    }
    ingest.stop("TERM");
    run.stop("TERM");
    warehouse.is_dropped(&place);
}

/// The query of one of several equal views.
fn counted(number: usize) -> String {
    format!("SELECT kind, events, amount FROM {{}}.kinds_{number}")
}

/// The rows of these views.
fn events_rows(events: &Events) -> BTreeSet<Vec<String>> {
    let rows = events.sums.iter();
    let rows = rows.map(|(kind, sum)| vec![kind.to_string(), sum.0.to_string(), sum.1.to_string()]);
    rows.collect()
}

#[test]
fn killed_peers_count_once_in_postgresql() {
    let test = "killed_peers_count_once_in_postgresql";
    let Some(mut warehouse) = Warehouse::new(test) else {
        return;
    };
    let mut random = StdRng::seed_from_u64(seed(test));
    let place = Place::embedded("peers_sinks");
    let mut events = Events {
        topic: unique("events"),
        sums: BTreeMap::new(),
    };
    place.topic(&events.topic, 4);
    let topic = &events.topic;
    // Several views, so that each process writes some of them.
    let view = |number: usize| {
        format!(
            "CREATE MATERIALIZED VIEW kinds_{number}
               WITH (primary_key = 'kind', sink = 'warehouse') AS
               SELECT kind, count(*) AS events, sum(amount) AS amount FROM events GROUP BY kind;"
        )
    };
    let views: String = (0..4).map(view).collect();
    let table = format!(
        "CREATE TABLE events (kind bigint, amount bigint)
           WITH (topic = '{topic}', format = 'json', envelope = 'append');"
    );
    place.write("views.sql", &(table + &views));
    let flag = warehouse.flag.clone();
    events.append(&place, 3000, &mut random);
    let mut peers = two_with(&place, &[&flag]);
    for _ in 0..KILLS {
        warehouse.expect(&counted(0), &events_rows(&events));
        events.append(&place, 2000, &mut random);
        let [first, second] = peers;
        let (dying, mut other) = match random.random_range(0..2) {
            0 => (first, second),
            _ => (second, first),
        };
        // At any moment of writing them.
        std::thread::sleep(random.random_range(Duration::ZERO..Duration::from_millis(600)));
        dying.kill();
        let said = other.ends(3, SOON);
        assert!(
            said.contains("another process of this job is gone"),
            "{said}"
        );
        peers = two_with(&place, &[&flag]);
        events.append(&place, 500, &mut random);
    }
    for number in 0..4 {
        warehouse.expect(&counted(number), &events_rows(&events));
    }
    peers[random.random_range(0..2)].signal("TERM");
    peers.iter_mut().for_each(|peer| {
        peer.ends(0, SOON);
    });
    // The same job alone, with one worker, after its views were filled by four.
    events.append(&place, 500, &mut random);
    let mut alone = place.start("dataflow", &[&flag]);
    warehouse.expect(&counted(2), &events_rows(&events));
    alone.stop("INT");
}
