//! Reader of Avro's binary encoding: primitive values, borrowed from a record's body.
//!
//! Input: bytes that anyone may have written. Output: Avro's primitive values.
//!
//! Invariant: nothing is read beyond the body, and nothing is allocated for a length that the body
//! claims.
//!
//! The encoding is that of the Avro specification, "Binary Encoding": numbers are zigzag varints,
//! texts and bytes have their length in front.

/// Why a body is refused. Boxed, so that results fit in registers.
#[derive(Debug)]
pub(super) struct Fault(pub(super) String);

/// A result of reading.
pub(super) type Checked<T> = Result<T, Box<Fault>>;

impl<T: Into<String>> From<T> for Box<Fault> {
    #[cold]
    fn from(why: T) -> Self {
        Self::new(Fault(why.into()))
    }
}

/// The rest of a body.
pub(super) struct Input<'a> {
    /// The bytes that are not read yet.
    pub(super) rest: &'a [u8],
}

/// The refusal of a body that is too short.
const SHORT: &str = "the record ends within a value";

impl<'a> Input<'a> {
    /// Takes the next `count` bytes.
    #[inline(always)]
    pub(super) fn take(&mut self, count: usize) -> Checked<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(SHORT)?;
        self.rest = rest;
        Ok(taken)
    }

    /// Takes the next `N` bytes.
    #[inline]
    pub(super) fn array<const N: usize>(&mut self) -> Checked<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(SHORT)?;
        self.rest = rest;
        Ok(*taken)
    }

    /// Reads a boolean: the byte 0 or 1.
    pub(super) fn boolean(&mut self) -> Checked<bool> {
        match self.array()? {
            [0] => Ok(false),
            [1] => Ok(true),
            [other] => Err(format!("the byte {other} stands where a boolean is expected").into()),
        }
    }

    /// Reads a `long`: a zigzag varint.
    #[inline(always)]
    pub(super) fn long(&mut self) -> Checked<i64> {
        if let Some((first, rest)) = self.rest.split_first()
            && first & 0x80 == 0
        {
            self.rest = rest;
            return Ok(i64::from(first >> 1) ^ -i64::from(first & 1));
        }
        self.long_number()
    }

    /// Reads a `long` of two bytes or more.
    fn long_number(&mut self) -> Checked<i64> {
        let mut value: u64 = 0;
        for (index, byte) in self.rest.iter().take(10).enumerate() {
            if index == 9 && *byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                self.take(index + 1)?;
                return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
            }
        }
        match self.rest.len() {
            0..10 => Err(SHORT.into()),
            _ => Err("a number has more than 64 bits".into()),
        }
    }

    /// Reads an `int`: a zigzag varint in the range of 32 bits.
    pub(super) fn int(&mut self) -> Checked<i64> {
        let value = self.long()?;
        match i32::try_from(value) {
            Ok(_) => Ok(value),
            Err(_) => Err(format!("the number {value} stands where 32 bits are expected").into()),
        }
    }

    /// Reads bytes with their length in front.
    #[inline(always)]
    pub(super) fn prefixed(&mut self) -> Checked<&'a [u8]> {
        let count = self.long()?;
        let count = usize::try_from(count).map_err(|_| format!("a length of {count}"))?;
        self.take(count)
    }

    /// Reads a text, which must be UTF-8.
    pub(super) fn text(&mut self) -> Checked<&'a str> {
        std::str::from_utf8(self.prefixed()?).map_err(|_| "a string is not UTF-8".into())
    }

    /// Reads the index of a union's branch, or of an enum's symbol.
    #[inline]
    pub(super) fn branch<'s, T>(&mut self, branches: &'s [T]) -> Checked<&'s T> {
        let index = self.long()?;
        let branch = usize::try_from(index)
            .ok()
            .and_then(|index| branches.get(index));
        branch.ok_or_else(|| format!("choice {index} of {}", branches.len()).into())
    }

    /// Reads the blocks of an array or a map.
    pub(super) fn blocks(&mut self, item: impl Fn(&mut Self) -> Checked<()>) -> Checked<()> {
        loop {
            let count = self.long()?;
            if count == 0 {
                return Ok(());
            }
            if count < 0 {
                // The block's size in bytes follows, so the block can be skipped as a whole.
                self.prefixed()?;
                continue;
            }
            for _ in 0..count {
                let before = self.rest.len();
                item(self)?;
                if self.rest.len() == before {
                    // The items have no bytes, so all others are alike.
                    break;
                }
            }
        }
    }
}
