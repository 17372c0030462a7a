//! How long the master waits for what, in milliseconds. Nothing else in the master is a time.

/// A worker that says nothing for so long is gone.
pub(crate) const WORKER_SILENT_MAX: u64 = 8_000;
/// A worker whose connection ended is gone so much later, unless it comes back.
pub(crate) const WORKER_CUT_MAX: u64 = 1_000;
/// A worker that is gone is remembered for so long.
pub(super) const WORKER_REMEMBERED_MAX: u64 = 60_000;
/// A master that has just started places nothing for so long: workers report once a second.
pub(super) const JOINING: u64 = 2_000;
/// All processes of a generation must listen after so long.
pub(super) const LISTENING_MAX: u64 = 30_000;
/// And be live so long after they know where the others are.
pub(super) const CONNECTING_MAX: u64 = 30_000;
/// How long processes may take to drain before they are killed.
pub(super) const DRAINING_MAX: u64 = 90_000;
/// How long the end of processes that were killed is awaited while their worker is there.
pub(super) const ENDING_MAX: u64 = 30_000;
/// When all that is known is that some processes lost others, how long the ones that were lost are
/// given to say why.
pub(super) const CULPRIT_AWAITED_MAX: u64 = 500;
/// A generation that lived for so long begins the count of failures anew.
pub(super) const LIVED_MIN: u64 = 60_000;
/// The pause after the first failure; it doubles.
pub(super) const BACK_OFF_MIN: u64 = 100;
/// The longest pause.
pub(super) const BACK_OFF_MAX: u64 = 10_000;
/// The pause before a store that is away is asked for a generation again.
pub(super) const MINT_AGAIN: u64 = 1_000;
/// Workers that could not reach each other are not placed together for so long.
pub(super) const APART_MAX: u64 = 30_000;
/// Rates are over so long.
pub(super) const RATE_OVER: u64 = 5_000;
/// Two looks of the master at its clock that are further apart say that it was stopped itself.
pub(super) const AWAY_MIN: u64 = 2_000;
