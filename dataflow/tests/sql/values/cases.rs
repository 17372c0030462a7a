//! Expressions that once came out unlike PostgreSQL's answer, from reports of users of other tools
//! and from public suites of other engines.

use rand::SeedableRng;
use rand::rngs::StdRng;
use tidemill_functions::Kind;

use crate::values::calls::Call;
use crate::values::judge::{Judge, Outcome};

const CASES: &[(&str, Kind)] = &[
    ("CAST(f1 + 1 AS bigint)", Kind::Long),
    ("CAST(n1 AS int)", Kind::Int),
    ("round(f1)", Kind::Double),
    ("ceil(n1)", Kind::Numeric),
    ("to_char(t1, 'YYYY-MM-DD')", Kind::Text),
    ("to_date('2024-02-29', 'YYYY-MM-DD')", Kind::Date),
    ("t1::text", Kind::Text),
    ("z1::text", Kind::Text),
    ("f1::text", Kind::Text),
    ("r1::text", Kind::Text),
    ("d1::text || f1 || o1", Kind::Text),
    ("concat(s1, o1, f1, t1, z1, d1, n1, y1)", Kind::Text),
    ("concat_ws(',', s1, o1, NULL, i1)", Kind::Text),
    ("s1 SIMILAR TO 'a%'", Kind::Bool),
    ("extract(second FROM t1)", Kind::Numeric),
    ("extract(decade FROM t1)", Kind::Numeric),
    ("date_trunc('century', t1)", Kind::Timestamp),
    ("date_trunc('millennium', z1)", Kind::Timestamptz),
    ("date_trunc('milliseconds', t1)", Kind::Timestamp),
    ("date_trunc(NULL, t1)", Kind::Timestamp),
    ("t1 - TIMESTAMP '2020-01-01' > INTERVAL '1 day'", Kind::Bool),
    ("z1 AT TIME ZONE 'UTC'", Kind::Timestamp),
    ("(i1, i2) = (7, 2)", Kind::Bool),
    ("(i1, i2) < (7, 3)", Kind::Bool),
    ("(NULL, 3) < (7, 3)", Kind::Bool),
    ("(i1, s1) IN ((1, 'a'), (2, s2))", Kind::Bool),
    ("i1 << 1", Kind::Int),
    ("to_hex(i1)", Kind::Text),
    ("to_hex(l1)", Kind::Text),
    ("n1 = f1", Kind::Bool),
    ("f1 IN (n1, f1)", Kind::Bool),
    ("f1 IN ('NaN', 1.5, -0.0)", Kind::Bool),
    ("f1 = 'NaN'", Kind::Bool),
    ("f1 > '1e300'::float8", Kind::Bool),
    ("d2 - INTERVAL '1' MONTH", Kind::Timestamp),
    ("f1 NOT IN (f2, NULL)", Kind::Bool),
    ("i1 IN (1, 2.5, n1)", Kind::Bool),
    ("f1 BETWEEN -1 AND 'Infinity'", Kind::Bool),
    ("s1 BETWEEN 'a' AND 'b'", Kind::Bool),
    (
        "CASE f1 WHEN 'NaN' THEN 1 WHEN 0 THEN 2 ELSE 3 END",
        Kind::Int,
    ),
    ("regexp_replace(s1, 'l', 'L', 'c')", Kind::Text),
    ("100.0 * i1 / (i2 - 7)", Kind::Numeric),
    ("f1 * 1e3", Kind::Double),
    ("1e20::float8", Kind::Double),
    (
        "25e-1::text || 1E2::text || 2.5e+3::text || 1e0::text",
        Kind::Text,
    ),
    ("i1 + 1e2", Kind::Numeric),
    ("n1 * .5e1", Kind::Numeric),
    ("n1 / 3", Kind::Numeric),
    ("n1 / 3 + n1 / 3 + n1 / 3", Kind::Numeric),
    ("1.5 + 1", Kind::Numeric),
    ("i1 / 2", Kind::Int),
    ("i1 % 0", Kind::Int),
    ("-i1", Kind::Int),
    ("l1 + 1", Kind::Long),
    ("l1 * l2", Kind::Long),
    ("greatest(f1, f2, 0)", Kind::Double),
    ("least(n1, i1)", Kind::Numeric),
    ("greatest(NULL, i1)", Kind::Int),
    ("coalesce(n1, 0)", Kind::Numeric),
    ("coalesce(NULL, s1, 'x')", Kind::Text),
    ("nullif(f1, 'NaN')", Kind::Double),
    ("nullif(i1, 1)", Kind::Int),
    ("CASE WHEN i1 <> 0 THEN 10 / i1 ELSE 0 END", Kind::Int),
    ("i1 <> 0 AND 10 / i1 > 1", Kind::Bool),
    ("i1 = 0 OR 10 / i1 > 1", Kind::Bool),
    ("s1 LIKE 'a!_b' ESCAPE '!'", Kind::Bool),
    ("s1 NOT ILIKE '%É%'", Kind::Bool),
    ("s1 || NULL", Kind::Text),
    ("substring(s1 FROM -1 FOR 3)", Kind::Text),
    ("substring(s1 FROM 'a')", Kind::Text),
    ("substring(s1, '1')", Kind::Text),
    ("substring(s1 FROM '^.(.*)$')", Kind::Text),
    ("substring('&' || s1 FROM '&([^&]*)')", Kind::Text),
    ("trim(LEADING 'a' FROM s1)", Kind::Text),
    ("trim(s1)", Kind::Text),
    ("overlay(s1 PLACING 'XX' FROM 2 FOR 1)", Kind::Text),
    ("position('b' IN s1)", Kind::Int),
    ("s1 ~* 'A'", Kind::Bool),
    ("s1 !~ '^a'", Kind::Bool),
    ("d1 + 1", Kind::Date),
    ("d1 - d2", Kind::Int),
    ("d1 + INTERVAL '1 month'", Kind::Timestamp),
    ("DATE '2024-01-31' + INTERVAL '1 month'", Kind::Timestamp),
    ("t1 - t2", Kind::Interval),
    ("extract(epoch FROM t1 - t2)", Kind::Numeric),
    ("extract(epoch FROM z1)::bigint", Kind::Long),
    ("extract(year FROM d1)::int", Kind::Int),
    ("i1::smallint", Kind::Int),
    ("i1::smallint << 3", Kind::Int),
    ("i1::smallint << i2", Kind::Int),
    ("(i1::smallint << 9) << 4", Kind::Int),
    ("(i1::smallint >> 1) << 15", Kind::Int),
    ("i1::smallint + i2::smallint", Kind::Int),
    ("i1::smallint * i2::smallint", Kind::Int),
    ("i1::smallint - 1", Kind::Int),
    ("- i1::smallint", Kind::Int),
    ("abs(i1::smallint)", Kind::Int),
    ("i1::smallint / i2::smallint", Kind::Int),
    ("(i1::smallint & i2) << 16", Kind::Int),
    ("coalesce(i1::smallint, i2::smallint) << 12", Kind::Int),
    ("CASE WHEN i1 > 0 THEN i1::smallint END << 12", Kind::Int),
    ("s1::varchar(2)", Kind::Text),
    ("s1::boolean", Kind::Bool),
    ("o1::int + 1", Kind::Int),
    ("d1 = '2024-02-29'", Kind::Bool),
    ("z1 > t1", Kind::Bool),
    ("t1::date = t2::date", Kind::Bool),
    ("2 ^ i1", Kind::Double),
    ("round(n2, 2)::text", Kind::Text),
    ("(n1 * 1.10)::text", Kind::Text),
    ("to_timestamp(i1)", Kind::Timestamptz),
    ("2147483648", Kind::Long),
    ("i1 + 2147483648", Kind::Long),
    ("r1 + f1", Kind::Double),
    ("r1 = 0.1", Kind::Bool),
    ("r1 IN (0.1, 0.5)", Kind::Bool),
    ("r1 IN (0.1)", Kind::Bool),
    ("r1 <> 16777217", Kind::Bool),
    ("l1 IN (r1, r2)", Kind::Bool),
    ("CAST(i1 AS bigint) IN (nullif(l1, l2), i1)", Kind::Bool),
    ("i1 IN (nullif(1, 2), coalesce(i2, i1))", Kind::Bool),
    ("i1 NOT IN (CASE WHEN o1 THEN i1 END, 7)", Kind::Bool),
    ("coalesce(n1, '0.125')", Kind::Numeric),
    ("greatest(n1, '0.1255', 1)", Kind::Numeric),
    ("nullif(i1, 2.5) / 2", Kind::Numeric),
    ("(i1, NULL) IS NULL", Kind::Bool),
    ("(i1, s1) IS NOT NULL", Kind::Bool),
    ("to_char(t1, '')", Kind::Text),
    ("r1 * 2", Kind::Double),
    ("i1 * 0.1", Kind::Numeric),
    ("f1 * 0.1", Kind::Double),
    ("f1 = 0.1", Kind::Bool),
    ("n1 IS DISTINCT FROM n2", Kind::Bool),
    ("l1 = n1", Kind::Bool),
    ("i1 = l1", Kind::Bool),
    ("NOT (s1 = 'a' OR NULL)", Kind::Bool),
    ("o1 IS NOT TRUE", Kind::Bool),
    ("o1 > o2", Kind::Bool),
    ("y1 < y2", Kind::Bool),
    ("'a' || 'b'", Kind::Text),
    ("i1 || ''", Kind::Text),
    ("upper('straße')", Kind::Text),
    ("length(s1)", Kind::Int),
];

