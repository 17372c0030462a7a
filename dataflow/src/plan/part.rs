//! Part of a job: some of its views, with the views and sources that these read.

use std::collections::BTreeSet;

use super::ir::{Job, Rel, RelOp};
use crate::{Error, Kind, Result};

impl Job {
    /// The job that serves only these views, or all served views if none is named. Views and
    /// sources that are not needed are left out. Those that stay keep their names, columns and
    /// fingerprints, and therefore their state.
    ///
    /// # Errors
    /// `Data` when a name is not a view, or is a view that is not served.
    pub(crate) fn serving(&self, names: &[String]) -> Result<Job> {
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
    match &rel.op {
        RelOp::Source { source } => drop(sources.insert(*source)),
        RelOp::View { view } => drop(views.insert(*view)),
        RelOp::Compute { input, .. }
        | RelOp::Reduce { input, .. }
        | RelOp::Distinct { input }
        | RelOp::TopK { input, .. } => reads(input, views, sources),
        RelOp::Union { inputs } => inputs.iter().for_each(|rel| reads(rel, views, sources)),
        RelOp::Join { left, right, .. } => {
            reads(left, views, sources);
            reads(right, views, sources);
        }
    }
}

/// Replaces the indices of a relation by those among the views and sources that stay.
fn renumber(rel: &mut Rel, views: &BTreeSet<usize>, sources: &BTreeSet<usize>) {
    match &mut rel.op {
        RelOp::Source { source } => *source = sources.range(..*source).count(),
        RelOp::View { view } => *view = views.range(..*view).count(),
        RelOp::Compute { input, .. }
        | RelOp::Reduce { input, .. }
        | RelOp::Distinct { input }
        | RelOp::TopK { input, .. } => renumber(input, views, sources),
        RelOp::Union { inputs } => {
            let inputs = inputs.iter_mut();
            inputs.for_each(|rel| renumber(rel, views, sources));
        }
        RelOp::Join { left, right, .. } => {
            renumber(left, views, sources);
            renumber(right, views, sources);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::plan::compile;

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
        let explained = crate::plan::explain(&part, None);
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
}
