//! Capture from PostgreSQL: a snapshot, then logical replication.
//!
//! A URL and tables flow in, [`Captured`] flows out. [`lease`] says who may capture, [`progress`]
//! how a capture goes on, [`beginning`] where it begins, [`snapshot`] reads what is there,
//! [`stream`] is the replication connection, [`pgoutput`] decodes it, [`catalog`] knows the
//! tables, [`identity`] whether they are still the captured ones, by their [`shape`], [`altered`]
//! which of their columns no change has had yet. Here they become one sequence of positions.
//!
//! Invariants:
//! 1. A change's position is its transaction's commit LSN and its number among the changes that the
//!    server sends of the transaction, whether they are captured, refused or passed over. So it is
//!    the same each time the transaction is sent, also when other tables are captured by then.
//! 2. What was read is handed on only by the process that holds the lease, which is asked for
//!    before each batch: one that stood still meanwhile holds it no more.
//! 3. The slot is told only of transactions that are acknowledged to their last change. While
//!    nothing is unacknowledged, keepalives move it too, so that idle tables hold no WAL.

mod advice;
mod altered;
mod beginning;
mod catalog;
mod identity;
mod image;
mod lease;
mod pgoutput;
mod progress;
mod shape;
mod snapshot;
mod stream;
mod timeline;
mod types;
mod values;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use postgres::error::SqlState;
use tidemill_log::event::{Change, Op, Position};
use tidemill_log::failpoint;
use tidemill_log::log::Described;
use tidemill_log::schema::TableSchema;

use super::{BATCH, Capture, Captured, Generated, TABLES_PATIENCE, all_fit, another_topic};
use crate::server::Server;
use crate::server::passes;
use crate::{Error, Kind, Result};
use altered::Altered;
use beginning::{Beginning, Followed};
pub(super) use lease::{Lease, holder};
use pgoutput::{Message, Old, Relation, Tuple};
use progress::Resume;
use shape::Shape;
use snapshot::Snapshot;
use stream::{Event, Stream};
use timeline::Timeline;

/// How often progress is written down at most.
const CONFIRM_INTERVAL: Duration = Duration::from_secs(1);
/// How often it is looked whether somebody waits for progress.
const ASKED_LOOK: Duration = Duration::from_millis(50);
/// How much WAL of other tables may pass before the slot is moved over it.
const IDLE_WAL: u64 = 64 * 1024;
/// How often the catalog is asked whether the tables are still the captured ones.
const TABLES_LOOK: Duration = Duration::from_secs(2);
/// The longest pause between two attempts to reach the server.
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// A capture of some tables of a PostgreSQL database.
pub(super) struct PostgresCapture {
    /// All servers that the URL names.
    servers: Server,
    /// The one that is captured.
    server: Server,
    timeline: Timeline,
    slot: String,
    lease: Lease,
    generation: i64,
    begins_anew: bool,
    tables: HashMap<u32, Followed>,
    /// When the catalog was last asked about the tables.
    looked_at: Option<Instant>,
    altered: Altered,
    /// Since when a table is gone or unfit.
    unfit_since: Option<Instant>,
    noticed: Vec<String>,
    phase: Phase,
    transaction: Option<Transaction>,
    /// The last positions of what was handed out and not acknowledged, with the LSN behind each.
    pending: VecDeque<(Position, u64)>,
    /// The last position that was acknowledged.
    acknowledged: Position,
    /// Everything before it was received.
    received: u64,
    /// Everything before it was acknowledged.
    durable: u64,
    /// Everything before it is written down as acknowledged; none before the snapshot is done.
    confirmed: Option<u64>,
    confirmed_at: Instant,
    /// Changes were acknowledged since progress was last written down.
    moved: bool,
    /// Somebody waits for everything before it to be written down as acknowledged.
    asked: u64,
    asked_at: Instant,
}

