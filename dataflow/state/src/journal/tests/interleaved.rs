//! Several writers of one journal, whose store operations interleave in any order, with stops,
//! crashes and lost answers between any two of them.
//!
//! Each writer is a process of its own, whose store waits before every operation until the schedule
//! lets it continue. A writer that is not chosen for a while stands for a frozen process that wakes
//! up. Generations are taken by opening, or minted by one writer and opened by one or several
//! others.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use proptest::prelude::*;
use tidemill_log::failpoint::Point;
use xxhash_rust::xxh3::xxh3_64;

use super::*;

const WRITERS: usize = 3;

/// What becomes of the store operation that a writer waits with.
enum Permit {
    Go,
    /// It takes place, and the writer hears of an error.
    Lost,
    /// It does not take place: the process died.
    Die,
}

#[derive(Debug, Clone)]
enum Action {
    Open,
    Mint,
    OpenMinted(Claim),
    Bind(Binding),
    Checkpoint(Checkpointed),
    Truncate(Epoch),
}

enum Event {
    /// The writer waits with a store operation.
    Waits,
    /// Its action is done; what it found when it opened.
    Done(Result<Option<Standing>>),
}

/// A store that waits before every operation.
struct Stepped {
    inner: Arc<dyn Store>,
    events: Sender<Event>,
    permits: Mutex<Receiver<Permit>>,
    dead: AtomicBool,
}

impl Stepped {
    fn step<T>(&self, operation: impl FnOnce(&dyn Store) -> Result<T>) -> Result<T> {
        let error = |what| Error::new(Kind::Retry, what);
        if self.dead.load(Ordering::Relaxed) || self.events.send(Event::Waits).is_err() {
            return Err(error("dead"));
        }
        match self.permits.lock().unwrap().recv() {
            Ok(Permit::Go) => operation(&*self.inner),
            Ok(Permit::Lost) => operation(&*self.inner).and_then(|_| Err(error("lost"))),
            Ok(Permit::Die) | Err(_) => {
                self.dead.store(true, Ordering::Relaxed);
                Err(error("dies"))
            }
        }
    }
}

impl Store for Stepped {
    fn get(&self, name: &str) -> Result<Option<Vec<u8>>> {
        self.step(|store| store.get(name))
    }
    fn get_range(&self, name: &str, range: std::ops::Range<u64>) -> Result<Vec<u8>> {
        self.step(|store| store.get_range(name, range))
    }
    fn put(&self, name: &str, bytes: Vec<u8>) -> Result<()> {
        self.step(|store| store.put(name, bytes))
    }
    fn put_new(&self, name: &str, bytes: Vec<u8>) -> Result<bool> {
        self.step(|store| store.put_new(name, bytes))
    }
    fn list(&self, folder: &str) -> Result<Vec<(String, u64)>> {
        self.step(|store| store.list(folder))
    }
    fn delete(&self, name: &str) -> Result<()> {
        self.step(|store| store.delete(name))
    }
    fn delete_all(&self, names: &[String], _between: Point) -> Result<()> {
        // In any order, as several requests at a time are.
        let mut names: Vec<&String> = names.iter().collect();
        names.sort_by_key(|name| (xxh3_64(name.as_bytes()), *name));
        names.into_iter().try_for_each(|name| self.delete(name))
    }
}

