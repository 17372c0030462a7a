//! Text that is no SQL, nearly SQL, or SQL that nobody expects: planning it gives a plan or an
//! error with a place, and never panics. What is mutated are all statements of `sql/plan` and
//! `sql/slt`. The seed is printed; `TIDEMILL_TEST_SEED` repeats a run, `TIDEMILL_TEST_TEXTS` says
//! how many texts it has.

use std::fs;
use std::panic::catch_unwind;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use tidemill_log::Kind;
use tidemill_plan::compile;

use crate::plan::{folder, plan};

/// Of a run that none is given to: the same for all, so that a change of ours is what fails.
const SEED: u64 = 20_261_128;
const TEXTS: usize = 3_000;
/// Far more than planning one view takes on a busy machine, and far less than what doubles with
/// every level.
const PATIENCE: Duration = Duration::from_secs(300);

const WORDS: &str = "SELECT FROM WHERE GROUP BY HAVING ORDER LIMIT OFFSET DISTINCT ON UNION ALL \
    INTERSECT EXCEPT JOIN LEFT RIGHT FULL CROSS NATURAL INNER USING AS WITH RECURSIVE CASE WHEN \
    THEN ELSE END AND OR NOT IN IS NULL TRUE FALSE BETWEEN LIKE ILIKE SIMILAR TO EXISTS ANY SOME \
    CAST :: int text numeric(5,2) timestamp interval date OVER ( ) PARTITION ROWS RANGE PRECEDING \
    FILTER ( ) , ; . * + - / % ^ || | & # ~ !~ ~* <> <= >= < > = -> ->> @> ? [ ] { } : := $1 ' '' \
    \" \"\" 0 1 -1 2147483648 9223372036854775808 1e400 .5 1. 'a' 'NaN' E'\\n' U&'x' $$ \
    row_number() count(*) sum avg min max coalesce nullif extract(year FROM a) date_trunc \
    VALUES LATERAL FETCH FIRST ROW ONLY ARRAY[1] ROW(1,2) \
    ROLLUP CUBE GROUPING SETS NULLS FIRST LAST ASC DESC COLLATE \
    ESCAPE AT TIME ZONE CREATE VIEW TABLE a b t x y id -- /* */";

/// Words, numbers, strings, single signs and what stands between them.
fn tokens(sql: &str) -> Vec<String> {
    let mut tokens: Vec<String> = Vec::new();
    let mut last = ' ';
    for c in sql.chars() {
        let word = |c: char| c.is_alphanumeric() || c == '_';
        match tokens.last_mut() {
            Some(token) if word(c) && word(last) => token.push(c),
            _ => tokens.push(c.to_string()),
        }
        last = c;
    }
    tokens
}

fn corpus() -> Vec<String> {
    let mut texts = Vec::new();
    for (path, end) in [(folder(), "sql"), (folder().join("../slt"), "slt")] {
        for file in fs::read_dir(path).unwrap() {
            let file = file.unwrap().path();
            if file.extension().is_some_and(|extension| extension == end) {
                texts.push(fs::read_to_string(file).unwrap());
            }
        }
    }
    texts.sort();
    let statements = texts.iter().flat_map(|text| text.split(";\n"));
    let statements = statements.filter_map(|statement| {
        let view = statement
            .find("CREATE VIEW")
            .or_else(|| statement.find("CREATE MATERIALIZED"));
        statement.get(view?..).map(str::to_owned)
    });
    statements.collect()
}

fn mutated(rng: &mut StdRng, corpus: &[String], words: &[&str]) -> String {
    let mut text = tokens(corpus.choose(rng).unwrap());
    let other = tokens(corpus.choose(rng).unwrap());
    for _ in 0..*[1, 1, 1, 2, 3, 6, 15].choose(rng).unwrap() {
        let at = rng.random_range(0..text.len());
        match rng.random_range(0..9) {
            0 => drop(text.remove(at)),
            1 => {
                let to = (at + rng.random_range(1..9)).min(text.len());
                text.drain(at..to);
            }
            2 => text.insert(at, format!(" {} ", words.choose(rng).unwrap())),
            3 => text[at] = (*words.choose(rng).unwrap()).to_owned(),
            4 => text[at] = other.choose(rng).unwrap().clone(),
            5 => text.insert(at, text[at].clone()),
            6 => {
                let with = rng.random_range(0..text.len());
                text.swap(at, with);
            }
            7 => {
                let from = rng.random_range(0..other.len());
                let to = (from + rng.random_range(1..12)).min(other.len());
                text.splice(at..at, other[from..to].iter().cloned());
            }
            _ => {
                let odd = [
                    '\0', 'ä', '\u{301}', '🌊', '\u{feff}', '\\', '\r', '\u{85}', '`',
                ];
                text[at].push(*odd.choose(rng).unwrap());
            }
        }
        if text.is_empty() {
            break;
        }
    }
    text.concat()
}

