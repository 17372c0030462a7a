//! Timestamps of operators: the epoch, and within a recursion the epoch with its iteration.
//!
//! Operators that may stand in the recursive term of WITH RECURSIVE are generic over [`Time`]. All
//! others have [`Epoch`] as their timestamp, and cost nothing for it.
//!
//! ```text
//! dataflow, by Epoch ─► enter ─► scope of a recursion, by Round ─► leave ─► dataflow, by Epoch
//!          t                      (t, 0), (t, 1), (t, 2), …                     t
//! ```
//!
//! Rounds are partially ordered: (1, 5) is not before (2, 3). Therefore an operator that needs a
//! total order cannot run within a recursion.

use std::fmt::Debug;

use differential_dataflow::lattice::Lattice;
use serde::{Deserialize, Serialize};
use tidemill_ir::Epoch;
use tidemill_state::value::flat::{ByteSink, Flat, Read, Reader};
use timely::PartialOrder;
use timely::order::Product;
use timely::progress::Timestamp;
use timely::progress::timestamp::{PathSummary, Refines};

/// A timestamp of operators.
pub(crate) trait Time: Timestamp + Lattice + Copy {
    /// The epoch, in milliseconds.
    fn epoch(self) -> Epoch;
}

impl Time for Epoch {
    #[inline]
    fn epoch(self) -> Epoch {
        self
    }
}

/// An epoch and an iteration of a recursion, which begin with 0.
///
/// It is timely's product of both, as a type of this crate so that it can cross workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Round(Product<Epoch, u64>);

impl Round {
    /// The timestamp of an iteration in an epoch.
    pub(crate) fn new(epoch: Epoch, iteration: u64) -> Self {
        Self(Product::new(epoch, iteration))
    }

    /// The iteration, from 0.
    pub(crate) fn iteration(self) -> u64 {
        self.0.inner
    }

    /// The next iteration of the same epoch; `None` if there is none.
    pub(crate) fn next(self) -> Option<Self> {
        STEP.results_in(&self)
    }
}

/// The way from an iteration to the next one.
pub(crate) const STEP: Product<Epoch, u64> = Product { outer: 0, inner: 1 };

impl Time for Round {
    #[inline]
    fn epoch(self) -> Epoch {
        self.0.outer
    }
}

impl PartialOrder for Round {
    #[inline]
    fn less_equal(&self, other: &Self) -> bool {
        self.0.less_equal(&other.0)
    }
}

impl Timestamp for Round {
    type Summary = Product<Epoch, u64>;

    fn minimum() -> Self {
        Self(Product::minimum())
    }
}

impl PathSummary<Round> for Product<Epoch, u64> {
    #[inline]
    fn results_in(&self, round: &Round) -> Option<Round> {
        self.results_in(&round.0).map(Round)
    }

    #[inline]
    fn followed_by(&self, other: &Self) -> Option<Self> {
        PathSummary::<Product<Epoch, u64>>::followed_by(self, other)
    }
}

impl Refines<Epoch> for Round {
    fn to_inner(epoch: Epoch) -> Self {
        Self::new(epoch, 0)
    }

    fn to_outer(self) -> Epoch {
        self.epoch()
    }

    fn summarize(path: Product<Epoch, u64>) -> Epoch {
        path.outer
    }
}

impl Lattice for Round {
    #[inline]
    fn join(&self, other: &Self) -> Self {
        Self(self.0.join(&other.0))
    }

    #[inline]
    fn meet(&self, other: &Self) -> Self {
        Self(self.0.meet(&other.0))
    }
}

impl Flat for Round {
    const LEAST: usize = <(Epoch, u64)>::LEAST;

    fn lay(&self, to: &mut impl ByteSink) {
        (self.0.outer, self.0.inner).lay(to);
    }

    fn read(from: &mut Reader<'_>) -> Read<Self> {
        let (epoch, iteration) = <(Epoch, u64)>::read(from)?;
        Ok(Self::new(epoch, iteration))
    }
}
