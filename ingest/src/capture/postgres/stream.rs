//! The replication connection: logical replication over pgwire-replication, with a blocking
//! interface.
//!
//! In: a slot and an LSN. Out: [`Event`]s. The transport runs on its own thread and answers the
//! server's keepalives, also while nobody reads here. Commands are those of PostgreSQL's manual,
//! section "Streaming Replication Protocol".

pub(crate) mod timeline;

use std::time::Duration;

use pgwire_replication::{
    Lsn, PgWireError, ReplicationClient, ReplicationConfig, ReplicationEvent,
};
use postgres::config::Host;
use tidemill_log::io;
use tokio::runtime::Handle;

use super::pgoutput;
use super::pgoutput::Message;
use crate::{Error, Kind, Result};
use tidemill_postgres::Server;

/// Number of messages that the transport reads ahead.
const READ_AHEAD: usize = 4_096;
/// Interval of the status messages to the server. They are sent also without progress, so that a
/// frozen server process is noticed.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);
/// Settings of every session, so that the text of values does not depend on the settings of server,
/// database or role. `row_security = off` makes the server refuse a role from which policies would
/// hide rows. No timeout ends a snapshot that waits for what is downstream.
pub(super) const SESSION: &str = "-c datestyle=ISO -c timezone=UTC -c bytea_output=hex \
                                  -c extra_float_digits=1 -c client_encoding=UTF8 \
                                  -c intervalstyle=postgres -c row_security=off \
                                  -c statement_timeout=0 -c lock_timeout=0 \
                                  -c idle_in_transaction_session_timeout=0";

/// Parts of the server's messages about a slot that does not exist any more or is invalid.
const GONE: [&str; 3] = ["does not exist", "can no longer get changes", "invalidated"];

/// An event of the stream.
#[derive(Debug)]
pub(super) enum Event {
    /// All changes before this LSN were sent (a keepalive).
    Through(u64),
    /// A message of pgoutput.
    Message(Message),
}

/// SQLSTATEs of a text that is not valid UTF-8. The text stays in the WAL, so another attempt fails
/// too.
const NO_TEXT: [&str; 2] = ["SQLSTATE 22021", "SQLSTATE 22P05"];

/// Parts of TLS errors that another attempt does not correct.
const REFUSED: [&str; 4] = [
    "config error",
    "invalid peer certificate",
    "does not support TLS",
    "received fatal alert",
];

/// An open replication connection.
pub(super) struct Stream {
    /// The transport's connection.
    client: ReplicationClient,
    /// The runtime of the transport.
    runtime: Handle,
}

impl Stream {
    /// Starts streaming `slot` from the LSN `from` (START_REPLICATION).
    ///
    /// # Errors
    /// `Data` when the slot does not exist or is invalid, or the server refuses; `Retry` when the
    /// server cannot be reached or the slot is still in use.
    pub(super) fn open(server: &Server, slot: &str, from: u64) -> Result<Self> {
        let settings = settings(server, slot)?
            .with_start_lsn(Lsn(from))
            .with_ack_lsn(Lsn(from));
        let runtime = io::runtime()?;
        let started: std::result::Result<_, PgWireError> = runtime.block_on(async {
            let mut client = ReplicationClient::connect(settings).await?;
            client.wait_started().await?;
            Ok(client)
        });
        match started {
            Ok(client) => Ok(Self { client, runtime }),
            Err(error) => {
                // The slot may have been dropped or invalidated after it was checked.
                let text = error.to_string();
                let gone = GONE.iter().any(|part| text.contains(part));
                let error = wire_error(format!("streaming slot `{slot}`"), error);
                Err(match gone && error.kind() == Kind::Data {
                    true => {
                        let what = format!("{error}{}", super::advice::ADVICE);
                        Error::with_source(Kind::Data, what, error)
                    }
                    false => error,
                })
            }
        }
    }

