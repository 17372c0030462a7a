//! Everything is killed again and again, at random moments, while everything changes.
//!
//! Users are fetched, two tables change, views are kept: a join, the first rows of each group,
//! aggregates, and all users. Meanwhile ingest, the processes of the dataflow, Kafka, Cassandra,
//! PostgreSQL and the registry are killed or made to stand still, several of them at a time as it
//! comes. What was killed is started again, as whoever operates it would. Invariants: (1) no
//! process of ours ends by itself, but for one whose peer was killed; (2) whenever the changes
//! stop, every view becomes what PostgreSQL itself answers to the view's SQL; (3) the topics hold
//! each change once and in order; (4) nothing is put aside as a dead letter.
//!
//! `TIDEMILL_TORTURE_KILLS` says how many kills; `TIDEMILL_TEST_SEED` repeats the draw.

mod fleet;
mod load;
mod pipeline;

use std::time::Instant;

use fleet::Fleet;
use load::Load;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::harness::own::Own;
use crate::harness::{Place, seed};

/// Kills, unless the environment says otherwise.
const KILLS: usize = 25;
/// After so many kills the changes stop and the views are compared.
const ROUND: usize = 25;

#[test]
fn torture() {
    let _alone = crate::ALONE.lock();
    let test = "torture";
    let kills = std::env::var("TIDEMILL_TORTURE_KILLS").ok();
    let kills = kills.map_or(KILLS, |kills| kills.parse().unwrap());
    let mut random = StdRng::seed_from_u64(seed(test));
    let services = ["postgres", "kafka", "registry", "cassandra"];
    let began = Instant::now();
    let Some(own) = Own::start(test, &services) else {
        return;
    };
    let [database, log, registry, cassandra] = services.map(|name| own.url(name));
    let place = Place::on(test, database, log, registry, &cassandra);
    pipeline::write(&place);
    let load = Load::start(&place.database, random.random());
    let mut fleet = Fleet::start(place, own, load.api_url(), random);
    let mut killed = 0;
    while killed < kills {
        let round = ROUND.min(kills - killed);
        fleet.torture(round);
        killed += round;
        let still = load.stop(|| fleet.tend());
        let rows = fleet.settle();
        drop(still);
        fleet.say(&format!("after {killed} kills all views are right: {rows}"));
    }
    fleet.end();
    fleet.say(&format!(
        "{killed} kills and {} pauses in {} s",
        fleet.pauses(),
        began.elapsed().as_secs()
    ));
}
