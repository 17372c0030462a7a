//! Texts that are JSON documents.

use datafusion_common::ScalarValue;
use datafusion_expr::Expr;
use tidemill_log::schema::SourceType;

use super::{Typed, literal};

/// Whether a value is the text of a JSON document.
pub(super) fn is_document(kind: Option<SourceType>) -> bool {
    kind.is_some_and(SourceType::is_document)
}

/// A value that is the text of a document, as a document. Other values stay.
pub(super) fn document((expr, kind): Typed) -> Expr {
    match kind.filter(|kind| kind.is_document()) {
        Some(kind) => tidemill_functions::named(kind.name(), vec![expr]),
        None => expr,
    }
}

/// The document of a comparison in which nothing is known to be a jsonb. A captured column is a
/// json here, whichever of the two it is in the source, and PostgreSQL compares no json.
pub(super) fn of_unknown_type<'a>(left: &'a Typed, right: &'a Typed) -> Option<&'a Expr> {
    let is_jsonb = |(expr, kind): &Typed| match kind {
        Some(kind) => kind.name() == "jsonb",
        // Another expression is typed later.
        None => literal(expr).is_none_or(ScalarValue::is_null),
    };
    let unknown = !is_jsonb(left) && !is_jsonb(right);
    let column = if left.1.is_some() { left } else { right };
    unknown.then_some(&column.0)
}
