//! What the operators of a job do and hold: time spent, and rows and bytes of their state.
//!
//! In flow the events of timely's log, folded by the worker they come from, and handles to the
//! traces; out flow sums by name, told a few times a second at most. A name stands for all timely
//! operators that one node of a plan was rendered to, and reads as `explain` shows the node.
//!
//! Time is that of an operator alone: what a scope's children take is not the scope's. Rows of an
//! arrangement are its updates, counted where its batches lie; those that cancel each other count
//! until they are merged. Bytes are rows times what a sample of them takes, in each batch.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use differential_dataflow::operators::arrange::TraceAgent;
use differential_dataflow::trace::TraceReader;
use timely::dataflow::Scope;
use timely::logging::{StartStop, TimelyEvent, TimelyEventBuilder};
use timely::progress::{Antichain, Timestamp};
use timely::worker::Worker;

use crate::sync::lock;

/// How often a worker tells what its operators did.
const TELL_EVERY: Duration = Duration::from_millis(500);
/// Characters of a name; what an expression has beyond them is left out.
const NAME_CHARS_MAX: usize = 120;

/// What one operator did and holds, over this process's workers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Operator {
    /// Time spent in it.
    pub busy: Duration,
    /// What its state takes; none when it has none.
    pub held: Option<Size>,
}

/// What state takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Size {
    /// Rows.
    pub rows: u64,
    /// Bytes, about.
    pub bytes: u64,
}

impl std::ops::AddAssign for Size {
    fn add_assign(&mut self, other: Self) {
        self.rows += other.rows;
        self.bytes += other.bytes;
    }
}

/// What the operators of this process's workers did and hold.
#[derive(Debug, Default)]
pub struct Operators(Mutex<BTreeMap<usize, BTreeMap<String, Operator>>>);

impl Operators {
    /// By name, the workers together.
    pub fn by_name(&self) -> BTreeMap<String, Operator> {
        let mut all: BTreeMap<String, Operator> = BTreeMap::new();
        for (name, told) in lock(&self.0).values().flatten() {
            let sum = all.entry(name.clone()).or_default();
            sum.busy += told.busy;
            if let Some(held) = told.held {
                *sum.held.get_or_insert_default() += held;
            }
        }
        all
    }
}

/// Something that knows what it takes.
type Sizing = Box<dyn Fn() -> Size>;

/// One worker's view of its operators. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Meter(Rc<Metered>);

#[derive(Default)]
struct Metered {
    /// Which operators a name stands for, the innermost first.
    names: RefCell<Vec<(Range<usize>, String)>>,
    /// State by the operator that keeps it.
    held: RefCell<Vec<(usize, Sizing)>>,
    busy: RefCell<Busy>,
    told: Cell<Option<Instant>>,
}

/// Time spent by operator.
#[derive(Default)]
struct Busy {
    by_id: Vec<Duration>,
    /// What is being run, outermost first: since when, and how long its children ran meanwhile.
    running: Vec<(Duration, Duration)>,
}

impl Busy {
    fn take(&mut self, at: Duration, id: usize, what: StartStop) {
        if matches!(what, StartStop::Start) {
            return self.running.push((at, Duration::ZERO));
        }
        // One that began before the log did is not known.
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
    /// Listens to a worker, before its dataflows are built.
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

    /// Gives the operators that `build` makes a name, but those in it that have one already.
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

    /// Gives operators a name, but those that have one already.
    pub(crate) fn name(&self, operators: Range<usize>, name: String) {
        let short = match name.char_indices().nth(NAME_CHARS_MAX) {
            Some((end, _)) => format!("{}…", &name[..end]),
            None => name,
        };
        self.0.names.borrow_mut().push((operators, short));
    }

    /// Watches the state of an arrangement. The watching holds nothing back: neither compaction
    /// nor merging waits for it.
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

    /// Watches state that an operator keeps itself and tells the size of.
    pub(crate) fn state(&self, operator: usize) -> Rc<Cell<Size>> {
        let size = Rc::new(Cell::new(Size::default()));
        let told = Rc::clone(&size);
        let sizing: Sizing = Box::new(move || told.get());
        self.0.held.borrow_mut().push((operator, sizing));
        size
    }

    /// Tells what this worker's operators did, unless it did so a moment ago.
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

    fn sums(&self) -> BTreeMap<String, Operator> {
        let names = self.0.names.borrow();
        let mut sums: BTreeMap<String, Operator> = BTreeMap::new();
        // A name that does nothing is told too: it is there.
        for (_, name) in names.iter() {
            sums.entry(name.clone()).or_default();
        }
        let name_of = |id: usize| {
            let mut of = names
                .iter()
                .filter(|(operators, _)| operators.contains(&id));
            of.next().map(|(_, name)| name)
        };
        for (id, busy) in self.0.busy.borrow().by_id.iter().enumerate() {
            if let Some(sum) = name_of(id).and_then(|name| sums.get_mut(name)) {
                sum.busy += *busy;
            }
        }
        for (id, size) in self.0.held.borrow().iter() {
            if let Some(sum) = name_of(*id).and_then(|name| sums.get_mut(name)) {
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
        };
        assert_eq!(told["inner"], inner);
        assert_eq!(told["outer"].busy, Duration::from_millis(10));
        assert_eq!(told["outer"].held, None);
        let longest = told.keys().map(|name| name.chars().count()).max();
        assert_eq!(longest, Some(NAME_CHARS_MAX + 1));
    }
}
