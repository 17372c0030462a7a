//! What rules compare: each measure in the status of a job and in PromQL.

use std::time::Duration;

use tidemill_protocol::{JobState, JobStatus};

/// How the value of a measure is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// A time, in seconds.
    Seconds,
    /// A number of bytes.
    Bytes,
    /// A number of things.
    Count,
}

/// A number that a rule compares with its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// The 99th percentile of the time from commit to readable.
    Freshness,
    /// How long the oldest change that is not in every view has waited.
    Lag,
    /// Records in the log that are not in every view.
    Behind,
    /// New dead letters of the last 15 minutes.
    DeadLetters,
    /// Keys whose newest change could not be published or decoded.
    KeysInError,
    /// Generations that ended by themselves within the last 10 minutes.
    Restarts,
    /// How far the newest checkpoint is behind the epoch that the views show.
    CheckpointAge,
    /// Workers that were asked for and do not run.
    WorkersMissing,
    /// 1 while the job should run and does not.
    NotRunning,
    /// Services that are down.
    ServicesDown,
    /// Bytes of WAL that PostgreSQL keeps for the replication slot.
    WalKept,
    /// The used share, in percent, of the fullest disk with state or embedded files of the job.
    DiskUsed,
}

impl Measure {
    /// All measures, in the order of the documentation.
    pub const ALL: [Self; 12] = [
        Self::Freshness,
        Self::Lag,
        Self::Behind,
        Self::DeadLetters,
        Self::KeysInError,
        Self::Restarts,
        Self::CheckpointAge,
        Self::WorkersMissing,
        Self::NotRunning,
        Self::ServicesDown,
        Self::WalKept,
        Self::DiskUsed,
    ];