/// A writer's process.
fn write(store: &Arc<Stepped>, actions: &Receiver<Action>) {
    let mut journal: Option<Journal> = None;
    let shared = || -> Arc<dyn Store> { Arc::<Stepped>::clone(store) };
    while let Ok(action) = actions.recv() {
        store.dead.store(false, Ordering::Relaxed);
        let outcome = match (action, &journal) {
            (Action::Open, _) => Journal::open(shared(), "job").map(|(opened, standing)| {
                journal = Some(opened);
                Some(standing)
            }),
            (Action::Mint, _) => {
                Journal::take_over(shared(), "job", NOBODY).map(|(_, standing)| Some(standing))
            }
            (Action::OpenMinted(claim), _) => {
                Journal::open_minted(shared(), "job", &claim).map(|(opened, standing)| {
                    journal = Some(opened);
                    Some(standing)
                })
            }
            (Action::Bind(binding), Some(journal)) => journal.bind(&binding).map(|()| None),
            (Action::Checkpoint(it), Some(journal)) => journal.checkpoint(&it).map(|()| None),
            (Action::Truncate(epoch), Some(journal)) => journal.truncate(epoch).map(|()| None),
            (_, None) => unreachable!("the schedule opens first"),
        };
        if store.events.send(Event::Done(outcome)).is_err() {
            break;
        }
    }
}

/// A writer as the schedule sees it.
struct Writer {
    actions: Sender<Action>,
    permits: Sender<Permit>,
    events: Receiver<Event>,
    /// What it does now, and whether it was overtaken before it began.
    doing: Option<(Action, bool)>,
    /// Its generation, when it has the journal open.
    generation: Option<u64>,
    last_epoch: Epoch,
    last_checkpoint: Epoch,
    /// A binding whose outcome it does not know, which it must give again.
    pending: Option<Binding>,
    /// Generations that it wants to open and does not know whether it did.
    claims: BTreeMap<u64, Claim>,
}

/// What must hold.
#[derive(Default)]
struct Model {
    /// Every binding ever tried has a partition of its own; its epoch.
    epochs: BTreeMap<u32, Epoch>,
    /// Bindings that were acknowledged, and by which generation; checkpoints likewise.
    acknowledged: BTreeMap<u32, u64>,
    checkpoints: BTreeMap<Epoch, u64>,
    /// The greatest epoch that anyone began to truncate at.
    truncated: Epoch,
    /// What each generation found.
    opened: BTreeMap<u64, BTreeSet<u32>>,
    /// Those that were minted, and those of them that somebody writes as.
    minted: Vec<u64>,
    claimed: BTreeSet<u64>,
}

fn partitions(binding: &Binding) -> BTreeSet<u32> {
    binding
        .ends
        .values()
        .flat_map(|ends| ends.keys().copied())
        .collect()
}

impl Model {
    /// Checks what a reader found; the partitions in it.
    fn check(&self, standing: &Standing) -> BTreeSet<u32> {
        let mut all = BTreeSet::new();
        for (index, binding) in standing.bindings.iter().enumerate() {
            let here = partitions(binding);
            let merged = index == 0 && binding.epoch <= self.truncated;
            for partition in &here {
                let epoch = self.epochs[partition];
                assert!(epoch == binding.epoch || merged && epoch < binding.epoch);
                assert!(all.insert(*partition), "{partition} is bound twice");
            }
            assert!(
                here.len() == 1 || merged,
                "{binding:?} was merged for no reason"
            );
        }
        let epochs = standing.bindings.iter().map(|binding| binding.epoch);
        assert!(epochs.is_sorted_by(|a, b| a < b), "{standing:?}");
        // Whoever opened before may hear of it after others went on.
        let before = |by: &u64| *by < standing.generation;
        for (partition, _) in self.acknowledged.iter().filter(|(_, by)| before(by)) {
            assert!(
                all.contains(partition),
                "{partition} was lost: {standing:?}"
            );
        }
        let kept: BTreeSet<_> = standing.checkpoints.iter().map(|it| it.epoch).collect();
        let checkpoints = self.checkpoints.range(self.truncated..);
        for (checkpoint, _) in checkpoints.filter(|(_, by)| before(by)) {
            assert!(
                kept.contains(checkpoint),
                "checkpoint {checkpoint} was lost"
            );
        }
        for (generation, found) in &self.opened {
            let (less, more) = if before(generation) {
                (found, &all)
            } else {
                (&all, found)
            };
            assert!(
                less.is_subset(more),
                "what was read once is gone: {standing:?}"
            );
        }
        all
    }

