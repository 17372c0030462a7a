//! A strict JSON scanner that finds the fields of an object and builds nothing.
//!
//! Input: the bytes of a record. Output: the names and values of its fields, as slices of the
//! record.
//!
//! 1. The scanner accepts exactly the texts that `serde_json` accepts, nested at most [`DEPTH_MAX`]
//!    levels deep. (Like `serde_json` for values that it ignores, it does not check UTF-8; the
//!    users of a slice do.)
//! 2. Time is linear in the length of the record, and nothing is allocated.
//!
//! Most of a record is skipped, and skipping is most of the pipeline's work. This scanner needs
//! less than half the time that ignoring values through `serde` needs.

/// Most levels of nesting; a record with more is refused.
const DEPTH_MAX: usize = 128;

/// A JSON string, as it is written between its quotes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Written<'a> {
    /// The bytes between the quotes.
    pub(crate) bytes: &'a [u8],
    /// Whether the string contains a backslash.
    pub(crate) escaped: bool,
}

/// The rest of a record. Every method returns `None` for a text that is not JSON.
pub(crate) struct Scan<'a> {
    /// The text that is not read yet.
    rest: &'a [u8],
}

impl<'a> Scan<'a> {
    /// A scanner at the beginning of a text.
    pub(crate) fn new(text: &'a [u8]) -> Self {
        Self { rest: text }
    }

    /// Whether only white space is left.
    pub(crate) fn is_done(&mut self) -> bool {
        self.space();
        self.rest.is_empty()
    }

    /// Skips a null, if there is one.
    pub(crate) fn null(&mut self) -> bool {
        self.space();
        self.literal(b"null").is_some()
    }

    /// Visits the fields of an object. `each` must consume exactly the value of the field.
    #[inline]
    pub(crate) fn object(
        &mut self,
        mut each: impl FnMut(&mut Self, Written<'a>) -> Option<()>,
    ) -> Option<()> {
        self.space();
        self.expect(b'{')?;
        self.space();
        if self.eat(b'}') {
            return Some(());
        }
        loop {
            self.space();
            let name = self.string()?;
            self.space();
            self.expect(b':')?;
            each(self, name)?;
            self.space();
            match self.byte()? {
                b',' => {}
                b'}' => return Some(()),
                _ => return None,
            }
        }
    }

    /// Skips a value and returns its text.
    #[inline]
    pub(crate) fn value(&mut self) -> Option<&'a [u8]> {
        self.space();
        let from = self.rest;
        self.skip(DEPTH_MAX)?;
        from.get(..from.len() - self.rest.len())
    }

    /// Skips a value with at most `depth` more levels of nesting.
    #[inline]
    fn skip(&mut self, depth: usize) -> Option<()> {
        self.space();
        match self.rest.first()? {
            b'"' => self.string().map(drop),
            b'{' | b'[' => self.nested(depth.checked_sub(1)?),
            b't' => self.literal(b"true"),
            b'f' => self.literal(b"false"),
            b'n' => self.literal(b"null"),
            _ => self.number(),
        }
    }

    /// Skips an object or an array.
    fn nested(&mut self, depth: usize) -> Option<()> {
        if self.rest.first() == Some(&b'{') {
            return self.object(|scan, _| scan.skip(depth));
        }
        self.expect(b'[')?;
        self.space();
        if self.eat(b']') {
            return Some(());
        }
        loop {
            self.skip(depth)?;
            self.space();
            match self.byte()? {
                b',' => {}
                b']' => return Some(()),
                _ => return None,
            }
        }
    }

    /// Reads a string.
    #[inline]
    fn string(&mut self) -> Option<Written<'a>> {
        self.expect(b'"')?;
        let text = self.rest;
        let mut at = plain(text);
        let mut escaped = false;
        loop {
            match text.get(at)? {
                b'"' => {
                    let (bytes, rest) = text.split_at_checked(at)?;
                    self.rest = rest.get(1..)?;
                    return Some(Written { bytes, escaped });
                }
                b'\\' => {
                    escaped = true;
                    at += escape(text.get(at..)?)?;
                    at += plain(text.get(at..)?);
                }
                _ => return None,
            }
        }
    }

    /// Skips a number in JSON's grammar (RFC 8259).
    fn number(&mut self) -> Option<()> {
        self.eat(b'-');
        let starts_with_zero = self.rest.first() == Some(&b'0');
        match self.digits() {
            0 => return None,
            2.. if starts_with_zero => return None,
            _ => {}
        }
        if self.eat(b'.') && self.digits() == 0 {
            return None;
        }
        if self.eat(b'e') || self.eat(b'E') {
            let _signed = self.eat(b'+') || self.eat(b'-');
            if self.digits() == 0 {
                return None;
            }
        }
        Some(())
    }

    /// Skips digits and returns their number.
    fn digits(&mut self) -> usize {
        let digits = self.rest.iter().take_while(|byte| byte.is_ascii_digit());
        let count = digits.count();
        self.rest = self.rest.get(count..).unwrap_or_default();
        count
    }

    /// Skips a literal.
    fn literal(&mut self, text: &[u8]) -> Option<()> {
        self.rest = self.rest.strip_prefix(text)?;
        Some(())
    }

    /// Skips white space.
    #[inline]
    fn space(&mut self) {
        while let [b' ' | b'\n' | b'\r' | b'\t', rest @ ..] = self.rest {
            self.rest = rest;
        }
    }

    /// Takes the next byte.
    #[inline]
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    /// Skips a byte, if it is the next one.
    #[inline]
    fn eat(&mut self, byte: u8) -> bool {
        self.expect(byte).is_some()
    }

    /// Skips a byte, which must be the next one.
    #[inline]
    fn expect(&mut self, byte: u8) -> Option<()> {
        match self.rest {
            [first, rest @ ..] if *first == byte => {
                self.rest = rest;
                Some(())
            }
            _ => None,
        }
    }
}

