//! An entry of the journal as bytes: what it is checked by, and what older versions wrote.
//!
//! An object is one line, `tidemill journal VERSION CHECKSUM`, and JSON. The checksum is the JSON's
//! xxh3 (64 bits). Objects that begin with `{` are those of the version before there was a first
//! line; they are read as entries of generation 0.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::{Binding, Checkpointed, Standing};
use crate::{Error, Kind, Result};

/// The first words of every object.
const WORDS: &str = "tidemill journal ";
/// The version that this program writes, and the newest that it reads.
const VERSION: u32 = 1;

/// One object of the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    /// Of the processes that wrote it.
    pub(super) generation: u64,
    /// Which process of that generation, by a number that it chose; [`NOBODY`] has none. Of two
    /// that were told to write as the same generation one does.
    #[serde(default, skip_serializing_if = "is_nobody")]
    pub(super) writer: u64,
    pub(super) record: Record,
}

/// Who minted a generation that nobody writes as yet, and who wrote before writers had numbers.
pub(super) const NOBODY: u64 = 0;

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_nobody(writer: &u64) -> bool {
    *writer == NOBODY
}

/// What an entry says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Record {
    /// A new generation of processes took over: whoever wrote before is fenced.
    Opened(Opened),
    Bound(Binding),
    /// A checkpoint is complete: all that its manifest names is durable.
    Checkpoint(Checkpointed),
    /// Stands for all entries before it, which may be gone.
    Truncated {
        bindings: Vec<Binding>,
        checkpoints: Vec<Checkpointed>,
    },
}

/// Who took over, for people; the number makes two of them differ whatever else they share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Opened {
    pub(super) at_ms: u64,
    pub(super) host: String,
    pub(super) process: u32,
    pub(super) random: u64,
}

/// An object as the version before the first one wrote it.
#[derive(Serialize, Deserialize)]
struct Unversioned {
    /// Whether it stands for all lower numbers too.
    #[serde(default)]
    collapsed: bool,
    binding: Binding,
}

impl Record {
    /// What stands for all that was read so far.
    pub(super) fn standing_for(standing: Standing) -> Self {
        Self::Truncated {
            bindings: standing.bindings,
            checkpoints: standing.checkpoints,
        }
    }
}

impl Entry {
    pub(super) fn encode(&self) -> Result<Vec<u8>> {
        let json = serde_json::to_vec(self).map_err(|error| {
            Error::with_source(Kind::Bug, "a journal's entry makes no JSON", error)
        })?;
        let mut bytes = format!("{WORDS}{VERSION} {:016x}\n", xxh3_64(&json)).into_bytes();
        bytes.extend(json);
        Ok(bytes)
    }

    /// The entry in an object's bytes; `name` is for errors.
    pub(super) fn decode(name: &str, bytes: &[u8]) -> Result<Self> {
        if bytes.starts_with(b"{") {
            return Self::decode_unversioned(name, bytes);
        }
        let cut = bytes.iter().position(|byte| *byte == b'\n');
        let (line, json) = cut.map_or((bytes, &[][..]), |cut| bytes.split_at(cut));
        let json = json.strip_prefix(b"\n").unwrap_or(json);
        let line = String::from_utf8_lossy(line);
        let words = line
            .strip_prefix(WORDS)
            .and_then(|rest| rest.split_once(' '));
        let Some((Ok(version), checksum)) = words.map(|(v, c)| (v.parse::<u32>(), c)) else {
            return Err(damaged(name, "its first line is not a journal's"));
        };
        if version != VERSION {
            let what = format!(
                "journal object `{name}` has format {version}, which a newer Tidemill wrote; this \
                 one reads formats up to {VERSION}: run that version or a later one"
            );
            return Err(Error::new(Kind::Data, what));
        }
        if checksum != format!("{:016x}", xxh3_64(json)) {
            return Err(damaged(name, "its checksum does not match"));
        }
        serde_json::from_slice(json).map_err(|error| damaged(name, error))
    }

    fn decode_unversioned(name: &str, bytes: &[u8]) -> Result<Self> {
        let old: Unversioned =
            serde_json::from_slice(bytes).map_err(|error| damaged(name, error))?;
        Ok(Self {
            generation: 0,
            writer: NOBODY,
            record: if old.collapsed {
                Record::Truncated {
                    bindings: vec![old.binding],
                    checkpoints: Vec::new(),
                }
            } else {
                Record::Bound(old.binding)
            },
        })
    }

    /// Whether it stands for all entries before it.
    pub(super) fn is_base(&self) -> bool {
        matches!(self.record, Record::Truncated { .. })
    }
}

pub(super) fn damaged(name: &str, why: impl std::fmt::Display) -> Error {
    Error::new(
        Kind::Data,
        format!("journal object `{name}` is damaged: {why}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        Entry {
            generation: 3,
            writer: 7,
            record: Record::Bound(Binding {
                epoch: 10,
                ends: [("a".to_owned(), [(0, 5)].into())].into(),
                ..Binding::default()
            }),
        }
    }

    #[test]
    fn an_entry_is_read_as_it_was_written() {
        let bytes = entry().encode().unwrap();
        assert_eq!(Entry::decode("x", &bytes).unwrap(), entry());
    }

    #[test]
    fn any_wrong_byte_and_any_cut_is_an_error_that_names_the_object() {
        let good = entry().encode().unwrap();
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bytes = good.clone();
                bytes[at] ^= 1 << bit;
                let error = Entry::decode("job/journal/7", &bytes).unwrap_err();
                assert_eq!(error.kind(), Kind::Data, "byte {at}, bit {bit}");
                assert!(error.to_string().contains("job/journal/7"), "{error}");
            }
            assert!(Entry::decode("x", &good[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_newer_format_is_refused_by_name() {
        let later = String::from_utf8(entry().encode().unwrap()).unwrap();
        let later = later.replacen("journal 1 ", "journal 2 ", 1);
        let error = Entry::decode("x", later.as_bytes())
            .unwrap_err()
            .to_string();
        for said in [
            "has format 2",
            "reads formats up to 1",
            "run that version or a later one",
        ] {
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn the_format_without_a_version_is_read() {
        let old = br#"{"collapsed":true,"binding":{"epoch":10,"ends":{"a":{"0":5}}}}"#;
        let read = Entry::decode("x", old).unwrap();
        assert!(read.is_base());
        let old = br#"{"collapsed":false,"binding":{"epoch":10,"ends":{"a":{"0":5}}}}"#;
        let read = Entry::decode("x", old).unwrap();
        assert_eq!((read.record, read.writer), (entry().record, NOBODY));
        let error = Entry::decode("job/journal/7", &old[..20]).unwrap_err();
        assert!(error.to_string().contains("job/journal/7"), "{error}");
    }
}
