//! `verify --from-source`: the views' tables beside what PostgreSQL itself answers to their SQL.
//!
//! In: the captured tables in PostgreSQL and the views' tables in the sink. Out: the rows that
//! differ. Nothing of the pipeline between the two is used, so whatever went wrong there shows.
//!
//! The pipeline may run meanwhile, and then a table is always a little behind. So both sides are
//! read again and again:
//!
//! 1. A row is different when both sides' rows of its key have stood still, unlike, for the whole
//!    settle time. A pipeline that is behind for longer is different.
//! 2. A row that goes on changing on either side is told apart as changing: nothing is known of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use postgres::{Client, SimpleQueryMessage};
use tidemill_dataflow::plan::ir::{Envelope, Job, View};
use tidemill_dataflow::sink::{self, Scanned, Sink, Table};
use tidemill_dataflow::verify::{Cell, Difference, Differences, What};
use tidemill_ingest::config::Pipeline as Ingest;
use tidemill_ingest::server::Server;

use super::answer::{Queries, Sameness, Texts, quote, texts};
use crate::connections::Connections;
use crate::views::table_of;

/// Between two looks at both sides.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Settle times after which what goes on changing is told as changing.
const SETTLE_TIMES_MAX: u32 = 3;

/// Both sides' rows of a key; none where a side has no such row.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Unlike {
    is: Option<Texts>,
    should: Option<Texts>,
    /// Whether several rows of PostgreSQL's answer have the key, which a table cannot hold.
    twice: bool,
}

/// Rows by the values of their primary key.
type ByKey<T> = BTreeMap<Vec<String>, T>;

/// PostgreSQL's answer to a view's query.
#[derive(Default)]
struct Answer {
    count: u64,
    rows: ByKey<Texts>,
    /// Keys that several rows have.
    twice: BTreeSet<Vec<String>>,
}

/// What became of one view.
pub(super) struct Compared {
    pub(super) view: String,
    pub(super) key: Vec<String>,
    /// Rows of PostgreSQL's answer.
    pub(super) rows: u64,
    pub(super) found: Differences,
    /// Rows that went on changing and could not be compared.
    pub(super) changing: u64,
}

/// One view: how PostgreSQL is asked for it, and where it is served.
struct Subject {
    table: Table,
    query: String,
    sameness: Vec<Sameness>,
}

/// Compares the views that are named, all served ones when none is.
pub(super) fn compare(
    job: &Job,
    ingest: Option<&Ingest>,
    connections: &Connections,
    views: &[String],
    settle: Duration,
    limit: usize,
) -> anyhow::Result<Vec<Compared>> {
    if !connections.database.starts_with("postgres") {
        bail!(
            "--from-source reads the source tables in PostgreSQL, and no --postgres is given: this \
             pipeline lands in a SQLite file; use --from-log"
        );
    }
    let ingest = ingest.ok_or_else(|| {
        anyhow!(
            "--from-source needs the pipeline's ingest.toml, which names the source tables; use \
             --from-log for topics that others fill"
        )
    })?;
    let mut server = Server::parse(&connections.database)?;
    server.session(
        "tidemill verify",
        "-c TimeZone=UTC -c DateStyle=ISO -c IntervalStyle=postgres -c bytea_output=hex \
         -c extra_float_digits=1 -c default_transaction_read_only=on",
    );
    let mut client = server.connect()?;
    let sink = sink::open(&connections.sink)?;
    let queries = Queries::new(source_tables(job, ingest)?, &job.views)?;
    let keeps_micros = connections.sink.starts_with("sqlite:");
    let subjects = subjects(job, views, &queries, keeps_micros)?;
    let mut compared = Vec::new();
    for subject in &subjects {
        let look = Look {
            subject,
            sink: Arc::clone(&sink),
        };
        compared.push(look.settled(&mut client, settle, limit)?);
    }
    Ok(compared)
}