    /// The name in `alerts.toml`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Freshness => "freshness_p99",
            Self::Lag => "lag",
            Self::Behind => "behind",
            Self::DeadLetters => "new_dead_letters",
            Self::KeysInError => "keys_in_error",
            Self::Restarts => "restarts",
            Self::CheckpointAge => "checkpoint_age",
            Self::WorkersMissing => "workers_missing",
            Self::NotRunning => "not_running",
            Self::ServicesDown => "services_down",
            Self::WalKept => "wal_kept",
            Self::DiskUsed => "disk_used",
        }
    }

    /// What the value says, for people.
    #[must_use]
    pub const fn what(self) -> &'static str {
        match self {
            Self::Freshness => "99th percentile of the time from commit to readable",
            Self::Lag => "age of the oldest change that is not in every view",
            Self::Behind => "records in the log that are not in every view",
            Self::DeadLetters => "new dead letters within 15 minutes",
            Self::KeysInError => "keys whose newest change is in no view",
            Self::Restarts => "generations that ended by themselves within 10 minutes",
            Self::CheckpointAge => "time from the newest checkpoint to the epoch of the views",
            Self::WorkersMissing => "workers that were asked for and do not run",
            Self::NotRunning => "1 while the job should run and does not",
            Self::ServicesDown => "services that are down",
            Self::WalKept => "WAL that PostgreSQL keeps for the replication slot",
            Self::DiskUsed => "percent in use of the fullest disk with state or embedded files",
        }
    }

    /// The unit of the value.
    #[must_use]
    pub const fn unit(self) -> Unit {
        match self {
            Self::Freshness | Self::Lag | Self::CheckpointAge => Unit::Seconds,
            Self::WalKept => Unit::Bytes,
            _ => Unit::Count,
        }
    }

    /// For a measure of what is new: the time over which it is counted.
    #[must_use]
    pub const fn window(self) -> Option<Duration> {
        match self {
            Self::DeadLetters => Some(Duration::from_secs(15 * 60)),
            Self::Restarts => Some(Duration::from_secs(10 * 60)),
            _ => None,
        }
    }

    /// The value in a status; for a measure with a [`Measure::window`], its counter. `None` when
    /// the status does not know it.
    #[must_use]
    pub fn of(self, job: &JobStatus) -> Option<f64> {
        let seconds = |ms: u64| ms as f64 / 1000.0;
        let count = |number: usize| number as f64;
        match self {
            Self::Freshness => job.freshness_p99_ms.map(seconds),
            Self::Lag => job.lag_ms.map(seconds),
            Self::Behind => job.behind.map(|behind| behind as f64),
            Self::DeadLetters => Some(job.dead_letters as f64),
            Self::KeysInError => Some(job.keys_in_error as f64),
            Self::Restarts => {
                let of_ingest = job.ingest.as_ref().map_or(0, |ingest| ingest.restarts);
                Some((job.restarts + of_ingest) as f64)
            }
            // Before the first epoch or the first checkpoint there is nothing to compare.
            Self::CheckpointAge => (job.epoch > 0 && job.checkpointed > 0)
                .then(|| seconds(job.epoch.saturating_sub(job.checkpointed))),
            Self::WorkersMissing => Some(match job.state {
                JobState::Stopped => 0.0,
                _ => count(job.workers_wanted.saturating_sub(job.workers)),
            }),
            Self::NotRunning => {
                let fine = job.state.is_live()
                    || matches!(job.state, JobState::Draining | JobState::Stopped);
                Some(f64::from(!fine))
            }
            Self::ServicesDown => {
                let down = job.dependencies.iter().filter(|it| it.is_down());
                Some(count(down.count()))
            }
            Self::WalKept => {
                let ingest = job.ingest.as_ref()?;
                ingest.wal_kept.map(|bytes| bytes as f64)
            }
            Self::DiskUsed => {
                let (free, size) = job.disk_free.zip(job.disk_size)?;
                (size > 0).then(|| 100.0 * (1.0 - free as f64 / size as f64))
            }
        }
    }

    /// The value in PromQL, one per job. The metrics of a master come before those of a process.
    #[must_use]
    pub const fn promql(self) -> &'static str {
        match self {
            Self::Freshness => {
                "max by (job) (tidemill_job_freshness_seconds{quantile=\"0.99\"} or \
                 tidemill_recent_freshness_seconds{quantile=\"0.99\"})"
            }
            Self::Lag => {
                "max by (job) (tidemill_job_lag_seconds or tidemill_lag_seconds or \
                 tidemill_ingest_lag_seconds)"
            }
            Self::Behind => {
                "max by (job) (tidemill_job_lag_records or sum by (job) (tidemill_lag_records))"
            }
            Self::DeadLetters => {
                "sum by (job) (label_replace(increase(tidemill_dead_letters_total[15m]), \
                 \"stage\", \"dataflow\", \"\", \"\") or label_replace(increase(\
                 tidemill_ingest_dead_letters_total[15m]), \"stage\", \"ingest\", \"\", \"\"))"
            }
            Self::KeysInError => {
                "max by (job) (tidemill_job_keys_in_error or sum by (job) \
                 (tidemill_keys_in_error))"
            }
            Self::Restarts => "sum by (job) (increase(tidemill_job_restarts_total[10m]))",
            Self::CheckpointAge => {
                "max by (job) (tidemill_epoch_durable_timestamp_seconds - \
                 tidemill_epoch_checkpointed_timestamp_seconds)"
            }
            Self::WorkersMissing => {
                "max by (job) (tidemill_job_workers_wanted - tidemill_job_workers)"
            }
            Self::NotRunning => "max by (job) (1 - tidemill_job_running or 1 - tidemill_ready)",
            Self::ServicesDown => {
                "count by (job) (tidemill_job_dependency_up == 0 or tidemill_dependency_up == 0)"
            }
            Self::WalKept => "max by (job) (tidemill_ingest_wal_kept_bytes)",
            Self::DiskUsed => {
                "max by (job) (100 - 100 * tidemill_disk_free_bytes / tidemill_disk_size_bytes)"
            }
        }
    }
}
