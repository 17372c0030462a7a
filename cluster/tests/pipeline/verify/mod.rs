//! `tidemill verify`: tables that somebody damaged, beside a job that is stopped, was killed or
//! runs.

mod claimed;
pub(crate) mod damage;
mod people;
mod refused;
mod running;
mod source;
mod stopped;
