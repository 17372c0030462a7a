//! Every scalar function, operator and cast that views accept, against PostgreSQL.
//!
//! The table of `tidemill_functions` is gone through, so that a new entry is tested without being
//! remembered: each is called over columns of edge values and over literals, alone and nested in
//! others, and every row must have PostgreSQL's value, or fail where PostgreSQL fails. The values
//! are PostgreSQL's own text of its own answers; nothing is computed twice by one code. The seed is
//! printed; `TIDEMILL_TEST_SEED` repeats a run.

mod calls;
mod cases;
mod edges;
mod judge;
mod listed;
mod matrix;

use judge::{Judge, Outcome};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tidemill_functions::{Kind, supported};

/// Calls of each entry.
const CALLS: usize = 4;
/// Of a run that none is given to: the same for all, so that a change of ours is what fails.
const SEED: u64 = 20_261_128;
/// Nested expressions.
const NESTED: usize = 400;

fn seed() -> u64 {
    let given = std::env::var("TIDEMILL_TEST_SEED").ok();
    given.map_or(SEED, |seed| seed.parse().unwrap())
}

#[test]
fn every_entry_gives_postgresqls_answer() {
    let seed = seed();
    let mut rng = StdRng::seed_from_u64(seed);
    let Some(mut judge) = Judge::connect(&mut rng) else {
        return;
    };
    eprintln!("TIDEMILL_TEST_SEED={seed}");
    let mut wrong = Vec::new();
    let (mut compared, mut narrower) = (0, 0);
    for entry in supported() {
        for _ in 0..calls::variants(&entry, CALLS) {
            let Some(call) = calls::call(&entry, &mut rng) else {
                continue;
            };
            match (judge.compare(&call), entry.refused) {
                (Outcome::Refused(_) | Outcome::Compared { rows: 0, .. }, Some(_)) => {}
                // Of intervals, the library reads fewer forms.
                (Outcome::Refused(why), _) if why.contains("for type interval") => {}
                // A literal that it does not take is refused at once.
                (Outcome::Refused(_), None) if entry.narrower => narrower += 1,
                (Outcome::Refused(why), None) => wrong.push(format!("{call}: refused: {why}")),
                (_, Some(_)) => wrong.push(format!("{call}: is not refused")),
                (Outcome::Compared { rows, differences }, None) => {
                    compared += rows;
                    let counts = |d: &judge::Difference| !(entry.narrower && d.only_ours_fails());
                    let found = differences.iter().find(|d| counts(d));
                    wrong.extend(found.map(|difference| format!("{call}: {difference}")));
                }
            }
        }
    }
    eprintln!("{compared} values compared, {narrower} calls refused for a literal");
    assert!(compared > 10_000 && narrower < 60, "{compared}, {narrower}");
    assert!(
        wrong.is_empty(),
        "seed {seed}: {}:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn nested_expressions_give_postgresqls_answer() {
    let seed = seed();
    let mut rng = StdRng::seed_from_u64(seed);
    let Some(mut judge) = Judge::connect(&mut rng) else {
        return;
    };
    eprintln!("TIDEMILL_TEST_SEED={seed}");
    let table = supported();
    let mut wrong = Vec::new();
    let (mut compared, mut refused) = (0, 0);
    for _ in 0..NESTED {
        let kind = Kind::ALL[rng.random_range(0..Kind::ALL.len() - 1)];
        let depth = rng.random_range(2..4);
        let nested = calls::nested(&table, kind, depth, &mut rng);
        match judge.compare(&nested) {
            Outcome::Refused(_) => refused += 1,
            Outcome::Compared { rows, differences } => {
                compared += rows;
                // A part that is narrower fails rows that PostgreSQL evaluates.
                let found = differences.iter().find(|d| !d.only_ours_fails());
                wrong.extend(found.map(|difference| format!("{nested}: {difference}")));
            }
        }
    }
    eprintln!("{compared} values compared, {refused} of {NESTED} expressions refused");
    assert!(refused < NESTED / 2, "{refused} refused");
    assert!(
        wrong.is_empty(),
        "seed {seed}: {}:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}