enum Phase {
    /// The snapshot, where its slot begins, and where the stream goes on behind it.
    Snapshot(Box<Snapshot>, u64, u64),
    Stream(Stream),
    Away {
        pause: Duration,
        again: Instant,
        /// What happened.
        why: String,
    },
}

/// The transaction that is being received.
struct Transaction {
    xid: u32,
    committed_us: i64,
    /// The position of the next change that is sent.
    next: Position,
    /// That of the last change that was handed out.
    last: Option<Position>,
}

/// Positions that a change takes: an update that moves a row to another key becomes two changes.
const PLACES: u64 = 2;

impl PostgresCapture {
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
        } = lease.judge(beginning)?;
        Ok(Self {
            servers,
            server,
            timeline,
            slot,
            lease,
            generation,
            begins_anew: confirmed.is_none(),
            noticed: tables.iter().filter_map(Followed::noticed).collect(),
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

    /// One attempt to reach the server again, when it is time for one.
    fn reconnect(&mut self) -> Result<()> {
        // Often only the replication connection is gone, as when the slot was invalidated.
        if self.lease.is_lost() || self.lease.check().is_err() {
            self.server = self.servers.primary()?;
            self.lease = Lease::take(&self.server, &self.slot)?;
        }
        let timeline = timeline::now(&mut self.lease.session())?;
        if timeline != self.timeline.now {
            // What was published has to be compared with where it began.
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
        // The new stream tells the server at once where it goes on, and by then that is written.
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
    fn wait_away(&mut self, wait: Duration, pause: Duration, again: Instant) -> Result<()> {
        let left = again.saturating_duration_since(Instant::now());
        std::thread::sleep(left.min(wait));
        if left > wait {
            return Ok(());
        }
        match self.reconnect() {
            Err(error) if error.kind() == Kind::Retry => {
                tracing::debug!(%error, "PostgreSQL is still away");
                self.phase = away((pause * 2).min(BACKOFF_MAX), &error);
                Ok(())
            }
            // Someone else went on with this slot, or another server did: a new capture has to find
            // out where.
            Err(error) if error.kind() == Kind::Fence => {
                Err(Error::new(Kind::Retry, error.to_string()))
            }
            other => other,
        }
    }

    /// See [`Capture::next`].
    fn read(&mut self, wait: Duration) -> Result<Vec<Captured>> {
        if self.lease.is_lost() && matches!(self.phase, Phase::Stream(_)) {
            self.phase = away(Duration::from_millis(50), &"the session is lost");
        }
        match &mut self.phase {
            Phase::Away { pause, again, .. } => {
                let (pause, again) = (*pause, *again);
                self.wait_away(wait, pause, again)?;
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
                self.look()?;
                let batch = self.read_stream(wait)?;
                self.settle()?;
                Ok(batch)
            }
        }
    }

    /// Goes on with the stream behind a snapshot.
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
            // Only some tables were read, and the stream goes on further back.
            std::thread::sleep(wait);
            return Ok(());
        } else {
            self.note_tables()?;
            self.acknowledged = Position::default();
        }
        let stream = Stream::open(&self.server, &self.slot, next)?;
        self.phase = Phase::Stream(stream);
        self.settle()
    }

    /// Notes the tables whose snapshot is durable.
    fn note_tables(&mut self) -> Result<()> {
        for table in self.tables.values_mut().filter(|table| table.begins) {
            let mut session = self.lease.session();
            identity::note(&mut session, &self.slot, &table.name, &table.noted)?;
            table.begins = false;
        }
        let names: Vec<String> = self.tables.values().map(|it| it.name.clone()).collect();
        identity::keep(&mut self.lease.session(), &self.slot, &names)
    }

    /// Looks now and then whether the tables are still the captured ones. An error of kind `Retry`
    /// when one has to be read anew: the next capture does.
    fn look(&mut self) -> Result<()> {
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
            // The server is away, which the stream says too.
            Err(error) if error.kind() == Kind::Retry => Ok(()),
            Err(error) => Err(error),
            Ok(Some(what)) => Err(Error::new(Kind::Retry, what)),
            Ok(None) => {
                self.unfit_since = None;
                Ok(())
            }
        }
    }

    /// Which tables have to be read anew, and why.
    fn compare(&mut self) -> Result<Option<String>> {
        let session = &mut self.lease.session();
        let noted = self.tables.values().map(|it| &it.noted);
        let published = identity::same_publication(session, &self.slot, noted)?;
        let tables = self.tables.values_mut();
        let loaded = tables.map(|it| {
            let table = catalog::load(session, &it.name);
            let table = table.and_then(|now| identity::in_place(&it.noted, &it.name, now));
            Ok((it, table?))
        });
        let (mut outdated, mut seen) = (Vec::new(), Vec::new());
        for (it, table) in all_fit(loaded)? {
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
                    self.idle();
                }
                Ok(Some(Event::Message(message))) => self.apply(message, &mut out)?,
                Err(error) if error.kind() == Kind::Retry => {
                    tracing::warn!(%error, "PostgreSQL is away; trying again");
                    self.phase = away(Duration::from_millis(50), &error);
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(out)
    }

    /// Moves over what was acknowledged to its end.
    fn settle(&mut self) -> Result<()> {
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
            // The snapshot is durable: from here on a restart goes on with the stream.
            self.write_confirmed()?;
        }
        self.idle();
        self.confirm()
    }

    /// Moves over what was received while nothing is unacknowledged.
    fn idle(&mut self) {
        if self.pending.is_empty() && self.transaction.is_none() {
            self.durable = self.durable.max(self.received);
        }
    }

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
                self.idle();
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

    /// How the rows of a table look from here on.
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
            // Its changes would not say which rows they are of.
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
        known.follow(&mut self.lease.session())
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
        transaction.next.index += PLACES;
        let Some(known) = self.tables.get_mut(&relation) else {
            return Ok(());
        };
        if position.commit < known.noted.from {
            // It is in the snapshot.
            return Ok(());
        }
        known.follow(&mut self.lease.session())?;
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

    /// Writes progress down and tells the server, now and then, and when somebody waits for it.
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

    /// Writes progress down. Only then may the server hear of it.
    fn write_down(&mut self) -> Result<()> {
        progress::confirm(&mut self.lease.session(), &self.slot, self.durable)?;
        self.confirmed = Some(self.durable);
        self.confirmed_at = Instant::now();
        self.moved = false;
        Ok(())
    }

    fn write_confirmed(&mut self) -> Result<()> {
        failpoint::hit(failpoint::CAPTURE_BEFORE_CONFIRM);
        match self.write_down() {
            Ok(()) => {}
            Err(error) if error.kind() == Kind::Retry && self.confirmed.is_some() => {
                tracing::warn!(%error, "PostgreSQL is away; trying again");
                self.phase = away(Duration::from_millis(50), &error);
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
        let is_it = |it: &&Followed| {
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
        self.lease.judge(read)
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
            Phase::Away { why, .. } => Some(why.clone()),
            _ => None,
        }
    }

    fn passed(&self) -> Option<u64> {
        Some(self.durable)
    }

    fn acknowledge(&mut self, through: Position) -> Result<()> {
        self.acknowledged = self.acknowledged.max(through);
        self.settle()
    }
}

fn away(pause: Duration, why: &dyn std::fmt::Display) -> Phase {
    Phase::Away {
        pause,
        again: Instant::now() + pause,
        why: format!("PostgreSQL is away: {why}"),
    }
}

/// The tables of these names, as the catalog has them now.
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

/// The name of a capture's slot and publication.
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

/// What the server refuses is for a person to mend; everything else may pass.
fn sql_error(what: String, error: postgres::Error) -> Error {
    let (kind, why) = match error.as_db_error() {
        Some(answer) => {
            // A slot still in use passes as well.
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

/// An LSN as PostgreSQL writes it.
fn lsn_text(lsn: u64) -> String {
    pgwire_replication::Lsn(lsn).to_string()
}
