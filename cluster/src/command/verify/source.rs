//! The command `verify --from-source`: compares the tables of views with what PostgreSQL itself
//! answers to the views' SQL.
//!
//! In: the captured tables in PostgreSQL, and the views' tables in the sink. Out: the rows that
//! differ. No stage of the pipeline between the two is used, so an error in any stage is found.
//!
//! While the pipeline runs, a table always lags a little. Therefore both sides are read again and
//! again:
//!
//! 1. A row is different when the two sides had different rows for its key and both stood still for
//!    the whole settle time. A pipeline that lags for longer counts as different.
//! 2. A row that keeps changing on either side is reported as changing, and not as equal or
//!    different.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use postgres::{Client, SimpleQueryMessage};
use tidemill_config::connections::Connections;
use tidemill_dataflow::verify::{Cell, Difference, Differences, What};
use tidemill_ingest::config::Pipeline as Ingest;
use tidemill_ir::{Envelope, Job, View};
use tidemill_log::health::Health;
use tidemill_postgres::Server;
use tidemill_sinks::{Scanned, Sink, Table};

use super::answer::{Queries, Sameness, Texts, quote, texts};
use crate::terminal::views::table_of;

/// Time between two reads of both sides.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The comparison ends after so many settle times. Rows that still change are then reported as
/// changing.
const SETTLE_TIMES_MAX: u32 = 3;

/// A key whose rows differ: the row of each side, or `None` where the side has none.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Unlike {
    /// The row in the view's table.
    is: Option<Texts>,
    /// The row of PostgreSQL's answer.
    should: Option<Texts>,
    /// Several rows of PostgreSQL's answer have this key, which a table cannot represent.
    twice: bool,
}

/// Rows by the values of their primary key, as text.
type ByKey<T> = BTreeMap<Vec<String>, T>;

/// PostgreSQL's answer to a view's query.
#[derive(Default)]
struct Answer {
    /// Number of rows, including rows of equal keys.
    count: u64,
    /// The rows, by key.
    rows: ByKey<Texts>,
    /// Keys of more than one row.
    twice: BTreeSet<Vec<String>>,
}

/// The result for one view.
pub(super) struct Compared {
    /// The view's name.
    pub(super) view: String,
    /// Names of the primary key's columns.
    pub(super) key: Vec<String>,
    /// Number of rows of PostgreSQL's answer.
    pub(super) rows: u64,
    /// The rows that differ.
    pub(super) found: Differences,
    /// Number of rows that kept changing and could not be compared.
    pub(super) changing: u64,
}

/// One view: its query for PostgreSQL, and its table in the sink.
struct Subject {
    /// The table in the sink.
    table: Table,
    /// PostgreSQL's query, whose columns are all text.
    query: String,
    /// How each column is compared.
    sameness: Vec<Sameness>,
}

/// Compares the named views, or all views with a table if none is named.
///
/// # Errors
///
/// The pipeline does not land in PostgreSQL or has no `ingest.toml`, a topic is not filled by a
/// captured table, or a service does not answer.
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
    let Connections { sink, sinks, .. } = connections;
    let sink = tidemill_sinks::open_all(sink, sinks, job, &Health::default())?;
    let queries = Queries::new(source_tables(job, ingest)?, &job.views)?;
    let keeps_micros = |view: &View| {
        let named = view.output.as_ref().and_then(|output| output.sink.as_ref());
        let url = named.and_then(|name| connections.sinks.get(name));
        !url.unwrap_or(&connections.sink).starts_with("cassandra:")
    };
    let subjects = subjects(job, views, &queries, &keeps_micros)?;
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

/// The job's tables, each with the captured table that fills its topic, quoted for SQL.
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

/// The views to compare.
///
/// # Errors
///
/// A named view has no table, or a column cannot be compared.
fn subjects(
    job: &Job,
    named: &[String],
    queries: &Queries,
    keeps_micros: &dyn Fn(&View) -> bool,
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
                .map(|field| Sameness::of(field.data_type(), keeps_micros(view)))
                .collect(),
        })
    };
    wanted.map(subject).collect()
}

/// The comparison of one view.
struct Look<'a> {
    /// The view.
    subject: &'a Subject,
    /// Where its table is.
    sink: Arc<dyn Sink>,
}

impl Look<'_> {
    /// Reads both sides until nothing differs, or every difference stood still for the settle time,
    /// or [`SETTLE_TIMES_MAX`] settle times passed.
    ///
    /// # Errors
    /// PostgreSQL or the sink does not answer, or refuses the query.
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

    /// The differences of this moment, and the number of rows of PostgreSQL's answer.
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

    /// Whether the two rows of a key are equal.
    fn same(&self, unlike: &Unlike) -> bool {
        let (Some(is), Some(should)) = (&unlike.is, &unlike.should) else {
            return false;
        };
        let mut cells = self.subject.sameness.iter().zip(is.iter().zip(should));
        !unlike.twice
            && cells
                .all(|(sameness, (is, should))| sameness.holds(is.as_deref(), should.as_deref()))
    }

    /// Asks PostgreSQL for the view's rows.
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

    /// Reads the rows of the view's table.
    fn table(&self) -> anyhow::Result<ByKey<Texts>> {
        let mut rows = ByKey::new();
        let mut failed = None;
        self.sink
            .read_back()?
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

    /// The values of a row's primary key.
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

    /// The names of the primary key's columns.
    fn key_names(&self) -> Vec<String> {
        let names = self.subject.table.key_names();
        names.map(str::to_owned).collect()
    }

    /// Counts the differences and describes the first `limit`.
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

    /// The values that differ between two rows.
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
