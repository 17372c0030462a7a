//! TUMBLE, HOP and SESSION in FROM: the rows of a table with the time windows that contain them, as
//! subqueries that compute `window_start` and `window_end`.
//!
//! The forms of Flink, Feldera and RisingWave are read ([`call`]). What they become:
//!
//! ```text
//! TUMBLE(TABLE t, c, size)   ─► SELECT *, date_bin(size, c, origin) AS window_start, … + size …
//! HOP(TABLE t, c, hop, size) ─► one such SELECT for each window of a row, in a UNION ALL
//! SESSION(TABLE t, c, gap)   ─► lag and lead find the first and the last row of each session;
//!                               max and min over them give its start and end to all its rows
//! ```
//!
//! A row whose time is null is in no window. The starts of TUMBLE and HOP are counted from 1970, or
//! from 1970 and an offset. Two rows that are exactly `gap` apart are in one session, as in Flink.

mod call;
mod template;

use std::cell::Cell;
use std::ops::ControlFlow;

use call::{Call, Kind};
use datafusion_common::{DFSchema, ScalarValue};
use datafusion_expr::Expr as Planned;
use datafusion_sql::planner::{PlannerContext, SqlToRel};
use datafusion_sql::sqlparser::ast::{
    Expr, Ident, Query, Select, SetExpr, Spanned, TableFactor, Visit, VisitMut, Visitor, VisitorMut,
};
use datafusion_sql::sqlparser::tokenizer::{Location, Span};
use template::{expression, filled, in_from, without};
use tidemill_functions::chain::chained;
use tidemill_log::{Error, Kind as ErrorKind, Result};

use super::constants::union;
use crate::catalog::Catalog;
use crate::script::Script;

/// The most windows that the HOPs of a view put a row into: the size divided by the slide, for each
/// SELECT below. Each of them is planned as a SELECT.
pub(crate) const HOP_WINDOWS_MAX: i64 = 1000;

/// The number of microseconds in a day.
const DAY: i64 = 86_400_000_000;

/// Writes out the time windows of a query.
///
/// # Errors
/// `Data` with the place, when a call is not one of the forms, or its intervals have no fixed
/// length. `Bug` when the templates do not parse.
pub(crate) fn written(
    query: &mut Query,
    catalog: &Catalog,
    script: Script<'_>,
    at: Location,
) -> Result<()> {
    let mut writing = Writing {
        catalog,
        windows: Cell::new(0),
    };
    match query.visit(&mut writing) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(Wrong::Bug(error)) => Err(error),
        ControlFlow::Break(Wrong::Refused(span, what)) => {
            let known = if span.start.line == 0 { at } else { span.start };
            Err(script.error(known, what))
        }
    }
}

/// Why a call is not written out.
enum Wrong {
    /// The user must write it in another way: the place and the reason.
    Refused(Span, String),
    /// A template is not what is expected.
    Bug(Error),
}

impl From<Error> for Wrong {
    fn from(error: Error) -> Self {
        Self::Bug(error)
    }
}

/// A result, or why there is none.
type Found<T> = std::result::Result<T, Wrong>;

/// The visitor that writes out calls, in inner queries first.
struct Writing<'a> {
    /// What the planner needs to read intervals.
    catalog: &'a Catalog,
    /// The windows of the HOPs so far.
    windows: Cell<i64>,
}

impl VisitorMut for Writing<'_> {
    type Break = Wrong;

    fn post_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Wrong> {
        match self.factor(factor) {
            Ok(()) => ControlFlow::Continue(()),
            Err(wrong) => ControlFlow::Break(wrong),
        }
    }
}

/// An interval of a fixed length.
struct Length {
    /// The interval as written.
    written: Expr,
    /// Its length, more than 0 except for an offset.
    micros: i64,
}

