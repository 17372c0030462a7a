//! Operator metrics: time spent in each operator, and rows and bytes of its state.
//!
//! Input: the events of timely's log, summed up by the worker that they come from, and handles to
//! the traces. Output: sums by name, published every [`TELL_EVERY`] at most. A name stands for all
//! timely operators that one node of the plan was rendered to, and is the name that `explain`
//! shows.
//!
//! The time of an operator is its own: the time of a scope's children is not counted for the scope.
//! The rows of an arrangement are its updates, counted in its batches; updates that cancel each
//! other count until they are merged. Bytes are rows times the average size of a sample in each
//! batch.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use differential_dataflow::operators::arrange::TraceAgent;
use differential_dataflow::trace::TraceReader;
use tidemill_log::lock;
use timely::dataflow::Scope;
use timely::logging::{StartStop, TimelyEvent, TimelyEventBuilder};
use timely::progress::{Antichain, Timestamp};
use timely::worker::Worker;

/// Shortest time between two publications of a worker.
const TELL_EVERY: Duration = Duration::from_millis(500);
/// Limit of worker threads whose times are told one by one.
const WORKERS_TOLD_MAX: usize = 64;
/// Most characters of a name; the rest of a long expression is cut off.
const NAME_CHARS_MAX: usize = 120;

/// The metrics of one operator, over the workers of this process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Operator {
    /// Time spent in the operator.
    pub busy: Duration,
    /// The size of its state; `None` if it has none.
    pub held: Option<Size>,
    /// The time by worker thread of this process, at most [`WORKERS_TOLD_MAX`]; empty in the
    /// numbers of one worker.
    pub by_worker: Vec<Duration>,
}

/// The size of state in memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Size {
    /// The number of rows (updates in an arrangement).
    pub rows: u64,
    /// Bytes, estimated.
    pub bytes: u64,
}

impl std::ops::AddAssign for Size {
    fn add_assign(&mut self, other: Self) {
        self.rows += other.rows;
        self.bytes += other.bytes;
    }
}

/// The metrics of all operators of this process, by worker and name.
#[derive(Debug, Default)]
pub struct Operators(Mutex<BTreeMap<usize, BTreeMap<String, Operator>>>);

impl Operators {
    /// The metrics by name, summed over the workers.
    pub fn by_name(&self) -> BTreeMap<String, Operator> {
        let mut all: BTreeMap<String, Operator> = BTreeMap::new();
        let workers = lock(&self.0);
        let told = workers.len().min(WORKERS_TOLD_MAX);
        for (index, names) in workers.values().enumerate() {
            for (name, one) in names {
                let sum = all.entry(name.clone()).or_default();
                sum.busy += one.busy;
                sum.by_worker.resize(told, Duration::ZERO);
                if let Some(time) = sum.by_worker.get_mut(index) {
                    *time = one.busy;
                }
                if let Some(held) = one.held {
                    *sum.held.get_or_insert_default() += held;
                }
            }
        }
        all
    }
}

/// A function that returns the current size of some state.
type Sizing = Box<dyn Fn() -> Size>;

/// One worker's collector of operator metrics. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Meter(Rc<Metered>);

/// The shared part of a [`Meter`].
#[derive(Default)]
struct Metered {
    /// The names of the operators.
    names: RefCell<Names>,
    /// The size functions, by the id of the operator that keeps the state.
    held: RefCell<Vec<(usize, Sizing)>>,
    /// The time spent.
    busy: RefCell<Busy>,
    /// When this worker last published.
    told: Cell<Option<Instant>>,
}

/// Which name stands for an operator.
///
/// Looking a name up takes constant time, because it is done for every operator at each
/// publication, and a job of many views has tens of thousands of operators.
#[derive(Default)]
struct Names {
    /// All names.
    names: Vec<String>,
    /// The index of the name, by operator id.
    by_id: Vec<Option<usize>>,
}

impl Names {
    /// Names operators, except those that have a name already.
    fn add(&mut self, operators: Range<usize>, name: String) {
        let index = self.names.len();
        self.names.push(name);
        if self.by_id.len() < operators.end {
            self.by_id.resize(operators.end, None);
        }
        for place in self.by_id.get_mut(operators).into_iter().flatten() {
            place.get_or_insert(index);
        }
    }

    /// The name of an operator.
    fn of(&self, id: usize) -> Option<&str> {
        let index = self.by_id.get(id).copied().flatten()?;
        self.names.get(index).map(String::as_str)
    }
}

/// Time spent by operator.
#[derive(Default)]
struct Busy {
    /// The time spent, by operator id.
    by_id: Vec<Duration>,
    /// The operators being run, outermost first: since when, and how long their children have run.
    running: Vec<(Duration, Duration)>,
}

impl Busy {
    /// Takes in a schedule event of timely's log.
    fn take(&mut self, at: Duration, id: usize, what: StartStop) {
        if matches!(what, StartStop::Start) {
            return self.running.push((at, Duration::ZERO));
        }
        // An operator that began before the log did is unknown.
        let Some((since, children)) = self.running.pop() else {
            return;
        };
        let took = at.saturating_sub(since);
        if let Some((_, inside)) = self.running.last_mut() {
            *inside += took;
        }
        if self.by_id.len() <= id {
            self.by_id.resize(id + 1, Duration::ZERO);
        }
        if let Some(busy) = self.by_id.get_mut(id) {
            *busy += took.saturating_sub(children);
        }
    }
}

