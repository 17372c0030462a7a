//! Removal from PostgreSQL: slot, publication, rows of bookkeeping tables, and created tables.
//!
//! A removal holds the lease of the capture, so that no process captures meanwhile.

use postgres::Client;
use tidemill_log::log::TopicId;

use super::{Found, Item, Made, NOTES, Noted, Remains, TOPICS};
use crate::Result;
use crate::capture::postgres::{Lease, slot_name};
use crate::database::{postgres_failed, quoted};
use tidemill_postgres::Server;

/// The bookkeeping tables, each with the column that identifies the pipeline, and whether that
/// column holds the name of the slot. The records of topics are the last.
const TABLES: [(&str, &str, bool); 5] = [
    ("_tidemill_runs", "pipeline", false),
    ("_tidemill_fetching", "pipeline", false),
    ("_tidemill_capture_tables", "name", true),
    ("_tidemill_capture", "name", true),
    (NOTES, "name", true),
];

/// What a pipeline keeps in a PostgreSQL database.
pub(super) struct Postgres {
    server: Server,
    client: Client,
    /// The name of the pipeline.
    name: String,
    /// The name of its slot and publication.
    slot: String,
    /// The tables that its ingest creates.
    made: Made,
    /// The lease; taken with the first removal.
    lease: Option<Lease>,
}

impl Postgres {
    /// Connects to the database.
    pub(super) fn open(url: &str, name: &str, made: Made) -> Result<Self> {
        let mut server = Server::parse(url)?;
        server.session("tidemill", "-c lock_timeout=10000");
        Ok(Self {
            client: server.connect()?,
            server,
            name: name.to_owned(),
            slot: slot_name(name)?,
            made,
            lease: None,
        })
    }

    /// Whether a table exists.
    fn is_there(&mut self, table: &str) -> Result<bool> {
        let there = "SELECT to_regclass($1) IS NOT NULL";
        let row = self.client.query_one(there, &[&quoted(table)]);
        Ok(row.map_err(|error| failed(table, error))?.get(0))
    }

    /// The value that identifies the pipeline in a bookkeeping table.
    fn named(&self, by_slot: bool) -> &str {
        if by_slot { &self.slot } else { &self.name }
    }

    /// The number of rows of the pipeline in a bookkeeping table.
    fn rows(&mut self, table: &str, column: &str, by_slot: bool) -> Result<u64> {
        if !self.is_there(table)? {
            return Ok(0);
        }
        let named = self.named(by_slot).to_owned();
        let count = format!("SELECT count(*) FROM {table} WHERE {column} = $1");
        let row = self.client.query_one(&count, &[&named]);
        let rows: i64 = row.map_err(|error| failed(table, error))?.get(0);
        Ok(rows.unsigned_abs())
    }

    /// The recorded topics.
    fn topics(&mut self) -> Result<Vec<Noted>> {
        if !self.is_there(NOTES)? {
            return Ok(Vec::new());
        }
        let rows = self.client.query(TOPICS, &[&self.slot]);
        let rows = rows.map_err(|error| failed(NOTES, error))?;
        let noted = rows.iter().map(|row| Noted {
            topic: row.get(0),
            id: TopicId([row.get(1), row.get(2)]),
            shared_with: row.get(3),
        });
        Ok(noted.collect())
    }

    /// Whether `sql` finds a row for the name of the slot.
    fn has(&mut self, sql: &str) -> Result<bool> {
        let row = self.client.query_opt(sql, &[&self.slot]);
        Ok(row.map_err(|error| failed("the catalog", error))?.is_some())
    }

    /// Another publication that contains this table.
    fn publishes(&mut self, table: &str) -> Result<Option<String>> {
        let other = "SELECT min(p.pubname::text) FROM pg_publication_rel r
                     JOIN pg_publication p ON p.oid = r.prpubid
                     WHERE r.prrelid = to_regclass($1) AND p.pubname <> $2";
        let row = self.client.query_one(other, &[&quoted(table), &self.slot]);
        Ok(row.map_err(|error| failed(table, error))?.get(0))
    }
}

impl Remains for Postgres {
    fn find(&mut self) -> Result<Found> {
        let mut found = Found::default();
        let slot = "SELECT 1 FROM pg_replication_slots
                    WHERE slot_name = $1 AND database = current_database()";
        let publication = "SELECT 1 FROM pg_publication WHERE pubname = $1";
        let (slot, publication) = (self.has(slot)?, self.has(publication)?);
        let named = self.slot.clone();
        for (item, there) in [
            (Item::Slot(named.clone()), slot),
            (Item::Publication(named), publication),
        ] {
            match there {
                true => found.feeding.push(item),
                false => found.absent.push(item.to_string()),
            }
        }
        found.topics = self.topics()?;
        for table in self.made.tables.clone() {
            match self.is_there(&table)? {
                true => {
                    let in_use_by = self.publishes(&table)?;
                    self.made.sort(&table, in_use_by, &mut found);
                }
                false => found.absent.push(format!("table `{table}`")),
            }
        }
        for (table, column, by_slot) in TABLES {
            match self.rows(table, column, by_slot)? {
                0 => found.absent.push(format!("rows in `{table}`")),
                rows => found.keeping.push(Item::Rows { table, rows }),
            }
        }
        Ok(found)
    }

    fn remove(&mut self, item: &Item) -> Result<()> {
        if self.lease.is_none() {
            self.lease = Some(Lease::hold(&self.server, &self.slot)?);
        }
        let mut client = match &self.lease {
            Some(lease) => {
                if matches!(item, Item::Slot(_)) {
                    lease.evict()?;
                }
                lease.session()
            }
            None => return Ok(()),
        };
        let what = item.to_string();
        let removed = match item {
            Item::Slot(slot) => client
                .execute(
                    "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots
                     WHERE slot_name = $1 AND database = current_database()",
                    &[slot],
                )
                .map(drop),
            Item::Publication(name) => {
                client.batch_execute(&format!("DROP PUBLICATION IF EXISTS {}", quoted(name)))
            }
            Item::Table(table) => {
                client.batch_execute(&format!("DROP TABLE IF EXISTS {}", quoted(table)))
            }
            Item::Rows { table, .. } => {
                let known = TABLES.iter().find(|(name, ..)| name == table);
                let Some((table, column, by_slot)) = known else {
                    return Ok(());
                };
                let named = if *by_slot { &self.slot } else { &self.name };
                let delete = format!("DELETE FROM {table} WHERE {column} = $1");
                client.execute(&delete, &[named]).map(drop)
            }
            Item::Triggers(_) => Ok(()),
        };
        removed.map_err(|error| postgres_failed(&format!("removing {what}"), error))
    }
}

/// An error of a query.
fn failed(table: &str, error: postgres::Error) -> crate::Error {
    postgres_failed(&format!("looking into {table}"), error)
}
