//! The views that are tested: every operator and kind of aggregate, in SQL that PostgreSQL
//! understands too.

use std::fmt::Write;

use crate::feed::Envelope;

/// One view.
#[derive(Clone, Copy)]
pub(crate) struct View {
    pub(crate) name: &'static str,
    /// Primary key; empty for an internal view.
    pub(crate) key: &'static str,
    pub(crate) select: &'static str,
}

/// The columns of both tables, in the words that PostgreSQL and the planner share.
pub(crate) const COLUMNS: [(&str, &str); 14] = [
    ("id", "int"),
    ("grp", "text"),
    ("sub", "int"),
    ("flag", "boolean"),
    ("small", "smallint"),
    ("n", "int"),
    ("big", "bigint"),
    ("huge", "bigint"),
    ("f", "double precision"),
    ("d", "numeric(12,2)"),
    ("txt", "text"),
    ("day", "date"),
    ("at", "timestamp"),
    ("tz", "timestamptz"),
];

pub(crate) const TABLES: [&str; 2] = ["items", "extras"];

/// The whole `views.sql`.
pub(crate) fn sql(envelope: Envelope, views: &[View]) -> String {
    let columns: Vec<String> = COLUMNS
        .iter()
        .map(|(name, kind)| format!("{name} {kind}"))
        .collect();
    let columns = columns.join(", ");
    let key = match envelope {
        Envelope::Append => "",
        _ => ", PRIMARY KEY (id)",
    };
    let envelope = envelope.name();
    let mut sql = String::new();
    for table in TABLES {
        writeln!(
            sql,
            "CREATE TABLE {table} ({columns}{key}) WITH (format = 'json', envelope = '{envelope}');"
        )
        .unwrap();
    }
    for view in views {
        let with = match view.key {
            "" => String::new(),
            key => format!(" WITH (primary_key = '{key}')"),
        };
        let View { name, select, .. } = view;
        writeln!(sql, "CREATE MATERIALIZED VIEW {name}{with} AS {select};").unwrap();
    }
    sql
}

/// All views, in dependency order.
pub(crate) fn views() -> Vec<View> {
    [STATELESS, GROUPED, SETS, LAYERED]
        .iter()
        .flat_map(|views| views.iter())
        .map(|&(name, key, select)| View { name, key, select })
        .collect()
}

type Views = &'static [(&'static str, &'static str, &'static str)];

const STATELESS: Views = &[
    ("whole", "id", "SELECT * FROM items"),
    (
        "filtered",
        "id",
        "SELECT id, n::bigint + 1 AS n1, big * 2 AS b2, f / 4 AS f4, d + 1 AS d1, txt || '!' AS
            bang,
            NOT flag AS nf FROM items WHERE n > 0 OR grp IS NULL",
    ),
    (
        "texts",
        "id",
        "SELECT id, upper(txt) AS up, lower(txt) AS low, char_length(grp) AS chars, trim(txt) AS t,
            substr(grp, 2, 2) AS sub2, replace(txt, 'a', 'bb') AS rep, left(grp, 1) AS l,
            right(grp, 1) AS r, reverse(grp) AS rev, lpad(txt, 5, '*') AS lp,
            rpad(txt, 5, '*') AS rp, strpos(txt, 'b') AS pos, concat(grp, '-', n) AS con,
            coalesce(grp, txt, '?') AS co, nullif(txt, 'b') AS nul,
            repeat(txt, 2) AS twice, split_part(txt, ' ', 1) AS part, starts_with(txt, 'a') AS sw,
            octet_length(grp) AS bytes, ascii(grp) AS code, initcap(txt) AS ini,
            btrim(txt, 'a') AS bt FROM items",
    ),
    (
        "numbers",
        "id",
        "SELECT id, abs(big) AS a, ceil(f) AS c, floor(f) AS fl, trunc(f) AS tr, n % 7 AS m,
            big / 7 AS q, -small AS neg, sqrt(abs(f)) AS root, power(f / 1000000, 2) AS p,
            greatest(n, sub) AS g, least(n, sub) AS le, d * 2 AS dd, d - d AS zero,
            exp(f / 100000000000) AS e, ln(abs(f) + 1) AS ln1, n & 6 AS band, small * 3 AS s3
                FROM items",
    ),
    (
        "times",
        "id",
        "SELECT id, date_trunc('month', at) AS m, date_trunc('hour', at) AS h,
            date_part('year', day)::int AS y, date_part('month', at)::int AS mo,
            date_part('dow', day)::int AS dow, date_part('doy', day)::int AS doy,
            extract(day FROM at)::int AS d, day::text AS dt, at::date AS ad,
            day < DATE '1970-01-01' AS old, tz > TIMESTAMPTZ '2000-01-01 00:00:00+02' AS late,
            date_trunc('day', tz) AS td FROM items
            WHERE at > TIMESTAMP '1700-01-01 00:00:00' AND at < TIMESTAMP '2200-01-01 00:00:00'",
    ),
    (
        "conditions",
        "id",
        "SELECT id, CASE WHEN n > 0 THEN 'plus' WHEN n < 0 THEN 'minus' ELSE txt END AS sign,
            CASE grp WHEN 'a' THEN 1 WHEN 'b' THEN 2 END AS simple, n IN (1, 2, NULL) AS within,
            n NOT IN (1, 2) AS without, n BETWEEN -1 AND 1 AS near, txt LIKE 'a%' AS starts,
            txt ILIKE '%B' AS ends, grp IS DISTINCT FROM txt AS differs, flag IS TRUE AS yes,
            flag IS NOT FALSE AS maybe, f = 0 AS nought, txt ~ '^[ab]+$' AS matches,
            CASE WHEN n <> 0 THEN 100 / n END AS guarded FROM items",
    ),
    (
        "casts",
        "id",
        "SELECT id, n::text AS nt, big::text AS bt, flag::text AS ft, flag::int AS fi,
            d::double precision AS dd, n::numeric(12,2) AS nn, big::double precision AS bd,
            n::bigint AS nb, small::double precision AS sd, d::text AS dt FROM items",
    ),
    (
        "none",
        "id",
        "SELECT id, n FROM items WHERE n > 5 AND n < 3",
    ),
    (
        "guarded",
        "id",
        "SELECT id, 100 / n AS q FROM items WHERE n <> 0 AND 100 / n > 1",
    ),
    (
        "conflicting",
        "k",
        "SELECT sub AS k, id, txt FROM items WHERE sub IS NOT NULL",
    ),
];

