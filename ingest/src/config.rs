//! `ingest.toml`: configuration of a pipeline's ingest.
//!
//! [`Pipeline::load`] parses and validates the file before anything starts. Each error names the
//! file, the line and what would be right. Most validation is part of deserialization, because
//! there the TOML parser knows the line.

use std::collections::BTreeMap;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use croner::Cron;
use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use tidemill_log::schema::{ColumnType, TableSchema};

use crate::json::Path as JsonPath;
use crate::{Error, Kind, Result};

mod seed;

pub use seed::Seed;

/// Records requested per page when `page_size_parameter` is given and `page_size` is not.
pub const PAGE_SIZE: u64 = 100;
/// Name of the file in a pipeline's folder.
pub const FILE: &str = "ingest.toml";

/// A validated `ingest.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "PipelineText")]
pub struct Pipeline {
    /// The API to fetch; `None` when the pipeline only captures tables that others write.
    pub feed: Option<Feed>,
    /// Small tables that CSV files fill.
    pub seeds: Vec<Seed>,
    /// Further tables to capture.
    pub capture: Capture,
    /// How changes are published.
    pub publish: Publish,
}

/// `[schedule]`, `[fetch]` and `[land]`: all three or none.
#[derive(Debug, Clone)]
pub struct Feed {
    /// When which page is due.
    pub schedule: Schedule,
    /// How a page is requested.
    pub fetch: Fetch,
    /// The table for the records.
    pub land: Land,
}

/// The file as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PipelineText {
    schedule: Option<Schedule>,
    fetch: Option<Fetch>,
    land: Option<Land>,
    #[serde(default)]
    seed: Vec<Seed>,
    #[serde(default)]
    capture: Capture,
    #[serde(default)]
    publish: Publish,
}

impl TryFrom<PipelineText> for Pipeline {
    type Error = String;

    /// Checks that there is something to do, that the three tables of a feed are all given or none,
    /// and that each captured table has a topic of its own with a name that Kafka accepts.
    fn try_from(text: PipelineText) -> std::result::Result<Self, String> {
        let given = [
            ("[schedule]", text.schedule.is_some()),
            ("[fetch]", text.fetch.is_some()),
            ("[land]", text.land.is_some()),
        ];
        let feed = match (text.schedule, text.fetch, text.land) {
            (Some(schedule), Some(fetch), Some(land)) => Some(Feed {
                schedule,
                fetch,
                land,
            }),
            (None, None, None) if text.capture.tables.is_empty() && text.seed.is_empty() => {
                let right = "[schedule], [fetch] and [land] to fetch an API, or [capture] with \
                             `tables` to capture tables that are there";
                return Err(format!("nothing to do: give {right}"));
            }
            (None, None, None) => None,
            _ => {
                let missing = given.iter().filter(|(_, given)| !given);
                let missing: Vec<&str> = missing.map(|(name, _)| *name).collect();
                return Err(format!(
                    "{} missing: [schedule], [fetch] and [land] go together",
                    missing.join(" and ")
                ));
            }
        };
        let pipeline = Pipeline {
            feed,
            seeds: text.seed,
            capture: text.capture,
            publish: text.publish,
        };
        let (naming, mut topics) = (pipeline.publish.naming(), BTreeMap::new());
        for table in pipeline.tables() {
            let (schema, name) = table.split_once('.').unwrap_or(("public", &table));
            let topic = naming.topic_of(schema, name);
            if name.contains('.') {
                return Err(format!(
                    "table `{table}`: a table is named `table` or `schema.table`, and one with a \
                     dot in its name cannot be captured; rename it"
                ));
            }
            if !is_topic(&topic) {
                return Err(format!(
                    "table `{table}` would be published to topic `{topic}`: Kafka takes A-Z, a-z, \
                     0-9, `.`, `_` and `-`, at most {TOPIC_BYTES_MAX}; rename the table"
                ));
            }
            if let Some(other) = topics.insert(topic.clone(), table.clone()) {
                return Err(format!(
                    "tables `{other}` and `{table}` would both be published to topic `{topic}`; \
                     {SCHEMA_IN_TOPICS}"
                ));
            }
        }
        Ok(pipeline)
    }
}

