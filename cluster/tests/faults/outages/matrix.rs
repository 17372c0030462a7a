//! Which services are made unusable in which ways, and what has to be told of each.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tidemill_log::health::now_ms;
use tidemill_log::log::dead_letter::{DeadLetter, Stage};

use crate::harness::{PATIENCE, Process, left_out, until};
use crate::outages::job::{Job, Waits, Where};
use crate::outages::services::{GUARDED, How, LOCKED};

/// Set to `all` by `./test --outages`.
const WHICH: &str = "TIDEMILL_TEST_OUTAGES";
/// What a busy machine may add to any time.
const BUSY: Duration = Duration::from_secs(10);
/// A question that was under way when the service went away was asked before.
const ASKED_BEFORE_MS: u64 = 5_000;

/// One at a time: they share two cores, and measure how long things take.
static ONE: Mutex<()> = Mutex::new(());

/// A service, and what it is for a job.
struct Service {
    name: &'static str,
    role: &'static str,
    /// Who uses it.
    parts: &'static [&'static str],
    /// Seconds in which it is known that it is away: the time between two probes, the time that an
    /// answer may take, and two for telling.
    seen: u64,
    /// Whether changes wait while it is away.
    flows_through: bool,
    /// The answers by which it refuses, each with what the error says.
    refusals: &'static [(u16, &'static str)],
}

const BOTH: &[&str] = &["ingest", "dataflow"];

const SERVICES: [Service; 6] = [
    Service {
        name: "api",
        role: "api",
        parts: &["ingest"],
        seen: 15,
        flows_through: false,
        refusals: &[
            (500, "HTTP 500"),
            (404, "HTTP 404"),
            (401, "HTTP 401"),
            (429, "HTTP 429"),
        ],
    },
    Service {
        name: "postgres",
        role: "database",
        parts: &["ingest"],
        seen: 7,
        flows_through: true,
        refusals: &[(1, "password authentication failed")],
    },
    Service {
        name: "kafka",
        role: "log",
        parts: BOTH,
        seen: 7,
        flows_through: true,
        refusals: &[(1, "uthentication")],
    },
    Service {
        name: "registry",
        role: "registry",
        parts: BOTH,
        seen: 7,
        flows_through: false,
        refusals: &[(401, "401"), (500, "500")],
    },
    Service {
        name: "s3",
        role: "state",
        parts: &["dataflow"],
        seen: 15,
        flows_through: true,
        refusals: &[(403, "403")],
    },
    Service {
        name: "cassandra",
        role: "views",
        parts: &["dataflow"],
        seen: 7,
        flows_through: true,
        refusals: &[
            (1, "no MODIFY permission"),
            (GUARDED, "write_consistency_levels"),
            (LOCKED, "incorrect"),
        ],
    },
];

#[test]
fn outages_of_a_run_are_told_and_healed() {
    outages("run", Where::Run);
}

#[test]
fn outages_of_a_cluster_are_told_and_healed() {
    if std::env::var(WHICH).is_ok() {
        outages("cluster", Where::Cluster);
    } else {
        left_out("the outages of a cluster (run ./test --outages)");
    }
}

fn outages(test: &str, place: Where) {
    let _alone = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let all = std::env::var(WHICH).is_ok();
    let Some(mut job) = Job::start(test, place) else {
        return;
    };
    let began = Instant::now();
    for service in &SERVICES {
        let mut ways = vec![How::Frozen, How::Stopped, How::Killed];
        ways.extend(
            service
                .refusals
                .iter()
                .map(|(status, _)| How::Refusing(*status)),
        );
        for how in ways
            .into_iter()
            .filter(|how| all || is_brief(service.name, *how))
        {
            outage(&mut job, service, how);
        }
    }
    frozen_slot(&mut job);
    if all {
        guarded_values(&mut job);
        if place == Where::Run {
            guarded_tables(&mut job);
        }
    }
    eprintln!("{test}: {:.0?} for all outages", began.elapsed());
    job.stops();
}

/// The part of the matrix that runs by default: what costs no start of a slow service.
fn is_brief(service: &str, how: How) -> bool {
    matches!(
        (service, how),
        ("api", How::Refusing(401))
            | ("postgres", How::Killed | How::Refusing(_))
            | ("kafka", How::Frozen)
            | ("s3", How::Killed | How::Frozen)
            | ("cassandra", How::Refusing(1))
    )
}

