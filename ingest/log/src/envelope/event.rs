//! Change events: one captured row change, its values and its source position.
//!
//! Capture produces a [`Change`] for each row of a snapshot and for each committed insert, update,
//! delete and truncate. Publish encodes it as a record ([`crate::envelope`]).

/// The value of one column.
///
/// Two values are equal when their representations are equal: `0.0` and `-0.0` differ, and a NaN
/// equals the same NaN. (A row that is written again unchanged must compare as unchanged.)
#[derive(Debug, Clone)]
pub enum Value {
    /// SQL NULL.
    Null,
    /// `boolean`.
    Bool(bool),
    /// Any integer type, widened to 64 bits.
    Int(i64),
    /// Any floating-point type, widened to 64 bits.
    Float(f64),
    /// Text, and every type that is published as text (uuid, json, the types of
    /// [`crate::schema::SourceType`]).
    Text(String),
    /// `bytea`, and SQLite's `BLOB`.
    Bytes(Vec<u8>),
    /// Days since 1970-01-01.
    Date(i32),
    /// Microseconds since 1970-01-01T00:00:00 (in UTC where the column has a time zone).
    Timestamp(i64),
    /// The unscaled value of a decimal: the value is `unscaled × 10^-scale`, with the scale that
    /// the column declares.
    Decimal(i128),
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Value::Null, Value::Null) => true,
            (Value::Bool(one), Value::Bool(other)) => one == other,
            (Value::Int(one), Value::Int(other)) => one == other,
            (Value::Float(one), Value::Float(other)) => one.to_bits() == other.to_bits(),
            (Value::Text(one), Value::Text(other)) => one == other,
            (Value::Bytes(one), Value::Bytes(other)) => one == other,
            (Value::Date(one), Value::Date(other)) => one == other,
            (Value::Timestamp(one), Value::Timestamp(other)) => one == other,
            (Value::Decimal(one), Value::Decimal(other)) => one == other,
            _ => false,
        }
    }
}

impl Eq for Value {}

/// The operation on the row. The letters are those of Debezium's field `op`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// `r`: the row was read by the initial snapshot.
    Read,
    /// `c`: the row was inserted.
    Create,
    /// `u`: the row was updated, and its primary key did not change.
    Update,
    /// `d`: the row was deleted.
    Delete,
    /// `d` with a mark in `source.sequence`: the current row of this key cannot be published. The
    /// row is a dead letter, and readers drop what was published of the key before.
    Withheld,
    /// `t`: the whole table was truncated. The change has neither key nor row and goes to every
    /// partition.
    Truncate,
}

impl Op {
    /// Debezium's letter for the operation. [`Op::Withheld`] is written as `d`.
    pub fn letter(self) -> &'static str {
        match self {
            Op::Read => "r",
            Op::Create => "c",
            Op::Update => "u",
            Op::Delete | Op::Withheld => "d",
            Op::Truncate => "t",
        }
    }

    /// The operation of one of Debezium's letters; `None` for any other text. `d` gives
    /// [`Op::Delete`].
    pub fn of_letter(letter: &str) -> Option<Self> {
        [Op::Read, Op::Create, Op::Update, Op::Delete, Op::Truncate]
            .into_iter()
            .find(|op| op.letter() == letter)
    }
}

/// A source position: where in the source database a change was read.
///
/// Positions are totally ordered, and capture delivers changes in this order. So a publisher can
/// tell which changes a topic already holds, and a reader can drop duplicates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Position {
    /// The commit: PostgreSQL's commit LSN in bytes, or SQLite's change id. All changes of a
    /// snapshot of PostgreSQL have the LSN just before the one at which it was taken.
    pub commit: u64,
    /// The number of the change within its commit or snapshot, from 0.
    pub index: u64,
}

/// One captured row change.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The schema of the table at this change. The rows below have one value per column, in the
    /// order of the schema's columns.
    pub table: std::sync::Arc<crate::schema::TableSchema>,
    /// The operation.
    pub op: Op,
    /// The row before the change, where the source knows it: the whole row with replica identity
    /// FULL, else the columns of the key with null in all others.
    pub before: Option<Vec<Value>>,
    /// The row after the change; `None` for deletes and truncates.
    pub after: Option<Vec<Value>>,
    /// The source position.
    pub position: Position,
    /// The transaction id of the source: PostgreSQL's `xid`.
    pub transaction: u64,
    /// The commit time in the source, in microseconds since 1970-01-01 UTC.
    pub committed_us: i64,
    /// True for the changes of a snapshot: its truncate and its rows.
    pub snapshot: bool,
}

impl Change {
    /// The row with the columns of the primary key; all other values are null.
    pub fn key_alone(table: &crate::schema::TableSchema, row: &[Value]) -> Vec<Value> {
        let alone = row.iter().enumerate().map(|(index, value)| {
            let kept = table.in_key(index).then(|| value.clone());
            kept.unwrap_or(Value::Null)
        });
        alone.collect()
    }

    /// The same change with `before` reduced to the key, which makes its record smaller. `None`
    /// when there is nothing to remove.
    #[must_use]
    pub fn without_old_row(&self) -> Option<Self> {
        let before = Self::key_alone(&self.table, self.before.as_ref()?);
        (self.before.as_ref() != Some(&before)).then(|| Self {
            before: Some(before),
            ..self.clone()
        })
    }

    /// The change to publish in place of one whose row cannot be published: [`Op::Withheld`] with
    /// the key alone. `None` when the change has no row, or is such a change already.
    #[must_use]
    pub fn withheld(&self) -> Option<Self> {
        let row = self.after.as_ref().or(self.before.as_ref())?;
        (self.op != Op::Withheld).then(|| Self {
            op: Op::Withheld,
            before: Some(Self::key_alone(&self.table, row)),
            after: None,
            ..self.clone()
        })
    }
}
