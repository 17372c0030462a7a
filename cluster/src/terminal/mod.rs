//! What a terminal shows: the live display, tables and the rows of views.
//!
//! | module | owns |
//! |---|---|
//! | [`display`] | when to redraw, and whether in place or line by line |
//! | [`frame`] | one moment as text |
//! | [`table`] | tables in psql's format |
//! | [`views`] | rows of views, read back from the sink |
//! | [`watch`] | the lag and the first rows, on a thread of its own |

pub(crate) mod display;
pub(crate) mod frame;
pub(crate) mod table;
pub(crate) mod views;
pub(crate) mod watch;
