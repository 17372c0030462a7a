//! Capture from PostgreSQL: a snapshot, then logical replication (pgoutput).
//!
//! In: a URL and table names. Out: [`Captured`]. The parts: [`lease`] decides which process may
//! capture, [`progress`] how a capture resumes, [`beginning`] where it begins, [`snapshot`] reads
//! the existing rows, [`stream`] is the replication connection, [`pgoutput`] decodes it,
//! [`catalog`] loads the tables, [`identity`] compares them with their recorded [`catalog::shape`],
//! and [`catalog::altered`] finds new columns. This module makes one sequence of positions out of
//! them.
//!
//! ```text
//!            commit LSN 100 (3 changes)            commit LSN 180
//! stream ─► Begin · Insert · Update · Delete · Commit · Begin · …
//! position        (100,0)  (100,2)  (100,4)                (180,0)
//! acknowledge(100,4) ─► durable = end LSN of 100 ─► `confirmed` recorded ─► slot told
//! ```
//!
//! Invariants:
//! 1. The position of a change is the commit LSN of its transaction, and twice its number among all
//!    changes that the server sends of the transaction: captured, refused or skipped. So the
//!    position is the same each time the transaction is sent, also if other tables are captured by
//!    then.
//! 2. A change is passed on only by the process that holds the lease, which is checked before each
//!    batch: a process that was frozen meanwhile does not hold it.
//! 3. The slot is told only of transactions whose last change is acknowledged. While nothing is
//!    unacknowledged, keepalives advance it too, so that idle tables retain no WAL.

mod advice;
mod beginning;
mod catalog;
mod identity;
mod image;
mod lease;
mod pgoutput;
mod progress;
mod snapshot;
mod stream;
mod values;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use beginning::{Beginning, CapturedTable};
use catalog::altered::Altered;
use catalog::shape::Shape;
use pgoutput::{Message, Old, Relation, Tuple};
use postgres::error::SqlState;
use progress::Resume;
use snapshot::Snapshot;
use stream::timeline::Timeline;
use stream::{Event, Stream};
use tidemill_log::backoff::Backoff;
use tidemill_log::envelope::event::{Change, Op, Position};
use tidemill_log::failpoint;
use tidemill_log::log::Described;
use tidemill_log::schema::TableSchema;

use super::{BATCH, Capture, Captured, Generated, TABLES_PATIENCE, another_topic, collect_fit};
use crate::{Error, Kind, Result};
use tidemill_postgres::{Server, passes};

pub(super) use lease::{Lease, holder};

/// Shortest interval between two records of the progress.
const CONFIRM_INTERVAL: Duration = Duration::from_secs(1);
/// Interval between two checks whether someone waits for the progress.
const ASKED_LOOK: Duration = Duration::from_millis(50);
/// Bytes of WAL of other tables after which an idle slot is advanced.
const IDLE_WAL: u64 = 64 * 1024;
/// Interval between two comparisons of the tables with the catalog.
const TABLES_LOOK: Duration = Duration::from_secs(2);
/// Longest pause between two attempts to reach the server.
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// The pauses between attempts to reach PostgreSQL again.
const RECONNECT: Backoff = Backoff::new(Duration::from_millis(50), BACKOFF_MAX);

