//! The trait [`Decoder`]: what every record decoder must do.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use tidemill_log::Result;
use tidemill_state::value::source_position::SourcePosition;

/// Why a record could not be decoded. The dead letter carries this text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused(pub String);

/// What a record's value does to its table; see [`Decoder`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// One row was added to the batch under construction.
    Row,
    /// The row of the record's key was deleted; nothing was added.
    Gone,
    /// The key has a row that could not be published, so the key is in error; nothing was added.
    Withheld,
    /// All rows of keys in the record's partition were deleted (`op` = `t`).
    Truncated,
    /// The record is not about a row: a message, a heartbeat, the begin or end of a transaction.
    Nothing,
    /// The record is a duplicate of a change that was taken before; nothing was added.
    Duplicate,
}

/// What can be used of a record whose values its columns refuse; see [`Decoder::push_rest`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rest {
    /// Nothing.
    Nothing,
    /// The record is a duplicate of a change that was taken before.
    Duplicate,
    /// One row was added to the batch, with placeholders in the columns of these indexes.
    Row(Arc<[usize]>),
}

impl Rest {
    /// What a decoder found of a record that it read with placeholders. `lacking` are the columns
    /// that have them. A record of which nothing can be used leaves `newest` as it was `before`.
    pub(crate) fn of(
        effect: std::result::Result<Effect, Refused>,
        lacking: Option<Arc<[usize]>>,
        newest: &mut Option<SourcePosition>,
        before: Option<SourcePosition>,
    ) -> Self {
        match (effect, lacking) {
            (Ok(Effect::Row), Some(lacking)) => Self::Row(lacking),
            (Ok(Effect::Duplicate), _) => Self::Duplicate,
            _ => {
                *newest = before;
                Self::Nothing
            }
        }
    }
}

/// Decodes the values of one topic into the columns of one [`Source`](tidemill_ir::Source).
/// Belongs to one thread.
///
/// A refused record leaves the batch as it was.
pub trait Decoder: Send {
    /// Decodes one value and appends at most one row to the batch. The caller handles null values.
    ///
    /// # Errors
    /// A refusal, whose text becomes the reason of a dead letter.
    fn push(&mut self, value: &[u8]) -> std::result::Result<Effect, Refused> {
        self.push_after(value, &mut None)
    }
    /// As [`Decoder::push`], for a record of a partition whose newest source position so far is
    /// `newest`. Moves `newest` if the record carries a position; see [`SourcePosition`].
    ///
    /// # Errors
    /// A refusal, whose text becomes the reason of a dead letter.
    fn push_after(
        &mut self,
        value: &[u8],
        newest: &mut Option<SourcePosition>,
    ) -> std::result::Result<Effect, Refused>;
    /// Takes a record that [`Decoder::push_after`] has refused once more, without the values that
    /// their columns refused. If nothing else is wrong with the record and it has a row, appends
    /// the row, with a placeholder in these columns. Otherwise the batch stays as it was.
    fn push_rest(&mut self, value: &[u8], newest: &mut Option<SourcePosition>) -> Rest;
    /// Takes in the key of the record that is pushed next, if keys have a schema or a form.
    fn key(&mut self, key: &[u8]) {
        let _no_schema = key;
    }
    /// Takes in the fingerprints of schemas with which earlier runs read records, by schema id.
    fn remember(&mut self, schemas: BTreeMap<u32, i64>) {
        let _no_schemas = schemas;
    }
    /// The fingerprints of schemas that no run had met before; each is returned once.
    fn noted(&mut self) -> BTreeMap<u32, i64> {
        BTreeMap::new()
    }
    /// The number of rows pushed since the last [`Decoder::finish`].
    fn rows(&self) -> usize;
    /// The batch of all rows pushed since the last call. Its schema is the source's schema.
    ///
    /// # Errors
    /// `Data` when the job cannot continue: a schema, a type or a key changed, or the registry lost
    /// schemas.
    fn finish(&mut self) -> Result<RecordBatch>;
}
