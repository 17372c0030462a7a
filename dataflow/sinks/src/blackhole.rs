//! The sink `blackhole://`, which drops all rows: to measure a job without its sink, as the
//! `blackhole` connectors of Flink and RisingWave do.
//!
//! The frontiers are in memory. A job that starts again finds none and fills its views again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use arrow::record_batch::RecordBatch;
use tidemill_ir::Epoch;
use tidemill_log::{Result, lock};

use crate::contract::{Done, Frontier, Sink, Table, Unclaimed, Unfit, Writes};

/// The sink; see the module.
#[derive(Default)]
pub(super) struct Blackhole {
    /// Of each view that was prepared: its job, its name and its frontier, in the order of
    /// [`Sink::prepare`].
    views: Mutex<Vec<(String, String, Frontier)>>,
}

impl Sink for Blackhole {
    fn prepare(&self, job: &str, tables: &[Table]) -> Result<Vec<Option<Frontier>>> {
        let mut views = lock(&self.views);
        views.clear();
        views.extend(tables.iter().map(|table| {
            let fingerprint = table.fingerprint;
            let epoch = None;
            (
                job.to_owned(),
                table.name.clone(),
                Frontier { epoch, fingerprint },
            )
        }));
        Ok(vec![None; tables.len()])
    }

    fn frontiers(&self, job: &str) -> Result<BTreeMap<String, Frontier>> {
        let views = lock(&self.views);
        let of_job = views.iter().filter(|(by, _, _)| by == job);
        Ok(of_job
            .map(|(_, view, frontier)| (view.clone(), *frontier))
            .collect())
    }

    fn is_there(&self, _view: &str) -> Result<bool> {
        Ok(false)
    }

    fn unclaimed(&self, _view: &str) -> Result<Unclaimed> {
        Ok(Unclaimed::None)
    }

    fn filled_by(&self) -> Result<BTreeMap<String, BTreeSet<String>>> {
        Ok(BTreeMap::new())
    }

    fn drop_view(&self, job: &str, view: &str) -> Result<()> {
        lock(&self.views).retain(|(by, name, _)| (by.as_str(), name.as_str()) != (job, view));
        Ok(())
    }

    fn write(&self, _writes: Writes, done: Done) {
        done(Ok(Vec::new()));
    }

    fn advance(&self, _job: &str, tables: &[usize], epoch: Epoch) -> Result<()> {
        let mut views = lock(&self.views);
        for table in tables {
            if let Some((_, _, frontier)) = views.get_mut(*table) {
                frontier.epoch = frontier.epoch.max(Some(epoch));
            }
        }
        Ok(())
    }

    fn unfit(&self, _table: &Table, _rows: &RecordBatch) -> Result<Vec<Unfit>> {
        Ok(Vec::new())
    }
}
