//! Decoder of pgoutput, PostgreSQL's logical replication messages.
//!
//! In: the bytes of one message. Out: [`Message`]. Implements protocol version 1 in text format
//! (PostgreSQL's manual, chapter "Frontend/Backend Protocol", section "Logical Replication Message
//! Formats"). All integers are big-endian.
//!
//! Invariant: any bytes give a message or an error, never a panic. Cells share the buffer of the
//! message.

use bytes::Bytes;
use tidemill_log::schema::TableSchema;

/// Microseconds from 1970-01-01 to PostgreSQL's epoch, 2000-01-01.
const POSTGRES_EPOCH_US: i64 = 946_684_800_000_000;

/// A PostgreSQL timestamp as microseconds since 1970-01-01.
pub(super) fn unix_us(postgres_us: i64) -> i64 {
    postgres_us.saturating_add(POSTGRES_EPOCH_US)
}

/// One message of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Message {
    /// `B`: a committed transaction begins; `committed_us` is in microseconds since 1970.
    Begin {
        commit_lsn: u64,
        committed_us: i64,
        xid: u32,
    },
    /// `C`: the transaction ends; the next one lies at or after `end_lsn`.
    Commit { end_lsn: u64 },
    /// `R`: the columns of a table, for its following changes.
    Relation(Relation),
    /// `I`: a row was inserted.
    Insert { relation: u32, new: Tuple },
    /// `U`: a row was updated.
    Update {
        relation: u32,
        old: Option<Old>,
        new: Tuple,
    },
    /// `D`: a row was deleted.
    Delete { relation: u32, old: Old },
    /// `T`: tables were truncated.
    Truncate { relations: Vec<u32> },
    /// `Y`, `O`, `M`: a type, an origin or an application's message; no row changes.
    Other,
}

/// The cells of a row, in the order of the relation's columns.
pub(super) type Tuple = Vec<Cell>;

/// The row before a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Old {
    /// `K`: the columns of the replica identity; all others are null.
    Key(Tuple),
    /// `O`: all columns (REPLICA IDENTITY FULL).
    Full(Tuple),
}

/// One cell of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cell {
    /// `n`: NULL.
    Null,
    /// `u`: a TOASTed value that did not change and was not sent.
    Unchanged,
    /// `t`: the value, as PostgreSQL's output function writes it.
    Text(Bytes),
}

/// A table as the stream describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Relation {
    /// The OID of the table.
    pub(super) oid: u32,
    /// The schema of the table.
    pub(super) namespace: String,
    /// The name of the table.
    pub(super) name: String,
    /// The replica identity: `d` (default), `f` (full), `i` (index) or `n` (nothing).
    pub(super) identity: u8,
    /// The columns, in the order of tuples.
    pub(super) columns: Vec<RelationColumn>,
}

/// A column of a [`Relation`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RelationColumn {
    /// The name of the column.
    pub(super) name: String,
    /// Whether the column is part of the replica identity, and so of the row before a change.
    pub(super) in_identity: bool,
    /// The OID of its type.
    pub(super) type_oid: u32,
    /// The type modifier; -1 for none.
    pub(super) modifier: i32,
}

