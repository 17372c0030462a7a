//! `ingest.toml`: what to fetch, when, and where it lands.
//!
//! [`Pipeline::load`] reads the file and refuses what cannot work before anything starts. Every
//! error names the file, the line and what would be right: validation happens inside serde, where
//! the TOML reader knows the place.

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

/// Records asked for at a time where the pipeline names the parameter and not the number.
pub const PAGE_SIZE: u64 = 100;
/// The file's name in a pipeline's folder.
pub const FILE: &str = "ingest.toml";

/// A validated `ingest.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "PipelineText")]
pub struct Pipeline {
    /// The API that is fetched; none when the pipeline only captures tables that others write.
    pub feed: Option<Feed>,
    /// The small tables that files fill.
    pub seeds: Vec<Seed>,
    /// What is captured besides the landed table and the seeds.
    pub capture: Capture,
    /// How changes are published.
    pub publish: Publish,
}

/// `[schedule]`, `[fetch]` and `[land]`, which make sense together alone.
#[derive(Debug, Clone)]
pub struct Feed {
    /// When pages are due, and which.
    pub schedule: Schedule,
    /// What to ask the API for.
    pub fetch: Fetch,
    /// Where records land.
    pub land: Land,
}

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

/// `[schedule]`: each due tick makes the next page's run.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "ScheduleText")]
pub struct Schedule {
    /// When the next page is due.
    pub tick: Tick,
    /// The first page.
    pub first_page: u64,
    /// The last page of a range (backfill), or none to go on.
    pub last_page: Option<u64>,
    /// What happens when the list, or the range, is at its end.
    pub at_end: AtEnd,
}

/// `at_end`: what happens at the end of the list. Without `last_page` the end is a page without
/// records, or one that repeats the page before it; with `last_page` it is that page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AtEnd {
    /// Ask each tick again for the pages at the end, and go on when the list grows.
    Follow,
    /// Ask for nothing any more.
    Stop,
    /// Begin again at the first page.
    Restart,
}

/// When the next page is due.
#[derive(Debug, Clone)]
pub enum Tick {
    /// `every`: this long after the page before.
    Every(Duration),
    /// `cron`: at the times of a cron pattern, in UTC.
    Cron(Box<Cron>),
}

impl Tick {
    /// The first tick after `last`.
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

/// `[fetch]`: one page of a JSON API.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fetch {
    /// The API's URL without its query.
    #[serde(deserialize_with = "http_url")]
    pub url: String,
    /// Where the answer holds the list of records; empty when the answer is the list.
    #[serde(default)]
    pub records: JsonPath,
    /// Records of a full page; none when the pipeline does not say.
    #[serde(default, deserialize_with = "positive")]
    pub page_size: Option<u64>,
    /// The query parameter that takes the page size.
    pub page_size_parameter: Option<String>,
    /// The query parameter that takes the page number.
    pub page_parameter: String,
    /// Other query parameters.
    #[serde(default)]
    pub parameters: BTreeMap<String, Scalar>,
    /// How long one request may take, body included.
    #[serde(default = "half_minute", deserialize_with = "duration")]
    pub timeout: Duration,
    /// The longest first wait before a page that failed is asked for again; doubles each time.
    #[serde(default = "fifth_second", deserialize_with = "duration")]
    pub backoff: Duration,
    /// The longest wait at all, `Retry-After` excepted.
    #[serde(default = "minute", deserialize_with = "duration")]
    pub backoff_max: Duration,
    /// How often a page is asked for whose answer cannot be read, before it fails for good.
    #[serde(default = "five", deserialize_with = "tries")]
    pub tries: u32,
    /// HTTP statuses by which the API says that a page lies beyond the end of its list.
    #[serde(default, deserialize_with = "statuses")]
    pub end_status: Vec<u16>,
}

impl Fetch {
    /// Records that a page has when nothing can be added to it; none when that is not known.
    pub fn full_page(&self) -> Option<u64> {
        let sent = self.page_size_parameter.as_ref().map(|_| PAGE_SIZE);
        self.page_size.or(sent)
    }
}

/// A query parameter's value.
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
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Scalar::Text(text) => f.write_str(text),
            Scalar::Integer(number) => number.fmt(f),
            Scalar::Float(number) => number.fmt(f),
            Scalar::Bool(bool) => bool.fmt(f),
        }
    }
}

/// `[land]`: the table that records become rows of.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "LandText")]
pub struct Land {
    /// The table.
    pub table: String,
    /// The column that identifies a record; the primary key.
    pub key: String,
    /// The column that keeps the whole record as JSON.
    pub document: Option<String>,
    /// The typed columns.
    pub columns: Vec<LandColumn>,
}

/// One `[[land.columns]]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LandColumn {
    /// The column.
    pub name: String,
    /// Where the value is in the record.
    pub path: JsonPath,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: ColumnType,
    /// Whether it may be missing or null.
    #[serde(default)]
    pub nullable: bool,
}

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

/// `[capture]`: tables captured besides the landed one.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Capture {
    /// Their names.
    #[serde(default)]
    pub tables: Vec<String>,
}

