//! Three brokers, topics of three replicas, two of them in sync: each broker is killed and comes
//! back, and all are restarted one after the other.

use std::time::Duration;

use crate::services::load::Load;

const BROKERS: [&str; 3] = ["kafka", "kafka-2", "kafka-3"];
/// How long the controllers miss a broker before others lead its partitions
/// (`broker.session.timeout.ms`), and a broker's restart.
const NEEDS: Duration = Duration::from_secs(9);

#[test]
fn brokers_are_killed_and_restarted() {
    let test = "brokers_are_killed_and_restarted";
    let Some((mut place, own)) =
        crate::services::cluster(test, "brokers", &["--kafka", "3"], "kafka")
    else {
        return;
    };
    let url = own.url("kafka");
    place.use_kafka(&format!("{url}?replication.factor=3&min.insync.replicas=2"));
    let mut load = Load::start(test, place);
    load.kills_each(&own, &BROKERS, NEEDS);
    load.restarts_each(&own, &BROKERS, NEEDS);
    load.end();
}
