//! Which type each PostgreSQL type travels as, and that rows are found again by keys of any type.

use tidemill_log::envelope::event::{Change, Op, Value};
use tidemill_log::schema::{ColumnType, SourceType};

use crate::changes;
use crate::postgres::Database;

/// Built-in types that have no comparisons in PostgreSQL that anyone would use, and no name here.
const UNNAMED: [&str; 12] = [
    "aclitem",
    "gtsvector",
    "pg_brin_bloom_summary",
    "pg_brin_minmax_multi_summary",
    "pg_dependencies",
    "pg_mcv_list",
    "pg_ndistinct",
    "pg_node_tree",
    "pg_snapshot",
    "refcursor",
    "txid_snapshot",
    "pg_ddl_command",
];

fn kinds(database: &Database, table: &str) -> Vec<(String, ColumnType)> {
    let capture = database.open(&[table]).unwrap();
    let columns = capture.tables()[0].columns.clone();
    columns.into_iter().map(|it| (it.name, it.kind)).collect()
}

#[test]
fn every_type_of_the_server_has_its_own_or_keeps_its_name() {
    let Some(mut database) = Database::new("every_type_of_the_server_has_its_own") else {
        return;
    };
    let types = "SELECT format_type(oid, NULL), typname::text FROM pg_type
                 WHERE typnamespace = 'pg_catalog'::regnamespace AND typtype IN ('b', 'r', 'm')
                   AND typcategory <> 'A' AND typname <> 'int2vector' AND typname <> 'oidvector'
                 ORDER BY typname";
    let types = database.client.query(types, &[]).unwrap();
    assert!(types.len() > 50, "{}", types.len());
    let columns = types.iter().map(|row| {
        let (sql, name): (&str, &str) = (row.get(0), row.get(1));
        format!(", \"{name}\" {sql}")
    });
    let columns: String = columns.collect();
    database.run(&format!("CREATE TABLE t (id int PRIMARY KEY{columns})"));
    for (name, kind) in kinds(&database, "t") {
        let unnamed = kind == ColumnType::Source(SourceType::named(""));
        assert_eq!(unnamed, UNNAMED.contains(&&*name), "{name} is {kind:?}");
        let text = kind == ColumnType::Text;
        assert_eq!(text, matches!(&*name, "text" | "varchar"), "{name}");
    }
}

const DOMAINS: &str = "
    CREATE EXTENSION citext; CREATE EXTENSION hstore;
    CREATE TYPE mood AS ENUM ('sad', 'glad'); CREATE TYPE pair AS (a int, b int);
    CREATE TYPE span AS RANGE (subtype = float8);
    CREATE COLLATION loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
    CREATE DOMAIN amount AS numeric(12, 2); CREATE DOMAIN price AS amount CHECK (VALUE >= 0);
    CREATE DOMAIN flag AS boolean; CREATE DOMAIN agreed AS flag;
    CREATE DOMAIN whole AS int; CREATE DOMAIN small AS whole CHECK (VALUE < 1000);
    CREATE DOMAIN code AS char(3); CREATE DOMAIN country AS code;
    CREATE DOMAIN feeling AS mood; CREATE DOMAIN list AS int[];
    CREATE TABLE t (id small PRIMARY KEY, price price, agreed agreed, country country,
        feeling feeling, list list, numeric numeric, wide numeric(60, 2), odd numeric(3, 5),
        bare bpchar, pair pair, span span, email citext, h hstore, tags text[],
        loose text COLLATE loose, money money);
    INSERT INTO t VALUES (1, 9.75, true, 'DE', 'glad', '{1,2}', 1.00, 1, 0.00012, 'a ',
        '(1,2)', '[1,2)', 'A@b.c', 'a=>1', '{\"x y\",z}', 'Ab', 1)";

