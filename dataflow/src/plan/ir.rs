//! The intermediate representation: what the planner hands to the renderer.
//!
//! A [`Job`] is a list of sources and a list of views in dependency order. A view is a tree of
//! [`Rel`] nodes; every node knows its output schema. Expressions are DataFusion physical
//! expressions bound to their input's columns: pure, immutable, evaluated on whole batches.
//! No timely or differential type appears here.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion_physical_expr::PhysicalExpr;

/// Everything one set of dataflow processes keeps up to date.
#[derive(Debug, Clone)]
pub struct Job {
    /// The tables read, each once however many views use it.
    pub sources: Vec<Source>,
    /// The views, each after those it reads.
    pub views: Vec<View>,
}

/// How records of a topic become rows of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Envelope {
    /// Every record is one more row.
    Append,
    /// A record replaces the row of its key; a null value deletes it.
    Upsert,
    /// Debezium's change events: the `after` image replaces the row of the record's key.
    Debezium,
}

/// How a record's value (and Avro key) is encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a record.
    Json(Spelling),
    /// Confluent wire format. Holds the schema the table's columns were planned with (for
    /// [`Envelope::Debezium`] the whole envelope's schema).
    Avro {
        /// Avro schema JSON of the value.
        schema: String,
        /// The newest version of the value's subject then. A later one that lacks a column in use
        /// ends the job.
        newest: u32,
        /// The schema of the records' keys then, where they have one.
        key: Option<KeySchema>,
    },
}

/// The schema of a topic's keys as it was when a table was planned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySchema {
    /// Its Avro schema JSON.
    pub schema: String,
    /// Its version in its subject.
    pub version: u32,
}

/// How JSON records write what JSON has no type for, as far as the table says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spelling {
    /// Timestamps that are numbers.
    pub timestamps: Option<Epoch>,
    /// Decimals that are strings.
    pub decimals: Option<Digits>,
    /// Bytes.
    pub binary: Option<Binary>,
    /// Columns that a record has no field for.
    pub missing: Option<Missing>,
}

/// What a number that stands for a timestamp counts since 1970.
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
    /// Nothing: timestamps are text.
    Iso,
}

/// How a decimal is written in a string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Digits {
    /// As digits.
    Text,
    /// As the base64 of an unscaled two's complement at the column's scale.
    Base64,
}

/// How bytes are written in a string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binary {
    /// As base64, also the URL-safe one.
    Base64,
    /// As hexadecimal digits.
    Hex,
    /// As the text that they are in UTF-8.
    Text,
}

/// What a column is that a record has no field for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// NULL.
    Null,
    /// A reason to refuse the record.
    Refuse,
}

/// A table fed by a topic.
#[derive(Debug, Clone)]
pub struct Source {
    /// The table's name in SQL.
    pub name: String,
    /// The topic.
    pub topic: String,
    /// How values are encoded.
    pub format: Format,
    /// How records become rows.
    pub envelope: Envelope,
    /// What Debezium was told to write in place of a large value that a change left as it was,
    /// beside its default.
    pub unavailable: Option<Arc<[u8]>>,
    /// Columns that any view uses, in table order: what decoders produce and nothing more.
    /// Field names are the table's column names. May be empty (`count(*)` alone).
    pub schema: SchemaRef,
    /// Names of the columns that make up the record key, when the registry or a
    /// `PRIMARY KEY` says so; empty otherwise. All are unique together.
    pub key: Vec<String>,
}

/// A view, and where it is served if it is.
#[derive(Debug, Clone)]
pub struct View {
    /// The view's name; also the table's in the sink.
    pub name: String,
    /// The SQL as written.
    pub sql: String,
    /// What it computes.
    pub rel: Rel,
    /// Where it is served; none for an internal view.
    pub output: Option<Output>,
    /// A hash of the plan and the output, stable across restarts and releases: equal means that
    /// the view's state and sink table can be kept.
    pub fingerprint: u64,
}

impl View {
    /// What the names of its state's sites in a checkpoint begin with.
    pub(crate) fn site(&self) -> String {
        format!("{}/{:016x}", self.name, self.fingerprint)
    }
}

/// A view's table in the sink.
#[derive(Debug, Clone)]
pub struct Output {
    /// Primary key as indexes of the view's columns. The first `partition_columns` of them place
    /// the row (Cassandra's partition key), the others sort within (clustering columns).
    pub primary_key: Vec<usize>,
    /// How many columns of `primary_key` are the partition key; at least 1.
    pub partition_columns: usize,
    /// True when the plan proves that no two rows share a primary key.
    pub unique: bool,
}

