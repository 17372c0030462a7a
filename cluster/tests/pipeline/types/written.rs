//! Every type of Avro and of Debezium's JSON, written by Confluent's Python client and fastavro,
//! under every operation, judged by PostgreSQL's answer to the same SQL over the same values; into
//! Cassandra and into a file.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use Operation::{Distinct, Equal, Group, In, IsNull, Join, Key, Less, MinMax, Order, Pass};
use serde_json::Value;
use tidemill_log::log::dead_letter::{Source as Origin, Stage};
use tidemill_log::registry;
use tidemill_log::registry::Registry;
use tidemill_plan::compile;

use crate::harness::{Place, Process, given};
use crate::types::cells::{Operation, Subject};
use crate::types::matrix::{View, wide};
use crate::types::page;
use crate::types::same::difference;
use crate::types::sink::Sink;
use crate::types::source::Source;

/// How long the views may take to be what PostgreSQL answers.
const SETTLING: Duration = Duration::from_secs(240);
const OPERATIONS: [Operation; 11] = [
    Pass, Equal, In, Less, IsNull, Group, Join, Order, MinMax, Distinct, Key,
];
/// Queries that one view unites: a statement takes 200 joins and unions.
const QUERIES_IN_ONE: usize = 80;
/// On Cassandra, where each table takes its time: keys of these types of PostgreSQL.
const KEYS_ON_CASSANDRA: [&str; 6] = [
    "bigint",
    "text",
    "bytea",
    "timestamptz",
    "numeric(38,3)",
    "double precision",
];

/// The clients of others, in the middle of their work.
struct Writer {
    child: Child,
    more: ChildStdin,
    told: BufReader<ChildStdout>,
}

