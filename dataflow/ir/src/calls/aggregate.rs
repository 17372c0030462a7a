//! Aggregates: the functions that a `Reduce` computes over the rows of each group.
//!
//! | kind | functions | state in the dataflow |
//! |---|---|---|
//! | totals | `count`, `sum`, `avg`, `bool_*`, `bit_*`, statistics | sums, kept as differences |
//! | extremes | `min`, `max` | the sorted values, of which the first is read |
//! | collected | `string_agg`, `json_agg`, `mode`, `percentile_*` | sorted values, all are read |

use std::fmt;

use crate::scalar::{OrderBy, Scalar};

/// One aggregate of a `Reduce`.
#[derive(Debug, Clone)]
pub struct Aggregate {
    /// The aggregate function.
    pub function: AggregateFunction,
    /// The arguments; none for `count(*)`. A row in which an argument is null does not count. The
    /// second argument of `string_agg` and of the percentiles is a literal: the separator, and the
    /// fraction. The first argument of the percentiles and of `mode` is the expression by which
    /// their rows are ordered.
    pub arguments: Vec<Scalar>,
    /// The order of the rows, for collected functions only. Rows that are equal in it are ordered
    /// by their first argument, ascending.
    pub order: Vec<OrderBy>,
    /// A condition; only rows for which it is true count (`FILTER (WHERE …)`).
    pub filter: Option<Scalar>,
    /// Whether DISTINCT was given. Never for functions that repetition does not change
    /// ([`AggregateFunction::is_idempotent`]).
    pub distinct: bool,
}

/// The aggregate functions that the renderer implements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AggregateFunction {
    /// The number of rows, or of rows whose argument is not null. `Int64`.
    Count,
    /// The sum; null over no rows. Its type is that of `tidemill-functions`: `Int64`, `Float32`,
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
    /// The bits that all arguments have, of the argument's type; null over no rows.
    BitAnd,
    /// The bits that any argument has, of the argument's type; null over no rows.
    BitOr,
    /// The bits that an odd number of arguments has, of the argument's type; null over no rows.
    BitXor,
    /// The population variance. `Float64` for floats, `Decimal128` for other numbers.
    VarPop,
    /// The sample variance; null over fewer than two rows. Its type is that of `VarPop`.
    VarSamp,
    /// The square root of the population variance. Its type is that of `VarPop`.
    StddevPop,
    /// The square root of the sample variance. Its type is that of `VarPop`.
    StddevSamp,
    /// The correlation coefficient of pairs. `Float64`, as all results over pairs `(y, x)`.
    Corr,
    /// The population covariance.
    CovarPop,
    /// The sample covariance; null over fewer than two pairs.
    CovarSamp,
    /// The average of `x`.
    RegrAvgx,
    /// The average of `y`.
    RegrAvgy,
    /// The number of pairs without null. `Int64`.
    RegrCount,
    /// The value at `x = 0` of the line that fits the pairs best (least squares).
    RegrIntercept,
    /// The square of the correlation coefficient.
    RegrR2,
    /// The slope of the line that fits the pairs best.
    RegrSlope,
    /// The sum of the squared deviations of `x` from its average.
    RegrSxx,
    /// The sum of the products of the deviations of `x` and `y`.
    RegrSxy,
    /// The sum of the squared deviations of `y`.
    RegrSyy,
    /// The texts in their order, with the separator between them. `Utf8`, null over no rows.
    StringAgg,
    /// The documents in their order, as an array. `json`, null over no rows.
    JsonAgg,
    /// The documents in their order, as an array. `jsonb`, null over no rows.
    JsonbAgg,
    /// The members in their order, each an array of a key and a value, as an object. `json`, null
    /// over no rows.
    JsonObjectAgg,
    /// The members, each an array of a key and a value, as an object; of equal keys the last one in
    /// the order stays. `jsonb`, null over no rows.
    JsonbObjectAgg,
    /// The most frequent value; of several, the first in the order. Of the argument's type.
    Mode,
    /// The value at a fraction of the ordered values, interpolated between two of them. `Float64`.
    PercentileCont,
    /// The first of the ordered values whose position is at least the fraction. Of the argument's
    /// type.
    PercentileDisc,
}

impl AggregateFunction {
    /// All functions.
    pub const ALL: [Self; 34] = [
        Self::Count,
        Self::Sum,
        Self::Avg,
        Self::Min,
        Self::Max,
        Self::BoolAnd,
        Self::BoolOr,
        Self::BitAnd,
        Self::BitOr,
        Self::BitXor,
        Self::VarPop,
        Self::VarSamp,
        Self::StddevPop,
        Self::StddevSamp,
        Self::Corr,
        Self::CovarPop,
        Self::CovarSamp,
        Self::RegrAvgx,
        Self::RegrAvgy,
        Self::RegrCount,
        Self::RegrIntercept,
        Self::RegrR2,
        Self::RegrSlope,
        Self::RegrSxx,
        Self::RegrSxy,
        Self::RegrSyy,
        Self::StringAgg,
        Self::JsonAgg,
        Self::JsonbAgg,
        Self::JsonObjectAgg,
        Self::JsonbObjectAgg,
        Self::Mode,
        Self::PercentileCont,
        Self::PercentileDisc,
    ];

