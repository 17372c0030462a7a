//! A pipeline of a test: an ingest and a dataflow as processes of their own, which are stopped,
//! killed and started again one by one.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use tidemill_log::log::dead_letter;
use tidemill_log::log::dead_letter::Entry;

use crate::river::child::{PATIENCE, Tidemill};
use crate::river::place::Place;
use crate::river::rows::{View, answer, difference, unlike};

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(100);

pub(crate) struct Pipeline {
    // Processes end, and say why, before the folder goes with what they said.
    ingest: Option<Tidemill>,
    dataflow: Option<Tidemill>,
    pub(crate) place: Place,
    views: Vec<View>,
    /// What ingests said that have ended.
    heard: String,
}

impl Pipeline {
    /// Starts it.
    pub(crate) fn new(place: Place, tables: &[&str], views: &str) -> Self {
        let views = place.capturing("matrix", tables, views);
        let mut new = Self {
            place,
            views,
            ingest: None,
            dataflow: None,
            heard: String::new(),
        };
        new.start("ingest");
        new.start("dataflow");
        new
    }

    /// The same, with topics that begin otherwise.
    pub(crate) fn publish_to(&mut self, prefix: &str, tables: &[&str], views: &str) {
        let publish =
            format!("[capture]\ntables = {tables:?}\n[publish]\ntopic_prefix = {prefix:?}\n");
        self.views = self.place.pipeline("matrix", &publish, views);
    }

    /// Writes other tables and views for the next start.
    pub(crate) fn read(&mut self, tables: &[&str], views: &str) {
        self.views = self.place.capturing("matrix", tables, views);
    }

    pub(crate) fn publication(&self) -> String {
        format!("tidemill_{}", self.place.name)
    }

    /// Whether an ingest runs.
    pub(crate) fn captures(&self) -> bool {
        self.ingest.is_some()
    }

    pub(crate) fn start(&mut self, part: &str) {
        self.start_with(part, &[]);
    }

    pub(crate) fn start_with(&mut self, part: &str, more: &[&str]) {
        let started = self.place.start(part, "matrix", more);
        *self.part(part) = Some(started);
    }

    /// Starts an ingest that ends at a failpoint, and waits until it did.
    pub(crate) fn ingest_crashes(&mut self, failpoint: &str) {
        let name = self.place.name.clone();
        let place = &self.place;
        let armed = place.start_armed(&name, "ingest", "matrix", &[], Some(failpoint));
        let said = armed.crashed();
        self.hear("ingest", &said);
    }

    fn part(&mut self, part: &str) -> &mut Option<Tidemill> {
        match part {
            "ingest" => &mut self.ingest,
            _ => &mut self.dataflow,
        }
    }

    pub(crate) fn stop(&mut self, part: &str) {
        let process = self.part(part).take().unwrap();
        let said = process.stop();
        self.hear(part, &said);
    }

    pub(crate) fn end(&mut self, part: &str, killed: bool) {
        match killed {
            true => self.kill(part),
            false => self.stop(part),
        }
    }

    pub(crate) fn kill(&mut self, part: &str) {
        let process = self.part(part).take().unwrap();
        let said = process.kill();
        self.hear(part, &said);
    }

    /// Waits until it ended by itself with an error, and returns what it said.
    pub(crate) fn refuses(&mut self, part: &str) -> String {
        let process = self.part(part).take().unwrap();
        let said = process.refused();
        self.hear(part, &said);
        said
    }

    fn hear(&mut self, part: &str, said: &str) {
        if part == "ingest" {
            self.heard.push_str(said);
        }
    }

    /// Waits until the ingest reads its slot behind a snapshot that is noted.
    pub(crate) fn reads_its_slot(&mut self) {
        let mut sql = self.place.sql();
        let slot = self.publication();
        let ask = "SELECT FROM pg_replication_slots JOIN _tidemill_capture ON slot = slot_name
                   WHERE slot_name = $1 AND active AND snapshot_done";
        let ingest = self.ingest.as_mut().unwrap();
        ingest.until("its slot is read", || {
            let found = sql.query_opt(ask, &[&slot]).unwrap();
            found.map(|_| ())
        });
    }

    /// Waits until the ingest has said this.
    pub(crate) fn ingest_says(&mut self, part: &str) {
        let ingest = self.ingest.as_mut().unwrap();
        let deadline = Instant::now() + PATIENCE;
        while !ingest.logged().contains(part) {
            assert!(
                Instant::now() < deadline,
                "it does not say `{part}`: {}",
                ingest.logged()
            );
            std::thread::sleep(LOOK);
        }
    }

    /// Waits until every view is what PostgreSQL answers, while all that was started runs.
    #[track_caller]
    pub(crate) fn settle(&mut self) {
        let mut sql = self.place.sql();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = self.views.iter();
            let found = found.filter_map(|view| unlike(&self.place.views, &mut sql, view));
            let found: Vec<String> = found.collect();
            if found.is_empty() {
                return;
            }
            for process in [&mut self.ingest, &mut self.dataflow].into_iter().flatten() {
                process.runs();
            }
            assert!(Instant::now() < deadline, "{}", found.join("\n"));
            std::thread::sleep(LOOK);
        }
    }

    /// Waits until the first view's rows of one `place` are what PostgreSQL answers to `query`.
    #[track_caller]
    pub(crate) fn settle_part(&mut self, place: &str, query: &str) {
        let mut sql = self.place.sql();
        let (view, keyspace) = (&self.views[0].name, &self.place.views);
        let dataflow = self.dataflow.as_mut().unwrap();
        dataflow.until("a part of the view as PostgreSQL answers", || {
            let (columns, mut found) = keyspace.read(view).unwrap();
            let at = columns.iter().position(|it| it.name == "place").unwrap();
            found.retain(|row| row[at].as_deref() == Some(place));
            let (expected, rounded) = answer(&mut sql, query, &columns);
            difference(&found, &expected, &rounded)
                .is_none()
                .then_some(())
        });
    }

    /// The tables that were read anew, of all that ingests said.
    pub(crate) fn read_anew(&self) -> BTreeSet<String> {
        let now = self
            .ingest
            .as_ref()
            .map(Tidemill::logged)
            .unwrap_or_default();
        let lines = self.heard.lines().chain(now.lines());
        let lines = lines.filter(|line| line.contains("the table is read anew"));
        let table = |line: &str| {
            let (_, rest) = line
                .split_once("table=\"")
                .unwrap_or_else(|| panic!("{line}"));
            rest.split('"').next().unwrap().to_owned()
        };
        lines.map(table).collect()
    }

    /// How many dead letters there are.
    pub(crate) fn dead_letters(&self) -> usize {
        let mut count = 0;
        let mut each = |entry| {
            if let Entry::Letter(letter) = entry {
                eprintln!("dead letter: {letter:?}");
                count += 1;
            }
            Ok(())
        };
        let topic = dead_letter::topic_of(&self.place.name);
        dead_letter::read(self.place.log().as_ref(), &topic, &mut each).unwrap();
        count
    }
}
