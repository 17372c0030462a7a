//! Casts of documents, and their comparison.
//!
//! | from | to | PostgreSQL's function |
//! |---|---|---|
//! | text | json, jsonb | `json_in`, `jsonb_in` |
//! | json, jsonb | each other, text | by the text |
//! | jsonb | boolean, numbers | `jsonb_bool`, `jsonb_int4`, … |

use std::borrow::Cow;

use tidemill_ir::json::Document;

use crate::casts::{CAST, JSON, JSONB, NUMERIC, fitted, modified};
use crate::compare::ORDER;
use crate::entry::{Answer, Entry, Kind, body, rows, scaled};
use crate::numeric::arithmetic::{long, narrow};
use crate::numeric::parse;
use crate::value::datum::Datum;

/// The text of a document's number, for a cast to the type `to`.
///
/// # Errors
/// The document is no number.
fn number(text: &str, to: &str) -> Result<String, String> {
    match Document::parse(text)? {
        Document::Number(number) => Ok(number.text().to_owned()),
        other => Err(format!("cannot cast jsonb {} to type {to}", named(&other))),
    }
}

/// What PostgreSQL calls a document in the errors of casts.
fn named(document: &Document) -> &'static str {
    match document {
        Document::Array(_) | Document::Object(_) => "array or object",
        other => other.kind(),
    }
}

/// The boolean of a document.
fn boolean(text: &str) -> Answer {
    match Document::parse(text)? {
        Document::Bool(value) => Ok(Datum::Bool(value)),
        other => Err(format!(
            "cannot cast jsonb {} to type boolean",
            named(&other)
        )),
    }
}

/// The whole number nearest to that of a document, away from zero in the middle.
fn whole(text: &str, to: &str) -> Result<i128, String> {
    Ok(parse::numeric(&number(text, to)?)?.rounded(0)?.digits)
}

/// A text as a json, which keeps it.
fn json(text: &str) -> Answer {
    tidemill_ir::json::trimmed(text)?;
    Ok(Datum::Json(Cow::Owned(text.to_owned())))
}

/// A text as a jsonb.
pub(super) fn jsonb(text: &str) -> Answer {
    Ok(Datum::jsonb(&Document::parse(text)?))
}

/// All entries of this family.
#[expect(clippy::too_many_lines, reason = "a list of entries, and no steps")]
pub(crate) fn entries() -> Vec<Entry> {
    use Datum::{Double, Int, Json, Jsonb, Real, Text};
    const J: Kind = Kind::Json;
    const B: Kind = Kind::Jsonb;
    const X: Kind = Kind::Text;
    vec![
        rows(
            JSON,
            &[X],
            J,
            body!([Text(text)] => Ok(Json(Cow::Owned(text.to_string())))),
        ),
        rows(
            JSONB,
            &[X],
            B,
            body!([Text(text)] => Ok(Jsonb(Cow::Owned(text.to_string())))),
        ),
        rows(CAST, &[X], J, body!([Text(text)] => json(text))),
        rows(CAST, &[X], B, body!([Text(text)] => jsonb(text))).narrower(),
        rows(CAST, &[J], B, body!([Json(text)] => jsonb(text))).narrower(),
        rows(
            CAST,
            &[B],
            J,
            body!([Jsonb(text)] => Ok(Json(Cow::Owned(text.to_string())))),
        ),
        rows(
            CAST,
            &[J],
            X,
            body!([Json(text)] => Ok(Datum::text(text.as_ref()))),
        ),
        rows(
            CAST,
            &[B],
            X,
            body!([Jsonb(text)] => Ok(Datum::text(text.as_ref()))),
        ),
        rows(
            CAST,
            &[B],
            Kind::Bool,
            body!([Jsonb(text)] => boolean(text)),
        ),
        rows(
            CAST,
            &[B],
            Kind::Int,
            body!([Jsonb(text)] => narrow(whole(text, "integer")?)),
        )
        .narrower(),
        rows(
            CAST,
            &[B],
            Kind::Long,
            body!([Jsonb(text)] => long(whole(text, "bigint")?)),
        )
        .narrower(),
        rows(
            CAST,
            &[B],
            Kind::Double,
            body!([Jsonb(text)] => {
                parse::double(&number(text, "double precision")?).map(Double)
            }),
        ),
        rows(
            CAST,
            &[B],
            Kind::Real,
            body!([Jsonb(text)] => parse::real(&number(text, "real")?).map(Real)),
        ),
        scaled(
            NUMERIC,
            &[B, Kind::Int, Kind::Int],
            modified,
            body!([Jsonb(text), Int(precision), Int(scale)] => {
                let value = parse::numeric(&number(text, "numeric")?)?;
                fitted(value, *precision, *scale)
            }),
        )
        .narrower(),
        rows(
            ORDER,
            &[B, B],
            Kind::Int,
            body!([Jsonb(one), Jsonb(other)] => {
                let order = Document::parse(one)?.compare(&Document::parse(other)?);
                Ok(Int(order as i32))
            }),
        ),
    ]
}
