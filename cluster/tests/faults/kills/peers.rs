//! Processes of one job: the same views as one process, one fate, and a clean stop.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::time::Duration;

use arrow::datatypes::DataType;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tidemill_log::log::Record;

use crate::harness::{Place, Process, View, free_port, seed, unique};

/// How soon a process follows one that was killed.
const SOON: Duration = Duration::from_secs(10);

/// Events counted as they are appended, so that nothing may be counted twice.
pub(super) struct Events {
    pub(super) topic: String,
    pub(super) sums: BTreeMap<u64, (u64, u64)>,
}

impl Events {
    pub(super) fn append(&mut self, place: &Place, count: usize, random: &mut StdRng) {
        let mut records = Vec::new();
        for _ in 0..count {
            let (kind, amount) = (random.random_range(0..50), random.random_range(0..1000u64));
            let sum = self.sums.entry(kind).or_default();
            *sum = (sum.0 + 1, sum.1 + amount);
            let value = format!(r#"{{"kind": {kind}, "amount": {amount}}}"#);
            records.push(Record {
                topic: self.topic.clone(),
                partition: Some(random.random_range(0..4)),
                key: None,
                value: Some(value.into_bytes()),
                timestamp_ms: 1,
            });
        }
        place.append(&records);
    }

    fn views(&self, view: &str) -> String {
        format!(
            "CREATE TABLE events (kind bigint, amount bigint)
               WITH (topic = '{}', format = 'json', envelope = 'append');
             CREATE MATERIALIZED VIEW {view} WITH (primary_key = 'kind') AS
               SELECT kind, count(*) AS events, sum(amount) AS amount FROM events GROUP BY kind;",
            self.topic
        )
    }

    #[track_caller]
    fn expect(&self, place: &Place, view: &str) {
        let columns = [
            ("kind", DataType::Int64),
            ("events", DataType::Int64),
            ("amount", DataType::Decimal128(29, 0)),
        ];
        let rows = self.sums.iter();
        let rows =
            rows.map(|(kind, sum)| vec![kind.to_string(), sum.0.to_string(), sum.1.to_string()]);
        place.expect(&View::new(view, &columns), &rows.collect::<BTreeSet<_>>());
    }
}

fn two(place: &Place) -> [Process; 2] {
    two_with(place, &[])
}

/// Two processes of one job, with more flags.
pub(super) fn two_with(place: &Place, more: &[&str]) -> [Process; 2] {
    let hosts = format!("127.0.0.1:{},127.0.0.1:{}", free_port(), free_port());
    let codec = match cfg!(feature = "abomonation") {
        true => "abomonation",
        false => "checked",
    };
    ["0", "1"].map(|process| {
        let at = ["-p", process, "--hosts", &hosts];
        let flags = [&["-w", "2", "-n", "2", "--codec", codec], &at[..], more].concat();
        let mut command = place.command(&["dataflow"], &flags);
        command.env("TIDEMILL_MESH_SECRET", "of-these-two-alone-0123456789");
        Process::start(command, place.folder())
    })
}

#[test]
fn two_processes_share_their_work_and_their_fate() {
    let test = "two_processes_share_their_work_and_their_fate";
    let mut random = StdRng::seed_from_u64(seed(test));
    for place in Place::all("peers") {
        let mut events = Events {
            topic: unique("events"),
            sums: BTreeMap::new(),
        };
        place.topic(&events.topic, 4);
        events.append(&place, 3000, &mut random);
        place.write("views.sql", &events.views("by_kind"));
        let mut peers = two(&place);
        events.expect(&place, "by_kind");
        for _ in 0..2 {
            events.append(&place, 2000, &mut random);
            let killed = random.random_range(0..2);
            let [first, second] = peers;
            let (dying, mut other) = if killed == 0 {
                (first, second)
            } else {
                (second, first)
            };
            dying.kill();
            let said = other.ends(3, SOON);
            assert!(
                said.contains("another process of this job is gone"),
                "{said}"
            );
            peers = two(&place);
            events.append(&place, 500, &mut random);
            events.expect(&place, "by_kind");
        }
        // One is asked to stop: both do, cleanly, and go on later.
        peers[random.random_range(0..2)].signal("TERM");
        peers.iter_mut().for_each(|peer| {
            peer.ends(0, SOON);
        });
        events.append(&place, 500, &mut random);
        // The same job alone, with one worker.
        let mut alone = place.start("dataflow", &[]);
        events.expect(&place, "by_kind");
        alone.stop("INT");
    }
}

#[test]
fn a_process_that_waits_for_its_peer_can_be_stopped() {
    let place = Place::embedded("alone");
    let topic = unique("events");
    place.topic(&topic, 1);
    let events = Events {
        topic,
        sums: BTreeMap::new(),
    };
    place.write("views.sql", &events.views("by_kind"));
    let hosts = format!("127.0.0.1:{},127.0.0.1:{}", free_port(), free_port());
    let mut waiting = place.start("dataflow", &["-n", "2", "-p", "0", "--hosts", &hosts]);
    waiting.says("waiting for all processes of the job");
    waiting.stop("TERM");
}
