//! Row images: the rows before and after a change, from the tuples of the replication stream.
//!
//! In: the tuples of a message. Out: one or two [`Captured`]. Of the row before a change only the
//! key must be representable; its other values are dropped otherwise. A row after the change that
//! cannot be represented is refused, and what was published of its keys is removed.

use tidemill_log::envelope::event::{Change, Op, Value};
use tidemill_log::schema::TableSchema;

use super::pgoutput::{Old, Tuple};
use super::values::{RowError, key_of_row, row_of, text_of};
use crate::Result;
use crate::capture::{Captured, push, withhold};

/// The tuples of a change.
pub(super) struct Image<'a> {
    /// The columns of the tuples.
    pub(super) schema: &'a TableSchema,
    /// The operation.
    pub(super) op: Op,
    /// The row before, or its key.
    pub(super) old: Option<&'a Old>,
    /// The row after.
    pub(super) new: Option<&'a Tuple>,
}

impl Image<'_> {
    /// The tuple of the row before.
    fn old(&self) -> Option<&Tuple> {
        self.old.map(|(Old::Key(tuple) | Old::Full(tuple))| tuple)
    }

    /// The values of a tuple. Unchanged TOASTed values are taken from `old`.
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

    /// The values of the key in a tuple, if they can be represented.
    fn key(&self, tuple: &Tuple, old: Option<&Tuple>) -> Option<Vec<Value>> {
        let cells = tuple.iter().enumerate();
        key_of_row(
            self.schema,
            cells.map(|(i, cell)| text_of(self.schema, i, cell, old)),
        )
    }

    /// Adds the rows to `change` and appends it. False when there is nothing to publish.
    ///
    /// # Errors
    /// `Data` when the server did not send a value that is needed.
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
            // No row with such a key was ever published.
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
