//! Schema of a Cassandra sink: keyspace, view tables and frontier rows (everything except row
//! writes).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::datatypes::{DataType, TimeUnit};
use arrow::record_batch::RecordBatch;
use scylla::errors::PrepareError;
use scylla::response::query_result::QueryRowsResult;
use scylla::response::{PagingState, PagingStateResponse};
use scylla::serialize::row::SerializeRow;
use scylla::statement::Statement;
use scylla::statement::prepared::PreparedStatement;
use scylla::value::Row;
use tidemill_ir::Epoch;
use tidemill_log::{Error, Kind, Result, failpoint};

use super::super::contract::{Frontier, Table, Unclaimed};
use super::super::convert::batch_of;
use super::super::existing::{
    FoundColumn, check_existing, frontier_of, mismatch, quoted, unsupported,
};
use super::cell::array_of;
use super::connected::{Connected, timestamp};
use super::replication::Replication;
use super::retry::{failed, is_unknown, transient_prepare};

/// Rows per page of a query.
const PAGE: i32 = 5_000;
/// How long to wait for a table that the catalog shows and that the server does not know yet.
const CREATING_MAX: Duration = Duration::from_secs(10);
/// Time between two looks at such a table.
const CREATING_LOOK: Duration = Duration::from_millis(100);
/// The comment on each table that a sink creates. It is dropped with the table.
const MADE: &str = "made by Tidemill";
/// The table with the frontier of each view.
const FRONTIERS: &str = "tidemill_frontiers";

/// A view's table with its prepared statements.
pub(super) struct Prepared {
    /// The table.
    pub(super) table: Table,
    /// INSERT of all columns.
    pub(super) insert: PreparedStatement,
    /// DELETE by the primary key.
    pub(super) delete: PreparedStatement,
    /// INSERT of the view's frontier row.
    frontier: PreparedStatement,
}

impl Connected {
    /// Creates the keyspace and the tables that are missing, checks those that exist, and prepares
    /// the statements; see [`super::super::Sink::prepare`].
    ///
    /// # Errors
    /// `Data` when an existing keyspace or table is not what the job needs; otherwise as the
    /// cluster's answer.
    pub(super) async fn prepare(
        &self,
        job: &str,
        tables: &[Table],
    ) -> Result<(Vec<Arc<Prepared>>, Vec<Option<Frontier>>)> {
        for table in tables {
            table.validate()?;
        }
        self.ensure_keyspace().await?;
        let frontiers_table = format!("{}.{FRONTIERS}", quoted(&self.keyspace));
        let columns = "job text, \"view\" text, epoch bigint, fingerprint text, \
                       PRIMARY KEY (job, \"view\")";
        self.create(FRONTIERS, columns).await?;
        let advance = format!(
            "INSERT INTO {frontiers_table} (job, \"view\", epoch, fingerprint) VALUES (?, ?, ?, ?)"
        );
        let frontier = self.of_quorum(&advance).await?;
        let mut begin = self
            .of_quorum(&format!(
                "INSERT INTO {frontiers_table} (job, \"view\", fingerprint) VALUES (?, ?, ?)"
            ))
            .await?;
        // Older than every epoch, so that it never hides one.
        begin.set_timestamp(Some(1));
        let (mut prepared, mut frontiers) = (Vec::new(), Vec::new());
        for table in tables {
            self.ensure_table(table).await?;
            let found = self.frontier(&frontiers_table, job, table).await?;
            if found.is_none() {
                failpoint::hit(failpoint::SINK_BEFORE_FRONTIER_ROW);
                let print = fingerprint(table);
                let values = (job, table.name.as_str(), print.as_str());
                self.execute(FRONTIERS, &begin, &values).await?;
            }
            frontiers.push(found);
            prepared.push(Arc::new(self.statements(table, frontier.clone()).await?));
        }
        Ok((prepared, frontiers))
    }

    /// Writes the frontier row of a view. An older epoch loses by its timestamp.
    ///
    /// # Errors
    /// As those of the cluster: `Retry` while it is not available.
    pub(super) async fn advance(&self, job: &str, table: &Prepared, epoch: Epoch) -> Result<()> {
        let mut statement = table.frontier.clone();
        statement.set_timestamp(Some(timestamp(epoch)?));
        let print = fingerprint(&table.table);
        let name = table.table.name.as_str();
        // The epoch fits, because a thousand times it fitted above.
        let values = (job, name, epoch as i64, print.as_str());
        self.execute(FRONTIERS, &statement, &values).await?;
        Ok(())
    }

