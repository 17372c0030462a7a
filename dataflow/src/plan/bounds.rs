//! How deep an expression may nest: planning it, and evaluating it on each batch, recurses as deep.
//!
//! The parser bounds what nests in parentheses. A chain such as `a + b + c …` nests as deep as it
//! is long, so chains are counted here, over the tokens of one statement. Of a long chain of AND
//! and OR a balanced tree is made: it counts no more than the chain that is left as it is.

use datafusion_sql::sqlparser::keywords::Keyword;
use datafusion_sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan};

use super::balance::BALANCED_FROM;

/// Operators that work on each other's results in one expression, beside those that are balanced.
const OPERATORS_IN_A_ROW_MAX: usize = 100;

/// ANDs and ORs in one chain, which [`balance`](super::balance) makes a tree of small depth.
const LOGICAL_IN_A_ROW_MAX: usize = 10_000;

/// Queries that UNION combines, or relations that a FROM joins, in one statement.
const RELATIONS_MAX: usize = 200;

/// Operators so far between two parentheses: a chain of AND and OR, and a chain inside of it.
#[derive(Default, Clone, Copy)]
struct Chain {
    logical: usize,
    other: usize,
}

/// The place where a statement goes beyond a bound, and what to write in its place.
pub(super) fn exceeded(tokens: &[TokenWithSpan]) -> Option<(Location, String)> {
    let mut chains = vec![Chain::default()];
    let mut relations = 0;
    for token in tokens {
        let at = token.span.start;
        let outermost = chains.len() == 1;
        let chain = chains.last_mut()?;
        match &token.token {
            Token::LParen => chains.push(Chain::default()),
            Token::RParen if outermost => {}
            Token::RParen => drop(chains.pop()),
            Token::Comma => *chain = Chain::default(),
            Token::Word(word) => match word.keyword {
                Keyword::AND | Keyword::OR => {
                    chain.logical += 1;
                    chain.other = 0;
                }
                Keyword::UNION | Keyword::JOIN => {
                    relations += 1;
                    *chain = Chain::default();
                }
                Keyword::SELECT | Keyword::FROM | Keyword::WHERE | Keyword::HAVING => {
                    *chain = Chain::default();
                }
                Keyword::NOT | Keyword::IS | Keyword::CASE | Keyword::COLLATE | Keyword::AT => {
                    chain.other += 1;
                }
                _ => {}
            },
            Token::Whitespace(_)
            | Token::Number(..)
            | Token::SingleQuotedString(_)
            | Token::Period => {}
            _ => chain.other += 1,
        }
        let deep = |chain: &Chain| chain.logical.min(BALANCED_FROM) + chain.other;
        let deep: usize = chains.iter().map(deep).sum();
        if chains
            .iter()
            .any(|chain| chain.logical > LOGICAL_IN_A_ROW_MAX)
        {
            let what = format!(
                "more than {LOGICAL_IN_A_ROW_MAX} ANDs and ORs in a row: write IN (…) in place of \
                 many comparisons, or join a table of the values"
            );
            return Some((at, what));
        }
        if deep > OPERATORS_IN_A_ROW_MAX {
            let what = format!(
                "more than {OPERATORS_IN_A_ROW_MAX} operators in a row: write IN (…) in place of \
                 many comparisons, or compute a part in a view of its own"
            );
            return Some((at, what));
        }
        if relations > RELATIONS_MAX {
            let what = format!(
                "more than {RELATIONS_MAX} joins and unions in one statement: make a part a view \
                 of its own"
            );
            return Some((at, what));
        }
    }
    None
}
