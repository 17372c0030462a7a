//! Key schemas of an Avro topic: detects keys that no longer identify the same rows.
//!
//! A job takes the bytes of a key as the identity of a row and never decodes them. This module
//! detects when that stops being right: when the key has other columns than those that the views
//! were planned with, or when its values are encoded in another way in a topic whose writer does
//! not begin a table again.

use std::collections::HashSet;

use tidemill_ir::{KeySchema, Source};
use tidemill_log::schema::arena::{Node, Schema};
use tidemill_log::{Error, Kind};

use super::writers::Writers;

/// The key schemas of one topic.
pub(super) struct Keys {
    /// The table's name, for messages.
    table: String,
    /// The topic.
    topic: String,
    /// The form of keys that the views were planned with.
    planned: Shape,
    /// The version of the planned schema in the subject of keys.
    version: u32,
    /// Whether Tidemill's own ingest writes the topic. It begins a table again when the table's key
    /// changes.
    own: bool,
    /// The ids of schemas that match the plan. The last one met is compared first.
    known: HashSet<u32>,
    /// The id of the last key.
    last: Option<u32>,
}

/// The columns of a key, and the encoding of each. Two keys with the same values have the same
/// bytes if the encodings are the same.
#[derive(Debug, PartialEq, Eq)]
struct Shape {
    /// The names of the columns.
    columns: Vec<String>,
    /// The encoding of each column.
    written: Vec<String>,
}

impl Shape {
    /// The form of a key's schema; `None` if the key is not a record.
    fn of(schema: &str) -> Option<Self> {
        let schema = Schema::parse(schema).ok()?;
        let fields = &schema.record(schema.root)?.fields;
        Some(Self {
            columns: fields.iter().map(|it| it.column().to_owned()).collect(),
            written: fields.iter().map(|it| written(&schema, it.node)).collect(),
        })
    }
}

/// The encoding of a value, for comparison. An `int` has the same bytes as a `long`.
fn written(schema: &Schema, node: usize) -> String {
    match schema.node(node) {
        Node::Int(meaning) | Node::Long(meaning) => format!("whole {meaning:?}"),
        Node::String(_) => "text".to_owned(),
        Node::Bytes(meaning) => format!("bytes {meaning:?}"),
        Node::Union(branches) => {
            let branches = branches.iter().map(|branch| written(schema, *branch));
            branches.collect::<Vec<_>>().join(" or ")
        }
        other => format!("{other:?}"),
    }
}

impl Keys {
    /// The keys of a source; `None` if the planned schema does not name columns.
    pub(super) fn new(source: &Source, key: &KeySchema, own: bool) -> Option<Self> {
        Some(Self {
            table: source.name.clone(),
            topic: source.topic.clone(),
            planned: Shape::of(&key.schema)?,
            version: key.version,
            own,
            known: HashSet::new(),
            last: None,
        })
    }

    /// Checks the schema of a key in Confluent's wire format. Other keys have no schema.
    pub(super) fn follow(&mut self, key: &[u8], writers: &mut Writers) {
        let Some(([0, a, b, c, d], _)) = key.split_first_chunk() else {
            return;
        };
        let id = u32::from_be_bytes([*a, *b, *c, *d]);
        if self.last == Some(id) {
            return;
        }
        self.last = Some(id);
        if self.known.contains(&id) {
            return;
        }
        // An unknown id does not show that the schema is a different one. The registry is asked
        // again when this id comes after another one.
        let Ok(Some(schema)) = writers.schema(id) else {
            return;
        };
        let Some(shape) = Shape::of(&schema) else {
            return;
        };
        match self.changed(id, &shape, writers) {
            Some(what) => writers.ends = Some(Error::new(Kind::Data, what)),
            None => drop(self.known.insert(id)),
        }
    }

    /// Why the job cannot continue with keys of a schema; `None` if it can.
    fn changed(&self, id: u32, shape: &Shape, writers: &Writers) -> Option<String> {
        let Self { table, topic, .. } = self;
        if !self.own && shape.written != self.planned.written {
            return Some(format!(
                "table `{table}`: topic `{topic}` holds keys of schema {id}, which are not written \
                 as those of version {} of subject `{topic}-key` are, so rows of before would stay \
                 beside those that replace them. Have its writer fill a new topic",
                self.version
            ));
        }
        if shape.columns == self.planned.columns || !writers.is_behind("key", id, self.version) {
            return None;
        }
        let (is, was) = (shape.columns.join(", "), self.planned.columns.join(", "));
        Some(format!(
            "table `{table}`: its key is ({is}) since schema {id} of subject `{topic}-key`, and \
             the views were planned with ({was}). Start again: the views that read the table \
             are planned with the new key and filled anew; nothing behind the change is in them \
             now"
        ))
    }
}
