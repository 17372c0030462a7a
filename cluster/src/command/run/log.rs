//! The log of `tidemill run` as its control center shows it: the files of `--log-dir`, or else
//! small files in a temporary folder, which is deleted at the end.

use std::path::PathBuf;

use tempfile::TempDir;
use tidemill_logs::logging::LogArgs;

/// Size of a temporary log file, in bytes. Two are kept.
const TEMPORARY_BYTES: u64 = 4 << 20;

/// Where the log is.
pub(super) struct RunLog {
    /// The flags, with a folder if there can be one.
    pub(super) args: LogArgs,
    /// Deleted when this is dropped.
    _temporary: Option<TempDir>,
}

impl RunLog {
    /// The log that the flags ask for, in files too.
    pub(super) fn of(args: &LogArgs) -> Self {
        let mut args = args.clone();
        let mut temporary = None;
        if args.log_dir.is_none() {
            // Without a place for files, the control center shows no log.
            temporary = tempfile::Builder::new().prefix("tidemill-").tempdir().ok();
            args.log_dir = temporary.as_ref().map(|it| it.path().to_owned());
            (args.log_size, args.log_keep) = (TEMPORARY_BYTES, 2);
        }
        Self {
            args,
            _temporary: temporary,
        }
    }

    /// The folder of the files.
    pub(super) fn folder(&self) -> Option<PathBuf> {
        self.args.log_dir.clone()
    }
}