/// Plans a text; what it panics with or says wrongly.
fn fault(sql: &str) -> Option<String> {
    let planned = catch_unwind(|| plan(sql));
    let error = match planned {
        Ok(Ok(_)) => return None,
        Ok(Err(error)) => error,
        Err(panic) => {
            let what = panic.downcast_ref::<String>().cloned();
            let what = what.or_else(|| Some((*panic.downcast_ref::<&str>()?).to_owned()));
            return Some(format!("panics: {}", what.unwrap_or_default()));
        }
    };
    let message = error.to_string();
    let raw = [
        "Ident {",
        "Custom(",
        "Some(",
        "Span {",
        "quote_style",
        "Int64(",
        "Utf8(",
        "{ ",
    ];
    let raw = raw
        .iter()
        .find(|raw| message.contains(**raw) && !sql.contains(**raw));
    match raw {
        _ if error.kind() == Kind::Bug || message.contains("please report") => {
            Some(format!("is a bug: {message}"))
        }
        Some(raw) => Some(format!("says `{raw}`: {message}")),
        None if !message.starts_with("views.sql:") => Some(format!("says no place: {message}")),
        None => None,
    }
}

#[test]
fn no_text_makes_planning_panic() {
    let given = std::env::var("TIDEMILL_TEST_SEED").ok();
    let seed: u64 = given.map_or(SEED, |seed| seed.parse().unwrap());
    eprintln!("mutated: TIDEMILL_TEST_SEED={seed}");
    let texts = std::env::var("TIDEMILL_TEST_TEXTS").ok();
    let texts = texts.map_or(TEXTS, |texts| texts.parse().unwrap());
    let mut rng = StdRng::seed_from_u64(seed);
    let (corpus, words) = (corpus(), WORDS.split_whitespace().collect::<Vec<_>>());
    assert!(corpus.len() > 200, "only {} statements", corpus.len());
    let prelude = "CREATE TABLE users WITH (topic = 'users'); CREATE TABLE clicks WITH (topic = \
        'clicks', envelope = 'append'); CREATE TABLE t (a int, b text, c int, d date, n \
        numeric(5, 2)) WITH (format = 'json'); CREATE TABLE items (id int, grp text, sub int, flag \
        boolean, small smallint, n int, big bigint, huge bigint, f double precision, d \
        numeric(12,2), txt text, day date, at timestamp, tz timestamptz) WITH (format = 'json');";
    let mut found = Vec::new();
    for _ in 0..texts {
        let text = mutated(&mut rng, &corpus, &words);
        let sql = match rng.random_range(0..40) {
            0 => text.clone(),
            _ => format!("{prelude}{text}"),
        };
        if let Some(fault) = fault(&sql) {
            found.push(format!("{text}\n  {fault}"));
        }
    }
    for _ in 0..texts / 10 {
        let bytes: Vec<u8> = (0..rng.random_range(0..80)).map(|_| rng.random()).collect();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        found.extend(fault(&text).map(|fault| format!("{text:?}\n  {fault}")));
    }
    let count = found.len();
    found.truncate(25);
    assert!(
        count == 0,
        "seed {seed}: {count} faults\n{}",
        found.join("\n")
    );
}

/// What programs write for their users: conditions of thousands of comparisons.
#[test]
fn thousands_of_ands_and_ors_are_planned() {
    let table = "CREATE TABLE t (a int, b text) WITH (format = 'json'); CREATE VIEW v AS ";
    let each = |operator: &str| -> String {
        let terms = (0..1_000).map(|at| format!(" {operator} (a = {at} AND b <> 'x{at}')"));
        terms.collect()
    };
    for condition in [
        format!("a = -1{}", each("OR")),
        format!("a <> -1{}", each("AND NOT")),
        format!("(a = -1{}) AND (b = ''{})", each("OR"), each("OR")),
        // Items of several types are compared one by one.
        format!("a IN (-1{})", ", 1.5, a + 2".repeat(500)),
    ] {
        let sql = format!("{table}SELECT a FROM t WHERE {condition}");
        let began = Instant::now();
        compile(&sql, "views.sql", None).unwrap();
        assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
    }
    let sql = format!(
        "{table}SELECT a FROM t WHERE a = 0{}",
        " OR a = 1".repeat(10_001)
    );
    let error = compile(&sql, "views.sql", None).unwrap_err().to_string();
    assert!(
        error.contains("more than 10000 ANDs and ORs in a row"),
        "{error}"
    );
}

