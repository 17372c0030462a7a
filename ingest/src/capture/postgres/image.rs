//! The rows before and after a change, as the replication stream sends them.
//!
//! In: a message's tuples. Out: one or two [`Captured`]. Only the key of the row before matters:
//! what else of it cannot be represented is left out. Where the row after cannot be, it is refused,
//! and what was published of its keys is taken away.

use tidemill_log::event::{Change, Op, Value};
use tidemill_log::schema::TableSchema;

use super::pgoutput::{Old, Tuple};
use super::values::{RowError, key_of_row, row_of, text_of};
use crate::Result;
use crate::capture::{Captured, push, withhold};

/// A change's tuples.
pub(super) struct Image<'a> {
    pub(super) schema: &'a TableSchema,
    pub(super) op: Op,
    pub(super) old: Option<&'a Old>,
    pub(super) new: Option<&'a Tuple>,
}

impl Image<'_> {
    fn old(&self) -> Option<&Tuple> {
        self.old.map(|(Old::Key(tuple) | Old::Full(tuple))| tuple)
    }

    fn values(
        &self,
        tuple: &Tuple,
        old: Option<&Tuple>,
        change: &Change,
    ) -> std::result::Result<Vec<Value>, RowError> {
        let cells = tuple.iter().enumerate();
        let cells = cells.map(|(i, cell)| text_of(self.schema, i, cell, old));
        row_of(self.schema, cells, change.position)
    }

    fn key(&self, tuple: &Tuple, old: Option<&Tuple>) -> Option<Vec<Value>> {
        let cells = tuple.iter().enumerate();
        key_of_row(
            self.schema,
            cells.map(|(i, cell)| text_of(self.schema, i, cell, old)),
        )
    }

    /// Fills the rows of `change` in and appends it. False when there is nothing to append.
    pub(super) fn push(&self, mut change: Change, out: &mut Vec<Captured>) -> Result<bool> {
        let old = self.old();
        if let Some(tuple) = old {
            change.before = match self.values(tuple, None, &change) {
                Ok(values) => Some(values),
                Err(RowError::Refused(_)) => self.key(tuple, None),
                Err(RowError::Fatal(error)) => return Err(error),
            };
        }
        if self.op == Op::Delete && change.before.is_none() {
            // A row with such a key was never published.
            return Ok(false);
        }
        let Some(tuple) = self.new else {
            push(out, change);
            return Ok(true);
        };
        match self.values(tuple, old, &change) {
            Ok(values) => {
                change.after = Some(values);
                push(out, change);
                Ok(true)
            }
            Err(RowError::Refused(mut refused)) => {
                refused.withheld = withhold(&change, self.key(tuple, old));
                out.push(Captured::Refused(*refused));
                Ok(true)
            }
            Err(RowError::Fatal(error)) => Err(error),
        }
    }
}
