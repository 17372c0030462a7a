//! The subjects of a job's topics: versions, compatibility, the difference of two versions, and
//! what it breaks.
//!
//! The fields of a version are those of a row: of Debezium's envelope the fields of `after`, of any
//! other record its own ones. What a version breaks is not guessed: the views are planned with that
//! version as the newest one, and the planner's refusal is shown.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tidemill_ir::{Format, Job, reads};
use tidemill_log::registry::{Registered, Registry};

use crate::refusal::{Answer, Refusal};
use crate::{Inspected, topics};

/// Limit of the versions of a subject that are shown: the newest ones.
const VERSIONS_MAX: usize = 200;
/// Depth to which types of a schema are followed by their names.
const DEPTH_MAX: usize = 16;

/// A subject in the list.
#[derive(Debug, Serialize)]
struct Subject {
    /// The name.
    subject: String,
    /// The topic whose keys or values it describes.
    topic: String,
    /// The numbers of its versions, the oldest first.
    versions: Vec<u32>,
    /// The id of the newest version's schema.
    schema_id: Option<u32>,
    /// The level that a new version must keep.
    compatibility: Option<String>,
    /// The number of fields of a row in the newest version.
    fields: usize,
    /// The views that read a table of the topic.
    views: Vec<String>,
}

/// The subjects of a job.
#[derive(Debug, Serialize)]
pub(crate) struct Subjects {
    subjects: Vec<Subject>,
    /// Why subjects or views may be missing.
    problem: Option<String>,
}

/// A field of a row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Field {
    name: String,
    /// The type, as short text: `long`, `string?` where null is possible.
    kind: String,
    /// Whether a reader can take a default for it.
    has_default: bool,
    /// The views that read it, directly or through other views.
    views: Vec<String>,
}

/// A version of a subject.
#[derive(Debug, Serialize)]
struct Version {
    version: u32,
    schema_id: u32,
    /// The text of the schema.
    schema: String,
    fields: Vec<Field>,
}

/// A subject with its versions.
#[derive(Debug, Serialize)]
pub(crate) struct One {
    subject: String,
    compatibility: Option<String>,
    versions: Vec<Version>,
    /// Why the views that read fields are not known.
    problem: Option<String>,
}

/// Two versions of a subject.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(crate) struct Pair {
    from: u32,
    to: u32,
}

/// A field that has another type.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Changed {
    name: String,
    before: String,
    after: String,
    views: Vec<String>,
}

/// The difference of two versions.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Difference {
    added: Vec<Field>,
    removed: Vec<Field>,
    changed: Vec<Changed>,
    /// Whether the views can be planned when `to` is the newest version; absent when that is not
    /// known.
    plans: Option<bool>,
    /// Why not, in the planner's words.
    why: Option<String>,
}

/// Topics, each with the views that read it.
type Read = Vec<(String, Vec<String>)>;

/// The topics that have subjects, each with the views that read it.
fn described(job: &Inspected) -> Answer<(Read, Option<String>)> {
    let (names, problem) = topics::names(job)?;
    let plan = job.plan().ok().flatten();
    let mut found = Vec::new();
    for topic in names.into_keys() {
        let mut views = BTreeSet::new();
        let mut is_avro = false;
        for (index, source) in plan.iter().flat_map(|it| it.sources.iter().enumerate()) {
            if source.topic == topic {
                is_avro |= matches!(source.format, Format::Avro { .. });
                views.extend(plan.iter().flat_map(|it| readers(it, index, None)));
            }
        }
        let is_read = !views.is_empty();
        if is_avro || !is_read {
            found.push((topic, views.into_iter().collect()));
        }
    }
    Ok((found, problem))
}

/// The views that read a source, or a column of it.
fn readers(plan: &Job, source: usize, column: Option<&str>) -> Vec<String> {
    let all = plan.views.iter().enumerate();
    let reading = all.filter(|(view, _)| {
        let reads = reads::of_view(plan, *view);
        let columns = reads.get(&source);
        let fields = plan.sources.get(source).map(|it| it.schema.fields());
        let name = |it: &usize| Some(fields?.get(*it)?.name().as_str());
        let is_read = |column| {
            columns
                .iter()
                .flat_map(|it| it.iter())
                .any(|it| name(it) == column)
        };
        columns.is_some() && (column.is_none() || is_read(column))
    });
    reading.map(|(_, view)| view.name.clone()).collect()
}

