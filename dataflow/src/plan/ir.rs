//! The intermediate representation (IR): what the planner gives to the renderer.
//!
//! A [`Job`] is a list of sources, and a list of views in the order of their dependencies. A view
//! is a tree of [`Rel`] nodes, and each node knows its output schema. Expressions are DataFusion
//! physical expressions, bound to the columns of their input by position: pure, immutable,
//! evaluated on whole batches. No type of timely or differential appears here.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion_physical_expr::PhysicalExpr;

/// Everything that one set of dataflow processes maintains.
#[derive(Debug, Clone)]
pub struct Job {
    /// The tables that are read. Each occurs once, however many views use it.
    pub sources: Vec<Source>,
    /// The views. A view is after all views that it reads.
    pub views: Vec<View>,
}

/// How the records of a topic become the rows of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Envelope {
    /// Every record is one more row.
    Append,
    /// A record replaces the row of its key. A null value deletes the row.
    Upsert,
    /// Debezium's change events. The `after` image replaces the row of the record's key.
    Debezium,
}

/// The encoding of a record's value (and of an Avro key).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Format {
    /// One JSON object per record.
    Json(Spelling),
    /// Confluent's wire format, with the schema that the table's columns were planned with. For
    /// [`Envelope::Debezium`] this is the schema of the whole envelope.
    Avro {
        /// The Avro schema of values, as JSON.
        schema: String,
        /// The newest version of the values' subject when the table was planned. The job ends when
        /// a later version lacks a column in use.
        newest: u32,
        /// The schema of keys when the table was planned, if keys have one.
        key: Option<KeySchema>,
    },
}

/// The schema of a topic's keys when a table was planned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySchema {
    /// The Avro schema, as JSON.
    pub schema: String,
    /// Its version in its subject.
    pub version: u32,
}

/// How JSON records write values of types that JSON does not have. `None` where the table says
/// nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spelling {
    /// Timestamps that are written as numbers.
    pub timestamps: Option<Epoch>,
    /// Decimals that are written as strings.
    pub decimals: Option<Digits>,
    /// Bytes.
    pub binary: Option<Binary>,
    /// Columns for which a record has no field.
    pub missing: Option<Missing>,
}

/// The unit of a number that is a timestamp, counted from 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Epoch {
    /// Seconds.
    Seconds,
    /// Milliseconds.
    Millis,
    /// Microseconds.
    Micros,
    /// Nanoseconds.
    Nanos,
    /// No unit: timestamps are ISO 8601 texts.
    Iso,
}

/// How a decimal is written in a string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Digits {
    /// As decimal digits.
    Text,
    /// As the base64 of the unscaled two's complement number, with the column's scale.
    Base64,
}

/// How bytes are written in a string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binary {
    /// As base64, standard or URL-safe.
    Base64,
    /// As hexadecimal digits.
    Hex,
    /// As the UTF-8 text that they are.
    Text,
}

/// The value of a column for which a record has no field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// NULL.
    Null,
    /// None: the record is refused.
    Refuse,
}

/// A table that is fed by a topic.
#[derive(Debug, Clone)]
pub struct Source {
    /// The table's name in SQL.
    pub name: String,
    /// The topic.
    pub topic: String,
    /// The encoding of values.
    pub format: Format,
    /// How records become rows.
    pub envelope: Envelope,
    /// Debezium's placeholder for a large value that a change left unchanged, besides the default
    /// one.
    pub unavailable: Option<Arc<[u8]>>,
    /// The columns that any view uses, in the order of the table: exactly what decoders produce.
    /// The field names are the table's column names. May be empty (`count(*)` alone).
    pub schema: SchemaRef,
    /// The names of the columns that make up the record key, if the registry or a `PRIMARY KEY`
    /// names them; otherwise empty. Together they are unique.
    pub key: Vec<String>,
}

/// A view, with its output if it is served.
#[derive(Debug, Clone)]
pub struct View {
    /// The view's name, which is also the name of its table in the sink.
    pub name: String,
    /// The SQL as written.
    pub sql: String,
    /// What the view computes.
    pub rel: Rel,
    /// The view's table in the sink; `None` if the view is not written anywhere and other views
    /// read it.
    pub output: Option<Output>,
    /// A hash of the plan and the output, stable across restarts and releases. If two fingerprints
    /// are equal, the view's state and its sink table can be kept.
    pub fingerprint: u64,
}

impl View {
    /// The prefix of the names under which checkpoints keep the view's state.
    pub(crate) fn site(&self) -> String {
        format!("{}/{:016x}", self.name, self.fingerprint)
    }
}

/// The table of a view in the sink.
#[derive(Debug, Clone)]
pub struct Output {
    /// The primary key, as indices of the view's columns. The first `partition_columns` of them
    /// place the row (Cassandra's partition key), the others sort it within (clustering columns).
    pub primary_key: Vec<usize>,
    /// The number of columns of `primary_key` that are the partition key; at least 1.
    pub partition_columns: usize,
    /// Whether the plan proves that no two rows share a primary key. If not, the sink operator
    /// checks it row by row.
    pub unique: bool,
}

