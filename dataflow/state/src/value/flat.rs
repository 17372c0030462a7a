//! The flat byte form of values: a compact serialization without field names or alignment.
//!
//! A row is its length and its bytes. Numbers that tend to be small are varints (LEB128): seven
//! bits per byte, low bits first; the highest bit of a byte says that another byte follows. Signed
//! numbers are zigzag-encoded first, so that 0, -1, 1, -2 become 0, 1, 2, 3. An epoch takes eight
//! bytes, little-endian.
//!
//! Invariants:
//! 1. A value is read only from the bytes that it was written to.
//! 2. No bytes cause a panic. Reading allocates at most a few times the length of the bytes.

use smallvec::{Array, SmallVec};
use tidemill_ir::row::Row;
use tidemill_log::{Error, Kind};

/// Takes the bytes that values are written to.
pub trait ByteSink {
    /// Appends bytes.
    fn put(&mut self, bytes: &[u8]);
}

/// The result of reading: a value, or what is wrong with the bytes.
pub type Read<T> = std::result::Result<T, Malformed>;

/// A value with a flat byte form.
pub trait Flat: Sized {
    /// The fewest bytes that a value takes. It bounds how many values the remaining bytes can
    /// contain.
    const LEAST: usize;
    /// Writes the value.
    fn lay(&self, to: &mut impl ByteSink);
    /// Reads one value.
    ///
    /// # Errors
    /// When the bytes are not such a value's.
    fn read(from: &mut Reader<'_>) -> Read<Self>;
}

/// Reads bytes from the beginning on.
#[derive(Debug)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// A reader at the beginning of the bytes.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The bytes that have not been read.
    pub fn rest(&self) -> &'a [u8] {
        self.0
    }

    /// Takes the next `count` bytes.
    ///
    /// # Errors
    /// Fewer bytes are left.
    fn take(&mut self, count: usize) -> Read<&'a [u8]> {
        let Some((taken, left)) = self.0.split_at_checked(count) else {
            return Err(Malformed("a value ends beyond the last byte"));
        };
        self.0 = left;
        Ok(taken)
    }

    /// Takes the next `N` bytes.
    fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        let Some((taken, left)) = self.0.split_first_chunk() else {
            return Err(Malformed("a number ends beyond the last byte"));
        };
        self.0 = left;
        Ok(*taken)
    }

    /// Reads one byte.
    pub(crate) fn byte(&mut self) -> Read<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// Reads an unsigned varint.
    ///
    /// Numbers below 2^14 are read here, because most lengths and counts are that small.
    #[inline]
    pub(crate) fn small(&mut self) -> Read<u64> {
        let first = self.byte()?;
        if first < 0x80 {
            return Ok(u64::from(first));
        }
        let second = self.byte()?;
        if second < 0x80 {
            return Ok(u64::from(second) << 7 | u64::from(first & 0x7f));
        }
        self.larger(first, second)
    }

    /// Reads the rest of a varint of three bytes or more.
    #[inline(never)]
    fn larger(&mut self, first: u8, second: u8) -> Read<u64> {
        let mut value = u64::from(second & 0x7f) << 7 | u64::from(first & 0x7f);
        for shift in (14..u64::BITS).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Malformed("a number of more than 64 bits"))
    }

    /// Reads the number of values that follow, each of at least `least` bytes. Refuses a number
    /// that the remaining bytes cannot contain, so that no large allocation is made for it.
    fn count(&mut self, least: usize) -> Read<usize> {
        let count = usize::try_from(self.small()?).unwrap_or(usize::MAX);
        if count > self.0.len() / least.max(1) {
            return Err(Malformed("more values than the bytes can hold"));
        }
        Ok(count)
    }
}

/// What is wrong with bytes from another process. It is small, because every read may return one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

impl From<Malformed> for Error {
    #[cold]
    fn from(Malformed(what): Malformed) -> Self {
        let what = format!("malformed rows from another process: {what}");
        Error::new(Kind::Bug, what)
    }
}

/// Writes an unsigned varint.
#[inline]
pub(crate) fn lay_small(value: u64, to: &mut impl ByteSink) {
    if value < 0x80 {
        return to.put(&[value as u8]);
    }
    if value < 0x80 << 7 {
        return to.put(&[value as u8 | 0x80, (value >> 7) as u8]);
    }
    let (mut bytes, mut left, mut length) = ([0; 10], value, 0);
    for byte in &mut bytes {
        *byte = (left & 0x7f) as u8;
        left >>= 7;
        length += 1;
        if left == 0 {
            break;
        }
        *byte |= 0x80;
    }
    to.put(&bytes[..length]);
}

impl Flat for Row {
    const LEAST: usize = 1;

