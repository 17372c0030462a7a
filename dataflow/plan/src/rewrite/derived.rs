//! Queries put into FROM: `SELECT * FROM (query) AS "mark"`, made from parsed SQL.
//!
//! The alias marks what the query around it stands for ([`super::set_operations`],
//! [`super::constants`]). Marks begin with a character that no alias may contain, which
//! [`crate::refuse`] checks.

use datafusion_sql::sqlparser::ast::{Ident, Query, Select, SetExpr, TableFactor};
use datafusion_sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion_sql::sqlparser::parser::Parser;
use tidemill_log::{Error, Kind, Result};

/// The first character of every mark.
pub(crate) const MARK: char = '\u{1}';

/// The query of this text, as a template for other queries.
///
/// # Errors
/// `Bug` when the text is no query.
pub(crate) fn query(sql: &str) -> Result<Query> {
    let parser = Parser::new(&PostgreSqlDialect {}).try_with_sql(sql);
    parser
        .and_then(|mut parser| parser.parse_query())
        .map(|query| *query)
        .map_err(|error| Error::with_source(Kind::Bug, "a template of a query", error))
}

/// The SELECT of this text, as a template for others.
///
/// # Errors
/// `Bug` when the text is no SELECT.
pub(crate) fn select(sql: &str) -> Result<Select> {
    match *query(sql)?.body {
        SetExpr::Select(select) => Ok(*select),
        _ => Err(Error::new(Kind::Bug, "a template that is no SELECT")),
    }
}

/// `SELECT * FROM (body) AS mark`.
///
/// # Errors
/// As [`query`].
pub(crate) fn marked(body: SetExpr, mark: &str) -> Result<SetExpr> {
    let mut outer = select("SELECT * FROM (SELECT 1) AS mark")?;
    for from in &mut outer.from {
        if let TableFactor::Derived {
            subquery,
            alias: Some(alias),
            ..
        } = &mut from.relation
        {
            alias.name = Ident::with_quote('"', mark);
            *subquery.body = body;
            return Ok(SetExpr::Select(Box::new(outer)));
        }
    }
    Err(Error::new(Kind::Bug, "a template without a subquery"))
}
