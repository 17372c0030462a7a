//! A river with a fetched and a captured table and a view of each kind, whose rows are changed at
//! random, and the answers that the database itself gives.

use std::collections::BTreeSet;
use std::time::Instant;

use arrow::datatypes::DataType;
use rand::Rng;
use rand::rngs::StdRng;

use super::database::Database;
use super::{PATIENCE, Place, Process, View, feed, until};

/// Rows that are inserted where there are to be some.
const MANY: usize = 300;
const COUNTRIES: [&str; 6] = [
    "Norway",
    "Canada",
    "France",
    "Germany",
    "Australia",
    "Elsewhere",
];

/// A pipeline and its database.
pub(crate) struct River {
    pub(crate) place: Place,
    pub(crate) random: StdRng,
    users: String,
    regions: String,
    database: Database,
    /// Whether one of the views is defined in its other way.
    altered: bool,
}

impl River {
    /// The pipeline, with its tables in the database.
    pub(crate) fn new(place: Place, random: StdRng) -> Self {
        let (users, regions) = (format!("u_{}", place.name), format!("r_{}", place.name));
        let mut river = Self {
            database: Database::open(&place.database),
            users,
            regions,
            place,
            random,
            altered: false,
        };
        river.write();
        let regions = &river.regions;
        let columns = "(name text PRIMARY KEY, region text)";
        let made = river
            .database
            .execute(&format!("CREATE TABLE {regions} {columns}"));
        assert!(made);
        if river.is_postgres() {
            let full = format!("ALTER TABLE {regions} REPLICA IDENTITY FULL");
            assert!(river.database.execute(&full));
        }
        for country in COUNTRIES {
            let insert = format!("INSERT INTO {regions} VALUES ('{country}', 'here')");
            assert!(river.database.execute(&insert));
        }
        river
    }

    fn is_postgres(&self) -> bool {
        matches!(self.database, Database::Postgres(_))
    }

    /// Postcodes are numbers in some countries only: there is always something that does not land.
    fn write(&self) {
        let (users, regions, feed) = (&self.users, &self.regions, feed("crashes"));
        self.place.write(
            "ingest.toml",
            &format!(
                r#"{feed}
[land]
table = "{users}"
key = "id"
columns = [
    {{ name = "id", path = "login.uuid", type = "text" }},
    {{ name = "first_name", path = "name.first", type = "text" }},
    {{ name = "country", path = "location.country", type = "text" }},
    {{ name = "age", path = "dob.age", type = "int" }},
    {{ name = "postcode", path = "location.postcode", type = "int" }},
]
[capture]
tables = ["{regions}"]
[publish]
partitions = 3
"#
            ),
        );
        let views = self.views();
        let views = views
            .iter()
            .map(|(view, key, sql)| format!("{} WITH (primary_key = '{key}') AS {sql}", view.name));
        let views: String = views
            .map(|view| format!("CREATE MATERIALIZED VIEW {view};\n"))
            .collect();
        let avro = "format = 'avro', envelope = 'debezium'";
        self.place.write(
            "views.sql",
            &format!(
                "CREATE TABLE {users} WITH (topic = '{users}', {avro});
                 CREATE TABLE {regions} WITH (topic = '{regions}', {avro});
                 {views}"
            ),
        );
    }

    /// What the altered view computes, and its type.
    fn altered_column(&self) -> (&'static str, DataType) {
        match self.altered {
            true => ("sum(age)", sum_of_int(&self.place)),
            false => ("count(*)", DataType::Int64),
        }
    }

