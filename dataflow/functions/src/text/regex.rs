//! Regular expressions: PostgreSQL's advanced regular expressions (`backend/regex`), and SIMILAR
//! TO.
//!
//! A pattern is translated into the syntax of the crate `regex`. What the two read differently, and
//! what the crate does not have (back references, lookaround, word boundaries, embedded options),
//! fails the row with the reason. Where the extent of a match matters, it is the longest of the
//! leftmost matches, as POSIX defines. There, patterns that are not greedy are refused.
//!
//! ```text
//! pattern ─► Reader: syntax of the crate `regex` ─► Compiled: Regex (where a match begins, groups)
//!                                                             DFA   (where the longest match ends)
//! ```
//!
//! Every entry is [`narrower`](Entry::narrower), and a constant pattern is [`tried`](Entry::tried)
//! when the view is planned. The crate's matching time is linear in the length of the text, so no
//! pattern can stop a job.
//!
//! | PostgreSQL | here |
//! |---|---|
//! | `.` and `[^x]` match line breaks; `^` and `$` match at the ends alone | the same, by `(?s)` |
//! | `\d` `\s` `\w` `[:alpha:]` … in the locale C.UTF-8 | sets of characters, written out |
//! | `*?`, `+?`, `??`, `{m,n}?` | the same for a yes or no; refused where the extent matters |
//! | `\1` in a pattern, `(?=…)`, `(?!…)`, `\m`, `\M`, `\y` | refused |

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt::Write;
use std::rc::Rc;

use regex::Regex;
use regex_automata::hybrid::dfa::{Cache, DFA};
use regex_automata::{Anchored, Input, MatchKind};

use crate::entry::{Answer, Entry, Kind, body, rows};
use crate::text::strings::{lower, upper};
use crate::value::datum::Datum;

/// Most compiled patterns that a thread keeps. When they are that many, all are dropped.
const PATTERNS_KEPT: usize = 64;

/// The members of the class `\s`, as characters of a bracket expression.
const SPACES: &str =
    r"\t-\r \x{1680}\x{2000}-\x{2006}\x{2008}-\x{200a}\x{2028}\x{2029}\x{205f}\x{3000}";
/// The members of the class `\w`.
const WORD: &str = r"\p{Alphabetic}\p{N}_";
/// The members of the class `[:alnum:]`.
const ALPHA: &str = r"\p{Alphabetic}\p{N}";

/// A compiled pattern.
struct Compiled {
    /// Finds where the leftmost match begins, and its groups.
    regex: Regex,
    /// Finds the longest match at a place.
    ///
    /// Built lazily, state by state. `MatchKind::All` makes the search go on after the first match,
    /// so the last one found is the longest.
    longest: DFA,
    /// The states of `longest` that were built so far.
    cache: RefCell<Cache>,
    /// What the pattern contains.
    shape: Shape,
}

/// What decides whether the extent and the groups of a match are PostgreSQL's.
#[derive(Default, Clone, Copy)]
struct Shape {
    /// The pattern has a quantifier that is not greedy, such as `*?`.
    lazy: bool,
    /// The pattern has an alternation `|`.
    alternation: bool,
    /// The pattern has a quantifier after a group.
    repeated_group: bool,
}

thread_local! {
    /// The compiled patterns of a thread, by pattern and whether case is ignored.
    static KEPT: RefCell<HashMap<(String, bool), Rc<Compiled>>> = RefCell::default();
}

/// The compiled pattern; `fold` if case is ignored.
///
/// # Errors
/// The pattern is not valid, or not supported.
///
/// Patterns may come from a column, so the cache is limited to [`PATTERNS_KEPT`] patterns.
fn compiled(pattern: &str, fold: bool) -> Result<Rc<Compiled>, String> {
    let key = (pattern.to_owned(), fold);
    if let Some(found) = KEPT.with_borrow(|kept| kept.get(&key).map(Rc::clone)) {
        return Ok(found);
    }
    let mut reader = Reader::new(pattern, fold);
    let translated = reader.translated()?;
    let broken = |error: String| format!("invalid regular expression `{pattern}`: {error}");
    let regex = Regex::new(&translated).map_err(|error| broken(error.to_string()))?;
    let longest = DFA::builder()
        .configure(DFA::config().match_kind(MatchKind::All))
        .build(&translated)
        .map_err(|error| broken(error.to_string()))?;
    let cache = RefCell::new(longest.create_cache());
    let compiled = Rc::new(Compiled {
        regex,
        longest,
        cache,
        shape: reader.shape,
    });
    KEPT.with_borrow_mut(|kept| {
        if kept.len() >= PATTERNS_KEPT {
            kept.clear();
        }
        kept.insert(key, Rc::clone(&compiled));
    });
    Ok(compiled)
}

