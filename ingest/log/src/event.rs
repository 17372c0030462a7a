//! A row change as capture sees it and publish writes it.

/// One column's value. Two values are equal where they are written alike: `0.0` is not `-0.0`, and
/// NaN is NaN.
#[derive(Debug, Clone)]
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
    /// `d` with a mark: the row of this key is one that cannot be published. It is a dead letter,
    /// and what was published of the key before is not its row any more.
    Withheld,
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
            Op::Delete | Op::Withheld => "d",
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

impl Change {
    /// The row with nothing but the columns of its key; the others are null.
    pub fn key_alone(table: &crate::schema::TableSchema, row: &[Value]) -> Vec<Value> {
        let alone = row.iter().enumerate().map(|(index, value)| {
            let kept = table.in_key(index).then(|| value.clone());
            kept.unwrap_or(Value::Null)
        });
        alone.collect()
    }

    /// The same change with nothing but the key of its old row; none when that is all it has.
    #[must_use]
    pub fn without_old_row(&self) -> Option<Self> {
        let before = Self::key_alone(&self.table, self.before.as_ref()?);
        (self.before.as_ref() != Some(&before)).then(|| Self {
            before: Some(before),
            ..self.clone()
        })
    }

    /// What takes the place of a change whose row cannot be published: none without a key.
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
