//! Jobs on a cluster: more and fewer workers under load, fewer slots than were asked for, two jobs
//! beside each other, and strangers at every port.

use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rand::{Rng, RngCore};

use crate::fleet::{Fleet, children};
use crate::harness::{send, until};

#[test]
fn rescaled_under_load() {
    let Some(mut fleet) = Fleet::start("rescaled", 3) else {
        return;
    };
    let name = fleet.river.place.name.clone();
    fleet.submit(2, &[]);
    fleet.river.fill();
    fleet.runs_with(2);
    for workers in [6, 1, 3] {
        for _ in 0..100 {
            fleet.river.change();
        }
        let began = Instant::now();
        let count = workers.to_string();
        fleet.client(&["rescale", &name, "--workers", &count]);
        fleet.runs_with(workers);
        eprintln!("rescaled to {workers} workers in {:.1?}", began.elapsed());
        fleet.settle(&format!("a rescale to {workers} workers"));
    }
    fleet.end();
}

#[test]
fn too_few_slots() {
    let Some(mut fleet) = Fleet::start("slots", 1) else {
        return;
    };
    let name = fleet.river.place.name.clone();
    fleet.submit(4, &[]);
    fleet.river.fill();
    fleet.runs_with(2);
    let job = fleet.job(&name).unwrap();
    let why = job["why"].as_str().unwrap_or_default().to_owned();
    assert!(why.contains('4') && why.contains('2'), "{why}");
    fleet.settle("a start with fewer workers");
    for _ in 0..5 {
        for _ in 0..5 {
            fleet.river.change();
        }
        fleet.client(&["wait", &name]);
        assert_eq!(fleet.river.differences(), [""; 0]);
    }
    fleet.client(&["wait", &name, "--timeout", "30s"]);
    let said = fleet.client_ends(&["wait", "nobody"], 1);
    assert!(said.contains("no job `nobody`"), "{said}");
    fleet.client(&["stop", &name]);
    let said = fleet.client_ends(&["wait", &name], 8);
    assert!(said.contains("is stopped"), "{said}");
    // By flag it waits instead.
    fleet.submit(4, &["--wait-for-slots", "--no-wait"]);
    until("it waits for slots", Duration::from_secs(60), || {
        (fleet.job(&name)?["state"] == "waiting").then_some(())
    });
    fleet.workers.push(None);
    // On the same machine: one may run several.
    fleet.workers[1] = None;
    fleet.start_worker_beside(0, 1, 2);
    fleet.runs_with(4);
    fleet.settle("a start that waited for slots");
    fleet.end();
}

#[test]
fn one_crashing_job_does_not_touch_another() {
    let Some(mut fleet) = Fleet::start("two_jobs", 2) else {
        return;
    };
    fleet.submit(2, &[]);
    fleet.river.fill();
    let generation = fleet.runs_with(2);
    fleet.settle("the start");
    let other = fleet.submit_other(2);
    until("the other job runs", Duration::from_secs(120), || {
        (fleet.job(&other)?["state"] == "running").then_some(())
    });
    // Its processes are killed again and again, until its budget is spent.
    until("the other job fails", Duration::from_secs(180), || {
        for worker in 0..2 {
            for child in children(fleet.worker(worker).id()) {
                if runs(child, &other) {
                    send("KILL", child);
                }
            }
        }
        for _ in 0..5 {
            fleet.river.change();
        }
        let job = fleet.job(&other)?;
        (job["state"] == "failed").then_some(job)
    });
    let job = fleet.job(&other).unwrap();
    let report = job["failures"][0].to_string();
    assert!(report.contains('9'), "no word of signal 9: {report}");
    assert_eq!(
        fleet.runs_with(2),
        generation,
        "the first job was disturbed"
    );
    fleet.settle("the end of the other job");
    fleet.end();
}

/// Whether a process belongs to a job.
fn runs(process: u32, job: &str) -> bool {
    let line = std::fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&line).contains(job)
}

#[test]
fn strangers_at_every_port() {
    let Some(mut fleet) = Fleet::start("strangers", 2) else {
        return;
    };
    fleet.submit(4, &[]);
    fleet.river.fill();
    let generation = fleet.runs_with(4);
    fleet.settle("the start");
    let mut addresses: Vec<String> = Vec::new();
    for machine in 0..2 {
        let address = fleet.network.address(machine);
        let ports = fleet.listening(machine);
        addresses.extend(ports.into_iter().map(|port| format!("{address}:{port}")));
    }
    addresses.push(fleet.listen().to_owned());
    assert!(addresses.len() >= 5, "ports of the cluster: {addresses:?}");
    let stop = Arc::new(AtomicBool::new(false));
    let strangers = addresses.iter().map(|address| {
        let (address, stop) = (address.clone(), Arc::clone(&stop));
        std::thread::spawn(move || strange(&address, &stop))
    });
    let strangers: Vec<_> = strangers.collect();
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(60) {
        fleet.river.change();
        std::thread::sleep(Duration::from_millis(50));
    }
    stop.store(true, Ordering::Relaxed);
    let sent: Vec<usize> = strangers
        .into_iter()
        .map(|stranger| stranger.join().unwrap())
        .collect();
    eprintln!("connections of strangers by port: {sent:?}");
    assert!(sent.iter().all(|sent| *sent > 1_000), "{sent:?}");
    assert_eq!(fleet.runs_with(4), generation, "the job was disturbed");
    fleet.settle("a minute of strangers");
    fleet.end();
}

/// A hundred connections a second with garbage, silence, or half a request; how many.
fn strange(address: &str, stop: &AtomicBool) -> usize {
    let mut random = rand::rng();
    let mut count = 0;
    let mut held: Vec<TcpStream> = Vec::new();
    let began = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        if let Ok(mut stream) = TcpStream::connect(address) {
            let mut garbage = vec![0; random.random_range(0..200)];
            random.fill_bytes(&mut garbage);
            if random.random_range(0..4) == 0 {
                garbage = b"GET / HTTP/1.1\r\nHost: ".to_vec();
            }
            // It may hang up at once.
            let _hung_up = stream.write_all(&garbage);
            held.push(stream);
            if held.len() > 50 {
                held.remove(0);
            }
            count += 1;
        }
        let due = began + Duration::from_millis(10) * u32::try_from(count).unwrap();
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    count
}
