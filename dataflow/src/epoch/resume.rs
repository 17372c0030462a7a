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

use std::collections::BTreeMap;

use tidemill_ir::Epoch;
use tidemill_log::log::TopicId;
use tidemill_log::{Error, Kind, Result};
use tidemill_sinks::Table;
use tidemill_state::checkpoint::Manifest;
use tidemill_state::journal::{Binding, Facts, TopicFacts, topic_facts};

use super::messages::{Held, Start};

/// The schemas that earlier runs read a topic's records with: a fingerprint by schema id.
pub(crate) fn schemas(start: &Start, topic: &str) -> BTreeMap<u32, i64> {
    let kept = start.checkpoint.iter().map(|kept| &kept.facts);
    let all = kept.chain(start.bindings.iter().map(|binding| &binding.facts));
    let of = all
        .filter_map(|facts| Some(&facts.get(topic)?.schemas))
        .flatten();
    of.map(|(id, schema)| (*id, *schema)).collect()
}

/// The start offsets of partitions, as a fact about their topic.
pub(crate) fn begins(partitions: &[Held]) -> TopicFacts {
    let begins = partitions.iter().map(|held| (held.partition, held.low));
    TopicFacts {
        begins: begins.collect(),
        ..TopicFacts::default()
    }
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
    let facts = check(checkpoint.as_ref(), &bindings, &partitions, ids)?;
    Ok(Start {
        partitions,
        checkpoint,
        bindings,
        replayed,
        facts,
        served,
        generation: 0,
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
) -> Result<Facts> {
    let mut bound = checkpoint.map(Manifest::at).unwrap_or_default();
    for binding in bindings {
        for (topic, moved) in &binding.ends {
            bound.ends.entry(topic.clone()).or_default().extend(moved);
        }
        topic_facts::learn(&mut bound.facts, &binding.facts);
    }
    let nothing = TopicFacts::default();
    let mut new = Facts::new();
    for (topic, held) in partitions {
        let known = bound.facts.get(topic).unwrap_or(&nothing);
        let id = ids.get(topic).filter(|id| id.is_known()).map(|id| id.0);
        if known.id.is_some() && id.is_some() && known.id != id {
            return Err(made_anew(topic));
        }
        for (partition, end) in bound.ends.get(topic).into_iter().flatten() {
            let found = held.iter().find(|held| held.partition == *partition);
            if found.is_none_or(|found| found.high < *end) {
                let what = format!("ends at offset {}", found.map_or(0, |found| found.high));
                return Err(changed(topic, *partition, &what, *end));
            }
        }
        let kept = checkpoint.and_then(|checkpoint| checkpoint.ends.get(topic));
        let begins = first_read(topic, held, kept, known)?;
        let learned = TopicFacts {
            id: id.filter(|_| known.id.is_none()),
            begins,
            ..TopicFacts::default()
        };
        if learned != nothing {
            new.insert(topic.clone(), learned);
        }
    }
    Ok(new)
}

/// The start offsets of a topic's partitions that no earlier run has read. `kept` are the offsets
/// through which the checkpoint holds the topic's records.
///
/// # Errors
/// `Data` when records are gone that the checkpoint does not hold.
fn first_read(
    topic: &str,
    held: &[Held],
    kept: Option<&BTreeMap<u32, i64>>,
    known: &TopicFacts,
) -> Result<BTreeMap<u32, i64>> {
    let mut begins = BTreeMap::new();
    for held in held {
        let begun = || format!("begins at offset {}", held.low);
        // The topic need not hold records that are in the checkpoint.
        if let Some(next) = kept.and_then(|kept| kept.get(&held.partition)) {
            if held.low > *next {
                return Err(changed(topic, held.partition, &begun(), *next));
            }
            continue;
        }
        match known.begins.get(&held.partition) {
            Some(first) if *first != held.low => {
                return Err(changed(topic, held.partition, &begun(), *first));
            }
            Some(_) => {}
            None => drop(begins.insert(held.partition, held.low)),
        }
    }
    Ok(begins)
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
    let begins = checkpoint.facts.get(topic).map(|facts| &facts.begins);
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
        let facts = check(None, &[], &held(5, 9), &ids(-3)).unwrap();
        let bound = [Binding {
            epoch: 1,
            ends: BTreeMap::from([("t".to_owned(), BTreeMap::from([(0, 9)]))]),
            facts,
            ..Binding::default()
        }];
        let same = check(None, &bound, &held(5, 12), &ids(-3)).unwrap();
        assert_eq!(same, Facts::new());
        let grown_past = check(None, &bound, &held(5, 99), &ids(1)).unwrap_err();
        assert!(grown_past.to_string().contains("made anew"));
        let unknown = check(None, &bound, &held(5, 12), &BTreeMap::new()).unwrap();
        assert_eq!(unknown, Facts::new());
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
