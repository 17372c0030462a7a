//! Tests of the exchange: with each codec, the received values are the sent values, and bytes that
//! no codec wrote are errors.

use proptest::collection::vec;
use proptest::prelude::*;
use smallvec::SmallVec;
use tidemill_log::envelope::event::Position;
use tidemill_state::value::bit_counts::BitCounts;
use tidemill_state::value::float_sum::FloatSum;
use tidemill_state::value::source_position::{ChangeOrder, SourcePosition};
use tidemill_state::value::totals::{Cell, Sum};
use timely::Accountable;
use timely::bytes::arc::BytesMut;
use timely::dataflow::channels::ContainerBytes;

use super::rows::Rows;
use super::*;

type Value = ((Row, Row), Epoch, isize);
type Served = (Row, Row, Epoch, i64);

fn engines() -> &'static [Engine] {
    match cfg!(feature = "abomonation") {
        true => &[Engine::Checked, Engine::Abomonation],
        false => &[Engine::Checked],
    }
}

fn laid<D: Crosses>(values: Vec<D>, engine: Engine) -> Vec<u8> {
    let rows = Rows::Values(values, engine);
    let length = rows.length_in_bytes();
    assert!(length.is_multiple_of(8), "{length} bytes");
    let mut bytes = Vec::new();
    rows.into_bytes(&mut bytes);
    assert_eq!(bytes.len(), length);
    bytes
}

fn read<D: Crosses>(bytes: &[u8], engine: Engine) -> Result<Vec<D>> {
    let rows = Rows::<D>::from_bytes(BytesMut::from(bytes.to_vec()).freeze());
    rows.into_values(engine)
}

/// The values come back from each codec as they went.
fn cross<D: Crosses + Clone + PartialEq + std::fmt::Debug>(values: &[D]) {
    for engine in engines() {
        let bytes = laid(values.to_vec(), *engine);
        let arrived = Rows::<D>::from_bytes(BytesMut::from(bytes.clone()).freeze());
        assert_eq!(arrived.record_count(), values.len() as i64);
        assert_eq!(read::<D>(&bytes, *engine).unwrap(), values, "{engine}");
        // What is read before it is aligned comes back too.
        let mut shifted = vec![0; 3];
        shifted.extend(&bytes);
        let mut shifted = BytesMut::from(shifted).freeze();
        shifted.extract_to(3);
        let rows = Rows::<D>::from_bytes(shifted);
        assert_eq!(rows.into_values(*engine).unwrap(), values, "{engine}");
    }
}

/// Short rows mostly, some that are longer than any buffer on the way.
fn row() -> impl Strategy<Value = Row> {
    let bytes = prop_oneof![
        8 => vec(any::<u8>(), 0..40),
        2 => vec(any::<u8>(), 100..300),
        1 => (65_000usize..140_000, any::<u8>()).prop_map(|(length, byte)| vec![byte; length]),
    ];
    bytes.prop_map(|bytes| Row::new(&bytes))
}

fn difference() -> impl Strategy<Value = i64> {
    prop_oneof![Just(1), Just(-1), any::<i64>()]
}

fn value() -> impl Strategy<Value = Value> {
    (row(), row(), any::<u64>(), difference())
        .prop_map(|(key, value, epoch, times)| ((key, value), epoch, times as isize))
}

fn keyed() -> impl Strategy<Value = (Epoch, Keyed)> {
    let record = (
        row(),
        any::<u32>(),
        any::<i64>(),
        (any::<u64>(), any::<u32>(), any::<i64>()),
        (proptest::option::of(row()), any::<bool>()),
    )
        .prop_map(|(key, partition, offset, place, (row, refused))| {
            let (commit, index, at_ms) = (place.0, u64::from(place.1), place.2);
            let position = Position { commit, index };
            let begun_us = refused.then_some(at_ms);
            Keyed::Row {
                key,
                partition,
                offset,
                rank: ChangeOrder::new(SourcePosition { position, begun_us }, at_ms),
                row,
                refused,
            }
        });
    let truncated =
        (any::<u32>(), any::<i64>(), any::<u64>()).prop_map(|(partition, offset, worker)| {
            Keyed::Truncated {
                partition,
                offset,
                worker,
            }
        });
    (any::<u64>(), prop_oneof![4 => record, 1 => truncated])
}

fn float() -> impl Strategy<Value = FloatSum> {
    vec((any::<f64>(), -3i64..4), 0..6).prop_map(|values| {
        let mut sum = FloatSum::default();
        values
            .iter()
            .for_each(|(value, times)| sum.add(*value, *times));
        sum
    })
}

fn totals() -> impl Strategy<Value = ((Row, ()), Epoch, Totals)> {
    let sum = prop_oneof![
        Just(Sum::None),
        any::<i128>().prop_map(|sum| Sum::Int(sum.into())),
        float().prop_map(|sum| Sum::Float(Box::new(sum))),
        vec((any::<u64>(), -3i64..4), 0..4).prop_map(|values| {
            let mut counts = BitCounts::default();
            values
                .iter()
                .for_each(|(value, times)| counts.add(*value, *times));
            Sum::Bits(Box::new(counts))
        }),
    ];
    let cell = (any::<i64>(), sum).prop_map(|(count, sum)| Cell { count, sum });
    (row(), any::<u64>(), any::<i64>(), vec(cell, 0..5)).prop_map(|(key, epoch, rows, cells)| {
        let cells = SmallVec::from_vec(cells);
        ((key, ()), epoch, Totals { rows, cells })
    })
}

