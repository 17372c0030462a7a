//! `Entry`: one row of the function table, with name, argument types, result type and evaluation.
//!
//! An entry is a constant of the program: the table is built once ([`crate::table`]) and lives as
//! long as the process. A family of functions (`numeric`, `text`, `time`, …) makes its entries with
//! [`rows`], [`scaled`] and [`body!`](body), and changes their properties with [`Entry::narrower`],
//! [`Entry::tried`], [`Entry::lax`] and [`Entry::with_more`]:
//!
//! ```text
//! rows("left", &[Kind::Text, Kind::Int], Kind::Text, body!([Text(t), Int(n)] => left(t, *n)))
//!       name    kinds of arguments        result      evaluation of one row
//! ```

use arrow::array::{ArrayRef, Datum as Datums};
use arrow::datatypes::{DataType, IntervalUnit, TimeUnit};
use arrow::error::ArrowError;
use datafusion_common::ScalarValue;
use datafusion_expr::Operator;
use tidemill_ir::types;

use crate::value::datum::Datum;

/// The type of an argument or a result, as far as PostgreSQL distinguishes types for functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// `boolean`.
    Bool,
    /// `integer`, and `smallint`, which is stored as an integer.
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
    /// `json`, as it was written.
    Json,
    /// `jsonb`.
    Jsonb,
    /// `text[]`.
    Texts,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 15] = [
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
        Self::Json,
        Self::Jsonb,
        Self::Texts,
    ];

    /// The kind of a column of an Arrow type; None for a type without operators.
    ///
    /// Timestamps have microseconds, and the only time zone is `UTC`. Every other unit or zone is
    /// no kind, and a call with it is refused.
    pub(crate) fn of(kind: &DataType) -> Option<Self> {
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
            DataType::Utf8View => Self::Json,
            DataType::LargeUtf8 => Self::Jsonb,
            DataType::List(of) if *of.data_type() == DataType::Utf8 => Self::Texts,
            _ => return None,
        })
    }

    /// The Arrow type; None for numerics, whose scale depends on the arguments.
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
            Self::Json => types::JSON,
            Self::Jsonb => types::JSONB,
            Self::Texts => types::texts(),
        })
    }

    /// The name in SQL.
    ///
    /// ```
    /// assert_eq!(tidemill_functions::Kind::Double.name(), "double precision");
    /// ```
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
            Self::Json => "json",
            Self::Jsonb => "jsonb",
            Self::Texts => "text[]",
        }
    }
}

/// The result for one row: a value, or the reason why the row fails.
///
/// The reason is PostgreSQL's message where PostgreSQL fails too. It becomes the reason of the
/// row's dead letter.
pub(super) type Answer = Result<Datum<'static>, String>;

/// Computes the precision and scale of a numeric result, from the types of the arguments and from
/// those arguments that are constants.
///
/// The first parameter has one type for each argument, after the implicit casts. The second has the
/// value of each argument that is a constant, and None for the others. The result is (precision,
/// scale).
pub(super) type ScaleOf = fn(&[DataType], &[Option<&ScalarValue>]) -> Result<(u8, i8), String>;

/// The type of the result.
#[derive(Clone, Copy)]
pub(super) enum Gives {
    /// Always this kind.
    Kind(Kind),
    /// A numeric, whose precision and scale follow from the arguments.
    Numeric(ScaleOf),
}

/// Arithmetic on whole columns.
///
/// It gets two columns of one length, and returns a column of that length.
pub(super) type Kernel = fn(&dyn Datums, &dyn Datums) -> Result<ArrayRef, ArrowError>;

/// How an entry is evaluated.
#[derive(Clone, Copy)]
pub(super) enum Body {
    /// Tidemill's own code, row by row.
    Rows(fn(&[Datum<'_>]) -> Answer),
    /// DataFusion's operator over two columns of one type.
    Operator(Operator),
    /// Arrow's kernel over two columns of one type. It fails if a value does not fit.
    Kernel(Kernel),
    /// PostgreSQL has the function, and views do not: the reason, and what to write instead.
    ///
    /// Without such an entry the error would be that no function of the name takes these types, and
    /// would not say what to write.
    Refused(&'static str),
}

/// One function, operator or cast over one list of argument types.
pub(crate) struct Entry {
    /// The name in SQL: `round`, `+`, `LIKE`, `CAST`.
    pub(super) name: &'static str,
    /// The kinds of the arguments, in order.
    pub(super) takes: &'static [Kind],
    /// Whether any number of further arguments may follow, of any type that can be written as text.
    ///
    /// The further arguments have the kind of the last one, or any kind where the typing pass
    /// converts each of them itself (`concat`).
    pub(super) more: bool,
    /// The type of the result.
    pub(super) gives: Gives,
    /// Whether a null argument makes the result null, without calling the body.
    pub(super) strict: bool,
    /// How it is evaluated.
    pub(super) body: Body,
    /// Whether some rows may fail that PostgreSQL evaluates, because fewer values are accepted.
    ///
    /// The documentation marks these entries, and the tests accept a failed row where PostgreSQL
    /// gives a value.
    pub(super) narrower: bool,
    /// Whether literals among the arguments are tried when a view is planned. They are patterns,
    /// units or names, so a literal that is wrong for one row is wrong for every row.
    pub(super) tried: bool,
}

impl Entry {
    /// An entry that is strict and takes exactly these arguments.
    ///
    /// `gives` and `body` must agree: a body returns a value of the kind that `gives` names, or
    /// `Datum::Null`.
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

    /// Marks that some rows may fail that PostgreSQL evaluates.
    pub(super) const fn narrower(mut self) -> Self {
        self.narrower = true;
        self
    }

    /// Marks that literals are tried when a view is planned.
    ///
    /// `to_char(at, 'TM')` then fails when the view is planned, instead of failing each row of the
    /// topic.
    pub(super) const fn tried(mut self) -> Self {
        self.tried = true;
        self
    }

    /// Marks that the body is called with null arguments.
    ///
    /// The body must treat `Datum::Null` in every place.
    pub(super) fn lax(mut self) -> Self {
        self.strict = false;
        self
    }

    /// Marks that further arguments may follow; nulls are passed to the body.
    pub(super) fn with_more(mut self) -> Self {
        self.more = true;
        self.lax()
    }
}

/// An entry that Tidemill's own code evaluates row by row.
///
/// Parameters: the SQL name, the kinds of the arguments, the kind of the result, and the function
/// of one row's arguments. A numeric result needs [`scaled`], because its scale follows from the
/// arguments.
pub(super) fn rows(
    name: &'static str,
    takes: &'static [Kind],
    gives: Kind,
    body: fn(&[Datum<'_>]) -> Answer,
) -> Entry {
    Entry::new(name, takes, Gives::Kind(gives), Body::Rows(body))
}

/// The same with a numeric result.
///
/// A value that does not fit the precision and scale that `scale` computes fails the row.
pub(super) fn scaled(
    name: &'static str,
    takes: &'static [Kind],
    scale: ScaleOf,
    body: fn(&[Datum<'_>]) -> Answer,
) -> Entry {
    Entry::new(name, takes, Gives::Numeric(scale), Body::Rows(body))
}

/// The body of an entry, for arguments of these patterns. Other arguments do not occur, because
/// entries are resolved by type.
macro_rules! body {
    ([$($pattern:pat),*] => $value:expr) => {
        |arguments: &[$crate::value::datum::Datum<'_>]| match arguments {
            [$($pattern),*] => $value,
            _ => Err("arguments of other types than were planned".to_owned()),
        }
    };
}
pub(super) use body;
