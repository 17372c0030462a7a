//! Types that come in: PostgreSQL's, SQLite's, Avro's and Debezium's, from the source to the views.

#![allow(clippy::unwrap_used)]

mod altered;
mod cells;
mod formats;
#[path = "../harness/mod.rs"]
mod harness;
mod kinds;
mod matrix;
mod page;
mod planned;
mod random;
mod same;
mod sink;
mod source;
mod sqlite;
mod written;
