//! Retyped sources: sources with columns of other types than an earlier run read them with.
//!
//! A record is refused as a whole if a value does not fit its column, so the row is also missing in
//! views that do not read the column. With another type, the record may have its row. If only the
//! views that read the column were filled again, views over one source would disagree. Therefore
//! all views of the source are filled again.
//!
//! Input: the plan's sources and the journal's epochs. Output: the retyped sources, and the notes
//! that the next epoch binds. The journal stores the types in the form of offsets: a hash of the
//! type by a hash of the column's name, under the name `TOPIC@columns`, which no topic has.

use std::collections::{BTreeMap, BTreeSet};

use tidemill_ir::{Job, Source};
use tidemill_state::checkpoint::Manifest;
use tidemill_state::journal::{Binding, Facts, TopicFacts};
use xxhash_rust::xxh3::xxh3_64;

/// What an earlier run noted about the sources' columns, compared with the plan.
pub(crate) struct Retyped {
    /// The indices of the sources that have a column of another type than before.
    pub(crate) sources: BTreeSet<usize>,
    /// The types that the journal does not hold, to be bound with the first epoch.
    pub(crate) facts: Facts,
}

/// A hash of the type of each of a source's columns, by a hash of the column's name.
fn types(source: &Source) -> BTreeMap<u32, i64> {
    let fields = source.schema.fields().iter();
    let types = fields.map(|field| {
        // The low half of the hash is enough to tell the columns of one table apart.
        let name = xxh3_64(field.name().as_bytes()) as u32;
        let kind = xxh3_64(field.data_type().to_string().as_bytes());
        (name, kind.cast_signed())
    });
    types.collect()
}

impl Retyped {
    /// Compares the plan with what earlier runs noted. A column that no earlier run read does not
    /// count as retyped.
    pub(crate) fn find(
        checkpoint: Option<&Manifest>,
        bindings: &[Binding],
        sources: &[Source],
    ) -> Self {
        let kept = checkpoint.map(|checkpoint| &checkpoint.facts);
        let known = kept.into_iter().chain(bindings.iter().map(|it| &it.facts));
        let known: Vec<&Facts> = known.collect();
        let mut found = Self {
            sources: BTreeSet::new(),
            facts: Facts::new(),
        };
        for (index, source) in sources.iter().enumerate() {
            let of = known.iter().filter_map(|facts| facts.get(&source.topic));
            let noted = of.flat_map(|facts| &facts.columns);
            let noted: BTreeMap<u32, i64> = noted.map(|(column, kind)| (*column, *kind)).collect();
            let mut columns = types(source);
            columns.retain(|column, kind| noted.get(column) != Some(kind));
            if columns.keys().any(|column| noted.contains_key(column)) {
                found.sources.insert(index);
            }
            if !columns.is_empty() {
                let learned = found.facts.entry(source.topic.clone()).or_default();
                learned.learn(&TopicFacts {
                    columns,
                    ..TopicFacts::default()
                });
            }
        }
        found
    }

    /// Removes the state of views that are filled again from a checkpoint. `reads` are the sources
    /// of each view.
    pub(crate) fn forget(&self, checkpoint: &mut Manifest, plan: &Job, reads: &[BTreeSet<usize>]) {
        let views = plan.views.iter().zip(reads);
        let anew = views.filter(|(_, reads)| self.concerns(reads));
        let anew: Vec<String> = anew.map(|(view, _)| view.site()).collect();
        checkpoint
            .sites
            .retain(|site, _| !anew.iter().any(|view| site.starts_with(view.as_str())));
    }

    /// Whether one of these sources has a retyped column.
    pub(crate) fn concerns(&self, reads: &BTreeSet<usize>) -> bool {
        !self.sources.is_disjoint(reads)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;
    use tidemill_ir::{Envelope, Format, Spelling};

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
                facts: found.facts,
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
