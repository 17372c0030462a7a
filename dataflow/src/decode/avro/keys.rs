//! The schemas of a topic's keys.
//!
//! A job takes a key's bytes for the identity of a row, so it never decodes one. Here it notices
//! when they stop being that: when the key is of other columns than those that the views were
//! planned with, or when its values are written otherwise in a topic that nobody begins anew.

use std::collections::HashSet;

use tidemill_log::schema::arena::{Node, Schema};

use super::writers::Writers;
use crate::plan::ir::{KeySchema, Source};
use crate::{Error, Kind};

/// The keys of one topic.
pub(super) struct Keys {
    table: String,
    topic: String,
    planned: Shape,
    version: u32,
    /// Whether the own ingest writes the topic: it begins a table anew whose key changes.
    own: bool,
    /// Ids of schemas that are as planned; the last one of them is asked for first.
    known: HashSet<u32>,
    last: Option<u32>,
}

/// A key's columns, and how each is written: two keys of one value have the same bytes where the
/// latter is the same.
#[derive(Debug, PartialEq, Eq)]
struct Shape {
    columns: Vec<String>,
    written: Vec<String>,
}

impl Shape {
    /// None of a key that is no record.
    fn of(schema: &str) -> Option<Self> {
        let schema = Schema::parse(schema).ok()?;
        let fields = &schema.record(schema.root)?.fields;
        Some(Self {
            columns: fields.iter().map(|it| it.column().to_owned()).collect(),
            written: fields.iter().map(|it| written(&schema, it.node)).collect(),
        })
    }
}

/// How a value is written, for comparison: an `int` has the bytes of the `long`.
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
    /// None where the planned schema says nothing of columns.
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

    /// Notices the schema of a key in Confluent's wire format; others have none.
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
        // One that the registry does not have is not known to be another one; it is asked for again
        // when it comes behind another.
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

    /// Why the job cannot go on with keys of a schema, if it cannot.
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
