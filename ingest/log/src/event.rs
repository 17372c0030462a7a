//! A row change as capture sees it and publish writes it.

/// One column's value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// SQL NULL.
    Null,
    /// `boolean`
    Bool(bool),
    /// Any integer type, widened.
    Int(i64),
    /// Any floating-point type, widened.
    Float(f64),
    /// Text, and every type that travels as text (uuid, json).
    Text(String),
    /// `bytea`
    Bytes(Vec<u8>),
    /// Days since 1970-01-01.
    Date(i32),
    /// Microseconds since 1970-01-01T00:00:00 (UTC where the column has a time zone).
    Timestamp(i64),
    /// `unscaled × 10^-scale`, with the column's declared scale.
    Decimal(i128),
}

/// What happened to the row; the letters are Debezium's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// `r`: the row was there when the capture began.
    Read,
    /// `c`: inserted.
    Create,
    /// `u`: updated.
    Update,
    /// `d`: deleted.
    Delete,
    /// `t`: the whole table was truncated; no key, no row.
    Truncate,
}

impl Op {
    /// Debezium's letter.
    pub fn letter(self) -> &'static str {
        match self {
            Op::Read => "r",
            Op::Create => "c",
            Op::Update => "u",
            Op::Delete => "d",
            Op::Truncate => "t",
        }
    }

    /// The op of a letter, if it is one.
    pub fn of_letter(letter: &str) -> Option<Self> {
        [Op::Read, Op::Create, Op::Update, Op::Delete, Op::Truncate]
            .into_iter()
            .find(|op| op.letter() == letter)
    }
}

/// Where in the source a change was read. Totally ordered: capture delivers changes in this order,
/// so a publisher can tell what a topic already holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Position {
    /// The commit's place: PostgreSQL's commit LSN, SQLite's change id. A snapshot uses the place
    /// it was taken at.
    pub commit: u64,
    /// The change's number within its commit (or within the snapshot), from 0.
    pub index: u64,
}

/// One captured row change.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// Schema of the table at this change; rows below have one value a column, in its order.
    pub table: std::sync::Arc<crate::schema::TableSchema>,
    /// What happened.
    pub op: Op,
    /// The row before, where the source knows it (replica identity full, or the key columns alone
    /// with the rest null).
    pub before: Option<Vec<Value>>,
    /// The row after; none for deletes and truncates.
    pub after: Option<Vec<Value>>,
    /// Where it was read.
    pub position: Position,
    /// The source's transaction id.
    pub transaction: u64,
    /// When the source committed it, microseconds since the epoch.
    pub committed_us: i64,
    /// True while the initial snapshot is read.
    pub snapshot: bool,
}
