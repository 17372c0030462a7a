//! Functions of text: length, case, substrings, padding, replacement, concatenation.
//!
//! Source: PostgreSQL's `varlena.c`, `oracle_compat.c` and `formatting.c`. Lengths and positions
//! are in characters. Letters change case one by one, as in the locale C.UTF-8.
//!
//! | functions | PostgreSQL's source |
//! |---|---|
//! | `length`, `char_length`, `octet_length`, `bit_length`, `strpos`, `position` | `varlena.c` |
//! | `substr`, `substring`, `overlay`, `left`, `right`, `split_part`, `starts_with` | `varlena.c` |
//! | `replace`, `reverse`, `concat`, `concat_ws`, `to_hex`, `\|\|` | `varlena.c` |
//! | `lpad`, `rpad`, `trim`, `btrim`, `ltrim`, `rtrim` | `oracle_compat.c` |
//! | `translate`, `repeat`, `ascii`, `chr` | `oracle_compat.c` |
//! | `upper`, `lower`, `initcap` | `formatting.c` |
//! | `md5`, `sha224`, `sha256`, `sha384`, `sha512` | `cryptohashfuncs.c` |
//! | `encode`, `decode` | `encode.c`, of which only `hex` is known |
//!
//! A function fails its row if PostgreSQL does, or if its result is longer than [`TEXT_BYTES_MAX`].

use std::borrow::Cow;

use md5::Md5;
use sha2::{Digest, Sha224, Sha256, Sha384, Sha512};

use super::format;
use crate::entry::{Answer, Body, Entry, Gives, Kind, body, rows};
use crate::numeric::parse;
use crate::value::datum::Datum;

/// Most bytes of a text that a function makes. PostgreSQL's limit is `MaxAllocSize` (1 GiB); a view
/// cannot hold values of that size.
const TEXT_BYTES_MAX: usize = 64 << 20;

/// Short for the list of entries.
const T: Kind = Kind::Text;
/// Short for the list of entries.
const I: Kind = Kind::Int;

/// A text result.
fn text(text: impl Into<String>) -> Answer {
    Ok(Datum::text(text))
}

/// The digest of bytes.
fn digest<D: Digest>(bytes: &[u8]) -> Vec<u8> {
    D::digest(bytes).to_vec()
}

/// The digest of bytes, as bytes.
fn hashed<D: Digest>(bytes: &[u8]) -> Datum<'static> {
    Datum::Bytes(digest::<D>(bytes).into())
}

/// One character in upper case, as C's `towupper`.
///
/// The result is always one character: `ß`, whose capital is `SS`, stays as it is. Rust's
/// `str::to_uppercase` would return two characters.
pub(crate) fn upper(c: char) -> char {
    let mut upper = c.to_uppercase();
    match (upper.next(), upper.next()) {
        (Some(upper), None) => upper,
        // Greek letters with iota subscript have a capital of one character, and one of two
        // characters.
        _ => match u32::from(c) {
            0x1f80..=0x1f87 | 0x1f90..=0x1f97 | 0x1fa0..=0x1fa7 => {
                char::from_u32(u32::from(c) + 8).unwrap_or(c)
            }
            0x1fb3 | 0x1fc3 | 0x1ff3 => char::from_u32(u32::from(c) + 9).unwrap_or(c),
            _ => c,
        },
    }
}

/// One character in lower case, as C's `towlower`.
///
/// `İ` (U+0130) has a lower case of two characters, of which C takes the first.
pub(crate) fn lower(c: char) -> char {
    let mut lower = c.to_lowercase();
    match (lower.next(), lower.next()) {
        (Some(lower), None) => lower,
        (Some(first), Some(_)) => first,
        _ => c,
    }
}

/// `initcap`: the first letter of each word in upper case, the others in lower case.
fn initcap(value: &str) -> String {
    let mut inside = false;
    let mut next = |c: char| {
        let changed = if inside { lower(c) } else { upper(c) };
        inside = c.is_alphanumeric();
        changed
    };
    value.chars().map(&mut next).collect()
}

/// `trim`, `btrim`, `ltrim`, `rtrim`: removes the characters of `what` from the ends.
fn trimmed<'a>(value: &'a str, what: &str, start: bool, end: bool) -> &'a str {
    let among = |c: char| what.contains(c);
    let value = if start {
        value.trim_start_matches(among)
    } else {
        value
    };
    if end {
        value.trim_end_matches(among)
    } else {
        value
    }
}

