//! From `views.sql` to the IR.

pub mod ir;
