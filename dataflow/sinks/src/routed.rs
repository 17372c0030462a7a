//! Several sinks as one: each view is written to the sink that it names, or to the default one.
//!
//! Input: the plan, and the sinks by name. Output: a [`Sink`] whose tables are those of all of
//! them. A call about one view goes to its sink; a call about all goes to each.
//!
//! Invariant: of a view that two sinks hold, because it was moved, only the sink that it names now
//! is seen.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock};

use arrow::record_batch::RecordBatch;
use tidemill_ir::{Epoch, Job};
use tidemill_log::{Error, Kind, Result};

use super::contract::{
    Done, Frontier, ReadBack, Refused, Scanned, Sink, Table, Unclaimed, Unfit, Writes,
};
use super::existing::unprepared;

/// The error of the first view that names a sink that does not exist; `None` if there is none.
pub fn unknown(plan: &Job, named: &BTreeMap<String, String>) -> Option<Error> {
    let outputs = plan.views.iter();
    let mut outputs = outputs.filter_map(|view| Some((&view.name, view.output.as_ref()?)));
    outputs.find_map(|(view, output)| {
        let sink = output.sink.as_ref()?;
        (!named.contains_key(sink)).then(|| {
            let known: Vec<&str> = named.keys().map(String::as_str).collect();
            let known = match known.is_empty() {
                true => "none is".to_owned(),
                false => format!("there are: {}", known.join(", ")),
            };
            let what = format!(
                "view `{view}` goes to sink `{sink}`, which is not given ({known}): give --sink \
                 {sink}=URL, TIDEMILL_SINK_{}_URL, or `{sink}` in [sinks] of tidemill.toml",
                sink.to_ascii_uppercase()
            );
            Error::new(Kind::Data, what)
        })
    })
}

/// The sinks of one job.
pub(super) struct Routed {
    /// The sinks that views are written to.
    sinks: Vec<Arc<dyn Sink>>,
    /// The sink of each view, as an index of `sinks`.
    routes: BTreeMap<String, usize>,
    /// The prepared tables: the sink of each, and the table's index there.
    tables: RwLock<Vec<(usize, usize)>>,
}

impl Routed {
    /// Opens the sinks that the views of a plan name, each once. `open` opens one by its name,
    /// `None` for the default sink.
    ///
    /// # Errors
    /// Those of `open`.
    pub(super) fn open(
        plan: &Job,
        open: impl Fn(Option<&str>) -> Result<Arc<dyn Sink>>,
    ) -> Result<Self> {
        let (mut sinks, mut names) = (Vec::new(), Vec::new());
        let mut routes = BTreeMap::new();
        for view in &plan.views {
            let Some(output) = &view.output else { continue };
            let name = output.sink.as_deref();
            let index = match names.iter().position(|known| *known == name) {
                Some(index) => index,
                None => {
                    sinks.push(open(name)?);
                    names.push(name);
                    names.len() - 1
                }
            };
            routes.insert(view.name.clone(), index);
        }
        Ok(Self {
            sinks,
            routes,
            tables: RwLock::default(),
        })
    }

    /// The sink of a view.
    fn of(&self, view: &str) -> Result<&dyn Sink> {
        let sink = self
            .routes
            .get(view)
            .and_then(|index| self.sinks.get(*index));
        sink.map(Arc::as_ref).ok_or_else(|| {
            let what = format!("no sink of this job is for view `{view}`");
            Error::new(Kind::Bug, what)
        })
    }

    /// The sink of a prepared table, and the table's index there.
    fn table(&self, index: usize) -> Result<(&dyn Sink, usize)> {
        let tables = self.tables.read().unwrap_or_else(PoisonError::into_inner);
        let (sink, table) = tables
            .get(index)
            .copied()
            .ok_or_else(|| unprepared(index))?;
        let sink = self.sinks.get(sink).ok_or_else(|| unprepared(index))?;
        Ok((sink.as_ref(), table))
    }

    /// What all sinks know by the name of views, of each view what its own sink knows.
    fn of_all<T>(
        &self,
        known: impl Fn(&dyn Sink) -> Result<BTreeMap<String, T>>,
    ) -> Result<BTreeMap<String, T>> {
        let mut all = BTreeMap::new();
        for (index, sink) in self.sinks.iter().enumerate() {
            let own = known(sink.as_ref())?.into_iter();
            let own = own.filter(|(view, _)| self.routes.get(view).is_none_or(|it| *it == index));
            all.extend(own);
        }
        Ok(all)
    }
}

