//! Random tables of all types under random changes of their rows and their definitions, while the
//! pipeline runs and while it was killed; at rest every view is what PostgreSQL answers to its SQL.
//!
//! A round is a pipeline of [`TABLES`] tables in a database of its own. Its seed is printed:
//! `TIDEMILL_TEST_SEED` repeats it, and `TIDEMILL_TEST_ROUNDS` says how many rounds there are, the
//! seed growing by one with each. What a round asks of PostgreSQL is the same each time; how far
//! the pipeline is meanwhile is not.

mod judge;
mod kinds;
mod rows;
mod table;
mod views;

use std::ops::Range;
use std::time::{Duration, Instant};

use judge::{Awaited, Judge};
use rand::rngs::StdRng;
use rand::seq::{IteratorRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use table::Table;
use views::View;

use crate::harness::{Place, Process};
use crate::types::kinds::SETUP;
use crate::types::sink::Sink;
use crate::types::source::Source;

/// Of a run that none is given to: the same for all, so that a change of ours is what fails.
const SEED: u64 = 20_261_128;
/// Tables of a round.
const TABLES: usize = 100;
/// Rounds with everything but PostgreSQL in one file. Set for a longer run.
const ROUNDS: &str = "TIDEMILL_TEST_ROUNDS";
/// Rounds of a run that none is given to.
const ROUNDS_BY_DEFAULT: u64 = 20;
/// How many tests share the rounds.
const SHARES: u64 = 4;
/// Tables of the round on the real services, where each costs a topic and three tables.
const TABLES_ON_SERVICES: usize = 8;
/// Starts of a job until it fits its tables again, each of which may end it once.
const STARTS: usize = 20;
/// How long a pipeline may run on over tables that were altered loudly, until it is started anew.
const ENDS_WITHIN: Duration = Duration::from_secs(3);
/// Between two looks at the views.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Views that are found unlike in one look.
const UNLIKE_MAX: usize = 8;
/// As long as a busy machine takes; what is right ends at once.
const PATIENCE: Duration = Duration::from_secs(300);

/// Why a pipeline may end, as docs/schema-changes.md says, and be started again.
const ENDS: [&str; 8] = [
    // The job, whose plan is for other columns.
    "has another type",
    "is gone",
    "is now",
    "the key of",
    "another key",
    // The job that was planned before the ingest had read a table anew.
    "planned",
    // The ingest, whose registry takes no such schema.
    "--resnapshot",
    // The ingest, which does not get the old keys.
    IDENTITY,
];

/// What a table needs whose replica identity was the index of a key that is no more.
const IDENTITY: &str = "REPLICA IDENTITY FULL";

/// One round's pipeline.
struct Round {
    place: Place,
    source: Source,
    sink: Sink,
    judge: Judge,
    tables: Vec<Table>,
    views: Vec<Vec<View>>,
    rng: StdRng,
    run: Option<Process>,
    starts: usize,
    /// Whether no record may have been put aside.
    unaltered: bool,
}

impl Round {
    fn new(mut place: Place, tables: usize, seed: u64) -> Option<Self> {
        let mut source = Source::new("random")?;
        let mut rng = StdRng::seed_from_u64(seed);
        place.reach("--postgres", &source.url);
        // Nothing is lost that a test needs.
        source.run("SET synchronous_commit = off; SET client_min_messages = warning");
        source.run(SETUP);
        let plain = place.sink.starts_with("cassandra:");
        let tables = (0..tables).map(|number| Table::new(number, plain, &mut rng));
        let mut round = Self {
            sink: Sink::open(&place.sink),
            judge: Judge::default(),
            tables: tables.collect(),
            views: Vec::new(),
            run: None,
            starts: 0,
            unaltered: true,
            place,
            source,
            rng,
        };
        for number in 0..round.tables.len() {
            let create = round.tables[number].create(&mut round.rng);
            assert!(round.execute(number, &create), "{create}");
        }
        round.views.resize_with(round.tables.len(), Vec::new);
        round.plan_all();
        let compatibility = ["none", "registry"][usize::from(round.rng.random_ratio(1, 4))];
        let names: Vec<String> = round.tables.iter().map(Table::name).collect();
        let partitions = round.rng.random_range(1..=3);
        let text = format!(
            "[capture]\ntables = {names:?}\n[publish]\ntopic_prefix = \"{}.\"\n\
             compatibility = \"{compatibility}\"\npartitions = {partitions}\n",
            round.place.name
        );
        round.place.write("ingest.toml", &text);
        Some(round)
    }

    /// Runs SQL about a table; false when PostgreSQL refuses it, which then changed nothing.
    fn execute(&mut self, table: usize, sql: &str) -> bool {
        let done = self.source.client.batch_execute(sql);
        if done.is_err() && sql.contains("BEGIN") {
            self.source.run("ROLLBACK");
        }
        let outcome = done.as_ref().err().map(|error| {
            let error = error.as_db_error();
            format!(" -- refused: {}", error.map_or("", |it| it.message()))
        });
        self.tables[table]
            .log
            .push(format!("{sql}{}", outcome.unwrap_or_default()));
        done.is_ok()
    }

    /// Writes `views.sql` of the tables as they are: other views over those that were altered.
    fn plan_all(&mut self) {
        let first = self.judge.is_new();
        let all = self.tables.len();
        for number in 0..all {
            let beside = (number + 1) % all;
            if first || self.tables[number].altered || self.tables[beside].altered {
                let (table, other) = (&self.tables[number], &self.tables[beside]);
                let mut views = table.views(other, &mut self.rng);
                views.retain(|view| self.judge.takes(view, &mut self.source));
                self.views[number] = views;
            }
        }
        let mut sql = String::new();
        for table in &mut self.tables {
            table.altered = false;
            let name = table.name();
            sql += &format!(
                "CREATE TABLE {name} WITH (topic = '{}.{name}');\n",
                self.place.name
            );
        }
        for view in self.views.iter().flatten() {
            sql += &view.statement();
        }
        self.place.write("views.sql", &sql);
    }

    fn start(&mut self, more: &[&str]) {
        self.starts += 1;
        assert!(
            self.starts <= STARTS,
            "the pipeline does not come to run: {}",
            self.said()
        );
        let more = [more, &["--no-live"]].concat();
        self.run = Some(self.place.start("run", &more));
    }

    fn said(&self) -> String {
        self.run.as_ref().map(Process::said).unwrap_or_default()
    }

    /// Some changes of the rows of each table, those of all tables mixed.
    fn change(&mut self, each: usize) {
        let numbers = (0..self.tables.len()).flat_map(|number| std::iter::repeat_n(number, each));
        let mut numbers: Vec<usize> = numbers.collect();
        numbers.shuffle(&mut self.rng);
        for number in numbers {
            let sql = self.tables[number].change(&mut self.rng);
            self.execute(number, &sql);
        }
    }

    /// Changes of definitions that the pipeline goes on over, between changes of rows.
    fn alter(&mut self) {
        for number in 0..self.tables.len() {
            if self.rng.random_ratio(1, 2) {
                let ddl = self.tables[number].quiet(&mut self.rng);
                if self.execute(number, &ddl.sql) {
                    (ddl.apply)(&mut self.tables[number]);
                }
                let sql = self.tables[number].change(&mut self.rng);
                self.execute(number, &sql);
            }
        }
    }

    /// Changes of some tables' definitions that need other views, or other types of columns.
    fn alter_loudly(&mut self, tables: usize) {
        self.unaltered = false;
        let numbers = (0..self.tables.len()).choose_multiple(&mut self.rng, tables);
        for number in numbers {
            let before = self.tables[number].shape();
            let Some(sql) = self.tables[number].loud(&mut self.rng) else {
                continue;
            };
            match self.execute(number, &sql) {
                true => self.tables[number].altered = true,
                false => self.tables[number].reshape(before),
            }
            let sql = self.tables[number].insert(2, &mut self.rng);
            self.execute(number, &sql);
        }
        self.plan_all();
    }

    /// Waits until every view is what PostgreSQL answers; starts the pipeline again where it ended
    /// as it should.
    fn is_right(&mut self, what: &str) {
        let views: Vec<&View> = self.views.iter().flatten().collect();
        let all = views.len();
        let mut left = self.judge.answers(&views, &mut self.source);
        let mut deadline = Instant::now() + PATIENCE;
        let (began, mut began_anew) = (Instant::now(), false);
        loop {
            let connection = self.sink.connection();
            let mut unlike = 0;
            // While some are not right, the others need not be looked at.
            left.retain(|view| {
                unlike >= UNLIKE_MAX || {
                    let differs = view.differs(&self.sink, connection.as_ref()).is_some();
                    unlike += usize::from(differs);
                    differs
                }
            });
            if left.is_empty() {
                break;
            }
            if self.run.as_mut().is_some_and(|run| run.ended().is_some()) {
                self.follow();
                deadline = Instant::now() + PATIENCE;
            }
            if Instant::now() > deadline {
                // A record that the plan of before did not hold was put aside meanwhile.
                let anew = !self.unaltered && !began_anew;
                if !anew || self.place.dead_letters().is_empty() {
                    self.fail(what, &left);
                }
                began_anew = true;
                self.stop();
                self.start(&[]);
                deadline = Instant::now() + PATIENCE;
            }
            std::thread::sleep(LOOK_EVERY);
        }
        eprintln!(
            "  {all} views are right, {what}, after {:?}",
            began.elapsed()
        );
        if self.unaltered {
            let letters = self.place.dead_letters();
            assert!(
                letters.is_empty(),
                "{what}: {} dead letters: {:?}",
                letters.len(),
                letters[0]
            );
        }
    }

    /// Starts the pipeline with the new `views.sql`, as a user does, unless it ends because of the
    /// altered tables. A table that only got more columns ends nothing.
    fn start_with_new_views(&mut self) {
        let deadline = Instant::now() + ENDS_WITHIN;
        while Instant::now() < deadline {
            if self.run.as_mut().is_some_and(|run| run.ended().is_some()) {
                return;
            }
            std::thread::sleep(LOOK_EVERY);
        }
        self.kill();
        self.start(&[]);
    }

    /// Starts the pipeline again as what it said last asks for.
    fn follow(&mut self) {
        let said = self.said();
        let last = said.lines().rev().take(3).collect::<Vec<_>>();
        let known = ENDS
            .iter()
            .any(|end| last.iter().any(|line| line.contains(end)));
        // Whose key was dropped and added again has lost its index as the identity.
        let identity = last.iter().any(|line| line.contains(IDENTITY));
        assert!(
            known && (!self.unaltered || identity),
            "the pipeline ended:\n{said}"
        );
        eprintln!("  ended: {}", last.first().unwrap_or(&"").trim());
        self.obey(&last.join("\n"));
        let resnapshot = last.iter().any(|line| line.contains("--resnapshot"));
        self.start(if resnapshot { &["--resnapshot"] } else { &[] });
    }

    /// Runs the SQL that a message asks for, up to its semicolon or its end.
    fn obey(&mut self, message: &str) {
        for asked in message
            .split("; run ")
            .skip(1)
            .filter(|it| it.starts_with("ALTER TABLE"))
        {
            let sql = asked.split(['\n', ';']).next().unwrap();
            self.source.run(sql);
        }
    }

    fn stop(&mut self) {
        if let Some(mut run) = self.run.take() {
            run.stop("TERM");
        }
    }

    fn kill(&mut self) {
        if let Some(run) = self.run.take() {
            run.kill();
        }
    }

    /// Says all that is known of the first view that is not right.
    fn fail(&mut self, what: &str, left: &[Awaited]) -> ! {
        let view = &left[0];
        let at = self
            .views
            .iter()
            .position(|views| views.iter().any(|it| it.name == view.name));
        let table = &self.tables[at.unwrap()];
        let letters = self.place.dead_letters();
        panic!(
            "{what}: {} views are not what PostgreSQL answers; `{}` AS {}:{}\n{}\n{} dead \
             letters\n{}",
            left.len(),
            view.name,
            view.sql,
            view.differs(&self.sink, self.sink.connection().as_ref())
                .unwrap_or_default(),
            table.log.join(";\n"),
            letters.len(),
            self.said()
        );
    }

    /// Everything that happens to the tables of a round.
    fn play(&mut self) {
        self.change(6);
        self.start(&[]);
        self.change(3);
        self.is_right("filled");
        self.alter();
        self.change(2);
        let killed = self.rng.random_ratio(1, 2);
        if killed {
            self.kill();
        }
        self.alter();
        self.change(1);
        if killed {
            self.start(&[]);
        }
        self.is_right("altered");
        let few = self.tables.len() / 5;
        match self.rng.random_ratio(1, 3) {
            true => {
                self.alter_loudly(3);
                self.start_with_new_views();
            }
            false => {
                self.kill();
                self.alter_loudly(few);
                self.start(&[]);
            }
        }
        self.change(2);
        self.is_right("planned anew");
        self.stop();
        self.sink.drop_all();
    }
}

fn seed() -> u64 {
    let given = std::env::var("TIDEMILL_TEST_SEED").ok();
    given.map_or(SEED, |seed| seed.parse().unwrap())
}

/// Runs the rounds of these seeds, one after the other.
fn rounds(name: &str, tables: usize, seeds: Range<u64>, place: impl Fn() -> Option<Place>) {
    for seed in seeds {
        let began = Instant::now();
        eprintln!("{name}: TIDEMILL_TEST_SEED={seed} {ROUNDS}=1");
        let Some(mut round) = place().and_then(|place| Round::new(place, tables, seed)) else {
            return;
        };
        round.play();
        eprintln!(
            "{name}: {tables} tables, {} starts, {:?}",
            round.starts,
            began.elapsed()
        );
    }
}

/// Runs one share of the rounds. The shares are tests of their own, so that they run side by side.
fn share(number: u64) {
    let given = std::env::var(ROUNDS).ok();
    let all = given.map_or(ROUNDS_BY_DEFAULT, |rounds| rounds.parse().unwrap());
    let first = |share: u64| seed() + all * share / SHARES;
    let seeds = first(number)..first(number + 1);
    rounds("random tables", TABLES, seeds, || {
        Some(Place::embedded("random"))
    });
}

#[test]
fn random_tables_are_what_postgresql_says_1() {
    share(0);
}

#[test]
fn random_tables_are_what_postgresql_says_2() {
    share(1);
}

#[test]
fn random_tables_are_what_postgresql_says_3() {
    share(2);
}

#[test]
fn random_tables_are_what_postgresql_says_4() {
    share(3);
}

#[test]
fn random_tables_are_what_postgresql_says_on_the_services() {
    rounds(
        "random tables on the services",
        TABLES_ON_SERVICES,
        seed()..seed() + 1,
        || Place::services("random"),
    );
}