/// `substring` (`text_substring`): positions are counted from 1, and may be before the start.
///
/// `length` counts from `from`, also if `from` is before the start: `substring('abc', -1, 3)` is
/// `a`.
///
/// # Errors
/// `length` is negative.
fn substring(value: &str, from: i32, length: Option<i32>) -> Answer {
    let from = i64::from(from);
    let end = match length {
        Some(length) if length < 0 => {
            return Err("negative substring length not allowed".to_owned());
        }
        Some(length) => from + i64::from(length),
        None => i64::MAX,
    };
    let skip = usize::try_from(from.max(1) - 1).unwrap_or(usize::MAX);
    let take = usize::try_from(end - from.max(1)).unwrap_or(0);
    text(value.chars().skip(skip).take(take).collect::<String>())
}

/// `left`. If `count` is negative, all characters except the last `-count`.
fn left(value: &str, count: i32) -> Answer {
    let take = match usize::try_from(count) {
        Ok(count) => count,
        Err(_) => kept(value, count),
    };
    text(value.chars().take(take).collect::<String>())
}

/// `right`. If `count` is negative, all characters except the first `-count`. The least integer
/// leaves out none, as in PostgreSQL, where its negation overflows.
fn right(value: &str, count: i32) -> Answer {
    if count == i32::MIN {
        return text(value);
    }
    let take = match usize::try_from(count) {
        Ok(count) => count,
        Err(_) => kept(value, count),
    };
    let length = value.chars().count();
    text(
        value
            .chars()
            .skip(length.saturating_sub(take))
            .collect::<String>(),
    )
}

/// The number of characters that remain if `-count` are left out.
fn kept(value: &str, count: i32) -> usize {
    let out = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX);
    value.chars().count().saturating_sub(out)
}

/// Fails if a text would be longer than [`TEXT_BYTES_MAX`].
///
/// `bytes` is an upper bound of the length in UTF-8.
fn sized(bytes: usize) -> Result<(), String> {
    match bytes > TEXT_BYTES_MAX {
        true => Err(format!("the text is longer than {TEXT_BYTES_MAX} bytes")),
        false => Ok(()),
    }
}

/// `lpad` (`before`) and `rpad`: a text of exactly `length` characters.
///
/// A text that is too long is cut, and an empty `with` pads nothing. A negative length counts as 0.
fn padded(value: &str, length: i32, with: &str, before: bool) -> Answer {
    let wanted = usize::try_from(length).unwrap_or(0);
    let length = value.chars().count();
    if length >= wanted || with.is_empty() {
        return text(value.chars().take(wanted).collect::<String>());
    }
    sized(wanted.saturating_mul(4))?;
    let padding: String = with.chars().cycle().take(wanted - length).collect();
    text(if before {
        padding + value
    } else {
        value.to_owned() + &padding
    })
}

/// `repeat`.
///
/// A negative number of times counts as 0.
fn repeated(value: &str, times: i32) -> Answer {
    let times = usize::try_from(times).unwrap_or(0);
    sized(value.len().saturating_mul(times))?;
    text(value.repeat(times))
}

/// `replace`. An empty `from` changes nothing.
fn replaced(value: &str, from: &str, to: &str) -> Answer {
    if from.is_empty() {
        return text(value);
    }
    text(value.replace(from, to))
}

/// `split_part`. A negative field counts from the end.
///
/// An empty separator does not occur, so the whole text is the only field.
///
/// # Errors
/// The field is 0.
fn split_part(value: &str, by: &str, field: i32) -> Answer {
    if field == 0 {
        return Err("field position must not be zero".to_owned());
    }
    if by.is_empty() {
        return text(if matches!(field, 1 | -1) { value } else { "" });
    }
    let nth = usize::try_from(field.unsigned_abs()).unwrap_or(usize::MAX) - 1;
    let part = match field > 0 {
        true => value.split(by).nth(nth),
        // Parts are found from the start also when they are counted from the end, because
        // separators may overlap.
        false => {
            let parts: Vec<&str> = value.split(by).collect();
            parts
                .len()
                .checked_sub(nth + 1)
                .and_then(|at| parts.get(at).copied())
        }
    };
    text(part.unwrap_or_default())
}

