//! A job that serves some of its views: which sources and views stay.

use tidemill_ir::explain;
use tidemill_plan::compile;

const SQL: &str = "
    CREATE TABLE a (k text, n bigint) WITH (topic = 'a', format = 'json');
    CREATE TABLE b (k text, n bigint) WITH (topic = 'b', format = 'json');
    CREATE MATERIALIZED VIEW of_a WITH (primary_key = 'k') AS
      SELECT k, count(*) AS n FROM a GROUP BY k;
    CREATE MATERIALIZED VIEW inside AS SELECT k, n FROM b WHERE n > 1;
    CREATE MATERIALIZED VIEW of_b WITH (primary_key = 'k') AS
      SELECT k, count(*) AS n FROM inside GROUP BY k;";

#[test]
fn a_part_holds_what_its_views_are_made_of_and_no_more() {
    let job = compile(SQL, "views.sql", None).unwrap();
    let part = job.serving(&["of_b".to_owned()]).unwrap();
    let topics: Vec<&str> = part.sources.iter().map(|s| s.topic.as_str()).collect();
    assert_eq!(topics, ["b"]);
    let views: Vec<_> = part
        .views
        .iter()
        .map(|v| (&*v.name, v.fingerprint))
        .collect();
    let known = |name: &str| {
        job.views
            .iter()
            .find(|v| v.name == name)
            .unwrap()
            .fingerprint
    };
    assert_eq!(
        views,
        [("inside", known("inside")), ("of_b", known("of_b"))]
    );
    let explained = explain(&part, None);
    assert!(!explained.contains("of_a"), "{explained}");
    assert_eq!(job.serving(&[]).unwrap().views.len(), 3);
}

#[test]
fn views_that_no_table_holds_are_refused() {
    let job = compile(SQL, "views.sql", None).unwrap();
    for (name, said) in [
        ("inside", "no primary key"),
        ("of_c", "no view of this name"),
    ] {
        let error = job.serving(&[name.to_owned()]).unwrap_err().to_string();
        assert!(
            error.contains(said) && error.contains("of_a, of_b"),
            "{error}"
        );
    }
}
