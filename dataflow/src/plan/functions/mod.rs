//! The table of scalar functions, operators and casts: what a view may call, and how it is
//! evaluated.
//!
//! An [`Entry`] is one name with one list of argument types. SQL that matches no entry is refused
//! by name: nothing is accepted by default. Every entry gives PostgreSQL's answer or fails the row;
//! `tests/sql/values` iterates over the table and compares each with a real PostgreSQL. Where the
//! library's implementation was shown equal, the entry names it
//! ([`Body::Operator`], [`Body::Kernel`]); everything else is our own code, a file a family.
//!
//! [`rewrite`] replaces what DataFusion's planner made by calls of entries, before any rule of the
//! optimizer runs, so that constants are folded by the same code that rows are evaluated with.

use std::sync::LazyLock;

use arrow::array::{ArrayRef, Datum as Datums};
use arrow::datatypes::{DataType, IntervalUnit, TimeUnit};
use arrow::error::ArrowError;
use datafusion_common::ScalarValue;
use datafusion_expr::Operator;

mod aggregate;
mod arithmetic;
mod calendar;
mod casts;
mod compare;
mod dates;
mod datum;
mod extract;
mod format;
mod like;
mod names;
mod native;
mod numbers;
mod numeric;
mod parse;
mod pass;
mod regex;
mod resolve;
mod rewrite;
mod text;
mod to_char;
mod to_date;
mod zones;

pub(crate) use aggregate::averaged;
pub(super) use aggregate::{average, sum};
pub(super) use names::{Names, named};
pub(super) use native::operator_text;
pub(super) use pass::typed;
pub use resolve::{Supported, supported};

use datum::Datum;

/// What an argument or a result is, as PostgreSQL tells types apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// `boolean`.
    Bool,
    /// `integer`, and `smallint`, which is kept as one.
    Int,
    /// `bigint`.
    Long,
    /// `numeric` of some precision and scale.
    Numeric,
    /// `real`.
    Real,
    /// `double precision`.
    Double,
    /// `text` and `varchar`.
    Text,
    /// `bytea`.
    Bytes,
    /// `date`.
    Date,
    /// `timestamp`.
    Timestamp,
    /// `timestamptz`.
    Timestamptz,
    /// `interval`.
    Interval,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 12] = [
        Self::Bool,
        Self::Int,
        Self::Long,
        Self::Numeric,
        Self::Real,
        Self::Double,
        Self::Text,
        Self::Bytes,
        Self::Date,
        Self::Timestamp,
        Self::Timestamptz,
        Self::Interval,
    ];

    /// The kind that columns of an Arrow type are of; none for a type without operators.
    pub(super) fn of(kind: &DataType) -> Option<Self> {
        Some(match kind {
            DataType::Boolean => Self::Bool,
            DataType::Int32 => Self::Int,
            DataType::Int64 => Self::Long,
            DataType::Decimal128(..) => Self::Numeric,
            DataType::Float32 => Self::Real,
            DataType::Float64 => Self::Double,
            DataType::Utf8 => Self::Text,
            DataType::Binary => Self::Bytes,
            DataType::Date32 => Self::Date,
            DataType::Timestamp(TimeUnit::Microsecond, None) => Self::Timestamp,
            DataType::Timestamp(TimeUnit::Microsecond, Some(zone)) if &**zone == "UTC" => {
                Self::Timestamptz
            }
            DataType::Interval(IntervalUnit::MonthDayNano) => Self::Interval,
            _ => return None,
        })
    }

    /// The Arrow type; none for numerics, whose scale depends on the arguments.
    fn arrow(self) -> Option<DataType> {
        Some(match self {
            Self::Bool => DataType::Boolean,
            Self::Int => DataType::Int32,
            Self::Long => DataType::Int64,
            Self::Numeric => return None,
            Self::Real => DataType::Float32,
            Self::Double => DataType::Float64,
            Self::Text => DataType::Utf8,
            Self::Bytes => DataType::Binary,
            Self::Date => DataType::Date32,
            Self::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
            Self::Timestamptz => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Self::Interval => DataType::Interval(IntervalUnit::MonthDayNano),
        })
    }

    /// The name in SQL.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bool => "boolean",
            Self::Int => "int",
            Self::Long => "bigint",
            Self::Numeric => "numeric",
            Self::Real => "real",
            Self::Double => "double precision",
            Self::Text => "text",
            Self::Bytes => "bytea",
            Self::Date => "date",
            Self::Timestamp => "timestamp",
            Self::Timestamptz => "timestamptz",
            Self::Interval => "interval",
        }
    }
}