/// Why bytes are not a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum DecodeError {
    /// The message ends too early.
    #[error("pgoutput message ends in the middle of its {0}")]
    Short(&'static str),
    /// An unknown byte in a place that says what follows.
    #[error("pgoutput message has the unknown {what} 0x{byte:02x}")]
    Unknown { what: &'static str, byte: u8 },
    /// A name is not UTF-8.
    #[error("pgoutput message holds a name that is not UTF-8")]
    Name,
    /// Bytes follow the end of the message.
    #[error("pgoutput message has {0} bytes too many")]
    Long(usize),
}

impl Relation {
    /// Whether the replica identity is an index without some columns of the primary key, so that
    /// changes do not identify their rows.
    pub(super) fn hides_key(&self, table: &TableSchema) -> bool {
        let told = |name: &str| {
            let mut columns = self.columns.iter();
            columns.any(|column| column.in_identity && column.name == name)
        };
        let mut key = table
            .key
            .iter()
            .filter_map(|&index| table.columns.get(index));
        self.identity == b'i' && key.any(|column| !told(&column.name))
    }
}

/// The result of decoding.
type Result<T> = std::result::Result<T, DecodeError>;

/// Decodes one message.
///
/// # Errors
/// [`DecodeError`] when the bytes are not a message of this protocol version.
pub(super) fn decode(message: Bytes) -> Result<Message> {
    let mut rest = Rest(message);
    let decoded = match rest.u8("type")? {
        b'B' => Message::Begin {
            commit_lsn: rest.u64("commit LSN")?,
            committed_us: unix_us(rest.i64("commit time")?),
            xid: rest.u32("transaction")?,
        },
        b'C' => {
            rest.u8("flags")?;
            rest.u64("commit LSN")?;
            let end_lsn = rest.u64("end LSN")?;
            rest.i64("commit time")?;
            Message::Commit { end_lsn }
        }
        b'R' => Message::Relation(rest.relation()?),
        b'I' => {
            let relation = rest.u32("relation")?;
            match rest.u8("tuple kind")? {
                b'N' => Message::Insert {
                    relation,
                    new: rest.tuple()?,
                },
                byte => return Err(unknown("tuple kind", byte)),
            }
        }
        b'U' => rest.update()?,
        b'D' => {
            let relation = rest.u32("relation")?;
            let kind = rest.u8("tuple kind")?;
            Message::Delete {
                relation,
                old: rest.old(kind)?,
            }
        }
        b'T' => {
            let count = rest.u32("relation count")?;
            rest.u8("flags")?;
            let relations = (0..count)
                .map(|_| rest.u32("relation"))
                .collect::<Result<_>>()?;
            Message::Truncate { relations }
        }
        b'Y' | b'O' | b'M' => return Ok(Message::Other),
        byte => return Err(unknown("type", byte)),
    };
    match rest.0.len() {
        0 => Ok(decoded),
        left => Err(DecodeError::Long(left)),
    }
}

/// The error of an unknown byte.
fn unknown(what: &'static str, byte: u8) -> DecodeError {
    DecodeError::Unknown { what, byte }
}

/// The bytes of a message that are not decoded yet.
struct Rest(Bytes);

impl Rest {
    /// Takes `count` bytes; `what` names them in an error.
    fn take(&mut self, count: usize, what: &'static str) -> Result<Bytes> {
        if count > self.0.len() {
            return Err(DecodeError::Short(what));
        }
        Ok(self.0.split_to(count))
    }

    /// Takes an array of bytes.
    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N]> {
        let taken = self.take(N, what)?;
        <[u8; N]>::try_from(taken.as_ref()).map_err(|_| DecodeError::Short(what))
    }

    /// Takes an `Int8`.
    fn u8(&mut self, what: &'static str) -> Result<u8> {
        self.array(what).map(u8::from_be_bytes)
    }

    /// Takes an `Int16`.
    fn u16(&mut self, what: &'static str) -> Result<u16> {
        self.array(what).map(u16::from_be_bytes)
    }

    /// Takes an `Int32`.
    fn u32(&mut self, what: &'static str) -> Result<u32> {
        self.array(what).map(u32::from_be_bytes)
    }

    /// Takes an `Int64`: an LSN.
    fn u64(&mut self, what: &'static str) -> Result<u64> {
        self.array(what).map(u64::from_be_bytes)
    }

    /// Takes an `Int64`: a timestamp.
    fn i64(&mut self, what: &'static str) -> Result<i64> {
        self.array(what).map(i64::from_be_bytes)
    }

    /// Takes a `String`: bytes up to a zero byte.
    fn name(&mut self, what: &'static str) -> Result<String> {
        let end = self.0.iter().position(|&byte| byte == 0);
        let text = self.take(end.ok_or(DecodeError::Short(what))?, what)?;
        self.u8(what)?;
        String::from_utf8(text.to_vec()).map_err(|_| DecodeError::Name)
    }

    /// Takes the body of a relation message.
    fn relation(&mut self) -> Result<Relation> {
        let oid = self.u32("relation")?;
        let namespace = self.name("schema name")?;
        let name = self.name("table name")?;
        let identity = self.u8("replica identity")?;
        let count = self.u16("column count")?;
        let columns = (0..count)
            .map(|_| {
                let flags = self.u8("column flags")?;
                Ok(RelationColumn {
                    in_identity: flags & 1 == 1,
                    name: self.name("column name")?,
                    type_oid: self.u32("column type")?,
                    modifier: self.array("type modifier").map(i32::from_be_bytes)?,
                })
            })
            .collect::<Result<_>>()?;
        Ok(Relation {
            oid,
            namespace,
            name,
            identity,
            columns,
        })
    }

    /// Takes the body of an update message: the old row is optional.
    fn update(&mut self) -> Result<Message> {
        let relation = self.u32("relation")?;
        let mut kind = self.u8("tuple kind")?;
        let mut old = None;
        if kind != b'N' {
            old = Some(self.old(kind)?);
            kind = self.u8("tuple kind")?;
        }
        match kind {
            b'N' => Ok(Message::Update {
                relation,
                old,
                new: self.tuple()?,
            }),
            byte => Err(unknown("tuple kind", byte)),
        }
    }

    /// Takes the row before a change; `kind` says whether it is the key or the whole row.
    fn old(&mut self, kind: u8) -> Result<Old> {
        match kind {
            b'K' => self.tuple().map(Old::Key),
            b'O' => self.tuple().map(Old::Full),
            byte => Err(unknown("tuple kind", byte)),
        }
    }

    /// Takes a `TupleData`: the number of cells, then the cells.
    fn tuple(&mut self) -> Result<Tuple> {
        let count = self.u16("column count")?;
        (0..count)
            .map(|_| match self.u8("cell kind")? {
                b'n' => Ok(Cell::Null),
                b'u' => Ok(Cell::Unchanged),
                b't' => {
                    let length = self.u32("cell length")?;
                    let length = usize::try_from(length).unwrap_or(usize::MAX);
                    self.take(length, "cell").map(Cell::Text)
                }
                byte => Err(unknown("cell kind", byte)),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(text: &'static str) -> Cell {
        Cell::Text(Bytes::from_static(text.as_bytes()))
    }

    fn all(parts: &[&[u8]]) -> Bytes {
        Bytes::from(parts.concat())
    }

    const ROW: &[u8] = b"\0\x03t\0\0\0\x02abnu";

    fn row() -> Tuple {
        vec![text("ab"), Cell::Null, Cell::Unchanged]
    }

    #[test]
    fn transactions_and_relations() {
        let begin = all(&[
            b"B",
            &9_u64.to_be_bytes(),
            &1_i64.to_be_bytes(),
            &7_u32.to_be_bytes(),
        ]);
        assert_eq!(
            decode(begin),
            Ok(Message::Begin {
                commit_lsn: 9,
                committed_us: POSTGRES_EPOCH_US + 1,
                xid: 7
            })
        );
        let commit = all(&[b"C\0", &9_u64.to_be_bytes(), &12_u64.to_be_bytes(), &[0; 8]]);
        assert_eq!(decode(commit), Ok(Message::Commit { end_lsn: 12 }));
        let relation = b"R\0\0\0\x05public\0users\0d\0\x01\x01id\0\0\0\0\x17\xff\xff\xff\xff";
        assert_eq!(
            decode(Bytes::from_static(relation)),
            Ok(Message::Relation(Relation {
                oid: 5,
                namespace: "public".to_owned(),
                name: "users".to_owned(),
                identity: b'd',
                columns: vec![RelationColumn {
                    name: "id".to_owned(),
                    in_identity: true,
                    type_oid: 23,
                    modifier: -1
                }],
            }))
        );
    }

    #[test]
    fn row_changes() {
        let insert = decode(all(&[b"I\0\0\0\x05N", ROW]));
        assert_eq!(
            insert,
            Ok(Message::Insert {
                relation: 5,
                new: row()
            })
        );
        for (kind, old) in [
            (&b""[..], None),
            (b"K", Some(Old::Key(row()))),
            (b"O", Some(Old::Full(row()))),
        ] {
            let before = if kind.is_empty() { &b""[..] } else { ROW };
            let update = decode(all(&[b"U\0\0\0\x05", kind, before, b"N", ROW]));
            assert_eq!(
                update,
                Ok(Message::Update {
                    relation: 5,
                    old,
                    new: row()
                })
            );
        }
        let delete = decode(all(&[b"D\0\0\0\x05K", ROW]));
        assert_eq!(
            delete,
            Ok(Message::Delete {
                relation: 5,
                old: Old::Key(row())
            })
        );
        let truncate = decode(Bytes::from_static(b"T\0\0\0\x02\0\0\0\0\x05\0\0\0\x06"));
        assert_eq!(
            truncate,
            Ok(Message::Truncate {
                relations: vec![5, 6]
            })
        );
        for other in [
            &b"Y\0\0\0\x05public\0mood\0"[..],
            b"O\0\0\0\0\0\0\0\0x\0",
            b"M",
        ] {
            assert_eq!(decode(Bytes::from_static(other)), Ok(Message::Other));
        }
    }

    #[test]
    fn decode_errors_name_the_problem() {
        let decode = |bytes: &'static [u8]| decode(Bytes::from_static(bytes)).unwrap_err();
        assert_eq!(decode(b""), DecodeError::Short("type"));
        assert_eq!(decode(b"?"), unknown("type", b'?'));
        assert_eq!(
            decode(b"I\0\0\0\x05N\0\x01b\0\0\0\0"),
            unknown("cell kind", b'b')
        );
        assert_eq!(
            decode(b"I\0\0\0\x05N\0\x01t\xff\xff\xff\xff"),
            DecodeError::Short("cell")
        );
        assert_eq!(decode(b"I\0\0\0\x05N\0\x01n!"), DecodeError::Long(1));
        assert_eq!(
            decode(b"T\xff\xff\xff\xff\0"),
            DecodeError::Short("relation")
        );
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(
            kind in prop::sample::select(b"BCRIUDTYOM?".to_vec()),
            mut bytes in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let _ = decode(Bytes::from(bytes.clone()));
            bytes.insert(0, kind);
            let _ = decode(Bytes::from(bytes));
        }

        #[test]
        fn a_message_cut_short_is_refused(cut in 1_usize..20) {
            let whole = all(&[b"U\0\0\0\x05K", ROW, b"N", ROW]);
            prop_assert!(decode(whole.slice(..whole.len() - cut)).is_err());
        }
    }
}
