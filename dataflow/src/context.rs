//! Operator context: what all operators of a worker share (sink, counters, dead letters, failure).

pub(crate) mod site;

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use arrow::array::Array;
use arrow::record_batch::RecordBatch;
use arrow::util::display::array_value_to_string;
use site::Site;
use tidemill_ir::Epoch;
use tidemill_log::backoff::retry;
use tidemill_log::log::dead_letter::{DeadLetter, Source, Stage};
use tidemill_log::log::{Log, Producer, Record};
use tidemill_log::{Error, Result, lock};
use tidemill_sinks::{Refused, Sink};
use tidemill_state::checkpoint::State;
use tidemill_state::checkpoint::writer::Writer;
use tidemill_state::failure::Failure;
use tidemill_state::store::Store;
use timely::scheduling::Activator;

use crate::chunk::Chunk;
use crate::chunk::time::Time;
use crate::epoch::messages::Start;
use crate::epoch::ticks::Ticks;
use crate::exchange::{Crossing, Engine};
use crate::stats::Stats;
use crate::stats::operators::Meter;

/// Most dead letters of one view in one epoch. A view with a wrong primary key would otherwise have
/// one for each row.
pub(crate) const WITHHELD_LETTERS_MAX: usize = 100;

/// What the operators of one worker share. It stays on the worker's thread.
pub(crate) struct Context {
    /// The sink.
    pub(crate) sink: Arc<dyn Sink>,
    /// The statistics of this process.
    pub(crate) stats: Arc<Stats>,
    /// Ends the job.
    pub(crate) failure: Failure,
    /// The log, for dead letters.
    pub(crate) log: Arc<dyn Log>,
    /// The topic of the dead letters; `None` if none are to be written, as in `verify`.
    pub(crate) dead_letters: Option<String>,
    /// The producer of dead letters; opened for the first one.
    pub(crate) producer: RefCell<Option<Box<dyn Producer>>>,
    /// The start as worker 0 sent it; `None` before.
    pub(crate) start: RefCell<Option<Arc<Start>>>,
    /// When the start arrived.
    pub(crate) told: Cell<Option<Instant>>,
    /// The operators to wake when the start arrives.
    pub(crate) waiting: RefCell<Vec<Activator>>,
    /// The state store.
    pub(crate) store: Arc<dyn Store>,
    /// The sites of this worker's operators.
    pub(crate) sites: RefCell<Vec<Site>>,
    /// The epoch of the last checkpoint that was asked for.
    pub(crate) checkpoint: Cell<Option<Epoch>>,
    /// The settled epoch: no record older than what was read at or below it can arrive any more;
    /// see [`crate::epoch::lap`].
    pub(crate) settled: Cell<Epoch>,
    /// The epochs that were bound, for operators that follow the time.
    pub(crate) ticks: Rc<Ticks>,
    /// The checkpoint writer of this process.
    pub(crate) writer: Writer,
    /// The number of worker threads in this process.
    pub(crate) threads: usize,
    /// Most iterations of a recursion.
    pub(crate) iterations_max: u64,
    /// Measures this worker's operators.
    pub(crate) meter: Meter,
    /// The codec of rows between processes.
    pub(crate) codec: Engine,
    /// The view whose operators are being rendered; dead letters name it.
    pub(crate) rendering: RefCell<Arc<str>>,
}

/// A record that could not become a row, with the reason.
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    /// The topic.
    pub(crate) topic: String,
    /// The partition.
    pub(crate) partition: u32,
    /// The record's offset.
    pub(crate) offset: i64,
    /// The record's key, if it has one.
    pub(crate) key: Option<Vec<u8>>,
    /// The record's value; `None` for a tombstone.
    pub(crate) value: Option<Vec<u8>>,
    /// Why the record could not become a row.
    pub(crate) reason: String,
}

impl Context {
    /// Ends the job with an error. Does not return, and does not unwind: a worker that has stopped
    /// stepping keeps its capabilities, so an epoch in which it failed can never become complete.
    pub(crate) fn fail(&self, error: Error) -> ! {
        self.failure.set(error);
        loop {
            std::thread::park();
        }
    }

