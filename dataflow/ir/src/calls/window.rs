//! Window functions: what a `Window` computes for each row over the rows of its partition.
//!
//! A partition's rows are in the order of ORDER BY. Rows that are equal in it are *peers*, and are
//! ordered by their other columns, ascending, nulls last. PostgreSQL leaves the order of peers
//! open. Here it depends on nothing but the rows.
//!
//! ```text
//! ORDER BY n:        1   3   3   7         ROWS BETWEEN 1 PRECEDING AND CURRENT ROW
//! row_number         1   2   3   4           of the third row: rows 2 and 3
//! rank               1   2   2   4         RANGE UNBOUNDED PRECEDING (the default)
//! dense_rank         1   2   2   3           of the second row: rows 1 to 3, with its peer
//! ```

use std::fmt;

use crate::{AggregateFunction, Scalar};

/// A window function with its arguments and its frame.
#[derive(Debug, Clone)]
pub struct WindowFunction {
    /// Which function it is.
    pub call: WindowCall,
    /// The arguments, which are columns of the input: for `lag` and `lead` the value and the
    /// default, if there is one; for an aggregate the argument, if it is not `count(*)`; for
    /// `first_value`, `last_value` and `nth_value` the value. Expressions are columns of a
    /// `Compute` below, so that a row that cannot be evaluated is in no partition.
    pub arguments: Vec<Scalar>,
    /// The rows that the function reads, if it is one that reads a frame.
    pub frame: Frame,
}

/// The window functions, with the arguments that are constants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WindowCall {
    /// The number of the row in its partition, from 1. `Int64`.
    RowNumber,
    /// The number of the first peer of the row. `Int64`.
    Rank,
    /// The number of the row's group of peers. `Int64`.
    DenseRank,
    /// `(rank - 1) / (rows of the partition - 1)`; 0 for a single row. `Float64`.
    PercentRank,
    /// The part of the partition's rows that are not after the row's last peer. `Float64`.
    CumeDist,
    /// The number of the row's bucket, of this many buckets of nearly equal size. `Int32`.
    Ntile(i32),
    /// The value of the row that is this many rows before. Of the argument's type.
    Lag(i32),
    /// The value of the row that is this many rows after. Of the argument's type.
    Lead(i32),
    /// The value of the frame's first row. Of the argument's type.
    FirstValue,
    /// The value of the frame's last row. Of the argument's type.
    LastValue,
    /// The value of the frame's row with this number, from 1. Of the argument's type.
    NthValue(i32),
    /// An aggregate of the frame's rows.
    Aggregate(AggregateFunction),
}

/// The rows around a row that a window function reads.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Frame {
    /// What the bounds count.
    pub units: FrameUnits,
    /// Where the frame begins.
    pub start: FrameBound,
    /// Where the frame ends.
    pub end: FrameBound,
}

/// What the bounds of a frame count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FrameUnits {
    /// Rows.
    Rows,
    /// Groups of peers.
    Groups,
    /// Differences of the ORDER BY value.
    Range,
}

/// One end of a frame.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum FrameBound {
    /// The first row of the partition.
    UnboundedPreceding,
    /// This far before the row.
    Preceding(FrameOffset),
    /// The row; its peers too, unless the units are rows.
    CurrentRow,
    /// This far after the row.
    Following(FrameOffset),
    /// The last row of the partition.
    UnboundedFollowing,
}

/// How far a bound is from the row; never negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FrameOffset {
    /// A number of rows, or of groups of peers.
    Count(u64),
    /// A difference of numbers: these digits, of which `scale` are after the point.
    Number {
        /// The digits.
        digits: i128,
        /// How many of them are after the point.
        scale: u8,
    },
    /// A difference of dates or timestamps.
    Interval {
        /// Months.
        months: i32,
        /// Days.
        days: i32,
        /// Microseconds.
        micros: i64,
    },
}

impl WindowCall {
    /// The function's name in SQL.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::RowNumber => "row_number",
            Self::Rank => "rank",
            Self::DenseRank => "dense_rank",
            Self::PercentRank => "percent_rank",
            Self::CumeDist => "cume_dist",
            Self::Ntile(_) => "ntile",
            Self::Lag(_) => "lag",
            Self::Lead(_) => "lead",
            Self::FirstValue => "first_value",
            Self::LastValue => "last_value",
            Self::NthValue(_) => "nth_value",
            Self::Aggregate(function) => function.name(),
        }
    }

    /// Whether the function reads the rows of its frame. The others read the whole partition.
    #[must_use]
    pub fn is_framed(&self) -> bool {
        matches!(
            self,
            Self::FirstValue | Self::LastValue | Self::NthValue(_) | Self::Aggregate(_)
        )
    }

    /// The constant argument, which is the last one but for the default of `lag` and `lead`.
    fn constant(self) -> Option<i32> {
        match self {
            Self::Ntile(number) | Self::Lag(number) | Self::Lead(number) => Some(number),
            Self::NthValue(number) => Some(number),
            _ => None,
        }
    }
}

impl Frame {
    /// PostgreSQL's default: from the first row of the partition to the row's last peer.
    pub const DEFAULT: Self = Self {
        units: FrameUnits::Range,
        start: FrameBound::UnboundedPreceding,
        end: FrameBound::CurrentRow,
    };
}

impl fmt::Display for WindowFunction {
    /// The call, with its frame if it reads one that is not the default.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut arguments: Vec<String> = self.arguments.iter().map(|it| it.text.clone()).collect();
        if let Some(constant) = self.call.constant() {
            arguments.insert(arguments.len().min(1), constant.to_string());
        }
        if matches!(self.call, WindowCall::Aggregate(_)) && arguments.is_empty() {
            arguments.push("*".to_owned());
        }
        write!(f, "{}({})", self.call.name(), arguments.join(", "))?;
        match self.call.is_framed() && self.frame != Frame::DEFAULT {
            true => write!(f, " {}", self.frame),
            false => Ok(()),
        }
    }
}

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = match self.units {
            FrameUnits::Rows => "ROWS",
            FrameUnits::Groups => "GROUPS",
            FrameUnits::Range => "RANGE",
        };
        write!(f, "{units} BETWEEN {} AND {}", self.start, self.end)
    }
}

impl fmt::Display for FrameBound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnboundedPreceding => f.write_str("UNBOUNDED PRECEDING"),
            Self::Preceding(offset) => write!(f, "{offset} PRECEDING"),
            Self::CurrentRow => f.write_str("CURRENT ROW"),
            Self::Following(offset) => write!(f, "{offset} FOLLOWING"),
            Self::UnboundedFollowing => f.write_str("UNBOUNDED FOLLOWING"),
        }
    }
}

impl fmt::Display for FrameOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Count(count) => write!(f, "{count}"),
            Self::Number { digits, scale: 0 } => write!(f, "{digits}"),
            Self::Number { digits, scale } => {
                let scale = usize::from(scale);
                let digits = format!("{digits:0width$}", width = scale + 1);
                let (whole, rest) = digits.split_at(digits.len() - scale);
                write!(f, "{whole}.{rest}")
            }
            Self::Interval {
                months,
                days,
                micros,
            } => {
                let parts = [
                    (i64::from(months), "months"),
                    (i64::from(days), "days"),
                    (micros, "microseconds"),
                ];
                let parts = parts.iter().filter(|(number, _)| *number != 0);
                let parts: Vec<String> = parts
                    .map(|(number, unit)| format!("{number} {unit}"))
                    .collect();
                match parts.is_empty() {
                    true => f.write_str("'0 days'"),
                    false => write!(f, "'{}'", parts.join(" ")),
                }
            }
        }
    }
}
