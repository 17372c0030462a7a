//! PostgreSQL's types, each with values that are told apart, equal in two texts, or extreme.

/// A type, its values, and which of them have no value here.
pub(crate) struct Kind {
    /// As `CREATE TABLE` names it.
    pub(crate) name: &'static str,
    /// What a message calls it, where that is not its name.
    pub(crate) said: &'static str,
    /// As SQL literals; the first two also stand in the views' comparisons.
    pub(crate) values: &'static [&'static str],
    /// Those whose rows become dead letters.
    pub(crate) dead: &'static [&'static str],
}

const fn kind(name: &'static str, values: &'static [&'static str]) -> Kind {
    named(name, name, values, &[])
}

const fn named(
    name: &'static str,
    said: &'static str,
    values: &'static [&'static str],
    dead: &'static [&'static str],
) -> Kind {
    Kind {
        name,
        said,
        values,
        dead,
    }
}

/// What a database needs before it has columns of all [`KINDS`].
pub(crate) const SETUP: &str = "
    CREATE EXTENSION citext; CREATE EXTENSION hstore;
    CREATE TYPE mood AS ENUM ('sad', 'ok', 'glad');
    CREATE TYPE pair AS (a numeric, b text);
    CREATE TYPE span AS RANGE (subtype = float8);
    CREATE COLLATION loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
    CREATE DOMAIN amount AS numeric(12, 2); CREATE DOMAIN price AS amount CHECK (VALUE > -1e9);
    CREATE DOMAIN flag AS boolean; CREATE DOMAIN agreed AS flag;
    CREATE DOMAIN whole AS int; CREATE DOMAIN small AS whole CHECK (VALUE < 1000);
    CREATE DOMAIN code AS char(3); CREATE DOMAIN country AS code;
    CREATE DOMAIN feeling AS mood; CREATE DOMAIN list AS int[];";

