//! SQL that calls an entry of the table, over columns and literals.

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use tidemill_functions::{Kind, Supported};

use crate::values::edges;

/// An expression and the kind of its value.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) sql: String,
    pub(crate) gives: Kind,
}

impl std::fmt::Display for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.sql)
    }
}

const UNITS: &[&str] = &[
    "microseconds",
    "milliseconds",
    "second",
    "minute",
    "hour",
    "day",
    "week",
    "month",
    "quarter",
    "year",
    "decade",
    "century",
    "millennium",
];
const FIELDS: &[&str] = &[
    "microseconds",
    "milliseconds",
    "second",
    "minute",
    "hour",
    "day",
    "week",
    "month",
    "quarter",
    "year",
    "decade",
    "century",
    "millennium",
    "isoyear",
    "dow",
    "isodow",
    "doy",
    "epoch",
];
const DATE_FIELDS: &[&str] = &[
    "day",
    "week",
    "month",
    "quarter",
    "year",
    "decade",
    "century",
    "millennium",
    "isoyear",
    "dow",
    "isodow",
    "doy",
    "epoch",
];
const SPAN_FIELDS: &[&str] = &[
    "microseconds",
    "milliseconds",
    "second",
    "minute",
    "hour",
    "day",
    "month",
    "quarter",
    "year",
    "decade",
    "century",
    "millennium",
    "epoch",
];
const TEMPLATES: &[&str] = &[
    "YYYY-MM-DD",
    "YYYY-MM-DD HH24:MI:SS",
    "YYYY-MM-DD\"T\"HH24:MI:SS.MS",
    "DD.MM.YYYY",
    "Mon DD, YYYY",
    "FMMonth FMDD, YYYY",
    "Day, DD Month YYYY",
    "HH12:MI:SS AM",
    "FMHH12:MI pm",
    "YYYYMMDD",
    "YY-MM",
    "Q",
    "YYYY-\"Q\"Q",
    "IYYY-IW",
    "IYYY-\"W\"IW-ID",
    "DDD",
    "D",
    "US",
    "FF3",
    "FF6",
    "SSSS",
    "CC",
    "J",
    "WW W",
    "MONTH",
    "month",
    "DAY|day|Dy|DY|dy",
    "MON mon",
    "DDth of Month",
    "FMDDth",
    "DDTH",
    "Y,YYY",
    "YYY Y",
    "RM rm",
    "FMRM",
    "BC AD",
    "A.M.",
    "OF TZH TZM",
    "\"literal YYYY\" YYYY",
    "hh24:mi:ss",
    "yyyy-mm-dd",
    "IDDD",
    "x\\\"y YYYY",
    "HH24MISS",
    "FMYYYY-FMMM-FMDD",
    "MM/DD/YYYY HH:MI",
    "TZ",
    "Dy, DD Mon YYYY",
    "FF1FF2FF4FF5",
    "DD MON YYYY",
    "HH24h MIm",
];
const PATTERNS: &[&str] = &[
    "a",
    "^a",
    "c$",
    "^$",
    "b+",
    "[a-c]",
    "[^a-c]",
    "[[:digit:]]+",
    "\\d+",
    "\\D",
    "\\w+",
    "\\W",
    "\\s+",
    "\\S",
    "a|b",
    "^(a|b)",
    "(ab)+",
    "a{2}",
    "a{2,}",
    "a{1,2}",
    "a.c",
    "a\\.b",
    "[]a]",
    "[^]]",
    "[a-]",
    "[.]",
    "x*",
    "(a)(b)?",
    "a?b?c?",
    "[[:space:]]",
    "[[:alpha:]]+",
    "[[:upper:]]",
    "[[:lower:]]",
    "[[:alnum:]]",
    "",
    "ß",
    "É",
    "[[:punct:]]",
    "(?:ab)",
    "a*(ab)?",
    "(a|ab)(c|bcd)?",
    ",",
    "[,.]",
    "\\\\",
    "_",
    "^\\s+|\\s+$",
    "[^0-9]",
    "[^[:alnum:]]+",
    "a**",
    "(",
    "*a",
    "a\\yb",
    "(?=a)",
    "(a)\\1",
    "[",
    "{",
    "a{",
    "a{1",
    "\\t",
    "[\\d]",
    "[\\w.]+",
    "é",
    "i",
    "I",
    "S",
    "s",
];
const SIMILARS: &[&str] = &[
    "a%",
    "%b%",
    "_",
    "a_c",
    "(a|b)%",
    "[a-c]%",
    "[^a]%",
    "%",
    "",
    "a+",
    "a*b",
    "a?",
    "(ab){1,2}",
    "a.b",
    "\\%",
    "%\\_%",
    "^a",
    "a$",
    "a|b",
    "[[:alpha:]]*",
    "abc",
    "%日%",
];
const LIKES: &[&str] = &[
    "a%", "%b", "%b%", "_", "__", "a_c", "%", "", "abc", "A%", "a\\%b", "a\\_b", "\\\\", "%\\\\%",
    "ß", "%É%", "é%", "_日%", "%語", "%%", "_%_", "a!%b", "%o_w%", "%aa", "ABC", "i", "%σ%", "%ς",
];
const ZONES: &[&str] = &[
    "Europe/Berlin",
    "America/New_York",
    "Asia/Kolkata",
    "UTC",
    "Australia/Lord_Howe",
    "Asia/Tokyo",
    "America/Sao_Paulo",
    "Pacific/Apia",
];
const REPLACEMENTS: &[&str] = &["", "X", "\\&\\&", "[\\1]", "\\\\", "$1", "a\\"];
const FLAGS: &[&str] = &["g", "i", "gi", "", "c", "ic", "gc"];
const KEYS: &[&str] = &[
    "a",
    "b",
    "c",
    "d",
    "",
    "0",
    "-1",
    "1",
    "longer key",
    "7",
    "x",
];
const NUMBER_TEMPLATES: &[&str] = &[
    "999",
    "000",
    "990",
    "099",
    "9",
    "0",
    "FM999",
    "FM000",
    "FM990",
    "9999999999",
    "999,999,999",
    "FM999,999,999",
    "FM999,990.00",
    "999,990.00",
    "9.9",
    "0.9",
    "FM9.9",
    "FM0.9",
    "FM9.99",
    "FM90.99",
    "FM990.90",
    "990.99",
    "000.00",
    "FM000.00",
    "999D99",
    "9G999D99",
    "FM9G999G999D00",
    "$999,999.99",
    "FM$999,990.00",
    "S999",
    "999S",
    "FMS999.99",
    "FM999.99S",
    "MI999",
    "999MI",
    "FM999.00MI",
    "FMMI999",
    "S000.0",
    "99999999999999999999",
    "009.90",
    "FM9999999990.999999",
    "\"no. \"FM999",
    "FM\"no. \"999",
    "999.9 %",
    "(999)",
    "0,000.0",
    "FM0,000",
    "9,9,9",
    "FM099,999",
    "999-99-9999",
    "FM00-00",
    "9990",
    "FM9990.0099",
    "0999.90",
];
const DATED: &[(&str, &str)] = &[
    ("2024-02-29", "YYYY-MM-DD"),
    ("29.02.2024", "DD.MM.YYYY"),
    ("20240229", "YYYYMMDD"),
    ("2023-02-29", "YYYY-MM-DD"),
    ("2024-13-01", "YYYY-MM-DD"),
    ("2024-1-5", "YYYY-MM-DD"),
    ("05 Mar 2024", "DD Mon YYYY"),
    ("March 05, 2024", "Month DD, YYYY"),
    ("2024", "YYYY"),
    ("2024-07", "YYYY-MM"),
    ("2024-02-29 23:59:58", "YYYY-MM-DD HH24:MI:SS"),
    ("2024-02-29 12:59:58 AM", "YYYY-MM-DD HH12:MI:SS AM"),
    ("2024-02-29 11:00 PM", "YYYY-MM-DD HH12:MI PM"),
    ("2024-02-29 24:00", "YYYY-MM-DD HH24:MI"),
    ("2024-02-29 10:11:12.345", "YYYY-MM-DD HH24:MI:SS.MS"),
    ("2024-02-29 10:11:12.345678", "YYYY-MM-DD HH24:MI:SS.US"),
    ("02/29/2024", "MM/DD/YYYY"),
    ("2024-00-10", "YYYY-MM-DD"),
    ("0000-01-01", "YYYY-MM-DD"),
    ("9999-12-31", "YYYY-MM-DD"),
    ("2024-02-29x", "YYYY-MM-DD"),
    ("", "YYYY-MM-DD"),
    ("20240229T101112", "YYYYMMDD\"T\"HH24MISS"),
    ("2024-06-31", "YYYY-MM-DD"),
    ("2024-02-29 10:60:00", "YYYY-MM-DD HH24:MI:SS"),
];

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn pick<'a>(among: &[&'a str], rng: &mut StdRng) -> &'a str {
    among.choose(rng).unwrap()
}

