//! Client of a schema registry with Confluent's REST API: Confluent, Apicurio (path
//! `/apis/ccompat/v7`), Karapace, Redpanda.
//!
//! The API is documented as "Schema Registry API Reference" by Confluent. A schema id never changes
//! its meaning within the life of a registry, so schemas are cached by id. The registry decides by
//! its own configuration whether a new version is compatible. Calls block: do not call them in an
//! async task.

use std::collections::{HashMap, HashSet};
use std::error::Error as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reqwest::StatusCode;
use reqwest::Url;
use reqwest::blocking::{Client, RequestBuilder};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::references::Types;
use super::{Registered, Registry};
use crate::address::tls;
use crate::address::tls::Trust;
use crate::backoff::Backoff;
use crate::{Error, Kind, Result, address};

/// Timeout of a request.
const ANSWER_WAIT: Duration = Duration::from_secs(10);

/// A client of one registry.
pub(super) struct ConfluentRegistry {
    /// The URL of the registry, with its password.
    pub(super) base: Url,
    /// Host and port, for errors.
    shown: String,
    pub(super) client: Client,
    /// Schemas by id.
    by_id: Mutex<HashMap<u32, String>>,
}

/// The attempts to register a schema.
///
/// Apicurio stores the text and the version of a schema in two transactions. A deletion of any
/// other subject in between removes the text: the registration then fails with 404 or 500, or is
/// answered with an id and not kept (Apicurio issue 9571). Registering a schema again is harmless.
const REGISTER_ATTEMPTS: usize = 8;
/// The first pause between these attempts.
const REGISTER_PAUSE: Duration = Duration::from_millis(40);
/// The longest pause between these attempts.
const REGISTER_PAUSE_MAX: Duration = Duration::from_secs(2);

/// Why a schema was not registered.
enum Unregistered {
    /// The registry answered with an error that the next attempt may not have.
    Answered(Error),
    /// No further attempt is made here.
    Final(Error),
}

impl From<Error> for Unregistered {
    fn from(error: Error) -> Self {
        // Only errors without an answer have a source.
        if error.kind() == Kind::Retry && error.source().is_none() {
            Unregistered::Answered(error)
        } else {
            Unregistered::Final(error)
        }
    }
}

/// Largest number of references that are followed from one schema.
const REFERENCES_MAX: usize = 256;
/// Largest depth of references.
const REFERENCE_DEPTH_MAX: usize = 32;

/// A version of a subject in the registry's answer.
#[derive(Deserialize)]
struct Version {
    id: u32,
    version: u32,
    #[serde(flatten)]
    content: Content,
}

/// The text of a schema in the registry's answer.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Content {
    schema: String,
    /// `AVRO` when absent.
    schema_type: Option<String>,
    /// Types of other subjects that the schema names.
    references: Option<Vec<Reference>>,
}

/// A reference to a type of another subject.
#[derive(Deserialize)]
struct Reference {
    name: String,
    subject: String,
    version: u32,
}

impl ConfluentRegistry {
    /// Creates a client of the registry at `url`; `?ca=FILE` names the trusted authorities.
    pub(super) fn open(url: &str) -> Result<Self> {
        let (place, settings) = address::parse(url);
        let base: Url = place.parse().map_err(|error| {
            let what = "the registry's URL is not one: give http(s)://HOST:PORT[/PATH]";
            Error::with_source(Kind::Data, what, format!("{error}"))
        })?;
        let shown = format!(
            "registry {}{}",
            base.host_str().unwrap_or_default(),
            base.port()
                .map_or_else(String::new, |port| format!(":{port}")),
        );
        tls::install_provider();
        let mut builder = Client::builder().timeout(ANSWER_WAIT);
        for (name, value) in settings {
            if name != "ca" {
                let what = format!("{shown}: unknown setting `{name}`, expected `ca`");
                return Err(Error::new(Kind::Data, what));
            }
            let trust = Trust::Host(value.into(), Vec::new());
            builder = builder.tls_backend_preconfigured(tls::client(&trust, None)?);
        }
        let client = builder
            .build()
            .map_err(|error| Error::with_source(Kind::Data, "cannot make an HTTP client", error))?;
        Ok(Self {
            base,
            shown,
            client,
            by_id: Mutex::default(),
        })
    }

