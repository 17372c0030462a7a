//! The resume check: whether topics and tables still hold what a job needs to resume.
//!
//! Input: the journal's epochs, the offsets that the topics hold now, and the tables' frontiers.
//! Output: the start offsets of new partitions, which the first epoch binds, or an error that names
//! what is wrong.
//!
//! Invariant: a job resumes only if every record that it ever read, and that is not in the
//! checkpoint, is still at its offset, because the job's state is built from these records again. A
//! topic that was deleted and created again is recognised by its topic id (KIP-516), if the brokers
//! give topics ids.
//!
//! The journal keeps these facts as entries of [`Offsets`] under names that no topic can have:
//!
//! | name            | key           | value                                        |
//! |-----------------|---------------|----------------------------------------------|
//! | `TOPIC@begins`  | partition     | the start offset when it was first read      |
//! | `TOPIC@id`      | 0 and 1       | the two halves of the topic's id             |
//! | `TOPIC@schemas` | schema id     | the fingerprint of the schema                |

use std::collections::BTreeMap;

use tidemill_ir::Epoch;
use tidemill_log::log::TopicId;
use tidemill_log::{Error, Kind, Result};
use tidemill_sinks::Table;
use tidemill_state::checkpoint::Manifest;
use tidemill_state::journal::{Binding, Offsets};

use super::messages::{Held, Start};

/// The name of the journal's entry for the start offsets of a topic's partitions, as they were
/// first read. Kafka does not allow `@` in a topic's name, so no topic has this name.
fn begins_of(topic: &str) -> String {
    format!("{topic}@begins")
}

/// The name of the journal's entry for a topic's id, stored as two halves.
fn id_of(topic: &str) -> String {
    format!("{topic}@id")
}

/// The name of the journal's entry for the schemas of a topic's records: the schema's fingerprint
/// by schema id. A record carries only the id, which a recreated registry may give to another
/// schema.
fn schemas_of(topic: &str) -> String {
    format!("{topic}@schemas")
}

/// The schemas of a topic's records, in the form of the journal's entries.
pub(crate) fn noted(topic: &str, schemas: BTreeMap<u32, i64>) -> Offsets {
    Offsets::from([(schemas_of(topic), schemas)])
}

/// The schemas that earlier runs read a topic's records with: a fingerprint by schema id.
pub(crate) fn schemas(start: &Start, topic: &str) -> BTreeMap<u32, i64> {
    let name = schemas_of(topic);
    let kept = start.checkpoint.iter().map(|kept| &kept.ends);
    let all = kept.chain(start.bindings.iter().map(|binding| &binding.ends));
    let of = all.filter_map(|ends| ends.get(&name)).flatten();
    of.map(|(id, schema)| (*id, *schema)).collect()
}

/// The schemas of a topic's records that `ends` holds in the form of the journal's entries.
pub(crate) fn schemas_in<'a>(
    ends: &'a Offsets,
    topic: &str,
) -> impl Iterator<Item = (&'a u32, &'a i64)> {
    ends.get(&schemas_of(topic)).into_iter().flatten()
}

/// Whether an id stands for another schema in `new` than in `known`.
pub(crate) fn differ(known: &Offsets, new: &Offsets) -> bool {
    let mut all = new
        .iter()
        .flat_map(|(name, of)| of.iter().map(move |it| (name, it)));
    all.any(|(name, (id, new))| {
        let known = known.get(name).and_then(|known| known.get(id));
        known.is_some_and(|known| known != new)
    })
}

/// The start offsets of partitions, in the form of the journal's entries.
pub(crate) fn begins(topic: &str, partitions: &[Held]) -> Offsets {
    let begins = partitions.iter().map(|held| (held.partition, held.low));
    Offsets::from([(begins_of(topic), begins.collect())])
}

