//! `to_char` of numbers, by PostgreSQL's template patterns. Source: its `formatting.c`
//! (`NUM_processor`).
//!
//! | pattern | writes |
//! |---|---|
//! | `9`, `0` | a digit; `0` also before the number and at its end |
//! | `.`, `D` | the point |
//! | `,`, `G` | a comma, once a digit is written |
//! | `S` at the beginning or end, `MI` | the sign |
//! | `FM` at the beginning | no blanks, and no zeros that only `9` asks for |
//! | `"…"`, other characters but letters | themselves |
//!
//! A number that has more digits before the point than the template becomes `#`. Other patterns
//! (`PR`, `PL`, `SG`, `L`, `V`, `TH`, `RN`, `EEEE`) fail.

use crate::entry::{Answer, Body, Entry, Gives, Kind, body, rows};
use crate::value::datum::Datum;
use crate::value::decimal::Num;

/// A part of a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// A digit; true for `0`.
    Digit(bool),
    /// The point.
    Point,
    /// A comma.
    Comma,
    /// `MI`.
    Minus,
    /// `S`.
    Sign,
    /// Another character.
    Other(char),
}

/// A template.
struct Template {
    /// The parts in order.
    parts: Vec<Part>,
    /// Whether it begins with `FM`.
    fill: bool,
    /// Digits before the point.
    before: usize,
    /// Digits after the point.
    after: usize,
    /// Which of the digits before the point is the first `0`.
    zeros_from: Option<usize>,
    /// Digits up to the last `0`.
    zeros_to: usize,
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// It has a pattern that is not supported here, or is none for PostgreSQL.
    fn read(text: &str) -> Result<Self, String> {
        let (fill, rest) = match text.strip_prefix("FM") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let mut template = Self {
            parts: parts(rest)?,
            fill,
            before: 0,
            after: 0,
            zeros_from: None,
            zeros_to: 0,
        };
        let mut pointed = false;
        for part in &template.parts {
            match part {
                Part::Digit(zero) => {
                    if *zero && !pointed && template.zeros_from.is_none() {
                        template.zeros_from = Some(template.before);
                    }
                    match pointed {
                        true => template.after += 1,
                        false => template.before += 1,
                    }
                    if *zero {
                        template.zeros_to = template.before + template.after;
                    }
                }
                Part::Point if pointed => return Err("multiple decimal points".to_owned()),
                Part::Point => pointed = true,
                _ => {}
            }
        }
        let signs = |part: &&Part| matches!(part, Part::Sign | Part::Minus);
        if template.parts.iter().filter(signs).count() > 1 {
            return Err("a template has one S or MI".to_owned());
        }
        let inner = template.parts.iter().skip(1).rev().skip(1);
        let inner_sign = inner.clone().any(|part| *part == Part::Sign);
        if template.before == 0 || (pointed && template.after == 0) || inner_sign {
            return Err(format!("the template '{text}' is not supported in views"));
        }
        Ok(template)
    }
}

/// The parts of a template behind `FM`.
fn parts(text: &str) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let (part, length) = match c {
            '9' => (Part::Digit(false), 1),
            '0' => (Part::Digit(true), 1),
            '.' | 'D' => (Part::Point, 1),
            ',' | 'G' => (Part::Comma, 1),
            'M' if rest.starts_with("MI") => (Part::Minus, 2),
            'S' if !rest.starts_with("SG") => (Part::Sign, 1),
            '"' => {
                let quoted = rest.get(1..).unwrap_or_default();
                let end = quoted.find('"').ok_or("a quote without an end")?;
                let inner = quoted.get(..end).unwrap_or_default();
                if inner.contains('\\') {
                    return Err("a backslash in a template is not supported in views".to_owned());
                }
                parts.extend(inner.chars().map(Part::Other));
                rest = quoted.get(end + 1..).unwrap_or_default();
                continue;
            }
            c if c.is_alphabetic() || c == '\\' => {
                return Err(format!(
                    "'{c}' in the template '{text}' is not supported in views"
                ));
            }
            c => (Part::Other(c), c.len_utf8()),
        };
        parts.push(part);
        rest = rest.get(length..).unwrap_or_default();
    }
    Ok(parts)
}

/// A number that is being written.
struct Writing<'a> {
    /// The template.
    template: &'a Template,
    /// The digits of the number without sign, with a point if the template has one.
    number: Vec<char>,
    /// Whether the number is negative.
    negative: bool,
    /// Digits of the template before the number.
    blanks: usize,
    /// With `FM`: the last character of the number that counts, where it has a point.
    last: Option<usize>,
    /// Whether the sign is written, or stands elsewhere.
    signed: bool,
    /// The place in the template's digits and point.
    at: usize,
    /// The place in the number.
    next: usize,
    /// Whether the last place had a digit.
    inside: bool,
    /// The text so far.
    text: String,
}

