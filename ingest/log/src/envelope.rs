//! Change events as records of the log: Debezium's envelope in Avro, in Confluent's wire format.
//!
//! [`Encoder`] turns a [`Change`](crate::event::Change) into a [`Record`](crate::log::Record) and
//! registers the table's schemas; [`Decoder`] reads it back, for tools, tests and for a publisher
//! that wants to know how far a topic reaches. (The dataflow decodes in columns, elsewhere.)
//!
//! Invariants: the same change gives the same bytes, whenever it is encoded; the key holds the
//! primary key alone, whose values say the partition ([`partition_of_change`]), so all changes of a
//! row are in one partition, in order. An update that
//! changes the primary key must come as a delete and a create, which is what Debezium does.
//! Within a partition positions grow; what does not is a copy that a writer left which stood still
//! or was told of a failure, and readers drop it. A snapshot begins with a truncate, from which on
//! positions may begin lower.

mod decode;
mod encode;
mod route;
mod subject;

pub use decode::{Decoder, Place};
pub use encode::{Encoder, Followed};
pub use route::partition_of_change;
pub use subject::Evolution;

use crate::event::{Op, Position};
use crate::schema::fingerprint;

/// `source.connector` of the records that are ours.
pub const CONNECTOR: &str = "tidemill";
/// The same of those that people put back behind newer ones: their positions say nothing.
const REPLAYED: &str = "tidemill-replay";

/// What stands behind a version and before the fingerprint of the schema, as semantic versions have
/// it for what a build says of itself.
const BUILD: u8 = b'+';
/// The hexadecimal digits of a fingerprint.
const DIGITS: usize = 16;

/// `source.version` of records that are written with a schema.
fn version_of(schema: &str) -> String {
    let fingerprint = fingerprint(schema);
    format!("{}+{fingerprint:016x}", env!("CARGO_PKG_VERSION"))
}

/// The fingerprint of the schema that a record was written with, in its `source.version`; none in
/// those of earlier versions. Each record of a topic is asked, so nothing is allocated.
#[must_use]
pub fn fingerprint_of(version: &[u8]) -> Option<u64> {
    let (rest, digits) = version.split_last_chunk::<DIGITS>()?;
    if rest.last() != Some(&BUILD) {
        return None;
    }
    digits.iter().try_fold(0, |number: u64, digit| {
        let digit = char::from(*digit).to_digit(16)?;
        Some(number << 4 | u64::from(digit))
    })
}

/// The same, found in a datum of ours whatever its schema is: by the two fields behind it. The row
/// is before them, so the last ones are the record's own.
#[must_use]
pub fn fingerprint_in(datum: &[u8]) -> Option<u64> {
    let text = |text: &str| [&[text.len() as u8 * 2], text.as_bytes()].concat();
    let name = text(CONNECTOR);
    let behind = [CONNECTOR, REPLAYED].map(|connector| [text(connector), name.clone()].concat());
    let ends = (0..datum.len()).rev();
    let mut found = ends.filter(|end| {
        let rest = datum.get(*end..).unwrap_or_default();
        behind.iter().any(|behind| rest.starts_with(behind))
    });
    fingerprint_of(datum.get(..found.next()?)?)
}

/// What follows the position in `source.sequence` of a delete that stands for a row which could not
/// be published.
const WITHHELD: &str = "withheld";

/// `source.sequence` of a position.
fn sequence_of(position: Position, op: Op) -> String {
    let Position { commit, index } = position;
    match op {
        Op::Withheld => format!("[\"{commit}\",\"{index}\",\"{WITHHELD}\"]"),
        _ => format!("[\"{commit}\",\"{index}\"]"),
    }
}

/// Whether a `source.sequence` of ours is that of a delete which stands for a row that could not be
/// published.
#[must_use]
pub fn is_withheld(sequence: &[u8]) -> bool {
    let last = sequence.strip_suffix(b"\"]");
    last.is_some_and(|last| last.ends_with(WITHHELD.as_bytes()))
}

/// The position in a `source.sequence` of ours. Each record of a topic is asked, so nothing is
/// allocated.
#[must_use]
pub fn position_of(sequence: &[u8]) -> Option<Position> {
    let (commit, rest) = number(sequence.strip_prefix(b"[\"")?)?;
    let (index, rest) = number(rest.strip_prefix(b"\",\"")?)?;
    let withheld = || {
        let last = rest.strip_prefix(b"\",\"")?.strip_suffix(b"\"]")?;
        (last == WITHHELD.as_bytes()).then_some(())
    };
    (rest == b"\"]" || withheld().is_some()).then_some(Position { commit, index })
}

/// The number that a text begins with, and the rest.
fn number(text: &[u8]) -> Option<(u64, &[u8])> {
    let mut rest = text;
    let mut number = 0_u64;
    while let Some((digit @ b'0'..=b'9', after)) = rest.split_first() {
        number = number
            .checked_mul(10)?
            .checked_add(u64::from(digit - b'0'))?;
        rest = after;
    }
    (rest.len() < text.len()).then_some((number, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_names_the_schema_and_those_of_before_name_none() {
        let schema = "\"int\"";
        let version = version_of(schema);
        let is = Some(fingerprint(schema));
        assert_eq!(fingerprint_of(version.as_bytes()), is);
        for other in ["0.1.0", "", "0.1.0+0123456789abcdeg", "0123456789abcdef"] {
            assert_eq!(fingerprint_of(other.as_bytes()), None, "{other}");
        }
        let field = |text: &str| format!("{}{text}", char::from(text.len() as u8 * 2));
        let source = |version: &str, connector: &str| {
            let fields = [version, connector, CONNECTOR].map(field);
            format!("a row{}and more", fields.concat()).into_bytes()
        };
        for connector in [CONNECTOR, REPLAYED] {
            let datum = source(&version, connector);
            assert_eq!(fingerprint_in(&datum), is);
            // A row may hold what looks like it.
            let other = [source(&version_of("other"), connector), datum].concat();
            assert_eq!(fingerprint_in(&other), is);
        }
        assert_eq!(fingerprint_in(&source("0.1.0", CONNECTOR)), None);
        assert_eq!(fingerprint_in(&source(&version, "postgresql")), None);
    }

    #[test]
    fn a_position_is_read_from_what_was_written_and_from_nothing_else() {
        for (commit, index) in [(0, 0), (45_449_976, 79), (u64::MAX, u64::MAX)] {
            let position = Position { commit, index };
            for op in [Op::Delete, Op::Withheld] {
                let sequence = sequence_of(position, op);
                assert_eq!(position_of(sequence.as_bytes()), Some(position));
                assert_eq!(is_withheld(sequence.as_bytes()), op == Op::Withheld);
                for end in 0..sequence.len() {
                    assert_eq!(position_of(&sequence.as_bytes()[..end]), None);
                }
            }
        }
        for other in [
            "[\"1\",\"2\"] ",
            "[null,\"2\"]",
            "[\"\",\"2\"]",
            "[\"-1\",\"2\"]",
            "[\"18446744073709551616\",\"2\"]",
        ] {
            assert_eq!(position_of(other.as_bytes()), None, "{other}");
        }
    }
}