/// `[schedule]`: when which page is due. Each tick makes the run of the next page.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "ScheduleText")]
pub struct Schedule {
    /// When the next page is due.
    pub tick: Tick,
    /// Number of the first page.
    pub first_page: u64,
    /// Number of the last page of a backfill; `None` for a list without an end.
    pub last_page: Option<u64>,
    /// What happens after the last page.
    pub at_end: AtEnd,
}

/// `at_end`: what happens at the end of the list.
///
/// With `last_page` the end is that page. Without it the end is a page without records, or one that
/// repeats the page before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AtEnd {
    /// Request the last pages again at each tick, and continue when the list grows.
    Follow,
    /// Request nothing more.
    Stop,
    /// Begin again at the first page.
    Restart,
}

/// When the next page is due.
#[derive(Debug, Clone)]
pub enum Tick {
    /// `every`: so long after the tick before.
    Every(Duration),
    /// `cron`: at the times of a cron pattern, in UTC.
    Cron(Box<Cron>),
}

impl Tick {
    /// The first tick after `last`.
    ///
    /// # Errors
    /// `Data` when there is none: the cron pattern matches no later time.
    pub fn after(&self, last: Timestamp) -> Result<Timestamp> {
        match self {
            Tick::Every(every) => last.checked_add(*every).map_err(|error| {
                Error::with_source(Kind::Data, format!("no tick after {last}"), error)
            }),
            Tick::Cron(cron) => cron
                .find_next_occurrence(&last.to_zoned(TimeZone::UTC), false)
                .map(|next| next.timestamp())
                .map_err(|error| {
                    let what = format!("cron pattern `{cron}` has no time after {last}");
                    Error::with_source(Kind::Data, what, error)
                }),
        }
    }
}

/// `[schedule]` as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ScheduleText {
    #[serde(default, deserialize_with = "optional_duration")]
    every: Option<Duration>,
    #[serde(default, deserialize_with = "cron")]
    cron: Option<Cron>,
    #[serde(default = "one")]
    first_page: u64,
    last_page: Option<u64>,
    at_end: Option<AtEnd>,
}

impl TryFrom<ScheduleText> for Schedule {
    type Error = String;

    /// Checks that `every` or `cron` is given, and that page numbers and `at_end` fit together. The
    /// default of `at_end` is `stop` with a `last_page` and `follow` without.
    fn try_from(text: ScheduleText) -> std::result::Result<Self, String> {
        let tick = match (text.every, text.cron) {
            (Some(every), None) => Tick::Every(every),
            (None, Some(cron)) => Tick::Cron(Box::new(cron)),
            _ => return Err("give either `every = \"1s\"` or `cron = \"*/5 * * * *\"`".into()),
        };
        if i64::try_from(text.first_page.max(text.last_page.unwrap_or(0))).is_err() {
            return Err("a page number is at most 9223372036854775807".into());
        }
        if text.last_page.is_some_and(|last| last < text.first_page) {
            return Err("`last_page` must not be below `first_page`".into());
        }
        let at_end = match (text.at_end, text.last_page) {
            (Some(AtEnd::Follow), Some(_)) => {
                let right = "leave `last_page` out, or give `at_end = \"stop\"` or \"restart\"";
                return Err(format!("`at_end = \"follow\"` has no last page: {right}"));
            }
            (Some(at_end), _) => at_end,
            (None, Some(_)) => AtEnd::Stop,
            (None, None) => AtEnd::Follow,
        };
        Ok(Schedule {
            tick,
            first_page: text.first_page,
            last_page: text.last_page,
            at_end,
        })
    }
}

