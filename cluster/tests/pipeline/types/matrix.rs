//! Every PostgreSQL type, captured from a snapshot and from changes, under every operation, judged
//! by PostgreSQL's own answer to the same SQL; embedded and on the services.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use tidemill_log::log::dead_letter::{Source as Origin, Stage};
use tidemill_log::registry;
use tidemill_log::registry::Registry;

use crate::harness::{PATIENCE, Place, Process, until};
use crate::types::cells::{OPERATIONS, Operation};
use crate::types::kinds::{KINDS, Kind};
use crate::types::page;
use crate::types::planned::{Verdict, Verdicts, tables, verdicts};
use crate::types::same::difference;
use crate::types::sink::Sink;
use crate::types::source::Source;

/// How long the views may take to be what PostgreSQL answers.
const SETTLING: Duration = Duration::from_secs(60);

/// A view, its key, and what PostgreSQL is asked: it has no `min` of some types, a uuid for one,
/// whose order their text has too.
pub(crate) struct View {
    pub(crate) name: String,
    pub(crate) key: &'static str,
    pub(crate) sql: String,
    pub(crate) asked: String,
}

/// One query of the columns of several over one table.
pub(crate) fn wide(queries: &[String]) -> String {
    let parts = queries.iter().map(|query| {
        let (select, from) = query.rsplit_once(" FROM t").unwrap();
        let (first, columns) = select.split_once(", ").unwrap();
        (first, columns, from)
    });
    let parts: Vec<(&str, &str, &str)> = parts.collect();
    let columns: Vec<&str> = parts.iter().map(|(_, columns, _)| *columns).collect();
    let (first, _, from) = parts[0];
    format!("{first}, {} FROM t{from}", columns.join(", "))
}

/// One run of the matrix.
struct Matrix {
    place: Place,
    source: Source,
    registry: Arc<dyn Registry>,
    prefix: String,
    keyed: Vec<&'static Kind>,
    verdicts: Verdicts,
    /// Views with rows whose key the sink cannot have.
    unfit: BTreeSet<String>,
}

impl Matrix {
    fn new(place: Place, mut source: Source) -> Self {
        let keyed = source.begin();
        Self {
            registry: registry::open(&place.registry).unwrap(),
            prefix: format!("{}.", place.name),
            verdicts: Verdicts::new(),
            unfit: BTreeSet::new(),
            keyed,
            place,
            source,
        }
    }

    /// Starts the ingest. It refuses a table by the name of its key's column and type: such a table
    /// is left out, and it is started again.
    fn ingest(&mut self) -> Process {
        loop {
            let names = self.keyed.iter().map(|kind| format!("k{}", kind.group()));
            let names: Vec<String> = std::iter::once("t".to_owned()).chain(names).collect();
            let text = format!(
                "[capture]\ntables = {names:?}\n[publish]\ntopic_prefix = \"{}\"\n",
                self.prefix
            );
            self.place.write("ingest.toml", &text);
            let mut ingest = self.place.start("ingest", &[]);
            let ended = until("the tables are captured or refused", PATIENCE, || {
                let there = names.iter().all(|name| {
                    let subject = format!("{}{name}-value", self.prefix);
                    self.registry.latest(&subject).unwrap().is_some()
                });
                match ingest.ended() {
                    Some(_) => Some(true),
                    None => there.then_some(false),
                }
            });
            if !ended {
                return ingest;
            }
            let said = ingest.said();
            let refused = self.keyed.iter().position(|kind| {
                said.contains(&format!("table `k{}`", kind.group()))
                    && said.contains("`k`")
                    && said.contains(kind.said)
            });
            let refused = refused.unwrap_or_else(|| panic!("{said}"));
            let kind = self.keyed.remove(refused);
            let place = (kind.group(), Operation::SourceKey);
            self.verdicts.insert(place, Verdict::Refused(said));
        }
    }

    fn is_right(&self, kind: &Kind, operation: Operation) -> bool {
        self.verdicts.get(&(kind.group(), operation)) == Some(&Verdict::Right)
    }

    /// The views of all that is not refused: one an operation, where its answers are numbers.
    fn views(&mut self) -> Vec<View> {
        let mut views = Vec::new();
        for operation in OPERATIONS {
            let kinds = KINDS.iter().filter(|kind| self.is_right(kind, operation));
            let kinds: Vec<&Kind> = kinds.collect();
            let questions = kinds
                .iter()
                .map(|kind| self.source.question(kind, operation));
            let questions: Vec<String> = questions.map(Option::unwrap).collect();
            let queries: Vec<String> = kinds.iter().map(|kind| operation.query(kind).0).collect();
            let (key, name) = (operation.query(&KINDS[0]).1, format!("{operation:?}"));
            let view = |name: String, sql: String, asked: String| View {
                name: name.to_lowercase(),
                key,
                sql,
                asked,
            };
            match operation {
                Operation::Pass | Operation::MinMax => {
                    views.push(view(
                        format!("all_{name}"),
                        wide(&queries),
                        wide(&questions),
                    ));
                }
                Operation::Key | Operation::SourceKey => {
                    for ((kind, query), asked) in kinds.iter().zip(queries).zip(questions) {
                        views.push(view(format!("{name}_{}", kind.column()), query, asked));
                    }
                }
                _ => {
                    let all = |queries: &[String]| queries.join("\nUNION ALL\n");
                    views.push(view(format!("all_{name}"), all(&queries), all(&questions)));
                }
            }
        }
        views
    }

