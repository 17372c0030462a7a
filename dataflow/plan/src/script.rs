//! The script: the text of a `views.sql`, cut into statements, and errors that point into it.
//!
//! Input: SQL text. Output: parsed statements with their text as written. Each place in an error is
//! a line and a column of the file, counted from 1.
//!
//! ```text
//! text ─► lexer ─► split at `;` ─► bounds: nesting ─► parser (dialect) ─► balance ─► Statement
//! ```

pub(crate) mod balance;
pub(crate) mod bounds;
pub(crate) mod dialect;
pub(crate) mod lexer;

use balance::balance;
use bounds::exceeded;
use datafusion_common::utils::datafusion_strsim::levenshtein;
use datafusion_sql::sqlparser::ast::{Ident, ObjectName, Statement as Ast};
use datafusion_sql::sqlparser::parser::{Parser, ParserError};
use datafusion_sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan};
use dialect::Grammar;
use tidemill_log::{Error, Kind, Result};

/// One statement of the file.
pub(super) struct Statement {
    /// The parsed statement.
    pub(super) ast: Ast,
    /// The text as written, without the semicolon.
    pub(super) sql: String,
    /// The place of its first token.
    pub(super) at: Location,
}

/// The file that errors point into, by its name as the user gave it.
#[derive(Clone, Copy)]
pub(super) struct Script<'a> {
    /// The file's name, for messages.
    pub(super) file: &'a str,
}

impl Script<'_> {
    /// A `Data` error at a place.
    pub(super) fn error(self, at: Location, what: impl AsRef<str>) -> Error {
        self.error_of(Kind::Data, at, what)
    }

    /// An error of any kind at a place.
    pub(super) fn error_of(self, kind: Kind, at: Location, what: impl AsRef<str>) -> Error {
        let Location { line, column } = at;
        Error::new(
            kind,
            format!("{}:{line}:{column}: {}", self.file, what.as_ref()),
        )
    }

    /// Parses the whole file.
    ///
    /// # Errors
    /// `Data` with the place, when the text does not parse or nests too deeply.
    ///
    /// Empty statements are left out, so a file may end with any number of semicolons.
    pub(super) fn statements(self, sql: &str) -> Result<Vec<Statement>> {
        let tokens = lexer::tokens(sql)
            .map_err(|error| self.error(error.location, lower_first(&error.message)))?;
        tokens
            .split(|token| token.token == Token::SemiColon)
            .filter_map(|tokens| {
                let code = |token: &&TokenWithSpan| !matches!(token.token, Token::Whitespace(_));
                let first = tokens.iter().find(code)?;
                let last = tokens.iter().rfind(code)?;
                Some((tokens, first.span.start, last.span.end))
            })
            .map(|(tokens, start, end)| {
                if let Some((at, what)) = exceeded(tokens) {
                    return Err(self.error(at, what));
                }
                let mut parser = Parser::new(&Grammar).with_tokens_with_locations(tokens.to_vec());
                let mut ast = parser
                    .parse_statement()
                    .and_then(|ast| match parser.peek_token() {
                        rest if rest.token == Token::EOF => Ok(ast),
                        rest => parser.expected("end of statement or `;`", rest),
                    })
                    .map_err(|error| self.syntax(&error, end))?;
                balance(&mut ast);
                let text = sql.get(offset(sql, start)..offset(sql, end));
                Ok(Statement {
                    ast,
                    sql: text.unwrap_or_default().to_owned(),
                    at: start,
                })
            })
            .collect()
    }

    /// The error of the parser, which writes the place into its message and knows none at the end.
    ///
    /// The parser's message has the form `… at Line: L, Column: C`. `end` is the end of the
    /// statement.
    fn syntax(self, error: &ParserError, end: Location) -> Error {
        let message = match error {
            ParserError::ParserError(message) | ParserError::TokenizerError(message) => {
                message.as_str()
            }
            ParserError::RecursionLimitExceeded => "nested too deeply",
        };
        let (what, place) = message.split_once(" at Line: ").unwrap_or((message, ""));
        let at = place
            .split_once(", Column: ")
            .and_then(|(line, column)| Some((line.parse().ok()?, column.parse().ok()?)))
            .map_or(end, |(line, column)| Location { line, column });
        let what = match what.contains("Word {") {
            true => "there is no such operator".to_owned(),
            false => what.replace("found: EOF", "found the end of the statement"),
        };
        self.error(at, format!("this does not parse: {}", lower_first(&what)))
    }
}

