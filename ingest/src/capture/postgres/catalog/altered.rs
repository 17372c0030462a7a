//! Altered tables without changes: finds new columns of tables in the catalog, as after an `ALTER
//! TABLE … ADD COLUMN` that no row change followed.
//!
//! The replication stream describes the columns of a table only together with its next change. In:
//! the tables as the catalog has them, at intervals. Out: the tables whose columns changed, as soon
//! as everything committed before that look at the catalog is acknowledged.
//!
//! Invariant: new columns of a table are returned after all changes under its old columns. A table
//! whose columns the stream sends meanwhile is left to the next look.

use std::collections::HashMap;
use std::sync::Arc;

use tidemill_log::schema::TableSchema;

use crate::Result;
use crate::stats::reached;

/// The last look at the catalog, and what was returned before.
#[derive(Default)]
pub(crate) struct Altered {
    /// The look whose tables were not returned yet.
    look: Option<Look>,
    /// The schemas that were returned, by the OIDs of the tables.
    returned: HashMap<u32, Arc<TableSchema>>,
    /// Whether all tables of some look were returned.
    settled: bool,
}

/// One look at the catalog.
struct Look {
    /// LSN: everything in the look was committed before.
    end: u64,
    /// Tables whose columns were not returned yet, by OID.
    tables: HashMap<u32, Arc<TableSchema>>,
    /// Whether some tables are left to the next look.
    left: bool,
}

impl Altered {
    /// Takes over the tables of the catalog. If there is news, `end` asks for the end of the WAL.
    /// Until its tables are returned, a look is not replaced.
    pub(crate) fn seen(
        &mut self,
        tables: Vec<(u32, Arc<TableSchema>)>,
        end: impl FnOnce() -> Result<u64>,
    ) -> Result<()> {
        if self.look.is_some() {
            return Ok(());
        }
        let tables = tables.into_iter();
        let tables = tables.filter(|(oid, schema)| self.returned.get(oid) != Some(schema));
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
    pub(crate) fn sent(&mut self, oid: u32) {
        self.returned.remove(&oid);
        if let Some(look) = &mut self.look {
            look.left |= look.tables.remove(&oid).is_some();
        }
    }

    /// Discards the look: the stream continues further back.
    pub(crate) fn forget(&mut self) {
        self.look = None;
    }

    /// The tables of the look, once everything before it is acknowledged: all before the LSN
    /// `acknowledged` is.
    pub(crate) fn take(&mut self, acknowledged: u64) -> Vec<Arc<TableSchema>> {
        let Some(look) = self.look.take_if(|look| reached(acknowledged, look.end)) else {
            return Vec::new();
        };
        self.settled |= !look.left;
        let tables: Vec<_> = look.tables.values().map(Arc::clone).collect();
        self.returned.extend(look.tables);
        tables
    }

    /// Whether the columns of all tables were returned, as some look saw them.
    pub(crate) fn is_settled(&self) -> bool {
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
    fn new_columns_are_returned_once_and_after_earlier_commits() {
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
