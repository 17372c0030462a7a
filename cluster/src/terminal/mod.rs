//! What a terminal shows: the live display, tables and the rows of views.

pub(crate) mod display;
pub(crate) mod frame;
pub(crate) mod table;
pub(crate) mod views;
pub(crate) mod watch;