/// `[fetch]`: how a page of a JSON API is requested.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fetch {
    /// The URL without its query.
    #[serde(deserialize_with = "http_url")]
    pub url: String,
    /// Path to the list of records in the answer; empty when the answer is the list.
    #[serde(default)]
    pub records: JsonPath,
    /// Records of a full page; `None` when the pipeline does not say.
    #[serde(default, deserialize_with = "positive")]
    pub page_size: Option<u64>,
    /// Query parameter for the page size.
    pub page_size_parameter: Option<String>,
    /// Query parameter for the page number.
    pub page_parameter: String,
    /// Further query parameters.
    #[serde(default)]
    pub parameters: BTreeMap<String, Scalar>,
    /// Timeout of one request, body included.
    #[serde(default = "half_minute", deserialize_with = "duration")]
    pub timeout: Duration,
    /// Longest wait before the first retry of a page; doubles with each further retry.
    #[serde(default = "fifth_second", deserialize_with = "duration")]
    pub backoff: Duration,
    /// Longest wait before any retry, except for `Retry-After`.
    #[serde(default = "minute", deserialize_with = "duration")]
    pub backoff_max: Duration,
    /// Number of attempts for a page whose answer cannot be read, before the page fails for good.
    #[serde(default = "five", deserialize_with = "tries")]
    pub tries: u32,
    /// HTTP statuses (400 to 499) that mean a page beyond the end of the list.
    #[serde(default, deserialize_with = "statuses")]
    pub end_status: Vec<u16>,
}

impl Fetch {
    /// Number of records of a full page; `None` when unknown.
    pub fn full_page(&self) -> Option<u64> {
        let sent = self.page_size_parameter.as_ref().map(|_| PAGE_SIZE);
        self.page_size.or(sent)
    }
}

/// The value of a query parameter.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum Scalar {
    /// Text.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// A number.
    Float(f64),
    /// True or false.
    Bool(bool),
}

impl std::fmt::Display for Scalar {
    /// Writes the value as it stands in a URL, before percent-encoding.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Scalar::Text(text) => f.write_str(text),
            Scalar::Integer(number) => number.fmt(f),
            Scalar::Float(number) => number.fmt(f),
            Scalar::Bool(bool) => bool.fmt(f),
        }
    }
}

/// `[land]`: the table for the records.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "LandText")]
pub struct Land {
    /// Name of the table.
    pub table: String,
    /// The column that identifies a record: the primary key.
    pub key: String,
    /// The column for the whole record as JSON, if any.
    pub document: Option<String>,
    /// The typed columns.
    pub columns: Vec<LandColumn>,
}

/// One `[[land.columns]]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LandColumn {
    /// Name of the column.
    pub name: String,
    /// Path to the value in a record.
    pub path: JsonPath,
    /// Type of the column.
    #[serde(rename = "type")]
    pub kind: ColumnType,
    /// Whether the value may be absent or null.
    #[serde(default)]
    pub nullable: bool,
}

/// `[land]` as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LandText {
    table: String,
    key: String,
    document: Option<String>,
    columns: Vec<LandColumn>,
}

impl TryFrom<LandText> for Land {
    type Error = String;

    /// Checks names, paths and types of the columns, and that the key is one of them, not nullable
    /// and not of type `json`.
    fn try_from(text: LandText) -> std::result::Result<Self, String> {
        check_name(&text.table, "table")?;
        let mut seen = std::collections::BTreeSet::new();
        let document = text.document.iter();
        for name in text.columns.iter().map(|c| &c.name).chain(document) {
            check_name(name, "column")?;
            if !seen.insert(name.to_lowercase()) {
                return Err(format!("column `{name}` is given twice"));
            }
        }
        for column in &text.columns {
            if column.path.is_top() {
                let right = "field names with dots between, such as `login.uuid`";
                return Err(format!("path of column `{}` must be {right}", column.name));
            }
            if matches!(column.kind, ColumnType::Bytes | ColumnType::Decimal { .. }) {
                let right = "use `text`, which keeps all digits, and cast it in the view";
                return Err(format!("type of column `{}`: {right}", column.name));
            }
        }
        let (table, key) = (text.table, text.key);
        match text.columns.iter().find(|column| column.name == key) {
            None => Err(format!("key `{key}` must be one of the columns")),
            Some(column) if column.nullable => Err(format!("key `{key}` must not be nullable")),
            Some(column) if matches!(column.kind, ColumnType::Json) => {
                Err(format!("key `{key}` must not be of type `json`"))
            }
            Some(_) => Ok(Land {
                table,
                key,
                document: text.document,
                columns: text.columns,
            }),
        }
    }
}