/// The views that read a column of the topic of a subject.
fn readers_of(plan: Option<&Job>, subject: &str, column: &str) -> Vec<String> {
    let mut views = BTreeSet::new();
    for (index, source) in plan.iter().flat_map(|it| it.sources.iter().enumerate()) {
        let is_value = subject.strip_suffix("-value") == Some(&source.topic);
        let is_key = subject.strip_suffix("-key") == Some(&source.topic);
        if is_value || is_key && source.key.iter().any(|it| it == column) {
            views.extend(plan.iter().flat_map(|it| readers(it, index, Some(column))));
        }
    }
    views.into_iter().collect()
}

/// All subjects of the job's topics that the registry has.
pub(crate) fn all(job: &Inspected) -> Answer<Subjects> {
    let (topics, problem) = described(job)?;
    let registry = job.registry()?;
    let mut subjects = Vec::new();
    for (topic, views) in topics {
        for part in ["key", "value"] {
            let subject = format!("{topic}-{part}");
            let versions = registry.versions(&subject)?;
            let Some(newest) = versions.last() else {
                continue;
            };
            subjects.push(Subject {
                topic: topic.clone(),
                versions: versions.iter().map(|it| it.version).collect(),
                schema_id: Some(newest.id),
                compatibility: registry.compatibility(&subject)?,
                fields: fields(&newest.schema).len(),
                views: views.clone(),
                subject,
            });
        }
    }
    Ok(Subjects { subjects, problem })
}

/// The versions of a subject of the job.
///
/// # Errors
/// `Missing` when the subject is not one of the job's topics, or has no versions.
fn versions(job: &Inspected, subject: &str) -> Answer<(Arc<dyn Registry>, Vec<Registered>)> {
    let topic = subject
        .strip_suffix("-value")
        .or_else(|| subject.strip_suffix("-key"));
    let is_ours = topic.is_some_and(|topic| topics::uses(job, topic).is_ok());
    let registry = job.registry()?;
    let versions = match is_ours {
        true => registry.versions(subject)?,
        false => Vec::new(),
    };
    if versions.is_empty() {
        let name = &job.name;
        let why = format!("job `{name}` has no subject `{subject}`");
        return Err(Refusal::Missing(why));
    }
    Ok((registry, versions))
}

/// One subject.
pub(crate) fn one(job: &Inspected, subject: &str) -> Answer<One> {
    let (registry, mut versions) = versions(job, subject)?;
    let (plan, problem) = match job.plan() {
        Ok(plan) => (plan, None),
        Err(refusal) => (None, Some(refusal.to_string())),
    };
    let surplus = versions.len().saturating_sub(VERSIONS_MAX);
    versions.drain(..surplus);
    let of = |registered: Registered| Version {
        version: registered.version,
        schema_id: registered.id,
        fields: read_fields(plan.as_deref(), subject, &registered.schema),
        schema: registered.schema,
    };
    Ok(One {
        subject: subject.to_owned(),
        compatibility: registry.compatibility(subject)?,
        versions: versions.into_iter().map(of).collect(),
        problem,
    })
}

/// The difference of two versions of a subject.
///
/// # Errors
/// `Missing` when the subject or a version does not exist.
pub(crate) fn difference(job: &Inspected, subject: &str, pair: Pair) -> Answer<Difference> {
    let (registry, versions) = versions(job, subject)?;
    let version = |number: u32| {
        let found = versions.iter().find(|it| it.version == number);
        found.ok_or_else(|| {
            let why = format!("subject `{subject}` has no version {number}");
            Refusal::Missing(why)
        })
    };
    let (before, after) = (version(pair.from)?, version(pair.to)?);
    let plan = job.plan().ok().flatten();
    let plan = plan.as_deref();
    let mut difference = compared(
        &read_fields(plan, subject, &before.schema),
        &read_fields(plan, subject, &after.schema),
    );
    if let Some(views) = job.folder.views_if_any()? {
        let chosen = Chosen {
            inner: registry,
            subject: subject.to_owned(),
            newest: after.clone(),
        };
        match views.compile(Some(&chosen)) {
            Ok(_) => difference.plans = Some(true),
            Err(error) => match Refusal::from(error) {
                Refusal::Wrong(why) => {
                    (difference.plans, difference.why) = (Some(false), Some(why));
                }
                other => difference.why = Some(other.to_string()),
            },
        }
    }
    Ok(difference)
}