impl Writing<'_> {
    /// Writes out an item of FROM, if it is a call.
    fn factor(&self, factor: &mut TableFactor) -> Found<()> {
        let Some(call) = call::read(factor)? else {
            return Ok(());
        };
        let rows = match call.kind {
            Kind::Tumble => self.tumble(&call)?,
            Kind::Hop => self.hop(&call)?,
            Kind::Session => self.session(&call)?,
        };
        let Call { name, alias, .. } = call;
        *factor = in_from(rows, name, alias)?;
        Ok(())
    }

    /// The rows of a TUMBLE.
    fn tumble(&self, call: &Call) -> Found<SetExpr> {
        let size = self.length(call, "size")?;
        let sql = "SELECT *, date_bin(\"@size\", \"@at\", \"@origin\") AS window_start, \
                   date_bin(\"@size\", \"@at\", \"@origin\") + \"@size\" AS window_end \
                   FROM \"@data\" WHERE \"@at\" IS NOT NULL";
        let origin = self.origin(call)?;
        let parts = vec![("@size", size.written), ("@origin", origin)];
        Ok(filled(sql, call, parts)?)
    }

    /// The rows of a HOP: a SELECT for each of the windows that contain a row, the latest one
    /// first. If the size is no multiple of the hop, only some rows are in the earliest one.
    fn hop(&self, call: &Call) -> Found<SetExpr> {
        let (hop, size) = (self.length(call, "slide")?, self.length(call, "size")?);
        let origin = self.origin(call)?;
        let count = (size.micros - 1) / hop.micros + 1;
        let windows = count.saturating_mul(selects(&call.data));
        let windows = windows.saturating_add(self.windows.get());
        self.windows.set(windows);
        if windows > HOP_WINDOWS_MAX {
            let what = format!(
                "the HOPs of this view put each row into {windows} windows; at most \
                 {HOP_WINDOWS_MAX} are supported"
            );
            return Err(Wrong::Refused(call.name.span, what));
        }
        let mut windows = Vec::new();
        for index in 0..count {
            let start = match index {
                0 => "date_bin(\"@hop\", \"@at\", \"@origin\")",
                _ => "(date_bin(\"@hop\", \"@at\", \"@origin\") - \"@back\")",
            };
            let within = match (index + 1) * hop.micros > size.micros {
                true => format!(" AND \"@at\" < {start} + \"@size\""),
                false => String::new(),
            };
            let sql = format!(
                "SELECT *, {start} AS window_start, {start} + \"@size\" AS window_end \
                 FROM \"@data\" WHERE \"@at\" IS NOT NULL{within}"
            );
            let parts = vec![
                ("@hop", hop.written.clone()),
                ("@size", size.written.clone()),
                ("@origin", origin.clone()),
                ("@back", interval(index * hop.micros)?),
            ];
            windows.push(filled(&sql, call, parts)?);
        }
        let none = || Error::new(ErrorKind::Bug, "a HOP without windows");
        Ok(chained(windows, union).ok_or_else(none)?)
    }

    /// The rows of a SESSION.
    fn session(&self, call: &Call) -> Found<SetExpr> {
        let gap = self.length(call, "gap")?;
        let keys: Vec<String> = (0..call.keys.len())
            .map(|at| format!("\"@{at}\""))
            .collect();
        let window = match keys.is_empty() {
            true => "ORDER BY \"@at\"".to_owned(),
            false => format!("PARTITION BY {} ORDER BY \"@at\"", keys.join(", ")),
        };
        let (first, last) = (named("first of session"), named("last of session"));
        let sql = format!(
            "SELECT *, max(CASE WHEN {first} THEN \"@at\" END) OVER ({window}) \
             + INTERVAL '0 seconds' AS window_start, \
             min(CASE WHEN {last} THEN \"@at\" END) OVER ({window} RANGE BETWEEN CURRENT ROW \
             AND UNBOUNDED FOLLOWING) + \"@gap\" AS window_end FROM (SELECT *, \
             (\"@at\" > lag(\"@at\") OVER ({window}) + \"@gap\") IS NOT FALSE AS {first}, \
             (lead(\"@at\") OVER ({window}) > \"@at\" + \"@gap\") IS NOT FALSE AS {last} \
             FROM \"@data\" WHERE \"@at\" IS NOT NULL) AS bounds"
        );
        let names: Vec<String> = (0..call.keys.len()).map(|at| format!("@{at}")).collect();
        let keys = names.iter().map(String::as_str).zip(call.keys.clone());
        let parts = [("@gap", gap.written)].into_iter().chain(keys);
        let mut rows = filled(&sql, call, parts.collect())?;
        without(&mut rows, vec![first, last]);
        Ok(rows)
    }

    /// An interval of a call, by its name.
    fn length(&self, call: &Call, name: &str) -> Found<Length> {
        let written = call.interval(name)?.clone();
        let span = match written.span() {
            span if span.start.line == 0 => call.name.span,
            span => span,
        };
        let refused = |what: String| Err(Wrong::Refused(span, what));
        match self.micros(&written) {
            Some(micros) if micros > 0 || name == "offset" => Ok(Length { written, micros }),
            Some(_) => refused(format!(
                "the {name} of {} must be greater than zero",
                call.kind
            )),
            None => refused(format!(
                "the {name} of {} must be an INTERVAL of days, hours, minutes and seconds, as in \
                 INTERVAL '10 minutes'",
                call.kind
            )),
        }
    }

    /// The length of a literal interval in microseconds, with days of 24 hours; `None` if it is
    /// something else, has months, or is too long.
    fn micros(&self, expr: &Expr) -> Option<i64> {
        let Expr::Interval(_) = expr else {
            return None;
        };
        let planner = SqlToRel::new(self.catalog);
        let mut context = PlannerContext::new();
        let planned = planner.sql_to_expr(expr.clone(), &DFSchema::empty(), &mut context);
        match planned.ok()? {
            Planned::Literal(ScalarValue::IntervalMonthDayNano(Some(it)), _) if it.months == 0 => {
                let days = i64::from(it.days).checked_mul(DAY)?;
                days.checked_add(it.nanoseconds / 1000)
            }
            _ => None,
        }
    }

    /// The moment that the windows of TUMBLE and HOP are counted from: a timestamp, which
    /// PostgreSQL's rules cast if the column is a timestamptz.
    fn origin(&self, call: &Call) -> Found<Expr> {
        const SINCE: &str = "TIMESTAMP '1970-01-01 00:00:00'";
        if !call.has("offset") {
            return Ok(expression(SINCE, &[])?);
        }
        let offset = self.length(call, "offset")?.written;
        let shifted = format!("{SINCE} + \"@offset\"");
        Ok(expression(&shifted, &[("@offset", offset)])?)
    }
}

/// The number of SELECTs in an item of FROM, at least 1.
fn selects(factor: &TableFactor) -> i64 {
    let mut counting = Selects(0);
    let _visited: ControlFlow<()> = factor.visit(&mut counting);
    counting.0.max(1)
}

/// The visitor that counts SELECTs.
struct Selects(i64);

impl Visitor for Selects {
    type Break = ();

    fn pre_visit_select(&mut self, _: &Select) -> ControlFlow<()> {
        self.0 = self.0.saturating_add(1);
        ControlFlow::Continue(())
    }
}

/// The interval of so many microseconds.
fn interval(micros: i64) -> Result<Expr> {
    let (count, unit) = match micros % 1_000_000 {
        0 => (micros / 1_000_000, "seconds"),
        _ => (micros, "microseconds"),
    };
    expression(&format!("INTERVAL '{count} {unit}'"), &[])
}

/// A column of the rows below a SESSION, which its own `*` leaves out.
fn named(name: &str) -> Ident {
    Ident::with_quote('"', name)
}