/// The job's tables, each with the captured table that fills its topic, as SQL names it.
fn source_tables(job: &Job, ingest: &Ingest) -> anyhow::Result<Vec<(String, String)>> {
    let naming = ingest.publish.naming();
    let captured: BTreeMap<String, String> = ingest
        .tables()
        .into_iter()
        .map(|table| {
            let (schema, name) = table.split_once('.').unwrap_or(("public", &table));
            let quoted: Vec<String> = table.split('.').map(quote).collect();
            (naming.topic_of(schema, name), quoted.join("."))
        })
        .collect();
    let sources = job.sources.iter().map(|source| {
        let (name, topic) = (&source.name, &source.topic);
        if matches!(source.envelope, Envelope::Append) {
            bail!(
                "table `{name}` keeps every record of topic `{topic}`, and PostgreSQL keeps only \
                 the current rows; use --from-log"
            );
        }
        let table = captured.get(topic).ok_or_else(|| {
            anyhow!(
                "table `{name}`: no captured table of ingest.toml fills topic `{topic}`; use \
                 --from-log"
            )
        })?;
        Ok((name.clone(), table.clone()))
    });
    sources.collect()
}

fn subjects(
    job: &Job,
    named: &[String],
    queries: &Queries,
    keeps_micros: bool,
) -> anyhow::Result<Vec<Subject>> {
    let served = || job.views.iter().filter(|view| view.output.is_some());
    if let Some(unknown) = named
        .iter()
        .find(|name| !served().any(|view| view.name == **name))
    {
        let known: Vec<&str> = served().map(|view| view.name.as_str()).collect();
        bail!(
            "there is no view `{unknown}` with a table; there are {}",
            known.join(", ")
        );
    }
    let wanted = served().filter(|view| named.is_empty() || named.contains(&view.name));
    let subject = |view: &View| {
        let output = view.output.as_ref().context("a served view has a table")?;
        let fields = view.rel.schema.fields().iter();
        Ok(Subject {
            table: table_of(view, output),
            query: queries.of(view)?,
            sameness: fields
                .map(|field| Sameness::of(field.data_type(), keeps_micros))
                .collect(),
        })
    };
    wanted.map(subject).collect()
}

/// One comparison of one view.
struct Look<'a> {
    subject: &'a Subject,
    sink: Arc<dyn Sink>,
}

