//! A nullable column added to a captured table while the river runs: the registry gets version 2,
//! and the records from before and after it are both read, by the job that runs and by a new one.

use crate::river::place::Place;
use crate::river::rows::{expect_alike, settle, unlike};

const VIEWS: &str = "\
CREATE TABLE things WITH (topic = '{topic:things}', format = 'avro', envelope = 'debezium');
CREATE MATERIALIZED VIEW things_now WITH (primary_key = 'id') AS
SELECT id, name FROM things;
CREATE MATERIALIZED VIEW names WITH (primary_key = 'name') AS
SELECT name, count(*) AS things FROM things GROUP BY name;
";

const COLOURED: &str = "\
CREATE TABLE things WITH (topic = '{topic:things}', format = 'avro', envelope = 'debezium');
CREATE MATERIALIZED VIEW things_coloured WITH (primary_key = 'id') AS
SELECT id, name, colour FROM things;
CREATE MATERIALIZED VIEW colours WITH (primary_key = 'colour') AS
SELECT coalesce(colour, 'none') AS colour, count(*) AS things FROM things
GROUP BY coalesce(colour, 'none');
";

#[test]
fn a_column_added_while_it_runs_is_version_2_and_all_records_are_read() {
    let test = "a_column_added_while_it_runs_is_version_2_and_all_records_are_read";
    let Some(place) = Place::open(test) else {
        return;
    };
    let mut sql = place.sql();
    sql.batch_execute(
        "CREATE TABLE things (id int PRIMARY KEY, name text NOT NULL);
         INSERT INTO things SELECT n, 'thing ' || n % 7 FROM generate_series(1, 300) n",
    )
    .unwrap();
    let views = place.capturing("things", &["things"], VIEWS);
    let mut running = place.start("run", "things", &[]);
    settle(&mut running, &place.views, &mut sql, &views);
    let subject = format!("{}-value", place.topic("things"));
    let versions = || place.schemas().versions(&subject).unwrap();
    assert_eq!(versions().len(), 1);

    sql.batch_execute(
        "ALTER TABLE things ADD COLUMN colour text;
         INSERT INTO things SELECT n, 'thing ' || n % 7, CASE n % 3 WHEN 0 THEN 'red'
             WHEN 1 THEN 'blue' END FROM generate_series(301, 400) n;
         UPDATE things SET colour = 'green' WHERE id % 10 = 0;
         UPDATE things SET name = 'renamed' WHERE id % 50 = 1;
         DELETE FROM things WHERE id % 40 = 3",
    )
    .unwrap();
    settle(&mut running, &place.views, &mut sql, &views);
    let known = versions();
    assert_eq!(known.len(), 2, "{known:?}");
    assert_eq!(known[1].version, 2);
    assert!(!known[0].schema.contains("colour"), "{}", known[0].schema);
    assert!(known[1].schema.contains("colour"), "{}", known[1].schema);

    // A new job reads the topic from its beginning, where the records lack the column.
    let coloured = place.capturing("coloured", &["things"], COLOURED);
    let name = format!("{}_coloured", place.name);
    let mut new = place.start_as(&name, "dataflow", "coloured", &[]);
    settle(&mut new, &place.views, &mut sql, &coloured);
    let nulls = place.views.rows("things_coloured");
    let nulls = nulls.iter().filter(|row| row.contains(&None)).count();
    assert!((200..390).contains(&nulls), "{nulls} rows without a colour");

    // Both go on, and the first job started again reads version 2 with its own plan.
    running.stop();
    sql.batch_execute("INSERT INTO things VALUES (1000, 'last', 'gold'), (1001, 'last', NULL)")
        .unwrap();
    let mut running = place.start("run", "things", &[]);
    settle(&mut running, &place.views, &mut sql, &views);
    settle(&mut new, &place.views, &mut sql, &coloured);
    running.stop();
    new.stop();
    expect_alike(&place.views, &mut sql, &views);
    assert_eq!(unlike(&place.views, &mut sql, &coloured[0]), None);
}
