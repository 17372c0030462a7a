//! The whole river on the real services: PostgreSQL, Kafka, the registry and Cassandra, with the
//! binary as a child process. Each file is a story; [`place`] gives it a database, topics, a
//! keyspace and a slot of its own, [`child`] the running binary, [`rows`] what the views hold and
//! what PostgreSQL answers to the same SQL.

mod changes;
mod child;
mod column;
mod confluent;
mod engines;
mod matrix;
mod names;
mod place;
mod rows;
mod schema;
mod users;
