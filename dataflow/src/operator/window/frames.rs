//! Frames: which rows a window function reads for each row.
//!
//! Source: PostgreSQL's `update_frameheadpos` and `update_frametailpos` (`nodeWindowAgg.c`).
//!
//! Invariant: neither the first nor the last row of a frame is before that of the frame of an
//! earlier row of the partition. An empty frame may end before it starts.

use std::ops::Range;

use arrow::array::ArrayRef;
use tidemill_ir::{Frame, FrameBound, FrameOffset, FrameUnits, OrderBy};
use tidemill_log::{Error, Kind, Result};

use super::partitions::{Partition, Partitions};
use super::range::Axis;

/// The frame of each row, as positions in the list of all rows.
///
/// # Errors
/// `Bug` when the planner let a frame through that cannot be computed.
pub(super) fn frames(
    frame: &Frame,
    partitions: &Partitions,
    (order, columns): (&[OrderBy], &[ArrayRef]),
) -> Result<Vec<Range<usize>>> {
    let offset = |bound: &FrameBound| match bound {
        FrameBound::Preceding(offset) | FrameBound::Following(offset) => {
            !matches!(offset, FrameOffset::Count(_))
        }
        _ => false,
    };
    let axis = match (order, columns) {
        ([by], [column]) if offset(&frame.start) || offset(&frame.end) => {
            Some(Axis::new(by, column, frame)?)
        }
        _ => None,
    };
    let mut all = Vec::with_capacity(partitions.len());
    for partition in &partitions.all {
        let within = Within {
            partition,
            partitions,
            units: frame.units,
        };
        let (mut start, mut end) = (partition.rows.start, partition.rows.start);
        for row in partition.rows.clone() {
            start = match (&axis, valued(&frame.start)) {
                (Some(axis), true) => axis.start(row, start..partition.rows.end),
                _ => within.start(row, &frame.start)?,
            };
            end = match (&axis, valued(&frame.end)) {
                (Some(axis), true) => axis.end(row, end..partition.rows.end),
                _ => within.end(row, &frame.end)?,
            };
            all.push(start..end);
        }
    }
    Ok(all)
}

/// Whether a bound is at a distance of values.
fn valued(bound: &FrameBound) -> bool {
    match bound {
        FrameBound::Preceding(offset) | FrameBound::Following(offset) => {
            !matches!(offset, FrameOffset::Count(_))
        }
        _ => false,
    }
}

/// A partition, and what the bounds of a frame count in it.
struct Within<'a> {
    /// The partition.
    partition: &'a Partition,
    /// All partitions.
    partitions: &'a Partitions,
    /// What the bounds count.
    units: FrameUnits,
}

impl Within<'_> {
    /// The first row of the frame of a row.
    fn start(&self, row: usize, bound: &FrameBound) -> Result<usize> {
        let Range { start, end } = self.partition.rows;
        Ok(match (bound, self.units) {
            (FrameBound::UnboundedPreceding, _) => start,
            (FrameBound::UnboundedFollowing, _) => end,
            (FrameBound::CurrentRow, FrameUnits::Rows) => row,
            (FrameBound::CurrentRow, _) => self.partitions.peers(row).start,
            (bound, FrameUnits::Rows) => match steps(bound)? {
                (count, true) => row.saturating_sub(count).max(start),
                (count, false) => row.saturating_add(count).min(end),
            },
            (bound, _) => {
                let groups = &self.partition.groups;
                let group = self.partitions.group_of[row];
                match steps(bound)? {
                    (count, true) => {
                        let group = group.saturating_sub(count).max(groups.start);
                        self.partitions.groups[group].start
                    }
                    (count, false) if group.saturating_add(count) < groups.end => {
                        self.partitions.groups[group + count].start
                    }
                    (_, false) => end,
                }
            }
        })
    }

    /// The row after the last one of the frame of a row.
    fn end(&self, row: usize, bound: &FrameBound) -> Result<usize> {
        let Range { start, end } = self.partition.rows;
        Ok(match (bound, self.units) {
            (FrameBound::UnboundedPreceding, _) => start,
            (FrameBound::UnboundedFollowing, _) => end,
            (FrameBound::CurrentRow, FrameUnits::Rows) => row + 1,
            (FrameBound::CurrentRow, _) => self.partitions.peers(row).end,
            (bound, FrameUnits::Rows) => match steps(bound)? {
                (count, true) => (row + 1).saturating_sub(count).max(start),
                (count, false) => row.saturating_add(count).saturating_add(1).min(end),
            },
            (bound, _) => {
                let groups = &self.partition.groups;
                let group = self.partitions.group_of[row];
                match steps(bound)? {
                    (count, true) if count <= group - groups.start => {
                        self.partitions.groups[group - count].end
                    }
                    (_, true) => start,
                    (count, false) => {
                        let last = groups.end - 1;
                        let group = group.saturating_add(count).min(last);
                        self.partitions.groups[group].end
                    }
                }
            }
        })
    }
}

/// The number of rows or groups of a bound, and whether it is before the row.
fn steps(bound: &FrameBound) -> Result<(usize, bool)> {
    let number = |count: &u64| usize::try_from(*count).unwrap_or(usize::MAX);
    match bound {
        FrameBound::Preceding(FrameOffset::Count(count)) => Ok((number(count), true)),
        FrameBound::Following(FrameOffset::Count(count)) => Ok((number(count), false)),
        bound => {
            let what = format!("the bound {bound} reached the renderer");
            Err(Error::new(Kind::Bug, what))
        }
    }
}
