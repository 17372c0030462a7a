//! The replication connection: pgwire-replication's transport on a runtime of its own, made
//! blocking.
//!
//! A slot and a place flow in, [`Event`]s flow out. The transport answers the server's keepalives
//! on its own thread, also while nobody reads here.

use std::time::Duration;

use pgwire_replication::{
    Lsn, PgWireError, ReplicationClient, ReplicationConfig, ReplicationEvent,
};
use postgres::config::Host;
use tokio::runtime::Runtime;

use super::pgoutput::{self, Message};
use crate::server::Server;
use crate::{Error, Kind, Result};

/// Messages that the transport reads ahead.
const READ_AHEAD: usize = 4_096;
/// How soon the server hears of progress, and how often when there is none: a process of it that
/// stands still is known by that it takes note of nothing.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);
/// How values are written, so that they do not depend on the settings of the server, the database
/// or the role. A table's policies hide no row: a role that they bind is refused instead. No
/// timeout ends a snapshot that waits for what is downstream.
pub(super) const SESSION: &str = "-c datestyle=ISO -c timezone=UTC -c bytea_output=hex \
                                  -c extra_float_digits=1 -c client_encoding=UTF8 \
                                  -c intervalstyle=postgres -c row_security=off \
                                  -c statement_timeout=0 -c lock_timeout=0 \
                                  -c idle_in_transaction_session_timeout=0";

/// What the server says of a slot that is gone.
const GONE: [&str; 3] = ["does not exist", "can no longer get changes", "invalidated"];

/// What the stream says.
#[derive(Debug)]
pub(super) enum Event {
    /// All changes before this LSN were sent.
    Through(u64),
    /// A message.
    Message(Message),
}

/// SQLSTATEs of a text that is none in UTF-8. It stays in the log, so another attempt meets it too.
const NO_TEXT: [&str; 2] = ["SQLSTATE 22021", "SQLSTATE 22P05"];

/// What is said of TLS that another attempt does not mend.
const REFUSED: [&str; 4] = [
    "config error",
    "invalid peer certificate",
    "does not support TLS",
    "received fatal alert",
];

/// An open replication connection.
pub(super) struct Stream {
    // Dropped before the runtime that it lives on.
    client: ReplicationClient,
    runtime: Runtime,
}

