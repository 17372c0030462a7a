//! Which columns of the job's tables each view reads, also through other views.
//!
//! In: the plan of a job. A column counts as read if the rows of the view can depend on it: it is
//! an output, or in a condition, a key, an order or an argument. Operators that compare whole rows
//! (DISTINCT, INTERSECT, the order of equal rows) and recursions read all columns that reach them.

use std::collections::{BTreeMap, BTreeSet};

use datafusion_physical_expr::utils::collect_columns;
use tidemill_ir::{Job, JoinKind, Rel, RelOp, Scalar};

/// The names of the columns that are read, by the index of the source.
pub(crate) type Reads = BTreeMap<usize, BTreeSet<String>>;

/// Positions of columns.
type Columns = BTreeSet<usize>;

/// The columns that a view reads.
pub(crate) fn of_view(job: &Job, view: usize) -> Reads {
    let mut reads = Reads::new();
    if let Some(view) = job.views.get(view) {
        let all = all_of(&view.rel);
        follow(job, &view.rel, &all, &mut reads);
    }
    reads
}

/// All columns of a relation.
fn all_of(rel: &Rel) -> Columns {
    (0..rel.schema.fields().len()).collect()
}

/// The columns of the input that expressions read.
fn in_scalars<'a>(scalars: impl IntoIterator<Item = &'a Scalar>) -> Columns {
    let columns = scalars.into_iter().map(|it| collect_columns(&it.expr));
    columns.flatten().map(|column| column.index()).collect()
}

/// Adds what is read of the sources when these columns of a relation are needed.
fn follow(job: &Job, rel: &Rel, needed: &Columns, reads: &mut Reads) {
    match &rel.op {
        RelOp::Source { source } => {
            let names = needed.iter().filter_map(|it| rel.schema.fields().get(*it));
            let names = names.map(|field| field.name().clone());
            reads.entry(*source).or_default().extend(names);
        }
        RelOp::View { view } => {
            if let Some(view) = job.views.get(*view) {
                follow(job, &view.rel, needed, reads);
            }
        }
        RelOp::Compute {
            input,
            filters,
            outputs,
        } => {
            let chosen = needed.iter().filter_map(|it| outputs.get(*it));
            let columns = in_scalars(filters.iter().chain(chosen));
            follow(job, input, &columns, reads);
        }
        RelOp::Reduce {
            input,
            keys,
            aggregates,
        } => {
            let chosen = aggregates.iter().enumerate();
            let chosen = chosen.filter(|(it, _)| needed.contains(&(keys.len() + it)));
            let scalars = chosen.flat_map(|(_, it)| {
                let order = it.order.iter().map(|order| &order.scalar);
                it.arguments.iter().chain(&it.filter).chain(order)
            });
            let columns = in_scalars(keys.iter().chain(scalars));
            follow(job, input, &columns, reads);
        }
        RelOp::Temporal { input, bounds } => {
            let compared = bounds.iter().map(|bound| bound.column);
            let columns = needed.iter().copied().chain(compared).collect();
            follow(job, input, &columns, reads);
        }
        RelOp::Union { inputs } => {
            for input in inputs {
                follow(job, input, needed, reads);
            }
        }
        RelOp::Join { .. } => follow_join(job, rel, needed, reads),
        RelOp::Distinct { .. }
        | RelOp::SetOp { .. }
        | RelOp::TopK { .. }
        | RelOp::Window { .. }
        | RelOp::Values { .. }
        | RelOp::Recursion { .. }
        | RelOp::WorkTable => {
            for input in rel.op.inputs() {
                follow(job, input, &all_of(input), reads);
            }
        }
    }
}

/// The same for a join.
fn follow_join(job: &Job, rel: &Rel, needed: &Columns, reads: &mut Reads) {
    let RelOp::Join {
        kind,
        left,
        right,
        keys,
        conditions,
    } = &rel.op
    else {
        return;
    };
    let width = left.schema.fields().len();
    let mut pair = in_scalars(conditions);
    match kind {
        JoinKind::Inner | JoinKind::Left => pair.extend(needed),
        JoinKind::Semi | JoinKind::Anti => {
            pair.extend(needed.iter().filter(|it| **it < width));
        }
    }
    let mut of_left = in_scalars(keys.iter().map(|key| &key.left));
    let mut of_right = in_scalars(keys.iter().map(|key| &key.right));
    for column in pair {
        match column.checked_sub(width) {
            Some(column) => of_right.insert(column),
            None => of_left.insert(column),
        };
    }
    follow(job, left, &of_left, reads);
    follow(job, right, &of_right, reads);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_reads_what_its_rows_depend_on() {
        let table = |name: &str| {
            format!(
                "CREATE TABLE {name} (id text, country text, age bigint, city text)
                   WITH (topic = '{name}', format = 'json', envelope = 'upsert');"
            )
        };
        let sql = format!(
            "{} {}
             CREATE MATERIALIZED VIEW adults WITH (primary_key = 'id') AS
               SELECT id, country FROM people WHERE age > 17;
             CREATE MATERIALIZED VIEW counted WITH (primary_key = 'country') AS
               SELECT country, count(*) AS n FROM adults GROUP BY country;
             CREATE MATERIALIZED VIEW placed WITH (primary_key = 'id') AS
               SELECT p.id, s.city FROM people AS p JOIN shops AS s ON p.country = s.country;",
            table("people"),
            table("shops"),
        );
        let job = tidemill_plan::compile(&sql, "views.sql", None).unwrap();
        let of = |name: &str| {
            let view = job.views.iter().position(|it| it.name == name).unwrap();
            let reads = of_view(&job, view).into_iter();
            let reads = reads.map(|(source, columns)| {
                let columns: Vec<String> = columns.into_iter().collect();
                format!("{}: {}", job.sources[source].name, columns.join(" "))
            });
            reads.collect::<Vec<_>>()
        };
        assert_eq!(of("adults"), ["people: age country id"]);
        assert_eq!(of("counted"), ["people: age country"]);
        let placed = of("placed");
        assert!(
            placed.contains(&"people: country id".to_owned()),
            "{placed:?}"
        );
        assert!(
            placed.contains(&"shops: city country".to_owned()),
            "{placed:?}"
        );
    }
}