    /// Each view with its key, and with its SQL, which the database understands too.
    fn views(&self) -> Vec<(View, &'static str, String)> {
        let (users, regions) = (&self.users, &self.regions);
        let view = |name: &str, key, columns: &[(&'static str, DataType)], sql: String| {
            (View::new(&format!("{name}_{users}"), columns), key, sql)
        };
        let (text, int, long) = (DataType::Utf8, DataType::Int32, DataType::Int64);
        let (altered, n) = self.altered_column();
        vec![
            view(
                "people",
                "id",
                &[
                    ("id", text.clone()),
                    ("first_name", text.clone()),
                    ("country", text.clone()),
                    ("age", int.clone()),
                ],
                format!("SELECT id, first_name, country, age FROM {users}"),
            ),
            view(
                "countries",
                "country",
                &[
                    ("country", text.clone()),
                    ("people", long.clone()),
                    ("ages", sum_of_int(&self.place)),
                    ("youngest", int.clone()),
                    ("oldest", int.clone()),
                ],
                format!(
                    "SELECT country, count(*) AS people, sum(age) AS ages, min(age) AS youngest,
                       max(age) AS oldest FROM {users} GROUP BY country"
                ),
            ),
            view(
                "placed",
                "id",
                &[
                    ("id", text.clone()),
                    ("age", int.clone()),
                    ("region", text.clone()),
                ],
                format!(
                    "SELECT u.id, u.age, r.region
                     FROM {users} AS u JOIN {regions} AS r ON u.country = r.name"
                ),
            ),
            view(
                "youngest",
                "country, place",
                &[
                    ("country", text.clone()),
                    ("place", long.clone()),
                    ("id", text.clone()),
                    ("age", int),
                ],
                format!(
                    "SELECT country, place, id, age FROM (
                       SELECT country, id, age,
                         row_number() OVER (PARTITION BY country ORDER BY age, id) AS place
                       FROM {users}) AS ranked WHERE place <= 3"
                ),
            ),
            view(
                "altered",
                "country",
                &[("country", text), ("n", n)],
                format!("SELECT country, {altered} AS n FROM {users} GROUP BY country"),
            ),
        ]
    }

    /// Defines one of the views otherwise.
    pub(crate) fn alter(&mut self) {
        self.altered = !self.altered;
        self.write();
    }

    /// Connects to the database anew, which was away.
    pub(crate) fn reconnect(&mut self) {
        self.database = Database::open(&self.place.database);
    }

    /// Waits until ingest has made the table, and inserts rows.
    pub(crate) fn fill(&mut self) {
        let look = format!("SELECT 1 FROM {} LIMIT 1", self.users);
        until("the table is there", PATIENCE, || {
            self.database.execute(&look).then_some(())
        });
        let insert = self.insert(MANY);
        assert!(self.database.execute(&insert));
    }

    fn insert(&mut self, count: usize) -> String {
        let rows: Vec<String> = (0..count)
            .map(|_| {
                let id: u64 = self.random.random();
                let age = self.random.random_range(18..90);
                let country = COUNTRIES[self.random.random_range(0..COUNTRIES.len())];
                format!("('{id:016x}', 'Ada', '{country}', {age}, {})", age * 3)
            })
            .collect();
        format!("INSERT INTO {} VALUES {}", self.users, rows.join(", "))
    }

    /// One random transaction. Fails, without harm, while somebody else is just as fast.
    pub(crate) fn change(&mut self) {
        let (users, regions) = (self.users.clone(), self.regions.clone());
        let some = format!(
            "id IN (SELECT id FROM {users} ORDER BY id LIMIT {} OFFSET {})",
            self.random.random_range(1..4),
            self.random.random_range(0..300)
        );
        let age = self.random.random_range(18..90);
        let country = COUNTRIES[self.random.random_range(0..COUNTRIES.len())];
        let changed = match self.random.random_range(0..200) {
            0 if self.is_postgres() => format!("TRUNCATE {users}; {}", self.insert(MANY)),
            0 => format!("DELETE FROM {users}; {}", self.insert(MANY)),
            1..20 => format!("UPDATE {regions} SET region = 'r{age}' WHERE name = '{country}'"),
            20..30 => format!("DELETE FROM {regions} WHERE name = '{country}'"),
            30..40 => format!("INSERT INTO {regions} VALUES ('{country}', 'back')"),
            40..70 => format!("DELETE FROM {users} WHERE {some}"),
            70..110 => self.insert(2),
            110..130 => {
                // Inserted and deleted again: nothing may be left of it.
                let id: u64 = self.random.random();
                let insert = format!("INSERT INTO {users} VALUES ('{id:016x}', 'x', 'No', 1, 2)");
                format!("{insert}; DELETE FROM {users} WHERE id = '{id:016x}'")
            }
            130..160 => format!("UPDATE {users} SET country = '{country}' WHERE {some}"),
            _ => format!("UPDATE {users} SET age = {age} WHERE {some}"),
        };
        if !self.database.execute(&format!("BEGIN; {changed}; COMMIT;")) {
            self.database.execute("ROLLBACK");
        }
    }