    /// The next event; `None` when none comes within `wait`.
    ///
    /// # Errors
    /// `Retry` when the connection is lost; `Data` for a text that is not UTF-8; `Bug` for bytes
    /// that are not pgoutput.
    pub(super) fn next(&mut self, wait: Duration) -> Result<Option<Event>> {
        let client = &mut self.client;
        let received = self
            .runtime
            .block_on(async { tokio::time::timeout(wait, client.recv()).await });
        let event = match received {
            Err(_elapsed) => return Ok(None),
            Ok(Ok(Some(event))) => event,
            Ok(Ok(None)) => {
                let what = "the server ended the replication stream";
                return Err(Error::new(Kind::Retry, what));
            }
            Ok(Err(error)) => return Err(stream_error(error)),
        };
        Ok(Some(match event {
            ReplicationEvent::KeepAlive { wal_end, .. } => Event::Through(wal_end.as_u64()),
            ReplicationEvent::Begin {
                final_lsn,
                xid,
                commit_time_micros,
            } => Event::Message(Message::Begin {
                commit_lsn: final_lsn.as_u64(),
                committed_us: pgoutput::unix_us(commit_time_micros),
                xid,
            }),
            ReplicationEvent::Commit { end_lsn, .. } => Event::Message(Message::Commit {
                end_lsn: end_lsn.as_u64(),
            }),
            ReplicationEvent::XLogData { data, .. } => {
                Event::Message(pgoutput::decode(data).map_err(|error| {
                    let what = format!("cannot read PostgreSQL's stream: {error}");
                    Error::with_source(Kind::Bug, what, error)
                })?)
            }
            ReplicationEvent::Message { .. } | ReplicationEvent::StoppedAt { .. } => {
                Event::Message(Message::Other)
            }
        }))
    }

    /// Tells the server, with the next status message, that everything before `lsn` is durable.
    pub(super) fn confirm(&self, lsn: u64) {
        self.client.update_applied_lsn(Lsn(lsn));
    }
}

/// A new slot and its exported snapshot. Other sessions can import the snapshot as long as this
/// value lives.
pub(super) struct NewSlot {
    /// The consistent point: the LSN at which the slot begins.
    pub(super) consistent: u64,
    /// The name of the exported snapshot.
    pub(super) snapshot: String,
    /// The session that exported the snapshot.
    _session: ReplicationClient,
}

/// The kind of a new slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SlotKind {
    /// Dropped at the end of its session.
    Temporary,
    /// Persistent, on this server only.
    Persistent,
    /// Persistent, and synchronized to standbys (PostgreSQL 17).
    Failover,
}

impl SlotKind {
    /// The command that creates such a slot.
    fn command(self, slot: &str) -> String {
        let command = "CREATE_REPLICATION_SLOT";
        match self {
            Self::Temporary => {
                format!("{command} {slot} TEMPORARY LOGICAL pgoutput EXPORT_SNAPSHOT")
            }
            Self::Persistent => format!("{command} {slot} LOGICAL pgoutput EXPORT_SNAPSHOT"),
            Self::Failover => {
                format!("{command} {slot} LOGICAL pgoutput (SNAPSHOT 'export', FAILOVER true)")
            }
        }
    }
}

/// Runs one command on a replication connection and returns its rows.
fn asked(server: &Server, slot: &str, command: &str) -> Result<Vec<Vec<Option<String>>>> {
    let settings = settings(server, slot)?;
    let runtime = io::runtime()?;
    let rows: std::result::Result<_, PgWireError> = runtime.block_on(async {
        let mut session = ReplicationClient::connect_gated(settings).await?;
        session.simple_query(command).await
    });
    let rows = rows.map_err(|error| wire_error(format!("`{command}`"), error))?;
    let text = |cell: &Option<_>| cell.as_deref().map(text_of);
    let rows = rows.iter().map(|row| row.iter().map(text).collect());
    Ok(rows.collect())
}

/// Bytes as text.
fn text_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The history file of a timeline: which timelines it came from, and where they ended
/// (TIMELINE_HISTORY).
pub(super) fn timeline_history(server: &Server, slot: &str, timeline: u32) -> Result<String> {
    let mut rows = asked(server, slot, &format!("TIMELINE_HISTORY {timeline}"))?;
    let content = rows.pop().and_then(|row| row.into_iter().nth(1).flatten());
    content.ok_or_else(|| {
        let what = format!("the server has no history of timeline {timeline}");
        Error::new(Kind::Data, what)
    })
}

/// Makes a slot that is not in use a failover slot.
pub(super) fn fail_over(server: &Server, slot: &str) -> Result<()> {
    asked(
        server,
        slot,
        &format!("ALTER_REPLICATION_SLOT {slot} (FAILOVER true)"),
    )
    .map(drop)
}

