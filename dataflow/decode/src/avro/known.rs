//! Schema ids of a topic: detects an id that stands for another schema than before.
//!
//! Input: the registry's answers for ids, and what the journal kept. Output: an error when an id
//! stands for another schema than before, which happens when a registry is recreated and gives its
//! ids again; and the fingerprints that the journal must keep.

use std::collections::BTreeMap;

use tidemill_log::envelope::fingerprint_in;
use tidemill_log::schema::fingerprint;
use tidemill_log::{Error, Kind};

use crate::kept::Kept;

/// The fingerprints of one topic's schemas, by schema id.
pub(super) struct Known {
    /// The topic.
    topic: String,
    /// Those that this run has met.
    seen: BTreeMap<u32, u64>,
    /// Those of this run and of earlier ones.
    pub(super) kept: Kept,
}

impl Known {
    /// No schema is known yet.
    pub(super) fn new(topic: &str) -> Self {
        Self {
            topic: topic.to_owned(),
            seen: BTreeMap::new(),
            kept: Kept::default(),
        }
    }

    /// Takes in the registry's answer for an id. Returns an error if it differs from earlier
    /// answers.
    pub(super) fn notice(&mut self, id: u32, schema: &str) -> Option<Error> {
        let is = fingerprint(schema);
        self.seen.insert(id, is);
        let same = self.kept.takes(id, is.cast_signed());
        (!same).then(|| self.another(id))
    }

    /// The fingerprint of the schema that an id stands for.
    pub(super) fn of(&self, id: u32) -> Option<u64> {
        self.seen.get(&id).copied()
    }

    /// The error of a record that Tidemill's own ingest wrote with another schema than its id
    /// stands for; `None` if the record's schema is the right one or is not recorded.
    pub(super) fn misnames(&self, id: u32, body: &[u8]) -> Option<Error> {
        let (is, was) = (self.of(id)?, fingerprint_in(body)?);
        (is != was).then(|| self.another(id))
    }

    /// The `Data` error of an id that stands for another schema.
    pub(super) fn another(&self, id: u32) -> Error {
        let topic = &self.topic;
        let what = format!(
            "topic `{topic}` holds records of schema {id}, which is another one in the registry \
             than the one that they were written with: the registry was made anew and gave its \
             ids again. Restore the registry's own topic or database and start again; or delete \
             the topic, have it written anew (`tidemill ingest --resnapshot`) and run `tidemill \
             reset PIPELINE`"
        );
        Error::new(Kind::Data, what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_stands_for_another_schema_than_an_earlier_run_read_is_told() {
        let (int, long) = ("\"int\"", "\"long\"");
        let mut known = Known::new("t");
        assert!(known.notice(1, int).is_none() && known.notice(2, long).is_none());
        let kept = known.kept.noted();
        assert_eq!(kept.len(), 2);
        let mut known = Known::new("t");
        known.kept.remember(kept);
        assert!(known.notice(1, int).is_none() && known.kept.noted().is_empty());
        let why = known.notice(2, int).unwrap().to_string();
        assert!(why.contains("`t`") && why.contains("schema 2"), "{why}");
        assert!(known.notice(3, long).is_none() && known.kept.noted().contains_key(&3));
    }
}
