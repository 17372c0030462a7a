//! Typing of expressions: PostgreSQL's types, and calls of entries of the function table.
//!
//! Input: the planner's first plan, with stand-ins for functions and operators. Output: the same
//! plan over entries and casts of the table only. The pass runs before DataFusion's type coercion,
//! which then finds nothing to coerce.

use arrow::datatypes::{DataType, TimeUnit};
use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_common::{DFSchema, Result, ScalarValue, plan_err};
use datafusion_expr::expr::{Between, BinaryExpr, Case, Cast, Like, ScalarFunction};
use datafusion_expr::{Expr, ExprSchemable, Operator, lit, not};
use tidemill_ir::types;

use self::constant::evaluated;
use self::documents::written_alike;
use super::names::{ROW, name_of};
use super::native;
use super::resolve::{Argument, cast_type, common, narrowed, resolved};
use crate::entry::{Body, Entry, Gives, Kind};
use crate::json::build;
use crate::text::{arrays, like, regex};
use crate::time::dates;
use crate::typing::table::TABLE;
use crate::{casts, compare};

mod aggregates;
mod constant;
mod documents;
mod lists;
mod smallints;
mod windows;

/// The error of SQL that views do not support.
///
/// The message completes the place that the planner adds.
fn refused<T>(why: String) -> Result<T> {
    plan_err!("{why}")
}

/// The columns that expressions refer to.
pub(crate) struct Scope {
    /// The columns, with their types.
    pub(crate) schema: DFSchema,
}

impl Scope {
    /// Types an expression, from its innermost parts outwards.
    pub(crate) fn expression(&self, expr: Expr) -> Result<Expr> {
        Ok(expr
            .transform_up(|expr| Ok(Transformed::yes(self.one(expr)?)))?
            .data)
    }

    /// Types an expression whose parts have their types already.
    fn one(&self, expr: Expr) -> Result<Expr> {
        match expr {
            Expr::Literal(value, metadata) => match narrowed(value) {
                ScalarValue::Decimal256(..) => {
                    refused("a number of more than 38 digits".to_owned())
                }
                value => Ok(Expr::Literal(value, metadata)),
            },
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => self.binary(*left, op, *right),
            Expr::Negative(value) => self.call("-", vec![*value]),
            Expr::Not(value) => Ok(not(self.boolean(*value, "NOT")?)),
            Expr::IsTrue(value) => Ok(Expr::IsTrue(Box::new(self.boolean(*value, "IS TRUE")?))),
            Expr::IsFalse(value) => Ok(Expr::IsFalse(Box::new(self.boolean(*value, "IS FALSE")?))),
            Expr::IsUnknown(value) => Ok(Expr::IsUnknown(Box::new(
                self.boolean(*value, "IS UNKNOWN")?,
            ))),
            Expr::IsNotTrue(value) => Ok(Expr::IsNotTrue(Box::new(
                self.boolean(*value, "IS NOT TRUE")?,
            ))),
            Expr::IsNotFalse(value) => Ok(Expr::IsNotFalse(Box::new(
                self.boolean(*value, "IS NOT FALSE")?,
            ))),
            Expr::IsNotUnknown(value) => Ok(Expr::IsNotUnknown(Box::new(
                self.boolean(*value, "IS NOT UNKNOWN")?,
            ))),
            Expr::IsNull(value) if row(&value).is_some() => Ok(each_of(&value, Expr::is_null)),
            Expr::IsNotNull(value) if row(&value).is_some() => {
                Ok(each_of(&value, Expr::is_not_null))
            }
            Expr::Like(like) => {
                let name = if like.case_insensitive {
                    like::ILIKE
                } else {
                    like::LIKE
                };
                self.pattern(name, like)
            }
            Expr::SimilarTo(like) => self.pattern(regex::SIMILAR, like),
            Expr::Between(between) => self.between(between),
            Expr::InList(list) => self.in_list(list),
            Expr::Case(case) => self.case(case),
            Expr::Cast(cast) => self.cast(cast),
            Expr::TryCast(_) => {
                refused("TRY_CAST is not supported: PostgreSQL has none".to_owned())
            }
            Expr::ScalarFunction(call) => self.function(call),
            Expr::AggregateFunction(call) => self.aggregate(call),
            Expr::WindowFunction(call) => self.window(*call),
            other => Ok(other),
        }
    }

