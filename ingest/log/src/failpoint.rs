//! Failpoints: named places between two durable steps, where a crash test ends the process.
//!
//! `TIDEMILL_FAILPOINT=NAME[:COUNT]` ends the process at once, as SIGKILL would (nothing is
//! dropped, flushed or caught), when it passes the point NAME for the COUNTth time; COUNT is 1
//! unless given. The variable is read once a process: without it a point costs one load of memory,
//! so that crash tests run the binary that users run.
//!
//! All points of all crates are listed here and nowhere else: only a [`Point`] can be passed, and
//! [`ALL`] holds every one, so a test that walks over it leaves none out.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The variable that arms a point.
const VARIABLE: &str = "TIDEMILL_FAILPOINT";

static ARMED: OnceLock<Option<Armed>> = OnceLock::new();

/// The point that ends this process.
#[derive(Debug)]
struct Armed {
    name: String,
    left: AtomicU64,
}

/// A place where a process may be ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point(&'static str);

impl Point {
    /// What `TIDEMILL_FAILPOINT` calls it.
    pub const fn name(self) -> &'static str {
        self.0
    }
}

/// Declares points, and the list of all.
macro_rules! points {
    ($($(#[$about:meta])* $point:ident = $name:literal;)*) => {
        $($(#[$about])* pub const $point: Point = Point($name);)*
        /// Every point there is.
        pub const ALL: &[Point] = &[$($point),*];
    };
}

points! {
    /// A page is claimed, and was not asked for yet.
    LAND_AFTER_CLAIM = "land.claim.after";
    /// A page's rows and its end in the ledger are written, in a transaction that is open.
    LAND_BEFORE_COMMIT = "land.commit.before";
    /// They are durable.
    LAND_AFTER_COMMIT = "land.commit.after";
    /// What did not fit is among the dead letters, and its page has not landed.
    LAND_AFTER_LETTERS = "land.letters.after-append";
    /// PostgreSQL: a new capture has its publication, and no progress yet.
    CAPTURE_AFTER_PUBLICATION = "capture.open.after-publication";
    /// PostgreSQL: a snapshot is to begin, and the slot before it is still there.
    CAPTURE_BEFORE_DROP = "capture.snapshot.before-drop";
    /// PostgreSQL: there is no slot.
    CAPTURE_BEFORE_SLOT = "capture.snapshot.before-slot";
    /// PostgreSQL: there is a new slot, and nothing was read in its snapshot.
    CAPTURE_AFTER_SLOT = "capture.snapshot.after-slot";
    /// PostgreSQL: a batch of the snapshot is to be read, those before it are published.
    CAPTURE_IN_SNAPSHOT = "capture.snapshot.before-batch";
    /// PostgreSQL: the snapshot is published to its end, which is not noted.
    CAPTURE_BEFORE_SNAPSHOT_DONE = "capture.snapshot.before-done";
    /// SQLite: triggers and the rows that were there are written, in a transaction that is open.
    CAPTURE_BEFORE_TRIGGERS = "capture.triggers.before-commit";
    /// SQLite: they are durable.
    CAPTURE_AFTER_TRIGGERS = "capture.triggers.after-commit";
    /// Progress is to be noted.
    CAPTURE_BEFORE_CONFIRM = "capture.confirm.before-write";
    /// Progress is noted; PostgreSQL's slot was not told.
    CAPTURE_AFTER_CONFIRM = "capture.confirm.after-write";
    /// PostgreSQL: the slot is being told.
    CAPTURE_AFTER_SLOT_TOLD = "capture.confirm.after-slot";
    /// A table's topic is there, and not noted.
    PUBLISH_BEFORE_NOTE = "publish.topic.before-note";
    /// It is noted.
    PUBLISH_AFTER_NOTE = "publish.topic.after-note";
    /// A subject's compatibility is noted, to be set to NONE.
    REGISTRY_BEFORE_LEVEL = "registry.level.before";
    /// It is NONE.
    REGISTRY_AT_NONE = "registry.level.none";
    /// In Apicurio the rule of the subject says NONE.
    REGISTRY_WITHOUT_RULE = "registry.level.without-rule";
    /// The new schema is registered, and the compatibility not restored.
    REGISTRY_BEFORE_RESTORE = "registry.level.before-restore";
    /// It is restored, and the note of it still there.
    REGISTRY_AFTER_RESTORE = "registry.level.after-restore";
    /// A batch is encoded, its schemas are registered, nothing of it is in the log.
    PUBLISH_BEFORE_APPEND = "publish.batch.before-append";
    /// All of it is durable in the log, and the capture does not know.
    PUBLISH_AFTER_APPEND = "publish.batch.after-append";
    /// It is acknowledged to the capture.
    PUBLISH_AFTER_ACKNOWLEDGE = "publish.batch.after-acknowledge";
    /// A new generation is to take the journal over.
    JOURNAL_BEFORE_OPEN = "journal.open.before-put";
    /// It took the journal over.
    JOURNAL_AFTER_OPEN = "journal.open.after-put";
    /// An epoch is to be bound.
    JOURNAL_BEFORE_BIND = "journal.bind.before-put";
    /// It is bound, and not released.
    JOURNAL_AFTER_BIND = "journal.bind.after-put";
    /// A checkpoint is whole, and not committed.
    JOURNAL_BEFORE_CHECKPOINT = "journal.checkpoint.before-put";
    /// It is committed.
    JOURNAL_AFTER_CHECKPOINT = "journal.checkpoint.after-put";
    /// The journal is to be truncated.
    JOURNAL_BEFORE_TRUNCATE = "journal.truncate.before-put";
    /// An object stands for all before it, which are still there.
    JOURNAL_AFTER_TRUNCATE = "journal.truncate.before-delete";
    /// Some of those are deleted.
    JOURNAL_BETWEEN_DELETES = "journal.truncate.between-deletes";
    /// A part of a checkpoint, or of a merge, is to be written.
    CHECKPOINT_BEFORE_PART = "checkpoint.part.before-put";
    /// It is written, and no manifest names it.
    CHECKPOINT_AFTER_PART = "checkpoint.part.after-put";
    /// All parts are written, and the sink has the epoch.
    CHECKPOINT_BEFORE_MANIFEST = "checkpoint.manifest.before-put";
    /// The manifest is written, and the journal does not know it.
    CHECKPOINT_AFTER_MANIFEST = "checkpoint.manifest.after-put";
    /// Some files of a checkpoint that is no longer kept are deleted.
    CHECKPOINT_BETWEEN_DELETES = "checkpoint.old.between-deletes";
    /// A checkpoint is committed, and runs are to be merged.
    CHECKPOINT_BEFORE_MERGE = "checkpoint.merge.before";
    /// A merged run is written, and no manifest names it.
    CHECKPOINT_AFTER_MERGE = "checkpoint.merge.after";
    /// At a start: some of what earlier generations left unfinished is deleted.
    CHECKPOINT_IN_CLEARING = "checkpoint.clear.between-deletes";
    /// An altered view's table is dropped, its frontier row is still there.
    SINK_BETWEEN_DROPS = "sink.drop.between";
    /// A view's table is there, and it has no frontier row.
    SINK_BEFORE_FRONTIER_ROW = "sink.prepare.before-row";
    /// A table's rows of an epoch are to be written.
    SINK_BEFORE_WRITE = "sink.write.before";
    /// A row of them is written.
    SINK_BETWEEN_ROWS = "sink.write.between-rows";
    /// They are durable; those of other tables may not be, and the dataflow does not know.
    SINK_AFTER_WRITE = "sink.write.after";
    /// All tables have an epoch, and no frontier row says so.
    SINK_BEFORE_ADVANCE = "sink.frontier.before";
    /// Some frontier rows say so.
    SINK_IN_ADVANCE = "sink.frontier.between-tables";
    /// All do, and the dataflow does not know.
    SINK_AFTER_ADVANCE = "sink.frontier.after";
}

/// Ends the process when this point is armed and due.
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
    fn parse(given: &str) -> Self {
        let counted = given.rsplit_once(':');
        let counted = counted.and_then(|(name, count)| Some((name, count.parse().ok()?)));
        let (name, count) = counted.unwrap_or((given, 1));
        Self {
            name: name.to_owned(),
            left: AtomicU64::new(count),
        }
    }

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
    fn points_have_names_of_their_own() {
        let names: std::collections::BTreeSet<_> = ALL.iter().map(|point| point.name()).collect();
        assert_eq!(names.len(), ALL.len());
    }

    #[test]
    fn an_armed_process_dies_at_once() {
        // The test's own binary, asked for this very test, is the process that dies.
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
