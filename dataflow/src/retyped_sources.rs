//! Which sources have columns of other types than those that they were read with before.
//!
//! What a column does not take refuses its whole record, so a view that does not read the column
//! lacks the row as well. Read with another type, the record has its row: views over one source
//! would disagree, if only those that read the column were filled anew. So all of them are.
//!
//! In flow the plan's sources and the journal's epochs; out flow the sources, and what the next
//! epoch notes. The journal keeps the types as it keeps offsets: a hash of each by one of the
//! column's name, under a name that no topic has.

use std::collections::{BTreeMap, BTreeSet};

use xxhash_rust::xxh3::xxh3_64;

use crate::checkpoint::Manifest;
use crate::journal::{Binding, Offsets};
use crate::plan::ir::{Job, Source};

/// What an earlier run noted of the sources, and what this one does.
pub(crate) struct Retyped {
    /// The sources with a column of another type, by their index.
    pub(crate) sources: BTreeSet<usize>,
    /// What is not noted yet, to be bound with the first epoch.
    pub(crate) notes: Offsets,
}

fn columns_of(topic: &str) -> String {
    format!("{topic}@columns")
}

/// The types of a source's columns.
fn types(source: &Source) -> BTreeMap<u32, i64> {
    let fields = source.schema.fields().iter();
    let types = fields.map(|field| {
        // The low half is enough among the columns of a table.
        let name = xxh3_64(field.name().as_bytes()) as u32;
        let kind = xxh3_64(field.data_type().to_string().as_bytes());
        (name, kind.cast_signed())
    });
    types.collect()
}

impl Retyped {
    /// Compares the plan with what earlier runs noted. A column that none of them read is another
    /// one's.
    pub(crate) fn find(
        checkpoint: Option<&Manifest>,
        bindings: &[Binding],
        sources: &[Source],
    ) -> Self {
        let kept = checkpoint.map(|checkpoint| &checkpoint.ends);
        let known = kept.into_iter().chain(bindings.iter().map(|it| &it.ends));
        let known: Vec<&Offsets> = known.collect();
        let mut found = Self {
            sources: BTreeSet::new(),
            notes: Offsets::new(),
        };
        for (index, source) in sources.iter().enumerate() {
            let name = columns_of(&source.topic);
            let noted = known.iter().filter_map(|ends| ends.get(&name)).flatten();
            let noted: BTreeMap<u32, i64> = noted.map(|(column, kind)| (*column, *kind)).collect();
            let mut types = types(source);
            types.retain(|column, kind| noted.get(column) != Some(kind));
            if types.keys().any(|column| noted.contains_key(column)) {
                found.sources.insert(index);
            }
            if !types.is_empty() {
                found.notes.insert(name, types);
            }
        }
        found
    }

    /// Leaves out of a checkpoint the state of views that are made anew; `reads` says which sources
    /// each view reads.
    pub(crate) fn forget(&self, checkpoint: &mut Manifest, plan: &Job, reads: &[BTreeSet<usize>]) {
        let views = plan.views.iter().zip(reads);
        let anew = views.filter(|(_, reads)| self.concerns(reads));
        let anew: Vec<String> = anew.map(|(view, _)| view.site()).collect();
        checkpoint
            .sites
            .retain(|site, _| !anew.iter().any(|view| site.starts_with(view.as_str())));
    }

    /// Whether one of these sources has a column of another type.
    pub(crate) fn concerns(&self, reads: &BTreeSet<usize>) -> bool {
        !self.sources.is_disjoint(reads)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;
    use crate::plan::ir::{Envelope, Format, Spelling};

    fn source(columns: &[(&str, DataType)]) -> Source {
        let fields = columns.iter();
        let fields = fields.map(|(name, kind)| Field::new(*name, kind.clone(), true));
        Source {
            name: "t".to_owned(),
            topic: "t".to_owned(),
            format: Format::Json(Spelling::default()),
            envelope: Envelope::Upsert,
            unavailable: None,
            schema: Arc::new(Schema::new(fields.collect::<Vec<_>>())),
            key: Vec::new(),
        }
    }

    #[test]
    fn another_type_is_told_from_another_column() {
        let (int, long) = (DataType::Int32, DataType::Int64);
        let mut bindings: Vec<Binding> = Vec::new();
        let mut starts = |columns: &[(&str, DataType)]| {
            let found = Retyped::find(None, &bindings, &[source(columns)]);
            let epoch = bindings.len() as u64 + 1;
            bindings.push(Binding {
                epoch,
                ends: found.notes,
                ..Binding::default()
            });
            !found.sources.is_empty()
        };
        assert!(!starts(&[("a", int.clone())]));
        assert!(!starts(&[("a", int.clone()), ("b", int.clone())]));
        assert!(!starts(&[("b", int.clone())]));
        assert!(starts(&[("a", long.clone())]));
        assert!(!starts(&[("a", long.clone()), ("b", int.clone())]));
        assert!(starts(&[("a", int), ("b", long)]), "and back");
    }
}