    /// The Arrow type of an expression.
    fn kind(&self, expr: &Expr) -> Result<DataType> {
        expr.get_type(&self.schema)
    }

    /// An expression as an argument: quoted literals have no type yet.
    fn argument(&self, expr: &Expr) -> Result<Argument> {
        Ok(match expr {
            Expr::Literal(ScalarValue::Utf8(_), _) => Argument::Unknown,
            // A column that is NULL in a subquery is text in the query around it.
            Expr::Column(_) if self.kind(expr)?.is_null() => Argument::Known(DataType::Utf8),
            expr => Argument::of(&self.kind(expr)?),
        })
    }

    /// The arguments of a call, in order.
    fn arguments(&self, exprs: &[Expr]) -> Result<Vec<Argument>> {
        exprs.iter().map(|expr| self.argument(expr)).collect()
    }

    /// A call of the entry that `name` means with these arguments.
    fn call(&self, name: &str, args: Vec<Expr>) -> Result<Expr> {
        let arguments = self.arguments(&args)?;
        let constants: Vec<Option<ScalarValue>> = args
            .iter()
            .map(|arg| match arg {
                Expr::Literal(value, _) => Some(value.clone()),
                _ => None,
            })
            .collect();
        let found = resolved(name, &arguments, &constants);
        let found = match found {
            Ok(found) => found,
            Err(why) => return refused(why),
        };
        let cast = args
            .into_iter()
            .zip(found.takes)
            .map(|(arg, kind)| self.implicitly(arg, kind));
        let args = cast.collect::<Result<Vec<_>>>()?;
        if let Err(why) = native::tried(found.entry, &args) {
            return refused(format!("{name}: {why}"));
        }
        let small = self.gives_smallint(name, &args);
        let value = self.entry(found.entry, found.result, args)?;
        match small {
            true => self.smallint(name, value),
            false => Ok(value),
        }
    }

    /// A call of an entry, with arguments that have its types.
    fn entry(&self, entry: &'static Entry, result: DataType, args: Vec<Expr>) -> Result<Expr> {
        match (entry.body, <[Expr; 2]>::try_from(args)) {
            (Body::Operator(operator), Ok([one, other])) => Ok(Expr::BinaryExpr(BinaryExpr::new(
                Box::new(one),
                operator,
                Box::new(other),
            ))),
            (_, Ok(args)) => Ok(native::call(entry, result, args.into())),
            (_, Err(args)) => Ok(native::call(entry, result, args)),
        }
    }

    /// A call of an internal entry, by name.
    fn internal(&self, name: &str, args: Vec<Expr>) -> Result<Expr> {
        self.call(name, args)
    }

    /// Casts an argument to the kind that an entry takes, as PostgreSQL casts implicitly.
    fn implicitly(&self, expr: Expr, to: Kind) -> Result<Expr> {
        let argument = self.argument(&expr)?;
        let constant = match &expr {
            Expr::Literal(value, _) => Some(value.clone()),
            _ => None,
        };
        let target = match cast_type(&argument, to, constant.as_ref()) {
            Ok(target) => target,
            Err(why) => return refused(why),
        };
        self.coerced(expr, &target)
    }