/// The fields of a schema, with the views that read them.
fn read_fields(plan: Option<&Job>, subject: &str, schema: &str) -> Vec<Field> {
    let mut fields = fields(schema);
    for field in &mut fields {
        field.views = readers_of(plan, subject, &field.name);
    }
    fields
}

/// The difference of two lists of fields.
fn compared(before: &[Field], after: &[Field]) -> Difference {
    let lacks = |all: &[Field], field: &Field| !all.iter().any(|it| it.name == field.name);
    let changed = before.iter().filter_map(|field| {
        let now = after.iter().find(|it| it.name == field.name)?;
        (now.kind != field.kind).then(|| Changed {
            name: field.name.clone(),
            before: field.kind.clone(),
            after: now.kind.clone(),
            views: field.views.clone(),
        })
    });
    let added = after.iter().filter(|field| lacks(before, field));
    let removed = before.iter().filter(|field| lacks(after, field));
    Difference {
        changed: changed.collect(),
        added: added.cloned().collect(),
        removed: removed.cloned().collect(),
        plans: None,
        why: None,
    }
}

/// The fields of a row in a schema; none if it is no record.
fn fields(schema: &str) -> Vec<Field> {
    let Ok(schema) = serde_json::from_str::<Value>(schema) else {
        return Vec::new();
    };
    let after = record_fields(&schema)
        .iter()
        .find(|field| name_of(field) == "after");
    let row = after.and_then(|field| {
        let kind = field.get("type")?;
        let mut named = None;
        find_record(&schema, kind, 0, &mut named);
        named
    });
    let all = row.unwrap_or(&schema);
    let field = |field: &Value| Field {
        name: name_of(field).to_owned(),
        kind: field.get("type").map_or_else(String::new, |it| kind(it, 0)),
        has_default: field.get("default").is_some(),
        views: Vec::new(),
    };
    record_fields(all).iter().map(field).collect()
}

/// The fields of a record's schema.
fn record_fields(schema: &Value) -> &[Value] {
    let fields = schema.get("fields").and_then(Value::as_array);
    fields.map_or(&[], Vec::as_slice)
}

/// The name of a field.
fn name_of(field: &Value) -> &str {
    let name = field.get("name").and_then(Value::as_str);
    name.unwrap_or_default()
}

/// Finds the record in the type of `after`: in a union, or by its name elsewhere in the schema.
fn find_record<'a>(whole: &'a Value, kind: &'a Value, depth: usize, found: &mut Option<&'a Value>) {
    if depth > DEPTH_MAX || found.is_some() {
        return;
    }
    match kind {
        Value::Array(variants) => {
            for variant in variants {
                find_record(whole, variant, depth + 1, found);
            }
        }
        Value::Object(_) if kind.get("fields").is_some() => *found = Some(kind),
        Value::String(name) => *found = named(whole, name, 0),
        _ => {}
    }
}

/// The record with this name, with or without its namespace, within a schema.
fn named<'a>(schema: &'a Value, name: &str, depth: usize) -> Option<&'a Value> {
    if depth > DEPTH_MAX {
        return None;
    }
    let bare = name.rsplit('.').next();
    match schema {
        Value::Array(all) => all.iter().find_map(|it| named(it, name, depth + 1)),
        Value::Object(_) => {
            let is_it = schema.get("fields").is_some()
                && bare.is_some_and(|bare| name_of(schema).rsplit('.').next() == Some(bare));
            if is_it {
                return Some(schema);
            }
            let fields = record_fields(schema).iter();
            let mut kinds = fields.filter_map(|field| field.get("type"));
            kinds.find_map(|kind| named(kind, name, depth + 1))
        }
        _ => None,
    }
}