    /// The number of subjects.
    pub(super) fn subjects(&self) -> Result<usize> {
        let url = self.url(&["subjects"]);
        let shown = url.path().to_owned();
        let subjects: Option<Vec<String>> = self.send("its subjects", self.client.get(url))?;
        let subjects = subjects.ok_or_else(|| {
            let what = format!(
                "{}: 404 Not Found for `{shown}`: no schema registry is at this path",
                self.shown
            );
            Error::new(Kind::Data, what)
        })?;
        Ok(subjects.len())
    }

    /// The URL with these path segments behind the base, each of them percent-encoded.
    pub(super) fn url(&self, segments: &[&str]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        url
    }

    /// Sends a request and parses the answer; `None` for 404 Not Found. `about` names the subject
    /// of the request in errors.
    pub(super) fn send<T: DeserializeOwned>(
        &self,
        about: &str,
        request: RequestBuilder,
    ) -> Result<Option<T>> {
        match self.send_text(about, request)? {
            Some(text) => self.parsed(about, &text).map(Some),
            None => Ok(None),
        }
    }

    /// Parses an answer.
    fn parsed<T: DeserializeOwned>(&self, about: &str, text: &str) -> Result<T> {
        serde_json::from_str(text).map_err(|error| {
            let start: String = text.chars().take(80).collect();
            let what = format!("{}: {about}: not a registry's answer: {start}", self.shown);
            Error::with_source(Kind::Data, what, error)
        })
    }

    /// Like `send`, for an answer that may be empty.
    pub(super) fn send_text(&self, about: &str, request: RequestBuilder) -> Result<Option<String>> {
        Ok(self.answer(about, request)?.ok())
    }

    /// The text of the answer, or the inner error for 404 Not Found.
    fn answer(&self, about: &str, request: RequestBuilder) -> Result<Result<String>> {
        let away = |error: reqwest::Error| {
            let (kind, why) = match tls::refusal(&error) {
                Some(refusal) => (Kind::Data, refusal),
                None => (Kind::Retry, "no answer".to_owned()),
            };
            let what = format!("{}: {about}: {why}", self.shown);
            Error::with_source(kind, what, error.without_url())
        };
        let request = request.header("Accept", "application/vnd.schemaregistry.v1+json, */*");
        let answer = request.send().map_err(away)?;
        let status = answer.status();
        let text = answer.text().map_err(away)?;
        if status == StatusCode::NOT_FOUND {
            return Ok(Err(self.refused(about, status, &text)));
        }
        if status.is_success() {
            return Ok(Ok(text));
        }
        Err(self.refused(about, status, &text))
    }

