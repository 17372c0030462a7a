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
        let mut words = line.trim_start().split([' ', ';', '{']);
        let declares = words.find(|word| !word.starts_with("pub")) == Some("mod");
        if declares && words.next().is_some_and(|name| VAGUE.contains(&name)) {
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

/// The modules with unsafe code, each for a reason that it gives.
const UNSAFE: [&str; 3] = [
    "dataflow/src/exchange/abomonated.rs",
    "ingest/log/src/log/kafka/batch.rs",
    "ingest/log/src/log/kafka/describe.rs",
];

/// The compiler denies unsafe code where it is not allowed again.
fn unsafe_elsewhere(path: &str, text: &str) -> Vec<String> {
    let allowed = format!("allow({}", "unsafe_code");
    if UNSAFE.contains(&path) || !text.contains(&allowed) {
        return Vec::new();
    }
    vec![format!("{path}: unsafe code, and the module is not listed")]
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
fn unsafe_code_is_in_listed_modules() {
    check(&rust(), unsafe_elsewhere);
    let text = format!("#![allow({})]", "unsafe_code");
    assert_eq!(unsafe_elsewhere("a.rs", &text).len(), 1);
    assert_eq!(unsafe_elsewhere(UNSAFE[0], &text).len(), 0);
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

const LIMITS: &str = "docs/limits.md";

/// A default in the form of the page of limits: `5 s`, `250 ms`, or a number.
fn shown(expression: &str) -> String {
    for (call, unit) in [("from_secs(", "s"), ("from_millis(", "ms")] {
        if let Some((_, rest)) = expression.split_once(call) {
            return format!("{} {unit}", rest.trim_end_matches(')'));
        }
    }
    let number = |text: &str| text.trim().replace('_', "").parse::<u64>().ok();
    if let Some((left, right)) = expression.split_once("<<") {
        let shifted = number(left)
            .zip(number(right))
            .map(|(left, right)| left << right);
        return shifted.map_or_else(|| expression.to_owned(), |it| it.to_string());
    }
    let product: Option<u64> = expression.split('*').map(number).product();
    product.map_or_else(|| expression.to_owned(), |it| it.to_string())
}

/// What the code has for a name: a constant, a field of a default, or a setting of Kafka's client.
fn default_of(text: &str, name: &str) -> Option<String> {
    let constant = format!("const {name}:");
    let field = format!("{name}: ");
    let setting = format!(".set(\"{name}\", \"");
    let lines = text.lines().map(str::trim);
    for line in lines {
        if line.contains(&constant) {
            let (_, value) = line.split_once(" = ")?;
            return Some(shown(value.trim_end_matches(';')));
        }
        if let Some(value) = line.strip_prefix(&setting) {
            return Some(value.trim_end_matches("\")").to_owned());
        }
        match line.strip_prefix(&field) {
            Some(value)
                if value.starts_with("Duration::") || value.as_bytes()[0].is_ascii_digit() =>
            {
                return Some(shown(value.trim_end_matches(',')));
            }
            _ => {}
        }
    }
    None
}

/// Name, default and place of each row of the page.
fn limits() -> Vec<[String; 3]> {
    let page = std::fs::read_to_string(root().join(LIMITS)).expect(LIMITS);
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let mut cells = row
            .split('|')
            .map(|cell| cell.trim().trim_matches('`').to_owned());
        cells.next();
        std::array::from_fn(|_| cells.next().expect("three columns"))
    })
    .collect()
}

#[test]
fn documented_limits_are_the_codes() {
    let minimal = r#"
        schedule = { every = "1s" }
        fetch = { url = "http://a/", records = "r", page_parameter = "p" }
        land = { table = "t", key = "k", columns = [{ name = "k", path = "k", type = "int" }] }"#;
    let pipeline = tidemill_ingest::config::Pipeline::parse(minimal, "minimal").expect("valid");
    let fetch = &pipeline.feed.expect("a feed").fetch;
    let seconds = |time: std::time::Duration| match time.subsec_millis() {
        0 => format!("{} s", time.as_secs()),
        _ => format!("{} ms", time.as_millis()),
    };
    let of_pipeline = |name: &str| match name {
        "page_size" => Some(tidemill_ingest::config::PAGE_SIZE.to_string()),
        "tries" => Some(fetch.tries.to_string()),
        "timeout" => Some(seconds(fetch.timeout)),
        "backoff" => Some(seconds(fetch.backoff)),
        "backoff_max" => Some(seconds(fetch.backoff_max)),
        "partitions" => Some(pipeline.publish.partitions.to_string()),
        _ => None,
    };
    let limits = limits();
    assert!(limits.len() > 50, "{} rows", limits.len());
    for [name, documented, place] in &limits {
        let code = match place.strip_prefix("ingest.toml") {
            Some(_) => of_pipeline(name),
            None => {
                let text = std::fs::read_to_string(root().join(place)).expect(place);
                default_of(&text, name)
            }
        };
        assert_eq!(code.as_ref(), Some(documented), "{name} in {place}");
    }
}

#[test]
fn every_maximum_is_documented() {
    let limits = limits();
    let mut missing = Vec::new();
    for (path, text) in rust() {
        if !path.contains("/src/") || path.starts_with("bench/") || path.contains("randomuser") {
            continue;
        }
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for line in code.lines().filter(|line| !line.starts_with(' ')) {
            let Some((_, rest)) = line.split_once("const ") else {
                continue;
            };
            let name = rest.split(':').next().unwrap_or_default();
            let is_limit = name.ends_with("_MAX") || name.starts_with("MAX_");
            let listed = |row: &[String; 3]| row[0] == name && row[2] == path;
            if is_limit && !limits.iter().any(listed) {
                missing.push(format!("{path}: {name}: add it to {LIMITS}"));
            }
        }
    }
    assert!(missing.is_empty(), "\n{}\n", missing.join("\n"));
}

#[test]
fn defaults_are_found_in_every_form() {
    let code = "const A: usize = 4 * 1024;\n  pub const B: Duration = Duration::from_secs(5);\n  \
                c_max: 200_000,\n .set(\"d.ms\", \"30\")\nconst E: usize = 32 << 20;";
    let found = ["A", "B", "c_max", "d.ms", "E", "F"].map(|name| default_of(code, name));
    let expected = ["4096", "5 s", "200000", "30", "33554432"].map(|it| Some(it.to_owned()));
    assert_eq!(found[..5], expected);
    assert_eq!(found[5], None);
}