    /// Begins an action of a writer that does nothing now.
    fn action(&mut self, writer: &mut Writer, choice: u8) -> Action {
        let Some(_) = writer.generation.filter(|_| choice >= 8) else {
            (writer.generation, writer.pending) = (None, None);
            return self.opening(writer, usize::from(choice));
        };
        match choice {
            8..=160 => {
                let partition = self.epochs.len() as u32;
                let binding = writer.pending.take().unwrap_or_else(|| {
                    let epoch = writer.last_epoch + 1 + u64::from(choice % 2);
                    self.epochs.insert(partition, epoch);
                    binding(epoch, &[("t", partition, 1)])
                });
                writer.last_epoch = binding.epoch;
                writer.pending = Some(binding.clone());
                Action::Bind(binding)
            }
            161..=200 => {
                writer.last_checkpoint = writer.last_checkpoint.max(writer.last_epoch);
                Action::Checkpoint(checkpoint(writer.last_checkpoint))
            }
            _ => {
                let epoch = writer.last_epoch.saturating_sub(u64::from(choice % 4));
                self.truncated = self.truncated.max(epoch);
                Action::Truncate(epoch)
            }
        }
    }

    /// One of the ways to become the writer, or to make another one.
    fn opening(&self, writer: &mut Writer, choice: usize) -> Action {
        match choice % 4 {
            0 | 1 if !self.minted.is_empty() => {
                // Mostly the newest.
                let back = (choice / 4 % 4).saturating_sub(1) % self.minted.len();
                let generation = self.minted[self.minted.len() - 1 - back];
                let claim = writer.claims.entry(generation);
                Action::OpenMinted(*claim.or_insert_with(|| Claim::of(generation)))
            }
            0..=2 => Action::Mint,
            _ => Action::Open,
        }
    }

    /// Judges how an action ended.
    fn done(&mut self, writer: &mut Writer, outcome: Result<Option<Standing>>) {
        let (action, overtaken) = writer.doing.take().unwrap();
        let found = match outcome {
            Ok(found) => found,
            Err(error) => {
                assert!(
                    matches!(error.kind(), Kind::Fence | Kind::Retry),
                    "{action:?}: {error}"
                );
                if error.kind() == Kind::Fence || error.to_string() == "dies" {
                    writer.generation = None;
                    writer.claims.clear();
                }
                return;
            }
        };
        assert!(!overtaken, "{action:?} of a generation that was taken over");
        match action {
            Action::Open => {
                let standing = found.unwrap();
                let all = self.check(&standing);
                writer.generation = Some(standing.generation);
                writer.last_epoch = standing.last_epoch();
                writer.last_checkpoint = standing.checkpoints.last().map_or(0, |it| it.epoch);
                let before = self.opened.insert(standing.generation, all);
                assert!(
                    before.is_none(),
                    "two are generation {}",
                    standing.generation
                );
            }
            Action::Mint => {
                let standing = found.unwrap();
                let all = self.check(&standing);
                let before = self.opened.insert(standing.generation, all);
                assert!(before.is_none(), "{} is minted twice", standing.generation);
                self.minted.push(standing.generation);
            }
            Action::OpenMinted(claim) => {
                let standing = found.unwrap();
                assert_eq!(standing.generation, claim.generation);
                let all = self.check(&standing);
                assert_eq!(self.opened[&claim.generation], all);
                assert!(
                    self.claimed.insert(claim.generation),
                    "two opened {claim:?}"
                );
                writer.claims.clear();
                writer.generation = Some(standing.generation);
                writer.last_epoch = standing.last_epoch();
                writer.last_checkpoint = standing.checkpoints.last().map_or(0, |it| it.epoch);
            }
            Action::Bind(binding) => {
                writer.pending = None;
                let mine = writer.generation.unwrap();
                let here = partitions(&binding);
                for (_, found) in self.opened.range(mine + 1..) {
                    assert!(
                        here.is_subset(found),
                        "{binding:?} came after it was taken over"
                    );
                }
                self.acknowledged
                    .extend(here.into_iter().map(|partition| (partition, mine)));
            }
            Action::Checkpoint(it) => {
                let by = self.checkpoints.entry(it.epoch).or_insert(u64::MAX);
                *by = writer.generation.unwrap().min(*by);
            }
            Action::Truncate(_) => {}
        }
    }

