//! HTTP client of the master and of the other processes of a cluster, with the token and the
//! certificate authority.
//!
//! In: flags and environment. Out: answers as JSON, or an error that tells whether nobody answers,
//! the server is busy, or it refuses. Used by the client commands, the workers and the master
//! itself.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use reqwest::blocking::{Client, RequestBuilder, Response};
use reqwest::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use reqwest::{Certificate, StatusCode, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::exit::Usage;
use crate::{JobStatus, Status, redact, token};

/// Timeout of connecting.
const CONNECT_PATIENCE: Duration = Duration::from_secs(2);
/// Timeout of one request, from sending to the end of the answer.
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);
/// Limit of an answer, in bytes.
const ANSWER_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Limit of an answer that is passed on, in bytes.
const PASSED_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// Limit of a refusal's text that is shown, in bytes.
const REFUSAL_BYTES_MAX: u64 = 2000;

/// The path of a route of the API that users have. What workers and processes say to one another is
/// below [`CLUSTER`] instead.
///
/// ```
/// assert_eq!(tidemill_protocol::api::api("jobs"), "/api/v1/jobs");
/// ```
pub fn api(route: &str) -> String {
    format!("/api/v1/{route}")
}

/// The first part of the paths by which workers, processes and the master speak to one another.
/// They are of one version, so these routes may change with any release.
pub const CLUSTER: &str = "/cluster";

/// Which master, and how to speak to it.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Master (the token is in TIDEMILL_TOKEN or TIDEMILL_TOKEN_FILE)")]
pub struct WhichMaster {
    /// Where the master answers
    #[arg(
        long,
        value_name = "URL",
        env = "TIDEMILL_MASTER",
        default_value = "http://127.0.0.1:7070"
    )]
    pub(crate) master: String,
    /// Trust this certificate authority alone, for a master on https
    #[arg(long, value_name = "FILE", env = "TIDEMILL_CA")]
    pub(crate) ca: Option<PathBuf>,
}

/// Why a request has no answer.
#[derive(Debug)]
pub enum Failure {
    /// Nobody answers at the address, or the answer cannot be read.
    Away(String),
    /// The server answers that it cannot do this now (HTTP 5xx or 429).
    Busy(String),
    /// The server refuses (any other HTTP error), and says why.
    Refused(String),
}