/// `strpos`: the position of the first occurrence, counted from 1; 0 if there is none.
fn position(value: &str, what: &str) -> Answer {
    let found = value.find(what);
    let before = found
        .and_then(|at| value.get(..at))
        .map(|before| before.chars().count());
    Ok(Datum::Int(before.map_or(0, |before| {
        i32::try_from(before + 1).unwrap_or(0)
    })))
}

/// `overlay` (`text_overlay`): replaces `length` characters from position `from`.
///
/// `length` may be negative or exceed the text: `overlay('abc' PLACING 'x' FROM 2 FOR 0)` inserts.
///
/// # Errors
/// `from` is not positive, or `from + length` does not fit an int.
fn overlay(value: &str, with: &str, from: i32, length: i32) -> Answer {
    if from <= 0 {
        return Err("negative substring length not allowed".to_owned());
    }
    let after = from.checked_add(length).ok_or("integer out of range")?;
    let mut result: String = value
        .chars()
        .take(usize::try_from(from - 1).unwrap_or(0))
        .collect();
    result.push_str(with);
    let skip = usize::try_from(after.max(1) - 1).unwrap_or(0);
    result.extend(value.chars().skip(skip));
    text(result)
}

/// `translate`: replaces characters one by one; those without a partner are removed.
///
/// If a character occurs twice in `from`, its first place counts.
fn translate(value: &str, from: &str, to: &str) -> Answer {
    let from: Vec<char> = from.chars().collect();
    let to: Vec<char> = to.chars().collect();
    let each = |c: char| match from.iter().position(|other| *other == c) {
        Some(at) => to.get(at).copied(),
        None => Some(c),
    };
    text(value.chars().filter_map(each).collect::<String>())
}

/// `chr`: the character of a Unicode code point.
///
/// # Errors
/// The code is 0, negative, a surrogate, or greater than U+10FFFF.
fn chr(code: i32) -> Answer {
    match u32::try_from(code) {
        Err(_) => Err("character number must be positive".to_owned()),
        Ok(0) => Err("null character not permitted".to_owned()),
        Ok(code) => match char::from_u32(code) {
            Some(c) => text(c.to_string()),
            None => Err(format!(
                "requested character not valid for encoding: {code}"
            )),
        },
    }
}

/// A count as an integer.
fn count(count: usize) -> Answer {
    i32::try_from(count)
        .map(Datum::Int)
        .map_err(|_| "integer out of range".to_owned())
}