/// `[capture]`: further tables to capture.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Capture {
    /// Names, as `table` or `schema.table`.
    #[serde(default)]
    pub tables: Vec<String>,
}

/// `[publish]`: topics and schema evolution.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Publish {
    /// Partitions of topics that ingest creates.
    #[serde(deserialize_with = "partitions")]
    pub partitions: u32,
    /// Prefix of the topics' names; the name of the table follows.
    pub topic_prefix: String,
    /// Whether the topic's name holds the table's schema: `prefix` `schema.table`, as in Debezium.
    pub topic_schema: bool,
    /// Whether the registry may refuse a new schema of a table.
    pub compatibility: Compatibility,
}

/// `compatibility`: what happens to a new schema that cannot read earlier records, as after a
/// change of a column's type or of the primary key. The table is read again as a snapshot in any
/// case.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compatibility {
    /// The registry decides, by the compatibility level of the subject.
    #[default]
    Registry,
    /// The schema is registered: the level of the subject is NONE meanwhile.
    None,
}

impl Default for Publish {
    fn default() -> Self {
        Self {
            partitions: 4,
            topic_prefix: String::new(),
            topic_schema: false,
            compatibility: Compatibility::default(),
        }
    }
}

impl Publish {
    /// How topics are named.
    pub fn naming(&self) -> TopicNaming {
        TopicNaming {
            prefix: self.topic_prefix.clone(),
            with_schema: self.topic_schema,
        }
    }
}

/// Longest name of a topic in Kafka, in bytes.
const TOPIC_BYTES_MAX: usize = 249;

/// Whether Kafka accepts a topic of this name.
fn is_topic(name: &str) -> bool {
    let is_legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    name.len() <= TOPIC_BYTES_MAX && name.chars().all(is_legal) && name != "." && name != ".."
}

/// Remedy when two tables would share a topic.
pub(crate) const SCHEMA_IN_TOPICS: &str = "set `topic_schema = true` in [publish], which puts the \
                                           schema into the names of topics";

/// How the topic of a table is named: prefix, schema (optional), table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TopicNaming {
    /// Prefix of every topic.
    pub prefix: String,
    /// Whether the table's schema and a dot follow the prefix.
    pub with_schema: bool,
}

impl TopicNaming {
    /// The topic of a captured table.
    pub fn topic(&self, table: &TableSchema) -> String {
        self.topic_of(&table.namespace, &table.name)
    }

    /// The topic of a table by its schema and name.
    pub fn topic_of(&self, schema: &str, table: &str) -> String {
        let prefix = &self.prefix;
        match self.with_schema {
            true => format!("{prefix}{schema}.{table}"),
            false => format!("{prefix}{table}"),
        }
    }
}

impl Pipeline {
    /// Reads and validates `ingest.toml` in `folder`, and reads the files of its seeds.
    ///
    /// # Errors
    /// `Data` when a file cannot be read or is not valid; the error names file and line.
    pub fn load(folder: &Path) -> Result<Self> {
        let file = folder.join(FILE);
        let text = std::fs::read_to_string(&file).map_err(|error| {
            let right = format!("a pipeline's folder holds `{FILE}` and `views.sql`");
            let what = format!("{}: cannot be read: {error}; {right}", file.display());
            Error::with_source(Kind::Data, what, error)
        })?;
        let mut pipeline = Self::parse(&text, &file.display().to_string())?;
        let mut seeds = pipeline.seeds.iter_mut();
        seeds.try_for_each(|seed| seed.read(folder))?;
        Ok(pipeline)
    }