    /// See [`crate::ReadBack::read`].
    ///
    /// # Errors
    /// As those of the cluster; `Data` when an answer does not have the table's columns.
    pub(super) async fn read(&self, table: &Table, limit: usize) -> Result<RecordBatch> {
        let fields = table.schema.fields();
        let columns: Vec<_> = fields.iter().map(|f| quoted(f.name())).collect();
        let limit = i32::try_from(limit).unwrap_or(i32::MAX);
        let rows = if limit == 0 {
            Vec::new()
        } else {
            self.rows(&format!(
                "SELECT {} FROM {} LIMIT {limit}",
                columns.join(", "),
                self.name_of(table)
            ))
            .await?
        };
        let count = rows.len();
        let mut columns: Vec<Vec<_>> = fields.iter().map(|_| Vec::with_capacity(count)).collect();
        for row in rows {
            for (column, value) in columns.iter_mut().zip(row.columns) {
                column.push(value);
            }
        }
        batch_of(table, count, columns, |kind, values| {
            Ok(array_of(&cql_type(kind)?.1, values))
        })
    }

    /// The quoted name of a view's table with its keyspace.
    pub(super) fn name_of(&self, table: &Table) -> String {
        format!("{}.{}", quoted(&self.keyspace), quoted(&table.name))
    }

    /// Creates the keyspace if it is missing. An existing one must have the replication that was
    /// asked for.
    async fn ensure_keyspace(&self) -> Result<()> {
        let known = self
            .page(
                "SELECT replication FROM system_schema.keyspaces WHERE keyspace_name = ?",
                (self.keyspace.as_str(),),
                PagingState::start(),
            )
            .await?
            .0;
        let known = known
            .maybe_first_row::<(HashMap<String, String>,)>()
            .map_err(|e| unreadable("system_schema.keyspaces", e))?;
        if let Some((known,)) = known {
            return self.check_replication(&known);
        }
        if self.replication.is_none() {
            let nodes = self.session.get_cluster_state().get_nodes_info().len();
            if nodes > 1 {
                tracing::warn!(
                    "keyspace `{}` is made with one replica on a cluster of {nodes} nodes: rows \
                     are away with their node; give the setting `replication` (docs/operate.md) \
                     or make the keyspace first",
                    self.keyspace
                );
            }
        }
        self.create_keyspace().await
    }

    /// Creates the keyspace, with one replica if no replication was asked for.
    async fn create_keyspace(&self) -> Result<()> {
        let wanted = self.replication.clone().unwrap_or(Replication::Simple(1));
        let (name, wanted) = (&self.keyspace, wanted.cql());
        tracing::info!("creating keyspace `{name}` with {wanted}");
        self.query(&format!(
            "CREATE KEYSPACE IF NOT EXISTS {} WITH replication = {wanted}",
            quoted(name)
        ))
        .await
    }

    /// Compares the replication of an existing keyspace with the one that was asked for.
    fn check_replication(&self, known: &HashMap<String, String>) -> Result<()> {
        let Some(wanted) = &self.replication else {
            return Ok(());
        };
        let found = Replication::found(known);
        if found.as_ref() == Some(wanted) {
            return Ok(());
        }
        let has = found.map_or_else(|| format!("{known:?}"), |found| found.cql());
        let (keyspace, wanted) = (&self.keyspace, wanted.cql());
        let what = format!(
            "keyspace `{keyspace}` has {has}, and the setting `replication` asks for {wanted}: \
             run ALTER KEYSPACE {} WITH replication = {wanted}, then `nodetool repair --full \
             {keyspace}` on each node, or correct the setting",
            quoted(keyspace)
        );
        Err(Error::new(Kind::Data, what))
    }