impl Meter {
    /// A meter of a worker. Must be created before the worker's dataflows are built.
    pub(crate) fn listen(worker: &Worker) -> Self {
        let meter = Self::default();
        let Some(mut log) = worker.log_register() else {
            return meter;
        };
        let metered = Rc::clone(&meter.0);
        log.insert::<TimelyEventBuilder, _>("timely", move |_, events| {
            let Some(events) = events else { return };
            let mut busy = metered.busy.borrow_mut();
            for (at, event) in events.drain(..) {
                if let TimelyEvent::Schedule(event) = event {
                    busy.take(at, event.id, event.start_stop);
                }
            }
        });
        meter
    }

    /// Names the operators that `build` creates, except those that have a name already.
    pub(crate) fn named<'scope, T: Timestamp, R>(
        &self,
        scope: Scope<'scope, T>,
        name: String,
        build: impl FnOnce() -> R,
    ) -> R {
        let from = scope.worker().peek_identifier();
        let built = build();
        self.name(from..scope.worker().peek_identifier(), name);
        built
    }

    /// Names operators, except those that have a name already.
    pub(crate) fn name(&self, operators: Range<usize>, name: String) {
        let short = match name.char_indices().nth(NAME_CHARS_MAX) {
            Some((end, _)) => format!("{}…", &name[..end]),
            None => name,
        };
        self.0.names.borrow_mut().add(operators, short);
    }

    /// Measures the state of an arrangement. The handle holds nothing back: neither logical
    /// compaction nor merging waits for it.
    pub(crate) fn trace<Tr>(
        &self,
        trace: &TraceAgent<Tr>,
        size: impl Fn(&Tr::Batch) -> Size + 'static,
    ) where
        Tr: TraceReader + 'static,
    {
        let mut watched = trace.clone();
        watched.set_logical_compaction(Antichain::new().borrow());
        watched.set_physical_compaction(Antichain::new().borrow());
        let operator = watched.operator().global_id;
        let sizing = move || {
            let mut all = Size::default();
            watched.map_spans(|span| {
                if let Some(batch) = &span.inner {
                    all += size(batch);
                }
            });
            all
        };
        self.0.held.borrow_mut().push((operator, Box::new(sizing)));
    }

    /// Measures state that an operator keeps itself. The operator sets the size in the returned
    /// cell.
    pub(crate) fn state(&self, operator: usize) -> Rc<Cell<Size>> {
        let size = Rc::new(Cell::new(Size::default()));
        let told = Rc::clone(&size);
        let sizing: Sizing = Box::new(move || told.get());
        self.0.held.borrow_mut().push((operator, sizing));
        size
    }

    /// Publishes the metrics of this worker's operators, at most every [`TELL_EVERY`].
    pub(crate) fn tell(&self, worker: usize, operators: &Operators) {
        let now = Instant::now();
        let told = self.0.told.get();
        if told.is_some_and(|at| now.duration_since(at) < TELL_EVERY) {
            return;
        }
        self.0.told.set(Some(now));
        let sums = self.sums();
        lock(&operators.0).insert(worker, sums);
    }

    /// The metrics by name.
    fn sums(&self) -> BTreeMap<String, Operator> {
        let names = self.0.names.borrow();
        let mut sums: BTreeMap<String, Operator> = BTreeMap::new();
        // A name without activity is published too, because the operator exists.
        for name in &names.names {
            sums.entry(name.clone()).or_default();
        }
        for (id, busy) in self.0.busy.borrow().by_id.iter().enumerate() {
            if let Some(sum) = names.of(id).and_then(|name| sums.get_mut(name)) {
                sum.busy += *busy;
            }
        }
        for (id, size) in self.0.held.borrow().iter() {
            if let Some(sum) = names.of(*id).and_then(|name| sums.get_mut(name)) {
                *sum.held.get_or_insert_default() += size();
            }
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_is_not_busy_with_what_its_children_do() {
        let mut busy = Busy::default();
        let at = Duration::from_millis;
        busy.take(at(0), 9, StartStop::Stop);
        for (ms, id, what) in [
            (10, 1, StartStop::Start),
            (11, 2, StartStop::Start),
            (15, 2, StartStop::Stop),
            (16, 3, StartStop::Start),
            (17, 3, StartStop::Stop),
            (20, 1, StartStop::Stop),
            (30, 2, StartStop::Start),
            (31, 2, StartStop::Stop),
        ] {
            busy.take(at(ms), id, what);
        }
        assert_eq!(busy.by_id, [at(0), at(5), at(5), at(1)]);
    }

    #[test]
    fn the_innermost_name_counts_and_workers_add_up() {
        let meter = Meter::default();
        meter.name(2..4, "inner".to_owned());
        meter.name(1..6, "outer".to_owned());
        meter.name(7..8, "long ".repeat(100));
        meter.state(3).set(Size { rows: 5, bytes: 50 });
        meter.state(2).set(Size { rows: 1, bytes: 10 });
        let busy = [0, 1, 2, 3, 4].map(Duration::from_millis);
        meter.0.busy.borrow_mut().by_id = busy.to_vec();
        let operators = Operators::default();
        meter.tell(0, &operators);
        meter.tell(0, &operators);
        lock(&operators.0).insert(1, meter.sums());
        let told = operators.by_name();
        let held = Some(Size {
            rows: 12,
            bytes: 120,
        });
        let inner = Operator {
            busy: Duration::from_millis(10),
            held,
            by_worker: vec![Duration::from_millis(5); 2],
        };
        assert_eq!(told["inner"], inner);
        assert_eq!(told["outer"].busy, Duration::from_millis(10));
        assert_eq!(told["outer"].held, None);
        let longest = told.keys().map(|name| name.chars().count()).max();
        assert_eq!(longest, Some(NAME_CHARS_MAX + 1));
    }
}
