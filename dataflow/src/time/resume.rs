//! What the topics and the sink's tables must still hold for a job to go on where it stopped.
//!
//! In flow the journal's epochs, the offsets that the topics hold now and the tables' frontiers.
//! Out flows an error that names what is wrong, or where new partitions begin, which the first
//! epoch then binds.
//!
//! Invariant: a job goes on only when all records that it ever read are still there and in place,
//! since its state is made anew from them. A topic that was made anew is told by its id, where the
//! brokers give topics one.

use std::collections::BTreeMap;

use tidemill_log::log::TopicId;

use super::messages::{Held, Start};
use crate::checkpoint::Manifest;
use crate::journal::{Binding, Offsets};
use crate::sink::Table;

use crate::{Epoch, Error, Kind, Result};

/// Under which name the journal keeps where a topic's partitions began when they were first read.
/// No topic is called so: Kafka does not allow this letter.
fn begins_of(topic: &str) -> String {
    format!("{topic}@begins")
}

/// Under which name the journal keeps which topic it is, as two halves of its id.
fn id_of(topic: &str) -> String {
    format!("{topic}@id")
}

/// Under which name the journal keeps which schema each id stood for that records were read with: a
/// fingerprint by the id. The records' ids say nothing else of what they were written with.
fn schemas_of(topic: &str) -> String {
    format!("{topic}@schemas")
}

/// The schemas of a topic's records, in the journal's form.
pub(crate) fn noted(topic: &str, schemas: BTreeMap<u32, i64>) -> Offsets {
    Offsets::from([(schemas_of(topic), schemas)])
}

/// The schemas that earlier runs read a topic's records with.
pub(crate) fn schemas(start: &Start, topic: &str) -> BTreeMap<u32, i64> {
    let name = schemas_of(topic);
    let kept = start.checkpoint.iter().map(|kept| &kept.ends);
    let all = kept.chain(start.bindings.iter().map(|binding| &binding.ends));
    let of = all.filter_map(|ends| ends.get(&name)).flatten();
    of.map(|(id, schema)| (*id, *schema)).collect()
}

/// The schemas of a topic's records, of the journal's form.
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

/// Where partitions begin, in the journal's form.
pub(crate) fn begins(topic: &str, partitions: &[Held]) -> Offsets {
    let begins = partitions.iter().map(|held| (held.partition, held.low));
    Offsets::from([(begins_of(topic), begins.collect())])
}

/// What the workers are told: the state of `checkpoint` and the epochs after it. `served` says
/// through which epoch each table is complete.
///
/// # Errors
/// See [`check`].
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

/// Checks what topics hold against what earlier runs read of them, and of that what is in a
/// checkpoint. Which topics they are, and where partitions begin, of those that no earlier run has
/// read.
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
            // What is in the checkpoint the topic need not hold any more.
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

/// Checks that a topic still holds all that a checkpoint's epochs read of it, for a view that the
/// checkpoint does not know.
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

/// What to do about a topic that is not what it was.
const ADVICE: &str = "the views cannot go on from it. To fill them from what the topic holds now, \
                      run `tidemill reset PIPELINE`";

/// The error of a topic that is another one than this job has read.
pub(crate) fn made_anew(topic: &str) -> Error {
    let what =
        format!("topic `{topic}` was deleted and made anew since this job read it: {ADVICE}");
    Error::new(Kind::Data, what)
}

/// The error of a topic an id of whose schemas came to stand for another one while a job ran, or
/// whose keys two workers found written in two ways.
pub(crate) fn registry_made_anew(topic: &str) -> Error {
    let what = format!(
        "topic `{topic}`: an id of a schema stands for two, since the registry was made anew while \
         this job read it, or its keys are written in two ways; {ADVICE}"
    );
    Error::new(Kind::Data, what)
}

fn changed(topic: &str, partition: u32, is: &str, was: i64) -> Error {
    let what = format!(
        "topic `{topic}` partition {partition} {is}, but it was {was} when this job read it: the \
         topic was made anew, or lost records to its retention; {ADVICE}"
    );
    Error::new(Kind::Data, what)
}

/// Refuses tables that are filled further than the journal knows: without its epochs nobody can
/// tell what is in them.
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
