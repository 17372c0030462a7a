//! The job as users of the crate see it: configuration, run, statistics.

pub use crate::config::{Config, Connect, Limits, Sockets, TimeSource, Workers};
pub use crate::runtime::host::run;
pub use crate::stats::operators::{Operator, Operators, Size};
pub use crate::stats::row_counts::{CountByView, RowCounts};
pub use crate::stats::sink_writes::SinkWrites;
pub use crate::stats::{Recent, Stats, ViewStats};