    /// Lets one writer go on by one store operation, or begin something.
    fn step(&mut self, writer: &mut Writer, choice: u8) {
        if writer.doing.is_some() {
            let permit = match choice {
                0..=210 => Permit::Go,
                211..=235 => Permit::Lost,
                _ => Permit::Die,
            };
            writer.permits.send(permit).unwrap();
        } else {
            let action = self.action(writer, choice);
            let newest = self
                .opened
                .last_key_value()
                .map(|(generation, _)| *generation);
            let as_whom = match &action {
                Action::OpenMinted(claim) => Some(claim.generation),
                _ => writer.generation,
            };
            let overtaken = as_whom.is_some() && as_whom < newest;
            writer.doing = Some((action.clone(), overtaken));
            writer.actions.send(action).unwrap();
        }
        match writer.events.recv().unwrap() {
            Event::Waits => {}
            Event::Done(outcome) => self.done(writer, outcome),
        }
    }
}

fn run(schedule: &[(usize, u8)]) {
    let place = in_memory();
    let store = directory(&place);
    let mut model = Model::default();
    std::thread::scope(|scope| {
        let mut writers: Vec<Writer> = (0..WRITERS)
            .map(|_| {
                let (actions, to_do) = channel();
                let (permits, permitted) = channel();
                let (tell, events) = channel();
                let stepped = Arc::new(Stepped {
                    inner: Arc::clone(&store),
                    events: tell,
                    permits: Mutex::new(permitted),
                    dead: AtomicBool::new(false),
                });
                scope.spawn(move || write(&stepped, &to_do));
                Writer {
                    actions,
                    permits,
                    events,
                    doing: None,
                    generation: None,
                    last_epoch: 0,
                    last_checkpoint: 0,
                    pending: None,
                    claims: BTreeMap::new(),
                }
            })
            .collect();
        for (writer, choice) in schedule {
            model.step(&mut writers[*writer], *choice);
        }
    });
    let (judge, standing) = Journal::open(Arc::clone(&store), "job").unwrap();
    let all = model.check(&standing);
    let end = standing.last_epoch() + 1;
    judge.bind(&binding(end, &[])).unwrap();
    judge.bind(&binding(end + 1, &[])).unwrap();
    judge.truncate(end + 1).unwrap();
    let last = read(&store);
    assert_eq!(last.bindings.len(), 1);
    assert_eq!(partitions(&last.bindings[0]), all);
    assert_eq!(
        store.list("job").unwrap().len(),
        1,
        "leftovers are tidied up"
    );
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 400,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn no_order_of_their_steps_loses_a_binding_or_lets_a_fenced_writer_succeed(
        schedule in prop::collection::vec((0..WRITERS, any::<u8>()), 20..220),
    ) {
        run(&schedule);
    }

    /// One writer runs long while the others wake up only now and then.
    #[test]
    fn nor_does_a_writer_that_wakes_up_late(
        schedule in prop::collection::vec((0..WRITERS, any::<u8>(), 1..25_usize), 10..40),
    ) {
        let steps = schedule.into_iter().flat_map(|(writer, choice, times)| {
            // Mostly going on: the first step chooses an action, the others let it happen.
            std::iter::once((writer, choice)).chain((1..times).map(move |step| {
                (writer, choice.wrapping_mul(7).wrapping_add(step as u8 * 31) % 211)
            }))
        });
        run(&steps.collect::<Vec<_>>());
    }
}
