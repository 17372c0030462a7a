//! The SQL dialect: PostgreSQL's grammar (`src/backend/parser/gram.y`) for the parser.
//!
//! The parser's own PostgreSQL dialect is used, except where its operator precedence differs:
//!
//! - `a IS DISTINCT FROM b AND c` is `(a IS DISTINCT FROM b) AND c`.
//! - `-a ^ b` is `(-a) ^ b`.
//!
//! `TABLE t` and `PARTITION BY …` may stand where an expression may: they are arguments of TUMBLE,
//! HOP and SESSION ([`crate::rewrite::time_windows`]). They are prefixes of a row of expressions.
//!
//! `substr(…)` is a function like others, and not SUBSTRING.
//!
//! Arguments named by expressions, as in `json_object('a': 1)`, are not supported. To look for
//! them, the parser would read each argument twice, so nested calls would take exponential time.

use std::any::TypeId;

use datafusion_sql::sqlparser::ast::{
    Expr, Ident, ObjectName, UnaryOperator, Value, ValueWithSpan,
};
use datafusion_sql::sqlparser::dialect::{Dialect, PostgreSqlDialect, Precedence};
use datafusion_sql::sqlparser::keywords::Keyword;
use datafusion_sql::sqlparser::parser::{Parser, ParserError};
use datafusion_sql::sqlparser::tokenizer::{Span, Token};

/// The parser's own dialect, which answers everything else.
const BASE: PostgreSqlDialect = PostgreSqlDialect {};

/// The prefix of a table that is an argument. Its value is a row of the table's name (or of a
/// query) and of what the table is partitioned by, if there is something.
pub(crate) const TABLE: &str = "TABLE";

/// The prefix of the expressions that a table in an argument is partitioned by.
pub(crate) const PARTITION_BY: &str = "PARTITION BY";

/// The precedence of a sign: below `::` and subscripts, above COLLATE, AT TIME ZONE and `^`.
const SIGN: u8 = 125;

/// PostgreSQL's grammar.
#[derive(Debug)]
pub(crate) struct Grammar;

/// Delegates methods to the parser's own dialect.
macro_rules! as_base {
    ($($name:ident)*) => {$(
        fn $name(&self) -> bool {
            BASE.$name()
        }
    )*};
}

impl Dialect for Grammar {
    fn dialect(&self) -> TypeId {
        TypeId::of::<PostgreSqlDialect>()
    }

    /// A sign binds tighter than `^`, as in PostgreSQL's grammar (`UMINUS`). A plus before a number
    /// is dropped. Other operators before their operand bind less than `+`: `@ a - b` is
    /// `@ (a - b)`.
    fn parse_prefix(&self, parser: &mut Parser<'_>) -> Option<Result<Expr, ParserError>> {
        if let Some(prefix) = table_argument(parser).or_else(|| substr(parser)) {
            return Some(prefix);
        }
        let other = self.prec_value(Precedence::PgOther);
        let (op, binds) = match &parser.peek_token_ref().token {
            Token::Minus => (UnaryOperator::Minus, SIGN),
            Token::Plus => (UnaryOperator::Plus, SIGN),
            Token::Tilde => (UnaryOperator::BitwiseNot, other),
            Token::AtSign => (UnaryOperator::PGAbs, other),
            Token::PGSquareRoot => (UnaryOperator::PGSquareRoot, other),
            _ => return None,
        };
        parser.next_token();
        let operand = parser.parse_subexpr(binds);
        Some(operand.map(|expr| match (op, expr) {
            (
                UnaryOperator::Plus,
                number @ Expr::Value(ValueWithSpan {
                    value: Value::Number(..),
                    ..
                }),
            ) => number,
            (op, expr) => Expr::UnaryOp {
                op,
                expr: Box::new(expr),
            },
        }))
    }

