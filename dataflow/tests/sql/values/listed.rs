//! The list of `docs/sql.md`, made from the table.

use std::collections::BTreeMap;
use std::path::Path;

use tidemill_functions::{Supported, supported};

const START: &str = "<!-- list -->\n";
const END: &str = "<!-- end of list -->";

fn line(entry: &Supported) -> String {
    let takes: Vec<&str> = entry.takes.iter().map(|kind| kind.name()).collect();
    let more = if entry.more { ", …" } else { "" };
    let star = if entry.narrower { "\\*" } else { "" };
    format!("{}{more} → {}{star}", takes.join(", "), entry.gives.name())
}

/// What the list says of the table now.
fn list() -> String {
    let hidden = [
        "comparable",
        "compare",
        "output",
        "json",
        "jsonb",
        "array",
        "element",
        "member",
    ];
    let mut names: BTreeMap<&str, Vec<Supported>> = BTreeMap::new();
    for entry in supported() {
        if !hidden.contains(&entry.name) {
            names.entry(entry.name).or_default().push(entry);
        }
    }
    let mut text = "\n| name | arguments → result |\n|---|---|\n".to_owned();
    for (name, entries) in &names {
        let mut lines: Vec<String> = Vec::new();
        for entry in entries.iter().filter(|entry| entry.refused.is_none()) {
            lines.push(line(entry));
        }
        let refused: Vec<String> = entries
            .iter()
            .filter_map(|entry| {
                let why = entry.refused?;
                let takes: Vec<&str> = entry.takes.iter().map(|kind| kind.name()).collect();
                Some(format!("refused of {}: {why}", takes.join(", ")))
            })
            .collect();
        lines.extend(refused);
        let name = name.replace('|', "\\|");
        text += &format!("| `{name}` | {} |\n", lines.join("; "));
    }
    text + "\n"
}

#[test]
fn the_documentation_lists_the_table() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/sql.md");
    let found = std::fs::read_to_string(&file).unwrap();
    let (before, rest) = found.split_once(START).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    let expected = format!("{before}{START}{}{END}{after}", list());
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&file, &expected).unwrap();
        return;
    }
    assert!(
        found == expected,
        "docs/sql.md is not the table: UPDATE_EXPECT=1 writes it anew"
    );
}
