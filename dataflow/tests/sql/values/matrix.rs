//! Every pair of types under every operator and every construct that gives its operands one type:
//! the answer and its type are PostgreSQL's, or planning refuses what is written.
//!
//! There are many thousands: a run takes one of every [`SAMPLE`], and `TIDEMILL_TEST_MATRIX=all`
//! all of them.
//!
//! What PostgreSQL refuses must be refused: it has no such operator, finds several, or cannot give
//! the values one type.

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use tidemill_functions::{Kind, supported};

use crate::values::calls::Call;
use crate::values::judge::{Judge, Outcome};

/// Of this many expressions a run takes one.
const SAMPLE: usize = 20;

/// One operand of each type, and a second of the same type.
const COLUMNS: [(&str, &str); 13] = [
    ("o1", "o2"),
    ("i1", "i2"),
    ("l1", "l2"),
    ("n1", "n2"),
    ("r1", "r2"),
    ("f1", "f2"),
    ("s1", "s2"),
    ("y1", "y2"),
    ("d1", "d2"),
    ("t1", "t2"),
    ("z1", "z2"),
    ("(t1 - t2)", "(z1 - z2)"),
    ("j1", "j2"),
];

/// Literals: of no type yet, and of numbers' types.
const LITERALS: [(&str, &str); 8] = [
    ("NULL", "NULL"),
    ("'1'", "'2'"),
    ("'true'", "'false'"),
    ("'2024-02-29'", "'2023-03-01'"),
    ("'x'", "'1 day'"),
    ("7", "2"),
    ("3000000000", "16777217"),
    ("0.1", "2.5"),
];

const OPERATORS: [&str; 34] = [
    "=",
    "<>",
    "<",
    "<=",
    ">",
    ">=",
    "+",
    "-",
    "*",
    "/",
    "%",
    "^",
    "&",
    "|",
    "#",
    "<<",
    ">>",
    "||",
    "~",
    "!~*",
    "LIKE",
    "NOT ILIKE",
    "SIMILAR TO",
    "IS DISTINCT FROM",
    "IS NOT DISTINCT FROM",
    "AND",
    "AT TIME ZONE",
    "->",
    "->>",
    "@>",
    "<@",
    "?",
    "#>",
    "#-",
];

/// `A` and `B` are the operands, `C` is another of the type of `B`.
const CONSTRUCTS: [&str; 20] = [
    "coalesce(A, B)",
    "coalesce(B, C, A)",
    "nullif(A, B)",
    "greatest(A, B)",
    "least(A, B, C)",
    "CASE WHEN o1 THEN A ELSE B END",
    "CASE WHEN o1 THEN A WHEN o2 THEN C END",
    "CASE A WHEN B THEN 1 ELSE 0 END",
    "(A IN (B))",
    "(A IN (B, C))",
    "(A NOT IN (B, NULL))",
    "(A IN (B, 0.1, 7))",
    "(A BETWEEN B AND C)",
    "(A NOT BETWEEN C AND B)",
    "((A, i1) = (B, 7))",
    "((A, i1) < (B, 7))",
    "concat(A, B)",
    "nullif(A, B) / 2",
    "coalesce(A, B) / 2",
    "CASE WHEN A THEN B END",
];

/// Of one operand.
const ALONE: [&str; 12] = [
    "(- A)",
    "(+ A)",
    "(NOT A)",
    "(A IS TRUE)",
    "(A IS UNKNOWN)",
    "(A IS NULL)",
    "(A || '')",
    "('x' || A)",
    "(A + 1)",
    "(A * 0.1)",
    "(A = '1')",
    "A",
];

fn pairs() -> Vec<(&'static str, &'static str, &'static str)> {
    let mut pairs = Vec::new();
    for (a, _) in COLUMNS {
        for (b, c) in COLUMNS.iter().chain(&LITERALS) {
            pairs.push((a, *b, *c));
        }
    }
    for (a, _) in LITERALS {
        for (b, c) in COLUMNS.iter().chain(&LITERALS) {
            pairs.push((a, *b, *c));
        }
    }
    pairs
}

fn expressions() -> Vec<String> {
    let mut all = Vec::new();
    for (a, b, c) in pairs() {
        all.extend(OPERATORS.map(|operator| format!("({a} {operator} {b})")));
        all.extend(CONSTRUCTS.map(|form| filled(form, a, b, c)));
    }
    for (a, _) in COLUMNS.iter().chain(&LITERALS) {
        all.extend(ALONE.map(|form| filled(form, a, a, a)));
    }
    all
}

