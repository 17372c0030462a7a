//! What a decoder does.

use std::collections::BTreeMap;

use arrow::record_batch::RecordBatch;

use crate::Result;
use crate::value::source_position::SourcePosition;

/// Why one record could not be decoded: the text that its dead letter carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused(pub String);

/// What a record's value did to its table, when the value says so (debezium), see [`Decoder`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// A row was added to the batch being built.
    Row,
    /// The record says that the row of its key is gone; nothing was added.
    Gone,
    /// The record says that its key has a row which could not be published; nothing was added.
    Withheld,
    /// The record says that all rows of its partition's keys are gone (`op` = `t`).
    Truncated,
    /// The record is about no row: a message, a heartbeat, the begin or end of a transaction.
    Nothing,
    /// The record is one more copy of a change that was taken before; nothing was added.
    Copy,
}

/// Decodes values of one topic into the columns of one [`Source`]. Belongs to one thread.
pub trait Decoder: Send {
    /// Decodes one value, appending at most one row to the batch being built. A null value is
    /// handled by the caller and never comes here.
    fn push(&mut self, value: &[u8]) -> std::result::Result<Effect, Refused> {
        self.push_behind(value, &mut None)
    }
    /// The same for a record of a partition whose newest change so far is `newest`, which is moved.
    /// Only records that say where they come from have a place: see [`SourcePosition`].
    fn push_behind(
        &mut self,
        value: &[u8],
        newest: &mut Option<SourcePosition>,
    ) -> std::result::Result<Effect, Refused>;
    /// Notices the key of a record that is pushed next, where keys have schemas.
    fn key(&mut self, key: &[u8]) {
        let _no_schema = key;
    }
    /// Takes the fingerprints of the schemas that earlier runs read records with, by their ids.
    fn remember(&mut self, schemas: BTreeMap<u32, i64>) {
        let _no_schemas = schemas;
    }
    /// Those of the records that were pushed, as far as no run knew them and since the last call.
    fn noted(&mut self) -> BTreeMap<u32, i64> {
        BTreeMap::new()
    }
    /// Rows pushed since the last [`Decoder::finish`].
    fn rows(&self) -> usize;
    /// The batch of all rows pushed since the last call; its schema is the source's schema.
    fn finish(&mut self) -> Result<RecordBatch>;
}