    /// The pact by which an input crosses workers; `route` returns the index of each value's
    /// worker.
    pub(crate) fn crossing<F>(context: &Rc<Self>, route: F) -> Crossing<F> {
        let failing = Rc::clone(context);
        Crossing::new(context.codec, move |error| failing.fail(error), route)
    }

    /// The name of the view that is being rendered.
    pub(crate) fn view(&self) -> Arc<str> {
        Arc::clone(&self.rendering.borrow())
    }

    /// Stores the start that worker 0 sent, and wakes the operators that wait for it.
    pub(crate) fn tell_start(&self, start: &Start) {
        *self.start.borrow_mut() = Some(Arc::new(start.clone()));
        self.told.set(Some(Instant::now()));
        self.stats
            .say("restoring state and replaying epochs of an earlier run");
        self.waiting.take().iter().for_each(Activator::activate);
    }

    /// Registers an operator that is woken when the start arrives.
    pub(crate) fn wake_at_start(&self, activator: Activator) {
        self.waiting.borrow_mut().push(activator);
    }

    /// Whether the start has arrived.
    pub(crate) fn started(&self) -> bool {
        self.start.borrow().is_some()
    }

    /// Records that every epoch before `frontier` is complete in all views, or every epoch if there
    /// is no frontier. The job is live once all epochs of earlier runs are complete.
    pub(crate) fn is_complete(&self, frontier: Option<Epoch>) {
        if let Some(rows) = lock(&self.stats.row_counts).settle(frontier.unwrap_or(Epoch::MAX)) {
            self.stats.counted(&rows);
        }
        let complete = |epoch: Epoch| frontier.is_none_or(|frontier| epoch < frontier);
        let (start, told) = (self.start.borrow(), self.told.get());
        let (Some(start), Some(told)) = (start.as_deref(), told) else {
            return;
        };
        let restored = start.checkpoint.as_ref().map(|checkpoint| checkpoint.epoch);
        if complete(start.replayed.max(restored).unwrap_or(0)) {
            self.stats.went_live(told);
        }
    }

    /// Whether a source must be read from its beginning, because it feeds a site that the
    /// checkpoint does not contain (hydration). Valid only after the start has arrived.
    pub(crate) fn hydrates(&self, source: usize) -> bool {
        let sites = self.sites.borrow();
        let mut of = sites.iter().filter(|site| site.sources.contains(&source));
        of.any(|site| self.restored(site).is_none())
    }

    /// The epoch of the checkpoint, and a site's state in it; `None` if the site begins empty.
    /// Valid only after the start has arrived.
    pub(crate) fn restored(&self, site: &Site) -> Option<(Epoch, State)> {
        site.restored(self.start.borrow().as_deref()?)
    }

    /// The epoch through which a sink table was complete before this start.
    pub(crate) fn served(&self, table: usize) -> Option<Epoch> {
        self.start.borrow().as_ref()?.served(table)
    }

    /// Whether a sink table was complete through an epoch before this start.
    pub(crate) fn is_served(&self, table: usize, epoch: Epoch) -> bool {
        self.served(table).is_some_and(|through| epoch <= through)
    }

    /// Whether an earlier run has certainly written the dead letters of an epoch: the sink's
    /// frontiers say that the epoch is complete. An epoch that was only bound may have been
    /// interrupted before its dead letters, so after a crash they are written twice rather than
    /// never. Dead letters of records were written once any table reached the epoch. Those of rows
    /// were written only once all tables did, because the view that refused a row may be new.
    fn reported(&self, stage: Stage, epoch: Epoch) -> bool {
        let start = self.start.borrow();
        let Some(start) = start.as_ref() else {
            return false;
        };
        let served = start.served.iter().copied();
        let through = match stage {
            Stage::Decode => served.flatten().max(),
            _ => served.min().flatten(),
        };
        through.is_some_and(|through| epoch <= through)
    }

    /// Counts rows that a view gains (or loses, if negative) at an epoch.
    pub(crate) fn count_rows(&self, view: &str, epoch: Epoch, rows: i64) {
        lock(&self.stats.row_counts).add(view, epoch, rows);
    }