fn outage(job: &mut Job, service: &Service, how: How) {
    let what = format!("{} {how:?}", service.name);
    let refusal = match how {
        How::Refusing(status) => service.refusals.iter().find(|(it, _)| *it == status),
        _ => None,
    };
    let (began, began_ms) = (Instant::now(), now_ms());
    job.services.breaks(service.name, how);
    let wait = Duration::from_secs(service.seen) + BUSY + began.elapsed();
    let found = loop {
        load(job, service);
        let found = job.dependency(service.role);
        let error = found["error"].as_str().unwrap_or_default();
        let is_it = refusal.is_none_or(|(_, part)| error.contains(part));
        if found["state"] == "down" && is_it {
            break found;
        }
        assert!(began.elapsed() < wait, "{what} is not seen: {found:#}");
        std::thread::sleep(Duration::from_millis(100));
    };
    eprintln!(
        "{what}: seen after {:.1?}: {}",
        began.elapsed(),
        found["error"]
    );
    let since = found["since_ms"].as_u64().unwrap();
    assert!(
        since + ASKED_BEFORE_MS > began_ms && since <= now_ms(),
        "{what}: {found:#}"
    );
    grows(job, service, &what);
    job.tells(service.role, service.parts);
    // Another process may have met it earlier, and told later.
    let later = job.dependency(service.role)["since_ms"].as_u64().unwrap();
    assert!(
        later <= since && later + ASKED_BEFORE_MS > began_ms,
        "{what}: {later}, not {since}"
    );
    job.services.mends(service.name, how);
    job.is_well(&what);
    let healed = job.dependency(service.role);
    assert!(healed["since_ms"].as_u64() > Some(since) && healed["error"].is_string());
    for _ in 0..20 {
        job.load();
    }
    job.is_right(&what);
}

/// Changes the database, where it can be.
fn load(job: &mut Job, service: &Service) {
    if service.name != "postgres" {
        job.load();
    }
}

/// What waits gets older by the clock, and no view is said to be fresher than it.
fn grows(job: &mut Job, service: &Service, what: &str) {
    if !service.flows_through {
        return;
    }
    let began = Instant::now();
    let mut first = None;
    loop {
        load(job, service);
        let now = job.waits();
        if let Some(now) = now {
            let first: &mut Waits = first.get_or_insert(now);
            // They are read one after the other.
            let fresh = now.freshness + 500 >= now.lag;
            if fresh && now.lag >= first.lag + 1_000 {
                return;
            }
        }
        let wait = Duration::from_secs(service.seen) + BUSY;
        assert!(
            began.elapsed() < wait,
            "{what}: {first:?} does not grow: {now:?}"
        );
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// The server answers, and its process that feeds the job stands still: the changes wait, and it
/// says so.
fn frozen_slot(job: &mut Job) {
    let what = "the slot's process, frozen";
    job.services.breaks("slot", How::Frozen);
    let slot = Service {
        name: "slot",
        role: "slot",
        parts: &["ingest"],
        seen: 20,
        flows_through: true,
        refusals: &[],
    };
    grows(job, &slot, what);
    let began = Instant::now();
    while job.dependency("slot")["state"] != "down" {
        job.load();
        let wait = Duration::from_secs(slot.seen) + BUSY;
        assert!(began.elapsed() < wait, "{what} is not seen");
        std::thread::sleep(Duration::from_millis(100));
    }
    eprintln!("{what}: seen after {:.1?}", began.elapsed());
    job.tells("slot", slot.parts);
    job.services.mends("slot", How::Frozen);
    job.is_well(what);
    job.is_right(what);
}

/// A guardrail that is about a value puts its row aside, and the job goes on.
fn guarded_values(job: &mut Job) {
    let what = "a guardrail of values";
    job.services
        .guards("column_value_size_fail_threshold: 64KiB\n");
    job.is_well(what);
    job.services.river.insert_long(100_000);
    until("the row is a dead letter", PATIENCE, || {
        let letters = job.services.river.place.dead_letters().into_iter();
        let mut letters = letters.map(|kept| kept.letter);
        let guarded = |letter: &DeadLetter| letter.reason.contains("column_value_size");
        letters
            .any(|letter| letter.stage == Stage::Serve && guarded(&letter))
            .then_some(())
    });
    job.services.river.delete_long();
    job.is_right(what);
    job.services.guards("");
    job.is_well(what);
}

/// A guardrail that is about a table stops a job that would make one, by name, and no other.
fn guarded_tables(job: &mut Job) {
    for (setting, name) in [
        ("tables_fail_threshold: 1\n", "tables"),
        ("columns_per_table_fail_threshold: 1\n", "columns_per_table"),
    ] {
        let what = format!("the guardrail {name}");
        job.services.guards(setting);
        job.is_well(&what);
        // Tables that are there are no matter.
        job.stops();
        job.begins();
        job.is_well(&what);
        // A view that is defined otherwise gets another table.
        job.services.river.alter();
        job.stops();
        job.is_refused(&format!("Guardrail {name} violated"));
        job.services.guards("");
        job.begins();
        job.is_well(&what);
        job.is_right(&what);
    }
    // What only reading in pages meets is no matter to a job, and a warning to nobody.
    let what = "the guardrail page_size";
    job.services
        .guards("page_size_fail_threshold: 10\ntables_warn_threshold: 1\n");
    job.is_well(what);
    let place = &job.services.river.place;
    let mut verify = place.command(&["verify"], &[]);
    verify.envs(job.services.environment());
    let said = Process::start(verify, place.folder()).ends(1, PATIENCE);
    assert!(said.contains("Guardrail page_size violated"), "{said}");
    job.is_right(what);
    job.services.guards("");
    job.is_well(what);
}
