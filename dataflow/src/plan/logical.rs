//! From a view's query to an optimised logical plan.
//!
//! In flows a query that [`super::refuse`] let pass, out flows a plan whose columns have the
//! view's names and types that a view can hold. The optimizer's rules are chosen so that none
//! makes a node that [`super::lower`] does not know.

use std::collections::HashSet;
use std::sync::Arc;

use datafusion_common::tree_node::TreeNode;
use datafusion_common::{Column, DataFusionError, SchemaError};
use datafusion_expr::planner::ContextProvider;
use datafusion_expr::{Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder};
use datafusion_optimizer::analyzer::Analyzer;
use datafusion_optimizer::common_subexpr_eliminate::CommonSubexprEliminate;
use datafusion_optimizer::optimize_projections::OptimizeProjections;
use datafusion_optimizer::optimize_unions::OptimizeUnions;
use datafusion_optimizer::push_down_filter::PushDownFilter;
use datafusion_optimizer::simplify_expressions::SimplifyExpressions;
use datafusion_optimizer::{Optimizer, OptimizerContext, OptimizerRule};
use datafusion_sql::planner::{ParserOptions, SqlToRel};
use datafusion_sql::sqlparser::ast::{CreateView, Query, Statement};
use datafusion_sql::sqlparser::tokenizer::Location;

use super::catalog::Catalog;
use super::script::{Script, did_you_mean, lower_first, normal};
use super::types;
use crate::{Error, Result};

/// Plans the query of one view. `at` is the statement's place.
pub(super) fn plan(
    view: &CreateView,
    catalog: &Catalog,
    script: Script<'_>,
    at: Location,
) -> Result<LogicalPlan> {
    let explain = |error: DataFusionError| located(&error, script, at);
    let plan = analyzed(&view.query, catalog).map_err(explain)?;
    let names = column_names(view, &plan, script, at)?;
    let plan = conformed(plan, &names, script, at)?;
    optimized(plan, catalog).map_err(explain)
}

fn analyzed(query: &Query, catalog: &Catalog) -> std::result::Result<LogicalPlan, DataFusionError> {
    let options = ParserOptions::new()
        .with_map_string_types_to_utf8view(false)
        .with_collect_spans(true);
    let planner = SqlToRel::new_with_options(catalog, options);
    let plan = planner.sql_statement_to_plan(Statement::Query(Box::new(query.clone())))?;
    Analyzer::new().execute_and_check(plan, catalog.options(), |_, _| {})
}

fn optimized(
    plan: LogicalPlan,
    catalog: &Catalog,
) -> std::result::Result<LogicalPlan, DataFusionError> {
    let mut rules: Vec<Arc<dyn OptimizerRule + Send + Sync>> = vec![
        Arc::new(OptimizeUnions::new()),
        Arc::new(SimplifyExpressions::new()),
        Arc::new(PushDownFilter::new()),
    ];
    // It would compute what two filtered aggregates share for every row, also for rows that both
    // filters leave out and that it fails for.
    if !plan.exists(|node| Ok(has_filtered_aggregate(node)))? {
        rules.push(Arc::new(CommonSubexprEliminate::new()));
    }
    rules.push(Arc::new(OptimizeProjections::new()));
    let rules = Optimizer::with_rules(rules);
    let options = catalog.options().clone();
    // A context of its own for every view: the names it generates do not depend on other views.
    let context = OptimizerContext::new_with_config_options(Arc::new(options))
        .without_query_execution_start_time();
    rules.optimize(plan, &context, |_, _| {})
}

fn has_filtered_aggregate(node: &LogicalPlan) -> bool {
    let LogicalPlan::Aggregate(grouping) = node else {
        return false;
    };
    let filtered = |expr: &Expr| matches!(expr.clone().unalias(), Expr::AggregateFunction(call) if call.params.filter.is_some());
    grouping.aggr_expr.iter().any(filtered)
}

/// The names of the view's columns: declared after the view's name, or those of the query.
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
                    field.name()
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

/// What every sink can hold as a column's name.
fn is_name(name: &str) -> bool {
    let letter = |c: char| c == '_' || c.is_ascii_alphabetic();
    name.starts_with(letter) && name.chars().all(|c| letter(c) || c.is_ascii_digit())
}

/// The plan with the view's column names, and types that a view can hold.
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

/// The planner's error in our words, where it knows the place there.
pub(super) fn located(error: &DataFusionError, script: Script<'_>, at: Location) -> Error {
    let root = match error {
        DataFusionError::Collection(errors) => errors.first().unwrap_or(error),
        other => other,
    };
    let diagnosed = root.diagnostic().and_then(|diagnostic| diagnostic.span);
    let (span, what) = match root.find_root() {
        DataFusionError::SchemaError(error, _) => schema_error(error),
        other => (None, lower_first(&first_line(&other.message()))),
    };
    let at = span.or(diagnosed).map_or(at, |span| Location {
        line: span.start.line,
        column: span.start.column,
    });
    script.error(at, what)
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

fn schema_error(error: &SchemaError) -> (Option<datafusion_common::Span>, String) {
    match error {
        SchemaError::FieldNotFound {
            field,
            valid_fields,
        } => {
            let known: Vec<&str> = valid_fields.iter().map(|field| field.name()).collect();
            let hint = did_you_mean(&field.name, &known);
            let hint = match hint.as_str() {
                "" if known.is_empty() => String::new(),
                "" => format!("; there are {}", known.join(", ")),
                _ => hint,
            };
            let what = format!("unknown column `{}`{hint}", field.flat_name());
            (field.spans.first(), what)
        }
        SchemaError::AmbiguousReference { field } => {
            let what = format!("column `{}` is in more than one place", field.flat_name());
            (field.spans.first(), what)
        }
        SchemaError::DuplicateQualifiedField { name, .. }
        | SchemaError::DuplicateUnqualifiedField { name } => {
            let what = format!("two columns are named `{name}`: name one of them with AS");
            (None, what)
        }
    }
}
