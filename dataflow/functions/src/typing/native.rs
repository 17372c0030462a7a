//! `Native`: an entry as a scalar function of DataFusion, evaluated over Arrow's columns.
//!
//! Input: columns of one length, or scalars, in the types that the entry takes. Output: a column of
//! the result type, or a scalar if all arguments are scalars. The first row that fails makes the
//! whole call fail; the caller halves such a batch until it finds the row (`operator/compute` of
//! the crate `tidemill-dataflow`).

use std::any::Any;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion_common::{DataFusionError, Result, ScalarValue, internal_err};
use datafusion_expr::expr::ScalarFunction;
use datafusion_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    TypeSignature, Volatility,
};
use tidemill_ir::types;

use crate::entry::{Answer, Body, Entry, Kind};
use crate::text::{like, regex};
use crate::time::dates;
use crate::value::datum::{Column, Datum, Span, read};
use crate::value::decimal::Num;
use crate::{casts, compare};

/// A call of one entry, with the type of its result for these arguments.
#[derive(Debug)]
pub(crate) struct Native {
    /// The entry. Two calls are equal if they are of the same entry and have the same result type.
    entry: &'static Entry,
    /// The type of the result.
    result: DataType,
    /// Any arguments; they were resolved and cast before.
    signature: Signature,
}

impl PartialEq for Native {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.entry, other.entry) && self.result == other.result
    }
}

impl Eq for Native {}

impl Hash for Native {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.entry.name.hash(state);
        self.entry.takes.hash(state);
        self.result.hash(state);
    }
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{:?}", self.name, self.takes)
    }
}

/// A call of an entry, with arguments that have its types already.
///
/// The caller has resolved the entry and cast the arguments. Neither is checked again.
pub(crate) fn call(entry: &'static Entry, result: DataType, args: Vec<Expr>) -> Expr {
    let native = Native {
        entry,
        result,
        signature: Signature::new(
            TypeSignature::OneOf(vec![TypeSignature::Nullary, TypeSignature::VariadicAny]),
            Volatility::Immutable,
        ),
    };
    Expr::ScalarFunction(ScalarFunction::new_udf(
        Arc::new(ScalarUDF::from(native)),
        args,
    ))
}

/// Evaluates an entry once with the literals among its arguments, if the entry asks for this
/// (`tried`). The other arguments are values that cannot fail.
///
/// # Errors
/// The entry fails, so a literal is wrong for every row.
pub(crate) fn tried(entry: &Entry, args: &[Expr]) -> std::result::Result<(), String> {
    let Body::Rows(body) = entry.body else {
        return Ok(());
    };
    let literal = |arg: &Expr| match arg {
        Expr::Literal(ScalarValue::Utf8(Some(text)), _) => Some(Datum::text(text.as_str())),
        _ => None,
    };
    let literals: Vec<Option<Datum<'_>>> = args.iter().map(literal).collect();
    if !entry.tried || literals.iter().all(Option::is_none) {
        return Ok(());
    }
    let filled = literals.into_iter().zip(entry.takes);
    let filled = filled.map(|(literal, kind)| literal.unwrap_or_else(|| harmless(*kind)));
    let filled: Vec<Datum<'_>> = filled.collect();
    body(&filled).map(|_| ())
}

/// A value with which no entry that is tried fails.
fn harmless(kind: Kind) -> Datum<'static> {
    match kind {
        Kind::Bool => Datum::Bool(false),
        Kind::Int => Datum::Int(0),
        Kind::Long => Datum::Long(0),
        Kind::Numeric => Datum::Numeric(Num::new(0, 0)),
        Kind::Real => Datum::Real(0.0),
        Kind::Double => Datum::Double(0.0),
        Kind::Text => Datum::text(""),
        Kind::Bytes => Datum::Bytes(Vec::new().into()),
        Kind::Date => Datum::Date(0),
        Kind::Timestamp | Kind::Timestamptz => Datum::Stamp(0),
        Kind::Interval => Datum::Span(Span::default()),
        Kind::Json => Datum::Json("null".into()),
        Kind::Jsonb => Datum::Jsonb("null".into()),
        Kind::Texts => Datum::Texts(Vec::new()),
    }
}