    /// Validates the text of an `ingest.toml`; `file` is its name in errors.
    ///
    /// # Errors
    /// `Data` with the file, the line and what would be right.
    pub fn parse(text: &str, file: &str) -> Result<Self> {
        toml::from_str(text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start);
            let before = text.as_bytes().get(..start).unwrap_or_default();
            let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
            // The parser's own error quotes the line, which may hold a secret.
            Error::new(Kind::Data, format!("{file}:{line}: {}", error.message()))
        })
    }

    /// The tables that ingest creates: the landed one, then the seeds.
    pub fn lands(&self) -> impl Iterator<Item = &Land> {
        let landed = self.feed.iter().map(|feed| &feed.land);
        landed.chain(self.seeds.iter().map(|seed| &seed.land))
    }

    /// The names of all captured tables, each once: those that ingest creates, then `[capture]`.
    pub fn tables(&self) -> Vec<String> {
        let mut tables: Vec<String> = Vec::new();
        let made = self.lands().map(|land| &land.table);
        for table in made.chain(&self.capture.tables) {
            if !tables.contains(table) {
                tables.push(table.clone());
            }
        }
        tables
    }
}

/// Default of `first_page`.
fn one() -> u64 {
    1
}

/// Default of `tries`.
fn five() -> u32 {
    5
}

/// Default of `backoff`.
fn fifth_second() -> Duration {
    Duration::from_millis(200)
}

/// Default of `timeout`.
fn half_minute() -> Duration {
    Duration::from_secs(30)
}

/// Default of `backoff_max`.
fn minute() -> Duration {
    Duration::from_secs(60)
}

/// Checks the name of a table or column; `what` says which of them.
fn check_name(name: &str, what: &str) -> std::result::Result<(), String> {
    // PostgreSQL truncates longer names. Tables of Tidemill begin with `_tidemill_`.
    let reserved = name.starts_with("_tidemill_");
    if name.is_empty() || name.len() > 63 || name.contains('\0') || reserved {
        let right = "1 to 63 bytes and not begin with `_tidemill_`";
        return Err(format!("{what} name `{name}` must be {right}"));
    }
    Ok(())
}

/// A duration of at least 1 ms.
fn duration<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<Duration, D::Error> {
    let text = String::deserialize(from)?;
    SignedDuration::from_str(&text)
        .ok()
        .and_then(|signed| Duration::try_from(signed).ok())
        .filter(|duration| *duration >= Duration::from_millis(1))
        .ok_or_else(|| {
            let right = "a time of at least 1 ms such as `500ms`, `30s`, `5m` or `1h`";
            D::Error::custom(format!("`{text}` is not {right}"))
        })
}

/// A duration that may be absent.
fn optional_duration<'de, D: Deserializer<'de>>(
    from: D,
) -> std::result::Result<Option<Duration>, D::Error> {
    duration(from).map(Some)
}

/// A cron pattern.
fn cron<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<Option<Cron>, D::Error> {
    let text = String::deserialize(from)?;
    Cron::from_str(&text).map(Some).map_err(|error| {
        let right = "a cron pattern such as `*/5 * * * *`";
        D::Error::custom(format!("`{text}` is not {right}: {error}"))
    })
}

/// An absolute HTTP URL.
fn http_url<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<String, D::Error> {
    let text = String::deserialize(from)?;
    check_url(&text).map_err(D::Error::custom)?;
    Ok(text)
}

/// Refuses a text that is not an absolute HTTP URL.
pub(crate) fn check_url(text: &str) -> std::result::Result<(), String> {
    match reqwest::Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(()),
        _ => Err(format!(
            "`{text}` is not a URL such as `https://randomuser.me/api/1.4/`"
        )),
    }
}

/// A number from 1 to 1,000,000.
fn positive<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<Option<u64>, D::Error> {
    let number = u64::deserialize(from)?;
    match number {
        1..=1_000_000 => Ok(Some(number)),
        _ => Err(D::Error::custom("must be between 1 and 1000000")),
    }
}

/// A number from 1 to 1,000.
fn tries<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<u32, D::Error> {
    let number = u32::deserialize(from)?;
    match number {
        1..=1_000 => Ok(number),
        _ => Err(D::Error::custom("must be between 1 and 1000")),
    }
}

