//! The lexer: SQL text to tokens, as PostgreSQL's lexer (`src/backend/parser/scan.l`) cuts them.
//!
//! A number with an exponent is written out in digits, because a decimal with a negative scale is
//! not supported by casts and arithmetic: `1e3` becomes the numeric `1000.`.
//!
//! The tokenizer library takes each run of operator characters for one operator. PostgreSQL ends an
//! operator before a trailing `+` or `-`, unless the operator contains a character that no operator
//! of standard SQL has: `a<-1` is `a < -1`, but `a@-1` is the operator `@-`.

use datafusion_sql::sqlparser::tokenizer::{
    Location, Span, Token, TokenWithSpan, Tokenizer, TokenizerError,
};

use super::dialect::Grammar;

/// An operator with one of these characters may end in a sign.
const NOT_STANDARD: [char; 9] = ['~', '!', '@', '#', '%', '^', '&', '|', '?'];
/// Most digits of a numeric.
const MAX_DIGITS: u64 = 38;

/// The tokens of a file.
///
/// # Errors
/// The place and the reason, when the text is not SQL that PostgreSQL's lexer accepts.
pub(crate) fn tokens(sql: &str) -> Result<Vec<TokenWithSpan>, TokenizerError> {
    let glued = Tokenizer::new(&Grammar, sql).tokenize_with_location()?;
    let mut tokens = Vec::with_capacity(glued.len());
    for token in glued {
        match &token.token {
            Token::CustomBinaryOperator(operator) => cut(operator, token.span.start, &mut tokens)?,
            Token::Number(number, long) => {
                let written = written_out(number, token.span.start)?;
                let number = written.unwrap_or_else(|| number.clone());
                tokens.push(TokenWithSpan {
                    token: Token::Number(number, *long),
                    span: token.span,
                });
            }
            Token::HexStringLiteral(digits) => {
                let message = format!(
                    "bits in hexadecimal (`X'{digits}'` or `0x{digits}`) are not supported: write \
                     a decimal number, or '\\x{digits}'::bytea"
                );
                let location = token.span.start;
                return Err(TokenizerError { message, location });
            }
            Token::DoubleEq => {
                return Err(TokenizerError {
                    message: "`==` is no operator: write `=`".to_owned(),
                    location: token.span.start,
                });
            }
            _ => tokens.push(token),
        }
    }
    Ok(tokens)
}

/// A number with an exponent, written out in digits; `None` if it has no exponent.
///
/// `1.5e3` becomes `1500.`, and `1e-3` becomes `0.001`.
///
/// # Errors
/// The number needs more than 38 digits.
fn written_out(number: &str, at: Location) -> Result<Option<String>, TokenizerError> {
    let Some((mantissa, exponent)) = number.split_once(['e', 'E']) else {
        return Ok(None);
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let exponent: i64 = exponent.parse().unwrap_or(i64::MAX);
    let before = i64::try_from(whole.len()).unwrap_or(i64::MAX);
    let point = before.saturating_add(exponent);
    if point.unsigned_abs() > MAX_DIGITS || digits.len() as u64 > MAX_DIGITS {
        return Err(TokenizerError {
            message: format!(
                "`{number}` does not fit the {MAX_DIGITS} digits of a numeric: write \
                 '{number}'::double precision"
            ),
            location: at,
        });
    }
    let point = usize::try_from(point.max(0)).unwrap_or_default();
    let zeros = "0".repeat(point.saturating_sub(digits.len()));
    let leading = "0".repeat(usize::try_from((-before - exponent).max(0)).unwrap_or_default());
    let digits = format!("{leading}{digits}{zeros}");
    let (whole, fraction) = digits.split_at(point);
    let whole = if whole.is_empty() { "0" } else { whole };
    Ok(Some(format!("{whole}.{fraction}")))
}

/// Cuts a run of operator characters, which starts at `at`, into operators.
///
/// # Errors
/// The run contains the beginning of a comment.
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
        // A run of signs only: each sign is an operator of its own.
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