/// Evaluates an entry's body for each row.
///
/// # Errors
/// The first row that fails, with the reason; a result that does not fit the type.
///
/// A row with a null argument is null without calling the body, if the entry is strict.
fn evaluate(
    entry: &Entry,
    body: fn(&[Datum<'_>]) -> Answer,
    result: &DataType,
    columns: &[ArrayRef],
    rows: usize,
) -> std::result::Result<ArrayRef, String> {
    let mut column = Column::new(result).ok_or("a result of this type cannot be kept")?;
    let mut arguments = Vec::with_capacity(columns.len());
    for row in 0..rows {
        arguments.clear();
        arguments.extend(columns.iter().map(|column| read(column, row)));
        let value = match entry.strict && arguments.contains(&Datum::Null) {
            true => Datum::Null,
            false => body(&arguments)?,
        };
        column.push(value)?;
    }
    Ok(column.finish())
}

impl ScalarUDFImpl for Native {
    fn name(&self) -> &str {
        self.entry.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.result.clone())
    }

    /// The result's field. Its metadata names a type that is stored as another type (smallint).
    fn return_field_from_args(&self, _: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let field = Field::new(self.entry.name, self.result.clone(), true);
        Ok(Arc::new(match self.entry.name {
            casts::SMALLINT => {
                let asked = (types::ASKED.to_owned(), casts::SMALLINT.to_owned());
                field.with_metadata([asked].into_iter().collect())
            }
            _ => field,
        }))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let constant = args
            .args
            .iter()
            .all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { args.number_rows };
        let columns = args.args.into_iter().map(|arg| arg.into_array(rows));
        let columns = columns.collect::<Result<Vec<_>>>()?;
        let column = match (self.entry.body, columns.as_slice()) {
            (Body::Rows(body), columns) => evaluate(self.entry, body, &self.result, columns, rows)
                .map_err(DataFusionError::Execution)?,
            (Body::Kernel(kernel), [one, other]) => kernel(one, other)?,
            _ => return internal_err!("`{}` is not evaluated here", self.entry.name),
        };
        match constant {
            true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(
                &column, 0,
            )?)),
            false => Ok(ColumnarValue::Array(column)),
        }
    }
}

/// SQL text of a call of an entry that SQL does not write as a function; None for other calls. The
/// arguments are SQL text already.
///
/// The text becomes part of the plan that `explain` shows, and of the fingerprint of the view. A
/// change here therefore changes fingerprints.
pub fn operator_text(call: &ScalarFunction) -> Option<String> {
    let inner: &dyn Any = call.func.inner().as_ref();
    let native = inner.downcast_ref::<Native>()?;
    let args: Vec<String> = call.args.iter().map(Expr::to_string).collect();
    let to = types::name(&native.result);
    Some(match (native.entry.name, args.as_slice()) {
        (casts::CAST | casts::OUTPUT | casts::UUID | casts::SMALLINT, [value]) => {
            format!("CAST({value} AS {to})")
        }
        (casts::NUMERIC, [value, ..]) => format!("CAST({value} AS {to})"),
        (casts::VARCHAR, [value, most]) => format!("CAST({value} AS varchar({most}))"),
        (compare::NORMAL, [value]) => value.clone(),
        (name @ (like::LIKE | like::ILIKE | regex::SIMILAR), [value, pattern, escape]) => {
            let escape = match escape.as_str() {
                "'\\'" => String::new(),
                other => format!(" ESCAPE {other}"),
            };
            format!("{value} {name} {pattern}{escape}")
        }
        (dates::AT_TIME_ZONE, [value, zone]) => format!("{value} AT TIME ZONE {zone}"),
        (name, [one, other]) if !name.starts_with(char::is_alphabetic) => {
            format!("({one} {name} {other})")
        }
        ("-", [value]) => format!("(- {value})"),
        _ => return None,
    })
}