    /// Casts to a type that was found to be the common type.
    pub(crate) fn coerced(&self, expr: Expr, to: &DataType) -> Result<Expr> {
        let from = self.kind(&expr)?;
        let null = matches!(&expr, Expr::Literal(value, _) if value.is_null());
        if null || from == DataType::Null {
            return Ok(Expr::Literal(ScalarValue::try_from(to)?, None));
        }
        if from == *to {
            return Ok(expr);
        }
        if *to == types::JSON {
            written_alike(&expr)?;
        }
        self.cast_to(expr, to)
    }

    /// The cast of the function table from an expression's type to another type.
    fn cast_to(&self, expr: Expr, to: &DataType) -> Result<Expr> {
        let from = self.kind(&expr)?;
        if from == *to {
            return Ok(expr);
        }
        if let DataType::Decimal128(precision, scale) = to {
            let args = vec![expr, lit(i32::from(*precision)), lit(i32::from(*scale))];
            return self.internal(casts::NUMERIC, args.into_iter().map(text_known).collect());
        }
        if from == types::JSON && !matches!(*to, DataType::Utf8 | types::JSONB) {
            // A captured column of the type jsonb is a json here.
            let document = self.cast_to(expr, &types::JSONB)?;
            return self.cast_to(document, to);
        }
        let kinds = (Kind::of(&from), Kind::of(to));
        let entry = TABLE.iter().find(|entry| {
            let ([take], Gives::Kind(give)) = (entry.takes, entry.gives) else {
                return false;
            };
            entry.name == casts::CAST && (Some(*take), Some(give)) == kinds
        });
        match entry {
            Some(entry) => self.checked(native::call(entry, to.clone(), vec![expr])),
            None => {
                let (from, to) = (types::name(&from), types::name(to));
                refused(format!(
                    "a cast of {from} to {to} is not supported in views"
                ))
            }
        }
    }

    /// Evaluates a cast of a constant at once, so that an error is reported when the view is
    /// planned.
    fn checked(&self, expr: Expr) -> Result<Expr> {
        let Expr::ScalarFunction(ScalarFunction { args, .. }) = &expr else {
            return Ok(expr);
        };
        if !args.iter().all(|arg| matches!(arg, Expr::Literal(..))) {
            return Ok(expr);
        }
        let value = evaluated(&expr)?;
        // A text that a cast returned has a known type.
        Ok(text_known(Expr::Literal(value, None)))
    }

    /// A condition of `what`, which must be a boolean.
    fn boolean(&self, expr: Expr, what: &str) -> Result<Expr> {
        match self.argument(&expr)? {
            Argument::Known(DataType::Boolean) => Ok(expr),
            Argument::Unknown => self.coerced(expr, &DataType::Boolean),
            Argument::Known(other) => refused(format!(
                "{what} takes a boolean, not {}",
                types::name(&other)
            )),
        }
    }

    /// AND, OR and the comparisons.
    fn binary(&self, left: Expr, op: Operator, right: Expr) -> Result<Expr> {
        match op {
            Operator::And => Ok(self.boolean(left, "AND")?.and(self.boolean(right, "AND")?)),
            Operator::Or => Ok(self.boolean(left, "OR")?.or(self.boolean(right, "OR")?)),
            op if compare::OPERATORS.iter().any(|(_, known)| *known == op) => {
                self.compared(left, op, right)
            }
            op => refused(format!("the operator {op} is not supported in views")),
        }
    }

