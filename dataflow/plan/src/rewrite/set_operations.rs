//! INTERSECT and EXCEPT: planned as the UNION ALL of their inputs, then replaced by a node.
//!
//! DataFusion translates them to semi-joins and anti-joins, which count rows in another way than
//! PostgreSQL for ALL. Here they pass typing and coercion as a UNION ALL, so that names and types
//! follow the same rules. The alias of the subquery around it is the mark of the operation.
//!
//! ```text
//! a EXCEPT ALL b
//!   ─► SELECT * FROM (a UNION ALL b) AS "except all"      marked, before planning
//!   ─► SubqueryAlias "except all"
//!        Union                                            checked, typed, coerced
//!   ─► SubqueryAlias "except all"
//!        SetOperation                                     resolved, before optimisation
//! ```

use std::cmp::Ordering;
use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion_common::tree_node::Transformed;
use datafusion_common::{DFSchemaRef, DataFusionError, Result as Planned, internal_err};
use datafusion_expr::logical_plan::{Extension, SubqueryAlias, Union};
use datafusion_expr::{Expr, LogicalPlan, UserDefinedLogicalNodeCore};
use datafusion_sql::sqlparser::ast::{
    Query, SetExpr, SetOperator, SetQuantifier, VisitMut, VisitorMut,
};
use tidemill_ir::SetKind;
use tidemill_log::{Error, Result};

use super::derived::{MARK, marked as derived};

/// All operations.
const KINDS: [SetKind; 4] = [
    SetKind::Intersect,
    SetKind::IntersectAll,
    SetKind::Except,
    SetKind::ExceptAll,
];

/// The alias that marks an operation.
fn mark(kind: SetKind) -> String {
    format!("{MARK}{kind}")
}

/// The operation that an alias marks.
pub(crate) fn kind(alias: &SubqueryAlias) -> Option<SetKind> {
    let name = alias.alias.table();
    KINDS.into_iter().find(|kind| mark(*kind) == name)
}

/// Marks all INTERSECT and EXCEPT of a query.
///
/// # Errors
/// `Bug` when the templates do not parse.
pub(crate) fn marked(query: &mut Query) -> Result<()> {
    match query.visit(&mut Marking) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

/// The visitor that marks set operations.
struct Marking;

impl VisitorMut for Marking {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Error> {
        match body(&mut query.body) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }
}

/// Marks the set operations of a query body. Queries in parentheses are visited on their own.
fn body(of: &mut SetExpr) -> Result<()> {
    let SetExpr::SetOperation {
        op,
        set_quantifier,
        left,
        right,
    } = of
    else {
        return Ok(());
    };
    body(left)?;
    body(right)?;
    let kind = match (op, *set_quantifier) {
        (SetOperator::Intersect, SetQuantifier::All) => SetKind::IntersectAll,
        (SetOperator::Intersect, _) => SetKind::Intersect,
        (SetOperator::Except, SetQuantifier::All) => SetKind::ExceptAll,
        (SetOperator::Except, _) => SetKind::Except,
        _ => return Ok(()),
    };
    let union = SetExpr::SetOperation {
        op: SetOperator::Union,
        set_quantifier: SetQuantifier::All,
        left: left.clone(),
        right: right.clone(),
    };
    *of = derived(union, &mark(kind))?;
    Ok(())
}

/// Replaces the marked unions of a plan by their operations.
///
/// # Errors
/// When a marked union does not have two inputs.
pub(crate) fn resolved(plan: LogicalPlan) -> Planned<LogicalPlan> {
    let resolved = plan.transform_up_with_subqueries(|node| {
        let LogicalPlan::SubqueryAlias(mut alias) = node else {
            return Ok(Transformed::no(node));
        };
        let Some(kind) = kind(&alias) else {
            return Ok(Transformed::no(LogicalPlan::SubqueryAlias(alias)));
        };
        let operation = match Arc::unwrap_or_clone(alias.input) {
            LogicalPlan::Union(union) => SetOperation::of(union, kind)?,
            other => return internal_err!("`{}` is marked as {kind}", other.display()),
        };
        alias.input = Arc::new(operation.into_plan());
        Ok(Transformed::yes(LogicalPlan::SubqueryAlias(alias)))
    })?;
    Ok(resolved.data)
}

/// INTERSECT or EXCEPT of two inputs whose columns have the same types.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct SetOperation {
    /// How often a row occurs in the output.
    pub(crate) kind: SetKind,
    /// Left input.
    pub(crate) left: LogicalPlan,
    /// Right input.
    pub(crate) right: LogicalPlan,
    /// The columns, with the names of the left input.
    pub(crate) schema: DFSchemaRef,
}

impl SetOperation {
    /// The operation that a union of two inputs stands for.
    fn of(union: Union, kind: SetKind) -> Planned<Self> {
        let Union { inputs, schema } = union;
        let inputs: [_; 2] = inputs.try_into().map_err(|inputs: Vec<_>| {
            let what = format!("{kind} of {} inputs", inputs.len());
            DataFusionError::Internal(what)
        })?;
        let [left, right] = inputs.map(Arc::unwrap_or_clone);
        Ok(Self {
            kind,
            left,
            right,
            schema,
        })
    }

    /// The operation as a node of a plan.
    pub(crate) fn into_plan(self) -> LogicalPlan {
        LogicalPlan::Extension(Extension {
            node: Arc::new(self),
        })
    }

    /// The operation that a node is.
    pub(crate) fn in_node(extension: &Extension) -> Option<&Self> {
        extension.node.as_any().downcast_ref()
    }
}

impl PartialOrd for SetOperation {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        let of = |it: &Self| (it.kind, it.left.clone(), it.right.clone());
        let ((kind, left, right), (other_kind, other_left, other_right)) = (of(self), of(other));
        kind.partial_cmp(&other_kind)
            .filter(|order| order.is_ne())
            .or_else(|| left.partial_cmp(&other_left))
            .filter(|order| order.is_ne())
            .or_else(|| right.partial_cmp(&other_right))
    }
}

impl UserDefinedLogicalNodeCore for SetOperation {
    fn name(&self) -> &'static str {
        "SetOperation"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.left, &self.right]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind)
    }

    fn with_exprs_and_inputs(&self, _: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Planned<Self> {
        let inputs = inputs.into_iter().map(Arc::new).collect();
        let schema = Arc::clone(&self.schema);
        Self::of(Union { inputs, schema }, self.kind)
    }
}