    /// Counts rows of a view that were withheld from its table.
    pub(crate) fn count_withheld(&self, view: &str, rows: u64) {
        if let Some(view) = lock(&self.stats.views).get_mut(view) {
            view.conflicts += rows;
        }
    }

    /// Counts rows of a view that its table can never hold; negative when they are retracted.
    pub(crate) fn count_unfit(&self, view: &str, rows: i64) {
        if let Some(view) = lock(&self.stats.views).get_mut(view) {
            view.unfit += rows;
        }
    }

    /// Makes dead letters of the rows that a view's table refused in an epoch, and counts them.
    pub(crate) fn refused(&self, view: &str, epoch: Epoch, refused: &[Refused]) {
        let Some(first) = refused.first() else {
            return;
        };
        let (rows, reason) = (refused.len(), &first.reason);
        tracing::warn!(view, rows, reason, "the view's table refused rows");
        self.count_withheld(view, rows as u64);
        let more = rows.saturating_sub(WITHHELD_LETTERS_MAX);
        for (index, one) in refused.iter().take(WITHHELD_LETTERS_MAX).enumerate() {
            let count = if index == 0 { 1 + more } else { 1 };
            self.withhold(view, epoch, &one.row, count, &one.reason);
        }
    }

    /// Makes a dead letter of a row that could not be evaluated for a view. `chunk` has one row; a
    /// retraction makes none.
    pub(crate) fn refuse_row<T: Time>(&self, view: &str, chunk: &Chunk<T>, error: &Error) {
        if chunk.diffs.first().is_none_or(|diff| *diff <= 0) {
            return;
        }
        let row = row_text(&chunk.batch, 0);
        let epoch = chunk.epoch.epoch();
        let letter = letter(Stage::Evaluate, epoch, view, &error.to_string());
        self.dead_letters(
            epoch,
            vec![DeadLetter {
                value: Some(row.into_bytes()),
                ..letter
            }],
        );
    }

    /// Makes dead letters of the added rows of a chunk: at most [`WITHHELD_LETTERS_MAX`]. All of
    /// the rows are counted.
    pub(crate) fn refuse_rows<T: Time>(&self, view: &str, chunk: &Chunk<T>, error: &Error) {
        let rows = chunk.diffs.iter().enumerate();
        let added: Vec<usize> = rows
            .filter(|(_, diff)| **diff > 0)
            .map(|(row, _)| row)
            .collect();
        let more = added.len().saturating_sub(WITHHELD_LETTERS_MAX);
        let count = &self.stats.dead_letters;
        count.fetch_add(more as u64, Ordering::Relaxed);
        for row in added.into_iter().take(WITHHELD_LETTERS_MAX) {
            self.refuse_row(view, &chunk.slice(row, 1), error);
        }
    }

    /// Makes a dead letter of a group of a view, given by the encoded bytes of its key.
    pub(crate) fn refuse(&self, view: &str, epoch: Epoch, key: &[u8], error: &Error) {
        let letter = letter(Stage::Evaluate, epoch, view, &error.to_string());
        self.dead_letters(
            epoch,
            vec![DeadLetter {
                key: Some(key.to_vec()),
                ..letter
            }],
        );
    }

    /// Makes dead letters of records that could not be decoded.
    pub(crate) fn refuse_records(&self, epoch: Epoch, refusals: &[Refusal]) {
        let letter = |refusal: &Refusal| DeadLetter {
            stage: Stage::Decode,
            at_ms: epoch as i64,
            source: Source::Record {
                topic: refusal.topic.clone(),
                partition: refusal.partition,
                offset: refusal.offset,
            },
            reason: refusal.reason.clone(),
            key: refusal.key.clone(),
            value: refusal.value.clone(),
        };
        self.dead_letters(epoch, refusals.iter().map(letter).collect());
    }