    /// A comparison of two values, or of two rows.
    fn compared(&self, left: Expr, op: Operator, right: Expr) -> Result<Expr> {
        if let (Some(one), Some(other)) = (row(&left), row(&right)) {
            return self.rows(one.to_vec(), op, other.to_vec());
        }
        if row(&left).is_some() || row(&right).is_some() {
            return refused("a row is compared with a row alone".to_owned());
        }
        let arguments = self.arguments(&[left.clone(), right.clone()])?;
        let target = match compared_as(&arguments) {
            Ok(target) => exact(target, &arguments),
            Err(_) => {
                let kinds = arguments
                    .iter()
                    .filter_map(Argument::known)
                    .map(types::name);
                let kinds: Vec<String> = kinds.collect();
                return refused(format!(
                    "{} is not supported: cast one",
                    kinds.join(&format!(" {op} "))
                ));
            }
        };
        if types::is_document(&target) || Kind::of(&target) == Some(Kind::Texts) {
            return self.by_order(left, op, right, &target);
        }
        let (left, right) = (
            self.comparable(left, &target)?,
            self.comparable(right, &target)?,
        );
        let same = arguments.iter().all(|it| it.known() == Some(&target));
        if matches!(target, DataType::Interval(_)) || (wide(&target) && !same) {
            if matches!(op, Operator::IsDistinctFrom | Operator::IsNotDistinctFrom) {
                return refused(format!("{op} of {} is not supported", types::name(&target)));
            }
            let order = self.internal(compare::ORDER, vec![left, right])?;
            return Ok(Expr::BinaryExpr(BinaryExpr::new(
                Box::new(order),
                op,
                Box::new(lit(0i32)),
            )));
        }
        Ok(Expr::BinaryExpr(BinaryExpr::new(
            Box::new(left),
            op,
            Box::new(right),
        )))
    }

    /// An operand of a comparison, in the form in which values of the type `target` are compared.
    fn comparable(&self, expr: Expr, target: &DataType) -> Result<Expr> {
        if Kind::of(target).is_none() {
            return refused(format!(
                "comparing {} is not supported in views",
                types::name(target)
            ));
        }
        let argument = self.argument(&expr)?;
        if wide(target) && matches!(argument.known(), Some(DataType::Decimal128(..))) {
            return Ok(expr);
        }
        let expr = match argument {
            Argument::Unknown if matches!(target, DataType::Decimal128(..)) => {
                self.implicitly(expr, Kind::Numeric)?
            }
            _ => expr,
        };
        let expr = match wide(target) {
            true => self.implicitly(expr, Kind::Numeric)?,
            false => self.coerced(expr, target)?,
        };
        match (target, &expr) {
            (DataType::Float32 | DataType::Float64, _) => {
                self.checked(self.internal(compare::NORMAL, vec![expr])?)
            }
            _ => Ok(expr),
        }
    }

    /// Compares rows column by column, from the left.
    fn rows(&self, left: Vec<Expr>, op: Operator, right: Vec<Expr>) -> Result<Expr> {
        if left.len() != right.len() || left.is_empty() {
            return refused("two rows that are compared have as many columns".to_owned());
        }
        let pairs: Vec<(Expr, Expr)> = left.into_iter().zip(right).collect();
        let each = |op: Operator| {
            let pairs = pairs.iter().cloned();
            pairs
                .map(|(one, other)| self.compared(one, op, other))
                .collect::<Result<Vec<_>>>()
        };
        let strict = match op {
            Operator::Eq => return Ok(all(each(Operator::Eq)?)),
            Operator::NotEq => {
                let differ = each(Operator::NotEq)?.into_iter().reduce(Expr::or);
                return Ok(differ.unwrap_or(lit(false)));
            }
            Operator::Lt | Operator::LtEq => Operator::Lt,
            Operator::Gt | Operator::GtEq => Operator::Gt,
            op => return refused(format!("{op} of rows is not supported in views")),
        };
        let (equal, before, last) = (each(Operator::Eq)?, each(strict)?, each(op)?);
        let parts = equal.into_iter().zip(before).zip(last).rev();
        let whole = parts.fold(None, |after: Option<Expr>, ((equal, before), last)| {
            Some(match after {
                None => last,
                Some(after) => before.or(equal.and(after)),
            })
        });
        Ok(whole.unwrap_or(lit(false)))
    }