/// A capture of some tables of a PostgreSQL database.
pub(super) struct PostgresCapture {
    /// All servers in the URL.
    servers: Server,
    /// The primary among them, which is captured.
    server: Server,
    /// Its timeline at the start.
    timeline: Timeline,
    /// The name of slot and publication.
    slot: String,
    /// The right to capture, and the session that records the progress.
    lease: Lease,
    /// The number of this start, to notice that another process captured meanwhile.
    generation: i64,
    /// Whether the capture began with a snapshot of all tables.
    begins_anew: bool,
    /// The captured tables by OID.
    tables: HashMap<u32, CapturedTable>,
    /// When the tables were last compared with the catalog.
    looked_at: Option<Instant>,
    /// Finds new columns without changes.
    altered: Altered,
    /// Since when a table is missing or unfit for capture.
    unfit_since: Option<Instant>,
    /// Lines for [`Capture::noticed`].
    noticed: Vec<String>,
    /// What is read at the moment.
    phase: Phase,
    /// The transaction that the stream is in.
    transaction: Option<Transaction>,
    /// Unacknowledged transactions: the position of the last change, and the end LSN.
    pending: VecDeque<(Position, u64)>,
    /// The last acknowledged position.
    acknowledged: Position,
    /// Everything before this LSN was received.
    received: u64,
    /// Everything before this LSN was acknowledged.
    durable: u64,
    /// Everything before this LSN is recorded as acknowledged; `None` before the snapshot is
    /// durable.
    confirmed: Option<u64>,
    /// When the progress was last recorded.
    confirmed_at: Instant,
    /// Whether changes were acknowledged since then.
    moved: bool,
    /// LSN through which someone waits for the progress.
    asked: u64,
    /// When that was last checked.
    asked_at: Instant,
}

/// What the capture reads at the moment.
enum Phase {
    /// The snapshot, the LSN at which it was taken, and the LSN from which the stream continues.
    Snapshot(Box<Snapshot>, u64, u64),
    /// The stream.
    Stream(Stream),
    /// Nothing: the server cannot be reached.
    Unreachable {
        /// The pauses between the attempts.
        backoff: Backoff,
        /// Time of the next attempt.
        again: Instant,
        /// The error.
        why: String,
    },
}

/// The transaction that is being received.
struct Transaction {
    /// Its id (`xid`).
    xid: u32,
    /// Its commit time in microseconds since 1970.
    committed_us: i64,
    /// The position of the next change.
    next: Position,
    /// The position of the last change that was returned.
    last: Option<Position>,
}

/// Positions that each change takes: an update of the primary key becomes two changes.
const POSITIONS_PER_CHANGE: u64 = 2;

impl PostgresCapture {
    /// See [`super::open`].
    pub(super) fn open(url: &str, names: &[String], name: &str, resnapshot: bool) -> Result<Self> {
        let mut servers = Server::parse(url)?;
        servers.session("tidemill", stream::SESSION);
        let slot = slot_name(name)?;
        let server = servers.primary()?;
        let lease = Lease::take(&server, &slot)?;
        let beginning = Beginning::find(&server, &lease, &slot, names, resnapshot);
        let Beginning {
            tables,
            generation,
            phase,
            from,
            confirmed,
            timeline,
        } = lease.retry_if_lost(beginning)?;
        Ok(Self {
            servers,
            server,
            timeline,
            slot,
            lease,
            generation,
            begins_anew: confirmed.is_none(),
            noticed: tables.iter().filter_map(CapturedTable::noticed).collect(),
            tables: tables.into_iter().map(|it| (it.table.oid, it)).collect(),
            looked_at: None,
            altered: Altered::default(),
            unfit_since: None,
            phase,
            transaction: None,
            pending: VecDeque::new(),
            acknowledged: Position::default(),
            received: from,
            durable: from,
            confirmed,
            confirmed_at: Instant::now(),
            moved: false,
            asked: 0,
            asked_at: Instant::now(),
        })
    }

