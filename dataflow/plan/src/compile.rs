//! The planner's steps in order: from the text of a `views.sql` to the IR of a job.
//!
//! ```text
//! planned ─► Script::statements
//!         ─► CREATE TABLE: table::create ─────────────────► Catalog
//!         ─► CREATE VIEW:  names, series, spellings, time_windows ─► refuse::check
//!                                                         ─► logical::plan
//!                                                         ─► Planned   (all views)
//!         ─► sources: the columns that any view reads      ─► Vec<Source>
//!         ─► lower::lower ─► output::output ─► fingerprint ─► View      (in the order of the file)
//! ```
//!
//! Invariants: a statement sees only what is created above it, and the first error ends the
//! planning.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::datatypes::Schema;
use datafusion_common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion_expr::LogicalPlan;
use datafusion_sql::sqlparser::ast::{CreateView, Statement as Ast};
use datafusion_sql::sqlparser::tokenizer::Location;
use tidemill_ir::{Job, Output, Source, View, fingerprint, types};
use tidemill_log::registry::Registry;
use tidemill_log::{Error, Kind, Result};

use super::catalog::{Catalog, Relation, Scanned, SourceTypes};
use super::script::{Script, Statement, single};
use super::{logical, lower, output, refuse, table};
use crate::logical::{names, series};
use crate::rewrite::{spellings, time_windows};
use crate::table::options::Options;

/// The stack size of the planning thread, in bytes.
///
/// The limits in [`super::script`] bound how deep SQL nests, and 256 MiB is enough for that depth.
/// Only the pages that are touched become memory.
const PLANNING_STACK: usize = 256 << 20;

/// A view whose query is planned and not lowered yet.
struct Planned {
    /// The view's name.
    name: String,
    /// Its SQL, as written.
    sql: String,
    /// The place of the statement in the file.
    at: Location,
    /// The optimised logical plan.
    plan: LogicalPlan,
    /// The option `primary_key` with its place, if the view is served.
    primary_key: Option<(String, Location)>,
    /// The name in the option `sink`, if it is given.
    sink: Option<String>,
}

