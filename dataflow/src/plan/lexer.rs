//! SQL text to tokens, as PostgreSQL cuts them.
//!
//! The tokenizer takes every run of operator characters for one operator. PostgreSQL ends an
//! operator before a trailing `+` or `-`, unless the operator has a character that no operator of
//! standard SQL has: `a<-1` is `a < -1`, and `a@-1` is the operator `@-`.

use datafusion_sql::sqlparser::tokenizer::{
    Location, Span, Token, TokenWithSpan, Tokenizer, TokenizerError,
};

use super::dialect::Grammar;

/// With one of these an operator may end in a sign.
const NOT_STANDARD: [char; 9] = ['~', '!', '@', '#', '%', '^', '&', '|', '?'];

/// The tokens of a file.
pub(super) fn tokens(sql: &str) -> Result<Vec<TokenWithSpan>, TokenizerError> {
    let glued = Tokenizer::new(&Grammar, sql).tokenize_with_location()?;
    let mut tokens = Vec::with_capacity(glued.len());
    for token in glued {
        match &token.token {
            Token::CustomBinaryOperator(operator) => cut(operator, token.span.start, &mut tokens)?,
            _ => tokens.push(token),
        }
    }
    Ok(tokens)
}

/// The tokens of one run of operator characters that starts at `at`.
fn cut(run: &str, at: Location, tokens: &mut Vec<TokenWithSpan>) -> Result<(), TokenizerError> {
    if run.contains("--") || run.contains("/*") {
        return Err(TokenizerError {
            message: format!("`{run}` is an operator and a comment: put a space between them"),
            location: at,
        });
    }
    let mut operator = run;
    if !run.contains(NOT_STANDARD) {
        let signs = |c: char| c == '+' || c == '-';
        let trimmed = run.trim_end_matches(signs);
        // Signs alone are one operator each.
        operator = run.get(..trimmed.len().max(1)).unwrap_or(run);
    }
    if operator.len() == run.len() {
        let column = at.column + run.len() as u64;
        let end = Location { column, ..at };
        tokens.push(TokenWithSpan {
            token: Token::CustomBinaryOperator(run.to_owned()),
            span: Span { start: at, end },
        });
        return Ok(());
    }
    let mut start = at;
    let signs = run.get(operator.len()..).unwrap_or_default();
    let signs = signs
        .char_indices()
        .map(|(index, sign)| (index, sign.len_utf8()));
    let signs = signs.filter_map(|(index, len)| run.get(operator.len() + index..)?.get(..len));
    for piece in std::iter::once(operator).chain(signs) {
        let column = start.column + piece.len() as u64;
        let end = Location { column, ..start };
        for token in Tokenizer::new(&Grammar, piece).tokenize()? {
            tokens.push(TokenWithSpan {
                token,
                span: Span { start, end },
            });
        }
        start = end;
    }
    Ok(())
}
