//! What all operators of a worker share: the sink, the counters, the dead letters, and the way to
//! stop when an invariant does not hold.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use arrow::array::Array;
use arrow::record_batch::RecordBatch;
use arrow::util::display::array_value_to_string;
use tidemill_log::dead_letter::{DeadLetter, Source, Stage};
use tidemill_log::log::{Log, Producer, Record};

use timely::scheduling::Activator;

use crate::checkpoint::State;
use crate::checkpoint::writer::Writer;
use crate::chunk::Chunk;
use crate::exchange::{Crossing, Engine};
use crate::failure::{Failure, patiently};
use crate::operators::Meter;
use crate::sink::{Refused, Sink};
use crate::site::Site;
use crate::stats::Stats;
use crate::store::Store;
use crate::sync::lock;
use crate::time::messages::Start;
use crate::{Epoch, Error, Result};

/// Dead letters of one view and epoch; a view whose key is declared wrongly would have one a row.
pub(crate) const WITHHELD_LETTERS_MAX: usize = 100;

/// A worker's share of the job's surroundings.
pub(crate) struct Context {
    pub(crate) sink: Arc<dyn Sink>,
    pub(crate) stats: Arc<Stats>,
    pub(crate) failure: Failure,
    pub(crate) log: Arc<dyn Log>,
    /// Their topic; none when they are not to be written.
    pub(crate) dead_letters: Option<String>,
    pub(crate) producer: RefCell<Option<Box<dyn Producer>>>,
    /// What worker 0 told at the start; none before it did.
    pub(crate) start: RefCell<Option<Arc<Start>>>,
    /// When it did.
    pub(crate) told: Cell<Option<Instant>>,
    /// Whom to wake when it is told.
    pub(crate) waiting: RefCell<Vec<Activator>>,
    /// Where state is kept.
    pub(crate) store: Arc<dyn Store>,
    /// The sites of this worker's operators.
    pub(crate) sites: RefCell<Vec<Site>>,
    /// The last epoch that a checkpoint was asked for at.
    pub(crate) checkpoint: Cell<Option<Epoch>>,
    /// No record of a change that is older than what was read at or before this epoch comes.
    pub(crate) settled: Cell<Epoch>,
    /// Makes checkpoints durable.
    pub(crate) writer: Writer,
    /// Workers in this process.
    pub(crate) threads: usize,
    /// Watches this worker's operators.
    pub(crate) meter: Meter,
    /// How rows cross to other processes.
    pub(crate) codec: Engine,
    /// The view whose operators are being rendered, which their dead letters name.
    pub(crate) rendering: RefCell<Arc<str>>,
}

/// A record that could not become a row.
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    pub(crate) topic: String,
    pub(crate) partition: u32,
    pub(crate) offset: i64,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) reason: String,
}

impl Context {
    /// Ends the job with an error. Does not return: a worker that stopped stepping holds its
    /// capabilities, so no epoch that it failed in can ever complete anywhere.
    pub(crate) fn fail(&self, error: Error) -> ! {
        self.failure.set(error);
        loop {
            std::thread::park();
        }
    }

    /// The pact by which an input crosses workers; `route` names each value's.
    pub(crate) fn crossing<F>(context: &Rc<Self>, route: F) -> Crossing<F> {
        let failing = Rc::clone(context);
        Crossing::new(context.codec, move |error| failing.fail(error), route)
    }

    /// The name of the view that is being rendered.
    pub(crate) fn view(&self) -> Arc<str> {
        Arc::clone(&self.rendering.borrow())
    }

    /// Keeps what worker 0 told and wakes those who waited for it.
    pub(crate) fn tell_start(&self, start: &Start) {
        *self.start.borrow_mut() = Some(Arc::new(start.clone()));
        self.told.set(Some(Instant::now()));
        self.stats
            .say("restoring state and replaying epochs of an earlier run");
        self.waiting.take().iter().for_each(Activator::activate);
    }

    /// Wakes an operator at the start.
    pub(crate) fn wake_at_start(&self, activator: Activator) {
        self.waiting.borrow_mut().push(activator);
    }