impl Compiled {
    /// The leftmost match that begins at or after `from`, of the greatest length: its start and end
    /// in bytes.
    ///
    /// # Errors
    /// The lazy DFA cannot search the text (`MatchError`).
    fn find(&self, text: &str, from: usize) -> Result<Option<(usize, usize)>, String> {
        let Some(found) = self.regex.find_at(text, from) else {
            return Ok(None);
        };
        let input = Input::new(text)
            .range(found.start()..)
            .anchored(Anchored::Yes);
        let end = self
            .longest
            .try_search_fwd(&mut self.cache.borrow_mut(), &input);
        let end = end.map_err(|error| error.to_string())?;
        Ok(Some((
            found.start(),
            end.map_or(found.end(), |end| end.offset()),
        )))
    }
}

/// Translates a pattern of PostgreSQL into one of the crate `regex`.
struct Reader<'a> {
    /// The rest of the pattern.
    rest: std::iter::Peekable<std::str::Chars<'a>>,
    /// Whether case is ignored. Letters are then written as both cases.
    fold: bool,
    /// The translation so far.
    to: String,
    /// What the pattern contains so far.
    shape: Shape,
    /// Whether a quantifier may follow: an atom was the last.
    atom: bool,
    /// Whether that atom is a group.
    group: bool,
    /// Open groups.
    depth: usize,
}

/// A character as a code point, which no syntax can misread.
fn hex(c: char) -> String {
    format!("\\x{{{:x}}}", u32::from(c))
}

impl<'a> Reader<'a> {
    /// A reader at the start of a pattern. `.` also matches line breaks.
    fn new(pattern: &'a str, fold: bool) -> Self {
        Self {
            rest: pattern.chars().peekable(),
            fold,
            to: "(?s)".to_owned(),
            shape: Shape::default(),
            atom: false,
            group: false,
            depth: 0,
        }
    }

    /// The whole translation. Fails if the pattern is not valid or not supported.
    fn translated(&mut self) -> Result<String, String> {
        while let Some(c) = self.rest.next() {
            match c {
                '\\' => self.escape()?,
                '[' => self.bracket()?,
                '(' => self.open()?,
                ')' if self.depth == 0 => return Err("parentheses () not balanced".to_owned()),
                ')' => {
                    self.depth -= 1;
                    self.to.push(')');
                    (self.atom, self.group) = (true, true);
                }
                '|' => {
                    self.shape.alternation = true;
                    self.to.push('|');
                    self.atom = false;
                }
                '^' | '$' => {
                    self.to.push(c);
                    self.atom = false;
                }
                '.' => self.one("."),
                '*' | '+' | '?' => self.quantifier(&c.to_string())?,
                '{' if self.rest.peek().is_some_and(char::is_ascii_digit) => self.bounds()?,
                c => self.literal(c),
            }
        }
        match self.depth {
            0 => Ok(std::mem::take(&mut self.to)),
            _ => Err("parentheses () not balanced".to_owned()),
        }
    }

    /// Appends an atom.
    fn one(&mut self, what: &str) {
        self.to.push_str(what);
        (self.atom, self.group) = (true, false);
    }

    /// Appends a character that stands for itself.
    ///
    /// With `fold`, a letter becomes the set of itself, its upper and its lower case.
    fn literal(&mut self, c: char) {
        let text = match self.fold && (upper(c) != c || lower(c) != c) {
            true => format!("[{}{}{}]", hex(c), hex(upper(c)), hex(lower(c))),
            false => hex(c),
        };
        self.one(&text);
    }

