//! Types that come in: PostgreSQL's, SQLite's, Avro's and Debezium's, from the source to the views.

mod altered;
mod cells;
mod formats;
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