impl Look<'_> {
    /// Looks until nothing differs, or what differs has stood still for the settle time.
    fn settled(
        &self,
        client: &mut Client,
        settle: Duration,
        limit: usize,
    ) -> anyhow::Result<Compared> {
        let began = Instant::now();
        let mut since: ByKey<(Unlike, Instant)> = BTreeMap::new();
        loop {
            let at = Instant::now();
            let (rows, unlike) = self.unlike(client)?;
            since = unlike
                .into_iter()
                .map(|(key, now)| {
                    let still = since.remove(&key).filter(|(before, _)| *before == now);
                    let first = still.map_or(at, |(_, first)| first);
                    (key, (now, first))
                })
                .collect();
            let is_still = |first: &Instant| at.duration_since(*first) >= settle;
            let all_still = since.values().all(|(_, first)| is_still(first));
            let over = at.duration_since(began) >= settle * SETTLE_TIMES_MAX;
            if all_still || over {
                let (still, changing): (ByKey<_>, ByKey<_>) = since
                    .into_iter()
                    .partition(|(_, (_, first))| is_still(first));
                return Ok(Compared {
                    view: self.subject.table.name.clone(),
                    key: self.key_names(),
                    rows,
                    found: self.described(&still, limit),
                    changing: changing.len() as u64,
                });
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// What differs now, and how many rows PostgreSQL answered.
    fn unlike(&self, client: &mut Client) -> anyhow::Result<(u64, ByKey<Unlike>)> {
        let Answer {
            count,
            rows: mut should,
            twice,
        } = self.answer(client)?;
        let mut is = self.table()?;
        let keys: BTreeSet<Vec<String>> = should.keys().chain(is.keys()).cloned().collect();
        let unlike = keys.into_iter().filter_map(|key| {
            let unlike = Unlike {
                is: is.remove(&key),
                should: should.remove(&key),
                twice: twice.contains(&key),
            };
            (!self.same(&unlike)).then_some((key, unlike))
        });
        Ok((count, unlike.collect()))
    }

    fn same(&self, unlike: &Unlike) -> bool {
        let (Some(is), Some(should)) = (&unlike.is, &unlike.should) else {
            return false;
        };
        let mut cells = self.subject.sameness.iter().zip(is.iter().zip(should));
        !unlike.twice
            && cells
                .all(|(sameness, (is, should))| sameness.holds(is.as_deref(), should.as_deref()))
    }

    fn answer(&self, client: &mut Client) -> anyhow::Result<Answer> {
        let name = &self.subject.table.name;
        let messages = client
            .simple_query(&self.subject.query)
            .with_context(|| format!("PostgreSQL refuses the SQL of view `{name}`"))?;
        let mut answer = Answer::default();
        for message in &messages {
            let SimpleQueryMessage::Row(row) = message else {
                continue;
            };
            let texts: Texts = (0..row.len())
                .map(|column| row.get(column).map(str::to_owned))
                .collect();
            answer.count += 1;
            let key = self.key(&texts);
            if answer.rows.insert(key.clone(), texts).is_some() {
                answer.twice.insert(key);
            }
        }
        Ok(answer)
    }

    /// What the view's table holds.
    fn table(&self) -> anyhow::Result<ByKey<Texts>> {
        let mut rows = ByKey::new();
        let mut failed = None;
        self.sink
            .scan(&self.subject.table, None, &mut |scanned: Scanned| {
                match texts(&scanned.rows) {
                    Ok(mut read) => {
                        for odd in scanned.odd {
                            let cell = read.get_mut(odd.row).and_then(|it| it.get_mut(odd.column));
                            if let Some(cell) = cell {
                                *cell = Some(odd.text);
                            }
                        }
                        rows.extend(read.into_iter().map(|texts| (self.key(&texts), texts)));
                    }
                    Err(error) => failed = Some(error),
                }
                Ok(())
            })?;
        failed.map_or(Ok(rows), Err)
    }

    fn key(&self, row: &Texts) -> Vec<String> {
        let columns = self.subject.table.primary_key.iter();
        let value = |column: &usize| {
            let value = row.get(*column)?.as_ref()?;
            Some(self.subject.sameness.get(*column)?.key(value))
        };
        columns
            .map(|column| value(column).unwrap_or_default())
            .collect()
    }

    fn key_names(&self) -> Vec<String> {
        let names = self.subject.table.key_names();
        names.map(str::to_owned).collect()
    }

    fn described(&self, unlike: &ByKey<(Unlike, Instant)>, limit: usize) -> Differences {
        let mut differences = Differences::default();
        for (key, (unlike, _)) in unlike {
            let what = match (&unlike.is, &unlike.should) {
                (None, _) => {
                    differences.missing += 1;
                    What::Missing
                }
                (_, None) => {
                    differences.extra += 1;
                    What::Extra
                }
                (Some(is), Some(should)) => {
                    differences.different += 1;
                    let mut cells = self.cells(is, should);
                    if unlike.twice {
                        cells.push(Cell {
                            column: "(the row)".to_owned(),
                            is: Some("one".to_owned()),
                            should_be: Some("several with this key".to_owned()),
                        });
                    }
                    What::Different(cells)
                }
            };
            if differences.first.len() < limit {
                let key = key.clone();
                differences.first.push(Difference { key, what });
            }
        }
        differences
    }

    fn cells(&self, is: &Texts, should: &Texts) -> Vec<Cell> {
        let fields = self.subject.table.schema.fields().iter();
        let columns = fields
            .zip(&self.subject.sameness)
            .zip(is.iter().zip(should));
        let unlike = columns.filter(|((_, sameness), (is, should))| {
            !sameness.holds(is.as_deref(), should.as_deref())
        });
        unlike
            .map(|((field, _), (is, should))| Cell {
                column: field.name().clone(),
                is: is.clone(),
                should_be: should.clone(),
            })
            .collect()
    }
}
