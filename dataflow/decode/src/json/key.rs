//! Keys of JSON records: the part that identifies a row, and detection of keys in another form.
//!
//! Input: the text of a key. Output: the part of it that identifies the row, and an error when the
//! same row's key is written in another way than before. A key that is not a JSON object is taken
//! as its bytes, and is in another form than one that is.
//!
//! A job takes these bytes as the identity of a row. If the key's columns are renamed, reordered or
//! change their type, earlier rows would stay beside those that replace them. Therefore the job
//! ends, also if it was stopped in the meantime, because the journal keeps the form.

use tidemill_ir::Source;
use tidemill_log::{Error, Kind};
use xxhash_rust::xxh3::Xxh3;

use super::scan::Scan;
use crate::kept::Kept;

/// The number under which the journal keeps the columns' names. The columns' kinds follow it.
const NAMES: u32 = 0;
/// Most columns of a key whose kinds are kept; PostgreSQL allows no more (`INDEX_MAX_KEYS`).
const KINDS: usize = 32;

/// The form of one topic's keys.
pub(crate) struct KeyForm {
    /// The table's name, for messages.
    table: String,
    /// The topic.
    topic: String,
    /// The form, as the journal keeps it.
    pub(crate) kept: Kept,
}

impl KeyForm {
    /// No key is known yet.
    pub(crate) fn new(source: &Source) -> Self {
        Self {
            table: source.name.clone(),
            topic: source.topic.clone(),
            kept: Kept::default(),
        }
    }

    /// Checks the form of a key; returns an error if it differs from earlier keys.
    pub(crate) fn follow(&mut self, key: &[u8]) -> Option<Error> {
        let key = bare(key);
        if key.is_empty() || key == b"null" {
            return None;
        }
        let mut names = Xxh3::new();
        let mut kinds: [i64; KINDS] = [0; KINDS];
        let mut count = 0;
        let mut scan = Scan::new(key);
        let is_object = key.starts_with(b"{");
        let read = scan.object(|scan, name| {
            names.update(name.bytes);
            names.update(b"\0");
            let kind = kind(scan.value()?);
            if let Some(place) = kinds.get_mut(count) {
                *place = kind;
            }
            count += 1;
            Some(())
        });
        if is_object && (read.is_none() || !scan.is_done()) {
            return None;
        }
        // A key that is no object has no names.
        let mut same = self.kept.takes(NAMES, names.digest().cast_signed());
        if same {
            let numbered = (NAMES + 1..).zip(kinds).take(count.min(KINDS));
            for (column, kind) in numbered.filter(|(_, kind)| *kind != 0) {
                same &= self.kept.takes(column, kind);
            }
        }
        (!same).then(|| self.changed(key))
    }

    /// The `Data` error of a key in another form.
    fn changed(&self, key: &[u8]) -> Error {
        let Self { table, topic, .. } = self;
        let key = crate::text::excerpt(&String::from_utf8_lossy(key));
        let what = format!(
            "table `{table}`: topic `{topic}` holds the key {key}, whose columns have other names, \
             another order or other types than those of the keys before it (or only one of them is \
             a JSON object), so rows of before would stay beside those that replace them. Have its \
             writer fill a new topic"
        );
        Error::new(Kind::Data, what)
    }
}

/// The JSON type of a value; 0 for null, which has none.
fn kind(value: &[u8]) -> i64 {
    match value.first() {
        Some(b'n') | None => 0,
        Some(b'"') => 1,
        Some(b't' | b'f') => 2,
        Some(b'{') => 3,
        Some(b'[') => 4,
        Some(_) => 5,
    }
}

/// A key without Connect's wrapper of `schema` and `payload`. The wrapper says nothing about the
/// row: its schema may change, or appear and disappear with `schemas.enable`, while the row stays
/// the same.
pub fn bare(key: &[u8]) -> &[u8] {
    if !key.starts_with(b"{") {
        return key;
    }
    let mut scan = Scan::new(key);
    let (mut schema, mut payload, mut count) = (None, None, 0);
    let read = scan.object(|scan, name| {
        let value = scan.value()?;
        count += 1;
        match name.bytes {
            b"schema" => schema = Some(value),
            b"payload" => payload = Some(value),
            _ => {}
        }
        Some(())
    });
    let is_schema = |text: &[u8]| text.starts_with(b"{") || text == b"null";
    let wrapped = read.is_some() && scan.is_done() && count == 2 && schema.is_some_and(is_schema);
    payload.filter(|_| wrapped).unwrap_or(key)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::Schema;

    use super::*;
    use tidemill_ir::{Envelope, Format, Spelling};

    fn form() -> KeyForm {
        KeyForm::new(&Source {
            name: "t".to_owned(),
            topic: "t".to_owned(),
            format: Format::Json(Spelling::default()),
            envelope: Envelope::Upsert,
            unavailable: None,
            schema: Arc::new(Schema::empty()),
            key: Vec::new(),
        })
    }

    #[test]
    fn a_key_is_the_same_with_and_without_connects_wrapper() {
        let wrapped = br#"{"schema":{"type":"struct"},"payload":{"id":1}}"#;
        assert_eq!(bare(wrapped), br#"{"id":1}"#);
        assert_eq!(bare(br#"{"schema":null,"payload":7}"#), b"7");
        for same in [
            &br#"{"id":1}"#[..],
            b"7",
            b"{broken",
            br#"{"schema":1,"payload":2}"#,
            br#"{"schema":{},"payload":1,"more":2}"#,
        ] {
            assert_eq!(bare(same), same);
        }
    }

    #[test]
    fn a_key_of_other_columns_is_noticed_also_by_the_next_run() {
        let mut form = form();
        for same in [
            &br#"{"a":1,"b":null}"#[..],
            br#"{"a":3000000000,"b":"x"}"#,
            br#"{"schema":{"type":"struct"},"payload":{"a":2,"b":"y"}}"#,
            b"{broken",
            b"",
        ] {
            assert!(form.follow(same).is_none());
        }
        let kept = form.kept.noted();
        assert_eq!(kept.len(), 3);
        for other in [
            r#"{"b":1,"a":"x"}"#,
            r#"{"no":1,"b":"x"}"#,
            r#"{"a":"1","b":"x"}"#,
            r#"{"a":1}"#,
            "1",
            "no object",
        ] {
            form.kept.remember(kept.clone());
            let why = form.follow(other.as_bytes()).unwrap().to_string();
            assert!(why.contains("`t`") && why.contains("a new topic"), "{why}");
            assert!(form.kept.noted().is_empty());
        }
    }

    #[test]
    fn keys_that_are_no_objects_have_one_form() {
        let mut form = form();
        for same in ["1", "text", "\"text\"", "[1]", ""] {
            assert!(form.follow(same.as_bytes()).is_none(), "{same}");
        }
        let kept = form.kept.noted();
        assert_eq!(kept.len(), 1);
        form.kept.remember(kept);
        let why = form.follow(br#"{"id":1}"#).unwrap().to_string();
        assert!(why.contains("only one of them is a JSON object"), "{why}");
    }
}