    /// The error of an answer without success. Server errors, 408 and 429 pass.
    fn refused(&self, about: &str, status: StatusCode, text: &str) -> Error {
        let passes = status.is_server_error()
            || matches!(
                status,
                StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT
            );
        let kind = if passes { Kind::Retry } else { Kind::Data };
        let what = format!("{}: {about}: {status}: {}", self.shown, reason(text));
        let refused = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN].contains(&status);
        Error::new(kind, what).refused_if(refused)
    }

    /// Registers a schema and looks up its version; one attempt.
    fn registered_once(
        &self,
        subject: &str,
        schema: &str,
    ) -> std::result::Result<Registered, Unregistered> {
        #[derive(Deserialize)]
        struct Id {
            id: u32,
        }
        let about = format!("subject `{subject}`");
        let body = json!({ "schema": schema });
        let versions = self.url(&["subjects", subject, "versions"]);
        let post = self.client.post(versions).json(&body);
        let text = self.answer(&about, post)?.map_err(Unregistered::Answered)?;
        let id: Id = self.parsed(&about, &text)?;
        let find = self.client.post(self.url(&["subjects", subject]));
        let found: Option<Version> = self.send(&about, find.json(&body))?;
        let found = found.ok_or_else(|| {
            let what = format!(
                "{}: {about}: the registry gave the schema id {} but does not hold the schema",
                self.shown, id.id
            );
            Unregistered::Answered(Error::new(Kind::Retry, what))
        })?;
        Ok(Registered {
            id: id.id,
            version: found.version,
            schema: schema.to_owned(),
        })
    }

    /// The text of a schema with the referenced types of other subjects inlined. `what` names the
    /// schema in errors.
    fn inline_references(&self, what: &str, content: Content) -> Result<String> {
        self.is_avro(what, &content)?;
        let references = content.references.unwrap_or_default();
        if references.is_empty() {
            return Ok(content.schema);
        }
        let mut types = Types::default();
        let mut found = HashSet::new();
        self.collect_references(what, &references, (&mut types, &mut found), 0)?;
        Ok(types
            .inlined(&self.json(what, &content.schema)?)
            .to_string())
    }

    /// Refuses schemas of other types, as JSON and PROTOBUF.
    fn is_avro(&self, what: &str, content: &Content) -> Result<()> {
        match content.schema_type.as_deref() {
            None | Some("AVRO") => Ok(()),
            Some(other) => {
                let what = format!("{}: {what} is {other}; Tidemill reads AVRO", self.shown);
                Err(Error::new(Kind::Data, what))
            }
        }
    }

    /// A schema as JSON.
    fn json(&self, what: &str, schema: &str) -> Result<Value> {
        serde_json::from_str(schema).map_err(|error| {
            let what = format!("{}: {what}: its schema is not JSON", self.shown);
            Error::with_source(Kind::Data, what, error)
        })
    }

    /// Collects the types to which references lead, depth first.
    fn collect_references(
        &self,
        what: &str,
        references: &[Reference],
        (types, found): (&mut Types, &mut HashSet<(String, u32)>),
        depth: usize,
    ) -> Result<()> {
        for reference in references {
            let Reference {
                name,
                subject,
                version,
            } = reference;
            if !found.insert((subject.clone(), *version)) {
                continue;
            }
            let refused = |why: &str| {
                let what = format!(
                    "{}: {what} refers to type `{name}` in version {version} of subject \
                     `{subject}`, {why}",
                    self.shown
                );
                Error::new(Kind::Data, what)
            };
            if depth >= REFERENCE_DEPTH_MAX || found.len() > REFERENCES_MAX {
                return Err(refused(
                    "which is more references, or deeper ones, than are followed",
                ));
            }
            let url = self.url(&["subjects", subject, "versions", &version.to_string()]);
            let about = format!("subject `{subject}`");
            let referred = self.send::<Version>(&about, self.client.get(url))?;
            let content = referred
                .ok_or_else(|| refused("which is not there"))?
                .content;
            self.is_avro(&about, &content)?;
            let below = content.references.as_deref().unwrap_or_default();
            self.collect_references(&about, below, (&mut *types, &mut *found), depth + 1)?;
            types.add(name, self.json(&about, &content.schema)?);
        }
        Ok(())
    }

    /// Deletes a subject, without its record of the compatibility level.
    pub(super) fn delete_one(&self, subject: &str) -> Result<bool> {
        let about = format!("subject `{subject}`");
        let url = self.url(&["subjects", subject]);
        let delete = |url: Url| self.send::<Value>(&about, self.client.delete(url));
        let softly = delete(url.clone())?;
        // A deleted subject keeps its schemas until the permanent deletion, also if the first
        // deletion was long ago. Registries without permanent deletion (Apicurio) answer that there
        // is no subject.
        let mut for_good = url;
        for_good.set_query(Some("permanent=true"));
        let for_good = delete(for_good)?;
        Ok(softly.is_some() || for_good.is_some())
    }

    /// A version with its references inlined.
    fn registered(&self, subject: &str, version: Version) -> Result<Registered> {
        let schema = self.inline_references(&format!("subject `{subject}`"), version.content)?;
        Ok(Registered {
            id: version.id,
            version: version.version,
            schema,
        })
    }

    /// Adds a schema to the cache.
    fn remember(&self, registered: &Registered) {
        self.known()
            .entry(registered.id)
            .or_insert_with(|| registered.schema.clone());
    }

    /// Locks the cache, also after a panic of another thread.
    fn known(&self) -> MutexGuard<'_, HashMap<u32, String>> {
        self.by_id.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The message in a refusal, or the beginning of the text if it is not JSON.