impl Sink for Routed {
    fn prepare(&self, job: &str, tables: &[Table]) -> Result<Vec<Option<Frontier>>> {
        let mut places = vec![(0, 0); tables.len()];
        let mut frontiers = vec![None; tables.len()];
        for (index, sink) in self.sinks.iter().enumerate() {
            let own = |(_, table): &(usize, &Table)| self.routes.get(&table.name) == Some(&index);
            let own: Vec<_> = tables.iter().enumerate().filter(own).collect();
            let theirs: Vec<Table> = own.iter().map(|(_, table)| (*table).clone()).collect();
            let found = sink.prepare(job, &theirs)?;
            for (inner, ((outer, _), frontier)) in own.into_iter().zip(found).enumerate() {
                if let (Some(place), Some(known)) =
                    (places.get_mut(outer), frontiers.get_mut(outer))
                {
                    (*place, *known) = ((index, inner), frontier);
                }
            }
        }
        if let Some(table) = tables.iter().find(|it| !self.routes.contains_key(&it.name)) {
            self.of(&table.name)?;
        }
        *self.tables.write().unwrap_or_else(PoisonError::into_inner) = places;
        Ok(frontiers)
    }

    fn frontiers(&self, job: &str) -> Result<BTreeMap<String, Frontier>> {
        self.of_all(|sink| sink.frontiers(job))
    }

    fn is_there(&self, view: &str) -> Result<bool> {
        self.of(view)?.is_there(view)
    }

    fn unclaimed(&self, view: &str) -> Result<Unclaimed> {
        self.of(view)?.unclaimed(view)
    }

    fn filled_by(&self) -> Result<BTreeMap<String, BTreeSet<String>>> {
        self.of_all(|sink| sink.filled_by())
    }

    fn drop_view(&self, job: &str, view: &str) -> Result<()> {
        self.of(view)?.drop_view(job, view)
    }

    fn is_transactional(&self, view: &str) -> bool {
        self.of(view).is_ok_and(|sink| sink.is_transactional(view))
    }

    fn fence(&self, generation: u64) {
        self.sinks.iter().for_each(|sink| sink.fence(generation));
    }

    fn write(&self, writes: Writes, done: Done) {
        match self.table(writes.table) {
            Ok((sink, table)) => sink.write(Writes { table, ..writes }, done),
            Err(error) => done(Err(error)),
        }
    }

    fn advance(&self, job: &str, tables: &[usize], epoch: Epoch) -> Result<()> {
        let all = self
            .tables
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        for (index, sink) in self.sinks.iter().enumerate() {
            let mut own = Vec::new();
            for table in tables {
                let (of, inner) = all.get(*table).copied().ok_or_else(|| unprepared(*table))?;
                own.extend((of == index).then_some(inner));
            }
            if !own.is_empty() {
                sink.advance(job, &own, epoch)?;
            }
        }
        Ok(())
    }

    fn unfit(&self, table: &Table, rows: &RecordBatch) -> Result<Vec<Unfit>> {
        self.of(&table.name)?.unfit(table, rows)
    }

    fn read_back(&self) -> Result<&dyn ReadBack> {
        Ok(self)
    }
}

impl ReadBack for Routed {
    fn read(&self, table: &Table, limit: usize) -> Result<RecordBatch> {
        self.of(&table.name)?.read_back()?.read(table, limit)
    }

    fn scan(
        &self,
        table: &Table,
        keys: Option<&RecordBatch>,
        each: &mut dyn FnMut(Scanned) -> Result<()>,
    ) -> Result<()> {
        self.of(&table.name)?.read_back()?.scan(table, keys, each)
    }

    fn stored(&self, table: &Table, rows: &RecordBatch) -> Result<RecordBatch> {
        self.of(&table.name)?.read_back()?.stored(table, rows)
    }

    fn repair(&self, writes: Writes, over_newer: bool) -> Result<Vec<Refused>> {
        let (sink, table) = self.table(writes.table)?;
        sink.read_back()?
            .repair(Writes { table, ..writes }, over_newer)
    }
}