/// How often an entry is called: more where literals decide what it does.
pub(crate) fn variants(entry: &Supported, calls: usize) -> usize {
    match entry.name {
        _ if entry.refused.is_some() => 1,
        "to_char" | "to_date" | "to_timestamp" | "date_trunc" | "extract" | "date_part" => {
            calls * 8
        }
        "~" | "~*" | "regexp_replace" | "SIMILAR TO" | "LIKE" | "ILIKE" => calls * 8,
        "substring" if entry.takes[1] == Kind::Text => calls * 8,
        "->" | "->>" | "#>" | "#>>" | "@>" | "<@" | "#-" | "jsonb_set" | "jsonb_insert" => {
            calls * 6
        }
        "?" | "?|" | "?&" | "jsonb_extract_path" | "json_extract_path" => calls * 3,
        "/" | "round" | "CAST" | "numeric" | "AT TIME ZONE" => calls * 2,
        _ => calls,
    }
}

/// A column or a literal of a kind.
fn leaf(kind: Kind, rng: &mut StdRng) -> String {
    match column(kind, rng) {
        Some(column) if rng.random_range(0..10) > 0 => column,
        _ => literal(kind, rng),
    }
}

fn column(kind: Kind, rng: &mut StdRng) -> Option<String> {
    let columns = edges::COLUMNS.iter().filter(|(_, of, _)| *of == kind);
    let columns: Vec<&str> = columns.map(|(name, ..)| *name).collect();
    columns.choose(rng).map(|column| (*column).to_owned())
}

