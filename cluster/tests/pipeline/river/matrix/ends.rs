//! Changes after which the ingest or the dataflow ends: it says of what table, and how to go on;
//! and when that was done the views are right.

use super::load::Load;
use super::pipeline::Pipeline;
use super::{How, lane};
use crate::river::place::Place;

const RESNAPSHOT: &str = "run `tidemill ingest --resnapshot`";

/// A change that no capture can follow, and the way on.
struct Unfit {
    table: &'static str,
    docs: &'static str,
    change: &'static str,
    /// What is said of the table.
    says: &'static str,
    /// What that leads to.
    mends: &'static str,
}

const UNFIT: &[Unfit] = &[
    Unfit {
        table: "gone",
        docs: "`DROP TABLE`, or `RENAME` with no table under the name",
        change: "DROP TABLE gone",
        says: "table `gone` does not exist in this database; create it first",
        mends: "CREATE TABLE gone (id int PRIMARY KEY, n int NOT NULL);
                INSERT INTO gone VALUES (1, 1)",
    },
    Unfit {
        table: "away",
        docs: "`DROP TABLE`, or `RENAME` with no table under the name",
        change: "ALTER TABLE away RENAME TO elsewhere",
        says: "table `away` does not exist in this database; create it first",
        mends: "ALTER TABLE elsewhere RENAME TO away",
    },
    Unfit {
        table: "moved",
        docs: "`SET SCHEMA`",
        change: "ALTER TABLE moved SET SCHEMA other",
        says: "table `moved` was moved from schema `public` to `other`; move it back, or name it \
               `other.moved` in `tables`",
        mends: "ALTER TABLE other.moved SET SCHEMA public",
    },
    Unfit {
        table: "keyless",
        docs: "primary key dropped",
        change: "ALTER TABLE keyless DROP CONSTRAINT keyless_pkey",
        says: "table `keyless` has no primary key; add one to capture it",
        mends: "ALTER TABLE keyless ADD PRIMARY KEY (id)",
    },
    Unfit {
        table: "nothing",
        docs: "`REPLICA IDENTITY NOTHING`",
        change: "ALTER TABLE nothing REPLICA IDENTITY NOTHING",
        says: "run ALTER TABLE \"nothing\" REPLICA IDENTITY FULL",
        mends: "ALTER TABLE nothing REPLICA IDENTITY FULL",
    },
    Unfit {
        table: "indexed",
        docs: "`REPLICA IDENTITY USING INDEX` without the key's columns",
        change: "ALTER TABLE indexed REPLICA IDENTITY USING INDEX indexed_n",
        says: "run ALTER TABLE \"indexed\" REPLICA IDENTITY FULL",
        mends: "ALTER TABLE indexed REPLICA IDENTITY FULL",
    },
];

const PUBLICATION: &str =
    "the publication or the slot is dropped, also when it is made anew in its place";
const OPTIONS: &str = "a table is taken out of the publication, gets a row filter or a column list \
                       there, also for a moment; other options of the publication";
const LEFT_OUT: &str = "a table is added to `tables`, or taken out and put back";
const TOPIC: &str = "`topic_prefix` or `topic_schema` is changed";
const COLUMN: &str = "`RENAME COLUMN` or `DROP COLUMN` of a column that a view reads";

/// The rows of the documentation that are tried here, and how they begin.
pub(crate) const DOCUMENTED: &[(&str, &str)] = &[
    (UNFIT[0].docs, "after 10 s the ingest ends"),
    (UNFIT[2].docs, "after 10 s the ingest ends"),
    (UNFIT[3].docs, "after 10 s the ingest ends"),
    (UNFIT[4].docs, "after 10 s the ingest ends"),
    (UNFIT[5].docs, "at its next change the ingest ends"),
    (LEFT_OUT, "it is read anew"),
    (OPTIONS, "it is read anew"),
    (
        PUBLICATION,
        "the ingest ends: `tidemill ingest --resnapshot`",
    ),
    (TOPIC, "the start is refused"),
    (COLUMN, "the job ends"),
];

pub(super) fn view(tables: &[&str]) -> String {
    let sources = tables.iter().map(|table| {
        format!("CREATE TABLE {table} WITH (topic = '{{topic:{table}}}', format = 'avro');\n")
    });
    let selects = tables.iter();
    let selects = selects.map(|table| format!("SELECT '{table}' AS place, id, n FROM {table}"));
    let selects: Vec<String> = selects.collect();
    format!(
        "{}CREATE MATERIALIZED VIEW everything WITH (primary_key = 'place, id') AS {};",
        sources.collect::<String>(),
        selects.join(" UNION ALL ")
    )
}