    /// LIKE, ILIKE or SIMILAR TO.
    fn pattern(&self, name: &str, like: Like) -> Result<Expr> {
        let escape = like
            .escape_char
            .map_or_else(|| "\\".to_owned(), String::from);
        let args = vec![*like.expr, *like.pattern, lit(escape)];
        let matched = self.call(name, args)?;
        Ok(if like.negated { not(matched) } else { matched })
    }

    /// BETWEEN as the two comparisons that define it.
    fn between(&self, between: Between) -> Result<Expr> {
        let Between {
            expr,
            negated,
            low,
            high,
        } = between;
        let least = self.compared((*expr).clone(), Operator::GtEq, *low)?;
        let most = self.compared(*expr, Operator::LtEq, *high)?;
        let inside = least.and(most);
        Ok(if negated { not(inside) } else { inside })
    }

    /// CASE. With a subject, each WHEN becomes a comparison with it.
    fn case(&self, case: Case) -> Result<Expr> {
        let subject = case.expr.map(|subject| match *subject {
            Expr::Literal(ScalarValue::Null, _) => text_known(lit(ScalarValue::Utf8(None))),
            subject => text_known(subject),
        });
        let (whens, mut values): (Vec<_>, Vec<_>) = case
            .when_then_expr
            .into_iter()
            .map(|(when, then)| (*when, *then))
            .unzip();
        let whens = whens.into_iter().map(|when| match &subject {
            Some(subject) => self.compared(subject.clone(), Operator::Eq, when),
            None => self.boolean(when, "WHEN"),
        });
        let whens = whens.collect::<Result<Vec<_>>>()?;
        let otherwise = case.else_expr.is_some();
        values.extend(case.else_expr.map(|value| *value));
        let mut values = self.alike(values, "CASE")?;
        let otherwise = if otherwise {
            values.pop().map(Box::new)
        } else {
            None
        };
        let pairs = whens.into_iter().zip(values);
        let pairs = pairs
            .map(|(when, then)| (Box::new(when), Box::new(then)))
            .collect();
        Ok(Expr::Case(Case::new(None, pairs, otherwise)))
    }

    /// Casts values to their common type.
    fn alike(&self, mut values: Vec<Expr>, what: &str) -> Result<Vec<Expr>> {
        let wrong = |why: String| refused(format!("the values of {what}: {why}"));
        let mut target = match common(&self.arguments(&values)?) {
            Ok(target) => target.unwrap_or(DataType::Utf8),
            Err(why) => return wrong(why),
        };
        if matches!(target, DataType::Decimal128(..)) {
            values = self.quoted_numerics(values)?;
            target = match common(&self.arguments(&values)?) {
                Ok(target) => target.unwrap_or(DataType::Utf8),
                Err(why) => return wrong(why),
            };
        }
        values
            .into_iter()
            .map(|value| self.coerced(value, &target))
            .collect()
    }

    /// Quoted literals next to numerics, each with the scale that it is written with.
    fn quoted_numerics(&self, values: Vec<Expr>) -> Result<Vec<Expr>> {
        let each = values.into_iter().map(|value| {
            let quoted = matches!(&value, Expr::Literal(ScalarValue::Utf8(Some(_)), _));
            match quoted {
                true => self.implicitly(value, Kind::Numeric),
                false => Ok(value),
            }
        });
        each.collect()
    }

    /// Replaces the stand-in of a function.
    fn function(&self, call: ScalarFunction) -> Result<Expr> {
        let Some(name) = name_of(&call.func) else {
            return self.of_arrays(call);
        };
        match name {
            "coalesce" => {
                let mut values = self.alike(call.args, "COALESCE")?;
                let Some(last) = values.pop() else {
                    return refused("coalesce takes arguments".to_owned());
                };
                let pairs = values
                    .into_iter()
                    .map(|value| (Box::new(value.clone().is_not_null()), Box::new(value)));
                let pairs: Vec<_> = pairs.collect();
                if pairs.is_empty() {
                    return Ok(last);
                }
                Ok(Expr::Case(Case::new(None, pairs, Some(Box::new(last)))))
            }
            "nullif" => self.null_if(call.args),
            "concat" | "concat_ws" => self.concat(name, call.args),
            "greatest" | "least" => self.extreme(name, call.args),
            // Rows are taken apart where they are compared.
            ROW => Ok(Expr::ScalarFunction(call)),
            "||" => self.joined_text(call.args),
            arrays::ARRAY => self.array(call.args),
            build::TO_JSONB | build::TO_JSON => self.to_document(name, call.args),
            "jsonb_build_array" | "jsonb_build_object" | "json_build_array"
            | "json_build_object" => self.built(name, call.args),
            name => self.call(name, call.args),
        }
    }