/// `[publish]`: the topics.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Publish {
    /// Partitions of a topic that is created.
    #[serde(deserialize_with = "partitions")]
    pub partitions: u32,
    /// What a topic's name begins with; the table's name follows.
    pub topic_prefix: String,
    /// Whether the table's schema and a dot stand before the table's name, as in Debezium's
    /// `prefix.schema.table`.
    pub topic_schema: bool,
    /// Whether the registry may refuse a table's new schema.
    pub compatibility: Compatibility,
}

/// `compatibility`: what becomes of a table's new schema that cannot read what was published before
/// it, as when a column's type or the primary key changed. The table is read anew either way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compatibility {
    /// The registry decides, by the compatibility that is set for the subject there.
    #[default]
    Registry,
    /// It is registered: the subject's compatibility is NONE meanwhile.
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
    /// How a table's topic is named.
    pub fn naming(&self) -> TopicNaming {
        TopicNaming {
            prefix: self.topic_prefix.clone(),
            with_schema: self.topic_schema,
        }
    }
}

/// Bytes of a topic's name in Kafka.
const TOPIC_BYTES_MAX: usize = 249;

/// Whether Kafka can have a topic of this name.
fn is_topic(name: &str) -> bool {
    let is_legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    name.len() <= TOPIC_BYTES_MAX && name.chars().all(is_legal) && name != "." && name != ".."
}

/// What to do where two tables would share a topic.
pub(crate) const SCHEMA_IN_TOPICS: &str = "set `topic_schema = true` in [publish], which puts the \
                                           schema into the names of topics";

/// How a table's topic is named.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TopicNaming {
    /// What every topic's name begins with.
    pub prefix: String,
    /// Whether the table's schema and a dot follow.
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
    /// Reads and validates `ingest.toml` in `folder`.
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
    pub fn parse(text: &str, file: &str) -> Result<Self> {
        toml::from_str(text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start);
            let before = text.as_bytes().get(..start).unwrap_or_default();
            let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
            // The parser's own error quotes the line, which may hold a secret of the feed.
            Error::new(Kind::Data, format!("{file}:{line}: {}", error.message()))
        })
    }

    /// The tables that ingest makes: the landed one first.
    pub fn lands(&self) -> impl Iterator<Item = &Land> {
        let landed = self.feed.iter().map(|feed| &feed.land);
        landed.chain(self.seeds.iter().map(|seed| &seed.land))
    }

    /// The tables to capture: those that ingest makes first.
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

fn one() -> u64 {
    1
}

fn five() -> u32 {
    5
}

fn fifth_second() -> Duration {
    Duration::from_millis(200)
}

fn half_minute() -> Duration {
    Duration::from_secs(30)
}

fn minute() -> Duration {
    Duration::from_secs(60)
}

fn check_name(name: &str, what: &str) -> std::result::Result<(), String> {
    // PostgreSQL cuts longer names off, and tables of ours begin with `_tidemill_`.
    let reserved = name.starts_with("_tidemill_");
    if name.is_empty() || name.len() > 63 || name.contains('\0') || reserved {
        let right = "1 to 63 bytes and not begin with `_tidemill_`";
        return Err(format!("{what} name `{name}` must be {right}"));
    }
    Ok(())
}

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

fn optional_duration<'de, D: Deserializer<'de>>(
    from: D,
) -> std::result::Result<Option<Duration>, D::Error> {
    duration(from).map(Some)
}

fn cron<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<Option<Cron>, D::Error> {
    let text = String::deserialize(from)?;
    Cron::from_str(&text).map(Some).map_err(|error| {
        let right = "a cron pattern such as `*/5 * * * *`";
        D::Error::custom(format!("`{text}` is not {right}: {error}"))
    })
}

fn http_url<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<String, D::Error> {
    let text = String::deserialize(from)?;
    check_url(&text).map_err(D::Error::custom)?;
    Ok(text)
}

/// Refuses what is not an absolute HTTP URL.
pub(crate) fn check_url(text: &str) -> std::result::Result<(), String> {
    match reqwest::Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(()),
        _ => Err(format!(
            "`{text}` is not a URL such as `https://randomuser.me/api/1.4/`"
        )),
    }
}

fn positive<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<Option<u64>, D::Error> {
    let number = u64::deserialize(from)?;
    match number {
        1..=1_000_000 => Ok(Some(number)),
        _ => Err(D::Error::custom("must be between 1 and 1000000")),
    }
}

fn tries<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<u32, D::Error> {
    let number = u32::deserialize(from)?;
    match number {
        1..=1_000 => Ok(number),
        _ => Err(D::Error::custom("must be between 1 and 1000")),
    }
}

fn statuses<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<Vec<u16>, D::Error> {
    let statuses = Vec::<u16>::deserialize(from)?;
    match statuses.iter().find(|status| !(400..500).contains(*status)) {
        None => Ok(statuses),
        Some(status) => Err(D::Error::custom(format!(
            "`{status}` is not a status from 400 to 499, such as 404"
        ))),
    }
}

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