    /// A group. `(?:` is the only kind with a question mark.
    ///
    /// # Errors
    /// Any other construct that begins with `(?`.
    fn open(&mut self) -> Result<(), String> {
        self.depth += 1;
        self.atom = false;
        if self.rest.next_if_eq(&'?').is_none() {
            self.to.push('(');
            return Ok(());
        }
        match self.rest.next() {
            Some(':') => self.to.push_str("(?:"),
            _ => {
                let what = "lookahead, lookbehind and embedded options (?…) are not supported";
                return Err(what.to_owned());
            }
        }
        Ok(())
    }

    /// An escape outside of brackets.
    ///
    /// # Errors
    /// The pattern ends here, or the escape is a letter or digit that is no class and no control
    /// character.
    fn escape(&mut self) -> Result<(), String> {
        let Some(c) = self.rest.next() else {
            return Err("invalid escape \\ sequence".to_owned());
        };
        match (class(c), control(c)) {
            (Some((class, false)), _) => self.one(&format!("[{class}]")),
            (Some((class, true)), _) => self.one(&format!("[^{class}]")),
            (None, Some(control)) => self.literal(control),
            (None, None) if c.is_ascii_alphanumeric() => {
                return Err(format!(
                    "the escape `\\{c}` is not supported in regular expressions"
                ));
            }
            (None, None) => self.literal(c),
        }
        Ok(())
    }

    /// A quantifier after an atom.
    ///
    /// `what` is the quantifier as it is written, without the `?` that makes it not greedy.
    ///
    /// # Errors
    /// There is nothing to repeat, or another quantifier follows.
    fn quantifier(&mut self, what: &str) -> Result<(), String> {
        if !self.atom {
            return Err("quantifier operand invalid".to_owned());
        }
        self.atom = false;
        self.shape.repeated_group |= self.group;
        self.to.push_str(what);
        if self.rest.next_if_eq(&'?').is_some() {
            self.shape.lazy = true;
            self.to.push('?');
        }
        match self.rest.peek() {
            Some('*' | '+' | '?') => Err("quantifier operand invalid".to_owned()),
            _ => Ok(()),
        }
    }

    /// The bounds `{m}`, `{m,}` or `{m,n}`, up to 255 as in PostgreSQL (`DUPMAX`).
    ///
    /// # Errors
    /// The bounds are no numbers up to 255, or the first is greater than the second.
    fn bounds(&mut self) -> Result<(), String> {
        let mut inside = String::new();
        loop {
            match self.rest.next() {
                Some('}') => break,
                Some(c @ ('0'..='9' | ',')) => inside.push(c),
                _ => return Err("invalid repetition count(s)".to_owned()),
            }
        }
        let (least, most) = inside.split_once(',').unwrap_or((&inside, &inside));
        let small = |text: &str| text.parse::<u32>().ok().filter(|count| *count <= 255);
        let least = small(least).ok_or("invalid repetition count(s)")?;
        let fits = most.is_empty() || small(most).is_some_and(|most| most >= least);
        match fits {
            true => self.quantifier(&format!("{{{inside}}}")),
            false => Err("invalid repetition count(s)".to_owned()),
        }
    }

    /// A bracket expression, whose `[` was read.
    ///
    /// A `]` directly after `[` or `[^` is a member.
    ///
    /// # Errors
    /// The bracket is not closed, or one of its members is not supported.
    fn bracket(&mut self) -> Result<(), String> {
        let negated = self.rest.next_if_eq(&'^').is_some();
        let mut inside = String::new();
        let mut first = true;
        loop {
            let Some(c) = self.rest.next() else {
                return Err("brackets [] not balanced".to_owned());
            };
            match c {
                ']' if !first => break,
                '[' if matches!(self.rest.peek(), Some(':' | '.' | '=')) => {
                    inside.push_str(self.named()?);
                }
                c => self.member(c, &mut inside)?,
            }
            first = false;
        }
        let negation = if negated { "^" } else { "" };
        self.one(&format!("[{negation}{inside}]"));
        Ok(())
    }

