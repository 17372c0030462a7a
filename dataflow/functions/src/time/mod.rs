//! Functions of dates, times and intervals.

pub(crate) mod dates;
pub(crate) mod extract;
pub(crate) mod to_char;
pub(crate) mod to_date;
