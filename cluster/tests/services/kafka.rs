//! Three brokers, topics of three replicas, two of them in sync: each broker is killed and comes
//! back, and all are restarted one after the other.

use std::time::Duration;

use crate::harness::Place;
use crate::harness::own::Own;
use crate::load::{Load, WHILE};

const BROKERS: [&str; 3] = ["kafka", "kafka-2", "kafka-3"];
/// How long the controllers miss a broker before others lead its partitions
/// (`broker.session.timeout.ms`), and a broker's restart.
const NEEDS: Duration = Duration::from_secs(9);

#[test]
fn brokers_are_killed_and_restarted() {
    let test = "brokers_are_killed_and_restarted";
    if !crate::asked("CLUSTERS", test) {
        return;
    }
    let Some(mut place) = Place::services("brokers") else {
        return;
    };
    let Some(own) = Own::start_as(test, &["--kafka", "3"], &["kafka"]) else {
        return;
    };
    let url = own.url("kafka");
    place.use_kafka(&format!("{url}?replication.factor=3&min.insync.replicas=2"));
    let mut load = Load::start(test, place);
    for broker in BROKERS {
        own.kill(broker);
        load.stands_still(&format!("{broker} is killed"), NEEDS);
        load.goes_on(WHILE);
        own.again(broker);
        load.goes_on(WHILE);
        load.stands_still(&format!("{broker} is back"), NEEDS);
    }
    for broker in BROKERS {
        own.stop(broker);
        load.goes_on(Duration::from_secs(1));
        own.again(broker);
        load.stands_still(&format!("{broker} is restarted"), NEEDS);
    }
    load.end();
}