/// A HOP is a SELECT for each of its windows, and those of all its HOPs are counted together.
#[test]
fn a_thousand_windows_of_a_row_are_planned_and_more_are_refused() {
    let table = "CREATE TABLE t (id int, at timestamp, PRIMARY KEY (id))
        WITH (format = 'json', envelope = 'upsert'); CREATE VIEW v AS ";
    let hop = |of: &str, size: u32| {
        format!("HOP({of}, at, INTERVAL '1 second', INTERVAL '{size} seconds')")
    };
    let sql = format!("{table}SELECT id, window_end FROM {}", hop("TABLE t", 1000));
    let began = Instant::now();
    compile(&sql, "views.sql", None).unwrap();
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
    let inner = format!("(SELECT id, at FROM {})", hop("TABLE t", 100));
    for (from, windows) in [
        (hop(&inner, 10), 1110),
        (
            format!("{} AS a, {} AS b", hop("t", 999), hop("t", 2)),
            1001,
        ),
    ] {
        let sql = format!("{table}SELECT 1 AS one FROM {from}");
        let error = compile(&sql, "views.sql", None).unwrap_err().to_string();
        let expected = format!("put each row into {windows} windows; at most 1000");
        assert!(error.contains(&expected), "{error}");
    }
}

#[test]
fn long_and_deep_texts_are_planned_or_refused() {
    let table = "CREATE TABLE t (a int, b text) WITH (format = 'json'); CREATE VIEW v AS ";
    let deep = |open: &str, inner: &str, close: &str, times: usize| {
        format!("{}{inner}{}", open.repeat(times), close.repeat(times))
    };
    let joined = |times: usize| -> String {
        (0..times)
            .map(|at| format!(" JOIN t AS t{at} ON t.a = t{at}.a"))
            .collect()
    };
    let chains = |times: usize| {
        [
            format!("SELECT a FROM t WHERE a = 0{}", " OR a = 1".repeat(times)),
            format!(
                "SELECT a FROM t WHERE a <> 0{}",
                " AND a <> 1".repeat(times)
            ),
            format!("SELECT a{} AS x FROM t", " + 1".repeat(times)),
            format!("SELECT b{} AS x FROM t", " || b".repeat(times)),
            format!(
                "SELECT a FROM t{}",
                " UNION ALL SELECT a FROM t".repeat(times / 2)
            ),
            format!(
                "SELECT a FROM t{}",
                " UNION SELECT a FROM t".repeat(times / 2)
            ),
            format!("SELECT t.a FROM t{}", joined(times / 2)),
            format!("SELECT {} AS x FROM t", deep("(", "a", ")", times)),
            format!("SELECT {} AS x FROM t", deep("- ", "a", "", times)),
            format!("SELECT {} AS x FROM t", deep("NOT ", "a = 1", "", times)),
            format!("SELECT {} AS x FROM t", deep("abs(", "a", ")", times)),
            format!(
                "SELECT * FROM {}",
                deep("(SELECT * FROM ", "t", ") AS s", times)
            ),
            format!("SELECT a FROM t WHERE a IN (0{})", ", 1".repeat(times)),
            format!("SELECT a FROM t WHERE a NOT IN (0{})", ", 1".repeat(times)),
            format!(
                "SELECT {} AS x FROM t",
                deep("CASE WHEN a = 1 THEN ", "1", " ELSE 2 END", times)
            ),
            format!(
                "SELECT CASE{} END AS x FROM t",
                " WHEN a = 1 THEN a".repeat(times)
            ),
            format!("SELECT a{} AS x FROM t", "::text::int".repeat(times / 4)),
        ]
    };
    let texts = [chains(45), chains(95), chains(10_000)].concat();
    for text in texts {
        let began = Instant::now();
        let fault = fault(&format!("{table}{text}"));
        assert!(
            began.elapsed() < PATIENCE,
            "{:.60}… of {} bytes",
            text,
            text.len()
        );
        assert!(fault.is_none(), "{:.60}… {fault:?}", text);
    }
}