fn literal(kind: Kind, rng: &mut StdRng) -> String {
    let value = pick(edges::of(kind), rng);
    match kind {
        Kind::Int if value != "-2147483648" => value.to_owned(),
        Kind::Numeric if value.bytes().all(|b| b.is_ascii_digit() || b == b'.') => {
            let exponents = ["", "e0", "E1", "e-1", "e+3"];
            let bare = format!("{value}{}", exponents.choose(rng).unwrap());
            // Without a point or an exponent it would be an int.
            let typed = bare.contains(['.', 'e', 'E']);
            if typed { bare } else { format!("{bare}.0") }
        }
        Kind::Interval => format!("INTERVAL '{value}'"),
        kind => format!("CAST({} AS {})", quoted(value), declared(kind)),
    }
}

fn declared(kind: Kind) -> &'static str {
    match kind {
        Kind::Numeric => "numeric(10,2)",
        kind => kind.name(),
    }
}

/// The literal that an argument of some entries must be, or is best.
fn particular(entry: &Supported, place: usize, rng: &mut StdRng) -> Option<String> {
    let text = match (entry.name, place) {
        ("date_trunc", 0) => pick(UNITS, rng),
        ("extract" | "date_part", 0) => match entry.takes[1] {
            Kind::Date => pick(DATE_FIELDS, rng),
            Kind::Interval => pick(SPAN_FIELDS, rng),
            _ => pick(FIELDS, rng),
        },
        ("to_char", 1) if numbers(entry.takes[0]) => pick(NUMBER_TEMPLATES, rng),
        ("to_char", 1) => pick(TEMPLATES, rng),
        ("~" | "~*" | "!~" | "!~*" | "regexp_like" | "regexp_replace", 1) => pick(PATTERNS, rng),
        ("substring", 1) if entry.takes[1] == Kind::Text => pick(PATTERNS, rng),
        ("regexp_replace", 2) => pick(REPLACEMENTS, rng),
        ("regexp_replace", 3) => pick(FLAGS, rng),
        ("regexp_like", 2) => pick(&["i", "c", "", "g"], rng),
        ("LIKE" | "ILIKE", 1) if rng.random_range(0..5) > 0 => pick(LIKES, rng),
        ("SIMILAR TO", 1) => pick(SIMILARS, rng),
        ("AT TIME ZONE", 1) => pick(ZONES, rng),
        ("encode" | "decode", 1) => "hex",
        ("->" | "->>" | "?" | "-", 1) if entry.takes[1] == Kind::Text => pick(KEYS, rng),
        ("->" | "->>" | "-", 1)
            if entry.takes[0] != entry.takes[1] && entry.takes[1] == Kind::Int =>
        {
            return Some(pick(&["0", "1", "-1", "2", "-3", "(i1 % 3)"], rng).to_owned());
        }
        (name, 1..) if name.contains("_extract_path") => pick(KEYS, rng),
        ("#>" | "#>>" | "#-" | "?|" | "?&" | "jsonb_set" | "jsonb_insert", 1) => {
            pick(edges::ARRAYS, rng)
        }
        ("string_to_array", 1) => pick(&[",", "", " ", "a", "b"], rng),
        ("array_to_string", 1) => pick(&[",", "", " - "], rng),
        ("array_length" | "array_upper", 1) => {
            return Some(pick(&["1", "2", "0", "i1"], rng).to_owned());
        }
        ("round" | "trunc", 1) => {
            return Some(pick(&["0", "1", "2", "-1", "3", "-3", "6"], rng).to_owned());
        }
        ("repeat", 1) | ("lpad" | "rpad", 1) => {
            return Some(pick(&["0", "1", "3", "7", "-1", "i1 % 9"], rng).to_owned());
        }
        ("split_part", 1) => pick(&[",", "", " ", "a", "aa", "b", "bc"], rng),
        ("split_part" | "left" | "right" | "substr" | "substring" | "overlay", 1..)
            if entry.takes[place] == Kind::Int && rng.random_range(0..2) == 0 =>
        {
            return Some(pick(&["0", "1", "2", "3", "-1", "-2", "100", "-100"], rng).to_owned());
        }
        ("make_date", 0) => {
            return Some(format!(
                "(i1 % 1 + {})",
                pick(&["2024", "-44", "0", "1", "9999", "i1"], rng)
            ));
        }
        ("make_date", 1) => {
            return Some(format!(
                "(i1 % 1 + {})",
                pick(&["1", "2", "12", "13", "0", "i2"], rng)
            ));
        }
        ("make_date", 2) => {
            return Some(format!(
                "(i1 % 1 + {})",
                pick(&["1", "28", "29", "31", "0", "i3"], rng)
            ));
        }
        _ => return None,
    };
    Some(quoted(text))
}

