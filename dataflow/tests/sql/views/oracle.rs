//! PostgreSQL, asked the same questions over the same rows, in a schema of its own.

use std::collections::{BTreeMap, BTreeSet};

use postgres::{Client, NoTls};
use tidemill_sinks::Table;

use crate::views::bundle::{COLUMNS, TABLES, View};
use crate::views::feed::Feed;
use crate::views::held;
use crate::views::held::Value;

/// A connection and its schema, which is dropped at the end.
pub(crate) struct Oracle {
    client: Client,
    schema: String,
}

/// What a view should hold.
pub(crate) struct Answer {
    /// By primary key; keys that several rows share are withheld.
    pub(crate) rows: BTreeMap<String, Vec<Value>>,
    /// Rows that are withheld.
    pub(crate) withheld: usize,
    /// Rows in all.
    pub(crate) all: usize,
}

impl Oracle {
    /// Connects, or says what is left out.
    pub(crate) fn connect(name: &str) -> Option<Self> {
        let Ok(url) = std::env::var("TIDEMILL_TEST_POSTGRES") else {
            // Past the harness, which hides what a passing test prints.
            let line = format!("left out: {name} needs TIDEMILL_TEST_POSTGRES (run ./test)\n");
            let _unseen = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());

            return None;
        };
        let mut client = Client::connect(&url, NoTls).unwrap();
        let schema = format!("views_{name}_{}", std::process::id());
        let begin = format!(
            "CREATE SCHEMA {schema}; SET search_path = {schema}; SET TimeZone = 'UTC';
             SET extra_float_digits = 3; SET client_min_messages = warning"
        );
        client.batch_execute(&begin).unwrap();
        Some(Self { client, schema })
    }

    /// Makes the tables and views.
    pub(crate) fn create(&mut self, views: &[View]) {
        let column = |(name, kind): &(&str, &str)| match *kind {
            // Text sorts by its bytes, as in views.
            "text" => format!("{name} text COLLATE \"C\""),
            _ => format!("{name} {kind}"),
        };
        let columns: Vec<String> = COLUMNS.iter().map(column).collect();
        let columns = columns.join(", ");
        for table in TABLES {
            let create = format!("CREATE TABLE {table} ({columns})");
            self.client.batch_execute(&create).unwrap();
        }
        for View { name, select, .. } in views {
            let create = format!("CREATE VIEW {name} AS {select}");
            let created = self.client.batch_execute(&create);
            created.unwrap_or_else(|error| panic!("view `{name}`: {error:?}"));
        }
    }

    /// Gives the tables the rows that the feed has come to, decoded from the same JSON.
    pub(crate) fn fill(&mut self, feed: &Feed) {
        for (index, table) in TABLES.iter().enumerate() {
            self.refill(table, &feed.rows(index));
        }
    }

    /// Makes tables of these columns.
    pub(crate) fn tables(&mut self, tables: &[(&str, &str)]) {
        for (name, columns) in tables {
            let columns = columns.replace(" text", " text COLLATE \"C\"");
            let create = format!("CREATE TABLE {name} ({columns})");
            self.client.batch_execute(&create).unwrap();
        }
    }

    /// Makes views of these queries.
    pub(crate) fn views(&mut self, views: &[(&str, &str)]) {
        for (name, query) in views {
            let create = format!("CREATE VIEW {name} AS {query}");
            self.client.batch_execute(&create).unwrap();
        }
    }

    /// Gives a table these rows, and no others.
    pub(crate) fn refill(&mut self, table: &str, rows: &serde_json::Value) {
        let fill = format!(
            "INSERT INTO {table} SELECT * FROM
             json_populate_recordset(NULL::{table}, $1::text::json)"
        );
        let clear = format!("DELETE FROM {table}");
        self.client.batch_execute(&clear).unwrap();
        self.client.execute(&fill, &[&rows.to_string()]).unwrap();
    }

    /// Makes an index on these columns of a table.
    pub(crate) fn index(&mut self, on: &str) {
        self.client
            .batch_execute(&format!("CREATE INDEX ON {on}"))
            .unwrap();
    }

    /// Deletes the rows with these keys, and inserts rows.
    pub(crate) fn change(
        &mut self,
        table: &str,
        key: &[&str],
        keys: &serde_json::Value,
        rows: &serde_json::Value,
    ) {
        let given = format!("json_populate_recordset(NULL::{table}, $1::text::json)");
        let same = key
            .iter()
            .map(|column| format!("t.{column} = given.{column}"));
        let same = same.collect::<Vec<_>>().join(" AND ");
        let delete = format!("DELETE FROM {table} AS t USING {given} AS given WHERE {same}");
        self.client.execute(&delete, &[&keys.to_string()]).unwrap();
        let insert = format!("INSERT INTO {table} SELECT * FROM {given}");
        self.client.execute(&insert, &[&rows.to_string()]).unwrap();
        self.client
            .batch_execute(&format!("ANALYZE {table}"))
            .unwrap();
    }

    /// Whether PostgreSQL evaluates a query, or why it does not.
    pub(crate) fn evaluates(&mut self, query: &str) -> Result<(), String> {
        let planned = self.client.batch_execute(query);
        planned.map_err(|error| error.as_db_error().unwrap().message().to_owned())
    }

    /// The rows of a query whose columns are all text.
    pub(crate) fn texts(&mut self, query: &str) -> Result<BTreeSet<Vec<String>>, String> {
        let found = self.client.query(query, &[]);
        let found = found.map_err(|error| match error.as_db_error() {
            Some(error) => error.message().to_owned(),
            None => error.to_string(),
        })?;
        let text = |row: &postgres::Row| (0..row.len()).map(|column| row.get(column)).collect();
        Ok(found.iter().map(text).collect())
    }

    /// The answer for a view whose table in the sink is `table`; internal views have none.
    pub(crate) fn answer(&mut self, view: &View, table: &Option<Table>) -> Option<Answer> {
        let table = table.as_ref()?;
        let fields = table.schema.fields();
        let columns: Vec<String> = fields
            .iter()
            .map(|field| held::cast(field.name(), field.data_type()))
            .collect();
        let select = format!("SELECT {} FROM {}", columns.join(", "), view.name);
        let found = self.client.query(&select, &[]);
        let found = found.unwrap_or_else(|error| panic!("view `{}`: {error:?}", view.name));
        let mut groups: BTreeMap<String, Vec<Vec<Value>>> = BTreeMap::new();
        for row in &found {
            let values: Vec<Value> = fields
                .iter()
                .enumerate()
                .map(|(i, field)| held::read(row.get::<_, Option<&str>>(i), field.data_type()))
                .collect();
            let key = key(&values, table);
            groups.entry(key).or_default().push(values);
        }
        let rows: BTreeMap<_, _> = groups
            .into_iter()
            .filter_map(|(key, mut rows)| (rows.len() == 1).then(|| (key, rows.remove(0))))
            .collect();
        Some(Answer {
            withheld: found.len() - rows.len(),
            all: found.len(),
            rows,
        })
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        let drop = format!("DROP SCHEMA {} CASCADE", self.schema);
        if let Err(error) = self.client.batch_execute(&drop) {
            eprintln!("schema {} is left: {error}", self.schema);
        }
    }
}

/// A row's primary key as text.
pub(crate) fn key(row: &[Value], table: &Table) -> String {
    let parts = table.primary_key.iter().map(|column| row[*column].key());
    parts.collect::<Vec<_>>().join("|")
}
