//! Functions of numbers, and numbers read from text.

pub(crate) mod arithmetic;
pub(crate) mod decimals;
pub(crate) mod double;
pub(crate) mod parse;
pub(crate) mod to_char;