/// The number of bytes before the first quote, backslash or control character; eight at a time.
#[inline]
fn plain(text: &[u8]) -> usize {
    const ONES: u64 = u64::MAX / 255;
    let mut rest = text;
    while let Some((eight, after)) = rest.split_first_chunk() {
        let bytes = u64::from_le_bytes(*eight);
        let quote = bytes ^ (ONES * u64::from(b'"'));
        let backslash = bytes ^ (ONES * u64::from(b'\\'));
        // Subtracting n makes a byte below n borrow into its highest bit. The borrow may reach
        // higher bytes, so only the first mark is certain.
        let marks = (bytes.wrapping_sub(ONES * 0x20) & !bytes)
            | (quote.wrapping_sub(ONES) & !quote)
            | (backslash.wrapping_sub(ONES) & !backslash);
        let marks = marks & (ONES * 0x80);
        if marks != 0 {
            return text.len() - rest.len() + marks.trailing_zeros() as usize / 8;
        }
        rest = after;
    }
    let mut last = rest.iter();
    let found = last.position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20));
    text.len() - rest.len() + found.unwrap_or(rest.len())
}

/// The length of the escape sequence at the beginning of a text.
fn escape(text: &[u8]) -> Option<usize> {
    match text.get(1)? {
        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(2),
        b'u' => {
            let digits = text.get(2..6)?;
            digits.iter().all(u8::is_ascii_hexdigit).then_some(6)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::de::IgnoredAny;

    use super::*;

    fn takes(text: &[u8]) -> bool {
        let mut scan = Scan::new(text);
        scan.value().is_some() && scan.is_done()
    }

    #[test]
    fn nesting_has_a_limit() {
        let nested = |depth: usize| [vec![b'['; depth], vec![b']'; depth]].concat();
        assert!(takes(&nested(DEPTH_MAX)));
        assert!(!takes(&nested(DEPTH_MAX + 1)));
        assert!(!takes(&vec![b'['; 1_000_000]));
    }

    #[test]
    fn fields_are_found_with_their_text() {
        let mut scan = Scan::new(b" { \"a\" : [1, {}] ,\"b\\n\":-1.5e+3}x");
        let mut found = Vec::new();
        scan.object(|scan, name| {
            found.push((name.bytes, name.escaped, scan.value()?));
            Some(())
        });
        let expected: [(&[u8], bool, &[u8]); 2] =
            [(b"a", false, b"[1, {}]"), (b"b\\n", true, b"-1.5e+3")];
        assert_eq!(found, expected);
        assert!(!scan.is_done());
    }

    proptest! {
        #[test]
        fn takes_what_serde_json_takes(
            text in prop_oneof![
                "[\\[\\]{}\",:0-2.eE+ -]{0,12}",
                "\\{\"[a-z\\\\u0-9\"\u{1f}\u{7f}é]{0,20}\":[truefalsn0-9.eE+-]{0,8}\\}",
                "-?[0-9]{0,3}[.]?[0-9]{0,3}[eE]?[+-]?[0-9]{0,3}",
            ],
        ) {
            let reference = serde_json::from_str::<IgnoredAny>(&text).is_ok();
            prop_assert_eq!(takes(text.as_bytes()), reference, "{}", text);
        }

        #[test]
        fn plain_stops_where_a_slow_search_does(
            text in prop::collection::vec(
                prop_oneof![0x1e_u8..0x24, 0x5a_u8..0x5f, any::<u8>()],
                0..40,
            )
        ) {
            let slow = text.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20));
            prop_assert_eq!(plain(&text), slow.unwrap_or(text.len()));
        }
    }
}
