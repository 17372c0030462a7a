//! Timeouts and pauses of the master's state machine, all in milliseconds. The state machine has no
//! other times; `mailbox`, `server` and `listen` have their own limits.

/// A worker that has sent no report for so long is gone.
pub(crate) const WORKER_SILENT_MAX: u64 = 8_000;
/// A worker whose long poll broke off is gone after so long, unless it comes back.
pub(crate) const WORKER_CUT_MAX: u64 = 1_000;
/// A worker that is gone is forgotten so long after its last report.
pub(crate) const WORKER_REMEMBERED_MAX: u64 = 60_000;
/// A master that has just started places nothing for so long, because workers report once a second.
pub(crate) const JOINING: u64 = 2_000;
/// Start timeout: all processes of a generation must listen after so long, except a process that
/// says what it waits for.
pub(crate) const LISTENING_MAX: u64 = 30_000;
/// Connect timeout: all processes must be live so long after they know the addresses of the others.
pub(crate) const CONNECTING_MAX: u64 = 30_000;
/// Drain timeout: processes that have not drained after so long are killed.
pub(crate) const DRAINING_MAX: u64 = 90_000;
/// How long the master waits for the end of killed processes whose worker is present.
pub(crate) const ENDING_MAX: u64 = 30_000;
/// When only lost peers are known, how long the master waits for a process that says what the root
/// cause is.
pub(crate) const ROOT_CAUSE_AWAITED_MAX: u64 = 500;
/// A generation that was live for so long resets the count of failures in a row.
pub(crate) const LIVED_MIN: u64 = 60_000;
/// The back-off pause after the first failure. Each further failure doubles it.
pub(crate) const BACK_OFF_MIN: u64 = 100;
/// The longest back-off pause.
pub(crate) const BACK_OFF_MAX: u64 = 10_000;
/// The pause before a store that did not answer is asked for a generation again.
pub(crate) const MINT_AGAIN: u64 = 1_000;
/// Workers that could not reach each other are not placed together for so long.
pub(crate) const ANTI_AFFINITY_MAX: u64 = 30_000;
/// The time window over which rates are computed.
pub(crate) const RATE_OVER: u64 = 5_000;
/// A gap between two events that is at least so long means that the master itself did not run. Its
/// deadlines are moved by the gap.
pub(crate) const AWAY_MIN: u64 = 2_000;
