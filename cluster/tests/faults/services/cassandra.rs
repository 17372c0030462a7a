//! Three nodes of Cassandra, a keyspace of three replicas, statements at LOCAL_QUORUM: each node is
//! killed and comes back, one stands still, and all are restarted one after the other.

use std::time::Duration;

use crate::harness::send;
use crate::services::load::{Load, WHILE};

const NODES: [&str; 3] = ["cassandra", "cassandra-2", "cassandra-3"];
/// How long a coordinator waits for a silent replica when the test reads a table, or until that
/// replica counts as down.
const NEEDS: Duration = Duration::from_secs(20);

#[test]
fn nodes_are_killed_frozen_and_restarted() {
    let test = "nodes_are_killed_frozen_and_restarted";
    let Some((mut place, own)) =
        crate::services::cluster(test, "nodes", &["--cassandra", "3"], "cassandra")
    else {
        return;
    };
    let keyspace = format!("{}/{}", own.url("cassandra"), place.name);
    place.use_cassandra(&format!("{keyspace}?replication=datacenter1%3A3"));
    let mut load = Load::start(test, place);
    load.kills_each(&own, &NODES, NEEDS);
    let frozen = own.pid("cassandra-2");
    assert!(send("STOP", frozen));
    load.goes_on(WHILE);
    load.stands_still("cassandra-2 stands still", NEEDS);
    assert!(send("CONT", frozen));
    load.stands_still("cassandra-2 goes on", NEEDS);
    load.restarts_each(&own, &NODES, NEEDS);
    // A keyspace that is there is as it was said, or nothing runs.
    load.right("before the setting is changed");
    let other = format!("{keyspace}?replication=2");
    let said = tidemill_sinks::open(&other)
        .and_then(|sink| sink.prepare("other", &[]))
        .unwrap_err()
        .to_string();
    assert!(said.contains("ALTER KEYSPACE"), "{said}");
    load.end();
}
