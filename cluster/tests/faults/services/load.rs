//! A pipeline that runs under load while its services come and go, and how long its views stood
//! still.

use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::harness::own::Own;
use crate::harness::river::River;
use crate::harness::{PATIENCE, Place, Process, seed};

/// How long the load goes on while a node is away, and after it is back.
pub(crate) const WHILE: Duration = Duration::from_secs(4);
/// Beside what the service needs itself: a machine of two cores that others use as well.
const SLACK: Duration = Duration::from_secs(20);

/// A river, and the process that runs it.
pub(crate) struct Load {
    pub(crate) river: River,
    pub(crate) run: Process,
    test: String,
}

fn start(place: &Place) -> Process {
    // Rows come from this test alone, and checkpoints often.
    place.start("run", &["--every", "1h", "--checkpoint-every", "1s"])
}

impl Load {
    /// Starts the pipeline, and waits until its views are right.
    pub(crate) fn start(test: &str, place: Place) -> Self {
        let random = StdRng::seed_from_u64(seed(test));
        let river = River::new(place, random);
        let run = start(&river.place);
        let test = test.to_owned();
        let mut load = Self { river, run, test };
        load.river.fill();
        load.right("the start");
        load
    }

    /// Changes rows for so long.
    pub(crate) fn goes_on(&mut self, long: Duration) {
        let end = Instant::now() + long;
        while Instant::now() < end {
            self.river.change();
            self.run.runs();
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Kills nodes of a cluster one after the other, and brings each back.
    pub(crate) fn kills_each(&mut self, own: &Own, nodes: &[&str], needs: Duration) {
        for node in nodes {
            own.kill(node);
            self.stands_still(&format!("{node} is killed"), needs);
            self.goes_on(WHILE);
            own.again(node);
            self.goes_on(WHILE);
            self.stands_still(&format!("{node} is back"), needs);
        }
    }

    /// Restarts nodes of a cluster one after the other.
    pub(crate) fn restarts_each(&mut self, own: &Own, nodes: &[&str], needs: Duration) {
        for node in nodes {
            own.stop(node);
            self.goes_on(Duration::from_secs(1));
            own.again(node);
            self.stands_still(&format!("{node} is restarted"), needs);
        }
    }

    /// How long it takes until a change that is committed now is in all views, with all before it.
    pub(crate) fn fresh(&mut self, what: &str) -> Duration {
        let began = Instant::now();
        self.river.mark();
        self.river.settle(what, &mut [&mut self.run]);
        began.elapsed()
    }

    /// The same, told; `needs` is how long the service itself needs to go on.
    pub(crate) fn stands_still(&mut self, what: &str, needs: Duration) {
        let fresh = self.fresh(what);
        eprintln!("{}: {what}: all views right after {fresh:.1?}", self.test);
        let most = needs + SLACK;
        assert!(fresh < most, "{what}: {fresh:?}, and {most:?} is allowed");
    }

    /// Waits until all views are right.
    pub(crate) fn right(&mut self, what: &str) {
        let began = Instant::now();
        self.river.settle(what, &mut [&mut self.run]);
        let took = began.elapsed();
        eprintln!("{}: {what}: all views right after {took:.1?}", self.test);
    }

    /// Kills the process, and starts it anew.
    pub(crate) fn is_killed(&mut self) {
        self.run.signal("KILL");
        self.run.end(PATIENCE);
        self.run = start(&self.river.place);
    }

    /// Asks it to stop, and checks what it leaves.
    pub(crate) fn end(mut self) {
        self.right("the end");
        self.run.stop("TERM");
        self.river.end();
        eprintln!("{}: {} records", self.test, self.river.records());
    }
}