    /// One member of a bracket expression: a character, an escape or a range.
    fn member(&mut self, c: char, inside: &mut String) -> Result<(), String> {
        let Some(from) = self.point(c, inside)? else {
            return Ok(());
        };
        let mut ahead = self.rest.clone();
        if ahead.next() != Some('-') || matches!(ahead.next(), Some(']') | None) {
            self.range(from, from, inside);
            return Ok(());
        }
        self.rest.next();
        let end = self.rest.next().unwrap_or('-');
        if end == '[' {
            return Err("a range of brackets is not supported".to_owned());
        }
        let to = self.point(end, &mut String::new())?;
        let to = to
            .filter(|to| *to >= from)
            .ok_or("invalid character range")?;
        if self.fold && !to.is_ascii() {
            return Err("a range beyond ASCII that ignores case is not supported".to_owned());
        }
        self.range(from, to, inside);
        Ok(())
    }

    /// Appends a range to a bracket expression, in both cases if case is ignored.
    fn range(&self, from: char, to: char, inside: &mut String) {
        // Writing to a string does not fail.
        let _infallible = write!(inside, "{}-{}", hex(from), hex(to));
        if self.fold && from == to {
            inside.push_str(&hex(upper(from)));
            inside.push_str(&hex(lower(from)));
        } else if self.fold {
            for c in (from..=to).filter(char::is_ascii_alphabetic) {
                inside.push_str(&hex(upper(c)));
                inside.push_str(&hex(lower(c)));
            }
        }
    }

    /// The character that `c` begins. None if it is a class, which is appended to `inside`.
    ///
    /// # Errors
    /// A class that means all other characters, or an escape that is not supported in brackets.
    fn point(&mut self, c: char, inside: &mut String) -> Result<Option<char>, String> {
        if c != '\\' {
            return Ok(Some(c));
        }
        let Some(c) = self.rest.next() else {
            return Err("invalid escape \\ sequence".to_owned());
        };
        match (class(c), control(c)) {
            (Some((class, false)), _) => {
                inside.push_str(class);
                Ok(None)
            }
            (None, Some(control)) => Ok(Some(control)),
            (None, None) if !c.is_ascii_alphanumeric() => Ok(Some(c)),
            _ => Err(format!("the escape `\\{c}` in brackets is not supported")),
        }
    }

    /// A class by name, as in `[:digit:]`.
    ///
    /// # Errors
    /// The class is not known, or ignores case and is `upper` or `lower`. Collating elements
    /// (`[.x.]`) and equivalence classes (`[=x=]`) are not known.
    fn named(&mut self) -> Result<&'static str, String> {
        let mut name = String::new();
        for c in self.rest.by_ref() {
            name.push(c);
            if name.len() > 2 && name.ends_with(":]") {
                break;
            }
        }
        let fold = self.fold;
        Ok(match name.as_str() {
            ":digit:]" => "0-9",
            ":xdigit:]" => "0-9A-Fa-f",
            ":alpha:]" => r"\p{Alphabetic}",
            ":upper:]" if !fold => r"\p{Uppercase}\p{Lt}",
            ":lower:]" if !fold => r"\p{Lowercase}\p{Lt}",
            ":alnum:]" => ALPHA,
            ":space:]" => SPACES,
            _ => return Err(format!("the class [[{name}] is not supported")),
        })
    }
}

/// The members of a class escape, and whether it means all other characters.
fn class(c: char) -> Option<(&'static str, bool)> {
    Some(match c {
        'd' => ("0-9", false),
        'D' => ("0-9", true),
        's' => (SPACES, false),
        'S' => (SPACES, true),
        'w' => (WORD, false),
        'W' => (WORD, true),
        _ => return None,
    })
}

/// The control character of an escape.
fn control(c: char) -> Option<char> {
    Some(match c {
        'a' => '\x07',
        'f' => '\x0c',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\x0b',
        _ => return None,
    })
}

/// Whether a text contains a match.
fn matches(text: &str, pattern: &str, fold: bool) -> Result<bool, String> {
    Ok(compiled(pattern, fold)?.regex.is_match(text))
}

/// The flags of a function: whether to ignore case, and whether to replace all matches.
///
/// `s` and `t` are PostgreSQL's defaults: the pattern is not sensitive to line breaks, and its
/// syntax is the tight one.
///
/// # Errors
/// Any other flag, such as `n`, `x` or `q`.
fn flags(flags: &str) -> Result<(bool, bool), String> {
    let (mut fold, mut all) = (false, false);
    for flag in flags.chars() {
        match flag {
            'i' => fold = true,
            'c' => fold = false,
            'g' => all = true,
            's' | 't' => {}
            other => {
                return Err(format!(
                    "the flag \"{other}\" of regular expressions is not known"
                ));
            }
        }
    }
    Ok((fold, all))
}

