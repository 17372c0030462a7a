//! Regression tests: schedules in which a component once made a wrong transition.

use std::sync::Arc;

use tidemill_protocol::{
    Exit, JobSpec, Part, Phase, ProcessAssignment, ProcessKey, ProcessReport, Report,
};

use super::Stage;
use crate::machine::State;
use crate::machine::durable::Durable;
use crate::machine::event::{Action, Command, Event, Minted, Unminted};

/// A master with two workers of one slot each, and what it wants done.
struct Cluster {
    state: State,
    now: u64,
    sequence: u64,
    /// What is not answered yet.
    mints: usize,
    writes: Vec<(u64, Durable)>,
}

const WORKERS: [&str; 2] = ["a", "b"];

impl Cluster {
    fn take_over(durable: Durable, generation: u64, now: u64) -> Self {
        let mut durable = durable;
        (durable.by.generation, durable.by.number) = (generation, generation);
        Self {
            state: State::new(durable, now),
            now,
            sequence: 0,
            mints: 0,
            writes: Vec::new(),
        }
    }

    /// With the job live in generation 1.
    fn running() -> Self {
        let mut it = Self::take_over(Durable::default(), 1, 0);
        it.tell(Event::Command {
            request: 1,
            command: Command::Submit(spec(0)),
        });
        WORKERS.iter().for_each(|id| it.report(id, &[]));
        it.now += 3000;
        it.tell(Event::Tick);
        it.write();
        it.minted(1);
        it.write();
        it.report("a", &[(0, Phase::Live)]);
        it.report("b", &[(1, Phase::Live)]);
        assert!(matches!(it.stage(), Stage::Running(_)), "{:?}", it.stage());
        it
    }

    fn tell(&mut self, event: Event) {
        self.now += 1;
        for action in self.state.next(event, self.now) {
            match action {
                Action::Write { number, document } => self.writes.push((number, document)),
                Action::Mint { .. } => self.mints += 1,
                Action::Reply { answer, .. } => drop(answer.unwrap()),
            }
        }
    }

    /// All that is to be written is; the newest document.
    fn write(&mut self) -> Durable {
        while let Some((number, _)) = self.writes.pop() {
            self.tell(Event::Wrote(number));
        }
        self.state.written.clone()
    }

    fn command(&mut self, command: Command) {
        self.tell(Event::Command {
            request: 2,
            command,
        });
    }

    fn minted(&mut self, generation: u64) {
        assert_eq!(self.mints, 1);
        self.mints -= 1;
        let secret = "0f".to_owned();
        self.tell(Event::Minted {
            job: "one".to_owned(),
            minted: Ok(Minted { generation, secret }),
        });
    }

    fn report(&mut self, worker: &str, processes: &[(usize, Phase)]) {
        self.sequence += 1;
        let processes = processes.iter().map(|(index, phase)| ProcessReport {
            key: ProcessKey {
                job: "one".to_owned(),
                part: Part::Dataflow,
                generation: 1,
                index: *index,
            },
            phase: phase.clone(),
            beat: None,
        });
        self.tell(Event::Report(Report {
            worker: worker.to_owned(),
            sequence: self.sequence,
            name: worker.to_owned(),
            http: String::new(),
            slots: 1,
            version: String::new(),
            processes: processes.collect(),
        }));
    }

    fn stage(&self) -> &Stage {
        &self.state.components[&("one".to_owned(), Part::Dataflow)].stage
    }

    fn orders(&self) -> Vec<&ProcessAssignment> {
        let all = WORKERS.iter().filter_map(|id| self.state.orders.get(*id));
        all.flat_map(|orders| &orders.processes).collect()
    }
}

fn spec(version: usize) -> Arc<JobSpec> {
    Arc::new(JobSpec {
        name: "one".to_owned(),
        files: [("views.sql".to_owned(), version.to_string())].into(),
        connections: [].into(),
        workers: 2,
        wait_for_slots: true,
        ingest: false,
        flags: [].into(),
    })
}

fn stop() -> Command {
    Command::Stop("one".to_owned())
}

fn exited(code: i32) -> Phase {
    Phase::Exited(Exit {
        code: Some(code),
        signal: None,
        frozen: false,
        unreachable: Vec::new(),
        at_ms: 0,
        tail: Vec::new(),
    })
}

#[test]
fn a_drain_is_told_when_the_command_is_written_down_and_not_before() {
    let mut it = Cluster::running();
    it.command(stop());
    assert!(matches!(it.stage(), Stage::Draining(_)), "{:?}", it.stage());
    it.report("a", &[(0, Phase::Live)]);
    assert_eq!(it.orders().len(), 2);
    assert!(it.orders().iter().all(|order| !order.drain));
    it.write();
    assert!(it.orders().iter().all(|order| order.drain));
}

