//! Nesting limits of expressions, checked on the tokens of a statement before it is parsed.
//!
//! Planning an expression recurses as deep as it nests, and so does evaluating it for each batch.
//! The parser limits the nesting of parentheses. A chain such as `a + b + c …` nests as deep as it
//! is long, so operators are counted here. A long chain of AND and OR becomes a balanced tree
//! ([`balance`](mod@super::balance)), so it counts no more than the longest chain that is not
//! balanced.
//!
//! Input: the tokens of one statement. Output: the first place at which a limit is exceeded, if
//! there is one. Operators are counted by their tokens, so SQL that nests less than it seems may be
//! refused too.

use datafusion_sql::sqlparser::keywords::Keyword;
use datafusion_sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan};
use tidemill_functions::chain::BALANCED_FROM;

/// Most operators that work on each other's results in one expression, without the balanced ones.
const OPERATORS_IN_A_ROW_MAX: usize = 100;

/// Most ANDs and ORs in one chain. [`balance`](mod@super::balance) makes a tree of small depth of
/// it.
const LOGICAL_IN_A_ROW_MAX: usize = 10_000;

/// Most queries combined by UNION, INTERSECT and EXCEPT and relations joined in one statement.
const RELATIONS_MAX: usize = 200;

/// The operators counted so far between two parentheses.
///
/// A comma or a new clause begins a chain; a parenthesis begins one within the chain around it.
#[derive(Default, Clone, Copy)]
struct Chain {
    /// The length of the chain of ANDs and ORs.
    logical: usize,
    /// The length of the chain of other operators in one of its operands.
    other: usize,
}

/// The place at which a statement exceeds a limit, with a message that says what to write instead.
pub(crate) fn exceeded(tokens: &[TokenWithSpan]) -> Option<(Location, String)> {
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
                Keyword::UNION | Keyword::INTERSECT | Keyword::EXCEPT | Keyword::JOIN => {
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
