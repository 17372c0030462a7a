//! Calls of TUMBLE, HOP and SESSION, in the forms that users of other engines write.
//!
//! ```text
//! FROM TUMBLE(t, c, size [, offset])                                     RisingWave
//! FROM TUMBLE(TABLE t, DESCRIPTOR(c), size [, offset])
//! FROM TABLE(TUMBLE(TABLE t, DESCRIPTOR(c), size [, offset]))            Flink, Feldera
//! FROM TABLE(TUMBLE(DATA => TABLE t, TIMECOL => DESCRIPTOR(c), SIZE => size))
//! FROM HOP(TABLE t, c, slide, size [, offset])
//! FROM SESSION(TABLE t PARTITION BY k, c, gap)                           Flink
//! FROM SESSION(TABLE t, c, PARTITION BY k, gap)
//! FROM SESSION(TABLE t, DESCRIPTOR(c), DESCRIPTOR(k), gap)               Calcite
//! ```
//!
//! In place of `TABLE t` there may be a query in parentheses. `TABLE t` and `PARTITION BY` come from
//! the parser as prefixes of expressions ([`crate::script::dialect`]).

use std::fmt;

use datafusion_sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectName,
    ObjectNamePart, TableAlias, TableFactor,
};
use datafusion_sql::sqlparser::tokenizer::Span;

use super::{Found, Wrong};
use crate::rewrite::derived::select;
use crate::script::dialect::{PARTITION_BY, TABLE};
use crate::script::{normal, single};

/// Which windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Windows of one size that touch each other.
    Tumble,
    /// Windows of one size that begin one hop after another.
    Hop,
    /// Windows that end where no row comes for as long as a gap.
    Session,
}

impl Kind {
    /// The kind that a function makes.
    fn named(name: &str) -> Option<Self> {
        match name {
            "tumble" => Some(Self::Tumble),
            "hop" => Some(Self::Hop),
            "session" => Some(Self::Session),
            _ => None,
        }
    }

    /// The names of the intervals that a call takes, and how many of them it must have.
    fn intervals(self) -> (&'static [&'static str], usize) {
        match self {
            Self::Tumble => (&["size", "offset"], 1),
            Self::Hop => (&["slide", "size", "offset"], 2),
            Self::Session => (&["gap"], 1),
        }
    }

    /// How a call is written.
    fn form(self) -> &'static str {
        match self {
            Self::Tumble => "TUMBLE(TABLE t, column, INTERVAL '10 minutes')",
            Self::Hop => "HOP(TABLE t, column, INTERVAL '5 minutes', INTERVAL '10 minutes')",
            Self::Session => "SESSION(TABLE t PARTITION BY key, column, INTERVAL '10 minutes')",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tumble => "TUMBLE",
            Self::Hop => "HOP",
            Self::Session => "SESSION",
        })
    }
}

/// A call.
pub(super) struct Call {
    /// Which windows.
    pub(super) kind: Kind,
    /// The function's name as written.
    pub(super) name: Ident,
    /// The alias of the item of FROM.
    pub(super) alias: Option<TableAlias>,
    /// The table, or the query.
    pub(super) data: TableFactor,
    /// The column with the time of a row.
    pub(super) time: Ident,
    /// What a SESSION is partitioned by.
    pub(super) keys: Vec<Expr>,
    /// The intervals by their names.
    intervals: Vec<(&'static str, Expr)>,
}

impl Call {
    /// Whether the call has an interval of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.intervals.iter().any(|(known, _)| *known == name)
    }

    /// The interval of a name.
    ///
    /// # Errors
    /// The call does not have it.
    pub(super) fn interval(&self, name: &str) -> Found<&Expr> {
        let found = self.intervals.iter().find(|(known, _)| *known == name);
        let missing = || wrong(self.kind, self.name.span);
        found.map(|(_, expr)| expr).ok_or_else(missing)
    }
}

/// The refusal of a call that has none of the forms.
fn wrong(kind: Kind, span: Span) -> Wrong {
    Wrong::Refused(span, format!("write {}", kind.form()))
}

/// The call that an item of FROM is; `None` if it is something else.
///
/// # Errors
/// It is a call of one of the functions, in none of the forms.
pub(super) fn read(factor: &TableFactor) -> Found<Option<Call>> {
    let (name, args, alias) = match factor {
        TableFactor::Table {
            name,
            alias,
            args: Some(args),
            with_ordinality: false,
            sample: None,
            ..
        } if args.settings.is_none() => (name, &args.args, alias),
        TableFactor::TableFunction {
            expr: Expr::Function(function),
            alias,
        } => match plain(function) {
            Some(args) => (&function.name, args, alias),
            None => return Ok(None),
        },
        _ => return Ok(None),
    };
    let Some((name, kind)) = single(name).and_then(|it| Some((it, Kind::named(&normal(it))?)))
    else {
        return Ok(None);
    };
    let mut reading = Reading::default();
    for arg in args {
        reading
            .argument(kind, arg)
            .ok_or_else(|| wrong(kind, name.span))?;
    }
    let mut call = reading
        .call(kind, name)
        .ok_or_else(|| wrong(kind, name.span))?;
    call.alias.clone_from(alias);
    Ok(Some(call))
}

