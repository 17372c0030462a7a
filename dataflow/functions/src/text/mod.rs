//! Functions of text, and values as text.

pub(crate) mod arrays;
pub(crate) mod format;
pub(crate) mod like;
pub(crate) mod regex;
pub(crate) mod strings;