/// All types, in the order of docs/types.md.
pub(crate) const KINDS: &[Kind] = &[
    kind("boolean", &["true", "false"]),
    named("smallint", "int", &["7", "-32768", "32767", "0"], &[]),
    kind("int", &["7", "-2147483648", "2147483647", "0"]),
    kind(
        "bigint",
        &[
            "9007199254740993",
            "9007199254740992",
            "-9223372036854775808",
            "9223372036854775807",
        ],
    ),
    named(
        "numeric(12,3)",
        "numeric",
        &[
            "1.5",
            "-0.001",
            "1.500",
            "999999999.999",
            "-999999999.999",
            "0",
        ],
        &["'NaN'"],
    ),
    named(
        "numeric(38,10)",
        "numeric",
        &[
            "0.0000000001",
            "9999999999999999999999999999.9999999999",
            "-9999999999999999999999999999.9999999999",
        ],
        &[],
    ),
    named(
        "numeric",
        "numeric",
        &[
            "1.10",
            "1.1",
            "1e50",
            "0",
            "-0.00000000000000000001",
            "1e-100",
            "'NaN'",
            "'Infinity'",
            "'-Infinity'",
            "9",
            "10",
        ],
        &[],
    ),
    named("numeric(60,2)", "numeric", &["9", "10", "1e50"], &[]),
    named("numeric(3,5)", "numeric", &["0.00999", "0.00012"], &[]),
    named(
        "numeric(5,-2)",
        "numeric",
        &["1200", "900", "-9999900"],
        &[],
    ),
    kind(
        "real",
        &[
            "1.5",
            "0",
            "'-0'",
            "'NaN'",
            "'Infinity'",
            "'-Infinity'",
            "7.038531e-26",
            "0.1",
            "1e-45",
            "-3.4028235e38",
        ],
    ),
    kind(
        "double precision",
        &[
            "1.5",
            "0",
            "'-0'",
            "'NaN'",
            "'Infinity'",
            "'-Infinity'",
            "0.1",
            "5e-324",
            "-1.7976931348623157e308",
        ],
    ),
    kind("money", &["'1.50'", "'-0.01'", "'92233720368547758.07'"]),
    kind(
        "text",
        &[
            "'a'",
            "'A'",
            "''",
            "' '",
            "'a '",
            "'ß🌊'",
            "E'\\x01'",
            "E'a\\\\0'",
            "'\u{e9}'",
            "'e\u{301}'",
            "'\u{feff}a'",
            "repeat('x', 9000)",
        ],
    ),
    named(
        "varchar(9)",
        "text",
        &["'a'", "'a '", "''", "'o''brien'"],
        &[],
    ),
    named(
        "char(5)",
        "char(n)",
        &["'a'", "'ab'", "'a  '", "''", "E'a\\x01'", "'A'"],
        &[],
    ),
    kind("bpchar", &["'a'", "'ab'", "'a  '", "''", "'A'"]),
    kind("citext", &["'a'", "'A'", "'b'", "''"]),
    named(
        "text COLLATE loose",
        "text of its own collation",
        &["'a'", "'A'", "'b'"],
        &[],
    ),
    kind("name", &["'b'", "'A'", "'Z'"]),
    kind("\"char\"", &["'a'", "'Z'", "'\\303'"]),
    kind("bytea", &["'\\x00ff'", "'\\x'", "'\\x00'", "'\\xff'"]),
    kind(
        "uuid",
        &[
            "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'",
            "'00000000-0000-0000-0000-000000000000'",
            "'{FFFFFFFF-ffff-ffff-ffff-ffffffffffff}'",
        ],
    ),
    named(
        "date",
        "date",
        &[
            "'2024-02-29'",
            "'1969-12-31'",
            "'0001-01-01'",
            "'9999-12-31'",
        ],
        &[
            "'infinity'",
            "'-infinity'",
            "'0044-03-15 BC'",
            "'10000-01-01'",
            "'5874897-12-31'",
        ],
    ),
    named(
        "timestamp",
        "timestamp",
        &[
            "'2024-02-29 12:00:00.123456'",
            "'1969-12-31 23:59:59.999'",
            "'0001-01-01'",
            "'9999-12-31 23:59:59.999999'",
        ],
        &[
            "'infinity'",
            "'-infinity'",
            "'0044-03-15 BC'",
            "'10000-01-01'",
            "'294276-12-31'",
        ],
    ),
    named(
        "timestamptz",
        "timestamptz",
        &[
            "'2024-03-31 02:30:00.000001+02'",
            "'1900-01-01 00:00Z'",
            "'0001-01-01 00:00Z'",
            "'9999-12-31 23:59:59.999999Z'",
        ],
        &[
            "'infinity'",
            "'-infinity'",
            "'0044-03-15 BC'",
            "'10000-01-01'",
            "'294276-12-31'",
        ],
    ),
    kind(
        "time",
        &[
            "'12:00:00'",
            "'12:00:00.5'",
            "'00:00'",
            "'24:00'",
            "'23:59:59.999999'",
        ],
    ),
    kind(
        "timetz",
        &[
            "'12:00:00+00'",
            "'13:00:00+01'",
            "'12:00+00'",
            "'11:00-15:59'",
            "'24:00+00'",
        ],
    ),
    kind(
        "interval",
        &[
            "'1 mon'",
            "'30 days'",
            "'1 day'",
            "'24:00'",
            "'-1 mon 2 days'",
            "'178000000 years'",
        ],
    ),
    kind(
        "json",
        &["'{\"a\": 1.0}'", "'{\"a\":1.0}'", "'null'", "'\"\\u0000\"'"],
    ),
    named(
        "jsonb",
        "json",
        &[
            "'{\"a\": 1.0}'",
            "'{\"a\": 1}'",
            "'{\"b\": 1, \"a\": [null]}'",
            "'null'",
        ],
        &[],
    ),
    kind("jsonpath", &["'$.a'", "'$.\"a\"'", "'$[*]'"]),
    kind("xml", &["'<a/>'", "'<a></a>'"]),
    kind(
        "inet",
        &[
            "'10.0.0.1'",
            "'9.0.0.1'",
            "'10.0.0.1/24'",
            "'10.0.0.1/32'",
            "'::1'",
            "'::ffff:1.2.3.4'",
        ],
    ),
    kind(
        "cidr",
        &["'10.0.0.0/8'", "'9.0.0.0/24'", "'10.0.0.0/24'", "'::/0'"],
    ),
    kind(
        "macaddr",
        &[
            "'08:00:2b:01:02:03'",
            "'00:00:00:00:00:00'",
            "'08-00-2B-01-02-03'",
        ],
    ),
    kind(
        "macaddr8",
        &["'08:00:2b:01:02:03:04:05'", "'ff:00:2b:01:02:03:04:05'"],
    ),
    named("bit(3)", "bit", &["'101'", "'000'", "'011'"], &[]),
    named(
        "varbit",
        "varbit",
        &["'1'", "'10'", "''", "'100000001'", "'01'"],
        &[],
    ),
    kind("point", &["'(1,2)'", "'(0,0)'", "'(NaN,Infinity)'"]),
    kind("line", &["'{1,2,3}'", "'{0,1,0}'"]),
    kind("lseg", &["'[(0,0),(1,1)]'", "'[(1,1),(0,0)]'"]),
    kind("box", &["'(1,1),(0,0)'", "'(2,1),(0,0)'"]),
    kind("path", &["'((0,0),(1,1))'", "'[(0,0),(1,1)]'"]),
    kind("polygon", &["'((0,0),(1,1),(1,0))'"]),
    kind("circle", &["'<(0,0),1>'", "'<(1,1),1>'"]),
    kind("tsvector", &["'a b'", "'b a'", "'a:1A'"]),
    kind("tsquery", &["'a & b'", "'!a'"]),
    kind("hstore", &["'a=>1, b=>NULL'", "'b=>NULL, a=>1'", "''"]),
    kind(
        "int4range",
        &["'[1,5)'", "'(0,4]'", "'empty'", "'(,)'", "'[10,11)'"],
    ),
    kind("int8range", &["'[1,5)'", "'(0,4]'", "'[10,11)'"]),
    kind("numrange", &["'[1.0,2.0)'", "'[1.00,2)'", "'[10,11)'"]),
    kind(
        "daterange",
        &[
            "'[2024-01-01,2024-02-01)'",
            "'[2024-01-01,infinity]'",
            "'(,)'",
        ],
    ),
    kind(
        "tsrange",
        &["'[2024-01-01,2024-02-01)'", "'[2024-01-01,2024-02-01]'"],
    ),
    kind(
        "tstzrange",
        &["'[2024-01-01 00:00Z,)'", "'[2024-01-01 01:00+01,)'"],
    ),
    named("span", "range", &["'[0,1)'", "'[-0,1)'"], &[]),
    kind(
        "int4multirange",
        &["'{[1,2),[5,9)}'", "'{[1,2),[2,9)}'", "'{}'"],
    ),
    kind("nummultirange", &["'{[1.0,2)}'", "'{[1.00,2)}'"]),
    kind("datemultirange", &["'{[2024-01-01,2024-02-01)}'", "'{}'"]),
    named(
        "int[]",
        "array",
        &[
            "'{1,NULL,3}'",
            "'{}'",
            "'{1,NULL,3}'",
            "'{{1,2},{3,4}}'",
            "'{10}'",
            "'{9}'",
        ],
        &[],
    ),
    named(
        "text[]",
        "array",
        &["'{a,\"b c\",NULL,\"\"}'", "'{\"NULL\"}'", "'{B}'"],
        &[],
    ),
    named("numeric[]", "array", &["'{1.0}'", "'{1.00}'"], &[]),
    named(
        "timestamptz[]",
        "array",
        &["'{2024-01-01 00:00Z,infinity}'"],
        &[],
    ),
    named("mood", "enum", &["'sad'", "'glad'", "'ok'"], &[]),
    named("mood[]", "array", &["'{sad,glad}'", "'{glad}'"], &[]),
    named(
        "pair",
        "composite",
        &["'(1.0,x)'", "'(1.00,x)'", "'(,)'", "'(10,\"a,b\")'"],
        &[],
    ),
    named("price", "numeric", &["9.75", "10.50", "-0.01"], &["'NaN'"]),
    named("agreed", "boolean", &["true", "false"], &[]),
    named("small", "int", &["7", "999"], &[]),
    named("country", "char(n)", &["'DE'", "'D'", "'DE '"], &[]),
    named("feeling", "enum", &["'sad'", "'glad'"], &[]),
    named("list", "array", &["'{1,2}'", "'{10}'"], &[]),
    named("oid", "bigint", &["7", "4294967295", "0"], &[]),
    kind("pg_lsn", &["'0/16B3748'", "'FF/0'", "'0/0'"]),
    kind("xid", &["'7'", "'4294967295'"]),
    kind("xid8", &["'7'", "'18446744073709551615'", "'10'"]),
    kind("cid", &["'7'"]),
    kind("tid", &["'(0,1)'", "'(10,1)'", "'(9,1)'"]),
    kind("regclass", &["'pg_class'", "'pg_type'"]),
    kind("regtype", &["'int4'", "'text'"]),
    named("pg_snapshot", "another type", &["'10:20:10,14'"], &[]),
];

impl Kind {
    /// The number of its rows in the table.
    pub(crate) fn group(&self) -> usize {
        let same = |other: &Kind| other.name == self.name;
        KINDS.iter().position(same).unwrap() + 1
    }

    /// The column's name.
    pub(crate) fn column(&self) -> String {
        let word = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
        let name: String = self.name.to_lowercase().chars().map(word).collect();
        format!("c_{}_{}", name.trim_matches('_'), self.group())
    }

    /// All values: those that have one here, then the others.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&'static str, bool)> {
        let alive = self.values.iter().map(|value| (*value, false));
        alive.chain(self.dead.iter().map(|value| (*value, true)))
    }

    /// Those without a value here that a snapshot finds.
    pub(crate) fn dead_in_snapshot(&self) -> impl Iterator<Item = &'static str> {
        let found = self.all().step_by(2).filter(|(_, dead)| *dead);
        found.map(|(value, _)| value)
    }
}
