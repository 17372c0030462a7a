//! Stand-ins: the names of functions and operators before the types of their arguments are known.
//!
//! DataFusion's planner puts a stand-in into the plan for each name. [`super::rewrite`] replaces it
//! by an entry once the arguments have their types.
//!
//! ```text
//! SQL: round(x + 1)
//! planner's plan: round‹stand-in›(+‹stand-in›(x, 1))
//! after rewrite:  round‹numeric›(+‹numeric, numeric›(x, CAST(1 AS numeric)))
//! ```
//!
//! A stand-in takes any arguments and is never evaluated.

use std::any::Any;
use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion_common::{Result, ScalarValue};
use datafusion_expr::expr::ScalarFunction;
use datafusion_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    TypeSignature, Volatility,
};

use super::resolve::{Argument, common, resolved};
use crate::entry::{Entry, Gives};
use crate::typing::table::TABLE;

/// Functions that are not entries, because they have a syntax or an order of evaluation of their
/// own.
pub(crate) const SPECIAL: [&str; 4] = ["coalesce", "nullif", "concat", "concat_ws"];
/// The stand-in for a row of values, as in `(a, b) = (1, 2)`.
pub const ROW: &str = "row";

/// The names that SQL may call as functions: all entries except operators and the internal entries,
/// and the special functions.
///
/// Internal entries have lower-case names that SQL must not be able to call: `varchar('x', 3)`
/// would otherwise be a function.
static NAMES: LazyLock<BTreeSet<&'static str>> = LazyLock::new(|| {
    let named = |name: &&str| name.starts_with(|c: char| c.is_ascii_lowercase());
    let hidden = [
        "comparable",
        "compare",
        "output",
        "smallint",
        "uuid",
        "varchar",
        "numeric",
        "json",
        "jsonb",
        "array",
        "element",
        "member",
    ];
    let entries = TABLE.iter().map(|entry| entry.name).filter(named);
    entries
        .filter(|name| !hidden.contains(name))
        .chain(SPECIAL)
        .collect()
});

/// A stand-in for a function or operator of that name.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Named {
    /// The name in the function table.
    pub(crate) name: String,
    /// Any arguments; [`super::resolve`] checks them.
    signature: Signature,
}

/// The stand-in for a name.
fn stand_in(name: &str) -> Arc<ScalarUDF> {
    let any = TypeSignature::OneOf(vec![TypeSignature::Nullary, TypeSignature::VariadicAny]);
    Arc::new(ScalarUDF::from(Named {
        name: name.to_owned(),
        signature: Signature::new(any, Volatility::Immutable),
    }))
}

/// The stand-in for a function; None if no function that views may use has that name.
///
/// `name` is in lower case.
///
/// ```
/// assert!(tidemill_functions::function("round").is_some());
/// assert!(tidemill_functions::function("random").is_none());
/// ```
pub fn function(name: &str) -> Option<Arc<ScalarUDF>> {
    NAMES.contains(name).then(|| stand_in(name))
}

/// The names of all functions that views may use, in alphabetical order.
pub fn function_names() -> impl Iterator<Item = &'static str> {
    NAMES.iter().copied()
}

/// A call of a stand-in.
///
/// `name` is a function or operator of the table, such as `+` or `rtrim`, or [`ROW`]. The name is
/// not checked here: [`crate::typed`] reports unknown ones.
pub fn named(name: &str, args: Vec<Expr>) -> Expr {
    Expr::ScalarFunction(ScalarFunction::new_udf(stand_in(name), args))
}

/// The name that a stand-in stands for; None for other functions.
pub(crate) fn name_of(function: &ScalarUDF) -> Option<&str> {
    let inner: &dyn Any = function.inner().as_ref();
    inner
        .downcast_ref::<Named>()
        .map(|named| named.name.as_str())
}

/// The type that all entries of a name give. A column that holds a document is a text at first, so
/// its operators are not found yet.
fn always(name: &str) -> Option<DataType> {
    let mut gives = TABLE.iter().filter(|entry| entry.name == name);
    let kind = |entry: &Entry| match entry.gives {
        Gives::Kind(kind) => Some(kind),
        Gives::Numeric(_) => None,
    };
    let first = kind(gives.next()?)?;
    gives
        .all(|entry| kind(entry) == Some(first))
        .then(|| first.arrow())?
}

impl ScalarUDFImpl for Named {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Null)
    }

    /// The type of the result as far as it is known in this pass, otherwise Null. The second pass
    /// finds the type, and reports what is wrong.
    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let arguments = args.arg_fields.iter().zip(args.scalar_arguments);
        let arguments: Vec<Argument> = arguments
            .map(|(field, constant)| match constant {
                Some(ScalarValue::Int64(Some(value))) if i32::try_from(*value).is_ok() => {
                    Argument::Known(DataType::Int32)
                }
                Some(ScalarValue::Utf8(_)) => Argument::Unknown,
                _ => Argument::of(field.data_type()),
            })
            .collect();
        let constants: Vec<Option<ScalarValue>> = args
            .scalar_arguments
            .iter()
            .map(|constant| constant.cloned().map(super::resolve::narrowed))
            .collect();
        let kind = match self.name.as_str() {
            "coalesce" => common(&arguments).ok().flatten(),
            "nullif" => arguments.first().and_then(Argument::known).cloned(),
            "concat" | "concat_ws" => Some(DataType::Utf8),
            ROW => None,
            name => match resolved(name, &arguments, &constants) {
                Ok(found) => Some(found.result),
                Err(_) => always(name),
            },
        };
        let kind = kind.unwrap_or(DataType::Null);
        Ok(Arc::new(Field::new(&self.name, kind, true)))
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        datafusion_common::internal_err!("`{}` has no types yet", self.name)
    }
}
