//! The unchecked codec: values cross in their memory layout, for processes that trust each other.
//!
//! A value is written as it lies in memory, followed by what it points to. A reader corrects the
//! pointers in place and copies the values.
//!
//! This is the only module of the crate with unsafe code. It relies on more than the compiler
//! promises: that two processes of one build lay out a type in the same way, that padding may be
//! read, and that the bytes were written by this module. Because of the last,
//! [`super::Engine::permitted`] asks for processes that authenticate each other.
//!
//! Invariant: everything is padded to a multiple of eight bytes, and no written type needs a
//! stricter alignment. Therefore every value is read at an aligned address.

#![allow(unsafe_code)]

use std::io::{self, Write};
use std::mem::{align_of, size_of};

use abomonation::Abomonation;
use tidemill_ir::row::Row;
use tidemill_log::Result;
use tidemill_state::value::keyed::Keyed;

use super::{Codec, Malformed};

/// The codec that trusts the bytes it reads.
#[derive(Debug)]
pub struct Abomonated;

impl<D: Abomonation + Clone> Codec<D> for Abomonated {
    const TAG: u64 = u64::from_le_bytes(*b"tmabom.1");

    fn length(values: &[D]) -> usize {
        values.iter().map(abomonation::measure).sum()
    }

    fn write<W: Write>(values: &[D], to: &mut W) -> io::Result<usize> {
        for value in values {
            // SAFETY: the types that implement `Abomonation` here and in its crate write their
            // fields and what these own; that padding is read is one of the module's assumptions.
            unsafe { abomonation::encode(value, to)? };
        }
        Ok(Self::length(values))
    }

    fn read(bytes: &[u8], count: usize) -> Result<Vec<D>> {
        const { assert!(align_of::<D>() <= 8 && size_of::<D>().is_multiple_of(8)) };
        let mut copy = vec![0u64; bytes.len().div_ceil(8)];
        // SAFETY: `copy` owns at least so many bytes, any of which may have any value, and nothing
        // else refers to them while `left` does.
        let mut left =
            unsafe { std::slice::from_raw_parts_mut(copy.as_mut_ptr().cast::<u8>(), bytes.len()) };
        left.copy_from_slice(bytes);
        let mut values = Vec::with_capacity(count.min(bytes.len() / size_of::<D>()));
        for _ in 0..count {
            // SAFETY: the tag says that this module wrote the bytes, in a process of the same build
            // that proved who it is; every value begins where it is aligned. It borrows `copy` and
            // is never dropped; a copy of it leaves.
            let Some((value, rest)) = (unsafe { abomonation::decode::<D>(left) }) else {
                return Err(Malformed("fewer values than their header tells").into());
            };
            values.push(value.clone());
            left = rest;
        }
        match left.is_empty() {
            true => Ok(values),
            false => Err(Malformed("more in them than their values").into()),
        }
    }
}

impl Abomonation for Row {
    unsafe fn entomb<W: Write>(&self, to: &mut W) -> io::Result<()> {
        let bytes = self.bytes();
        to.write_all(bytes)?;
        to.write_all(&[0; 8][..self.extent() - bytes.len()])
    }

    unsafe fn exhume<'b>(&mut self, bytes: &'b mut [u8]) -> Option<&'b mut [u8]> {
        let length = self.bytes().len();
        let (mine, rest) = bytes.split_at_mut_checked(length.checked_next_multiple_of(8)?)?;
        let mine: *mut [u8] = mine.get_mut(..length)?;
        // SAFETY: `self` holds a pointer of another process, which must not be dropped, so it is
        // overwritten. The box never is dropped either: `read` hands out copies alone.
        unsafe { std::ptr::write(self, Row(Box::from_raw(mine))) };
        Some(rest)
    }

    fn extent(&self) -> usize {
        self.bytes().len().next_multiple_of(8)
    }
}

impl Abomonation for Keyed {
    unsafe fn entomb<W: Write>(&self, to: &mut W) -> io::Result<()> {
        match self {
            // SAFETY: as the caller promised for the whole.
            Keyed::Row { key, row, .. } => unsafe {
                key.entomb(to)?;
                row.entomb(to)
            },
            Keyed::Truncated { .. } => Ok(()),
        }
    }

    unsafe fn exhume<'b>(&mut self, bytes: &'b mut [u8]) -> Option<&'b mut [u8]> {
        match self {
            // SAFETY: as the caller promised for the whole.
            Keyed::Row { key, row, .. } => unsafe {
                let bytes = key.exhume(bytes)?;
                row.exhume(bytes)
            },
            Keyed::Truncated { .. } => Some(bytes),
        }
    }

    fn extent(&self) -> usize {
        match self {
            Keyed::Row { key, row, .. } => key.extent() + row.extent(),
            Keyed::Truncated { .. } => 0,
        }
    }
}
