//! The way to the master: its URL, the token and the certificate, and one question at a time.
//!
//! Flows in: flags and environment. Flows out: answers as JSON, or an error that says whether
//! nobody is there or the master refuses. Used by the commands and by the worker.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use reqwest::blocking::{Client, RequestBuilder, Response};
use reqwest::{Certificate, StatusCode, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::exit::Usage;
use crate::protocol::{JobStatus, Status};
use crate::redact;
use crate::token;

/// How long connecting to the master may take.
const CONNECT_PATIENCE: Duration = Duration::from_secs(2);
/// How long one answer of the master may take.
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of one answer.
const ANSWER_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Bytes of a refusal that are shown.
const REFUSAL_BYTES_MAX: u64 = 2000;

/// Which master, and how to speak to it.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Master (the token is in TIDEMILL_TOKEN or TIDEMILL_TOKEN_FILE)")]
pub(crate) struct WhichMaster {
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

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Nobody answers there.
    Away(String),
    /// Somebody answers that it cannot be done now.
    Busy(String),
    /// The master says no, and why.
    Refused(String),
}

impl Failure {
    /// Whether the same question may be answered later.
    pub(crate) fn passes(&self) -> bool {
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

/// A master, or any other process of the cluster that answers.
#[derive(Debug, Clone)]
pub(crate) struct Master {
    http: Client,
    url: Url,
    token: Option<String>,
}

impl Master {
    /// Checks the URL, the token and the certificate; nothing is asked yet.
    pub(crate) fn new(args: &WhichMaster) -> anyhow::Result<Self> {
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

    /// Nobody yet: a way to the others of a cluster, without TLS.
    pub(crate) fn plain(token: Option<String>) -> anyhow::Result<Self> {
        Self::with_url(Url::parse("http://127.0.0.1")?, None, token)
    }

    /// The same way to another process, at `host:port`.
    pub(crate) fn other(&self, at: &str) -> anyhow::Result<Self> {
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

    fn with_url(url: Url, ca: Option<&Path>, token: Option<String>) -> anyhow::Result<Self> {
        // Another client of this process may have set it already, to the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut http = Client::builder()
            .connect_timeout(CONNECT_PATIENCE)
            .timeout(ANSWER_PATIENCE)
            // A proxy of the environment is for the world, not for the cluster.
            .no_proxy();
        if let Some(file) = ca {
            http = http.tls_certs_only(certificates(file)?);
        }
        let http = http.build().context("no HTTP client can be made")?;
        Ok(Self { http, url, token })
    }

    /// Where it is, as it was given.
    pub(crate) fn url(&self) -> &str {
        self.url.as_str().trim_end_matches('/')
    }

    /// What it wants to be shown.
    pub(crate) fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// Host and port, for whoever wants to know the way there.
    pub(crate) fn host_and_port(&self) -> Option<(&str, u16)> {
        let host = self.url.host_str()?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        Some((host, self.url.port_or_known_default()?))
    }

    /// Asks for something.
    pub(crate) fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, String)],
    ) -> Result<T, Failure> {
        self.json(self.http.get(self.with(path, query)))
    }

    /// A job as the master sees it now, if the master knows it.
    pub(crate) fn job(&self, name: &str) -> Result<Option<JobStatus>, Failure> {
        let status: Status = self.get("/v1/status", &[])?;
        Ok(status.jobs.into_iter().find(|job| job.name == name))
    }

    /// Tells something, and reads the answer.
    pub(crate) fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Failure> {
        self.json(self.http.post(self.at(path)).json(body))
    }

    /// Asks for something to be done.
    pub(crate) fn command<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, String)],
    ) -> Result<T, Failure> {
        self.json(self.http.post(self.with(path, query)))
    }

    fn at(&self, path: &str) -> Url {
        let mut url = self.url.clone();
        url.set_path(path);
        url
    }

    fn with(&self, path: &str, query: &[(&str, String)]) -> Url {
        let mut url = self.at(path);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        url
    }

    fn json<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, Failure> {
        let answer = self.send(request)?.take(ANSWER_BYTES_MAX);
        let read = serde_json::from_reader(std::io::BufReader::new(answer));
        read.map_err(|error| Failure::Away(format!("{} gives no answer: {error}", self.url())))
    }

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
        // A refusal without a reason that can be read is one without a reason.
        let _ = answer.take(REFUSAL_BYTES_MAX).read_to_end(&mut text);
        let why = self.refusal(status, &text);
        let later = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
        Err(match later {
            true => Failure::Busy(why),
            false => Failure::Refused(why),
        })
    }

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

/// The innermost cause: reqwest's own text repeats the URL alone.
fn cause_of(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

fn certificates(file: &Path) -> anyhow::Result<Vec<Certificate>> {
    let place = file.display();
    let pem = std::fs::read(file).with_context(|| format!("--ca: cannot read {place}"))?;
    let read = Certificate::from_pem_bundle(&pem).ok();
    let read = read.filter(|all| !all.is_empty());
    read.ok_or_else(|| Usage(format!("--ca: {place} holds no PEM certificate")).into())
}