/// HTTP statuses from 400 to 499.
fn statuses<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<Vec<u16>, D::Error> {
    let statuses = Vec::<u16>::deserialize(from)?;
    match statuses.iter().find(|status| !(400..500).contains(*status)) {
        None => Ok(statuses),
        Some(status) => Err(D::Error::custom(format!(
            "`{status}` is not a status from 400 to 499, such as 404"
        ))),
    }
}

/// A number from 1 to 10,000.
fn partitions<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<u32, D::Error> {
    let number = u32::deserialize(from)?;
    match number {
        1..=10_000 => Ok(number),
        _ => Err(D::Error::custom("must be between 1 and 10000")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> String {
        let text = include_str!("../../examples/users/ingest.toml");
        text.to_owned()
    }

    fn refused(from: &str, to: &str) -> String {
        let text = good();
        assert!(text.contains(from), "`{from}` is not in the example");
        let error = Pipeline::parse(&text.replacen(from, to, 1), "ingest.toml").unwrap_err();
        assert_eq!(error.kind(), Kind::Data);
        error.to_string()
    }

    #[test]
    fn the_example_is_valid_and_keeps_every_field() {
        let pipeline = Pipeline::parse(&good(), "ingest.toml").unwrap();
        assert_eq!(pipeline.tables(), ["users", "countries"]);
        let feed = pipeline.feed.unwrap();
        assert_eq!(feed.land.columns.len(), 34);
        assert!(matches!(feed.schedule.tick, Tick::Every(_)));
    }

    #[test]
    fn a_pipeline_fetches_or_captures_or_both() {
        let parse = |text: &str| Pipeline::parse(text, "ingest.toml");
        let captures = parse("[capture]\ntables = ['a', 'b']\n").unwrap();
        assert!(captures.feed.is_none());
        assert_eq!(captures.tables(), ["a", "b"]);
        let both = format!("{}\n[capture]\ntables = ['b', 'users']\n", good());
        assert_eq!(parse(&both).unwrap().tables(), ["users", "countries", "b"]);
        for nothing in [
            "",
            "[capture]\ntables = []\n",
            "[publish]\npartitions = 2\n",
        ] {
            let message = parse(nothing).unwrap_err().to_string();
            assert!(message.contains("or [capture] with `tables`"), "{message}");
        }
        let message = parse("[schedule]\nevery = '1s'\n[capture]\ntables = ['a']\n");
        let message = message.unwrap_err().to_string();
        assert!(
            message.contains("[fetch] and [land] missing: "),
            "{message}"
        );
    }

    #[test]
    fn errors_name_file_line_and_what_is_right() {
        let line = |needle: &str| {
            let text = good();
            1 + text[..text.find(needle).unwrap()].matches('\n').count()
        };
        let message = refused("every = \"1s\"", "every = \"soon\"");
        let place = format!("ingest.toml:{}:", line("every = \"1s\""));
        assert!(message.starts_with(&place), "{message}");
        assert!(message.contains("`500ms`"), "{message}");
        let message = refused("every = \"1s\"", "cron = \"* *\"");
        assert!(
            message.starts_with(&place) && message.contains("*/5"),
            "{message}"
        );
        let message = refused("page_parameter", "page_paramter");
        assert!(message.contains("expected one of") && message.contains("page_parameter"));
        let message = refused("https://", "ftp://");
        assert!(message.contains("is not a URL such as"), "{message}");
        let message = refused("key = \"id\"", "key = \"uuid\"");
        assert!(message.contains("must be one of the columns"), "{message}");
        let message = refused("type = \"int\"", "type = \"number\"");
        assert!(message.contains("expected one of"), "{message}");
        let message = refused("every = \"1s\"", "");
        assert!(message.contains("either `every"), "{message}");
    }

    #[test]
    fn a_cron_pattern_gives_the_next_time() {
        let tick = Tick::Cron(Box::new(Cron::from_str("*/5 * * * *").unwrap()));
        let next = tick.after("2026-11-22T11:34:13Z".parse().unwrap()).unwrap();
        assert_eq!(next.to_string(), "2026-11-22T11:35:00Z");
    }
}
