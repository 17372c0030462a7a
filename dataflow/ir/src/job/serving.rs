//! The part of a job that serves some of its views, with the views and sources that these read.

use std::collections::BTreeSet;

use tidemill_log::{Error, Kind, Result};

use crate::{Job, Rel, RelOp};

impl Job {
    /// The job that serves only these views, or all served views if none is named. Views and
    /// sources that are not needed are left out. Those that stay keep their names, columns and
    /// fingerprints, and therefore their state.
    ///
    /// # Errors
    /// `Data` when a name is not a view, or is a view that is not served.
    pub fn serving(&self, names: &[String]) -> Result<Job> {
        for name in names {
            match self.views.iter().find(|view| view.name == *name) {
                None => return Err(self.wrong(name, "there is no view of this name")),
                Some(view) if view.output.is_none() => {
                    let why = "it has no primary key, so other views read it and no table holds it";
                    return Err(self.wrong(name, why));
                }
                Some(_) => {}
            }
        }
        let asked = |name: &String| names.is_empty() || names.contains(name);
        let (mut views, mut sources) = (BTreeSet::new(), BTreeSet::new());
        for (index, view) in self.views.iter().enumerate().rev() {
            if (view.output.is_some() && asked(&view.name)) || views.contains(&index) {
                views.insert(index);
                reads(&view.rel, &mut views, &mut sources);
            }
        }
        if views.is_empty() {
            let what = "no view has a primary key, so no table holds any of them";
            return Err(Error::new(Kind::Data, what));
        }
        let mut part = self.clone();
        let mut number = 0..;
        part.sources
            .retain(|_| number.next().is_some_and(|index| sources.contains(&index)));
        let mut number = 0..;
        part.views
            .retain(|_| number.next().is_some_and(|index| views.contains(&index)));
        for view in &mut part.views {
            view.output.take_if(|_| !asked(&view.name));
            renumber(&mut view.rel, &views, &sources);
        }
        Ok(part)
    }

    /// The `Data` error of a name that cannot be served.
    fn wrong(&self, name: &str, why: &str) -> Error {
        let served = self.views.iter().filter(|view| view.output.is_some());
        let served: Vec<&str> = served.map(|view| view.name.as_str()).collect();
        let what = format!("view `{name}`: {why}; there are {}", served.join(", "));
        Error::new(Kind::Data, what)
    }
}

/// Collects the views and sources that a relation reads.
fn reads(rel: &Rel, views: &mut BTreeSet<usize>, sources: &mut BTreeSet<usize>) {
    rel.visit(&mut |rel| match rel.op {
        RelOp::Source { source } => drop(sources.insert(source)),
        RelOp::View { view } => drop(views.insert(view)),
        _ => {}
    });
}

/// Replaces the indices of a relation by those among the views and sources that stay.
fn renumber(rel: &mut Rel, views: &BTreeSet<usize>, sources: &BTreeSet<usize>) {
    rel.visit_mut(&mut |rel| match &mut rel.op {
        RelOp::Source { source } => *source = sources.range(..*source).count(),
        RelOp::View { view } => *view = views.range(..*view).count(),
        _ => {}
    });
}