    /// One attempt to reach the server again.
    fn reconnect(&mut self) -> Result<()> {
        // Often only the replication connection is lost, as when the slot was invalidated.
        if self.lease.is_lost() || self.lease.check().is_err() {
            self.server = self.servers.primary()?;
            self.lease = Lease::take(&self.server, &self.slot)?;
        }
        let timeline = crate::capture::postgres::stream::timeline::now(&mut self.lease.session())?;
        if timeline != self.timeline.now {
            // The topics must be compared with the beginning of the new timeline.
            let what = format!("the server is on timeline {timeline}: a standby was promoted");
            return Err(Error::new(Kind::Fence, what));
        }
        let generation = progress::generation(&mut self.lease.session(), &self.slot)?;
        if generation != self.generation {
            let what = format!(
                "another process captured with slot `{}` meanwhile",
                self.slot
            );
            return Err(Error::new(Kind::Fence, what));
        }
        let resume = progress::resume(&mut self.lease.session(), &self.slot, self.timeline)?;
        if resume == Resume::Snapshot {
            let what = format!("the snapshot of slot `{}` was not finished", self.slot);
            return Err(Error::new(Kind::Fence, what));
        }
        let noted = self.tables.values().map(|it| &it.noted);
        identity::same_publication(&mut self.lease.session(), &self.slot, noted)?;
        // The new stream tells the server its position at once, so that must be recorded before.
        self.write_down()?;
        self.lease.evict()?;
        let stream = Stream::open(&self.server, &self.slot, self.durable)?;
        tracing::info!(slot = %self.slot, "capture is connected again");
        self.phase = Phase::Stream(stream);
        self.pending.clear();
        self.altered.forget();
        self.transaction = None;
        self.received = self.durable;
        Ok(())
    }

    /// Waits for the next attempt and makes it.
    fn wait_and_reconnect(
        &mut self,
        wait: Duration,
        backoff: Backoff,
        again: Instant,
    ) -> Result<()> {
        let left = again.saturating_duration_since(Instant::now());
        std::thread::sleep(left.min(wait));
        if left > wait {
            return Ok(());
        }
        match self.reconnect() {
            Err(error) if error.kind() == Kind::Retry => {
                tracing::debug!(%error, "PostgreSQL is still away");
                self.phase = away(backoff, &error);
                Ok(())
            }
            // Another process used the slot, or the server is another one: a new capture finds out
            // where to continue.
            Err(error) if error.kind() == Kind::Fence => {
                Err(Error::new(Kind::Retry, error.to_string()))
            }
            other => other,
        }
    }

    /// Reads the next batch; see [`Capture::next`].
    fn read(&mut self, wait: Duration) -> Result<Vec<Captured>> {
        if self.lease.is_lost() && matches!(self.phase, Phase::Stream(_)) {
            self.phase = away(RECONNECT, &"the session is lost");
        }
        match &mut self.phase {
            Phase::Unreachable { backoff, again, .. } => {
                let (backoff, again) = (backoff.clone(), *again);
                self.wait_and_reconnect(wait, backoff, again)?;
                Ok(Vec::new())
            }
            Phase::Snapshot(snapshot, consistent, next) => {
                let batch = snapshot.next()?;
                if batch.is_empty() {
                    let (last, consistent, next) = (snapshot.last(), *consistent, *next);
                    self.end_snapshot(last, consistent, next, wait)?;
                }
                Ok(batch)
            }
            Phase::Stream(_) => {
                self.check_tables()?;
                let batch = self.read_stream(wait)?;
                self.advance()?;
                Ok(batch)
            }
        }
    }

    /// Continues with the stream after a snapshot.
    fn end_snapshot(
        &mut self,
        last: Position,
        consistent: u64,
        next: u64,
        wait: Duration,
    ) -> Result<()> {
        if self.confirmed.is_none() {
            self.pending.push_back((last, consistent));
        } else if self.acknowledged < last {
            // Only some tables were read, and the stream continues at an earlier LSN: wait until
            // the snapshot is acknowledged.
            std::thread::sleep(wait);
            return Ok(());
        } else {
            self.note_tables()?;
            self.acknowledged = Position::default();
        }
        let stream = Stream::open(&self.server, &self.slot, next)?;
        self.phase = Phase::Stream(stream);
        self.advance()
    }

