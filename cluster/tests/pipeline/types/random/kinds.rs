//! What random tables may do with a type: as docs/types.md says, which another test compares with
//! what is seen.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use crate::types::cells::{OPERATIONS, Operation};
use crate::types::kinds::{KINDS, Kind};

const PAGE: &str = include_str!("../../../../../docs/types.md");

/// By a type's name, what docs/types.md says to each of [`OPERATIONS`].
fn cells() -> &'static BTreeMap<String, Vec<&'static str>> {
    static CELLS: OnceLock<BTreeMap<String, Vec<&'static str>>> = OnceLock::new();
    CELLS.get_or_init(|| {
        let lines = PAGE.lines().filter(|line| line.starts_with("| `"));
        let lines = lines.filter_map(|line| {
            let mut cells = line.trim_matches('|').split(" | ").map(str::trim);
            let name = cells.next()?.trim_matches('`').to_owned();
            Some((name, cells.take(OPERATIONS.len()).collect()))
        });
        lines.collect()
    })
}

/// Whether views answer as PostgreSQL does when they do this with a column of the type.
pub(super) fn may(kind: &Kind, operation: Operation) -> bool {
    let at = OPERATIONS.iter().position(|known| *known == operation);
    cells()[kind.name][at.unwrap()] == "right"
}

/// Those of all types that may be used so.
pub(super) fn that_may(operations: &[Operation]) -> Vec<&'static Kind> {
    let kinds = KINDS.iter();
    let kinds = kinds.filter(|kind| operations.iter().all(|operation| may(kind, *operation)));
    kinds.collect()
}

/// A type by its name.
pub(super) fn named(name: &str) -> &'static Kind {
    KINDS.iter().find(|kind| kind.name == name).unwrap()
}
