//! Evaluation of window functions over the rows of partitions.
//!
//! Every function gives a column with a value for each row. Functions that return the value of
//! another row find its index first. Aggregates over frames move both ends of the frame forward: a
//! row is added once and removed once, which exact sums allow ([`tidemill_state::value::totals`]).
//! `min` and `max` keep the rows of the frame that a later row does not beat.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Float64Array, Int32Array, Int64Array, UInt64Array};
use arrow::array::{RecordBatch, new_null_array};
use arrow::compute::{interleave, take};
use arrow::datatypes::DataType;
use differential_dataflow::difference::Semigroup;
use smallvec::smallvec;
use tidemill_ir::row::{Order, RowCodec};
use tidemill_ir::{AggregateFunction, OrderBy, WindowCall, WindowFunction};
use tidemill_log::Result;
use tidemill_state::value::totals::{Cell, Totals};

use super::frames::frames;
use super::partitions::Partitions;
use super::unnamed;
use crate::operator::compute;
use crate::operator::reduce::{accumulate::Accumulator, rows::Rows};

/// The results of a function of the type `kind` over `rows`, and the rows whose result is out of
/// range.
///
/// # Errors
/// `Bug` when the planner let a function through that cannot be computed.
pub(super) fn evaluate(
    function: &WindowFunction,
    kind: &DataType,
    rows: &RecordBatch,
    partitions: &Partitions,
    order: (&[OrderBy], &[ArrayRef]),
) -> Result<(ArrayRef, Vec<usize>)> {
    let arguments = function.arguments.iter();
    let arguments = arguments.map(|scalar| compute::evaluate(scalar, rows));
    let arguments = arguments.collect::<Result<Vec<ArrayRef>>>()?;
    let frames = match function.call.is_framed() {
        true => frames(&function.frame, partitions, order)?,
        false => Vec::new(),
    };
    let column = match function.call {
        WindowCall::Lag(offset) => shifted(partitions, -i64::from(offset), &arguments)?,
        WindowCall::Lead(offset) => shifted(partitions, i64::from(offset), &arguments)?,
        WindowCall::FirstValue => chosen(&frames, &arguments, |frame| Some(frame.start))?,
        WindowCall::LastValue => chosen(&frames, &arguments, |frame| frame.end.checked_sub(1))?,
        WindowCall::NthValue(number) => {
            let more = usize::try_from(number).unwrap_or(0).saturating_sub(1);
            chosen(&frames, &arguments, |frame| frame.start.checked_add(more))?
        }
        WindowCall::Aggregate(AggregateFunction::Min) => {
            extreme(&frames, &arguments, Order::Ascending)?
        }
        WindowCall::Aggregate(AggregateFunction::Max) => {
            extreme(&frames, &arguments, Order::Descending)?
        }
        WindowCall::Aggregate(aggregate) => {
            return totals(aggregate, kind, &frames, arguments.first());
        }
        call => ranked(call, partitions),
    };
    Ok((column, Vec::new()))
}

/// The functions that depend on positions alone.
fn ranked(call: WindowCall, partitions: &Partitions) -> ArrayRef {
    let each = partitions.all.iter().flat_map(|partition| {
        let rows = partition.rows.clone();
        rows.map(move |row| (partition, row - partition.rows.start, row))
    });
    let ranks = each.clone().map(|(partition, _, row)| {
        let peers = partitions.peers(row);
        let (rank, last) = (peers.start, peers.end);
        let start = partition.rows.start;
        (rank - start, last - start, partition.rows.len())
    });
    let long = |number: usize| number as i64;
    match call {
        WindowCall::Rank => Arc::new(Int64Array::from_iter_values(
            ranks.map(|(rank, ..)| long(rank + 1)),
        )),
        WindowCall::DenseRank => Arc::new(Int64Array::from_iter_values(each.map(
            |(partition, _, row)| long(partitions.group_of[row] - partition.groups.start + 1),
        ))),
        WindowCall::PercentRank => Arc::new(Float64Array::from_iter_values(ranks.map(
            |(rank, _, count)| match count {
                1 => 0.0,
                count => rank as f64 / (count - 1) as f64,
            },
        ))),
        WindowCall::CumeDist => Arc::new(Float64Array::from_iter_values(
            ranks.map(|(_, last, count)| last as f64 / count as f64),
        )),
        WindowCall::Ntile(buckets) => Arc::new(Int32Array::from_iter_values(
            each.map(|(partition, place, _)| bucket(place, partition.rows.len(), buckets)),
        )),
        _ => Arc::new(Int64Array::from_iter_values(
            each.map(|(_, place, _)| long(place + 1)),
        )),
    }
}

/// The bucket, from 1, of the row at `place` of `count` rows. The first buckets have one row more
/// if the rows cannot be divided evenly.
fn bucket(place: usize, count: usize, buckets: i32) -> i32 {
    let buckets = usize::try_from(buckets).unwrap_or(1).max(1);
    let (size, more) = (count / buckets, count % buckets);
    let bucket = match place.checked_sub(more * (size + 1)) {
        Some(rest) if size > 0 => more + rest / size,
        _ => place / (size + 1),
    };
    // A bucket's number is at most `buckets`.
    i32::try_from(bucket + 1).unwrap_or(i32::MAX)
}