const GROUPED: Views = &[
    (
        "every_kind",
        "g",
        "SELECT coalesce(grp, '(none)') AS g, count(*) AS rows, count(n) AS ns, sum(n) AS s,
            avg(n) AS a, min(n) AS mi, max(n) AS ma, count(DISTINCT n) AS dn,
            sum(DISTINCT n) AS ds, avg(DISTINCT n) AS da, bool_and(flag) AS every,
            bool_or(flag) AS some, sum(f) AS fs, avg(f) AS fa, sum(d) AS dsum, avg(d) AS davg,
            count(DISTINCT txt) AS texts FROM items GROUP BY coalesce(grp, '(none)')",
    ),
    (
        "totals_only",
        "sub",
        "SELECT sub, count(*) AS c, sum(big) AS s, avg(big) AS a, sum(small) AS ss FROM items
            WHERE sub IS NOT NULL GROUP BY sub",
    ),
    (
        "null_groups",
        "g",
        "SELECT coalesce(grp, '(none)') AS g, grp, count(*) AS c, max(at) AS m FROM items GROUP
            BY grp",
    ),
    (
        "extremes",
        "sub",
        "SELECT sub, min(huge) AS h1, max(huge) AS h2, min(f) AS f1, max(f) AS f2, min(d) AS d1,
            max(d) AS d2, min(txt) AS t1, max(txt) AS t2, min(day) AS a1, max(day) AS a2,
            min(at) AS m1, max(at) AS m2, min(tz) AS z1, max(tz) AS z2, max(grp) AS g2,
                min(grp) AS g1
            FROM items WHERE sub IS NOT NULL GROUP BY sub",
    ),
    (
        "of_all_null",
        "id",
        "SELECT id % 5 AS id, sum(n) AS s, min(n) AS mi, avg(f) AS a, bool_and(flag) AS b,
            count(n) AS c, count(DISTINCT n) AS dc FROM items
            WHERE n IS NULL AND f IS NULL GROUP BY id % 5",
    ),
    (
        "with_filters",
        "id",
        "SELECT id % 4 AS id, count(*) FILTER (WHERE n > 0) AS plus, sum(big) FILTER (WHERE
            flag) AS s,
            max(d) FILTER (WHERE NOT flag) AS m, count(DISTINCT txt) FILTER (WHERE n < 0) AS t,
            avg(f) FILTER (WHERE grp = 'a') AS a, bool_or(flag) FILTER (WHERE n = 0) AS b,
            count(*) FILTER (WHERE false) AS nothing FROM items GROUP BY id % 4",
    ),
    (
        "filter_guards",
        "id",
        "SELECT id % 3 AS id, count(*) AS c, sum(100 / n) FILTER (WHERE n <> 0) AS s,
            max(100 / n) FILTER (WHERE n <> 0) AS m, min(1000 / n) FILTER (WHERE n > 0) AS mi,
            count(DISTINCT 50 / n) FILTER (WHERE n <> 0) AS d FROM items GROUP BY id % 3",
    ),
    (
        "having_some",
        "g",
        "SELECT coalesce(txt, '~') AS g, count(*) AS c, sum(n) AS s FROM items
            GROUP BY coalesce(txt, '~') HAVING count(*) > 4 AND sum(n) IS NOT NULL",
    ),
    (
        "global",
        "id",
        "SELECT 'all' AS id, count(*) AS c, sum(n) AS s, min(f) AS mi, max(txt) AS ma, avg(d) AS a,
            count(DISTINCT grp) AS g, bool_and(flag) AS b FROM items",
    ),
    (
        "global_of_nothing",
        "id",
        "SELECT 'none' AS id, count(*) AS c, count(DISTINCT n) AS d, sum(n) AS s, min(n) AS m
            FROM items WHERE id < 0",
    ),
    (
        "only_count",
        "id",
        "SELECT 1 AS id, count(*) AS c FROM items",
    ),
    (
        "global_having",
        "id",
        "SELECT 1 AS id, max(big) AS m FROM items HAVING count(*) % 2 = 0",
    ),
    (
        "composite",
        "(s, fl), t",
        "SELECT sub AS s, flag AS fl, txt AS t, count(*) AS c, min(n) AS m FROM items
            WHERE sub IS NOT NULL AND flag IS NOT NULL AND txt IS NOT NULL GROUP BY sub, flag, txt",
    ),
    (
        "by_month",
        "m",
        "SELECT date_trunc('month', at) AS m, count(*) AS c, sum(n % 3) AS s FROM items
            WHERE at > TIMESTAMP '1700-01-01 00:00:00' AND at < TIMESTAMP '2200-01-01 00:00:00'
            GROUP BY date_trunc('month', at)",
    ),
    (
        "by_float",
        "f",
        "SELECT f, count(*) AS c, count(DISTINCT f) AS d FROM items WHERE f IS NOT NULL GROUP BY f",
    ),
    (
        "by_decimal",
        "d",
        "SELECT d, count(*) AS c, max(n) AS m FROM items WHERE d IS NOT NULL GROUP BY d",
    ),
    (
        "expressions_over",
        "k",
        "SELECT n % 4 AS k, sum(n) + count(*) AS sc, max(n)::bigint - min(n) AS span,
            CASE WHEN count(n) > 2 THEN 'many' ELSE 'few' END AS size, sum(n)::double precision
                / count(*) AS r
            FROM items WHERE n IS NOT NULL GROUP BY n % 4",
    ),
];