    /// Whether the start was told.
    pub(crate) fn started(&self) -> bool {
        self.start.borrow().is_some()
    }

    /// Every epoch before `frontier` is complete in all views, and all epochs where there is none.
    /// Notes that the job is live once those of earlier runs are.
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

    /// Whether a source has to be read from its beginning, since there is a site that the
    /// checkpoint does not know. To be asked after the start only.
    pub(crate) fn hydrates(&self, source: usize) -> bool {
        let sites = self.sites.borrow();
        let mut of = sites.iter().filter(|site| site.sources.contains(&source));
        of.any(|site| self.restored(site).is_none())
    }

    /// The epoch of the checkpoint and a site's state in it. None when the site begins empty. To be
    /// asked after the start only.
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

    /// True for epochs whose dead letters an earlier run has written for certain: those that the
    /// sink's frontiers tell to be complete. An epoch that was only bound may have been cut off
    /// before its dead letters, so a crash writes them twice rather than never. Undecodable records
    /// were written once any table got that far; rows only once all tables did, as the view that
    /// refuses one may be new.
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

    /// Counts rows that a view has more since an epoch, or fewer.
    pub(crate) fn count_rows(&self, view: &str, epoch: Epoch, rows: i64) {
        lock(&self.stats.row_counts).add(view, epoch, rows);
    }

    /// Counts rows of a view that were withheld from its table.
    pub(crate) fn count_withheld(&self, view: &str, rows: u64) {
        if let Some(view) = lock(&self.stats.views).get_mut(view) {
            view.conflicts += rows;
        }
    }

    /// Counts a view's rows that its table can never hold.
    pub(crate) fn count_unfit(&self, view: &str, rows: i64) {
        if let Some(view) = lock(&self.stats.views).get_mut(view) {
            view.unfit += rows;
        }
    }

    /// Puts aside and counts what a view's table refused in an epoch.
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

    /// Puts aside a row that could not be evaluated for a view. `chunk` has one row.
    pub(crate) fn refuse_row(&self, view: &str, chunk: &Chunk, error: &Error) {
        if chunk.diffs.first().is_none_or(|diff| *diff <= 0) {
            return;
        }
        let row = row_text(&chunk.batch, 0);
        let letter = letter(Stage::Evaluate, chunk.epoch, view, &error.to_string());
        self.dead_letters(
            chunk.epoch,
            vec![DeadLetter {
                value: Some(row.into_bytes()),
                ..letter
            }],
        );
    }

    /// Puts aside a group of a view, given by the encoded bytes of its key.
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

    /// Puts aside records that could not be decoded.
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

    /// Puts aside rows of a view that its table cannot hold: of `count` in the epoch at most
    /// [`WITHHELD_LETTERS_MAX`]. They are counted by the view, not here.
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

    /// Counts dead letters of one stage and writes them durably before the epoch may complete. A
    /// replay of a completed epoch does not write them again.
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

    /// Appends letters durably; waits while the log is away.
    fn write(&self, letters: &[DeadLetter]) {
        let Some(topic) = &self.dead_letters else {
            return;
        };
        let records = letters.iter().flat_map(|letter| letter.records(topic));
        let records: Vec<Record> = records.collect();
        if let Err(error) = patiently("write dead letters", || self.append(topic, &records)) {
            self.fail(error);
        }
    }

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

/// Gives the sites of one view, or of one source, their names.
pub(crate) struct Sites {
    context: Rc<Context>,
    /// What the names begin with; says all that the state depends on.
    of: String,
    sources: Rc<BTreeSet<usize>>,
    next: Cell<usize>,
}

impl Sites {
    /// Of a view or source whose state is made of the records of these sources.
    pub(crate) fn new(context: &Rc<Context>, of: String, sources: BTreeSet<usize>) -> Self {
        Self {
            context: Rc::clone(context),
            of,
            sources: Rc::new(sources),
            next: Cell::new(0),
        }
    }

    /// The next site; see [`Site::table`].
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

/// A letter about a row on its way to a view.
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

/// A row as a JSON object of texts.
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
