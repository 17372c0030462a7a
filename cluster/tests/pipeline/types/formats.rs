//! What SQL may do with a column of each Avro type, Debezium's and Connect's among them: planned
//! alone, from the types that docs/formats.md lists.

use std::fmt::Write as _;

use tidemill_plan::compile;

use crate::types::page;

const PAGE: &str = include_str!("../../../../docs/formats.md");

/// Heading, query over `t (id, v)`, primary key.
const OPERATIONS: [(&str, &str, &str); 8] = [
    ("passed on", "SELECT id, v FROM t", "id"),
    (
        "`=`, join",
        "SELECT a.id, b.id AS other FROM t a JOIN t b ON a.v = b.v",
        "id, other",
    ),
    (
        "`<`",
        "SELECT a.id, b.id AS other FROM t a JOIN t b ON a.id = b.id WHERE a.v < b.v",
        "id, other",
    ),
    (
        "`GROUP BY`",
        "SELECT min(id) AS id, count(*) AS n FROM t GROUP BY v",
        "id",
    ),
    (
        "`ORDER BY`, top-k",
        "SELECT id, place FROM (SELECT id, row_number() OVER (PARTITION BY id % 2 ORDER BY v)
           AS place FROM t) AS placed WHERE place < 3",
        "id",
    ),
    ("`min`, `max`", "SELECT 1 AS one, min(v) AS v FROM t", "one"),
    (
        "`count(DISTINCT)`",
        "SELECT 1 AS one, count(DISTINCT v) AS n FROM t",
        "one",
    ),
    (
        "key of a view",
        "SELECT v, count(*) AS n FROM t WHERE v IS NOT NULL GROUP BY v",
        "v",
    ),
];

#[test]
fn every_avro_type_is_used_as_its_values_compare_or_refused_by_name() {
    let rows = PAGE
        .lines()
        .filter(|line| line.starts_with("| `") && line.ends_with(" |"));
    let headings = OPERATIONS.map(|(heading, ..)| heading).join(" | ");
    let mut list = format!(
        "| Avro type | column | {headings} |\n|---|---|{}\n",
        "---|".repeat(OPERATIONS.len())
    );
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("registry.db");
    let registry = format!("sqlite://{}", file.display());
    let registry = tidemill_log::registry::open(&registry).unwrap();
    for (number, row) in rows.enumerate() {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [avro, column] = cells[..] else { continue };
        if column.starts_with("none: ") {
            continue;
        }
        let topic = format!("t{number}");
        let schema = format!(
            r#"{{"type":"record","name":"T","namespace":"t","fields":[
                {{"name":"id","type":"long"}},{{"name":"v","type":{}}}]}}"#,
            avro.trim_matches('`')
        );
        registry
            .register(&format!("{topic}-value"), &schema)
            .unwrap();
        let verdicts = OPERATIONS.map(|(heading, query, key)| {
            let sql = format!(
                "CREATE TABLE t WITH (topic = '{topic}', format = 'avro', envelope = 'append');
                 CREATE MATERIALIZED VIEW x WITH (primary_key = '{key}') AS {query};"
            );
            match compile(&sql, "views.sql", Some(registry.as_ref())) {
                Ok(_) => "right",
                Err(error) => {
                    let said = error.to_string();
                    let names = said.contains("column `v` is of")
                        || said.contains("(bytea)")
                        || said.contains("(boolean)");
                    assert!(names, "{avro}, {heading}: {said}");
                    "refused"
                }
            }
        });
        writeln!(list, "| {avro} | {column} | {} |", verdicts.join(" | ")).unwrap();
    }
    page::is_listed("list of Avro's types", &list);
}
