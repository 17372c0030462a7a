//! Logical planning: from the query of a view to an optimised logical plan.
//!
//! Input: a query that [`super::refuse`] has accepted. Output: a plan whose columns have the view's
//! names, and types that a view can hold.
//!
//! ```text
//! query ─► recursion, constants, limits, groups, wildcard, windows, row_in, set_operations
//!          (all of them in rewrite)
//!       ─► SqlToRel ─► grouping_sets ─► with_ties ─► unnest ─► source_types ─► functions
//!       ─► keys, unions ─► shape ─► Analyzer (uncoerced: may not cast)
//!       ─► set_operations, recursion ─► conformed ─► optimized ─► lower
//! ```
//!
//! The optimizer's rules are chosen so that none of them makes a node that [`super::lower`] does
//! not know.

pub(crate) mod grouping_sets;
pub(crate) mod keys;
pub(crate) mod names;
pub(crate) mod series;
pub(crate) mod shape;
pub(crate) mod simplify;
pub(crate) mod source_types;
pub(crate) mod uncoerced;
pub(crate) mod with_ties;

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion_common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion_common::{Column, DataFusionError, SchemaError, plan_err};
use datafusion_expr::planner::ContextProvider;
use datafusion_expr::{Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder};
use datafusion_optimizer::analyzer::Analyzer;
use datafusion_optimizer::eliminate_cross_join::EliminateCrossJoin;
use datafusion_optimizer::extract_equijoin_predicate::ExtractEquijoinPredicate;
use datafusion_optimizer::optimize_projections::OptimizeProjections;
use datafusion_optimizer::optimize_unions::OptimizeUnions;
use datafusion_optimizer::{Optimizer, OptimizerContext, OptimizerRule};
use datafusion_sql::planner::{ParserOptions, SqlToRel};
use datafusion_sql::sqlparser::ast::{CreateView, Query, Statement};
use datafusion_sql::sqlparser::tokenizer::Location;
use shape::shaped;
use simplify::simplified;
use tidemill_ir::types;
use tidemill_log::schema::{SourceType, Unusable};
use tidemill_log::{Error, Result};

use super::catalog::{Catalog, SourceTypes, Table};
use super::push::filters_down;
use super::script::{Script, did_you_mean, first_line, lower_first, normal, written};
use super::table::unusable_column;
use super::unnest::unnested;
use crate::catalog::row_number;
use crate::rewrite::{
    constants, groups, limits, recursion, row_in, set_operations, wildcard, windows,
};

/// Plans the query of one view. `at` is the place of the statement.
///
/// # Errors
/// `Data` with the place in the file, when the query is wrong or not supported.
pub(super) fn plan(
    view: &CreateView,
    catalog: &Catalog,
    script: Script<'_>,
    at: Location,
) -> Result<(LogicalPlan, SourceTypes)> {
    let explain = |error: DataFusionError| located(&error, script, at);
    let mut query = view.query.as_ref().clone();
    recursion::marked(&mut query)?;
    constants::selected(&mut query)?;
    limits::written(&mut query)?;
    groups::expanded(&mut query, script, at)?;
    let query = wildcard::expanded(&query, catalog, script, at)?;
    let mut query = windows::written_out(query, script, at)?;
    row_in::written(&mut query)?;
    set_operations::marked(&mut query)?;
    let (plan, source_types) = analyzed(&query, catalog).map_err(|error| {
        let what = unusable(&error, catalog);
        located_as(&error, what, script, at)
    })?;
    let names = column_names(view, &plan, script, at)?;
    let source_types = with_documents(&plan, source_types);
    let plan = conformed(plan, &names, script, at)?;
    Ok((optimized(plan, catalog).map_err(explain)?, source_types))
}

/// The source types of a view's columns: those of the query, and of documents that the query
/// computes, which become texts in the view.
fn with_documents(plan: &LogicalPlan, source_types: SourceTypes) -> SourceTypes {
    let fields = plan.schema().fields().iter().zip(source_types);
    let computed = fields.map(|(field, kind)| match *field.data_type() {
        types::JSON => Some(SourceType::named("json")),
        types::JSONB => Some(SourceType::named("jsonb")),
        _ => kind,
    });
    computed.collect()
}