proptest! {
    #[test]
    fn values_by_key_cross(values in vec(value(), 0..30)) {
        cross(&values);
        let keys: Vec<_> = values.iter().map(|it| ((it.0.0.clone(), ()), it.1, it.2)).collect();
        cross(&keys);
        let served: Vec<Served> =
            values.into_iter().map(|((key, row), epoch, n)| (key, row, epoch, n as i64)).collect();
        cross(&served);
    }

    #[test]
    fn records_of_keyed_sources_cross(values in vec(keyed(), 0..30)) {
        cross(&values);
    }

    #[test]
    fn totals_cross(values in vec(totals(), 0..30)) {
        cross(&values);
    }

    /// Cut anywhere, what is left is an error.
    #[test]
    fn cut_bytes_are_an_error(values in vec(value(), 1..20), at in any::<prop::sample::Index>()) {
        let bytes = laid(values, Engine::Checked);
        // The last value may end in the last eight bytes, with zeros after it.
        let cut = at.index(bytes.len() - 7);
        prop_assert!(read::<Value>(&bytes[..cut], Engine::Checked).is_err());
    }

    /// With bytes changed it is an error, or so many other values: nothing panics, and no more is
    /// allocated than a few times what came.
    #[test]
    fn changed_bytes_do_no_harm(
        values in vec(value(), 1..20),
        totals in vec(totals(), 1..20),
        changes in vec((any::<prop::sample::Index>(), 1..=255u8), 1..4),
    ) {
        let changed = |mut bytes: Vec<u8>| {
            changes.iter().for_each(|(at, by)| {
                let at = at.index(bytes.len());
                bytes[at] ^= by;
            });
            bytes
        };
        let bytes = changed(laid(values, Engine::Checked));
        if let Ok(read) = read::<Value>(&bytes, Engine::Checked) {
            prop_assert!(read.capacity() * <Value as Flat>::LEAST <= bytes.len());
        }
        let bytes = changed(laid(totals, Engine::Checked));
        if let Ok(read) = read::<((Row, ()), Epoch, Totals)>(&bytes, Engine::Checked) {
            prop_assert!(read.capacity() <= bytes.len());
        }
    }

    #[test]
    fn what_nobody_laid_does_no_harm(bytes in vec(any::<u8>(), 0..300), count in any::<u64>()) {
        prop_assert!(read::<Value>(&bytes, Engine::Checked).is_err());
        let headed = |count: u64| {
            let mut headed = <Checked as Codec<Value>>::TAG.to_le_bytes().to_vec();
            headed.extend(count.to_le_bytes());
            headed.extend(&bytes);
            headed
        };
        prop_assert!(read::<Value>(&headed(count.max(64)), Engine::Checked).is_err());
        // This many may be there by chance.
        let few = read::<(Epoch, Keyed)>(&headed(count % 8), Engine::Checked);
        prop_assert!(few.is_err() || few.unwrap().len() < 8);
    }
}

#[test]
fn each_number_has_its_own_bytes() {
    let mut numbers: Vec<i64> = vec![0, 1, -1, 63, 64, -64, -65, 127, 128, i64::MAX, i64::MIN];
    numbers.extend((0..63).flat_map(|bit| [1 << bit, -(1 << bit), (1 << bit) - 1]));
    let values: Vec<Served> = numbers
        .iter()
        .map(|n| (Row::default(), Row::default(), 0, *n))
        .collect();
    cross(&values);
    // Eleven bytes, and ten with more than 64 bits.
    for bytes in [
        [0xff; 10],
        [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02],
    ] {
        i64::read(&mut Reader::new(&bytes)).unwrap_err();
    }
}

#[test]
fn an_empty_batch_crosses() {
    cross::<Value>(&[]);
    assert_eq!(laid::<Value>(Vec::new(), Engine::Checked).len(), 16);
}

/// A job that was started with two codecs ends, and says why.
#[test]
fn another_codecs_rows_are_an_error() {
    let mut bytes = laid::<Value>(
        vec![((Row::new(b"k"), Row::default()), 7, 1)],
        Engine::Checked,
    );
    bytes[..8].copy_from_slice(b"tmabom.1");
    let error = read::<Value>(&bytes, Engine::Checked).unwrap_err();
    assert!(error.to_string().contains("the same --codec"), "{error}");
    assert_eq!(error.kind(), Kind::Bug);
    // What has no header at all is not taken for an empty batch.
    let rows = Rows::<Value>::from_bytes(BytesMut::from(vec![0; 8]).freeze());
    assert_eq!(rows.record_count(), 1);
    rows.into_values(Engine::Checked).unwrap_err();
}

#[test]
fn abomonation_is_refused_without_a_secret() {
    let abomonation: Engine = "abomonation".parse().unwrap();
    "bincode".parse::<Engine>().unwrap_err();
    Engine::Checked.permitted(false).unwrap();
    let refused = abomonation.permitted(false).unwrap_err().to_string();
    if cfg!(feature = "abomonation") {
        assert!(refused.contains("have no secret"), "{refused}");
        abomonation.permitted(true).unwrap();
    } else {
        assert!(refused.contains("--features abomonation"), "{refused}");
        abomonation.permitted(true).unwrap_err();
    }
}