/// A form with its operands: capital letters that stand alone.
fn filled(form: &str, a: &str, b: &str, c: &str) -> String {
    let mut text = String::new();
    let word = |at: Option<char>| at.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
    let chars: Vec<char> = form.chars().collect();
    for (at, letter) in chars.iter().enumerate() {
        let before = at.checked_sub(1).and_then(|at| chars.get(at).copied());
        let alone = !word(before) && !word(chars.get(at + 1).copied());
        match letter {
            'A' if alone => text.push_str(a),
            'B' if alone => text.push_str(b),
            'C' if alone => text.push_str(c),
            other => text.push(*other),
        }
    }
    text
}

/// Calls of the table's functions over operands of all types.
fn calls(rng: &mut StdRng) -> Vec<String> {
    let mut all = Vec::new();
    let mut named: Vec<(&str, usize)> = supported()
        .iter()
        .filter(|entry| entry.name.starts_with(|c: char| c.is_ascii_lowercase()))
        .filter(|entry| {
            ![
                "comparable",
                "compare",
                "output",
                "smallint",
                "uuid",
                "varchar",
                "numeric",
                "json",
                "jsonb",
                "array",
                "element",
                "member",
                "extract",
                "position",
            ]
            .contains(&entry.name)
        })
        .map(|entry| (entry.name, entry.takes.len()))
        .collect();
    named.sort_unstable();
    named.dedup();
    let operands = || COLUMNS.iter().chain(&LITERALS).map(|(a, _)| *a);
    for (name, count) in named {
        match count {
            0 => all.push(format!("{name}()")),
            1 => all.extend(operands().map(|a| format!("{name}({a})"))),
            2 => {
                for a in operands() {
                    all.extend(operands().map(|b| format!("{name}({a}, {b})")));
                }
            }
            count => {
                for _ in 0..80 {
                    let args: Vec<&str> = (0..count)
                        .map(|_| *operands().collect::<Vec<_>>().choose(rng).unwrap())
                        .collect();
                    all.push(format!("{name}({})", args.join(", ")));
                }
            }
        }
    }
    all
}

fn kind_of(name: &str) -> Option<Kind> {
    Some(match name {
        "bool" => Kind::Bool,
        "int4" => Kind::Int,
        "int8" => Kind::Long,
        "numeric" => Kind::Numeric,
        "float4" => Kind::Real,
        "float8" => Kind::Double,
        // A document becomes a text in a view.
        "text" | "varchar" | "unknown" | "jsonb" => Kind::Text,
        "bytea" => Kind::Bytes,
        "date" => Kind::Date,
        "timestamp" => Kind::Timestamp,
        "timestamptz" => Kind::Timestamptz,
        "interval" => Kind::Interval,
        _ => return None,
    })
}

fn judged(mut expressions: Vec<String>, rng: &mut StdRng) {
    if std::env::var_os("TIDEMILL_TEST_MATRIX").is_none() {
        expressions.shuffle(rng);
        expressions.truncate(expressions.len() / SAMPLE);
    }
    let Some(mut judge) = Judge::connect(&mut StdRng::seed_from_u64(7)) else {
        return;
    };
    let mut wrong = Vec::new();
    let (mut compared, mut refused, mut errors) = (0, 0, 0);
    for sql in &expressions {
        let theirs = judge.their_type(sql);
        let kind = match &theirs {
            Ok(name) => kind_of(name),
            Err(_) => Some(Kind::Text),
        };
        let Some(gives) = kind else {
            continue;
        };
        let call = Call {
            sql: sql.clone(),
            gives,
        };
        let ours = judge.our_type(&call);
        match (ours, theirs) {
            (Err(_), Err(_)) => errors += 1,
            (Err(why), Ok(_)) => {
                if std::env::var_os("SHOW").is_some() {
                    eprintln!("{sql}: {why}");
                }
                refused += 1
            }
            (Ok(ours), Err(theirs)) => wrong.push(format!("{sql}: {ours:?} here; {theirs}")),
            (Ok(ours), Ok(theirs)) if ours != gives && gives != Kind::Interval => {
                wrong.push(format!("{sql}: {ours:?} here and {theirs} there"));
            }
            (Ok(_), Ok(_)) => {
                compared += 1;
                if let Outcome::Compared { differences, .. } = judge.compare(&call) {
                    let found = differences.iter().find(|d| !d.only_ours_fails());
                    wrong.extend(found.map(|d| format!("{sql}: {d}")));
                }
            }
        }
    }
    assert!(compared > errors / 100, "only {compared} compared");
    eprintln!("{compared} compared, {refused} refused here alone, {errors} refused by both");
    assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn operators_of_all_pairs_of_types() {
    let mut rng = StdRng::seed_from_u64(crate::values::seed());
    judged(expressions(), &mut rng);
}

#[test]
fn functions_of_all_types() {
    let mut rng = StdRng::seed_from_u64(crate::values::seed());
    judged(calls(&mut rng), &mut rng);
}
