//! Cassandra is killed while the sink creates its tables: the next start has all of them.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use tidemill_sinks::Table;

use crate::harness::own::Own;
use crate::harness::{PATIENCE, until};

/// Kills. After about every second one the catalog shows a table that the node does not know.
const KILLS: u64 = 3;

fn name(kill: u64, number: u64) -> String {
    format!("counts_{kill}_{number}")
}

fn tables(kill: u64) -> Vec<Table> {
    let columns = [("name", DataType::Utf8), ("n", DataType::Int64)];
    let columns = columns.map(|(name, kind)| Field::new(name, kind, true));
    let schema = Arc::new(Schema::new(columns.to_vec()));
    let table = |number| Table {
        name: name(kill, number),
        schema: Arc::clone(&schema),
        primary_key: vec![0],
        partition_columns: 1,
        fingerprint: 1,
    };
    (0..20).map(table).collect()
}

#[test]
fn tables_whose_creation_was_cut_off_are_created_again() {
    let Some(own) = Own::start("cut off creation", &["cassandra"]) else {
        return;
    };
    for kill in 0..KILLS {
        let url = format!("{}/cut_off", own.url("cassandra"));
        let job = format!("job_{kill}");
        let before = tidemill_sinks::open(&url).unwrap();
        let begun = std::thread::spawn({
            let (job, tables) = (job.clone(), tables(kill));
            move || before.prepare(&job, &tables).map(|_| ())
        });
        // They are created one after the other: it is in the middle of the next ones then.
        let (last, looks) = (3 * kill + 1, tidemill_sinks::open(&url).unwrap());
        until("some tables are there", PATIENCE, || {
            looks.is_there(&name(kill, last)).ok()?.then_some(())
        });
        own.kill("cassandra");
        own.again("cassandra");
        let sink = tidemill_sinks::open(&url).unwrap();
        let progress = until("Cassandra answers", PATIENCE, || {
            match sink.prepare(&job, &tables(kill)) {
                Ok(progress) => Some(progress),
                Err(error) => {
                    assert_eq!(error.kind(), tidemill_log::Kind::Retry, "{error}");
                    None
                }
            }
        });
        let epochs: Vec<_> = progress.iter().flatten().map(|it| it.epoch).collect();
        assert!(epochs.iter().all(Option::is_none), "{progress:?}");
        assert_eq!(progress.len(), 20);
        // Whether it waited for Cassandra or gave up, it has ended.
        let _either = begun.join().unwrap();
    }
}