/// The typed plan of a query before optimisation, with the source types of its columns.
///
/// Numbers with a point are read as decimals and not as doubles (`with_parse_float_as_decimal`), as
/// PostgreSQL reads them. Spans are collected, because errors need places.
///
/// # Errors
/// DataFusion's error, with a diagnostic that has the place where the planner knows it.
fn analyzed(
    query: &Query,
    catalog: &Catalog,
) -> std::result::Result<(LogicalPlan, SourceTypes), DataFusionError> {
    let options = ParserOptions::new()
        .with_map_string_types_to_utf8view(false)
        .with_parse_float_as_decimal(true)
        .with_collect_spans(true);
    let planner = SqlToRel::new_with_options(catalog, options);
    let plan = planner
        .sql_statement_to_plan(Statement::Query(Box::new(query.clone())))
        .map_err(|error| source_types::named(error, query, catalog))?;
    let plan = with_ties::ranked(grouping_sets::expanded(constants::together(plan)?)?)?;
    let plan = unnested(plan)?;
    // This runs before type coercion, because a cast that nobody wrote would hide what is compared.
    let (plan, source_types) = source_types::checked(plan, catalog)?;
    let plan = tidemill_functions::typed(plan)?;
    keys::checked(&plan)?;
    unions_fit(&plan)?;
    let plan = row_number::unframed(shaped(plan)?)?;
    let plan = uncoerced::analyzed(plan, |plan| {
        Analyzer::new().execute_and_check(plan, catalog.options(), |_, _| {})
    })?;
    let plan = recursion::resolved(set_operations::resolved(plan)?)?;
    Ok((plan, source_types))
}

/// Refuses unions of columns of different kinds, which type coercion would turn into text.
///
/// # Errors
/// A plan error that names the column and both types.
fn unions_fit(plan: &LogicalPlan) -> std::result::Result<(), DataFusionError> {
    let visited = plan.apply_with_subqueries(|node| {
        let LogicalPlan::Union(union) = node else {
            return Ok(TreeNodeRecursion::Continue);
        };
        for (index, field) in union.schema.fields().iter().enumerate() {
            let columns = union.inputs.iter();
            let columns = columns.map(|input| input.schema().field(index).data_type());
            let mut known = columns.filter(|kind| !kind.is_null());
            let first = known.next();
            let unlike = |kind: &&DataType| first.is_some_and(|first| !types::alike(first, kind));
            if let (Some(first), Some(other)) = (first, known.find(unlike)) {
                return plan_err!(
                    "column `{}` of the union is {} in one query and {} in another: cast one",
                    field.name(),
                    types::name(first),
                    types::name(other)
                );
            }
        }
        Ok(TreeNodeRecursion::Continue)
    });
    visited.map(|_| ())
}

/// Optimises a plan. Each step runs once and in this order, so a rule sees only what the steps
/// before it leave.
///
/// The order of the steps: unions of unions become one, expressions are simplified, cross joins
/// with a filter become inner joins, filters move down, equalities become join keys, columns that
/// nothing reads are removed.
fn optimized(
    plan: LogicalPlan,
    catalog: &Catalog,
) -> std::result::Result<LogicalPlan, DataFusionError> {
    let options = Arc::new(catalog.options().clone());
    // Each view has a context of its own, so generated names do not depend on other views.
    let context = OptimizerContext::new_with_config_options(options)
        .without_query_execution_start_time()
        .with_max_passes(1);
    let apply = |plan: LogicalPlan, rules: Vec<Arc<dyn OptimizerRule + Send + Sync>>| {
        Optimizer::with_rules(rules).optimize(plan, &context, |_, _| {})
    };
    let mut plan = simplified(apply(plan, vec![Arc::new(OptimizeUnions::new())])?)?;
    if plan.exists(|node| Ok(is_cross_join(node)))? {
        // The rule cannot handle joins in which null equals null. There are none at this point.
        plan = apply(plan, vec![Arc::new(EliminateCrossJoin::new())])?;
    }
    let plan = simplified(filters_down(plan)?)?;
    let plan = apply(
        plan,
        vec![
            // Runs once all conditions of a join are in place. Otherwise it would put a later
            // equality beside keys for which null equals null.
            Arc::new(ExtractEquijoinPredicate::new()),
            Arc::new(OptimizeProjections::new()),
        ],
    )?;
    // Projections that were merged may simplify together.
    simplified(plan)
}

/// A join whose condition, if there is one, is in a filter above it.
fn is_cross_join(node: &LogicalPlan) -> bool {
    matches!(node, LogicalPlan::Join(join) if join.on.is_empty() && join.filter.is_none())
}

