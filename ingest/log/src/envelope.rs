//! Debezium envelopes in Avro: change events as records of the log, in Confluent's wire format.
//!
//! [`Encoder`] turns a [`Change`](event::Change) into a [`Record`](crate::log::Record) and
//! registers the schemas of the table. [`Decoder`] reads records back, for tools, tests and the
//! publisher, which asks how far a topic reaches. (The dataflow has its own columnar decoder.)
//!
//! ```text
//! record value:  0x00 │ schema id, 4 bytes big-endian │ Avro datum of the envelope
//! envelope:      before │ after │ source { version, connector, …, sequence } │ op │ ts_ms
//!                                          │                        └ ["commit","index"] position
//!                                          └ 0.1.0+<fingerprint of the schema, 16 hex digits>
//! ```
//!
//! The wire format is documented under "Wire format" in Confluent's Schema Registry manual, the
//! envelope under "Change events" in Debezium's manual of its PostgreSQL connector.
//!
//! Invariants:
//! 1. The same change gives the same bytes, whenever it is encoded.
//! 2. The key of a record holds the primary key alone, and its values choose the partition
//!    ([`partition_of_change`]). So all changes of a row are in one partition, in order. An update
//!    that changes the primary key must come as a delete and a create, as in Debezium.
//! 3. Source positions grow within a partition. A record whose position does not grow is a
//!    duplicate: its writer was frozen, or was told that an append failed which had succeeded.
//!    Readers drop duplicates.
//! 4. A snapshot begins with a truncate. Positions after that truncate may be lower than those
//!    before it.

mod decode;
mod encode;
pub mod event;
mod route;
mod subject;

use event::{Op, Position};

use crate::schema::fingerprint;

pub use decode::{Decoder, Place};
pub use encode::{Encoder, Followed};
pub use route::partition_of_change;
pub use subject::Evolution;

/// The value of `source.connector` in records that Tidemill wrote.
pub const CONNECTOR: &str = "tidemill";
/// The value of `source.connector` in records that an operator put back into the topic behind newer
/// ones. Readers do not compare their positions.
const REPLAYED: &str = "tidemill-replay";

/// Separates the version from the schema's fingerprint in `source.version`, as build metadata in
/// Semantic Versioning.
const BUILD_SEPARATOR: u8 = b'+';
/// Number of hexadecimal digits of a fingerprint.
const FINGERPRINT_DIGITS: usize = 16;

/// `source.version` of the records that are written with `schema`.
fn version_of(schema: &str) -> String {
    let fingerprint = fingerprint(schema);
    format!("{}+{fingerprint:016x}", env!("CARGO_PKG_VERSION"))
}

/// The fingerprint of the writer's schema, from a record's `source.version`. `None` for records of
/// versions that did not write it. Called for every record: it allocates nothing.
#[must_use]
pub fn fingerprint_of(version: &[u8]) -> Option<u64> {
    let (rest, digits) = version.split_last_chunk::<FINGERPRINT_DIGITS>()?;
    if rest.last() != Some(&BUILD_SEPARATOR) {
        return None;
    }
    digits.iter().try_fold(0, |number: u64, digit| {
        let digit = char::from(*digit).to_digit(16)?;
        Some(number << 4 | u64::from(digit))
    })
}

/// The fingerprint of the writer's schema, found in a datum without knowing that schema. The
/// function searches from the end for the two fields that follow `source.version` (`connector` and
/// `name`); the row stands before them, so a row that holds the same bytes is not taken for them.
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

/// The third element of `source.sequence` in a delete that stands for a row which cannot be
/// published.
const WITHHELD: &str = "withheld";

/// `source.sequence` of a change: a JSON array of texts, `["COMMIT","INDEX"]` or
/// `["COMMIT","INDEX","withheld"]`.
fn sequence_of(position: Position, op: Op) -> String {
    let Position { commit, index } = position;
    match op {
        Op::Withheld => format!("[\"{commit}\",\"{index}\",\"{WITHHELD}\"]"),
        _ => format!("[\"{commit}\",\"{index}\"]"),
    }
}

/// Whether a `source.sequence` of Tidemill marks a delete that stands for a row which cannot be
/// published ([`Op::Withheld`]).
#[must_use]
pub fn is_withheld(sequence: &[u8]) -> bool {
    let last = sequence.strip_suffix(b"\"]");
    last.is_some_and(|last| last.ends_with(WITHHELD.as_bytes()))
}

/// The source position in a `source.sequence` of Tidemill; `None` for any other text. Called for
/// every record: it allocates nothing.
///
/// ```
/// use tidemill_log::envelope::position_of;
/// use tidemill_log::envelope::event::Position;
///
/// let position = Position { commit: 45_449_976, index: 3 };
/// assert_eq!(position_of(br#"["45449976","3"]"#), Some(position));
/// assert_eq!(position_of(br#"["24023128", "24023128"]"#), None); // Debezium's own
/// ```
#[must_use]
pub fn position_of(sequence: &[u8]) -> Option<Position> {
    let (commit, rest) = leading_number(sequence.strip_prefix(b"[\"")?)?;
    let (index, rest) = leading_number(rest.strip_prefix(b"\",\"")?)?;
    let withheld = || {
        let last = rest.strip_prefix(b"\",\"")?.strip_suffix(b"\"]")?;
        (last == WITHHELD.as_bytes()).then_some(())
    };
    (rest == b"\"]" || withheld().is_some()).then_some(Position { commit, index })
}

/// The decimal number at the beginning of a text, and the rest of the text. `None` without a digit,
/// or when the number does not fit 64 bits.
fn leading_number(text: &[u8]) -> Option<(u64, &[u8])> {
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
    fn versions_carry_the_schema_fingerprint() {
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
            // A row may hold the same bytes.
            let other = [source(&version_of("other"), connector), datum].concat();
            assert_eq!(fingerprint_in(&other), is);
        }
        assert_eq!(fingerprint_in(&source("0.1.0", CONNECTOR)), None);
        assert_eq!(fingerprint_in(&source(&version, "postgresql")), None);
    }

    #[test]
    fn only_our_sequences_parse_as_positions() {
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
