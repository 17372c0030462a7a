//! Children, driven as a worker drives them.

use std::time::Duration;

use serde_json::json;
use tidemill_state::{journal, store};

use crate::harness::{PATIENCE, Place, feed};
use crate::mesh::Clicks;
use crate::mesh::child::{Begin, Child};

/// How soon a process follows what it cannot live without.
const SOON: Duration = Duration::from_secs(10);

fn minted(place: &Place) -> u64 {
    let store = store::open(&place.state()).unwrap();
    journal::mint(store, &place.name).unwrap()
}

fn dataflow(place: &Place, generation: u64, index: usize, processes: usize) -> Child {
    let begin = Begin {
        part: "dataflow",
        generation,
        index,
        processes,
    };
    Child::begin(place, &begin)
}

/// Two children that are live.
fn two(place: &Place, generation: u64) -> [Child; 2] {
    let mut both = [0, 1].map(|index| dataflow(place, generation, index, 2));
    let addresses = [0, 1].map(|index| both[index].listens());
    for child in &mut both {
        child.order(&json!({ "peers": { "addresses": addresses } }));
    }
    both.iter().for_each(Child::is_live);
    both
}

#[test]
fn children_connect_work_and_drain_as_they_are_told() {
    let mut clicks = Clicks::new("ordered");
    let place = &clicks.place;
    let (old, generation) = (minted(place), minted(place));
    let mut both = [0, 1].map(|index| dataflow(place, generation, index, 2));
    let addresses = [0, 1].map(|index| both[index].listens());
    // One of an older generation that knows the secret comes first.
    let mut stale = dataflow(place, old, 1, 2);
    let address = stale.listens();
    stale.order(&json!({ "peers": { "addresses": [addresses[0], address] } }));
    let refused = format!("it is of generation {old}, this process of generation {generation}");
    crate::harness::until("the stale one is refused", PATIENCE, || {
        both[0].said().contains(&refused).then_some(())
    });
    for child in &mut both {
        child.order(&json!({ "peers": { "addresses": addresses } }));
    }
    both.iter().for_each(Child::is_live);
    clicks.expect_all();
    both[0].tells("beat with what it did", |line| {
        let beat = &line["beat"];
        let done = beat["durable"].as_u64()? > 0 && beat["records"].as_u64()? > 0;
        done.then_some(())
    });
    clicks.append(500);
    clicks.expect_all();
    for child in &mut both {
        child.order(&json!("drain"));
    }
    for child in &mut both {
        let told = child.ends(0, PATIENCE);
        assert!(
            told.iter().all(|line| line.get("beat").is_some()),
            "{told:?}"
        );
    }
    // What they left is gone on with by the next generation, whose number the journal knows.
    clicks.append(10);
    let next = minted(&clicks.place);
    assert_eq!(next, generation + 1);
    let both = two(&clicks.place, next);
    clicks.expect_all();
    // One dies: the other says that it lost somebody, and ends.
    let [mut first, mut second] = both;
    second.kill();
    let told = first.ends(3, SOON);
    let lost = told
        .iter()
        .filter_map(|line| line["unreachable"]["indices"].as_array());
    assert_eq!(lost.count(), 1, "{told:?}");
}

#[test]
fn a_child_that_is_alone_tells_no_address_and_ends_with_its_worker() {
    let clicks = Clicks::new("abandoned");
    let place = &clicks.place;
    let old = minted(place);
    let mut child = dataflow(place, minted(place), 0, 1);
    child.is_live();
    clicks.expect_all();
    child.abandon();
    child.ends(3, SOON);
    assert!(
        child
            .said()
            .contains("the worker that started this process is gone")
    );
    // It waits for the others when its worker ends.
    let mut waiting = dataflow(place, minted(place), 1, 2);
    waiting.listens();
    waiting.tells("what it waits for", |line| {
        let doing = line["beat"]["doing"].as_str()?;
        doing.starts_with("waiting for all processes").then_some(())
    });
    waiting.abandon();
    waiting.ends(3, SOON);
    // A generation that others took over from is told so.
    let mut superseded = dataflow(place, old, 0, 1);
    superseded.ends(1, PATIENCE);
    let said = superseded.said();
    assert!(said.contains("took this job over"), "{said}");
}

#[test]
fn an_ingest_takes_orders_too() {
    let place = Place::embedded("ingesting");
    let (table, feed) = (&place.name, feed("ordered"));
    place.write(
        "ingest.toml",
        &format!(
            r#"{feed}
[land]
table = "{table}"
key = "id"
columns = [{{ name = "id", path = "login.uuid", type = "text" }}]
"#
        ),
    );
    let begin = Begin {
        part: "ingest",
        generation: 1,
        index: 0,
        processes: 1,
    };
    let mut child = Child::begin(&place, &begin);
    child.is_live();
    child.tells("beat with what it published", |line| {
        let published = line["beat"]["records"].as_u64()?;
        (published >= 20).then_some(())
    });
    child.order(&json!("drain"));
    child.ends(0, PATIENCE);
    let mut child = Child::begin(&place, &begin);
    child.is_live();
    child.abandon();
    child.ends(3, SOON);
}