/// Texts that are uuids or nearly.
const UUIDS: [&str; 6] = [
    "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
    "{A0EEBC999C0B4EF8BB6D6BB9BD380A11}",
    "a0ee-bc99-9c0b-4ef8-bb6d-6bb9-bd38-0a11",
    "a0eebc99",
    "",
    "a0eebc99-9c0b-4ef8-bb6d6bb9bd380a11",
];

/// SQL of an entry over these arguments; none for what SQL cannot say by itself.
fn written(entry: &Supported, args: &[String], rng: &mut StdRng) -> Option<String> {
    Some(match (entry.name, args) {
        ("comparable" | "compare" | "json" | "jsonb" | "element" | "member", _) => return None,
        ("json_build_object" | "jsonb_build_object", [_, a, ..]) => {
            let key = pick(&["s1", "i1", "f1", "o1", "d1", "t1", "z1", "n1"], rng);
            format!("{}('k', {a}, concat({key}), i2)", entry.name)
        }
        ("array", args) => format!("ARRAY[{}]", args.join(", ")),
        ("= ANY", [a, b]) => format!("({a} = ANY ({b}))"),
        ("output", [a]) => format!("concat({a})"),
        ("smallint", [a]) => format!("CAST({a} AS smallint)"),
        ("uuid", [_]) => {
            let uuid = pick(&UUIDS, rng);
            format!(
                "CAST(CAST(concat({}, left(s1, 0)) AS uuid) AS text)",
                quoted(uuid)
            )
        }
        ("varchar", [a, _]) => format!("CAST({a} AS varchar({}))", pick(&["1", "3", "10"], rng)),
        ("CAST", [a]) if entry.takes == [Kind::Text] && entry.gives == Kind::Texts => {
            let text = pick(edges::ARRAYS, rng);
            format!("CAST(concat({}, left({a}, 0)) AS text[])", quoted(text))
        }
        ("CAST", [_]) if entry.takes == [Kind::Text] && is_document(entry.gives) => {
            let text = pick(edges::DOCUMENTS, rng);
            let kind = entry.gives.name();
            format!("CAST(concat({}, left(s1, 0)) AS {kind})", quoted(text))
        }
        ("numeric", [a, ..]) => {
            let kind = pick(&["10,2", "5,0", "20,6", "3,3", "30,10"], rng);
            format!("CAST({a} AS numeric({kind}))")
        }
        ("CAST", [a]) if entry.gives == Kind::Numeric => format!("CAST({a} AS numeric)"),
        ("CAST", [a]) => format!("CAST({a} AS {})", entry.gives.name()),
        ("extract", [unit, a]) => format!("extract({} FROM {a})", unit.trim_matches('\'')),
        ("trim", [a, b]) => format!("trim({b} FROM {a})"),
        ("position", [a, b]) => format!("position({a} IN {b})"),
        ("LIKE" | "ILIKE" | "SIMILAR TO", [a, b, _]) => {
            let escape = if rng.random_range(0..3) == 0 {
                " ESCAPE '!'"
            } else {
                ""
            };
            format!("({a} {} {b}{escape})", entry.name)
        }
        ("AT TIME ZONE", [a, b]) => format!("({a} AT TIME ZONE {b})"),
        ("to_date" | "to_timestamp", [_, _]) => {
            let (text, template) = DATED.choose(rng).unwrap();
            format!(
                "{}(concat({}, left(s1, 0)), {})",
                entry.name,
                quoted(text),
                quoted(template)
            )
        }
        (name, [a, b]) if !name.starts_with(|c: char| c.is_ascii_lowercase()) => {
            format!("({a} {name} {b})")
        }
        (name, [a]) if !name.starts_with(|c: char| c.is_ascii_lowercase()) => {
            format!("({name} ({a}))")
        }
        (name, args) => format!("{name}({})", args.join(", ")),
    })
}