const SETS: Views = &[
    (
        "distinct_rows",
        "k",
        "SELECT DISTINCT concat(coalesce(grp, '~'), '/', coalesce(sub::text, '~')) AS k, grp,
            sub FROM items",
    ),
    (
        "distinct_floats",
        "f",
        "SELECT DISTINCT f FROM items WHERE f IS NOT NULL",
    ),
    (
        "united",
        "(src), id",
        "SELECT 'i' AS src, id, n::bigint AS v FROM items UNION ALL SELECT 'e' AS src, id, big
            AS v FROM extras",
    ),
    (
        "either",
        "k",
        "SELECT coalesce(txt, '~') AS k FROM items UNION SELECT coalesce(grp, '~') AS k FROM
            extras",
    ),
    (
        "union_totals",
        "g",
        "SELECT g, sum(v) AS s, count(*) AS c, min(v) AS m FROM (
            SELECT coalesce(grp, '~') AS g, n::bigint AS v FROM items
            UNION ALL SELECT coalesce(txt, '~') AS g, big AS v FROM extras WHERE n > 0
            UNION ALL SELECT 'self' AS g, id::bigint AS v FROM items) AS u GROUP BY g",
    ),
];

const LAYERED: Views = &[
    (
        "inner_groups",
        "",
        "SELECT grp, sub, count(*) AS c, sum(n) AS s, max(f) AS m FROM items GROUP BY grp, sub",
    ),
    (
        "outer_groups",
        "c",
        "SELECT c, count(*) AS groups, sum(s) AS s, max(m) AS m FROM inner_groups GROUP BY c",
    ),
    (
        "outer_global",
        "id",
        "SELECT 1 AS id, max(c) AS most, min(s) AS least, count(DISTINCT grp) AS g FROM
            inner_groups",
    ),
    (
        "twice",
        "k",
        "SELECT c AS k, count(*) AS n FROM (SELECT c FROM outer_groups UNION ALL
            SELECT groups AS c FROM outer_groups) AS u GROUP BY c",
    ),
    (
        "common_table",
        "id",
        "WITH p AS (SELECT id, n FROM items WHERE n > 0), q AS (SELECT n, count(*) AS c FROM p
            GROUP BY n)
            SELECT n AS id, c FROM q WHERE c > 1",
    ),
];
