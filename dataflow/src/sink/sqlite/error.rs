//! Errors of the file: which pass, which are about a row, and how they are told.

use rusqlite::ErrorCode;

use crate::{Error, Kind};

pub(super) fn failed(what: &str, error: rusqlite::Error) -> Error {
    let kind = if transient(&error) {
        Kind::Retry
    } else {
        Kind::Data
    };
    Error::with_source(kind, format!("{what}: {error}"), error)
}

/// Whether an error is about the values of one row: too much of them, or against a rule that the
/// table's owner added.
pub(super) fn refuses_a_row(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error_code();
    matches!(
        code,
        Some(ErrorCode::ConstraintViolation | ErrorCode::TooBig | ErrorCode::TypeMismatch)
    )
}

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
