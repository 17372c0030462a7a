//! Frontier rows: how far each view is filled, and who may write it.
//!
//! One row for each job and view. It is locked by every transaction that writes rows of the view,
//! and names the generation that wrote last, and the incarnation of the table: a number that no
//! other row ever had. A process whose table was dropped and created again finds another one.

use std::collections::{BTreeMap, BTreeSet};

use tidemill_ir::Epoch;
use tidemill_log::{Error, Kind, Result, failpoint};
use tidemill_postgres::failed;

use super::super::contract::{Frontier, Table};
use super::super::existing::{frontier_of, quoted};
use super::statement::Session;
use super::table;

/// The name of the frontier table.
pub(super) const FRONTIERS: &str = "tidemill_frontiers";
/// The frontier table.
const CREATE: &str = "
    CREATE TABLE IF NOT EXISTS tidemill_frontiers(
        job text NOT NULL, view text NOT NULL, epoch bigint, fingerprint text NOT NULL,
        generation bigint, incarnation bigint GENERATED ALWAYS AS IDENTITY,
        PRIMARY KEY (job, view))";
/// Key of the advisory lock for creating tables: two at the same time can fail.
const CREATE_LOCK: i64 = 0x7469_6465_7369_6e6b;

/// The frontier row of a view, while it is locked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Locked {
    /// The last epoch whose rows are in the table.
    pub(super) epoch: Option<Epoch>,
    /// The fingerprint of the view that fills the table.
    fingerprint: u64,
    /// The generation that wrote last; `None` before the first write.
    generation: Option<i64>,
    /// The number of this row.
    incarnation: i64,
}

/// What a process expects of a frontier row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Claim {
    /// The fingerprint of the view.
    pub(super) fingerprint: u64,
    /// The number of the row that this process prepared.
    pub(super) incarnation: i64,
}

impl Locked {
    /// Refuses a process that is no longer the writer of the view. `generation` is that of the
    /// process; 0 if it has none.
    ///
    /// # Errors
    /// `Fence`, naming the view.
    pub(super) fn permit(&self, view: &str, claim: Claim, generation: u64) -> Result<()> {
        let why = if self.incarnation != claim.incarnation || self.fingerprint != claim.fingerprint
        {
            "was made anew by another process of the job".to_owned()
        } else {
            match self.generation {
                Some(last) if generation > 0 && i128::from(last) > i128::from(generation) => {
                    format!("is written by generation {last}, and this is generation {generation}")
                }
                _ => return Ok(()),
            }
        };
        Err(Error::new(Kind::Fence, format!("table `{view}` {why}")))
    }
}

/// Creates the table of a view and its frontier row, if they are missing, within a transaction.
/// Returns the frontier, `None` if the row is new, and the claim of this process.
///
/// # Errors
/// `Data` when the table is not what the view needs; `Retry` when the server is away.
pub(super) fn prepare(
    session: &mut Session,
    job: &str,
    view: &Table,
) -> Result<(Option<Frontier>, Claim)> {
    table::ensure(session, view)?;
    failpoint::hit(failpoint::SINK_BEFORE_FRONTIER_ROW);
    let doing = "the frontier of a view";
    let unreadable = |error| failed(doing, error);
    let select = "SELECT epoch, fingerprint, incarnation FROM tidemill_frontiers
                  WHERE job = $1 AND view = $2";
    let known = session.rows(doing, select, &[&job, &view.name])?;
    if let Some(row) = known.first() {
        let print: String = row.try_get(1).map_err(unreadable)?;
        let frontier = frontier_of(row.try_get(0).map_err(unreadable)?, &print)?;
        let claim = Claim {
            fingerprint: view.fingerprint,
            incarnation: row.try_get(2).map_err(unreadable)?,
        };
        return Ok((Some(frontier), claim));
    }
    let insert = "INSERT INTO tidemill_frontiers(job, view, fingerprint) VALUES ($1, $2, $3)
                  RETURNING incarnation";
    let made = session.rows(doing, insert, &[&job, &view.name, &fingerprint(view)])?;
    let row = made
        .first()
        .ok_or_else(|| Error::new(Kind::Bug, "no row was inserted"))?;
    let claim = Claim {
        fingerprint: view.fingerprint,
        incarnation: row.try_get(0).map_err(unreadable)?,
    };
    Ok((None, claim))
}

/// Creates the frontier table if it is missing, and keeps others from creating tables until the
/// transaction ends.
///
/// # Errors
/// `Retry` when the server is away, otherwise `Data`.
pub(super) fn begin(session: &mut Session) -> Result<()> {
    let lock = format!("SELECT pg_advisory_xact_lock({CREATE_LOCK})");
    session.batch("locking the frontiers", &lock)?;
    // Asked first: creating needs a right that a user of existing tables may lack.
    if !table::is_there(session, FRONTIERS)? {
        session.batch("creating the table of frontiers", CREATE)?;
    }
    Ok(())
}

