//! The names of columns that a view's query gives no name to, as PostgreSQL names them
//! (`FigureColname` in `parser/parse_target.c`): a call has the name of its function, a cast the
//! name of what is cast, CASE is `case`.
//!
//! An expression that PostgreSQL calls `?column?` keeps no name, and is refused. So is a name that
//! another column of the view has.

use std::collections::BTreeMap;

use datafusion_sql::sqlparser::ast::{
    DataType, Expr, Ident, Query, Select, SelectItem, SetExpr, TrimWhereField,
};

use crate::script::normal;

/// Names the unnamed columns of a query.
pub(crate) fn figured(query: &mut Query) {
    if let Some(select) = first(&mut query.body) {
        name_all(select);
    }
}

/// The SELECT that names the columns: of a set operation the first one.
fn first(body: &mut SetExpr) -> Option<&mut Select> {
    match body {
        SetExpr::Select(select) => Some(select),
        SetExpr::Query(query) => first(&mut query.body),
        SetExpr::SetOperation { left, .. } => first(left),
        _ => None,
    }
}

/// Names the unnamed columns of a SELECT, unless two columns would have the name.
fn name_all(select: &mut Select) {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for item in &select.projection {
        let name = match item {
            SelectItem::ExprWithAlias { alias, .. } => Some(normal(alias)),
            SelectItem::UnnamedExpr(expr) => name_of(expr).map(|(name, _)| name),
            _ => None,
        };
        if let Some(name) = name {
            *seen.entry(name).or_default() += 1;
        }
    }
    for item in &mut select.projection {
        let SelectItem::UnnamedExpr(expr) = item else {
            continue;
        };
        let is_column = matches!(expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_));
        let Some((name, _)) = name_of(expr).filter(|_| !is_column) else {
            continue;
        };
        if seen.get(&name) == Some(&1) {
            let alias = Ident::with_quote('"', name);
            let expr = expr.clone();
            *item = SelectItem::ExprWithAlias { expr, alias };
        }
    }
}

/// How sure a name is: a weak one gives way to the name of a CASE or a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Strength {
    /// The name of a type or of CASE.
    Weak,
    /// The name of a column or a function.
    Strong,
}

/// The name of an expression; `None` for `?column?`.
fn name_of(expr: &Expr) -> Option<(String, Strength)> {
    use Strength::{Strong, Weak};
    let strong = |name: &str| Some((name.to_owned(), Strong));
    match expr {
        Expr::Identifier(name) => Some((normal(name), Strong)),
        Expr::CompoundIdentifier(parts) => Some((normal(parts.last()?), Strong)),
        Expr::Nested(inner) | Expr::Collate { expr: inner, .. } => name_of(inner),
        Expr::Function(call) => {
            let last = call.name.0.last()?.as_ident()?;
            Some((normal(last), Strong))
        }
        Expr::Cast {
            expr, data_type, ..
        } => match name_of(expr) {
            Some((name, Strong)) => Some((name, Strong)),
            _ => Some((type_name(data_type)?, Weak)),
        },
        Expr::TypedString(typed) => Some((type_name(&typed.data_type)?, Weak)),
        Expr::Interval(_) => Some(("interval".to_owned(), Weak)),
        Expr::Case { else_result, .. } => match else_result.as_deref().and_then(name_of) {
            Some((name, Strong)) => Some((name, Strong)),
            _ => Some(("case".to_owned(), Weak)),
        },
        Expr::Extract { .. } => strong("extract"),
        Expr::Ceil { .. } => strong("ceil"),
        Expr::Floor { .. } => strong("floor"),
        Expr::Position { .. } => strong("position"),
        Expr::Substring { .. } => strong("substring"),
        Expr::Overlay { .. } => strong("overlay"),
        Expr::AtTimeZone { .. } => strong("timezone"),
        Expr::Exists { negated: false, .. } => strong("exists"),
        Expr::Tuple(_) => strong("row"),
        Expr::Trim { trim_where, .. } => strong(match trim_where {
            Some(TrimWhereField::Leading) => "ltrim",
            Some(TrimWhereField::Trailing) => "rtrim",
            Some(TrimWhereField::Both) | None => "btrim",
        }),
        Expr::Subquery(query) => match query.body.as_ref() {
            SetExpr::Select(select) => match select.projection.as_slice() {
                [SelectItem::UnnamedExpr(expr)] => name_of(expr),
                [SelectItem::ExprWithAlias { alias, .. }] => Some((normal(alias), Strong)),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    }
}

/// PostgreSQL's name of a type, where it is one word that a column may have.
fn type_name(kind: &DataType) -> Option<String> {
    let name = match kind {
        DataType::Text => "text",
        DataType::Date => "date",
        DataType::Boolean | DataType::Bool => "bool",
        DataType::SmallInt(_) | DataType::Int2(_) => "int2",
        DataType::Int(_) | DataType::Integer(_) | DataType::Int4(_) => "int4",
        DataType::BigInt(_) | DataType::Int8(_) => "int8",
        DataType::Numeric(_) | DataType::Decimal(_) => "numeric",
        DataType::Real | DataType::Float4 => "float4",
        DataType::DoublePrecision | DataType::Float8 => "float8",
        DataType::Varchar(_) => "varchar",
        DataType::Interval { .. } => "interval",
        _ => return None,
    };
    Some(name.to_owned())
}