    /// Creates the table of a view if it is missing, and checks its columns and its key.
    async fn ensure_table(&self, table: &Table) -> Result<()> {
        let mut columns = Vec::new();
        for field in table.schema.fields() {
            columns.push(format!(
                "{} {}",
                quoted(field.name()),
                cql_type(field.data_type())?.0
            ));
        }
        let keys: Vec<_> = table.key_names().map(quoted).collect();
        let (partition, clustering) = keys.split_at(table.partition_columns);
        let clustering: Vec<_> = clustering.iter().map(|c| format!(", {c}")).collect();
        let columns = format!(
            "{}, PRIMARY KEY (({}){})",
            columns.join(", "),
            partition.join(", "),
            clustering.concat()
        );
        self.create(&table.name, &columns).await?;
        let (found, _) = self
            .page(
                "SELECT column_name, type, kind, position FROM system_schema.columns \
                 WHERE keyspace_name = ? AND table_name = ?",
                (self.keyspace.as_str(), table.name.as_str()),
                PagingState::start(),
            )
            .await?;
        let mut columns = Vec::new();
        let mut partition_columns = 0;
        let rows = found.rows::<(String, String, String, i32)>();
        for row in rows.map_err(|e| unreadable("system_schema.columns", e))? {
            let (name, sql_type, kind, position) =
                row.map_err(|e| unreadable("system_schema.columns", e))?;
            partition_columns += usize::from(kind == "partition_key");
            let position = usize::try_from(position).unwrap_or(0);
            // Clustering columns are numbered from zero again, so they are moved behind the
            // partition key.
            let key = match kind.as_str() {
                "partition_key" => Some(position),
                "clustering" => Some(position + table.schema.fields().len()),
                _ => None,
            };
            columns.push(FoundColumn {
                name,
                sql_type,
                key,
            });
        }
        check_existing(table, &columns, |t| Ok(cql_type(t)?.0.to_owned()))?;
        if partition_columns != table.partition_columns {
            let problem = format!(
                "its partition key has {partition_columns} columns, the view needs the first {}",
                table.partition_columns
            );
            return Err(mismatch(&table.name, &problem));
        }
        Ok(())
    }

    /// Prepares the statements of a view's table.
    async fn statements(&self, table: &Table, frontier: PreparedStatement) -> Result<Prepared> {
        let name = self.name_of(table);
        let fields = table.schema.fields();
        let columns: Vec<_> = fields.iter().map(|f| quoted(f.name())).collect();
        let marks = vec!["?"; columns.len()].join(", ");
        let insert = format!(
            "INSERT INTO {name} ({}) VALUES ({marks})",
            columns.join(", ")
        );
        let keys: Vec<_> = table
            .key_names()
            .map(|k| format!("{} = ?", quoted(k)))
            .collect();
        let delete = format!("DELETE FROM {name} WHERE {}", keys.join(" AND "));
        Ok(Prepared {
            insert: self.prepared(&insert).await?,
            delete: self.prepared(&delete).await?,
            table: table.clone(),
            frontier,
        })
    }

    /// The frontier row of one view.
    async fn frontier(
        &self,
        frontiers: &str,
        job: &str,
        table: &Table,
    ) -> Result<Option<Frontier>> {
        let cql =
            format!("SELECT epoch, fingerprint FROM {frontiers} WHERE job = ? AND \"view\" = ?");
        let (found, _) = self
            .page(&cql, (job, table.name.as_str()), PagingState::start())
            .await?;
        found
            .maybe_first_row::<(Option<i64>, String)>()
            .map_err(|e| unreadable(FRONTIERS, e))?
            .map(|(epoch, print)| frontier_of(epoch, &print))
            .transpose()
    }

    /// See [`super::super::Sink::frontiers`].
    ///
    /// # Errors
    /// As those of the cluster; `Data` when a frontier row cannot be read.
    pub(super) async fn frontiers(&self, job: &str) -> Result<BTreeMap<String, Frontier>> {
        if !self.has(FRONTIERS).await? {
            return Ok(BTreeMap::new());
        }
        let table = format!("{}.{FRONTIERS}", quoted(&self.keyspace));
        let cql = format!("SELECT \"view\", epoch, fingerprint FROM {table} WHERE job = ?");
        let mut frontiers = BTreeMap::new();
        let mut from = PagingState::start();
        loop {
            let (page, next) = self.page(&cql, (job,), from).await?;
            let rows = page.rows::<(String, Option<i64>, String)>();
            for row in rows.map_err(|e| unreadable(FRONTIERS, e))? {
                let (view, epoch, print) = row.map_err(|e| unreadable(FRONTIERS, e))?;
                frontiers.insert(view, frontier_of(epoch, &print)?);
            }
            match next {
                PagingStateResponse::HasMorePages { state } => from = state,
                PagingStateResponse::NoMorePages => return Ok(frontiers),
            }
        }
    }

    /// See [`super::super::Sink::filled_by`].
    ///
    /// # Errors
    /// As those of the cluster: `Retry` while it is not available.
    pub(super) async fn filled_by(&self) -> Result<BTreeMap<String, BTreeSet<String>>> {
        let mut filled = BTreeMap::<String, BTreeSet<String>>::new();
        if !self.has(FRONTIERS).await? {
            return Ok(filled);
        }
        let table = format!("{}.{FRONTIERS}", quoted(&self.keyspace));
        let cql = format!("SELECT \"view\", job FROM {table}");
        let mut from = PagingState::start();
        loop {
            let (page, next) = self.page(&cql, (), from).await?;
            let rows = page.rows::<(String, String)>();
            for row in rows.map_err(|e| unreadable(FRONTIERS, e))? {
                let (view, job) = row.map_err(|e| unreadable(FRONTIERS, e))?;
                filled.entry(view).or_default().insert(job);
            }
            match next {
                PagingStateResponse::HasMorePages { state } => from = state,
                PagingStateResponse::NoMorePages => return Ok(filled),
            }
        }
    }

