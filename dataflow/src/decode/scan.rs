//! A strict scanner of JSON text: it finds the fields of an object and builds nothing.
//!
//! In: a record's bytes. Out: the names and values of its fields, as slices of the record.
//!
//! 1. It takes exactly the texts that `serde_json` takes, nested at most [`DEPTH_MAX`] deep.
//!    (Like `serde_json` for values that it ignores, it leaves UTF-8 to those who use a slice.)
//! 2. Time is linear in the record's length, and nothing is allocated.
//!
//! This is own code because most of a record is passed over, and that is most of the pipeline's
//! work: it takes less than half the time that ignoring values through `serde` takes.

/// Values nested deeper than this refuse a record.
const DEPTH_MAX: usize = 128;

/// A JSON string as it is written between its quotes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Written<'a> {
    pub(super) bytes: &'a [u8],
    /// Whether a backslash is in it.
    pub(super) escaped: bool,
}

/// What is left of a record. Every function answers none for what is not JSON.
pub(super) struct Scan<'a> {
    rest: &'a [u8],
}

impl<'a> Scan<'a> {
    pub(super) fn new(text: &'a [u8]) -> Self {
        Self { rest: text }
    }

    /// Whether nothing but space is left.
    pub(super) fn is_done(&mut self) -> bool {
        self.space();
        self.rest.is_empty()
    }

    /// Passes over a null, when there is one.
    pub(super) fn null(&mut self) -> bool {
        self.space();
        self.literal(b"null").is_some()
    }

    /// Walks the fields of an object; `each` must pass over exactly the field's value.
    #[inline]
    pub(super) fn object(
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

    /// Passes over a value, and answers its text.
    #[inline]
    pub(super) fn value(&mut self) -> Option<&'a [u8]> {
        self.space();
        let from = self.rest;
        self.skip(DEPTH_MAX)?;
        from.get(..from.len() - self.rest.len())
    }

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

    fn digits(&mut self) -> usize {
        let digits = self.rest.iter().take_while(|byte| byte.is_ascii_digit());
        let count = digits.count();
        self.rest = self.rest.get(count..).unwrap_or_default();
        count
    }

    fn literal(&mut self, text: &[u8]) -> Option<()> {
        self.rest = self.rest.strip_prefix(text)?;
        Some(())
    }

    #[inline]
    fn space(&mut self) {
        while let [b' ' | b'\n' | b'\r' | b'\t', rest @ ..] = self.rest {
            self.rest = rest;
        }
    }

    #[inline]
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    #[inline]
    fn eat(&mut self, byte: u8) -> bool {
        self.expect(byte).is_some()
    }

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

/// How many bytes come before the first quote, backslash or control character, eight at a time.
#[inline]
fn plain(text: &[u8]) -> usize {
    const ONES: u64 = u64::MAX / 255;
    let mut rest = text;
    while let Some((eight, after)) = rest.split_first_chunk() {
        let bytes = u64::from_le_bytes(*eight);
        let quote = bytes ^ (ONES * u64::from(b'"'));
        let backslash = bytes ^ (ONES * u64::from(b'\\'));
        // A byte below n borrows into its highest bit when n is taken off. A borrow may reach
        // higher bytes, so only the first mark is sure.
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

/// The length of the escape that a text starts with.
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
