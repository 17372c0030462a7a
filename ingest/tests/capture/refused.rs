//! Tables and rows that PostgreSQL does not send wholly: refused by name, with the way on.

use std::time::{Duration, Instant};

use tidemill_ingest::{Kind, capture};

use crate::postgres::Database;
use crate::read;

#[test]
fn tables_whose_changes_do_not_tell_their_rows() {
    let Some(mut database) = Database::new("tables_whose_changes_do_not_tell_their_rows") else {
        return;
    };
    database.run(
        "CREATE TABLE parent (id int PRIMARY KEY);
         CREATE TABLE child (PRIMARY KEY (id)) INHERITS (parent);
         CREATE TABLE moved (id int PRIMARY KEY DEFERRABLE);
         ALTER TABLE moved REPLICA IDENTITY FULL",
    );
    let why = database.refused(&["parent"]);
    assert!(why.contains("INHERITS") && why.contains("`child`"), "{why}");
    let why = database.refused(&["moved"]);
    assert!(
        why.contains("`moved_pkey`") && why.contains("NOT DEFERRABLE"),
        "{why}"
    );
    // Nothing was published, so nobody's update is refused for want of a replica identity.
    let published = "SELECT count(*) FROM pg_publication_tables";
    let count: i64 = database.client.query_one(published, &[]).unwrap().get(0);
    assert_eq!(count, 0);
    drop(database.open(&["child"]).unwrap());
}

#[test]
fn a_role_that_policies_hide_rows_from() {
    let Some(mut database) = Database::new("a_role_that_policies_hide_rows_from") else {
        return;
    };
    let role = format!("{}_bound", database.name);
    database.run(&format!(
        "CREATE ROLE {role} LOGIN REPLICATION;
         GRANT CREATE ON DATABASE {} TO {role};
         GRANT ALL ON SCHEMA public TO {role};
         CREATE TABLE t (id int PRIMARY KEY);
         INSERT INTO t VALUES (1), (2);
         ALTER TABLE t OWNER TO {role};
         ALTER TABLE t ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
         CREATE POLICY large ON t USING (id > 1)",
        database.name
    ));
    let url = database.url.replacen("postgres@", &format!("{role}@"), 1);
    let mut capture = capture::open(&url, &["t".to_owned()], &database.name, false).unwrap();
    let deadline = Instant::now() + Duration::from_secs(120);
    let error = loop {
        assert!(Instant::now() < deadline, "it was not refused");
        match capture.next(Duration::from_millis(50)) {
            // The truncate that a snapshot begins with.
            Ok(batch) => assert!(batch.len() <= 1, "{batch:?}"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), Kind::Data, "{error}");
    assert!(error.to_string().contains("row-level security"), "{error}");
    drop(capture);
    database.run(&format!("REASSIGN OWNED BY {role} TO postgres"));
    database.run(&format!("DROP OWNED BY {role}; DROP ROLE {role}"));
}

#[test]
fn a_text_that_is_no_utf_8_ends_the_capture() {
    let options = "ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0";
    let Some(mut database) = Database::with("a_text_that_is_no_utf_8_ends_the_capture", options)
    else {
        return;
    };
    database.run("CREATE TABLE t (id int PRIMARY KEY, name text); INSERT INTO t VALUES (1, 'a')");
    let mut capture = database.open(&["t"]).unwrap();
    read(capture.as_mut(), 2);
    // By its octets, since this connection itself speaks UTF-8.
    database.run("INSERT INTO t VALUES (2, E'\\xff')");
    let deadline = Instant::now() + Duration::from_secs(120);
    let error = loop {
        assert!(Instant::now() < deadline, "it did not end");
        match capture.next(Duration::from_millis(50)) {
            Ok(batch) => assert!(batch.is_empty(), "{batch:?}"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), Kind::Data, "{error}");
    let why = error.to_string();
    assert!(
        why.contains("UTF8") && why.contains("--resnapshot"),
        "{why}"
    );
}