/// The byte offset of a place. Columns count characters.
///
/// A place behind the end of the text is the end of the text.
fn offset(sql: &str, at: Location) -> usize {
    let line = usize::try_from(at.line.saturating_sub(1)).unwrap_or(usize::MAX);
    let column = usize::try_from(at.column.saturating_sub(1)).unwrap_or(usize::MAX);
    let start: usize = sql.split_inclusive('\n').take(line).map(str::len).sum();
    let rest = sql.get(start..).unwrap_or_default();
    start
        + rest
            .char_indices()
            .nth(column)
            .map_or(rest.len(), |(index, _)| index)
}

/// A name with ASCII letters in lower case unless quoted, as PostgreSQL folds names.
///
/// PostgreSQL's `downcase_identifier` also folds letters beyond ASCII, but only in encodings of one
/// byte for each character.
pub(super) fn normal(ident: &Ident) -> String {
    match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_ascii_lowercase(),
    }
}

/// An unqualified name; `None` if it has a schema before it.
pub(super) fn single(name: &ObjectName) -> Option<&Ident> {
    match name.0.as_slice() {
        [part] => part.as_ident(),
        _ => None,
    }
}

/// The text ``; did you mean `x`?`` for the closest candidate, or nothing if none is close.
///
/// The distance is Levenshtein's. A candidate is close if it differs in at most a third of the
/// letters, and in one letter for short names.
pub(super) fn did_you_mean(name: &str, among: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    let name = name.to_lowercase();
    among
        .into_iter()
        .map(|candidate| {
            let candidate = candidate.as_ref().to_owned();
            let distance = levenshtein(&name, &candidate.to_lowercase());
            // Among equal distances, letters in the wrong order are the more likely mistake.
            (distance, candidate.len().abs_diff(name.len()), candidate)
        })
        .min()
        .filter(|(distance, ..)| *distance <= 1.max((name.chars().count() + 1) / 3))
        .map_or_else(String::new, |(.., candidate)| {
            format!("; did you mean `{}`?", written(&candidate))
        })
}

/// A name as SQL must write it: in quotes if they are necessary.
pub(super) fn written(name: &str) -> String {
    let plain = |c: char| c == '_' || c.is_ascii_lowercase() || c.is_ascii_digit();
    match name.chars().all(plain) && !name.starts_with(|c: char| c.is_ascii_digit()) {
        true => name.to_owned(),
        false => format!("\"{}\"", name.replace('"', "\"\"")),
    }
}

/// Lowers the first letter, because messages here are fragments and those of libraries are not.
///
/// A text that begins with an abbreviation (`SQL …`) stays as it is.
pub(super) fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    let second_is_upper = chars.clone().nth(1).is_some_and(char::is_uppercase);
    match chars.next() {
        Some(first) if !second_is_upper => first.to_lowercase().chain(chars).collect(),
        _ => text.to_owned(),
    }
}

/// The message without parts that only repeat it.
pub(super) fn first_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let line = line.trim_start_matches("Internal error: ");
    let details = [
        ", errors: ",
        ": While expanding wildcard",
        ". No function matches",
    ];
    let ends = details.iter().filter_map(|detail| line.find(detail));
    line.get(..ends.min().unwrap_or(line.len()))
        .unwrap_or(line)
        .to_owned()
}
