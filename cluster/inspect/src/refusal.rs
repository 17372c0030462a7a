//! Why a request has no answer, and the HTTP status that says so.
//!
//! | status | when |
//! |---|---|
//! | 400 | the request is wrong, or a service refuses it for good |
//! | 404 | there is no such topic, subject, view or letter, or the process runs another job |
//! | 429 | too many requests run already |
//! | 503 | the process starts, or a service does not answer |

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tidemill_log::Kind;
use tidemill_protocol::redact;

/// Why a request has no answer.
#[derive(Debug)]
pub enum Refusal {
    /// The request is wrong, or a service refuses it for good.
    Wrong(String),
    /// What is asked for does not exist.
    Missing(String),
    /// A service does not answer now.
    Away(String),
    /// An invariant does not hold.
    Bug(String),
}

/// What a request of this crate gives.
pub(crate) type Answer<T> = Result<T, Refusal>;

impl Refusal {
    /// The status and the text, which has no passwords.
    fn parts(&self) -> (StatusCode, String) {
        let (status, why) = match self {
            Self::Wrong(why) => (StatusCode::BAD_REQUEST, why),
            Self::Missing(why) => (StatusCode::NOT_FOUND, why),
            Self::Away(why) => (StatusCode::SERVICE_UNAVAILABLE, why),
            Self::Bug(why) => (StatusCode::INTERNAL_SERVER_ERROR, why),
        };
        (status, redact::text(why).into_owned())
    }
}

impl From<tidemill_log::Error> for Refusal {
    fn from(error: tidemill_log::Error) -> Self {
        let why = whole(&error);
        match error.kind() {
            Kind::Retry => Self::Away(why),
            Kind::Data => Self::Wrong(why),
            Kind::Fence | Kind::Bug => Self::Bug(why),
        }
    }
}

impl From<anyhow::Error> for Refusal {
    fn from(error: anyhow::Error) -> Self {
        match error.downcast::<tidemill_log::Error>() {
            Ok(error) => error.into(),
            Err(error) => Self::Wrong(format!("{error:#}")),
        }
    }
}

/// An error with its causes.
fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text += &format!(": {inner}");
        cause = inner.source();
    }
    text
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.parts().1)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, why) = self.parts();
        failed(status, &why)
    }
}

/// An error as JSON.
pub(crate) fn failed(status: StatusCode, why: &str) -> Response {
    (status, Json(json!({ "error": why }))).into_response()
}
