//! The view `users_by_country` as readers see it, in SQLite or Cassandra.
//!
//! A reader uses the sink's own protocol and not Tidemill, so that what is measured is what a user
//! of the view sees.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::bail;
use rusqlite::{Connection, OpenFlags};
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use tokio::runtime::Runtime;

use crate::harness::services::Services;
use crate::harness::users::Totals;

/// By country: the number of users and their average age.
pub(crate) type Rows = BTreeMap<String, (i64, f64)>;

/// Where the view of a run is served.
pub(crate) enum View {
    /// A file of the embedded sink.
    Sqlite {
        /// The file.
        file: PathBuf,
        /// The connection, once the file exists.
        open: Option<Connection>,
    },
    /// A table in a keyspace of its own.
    Cassandra(Box<Keyspace>),
}

/// A keyspace in Cassandra, which is dropped together with the view.
pub(crate) struct Keyspace {
    /// The connection.
    session: Session,
    /// Runs the driver.
    runtime: Runtime,
    /// The keyspace.
    name: String,
}

impl View {
    /// The file need not exist yet.
    pub(crate) fn sqlite(file: &Path) -> Self {
        let file = file.to_owned();
        View::Sqlite { file, open: None }
    }

    /// A view in an empty keyspace of its own.
    pub(crate) fn cassandra(services: &Services, keyspace: &str) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let node = services.cassandra_node()?;
        let session = runtime.block_on(connect(node))?;
        runtime.block_on(create_keyspace(&session, keyspace))?;
        Ok(View::Cassandra(Box::new(Keyspace {
            session,
            runtime,
            name: keyspace.to_owned(),
        })))
    }

    /// The current rows; empty while the table does not exist.
    pub(crate) fn rows(&mut self) -> Rows {
        let rows = match self {
            View::Sqlite { file, open } => sqlite_rows(file, open),
            View::Cassandra(keyspace) => keyspace.rows(),
        };
        // The measured run creates the table some time after its start.
        rows.unwrap_or_default()
    }
}

impl Keyspace {
    fn rows(&self) -> anyhow::Result<Rows> {
        self.runtime
            .block_on(cassandra_rows(&self.session, &self.name))
    }
}

impl Drop for Keyspace {
    fn drop(&mut self) {
        let drop = format!("DROP KEYSPACE IF EXISTS {}", self.name);
        let _ = self.runtime.block_on(self.session.query_unpaged(drop, ()));
    }
}

/// Connects to Cassandra.
pub(crate) async fn connect(node: &str) -> anyhow::Result<Session> {
    Ok(SessionBuilder::new().known_node(node).build().await?)
}

/// Creates an empty keyspace with one replica.
pub(crate) async fn create_keyspace(session: &Session, keyspace: &str) -> anyhow::Result<()> {
    let drop = format!("DROP KEYSPACE IF EXISTS {keyspace}");
    session.query_unpaged(drop, ()).await?;
    let create = format!(
        "CREATE KEYSPACE {keyspace} WITH replication = \
         {{'class': 'SimpleStrategy', 'replication_factor': 1}}"
    );
    session.query_unpaged(create, ()).await?;
    Ok(())
}

/// Reads the rows from SQLite.
fn sqlite_rows(file: &Path, open: &mut Option<Connection>) -> anyhow::Result<Rows> {
    let connection = match open {
        Some(connection) => connection,
        None => open.insert(Connection::open_with_flags(
            file,
            OpenFlags::SQLITE_OPEN_READ_ONLY,
        )?),
    };
    let mut select =
        connection.prepare_cached("SELECT country, users, average_age FROM users_by_country")?;
    let rows = select.query_map((), |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?))))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Reads the rows from Cassandra.
async fn cassandra_rows(session: &Session, keyspace: &str) -> anyhow::Result<Rows> {
    let select = format!("SELECT country, users, average_age FROM {keyspace}.users_by_country");
    let result = session
        .query_unpaged(select, ())
        .await?
        .into_rows_result()?;
    let mut rows = Rows::new();
    for row in result.rows::<(String, i64, f64)>()? {
        let (country, users, average) = row?;
        rows.insert(country, (users, average));
    }
    Ok(rows)
}

/// The number of users that the rows count.
pub(crate) fn counted(rows: &Rows) -> u64 {
    let sum: i64 = rows.values().map(|(users, _)| users).sum();
    sum.unsigned_abs()
}

/// Checks that the rows equal the generator's totals exactly.
///
/// # Errors
///
/// The first country that differs.
pub(crate) fn check(rows: &Rows, totals: &Totals) -> anyhow::Result<()> {
    for (country, (count, ages)) in totals {
        let average = *ages as f64 / *count as f64;
        let right = rows.get(country).is_some_and(|(users, found)| {
            users.unsigned_abs() == *count && (found - average).abs() < 1e-9
        });
        if !right {
            let found = rows.get(country);
            bail!("{country}: {count} users of {average} years expected, found {found:?}");
        }
    }
    if rows.len() != totals.len() {
        bail!("{} countries expected, found {}", totals.len(), rows.len());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_exact_is_refused() {
        let totals = Totals::from([("Iran".to_owned(), (3, 100))]);
        let rows = |users, average| Rows::from([("Iran".to_owned(), (users, average))]);
        check(&rows(3, 100.0 / 3.0), &totals).unwrap();
        check(&rows(4, 100.0 / 3.0), &totals).unwrap_err();
        check(&rows(3, 33.3), &totals).unwrap_err();
        check(&Rows::new(), &totals).unwrap_err();
    }
}