impl Writer {
    fn start(python: &str, place: &Place) -> Self {
        let script = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../services/python/write_formats.py"
        );
        let mut child = Command::new(python)
            .args([script, &place.log, &place.registry, &place.name])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let told = BufReader::new(child.stdout.take().unwrap());
        Self {
            more: child.stdin.take().unwrap(),
            told,
            child,
        }
    }

    /// What it says of the half that it has written.
    fn half(&mut self) -> Value {
        let mut line = String::new();
        self.told.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // It has ended, or the test has failed.
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

/// A column as the writer describes it.
struct Column {
    name: String,
    column: String,
    number: usize,
    /// PostgreSQL's type.
    kind: String,
    declared: Option<String>,
    literals: [String; 2],
    dead: Vec<String>,
    refused: BTreeSet<Operation>,
}

/// A topic as a table.
struct Table {
    name: String,
    topic: String,
    with: String,
    columns: Vec<Column>,
}

fn text(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap().to_owned()
}

impl Table {
    fn new(told: &Value) -> Self {
        let column = |it: &Value| Column {
            name: text(it, "name"),
            column: text(it, "column"),
            number: usize::try_from(it["number"].as_u64().unwrap()).unwrap(),
            kind: text(it, "kind"),
            declared: it["declared"].as_str().map(str::to_owned),
            literals: [0, 1].map(|at| it["literals"][at].as_str().unwrap().to_owned()),
            dead: serde_json::from_value(it["dead"].clone()).unwrap(),
            refused: BTreeSet::new(),
        };
        Self {
            name: text(told, "name"),
            topic: text(told, "topic"),
            with: text(told, "with"),
            columns: told["columns"]
                .as_array()
                .unwrap()
                .iter()
                .map(column)
                .collect(),
        }
    }

    /// As `views.sql` creates it.
    fn created(&self) -> String {
        let declared = self.columns.iter().filter_map(|it| {
            let declared = it.declared.as_ref()?;
            Some(format!(", {} {declared}", it.column))
        });
        let declared: String = declared.collect();
        let columns = match declared.is_empty() {
            true => String::new(),
            false => format!("(id bigint PRIMARY KEY, g int{declared})"),
        };
        let (name, topic, with) = (&self.name, &self.topic, &self.with);
        format!("CREATE TABLE {name} {columns} WITH (topic = '{topic}', {with});\n")
    }

    /// The same in PostgreSQL.
    fn judge(&self) -> String {
        let columns = self.columns.iter();
        let columns = columns.map(|it| format!(", {} {}", it.column, it.kind));
        let columns: String = columns.collect();
        format!(
            "CREATE TABLE {} (id bigint PRIMARY KEY, g int{columns});",
            self.name
        )
    }

    fn query(&self, column: &Column, operation: Operation) -> (String, &'static str) {
        operation.over(&Subject {
            table: &self.name,
            column: column.column.clone(),
            group: column.number,
            one: &column.literals[0],
            other: &column.literals[1],
        })
    }

    /// Plans each operation with each column alone; what is refused is refused by name.
    fn plan(&mut self, registry: &dyn Registry) {
        let created = self.created();
        let mut refused = Vec::new();
        for (at, column) in self.columns.iter().enumerate() {
            for operation in OPERATIONS {
                let (query, key) = self.query(column, operation);
                let view = format!("CREATE VIEW v WITH (primary_key = '{key}') AS {query};");
                let planned = compile(&format!("{created}{view}"), "views.sql", Some(registry));
                let Err(error) = planned else { continue };
                let said = error.to_string();
                let by_name = said.contains(&column.column)
                    || operation == MinMax && said.contains(&format!("({})", column.kind));
                assert!(by_name, "{}, {operation:?}: {said}", column.name);
                refused.push((at, operation));
            }
        }
        for (at, operation) in refused {
            self.columns[at].refused.insert(operation);
        }
    }
}

/// The views of all that is not refused: those whose answers are numbers over all tables at once.
fn views(tables: &[Table], is_key: impl Fn(&Column) -> bool) -> Vec<View> {
    let mut views = Vec::new();
    for operation in OPERATIONS {
        let mut all = Vec::new();
        let mut key = "";
        for table in tables {
            let columns = table.columns.iter();
            let columns: Vec<_> = columns
                .filter(|it| !it.refused.contains(&operation))
                .collect();
            let queries = columns.iter().map(|it| table.query(it, operation));
            let (queries, keys): (Vec<String>, Vec<&str>) = queries.unzip();
            let Some(&its) = keys.first() else { continue };
            key = its;
            let name = format!("{operation:?}").to_lowercase();
            match operation {
                Pass | MinMax => {
                    let sql = wide(&queries);
                    let uuids = columns.iter().filter(|it| it.kind == "uuid");
                    let asked = uuids.fold(sql.clone(), |sql, it| {
                        sql.replace(
                            &format!("({})", it.column),
                            &format!("({}::text)", it.column),
                        )
                    });
                    views.push(View {
                        name: format!("{name}_{}", table.name),
                        key,
                        sql,
                        asked,
                    });
                }
                Key => {
                    let kept = columns.iter().zip(queries).filter(|(it, _)| is_key(it));
                    views.extend(kept.map(|(it, sql)| View {
                        name: format!("{name}_{}", it.column),
                        key,
                        asked: sql.clone(),
                        sql,
                    }));
                }
                _ => all.extend(queries),
            }
        }
        for (number, part) in all.chunks(QUERIES_IN_ONE).enumerate() {
            let sql = part.join("\nUNION ALL\n");
            views.push(View {
                name: format!("all_{operation:?}_{number}").to_lowercase(),
                key,
                asked: sql.clone(),
                sql,
            });
        }
    }
    views
}

/// A pipeline that runs, and what it fills.
struct Running {
    place: Place,
    sink: Sink,
    views: Vec<View>,
    process: Process,
    /// Views with rows whose key the sink cannot have.
    unfit: BTreeSet<String>,
}

impl Running {
    fn start(place: Place, tables: &[Table], views: Vec<View>) -> Self {
        let mut sql: String = tables.iter().map(Table::created).collect();
        for View {
            name,
            key,
            sql: query,
            ..
        } in &views
        {
            let with = format!("WITH (primary_key = '{key}')");
            writeln!(sql, "CREATE MATERIALIZED VIEW {name} {with} AS {query};").unwrap();
        }
        place.write("views.sql", &sql);
        let process = place.start("dataflow", &["-w", "1"]);
        Self {
            sink: Sink::open(&place.sink),
            unfit: BTreeSet::new(),
            place,
            views,
            process,
        }
    }

    /// Waits until every view is what PostgreSQL answers.
    fn settle(&mut self, source: &mut Source) {
        let mut differ = String::new();
        let deadline = Instant::now() + SETTLING;
        for view in &self.views {
            let (columns, mut expected) = source.answer(&view.asked);
            if view.key == "k" {
                let kind = &columns[0].kind;
                let all = expected.len();
                expected.retain(|row| self.sink.takes_as_key(row[0].as_deref().unwrap(), kind));
                if expected.len() < all {
                    self.unfit.insert(view.name.clone());
                }
            }
            loop {
                self.process.runs();
                let found = self.sink.rows(&view.name, &columns);
                let differs = match &found {
                    None => Some("is not there".to_owned()),
                    Some(found) => difference(found, &expected, &columns, self.sink.digits()),
                };
                let Some(differs) = differs else { break };
                if Instant::now() > deadline {
                    writeln!(differ, "{}: {differs}", view.name).unwrap();
                    break;
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        let said = self.process.said();
        let said: Vec<&str> = said.lines().rev().take(20).collect();
        assert!(differ.is_empty(), "{differ}\n{}", said.join("\n"));
    }

    /// Records without a form were put aside, each for its column, and no others.
    fn dead_letters_are(&self, expected: &Value) {
        let mut left: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
        for dead in expected.as_array().unwrap() {
            let place = (text(dead, "topic"), text(dead, "column"));
            left.entry(place).or_default().push(text(dead, "says"));
        }
        let mut unfit = BTreeSet::new();
        for kept in self.place.dead_letters() {
            let letter = kept.letter;
            let reason = &letter.reason;
            match (letter.stage, letter.source) {
                (Stage::Decode, Origin::Record { topic, .. }) => {
                    let column = reason.split('`').nth(1).unwrap_or_default().to_owned();
                    let says = left.get_mut(&(topic, column));
                    let says = says.unwrap_or_else(|| panic!("{reason}"));
                    // The closest of them: one may be a part of another.
                    let fits = says.iter().enumerate();
                    let fits = fits.filter(|(_, part)| reason.contains(part.as_str()));
                    let closest = fits.max_by_key(|(_, part)| part.len()).map(|(at, _)| at);
                    says.remove(closest.unwrap_or_else(|| panic!("{reason}: {says:?}")));
                }
                (Stage::Serve, Origin::Row { view, .. }) => unfit.extend(view),
                (stage, origin) => panic!("{stage:?} {origin}: {reason}"),
            }
        }
        left.retain(|_, says| !says.is_empty());
        assert!(left.is_empty(), "no dead letters: {left:?}");
        assert_eq!(unfit, self.unfit);
    }
}

/// The newest schemas of the tables' topics, in a registry that answers at once.
fn copied(tables: &[Table], registry: &dyn Registry, file: &std::path::Path) -> Arc<dyn Registry> {
    let copy = registry::open(&format!("sqlite://{}", file.display())).unwrap();
    for table in tables {
        for part in ["key", "value"] {
            let subject = format!("{}-{part}", table.topic);
            if let Some(newest) = registry.latest(&subject).unwrap() {
                copy.register(&subject, &newest.schema).unwrap();
            }
        }
    }
    copy
}

/// The numbers of one column of each type in each format.
fn keys_on_cassandra(tables: &[Table]) -> BTreeSet<usize> {
    let mut first = BTreeMap::new();
    for table in tables {
        let is_avro = table.with.contains("'avro'");
        for column in &table.columns {
            if KEYS_ON_CASSANDRA.contains(&column.kind.as_str()) {
                first
                    .entry((is_avro, &column.kind))
                    .or_insert(column.number);
            }
        }
    }
    first.into_values().collect()
}

/// What no column can be is refused where it is read, and a subject of another kind at once.
#[track_caller]
fn are_refused_by_name(table: &Table, registry: &dyn Registry, prefix: &str) {
    let said = |sql: &str| {
        compile(sql, "views.sql", Some(registry))
            .unwrap_err()
            .to_string()
    };
    for (column, kind) in [
        ("tags", "a map"),
        ("one_of", "a union of null, string, long"),
        ("list", "an array"),
        ("nothing", "null"),
        ("stay", "duration (months, days and milliseconds)"),
        ("again", "a record (Row)"),
    ] {
        let said = said(&format!(
            "{}CREATE VIEW v AS SELECT id, {column} FROM ta",
            table.created()
        ));
        let expected = format!("column `{column}` of `ta` is {kind}, which a view cannot read");
        assert!(said.ends_with(&expected), "{said}");
    }
    for (name, kind) in [("json", "JSON"), ("protobuf", "PROTOBUF")] {
        let topic = format!("{prefix}.{name}");
        let said = said(&format!(
            "CREATE TABLE x WITH (topic = '{topic}'); CREATE VIEW v AS SELECT id FROM x"
        ));
        let expected = format!("subject `{topic}-value` is {kind}; Tidemill reads AVRO");
        assert!(said.contains(&expected), "{said}");
    }
}

/// What holds of each type, as docs/formats.md lists it.
fn list(tables: &[Table], is_avro: bool) -> String {
    let mut list =
        "| written | column | operations | dead letters |\n|---|---|---|---|\n".to_owned();
    let tables = tables
        .iter()
        .filter(|it| it.with.contains("'avro'") == is_avro);
    for table in tables {
        let (_, envelope) = table.with.split_once(", ").unwrap();
        writeln!(list, "| *{envelope}* | | | |").unwrap();
        for column in &table.columns {
            let names = |refused: bool| {
                let all = OPERATIONS
                    .iter()
                    .filter(|it| column.refused.contains(it) == refused);
                all.map(|it| it.heading()).collect::<Vec<_>>()
            };
            let (right, refused) = (names(false), names(true));
            let operations = match (right.as_slice(), refused.as_slice()) {
                (_, []) => "all".to_owned(),
                ([one], _) => (*one).to_owned(),
                _ => format!("all but {}", refused.join(", ")),
            };
            let dead: BTreeSet<&String> = column.dead.iter().collect();
            let dead: Vec<String> = dead.iter().map(|it| format!("… {it} …")).collect();
            let kind = column.declared.as_ref().unwrap_or(&column.kind);
            let (name, dead) = (&column.name, dead.join(", "));
            writeln!(list, "| `{name}` | {kind} | {operations} | {dead} |").unwrap();
        }
    }
    list
}

#[test]
fn what_others_clients_write_is_right_or_refused_by_name() {
    let test = "what_others_clients_write_is_right_or_refused_by_name";
    let Some(python) = given(test, "TIDEMILL_TEST_PYTHON") else {
        return;
    };
    let (Some(services), Some(mut source)) = (Place::services("formats"), Source::new("formats"))
    else {
        return;
    };
    let began = Instant::now();
    let told = |what: &str| eprintln!("{:?} {what}", began.elapsed());
    let mut writer = Writer::start(&python, &services);
    let half = writer.half();
    let mut tables: Vec<Table> = half["tables"]
        .as_array()
        .unwrap()
        .iter()
        .map(Table::new)
        .collect();
    told("written");
    let real = registry::open(&services.registry).unwrap();
    let copy = copied(&tables, real.as_ref(), &services.folder().join("copy.db"));
    for table in &mut tables {
        source.run(&table.judge());
        table.plan(copy.as_ref());
    }
    source.run(&text(&half, "sql"));
    are_refused_by_name(&tables[0], real.as_ref(), &services.name);
    told("planned");
    let mut file = Place::embedded("formats");
    file.log.clone_from(&services.log);
    file.reach("--kafka", &services.log);
    file.reach("--registry", &services.registry);
    let all = views(&tables, |_| true);
    let kept = keys_on_cassandra(&tables);
    let some = views(&tables, |it| kept.contains(&it.number));
    let mut running = [
        Running::start(services, &tables, some),
        Running::start(file, &tables, all),
    ];
    for pipeline in &mut running {
        pipeline.settle(&mut source);
    }
    told("first half");
    writer.more.write_all(b"\n").unwrap();
    let half = writer.half();
    source.run(&text(&half, "sql"));
    for pipeline in &mut running {
        pipeline.settle(&mut source);
        pipeline.dead_letters_are(&half["dead"]);
    }
    told("second half");
    for Running { process, sink, .. } in running {
        process.kill();
        sink.drop_all();
    }
    let lists = [
        (true, "Avro as others' clients write it"),
        (false, "Debezium's JSON"),
    ];
    for (is_avro, name) in lists {
        page::is_listed_in(
            "formats.md",
            &format!("list of {name}"),
            &list(&tables, is_avro),
        );
    }
}
