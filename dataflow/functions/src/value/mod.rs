//! Values of PostgreSQL's types outside of Arrow columns: one datum, decimals, the calendar.

pub(crate) mod calendar;
pub(crate) mod datum;
pub(crate) mod decimal;
pub(crate) mod zones;