    #[inline]
    fn lay(&self, to: &mut impl ByteSink) {
        lay_small(self.bytes().len() as u64, to);
        to.put(self.bytes());
    }

    #[inline]
    fn read(from: &mut Reader<'_>) -> Read<Self> {
        let length = from.count(1)?;
        Ok(Row::new(from.take(length)?))
    }
}

/// Eight bytes, little-endian: epochs are large numbers.
impl Flat for u64 {
    const LEAST: usize = 8;

    #[inline]
    fn lay(&self, to: &mut impl ByteSink) {
        to.put(&self.to_le_bytes());
    }

    #[inline]
    fn read(from: &mut Reader<'_>) -> Read<Self> {
        from.array().map(u64::from_le_bytes)
    }
}

impl Flat for i128 {
    const LEAST: usize = 16;

    fn lay(&self, to: &mut impl ByteSink) {
        to.put(&self.to_le_bytes());
    }

    fn read(from: &mut Reader<'_>) -> Read<Self> {
        from.array().map(i128::from_le_bytes)
    }
}

impl Flat for i64 {
    const LEAST: usize = 1;

    #[inline]
    fn lay(&self, to: &mut impl ByteSink) {
        lay_small(((self << 1) ^ (self >> 63)) as u64, to);
    }

    #[inline]
    fn read(from: &mut Reader<'_>) -> Read<Self> {
        let folded = from.small()?;
        Ok((folded >> 1) as i64 ^ -((folded & 1) as i64))
    }
}

impl Flat for isize {
    const LEAST: usize = 1;

    #[inline]
    fn lay(&self, to: &mut impl ByteSink) {
        (*self as i64).lay(to);
    }

    #[inline]
    fn read(from: &mut Reader<'_>) -> Read<Self> {
        isize::try_from(i64::read(from)?).map_err(|_| Malformed("a difference out of range"))
    }
}

impl Flat for i32 {
    const LEAST: usize = 1;

    fn lay(&self, to: &mut impl ByteSink) {
        i64::from(*self).lay(to);
    }

    fn read(from: &mut Reader<'_>) -> Read<Self> {
        i32::try_from(i64::read(from)?).map_err(|_| Malformed("a number of more than 32 bits"))
    }
}

impl Flat for u32 {
    const LEAST: usize = 1;

    fn lay(&self, to: &mut impl ByteSink) {
        lay_small(u64::from(*self), to);
    }

    fn read(from: &mut Reader<'_>) -> Read<Self> {
        u32::try_from(from.small()?).map_err(|_| Malformed("a number of more than 32 bits"))
    }
}

impl Flat for () {
    const LEAST: usize = 0;

    fn lay(&self, _to: &mut impl ByteSink) {}

    fn read(_from: &mut Reader<'_>) -> Read<Self> {
        Ok(())
    }
}

impl<T: Flat> Flat for Option<T> {
    const LEAST: usize = 1;

    fn lay(&self, to: &mut impl ByteSink) {
        to.put(&[u8::from(self.is_some())]);
        if let Some(value) = self {
            value.lay(to);
        }
    }

    fn read(from: &mut Reader<'_>) -> Read<Self> {
        match from.byte()? {
            0 => Ok(None),
            1 => T::read(from).map(Some),
            _ => Err(Malformed("an option tag other than 0 or 1")),
        }
    }
}

impl<T: Flat> Flat for Box<T> {
    const LEAST: usize = T::LEAST;

    fn lay(&self, to: &mut impl ByteSink) {
        self.as_ref().lay(to);
    }

    fn read(from: &mut Reader<'_>) -> Read<Self> {
        T::read(from).map(Box::new)
    }
}

impl<A: Array<Item: Flat>> Flat for SmallVec<A> {
    const LEAST: usize = 1;

    fn lay(&self, to: &mut impl ByteSink) {
        lay_small(self.len() as u64, to);
        self.iter().for_each(|value| value.lay(to));
    }

    fn read(from: &mut Reader<'_>) -> Read<Self> {
        let count = from.count(A::Item::LEAST)?;
        (0..count).map(|_| A::Item::read(from)).collect()
    }
}

macro_rules! tuples {
    ($(($($name:ident)+))+) => {$(
        impl<$($name: Flat),+> Flat for ($($name,)+) {
            const LEAST: usize = 0 $(+ $name::LEAST)+;

            #[inline]
            #[allow(non_snake_case)]
            fn lay(&self, to: &mut impl ByteSink) {
                let ($($name,)+) = self;
                $($name.lay(to);)+
            }

            #[inline]
            fn read(from: &mut Reader<'_>) -> Read<Self> {
                Ok(($($name::read(from)?,)+))
            }
        }
    )+};
}

tuples! { (A B) (A B C) (A B C D) }