/// The arguments of a function that has no other clauses.
fn plain(function: &Function) -> Option<&Vec<FunctionArg>> {
    let FunctionArguments::List(list) = &function.args else {
        return None;
    };
    let bare = list.clauses.is_empty()
        && list.duplicate_treatment.is_none()
        && function.filter.is_none()
        && function.over.is_none()
        && function.null_treatment.is_none()
        && function.within_group.is_empty();
    bare.then_some(&list.args)
}

/// What has been read of a call.
#[derive(Default)]
struct Reading {
    /// The table, or the query.
    data: Option<Expr>,
    /// The column with the time.
    time: Option<Ident>,
    /// What a SESSION is partitioned by.
    keys: Option<Vec<Expr>>,
    /// The intervals by their names.
    intervals: Vec<(&'static str, Expr)>,
}

impl Reading {
    /// Reads the next argument; `None` if it does not fit.
    fn argument(&mut self, kind: Kind, arg: &FunctionArg) -> Option<()> {
        let (name, expr) = match arg {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => (None, expr),
            FunctionArg::Named {
                name,
                arg: FunctionArgExpr::Expr(expr),
                ..
            } => (Some(normal(name)), expr),
            _ => return None,
        };
        let keys = (kind == Kind::Session && self.time.is_some() && self.keys.is_none())
            .then(|| keys(expr))
            .flatten();
        match name.as_deref() {
            Some("data") => self.table(expr),
            None if self.data.is_none() => self.table(expr),
            Some("timecol") => self.column(expr),
            None if self.time.is_none() => self.column(expr),
            None if keys.is_some() => {
                self.keys = keys;
                Some(())
            }
            name => self.interval(kind, name, expr),
        }
    }

    /// Reads the table, which may be partitioned.
    fn table(&mut self, expr: &Expr) -> Option<()> {
        let mut data = expr;
        if let Expr::Prefixed { prefix, value } = expr {
            let partitioned = match value.as_ref() {
                Expr::Tuple(parts) => parts.as_slice(),
                _ => return None,
            };
            data = match partitioned {
                _ if prefix.value != TABLE => return None,
                [data] => data,
                [data, by] => {
                    self.keys = Some(keys(by)?);
                    data
                }
                _ => return None,
            };
        }
        self.data = Some(data.clone());
        Some(())
    }

    /// Reads the column with the time: a name, or a DESCRIPTOR.
    fn column(&mut self, expr: &Expr) -> Option<()> {
        let time = match (expr, descriptor(expr).as_deref()) {
            (Expr::Identifier(name), _) | (_, Some([Expr::Identifier(name)])) => name.clone(),
            _ => return None,
        };
        self.time = Some(time);
        Some(())
    }

    /// Reads an interval: the one of a name, or the next one.
    fn interval(&mut self, kind: Kind, name: Option<&str>, expr: &Expr) -> Option<()> {
        let (known, _) = kind.intervals();
        let name = match name {
            Some(name) => known.iter().find(|known| **known == name),
            None => known.get(self.intervals.len()),
        }?;
        let new = !self.intervals.iter().any(|(known, _)| known == name);
        self.intervals.push((name, expr.clone()));
        new.then_some(())
    }

    /// The whole call; `None` if something is missing.
    fn call(self, kind: Kind, name: &Ident) -> Option<Call> {
        let (_, needed) = kind.intervals();
        let keys = self.keys.unwrap_or_default();
        let complete = self.intervals.len() >= needed && (kind == Kind::Session || keys.is_empty());
        let data = data(self.data?, name)?;
        complete.then_some(Call {
            kind,
            name: name.clone(),
            alias: None,
            data,
            time: self.time?,
            keys,
            intervals: self.intervals,
        })
    }
}

/// The names in a DESCRIPTOR.
fn descriptor(expr: &Expr) -> Option<Vec<Expr>> {
    let Expr::Function(function) = expr else {
        return None;
    };
    let named = single(&function.name).map(normal);
    if named.as_deref() != Some("descriptor") {
        return None;
    }
    let names = plain(function)?.iter().map(|arg| match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
        _ => None,
    });
    names.collect()
}

/// The expressions of a PARTITION BY, or the names of a DESCRIPTOR.
fn keys(expr: &Expr) -> Option<Vec<Expr>> {
    match expr {
        Expr::Prefixed { prefix, value } if prefix.value == PARTITION_BY => match value.as_ref() {
            Expr::Tuple(keys) => Some(keys.clone()),
            _ => None,
        },
        other => descriptor(other),
    }
}

/// The item of FROM for a table's name, or for a query in parentheses.
fn data(expr: Expr, function: &Ident) -> Option<TableFactor> {
    let sql = match &expr {
        Expr::Subquery(_) => "SELECT * FROM (SELECT 1) AS data",
        _ => "SELECT * FROM data",
    };
    let mut factor = select(sql).ok()?.from.pop()?.relation;
    match (&mut factor, expr) {
        (TableFactor::Table { name, .. }, Expr::Identifier(own)) => {
            *name = ObjectName(vec![ObjectNamePart::Identifier(own)]);
        }
        (TableFactor::Table { name, .. }, Expr::CompoundIdentifier(parts)) => {
            *name = ObjectName(parts.into_iter().map(ObjectNamePart::Identifier).collect());
        }
        (
            TableFactor::Derived {
                subquery,
                alias: Some(alias),
                ..
            },
            Expr::Subquery(own),
        ) => {
            *subquery = own;
            alias.name = function.clone();
        }
        _ => return None,
    }
    Some(factor)
}