/// Locks the frontier rows of views, in the order of their names, until the transaction ends.
///
/// # Errors
/// `Retry` when the server is away; `Data` when a row is damaged.
pub(super) fn lock(
    session: &mut Session,
    job: &str,
    views: &[&str],
) -> Result<BTreeMap<String, Locked>> {
    let doing = "locking the frontiers of views";
    let unreadable = |error| failed(doing, error);
    let sql = "SELECT view, epoch, fingerprint, generation, incarnation FROM tidemill_frontiers
               WHERE job = $1 AND view = ANY($2) ORDER BY view FOR UPDATE";
    let rows = session.rows(doing, sql, &[&job, &views])?;
    let rows = rows.into_iter().map(|row| {
        let print: String = row.try_get(2).map_err(unreadable)?;
        let known = frontier_of(row.try_get(1).map_err(unreadable)?, &print)?;
        let locked = Locked {
            epoch: known.epoch,
            fingerprint: known.fingerprint,
            generation: row.try_get(3).map_err(unreadable)?,
            incarnation: row.try_get(4).map_err(unreadable)?,
        };
        Ok((row.try_get(0).map_err(unreadable)?, locked))
    });
    rows.collect()
}

/// Moves the frontiers of views that are locked. A frontier never moves back.
///
/// # Errors
/// `Retry` when the server is away; `Bug` when an epoch is out of range.
pub(super) fn advance(
    session: &mut Session,
    job: &str,
    moves: &BTreeMap<&str, Epoch>,
    generation: u64,
) -> Result<()> {
    let views: Vec<&str> = moves.keys().copied().collect();
    let range = |number: u64| {
        i64::try_from(number)
            .map_err(|e| Error::with_source(Kind::Bug, format!("{number} is out of range"), e))
    };
    let epochs: Vec<i64> = moves.values().map(|e| range(*e)).collect::<Result<_>>()?;
    let generation = (generation > 0).then(|| range(generation)).transpose()?;
    let sql = "UPDATE tidemill_frontiers f
               SET epoch = greatest(f.epoch, m.epoch), generation = coalesce($4, f.generation)
               FROM unnest($2::text[], $3::bigint[]) m(view, epoch)
               WHERE f.job = $1 AND f.view = m.view";
    let moved = session.execute(sql, &[&job, &views, &epochs, &generation]);
    moved.map_err(|error| failed("moving the frontiers of views", error))?;
    Ok(())
}

/// See [`super::super::Sink::frontiers`].
///
/// # Errors
/// `Retry` when the server is away; `Data` when a row is damaged.
pub(super) fn of_job(session: &mut Session, job: &str) -> Result<BTreeMap<String, Frontier>> {
    let doing = "reading the frontiers";
    if !table::is_there(session, FRONTIERS)? {
        return Ok(BTreeMap::new());
    }
    let unreadable = |error| failed(doing, error);
    let sql = "SELECT view, epoch, fingerprint FROM tidemill_frontiers WHERE job = $1";
    let rows = session.rows(doing, sql, &[&job])?.into_iter().map(|row| {
        let print: String = row.try_get(2).map_err(unreadable)?;
        let frontier = frontier_of(row.try_get(1).map_err(unreadable)?, &print)?;
        Ok((row.try_get(0).map_err(unreadable)?, frontier))
    });
    rows.collect()
}

/// See [`super::super::Sink::filled_by`].
///
/// # Errors
/// `Retry` when the server is away, otherwise `Data`.
pub(super) fn filled_by(session: &mut Session) -> Result<BTreeMap<String, BTreeSet<String>>> {
    let doing = "reading the frontiers";
    let mut filled = BTreeMap::<String, BTreeSet<String>>::new();
    if !table::is_there(session, FRONTIERS)? {
        return Ok(filled);
    }
    let unreadable = |error| failed(doing, error);
    for row in session.rows(doing, "SELECT view, job FROM tidemill_frontiers", &[])? {
        let view = row.try_get(0).map_err(unreadable)?;
        let jobs = filled.entry(view).or_default();
        jobs.insert(row.try_get(1).map_err(unreadable)?);
    }
    Ok(filled)
}

/// Drops a view's table with its frontier row, in one transaction.
///
/// # Errors
/// `Retry` when the server is away; `Data` when it refuses, as for a table that others depend on.
pub(super) fn drop_view(session: &mut Session, job: &str, view: &str) -> Result<()> {
    let doing = format!("dropping table `{view}`");
    session.transaction(&doing, |session| {
        begin(session)?;
        // The row is locked first, as by those that write.
        lock(session, job, &[view])?;
        session.batch(&doing, &format!("DROP TABLE IF EXISTS {}", quoted(view)))?;
        failpoint::hit(failpoint::SINK_BETWEEN_DROPS);
        let sql = "DELETE FROM tidemill_frontiers WHERE job = $1 AND view = $2";
        let deleted = session.execute(sql, &[&job, &view]);
        deleted.map_err(|error| failed(&doing, error))?;
        Ok(())
    })
}

/// The fingerprint in its stored form: 16 hexadecimal digits.
fn fingerprint(table: &Table) -> String {
    format!("{:016x}", table.fingerprint)
}