impl Stream {
    /// Streams `slot` from `from`.
    pub(super) fn open(server: &Server, slot: &str, from: u64) -> Result<Self> {
        let settings = settings(server, slot)?
            .with_start_lsn(Lsn(from))
            .with_ack_lsn(Lsn(from));
        let runtime = runtime()?;
        let started: std::result::Result<_, PgWireError> = runtime.block_on(async {
            let mut client = ReplicationClient::connect(settings).await?;
            client.wait_started().await?;
            Ok(client)
        });
        match started {
            Ok(client) => Ok(Self { client, runtime }),
            Err(error) => {
                // The slot may be dropped or invalidated a moment after it was looked at.
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

    /// The next event, if one comes within `wait`.
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

    /// Tells the server (within a second) that everything before `lsn` is durable.
    pub(super) fn confirm(&self, lsn: u64) {
        self.client.update_applied_lsn(Lsn(lsn));
    }
}

/// A new slot, with the snapshot that it begins at. The snapshot can be taken over by other
/// sessions as long as this lives.
pub(super) struct NewSlot {
    /// Where the slot begins.
    pub(super) consistent: u64,
    /// The exported snapshot's name.
    pub(super) snapshot: String,
    _session: ReplicationClient,
    _runtime: Runtime,
}

/// How long a new slot lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lasting {
    /// As long as what is returned.
    Temporary,
    /// Until it is dropped.
    Here,
    /// That, and also on standbys that keep the primary's slots.
    Failover,
}

impl Lasting {
    fn command(self, slot: &str) -> String {
        let command = "CREATE_REPLICATION_SLOT";
        match self {
            Self::Temporary => {
                format!("{command} {slot} TEMPORARY LOGICAL pgoutput EXPORT_SNAPSHOT")
            }
            Self::Here => format!("{command} {slot} LOGICAL pgoutput EXPORT_SNAPSHOT"),
            Self::Failover => {
                format!("{command} {slot} LOGICAL pgoutput (SNAPSHOT 'export', FAILOVER true)")
            }
        }
    }
}

/// Asks on a replication connection.
fn asked(server: &Server, slot: &str, command: &str) -> Result<Vec<Vec<Option<String>>>> {
    let settings = settings(server, slot)?;
    let runtime = runtime()?;
    let rows: std::result::Result<_, PgWireError> = runtime.block_on(async {
        let mut session = ReplicationClient::connect_gated(settings).await?;
        session.simple_query(command).await
    });
    let rows = rows.map_err(|error| wire_error(format!("`{command}`"), error))?;
    let text = |cell: &Option<_>| cell.as_deref().map(text_of);
    let rows = rows.iter().map(|row| row.iter().map(text).collect());
    Ok(rows.collect())
}

fn text_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Where the timelines ended that this one came from.
pub(super) fn timeline_history(server: &Server, slot: &str, timeline: u32) -> Result<String> {
    let mut rows = asked(server, slot, &format!("TIMELINE_HISTORY {timeline}"))?;
    let content = rows.pop().and_then(|row| row.into_iter().nth(1).flatten());
    content.ok_or_else(|| {
        let what = format!("the server has no history of timeline {timeline}");
        Error::new(Kind::Data, what)
    })
}

/// Has standbys keep a slot that nobody reads.
pub(super) fn fail_over(server: &Server, slot: &str) -> Result<()> {
    asked(
        server,
        slot,
        &format!("ALTER_REPLICATION_SLOT {slot} (FAILOVER true)"),
    )
    .map(drop)
}

/// Creates `slot` and exports the snapshot that it begins at.
pub(super) fn create_slot(server: &Server, slot: &str, lasting: Lasting) -> Result<NewSlot> {
    let settings = settings(server, slot)?;
    let runtime = runtime()?;
    let created: std::result::Result<_, PgWireError> = runtime.block_on(async {
        let mut session = ReplicationClient::connect_gated(settings).await?;
        let rows = session.simple_query(&lasting.command(slot)).await?;
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
            _runtime: runtime,
        }),
        _ => Err(Error::new(
            Kind::Bug,
            format!("creating replication slot `{slot}` gave no consistent point and snapshot"),
        )),
    }
}

fn runtime() -> Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("capture")
        .enable_all()
        .build()
        .map_err(|error| {
            Error::with_source(
                Kind::Retry,
                format!("starting capture's thread: {error}"),
                error,
            )
        })
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

/// Why the stream broke off: [`Kind::Data`] if it would break off at the same place again.
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

/// What the server answers is for a person to mend unless it says that it is only not ready.
fn wire_error(what: String, error: PgWireError) -> Error {
    let text = error.to_string();
    let passing = [
        "is active",
        // A slot that was dropped just before: by one that had lost the lease, and does not know.
        "already exists",
        "shutting down",
        "starting up",
        "terminating connection",
        // Of slots or connections there are none left.
        "SQLSTATE 53",
    ];
    let kind = match &error {
        PgWireError::Server(_) if !passing.iter().any(|p| text.contains(p)) => Kind::Data,
        PgWireError::Auth(_) | PgWireError::MessageTooLarge { .. } => Kind::Data,
        // Of TLS only a broken connection passes.
        PgWireError::Tls(why) if REFUSED.iter().any(|part| why.contains(part)) => Kind::Data,
        _ => Kind::Retry,
    };
    let refused = matches!(error, PgWireError::Auth(_))
        || ["authentication failed", "permission denied"]
            .iter()
            .any(|it| text.contains(it));
    Error::with_source(kind, format!("{what}: {text}"), error).refused_if(refused)
}