    /// NULLIF, as a CASE.
    fn null_if(&self, args: Vec<Expr>) -> Result<Expr> {
        let Ok([value, other]) = <[Expr; 2]>::try_from(args) else {
            return refused("nullif takes two arguments".to_owned());
        };
        let value = self.returned(value, &other)?;
        let null = Expr::Literal(ScalarValue::try_from(&self.kind(&value)?)?, None);
        let equal = self.compared(value.clone(), Operator::Eq, other)?;
        let pair = (Box::new(equal), Box::new(null));
        Ok(Expr::Case(Case::new(
            None,
            vec![pair],
            Some(Box::new(value)),
        )))
    }

    /// The value that NULLIF returns: its first argument with the type that the equality operator
    /// takes. PostgreSQL has such operators for two types of integers, of floating point numbers
    /// and of timestamps.
    fn returned(&self, value: Expr, other: &Expr) -> Result<Expr> {
        let arguments = [self.argument(&value)?, self.argument(other)?];
        let Ok(target) = compared_as(&arguments) else {
            return Ok(value);
        };
        let kind = arguments
            .first()
            .and_then(Argument::known)
            .and_then(Kind::of);
        match (kind, Kind::of(&target)) {
            (Some(Kind::Int | Kind::Long), Some(Kind::Numeric)) => {
                self.implicitly(value, Kind::Numeric)
            }
            (Some(Kind::Int | Kind::Long | Kind::Numeric), Some(Kind::Double)) => {
                self.implicitly(value, Kind::Double)
            }
            (None, Some(Kind::Numeric)) => self.implicitly(value, Kind::Numeric),
            (None, _) => self.coerced(value, &target).map(text_known),
            _ => Ok(value),
        }
    }

    /// `concat` and `concat_ws`, over the arguments' output texts.
    fn concat(&self, name: &str, args: Vec<Expr>) -> Result<Expr> {
        if let ("concat_ws", Some(between)) = (name, args.first())
            && let Argument::Known(kind) = self.argument(between)?
            && kind != DataType::Utf8
        {
            return refused(format!(
                "concat_ws takes a text to write between the others, not {}",
                types::name(&kind)
            ));
        }
        let args = args.into_iter().map(|arg| self.output(arg));
        let args = args.collect::<Result<Vec<_>>>()?;
        let entry = TABLE.iter().find(|entry| entry.name == name);
        match entry.filter(|entry| args.len() >= entry.takes.len().clamp(1, 2)) {
            Some(entry) => Ok(native::call(entry, DataType::Utf8, args)),
            None => refused(format!("{name} takes more arguments")),
        }
    }

    /// The text of a type's output function, which `concat` writes.
    fn output(&self, expr: Expr) -> Result<Expr> {
        match self.argument(&expr)? {
            Argument::Known(DataType::Boolean) => self.internal(casts::OUTPUT, vec![expr]),
            _ => self.text(expr),
        }
    }

    /// A value cast to text.
    fn text(&self, expr: Expr) -> Result<Expr> {
        if let DataType::Decimal128(38, scale) = self.kind(&expr)?
            && scale > 0
        {
            return refused(
                "how many digits PostgreSQL shows of this numeric depends on its value: round it \
                 first, as in round(x, 2)"
                    .to_owned(),
            );
        }
        self.coerced(expr, &DataType::Utf8)
    }