fn numbers(kind: Kind) -> bool {
    matches!(kind, Kind::Int | Kind::Long | Kind::Numeric)
}

fn is_document(kind: Kind) -> bool {
    matches!(kind, Kind::Json | Kind::Jsonb)
}

/// A call of an entry over columns and literals.
pub(crate) fn call(entry: &Supported, rng: &mut StdRng) -> Option<Call> {
    with(entry, rng, &mut leaf)
}

fn with(
    entry: &Supported,
    rng: &mut StdRng,
    argument: &mut dyn FnMut(Kind, &mut StdRng) -> String,
) -> Option<Call> {
    let mut args = Vec::new();
    for (place, kind) in entry.takes.iter().enumerate() {
        let particular = particular(entry, place, rng);
        args.push(particular.unwrap_or_else(|| argument(*kind, rng)));
    }
    if let (true, Some(last)) = (entry.more, entry.takes.last()) {
        for _ in 0..rng.random_range(0..3) {
            args.push(argument(*last, rng));
        }
    }
    let sql = written(entry, &args, rng)?;
    Some(Call {
        sql,
        gives: entry.gives,
    })
}

/// An expression of a kind, whose arguments are expressions.
pub(crate) fn nested(table: &[Supported], kind: Kind, depth: usize, rng: &mut StdRng) -> Call {
    let shape = rng.random_range(0..12);
    if depth == 0 {
        // PostgreSQL evaluates constants before any row, also those that no row comes to.
        let column = column(kind, rng);
        return Call {
            sql: column.unwrap_or_else(|| literal(kind, rng)),
            gives: kind,
        };
    }
    let part = |kind, rng: &mut StdRng| nested(table, kind, depth - 1, rng).sql;
    let sql = match shape {
        0 => {
            let when = part(Kind::Bool, rng);
            format!(
                "CASE WHEN {when} THEN {} ELSE {} END",
                part(kind, rng),
                part(kind, rng)
            )
        }
        1 => format!("coalesce({}, {})", part(kind, rng), part(kind, rng)),
        // A json has no equality.
        2 if kind != Kind::Json => {
            format!("nullif({}, {})", part(kind, rng), part(kind, rng))
        }
        3 if kind == Kind::Bool => {
            let word = pick(&["AND", "OR"], rng);
            format!("({} {word} {})", part(kind, rng), part(kind, rng))
        }
        4 if kind == Kind::Bool => format!("(NOT {})", part(kind, rng)),
        5 if kind == Kind::Bool => {
            let of = Kind::ALL[rng.random_range(0..11)];
            let (a, b, c) = (part(of, rng), part(of, rng), part(of, rng));
            let not = pick(&["", "NOT "], rng);
            match rng.random_range(0..2) {
                0 => format!("({a} {not}IN ({b}, {c}))"),
                _ => format!("({a} {not}BETWEEN {b} AND {c})"),
            }
        }
        6 if kind == Kind::Bool => {
            let of = Kind::ALL[rng.random_range(0..11)];
            format!("({} IS NOT NULL)", part(of, rng))
        }
        7 if kind == Kind::Bool => {
            let op = pick(&["<", "<=", "=", "<>", ">", ">="], rng);
            let (a, b) = (part(Kind::Int, rng), part(Kind::Text, rng));
            format!(
                "(({a}, {b}) {op} ({}, {}))",
                part(Kind::Int, rng),
                part(Kind::Text, rng)
            )
        }
        _ => {
            let fits: Vec<&Supported> = table
                .iter()
                .filter(|e| e.gives == kind && e.refused.is_none())
                .collect();
            let Some(entry) = fits.choose(rng) else {
                return Call {
                    sql: leaf(kind, rng),
                    gives: kind,
                };
            };
            let deeper = |kind, rng: &mut StdRng| nested(table, kind, depth - 1, rng).sql;
            match with(entry, rng, &mut { deeper }) {
                Some(call) => call.sql,
                None => leaf(kind, rng),
            }
        }
    };
    Call { sql, gives: kind }
}
