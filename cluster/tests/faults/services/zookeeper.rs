//! Kafka with its metadata in a ZooKeeper, which goes away and comes back under load.

use std::time::Duration;

use crate::harness::Place;
use crate::harness::own::Own;
use crate::services::load::Load;

/// Longer than a broker's session, which it loses by that.
const AWAY: Duration = Duration::from_secs(8);

#[test]
fn a_broker_loses_its_zookeeper_and_finds_it_again() {
    let test = "a_broker_loses_its_zookeeper_and_finds_it_again";
    let Some(usual) = Place::services("zookeeper") else {
        return;
    };
    let Some(own) = Own::start_as(test, &["--kafka", "zookeeper"], &["kafka"]) else {
        return;
    };
    let mut place = usual;
    place.use_kafka(&own.url("kafka"));
    let mut load = Load::start(test, place);
    own.kill("zookeeper");
    load.goes_on(AWAY);
    // A broker that leads its partitions needs no ZooKeeper to take records.
    load.stands_still("ZooKeeper is away", Duration::ZERO);
    own.again("zookeeper");
    load.goes_on(Duration::from_secs(2));
    load.stands_still("ZooKeeper is back", AWAY);
    load.end();
}