#[test]
fn a_process_that_saw_another_drain_before_it_was_told_itself_is_drained() {
    let mut it = Cluster::running();
    it.command(stop());
    it.write();
    it.report("a", &[(0, exited(0))]);
    it.report("b", &[(1, exited(3))]);
    let durable = it.write();
    assert_eq!(*it.stage(), Stage::Stopped);
    assert_eq!(durable.jobs["one"].dataflow.failures, []);
}

#[test]
fn a_process_that_fails_while_the_job_drains_is_named_and_not_one_that_drained() {
    let mut it = Cluster::running();
    it.command(stop());
    it.write();
    it.report("a", &[(0, exited(0))]);
    it.report("b", &[(1, exited(101))]);
    let durable = it.write();
    assert_eq!(*it.stage(), Stage::Stopped);
    let failures = &durable.jobs["one"].dataflow.failures;
    let said: Vec<_> = failures
        .iter()
        .map(|it| (&*it.process, &*it.what))
        .collect();
    assert_eq!(said, [("process 1 on b", "ended with 101")]);
}

#[test]
fn a_new_master_that_hears_of_one_drained_process_awaits_the_others() {
    let mut before = Cluster::running();
    before.command(stop());
    let durable = before.write();
    let mut it = Cluster::take_over(durable, 2, before.now);
    it.report("a", &[(0, exited(0))]);
    it.now += 700;
    it.tell(Event::Tick);
    assert!(matches!(it.stage(), Stage::Starting(_)), "{:?}", it.stage());
    it.report("b", &[(1, Phase::Live)]);
    assert!(matches!(it.stage(), Stage::Draining(_)), "{:?}", it.stage());
    it.report("b", &[(1, exited(0))]);
    let durable = it.write();
    assert_eq!(*it.stage(), Stage::Stopped);
    assert_eq!(durable.jobs["one"].dataflow.failures, []);
}

/// A master that waits for the journal.
fn minting() -> Cluster {
    let mut it = Cluster::take_over(Durable::default(), 1, 0);
    it.command(Command::Submit(spec(0)));
    WORKERS.iter().for_each(|id| it.report(id, &[]));
    it.now += 3000;
    it.tell(Event::Tick);
    it.write();
    assert_eq!(it.mints, 1);
    it
}

#[test]
fn what_is_minted_late_fences_nothing() {
    let mut it = minting();
    it.command(stop());
    it.command(Command::Submit(spec(0)));
    it.write();
    assert_eq!(
        it.mints, 1,
        "a second generation is asked for beside the first"
    );
    // Of the job as it was before: it may be another journal.
    it.minted(1);
    it.write();
    assert_eq!(it.mints, 1);
    it.minted(2);
    it.write();
    let generations = it
        .orders()
        .iter()
        .map(|it| it.key.generation)
        .collect::<Vec<_>>();
    assert_eq!(generations, [2, 2]);
}

#[test]
fn a_journal_is_asked_again_only_after_a_write() {
    let mut it = minting();
    it.mints = 0;
    it.tell(Event::Minted {
        job: "one".to_owned(),
        minted: Err(Unminted {
            what: "away".to_owned(),
            may_mend: true,
        }),
    });
    it.write();
    it.now += 1000;
    it.tell(Event::Tick);
    assert!(matches!(it.stage(), Stage::Minting(_)), "{:?}", it.stage());
    assert_eq!(it.mints, 0);
    it.write();
    assert_eq!(it.mints, 1);
}

#[test]
fn a_job_that_a_master_before_was_about_to_mint_for_can_be_removed() {
    let mut before = minting();
    let durable = before.write();
    assert!(durable.jobs["one"].dataflow.minting);
    let mut it = Cluster::take_over(durable, 2, before.now);
    it.command(stop());
    it.write();
    it.command(Command::Remove("one".to_owned()));
    assert_eq!(it.write().jobs.len(), 0);
}

#[test]
fn a_drained_worker_gets_nothing_until_it_is_undrained_and_another_master_knows_it() {
    let mut cluster = Cluster::running();
    cluster.command(Command::Drain("a".to_owned()));
    let written = cluster.write();
    assert!(written.drained.contains("a"));
    assert!(
        matches!(cluster.stage(), Stage::Draining(_)),
        "{:?}",
        cluster.stage()
    );
    let free = |cluster: &Cluster| -> Vec<String> {
        let free = cluster.state.free_for("other", Part::Dataflow);
        free.into_iter().map(|free| free.worker).collect()
    };
    assert_eq!(free(&cluster), ["b"]);
    // The next master has no reports yet, and forgets nothing.
    let mut next = Cluster::take_over(written, 2, cluster.now);
    next.sequence = cluster.sequence;
    next.tell(Event::Tick);
    WORKERS.iter().for_each(|id| next.report(id, &[]));
    assert_eq!(free(&next), ["b"]);
    next.command(Command::Undrain("a".to_owned()));
    assert_eq!(free(&next), ["a", "b"]);
    // A worker that is gone for good is forgotten.
    next.command(Command::Drain("a".to_owned()));
    for _ in 0..70 {
        next.now += 1000;
        next.report("b", &[]);
    }
    assert!(next.state.durable.drained.is_empty());
}
