//! What the planner says of each type and operation, before anything runs.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidemill_log::registry::Registry;

use crate::types::cells::{OPERATIONS, Operation};
use crate::types::kinds::{KINDS, Kind};
use crate::types::source::Source;

/// What became of a type under an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The views answer as PostgreSQL does.
    Right,
    /// Refused by name before anything runs.
    Refused(String),
    /// PostgreSQL refuses it too.
    Neither,
}

/// Verdicts by the type's number and the operation.
pub(crate) type Verdicts = BTreeMap<(usize, Operation), Verdict>;

/// The `CREATE TABLE`s of a pipeline over a database whose topics begin with `prefix`.
pub(crate) fn tables(prefix: &str, keyed: &[&Kind]) -> String {
    let keyed = keyed.iter().map(|kind| format!("k{}", kind.group()));
    let names = std::iter::once("t".to_owned()).chain(keyed);
    let table = |name: String| {
        format!(
            "CREATE TABLE {name} WITH (topic = '{prefix}{name}', format = 'avro', envelope = \
             'debezium');\n"
        )
    };
    names.map(table).collect()
}

/// Plans a view of each type and operation alone. Messages name the column and its type.
pub(crate) fn verdicts(
    source: &mut Source,
    prefix: &str,
    registry: &Arc<dyn Registry>,
    keyed: &[&Kind],
    mut verdicts: Verdicts,
) -> Verdicts {
    let mut faults = Vec::new();
    for kind in KINDS {
        for operation in OPERATIONS {
            let place = (kind.group(), operation);
            if verdicts.contains_key(&place) {
                continue;
            }
            let of_key = operation == Operation::SourceKey;
            if of_key && !keyed.iter().any(|other| other.name == kind.name) {
                verdicts.insert(place, Verdict::Neither);
                continue;
            }
            let (query, key) = operation.query(kind);
            let own: &[&Kind] = if of_key { &[kind] } else { &[] };
            let sql = format!(
                "{}CREATE MATERIALIZED VIEW v WITH (primary_key = '{key}') AS {query};",
                tables(prefix, own)
            );
            let asked = source.question(kind, operation);
            let known = asked.is_some();
            let plainly = asked.is_some_and(|asked| asked == query);
            let planned = tidemill_plan::compile(&sql, "views.sql", Some(registry.as_ref()));
            let verdict = match (planned, known) {
                (Ok(_), true) => Verdict::Right,
                (Ok(_), false) => {
                    let what = "planned, and PostgreSQL refuses it";
                    faults.push(format!("{}, {operation:?}: {what}", kind.name));
                    Verdict::Right
                }
                (Err(error), _) => {
                    let said = error.to_string();
                    let column = if of_key {
                        "k".to_owned()
                    } else {
                        kind.column()
                    };
                    if plainly && !(said.contains(&column) && said.contains(kind.said)) {
                        let what = "refused without column and type";
                        faults.push(format!("{}, {operation:?}: {what}: {said}", kind.name));
                    }
                    match plainly {
                        true => Verdict::Refused(said),
                        false => Verdict::Neither,
                    }
                }
            };
            verdicts.insert(place, verdict);
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    verdicts
}