    /// `||`, which joins text with anything that can be written as text.
    fn joined_text(&self, args: Vec<Expr>) -> Result<Expr> {
        let arguments = self.arguments(&args)?;
        if self.joins_documents(&arguments)? {
            return self.call("||", args);
        }
        let text =
            |argument: &Argument| argument.known().is_none_or(|kind| *kind == DataType::Utf8);
        let any = arguments
            .iter()
            .any(|argument| argument.known() == Some(&DataType::Utf8));
        if !any && !arguments.iter().all(text) {
            let quoted = arguments.iter().any(|argument| argument.known().is_none());
            let bytes = arguments
                .iter()
                .any(|argument| argument.known() == Some(&DataType::Binary));
            if !quoted || bytes {
                return self.call("||", args);
            }
        }
        let args = args
            .into_iter()
            .map(|arg| self.text(arg))
            .collect::<Result<_>>()?;
        let texts = [Kind::Text, Kind::Text];
        let is_text = |entry: &&Entry| entry.name == "||" && *entry.takes == texts;
        let Some(entry) = TABLE.iter().find(is_text) else {
            return refused("|| is not supported".to_owned());
        };
        Ok(native::call(entry, DataType::Utf8, args))
    }

    /// GREATEST and LEAST, over arguments of one type.
    fn extreme(&self, name: &str, args: Vec<Expr>) -> Result<Expr> {
        let args = self.alike(args, name)?;
        let Some(first) = args.first() else {
            return refused(format!("{name} takes arguments"));
        };
        let kind = self.kind(first)?;
        let entry = TABLE
            .iter()
            .find(|entry| entry.name == name && entry.takes.first().copied() == Kind::of(&kind));
        match entry {
            Some(entry) => Ok(native::call(entry, kind, args)),
            None => refused(format!(
                "{name} of {} is not supported in views",
                types::name(&kind)
            )),
        }
    }

    /// CAST, with the modifiers of the type that SQL names.
    fn cast(&self, cast: Cast) -> Result<Expr> {
        let Cast { expr, field } = cast;
        let from = self.kind(&expr)?;
        // The planner writes `AT TIME ZONE` as a cast to a type with nanoseconds and a zone.
        if let DataType::Timestamp(TimeUnit::Nanosecond, Some(zone)) = field.data_type() {
            return self.call(dates::AT_TIME_ZONE, vec![*expr, lit(zone.to_string())]);
        }
        let asked = field.metadata().get(types::ASKED).map(String::as_str);
        if asked == Some("numeric")
            && !matches!(from, DataType::Utf8 | DataType::Float32 | DataType::Float64)
        {
            return self.implicitly(*expr, Kind::Numeric);
        }
        if asked == Some("numeric") {
            let what = "a cast of text or a floating point number to numeric needs a precision and \
                        a scale: numeric(12,2)";
            return refused(what.to_owned());
        }
        if asked == Some("uuid") && types::is_document(&from) {
            let from = types::name(&from);
            return refused(format!(
                "a cast of {from} to uuid is not supported in views"
            ));
        }
        let value = match field.data_type() {
            DataType::Utf8 if from != DataType::Utf8 => self.text(*expr)?,
            DataType::Decimal128(precision, scale) => {
                let args = [*expr, lit(i32::from(*precision)), lit(i32::from(*scale))];
                return self.numeric(args);
            }
            to => match *expr {
                Expr::Literal(value, _) if value.is_null() => {
                    Expr::Literal(ScalarValue::try_from(to)?, None)
                }
                // A literal's own text, which has a known type from here on.
                Expr::Literal(ScalarValue::Utf8(value), _) if *to == DataType::Utf8 => {
                    let value = ScalarValue::Utf8(value);
                    Expr::Cast(Cast::new(
                        Box::new(Expr::Literal(value, None)),
                        DataType::Utf8,
                    ))
                }
                expr => self.cast_to(expr, to)?,
            },
        };
        match asked.map(|asked| asked.split_once(' ').unwrap_or((asked, ""))) {
            Some(("smallint", _)) => self.internal(casts::SMALLINT, vec![value]),
            Some(("uuid", _)) => self.internal(casts::UUID, vec![value]),
            Some(("varchar", most)) => {
                let most: i32 = most.parse().unwrap_or(i32::MAX);
                self.internal(casts::VARCHAR, vec![value, lit(most)])
            }
            _ => Ok(value),
        }
    }

