//! `docs/types.md` beside what was seen: its lists are made here.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::types::cells::{OPERATIONS, Operation};
use crate::types::kinds::KINDS;
use crate::types::planned::{Verdict, Verdicts};

/// Set to write the page instead of comparing it.
const WRITE: &str = "TIDEMILL_TEST_WRITE_DOCS";

fn page(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../docs")
        .join(name)
}

/// Compares a list of `docs/types.md` with what was seen, or writes it there.
#[track_caller]
pub(crate) fn is_listed(name: &str, list: &str) {
    is_listed_in("types.md", name, list);
}

/// The same of another page.
#[track_caller]
pub(crate) fn is_listed_in(file: &str, name: &str, list: &str) {
    // Tests of several lists write one file.
    static FILE: Mutex<()> = Mutex::new(());
    let _one = FILE.lock().unwrap_or_else(PoisonError::into_inner);
    let page = page(file);
    let text = std::fs::read_to_string(&page).unwrap();
    let (begin, end) = (
        format!("<!-- {name} -->\n"),
        format!("<!-- end of {name} -->"),
    );
    let (before, rest) = text.split_once(&begin).unwrap();
    let (listed, after) = rest.split_once(&end).unwrap();
    let list = format!("\n{list}\n");
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(page, format!("{before}{begin}{list}{end}{after}")).unwrap();
        return;
    }
    assert_eq!(
        listed, list,
        "docs/{file} lists other types than were seen: look why, or write it by {WRITE}=1 ./test \
         types"
    );
}

/// The list of PostgreSQL's types.
#[track_caller]
pub(crate) fn is_as_seen(verdicts: &Verdicts) {
    let headings = OPERATIONS.map(Operation::heading).join(" | ");
    let mut list = format!(
        "| type | {headings} | dead letters |\n|---|{}---|\n",
        "---|".repeat(OPERATIONS.len())
    );
    for kind in KINDS {
        let cells = OPERATIONS.map(|operation| match &verdicts[&(kind.group(), operation)] {
            Verdict::Right => "right",
            Verdict::Refused(_) => "refused",
            Verdict::Neither => "–",
        });
        let dead: Vec<String> = kind.dead.iter().map(|value| format!("`{value}`")).collect();
        writeln!(
            list,
            "| `{}` | {} | {} |",
            kind.name.replace('|', "\\|"),
            cells.join(" | "),
            dead.join(", ")
        )
        .unwrap();
    }
    is_listed("list of PostgreSQL's types", &list);
}
