//! Failpoints: named points between two durable steps, at which a crash test aborts the process.
//!
//! `TIDEMILL_FAILPOINT=NAME[:COUNT]` aborts the process when it reaches the point NAME for the
//! COUNTth time; COUNT is 1 by default. Like SIGKILL, the abort drops, flushes and catches nothing.
//! The variable is read once in a process; without it a point costs one atomic load, so crash tests
//! run the binary that users run.
//!
//! Invariant: the points of all crates are declared here. Only a [`Point`] can be reached, and
//! [`ALL`] holds every one, so a test that iterates over it leaves none out.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The environment variable that arms a point.
const VARIABLE: &str = "TIDEMILL_FAILPOINT";

/// The point of the environment variable, read at the first [`hit`].
static ARMED: OnceLock<Option<Armed>> = OnceLock::new();

/// The armed point, and how often it is still to be reached.
#[derive(Debug)]
struct Armed {
    name: String,
    left: AtomicU64,
}

/// A point at which a process can be aborted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point(&'static str);

impl Point {
    /// The name of the point in `TIDEMILL_FAILPOINT`.
    pub const fn name(self) -> &'static str {
        self.0
    }
}

/// Declares points, and the list of all points.
macro_rules! points {
    ($($(#[$about:meta])* $point:ident = $name:literal;)*) => {
        $($(#[$about])* pub const $point: Point = Point($name);)*
        /// All points.
        pub const ALL: &[Point] = &[$($point),*];
    };
}

points! {
    /// A page is claimed; it was not requested yet.
    LAND_AFTER_CLAIM = "land.claim.after";
    /// The rows of a page and its end in the ledger are written; the transaction is open.
    LAND_BEFORE_COMMIT = "land.commit.before";
    /// The rows of a page and its end in the ledger are committed.
    LAND_AFTER_COMMIT = "land.commit.after";
    /// The dead letters of a page are durable; the page has not landed.
    LAND_AFTER_LETTERS = "land.letters.after-append";
    /// PostgreSQL: a new capture has created its publication; no progress is recorded.
    CAPTURE_AFTER_PUBLICATION = "capture.open.after-publication";
    /// PostgreSQL: a snapshot is about to begin; the previous slot still exists.
    CAPTURE_BEFORE_DROP = "capture.snapshot.before-drop";
    /// PostgreSQL: no slot exists.
    CAPTURE_BEFORE_SLOT = "capture.snapshot.before-slot";
    /// PostgreSQL: a new slot exists; nothing was read in its snapshot.
    CAPTURE_AFTER_SLOT = "capture.snapshot.after-slot";
    /// PostgreSQL: the next batch of the snapshot is about to be read; all before it are published.
    CAPTURE_IN_SNAPSHOT = "capture.snapshot.before-batch";
    /// PostgreSQL: the whole snapshot is published; its end is not recorded.
    CAPTURE_BEFORE_SNAPSHOT_DONE = "capture.snapshot.before-done";
    /// SQLite: the triggers and the existing rows are written; the transaction is open.
    CAPTURE_BEFORE_TRIGGERS = "capture.triggers.before-commit";
    /// SQLite: the triggers and the existing rows are committed.
    CAPTURE_AFTER_TRIGGERS = "capture.triggers.after-commit";
    /// The progress of the capture is about to be recorded.
    CAPTURE_BEFORE_CONFIRM = "capture.confirm.before-write";
    /// The progress is recorded; PostgreSQL's slot was not told.
    CAPTURE_AFTER_CONFIRM = "capture.confirm.after-write";
    /// PostgreSQL: the confirmed position was sent to the slot.
    CAPTURE_AFTER_SLOT_TOLD = "capture.confirm.after-slot";
    /// The topic of a table exists; its id is not recorded.
    PUBLISH_BEFORE_NOTE = "publish.topic.before-note";
    /// The id of the topic is recorded.
    PUBLISH_AFTER_NOTE = "publish.topic.after-note";
    /// The compatibility level of a subject is recorded; it is about to be set to NONE.
    REGISTRY_BEFORE_LEVEL = "registry.level.before";
    /// The level of the subject is NONE.
    REGISTRY_AT_NONE = "registry.level.none";
    /// Apicurio: the rule of the subject is NONE.
    REGISTRY_WITHOUT_RULE = "registry.level.without-rule";
    /// The new schema is registered; the level is not restored.
    REGISTRY_BEFORE_RESTORE = "registry.level.before-restore";
    /// The level is restored; its record still exists.
    REGISTRY_AFTER_RESTORE = "registry.level.after-restore";
    /// A batch is encoded and its schemas are registered; nothing of it is in the log.
    PUBLISH_BEFORE_APPEND = "publish.batch.before-append";
    /// A batch is durable in the log; it is not acknowledged to the capture.
    PUBLISH_AFTER_APPEND = "publish.batch.after-append";
    /// A batch is acknowledged to the capture.
    PUBLISH_AFTER_ACKNOWLEDGE = "publish.batch.after-acknowledge";
    /// A new generation is about to take over the journal.
    JOURNAL_BEFORE_OPEN = "journal.open.before-put";
    /// The new generation has taken over the journal.
    JOURNAL_AFTER_OPEN = "journal.open.after-put";
    /// An epoch is about to be bound.
    JOURNAL_BEFORE_BIND = "journal.bind.before-put";
    /// An epoch is bound; its rows are not released.
    JOURNAL_AFTER_BIND = "journal.bind.after-put";
    /// All files of a checkpoint are written; the journal does not name it.
    JOURNAL_BEFORE_CHECKPOINT = "journal.checkpoint.before-put";
    /// The journal names the checkpoint.
    JOURNAL_AFTER_CHECKPOINT = "journal.checkpoint.after-put";
    /// The journal is about to be truncated.
    JOURNAL_BEFORE_TRUNCATE = "journal.truncate.before-put";
    /// One object replaces all earlier ones, which still exist.
    JOURNAL_AFTER_TRUNCATE = "journal.truncate.before-delete";
    /// Some of the earlier objects are deleted.
    JOURNAL_BETWEEN_DELETES = "journal.truncate.between-deletes";
    /// A part of a checkpoint, or of a merge, is about to be written.
    CHECKPOINT_BEFORE_PART = "checkpoint.part.before-put";
    /// The part is written; no manifest names it.
    CHECKPOINT_AFTER_PART = "checkpoint.part.after-put";
    /// All parts are written, and the sink has the epoch; there is no manifest.
    CHECKPOINT_BEFORE_MANIFEST = "checkpoint.manifest.before-put";
    /// The manifest is written; the journal does not name it.
    CHECKPOINT_AFTER_MANIFEST = "checkpoint.manifest.after-put";
    /// Some files of an old checkpoint are deleted.
    CHECKPOINT_BETWEEN_DELETES = "checkpoint.old.between-deletes";
    /// A checkpoint is committed; runs are about to be merged.
    CHECKPOINT_BEFORE_MERGE = "checkpoint.merge.before";
    /// A merged run is written; no manifest names it.
    CHECKPOINT_AFTER_MERGE = "checkpoint.merge.after";
    /// At a start: some unfinished files of earlier generations are deleted.
    CHECKPOINT_IN_CLEARING = "checkpoint.clear.between-deletes";
    /// The table of an altered view is dropped; its frontier row still exists.
    SINK_BETWEEN_DROPS = "sink.drop.between";
    /// The table of a view exists; its frontier row does not.
    SINK_BEFORE_FRONTIER_ROW = "sink.prepare.before-row";
    /// A table's rows of an epoch are about to be written.
    SINK_BEFORE_WRITE = "sink.write.before";
    /// One of these rows is written.
    SINK_BETWEEN_ROWS = "sink.write.between-rows";
    /// The rows of one table are durable; those of other tables may not be, and the dataflow was
    /// not told.
    SINK_AFTER_WRITE = "sink.write.after";
    /// All tables hold an epoch; no frontier row says so.
    SINK_BEFORE_ADVANCE = "sink.frontier.before";
    /// Some frontier rows name the epoch.
    SINK_IN_ADVANCE = "sink.frontier.between-tables";
    /// All frontier rows name the epoch; the dataflow was not told.
    SINK_AFTER_ADVANCE = "sink.frontier.after";
}

/// Aborts the process if this point is armed and its count is reached.
pub fn hit(point: Point) {
    let name = point.name();
    let armed = ARMED.get_or_init(|| {
        std::env::var(VARIABLE)
            .ok()
            .map(|given| Armed::parse(&given))
    });
    if let Some(armed) = armed
        && armed.is_due(name)
    {
        tracing::error!(name, "failpoint: this process ends here");
        std::process::abort();
    }
}

impl Armed {
    /// Reads `NAME[:COUNT]`. A suffix that is not a number belongs to the name.
    fn parse(given: &str) -> Self {
        let counted = given.rsplit_once(':');
        let counted = counted.and_then(|(name, count)| Some((name, count.parse().ok()?)));
        let (name, count) = counted.unwrap_or((given, 1));
        Self {
            name: name.to_owned(),
            left: AtomicU64::new(count),
        }
    }

    /// Counts one pass of the point; true exactly once, at the count.
    fn is_due(&self, name: &str) -> bool {
        self.name == name && self.left.fetch_sub(1, Ordering::Relaxed) == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_due_once_at_its_count() {
        for (given, due_at) in [("a.b", 1), ("a.b:1", 1), ("a.b:3", 3)] {
            let armed = Armed::parse(given);
            assert!(!armed.is_due("a.c"));
            let due: Vec<_> = (1..6).filter(|_| armed.is_due("a.b")).collect();
            assert_eq!(due.len(), 1, "{given}");
            let armed = Armed::parse(given);
            assert_eq!(
                (1..6).find(|_| armed.is_due("a.b")),
                Some(due_at),
                "{given}"
            );
        }
    }

    #[test]
    fn point_names_are_unique() {
        let names: std::collections::BTreeSet<_> = ALL.iter().map(|point| point.name()).collect();
        assert_eq!(names.len(), ALL.len());
    }

    #[test]
    fn an_armed_process_dies_at_once() {
        // The test runs its own binary with this test alone; that process aborts.
        const INSIDE: &str = "TIDEMILL_FAILPOINT_INSIDE";
        if std::env::var(INSIDE).is_ok() {
            hit(Point("another"));
            hit(Point("here"));
            std::process::exit(0);
        }
        let status = |armed: &str| {
            std::process::Command::new(std::env::current_exe().unwrap())
                .args(["an_armed_process_dies_at_once", "--test-threads=1"])
                .env(INSIDE, "1")
                .env(VARIABLE, armed)
                .output()
                .unwrap()
                .status
        };
        assert!(status("elsewhere").success());
        assert_eq!(status("here").code(), None, "ended by a signal");
        assert!(status("here:2").success());
    }
}