/// A relation: a node of the view's tree.
#[derive(Debug, Clone)]
pub struct Rel {
    /// The node's output columns.
    pub schema: SchemaRef,
    /// What the node does.
    pub op: RelOp,
}

/// An expression with the text that `explain` shows for it.
#[derive(Debug, Clone)]
pub struct Scalar {
    /// Evaluated on the input's batches.
    pub expr: Arc<dyn PhysicalExpr>,
    /// As SQL-like text.
    pub text: String,
}

/// What a relation does.
#[derive(Debug, Clone)]
pub enum RelOp {
    /// Rows of `Job::sources[source]`; the schema is the source's.
    Source {
        /// Index into `Job::sources`.
        source: usize,
    },
    /// Rows of `Job::views[view]`, an earlier view.
    View {
        /// Index into `Job::views`.
        view: usize,
    },
    /// Keeps rows for which every filter is true, then computes `outputs` (a filter and a map in
    /// one, evaluated batch by batch).
    Compute {
        /// Input.
        input: Box<Rel>,
        /// Conjuncts, evaluated on the input's columns.
        filters: Vec<Scalar>,
        /// One expression an output column.
        outputs: Vec<Scalar>,
    },
    /// GROUP BY: output columns are the keys, then the aggregates. With no keys there is exactly
    /// one row, also over an empty input.
    Reduce {
        /// Input.
        input: Box<Rel>,
        /// Group keys; may be empty.
        keys: Vec<Scalar>,
        /// Aggregates; may not be empty (that is `Distinct`).
        aggregates: Vec<Aggregate>,
    },
    /// Each distinct row once.
    Distinct {
        /// Input.
        input: Box<Rel>,
    },
    /// UNION ALL of inputs with equal schemas.
    Union {
        /// Inputs; at least 2.
        inputs: Vec<Rel>,
    },
    /// Inner join: each pair of a left and a right row whose keys are equal, as the columns of the
    /// left row, then those of the right one. Other conditions are a `Compute` above.
    Join {
        /// Left input.
        left: Box<Rel>,
        /// Right input.
        right: Box<Rel>,
        /// Pairs of equal type, one on the left's columns and one on the right's; at least 1.
        keys: Vec<(Scalar, Scalar)>,
        /// Whether null equals null (`IS NOT DISTINCT FROM`); otherwise it equals nothing.
        nulls_equal: bool,
    },
    /// Of each group's rows, in order, those after the first `offset`, at most `limit` of them.
    /// Rows that tie are in the order of their other columns, ascending, nulls last: the answer
    /// depends on nothing but the rows.
    TopK {
        /// Input.
        input: Box<Rel>,
        /// What makes a group; all rows are one when empty.
        partition: Vec<Scalar>,
        /// The order within a group; may be empty.
        order: Vec<OrderBy>,
        /// Rows left out at the beginning of each group.
        offset: u64,
        /// Rows kept of each group; none for all.
        limit: Option<u64>,
        /// Whether a last column tells the row's number within its group, from 1 (`Int64`).
        ranked: bool,
    },
}

/// One expression of an ORDER BY.
#[derive(Debug, Clone)]
pub struct OrderBy {
    /// What is compared.
    pub scalar: Scalar,
    /// Greatest first.
    pub descending: bool,
    /// Nulls before all others.
    pub nulls_first: bool,
}

/// One aggregate of a `Reduce`.
#[derive(Debug, Clone)]
pub struct Aggregate {
    /// Which function.
    pub function: AggregateFunction,
    /// Its argument; none for `count(*)`.
    pub argument: Option<Scalar>,
    /// Only rows where this is true count (`FILTER (WHERE …)`).
    pub filter: Option<Scalar>,
    /// `DISTINCT` was said (never for min, max, bool_and, bool_or, where it changes nothing).
    pub distinct: bool,
}

/// The aggregate functions the renderer knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AggregateFunction {
    /// Rows, or rows whose argument is not null. `Int64`.
    Count,
    /// Null over no rows. Output type is DataFusion's: `Int64`, `UInt64`, `Float64`, `Decimal`.
    Sum,
    /// Null over no rows. `Float64` for numbers, `Decimal` for decimals.
    Avg,
    /// Argument's type.
    Min,
    /// Argument's type.
    Max,
    /// `Boolean`, null over no rows.
    BoolAnd,
    /// `Boolean`, null over no rows.
    BoolOr,
}