/// Joins the texts that are not null.
///
/// The values are texts or null, because the typing pass converts each argument of `concat` and
/// `concat_ws` to text.
fn joined(values: &[Datum<'_>], by: &str) -> Answer {
    let texts = values.iter().filter_map(|value| match value {
        Datum::Text(text) => Some(text.as_ref()),
        _ => None,
    });
    text(texts.collect::<Vec<_>>().join(by))
}

/// Lengths and positions.
///
/// `ascii` gives the Unicode code point of the first character, and 0 for an empty text.
fn lengths() -> Vec<Entry> {
    use Datum::{Bytes, Int, Text};
    let mut entries = vec![
        rows(
            "length",
            &[Kind::Bytes],
            I,
            body!([Bytes(b)] => count(b.len())),
        ),
        rows("octet_length", &[T], I, body!([Text(t)] => count(t.len()))),
        rows(
            "octet_length",
            &[Kind::Bytes],
            I,
            body!([Bytes(b)] => count(b.len())),
        ),
        rows(
            "bit_length",
            &[T],
            I,
            body!([Text(t)] => count(t.len() * 8)),
        ),
        rows(
            "bit_length",
            &[Kind::Bytes],
            I,
            body!([Bytes(b)] => count(b.len() * 8)),
        ),
        rows(
            "ascii",
            &[T],
            I,
            body!([Text(t)] => {
                Ok(Int(t.chars().next().map_or(0, |c| u32::from(c).cast_signed())))
            }),
        ),
        rows(
            "strpos",
            &[T, T],
            I,
            body!([Text(t), Text(what)] => position(t, what)),
        ),
        rows(
            "position",
            &[T, T],
            I,
            body!([Text(t), Text(what)] => position(t, what)),
        ),
    ];
    for name in ["length", "char_length", "character_length"] {
        entries.push(rows(
            name,
            &[T],
            I,
            body!([Text(t)] => count(t.chars().count())),
        ));
    }
    entries
}

/// Functions that change a text.
///
/// `to_hex` writes a negative number as its two's complement, as PostgreSQL does.
#[expect(clippy::too_many_lines, reason = "a list of entries, and no steps")]
fn changes() -> Vec<Entry> {
    use Datum::{Int, Long, Text};
    vec![
        rows(
            "upper",
            &[T],
            T,
            body!([Text(t)] => text(t.chars().map(upper).collect::<String>())),
        ),
        rows(
            "lower",
            &[T],
            T,
            body!([Text(t)] => text(t.chars().map(lower).collect::<String>())),
        ),
        rows("initcap", &[T], T, body!([Text(t)] => text(initcap(t)))),
        rows(
            "reverse",
            &[T],
            T,
            body!([Text(t)] => text(t.chars().rev().collect::<String>())),
        ),
        rows(
            "repeat",
            &[T, I],
            T,
            body!([Text(t), Int(n)] => repeated(t, *n)),
        ),
        rows(
            "replace",
            &[T, T, T],
            T,
            body!([Text(t), Text(a), Text(b)] => replaced(t, a, b)),
        ),
        rows(
            "translate",
            &[T, T, T],
            T,
            body!([Text(t), Text(a), Text(b)] => translate(t, a, b)),
        ),
        rows(
            "lpad",
            &[T, I],
            T,
            body!([Text(t), Int(n)] => padded(t, *n, " ", true)),
        ),
        rows(
            "rpad",
            &[T, I],
            T,
            body!([Text(t), Int(n)] => padded(t, *n, " ", false)),
        ),
        rows(
            "lpad",
            &[T, I, T],
            T,
            body!([Text(t), Int(n), Text(by)] => padded(t, *n, by, true)),
        ),
        rows(
            "rpad",
            &[T, I, T],
            T,
            body!([Text(t), Int(n), Text(by)] => padded(t, *n, by, false)),
        ),
        rows("chr", &[I], T, body!([Int(code)] => chr(*code))),
        rows("to_hex", &[I], T, body!([Int(n)] => text(format!("{n:x}")))),
        rows(
            "to_hex",
            &[Kind::Long],
            T,
            body!([Long(n)] => text(format!("{n:x}"))),
        ),
    ]
}

/// Functions that take parts of a text.
///
/// `substring(text, text)` takes a pattern ([`super::regex`]). `substring` of three texts takes a
/// pattern of SQL, which is refused.
#[expect(clippy::too_many_lines, reason = "a list of entries, and no steps")]
fn parts() -> Vec<Entry> {
    use Datum::{Bool, Int, Text};
    const FROM: &[Kind] = &[T, I];
    const PART: &[Kind] = &[T, I, I];
    let mut entries = vec![
        rows("left", FROM, T, body!([Text(t), Int(n)] => left(t, *n))),
        rows("right", FROM, T, body!([Text(t), Int(n)] => right(t, *n))),
        rows(
            "split_part",
            &[T, T, I],
            T,
            body!([Text(t), Text(by), Int(n)] => {
                split_part(t, by, *n)
            }),
        ),
        rows(
            "overlay",
            &[T, T, I],
            T,
            body!([Text(t), Text(with), Int(from)] => {
                overlay(t, with, *from, i32::try_from(with.chars().count()).unwrap_or(i32::MAX))
            }),
        ),
        rows(
            "overlay",
            &[T, T, I, I],
            T,
            body!([Text(t), Text(with), Int(from), Int(n)] => {
                overlay(t, with, *from, *n)
            }),
        ),
        rows(
            "starts_with",
            &[T, T],
            Kind::Bool,
            body!([Text(t), Text(what)] => {
                Ok(Bool(t.starts_with(what.as_ref())))
            }),
        ),
    ];
    let pattern = "PostgreSQL takes the text for a pattern of SQL: write substring(text FROM \
                   pattern) with a regular expression";
    entries.push(Entry::new(
        "substring",
        &[T, T, T],
        Gives::Kind(T),
        Body::Refused(pattern),
    ));
    for name in ["substr", "substring"] {
        entries.push(rows(
            name,
            FROM,
            T,
            body!([Text(t), Int(from)] => substring(t, *from, None)),
        ));
        entries.push(rows(
            name,
            PART,
            T,
            body!([Text(t), Int(from), Int(length)] => {
                substring(t, *from, Some(*length))
            }),
        ));
    }
    entries.extend([
        rows(
            "trim",
            &[T],
            T,
            body!([Text(t)] => text(trimmed(t, " ", true, true))),
        ),
        rows(
            "trim",
            &[T, T],
            T,
            body!([Text(t), Text(by)] => text(trimmed(t, by, true, true))),
        ),
        rows(
            "btrim",
            &[T],
            T,
            body!([Text(t)] => text(trimmed(t, " ", true, true))),
        ),
        rows(
            "ltrim",
            &[T],
            T,
            body!([Text(t)] => text(trimmed(t, " ", true, false))),
        ),
        rows(
            "rtrim",
            &[T],
            T,
            body!([Text(t)] => text(trimmed(t, " ", false, true))),
        ),
        rows(
            "btrim",
            &[T, T],
            T,
            body!([Text(t), Text(by)] => text(trimmed(t, by, true, true))),
        ),
        rows(
            "ltrim",
            &[T, T],
            T,
            body!([Text(t), Text(by)] => text(trimmed(t, by, true, false))),
        ),
        rows(
            "rtrim",
            &[T, T],
            T,
            body!([Text(t), Text(by)] => text(trimmed(t, by, false, true))),
        ),
    ]);
    entries
}

/// Digests of text and of bytes.
fn digests() -> Vec<Entry> {
    use Datum::{Bytes, Text};
    const B: Kind = Kind::Bytes;
    vec![
        rows(
            "md5",
            &[T],
            T,
            body!([Text(t)] => text(format::hex(&digest::<Md5>(t.as_bytes())))),
        ),
        rows(
            "md5",
            &[B],
            T,
            body!([Bytes(b)] => text(format::hex(&digest::<Md5>(b)))),
        ),
        rows(
            "sha224",
            &[B],
            B,
            body!([Bytes(b)] => Ok(hashed::<Sha224>(b))),
        ),
        rows(
            "sha256",
            &[B],
            B,
            body!([Bytes(b)] => Ok(hashed::<Sha256>(b))),
        ),
        rows(
            "sha384",
            &[B],
            B,
            body!([Bytes(b)] => Ok(hashed::<Sha384>(b))),
        ),
        rows(
            "sha512",
            &[B],
            B,
            body!([Bytes(b)] => Ok(hashed::<Sha512>(b))),
        ),
    ]
}

/// Concatenation, and bytes as text.
///
/// `encode` and `decode` know the format `hex` and fail for `base64` and `escape`.
fn joins() -> Vec<Entry> {
    use Datum::{Bytes, Text};
    const B: Kind = Kind::Bytes;
    vec![
        rows(
            "||",
            &[T, T],
            T,
            body!([Text(a), Text(b)] => text(format!("{a}{b}"))),
        ),
        rows(
            "||",
            &[B, B],
            B,
            body!([Bytes(a), Bytes(b)] => {
                Ok(Bytes(Cow::Owned([a.as_ref(), b.as_ref()].concat())))
            }),
        ),
        rows("concat", &[T], T, |values| joined(values, "")).with_more(),
        rows("concat_ws", &[T, T], T, |values| {
            match values.split_first() {
                Some((Text(by), values)) => joined(values, by),
                _ => Ok(Datum::Null),
            }
        })
        .with_more(),
        rows(
            "encode",
            &[B, T],
            T,
            body!([Bytes(bytes), Text(form)] => {
                match form.to_ascii_lowercase().as_str() {
                    "hex" => text(format::hex(bytes)),
                    _ => Err(format!("encoding \"{form}\" is not known here: there is hex")),
                }
            }),
        )
        .tried()
        .narrower(),
        rows(
            "decode",
            &[T, T],
            B,
            body!([Text(t), Text(form)] => {
                match form.to_ascii_lowercase().as_str() {
                    "hex" => parse::hex(t).map(|bytes| Bytes(Cow::Owned(bytes))),
                    _ => Err(format!("encoding \"{form}\" is not known here: there is hex")),
                }
            }),
        )
        .tried()
        .narrower(),
    ]
}

/// All entries of this family.
pub(crate) fn entries() -> Vec<Entry> {
    let mut entries = lengths();
    entries.extend(changes());
    entries.extend(parts());
    entries.extend(joins());
    entries.extend(digests());
    entries
}
