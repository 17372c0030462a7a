//! What the topics and the sink's tables must still hold for a job to go on where it stopped.
//!
//! In flow the journal's epochs, the offsets that the topics hold now and the tables' frontiers.
//! Out flows an error that names what is wrong, or where new partitions begin, which the first
//! epoch then binds.
//!
//! Invariant: a job goes on only when all records that it ever read are still there and in place,
//! since its state is made anew from them. That a topic was made anew *and* has grown past what was
//! read of the old one cannot be told from offsets.

use std::collections::BTreeMap;

use crate::journal::{Binding, Offsets};
use crate::sink::Table;
use crate::time::Held;
use crate::{Epoch, Error, Kind, Result};

/// Under which name the journal keeps where a topic's partitions began when they were first read.
/// No topic is called so: Kafka does not allow this letter.
fn begins_of(topic: &str) -> String {
    format!("{topic}@begins")
}

/// Checks what topics hold against what earlier runs read of them. Where partitions begin that no
/// earlier run has read.
pub(crate) fn check(
    bindings: &[Binding],
    partitions: &BTreeMap<String, Vec<Held>>,
) -> Result<Offsets> {
    let mut bound = Offsets::new();
    for binding in bindings {
        for (topic, moved) in &binding.ends {
            bound.entry(topic.clone()).or_default().extend(moved);
        }
    }
    let mut new = Offsets::new();
    for (topic, held) in partitions {
        let begins = bound.remove(&begins_of(topic)).unwrap_or_default();
        for (partition, end) in bound.remove(topic).unwrap_or_default() {
            let known = held.iter().find(|held| held.partition == partition);
            if known.is_none_or(|known| known.high < end) {
                let what = format!("ends at offset {}", known.map_or(0, |known| known.high));
                return Err(changed(topic, partition, &what, end));
            }
        }
        for held in held {
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

fn changed(topic: &str, partition: u32, is: &str, was: i64) -> Error {
    let what = format!(
        "topic `{topic}` partition {partition} {is}, but it was {was} when this job read it: the \
         topic was made anew, or lost records to its retention; the views cannot go on from it. To \
         fill them from what the topic holds now, remove the job's journal, the views' tables and \
         their rows in `tidemill_frontiers`"
    );
    Error::new(Kind::Data, what)
}

/// Refuses tables that are filled further than the journal knows: without its epochs nobody can
/// tell what is in them.
pub(crate) fn check_filled(
    bindings: &[Binding],
    tables: &[Table],
    served: &[Option<Epoch>],
) -> Result<()> {
    let last = bindings.last().map_or(0, |binding| binding.epoch);
    for (table, through) in tables.iter().zip(served) {
        if let Some(through) = through.filter(|through| *through > last) {
            let what = format!(
                "table `{0}` is filled through epoch {through}, but the journal ends at {last}: it \
                 is not the journal that this table was filled with. Give that one, or remove \
                 table `{0}` and its row in `tidemill_frontiers`",
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
        let begins = check(&[], &held(5, 9)).unwrap();
        let mut ends = begins.clone();
        ends.insert("t".to_owned(), BTreeMap::from([(0, 9)]));
        let bound = [Binding { epoch: 1, ends }];
        assert_eq!(check(&bound, &held(5, 12)).unwrap(), Offsets::new());
        for (now, said) in [
            (held(6, 12), "begins at offset 6, but it was 5"),
            (held(0, 12), "begins at offset 0, but it was 5"),
            (held(5, 8), "ends at offset 8, but it was 9"),
        ] {
            let error = check(&bound, &now).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}