    /// The function's name in SQL.
    pub fn name(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Sum => "sum",
            Self::Avg => "avg",
            Self::Min => "min",
            Self::Max => "max",
            Self::BoolAnd => "bool_and",
            Self::BoolOr => "bool_or",
            Self::BitAnd => "bit_and",
            Self::BitOr => "bit_or",
            Self::BitXor => "bit_xor",
            Self::VarPop => "var_pop",
            Self::VarSamp => "var_samp",
            Self::StddevPop => "stddev_pop",
            Self::StddevSamp => "stddev_samp",
            Self::Corr => "corr",
            Self::CovarPop => "covar_pop",
            Self::CovarSamp => "covar_samp",
            Self::RegrAvgx => "regr_avgx",
            Self::RegrAvgy => "regr_avgy",
            Self::RegrCount => "regr_count",
            Self::RegrIntercept => "regr_intercept",
            Self::RegrR2 => "regr_r2",
            Self::RegrSlope => "regr_slope",
            Self::RegrSxx => "regr_sxx",
            Self::RegrSxy => "regr_sxy",
            Self::RegrSyy => "regr_syy",
            Self::StringAgg => "string_agg",
            Self::JsonAgg => "json_agg",
            Self::JsonbAgg => "jsonb_agg",
            Self::JsonObjectAgg => "json_object_agg",
            Self::JsonbObjectAgg => "jsonb_object_agg",
            Self::Mode => "mode",
            Self::PercentileCont => "percentile_cont",
            Self::PercentileDisc => "percentile_disc",
        }
    }

    /// The function of a name in lower case. Two names of PostgreSQL's may mean one function.
    ///
    /// ```
    /// use tidemill_ir::AggregateFunction;
    ///
    /// assert_eq!(AggregateFunction::named("stddev"), Some(AggregateFunction::StddevSamp));
    /// assert_eq!(AggregateFunction::named("median"), None);
    /// ```
    pub fn named(name: &str) -> Option<Self> {
        let name = match name {
            "every" => "bool_and",
            "stddev" => "stddev_samp",
            "variance" => "var_samp",
            name => name,
        };
        let mut all = Self::ALL.into_iter();
        all.find(|function| function.name() == name)
    }

    /// The number of arguments that SQL writes in the parentheses. `count(*)` has none.
    pub fn arity(self) -> usize {
        match self {
            Self::Mode => 0,
            Self::StringAgg | Self::JsonObjectAgg | Self::JsonbObjectAgg => 2,
            _ if self.is_of_pairs() => 2,
            _ => 1,
        }
    }

    /// Whether the function takes pairs `(y, x)`.
    pub fn is_of_pairs(self) -> bool {
        matches!(
            self,
            Self::Corr
                | Self::CovarPop
                | Self::CovarSamp
                | Self::RegrAvgx
                | Self::RegrAvgy
                | Self::RegrCount
                | Self::RegrIntercept
                | Self::RegrR2
                | Self::RegrSlope
                | Self::RegrSxx
                | Self::RegrSxy
                | Self::RegrSyy
        )
    }

    /// Whether the function is a variance, or the square root of one.
    pub fn is_variance(self) -> bool {
        matches!(
            self,
            Self::VarPop | Self::VarSamp | Self::StddevPop | Self::StddevSamp
        )
    }

    /// Whether SQL writes `WITHIN GROUP (ORDER BY …)` behind the function (ordered-set aggregates).
    pub fn is_ordered_set(self) -> bool {
        matches!(
            self,
            Self::Mode | Self::PercentileCont | Self::PercentileDisc
        )
    }

    /// Whether the result depends on all values in their order.
    pub fn is_collected(self) -> bool {
        self.is_ordered_set() || self.is_document() || self == Self::StringAgg
    }

    /// Whether the result is a JSON document of all values. Its argument is one document a row: the
    /// element, or the key and value of a member.
    pub fn is_document(self) -> bool {
        matches!(
            self,
            Self::JsonAgg | Self::JsonbAgg | Self::JsonObjectAgg | Self::JsonbObjectAgg
        )
    }

    /// Whether the function is the same over distinct arguments.
    pub fn is_idempotent(self) -> bool {
        matches!(
            self,
            Self::Min | Self::Max | Self::BoolAnd | Self::BoolOr | Self::BitAnd | Self::BitOr
        )
    }

    /// Whether the result is a number also over no rows.
    pub fn is_count(self) -> bool {
        matches!(self, Self::Count | Self::RegrCount)
    }
}

impl fmt::Display for Aggregate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.function.name();
        let order: Vec<String> = self.order.iter().map(OrderBy::to_string).collect();
        let order = order.join(", ");
        let texts = self.arguments.iter().map(|argument| argument.text.as_str());
        let texts: Vec<&str> = texts.collect();
        let distinct = if self.distinct { "DISTINCT " } else { "" };
        match texts.as_slice() {
            [_, direct @ ..] if self.function.is_ordered_set() => {
                let direct = direct.join(", ");
                write!(f, "{name}({direct}) WITHIN GROUP (ORDER BY {order})")?;
            }
            [] => write!(f, "{name}({distinct}*)")?,
            texts if order.is_empty() => write!(f, "{name}({distinct}{})", texts.join(", "))?,
            texts => write!(f, "{name}({distinct}{} ORDER BY {order})", texts.join(", "))?,
        }
        match &self.filter {
            Some(filter) => write!(f, " FILTER (WHERE {})", filter.text),
            None => Ok(()),
        }
    }
}