    /// IS \[NOT\] DISTINCT FROM, whose right side ends before AND. `None` leaves every other
    /// operator to the parser.
    fn parse_infix(
        &self,
        parser: &mut Parser<'_>,
        expr: &Expr,
        _: u8,
    ) -> Option<Result<Expr, ParserError>> {
        let word = |parser: &Parser<'_>, at: usize| match &parser.peek_nth_token_ref(at).token {
            Token::Word(word) => word.keyword,
            _ => Keyword::NoKeyword,
        };
        if word(parser, 0) != Keyword::IS {
            return None;
        }
        let not = word(parser, 1) == Keyword::NOT;
        let next = usize::from(not) + 1;
        if (word(parser, next), word(parser, next + 1)) != (Keyword::DISTINCT, Keyword::FROM) {
            return None;
        }
        for _ in 0..next + 2 {
            parser.next_token();
        }
        let other = parser.parse_subexpr(self.prec_value(Precedence::Is));
        Some(other.map(|other| match not {
            true => Expr::IsNotDistinctFrom(Box::new(expr.clone()), Box::new(other)),
            false => Expr::IsDistinctFrom(Box::new(expr.clone()), Box::new(other)),
        }))
    }

    fn identifier_quote_style(&self, identifier: &str) -> Option<char> {
        BASE.identifier_quote_style(identifier)
    }

    fn is_delimited_identifier_start(&self, ch: char) -> bool {
        BASE.is_delimited_identifier_start(ch)
    }

    fn is_identifier_start(&self, ch: char) -> bool {
        BASE.is_identifier_start(ch)
    }

    fn is_identifier_part(&self, ch: char) -> bool {
        BASE.is_identifier_part(ch)
    }

    fn is_reserved_for_identifier(&self, keyword: Keyword) -> bool {
        BASE.is_reserved_for_identifier(keyword)
    }

    fn is_custom_operator_part(&self, ch: char) -> bool {
        BASE.is_custom_operator_part(ch)
    }

    fn get_next_precedence(&self, parser: &Parser<'_>) -> Option<Result<u8, ParserError>> {
        BASE.get_next_precedence(parser)
    }

    fn prec_value(&self, precedence: Precedence) -> u8 {
        BASE.prec_value(precedence)
    }

    as_base! {
        supports_unicode_string_literal
        supports_filter_during_aggregation
        supports_group_by_expr
        allow_extract_custom
        allow_extract_single_quotes
        supports_create_index_with_clause
        supports_explain_with_utility_options
        supports_listen_notify
        supports_factorial_operator
        supports_bitwise_shift_operators
        supports_comment_on
        supports_load_extension
        supports_named_fn_args_with_colon_operator
        supports_empty_projections
        supports_nested_comments
        supports_string_escape_constant
        supports_numeric_literal_underscores
        supports_array_typedef_with_brackets
        supports_geometric_types
        supports_set_names
        supports_alter_column_type_using
        supports_notnull_operator
        supports_interval_options
        supports_insert_table_alias
        supports_create_table_like_parenthesized
        supports_select_wildcard_with_alias
        supports_comma_separated_trim
        supports_xml_expressions
        supports_comment_optimizer_hint
    }
}

/// `TABLE t`, `TABLE t PARTITION BY k`, or `PARTITION BY k`. `None` if there is something else.
fn table_argument(parser: &mut Parser<'_>) -> Option<Result<Expr, ParserError>> {
    let at = parser.peek_token_ref().span;
    if parser.parse_keywords(&[Keyword::PARTITION, Keyword::BY]) {
        return Some(partitioned(parser, at));
    }
    if !parser.parse_keyword(Keyword::TABLE) {
        return None;
    }
    let table = |parser: &mut Parser<'_>| {
        let mut parts = vec![parser.parse_prefix()?];
        if let Token::Period = parser.peek_token_ref().token {
            return parser.expected("a table without a schema", parser.peek_token());
        }
        if parser.parse_keywords(&[Keyword::PARTITION, Keyword::BY]) {
            parts.push(partitioned(parser, at)?);
        }
        Ok(prefixed(TABLE, parts, at))
    };
    Some(table(parser))
}

/// What stands behind PARTITION BY in an argument: an expression, or several in parentheses.
fn partitioned(parser: &mut Parser<'_>, at: Span) -> Result<Expr, ParserError> {
    let keys = match parser.parse_expr()? {
        Expr::Tuple(keys) => keys,
        Expr::Nested(key) => vec![*key],
        key => vec![key],
    };
    Ok(prefixed(PARTITION_BY, keys, at))
}

/// A row of expressions with a prefix.
fn prefixed(prefix: &str, parts: Vec<Expr>, at: Span) -> Expr {
    Expr::Prefixed {
        prefix: Ident::with_span(at, prefix),
        value: Box::new(Expr::Tuple(parts)),
    }
}

/// `substr(…)` as a call, because it takes no pattern. (The parser takes it for `substring`.)
fn substr(parser: &mut Parser<'_>) -> Option<Result<Expr, ParserError>> {
    let Token::Word(word) = &parser.peek_token_ref().token else {
        return None;
    };
    let name = word.value.clone();
    if word.keyword != Keyword::SUBSTR || parser.peek_nth_token_ref(1).token != Token::LParen {
        return None;
    }
    let at = parser.next_token().span;
    Some(parser.parse_function(ObjectName::from(Ident::with_span(at, name))))
}
