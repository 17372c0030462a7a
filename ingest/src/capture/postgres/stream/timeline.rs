//! Timelines: detects that a standby was promoted, and that changes of the old primary are lost.
//!
//! A promoted standby begins a new timeline. WAL of the old primary behind the fork is not part of
//! it:
//!
//! ```text
//! timeline 1   ───────────── fork ── x ── y      x, y: published by the old capture, now lost
//! timeline 2                   └──── a ── b      positions of a and b may equal those of x and y
//! ```
//!
//! If a topic holds changes behind the fork, the capture must not continue: readers would take the
//! next changes for duplicates of the lost ones.
//!
//! Invariant: the timeline is recorded in `_tidemill_capture` only after all topics were compared
//! with its beginning, and before a change of it is published.

use postgres::Client;
use tidemill_log::envelope::event::Position;

use crate::capture::postgres::advice::ADVICE;
use crate::capture::postgres::{lsn_text, sql_error, stream};
use crate::{Error, Kind, Result};
use tidemill_postgres::Server;

/// The server's timeline, compared with the captured one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Timeline {
    /// The server's timeline.
    pub(crate) now: u32,
    /// The LSN of the fork, where the captured timeline ended; `None` when the timeline is the same
    /// or none was recorded.
    pub(crate) left_at: Option<u64>,
}

/// The timeline that the server writes now.
pub(crate) fn now(client: &mut Client) -> Result<u32> {
    let row = client
        .query_one("SELECT left(pg_walfile_name(pg_current_wal_lsn()), 8)", &[])
        .map_err(|error| sql_error("asking for the server's timeline".to_owned(), error))?;
    let text: String = row.get(0);
    u32::from_str_radix(&text, 16).map_err(|error| {
        let what = format!("the server's timeline is `{text}`");
        Error::with_source(Kind::Bug, what, error)
    })
}

impl Timeline {
    /// Compares the server's timeline with the recorded one.
    ///
    /// # Errors
    /// `Data` when the server's timeline did not come from the recorded one.
    pub(crate) fn find(server: &Server, client: &mut Client, slot: &str) -> Result<Self> {
        let now = now(client)?;
        let noted = noted(client, slot)?;
        let left_at = match noted {
            Some(noted) if noted != now => {
                let history = stream::timeline_history(server, slot, now)?;
                let left_at = end_of(&history, noted).ok_or_else(|| {
                    let what = format!(
                        "the server is on timeline {now}, which did not come from timeline \
                         {noted} that was captured: it is another server, or an older backup \
                         of it{ADVICE}"
                    );
                    Error::new(Kind::Data, what)
                })?;
                tracing::warn!(
                    slot,
                    "the server is on timeline {now}, which left timeline {noted} at {}: a \
                     standby was promoted",
                    lsn_text(left_at)
                );
                Some(left_at)
            }
            _ => None,
        };
        Ok(Self { now, left_at })
    }

    /// Refuses a topic with changes that the server does not have.
    pub(crate) fn has(&self, topic: &str, last: Position) -> Result<()> {
        match self.left_at {
            Some(end) if last.commit >= end => Err(Error::new(
                Kind::Data,
                format!(
                    "topic `{topic}` holds changes up to {}, and the standby that was promoted \
                     has those before {} alone: what was committed between is gone from the \
                     database (synchronized_standby_slots prevents that, docs/operate.md){ADVICE}",
                    lsn_text(last.commit),
                    lsn_text(end)
                ),
            )),
            _ => Ok(()),
        }
    }

    /// Records the timeline as the captured one. The slot of a promoted standby may be ahead of the
    /// recorded progress, since the primary advanced it when that was durable.
    pub(crate) fn note(&mut self, client: &mut Client, slot: &str) -> Result<()> {
        client
            .execute(
                "UPDATE _tidemill_capture SET timeline = $2, confirmed = CASE
                   WHEN timeline IS DISTINCT FROM $2 AND timeline IS NOT NULL AND snapshot_done
                   THEN greatest(confirmed, (SELECT confirmed_flush_lsn FROM pg_replication_slots
                                             WHERE slot_name = $1))
                   ELSE confirmed END
                 WHERE name = $1 AND timeline IS DISTINCT FROM $2",
                &[&slot, &i64::from(self.now)],
            )
            .map_err(|error| sql_error("noting the server's timeline".to_owned(), error))?;
        self.left_at = None;
        Ok(())
    }
}

/// The recorded timeline.
fn noted(client: &mut Client, slot: &str) -> Result<Option<u32>> {
    let row = client
        .query_opt(
            "SELECT timeline FROM _tidemill_capture WHERE name = $1",
            &[&slot],
        )
        .map_err(|error| sql_error("reading table `_tidemill_capture`".to_owned(), error))?;
    let noted: Option<i64> = row.and_then(|row| row.get(0));
    Ok(noted.and_then(|noted| u32::try_from(noted).ok()))
}

/// The LSN at which a timeline ended, from the history file of a descendant. Each line holds a
/// timeline, the LSN at which it was left, and the reason.
fn end_of(history: &str, timeline: u32) -> Option<u64> {
    history.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let of = words.next()?.parse::<u32>().ok()?;
        let end = pgwire_replication::Lsn::parse(words.next()?).ok()?;
        (of == timeline).then(|| end.as_u64())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_gives_the_end_of_each_timeline() {
        let history = "1\t0/3000148\tno recovery target specified\n\n2\t1/A\tand again\n";
        assert_eq!(end_of(history, 1), Some(0x300_0148));
        assert_eq!(end_of(history, 2), Some(0x1_0000_000A));
        assert_eq!(end_of(history, 3), None);
    }

    #[test]
    fn a_topic_may_not_be_ahead_of_the_promoted_standby() {
        let last = |commit| Position { commit, index: 0 };
        let mut timeline = Timeline {
            now: 2,
            left_at: Some(100),
        };
        assert!(timeline.has("t", last(99)).is_ok());
        let said = timeline.has("t", last(100)).unwrap_err().to_string();
        assert!(
            said.contains("--resnapshot") && said.contains("`t`"),
            "{said}"
        );
        timeline.left_at = None;
        assert!(timeline.has("t", last(100)).is_ok());
    }
}
