//! docs/compatibility.md says what was run: every line of services/matrix has its row there, and no
//! other row is there.

use std::path::Path;

fn read(file: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    std::fs::read_to_string(root.join(file)).unwrap()
}

/// Name and options of each line.
fn lines() -> Vec<(String, String)> {
    let text = read("services/matrix");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let words = lines.map(|line| line.split_whitespace().collect::<Vec<_>>());
    words
        .map(|words| (words[0].to_owned(), words[2..].join(" ")))
        .collect()
}

/// Name and options of each row of the table whose first column is in code letters.
fn rows() -> Vec<(String, String)> {
    let text = read("docs/compatibility.md");
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.map(|row| {
        let cells: Vec<&str> = row
            .split('|')
            .map(|cell| cell.trim().trim_matches('`'))
            .collect();
        (cells[0].to_owned(), cells[2].to_owned())
    })
    .collect()
}

#[test]
fn the_document_has_a_row_for_each_line_of_the_matrix() {
    assert_eq!(lines(), rows());
}