/// A type as short text.
fn kind(schema: &Value, depth: usize) -> String {
    let text = |name: &str| schema.get(name).and_then(Value::as_str);
    match schema {
        _ if depth > DEPTH_MAX => "…".to_owned(),
        Value::String(name) => name.clone(),
        Value::Array(variants) => {
            let others = variants.iter().filter(|it| it.as_str() != Some("null"));
            let others: Vec<String> = others.map(|it| kind(it, depth + 1)).collect();
            let has_null = others.len() < variants.len();
            format!("{}{}", others.join(" | "), if has_null { "?" } else { "" })
        }
        Value::Object(_) => {
            let base = text("name").map(str::to_owned);
            let base = base.unwrap_or_else(|| match schema.get("type") {
                Some(inner @ (Value::Object(_) | Value::Array(_))) => kind(inner, depth + 1),
                _ => text("type").unwrap_or("?").to_owned(),
            });
            let within = ["items", "values"].iter().find_map(|it| schema.get(it));
            let base = match within {
                Some(within) => format!("{base} of {}", kind(within, depth + 1)),
                None => base,
            };
            let digits = ["precision", "scale", "size"].iter();
            let digits = digits.filter_map(|it| schema.get(it)).map(Value::to_string);
            let digits: Vec<String> = digits.collect();
            let meaning = text("logicalType").or_else(|| text("connect.name"));
            let meaning = meaning.map_or_else(String::new, |it| format!(" as {it}"));
            match digits.is_empty() {
                true => format!("{base}{meaning}"),
                false => format!("{base}{meaning}({})", digits.join(",")),
            }
        }
        _ => "?".to_owned(),
    }
}

/// A registry in which one version of a subject is the newest one.
struct Chosen {
    inner: Arc<dyn Registry>,
    subject: String,
    newest: Registered,
}

impl Registry for Chosen {
    fn register(&self, subject: &str, _schema: &str) -> tidemill_log::Result<Registered> {
        Err(read_only(subject))
    }

    fn delete(&self, subject: &str) -> tidemill_log::Result<bool> {
        Err(read_only(subject))
    }

    fn by_id(&self, id: u32) -> tidemill_log::Result<Option<String>> {
        self.inner.by_id(id)
    }

    fn versions(&self, subject: &str) -> tidemill_log::Result<Vec<Registered>> {
        match subject == self.subject {
            true => Ok(vec![self.newest.clone()]),
            false => self.inner.versions(subject),
        }
    }
}

