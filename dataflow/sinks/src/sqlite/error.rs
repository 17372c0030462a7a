//! Classification of SQLite errors: which ones pass, which ones are about a single row.

use rusqlite::ErrorCode;
use tidemill_log::{Error, Kind};

/// The error of a statement: `Retry` if it may pass, otherwise `Data`.
pub(super) fn failed(what: &str, error: rusqlite::Error) -> Error {
    let kind = if transient(&error) {
        Kind::Retry
    } else {
        Kind::Data
    };
    Error::with_source(kind, format!("{what}: {error}"), error)
}

/// Whether an error is about the values of one row: they are too large, or violate a constraint
/// that the table's owner added.
pub(super) fn refuses_a_row(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error_code();
    matches!(
        code,
        Some(ErrorCode::ConstraintViolation | ErrorCode::TooBig | ErrorCode::TypeMismatch)
    )
}

/// Whether the same statement may succeed later: the file is busy, full or unreachable.
pub(super) fn transient(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(
            ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::DiskFull
                | ErrorCode::SystemIoFailure
                | ErrorCode::CannotOpen
                | ErrorCode::OutOfMemory
        )
    )
}