/// The names of the view's columns: those declared after the view's name, or those of the query.
///
/// Output columns must have names that every sink can hold. Nothing is renamed silently: an
/// expression without AS is an error.
///
/// # Errors
/// `Data` with the place, when a column has no name, a name that no sink can hold, or the name of
/// another column.
fn column_names(
    view: &CreateView,
    plan: &LogicalPlan,
    script: Script<'_>,
    at: Location,
) -> Result<Vec<String>> {
    let fields = plan.schema().fields();
    let mut names = Vec::new();
    if view.columns.is_empty() {
        for (index, field) in fields.iter().enumerate() {
            if !is_name(field.name()) {
                let what = format!(
                    "column {} of the view has no name: write `{} AS name`",
                    index + 1,
                    plain(field.name())
                );
                return Err(script.error(at, what));
            }
            names.push(field.name().clone());
        }
    } else {
        let said = view.columns.len();
        if said != fields.len() {
            let is = fields.len();
            let what = format!("the view names {said} columns and its query has {is}");
            return Err(script.error(at, what));
        }
        for column in &view.columns {
            let name = normal(&column.name);
            if !is_name(&name) {
                let what = format!("`{name}` is no column name: use a-z, 0-9 and _");
                return Err(script.error(column.name.span.start, what));
            }
            names.push(name);
        }
    }
    let mut seen = HashSet::new();
    match names.iter().find(|name| !seen.insert(name.as_str())) {
        Some(name) => {
            let what = format!("the view has two columns named `{name}`: name one of them with AS");
            Err(script.error(at, what))
        }
        None => Ok(names),
    }
}

/// Whether every sink can have this as a column's name.
///
/// A letter or an underscore, then letters, digits and underscores, all of them ASCII.
fn is_name(name: &str) -> bool {
    let letter = |c: char| c == '_' || c.is_ascii_alphabetic();
    name.starts_with(letter) && name.chars().all(|c| letter(c) || c.is_ascii_digit())
}

/// Casts the plan's columns to types that a view can hold, and gives them the view's names.
///
/// # Errors
/// `Data` at the statement, when a column has a type that a view cannot hold (an interval, for
/// example).
fn conformed(
    plan: LogicalPlan,
    names: &[String],
    script: Script<'_>,
    at: Location,
) -> Result<LogicalPlan> {
    let explain = |error: DataFusionError| located(&error, script, at);
    let mut outputs = Vec::new();
    for ((qualifier, field), name) in plan.schema().iter().zip(names) {
        let column = Expr::Column(Column::new(qualifier.cloned(), field.name()));
        let kind = types::of_view(field.data_type()).ok_or_else(|| {
            let is = types::name(field.data_type());
            let what = format!(
                "column `{name}` is of type {is}, which a view cannot hold: cast it, as in \
                 CAST({name} AS text)"
            );
            script.error(at, what)
        })?;
        let cast = column.cast_to(&kind, plan.schema()).map_err(explain)?;
        outputs.push(cast.alias(name));
    }
    let builder = LogicalPlanBuilder::from(plan);
    builder
        .project(outputs)
        .and_then(LogicalPlanBuilder::build)
        .map_err(explain)
}

/// A message for an unknown column that is a field of its table which cannot be a column.
///
/// `None` if the error is another one, or no table has such a field.
fn unusable(error: &DataFusionError, catalog: &Catalog) -> Option<String> {
    let root = match error {
        DataFusionError::Collection(errors) => errors.first().unwrap_or(error),
        other => other,
    };
    let DataFusionError::SchemaError(error, _) = root.find_root() else {
        return None;
    };
    let SchemaError::FieldNotFound { field, .. } = error.as_ref() else {
        return None;
    };
    let named = |table: &&Table| {
        let relation = field.relation.as_ref();
        relation.is_some_and(|relation| relation.table() == table.name)
    };
    let is_it = |it: &&Unusable| it.name == field.name;
    let having = catalog.tables.iter();
    let mut having = having.filter(|table| table.unusable.iter().any(|it| is_it(&it)));
    let table = having.clone().find(named).or_else(|| having.next())?;
    let field = table.unusable.iter().find(is_it)?;
    Some(unusable_column(field, &table.name))
}

