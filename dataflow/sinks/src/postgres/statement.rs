//! A connection with its prepared statements.

use std::collections::HashMap;

use postgres::types::ToSql;
use postgres::{Client, Row, Statement};
use tidemill_log::Result;
use tidemill_postgres::failed;

/// Most statements that a connection keeps prepared; beyond that all are forgotten.
const STATEMENTS_MAX: usize = 500;

/// The values of a statement.
pub(super) type Values<'a> = [&'a (dyn ToSql + Sync)];

/// A connection. Its statements are prepared once.
pub(super) struct Session {
    /// The driver's connection.
    pub(super) client: Client,
    /// The prepared statements by their SQL.
    statements: HashMap<String, Statement>,
}

impl Session {
    /// A connection without statements.
    pub(super) fn new(client: Client) -> Self {
        Self {
            client,
            statements: HashMap::new(),
        }
    }

    /// The prepared statement of an SQL text.
    ///
    /// # Errors
    /// The driver's, when the server refuses the statement.
    pub(super) fn prepared(
        &mut self,
        sql: &str,
    ) -> std::result::Result<Statement, postgres::Error> {
        if let Some(known) = self.statements.get(sql) {
            return Ok(known.clone());
        }
        if self.statements.len() >= STATEMENTS_MAX {
            self.statements.clear();
        }
        let statement = self.client.prepare(sql)?;
        self.statements.insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }

    /// Executes a statement.
    ///
    /// # Errors
    /// The driver's.
    pub(super) fn execute(
        &mut self,
        sql: &str,
        values: &Values<'_>,
    ) -> std::result::Result<u64, postgres::Error> {
        let statement = self.prepared(sql)?;
        self.client.execute(&statement, values)
    }

    /// The rows of a query. `doing` names it in errors.
    ///
    /// # Errors
    /// `Retry` when the server is away, otherwise `Data`.
    pub(super) fn rows(&mut self, doing: &str, sql: &str, values: &Values<'_>) -> Result<Vec<Row>> {
        let statement = self.prepared(sql);
        let rows = statement.and_then(|statement| self.client.query(&statement, values));
        rows.map_err(|error| failed(doing, error))
    }

    /// Executes SQL without values. `doing` names it in errors.
    ///
    /// # Errors
    /// `Retry` when the server is away, otherwise `Data`.
    pub(super) fn batch(&mut self, doing: &str, sql: &str) -> Result<()> {
        let done = self.client.batch_execute(sql);
        done.map_err(|error| failed(doing, error))
    }

    /// Runs `work` in a transaction, which is rolled back if `work` fails.
    ///
    /// # Errors
    /// Those of `work`; `Retry` also when it is not known whether the transaction was committed.
    pub(super) fn transaction<T>(
        &mut self,
        doing: &str,
        work: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<T> {
        self.batch(doing, "BEGIN")?;
        match work(self) {
            Ok(done) => {
                self.batch(doing, "COMMIT")?;
                Ok(done)
            }
            Err(error) => {
                // If this fails, the connection is lost, and the server rolls back by itself. The
                // next BEGIN would tell.
                let _ = self.client.batch_execute("ROLLBACK");
                Err(error)
            }
        }
    }
}
