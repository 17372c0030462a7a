//! The river on other services than the usual ones: other versions, Kafka with a ZooKeeper, and
//! clusters whose nodes are killed and come back under load. Afterwards every view is what
//! PostgreSQL answers, and every change was published once.
//!
//! By default the ZooKeeper and the usual services are tried; `./test --matrix` runs [`versions`]
//! on other versions, `./test --clusters` the clusters.

mod cassandra;
mod compatibility;
mod creation;
mod kafka;
mod load;
mod postgres;
mod versions;
mod zookeeper;

use crate::harness::own::Own;
use crate::harness::{Place, left_out};

/// Whether `./test` was asked for these tests, which take minutes. Says what is left out.
fn asked(what: &str, test: &str) -> bool {
    let asked = std::env::var(format!("TIDEMILL_TEST_{what}")).is_ok();
    if !asked {
        let flag = what.to_lowercase();
        left_out(&format!("{test} is one of ./test --{flag}"));
    }
    asked
}

/// The pipeline of a test on a cluster of its own, if `./test --clusters` was asked for.
fn cluster(test: &str, name: &str, options: &[&str], service: &str) -> Option<(Place, Own)> {
    if !asked("CLUSTERS", test) {
        return None;
    }
    let place = Place::services(name)?;
    Some((place, Own::start_as(test, options, &[service])?))
}