pub(super) fn pipeline(tables: &[&str]) -> Option<Pipeline> {
    let place = Place::open("the matrix of schema changes")?;
    let mut sql = place.sql();
    sql.batch_execute("CREATE SCHEMA other").unwrap();
    for table in tables {
        let made = format!(
            "CREATE TABLE {table} (id int PRIMARY KEY, n int NOT NULL DEFAULT 0);
             INSERT INTO {table} SELECT g, g FROM generate_series(1, 40) g;"
        );
        sql.batch_execute(&made).unwrap();
    }
    let mut pipeline = Pipeline::new(place, tables, &view(tables));
    pipeline.settle();
    Some(pipeline)
}

/// Makes a change as `how` says, and returns what the ingest said when it ended.
fn refused(pipeline: &mut Pipeline, how: How, tables: &[&str], change: &[&str]) -> String {
    if !how.running {
        pipeline.end("ingest", how.killed);
    }
    let mut sql = pipeline.place.sql();
    let load = Load::start(&pipeline.place, tables);
    load.goes_on(20);
    for statement in change {
        let made = sql.batch_execute(statement);
        made.unwrap_or_else(|error| panic!("{statement}: {error:?}"));
    }
    if how.running && how.killed {
        pipeline.kill("ingest");
    }
    if how.killed || !how.running {
        pipeline.start("ingest");
    }
    let said = pipeline.refuses("ingest");
    load.stop();
    said
}

#[test]
fn tables_that_cannot_be_captured_any_more_end_the_ingest_by_name() {
    let _turn = lane(0);
    let tables: Vec<&str> = UNFIT.iter().map(|it| it.table).collect();
    for how in How::ALL {
        let Some(mut pipeline) = pipeline(&tables) else {
            return;
        };
        let mut sql = pipeline.place.sql();
        let found = format!(
            "ALTER DATABASE {} SET search_path = public, other",
            pipeline.place.name
        );
        sql.batch_execute(&found).unwrap();
        sql.batch_execute("TRUNCATE indexed; CREATE UNIQUE INDEX indexed_n ON indexed (n)")
            .unwrap();
        pipeline.settle();
        // Its sessions have the new path.
        pipeline.stop("ingest");
        pipeline.start("ingest");
        pipeline.reads_its_slot();
        let changes: Vec<&str> = UNFIT.iter().map(|it| it.change).collect();
        let said = refused(&mut pipeline, how, &tables, &changes);
        for it in UNFIT {
            println!("{}: {}: refused", how.name(), it.table);
            assert!(
                said.contains(it.says),
                "{}: `{}` is not in {said}",
                how.name(),
                it.says
            );
        }
        for it in UNFIT {
            sql.batch_execute(it.mends).unwrap();
        }
        pipeline.start("ingest");
        pipeline.settle();
    }
}

#[test]
fn a_publication_or_a_slot_that_is_gone_ends_the_ingest() {
    let _turn = lane(1);
    for how in How::ALL {
        let Some(mut pipeline) = pipeline(&["t"]) else {
            return;
        };
        let name = pipeline.publication();
        let mut sql = pipeline.place.sql();
        // A kind of change that it does not send for a moment.
        sql.batch_execute(&format!(
            "ALTER PUBLICATION {name} SET (publish = 'insert')"
        ))
        .unwrap();
        sql.batch_execute("DELETE FROM t WHERE id < 20").unwrap();
        sql.batch_execute(&format!(
            "ALTER PUBLICATION {name} SET (publish = 'insert, update, delete, truncate')"
        ))
        .unwrap();
        pipeline.settle();
        println!("{}: publication options: it is read anew", how.name());

        let drop = format!("DROP PUBLICATION {name}");
        let said = refused(&mut pipeline, how, &["t"], &[&drop]);
        assert!(said.contains(RESNAPSHOT) && said.contains(&name), "{said}");
        println!("{}: publication dropped: refused", how.name());
        pipeline.start_with("ingest", &["--resnapshot"]);
        pipeline.reads_its_slot();
        pipeline.settle();

        if !how.killed {
            let anew = format!("CREATE PUBLICATION {name} FOR ALL TABLES");
            let said = refused(&mut pipeline, how, &["t"], &[&drop, &anew]);
            assert!(said.contains(RESNAPSHOT) && said.contains(&name), "{said}");
            println!("{}: publication made anew: refused", how.name());
            pipeline.start_with("ingest", &["--resnapshot"]);
            let said = pipeline.refuses("ingest");
            assert!(
                said.contains(&format!("run DROP PUBLICATION {name}")),
                "{said}"
            );
            sql.batch_execute(&drop).unwrap();
            pipeline.start_with("ingest", &["--resnapshot"]);
            pipeline.reads_its_slot();
            pipeline.settle();
        }

        let slot = format!(
            "DO $$ BEGIN
                 WHILE EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = '{name}') LOOP
                     PERFORM pg_terminate_backend(active_pid) FROM pg_replication_slots
                     WHERE slot_name = '{name}' AND active_pid IS NOT NULL;
                     BEGIN
                         PERFORM pg_drop_replication_slot('{name}');
                     EXCEPTION WHEN object_in_use THEN NULL;
                     END;
                 END LOOP;
             END $$"
        );
        let said = refused(&mut pipeline, how, &["t"], &[&slot]);
        assert!(said.contains(RESNAPSHOT) && said.contains(&name), "{said}");
        println!("{}: slot dropped: refused", how.name());
        pipeline.start_with("ingest", &["--resnapshot"]);
        pipeline.reads_its_slot();
        pipeline.settle();
    }
}

