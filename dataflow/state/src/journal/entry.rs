//! The format of a journal entry: encoding, checksum, versions.
//!
//! An object is one line, `tidemill journal VERSION CHECKSUM`, followed by JSON. The checksum is
//! the XXH3 hash (64 bits, 16 hex digits) of the JSON. An object that begins with `{` has the
//! format from before there was a first line; it is read as an entry of generation 0.

use serde::{Deserialize, Serialize};
use tidemill_log::{Error, Kind, Result};
use xxhash_rust::xxh3::xxh3_64;

use super::{Binding, Checkpointed, Standing, topic_facts};

/// The first words of every object.
const WORDS: &str = "tidemill journal ";
/// The format version that this program writes, which is also the newest that it reads. In format 1
/// bindings hold facts about topics as offsets; see [`super::topic_facts`].
pub(super) const VERSION: u32 = 2;
/// The oldest format with a version that this program reads.
const VERSION_MIN: u32 = 1;

/// One object of the journal, or one frame of a tail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// The generation of the process that wrote the entry.
    pub(super) generation: u64,
    /// The random number by which the writer tells its own entries from those of other processes;
    /// [`NOBODY`] if nobody writes. Of two processes with the same generation only one writes.
    #[serde(default, skip_serializing_if = "is_nobody")]
    pub(super) writer: u64,
    /// What the entry records.
    pub(super) record: Record,
}

/// The writer number of a minted generation that nobody has opened yet, and of entries from before
/// writers had numbers.
pub(super) const NOBODY: u64 = 0;

/// Whether an entry has no writer, as one that minted a generation.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_nobody(writer: &u64) -> bool {
    *writer == NOBODY
}

/// The content of an entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Record {
    /// A new generation took over. All earlier writers are fenced.
    Opened(Opened),
    /// The offsets of one epoch.
    Bound(Binding),
    /// A checkpoint is complete: everything that its manifest names is durable.
    Checkpoint(Checkpointed),
    /// A base: stands for all entries before it, which may be deleted.
    Truncated {
        bindings: Vec<Binding>,
        checkpoints: Vec<Checkpointed>,
    },
}

/// The process that took over, for error messages. The random number makes any two such entries
/// differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Opened {
    /// The time, in ms since 1970.
    pub(super) at_ms: u64,
    /// The host's name.
    pub(super) host: String,
    /// The process id.
    pub(super) process: u32,
    /// A random number.
    pub(super) random: u64,
}

/// An object in the format without a version.
#[derive(Serialize, Deserialize)]
struct Unversioned {
    /// Whether the object stands for all objects with lower numbers.
    #[serde(default)]
    collapsed: bool,
    /// The offsets of one epoch.
    binding: Binding,
}

impl Record {
    /// The base that stands for all entries read so far.
    pub(super) fn standing_for(standing: Standing) -> Self {
        Self::Truncated {
            bindings: standing.bindings,
            checkpoints: standing.checkpoints,
        }
    }

    /// The record of an earlier format, whose bindings hold facts about topics as offsets.
    fn with_facts(self) -> Self {
        let split = |mut binding: Binding| {
            binding.facts = topic_facts::split(&mut binding.ends);
            binding
        };
        match self {
            Self::Bound(binding) => Self::Bound(split(binding)),
            Self::Truncated {
                bindings,
                checkpoints,
            } => Self::Truncated {
                bindings: bindings.into_iter().map(split).collect(),
                checkpoints,
            },
            other @ (Self::Opened(_) | Self::Checkpoint(_)) => other,
        }
    }
}

impl Entry {
    /// The object's bytes.
    ///
    /// # Errors
    /// `Bug` when the entry cannot be written as JSON.
    pub(super) fn encode(&self) -> Result<Vec<u8>> {
        let json = serde_json::to_vec(self).map_err(|error| {
            Error::with_source(Kind::Bug, "a journal's entry makes no JSON", error)
        })?;
        let mut bytes = format!("{WORDS}{VERSION} {:016x}\n", xxh3_64(&json)).into_bytes();
        bytes.extend(json);
        Ok(bytes)
    }

    /// Decodes an object's bytes; `name` is for messages.
    ///
    /// # Errors
    /// `Data` when the bytes are damaged, or of a format version that this program does not read.
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
        if !(VERSION_MIN..=VERSION).contains(&version) {
            let what = format!(
                "journal object `{name}` has format {version}, which a newer Tidemill wrote; this \
                 one reads formats up to {VERSION}: run that version or a later one"
            );
            return Err(Error::new(Kind::Data, what));
        }
        if checksum != format!("{:016x}", xxh3_64(json)) {
            return Err(damaged(name, "its checksum does not match"));
        }
        let entry: Self = serde_json::from_slice(json).map_err(|error| damaged(name, error))?;
        Ok(match version {
            1 => Self {
                record: entry.record.with_facts(),
                ..entry
            },
            _ => entry,
        })
    }

    /// Decodes an object in the format without a version.
    fn decode_unversioned(name: &str, bytes: &[u8]) -> Result<Self> {
        let old: Unversioned =
            serde_json::from_slice(bytes).map_err(|error| damaged(name, error))?;
        let record = match old.collapsed {
            true => Record::Truncated {
                bindings: vec![old.binding],
                checkpoints: Vec::new(),
            },
            false => Record::Bound(old.binding),
        };
        Ok(Self {
            generation: 0,
            writer: NOBODY,
            record: record.with_facts(),
        })
    }

    /// Whether the entry stands for all entries before it.
    pub(super) fn is_base(&self) -> bool {
        matches!(self.record, Record::Truncated { .. })
    }
}

/// The `Data` error of an object that is not what was written.
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
    fn facts_are_apart_from_offsets_in_this_format_and_among_them_in_the_one_before() {
        // In the embedded log a topic may have such a name.
        let mut with_such_a_topic = entry();
        let Record::Bound(binding) = &mut with_such_a_topic.record else {
            panic!("a binding");
        };
        binding.ends.insert("a@begins".to_owned(), [(0, 3)].into());
        let bytes = with_such_a_topic.encode().unwrap();
        assert_eq!(Entry::decode("x", &bytes).unwrap(), with_such_a_topic);
        let before = String::from_utf8(bytes).unwrap();
        let before = before.replacen("journal 2 ", "journal 1 ", 1);
        let Record::Bound(read) = Entry::decode("x", before.as_bytes()).unwrap().record else {
            panic!("a binding");
        };
        assert_eq!(read.ends, [("a".to_owned(), [(0, 5)].into())].into());
        assert_eq!(read.facts["a"].begins, [(0, 3)].into());
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
        let later = later.replacen("journal 2 ", "journal 3 ", 1);
        let error = Entry::decode("x", later.as_bytes())
            .unwrap_err()
            .to_string();
        for said in [
            "has format 3",
            "reads formats up to 2",
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