/// `substring(text, pattern)` (`textregexsubstr`): the first group of the first match, or the match
/// if the pattern has no groups. Null if there is no match, or the group is in none.
///
/// # Errors
/// The pattern is not valid or not supported, is not greedy, or its groups could differ from
/// PostgreSQL's.
fn part(text: &str, pattern: &str) -> Answer {
    let compiled = compiled(pattern, false)?;
    let groups = compiled.regex.captures_len() > 1;
    if compiled.shape.lazy {
        return Err(LAZY.to_owned());
    }
    if groups && (compiled.shape.alternation || compiled.shape.repeated_group) {
        return Err("a group to take out is not supported with | or repeated groups".to_owned());
    }
    let Some((start, end)) = compiled.find(text, 0)? else {
        return Ok(Datum::Null);
    };
    if !groups {
        return Ok(Datum::text(text.get(start..end).unwrap_or_default()));
    }
    let parts = compiled.regex.captures(text);
    let whole = parts.as_ref().and_then(|parts| parts.get(0));
    if whole.map(|whole| whole.end()) != Some(end) {
        return Err(GROUPS.to_owned());
    }
    let first = parts.as_ref().and_then(|parts| parts.get(1));
    Ok(first.map_or(Datum::Null, |first| Datum::text(first.as_str())))
}

/// The refusal of quantifiers that are not greedy.
const LAZY: &str = "a pattern that is not greedy is not supported where its extent counts";

/// The refusal of a match whose groups may be others in PostgreSQL.
const GROUPS: &str = "the groups of this match are not those of PostgreSQL";

/// `regexp_replace` (`replace_text_regexp`).
///
/// # Errors
/// The pattern is not valid or not supported, is not greedy, or its groups are used and could
/// differ from PostgreSQL's.
///
/// `with` is the replacement, and the last parameter says whether case is ignored and whether all
/// matches are replaced. After an empty match the search goes on one character later.
fn replace(text: &str, pattern: &str, with: &str, (fold, all): (bool, bool)) -> Answer {
    let compiled = compiled(pattern, fold)?;
    let Shape {
        lazy,
        alternation,
        repeated_group,
    } = compiled.shape;
    if lazy {
        return Err(LAZY.to_owned());
    }
    let numbered = |pair: &[u8]| matches!(pair, [b'\\', b'1'..=b'9']);
    let groups = with.as_bytes().windows(2).any(numbered);
    if groups && (alternation || repeated_group) {
        return Err("\\1 and its like are not supported with | or repeated groups".to_owned());
    }
    let mut result = String::new();
    let (mut from, mut copied) = (0, 0);
    while from <= text.len() {
        let Some((start, end)) = compiled.find(text, from)? else {
            break;
        };
        result.push_str(text.get(copied..start).unwrap_or_default());
        let parts = compiled.regex.captures_at(text, from);
        let extent = parts
            .as_ref()
            .and_then(|parts| parts.get(0))
            .map(|whole| whole.end());
        if groups && extent != Some(end) {
            return Err(GROUPS.to_owned());
        }
        replacement(
            with,
            text.get(start..end).unwrap_or_default(),
            parts.as_ref(),
            &mut result,
        );
        (from, copied) = (end, end);
        if start == end {
            let next = text.get(end..).and_then(|rest| rest.chars().next());
            from += next.map_or(1, char::len_utf8);
        }
        if !all {
            break;
        }
    }
    result.push_str(text.get(copied..).unwrap_or_default());
    Ok(Datum::text(result))
}

/// Appends the replacement of one match (`appendStringInfoRegexpSubstr`): `\1` to `\9` are groups,
/// `\&` is the match.
fn replacement(with: &str, whole: &str, parts: Option<&regex::Captures<'_>>, to: &mut String) {
    let mut chars = with.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, chars.peek().copied()) {
            ('\\', Some(digit @ '1'..='9')) => {
                chars.next();
                let index = digit
                    .to_digit(10)
                    .and_then(|digit| usize::try_from(digit).ok());
                let part = parts.zip(index).and_then(|(parts, index)| parts.get(index));
                to.push_str(part.map_or("", |part| part.as_str()));
            }
            ('\\', Some('&')) => {
                chars.next();
                to.push_str(whole);
            }
            ('\\', Some('\\')) => {
                chars.next();
                to.push('\\');
            }
            (c, _) => to.push(c),
        }
    }
}