    /// Inserts a row that no view can hold before its process goes on.
    pub(crate) fn mark(&mut self) {
        let insert = self.insert(1);
        until("a row is inserted", PATIENCE, || {
            self.database.execute(&insert).then_some(())
        });
    }

    /// Inserts a row with a first name of so many bytes.
    pub(crate) fn insert_long(&mut self, bytes: usize) {
        let users = &self.users;
        let insert =
            format!("INSERT INTO {users} VALUES ('long', repeat('x', {bytes}), 'Norway', 20, 60)");
        assert!(self.database.execute(&insert));
    }

    /// Deletes it again.
    pub(crate) fn delete_long(&mut self) {
        let delete = format!("DELETE FROM {} WHERE id = 'long'", self.users);
        assert!(self.database.execute(&delete));
    }

    /// Waits until every view holds what the database answers, while these processes run.
    pub(crate) fn settle(&mut self, after: &str, processes: &mut [&mut Process]) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let wrong = self.differences();
            processes.iter_mut().for_each(|process| process.runs());
            if wrong.is_empty() {
                return;
            }
            if Instant::now() > deadline {
                let said = processes.iter().map(|process| process.said());
                let said: Vec<String> = said.collect();
                panic!(
                    "after {after}:\n{}\n{}",
                    wrong.join("\n"),
                    said.join("\n--\n")
                );
            }
            std::thread::sleep(std::time::Duration::from_millis(30));
        }
    }

    /// What the views lack of what the database answers, or have beside it, now.
    pub(crate) fn differences(&mut self) -> Vec<String> {
        let mut wrong = Vec::new();
        for (view, _, sql) in self.views() {
            let rows: BTreeSet<Vec<String>> = self.database.rows(&sql);
            let found = self.place.view(&view);
            if rows != found {
                let missing: Vec<_> = rows.difference(&found).take(3).collect();
                let extra: Vec<_> = found.difference(&rows).take(3).collect();
                let (name, n, of) = (&view.name, found.len(), rows.len());
                wrong.push(format!(
                    "{name}: {n} rows of {of}; missing {missing:?}; wrong {extra:?}"
                ));
            }
        }
        wrong
    }

    /// Records of both topics.
    pub(crate) fn records(&self) -> u64 {
        let log = tidemill_log::log::open(&self.place.log).unwrap();
        let topics = [&self.users, &self.regions];
        let ranges = topics.map(|topic| log.ranges(topic).unwrap());
        let records = ranges.iter().flatten().map(|range| range.high - range.low);
        u64::try_from(records.sum::<i64>()).unwrap()
    }

    /// Checks the topics, and leaves nothing behind.
    pub(crate) fn end(&mut self) {
        self.place.is_published_once(&self.users);
        self.place.is_published_once(&self.regions);
        if self.is_postgres() {
            let tables = [self.users.as_str(), self.regions.as_str()];
            self.database.clean(&self.place.name, &tables);
        }
    }
}

/// The type of a sum of `int`s. SQLite has one type of integers, of 64 bits, whose sum is a numeric
/// in PostgreSQL.
pub(crate) fn sum_of_int(place: &Place) -> DataType {
    match place.database.starts_with("sqlite:") {
        true => DataType::Decimal128(29, 0),
        false => DataType::Int64,
    }
}