impl<'a> Writing<'a> {
    /// A number before its first character.
    fn new(template: &'a Template, value: Num) -> Result<Self, String> {
        let scale = i32::try_from(template.after).unwrap_or(i32::MAX);
        let written = value.rounded(scale)?.text();
        let unsigned = written.trim_start_matches('-');
        let whole = unsigned.find('.').unwrap_or(unsigned.len());
        let mut number: Vec<char> = unsigned.chars().collect();
        if whole > template.before {
            let hash = |place: usize| if place == template.before { '.' } else { '#' };
            let after = if template.after > 0 {
                template.after + 1
            } else {
                0
            };
            number = (0..template.before + after).map(hash).collect();
        }
        let blanks = template.before.saturating_sub(whole);
        let point = number.iter().position(|c| *c == '.');
        let last = point.filter(|_| template.fill).map(|point| {
            let counts = number.iter().rposition(|c| *c != '0').unwrap_or(point);
            let asked = template
                .zeros_to
                .saturating_sub(blanks)
                .min(number.len() - 1);
            counts.max(point).max(asked)
        });
        let has = |part: Part| template.parts.contains(&part);
        let floating = !has(Part::Minus) && template.parts.last() != Some(&Part::Sign);
        Ok(Self {
            template,
            number,
            negative: written.starts_with('-'),
            blanks,
            last,
            signed: !floating,
            at: 0,
            next: 0,
            inside: false,
            text: String::new(),
        })
    }

    /// Whether the next character is the zero before a point that the template leaves blank.
    fn is_blank_zero(&self) -> bool {
        let template = self.template;
        let zero = self.number.first() == Some(&'0') && self.next == 0;
        zero && template.zeros_from.is_none() && template.after > 0
    }

    /// Whether nothing after the point counts.
    fn ends_at_point(&self) -> bool {
        let last = self.last.and_then(|last| self.number.get(last));
        last == Some(&'.')
    }

    /// Writes the sign before the first digit.
    fn sign(&mut self) {
        let starts = self.at >= self.blanks || self.template.zeros_from == Some(self.at);
        if self.signed || !starts || (self.is_blank_zero() && !self.ends_at_point()) {
            return;
        }
        self.signed = true;
        let always = self.template.parts.first() == Some(&Part::Sign);
        match (self.negative, always) {
            (true, _) => self.text.push('-'),
            (false, true) => self.text.push('+'),
            (false, false) if !self.template.fill => self.text.push(' '),
            _ => {}
        }
    }

    /// Writes a digit or the point.
    fn place(&mut self, zero: bool) {
        self.sign();
        self.inside = false;
        let filled = self.template.zeros_from.is_some_and(|from| from <= self.at);
        if self.at < self.blanks {
            if filled {
                self.text.push('0');
                self.inside = true;
            } else if !self.template.fill {
                self.text.push(' ');
            }
        } else if let Some(&c) = self.number.get(self.next) {
            let dropped = self.last.is_some_and(|last| self.next > last) && !zero;
            if c == '.' {
                self.text.push('.');
            } else if dropped {
                // A zero that only a 9 asks for.
            } else if self.is_blank_zero() {
                if !self.template.fill {
                    self.text.push(' ');
                } else if self.ends_at_point() {
                    self.text.push('0');
                }
            } else {
                self.text.push(c);
                self.inside = true;
            }
            self.next += 1;
        }
        self.at += 1;
    }

    /// Writes a part of the template.
    fn part(&mut self, part: Part) {
        let blank = if self.template.fill { "" } else { " " };
        match part {
            Part::Digit(zero) => self.place(zero),
            Part::Point => self.place(false),
            Part::Comma if self.inside => self.text.push(','),
            Part::Comma => self.text.push_str(blank),
            Part::Minus if self.negative => self.text.push('-'),
            Part::Minus => self.text.push_str(blank),
            Part::Sign if self.at == 0 => {}
            Part::Sign => self.text.push(if self.negative { '-' } else { '+' }),
            Part::Other(c) => self.text.push(c),
        }
    }
}

/// `to_char` of a number.
fn to_char(value: Num, template: &str) -> Answer {
    let template = Template::read(template)?;
    let mut writing = Writing::new(&template, value)?;
    for part in &template.parts {
        writing.part(*part);
    }
    Ok(Datum::text(writing.text))
}

/// All entries of this family. Of floating point numbers it is refused by name.
pub(crate) fn entries() -> Vec<Entry> {
    use Datum::{Int, Long, Numeric, Text};
    const X: Kind = Kind::Text;
    let why = "to_char of a floating point number is not supported in views yet: cast it to a \
               numeric";
    let refused = |takes| Entry::new("to_char", takes, Gives::Kind(X), Body::Refused(why));
    let numbers = vec![
        rows(
            "to_char",
            &[Kind::Int, X],
            X,
            body!([Int(value), Text(form)] => to_char(Num::new(i128::from(*value), 0), form)),
        ),
        rows(
            "to_char",
            &[Kind::Long, X],
            X,
            body!([Long(value), Text(form)] => to_char(Num::new(i128::from(*value), 0), form)),
        ),
        rows(
            "to_char",
            &[Kind::Numeric, X],
            X,
            body!([Numeric(value), Text(form)] => to_char(*value, form)),
        ),
    ];
    let marked = numbers.into_iter().map(|entry| entry.tried().narrower());
    let mut entries: Vec<Entry> = marked.collect();
    entries.push(refused(&[Kind::Real, X]));
    entries.push(refused(&[Kind::Double, X]));
    entries
}