/// Plans a `views.sql`. `file` is its name in messages. The registry is asked for the columns of
/// Avro tables.
///
/// Planning runs on a thread with a large stack, because it recurses as deep as the SQL nests.
///
/// ```
/// let sql = "
///     CREATE TABLE clicks (page text, ms int) WITH (format = 'json');
///     CREATE MATERIALIZED VIEW slow WITH (primary_key = 'page') AS
///         SELECT page, count(*) AS n FROM clicks WHERE ms > 100 GROUP BY page;
/// ";
/// let job = tidemill_plan::compile(sql, "views.sql", None).unwrap();
/// assert_eq!(
///     tidemill_ir::explain(&job, None),
///     "\
/// view slow (page text, n bigint)
///   table slow: partition key page; unique: proven
///   -> Reduce by page
///        aggregates: count(*)
///       -> Compute page
///            filter: ms > 100
///           -> Source clicks (topic clicks, json, append): page text, ms int
/// "
/// );
///
/// let error = tidemill_plan::compile("SELECT 1", "views.sql", None).unwrap_err();
/// assert!(error.to_string().starts_with("views.sql:1:1: `SELECT 1` is not known here"));
/// ```
///
/// # Errors
/// `Data` with file, line and column when the SQL is wrong or not supported. `Retry` when the
/// registry is away or does not have a subject yet; the SQL may be right, so the caller may wait.
/// `Bug` when planning panicked.
///
/// `sql` is the text of the file. The result has the tables that views read as sources, and every
/// view, in the order of the file. Planning has no side effects except the requests to the
/// registry.
pub fn compile(sql: &str, file: &str, registry: Option<&dyn Registry>) -> Result<Job> {
    // Parsing and planning recurse as deep as the SQL nests.
    let planning = std::thread::Builder::new().stack_size(PLANNING_STACK);
    std::thread::scope(|scope| {
        let job = planning.spawn_scoped(scope, || planned(sql, file, registry));
        let job = job.map_err(|error| {
            Error::with_source(Kind::Retry, "cannot start a thread for planning", error)
        })?;
        job.join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// All steps, on the planning thread. All views are planned before the first is lowered, because a
/// source has the columns that any view uses.
///
/// `registry` is needed only if the file has an Avro table. Tables that no view reads are checked
/// and then left out.
fn planned(sql: &str, file: &str, registry: Option<&dyn Registry>) -> Result<Job> {
    let script = Script { file };
    let mut catalog = Catalog::new();
    let mut planned = Vec::new();
    for statement in script.statements(sql)? {
        let Statement { ast, sql, at } = statement;
        match &ast {
            Ast::CreateTable(create) => {
                let table = table::create(create, &catalog, registry, script, at)?;
                catalog.tables.push(table);
            }
            Ast::CreateView(create) => {
                let (view, source_types) =
                    guarded(script, at, || view(create, sql, &catalog, script, at))?;
                let schema = Arc::new(view.plan.schema().as_arrow().clone());
                catalog.views.push((view.name.clone(), schema));
                catalog.view_types.push(source_types);
                planned.push(view);
            }
            other => {
                let text = other.to_string();
                let words: Vec<&str> = text.split_whitespace().take(2).collect();
                let what = format!(
                    "`{}` is not known here: there are CREATE TABLE and CREATE [MATERIALIZED] VIEW",
                    words.join(" ")
                );
                return Err(script.error(at, what));
            }
        }
    }
    if planned.is_empty() {
        let what = format!("{file}: no view: write CREATE MATERIALIZED VIEW name AS SELECT …");
        return Err(Error::new(Kind::Data, what));
    }
    let (sources, source_of) = sources(&catalog, &planned);
    let mut views = Vec::new();
    for view in planned {
        let at = view.at;
        let view = guarded(script, at, || {
            lowered(view, &sources, &source_of, &views, script)
        })?;
        views.push(view);
    }
    Ok(Job { sources, views })
}

/// Runs a step of planning. A panic is a bug of this program or of a library. It becomes an error
/// that names the view to be written in another way.
///
/// # Errors
/// The error of the step itself, or `Bug` at `at` when the step panicked.
fn guarded<T>(script: Script<'_>, at: Location, step: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(step)).unwrap_or_else(|panic| {
        let what = panic.downcast_ref::<String>().map(String::as_str);
        let what = what.or_else(|| panic.downcast_ref::<&str>().copied());
        let what = format!(
            "this view cannot be planned ({}): this is a bug of tidemill, please report the SQL",
            what.unwrap_or("a panic")
        );
        Err(script.error_of(Kind::Bug, at, what))
    })
}

/// Plans a `CREATE VIEW` up to its optimised logical plan.
///
/// The second result is the source type of each column of the view, for views that read this one.
///
/// # Errors
/// `Data` with the place, when the name is taken, an option is unknown, or the query is not
/// supported.
fn view(
    create: &CreateView,
    sql: String,
    catalog: &Catalog,
    script: Script<'_>,
    at: Location,
) -> Result<(Planned, SourceTypes)> {
    let name = table::new_name(single(&create.name), catalog, script, at)?;
    let extra = [
        (create.or_replace, "OR REPLACE"),
        (create.or_alter, "OR ALTER"),
        (create.if_not_exists, "IF NOT EXISTS"),
        (create.temporary, "TEMPORARY"),
    ];
    if let Some((_, what)) = extra.iter().find(|(found, _)| *found) {
        return Err(script.error(at, format!("CREATE VIEW does not take {what}")));
    }
    let options = Options::read(&create.options, &["primary_key", "sink"], script, at)?;
    let sink = sink_of(&options, script)?;
    let mut create = create.clone();
    if create.columns.is_empty() {
        names::figured(&mut create.query);
    }
    series::listed(&mut create.query);
    spellings::written(&mut create.query);
    time_windows::written(&mut create.query, catalog, script, at)?;
    refuse::check(&create.query, catalog, script, at)?;
    let (plan, source_types) = logical::plan(&create, catalog, script, at)?;
    let primary_key = options.get("primary_key");
    let planned = Planned {
        primary_key: primary_key.map(|(text, at)| (text.to_owned(), at)),
        sink,
        name,
        sql,
        at,
        plan,
    };
    Ok((planned, source_types))
}

/// The name in the option `sink`, if it is given.
///
/// # Errors
/// `Data` with the place, when it is no name, or the view has no primary key and is not written.
fn sink_of(options: &Options, script: Script<'_>) -> Result<Option<String>> {
    let Some((text, at)) = options.get("sink") else {
        return Ok(None);
    };
    if options.get("primary_key").is_none() {
        let what = "option `sink` is for a view that is written: give primary_key = '…' too";
        return Err(script.error(at, what));
    }
    output::sink(text, script, at).map(Some)
}

/// Lowers a planned view to the IR, with its output and its fingerprint.
///
/// `views` are the views that were lowered before, because this view may read them.
///
/// # Errors
/// `Data` with the place, when the IR cannot represent the plan, or the primary key names no
/// column.
fn lowered(
    view: Planned,
    sources: &[Source],
    source_of: &[Option<usize>],
    views: &[View],
    script: Script<'_>,
) -> Result<View> {
    let inputs = lower::Inputs {
        source_of,
        sources,
        views,
    };
    let rel = lower::lower(&view.plan, &inputs)
        .map_err(|error| logical::located(&error, script, view.at))?;
    let output = view
        .primary_key
        .map(|(text, at)| output::output(&text, &rel, sources, views, script, at))
        .transpose()?;
    let sink = view.sink;
    let output = output.map(|output| Output { sink, ..output });
    let fingerprint = fingerprint(&view.name, &rel, output.as_ref(), sources, views);
    Ok(View {
        name: view.name,
        sql: view.sql,
        rel,
        output,
        fingerprint,
    })
}

/// The sources that the views read, each with the columns that any view uses. The second result is
/// the source of each table in the catalog; `None` for tables that no view reads.
///
/// A source keeps the order of its table's columns. A scan without a projection reads all of them.
fn sources(catalog: &Catalog, views: &[Planned]) -> (Vec<Source>, Vec<Option<usize>>) {
    let mut used: Vec<Option<BTreeSet<usize>>> = vec![None; catalog.tables.len()];
    for view in views {
        let visited = view.plan.apply(|node| {
            if let LogicalPlan::TableScan(scan) = node
                && let Some(scanned) = scan.source.downcast_ref::<Scanned>()
                && let Relation::Table(table) = scanned.relation
                && let Some(columns) = used.get_mut(table)
            {
                let all = 0..scan.source.schema().fields().len();
                let read = scan.projection.clone().unwrap_or_else(|| all.collect());
                columns.get_or_insert_default().extend(read);
            }
            Ok(TreeNodeRecursion::Continue)
        });
        debug_assert!(visited.is_ok(), "the visit itself never fails");
    }
    let mut sources = Vec::new();
    let mut source_of = Vec::new();
    for (table, columns) in catalog.tables.iter().zip(used) {
        source_of.push(columns.is_some().then_some(sources.len()));
        let Some(columns) = columns else { continue };
        let fields = table.schema.fields().iter().enumerate();
        let fields = fields.filter(|(index, _)| columns.contains(index));
        let fields = fields.map(|(index, field)| match table.asked.get(index) {
            Some(Some(asked)) => {
                let asked = [(types::ASKED.to_owned(), asked.clone())].into();
                Arc::new(field.as_ref().clone().with_metadata(asked))
            }
            _ => Arc::clone(field),
        });
        let fields: Vec<_> = fields.collect();
        sources.push(Source {
            name: table.name.clone(),
            topic: table.topic.clone(),
            format: table.format.clone(),
            envelope: table.envelope,
            unavailable: table.unavailable.clone(),
            schema: Arc::new(Schema::new(fields)),
            key: table.key.clone(),
        });
    }
    (sources, source_of)
}
