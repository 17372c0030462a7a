//! Transactions of thousands of changes that meet one key again and again, published in part by an
//! ingest that is killed within them, while another of their tables is read anew or left out by the
//! next one: positions in the source still order what is published twice and what is not.

use super::ends::{pipeline, view};
use super::lane;

/// A transaction whose changes of `t` and of `u` are mixed: each key of `u` is inserted, updated,
/// deleted, inserted again and moved, and `t` has moves of keys, which are two changes each.
fn transaction(round: i32) -> String {
    format!(
        "DO $$ BEGIN
             FOR i IN 1..400 LOOP
                 UPDATE t SET id = id + 10000 WHERE id = {round} * 100000 + i;
                 INSERT INTO t (id) VALUES ({round} * 100000 + 100000 + i);
                 INSERT INTO u VALUES (1000 + i, {round});
                 UPDATE u SET n = n + 1 WHERE id IN (7, 1000 + i);
                 DELETE FROM u WHERE id = 1000 + i;
                 INSERT INTO u VALUES (1000 + i, {round} + 10);
                 UPDATE u SET id = id + 1000 WHERE id = 1000 + i;
                 UPDATE u SET n = n + 5 WHERE id = 2000 + i;
             END LOOP;
             DELETE FROM u WHERE id > 1000 AND (id - {round}) % 3 = 0;
             UPDATE u SET id = {round} * 10000 + id WHERE id > 2000 AND id < 3000;
         END $$"
    )
}

#[test]
fn a_transaction_that_was_published_in_part_is_published_whole() {
    let _turn = lane(0);
    let both = ["t", "u"];
    let Some(mut pipeline) = pipeline(&both) else {
        return;
    };
    let mut sql = pipeline.place.sql();
    for (round, change) in [
        "ALTER TABLE t ALTER n TYPE int USING n + 1",
        "ALTER TABLE u ALTER n TYPE int USING n + 1",
        "",
        "left out",
    ]
    .into_iter()
    .enumerate()
    {
        pipeline.stop("ingest");
        let round = i32::try_from(round).unwrap() + 1;
        sql.batch_execute(&transaction(round)).unwrap();
        // Batches of a thousand changes: it ends within the transaction.
        for batch in [1, 2] {
            pipeline.ingest_crashes(&format!("publish.batch.after-append:{batch}"));
        }
        match change {
            "left out" => pipeline.read(&["u"], &view(&both)),
            sql_text => sql.batch_execute(sql_text).unwrap(),
        }
        pipeline.start("ingest");
        if change == "left out" {
            // Of `t` the view holds what was published before; `u` is whole.
            pipeline.settle_part("u", "SELECT 'u' AS place, id, n FROM u");
            pipeline.stop("ingest");
            pipeline.read(&both, &view(&both));
            pipeline.start("ingest");
        }
        pipeline.settle();
    }
    assert_eq!(pipeline.dead_letters(), 0);
}
