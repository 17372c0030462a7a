//! Retries of Cassandra statements: which errors pass by themselves, and the retry loop.

use std::time::Duration;

use scylla::errors::{BadQuery, DbError, ExecutionError, PrepareError, RequestAttemptError};
use scylla::response::query_result::QueryResult;
use scylla::serialize::row::SerializeRow;
use scylla::statement::prepared::PreparedStatement;
use tidemill_log::backoff::Backoff;
use tidemill_log::{Error, Kind, Result};

use super::connected::Connected;
use super::health::{WRITE, Waiting};

/// The first pause between two attempts.
const FIRST_BACK_OFF: Duration = Duration::from_millis(20);
/// The longest pause between two attempts.
const MAX_BACK_OFF: Duration = Duration::from_secs(5);

impl Connected {
    /// Executes a statement, and retries without limit while the error may pass. A right that was
    /// revoked since the statement was prepared counts as such an error.
    ///
    /// # Errors
    /// `Data` with the statement's table when the error does not pass.
    pub(super) async fn execute(
        &self,
        table: &str,
        statement: &PreparedStatement,
        values: &(impl SerializeRow + Sync),
    ) -> Result<QueryResult> {
        let executed = self.attempt(table, statement, values).await;
        executed.map_err(|error| failed(&format!("writing to table `{table}`"), error))
    }

    /// As [`Connected::execute`], with the driver's own error.
    pub(super) async fn attempt(
        &self,
        table: &str,
        statement: &PreparedStatement,
        values: &(impl SerializeRow + Sync),
    ) -> std::result::Result<QueryResult, ExecutionError> {
        let mut backoff = Backoff::new(FIRST_BACK_OFF, MAX_BACK_OFF);
        let mut waiting = None;
        loop {
            // The driver's future is large. Boxing it keeps a lane small.
            let attempt = Box::pin(self.session.execute_unpaged(statement, values));
            match attempt.await {
                Ok(result) => return Ok(result),
                Err(error) if transient(&error) || is_refusal(&error) => {
                    waiting.get_or_insert_with(|| Waiting::new(&self.health, table, &error));
                    // The cause may have changed since the first failure.
                    self.health.reports.down(WRITE, &error);
                    tokio::time::sleep(backoff.pause()).await;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// The reason if an error may be about the values of a statement. The same error may also be about
/// the statement itself; preparing the statement again tells the two apart.
pub(super) fn of_values(error: &ExecutionError) -> Option<String> {
    match error {
        ExecutionError::LastAttemptError(RequestAttemptError::DbError(DbError::Invalid, why)) => {
            guardrail(why).is_none_or(is_of_values).then(|| why.clone())
        }
        ExecutionError::BadQuery(
            bad @ (BadQuery::ValuesTooLongForKey(..) | BadQuery::SerializationError(_)),
        ) => Some(bad.to_string()),
        _ => None,
    }
}

/// The error of a statement, as the sink reports it: `Retry` if it may pass, otherwise `Data`.
pub(super) fn failed(what: &str, error: ExecutionError) -> Error {
    let kind = if transient(&error) {
        Kind::Retry
    } else {
        Kind::Data
    };
    let refused = is_refusal(&error);
    Error::with_source(kind, format!("{what}: {error}"), error).refused_if(refused)
}

/// Whether the cluster refuses the request for a reason that an operator may change: a missing
/// right, or a guardrail that is not about a row, such as one on consistency levels or full disks.
fn is_refusal(error: &ExecutionError) -> bool {
    let ExecutionError::LastAttemptError(RequestAttemptError::DbError(error, why)) = error else {
        return false;
    };
    match error {
        DbError::Unauthorized => true,
        DbError::Invalid => guardrail(why).is_some_and(|name| !is_of_values(name)),
        _ => false,
    }
}

/// The name of the guardrail that an answer says was violated.
fn guardrail(why: &str) -> Option<&str> {
    let (name, _) = why.strip_prefix("Guardrail ")?.split_once(" violated")?;
    Some(name)
}

/// Whether a guardrail limits the values of one row.
fn is_of_values(guardrail: &str) -> bool {
    let of_values = ["value_size", "collection", "vector_dimensions", "term_size"];
    of_values.iter().any(|part| guardrail.contains(part))
}

/// Whether the same statement may succeed later.
pub(super) fn transient(error: &ExecutionError) -> bool {
    match error {
        ExecutionError::EmptyPlan
        | ExecutionError::ConnectionPoolError(_)
        | ExecutionError::RequestTimeout(_)
        | ExecutionError::SchemaAgreementError(_)
        | ExecutionError::MetadataError(_)
        | ExecutionError::PrepareError(PrepareError::ConnectionPoolError(_)) => true,
        ExecutionError::LastAttemptError(attempt) => transient_attempt(attempt),
        _ => false,
    }
}

/// Whether preparing the same statement may succeed later.
pub(super) fn transient_prepare(error: &PrepareError) -> bool {
    match error {
        PrepareError::ConnectionPoolError(_) => true,
        PrepareError::AllAttemptsFailed { first_attempt } => transient_attempt(first_attempt),
        _ => false,
    }
}

/// Whether the server does not know what the statement names. A table that another session is still
/// creating gives the same errors.
pub(super) fn is_unknown(error: &PrepareError) -> bool {
    matches!(
        error,
        PrepareError::AllAttemptsFailed {
            first_attempt: RequestAttemptError::DbError(DbError::Invalid | DbError::ServerError, _)
        }
    )
}

/// Whether one attempt failed for a reason that may pass.
fn transient_attempt(error: &RequestAttemptError) -> bool {
    match error {
        RequestAttemptError::UnableToAllocStreamId
        | RequestAttemptError::BrokenConnectionError(_) => true,
        RequestAttemptError::DbError(error, _) => matches!(
            error,
            DbError::Unavailable { .. }
                | DbError::Overloaded
                | DbError::IsBootstrapping
                | DbError::TruncateError
                | DbError::ReadTimeout { .. }
                | DbError::WriteTimeout { .. }
                | DbError::ReadFailure { .. }
                | DbError::WriteFailure { .. }
                | DbError::RateLimitReached { .. }
                | DbError::ServerError
        ),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_is_tried_again_and_what_is_wrong_is_not() {
        let of = |e| ExecutionError::LastAttemptError(RequestAttemptError::DbError(e, "x".into()));
        assert!(transient(&of(DbError::Overloaded)));
        assert!(transient(&of(DbError::IsBootstrapping)));
        assert!(transient(&ExecutionError::RequestTimeout(
            Duration::from_secs(1)
        )));
        assert!(is_refusal(&of(DbError::Unauthorized)) && !is_refusal(&of(DbError::Invalid)));
        for wrong in [DbError::Invalid, DbError::SyntaxError] {
            let error = failed("writing", of(wrong));
            assert_eq!(error.kind(), Kind::Data, "{error}");
        }
        assert_eq!(of_values(&of(DbError::Invalid)).unwrap(), "x");
        let guarded = |name: &str| {
            let why = format!("Guardrail {name} violated: no");
            ExecutionError::LastAttemptError(RequestAttemptError::DbError(DbError::Invalid, why))
        };
        let (size, level) = (
            guarded("column_value_size"),
            guarded("write_consistency_levels"),
        );
        assert!(of_values(&size).is_some() && !is_refusal(&size));
        assert!(of_values(&level).is_none() && is_refusal(&level));
        for other in [
            DbError::Unauthorized,
            DbError::SyntaxError,
            DbError::Overloaded,
        ] {
            assert_eq!(of_values(&of(other)), None);
        }
    }
}