/// The value of the row that is `offset` rows behind, or the default.
fn shifted(partitions: &Partitions, offset: i64, arguments: &[ArrayRef]) -> Result<ArrayRef> {
    let Some(values) = arguments.first() else {
        return Err(no_argument());
    };
    let default = match arguments.get(1) {
        Some(default) => Arc::clone(default),
        None => new_null_array(values.data_type(), values.len()),
    };
    let mut places = Vec::with_capacity(values.len());
    for partition in &partitions.all {
        for row in partition.rows.clone() {
            let other = i64::try_from(row).ok().map(|row| row + offset);
            let other = other.and_then(|other| usize::try_from(other).ok());
            places.push(match other.filter(|it| partition.rows.contains(it)) {
                Some(other) => (0, other),
                None => (1, row),
            });
        }
    }
    interleave(&[values.as_ref(), default.as_ref()], &places).map_err(tidemill_ir::row::bug)
}

/// The value of one row of each frame; null if the frame does not contain it.
fn chosen(
    frames: &[Range<usize>],
    arguments: &[ArrayRef],
    which: impl Fn(&Range<usize>) -> Option<usize>,
) -> Result<ArrayRef> {
    let rows = frames.iter().map(|frame| {
        let row = which(frame).filter(|row| frame.contains(row));
        row.map(|row| row as u64)
    });
    taken(arguments, rows.collect())
}

/// The first argument at other rows; null where there is none.
fn taken(arguments: &[ArrayRef], rows: UInt64Array) -> Result<ArrayRef> {
    match arguments.first() {
        Some(values) => take(values, &rows, None).map_err(tidemill_ir::row::bug),
        None => Err(no_argument()),
    }
}

/// The error of a function without its argument.
fn no_argument() -> tidemill_log::Error {
    let what = "a window function without its argument reached the renderer";
    tidemill_log::Error::new(tidemill_log::Kind::Bug, what)
}

/// The least value of each frame, or with [`Order::Descending`] the greatest one. Nulls do not
/// count.
fn extreme(frames: &[Range<usize>], arguments: &[ArrayRef], order: Order) -> Result<ArrayRef> {
    let Some(values) = arguments.first() else {
        return Err(no_argument());
    };
    let columns = std::slice::from_ref(values);
    let encoded = RowCodec::ordered(unnamed(columns), order)?.encode(columns, values.len())?;
    // The rows that are first among the rows from them on, in order.
    let mut candidates: VecDeque<usize> = VecDeque::new();
    let mut read = 0;
    let mut found = Vec::with_capacity(frames.len());
    for frame in frames {
        read = read.max(frame.start);
        while candidates.front().is_some_and(|row| *row < frame.start) {
            candidates.pop_front();
        }
        while read < frame.end {
            if values.is_valid(read) {
                let beaten = |row: &usize| encoded.bytes(*row) >= encoded.bytes(read);
                while candidates.back().is_some_and(beaten) {
                    candidates.pop_back();
                }
                candidates.push_back(read);
            }
            read += 1;
        }
        let first = candidates.front().filter(|row| frame.contains(row));
        found.push(first.map(|row| *row as u64));
    }
    taken(arguments, UInt64Array::from(found))
}

/// The aggregates that are totals: `count`, `sum`, `avg`, `bool_and` and `bool_or`.
fn totals(
    aggregate: AggregateFunction,
    kind: &DataType,
    frames: &[Range<usize>],
    argument: Option<&ArrayRef>,
) -> Result<(ArrayRef, Vec<usize>)> {
    let of = argument.map(|argument| argument.data_type().clone());
    let accumulator = Accumulator::new(aggregate, of, kind.clone());
    let added = singles(&accumulator, argument, frames.len(), 1)?;
    let removed = singles(&accumulator, argument, frames.len(), -1)?;
    // The totals of each frame that differs from the one before, and which of them a row has.
    let mut distinct: Vec<Totals> = Vec::new();
    let mut which: Vec<u64> = Vec::with_capacity(frames.len());
    let mut last: Option<&Range<usize>> = None;
    let (mut held, mut running) = (0..0, empty());
    for frame in frames {
        if last != Some(frame) {
            if frame.is_empty() || frame.start >= held.end {
                running = empty();
                held = frame.start..frame.start;
            }
            for total in removed.get(held.start..frame.start).unwrap_or_default() {
                running.plus_equals(total);
            }
            for total in added.get(held.end..frame.end).unwrap_or_default() {
                running.plus_equals(total);
            }
            held = frame.start..frame.end.max(frame.start);
            distinct.push(running.clone());
            last = Some(frame);
        }
        which.push(distinct.len() as u64 - 1);
    }
    let (results, overflow) = accumulator.finish(distinct.iter(), 0)?;
    let overflow: std::collections::BTreeSet<u64> =
        overflow.into_iter().map(|index| index as u64).collect();
    let failed = which.iter().enumerate();
    let failed = failed.filter(|(_, index)| overflow.contains(index));
    let failed = failed.map(|(row, _)| row).collect();
    let column = take(&results, &UInt64Array::from(which), None).map_err(tidemill_ir::row::bug)?;
    Ok((column, failed))
}

/// The totals of no rows.
fn empty() -> Totals {
    Totals {
        rows: 0,
        cells: smallvec![Cell::default()],
    }
}

/// The totals of each row alone, counted `times` times.
fn singles(
    accumulator: &Accumulator,
    argument: Option<&ArrayRef>,
    count: usize,
    times: i64,
) -> Result<Vec<Totals>> {
    let mut totals = vec![
        Totals {
            rows: times,
            ..empty()
        };
        count
    ];
    // A batch has far fewer than 2³² rows.
    let groups: Vec<u32> = (0..count).map(|row| row as u32).collect();
    let rows = Rows {
        groups: &groups,
        times: &vec![times; count],
    };
    let columns = argument.map(std::slice::from_ref).unwrap_or_default();
    accumulator.accumulate(columns, rows, &mut totals, 0)?;
    Ok(totals)
}