    /// Records the tables whose snapshot is durable.
    fn note_tables(&mut self) -> Result<()> {
        for table in self.tables.values_mut().filter(|table| table.begins) {
            let mut session = self.lease.session();
            identity::note(&mut session, &self.slot, &table.name, &table.noted)?;
            table.begins = false;
        }
        let names: Vec<String> = self.tables.values().map(|it| it.name.clone()).collect();
        identity::keep(&mut self.lease.session(), &self.slot, &names)
    }

    /// Compares the tables with the catalog at intervals.
    ///
    /// # Errors
    /// `Retry` when a table must be read again, which the next capture does; `Data` when a table is
    /// unfit for longer than 10 s.
    fn check_tables(&mut self) -> Result<()> {
        let recently = |at: Instant| at.elapsed() < TABLES_LOOK;
        if self.looked_at.is_some_and(recently) || self.confirmed.is_none() {
            return Ok(());
        }
        self.looked_at = Some(Instant::now());
        let looked = self.compare();
        match looked {
            Err(error) if error.kind() == Kind::Data => {
                let since = *self.unfit_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= TABLES_PATIENCE {
                    return Err(error);
                }
                tracing::warn!(%error, "a table cannot be captured now");
                self.noticed
                    .push(format!("cannot be captured now: {error}"));
                Ok(())
            }
            // The server cannot be reached, which the stream reports too.
            Err(error) if error.kind() == Kind::Retry => Ok(()),
            Err(error) => Err(error),
            Ok(Some(what)) => Err(Error::new(Kind::Retry, what)),
            Ok(None) => {
                self.unfit_since = None;
                Ok(())
            }
        }
    }

    /// Which tables must be read again, and why.
    fn compare(&mut self) -> Result<Option<String>> {
        let session = &mut self.lease.session();
        let noted = self.tables.values().map(|it| &it.noted);
        let published = identity::same_publication(session, &self.slot, noted)?;
        let tables = self.tables.values_mut();
        let loaded = tables.map(|it| {
            let table = catalog::load(session, &it.name);
            let table = table.and_then(|now| identity::refuse_moved(&it.noted, &it.name, now));
            Ok((it, table?))
        });
        let (mut outdated, mut seen) = (Vec::new(), Vec::new());
        for (it, table) in collect_fit(loaded)? {
            let mut now = Shape::read(session, &table)?;
            if let Some(why) = identity::outdated(session, &it.noted, &now, &published) {
                outdated.push(format!("table `{}` is read anew: {why}", it.name));
                continue;
            }
            now.follows(&it.noted.shape);
            now.sent = published.tables.get(&table.oid).copied();
            if it.noted.shape != now {
                it.noted.shape = now;
                identity::note(session, &self.slot, &it.name, &it.noted)?;
            }
            seen.push((table.oid, table.schema));
        }
        self.altered.seen(seen, || catalog::wal_end(session))?;
        Ok((!outdated.is_empty()).then(|| outdated.join("; ")))
    }