/// Creates `slot` and exports the snapshot at its consistent point (CREATE_REPLICATION_SLOT).
///
/// # Errors
/// `Data` when the server refuses; `Retry` when it cannot be reached, has no slot left or the name
/// is still in use.
pub(super) fn create_slot(server: &Server, slot: &str, kind: SlotKind) -> Result<NewSlot> {
    let settings = settings(server, slot)?;
    let runtime = io::runtime()?;
    let created: std::result::Result<_, PgWireError> = runtime.block_on(async {
        let mut session = ReplicationClient::connect_gated(settings).await?;
        let rows = session.simple_query(&kind.command(slot)).await?;
        Ok((session, rows))
    });
    let (session, rows) = created.map_err(|error: PgWireError| {
        let is_full = error.to_string().contains("SQLSTATE 53400");
        let way = match is_full {
            true => " (drop slots that nobody reads, or raise max_replication_slots)",
            false => "",
        };
        wire_error(format!("creating replication slot `{slot}`{way}"), error)
    })?;
    let cell = |index: usize| {
        let cell = rows.first().and_then(|row| row.get(index)?.as_deref());
        cell.map(|bytes| String::from_utf8_lossy(bytes).into_owned())
    };
    let consistent = cell(1).and_then(|text| Lsn::parse(&text).ok());
    match (consistent, cell(2)) {
        (Some(consistent), Some(snapshot)) => Ok(NewSlot {
            consistent: consistent.as_u64(),
            snapshot,
            _session: session,
        }),
        _ => Err(Error::new(
            Kind::Bug,
            format!("creating replication slot `{slot}` gave no consistent point and snapshot"),
        )),
    }
}

/// The transport's settings from a libpq URL.
fn settings(server: &Server, slot: &str) -> Result<ReplicationConfig> {
    let config = server.config();
    let host = match config.get_hosts().first() {
        Some(Host::Tcp(host)) => host.clone(),
        Some(Host::Unix(folder)) => folder.to_string_lossy().into_owned(),
        None => return Err(Error::new(Kind::Data, "the PostgreSQL URL names no host")),
    };
    let user = config.get_user().unwrap_or("postgres");
    let tls = server.replication(&host);
    let password = String::from_utf8_lossy(config.get_password().unwrap_or_default());
    let database = config.get_dbname().unwrap_or(user);
    Ok(
        ReplicationConfig::new(host, user, password, database, slot, slot)
            .with_port(server.port())
            .with_tls(tls)
            .with_options(SESSION)
            .with_status_interval(STATUS_INTERVAL)
            .with_wakeup_interval(STATUS_INTERVAL)
            .with_buffer_size(READ_AHEAD),
    )
}

/// The error of a broken stream: `Data` if the stream would break at the same place again.
fn stream_error(error: PgWireError) -> Error {
    let text = error.to_string();
    if !NO_TEXT.iter().any(|code| text.contains(code)) {
        let what = format!("reading the stream: {text}");
        return Error::with_source(Kind::Retry, what, error);
    }
    let what = format!(
        "reading the stream: {text}: correct the rows with such a text, then run `tidemill ingest \
         --resnapshot`"
    );
    Error::with_source(Kind::Data, what, error)
}

/// The error of a command: `Retry` when the server is not ready, `Data` for other answers of the
/// server.
fn wire_error(what: String, error: PgWireError) -> Error {
    let text = error.to_string();
    let passing = [
        "is active",
        // A process that lost the lease without knowing it may have created the slot.
        "already exists",
        "shutting down",
        "starting up",
        "terminating connection",
        // No slot or connection is left.
        "SQLSTATE 53",
    ];
    let kind = match &error {
        PgWireError::Server(_) if !passing.iter().any(|p| text.contains(p)) => Kind::Data,
        PgWireError::Auth(_) | PgWireError::MessageTooLarge { .. } => Kind::Data,
        // Among TLS errors only a broken connection passes.
        PgWireError::Tls(why) if REFUSED.iter().any(|part| why.contains(part)) => Kind::Data,
        _ => Kind::Retry,
    };
    let refused = matches!(error, PgWireError::Auth(_))
        || ["authentication failed", "permission denied"]
            .iter()
            .any(|it| text.contains(it));
    Error::with_source(kind, format!("{what}: {text}"), error).refused_if(refused)
}
