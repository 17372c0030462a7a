//! Where a capture begins: at the stream, at a snapshot of all tables, or at a snapshot of some
//! tables.
//!
//! In: table names and the recorded progress. Out: the tables and the first phase. A snapshot of
//! all tables belongs to a new main slot. A snapshot of some tables (new ones, and those that must
//! be read again) belongs to a temporary slot; then the stream of the main slot continues where it
//! was, and its changes of these tables before the snapshot are skipped:
//!
//! ```text
//! main slot       S ─── a ── b ── a ── b ─── a ── b ──►     a is read again, b continues
//! temporary slot                   P: snapshot of a
//! returned        snapshot of a, then from S: b, b, then from P on: a, b
//! ```
//!
//! The steps, each of which a crash may interrupt:
//!
//! ```text
//! recorded shapes ─► load tables ─► next generation ─► forget outdated shapes ─► set publication
//!   ─► timeline ─► resume? ── stream ─────────────────────────────────────────► open stream
//!                         └── snapshot ─► drop slot ─► create slot ─► export ─► read snapshot
//! ```

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use postgres::Client;
use tidemill_log::failpoint;

use super::super::collect_fit;
use super::catalog::Table;
use super::identity::{Noted, Published};
use super::lease::Lease;
use super::pgoutput::Relation;
use super::progress::Resume;
use super::snapshot::Snapshot;
use super::stream::{SlotKind, Stream};
use super::{Phase, catalog, identity, progress, stream};
use crate::capture::postgres::catalog::shape::Shape;
use crate::capture::postgres::stream::timeline::Timeline;
use crate::{Error, Kind, Result};
use tidemill_postgres::Server;

/// How often the catalog is read before a table counts as unfit for capture.
const LOADS_MAX: u32 = 3;
/// Pause between two reads of the catalog.
const LOAD_PAUSE: Duration = Duration::from_millis(200);

/// A captured table and its state.
pub(super) struct CapturedTable {
    /// The name by which the pipeline captures it.
    pub(super) name: String,
    /// OID, columns and key.
    pub(super) table: Table,
    /// The shape under which it is captured.
    pub(super) noted: Noted,
    /// Whether its snapshot is being read and not recorded as durable yet.
    pub(super) begins: bool,
    /// Why it is read as a snapshot, if this capture or this table was captured before.
    pub(super) why: Option<String>,
    /// Columns that the stream sent in transactions which the snapshot holds already.
    pub(super) earlier: Option<Relation>,
}

impl CapturedTable {
    /// The line for the statistics when the table is read again.
    pub(super) fn noticed(&self) -> Option<String> {
        let why = self.why.as_ref()?;
        Some(format!("table `{}` is read anew: {why}", self.name))
    }

    /// Takes over the columns that the stream sent. The table keeps its name: whether another name
    /// stands for the same rows is decided by [`identity`].
    pub(super) fn apply_columns(&mut self, client: &mut Client) -> Result<()> {
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
    /// The captured tables.
    pub(super) tables: Vec<CapturedTable>,
    /// The generation that this start began.
    pub(super) generation: i64,
    /// Snapshot or stream.
    pub(super) phase: Phase,
    /// LSN from which the stream continues.
    pub(super) from: u64,
    /// The recorded progress; `None` before a snapshot of all tables is durable.
    pub(super) confirmed: Option<u64>,
    /// The server's timeline.
    pub(super) timeline: Timeline,
}

impl Beginning {
    /// Decides where the capture begins, and prepares it: publication, slot, snapshot. With
    /// `resnapshot` all tables are read again.
    ///
    /// # Errors
    /// `Data` when a table or the server cannot be captured, or changes are lost; `Retry` when the
    /// server cannot be reached, or a table changed while its snapshot began.
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
        let mut tables =
            compare_with_records(&mut lease.session(), slot, tables, noted, resnapshot)?;
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
        let kind = progress::slot_kind(&mut lease.session())?;
        if resume != Resume::Snapshot && kind == SlotKind::Failover {
            progress::fail_over(server, &mut lease.session(), slot)?;
        }
        let (phase, from, confirmed) = match resume {
            Resume::Stream(lsn) if tables.iter().any(|it| it.begins) => {
                let reader = format!("{}_new", slot.get(..59).unwrap_or(slot));
                let new = stream::create_slot(server, &reader, SlotKind::Temporary)?;
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
                let new = stream::create_slot(server, slot, kind)?;
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

/// Loads the tables of these names from the catalog. A table that is just being altered is read
/// again.
///
/// # Errors
/// `Data` with all tables that cannot be captured.
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

/// Loads the tables, once.
fn load_once(
    client: &mut Client,
    names: &[String],
    noted: &BTreeMap<String, Noted>,
) -> Result<Vec<(String, Table)>> {
    let loaded = names.iter().map(|name| {
        let table = catalog::load(client, name);
        let table = table.and_then(|now| match noted.get(name) {
            Some(noted) => identity::refuse_moved(noted, name, now),
            None => Ok(now),
        });
        Ok((name.clone(), table?))
    });
    let tables = collect_fit(loaded)?;
    let mut known: HashMap<u32, &str> = HashMap::new();
    for (name, table) in &tables {
        if let Some(other) = known.insert(table.oid, name) {
            let what = format!("tables `{other}` and `{name}` are one table; name it once");
            return Err(Error::new(Kind::Data, what));
        }
    }
    catalog::refuse_partition_beside_root(client, &tables)?;
    Ok(tables)
}

/// Records how the publication sends the tables from now on.
fn note_sent(
    client: &mut Client,
    slot: &str,
    tables: &mut [CapturedTable],
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

/// Compares the tables with their recorded shapes, and forgets the shapes of those that must be
/// read again.
fn compare_with_records(
    client: &mut Client,
    slot: &str,
    tables: Vec<(String, Table)>,
    mut noted: BTreeMap<String, Noted>,
    resnapshot: bool,
) -> Result<Vec<CapturedTable>> {
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
        let new = CapturedTable {
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

/// Begins the snapshot of the tables that are read again. An error of kind `Retry` when one of them
/// changed meanwhile.
fn begin(
    server: &Server,
    lease: &Lease,
    new: &stream::NewSlot,
    tables: &mut [CapturedTable],
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
