//! HTTP client for one page of a JSON API: request, timeout, answer, backoff.
//!
//! [`Client::page`] makes exactly one request. The result is the page with its records, byte by
//! byte as received, or a [`Failure`] that says what to do next. Retries are scheduled by the
//! ledger ([`crate::schedule`]), so that there is one mechanism, which survives a restart;
//! [`tidemill_log::backoff`] computes the wait.
//!
//! Invariants:
//! 1. No answer causes a panic.
//! 2. A body larger than [`BODY_BYTES_MAX`] or slower than the timeout is given up.

use std::io::Read;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use reqwest::StatusCode;
use reqwest::blocking::Response;
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName, RETRY_AFTER};
use serde_json::value::RawValue;

use crate::config::{Fetch, PAGE_SIZE};
use crate::{Error, Kind, Result};

mod body;

use body::About;

/// Largest body that is read, in bytes.
pub const BODY_BYTES_MAX: usize = 32 << 20;
/// Longest `Retry-After` that is obeyed; a longer one is shortened to this.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);
/// Number of characters of an answer in an error message.
const SHOWN_CHARS: usize = 80;

/// A page as received.
#[derive(Debug)]
pub struct Page {
    /// The number of the page.
    pub number: u64,
    /// The URL that was requested.
    pub url: String,
    /// The records, each as its unchanged JSON text.
    pub records: Vec<Box<RawValue>>,
    /// Whether the page has as many records as a page can have, so that none can be added.
    pub full: bool,
}

/// Why there is no page.
#[derive(Debug)]
pub struct Failure {
    /// What happened; kind `Retry` when another request may help.
    pub error: Error,
    /// Whether an answer came that cannot be read: another request helps a few times at most.
    pub unreadable: bool,
    /// How long the API asks not to be called (`Retry-After`).
    pub retry_after: Option<Duration>,
    /// The answer, if one came.
    pub body: Option<Vec<u8>>,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self {
            error,
            unreadable: false,
            retry_after: None,
            body: None,
        }
    }
}

/// A client of one API.
#[derive(Debug)]
pub struct Client {
    /// The HTTP client with its timeout.
    http: reqwest::blocking::Client,
    /// How a page is requested.
    fetch: Fetch,
}

