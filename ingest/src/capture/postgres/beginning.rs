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

use postgres::Client;
use tidemill_log::failpoint;

use super::Phase;
use super::catalog::{self, Table};
use super::identity::{self, Noted, Shape};
use super::lease::Lease;
use super::pgoutput::Relation;
use super::progress::{self, Resume};
use super::snapshot::Snapshot;
use super::stream::{self, Stream};
use crate::server::Server;
use crate::{Error, Kind, Result};

/// A captured table.
pub(super) struct Followed {
    /// The name that it is captured by.
    pub(super) name: String,
    pub(super) table: Table,
    pub(super) noted: Noted,
    /// It is read anew, and not noted yet.
    pub(super) begins: bool,
    /// What the stream said of its columns within transactions that the snapshot holds already.
    pub(super) earlier: Option<Relation>,
}

impl Followed {
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
}

impl Beginning {
    pub(super) fn find(
        server: &Server,
        lease: &Lease,
        slot: &str,
        names: &[String],
        resnapshot: bool,
    ) -> Result<Self> {
        let tables = load(&mut lease.session(), names)?;
        let generation = progress::begin_generation(&mut lease.session(), slot)?;
        let mut tables = follow(&mut lease.session(), slot, tables, resnapshot)?;
        let list: Vec<Table> = tables.iter().map(|it| it.table.clone()).collect();
        progress::publish(&mut lease.session(), slot, &list)?;
        failpoint::hit(failpoint::CAPTURE_AFTER_PUBLICATION);
        let resume = match resnapshot {
            true => Resume::Snapshot,
            false => progress::resume(&mut lease.session(), slot)?,
        };
        lease.evict()?;
        let (phase, from, confirmed) = match resume {
            Resume::Stream(lsn) if tables.iter().any(|it| it.begins) => {
                let reader = format!("{}_new", slot.get(..59).unwrap_or(slot));
                let new = stream::create_slot(server, &reader, true)?;
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
                let new = stream::create_slot(server, slot, false)?;
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
        })
    }
}

/// The tables of these names.
fn load(client: &mut Client, names: &[String]) -> Result<Vec<(String, Table)>> {
    let tables = names.iter();
    tables
        .map(|name| Ok((name.clone(), catalog::load(client, name)?)))
        .collect()
}

/// Compares the tables with what was captured of them, and forgets those that must be read anew.
fn follow(
    client: &mut Client,
    slot: &str,
    tables: Vec<(String, Table)>,
    resnapshot: bool,
) -> Result<Vec<Followed>> {
    let mut noted = identity::noted(client, slot, &tables)?;
    let published = identity::published(client, slot)?;
    if published.is_none() && !noted.is_empty() && !resnapshot {
        return Err(identity::unpublished(slot));
    }
    let published = published.unwrap_or_default();
    let any = !noted.is_empty();
    let mut followed = Vec::new();
    for (name, table) in tables {
        let shape = Shape::read(client, &table)?;
        let why = match noted.get(&name) {
            None => Some("it was not captured before".to_owned()),
            Some(was) => identity::outdated(client, was, &shape, &published),
        };
        if let Some(why) = why.as_ref().filter(|_| any) {
            tracing::warn!(table = name, why, "the table is read anew");
        }
        let from = noted.remove(&name).map_or(0, |was| was.from);
        let new = Followed {
            begins: why.is_some(),
            name,
            table,
            noted: Noted { shape, from },
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
        let mut session = lease.session();
        if Shape::read(&mut session, &it.table)? != it.noted.shape {
            let what = format!("table `{}` changed while its snapshot began", it.name);
            return Err(Error::new(Kind::Retry, what));
        }
    }
    Ok(snapshot)
}
