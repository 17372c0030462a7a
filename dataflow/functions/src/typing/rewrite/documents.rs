//! Typing of JSON documents and arrays: `ARRAY[…]`, `= ANY (array)`, `to_jsonb` and what builds
//! and collects documents, and comparisons.

use arrow::datatypes::DataType;
use datafusion_common::{Result, ScalarValue};
use datafusion_expr::expr::{AggregateFunction as Call, BinaryExpr, ScalarFunction, Sort};
use datafusion_expr::{Expr, Operator, lit};
use tidemill_ir::json::Document;
use tidemill_ir::{AggregateFunction as Function, types};

use super::{Scope, refused, text_known};
use crate::compare;
use crate::json::build::{ELEMENT, MEMBER, TO_JSON, TO_JSONB};
use crate::text::arrays;
use crate::typing::resolve::Argument;
use crate::value::decimal::digits_depend_on_value;

impl Scope {
    /// A function of DataFusion that its planner wrote. `array_has` stands for `= ANY (array)`;
    /// others take no arrays here.
    pub(super) fn of_arrays(&self, call: ScalarFunction) -> Result<Expr> {
        let kinds = call.args.iter().map(|arg| self.kind(arg));
        let kinds: Vec<DataType> = kinds.collect::<Result<_>>()?;
        let array = |kind: &DataType| matches!(kind, DataType::List(_));
        match (call.func.name(), <[Expr; 2]>::try_from(call.args.clone())) {
            ("array_has", Ok([array, value])) => self.call(arrays::EQUALS_ANY, vec![value, array]),
            _ if kinds.iter().any(array) => {
                refused("ANY and ALL of an array, but = ANY, are not supported in views".to_owned())
            }
            _ => Ok(Expr::ScalarFunction(call)),
        }
    }

    /// `ARRAY[…]` of texts.
    pub(super) fn array(&self, args: Vec<Expr>) -> Result<Expr> {
        let arguments = self.arguments(&args)?;
        let text = |argument: &Argument| argument.known().is_none_or(|it| *it == DataType::Utf8);
        if arguments.is_empty() || !arguments.iter().all(text) {
            return refused("an array of anything but texts is not supported in views".to_owned());
        }
        let args = args
            .into_iter()
            .map(|arg| self.coerced(arg, &DataType::Utf8));
        self.filled(arrays::ARRAY, args.collect::<Result<_>>()?)
    }

    /// A call of the entry of a name that takes any number of arguments of one kind.
    fn filled(&self, name: &str, args: Vec<Expr>) -> Result<Expr> {
        let entry = crate::typing::table::TABLE
            .iter()
            .find(|entry| entry.name == name);
        match entry {
            Some(entry) => {
                let constants: Vec<Option<ScalarValue>> = vec![None; args.len()];
                let result = crate::typing::resolve::result(entry, &[], &constants);
                match result {
                    Ok(result) => Ok(crate::typing::native::call(entry, result, args)),
                    Err(why) => refused(why),
                }
            }
            None => refused(format!("{name} is not supported in views")),
        }
    }

    /// `to_json` or `to_jsonb` of a value whose type is known.
    pub(super) fn to_document(&self, name: &str, args: Vec<Expr>) -> Result<Expr> {
        let Ok([value]) = <[Expr; 1]>::try_from(args) else {
            return refused(format!("{name} takes one argument"));
        };
        match self.argument(&value)? {
            Argument::Unknown => refused(format!("the type of {name}'s argument: cast it")),
            Argument::Known(_) => self.document(name, value),
        }
    }

    /// A value as a jsonb, or as a json (`to_json`). A quoted literal is a text, NULL stays null.
    fn document(&self, to: &str, value: Expr) -> Result<Expr> {
        let kind = match to {
            TO_JSON => types::JSON,
            _ => types::JSONB,
        };
        let null = matches!(&value, Expr::Literal(value, _) if value.is_null());
        if null {
            return Ok(Expr::Literal(ScalarValue::try_from(&kind)?, None));
        }
        let value = match self.argument(&value)? {
            Argument::Unknown => text_known(value),
            Argument::Known(DataType::Decimal128(precision, scale))
                if digits_depend_on_value(precision, scale) =>
            {
                return refused(
                    "how many digits PostgreSQL shows of this numeric depends on its value: round \
                     it first, as in round(x, 2)"
                        .to_owned(),
                );
            }
            Argument::Known(known) if known == kind => return Ok(value),
            Argument::Known(_) => value,
        };
        self.call(to, vec![value])
    }

