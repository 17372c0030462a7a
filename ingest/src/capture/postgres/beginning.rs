//! Where a capture begins: with the stream, with a snapshot of all tables, or with one of those
//! tables that must be read anew before the stream goes on.
//!
//! Names and the noted progress flow in; the tables and the first phase flow out. A snapshot of
//! some tables is that of a temporary slot. The stream goes on from where it was, and what it sends
//! of these tables up to the temporary slot's beginning is passed over:
//!
//! ```text
//! main slot       S ─── a ── b ── a ── b ─── a ── b ──►     a is read anew, b goes on
//! temporary slot                   P: snapshot of a
//! handed out      snapshot of a, then from S: b, b, then from P on: a, b
//! ```

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use postgres::Client;
use tidemill_log::failpoint;

use super::super::all_fit;
use super::Phase;
use super::catalog::{self, Table};
use super::identity::{self, Noted, Published};
use super::lease::Lease;
use super::pgoutput::Relation;
use super::progress::{self, Resume};
use super::shape::Shape;
use super::snapshot::Snapshot;
use super::stream::{self, Lasting, Stream};
use super::timeline::Timeline;
use crate::server::Server;
use crate::{Error, Kind, Result};

/// How often tables are read of which one cannot be captured, and the pause in between.
const LOADS_MAX: u32 = 3;
const LOAD_PAUSE: Duration = Duration::from_millis(200);

/// A captured table.
pub(super) struct Followed {
    /// The name that it is captured by.
    pub(super) name: String,
    pub(super) table: Table,
    pub(super) noted: Noted,
    /// It is read anew, and not noted yet.
    pub(super) begins: bool,
    /// Why it is read anew, if it was captured before or others were.
    pub(super) why: Option<String>,
    /// What the stream said of its columns within transactions that the snapshot holds already.
    pub(super) earlier: Option<Relation>,
}

impl Followed {
    /// That it is read anew, and why.
    pub(super) fn noticed(&self) -> Option<String> {
        let why = self.why.as_ref()?;
        Some(format!("table `{}` is read anew: {why}", self.name))
    }

    /// Takes over what the stream said of the columns. The table keeps the name that it is captured
    /// by: another one for the same rows is a matter of [`identity`].
    pub(super) fn follow(&mut self, client: &mut Client) -> Result<()> {
        let Some(relation) = self.earlier.take() else {
            return Ok(());
        };
        let known = &self.table.schema;
        let relation = Relation {
            namespace: known.namespace.clone(),
            name: known.name.clone(),
            ..relation
        };
        self.table = catalog::of_relation(client, &relation, known)?;
        Ok(())
    }
}

/// Where a capture begins.
pub(super) struct Beginning {
    pub(super) tables: Vec<Followed>,
    pub(super) generation: i64,
    pub(super) phase: Phase,
    pub(super) from: u64,
    pub(super) confirmed: Option<u64>,
    pub(super) timeline: Timeline,
}

impl Beginning {
    pub(super) fn find(
        server: &Server,
        lease: &Lease,
        slot: &str,
        names: &[String],
        resnapshot: bool,
    ) -> Result<Self> {
        let mut noted = identity::noted(&mut lease.session(), slot)?;
        if resnapshot {
            noted.clear();
        }
        let tables = load(&mut lease.session(), names, &noted)?;
        let generation = progress::begin_generation(&mut lease.session(), slot)?;
        let mut tables = follow(&mut lease.session(), slot, tables, noted, resnapshot)?;
        let list: Vec<Table> = tables.iter().map(|it| it.table.clone()).collect();
        let published = progress::publish(&mut lease.session(), slot, &list)?;
        note_sent(&mut lease.session(), slot, &mut tables, &published)?;
        failpoint::hit(failpoint::CAPTURE_AFTER_PUBLICATION);
        let timeline = Timeline::find(server, &mut lease.session(), slot)?;
        let resume = match resnapshot {
            true => Resume::Snapshot,
            false => progress::resume(&mut lease.session(), slot, timeline)?,
        };
        lease.evict()?;
        let lasting = progress::lasting(&mut lease.session())?;
        if resume != Resume::Snapshot && lasting == Lasting::Failover {
            progress::fail_over(server, &mut lease.session(), slot)?;
        }
        let (phase, from, confirmed) = match resume {
            Resume::Stream(lsn) if tables.iter().any(|it| it.begins) => {
                let reader = format!("{}_new", slot.get(..59).unwrap_or(slot));
                let new = stream::create_slot(server, &reader, Lasting::Temporary)?;
                let snapshot = begin(server, lease, &new, &mut tables)?;
                let phase = Phase::Snapshot(Box::new(snapshot), new.consistent, lsn);
                (phase, lsn, Some(lsn))
            }
            Resume::Stream(lsn) => (
                Phase::Stream(Stream::open(server, slot, lsn)?),
                lsn,
                Some(lsn),
            ),
            Resume::Snapshot => {
                progress::restart(&mut lease.session(), slot, names)?;
                failpoint::hit(failpoint::CAPTURE_BEFORE_SLOT);
                tables.iter_mut().for_each(|table| table.begins = true);
                let new = stream::create_slot(server, slot, lasting)?;
                failpoint::hit(failpoint::CAPTURE_AFTER_SLOT);
                let snapshot = begin(server, lease, &new, &mut tables)?;
                let from = new.consistent;
                (Phase::Snapshot(Box::new(snapshot), from, from), from, None)
            }
        };
        Ok(Self {
            tables,
            generation,
            phase,
            from,
            confirmed,
            timeline,
        })
    }
}

