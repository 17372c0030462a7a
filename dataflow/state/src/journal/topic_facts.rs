//! What a job has learned of its topics: facts that it compares with the topics at each start.
//!
//! A binding holds the facts that are new in its epoch, and the manifest of a checkpoint those of
//! all epochs before it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Offsets;

/// What was learned of each topic.
pub type Facts = BTreeMap<String, TopicFacts>;

/// What was learned of one topic. A later fact replaces an earlier one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TopicFacts {
    /// The topic's id (KIP-516), in two halves; `None` if the brokers give topics no ids.
    pub id: Option<[i64; 2]>,
    /// The offset at which each partition began when it was first read.
    pub begins: BTreeMap<u32, i64>,
    /// The fingerprint of each schema of the topic's records, by schema id. A record carries only
    /// the id, which a recreated registry may give to another schema.
    pub schemas: BTreeMap<u32, i64>,
    /// A hash of the type with which each column was read, by a hash of the column's name.
    pub columns: BTreeMap<u32, i64>,
}

impl TopicFacts {
    /// Adds what was learned later.
    pub fn learn(&mut self, later: &Self) {
        self.id = later.id.or(self.id);
        self.begins.extend(&later.begins);
        self.schemas.extend(&later.schemas);
        self.columns.extend(&later.columns);
    }

    /// The facts that `known` does not hold.
    fn beyond(&self, known: &Self) -> Self {
        let new = |all: &BTreeMap<u32, i64>, known: &BTreeMap<u32, i64>| {
            let new = all.iter().filter(|(key, is)| known.get(key) != Some(is));
            new.map(|(key, is)| (*key, *is)).collect()
        };
        Self {
            id: self.id.filter(|_| self.id != known.id),
            begins: new(&self.begins, &known.begins),
            schemas: new(&self.schemas, &known.schemas),
            columns: new(&self.columns, &known.columns),
        }
    }
}

/// Adds what was learned later.
pub fn learn(facts: &mut Facts, later: &Facts) {
    for (topic, later) in later {
        facts.entry(topic.clone()).or_default().learn(later);
    }
}

/// The facts that `known` does not hold.
pub fn beyond(facts: &Facts, known: &Facts) -> Facts {
    let nothing = TopicFacts::default();
    let new = facts.iter().map(|(topic, facts)| {
        let known = known.get(topic).unwrap_or(&nothing);
        (topic.clone(), facts.beyond(known))
    });
    new.filter(|(_, new)| *new != nothing).collect()
}

/// Takes the facts out of the offsets of earlier formats. They kept facts as offsets of topics with
/// names that no topic can have:
///
/// | name            | key                  | value                                        |
/// |-----------------|----------------------|----------------------------------------------|
/// | `TOPIC@begins`  | partition            | the start offset when it was first read      |
/// | `TOPIC@id`      | 0 and 1              | the two halves of the topic's id             |
/// | `TOPIC@schemas` | schema id            | the fingerprint of the schema                |
/// | `TOPIC@columns` | hash of the name     | a hash of the column's type                  |
pub(crate) fn split(ends: &mut Offsets) -> Facts {
    let mut facts = Facts::new();
    ends.retain(|name, of| {
        let Some((topic, what)) = name.rsplit_once('@') else {
            return true;
        };
        let mut learned = TopicFacts::default();
        let of = std::mem::take(of);
        match what {
            "begins" => learned.begins = of,
            "schemas" => learned.schemas = of,
            "columns" => learned.columns = of,
            "id" => learned.id = of.get(&0).zip(of.get(&1)).map(|(high, low)| [*high, *low]),
            _ => return true,
        }
        facts.entry(topic.to_owned()).or_default().learn(&learned);
        false
    });
    facts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_of_earlier_formats_are_taken_out_of_the_offsets() {
        let of = |name: &str, of: &[(u32, i64)]| (name.to_owned(), of.iter().copied().collect());
        let mut ends = Offsets::from([
            of("t", &[(0, 9)]),
            of("t@begins", &[(0, 5)]),
            of("t@id", &[(0, -3), (1, 4)]),
            of("t@schemas", &[(7, 70)]),
            of("t@columns", &[(8, 80)]),
        ]);
        let facts = split(&mut ends);
        assert_eq!(ends, Offsets::from([of("t", &[(0, 9)])]));
        let expected = TopicFacts {
            id: Some([-3, 4]),
            begins: BTreeMap::from([(0, 5)]),
            schemas: BTreeMap::from([(7, 70)]),
            columns: BTreeMap::from([(8, 80)]),
        };
        assert_eq!(facts, Facts::from([("t".to_owned(), expected)]));
    }

    #[test]
    fn a_later_fact_replaces_an_earlier_one_whatever_its_number_is() {
        let read = |kind: i64| {
            let columns = BTreeMap::from([(1, kind)]);
            let facts = TopicFacts {
                columns,
                ..TopicFacts::default()
            };
            Facts::from([("t".to_owned(), facts)])
        };
        for (before, after) in [(10, 20), (20, 10)] {
            let mut facts = read(before);
            assert_eq!(beyond(&read(after), &facts), read(after));
            learn(&mut facts, &read(after));
            assert_eq!(facts, read(after));
            assert_eq!(beyond(&facts, &read(after)), Facts::new());
        }
    }
}
