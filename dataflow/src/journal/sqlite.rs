//! The journal as rows of the embedded file.
//!
//! In: bindings, in order. Out: the same, in order.
//!
//! 1. A row's number is one more than the greatest of its job; a writer that was overtaken knows
//!    another greatest number and inserts nothing: it is fenced. Collapsing keeps the greatest.
//! 2. Every call is one transaction. With `synchronous = NORMAL` the file's log, journal and sink
//!    may together lose their last moments to a power failure, always as one prefix.

use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, TransactionBehavior, params};

use super::{Binding, Journal};
use crate::{Epoch, Error, Kind, Result};

/// The journal of one job in a SQLite file.
pub(super) struct Sqlite {
    job: String,
    state: Mutex<State>,
}

struct State {
    connection: Connection,
    /// The last number that this process read at opening, or wrote.
    number: i64,
    epoch: Epoch,
}

const TABLE: &str = "
    CREATE TABLE IF NOT EXISTS _tidemill_journal (
        job TEXT NOT NULL,
        epoch INTEGER NOT NULL,
        number INTEGER NOT NULL,
        ends TEXT NOT NULL,
        PRIMARY KEY (job, epoch),
        UNIQUE (job, number)
    ) WITHOUT ROWID";

impl Sqlite {
    pub(super) fn open(file: &str, job: &str) -> Result<Self> {
        let connection = tidemill_log::sqlite::connect(file)?;
        connection.execute_batch(TABLE).map_err(failed)?;
        let (number, epoch) = connection
            .query_row(
                "SELECT coalesce(max(number), 0), coalesce(max(epoch), 0)
                 FROM _tidemill_journal WHERE job = ?1",
                [job],
                |row| Ok((row.get(0)?, row.get::<_, i64>(1)?)),
            )
            .map_err(failed)?;
        Ok(Self {
            job: job.to_owned(),
            state: Mutex::new(State {
                connection,
                number,
                epoch: u64::try_from(epoch).map_err(|_| damaged(epoch, "a negative epoch"))?,
            }),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Journal for Sqlite {
    fn read(&self) -> Result<Vec<Binding>> {
        let rows = rows(&self.lock().connection, &self.job)?;
        rows.into_iter()
            .map(|(epoch, ends)| binding(epoch, &ends))
            .collect()
    }

    fn append(&self, binding: &Binding) -> Result<()> {
        let mut state = self.lock();
        super::check_order(state.epoch, binding)?;
        let number = state.number + 1;
        let inserted = state
            .connection
            .execute(
                "INSERT INTO _tidemill_journal (job, epoch, number, ends)
                 SELECT ?1, ?2, ?3, ?4 WHERE ?3 = 1 + (
                     SELECT coalesce(max(number), 0) FROM _tidemill_journal WHERE job = ?1)",
                params![self.job, integer(binding.epoch)?, number, ends(binding)?],
            )
            .map_err(failed)?;
        if inserted == 0 {
            return Err(super::fenced(format_args!("{}/{number}", self.job)));
        }
        (state.number, state.epoch) = (number, binding.epoch);
        Ok(())
    }

    fn collapse(&self, epoch: Epoch) -> Result<()> {
        let mut state = self.lock();
        let transaction = state
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(failed)?;
        let mut bindings = Vec::new();
        for (at, ends) in rows(&transaction, &self.job)? {
            bindings.push(binding(at, &ends)?);
        }
        bindings.retain(|binding| binding.epoch <= epoch);
        if bindings.len() < 2 {
            return Ok(());
        }
        let merged = super::merge(bindings);
        let (last, merged) = (integer(merged.epoch)?, ends(&merged)?);
        transaction
            .execute(
                "DELETE FROM _tidemill_journal WHERE job = ?1 AND epoch < ?2",
                params![self.job, last],
            )
            .and_then(|_| {
                transaction.execute(
                    "UPDATE _tidemill_journal SET ends = ?3 WHERE job = ?1 AND epoch = ?2",
                    params![self.job, last, merged],
                )
            })
            .map_err(failed)?;
        transaction.commit().map_err(failed)
    }
}

fn rows(connection: &Connection, job: &str) -> Result<Vec<(i64, String)>> {
    connection
        .prepare_cached("SELECT epoch, ends FROM _tidemill_journal WHERE job = ?1 ORDER BY epoch")
        .and_then(|mut statement| {
            statement
                .query_map([job], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect()
        })
        .map_err(failed)
}

fn binding(epoch: i64, ends: &str) -> Result<Binding> {
    Ok(Binding {
        epoch: u64::try_from(epoch).map_err(|_| damaged(epoch, "a negative epoch"))?,
        ends: serde_json::from_str(ends).map_err(|error| damaged(epoch, error))?,
    })
}

fn ends(binding: &Binding) -> Result<String> {
    serde_json::to_string(&binding.ends)
        .map_err(|error| Error::with_source(Kind::Bug, "a binding makes no JSON", error))
}

fn integer(epoch: Epoch) -> Result<i64> {
    i64::try_from(epoch).map_err(|_| {
        Error::new(
            Kind::Bug,
            format!("epoch {epoch} is beyond SQLite's integers"),
        )
    })
}

fn damaged(epoch: i64, why: impl std::fmt::Display) -> Error {
    Error::new(
        Kind::Data,
        format!("journal row of epoch {epoch} is damaged: {why}"),
    )
}

fn failed(error: rusqlite::Error) -> Error {
    let kind = match error.sqlite_error_code() {
        Some(
            rusqlite::ErrorCode::NotADatabase
            | rusqlite::ErrorCode::DatabaseCorrupt
            | rusqlite::ErrorCode::CannotOpen,
        ) => Kind::Data,
        _ => Kind::Retry,
    };
    Error::with_source(kind, format!("journal: {error}"), error)
}
