//! An entry of the table of functions: a name, argument types, what it gives and how it is
//! evaluated.

use arrow::array::{ArrayRef, Datum as Datums};
use arrow::datatypes::{DataType, IntervalUnit, TimeUnit};
use arrow::error::ArrowError;
use datafusion_common::ScalarValue;
use datafusion_expr::Operator;

use super::datum::Datum;

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
    pub(in crate::plan) fn of(kind: &DataType) -> Option<Self> {
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
    pub(super) fn arrow(self) -> Option<DataType> {
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
pub(super) type Answer = Result<Datum<'static>, String>;

/// Finds a numeric's precision and scale from the arguments' types and constants.
pub(super) type ScaleOf = fn(&[DataType], &[Option<&ScalarValue>]) -> Result<(u8, i8), String>;

/// What an entry gives.
#[derive(Clone, Copy)]
pub(super) enum Gives {
    /// Always this.
    Kind(Kind),
    /// A numeric whose scale follows from the arguments.
    Numeric(ScaleOf),
}

/// Arithmetic on whole columns.
pub(super) type Kernel = fn(&dyn Datums, &dyn Datums) -> Result<ArrayRef, ArrowError>;

/// How an entry is evaluated.
#[derive(Clone, Copy)]
pub(super) enum Body {
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
pub(in crate::plan) struct Entry {
    /// As SQL names it: `round`, `+`, `LIKE`, `CAST`.
    pub(super) name: &'static str,
    pub(super) takes: &'static [Kind],
    /// Whether any number of further arguments, of any type that has a text, may follow.
    pub(super) more: bool,
    pub(super) gives: Gives,
    /// Whether a null argument makes the answer null without asking the body.
    pub(super) strict: bool,
    pub(super) body: Body,
    /// Whether a row may be refused that PostgreSQL evaluates: what it takes is narrower.
    pub(super) narrower: bool,
    /// Whether literals among the arguments are tried when a view is planned: they are patterns,
    /// units or names, which are wrong for every row if they are wrong for one.
    pub(super) tried: bool,
}

impl Entry {
    pub(super) const fn new(
        name: &'static str,
        takes: &'static [Kind],
        gives: Gives,
        body: Body,
    ) -> Self {
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

    pub(super) const fn narrower(mut self) -> Self {
        self.narrower = true;
        self
    }

    pub(super) const fn tried(mut self) -> Self {
        self.tried = true;
        self
    }

    pub(super) fn lax(mut self) -> Self {
        self.strict = false;
        self
    }

    pub(super) fn with_more(mut self) -> Self {
        self.more = true;
        self.lax()
    }
}

/// An entry of our own.
pub(super) fn rows(
    name: &'static str,
    takes: &'static [Kind],
    gives: Kind,
    body: fn(&[Datum<'_>]) -> Answer,
) -> Entry {
    Entry::new(name, takes, Gives::Kind(gives), Body::Rows(body))
}

/// An entry of our own that gives a numeric.
pub(super) fn scaled(
    name: &'static str,
    takes: &'static [Kind],
    scale: ScaleOf,
    body: fn(&[Datum<'_>]) -> Answer,
) -> Entry {
    Entry::new(name, takes, Gives::Numeric(scale), Body::Rows(body))
}

/// A body that takes arguments of these patterns: others never reach it, as entries are resolved
/// by type.
macro_rules! body {
    ([$($pattern:pat),*] => $value:expr) => {
        |arguments: &[$crate::plan::functions::datum::Datum<'_>]| match arguments {
            [$($pattern),*] => $value,
            _ => Err("arguments of other types than were planned".to_owned()),
        }
    };
}
pub(super) use body;