impl Client {
    /// A client for the API that `fetch` describes.
    ///
    /// # Errors
    /// `Data` when no HTTP client can be created.
    pub fn new(fetch: &Fetch) -> Result<Self> {
        // Another component may have installed it already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::blocking::Client::builder()
            .timeout(fetch.timeout)
            .user_agent(concat!("tidemill/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| Error::with_source(Kind::Data, "no HTTP client", error))?;
        Ok(Self {
            http,
            fetch: fetch.clone(),
        })
    }

    /// Requests one page.
    ///
    /// # Errors
    /// A [`Failure`] with an error of kind `Retry` when the API does not answer, answers 408, 429
    /// or 5xx, or the answer cannot be read; `Data` for other HTTP errors and for a body that is
    /// too large.
    pub fn page(&self, number: u64) -> std::result::Result<Page, Failure> {
        let url = self.url(number)?;
        let deadline = Instant::now() + self.fetch.timeout;
        let response = self.http.get(&url).send().map_err(|error| {
            // reqwest repeats the URL in its message; the innermost cause says what happened.
            let why = innermost(&error);
            let unreadable = error.is_redirect();
            Failure {
                unreadable,
                ..Error::with_source(Kind::Retry, format!("{url}: no answer: {why}"), error).into()
            }
        })?;
        let status = response.status();
        let header = |name: HeaderName| {
            let value = response.headers().get(name)?;
            value.to_str().ok().map(str::to_owned)
        };
        let retry_after = header(RETRY_AFTER);
        let retry_after = retry_after.and_then(|text| retry_after_of(&text, Timestamp::now()));
        let about = About {
            kind: header(CONTENT_TYPE),
            packed: header(CONTENT_ENCODING),
        };
        let body = read_body(response, &url, deadline)?;
        let beyond =
            status == StatusCode::NO_CONTENT || self.fetch.end_status.contains(&status.as_u16());
        let content = about.kind.as_deref().unwrap_or("no content type");
        if !status.is_success() && !beyond {
            let mut refused = refused(&url, status, retry_after, content, &body);
            if number > 1 && [StatusCode::NOT_FOUND, StatusCode::GONE].contains(&status) {
                let code = status.as_u16();
                let what = format!(
                    "{}; if the API says so of pages behind its last one, give `end_status = \
                     [{code}]` in [fetch]",
                    refused.error
                );
                refused.error = Error::new(Kind::Data, what);
            }
            return Err(refused);
        }
        let records = match beyond {
            true => Ok(Vec::new()),
            false => body::records(&body, &about, &self.fetch.records),
        };
        let records = records.map_err(|why| {
            let what = format!("{url}: {why}; {}", shown(content, &body));
            Failure {
                error: Error::new(Kind::Retry, what),
                unreadable: true,
                retry_after: None,
                body: Some(body),
            }
        })?;
        Ok(Page {
            number,
            url,
            full: self.fetch.full_page() == Some(records.len() as u64),
            records,
        })
    }

    /// The URL of a page, with page size, parameters and page number.
    pub(crate) fn url(&self, number: u64) -> Result<String> {
        let mut url = reqwest::Url::parse(&self.fetch.url).map_err(|error| {
            let what = format!("`{}` is not a URL: {error}", self.fetch.url);
            Error::with_source(Kind::Data, what, error)
        })?;
        {
            let mut query = url.query_pairs_mut();
            if let Some(name) = &self.fetch.page_size_parameter {
                let size = self.fetch.page_size.unwrap_or(PAGE_SIZE);
                query.append_pair(name, &size.to_string());
            }
            for (name, value) in &self.fetch.parameters {
                query.append_pair(name, &value.to_string());
            }
            query.append_pair(&self.fetch.page_parameter, &number.to_string());
        }
        Ok(url.into())
    }
}

/// The message of the innermost cause.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}

/// Reads the body, up to the limit of bytes and until the deadline.
fn read_body(mut response: Response, url: &str, deadline: Instant) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    let mut chunk = vec![0; 64 << 10];
    loop {
        let read = response.read(&mut chunk).map_err(|error| {
            let why = innermost(&error);
            let what = format!("{url}: broke off after {} bytes: {why}", body.len());
            Error::with_source(Kind::Retry, what, error)
        })?;
        let Some(bytes) = chunk.get(..read).filter(|bytes| !bytes.is_empty()) else {
            return Ok(body);
        };
        body.extend_from_slice(bytes);
        if body.len() > BODY_BYTES_MAX {
            let what = format!("{url}: the answer is larger than {BODY_BYTES_MAX} bytes");
            return Err(Error::new(Kind::Data, what));
        }
        if Instant::now() > deadline {
            let what = format!("{url}: timed out after {} bytes", body.len());
            return Err(Error::new(Kind::Retry, what));
        }
    }
}

/// The failure of an answer with an HTTP error.
fn refused(
    url: &str,
    status: StatusCode,
    retry_after: Option<Duration>,
    content: &str,
    body: &[u8],
) -> Failure {
    let again = status.is_server_error()
        || [StatusCode::TOO_MANY_REQUESTS, StatusCode::REQUEST_TIMEOUT].contains(&status);
    let kind = if again { Kind::Retry } else { Kind::Data };
    let what = format!("{url}: HTTP {status}; {}", shown(content, body));
    Failure {
        error: Error::new(kind, what),
        unreadable: false,
        retry_after: retry_after.filter(|_| again),
        body: Some(body.to_vec()),
    }
}

/// The wait of a `Retry-After` header: seconds or an HTTP date (RFC 9110, section 10.2.3).
fn retry_after_of(text: &str, now: Timestamp) -> Option<Duration> {
    let wait = match text.trim().parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let parser = jiff::fmt::rfc2822::DateTimeParser::new();
            let at = parser.parse_timestamp(text.trim()).ok()?;
            Duration::try_from(at.duration_since(now)).unwrap_or_default()
        }
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

/// The beginning of an answer for an error message: content type and first characters.
fn shown(content: &str, body: &[u8]) -> String {
    let head = body
        .get(..body.len().min(SHOWN_CHARS * 4))
        .unwrap_or_default();
    let text: String = String::from_utf8_lossy(head)
        .chars()
        .map(|sign| if sign.is_control() { ' ' } else { sign })
        .take(SHOWN_CHARS)
        .collect();
    format!("{content} came: `{text}`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now: Timestamp = "1994-11-06T08:49:30Z".parse().unwrap();
        let of = |text| retry_after_of(text, now);
        assert_eq!(of("3"), Some(Duration::from_secs(3)));
        assert_eq!(
            of("Sun, 06 Nov 1994 08:49:37 GMT"),
            Some(Duration::from_secs(7))
        );
        assert_eq!(of("Sun, 06 Nov 1994 08:49:00 GMT"), Some(Duration::ZERO));
        assert_eq!(of("999999999999"), Some(RETRY_AFTER_MAX));
        assert_eq!(of("soon"), None);
    }
}
