//! Tables that were altered, and of which the stream has sent no change since, as after an `ALTER
//! TABLE … ADD COLUMN` that no row followed.
//!
//! Flows in: what the catalog has, at each look. Flows out: the tables whose columns changed, once
//! everything that was committed before the look is acknowledged.
//!
//! Invariant: a table's columns are handed out behind all changes of older columns. A table of
//! which the stream sends columns during a look is left to the next look.

use std::collections::HashMap;
use std::sync::Arc;

use tidemill_log::schema::TableSchema;

use crate::Result;
use crate::stats::reached;

/// What the last look found, and what was handed out before.
#[derive(Default)]
pub(super) struct Altered {
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

impl Altered {
    /// The catalog has these tables; where that is news, `end` is asked where the WAL ends now.
    /// Until a look is handed out there is no other one.
    pub(super) fn seen(
        &mut self,
        tables: Vec<(u32, Arc<TableSchema>)>,
        end: impl FnOnce() -> Result<u64>,
    ) -> Result<()> {
        if self.look.is_some() {
            return Ok(());
        }
        let tables = tables.into_iter();
        let tables = tables.filter(|(oid, schema)| self.told.get(oid) != Some(schema));
        let tables: HashMap<_, _> = tables.collect();
        if !(tables.is_empty() && self.settled) {
            self.look = Some(Look {
                end: end()?,
                tables,
                left: false,
            });
        }
        Ok(())
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

    /// The tables of the look, if everything that was committed before it is acknowledged: all
    /// before the LSN `acknowledged` is.
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
        let mut altered = Altered::default();
        let (one, two) = (table(&["a"]), table(&["a", "b"]));
        altered
            .seen(vec![(1, Arc::clone(&one))], || Ok(9_000))
            .unwrap();
        assert!(altered.take(8_999).is_empty());
        assert!(!altered.is_settled());
        let later = vec![(1, Arc::clone(&two))];
        altered
            .seen(later, || panic!("one look at a time"))
            .unwrap();
        assert_eq!(altered.take(9_000), [Arc::clone(&one)]);
        assert!(altered.is_settled());
        let same = vec![(1, one)];
        altered.seen(same, || panic!("nothing is new")).unwrap();
        altered
            .seen(vec![(1, Arc::clone(&two))], || Ok(9_200))
            .unwrap();
        assert!(altered.take(9_100).is_empty());
        assert_eq!(altered.take(9_200), [two]);
    }

    #[test]
    fn a_table_whose_columns_the_stream_sends_is_left_to_the_next_look() {
        let mut altered = Altered::default();
        let (one, two) = (table(&["a"]), table(&["a", "b"]));
        altered.seen(vec![(1, one)], || Ok(9_000)).unwrap();
        altered.sent(1);
        assert!(altered.take(9_000).is_empty());
        assert!(!altered.is_settled());
        altered
            .seen(vec![(1, Arc::clone(&two))], || Ok(9_100))
            .unwrap();
        assert_eq!(altered.take(9_100), [Arc::clone(&two)]);
        assert!(altered.is_settled());
        altered.sent(1);
        altered
            .seen(vec![(1, Arc::clone(&two))], || Ok(9_200))
            .unwrap();
        assert_eq!(altered.take(9_200), [two]);
    }
}