    /// Creates a table that is missing. For an existing table nothing is sent, because a cluster
    /// that may have no more tables also refuses `CREATE TABLE IF NOT EXISTS` for an existing one.
    async fn create(&self, table: &str, columns: &str) -> Result<()> {
        if self.has(table).await? {
            return Ok(());
        }
        let name = format!("{}.{}", quoted(&self.keyspace), quoted(table));
        let cql = format!("CREATE TABLE IF NOT EXISTS {name} ({columns}) WITH comment = '{MADE}'");
        let made = self.query(&cql).await;
        let refused = matches!(&made, Err(error) if error.kind() == Kind::Data);
        // The catalog may show a keyspace that the server does not know, as it may show such a
        // table.
        if refused && self.create_keyspace().await.is_ok() {
            return self.query(&cql).await;
        }
        made
    }

    /// Whether the table exists and is known to the server.
    ///
    /// A node that is killed while it creates a table reads its schema first at its restart and
    /// finds the table later in its commit log. The catalog then shows a table that the node does
    /// not know until it is created again. But if the nodes do not agree on the schema, another
    /// node may know the table, and creating it would make two tables of one name.
    ///
    /// # Errors
    /// `Retry` while the nodes do not agree on the schema.
    pub(super) async fn has(&self, table: &str) -> Result<bool> {
        let there = "SELECT table_name FROM system_schema.tables WHERE keyspace_name = ? AND \
                     table_name = ?";
        let (found, _) = self
            .page(there, (self.keyspace.as_str(), table), PagingState::start())
            .await?;
        if found.rows_num() == 0 {
            return Ok(false);
        }
        let name = format!("{}.{}", quoted(&self.keyspace), quoted(table));
        let began = Instant::now();
        // The `CREATE TABLE` of another session may not have ended yet.
        while !self.knows(&name).await? {
            if began.elapsed() >= CREATING_MAX {
                let agreed = self.session.check_schema_agreement().await;
                if matches!(agreed, Ok(Some(_))) {
                    return Ok(false);
                }
                let what = format!("table {name}: the nodes do not agree on the schema");
                return Err(Error::new(Kind::Retry, what));
            }
            tokio::time::sleep(CREATING_LOOK).await;
        }
        Ok(true)
    }

    /// See [`super::super::Sink::unclaimed`].
    ///
    /// # Errors
    /// As those of the cluster: `Retry` while it is not available.
    pub(super) async fn unclaimed(&self, view: &str) -> Result<Unclaimed> {
        if !self.has(view).await? {
            return Ok(Unclaimed::None);
        }
        let name = format!("{}.{}", quoted(&self.keyspace), quoted(view));
        let row = self.rows(&format!("SELECT * FROM {name} LIMIT 1")).await?;
        if row.is_empty() {
            return Ok(Unclaimed::None);
        }
        let comment = "SELECT comment FROM system_schema.tables WHERE keyspace_name = ? AND \
                       table_name = ?";
        let (found, _) = self
            .page(
                comment,
                (self.keyspace.as_str(), view),
                PagingState::start(),
            )
            .await?;
        let found = found
            .maybe_first_row::<(Option<String>,)>()
            .map_err(|e| unreadable("system_schema.tables", e))?;
        Ok(match found {
            Some((Some(comment),)) if comment == MADE => Unclaimed::Ours,
            _ => Unclaimed::Foreign,
        })
    }

    /// Whether the server accepts a query of the table.
    async fn knows(&self, name: &str) -> Result<bool> {
        let cql = format!("SELECT * FROM {name}");
        match self.session.prepare(cql.as_str()).await {
            Ok(_) => Ok(true),
            Err(error) if is_unknown(&error) => Ok(false),
            Err(error) => Err(not_prepared(&cql, error)),
        }
    }

    /// See [`super::super::Sink::drop_view`].
    ///
    /// # Errors
    /// As those of the cluster: `Retry` while it is not available.
    pub(super) async fn drop_view(&self, job: &str, view: &str) -> Result<()> {
        let keyspace = quoted(&self.keyspace);
        self.query(&format!("DROP TABLE IF EXISTS {keyspace}.{}", quoted(view)))
            .await?;
        failpoint::hit(failpoint::SINK_BETWEEN_DROPS);
        let Some(frontier) = self.frontiers(job).await?.remove(view) else {
            return Ok(());
        };
        let delete =
            format!("DELETE FROM {keyspace}.tidemill_frontiers WHERE job = ? AND \"view\" = ?");
        let mut delete = self.of_quorum(&delete).await?;
        // As late as the frontier row itself and no later, so that later epochs do not lose to it.
        delete.set_timestamp(Some(timestamp(frontier.epoch.unwrap_or(0))?));
        self.execute(FRONTIERS, &delete, &(job, view)).await?;
        Ok(())
    }

