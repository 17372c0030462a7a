//! Owns the house rules that a machine can check, over the files that git tracks: sizes, names,
//! headers, nothing left undone, licences. Each rule returns what breaks it, so that one run names
//! every offence; a rule's own test shows that it finds one.

use std::path::{Path, PathBuf};
use std::process::Command;

const LINES: usize = 800;
const COLUMNS: usize = 100;
const VAGUE: [&str; 8] = [
    "util", "utils", "common", "helper", "helpers", "manager", "managers", "misc",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(root())
        .output();
    let output = output.unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(
        output.status.success(),
        "{program}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Path and text of every tracked text file that is there.
fn tracked() -> Vec<(String, String)> {
    let files: Vec<(String, String)> = run("git", &["ls-files", "-z"])
        .split_terminator('\0')
        .filter_map(|path| {
            Some((
                path.to_owned(),
                std::fs::read_to_string(root().join(path)).ok()?,
            ))
        })
        .collect();
    assert!(
        files.len() > 20,
        "git ls-files named only {} files",
        files.len()
    );
    files
}

fn rust() -> Vec<(String, String)> {
    tracked()
        .into_iter()
        .filter(|(path, _)| path.ends_with(".rs"))
        .collect()
}

/// Words are put together here, so that this file does not break the rules it checks.
fn undone() -> Vec<String> {
    let mut words: Vec<String> = ["todo", "unimplemented", "dbg"]
        .iter()
        .map(|name| format!("{name}!"))
        .collect();
    words.push(format!("#[{}", "ignore"));
    words
}

fn too_big(path: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let lines = text.lines().count();
    if lines > LINES {
        found.push(format!(
            "{path}: {lines} lines, at most {LINES}: give a part its own file"
        ));
    }
    for (number, line) in text.lines().enumerate() {
        let columns = line.chars().count();
        if columns > COLUMNS {
            found.push(format!(
                "{path}:{}: {columns} columns, at most {COLUMNS}",
                number + 1
            ));
        }
    }
    found
}

fn vague_name(path: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let parts = Path::new(path).with_extension("");
    for part in parts.iter().filter_map(|part| part.to_str()) {
        if part.split(['_', '-']).any(|word| VAGUE.contains(&word)) {
            found.push(format!("{path}: '{part}' does not say what it owns"));
        }
    }
    for (number, line) in text.lines().enumerate() {
        let mut words = line
            .split([' ', ';', '{'])
            .skip_while(|word| *word != "mod")
            .skip(1);
        if words.next().is_some_and(|name| VAGUE.contains(&name)) {
            found.push(format!(
                "{path}:{}: the module's name says nothing",
                number + 1
            ));
        }
    }
    found
}

fn no_header(path: &str, text: &str) -> Vec<String> {
    if text.starts_with("//! ") {
        vec![]
    } else {
        vec![format!("{path}: does not start with //!")]
    }
}

fn left_undone(path: &str, text: &str) -> Vec<String> {
    let words = undone();
    let undone = |line: &str| {
        words
            .iter()
            .find(|word| line.contains(word.as_str()))
            .cloned()
    };
    let lines = text.lines().enumerate();
    lines
        .filter_map(|(n, l)| Some(format!("{path}:{}: {}", n + 1, undone(l)?)))
        .collect()
}

/// Folders and hosts of one machine, which mean nothing on another.
fn machine(path: &str, text: &str) -> Vec<String> {
    let homes = ["/ro", "/wo", "/ho"].iter().zip(["ot/", "rk/", "me/"]);
    let mut places: Vec<String> = homes.map(|(start, end)| format!("{start}{end}")).collect();
    places.push(format!("{}factory", "arti"));
    let hits = |line: &str| {
        let at = |place: &&String| {
            line.match_indices(place.as_str()).any(|(at, _)| {
                // A path of another root, as target/work/ would be, is not meant.
                let before = line[..at].chars().next_back();
                before.is_none_or(|c| !c.is_alphanumeric() && !"._-}/$".contains(c))
            })
        };
        places.iter().find(at).cloned()
    };
    let lines = text.lines().enumerate();
    lines
        .filter_map(|(n, l)| Some(format!("{path}:{}: {}", n + 1, hits(l)?)))
        .collect()
}

fn check(files: &[(String, String)], rule: fn(&str, &str) -> Vec<String>) {
    let found: Vec<String> = files
        .iter()
        .flat_map(|(path, text)| rule(path, text))
        .collect();
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[test]
fn rules_find_what_breaks_them() {
    assert_eq!(too_big("a.rs", &"x\n".repeat(LINES + 1)).len(), 1);
    assert_eq!(too_big("a.rs", &"é".repeat(COLUMNS + 1)).len(), 1);
    assert_eq!(too_big("a.rs", &"é".repeat(COLUMNS)).len(), 0);
    assert_eq!(vague_name("a/test_util/b.rs", "").len(), 1);
    assert_eq!(vague_name("a/common.rs", "pub(crate) mod helper;").len(), 2);
    assert_eq!(
        vague_name("a/mode.rs", "mod mode; // a mod of helpers").len(),
        0
    );
    assert_eq!(no_header("a.rs", "// not it").len(), 1);
    for word in undone() {
        assert_eq!(
            left_undone("a.rs", &format!("    {word}")).len(),
            1,
            "{word}"
        );
    }
    assert_eq!(machine("a.md", &format!("see {}/notes", "/work")).len(), 1);
    assert_eq!(machine("a.md", "cd target/work/ and ./root/").len(), 0);
}

#[test]
fn rust_files_stay_small() {
    check(&rust(), too_big);
}

#[test]
fn names_say_what_is_owned() {
    check(&rust(), vague_name);
}

#[test]
fn every_rust_file_says_what_it_owns() {
    check(&rust(), no_header);
}

#[test]
fn nothing_is_left_undone() {
    check(&rust(), left_undone);
}

#[test]
fn no_file_names_a_machine() {
    check(&tracked(), machine);
}

/// Once there is an ARCHITECTURE.md its code map is complete: every crate and every module of it.
#[test]
fn the_code_map_is_complete() {
    let Ok(map) = std::fs::read_to_string(root().join("ARCHITECTURE.md")) else {
        return;
    };
    let mut missing = Vec::new();
    for (path, _) in rust() {
        let Some((krate, module)) = path.split_once("/src/") else {
            continue;
        };
        let top = module
            .split('/')
            .next()
            .unwrap_or(module)
            .trim_end_matches(".rs");
        if !map.contains(krate) {
            missing.push(format!(
                "{path}: the crate {krate} is not in ARCHITECTURE.md"
            ));
        }
        let words = || map.split(|c: char| !c.is_alphanumeric() && c != '_');
        if !["lib", "main", "bin"].contains(&top) && !words().any(|word| word == top) {
            missing.push(format!(
                "{path}: the module {top} is not in ARCHITECTURE.md"
            ));
        }
    }
    assert!(missing.is_empty(), "\n{}\n", missing.join("\n"));
}

/// Does an SPDX expression leave a way that `allowed` permits? Splits at the outermost OR, then at
/// AND, then opens parentheses; the old `/` means OR.
fn permitted(expression: &str, allowed: &[&str]) -> bool {
    let expression = expression.trim();
    if let Some(parts) = split_outside(expression, " OR ") {
        return parts.iter().any(|part| permitted(part, allowed));
    }
    if let Some(parts) = split_outside(expression, " AND ") {
        return parts.iter().all(|part| permitted(part, allowed));
    }
    match expression
        .strip_prefix('(')
        .and_then(|inner| inner.strip_suffix(')'))
    {
        Some(inner) => permitted(inner, allowed),
        None => allowed.contains(&expression),
    }
}

/// The parts between separators that no parenthesis encloses; none when there is no such separator.
fn split_outside<'a>(text: &'a str, separator: &str) -> Option<Vec<&'a str>> {
    let mut parts = Vec::new();
    let mut start = 0;
    for (at, found) in text.match_indices(separator) {
        let before = &text[..at];
        if before.matches('(').count() == before.matches(')').count() {
            parts.push(&text[start..at]);
            start = at + found.len();
        }
    }
    if parts.is_empty() {
        return None;
    }
    parts.push(&text[start..]);
    Some(parts)
}

#[test]
fn an_expression_is_permitted_only_when_a_way_is_left() {
    let allowed = ["MIT", "Unicode-3.0"];
    for good in [
        "MIT",
        "GPL-3.0 OR MIT",
        "(MIT OR Apache-2.0) AND Unicode-3.0",
    ] {
        assert!(permitted(good, &allowed), "{good}");
    }
    for bad in [
        "GPL-3.0",
        "MIT AND GPL-3.0",
        "(MIT OR Unicode-3.0) AND GPL-3.0",
        "",
    ] {
        assert!(!permitted(bad, &allowed), "{bad}");
    }
}

/// What `cargo deny check` says of licences and sources, without cargo-deny.
#[test]
fn every_crate_has_a_permitted_licence_and_comes_from_crates_io() {
    let deny = std::fs::read_to_string(root().join("deny.toml")).expect("deny.toml");
    let deny: toml::Table = deny.parse().expect("deny.toml is TOML");
    let list = |table: &str, key: &str| -> Vec<String> {
        let list = deny[table][key].as_array().expect("a list");
        list.iter()
            .map(|item| item.as_str().expect("text").to_owned())
            .collect()
    };
    let licences = list("licenses", "allow");
    let licences: Vec<&str> = licences.iter().map(String::as_str).collect();
    let registries = list("sources", "allow-registry");

    let metadata = run(
        env!("CARGO"),
        &["metadata", "--format-version", "1", "--locked"],
    );
    let metadata: serde_json::Value = serde_json::from_str(&metadata).expect("JSON");
    let mut found = Vec::new();
    for package in metadata["packages"].as_array().expect("packages") {
        let name = format!("{} {}", package["name"], package["version"]);
        let licence = package["license"]
            .as_str()
            .unwrap_or_default()
            .replace('/', " OR ");
        let licence = licence.replace("  OR  ", " OR ");
        if !permitted(&licence, &licences) {
            found.push(format!("{name}: licence '{licence}' is not in deny.toml"));
        }
        if let Some(source) = package["source"].as_str()
            && !registries.iter().any(|r| source == format!("registry+{r}"))
        {
            found.push(format!("{name}: comes from {source}"));
        }
    }
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}