    /// The cast of a value to `numeric(precision, scale)`; a quoted literal is read as text.
    fn numeric(&self, args: [Expr; 3]) -> Result<Expr> {
        let [value, precision, scale] = args;
        let null = matches!(&value, Expr::Literal(value, _) if value.is_null());
        let value = match self.argument(&value)? {
            Argument::Unknown if !null => text_known(value),
            Argument::Unknown => Expr::Literal(ScalarValue::Int32(None), None),
            Argument::Known(_) => value,
        };
        self.internal(casts::NUMERIC, vec![value, precision, scale])
    }
}

/// The type in which two operands are compared; text if both are quoted literals.
///
/// PostgreSQL compares a real with a number of another type as double precision, because it has no
/// operator for these types in which reals are compared.
fn compared_as(arguments: &[Argument]) -> std::result::Result<DataType, String> {
    let target = common(arguments)?.unwrap_or(DataType::Utf8);
    let other = |argument: &Argument| argument.known().is_some_and(|kind| *kind != target);
    match target {
        DataType::Float32 if arguments.iter().any(other) => Ok(DataType::Float64),
        target => Ok(target),
    }
}

/// A quoted literal that is text from here on.
fn text_known(expr: Expr) -> Expr {
    match expr {
        Expr::Literal(value @ ScalarValue::Utf8(_), _) => {
            let literal = Box::new(Expr::Literal(value, None));
            Expr::Cast(Cast::new(literal, DataType::Utf8))
        }
        other => other,
    }
}

/// For numerics: the type that holds every value of both operands, if there is one.
fn exact(target: DataType, arguments: &[Argument]) -> DataType {
    let DataType::Decimal128(_, scale) = target else {
        return target;
    };
    let known = arguments
        .iter()
        .filter(|argument| argument.known().is_some());
    let kinds = known.map(|argument| cast_type(argument, Kind::Numeric, None));
    let whole = kinds.map(|kind| match kind {
        Ok(DataType::Decimal128(precision, scale)) => i32::from(precision) - i32::from(scale),
        _ => i32::from(crate::value::decimal::DIGITS),
    });
    let precision = whole.max().unwrap_or(0) + i32::from(scale);
    let precision = precision.clamp(1, i32::from(crate::value::decimal::DIGITS));
    DataType::Decimal128(precision as u8, scale)
}

/// Numerics that are too long to bring two operands to one scale.
fn wide(kind: &DataType) -> bool {
    matches!(kind, DataType::Decimal128(38, _))
}

/// The values of a row constructor; None for other expressions.
fn row(expr: &Expr) -> Option<&[Expr]> {
    match expr {
        Expr::ScalarFunction(call) if name_of(&call.func) == Some(ROW) => Some(&call.args),
        _ => None,
    }
}

/// A row is null if all of its values are, and not null if none of them is.
fn each_of(value: &Expr, test: fn(Expr) -> Expr) -> Expr {
    let values = row(value).unwrap_or_default().iter().cloned();
    all(values.map(test).collect())
}

/// All conditions joined by AND; true if there are none.
fn all(conditions: Vec<Expr>) -> Expr {
    conditions
        .into_iter()
        .reduce(Expr::and)
        .unwrap_or(lit(true))
}