/// The message by which all workers start: the state of `checkpoint` and the bindings after it.
/// `served` holds the frontier of each sink table.
///
/// # Errors
/// `Data` when a topic was recreated, ends before an offset that was bound, or lost records that
/// are not in the checkpoint.
pub(crate) fn start(
    checkpoint: Option<Manifest>,
    mut bindings: Vec<Binding>,
    partitions: BTreeMap<String, Vec<Held>>,
    ids: &BTreeMap<String, TopicId>,
    served: Vec<Option<Epoch>>,
) -> Result<Start> {
    let replayed = bindings.last().map(|binding| binding.epoch);
    if let Some(checkpoint) = &checkpoint {
        bindings.retain(|binding| binding.epoch > checkpoint.epoch);
    }
    let begins = check(checkpoint.as_ref(), &bindings, &partitions, ids)?;
    Ok(Start {
        partitions,
        checkpoint,
        bindings,
        replayed,
        begins,
        served,
    })
}

/// Compares what the topics hold with what earlier runs read and with what the checkpoint contains.
/// Returns the ids of topics and the start offsets of partitions that no earlier run has read.
///
/// # Errors
/// `Data`, see [`start`].
fn check(
    checkpoint: Option<&Manifest>,
    bindings: &[Binding],
    partitions: &BTreeMap<String, Vec<Held>>,
    ids: &BTreeMap<String, TopicId>,
) -> Result<Offsets> {
    let kept = checkpoint.map(|checkpoint| &checkpoint.ends);
    let mut bound = kept.cloned().unwrap_or_default();
    for binding in bindings {
        for (topic, moved) in &binding.ends {
            bound.entry(topic.clone()).or_default().extend(moved);
        }
    }
    let mut new = Offsets::new();
    for (topic, held) in partitions {
        if let Some(TopicId(id)) = ids.get(topic).filter(|id| id.is_known()) {
            let id = BTreeMap::from([(0, id[0]), (1, id[1])]);
            match bound.remove(&id_of(topic)) {
                Some(known) if known != id => return Err(made_anew(topic)),
                Some(_) => {}
                None => drop(new.insert(id_of(topic), id)),
            }
        }
        let begins = bound.remove(&begins_of(topic)).unwrap_or_default();
        for (partition, end) in bound.remove(topic).unwrap_or_default() {
            let known = held.iter().find(|held| held.partition == partition);
            if known.is_none_or(|known| known.high < end) {
                let what = format!("ends at offset {}", known.map_or(0, |known| known.high));
                return Err(changed(topic, partition, &what, end));
            }
        }
        for held in held {
            // The topic need not hold records that are in the checkpoint.
            let kept = kept.and_then(|kept| kept.get(topic)?.get(&held.partition));
            if let Some(next) = kept {
                if held.low > *next {
                    let what = format!("begins at offset {}", held.low);
                    return Err(changed(topic, held.partition, &what, *next));
                }
                continue;
            }
            match begins.get(&held.partition) {
                Some(first) if *first != held.low => {
                    let what = format!("begins at offset {}", held.low);
                    return Err(changed(topic, held.partition, &what, *first));
                }
                Some(_) => {}
                None => {
                    let begins = new.entry(begins_of(topic)).or_default();
                    begins.insert(held.partition, held.low);
                }
            }
        }
    }
    Ok(new)
}

/// Checks that a topic still holds all records that the checkpoint's epochs read, for a view that
/// is not in the checkpoint and therefore needs the topic from its first record on.
///
/// # Errors
/// `Data` when a partition begins after the offset at which this job first read the partition.
pub(crate) fn check_whole(
    checkpoint: &Manifest,
    topic: &str,
    partitions: &BTreeMap<String, Vec<Held>>,
) -> Result<()> {
    let begins = checkpoint.ends.get(&begins_of(topic));
    for held in partitions.get(topic).into_iter().flatten() {
        let first = begins.and_then(|begins| begins.get(&held.partition));
        if let Some(first) = first.filter(|first| **first != held.low) {
            let what = format!(
                "a view that the checkpoint does not hold needs all of topic `{topic}`, but \
                 partition {} begins at offset {}, and it was {first} when this job first read \
                 it: its retention has removed records, so the view cannot be filled, or \
                 verified, from it",
                held.partition, held.low
            );
            return Err(Error::new(Kind::Data, what));
        }
    }
    Ok(())
}