/// The planner's error in the words of this program, with its place if the planner knows it.
///
/// Of several errors the first is reported. Without a place of its own, the error is at the
/// statement (`at`).
pub(super) fn located(error: &DataFusionError, script: Script<'_>, at: Location) -> Error {
    located_as(error, None, script, at)
}

/// As [`located`], with other words if there are any.
fn located_as(
    error: &DataFusionError,
    instead: Option<String>,
    script: Script<'_>,
    at: Location,
) -> Error {
    let root = match error {
        DataFusionError::Collection(errors) => errors.first().unwrap_or(error),
        other => other,
    };
    let diagnosed = root.diagnostic().and_then(|diagnostic| diagnostic.span);
    let (span, what) = match root.find_root() {
        DataFusionError::SchemaError(error, _) => schema_error(error),
        other => (
            None,
            lower_first(&readable(plain(&first_line(&other.message())))),
        ),
    };
    let at = span.or(diagnosed).map_or(at, |span| Location {
        line: span.start.line,
        column: span.start.column,
    });
    script.error(at, instead.unwrap_or(what))
}

/// Replaces a message that only the program's authors can read.
///
/// A message with a Rust struct in it (`Foo { … }`) is such a message.
fn readable(text: String) -> String {
    match text.contains(" { ") {
        true => {
            "this cannot be planned: this is a bug of tidemill, please report the SQL".to_owned()
        }
        // INTERSECT and EXCEPT are planned as unions.
        false if text.starts_with("UNION queries have different number") => {
            "the queries of a UNION, INTERSECT or EXCEPT have different numbers of columns".into()
        }
        false => text,
    }
}

/// The message with values as SQL writes them, in place of the planner's `Int64(1)`.
///
/// `Int64(1) + Utf8("a")` becomes `1 + 'a'`. The text is only shown; nothing parses it.
fn plain(text: &str) -> String {
    let kinds = [
        "Int64(",
        "Int32(",
        "UInt64(",
        "Float64(",
        "Utf8(",
        "Boolean(",
        "Custom(",
        "Decimal128(",
    ];
    let mut plain = String::new();
    let mut rest = text;
    loop {
        let starts = kinds
            .iter()
            .filter_map(|kind| Some((rest.find(kind)?, kind.len())));
        let Some((at, len)) = starts.min() else {
            return plain + rest;
        };
        let (before, after) = (rest.get(..at), rest.get(at + len..));
        let (Some(before), Some(after)) = (before, after) else {
            return plain + rest;
        };
        let Some((value, after)) = after.split_once(')') else {
            return plain + rest;
        };
        let value = value
            .trim_start_matches("Some(")
            .split(',')
            .next()
            .unwrap_or(value);
        plain += before;
        plain += &value.replace('"', "'");
        rest = after;
    }
}

/// The place and the message of an error about column names.
///
/// An unknown column is answered with the closest name, or with all names if none is close.
fn schema_error(error: &SchemaError) -> (Option<datafusion_common::Span>, String) {
    match error {
        SchemaError::FieldNotFound {
            field,
            valid_fields,
        } => {
            let known: BTreeSet<&str> = valid_fields.iter().map(|field| field.name()).collect();
            // A column without a name has the library's text of its expression as its name.
            let named = |name: &&str| !name.contains(['(', '"']);
            let known: BTreeSet<&str> = known.into_iter().filter(named).collect();
            let hint = did_you_mean(&field.name, &known);
            let hint = match hint.as_str() {
                "" if known.is_empty() => String::new(),
                "" => {
                    let known = known.iter().map(|name| written(name));
                    format!("; there are {}", known.collect::<Vec<_>>().join(", "))
                }
                _ => hint,
            };
            let what = format!("unknown column `{}`{hint}", field.flat_name());
            (field.spans.first(), what)
        }
        SchemaError::AmbiguousReference { field } if field.spans.first().is_none() => {
            let name = plain(&field.name);
            let what = format!("two columns are named `{name}`: name one of them with AS");
            (None, what)
        }
        SchemaError::AmbiguousReference { field } => {
            let what = format!("column `{}` is in more than one place", field.flat_name());
            (field.spans.first(), what)
        }
        SchemaError::DuplicateQualifiedField { name, .. }
        | SchemaError::DuplicateUnqualifiedField { name } => {
            let name = plain(name);
            let what = format!("two columns are named `{name}`: name one of them with AS");
            (None, what)
        }
    }
}
