//! The job as users of the crate see it: configuration, run, statistics.

pub use crate::config::{Config, Connect, Limits, Sockets, Workers};
pub use crate::host::run;
pub use crate::operators::{Operator, Operators, Size};
pub use crate::row_counts::{RowCounts, Rows};
pub use crate::stats::{Recent, Stats, ViewStats};