#[test]
fn what_was_wrong_once_is_right() {
    let Some(mut judge) = Judge::connect(&mut StdRng::seed_from_u64(11)) else {
        return;
    };
    let mut wrong = Vec::new();
    for (sql, gives) in CASES {
        let call = Call {
            sql: (*sql).to_owned(),
            gives: *gives,
        };
        match judge.compare(&call) {
            Outcome::Refused(why) => wrong.push(format!("{call}: refused: {why}")),
            Outcome::Compared { differences, .. } => {
                wrong.extend(
                    differences
                        .first()
                        .map(|differs| format!("{call}: {differs}")),
                );
            }
        }
    }
    assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
}

/// What PostgreSQL refuses is refused, and what is not PostgreSQL's.
#[test]
fn what_has_no_answer_is_refused() {
    let Some(judge) = Judge::connect(&mut StdRng::seed_from_u64(11)) else {
        return;
    };
    let refused = [
        "s1 + 1",
        "s1 = i1",
        "d1 = i1",
        "o1 = i1",
        "'{\"a\": 1}'::jsonb::text",
        "cbrt(f1)",
        "nvl(i1, 1)",
        "to_char(n1, '999')",
        "sqrt(n1)",
        "power(n1, n1)",
        "TRY_CAST(s1 AS int)",
        "arrow_cast(i1, 'Int64')",
        "CAST(i1 AS date)",
        "(n1 / 3)::text",
        "round(n1, i1)",
        "s1::numeric",
        "CAST('x' AS int)",
        "i1 AND o1",
        "to_unixtime(t1)",
        "date_format(t1, '%Y')",
        "f1 % 2",
        "i1::text = i2",
        "1::text = 1",
        "substring(s1, '1', '#')",
        "substring(s1, '(a|b)')",
        "substr(s1, s2)",
        "substr(s1, 'a')",
        "substring(s1, 'a+?')",
        "s1 ~ '(?=a)'",
        "regexp_replace(s1, 'a|b', '\\1')",
        "t1 AT TIME ZONE 'CET'",
        "date_trunc('fortnight', t1)",
        "extract(fortnight FROM t1)",
        "encode(y1, 'base64')",
        "concat_ws(i1, s1)",
        "trunc('1.5')",
        "d1 + '1 day'",
        "'1' * '2'",
        "+ s1",
        "to_char(t1, 'TMMonth')",
        "to_char(t1, 'DDSP')",
        "INTERVAL s1",
        "substring(s1 FROM 'a' FOR '#')",
        "i1 ~ 'a'",
        "coalesce(i1, s1)",
        "CASE WHEN o1 THEN i1 ELSE s1 END",
        "i1 IN (s1)",
        "ends_with(s1, 'a')",
        "n1 / n2 / 3",
        "d1 - INTERVAL '1.5' DAY",
        "d1 + - INTERVAL '1 day'",
    ];
    for sql in refused {
        let call = Call {
            sql: sql.to_owned(),
            gives: Kind::Text,
        };
        assert!(judge.refuses(&call), "{sql} is not refused");
    }
}
