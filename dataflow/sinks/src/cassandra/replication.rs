//! Replication and consistency of a Cassandra keyspace.
//!
//! Input: the settings `replication` and `consistency` of the sink's URL. Output: the replication
//! of a new keyspace, whether an existing keyspace has it, and the consistency level of all
//! statements.

use std::collections::{BTreeMap, HashMap};

use scylla::statement::Consistency;

/// The levels that can be set. At the first four, a later read at the same level sees a write. At
/// the last four, losing a node may lose acknowledged rows.
const LEVELS: [(&str, Consistency); 8] = [
    ("LOCAL_QUORUM", Consistency::LocalQuorum),
    ("QUORUM", Consistency::Quorum),
    ("EACH_QUORUM", Consistency::EachQuorum),
    ("ALL", Consistency::All),
    ("LOCAL_ONE", Consistency::LocalOne),
    ("ONE", Consistency::One),
    ("TWO", Consistency::Two),
    ("THREE", Consistency::Three),
];

/// Parses a consistency level by its name in CQL.
pub(super) fn consistency(name: &str) -> Result<Consistency, String> {
    let wanted = name.to_ascii_uppercase();
    let found = LEVELS.iter().find(|(known, _)| *known == wanted);
    found.map(|(_, level)| *level).ok_or_else(|| {
        let all: Vec<&str> = LEVELS.iter().map(|(name, _)| *name).collect();
        format!("`consistency` is `{name}`, expected {}", all.join(", "))
    })
}

/// Whether a write at this level may be on fewer nodes than a later quorum read asks.
pub(super) fn is_weak(level: Consistency) -> bool {
    use Consistency::{LocalOne, One, Three, Two};
    matches!(level, LocalOne | One | Two | Three)
}

/// The level of frontier writes and of all reads. A job must never read an older frontier than it
/// wrote, so a weak level becomes `LOCAL_QUORUM` here.
pub(super) fn of_quorum(level: Consistency) -> Consistency {
    match is_weak(level) {
        true => Consistency::LocalQuorum,
        false => level,
    }
}

/// The replication of a keyspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Replication {
    /// The number of replicas, independent of data centers (`SimpleStrategy`).
    Simple(u8),
    /// The number of replicas in each data center (`NetworkTopologyStrategy`).
    Networks(BTreeMap<String, u8>),
}

impl Replication {
    /// Parses `3`, or `dc1:3,dc2:2`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`replication` is `{text}`, expected a number of replicas (`3`) or one for each \
                 data center (`dc1:3,dc2:2`)"
            )
        };
        let count = |text: &str| {
            let count = text.trim().parse::<u8>().ok();
            count.filter(|count| *count > 0).ok_or_else(wrong)
        };
        if !text.contains(':') {
            return Ok(Self::Simple(count(text)?));
        }
        let mut all = BTreeMap::new();
        for part in text.split(',') {
            let (name, replicas) = part.split_once(':').ok_or_else(wrong)?;
            let name = name.trim();
            let fits = |sign: char| sign.is_alphanumeric() || "-_. ".contains(sign);
            if name.is_empty() || name == "class" || !name.chars().all(fits) {
                return Err(wrong());
            }
            if all.insert(name.to_owned(), count(replicas)?).is_some() {
                return Err(format!("`replication` names data center `{name}` twice"));
            }
        }
        Ok(Self::Networks(all))
    }

    /// The replication as a map literal of CQL.
    pub(super) fn cql(&self) -> String {
        match self {
            Self::Simple(count) => {
                format!("{{'class': 'SimpleStrategy', 'replication_factor': {count}}}")
            }
            Self::Networks(all) => {
                let all = all
                    .iter()
                    .map(|(name, count)| format!(", '{name}': {count}"));
                let all: String = all.collect();
                format!("{{'class': 'NetworkTopologyStrategy'{all}}}")
            }
        }
    }

    /// The replication in a row of `system_schema.keyspaces`; `None` for other strategies and for
    /// transient replicas.
    pub(super) fn found(map: &HashMap<String, String>) -> Option<Self> {
        let class = map.get("class")?.rsplit('.').next()?;
        let counts = map.iter().filter(|(name, _)| *name != "class");
        match class {
            "SimpleStrategy" => Some(Self::Simple(map.get("replication_factor")?.parse().ok()?)),
            "NetworkTopologyStrategy" => {
                let all = counts.map(|(name, count)| Some((name.clone(), count.parse().ok()?)));
                all.collect::<Option<_>>().map(Self::Networks)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_are_a_number_or_a_number_for_each_data_center() {
        let simple = Replication::parse("3").unwrap();
        assert_eq!(
            simple.cql(),
            "{'class': 'SimpleStrategy', 'replication_factor': 3}"
        );
        let networks = Replication::parse("west:2, east:3").unwrap();
        assert_eq!(
            networks.cql(),
            "{'class': 'NetworkTopologyStrategy', 'east': 3, 'west': 2}"
        );
        for wrong in [
            "", "0", "x", "-1", "300", "a:3,b", "a:0", ":3", "a':3", "class:3",
        ] {
            let said = Replication::parse(wrong).unwrap_err();
            assert!(said.contains("dc1:3,dc2:2"), "{wrong}: {said}");
        }
        let said = Replication::parse("a:1,a:2").unwrap_err();
        assert!(said.contains("`a` twice"), "{said}");
    }

    #[test]
    fn what_a_keyspace_has_is_compared_by_its_meaning() {
        let map = |pairs: &[(&str, &str)]| {
            let pairs = pairs.iter();
            let pairs = pairs.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            Replication::found(&pairs.collect())
        };
        let class = ("class", "org.apache.cassandra.locator.SimpleStrategy");
        assert_eq!(
            map(&[class, ("replication_factor", "3")]),
            Some(Replication::Simple(3))
        );
        let class = (
            "class",
            "org.apache.cassandra.locator.NetworkTopologyStrategy",
        );
        assert_eq!(
            map(&[class, ("dc1", "3")]),
            Some(Replication::parse("dc1:3").unwrap())
        );
        assert_eq!(map(&[class, ("dc1", "3/1")]), None);
        assert_eq!(map(&[("class", "LocalStrategy")]), None);
    }

    #[test]
    fn levels_go_by_their_names_in_cql() {
        assert_eq!(consistency("quorum"), Ok(Consistency::Quorum));
        for wrong in ["ANY", "SERIAL", "quorums", ""] {
            let said = consistency(wrong).unwrap_err();
            assert!(said.contains("LOCAL_QUORUM, QUORUM"), "{said}");
        }
        assert_eq!(of_quorum(Consistency::One), Consistency::LocalQuorum);
        assert_eq!(of_quorum(Consistency::All), Consistency::All);
    }
}