impl Failure {
    /// Whether the same request may succeed later.
    pub fn passes(&self) -> bool {
        !matches!(self, Self::Refused(_))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Away(why) | Self::Busy(why) | Self::Refused(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for Failure {}

/// An answer that is passed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passed {
    /// The HTTP status.
    pub status: u16,
    /// The content type; empty if there is none.
    pub kind: String,
    /// How a browser saves the answer, if it is a file.
    pub disposition: Option<String>,
    /// The body.
    pub body: Vec<u8>,
}

/// An answer that is passed on, or why there is none.
pub type PassedOn = Result<Passed, Failure>;

/// A client for the master, or for another process of the cluster.
#[derive(Debug, Clone)]
pub struct Master {
    http: Client,
    url: Url,
    token: Option<String>,
}

impl Master {
    /// Checks the URL, the token and the certificate. Sends nothing.
    ///
    /// # Errors
    ///
    /// One of them is invalid; for a flag [`Usage`] (exit code 2).
    pub fn new(args: &WhichMaster) -> anyhow::Result<Self> {
        let right = "expected http://host:port or https://host:port";
        let given = match args.master.contains("://") {
            true => args.master.clone(),
            false => format!("http://{}", args.master),
        };
        let url = Url::parse(&given).ok().filter(|url| {
            matches!(url.scheme(), "http" | "https") && url.has_host() && url.password().is_none()
        });
        let url = url.ok_or_else(|| Usage(format!("--master: `{}`: {right}", args.master)))?;
        let token = token::given()?;
        token.iter().for_each(|token| redact::remember_alone(token));
        Self::with_url(url, args.ca.as_deref(), token)
    }

    /// A client without an address and without TLS, from which [`Master::other`] makes clients for
    /// workers.
    ///
    /// # Errors
    ///
    /// The HTTP client cannot be built.
    pub fn plain(token: Option<String>) -> anyhow::Result<Self> {
        Self::with_url(Url::parse("http://127.0.0.1")?, None, token)
    }

    /// The same client for another process, at `host:port`.
    ///
    /// # Errors
    ///
    /// The text is no address.
    pub fn other(&self, at: &str) -> anyhow::Result<Self> {
        let whole = match at.contains("://") {
            true => at.to_owned(),
            false => format!("http://{at}"),
        };
        let url = Url::parse(&whole).with_context(|| format!("`{at}` is no address"))?;
        Ok(Self {
            url,
            ..self.clone()
        })
    }

    /// Builds the client. With `ca`, only certificates of that authority are trusted.
    fn with_url(url: Url, ca: Option<&Path>, token: Option<String>) -> anyhow::Result<Self> {
        // Another client of this process may have installed the same provider already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut http = Client::builder()
            .connect_timeout(CONNECT_PATIENCE)
            .timeout(ANSWER_PATIENCE)
            // A proxy of the environment is for the internet, not for the cluster.
            .no_proxy();
        if let Some(file) = ca {
            http = http.tls_certs_only(certificates(file)?);
        }
        let http = http.build().context("no HTTP client can be made")?;
        Ok(Self { http, url, token })
    }

    /// The URL, as it was given.
    pub fn url(&self) -> &str {
        self.url.as_str().trim_end_matches('/')
    }

    /// The token that is sent with each request.
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// The host and the port, for finding the route to the master.
    pub fn host_and_port(&self) -> Option<(&str, u16)> {
        let host = self.url.host_str()?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        Some((host, self.url.port_or_known_default()?))
    }

    /// Sends a GET and parses the answer.
    ///
    /// # Errors
    ///
    /// [`Failure::Away`] when nobody answers or the answer is not the expected JSON,
    /// [`Failure::Busy`] for HTTP 5xx and 429, [`Failure::Refused`] for any other HTTP error.
    pub fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, String)],
    ) -> Result<T, Failure> {
        self.json(self.http.get(self.with(path, query)))
    }

    /// The status of one job; `None` if the master does not know it.
    ///
    /// # Errors
    ///
    /// As for [`Master::get`].
    pub fn job(&self, name: &str) -> Result<Option<JobStatus>, Failure> {
        let status: Status = self.get(&api("status"), &[])?;
        Ok(status.jobs.into_iter().find(|job| job.name == name))
    }

    /// Posts a JSON body and parses the answer.
    ///
    /// # Errors
    ///
    /// As for [`Master::get`].
    pub fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Failure> {
        self.json(self.http.post(self.at(path)).json(body))
    }

    /// Posts without a body and parses the answer.
    ///
    /// # Errors
    ///
    /// As for [`Master::get`].
    pub fn command<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, String)],
    ) -> Result<T, Failure> {
        self.json(self.http.post(self.with(path, query)))
    }

    /// Sends a request for somebody else, and gives the answer as it is, also a refusal.
    ///
    /// # Errors
    ///
    /// [`Failure::Away`] when nobody answers, or the answer is larger than is passed on.
    pub fn pass(&self, path: &str, query: Option<&str>, post: Option<Vec<u8>>) -> PassedOn {
        let mut url = self.at(path);
        url.set_query(query);
        let request = match post {
            Some(body) => self.http.post(url).body(body),
            None => self.http.get(url),
        };
        let request = match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        let away = |why: String| Failure::Away(format!("{} {why}", self.url()));
        let answer = request
            .send()
            .map_err(|error| away(format!("does not answer: {}", cause_of(&error))))?;
        let header = |name| {
            let value = answer.headers().get(name)?.to_str().ok()?;
            Some(value.to_owned())
        };
        let mut passed = Passed {
            status: answer.status().as_u16(),
            kind: header(CONTENT_TYPE).unwrap_or_default(),
            disposition: header(CONTENT_DISPOSITION),
            body: Vec::new(),
        };
        let mut answer = answer.take(PASSED_BYTES_MAX + 1);
        let read = answer.read_to_end(&mut passed.body);
        read.map_err(|error| away(format!("broke off: {error}")))?;
        if passed.body.len() as u64 > PASSED_BYTES_MAX {
            let why = format!("gives more than {PASSED_BYTES_MAX} bytes; ask for less");
            return Err(away(why));
        }
        Ok(passed)
    }

    /// The URL of a path.
    fn at(&self, path: &str) -> Url {
        let mut url = self.url.clone();
        url.set_path(path);
        url
    }

    /// The URL of a path with a query.
    fn with(&self, path: &str, query: &[(&str, String)]) -> Url {
        let mut url = self.at(path);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        url
    }

    /// Sends a request and parses the answer of at most [`ANSWER_BYTES_MAX`].
    fn json<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, Failure> {
        let answer = self.send(request)?.take(ANSWER_BYTES_MAX);
        let read = serde_json::from_reader(std::io::BufReader::new(answer));
        read.map_err(|error| Failure::Away(format!("{} gives no answer: {error}", self.url())))
    }

    /// Sends a request with the token; an HTTP error becomes a [`Failure`].
    fn send(&self, request: RequestBuilder) -> Result<Response, Failure> {
        let request = match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        let answer = request.send().map_err(|error| {
            let cause = cause_of(&error);
            Failure::Away(format!("{} does not answer: {cause}", self.url()))
        })?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let mut text = Vec::new();
        // A refusal whose text cannot be read has no text.
        let _ = answer.take(REFUSAL_BYTES_MAX).read_to_end(&mut text);
        let why = self.refusal(status, &text);
        let later = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
        Err(match later {
            true => Failure::Busy(why),
            false => Failure::Refused(why),
        })
    }

    /// The text of a refusal, with a hint about the token for HTTP 401.
    fn refusal(&self, status: StatusCode, body: &[u8]) -> String {
        let text = String::from_utf8_lossy(body);
        let parsed: Option<serde_json::Value> = serde_json::from_str(&text).ok();
        let reason = parsed.as_ref().and_then(|body| body.get("error")?.as_str());
        let reason = reason.unwrap_or(text.trim());
        if status == StatusCode::UNAUTHORIZED {
            let given = self
                .token
                .as_ref()
                .map_or("none was given", |_| "not that one");
            return format!(
                "the master at {} wants its token in TIDEMILL_TOKEN or \
                 TIDEMILL_TOKEN_FILE: {given}",
                self.url()
            );
        }
        match reason {
            "" => format!("{} answers {status}", self.url()),
            reason => reason.to_owned(),
        }
    }
}

/// The innermost cause, because reqwest's own text only repeats the URL.
fn cause_of(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// The certificates of `--ca`, at least one.
fn certificates(file: &Path) -> anyhow::Result<Vec<Certificate>> {
    let place = file.display();
    let pem = std::fs::read(file).with_context(|| format!("--ca: cannot read {place}"))?;
    let read = Certificate::from_pem_bundle(&pem).ok();
    let read = read.filter(|all| !all.is_empty());
    read.ok_or_else(|| Usage(format!("--ca: {place} holds no PEM certificate")).into())
}