    fn dataflow(&self, views: &[View]) -> Process {
        let mut sql = tables(&self.prefix, &self.keyed);
        for View {
            name,
            key,
            sql: query,
            ..
        } in views
        {
            let with = format!("WITH (primary_key = '{key}')");
            writeln!(sql, "CREATE MATERIALIZED VIEW {name} {with} AS {query};").unwrap();
        }
        self.place.write("views.sql", &sql);
        self.place.start("dataflow", &["-w", "1"])
    }

    /// Waits until every view is what PostgreSQL answers.
    fn settle(&mut self, sink: &Sink, views: &[View], running: &mut [&mut Process]) {
        self.source.run("SET search_path = judge, public");
        let mut differ = String::new();
        let deadline = std::time::Instant::now() + SETTLING;
        for view in views {
            let (columns, mut expected) = self.source.answer(&view.asked);
            if view.key == "k" {
                let kind = &columns[0].kind;
                let all = expected.len();
                expected.retain(|row| sink.takes_as_key(row[0].as_deref().unwrap(), kind));
                if expected.len() < all {
                    self.unfit.insert(view.name.clone());
                }
            }
            let digits = sink.digits();
            loop {
                running.iter_mut().for_each(|process| process.runs());
                let found = sink.rows(&view.name, &columns);
                let differs = match &found {
                    None => Some("is not there".to_owned()),
                    Some(found) => difference(found, &expected, &columns, digits),
                };
                let Some(differs) = differs else { break };
                if std::time::Instant::now() > deadline {
                    writeln!(differ, "{}: {differs}", view.name).unwrap();
                    break;
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        self.source.run("SET search_path = public");
        let said: String = running.iter().map(|process| process.said()).collect();
        let said: Vec<&str> = said.lines().rev().take(20).collect();
        assert!(differ.is_empty(), "{differ}\n{}", said.join("\n"));
    }

    /// So many values had no form, each named by its column, and the views' keys that the sink
    /// cannot have were told.
    fn dead_letters_are(&self, count: usize) {
        let mut captured = 0;
        let mut unfit = BTreeSet::new();
        for kept in self.place.dead_letters() {
            let letter = kept.letter;
            match (letter.stage, letter.source) {
                (Stage::Capture, Origin::Change { key, .. }) => {
                    let group = key.parse::<usize>().unwrap() / 100;
                    let kind = KINDS.iter().find(|kind| kind.group() == group).unwrap();
                    let column = format!("column `{}`", kind.column());
                    assert!(letter.reason.contains(&column), "{}", letter.reason);
                    captured += 1;
                }
                (Stage::Serve, Origin::Row { view, .. }) => {
                    unfit.extend(view);
                }
                (stage, origin) => panic!("{stage:?} {origin}: {}", letter.reason),
            }
        }
        assert_eq!(captured, count);
        assert_eq!(unfit, self.unfit);
    }

    fn run(mut self) -> Verdicts {
        let began = std::time::Instant::now();
        let told = |what: &str| eprintln!("{:?} {what}", began.elapsed());
        let mut ingest = self.ingest();
        told("captured");
        // Some may be known already: of tables that were refused, or all.
        if self.verdicts.len() < KINDS.len() {
            self.verdicts = verdicts(
                &mut self.source,
                &self.prefix,
                &self.registry,
                &self.keyed,
                std::mem::take(&mut self.verdicts),
            );
        }
        told("planned");
        let views = self.views();
        let mut dataflow = self.dataflow(&views);
        let sink = Sink::open(&self.place.sink);
        self.settle(&sink, &views, &mut [&mut ingest, &mut dataflow]);
        told("snapshot");
        let keyed = self.keyed.clone();
        let snapshot = KINDS.iter().flat_map(Kind::dead_in_snapshot).count();
        let dead = snapshot + self.source.change(&keyed);
        self.settle(&sink, &views, &mut [&mut ingest, &mut dataflow]);
        told("changes");
        self.dead_letters_are(dead);
        dataflow.stop("TERM");
        ingest.stop("TERM");
        sink.drop_all();
        self.verdicts
    }
}

/// On the services, where each topic and table takes its time: one of each type that a sink's key
/// may have, and one of each way to compare keys.
const KEYS_ON_SERVICES: [&str; 16] = [
    "boolean",
    "int",
    "bigint",
    "numeric(12,3)",
    "numeric",
    "real",
    "double precision",
    "text",
    "char(5)",
    "citext",
    "bytea",
    "uuid",
    "date",
    "timestamp",
    "timestamptz",
    "mood",
];

#[test]
fn every_type_of_postgresql_is_right_or_refused_by_name() {
    let Some(source) = Source::new("types") else {
        return;
    };
    let mut place = Place::embedded("types");
    place.use_postgres(&source.url);
    let verdicts = Matrix::new(place, source).run();
    page::is_as_seen(&verdicts);

    let Some(place) = Place::services("types") else {
        return;
    };
    let source = Source::new("types_on_services").unwrap();
    let cassandra = place.sink.rsplit_once('/').unwrap().0.to_owned();
    let (kafka, registry) = (place.log.clone(), place.registry.clone());
    let place = Place::on("types", source.url.clone(), kafka, registry, &cassandra);
    let mut matrix = Matrix::new(place, source);
    let is_kept = |kind: &Kind| KEYS_ON_SERVICES.contains(&kind.name);
    matrix.keyed.retain(|kind| is_kept(kind));
    // What is planned does not depend on the services.
    matrix.verdicts = verdicts
        .into_iter()
        .filter(|((group, operation), _)| {
            let of_keys = matches!(operation, Operation::Key | Operation::SourceKey);
            !of_keys
                || KINDS
                    .iter()
                    .any(|kind| kind.group() == *group && is_kept(kind))
        })
        .collect();
    matrix.run();
}
