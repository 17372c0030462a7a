//! Progress of an initial snapshot: rows per table, and whether all tables were read.
//!
//! In: each batch of the capture, after it was published. A snapshot begins with a truncate of each
//! of its tables. It has ended when a batch is empty or holds a change that is not of a snapshot.

use std::collections::BTreeMap;

use tidemill_log::envelope::event::{Change, Op};
use tidemill_log::health::now_ms;

/// How far the last snapshot of a process is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SnapshotProgress {
    /// The rows that are published, by table. Tables that were not begun have 0.
    pub tables: BTreeMap<String, u64>,
    /// When it began, in milliseconds since 1970-01-01 UTC.
    pub began_ms: u64,
    /// When it ended, in milliseconds since 1970-01-01 UTC; `None` while it is read.
    pub ended_ms: Option<u64>,
}

impl SnapshotProgress {
    /// Takes the changes of a batch into account. `is_empty` says whether the batch held nothing,
    /// not even a row that was refused.
    pub(super) fn note<'a>(&mut self, changes: impl Iterator<Item = &'a Change>, is_empty: bool) {
        let mut is_over = is_empty;
        for change in changes {
            if !change.snapshot {
                is_over = true;
                continue;
            }
            let name = change.table.name.clone();
            if change.op == Op::Truncate {
                if self.began_ms == 0 || self.ended_ms.is_some() {
                    *self = Self {
                        began_ms: now_ms(),
                        ..Self::default()
                    };
                }
                self.tables.insert(name, 0);
            } else {
                *self.tables.entry(name).or_insert(0) += 1;
            }
        }
        if is_over && self.began_ms > 0 && self.ended_ms.is_none() {
            self.ended_ms = Some(now_ms());
        }
    }
}