/// The regular expression of a SIMILAR TO pattern (`similar_escape`).
///
/// `%` becomes `.*`, `_` becomes `.`, and groups do not capture. The whole text must match, so the
/// result is anchored on both sides.
///
/// # Errors
/// The escape has more than one character, or is followed by a quote (the separators of SQL's
/// `substring`).
fn similar(pattern: &str, escape: &str) -> Result<String, String> {
    let mut escapes = escape.chars();
    let escape = escapes.next();
    if escapes.next().is_some() {
        return Err("invalid escape string: it must be empty or one character".to_owned());
    }
    let mut to = "^(?:".to_owned();
    let mut inside = false;
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        match c {
            c if Some(c) == escape => match chars.next() {
                Some('"') => return Err("separators in SIMILAR TO are not supported".to_owned()),
                Some(c) if c.is_alphanumeric() => to.push(c),
                Some(c) => to.extend(['\\', c]),
                None => to.push('\\'),
            },
            c if inside => {
                if c == '\\' {
                    to.push('\\');
                }
                inside = c != ']';
                to.push(c);
            }
            '[' => {
                inside = true;
                to.push('[');
            }
            '%' => to.push_str(".*"),
            '_' => to.push('.'),
            '(' => to.push_str("(?:"),
            '\\' | '.' | '^' | '$' => to.extend(['\\', c]),
            c => to.push(c),
        }
    }
    Ok(to + ")$")
}

/// The entry of `SIMILAR TO`: text, pattern, escape.
pub(crate) const SIMILAR: &str = "SIMILAR TO";

/// All entries of this family.
#[expect(clippy::too_many_lines, reason = "a list of entries, and no steps")]
pub(crate) fn entries() -> Vec<Entry> {
    use Datum::{Bool, Text};
    const T: Kind = Kind::Text;
    const B: Kind = Kind::Bool;
    let entries = vec![
        rows(
            "~",
            &[T, T],
            B,
            body!([Text(t), Text(p)] => matches(t, p, false).map(Bool)),
        ),
        rows(
            "~*",
            &[T, T],
            B,
            body!([Text(t), Text(p)] => matches(t, p, true).map(Bool)),
        ),
        rows(
            "!~",
            &[T, T],
            B,
            body!([Text(t), Text(p)] => {
                matches(t, p, false).map(|found| Bool(!found))
            }),
        ),
        rows(
            "!~*",
            &[T, T],
            B,
            body!([Text(t), Text(p)] => {
                matches(t, p, true).map(|found| Bool(!found))
            }),
        ),
        rows(
            "regexp_like",
            &[T, T],
            B,
            body!([Text(t), Text(p)] => matches(t, p, false).map(Bool)),
        ),
        rows(
            "regexp_like",
            &[T, T, T],
            B,
            body!([Text(t), Text(p), Text(f)] => {
                match flags(f)? {
                    (_, true) => {
                        let what = "regexp_like() does not support the \"global\" option";
                        Err(what.to_owned())
                    }
                    (fold, false) => matches(t, p, fold).map(Bool),
                }
            }),
        ),
        rows(
            "substring",
            &[T, T],
            T,
            body!([Text(t), Text(p)] => part(t, p)),
        ),
        rows(
            "regexp_replace",
            &[T, T, T],
            T,
            body!([Text(t), Text(p), Text(with)] => {
                replace(t, p, with, (false, false))
            }),
        ),
        rows(
            "regexp_replace",
            &[T, T, T, T],
            T,
            body!([Text(t), Text(p), Text(with), Text(f)] => {
                replace(t, p, with, flags(f)?)
            }),
        ),
        rows(
            SIMILAR,
            &[T, T, T],
            B,
            body!([Text(t), Text(p), Text(e)] => {
                matches(t, &similar(p, e)?, false).map(Bool)
            }),
        ),
    ];
    let entries = entries.into_iter().map(Entry::narrower);
    entries.map(Entry::tried).collect()
}