/// The tables of these names. An error names all that cannot be captured; what is altered just then
/// is read again before.
pub(super) fn load(
    client: &mut Client,
    names: &[String],
    noted: &BTreeMap<String, Noted>,
) -> Result<Vec<(String, Table)>> {
    let mut tables = load_once(client, names, noted);
    for _again in 1..LOADS_MAX {
        if !matches!(&tables, Err(error) if error.kind() == Kind::Data) {
            break;
        }
        std::thread::sleep(LOAD_PAUSE);
        tables = load_once(client, names, noted);
    }
    tables
}

fn load_once(
    client: &mut Client,
    names: &[String],
    noted: &BTreeMap<String, Noted>,
) -> Result<Vec<(String, Table)>> {
    let loaded = names.iter().map(|name| {
        let table = catalog::load(client, name);
        let table = table.and_then(|now| match noted.get(name) {
            Some(noted) => identity::in_place(noted, name, now),
            None => Ok(now),
        });
        Ok((name.clone(), table?))
    });
    let tables = all_fit(loaded)?;
    let mut known: HashMap<u32, &str> = HashMap::new();
    for (name, table) in &tables {
        if let Some(other) = known.insert(table.oid, name) {
            let what = format!("tables `{other}` and `{name}` are one table; name it once");
            return Err(Error::new(Kind::Data, what));
        }
    }
    catalog::no_roots_with_parts(client, &tables)?;
    Ok(tables)
}

/// Notes how the publication sends the tables from now on.
fn note_sent(
    client: &mut Client,
    slot: &str,
    tables: &mut [Followed],
    published: &Published,
) -> Result<()> {
    for it in tables {
        let sent = published.tables.get(&it.table.oid).copied();
        if it.noted.shape.sent != sent {
            it.noted.shape.sent = sent;
            if !it.begins {
                identity::note(client, slot, &it.name, &it.noted)?;
            }
        }
    }
    Ok(())
}

/// Compares the tables with what was captured of them, and forgets those that must be read anew.
fn follow(
    client: &mut Client,
    slot: &str,
    tables: Vec<(String, Table)>,
    mut noted: BTreeMap<String, Noted>,
    resnapshot: bool,
) -> Result<Vec<Followed>> {
    if noted.is_empty() && !resnapshot {
        noted = identity::adopted(client, slot, &tables)?;
    }
    let any = !noted.is_empty();
    let published = match any {
        true => identity::same_publication(client, slot, noted.values())?,
        false => identity::published(client, slot)?.unwrap_or_default(),
    };
    let mut followed = Vec::new();
    for (name, table) in tables {
        let mut shape = Shape::read(client, &table)?;
        let why = match noted.get(&name) {
            None => Some("it was not captured before".to_owned()),
            Some(was) => identity::outdated(client, was, &shape, &published),
        };
        let noticed = why.clone().filter(|_| any);
        if let Some(why) = &noticed {
            tracing::warn!(table = name, why, "the table is read anew");
        }
        let was = noted.remove(&name);
        if let Some(was) = was.as_ref().filter(|_| why.is_none()) {
            shape.follows(&was.shape);
            shape.sent = was.shape.sent;
        }
        let from = was.map_or(0, |was| was.from);
        let new = Followed {
            begins: why.is_some(),
            name,
            table,
            noted: Noted { shape, from },
            why: noticed,
            earlier: None,
        };
        followed.push(new);
    }
    let kept = followed.iter().filter(|it| !it.begins);
    let kept: Vec<String> = kept.map(|it| it.name.clone()).collect();
    identity::keep(client, slot, &kept)?;
    for table in followed.iter().filter(|it| !it.begins) {
        identity::note(client, slot, &table.name, &table.noted)?;
    }
    Ok(followed)
}

/// Begins the snapshot of the tables that begin anew, unless one of them changed meanwhile.
fn begin(
    server: &Server,
    lease: &Lease,
    new: &stream::NewSlot,
    tables: &mut [Followed],
) -> Result<Snapshot> {
    let begins = tables.iter().filter(|it| it.begins);
    let begins = begins.map(|it| (it.table.clone(), it.noted.shape.clone()));
    let snapshot = Snapshot::begin(server.connect()?, new, begins.collect())?;
    for it in tables.iter_mut().filter(|it| it.begins) {
        it.noted.from = new.consistent;
        let mut now = Shape::read(&mut lease.session(), &it.table)?;
        now.sent = it.noted.shape.sent;
        if now != it.noted.shape {
            let what = format!("table `{}` changed while its snapshot began", it.name);
            return Err(Error::new(Kind::Retry, what));
        }
    }
    Ok(snapshot)
}