/// The error of a change while versions are compared.
fn read_only(subject: &str) -> tidemill_log::Error {
    let what = format!("subject `{subject}`: nothing is changed while versions are compared");
    tidemill_log::Error::new(tidemill_log::Kind::Bug, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(schema: &str) -> Vec<(String, String)> {
        let fields = fields(schema).into_iter();
        fields.map(|field| (field.name, field.kind)).collect()
    }

    #[test]
    fn the_fields_of_an_envelope_are_those_of_its_row() {
        let row = r#"{"type":"record","name":"Value","fields":[
            {"name":"id","type":"long"},
            {"name":"paid","type":["null",{"type":"bytes","logicalType":"decimal",
                "precision":9,"scale":2}],"default":null}]}"#;
        let envelope = format!(
            r#"{{"type":"record","name":"Envelope","namespace":"t","fields":[
            {{"name":"before","type":["null",{row}]}},
            {{"name":"after","type":["null","Value"]}},{{"name":"op","type":"string"}}]}}"#
        );
        let own = |name: &str, kind: &str| (name.to_owned(), kind.to_owned());
        let expected = [own("id", "long"), own("paid", "bytes as decimal(9,2)?")];
        assert_eq!(pairs(row), expected);
        assert_eq!(pairs(&envelope), expected);
        assert_eq!(pairs("\"long\""), []);
    }

    #[test]
    fn differences_name_each_field() {
        let before = fields(
            r#"{"type":"record","name":"v","fields":[{"name":"a","type":"int"},
            {"name":"b","type":"string"},{"name":"c","type":"int"}]}"#,
        );
        let after = fields(
            r#"{"type":"record","name":"v","fields":[{"name":"a","type":"long"},
            {"name":"c","type":"int"},{"name":"d","type":["null","int"],"default":null}]}"#,
        );
        let found = compared(&before, &after);
        let names = |all: &[Field]| all.iter().map(|it| it.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&found.added), ["d"]);
        assert_eq!(names(&found.removed), ["b"]);
        let [changed] = found.changed.as_slice() else {
            panic!("{found:?}")
        };
        let kinds = (changed.before.as_str(), changed.after.as_str());
        assert_eq!((changed.name.as_str(), kinds), ("a", ("int", "long")));
        assert_eq!(compared(&before, &before).changed, []);
    }

    #[test]
    fn what_a_version_breaks_is_the_planners_word() {
        let folder = tempfile::tempdir().unwrap();
        let pipeline = folder.path().join("shop");
        std::fs::create_dir(&pipeline).unwrap();
        let sql = "CREATE TABLE t WITH (topic = 't', format = 'avro', envelope = 'append');
            CREATE MATERIALIZED VIEW v WITH (primary_key = 'id') AS SELECT id, country FROM t;";
        std::fs::write(pipeline.join("views.sql"), sql).unwrap();
        let given = tidemill_config::connections::ConnectionArgs {
            data: Some(folder.path().join("all.db").display().to_string()),
            ..Default::default()
        };
        let opened = tidemill_config::pipeline::Folder::open(&pipeline).unwrap();
        let connections =
            tidemill_config::connections::Connections::resolve(&given, &pipeline).unwrap();
        let registry = tidemill_log::registry::open(&connections.registry).unwrap();
        let schema = |more: &str| {
            format!(
                r#"{{"type":"record","name":"r","fields":[
                {{"name":"id","type":"string"}}{more}]}}"#
            )
        };
        let country = r#",{"name":"country","type":["null","string"],"default":null}"#;
        registry.register("t-value", &schema("")).unwrap();
        registry.register("t-value", &schema(country)).unwrap();
        let job = Inspected::new("shop", &opened, &connections, None, None);
        let on = difference(&job, "t-value", Pair { from: 1, to: 2 }).unwrap();
        assert_eq!(
            (on.plans, on.removed.len(), on.added.len()),
            (Some(true), 0, 1)
        );
        let back = difference(&job, "t-value", Pair { from: 2, to: 1 }).unwrap();
        assert_eq!(back.plans, Some(false));
        assert!(back.why.as_ref().unwrap().contains("country"), "{back:?}");
        assert_eq!(back.removed[0].views, ["v"]);
    }

    #[test]
    fn a_view_reads_what_its_rows_depend_on() {
        let table = |name: &str| {
            format!(
                "CREATE TABLE {name} (id text, country text, age bigint, city text)
                   WITH (topic = '{name}', format = 'json', envelope = 'upsert');"
            )
        };
        let sql = format!(
            "{} {}
             CREATE MATERIALIZED VIEW adults WITH (primary_key = 'id') AS
               SELECT id, country FROM people WHERE age > 17;
             CREATE MATERIALIZED VIEW counted WITH (primary_key = 'country') AS
               SELECT country, count(*) AS n FROM adults GROUP BY country;
             CREATE MATERIALIZED VIEW placed WITH (primary_key = 'id') AS
               SELECT p.id, s.city FROM people AS p JOIN shops AS s ON p.country = s.country;",
            table("people"),
            table("shops"),
        );
        let job = tidemill_plan::compile(&sql, "views.sql", None).unwrap();
        let readers = |source: &str, column: &str| {
            let source = job.sources.iter().position(|it| it.name == source).unwrap();
            readers(&job, source, Some(column)).join(" ")
        };
        assert_eq!(readers("people", "age"), "adults counted");
        assert_eq!(readers("people", "country"), "adults counted placed");
        assert_eq!(readers("people", "id"), "adults placed");
        assert_eq!(readers("shops", "country"), "placed");
        assert_eq!(readers("shops", "city"), "placed");
        assert_eq!(readers("people", "city"), "");
    }
}