    /// Reads the stream: waits for the first change, then takes what has arrived.
    fn read_stream(&mut self, wait: Duration) -> Result<Vec<Captured>> {
        let mut out = Vec::new();
        let deadline = Instant::now() + wait;
        while out.len() < BATCH {
            let Phase::Stream(stream) = &mut self.phase else {
                break;
            };
            let wait = match out.is_empty() {
                true => deadline.saturating_duration_since(Instant::now()),
                false => Duration::ZERO,
            };
            match stream.next(wait) {
                Ok(None) => break,
                Ok(Some(Event::Through(lsn))) => {
                    if self.transaction.is_none() {
                        self.received = self.received.max(lsn);
                    }
                    self.advance_idle();
                }
                Ok(Some(Event::Message(message))) => self.apply(message, &mut out)?,
                Err(error) if error.kind() == Kind::Retry => {
                    tracing::warn!(%error, "PostgreSQL is away; trying again");
                    self.phase = away(RECONNECT, &error);
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(out)
    }

    /// Advances over the transactions that are acknowledged.
    fn advance(&mut self) -> Result<()> {
        while let Some(&(last, end)) = self.pending.front()
            && last <= self.acknowledged
        {
            self.pending.pop_front();
            self.durable = self.durable.max(end);
            self.moved = true;
        }
        if self.confirmed.is_none() && self.moved {
            failpoint::hit(failpoint::CAPTURE_BEFORE_SNAPSHOT_DONE);
            self.note_tables()?;
            // The snapshot is durable: from now on a restart resumes with the stream.
            self.write_confirmed()?;
        }
        self.advance_idle();
        self.confirm()
    }

    /// Advances over everything received, while nothing is unacknowledged.
    fn advance_idle(&mut self) {
        if self.pending.is_empty() && self.transaction.is_none() {
            self.durable = self.durable.max(self.received);
        }
    }

    /// Applies one message of the stream.
    fn apply(&mut self, message: Message, out: &mut Vec<Captured>) -> Result<()> {
        match message {
            Message::Begin {
                commit_lsn,
                committed_us,
                xid,
            } => {
                let next = Position {
                    commit: commit_lsn,
                    index: 0,
                };
                self.transaction = Some(Transaction {
                    xid,
                    committed_us,
                    next,
                    last: None,
                });
            }
            Message::Commit { end_lsn } => {
                self.received = self.received.max(end_lsn);
                let ended = self.transaction.take();
                if let Some(last) = ended.and_then(|transaction| transaction.last) {
                    self.pending.push_back((last, end_lsn));
                }
                self.advance_idle();
            }
            Message::Relation(relation) => self.relation(relation)?,
            Message::Insert { relation, new } => {
                self.row(out, relation, Op::Create, None, Some(new))?;
            }
            Message::Update { relation, old, new } => {
                self.row(out, relation, Op::Update, old, Some(new))?;
            }
            Message::Delete { relation, old } => {
                self.row(out, relation, Op::Delete, Some(old), None)?;
            }
            Message::Truncate { relations } => {
                for relation in relations {
                    self.row(out, relation, Op::Truncate, None, None)?;
                }
            }
            Message::Other => {}
        }
        Ok(())
    }

    /// Takes over the columns of a table, which hold for its following changes.
    fn relation(&mut self, relation: Relation) -> Result<()> {
        let commit = self.transaction.as_ref().map_or(0, |it| it.next.commit);
        let Some(known) = self.tables.get_mut(&relation.oid) else {
            return Ok(());
        };
        self.altered.sent(relation.oid);
        if commit < known.noted.from {
            known.earlier = Some(relation);
            return Ok(());
        }
        if relation.hides_key(&known.table.schema) {
            // Its changes would not identify the rows.
            let name = known.name.clone();
            let others = self.tables.values().map(|it| &it.name);
            let others: Vec<String> = others.filter(|it| **it != name).cloned().collect();
            identity::keep(&mut self.lease.session(), &self.slot, &others)?;
            let what = format!(
                "table `{name}` is read anew: its REPLICA IDENTITY USING INDEX does not tell the \
                 primary key"
            );
            self.noticed.push(what.clone());
            return Err(Error::new(Kind::Retry, what));
        }
        known.earlier = Some(relation);
        known.apply_columns(&mut self.lease.session())
    }

    /// Appends the change of one row.
    fn row(
        &mut self,
        out: &mut Vec<Captured>,
        relation: u32,
        op: Op,
        old: Option<Old>,
        new: Option<Tuple>,
    ) -> Result<()> {
        let Some(transaction) = self.transaction.as_mut() else {
            return Ok(());
        };
        let position = transaction.next;
        transaction.next.index += POSITIONS_PER_CHANGE;
        let Some(known) = self.tables.get_mut(&relation) else {
            return Ok(());
        };
        if position.commit < known.noted.from {
            // The change is in the snapshot.
            return Ok(());
        }
        known.apply_columns(&mut self.lease.session())?;
        let table = &known.table;
        let image = image::Image {
            schema: &table.schema,
            op,
            old: old.as_ref(),
            new: new.as_ref(),
        };
        let change = Change {
            table: Arc::clone(&table.schema),
            op,
            before: None,
            after: None,
            position,
            transaction: u64::from(transaction.xid),
            committed_us: transaction.committed_us,
            snapshot: false,
        };
        if image.push(change, out)? {
            transaction.last = out.last().map(Captured::position);
        }
        Ok(())
    }

    /// Records the progress and tells the server, at intervals and when someone waits for it.
    fn confirm(&mut self) -> Result<()> {
        let Some(since) = self.confirmed else {
            return Ok(());
        };
        if self.asked_at.elapsed() >= ASKED_LOOK {
            self.asked_at = Instant::now();
            self.asked = self.asked.max(self.lease.asked().unwrap_or(0));
        }
        let is_awaited = since < self.asked && self.asked <= self.durable;
        let due = self.moved || self.durable.saturating_sub(since) >= IDLE_WAL;
        let due = due && self.confirmed_at.elapsed() >= CONFIRM_INTERVAL;
        if self.durable <= since || !(due || is_awaited) {
            return Ok(());
        }
        self.write_confirmed()
    }

    /// Records the progress. The server may be told only afterwards.
    fn write_down(&mut self) -> Result<()> {
        progress::confirm(&mut self.lease.session(), &self.slot, self.durable)?;
        self.confirmed = Some(self.durable);
        self.confirmed_at = Instant::now();
        self.moved = false;
        Ok(())
    }

    /// Records the progress, then tells the server.
    fn write_confirmed(&mut self) -> Result<()> {
        failpoint::hit(failpoint::CAPTURE_BEFORE_CONFIRM);
        match self.write_down() {
            Ok(()) => {}
            Err(error) if error.kind() == Kind::Retry && self.confirmed.is_some() => {
                tracing::warn!(%error, "PostgreSQL is away; trying again");
                self.phase = away(RECONNECT, &error);
                return Ok(());
            }
            Err(error) => return Err(error),
        }
        failpoint::hit(failpoint::CAPTURE_AFTER_CONFIRM);
        if let Phase::Stream(stream) = &self.phase {
            stream.confirm(self.durable);
            failpoint::hit(failpoint::CAPTURE_AFTER_SLOT_TOLD);
        }
        Ok(())
    }
}

impl Capture for PostgresCapture {
    fn tables(&self) -> Vec<Arc<TableSchema>> {
        self.tables
            .values()
            .map(|it| Arc::clone(&it.table.schema))
            .collect()
    }

    fn table_begins_anew(&self, table: &TableSchema) -> bool {
        let mut tables = self.tables.values();
        self.begins_anew || tables.any(|it| it.begins && *it.table.schema == *table)
    }

    fn begins_anew(&self) -> bool {
        self.begins_anew
    }

    fn read_anew(&mut self, table: &TableSchema) -> Result<()> {
        let is_it = |it: &&CapturedTable| {
            let known = &it.table.schema;
            (&known.namespace, &known.name) == (&table.namespace, &table.name)
        };
        let kept = self.tables.values().filter(|it| !is_it(it));
        let kept: Vec<String> = kept.map(|it| it.name.clone()).collect();
        identity::keep(&mut self.lease.session(), &self.slot, &kept)
    }

    fn note(&mut self, table: &TableSchema, topic: &str, now: Described) -> Result<Described> {
        let goes_on = !self.table_begins_anew(table);
        let session = &mut self.lease.session();
        if goes_on && progress::goes_elsewhere(session, &self.slot, topic)? {
            return Err(another_topic(&table.name, topic));
        }
        progress::note(session, &self.slot, topic, now, self.begins_anew)
    }

    fn has(&self, topic: &str, last: Position) -> Result<()> {
        match self.begins_anew {
            true => Ok(()),
            false => self.timeline.has(topic, last),
        }
    }

    fn goes_on(&mut self) -> Result<()> {
        self.timeline.note(&mut self.lease.session(), &self.slot)
    }

    fn next(&mut self, wait: Duration) -> Result<Vec<Captured>> {
        let read = self.read(wait);
        self.lease.retry_if_lost(read)
    }

    fn altered(&mut self) -> Vec<Arc<TableSchema>> {
        self.altered.take(self.durable)
    }

    fn is_settled(&self) -> bool {
        self.altered.is_settled()
    }

    fn check(&mut self) -> Result<()> {
        self.lease.check()
    }

    fn noticed(&mut self) -> Vec<String> {
        std::mem::take(&mut self.noticed)
    }

    fn away(&self) -> Option<String> {
        match &self.phase {
            Phase::Unreachable { why, .. } => Some(why.clone()),
            _ => None,
        }
    }

    fn passed(&self) -> Option<u64> {
        Some(self.durable)
    }

    fn acknowledge(&mut self, through: Position) -> Result<()> {
        self.acknowledged = self.acknowledged.max(through);
        self.advance()
    }
}

/// The phase while the server cannot be reached.
fn away(mut backoff: Backoff, why: &dyn std::fmt::Display) -> Phase {
    Phase::Unreachable {
        again: Instant::now() + backoff.pause(),
        backoff,
        why: format!("PostgreSQL is away: {why}"),
    }
}

/// The tables of these names from the catalog.
pub(super) fn tables(server: &Server, names: &[String]) -> Result<Vec<TableSchema>> {
    let mut client = server.connect()?;
    let tables = beginning::load(&mut client, names, &BTreeMap::new())?;
    let schemas = tables.into_iter().map(|(_, table)| table.schema);
    Ok(schemas.map(|schema| TableSchema::clone(&schema)).collect())
}

/// The generated columns of these tables.
pub(super) fn generated(server: &Server, names: &[String]) -> Result<Vec<Generated>> {
    let mut client = server.connect()?;
    let mut found = Vec::new();
    for name in names {
        found.append(&mut catalog::generated(&mut client, name)?);
    }
    Ok(found)
}

/// The name of the slot and publication of a capture: `tidemill_` and the name in lower case, with
/// `_` in place of other characters than letters and digits.
pub(super) fn slot_name(name: &str) -> Result<String> {
    let letters = name.chars().map(|c| match c.to_ascii_lowercase() {
        c @ ('a'..='z' | '0'..='9' | '_') => c,
        _ => '_',
    });
    let slot: String = "tidemill_".chars().chain(letters).collect();
    if slot.len() > 63 {
        let what =
            format!("name `{name}` is too long for a replication slot; use at most 54 letters");
        return Err(Error::new(Kind::Data, what));
    }
    Ok(slot)
}

/// An error of a statement: `Retry` for what passes, `Data` for what a person must correct.
fn sql_error(what: String, error: postgres::Error) -> Error {
    let (kind, why) = match error.as_db_error() {
        Some(answer) => {
            // A slot that is still in use passes too.
            let passing = passes(answer.code()) || *answer.code() == SqlState::OBJECT_IN_USE;
            let hint = answer
                .hint()
                .map_or_else(String::new, |hint| format!(" ({hint})"));
            let kind = if passing { Kind::Retry } else { Kind::Data };
            (kind, format!("{}{hint}", answer.message()))
        }
        None => match std::error::Error::source(&error) {
            Some(cause) => (Kind::Retry, format!("{error}: {cause}")),
            None => (Kind::Retry, error.to_string()),
        },
    };
    Error::with_source(kind, format!("{what}: {why}"), error)
}

/// An LSN in PostgreSQL's notation.
fn lsn_text(lsn: u64) -> String {
    pgwire_replication::Lsn(lsn).to_string()
}
