//! LIKE and ILIKE. Source: PostgreSQL's `like_match.c`.
//!
//! A pattern that ends with its escape character fails the row, also where PostgreSQL finds out
//! earlier that the text does not match.

use crate::entry::{Answer, Entry, Kind, body, rows};
use crate::text::strings::lower;
use crate::value::datum::Datum;

/// The entry of `LIKE`: text, pattern, escape.
pub(crate) const LIKE: &str = "LIKE";
/// The entry of `ILIKE`, which ignores case.
pub(crate) const ILIKE: &str = "ILIKE";

/// One element of a pattern.
#[derive(Clone, Copy, PartialEq)]
enum Step {
    /// This character.
    Exactly(char),
    /// `_`: any one character.
    Any,
    /// `%`: any number of any characters.
    Many,
}

/// The elements of a pattern; None if the escape character is its last character.
///
/// The escape character makes the next character stand for itself. Without an escape character
/// (`ESCAPE ''`), only `%` and `_` are special.
fn steps(pattern: &str, escape: Option<char>) -> Option<Vec<Step>> {
    let mut steps = Vec::new();
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        steps.push(match c {
            c if Some(c) == escape => Step::Exactly(chars.next()?),
            '%' => Step::Many,
            '_' => Step::Any,
            c => Step::Exactly(c),
        });
    }
    Some(steps)
}

/// Whether a text matches a pattern.
///
/// When an element does not match, matching goes on one character after the place where the last
/// `%` began. An earlier `%` need not be tried again, so the work is at most length of text ×
/// length of pattern.
///
/// # Errors
/// The escape has more than one character, or the pattern ends with the escape character.
fn like(text: &str, pattern: &str, escape: &str) -> Answer {
    let mut escapes = escape.chars();
    let escape = escapes.next();
    if escapes.next().is_some() {
        return Err("invalid escape string: it must be empty or one character".to_owned());
    }
    let Some(steps) = steps(pattern, escape) else {
        return Err("LIKE pattern must not end with escape character".to_owned());
    };
    let text: Vec<char> = text.chars().collect();
    let (mut at, mut step) = (0, 0);
    // Where to continue after the last `%`: place in the text, and element of the pattern.
    let mut back: Option<(usize, usize)> = None;
    loop {
        let fits = match (steps.get(step), text.get(at)) {
            (Some(Step::Many), _) => {
                step += 1;
                back = Some((at, step));
                continue;
            }
            (Some(Step::Exactly(c)), Some(found)) => c == found,
            (Some(Step::Any), Some(_)) => true,
            (None, None) => return Ok(Datum::Bool(true)),
            _ => false,
        };
        if fits {
            (at, step) = (at + 1, step + 1);
            continue;
        }
        match back {
            Some((start, after)) if start < text.len() => {
                back = Some((start + 1, after));
                (at, step) = (start + 1, after);
            }
            _ => return Ok(Datum::Bool(false)),
        }
    }
}

/// The same for texts in lower case, character by character.
///
/// The escape character is put into lower case too, so it is found in the pattern in lower case.
fn ilike(text: &str, pattern: &str, escape: &str) -> Answer {
    let small = |text: &str| text.chars().map(lower).collect::<String>();
    like(&small(text), &small(pattern), escape)
}

/// All entries of this family.
pub(crate) fn entries() -> Vec<Entry> {
    use Datum::Text;
    const THREE: &[Kind] = &[Kind::Text, Kind::Text, Kind::Text];
    vec![
        rows(
            LIKE,
            THREE,
            Kind::Bool,
            body!([Text(t), Text(p), Text(e)] => like(t, p, e)),
        )
        .narrower(),
        rows(
            ILIKE,
            THREE,
            Kind::Bool,
            body!([Text(t), Text(p), Text(e)] => ilike(t, p, e)),
        )
        .narrower(),
    ]
}
