//! Columns that the catalog has and that no change was sent with yet, as after an `ALTER TABLE …
//! ADD COLUMN` that no row followed.
//!
//! Looks at the catalog flow in; the tables whose changes to come have these columns flow out, once
//! everything that was committed before the look is acknowledged.
//!
//! Invariant: what is handed out is newer than every change that was handed out before it. A table
//! of which the stream sent columns meanwhile is left to the next look.

use std::collections::HashMap;
use std::sync::Arc;

use tidemill_log::schema::TableSchema;

use crate::stats::reached;

/// See the module.
#[derive(Default)]
pub(super) struct ToCome {
    look: Option<Look>,
    /// What was handed out, by the tables' OIDs.
    told: HashMap<u32, Arc<TableSchema>>,
    /// All tables of a look were handed out.
    settled: bool,
}

/// What the catalog had.
struct Look {
    /// All that was seen was committed before this LSN.
    end: u64,
    tables: HashMap<u32, Arc<TableSchema>>,
    /// Some tables are left to the next one.
    left: bool,
}

impl ToCome {
    /// Whether the last look was handed out, so that there may be another one.
    pub(super) fn is_free(&self) -> bool {
        self.look.is_none()
    }

    /// The catalog has these tables, and the WAL ended here afterwards.
    pub(super) fn seen(&mut self, tables: impl Iterator<Item = (u32, Arc<TableSchema>)>, end: u64) {
        let tables = tables.filter(|(oid, schema)| self.told.get(oid) != Some(schema));
        let tables: HashMap<_, _> = tables.collect();
        if !(tables.is_empty() && self.settled) {
            let left = false;
            self.look = Some(Look { end, tables, left });
        }
    }

    /// The stream sent columns of this table.
    pub(super) fn sent(&mut self, oid: u32) {
        self.told.remove(&oid);
        if let Some(look) = &mut self.look {
            look.left |= look.tables.remove(&oid).is_some();
        }
    }

    /// The stream begins again further back.
    pub(super) fn forget(&mut self) {
        self.look = None;
    }

    /// The tables that were seen, each once, if everything before `acknowledged` is and that is all
    /// from before the look.
    pub(super) fn take(&mut self, acknowledged: u64) -> Vec<Arc<TableSchema>> {
        let Some(look) = self.look.take_if(|look| reached(acknowledged, look.end)) else {
            return Vec::new();
        };
        self.settled |= !look.left;
        let tables: Vec<_> = look.tables.values().map(Arc::clone).collect();
        self.told.extend(look.tables);
        tables
    }

    /// Whether the columns of all tables, as a look saw them, were handed out.
    pub(super) fn is_settled(&self) -> bool {
        self.settled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(columns: &[&str]) -> Arc<TableSchema> {
        let columns = columns.iter().map(|name| tidemill_log::schema::Column {
            name: (*name).to_owned(),
            kind: tidemill_log::schema::ColumnType::Text,
            nullable: true,
        });
        Arc::new(TableSchema {
            namespace: "public".to_owned(),
            name: "t".to_owned(),
            columns: columns.collect(),
            key: vec![0],
        })
    }

    #[test]
    fn columns_are_told_once_and_only_behind_what_was_committed_before() {
        let mut to_come = ToCome::default();
        let (one, two) = (table(&["a"]), table(&["a", "b"]));
        to_come.seen([(1, Arc::clone(&one))].into_iter(), 9_000);
        assert!(to_come.take(8_999).is_empty());
        assert!(!to_come.is_free() && !to_come.is_settled());
        assert_eq!(to_come.take(9_000), [Arc::clone(&one)]);
        assert!(to_come.is_settled());
        to_come.seen([(1, one)].into_iter(), 9_100);
        assert!(to_come.is_free());
        to_come.seen([(1, Arc::clone(&two))].into_iter(), 9_200);
        assert!(to_come.take(9_100).is_empty());
        assert_eq!(to_come.take(9_200), [two]);
    }

    #[test]
    fn a_table_whose_columns_the_stream_sends_is_left_to_the_next_look() {
        let mut to_come = ToCome::default();
        let (one, two) = (table(&["a"]), table(&["a", "b"]));
        to_come.seen([(1, one)].into_iter(), 9_000);
        to_come.sent(1);
        assert!(to_come.take(9_000).is_empty());
        assert!(to_come.is_free() && !to_come.is_settled());
        to_come.seen([(1, Arc::clone(&two))].into_iter(), 9_100);
        assert_eq!(to_come.take(9_100), [Arc::clone(&two)]);
        assert!(to_come.is_settled());
        to_come.sent(1);
        to_come.seen([(1, Arc::clone(&two))].into_iter(), 9_200);
        assert_eq!(to_come.take(9_200), [two]);
    }
}