/// A function's answer for one row: a value, or why there is none.
type Answer = Result<Datum<'static>, String>;

/// Finds a numeric's precision and scale from the arguments' types and constants.
type ScaleOf = fn(&[DataType], &[Option<&ScalarValue>]) -> Result<(u8, i8), String>;

/// What an entry gives.
#[derive(Clone, Copy)]
enum Gives {
    /// Always this.
    Kind(Kind),
    /// A numeric whose scale follows from the arguments.
    Numeric(ScaleOf),
}

/// Arithmetic on whole columns.
type Kernel = fn(&dyn Datums, &dyn Datums) -> Result<ArrayRef, ArrowError>;

/// How an entry is evaluated.
#[derive(Clone, Copy)]
enum Body {
    /// Our own code, row by row.
    Rows(fn(&[Datum<'_>]) -> Answer),
    /// The library's operator over two columns of one type.
    Operator(Operator),
    /// The library's kernel over two columns of one type, which fails where a value does not fit.
    Kernel(Kernel),
    /// What PostgreSQL has and views have not, with the reason and the way on.
    Refused(&'static str),
}

/// One function, operator or cast over one list of argument types.
pub(super) struct Entry {
    /// As SQL names it: `round`, `+`, `LIKE`, `CAST`.
    name: &'static str,
    takes: &'static [Kind],
    /// Whether any number of further arguments, of any type that has a text, may follow.
    more: bool,
    gives: Gives,
    /// Whether a null argument makes the answer null without asking the body.
    strict: bool,
    body: Body,
    /// Whether a row may be refused that PostgreSQL evaluates: what it takes is narrower.
    narrower: bool,
    /// Whether literals among the arguments are tried when a view is planned: they are patterns,
    /// units or names, which are wrong for every row if they are wrong for one.
    tried: bool,
}

impl Entry {
    const fn new(name: &'static str, takes: &'static [Kind], gives: Gives, body: Body) -> Self {
        Self {
            name,
            takes,
            more: false,
            gives,
            strict: true,
            body,
            narrower: false,
            tried: false,
        }
    }

    const fn narrower(mut self) -> Self {
        self.narrower = true;
        self
    }

    const fn tried(mut self) -> Self {
        self.tried = true;
        self
    }

    fn lax(mut self) -> Self {
        self.strict = false;
        self
    }

    fn with_more(mut self) -> Self {
        self.more = true;
        self.lax()
    }
}

/// An entry of our own.
fn rows(
    name: &'static str,
    takes: &'static [Kind],
    gives: Kind,
    body: fn(&[Datum<'_>]) -> Answer,
) -> Entry {
    Entry::new(name, takes, Gives::Kind(gives), Body::Rows(body))
}

/// An entry of our own that gives a numeric.
fn scaled(
    name: &'static str,
    takes: &'static [Kind],
    scale: ScaleOf,
    body: fn(&[Datum<'_>]) -> Answer,
) -> Entry {
    Entry::new(name, takes, Gives::Numeric(scale), Body::Rows(body))
}

/// All entries.
static TABLE: LazyLock<Vec<Entry>> = LazyLock::new(|| {
    let families: [fn() -> Vec<Entry>; 12] = [
        arithmetic::entries,
        numeric::entries,
        numbers::entries,
        casts::entries,
        compare::entries,
        text::entries,
        like::entries,
        regex::entries,
        dates::entries,
        extract::entries,
        to_char::entries,
        to_date::entries,
    ];
    families.into_iter().flat_map(|family| family()).collect()
});

/// A body that takes arguments of these patterns: others never reach it, as entries are resolved
/// by type.
macro_rules! body {
    ([$($pattern:pat),*] => $value:expr) => {
        |arguments: &[$crate::plan::functions::Datum<'_>]| match arguments {
            [$($pattern),*] => $value,
            _ => Err("arguments of other types than were planned".to_owned()),
        }
    };
}
use body;