#[test]
fn a_table_that_is_left_out_and_put_back_is_read_anew() {
    let _turn = lane(0);
    let Some(mut pipeline) = pipeline(&["t", "u"]) else {
        return;
    };
    let mut sql = pipeline.place.sql();
    for killed in [false, true] {
        let both = ["t", "u"];
        let load = Load::start(&pipeline.place, &both);
        load.goes_on(20);
        pipeline.end("ingest", killed);
        pipeline.read(&["t"], &view(&both));
        pipeline.start("ingest");
        pipeline.reads_its_slot();
        load.goes_on(20);
        sql.batch_execute("DELETE FROM u WHERE id < 15; UPDATE u SET n = -1")
            .unwrap();
        pipeline.end("ingest", killed);
        pipeline.read(&both, &view(&both));
        pipeline.start("ingest");
        load.goes_on(20);
        load.stop();
        pipeline.settle();
        assert_eq!(pipeline.read_anew(), ["u".to_owned()].into());
        println!("left out and put back: it is read anew");
    }
}

#[test]
fn a_topic_that_would_begin_in_the_middle_is_refused() {
    let _turn = lane(0);
    let Some(mut pipeline) = pipeline(&["t"]) else {
        return;
    };
    pipeline.stop("ingest");
    pipeline.stop("dataflow");
    let prefix = format!("{}.other.", pipeline.place.name);
    pipeline.publish_to(
        &prefix,
        &["t"],
        &view(&["other.t"])
            .replace("TABLE other.t", "TABLE t")
            .replace("FROM other.t", "FROM t"),
    );
    pipeline.start("ingest");
    let said = pipeline.refuses("ingest");
    assert!(
        said.contains("topic_prefix") && said.contains("--resnapshot"),
        "{said}"
    );
    pipeline.start_with("ingest", &["--resnapshot"]);
    pipeline.start("dataflow");
    pipeline.settle();
}

#[test]
fn a_column_that_a_view_reads_ends_the_job_when_it_goes() {
    let _turn = lane(1);
    let renamed = "ALTER TABLE t RENAME n TO m";
    let dropped = "ALTER TABLE t DROP n; ALTER TABLE t ADD m int DEFAULT 3";
    for (how, change) in How::ALL
        .into_iter()
        .zip([renamed, dropped, dropped, renamed])
    {
        let Some(mut pipeline) = pipeline(&["t"]) else {
            return;
        };
        let said = without_column(&mut pipeline, how, change);
        assert!(
            said.contains("`n`") && said.contains("views.sql"),
            "{change}: {said}"
        );
        println!("{}: {change}: refused", how.name());
        let views = view(&["t"]).replace("id, n", "id, m AS n");
        pipeline.read(&["t"], &views);
        pipeline.start("dataflow");
        pipeline.settle();
    }
}

/// Makes a change that takes the column `n` away, and returns what the dataflow said when it ended.
fn without_column(pipeline: &mut Pipeline, how: How, change: &str) -> String {
    let parts = ["ingest", "dataflow"];
    if !how.running {
        parts.iter().for_each(|part| pipeline.end(part, how.killed));
    }
    let load = Load::start(&pipeline.place, &["t"]);
    load.goes_on(20);
    let mut sql = pipeline.place.sql();
    sql.batch_execute(change).unwrap();
    sql.batch_execute("UPDATE t SET m = 77 WHERE id < 9")
        .unwrap();
    load.stop();
    if how.running && how.killed {
        parts.iter().for_each(|part| pipeline.kill(part));
    }
    if how.killed || !how.running {
        parts.iter().for_each(|part| pipeline.start(part));
    }
    pipeline.refuses("dataflow")
}