    /// `json_build_array`, `json_build_object`, and their jsonb forms.
    pub(super) fn built(&self, name: &str, args: Vec<Expr>) -> Result<Expr> {
        let object = name.ends_with("object");
        if object && args.len() % 2 == 1 {
            return refused(format!("{name} takes keys and values in turn"));
        }
        let to = converter(name);
        let args = args.into_iter().enumerate().map(|(place, arg)| {
            if object && place % 2 == 0 {
                return self.key(arg);
            }
            self.document(to, arg)
        });
        self.filled(name, args.collect::<Result<_>>()?)
    }

    /// `json_agg`, `json_object_agg` and their jsonb forms: the elements or members are collected
    /// as documents, in which null is the null of JSON.
    pub(super) fn document_aggregate(&self, function: Function, mut call: Call) -> Result<Expr> {
        let name = function.name();
        let to = converter(name);
        let mut order = self.sorted(std::mem::take(&mut call.params.order_by))?;
        let args = std::mem::take(&mut call.params.args);
        let distinct = call.params.distinct;
        let collected = match <[Expr; 2]>::try_from(args) {
            Ok(_) if distinct => {
                return refused(format!("DISTINCT in {name} is not supported in views"));
            }
            Ok([key, value]) => {
                let member = vec![self.key(key)?, self.document(to, value)?];
                self.call(MEMBER, member)?
            }
            Err(args) => {
                let Ok([value]) = <[Expr; 1]>::try_from(args) else {
                    return refused(format!("{name} takes one argument"));
                };
                if distinct && order.is_empty() {
                    order = self.sorted(vec![Sort::new(value.clone(), true, false)])?;
                }
                self.call(ELEMENT, vec![self.document(to, value)?])?
            }
        };
        call.params.order_by = order;
        call.params.args = vec![collected];
        Ok(Expr::AggregateFunction(call))
    }

    /// A key of an object, as a json. Documents and arrays are refused.
    fn key(&self, key: Expr) -> Result<Expr> {
        let kind = self.argument(&key)?;
        match kind.known() {
            Some(kind) if types::is_document(kind) || matches!(kind, DataType::List(_)) => {
                refused("a key must be scalar, not array, composite, or json".to_owned())
            }
            _ => self.document(TO_JSON, key),
        }
    }

    /// Whether `||` joins documents. Beside a text a document is text.
    pub(super) fn joins_documents(&self, arguments: &[Argument]) -> Result<bool> {
        let known = || arguments.iter().filter_map(Argument::known);
        if known().any(|kind| matches!(kind, DataType::List(_))) {
            return refused("|| of arrays is not supported in views".to_owned());
        }
        let documents = known().all(types::is_document);
        Ok(known().next().is_some() && documents)
    }

    /// A comparison of documents or of arrays, by [`compare::ORDER`].
    pub(super) fn by_order(
        &self,
        left: Expr,
        op: Operator,
        right: Expr,
        target: &DataType,
    ) -> Result<Expr> {
        // A json has no comparisons; what is a json here may be a captured jsonb.
        let target = match types::is_document(target) {
            true => &types::JSONB,
            false => target,
        };
        let (left, right) = (self.coerced(left, target)?, self.coerced(right, target)?);
        let binary = |left: Expr, op, right: Expr| {
            Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right)))
        };
        let order = self.internal(compare::ORDER, vec![left.clone(), right.clone()])?;
        let distinct = match op {
            Operator::IsDistinctFrom => true,
            Operator::IsNotDistinctFrom => false,
            op => return Ok(binary(order, op, lit(0i32))),
        };
        // Both nulls are not distinct, and the order of one null is null.
        let nulls = binary(left.is_null(), Operator::Eq, right.is_null());
        let equal = Expr::IsNotFalse(Box::new(binary(order, Operator::Eq, lit(0i32))));
        let same = nulls.and(equal);
        Ok(if distinct {
            datafusion_expr::not(same)
        } else {
            same
        })
    }
}

/// The function that makes documents of the values of another function.
fn converter(name: &str) -> &'static str {
    match name.starts_with("jsonb") {
        true => TO_JSONB,
        false => TO_JSON,
    }
}

/// Refuses a literal that becomes a json without a cast, unless a json and a jsonb write it alike:
/// a captured column may be either.
pub(super) fn written_alike(expr: &Expr) -> Result<()> {
    let Expr::Literal(ScalarValue::Utf8(Some(text)), _) = expr else {
        return Ok(());
    };
    match Document::parse(text) {
        Ok(document) if document.to_string() == *text => Ok(()),
        Ok(document) => refused(format!(
            "'{text}' is written in another way as a jsonb: cast it to jsonb or json, or write \
             '{document}'"
        )),
        Err(why) => refused(why),
    }
}