#[test]
fn domains_over_domains_count_as_what_they_are_of() {
    let Some(mut database) = Database::new("domains_over_domains_count_as_what_they_are_of") else {
        return;
    };
    database.run(DOMAINS);
    let named = |name| ColumnType::Source(SourceType::named(name));
    let mut capture = database.open(&["t"]).unwrap();
    database.run("UPDATE t SET feeling = 'sad'");
    let changes = changes(capture.as_mut(), 3);
    for change in &changes[1..] {
        let columns = change.table.columns.iter();
        let kinds: Vec<_> = columns.map(|column| column.kind).collect();
        let precise = ColumnType::Decimal {
            precision: 12,
            scale: 2,
        };
        let expected = [
            ColumnType::Int,
            precise,
            ColumnType::Bool,
            named("char(n)"),
            named("enum"),
            named("array"),
            named("numeric"),
            named("numeric"),
            named("numeric"),
            named("bpchar"),
            named("composite"),
            named("range"),
            named("citext"),
            named("hstore"),
            named("array"),
            named("text of its own collation"),
            named("money"),
        ];
        assert_eq!(kinds, expected);
    }
    let text = |text: &str| Value::Text(text.to_owned());
    let row = changes[2].after.clone().unwrap();
    let expected = [Value::Int(1), Value::Decimal(975), Value::Bool(true)];
    assert_eq!(row[..3], expected);
    let expected = [text("DE "), text("sad"), text("{1,2}"), text("1.00")];
    assert_eq!(row[3..7], expected);
    assert_eq!(row[14], text("{\"x y\",z}"));
}

/// The rows that a reader of the changes has in the end, by the text of their keys.
fn kept(changes: &[Change]) -> Vec<(Value, Value)> {
    let mut rows: Vec<(Value, Value)> = Vec::new();
    for change in changes.iter().filter(|change| change.op != Op::Truncate) {
        let row = change.after.as_ref().or(change.before.as_ref()).unwrap();
        rows.retain(|(key, _)| *key != row[0]);
        if let Some(after) = &change.after {
            rows.push((after[0].clone(), after[1].clone()));
        }
    }
    rows
}

#[test]
fn rows_are_found_again_by_keys_that_have_several_texts() {
    let Some(mut database) = Database::new("rows_are_found_again_by_keys_of_several_texts") else {
        return;
    };
    database.run("CREATE EXTENSION citext");
    // Equal values of another text, in a table with the key alone in its old rows and in another
    // with all columns.
    let tables = [
        ("numeric", "1.0", "1.00"),
        ("citext", "a", "A"),
        ("interval", "1 mon", "30 days"),
        ("jsonb", "{\"a\": 1.0}", "{\"a\": 1.00}"),
        ("float4", "0", "-0"),
        ("float8", "0", "-0"),
    ];
    for (kind, one, _) in tables {
        for full in [false, true] {
            let name = format!("t_{kind}_{full}");
            database.run(&format!(
                "CREATE TABLE {name} (k {kind} PRIMARY KEY, n int);
                 INSERT INTO {name} VALUES ('{one}', 1)"
            ));
            if full {
                database.run(&format!("ALTER TABLE {name} REPLICA IDENTITY FULL"));
            }
        }
    }
    let names: Vec<String> = tables
        .iter()
        .flat_map(|(kind, ..)| [format!("t_{kind}_false"), format!("t_{kind}_true")])
        .collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut capture = database.open(&names).unwrap();
    for (kind, _, other) in tables {
        for full in [false, true] {
            let name = format!("t_{kind}_{full}");
            database.run(&format!(
                "UPDATE {name} SET k = '{other}'; UPDATE {name} SET n = 2"
            ));
        }
    }
    // A truncate and a row of each, then a delete, a create and an update.
    let all = changes(capture.as_mut(), 2 * names.len() + 3 * names.len());
    for name in &names {
        let of = all.iter().filter(|change| change.table.name == *name);
        let of: Vec<Change> = of.cloned().collect();
        let rows = kept(&of);
        assert_eq!(rows.len(), 1, "{name}: {rows:?}");
        assert_eq!(rows[0].1, Value::Int(2), "{name}: {rows:?}");
    }
}

#[test]
fn keys_whose_text_the_server_may_change_are_refused() {
    let Some(mut database) = Database::new("keys_whose_text_the_server_may_change") else {
        return;
    };
    database.run(
        "CREATE TABLE a (k money PRIMARY KEY);
         CREATE TABLE b (n int, k regclass, PRIMARY KEY (n, k))",
    );
    for table in ["a", "b"] {
        let error = database.refused(&[table]);
        assert!(error.contains(table) && error.contains("`k`"), "{error}");
    }
    database.run("CREATE TABLE c (k int PRIMARY KEY)");
    drop(database.open(&["c"]).unwrap());
}
