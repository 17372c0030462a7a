//! The commands of docs/airflow.md, as they stand but for where the services are.

use crate::airflow::installed::root;

/// The indented lines of the page that begin so.
pub(crate) fn lines(beginnings: &[&str]) -> Vec<String> {
    let page = std::fs::read_to_string(root().join("docs/airflow.md")).unwrap();
    let lines = page.lines().filter_map(|line| line.strip_prefix("    "));
    let wanted = |line: &&str| {
        beginnings
            .iter()
            .any(|beginning| line.starts_with(beginning))
    };
    let found: Vec<String> = lines.filter(wanted).map(str::to_owned).collect();
    assert!(!found.is_empty(), "docs/airflow.md has no {beginnings:?}");
    found
}