    /// Prepares a statement about frontiers, or one that reads, at the quorum level.
    pub(super) async fn of_quorum(&self, cql: &str) -> Result<PreparedStatement> {
        let mut statement = self.prepared(cql).await?;
        statement.set_consistency(self.quorum);
        Ok(statement)
    }

    /// Prepares a statement at the level of writes.
    pub(super) async fn prepared(&self, cql: &str) -> Result<PreparedStatement> {
        let prepared = self.session.prepare(cql).await;
        let mut statement = prepared.map_err(|e| not_prepared(cql, e))?;
        // Every statement has a timestamp of its own, so executing it again changes nothing.
        statement.set_is_idempotent(true);
        Ok(statement)
    }

    /// Executes a statement without values, once.
    async fn query(&self, cql: &str) -> Result<()> {
        let query = Box::pin(self.session.query_unpaged(cql, ()));
        query.await.map_err(|e| failed(&format!("`{cql}`"), e))?;
        Ok(())
    }

    /// Reads one page of a query at the quorum level.
    pub(super) async fn page(
        &self,
        cql: &str,
        values: impl SerializeRow,
        from: PagingState,
    ) -> Result<(QueryRowsResult, PagingStateResponse)> {
        let mut statement = Statement::new(cql).with_page_size(PAGE);
        statement.set_consistency(self.quorum);
        statement.set_is_idempotent(true);
        let page = Box::pin(self.session.query_single_page(statement, values, from));
        let (result, next) = page.await.map_err(|e| failed(&format!("`{cql}`"), e))?;
        Ok((
            result.into_rows_result().map_err(|e| unreadable(cql, e))?,
            next,
        ))
    }

    /// Reads all rows of a query.
    async fn rows(&self, cql: &str) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        let mut from = PagingState::start();
        loop {
            let (page, next) = self.page(cql, (), from).await?;
            for row in page.rows::<Row>().map_err(|e| unreadable(cql, e))? {
                rows.push(row.map_err(|e| unreadable(cql, e))?);
            }
            match next {
                PagingStateResponse::HasMorePages { state } => from = state,
                PagingStateResponse::NoMorePages => return Ok(rows),
            }
        }
    }
}

/// The error of preparing a statement: `Retry` if it may pass, otherwise `Data`.
fn not_prepared(cql: &str, error: PrepareError) -> Error {
    let kind = if transient_prepare(&error) {
        Kind::Retry
    } else {
        Kind::Data
    };
    Error::with_source(kind, format!("`{cql}`: {error}"), error)
}

/// The fingerprint in its stored form: 16 hexadecimal digits.
fn fingerprint(table: &Table) -> String {
    format!("{:016x}", table.fingerprint)
}

/// The `Data` error of an answer that does not have the expected columns.
pub(super) fn unreadable(
    what: &str,
    error: impl std::error::Error + Send + Sync + 'static,
) -> Error {
    Error::with_source(Kind::Data, format!("reading `{what}`: {error}"), error)
}

/// The CQL type of a column, and the Arrow type in which its values are sent; `Data` for types that
/// cannot be stored.
pub(super) fn cql_type(data_type: &DataType) -> Result<(&'static str, DataType)> {
    use DataType as D;
    Ok(match data_type {
        D::Boolean => ("boolean", D::Boolean),
        D::Int8 | D::Int16 | D::Int32 | D::UInt8 | D::UInt16 => ("int", D::Int32),
        D::Int64 | D::UInt32 | D::UInt64 => ("bigint", D::Int64),
        D::Float16 | D::Float32 => ("float", D::Float32),
        D::Float64 => ("double", D::Float64),
        D::Utf8 | D::LargeUtf8 | D::Utf8View => ("text", D::Utf8),
        D::Binary | D::LargeBinary | D::BinaryView => ("blob", D::Binary),
        D::Date32 => ("date", D::Date32),
        D::Timestamp(..) => ("timestamp", D::Timestamp(TimeUnit::Millisecond, None)),
        D::Decimal128(precision, scale) => ("decimal", D::Decimal128(*precision, *scale)),
        other => return Err(unsupported(other)),
    })
}