/// A relation: a node in the tree of a view.
#[derive(Debug, Clone)]
pub struct Rel {
    /// The node's output columns.
    pub schema: SchemaRef,
    /// What the node does.
    pub op: RelOp,
}

/// An expression, with the text that `explain` shows.
#[derive(Debug, Clone)]
pub struct Scalar {
    /// The expression, evaluated on batches of the input.
    pub expr: Arc<dyn PhysicalExpr>,
    /// The expression as SQL-like text.
    pub text: String,
}

/// What a relation computes.
#[derive(Debug, Clone)]
pub enum RelOp {
    /// The rows of `Job::sources[source]`. The schema is the source's.
    Source {
        /// Index into `Job::sources`.
        source: usize,
    },
    /// The rows of `Job::views[view]`, which is an earlier view.
    View {
        /// Index into `Job::views`.
        view: usize,
    },
    /// Keeps the rows for which every filter is true, and then computes `outputs`: a filter and a
    /// projection in one, evaluated batch by batch.
    Compute {
        /// Input.
        input: Box<Rel>,
        /// Conditions on the input's columns, all of which must be true.
        filters: Vec<Scalar>,
        /// One expression per output column.
        outputs: Vec<Scalar>,
    },
    /// GROUP BY. The output columns are the keys, then the aggregates. Without keys there is
    /// exactly one row, even over an empty input.
    Reduce {
        /// Input.
        input: Box<Rel>,
        /// The group keys; may be empty.
        keys: Vec<Scalar>,
        /// The aggregates; not empty (without aggregates, GROUP BY is `Distinct`).
        aggregates: Vec<Aggregate>,
    },
    /// Each distinct row once.
    Distinct {
        /// Input.
        input: Box<Rel>,
    },
    /// UNION ALL of inputs with equal schemas.
    Union {
        /// The inputs; at least 2.
        inputs: Vec<Rel>,
    },
    /// An inner join: each pair of a left and a right row with equal keys. The columns are those of
    /// the left row, then those of the right row. Other conditions are a `Compute` above the join.
    Join {
        /// Left input.
        left: Box<Rel>,
        /// Right input.
        right: Box<Rel>,
        /// Pairs of expressions of equal type, one over the left columns and one over the right; at
        /// least 1.
        keys: Vec<(Scalar, Scalar)>,
        /// Whether null equals null (`IS NOT DISTINCT FROM`). If not, null equals nothing.
        nulls_equal: bool,
    },
    /// Of the ordered rows of each group: those after the first `offset`, and at most `limit` of
    /// them. Rows that are equal in the order are ordered by their other columns, ascending, nulls
    /// last. Therefore the result depends on nothing but the rows.
    TopK {
        /// Input.
        input: Box<Rel>,
        /// The expressions that make a group; if there are none, all rows are one group.
        partition: Vec<Scalar>,
        /// The order within a group; may be empty.
        order: Vec<OrderBy>,
        /// The number of rows skipped at the beginning of each group.
        offset: u64,
        /// The number of rows kept of each group; `None` for all.
        limit: Option<u64>,
        /// Whether a last column has the row's number within its group, from 1 (`Int64`).
        ranked: bool,
    },
}

/// One expression of an ORDER BY.
#[derive(Debug, Clone)]
pub struct OrderBy {
    /// The expression by which rows are compared.
    pub scalar: Scalar,
    /// Whether the greatest value is first.
    pub descending: bool,
    /// Whether nulls are before all other values.
    pub nulls_first: bool,
}

/// One aggregate of a `Reduce`.
#[derive(Debug, Clone)]
pub struct Aggregate {
    /// The aggregate function.
    pub function: AggregateFunction,
    /// The argument; `None` for `count(*)`.
    pub argument: Option<Scalar>,
    /// A condition; only rows for which it is true count (`FILTER (WHERE …)`).
    pub filter: Option<Scalar>,
    /// Whether DISTINCT was given. Never for `min`, `max`, `bool_and` and `bool_or`, where it has
    /// no effect.
    pub distinct: bool,
}

/// The aggregate functions that the renderer implements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AggregateFunction {
    /// The number of rows, or of rows whose argument is not null. `Int64`.
    Count,
    /// The sum; null over no rows. Its type is that of [`super::functions`]: `Int64`, `Float32`,
    /// `Float64` or `Decimal128`.
    Sum,
    /// The average; null over no rows. `Float64` for floats, `Decimal128` for other numbers.
    Avg,
    /// The smallest value, of the argument's type.
    Min,
    /// The greatest value, of the argument's type.
    Max,
    /// Whether all arguments are true. `Boolean`, null over no rows.
    BoolAnd,
    /// Whether any argument is true. `Boolean`, null over no rows.
    BoolOr,
}