/// What users can do about a topic that is not what it was.
const ADVICE: &str = "the views cannot go on from it. To fill them from what the topic holds now, \
                      run `tidemill reset PIPELINE`";

/// The error of a topic that was deleted and created again since this job read it.
pub(crate) fn made_anew(topic: &str) -> Error {
    let what =
        format!("topic `{topic}` was deleted and made anew since this job read it: {ADVICE}");
    Error::new(Kind::Data, what)
}

/// The error of a topic one of whose schema ids came to stand for another schema while a job runs,
/// or whose keys two workers found in two encodings.
pub(crate) fn registry_made_anew(topic: &str) -> Error {
    let what = format!(
        "topic `{topic}`: an id of a schema stands for two, since the registry was made anew while \
         this job read it, or its keys are written in two ways; {ADVICE}"
    );
    Error::new(Kind::Data, what)
}

/// The error of a partition that no longer begins or ends where it did.
fn changed(topic: &str, partition: u32, is: &str, was: i64) -> Error {
    let what = format!(
        "topic `{topic}` partition {partition} {is}, but it was {was} when this job read it: the \
         topic was made anew, or lost records to its retention; {ADVICE}"
    );
    Error::new(Kind::Data, what)
}

/// Refuses a table whose frontier is beyond the journal's last epoch. The journal is then not the
/// one that the table was filled with, so nobody can know what the table contains.
///
/// # Errors
/// `Data`, naming the table and both epochs.
pub(crate) fn check_filled(
    last: Option<Epoch>,
    tables: &[Table],
    served: &[Option<Epoch>],
) -> Result<()> {
    let last = last.unwrap_or(0);
    for (table, through) in tables.iter().zip(served) {
        if let Some(through) = through.filter(|through| *through > last) {
            let what = format!(
                "table `{0}` is filled through epoch {through}, but the journal ends at {last}: it \
                 is not the journal that this table was filled with. Give that one with --state, \
                 or have the table filled anew: `tidemill reset PIPELINE {0}`",
                table.name
            );
            return Err(Error::new(Kind::Data, what));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(low: i64, high: i64) -> BTreeMap<String, Vec<Held>> {
        let held = Held {
            partition: 0,
            low,
            high,
        };
        BTreeMap::from([("t".to_owned(), vec![held])])
    }

    #[test]
    fn a_topic_that_changed_is_refused() {
        let ids = |high| BTreeMap::from([("t".to_owned(), TopicId([high, 4]))]);
        let begins = check(None, &[], &held(5, 9), &ids(-3)).unwrap();
        let mut ends = begins.clone();
        ends.insert("t".to_owned(), BTreeMap::from([(0, 9)]));
        let bound = [Binding {
            epoch: 1,
            ends,
            ..Binding::default()
        }];
        let same = check(None, &bound, &held(5, 12), &ids(-3)).unwrap();
        assert_eq!(same, Offsets::new());
        let grown_past = check(None, &bound, &held(5, 99), &ids(1)).unwrap_err();
        assert!(grown_past.to_string().contains("made anew"));
        let unknown = check(None, &bound, &held(5, 12), &BTreeMap::new()).unwrap();
        assert_eq!(unknown, Offsets::new());
        for (now, said) in [
            (held(6, 12), "begins at offset 6, but it was 5"),
            (held(0, 12), "begins at offset 0, but it was 5"),
            (held(5, 8), "ends at offset 8, but it was 9"),
        ] {
            let error = check(None, &bound, &now, &ids(-3)).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}