    /// Makes dead letters of rows that a view's table cannot hold: at most [`WITHHELD_LETTERS_MAX`]
    /// of the `count` rows of the epoch. The caller counts the rows.
    pub(crate) fn withhold(
        &self,
        view: &str,
        epoch: Epoch,
        rows: &RecordBatch,
        count: usize,
        why: &str,
    ) {
        if self.reported(Stage::Serve, epoch) {
            return;
        }
        let kept = 0..rows.num_rows().min(WITHHELD_LETTERS_MAX);
        let reason = match count.saturating_sub(kept.len()) {
            0 => why.to_owned(),
            more => format!("{why} (and {more} more like it in this epoch)"),
        };
        let letters = kept.map(|row| DeadLetter {
            value: Some(row_text(rows, row).into_bytes()),
            ..letter(Stage::Serve, epoch, view, &reason)
        });
        self.write(&letters.collect::<Vec<_>>());
    }

    /// Counts the dead letters of one stage, and writes them durably before the epoch may complete.
    /// A replay of a completed epoch does not write them again.
    fn dead_letters(&self, epoch: Epoch, letters: Vec<DeadLetter>) {
        let Some(stage) = letters.first().map(|letter| letter.stage) else {
            return;
        };
        self.stats
            .dead_letters
            .fetch_add(letters.len() as u64, Ordering::Relaxed);
        if !self.reported(stage, epoch) {
            self.write(&letters);
        }
    }

    /// Appends dead letters durably. Blocks while the log is away; another error ends the job.
    fn write(&self, letters: &[DeadLetter]) {
        let Some(topic) = &self.dead_letters else {
            return;
        };
        let records = letters.iter().flat_map(|letter| letter.records(topic));
        let records: Vec<Record> = records.collect();
        if let Err(error) = retry("write dead letters", || self.append(topic, &records)) {
            self.fail(error);
        }
    }

    /// Appends records, and creates the topic and the producer first if necessary.
    fn append(&self, topic: &str, records: &[Record]) -> Result<()> {
        let mut producer = self.producer.borrow_mut();
        if producer.is_none() {
            self.log.create_topic(topic, 1)?;
            *producer = Some(self.log.producer()?);
        }
        match producer.as_mut() {
            Some(producer) => producer.append(records),
            None => Ok(()),
        }
    }
}

/// Names the sites of one view or of one source, in the order in which operators are rendered.
pub(crate) struct Sites {
    /// What operators share.
    context: Rc<Context>,
    /// The prefix of the names. It contains everything that the state depends on.
    of: String,
    /// The sources whose records the state is made of.
    sources: Rc<BTreeSet<usize>>,
    /// The number of the next site.
    next: Cell<usize>,
}

impl Sites {
    /// The sites of a view or source whose state is made of the records of these sources.
    pub(crate) fn new(context: &Rc<Context>, of: String, sources: BTreeSet<usize>) -> Self {
        Self {
            context: Rc::clone(context),
            of,
            sources: Rc::new(sources),
            next: Cell::new(0),
        }
    }

    /// The next site. `table` is described at [`Site::table`].
    pub(crate) fn site(&self, table: Option<usize>) -> Site {
        let number = self.next.replace(self.next.get() + 1);
        let site = Site {
            name: format!("{}/{number}", self.of).into(),
            sources: Rc::clone(&self.sources),
            table,
        };
        self.context.sites.borrow_mut().push(site.clone());
        site
    }
}

/// A dead letter about a row on its way to a view.
fn letter(stage: Stage, epoch: Epoch, view: &str, reason: &str) -> DeadLetter {
    DeadLetter {
        stage,
        at_ms: epoch as i64,
        source: Source::Row {
            view: Some(view.to_owned()),
            epoch,
        },
        reason: reason.to_owned(),
        key: None,
        value: None,
    }
}

/// A row as a JSON object whose values are texts or null.
fn row_text(rows: &RecordBatch, row: usize) -> String {
    let mut object = serde_json::Map::new();
    for (field, column) in rows.schema().fields().iter().zip(rows.columns()) {
        let text = match column.is_null(row) {
            true => serde_json::Value::Null,
            false => array_value_to_string(column, row)
                .unwrap_or_default()
                .into(),
        };
        object.insert(field.name().clone(), text);
    }
    serde_json::Value::Object(object).to_string()
}