fn reason(text: &str) -> String {
    #[derive(Deserialize)]
    struct Refusal {
        message: String,
    }
    match serde_json::from_str::<Refusal>(text) {
        Ok(refusal) => refusal.message,
        Err(_) => text.chars().take(400).collect(),
    }
}

impl Registry for ConfluentRegistry {
    fn register(&self, subject: &str, schema: &str) -> Result<Registered> {
        let mut backoff = Backoff::new(REGISTER_PAUSE, REGISTER_PAUSE_MAX);
        let mut attempts = 1..REGISTER_ATTEMPTS;
        loop {
            match self.registered_once(subject, schema) {
                Ok(registered) => {
                    self.remember(&registered);
                    return Ok(registered);
                }
                Err(Unregistered::Answered(_)) if attempts.next().is_some() => {
                    std::thread::sleep(backoff.pause());
                }
                Err(Unregistered::Answered(error) | Unregistered::Final(error)) => {
                    return Err(error);
                }
            }
        }
    }

    fn delete(&self, subject: &str) -> Result<bool> {
        self.restore_level(subject)?;
        self.delete_one(subject)
    }

    fn replace(&self, subject: &str, schema: &str) -> Result<Registered> {
        self.with_level_none(subject, || self.register(subject, schema))
    }

    fn settle(&self, subject: &str) -> Result<()> {
        self.restore_level(subject)
    }

    fn by_id(&self, id: u32) -> Result<Option<String>> {
        if let Some(schema) = self.known().get(&id) {
            return Ok(Some(schema.clone()));
        }
        let schema = self.by_id_now(id)?;
        if let Some(schema) = &schema {
            self.known().insert(id, schema.clone());
        }
        Ok(schema)
    }

    fn by_id_now(&self, id: u32) -> Result<Option<String>> {
        let get = self
            .client
            .get(self.url(&["schemas", "ids", &id.to_string()]));
        let about = format!("schema {id}");
        let Some(content) = self.send::<Content>(&about, get)? else {
            return Ok(None);
        };
        self.inline_references(&about, content).map(Some)
    }

    fn versions(&self, subject: &str) -> Result<Vec<Registered>> {
        let about = format!("subject `{subject}`");
        let list = self
            .client
            .get(self.url(&["subjects", subject, "versions"]));
        let numbers: Vec<u32> = self.send(&about, list)?.unwrap_or_default();
        let mut versions = Vec::with_capacity(numbers.len());
        for number in numbers {
            let url = self.url(&["subjects", subject, "versions", &number.to_string()]);
            // A version that was deleted meanwhile is left out.
            if let Some(version) = self.send::<Version>(&about, self.client.get(url))? {
                versions.push(self.registered(subject, version)?);
            }
        }
        Ok(versions)
    }

    fn compatibility(&self, subject: &str) -> Result<Option<String>> {
        match self.level(subject)? {
            None => self.global_level(),
            own => Ok(own),
        }
    }

    fn latest(&self, subject: &str) -> Result<Option<Registered>> {
        let url = self.url(&["subjects", subject, "versions", "latest"]);
        let latest = self.send::<Version>(&format!("subject `{subject}`"), self.client.get(url))?;
        latest
            .map(|latest| self.registered(subject, latest))
            .transpose()
    }
}
