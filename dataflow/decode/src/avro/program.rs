//! Decoding programs: a writer's schema compiled against a source's columns into read and skip
//! steps.
//!
//! Input: the body of a record. Output: one cell per column, and what a Debezium envelope says.
//!
//! ```text
//! writer's schema {id, name, note, age}  +  columns {age, id}
//!   ─►  Read id → cell 1 │ SkipPrefixed 2 │ Read age → cell 0
//! ```
//!
//! Invariants:
//! 1. A body is read to its last byte. If bytes are left over, the record is refused.
//! 2. For one schema, the work is bounded by the body's length: nesting is limited, and items
//!    without bytes are not counted one by one.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::timezone::Tz;
use arrow::datatypes::{DataType, SchemaRef};
use serde_json::Value;
use tidemill_ir::Envelope;
use tidemill_log::envelope::{CONNECTOR, fingerprint_in, fingerprint_of, is_withheld, position_of};
use tidemill_log::schema::arena::{Field, Meaning, Node, Record, Schema};
use tidemill_log::schema::fingerprint;

use super::super::columns::{Cells, DecodedValue};
use super::super::duplicates::Said;
use super::super::text;
use super::super::wire::{WHY_UNAVAILABLE, Wire};
use super::input::{Checked, Input};

/// Most levels of nesting of types in one record.
const DEPTH_MAX: usize = 128;
/// The field of a flattened Debezium record that says whether its row was deleted.
const DELETED: &str = "__deleted";
/// The refusal of a record that was read with another schema than it was written with.
const ANOTHER: &str = "it was written with another one. Was the registry made anew, so that the id \
     stands for another schema?";
/// The endings of the names of records that Debezium writes besides row changes.
const NO_ROWS: [&str; 4] = [
    "TransactionMetadataValue",
    "SchemaChangeValue",
    "MessageValue",
    "Heartbeat",
];

/// What a record's envelope says; the row is in the cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Change<'a> {
    /// Debezium's operation letter; `None` without an envelope.
    pub(super) op: Option<&'a str>,
    /// Whether the record has a row.
    pub(super) row: bool,
    /// Whether a flattened record says that its row was deleted.
    pub(super) deleted: bool,
    /// Whether a value of an outdated record does not fit its column.
    pub(super) lost: bool,
    /// Whether values that their columns refuse are left out.
    lenient: bool,
    /// The fields of `source`.
    source: Origin<'a>,
}

/// The fields of the envelope's `source`; empty where they are missing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Origin<'a> {
    /// The field `connector`.
    connector: &'a [u8],
    /// The field `sequence`: a JSON array of numbers, as text.
    sequence: &'a [u8],
    /// The field `snapshot`.
    snapshot: &'a [u8],
    /// The field `ts_us`: microseconds since 1970.
    at_us: Option<i64>,
    /// The field `lsn`: a position in PostgreSQL's log.
    lsn: Option<i64>,
    /// The field `version`.
    version: &'a [u8],
}

impl Change<'_> {
    /// Whether the record stands for a row that could not be published.
    pub(super) fn is_withheld(&self) -> bool {
        let source = &self.source;
        source.connector == CONNECTOR.as_bytes() && is_withheld(source.sequence)
    }

    /// The source position of a record of Tidemill's own ingest, or of Debezium's PostgreSQL
    /// connector.
    pub(super) fn said(&self) -> Option<Said> {
        let source = &self.source;
        let lsn = source.lsn;
        let foreign = lsn.and_then(|lsn| Said::of_lsn(source.connector, lsn));
        if foreign.is_some() {
            return foreign;
        }
        if source.connector != CONNECTOR.as_bytes() {
            return None;
        }
        let begins = self.op == Some("t") && source.snapshot == b"true";
        Some(Said {
            position: position_of(source.sequence)?,
            begins_us: source.at_us.filter(|_| begins),
            is_foreign: false,
        })
    }
}

/// A writer's schema, compiled to decode its records.
#[derive(Debug)]
pub(super) struct Program {
    /// The parsed schema, whose nodes the steps refer to.
    writer: Schema,
    /// The steps that read a body, in the order of its fields.
    steps: Vec<Step>,
    /// The number of columns, and the values of columns for which the writer has no field.
    columns: usize,
    /// The values of columns that the writer has no field for.
    defaults: Vec<(usize, DecodedValue<'static>)>,
    /// The columns that the writer has no field for.
    absent: Vec<Absent>,
    /// Columns for which the writer has another type.
    altered: Vec<usize>,
    /// Whether the table began again after these records, with other types.
    outdated: bool,
    /// Whether Tidemill's own ingest wrote the records; their texts are never placeholders.
    own: bool,
    /// The fingerprint of the writer's schema.
    fingerprint: u64,
    /// See [`tidemill_ir::Source::unavailable`].
    unavailable: Option<Arc<[u8]>>,
    silent: bool,
    /// The time zone of timestamps.
    utc: Tz,
}

/// A column for which the writer has no field.
#[derive(Debug)]
pub(super) struct Absent {
    /// The column's name.
    pub(super) column: String,
    /// Whether the planned field has a default, which is then the column's value.
    pub(super) has_default: bool,
}

/// A step for one field (or several) of the outermost record, or of the row.
#[derive(Debug)]
enum Step {
    /// Skips this many texts or bytes in a row.
    SkipPrefixed(usize),
    /// Skips this many numbers in a row.
    SkipNumbers(usize),
    /// Skips the value of a node.
    Skip(usize),
    /// A column's value.
    Read(Read),
    /// Reads whether a flattened record's row was deleted, then does the field's own step.
    Deleted(usize, Box<Step>),
    /// The envelope's `op`.
    Op,
    /// The envelope's row: the branches of its union.
    Row(Vec<RowBranch>),
    /// The row in an envelope that holds it without a union.
    BareRow(Vec<Step>),
    /// The envelope's `source`.
    Source(Vec<Step>),
    /// A field of `source`, and its node.
    Said(About, usize),
}

/// The fields of `source` from which a record's position is taken.
#[derive(Debug, Clone, Copy)]
enum About {
    Version,
    Connector,
    Sequence,
    Snapshot,
    AtUs,
    Lsn,
}

#[derive(Debug)]
enum RowBranch {
    /// No row: null.
    Null,
    /// The row, with the steps that read it.
    Record(Vec<Step>),
}

/// How the value of a column is read.
#[derive(Debug)]
struct Read {
    /// The index of the column.
    column: usize,
    /// The column's name, for messages.
    name: String,
    /// The column's type.
    kind: DataType,
    /// The node of the writer's schema.
    node: usize,
    /// The meaning of the planned field, for writers whose schema does not say it.
    planned: Meaning,
}

/// What the steps of a row are compiled for.
struct Target<'s> {
    /// The schema that the columns were planned from.
    planned: &'s Schema,
    /// The record of the row in it.
    row: Option<&'s Record>,
    /// The source's columns.
    columns: &'s SchemaRef,
    /// The envelope, which says where the row is in a record.
    envelope: Envelope,
}

impl Program {
    /// Compiles a writer's schema. `planned` is the schema that the columns were planned from; its
    /// defaults replace fields that the writer does not have. The error says why records cannot be
    /// read.
    ///
    /// # Errors
    /// The schema is not valid, or a column's type cannot be read from it.
    pub(super) fn compile(
        writer: &str,
        planned: &Schema,
        columns: &SchemaRef,
        envelope: Envelope,
        utc: Tz,
    ) -> Result<Self, String> {
        let text = writer;
        let writer = Schema::parse(text)?;
        let Node::Record(outer) = writer.node(writer.root) else {
            return Err("it is no record".into());
        };
        let debezium = envelope == Envelope::Debezium;
        let target = Target {
            planned,
            row: match debezium {
                true => planned.after(),
                false => planned.record(planned.root),
            },
            columns,
            envelope,
        };
        let mut program = Self {
            steps: Vec::new(),
            columns: columns.fields().len(),
            defaults: Vec::new(),
            absent: Vec::new(),
            altered: Vec::new(),
            outdated: false,
            own: false,
            fingerprint: fingerprint(text),
            unavailable: None,
            silent: false,
            utc,
            writer: Schema::default(),
        };
        if debezium && NO_ROWS.iter().any(|name| outer.name.ends_with(name)) {
            program.silent = true;
            return Ok(program);
        }
        let row = if debezium {
            program.steps = envelope_steps(&writer, outer, &target)?;
            writer.after().ok_or("its `after` is no record")?
        } else {
            program.steps = row_steps(&writer, outer, &target);
            outer
        };
        program.own = row.table.is_some();
        program.absences(row, &target)?;
        program.alterations(&writer, row, &target);
        program.writer = writer;
        Ok(program)
    }

    /// Finds the columns that the writer's row does not have, and their defaults.
    fn absences(&mut self, row: &Record, target: &Target<'_>) -> Result<(), String> {
        for (index, column) in target.columns.fields().iter().enumerate() {
            let field = target.planned_field(column.name());
            if row.field_of(column.name(), field).is_some() {
                continue;
            }
            let default = field.and_then(|field| Some((field, field.default.as_ref()?)));
            self.absent.push(Absent {
                column: column.name().clone(),
                has_default: default.is_some(),
            });
            if let Some((field, json)) = default {
                let kind = column.data_type();
                let cell = default_cell(target.planned, field.node, json, kind, &self.utc);
                let cell =
                    cell.ok_or_else(|| format!("field `{}` has the default {json}", field.name))?;
                self.defaults.push((index, cell));
            }
        }
        Ok(())
    }

    /// Finds the columns for which the writer has another type than the planned schema.
    fn alterations(&mut self, writer: &Schema, row: &Record, target: &Target<'_>) {
        for (index, column) in target.columns.fields().iter().enumerate() {
            let Some(planned) = target.planned_field(column.name()) else {
                continue;
            };
            let field = row.field_of(column.name(), Some(planned));
            let Some(field) = field.and_then(|at| row.fields.get(at)) else {
                continue;
            };
            let (was, is) = (
                writer.describe(field.node),
                target.planned.describe(planned.node),
            );
            if was == is {
                continue;
            }
            self.altered.push(index);
        }
    }

    /// Sets the placeholder for values that the writer does not have, besides Debezium's default.
    pub(super) fn unavailable(&mut self, told: Option<Arc<[u8]>>) {
        self.unavailable = told;
    }

    /// The columns for which the writer has another type.
    pub(super) fn altered(&self) -> &[usize] {
        &self.altered
    }

    /// Whether Tidemill's own ingest wrote the records.
    pub(super) fn is_own(&self) -> bool {
        self.own
    }

    /// Checks that a record was written with the schema that it is read with, as far as the record
    /// tells. `own` says whether Tidemill's own ingest writes the topic.
    ///
    /// # Errors
    /// The record was written with another schema.
    pub(super) fn agrees(
        &self,
        change: &Change<'_>,
        body: &[u8],
        own: bool,
    ) -> Result<(), &'static str> {
        let source = &change.source;
        if !self.own {
            let of_another = own && fingerprint_in(body).is_some_and(|it| it != self.fingerprint);
            return if of_another { Err(ANOTHER) } else { Ok(()) };
        }
        match fingerprint_of(source.version) {
            Some(written) if written != self.fingerprint => Err(ANOTHER),
            // Earlier versions wrote no fingerprint.
            None if !source.connector.starts_with(CONNECTOR.as_bytes()) => Err(ANOTHER),
            _ => Ok(()),
        }
    }

    /// Records that the table began again after these records: rows that do not fit are lost.
    pub(super) fn outdate(&mut self) {
        self.outdated = true;
    }

    /// Whether the table began again after these records, with other types.
    pub(super) fn is_outdated(&self) -> bool {
        self.outdated
    }

    /// Whether a value that does not fit its column belongs to an earlier form of the table.
    fn loses(&self, read: &Read) -> bool {
        self.outdated && self.altered.contains(&read.column)
    }

    /// Whether the records are about no rows.
    pub(super) fn is_silent(&self) -> bool {
        self.silent
    }

    /// The columns for which the writer has no field.
    pub(super) fn absent(&self) -> &[Absent] {
        &self.absent
    }

    /// Decodes a body. `cells` is cleared and filled with one cell per column. If `lenient`, a
    /// value that its column refuses becomes [`DecodedValue::Unfit`], and is no error.
    pub(super) fn run<'a>(
        &'a self,
        body: &'a [u8],
        cells: &mut Cells<'a>,
        lenient: bool,
    ) -> Checked<Change<'a>> {
        cells.clear();
        cells.extend(std::iter::repeat_n(DecodedValue::Null, self.columns));
        for (column, cell) in &self.defaults {
            if let Some(place) = cells.get_mut(*column) {
                *place = cell.clone();
            }
        }
        let mut input = Input { rest: body };
        let mut change = Change {
            op: None,
            row: false,
            deleted: false,
            lost: false,
            lenient,
            source: Origin::default(),
        };
        self.steps(&self.steps, &mut input, cells, &mut change)?;
        match input.rest.len() {
            0 => Ok(change),
            left => Err(format!("{left} bytes are left after the record's last field").into()),
        }
    }

    /// Runs steps.
    fn steps<'a>(
        &'a self,
        steps: &'a [Step],
        input: &mut Input<'a>,
        cells: &mut Cells<'a>,
        change: &mut Change<'a>,
    ) -> Checked<()> {
        for step in steps {
            match step {
                Step::SkipPrefixed(count) => {
                    for _ in 0..*count {
                        input.prefixed()?;
                    }
                }
                Step::SkipNumbers(count) => {
                    for _ in 0..*count {
                        input.long()?;
                    }
                }
                Step::Skip(node) => self.skip(*node, input, 0)?,
                Step::Read(read) => {
                    let wire = self.wire(read, input)?;
                    match (self.cell(read, &wire), cells.get_mut(read.column)) {
                        (Ok(cell), Some(place)) => *place = cell,
                        (Err(_), _) if self.loses(read) => change.lost = true,
                        (Err(_), Some(place)) if change.lenient => *place = DecodedValue::Unfit,
                        (Err(why), _) => return Err(why),
                        (Ok(_), None) => {}
                    }
                }
                Step::Deleted(node, otherwise) => {
                    let mut ahead = Input { rest: input.rest };
                    change.deleted = self.deleted(*node, &mut ahead)?;
                    self.steps(std::slice::from_ref(otherwise), input, cells, change)?;
                }
                Step::Op => change.op = Some(input.text()?),
                Step::BareRow(steps) => {
                    change.row = true;
                    self.steps(steps, input, cells, change)?;
                }
                Step::Source(steps) => self.steps(steps, input, cells, change)?,
                Step::Said(about, node) => self.said(*about, *node, input, &mut change.source)?,
                Step::Row(branches) => match input.branch(branches)? {
                    RowBranch::Null => change.row = false,
                    RowBranch::Record(steps) => {
                        change.row = true;
                        self.steps(steps, input, cells, change)?;
                    }
                },
            }
        }
        Ok(())
    }

    /// Reads a field of `source`; a field of another type is skipped.
    fn said<'a>(
        &self,
        about: About,
        node: usize,
        input: &mut Input<'a>,
        source: &mut Origin<'a>,
    ) -> Checked<()> {
        let node = match self.writer.node(node) {
            Node::Union(branches) => *input.branch(branches)?,
            _ => node,
        };
        let text = match (self.writer.node(node), about) {
            (Node::String(_), About::Version) => &mut source.version,
            (Node::String(_), About::Connector) => &mut source.connector,
            (Node::String(_), About::Sequence) => &mut source.sequence,
            (Node::String(_), About::Snapshot) => &mut source.snapshot,
            (Node::Long(_), About::AtUs) => {
                source.at_us = Some(input.long()?);
                return Ok(());
            }
            (Node::Long(_), About::Lsn) => {
                source.lsn = Some(input.long()?);
                return Ok(());
            }
            _ => return self.skip(node, input, 0),
        };
        *text = input.prefixed()?;
        Ok(())
    }

    /// Reads whether a field says that the row was deleted: true, or the text `true`.
    fn deleted(&self, node: usize, input: &mut Input<'_>) -> Checked<bool> {
        let node = match self.writer.node(node) {
            Node::Union(branches) => *input.branch(branches)?,
            _ => node,
        };
        Ok(match self.writer.node(node) {
            Node::Boolean => input.boolean()?,
            Node::String(_) => input.text()? == "true",
            _ => false,
        })
    }

    /// Reads the value of a column's field, as it was written; `None` for null.
    fn wire<'a>(&'a self, read: &Read, input: &mut Input<'a>) -> Checked<Option<Wire<'a>>> {
        let node = match self.writer.node(read.node) {
            Node::Union(branches) => self.writer.node(*input.branch(branches)?),
            other => other,
        };
        let known = |meaning: &Meaning| match meaning {
            Meaning::Plain => read.planned,
            said => *said,
        };
        Ok(Some(match node {
            Node::Null => return Ok(None),
            Node::Boolean => Wire::Bool(input.boolean()?),
            Node::Int(meaning) => Wire::Int(input.int()?, known(meaning)),
            Node::Long(meaning) => Wire::Int(input.long()?, known(meaning)),
            Node::Float => Wire::Float(f64::from(f32::from_le_bytes(input.array()?)), true),
            Node::Double => Wire::Float(f64::from_le_bytes(input.array()?), false),
            Node::Bytes(meaning) => Wire::Bytes(input.prefixed()?.into(), known(meaning)),
            Node::Fixed(size, meaning) => Wire::Bytes(input.take(*size)?.into(), known(meaning)),
            Node::String(Meaning::Uuid) if !self.own => Wire::Uuid(input.text()?.into()),
            Node::String(_) => Wire::Text(input.text()?.into()),
            Node::Enum(symbols) => Wire::Text(input.branch(symbols)?.as_str().into()),
            Node::Array(_) | Node::Map(_) | Node::Record(_) | Node::Union(_) => {
                let (name, expected) = (&read.name, text::expected(&read.kind));
                return Err(
                    format!("field `{name}`: found a nested value, expected {expected}").into(),
                );
            }
        }))
    }

    /// Converts a value to the column's cell.
    fn cell<'a>(&self, read: &Read, wire: &Option<Wire<'a>>) -> Checked<DecodedValue<'a>> {
        let Some(wire) = wire else {
            return Ok(DecodedValue::Null);
        };
        if !self.own && wire.is_unavailable(self.unavailable.as_deref()) {
            return Err(format!("field `{}`: {WHY_UNAVAILABLE}", read.name).into());
        }
        wire.cell(&read.kind, &self.utc).ok_or_else(|| {
            let (name, expected) = (&read.name, text::expected(&read.kind));
            format!(
                "field `{name}`: found {}, expected {expected}",
                wire.excerpt()
            )
            .into()
        })
    }

    /// Skips the value of a node.
    fn skip(&self, node: usize, input: &mut Input<'_>, depth: usize) -> Checked<()> {
        if depth > DEPTH_MAX {
            return Err(format!("values are nested more than {DEPTH_MAX} deep").into());
        }
        match self.writer.node(node) {
            Node::Null => Ok(()),
            Node::Boolean => input.take(1).map(drop),
            Node::Int(_) | Node::Long(_) | Node::Enum(_) => input.long().map(drop),
            Node::Float => input.take(4).map(drop),
            Node::Double => input.take(8).map(drop),
            Node::Bytes(_) | Node::String(_) => input.prefixed().map(drop),
            Node::Fixed(size, _) => input.take(*size).map(drop),
            Node::Union(branches) => {
                let branch = *input.branch(branches)?;
                self.skip(branch, input, depth + 1)
            }
            Node::Record(record) => record
                .fields
                .iter()
                .try_for_each(|field| self.skip(field.node, input, depth + 1)),
            Node::Array(items) => input.blocks(|input| self.skip(*items, input, depth + 1)),
            Node::Map(values) => input.blocks(|input| {
                input.prefixed()?;
                self.skip(*values, input, depth + 1)
            }),
        }
    }
}

impl<'s> Target<'s> {
    /// The planned field of a column.
    fn planned_field(&self, column: &str) -> Option<&'s Field> {
        let row = self.row?;
        let place = row.field_of(column, None)?;
        row.fields.get(place)
    }

    /// The meaning of a column's planned field.
    fn planned_meaning(&self, column: &str) -> Meaning {
        let Some(field) = self.planned_field(column) else {
            return Meaning::Plain;
        };
        let of = |node: usize| match self.planned.node(node) {
            Node::Int(meaning)
            | Node::Long(meaning)
            | Node::Bytes(meaning)
            | Node::Fixed(_, meaning) => *meaning,
            _ => Meaning::Plain,
        };
        match self.planned.node(field.node) {
            Node::Union(branches) => {
                let meanings = branches.iter().map(|branch| of(*branch));
                let mut known = meanings.filter(|meaning| *meaning != Meaning::Plain);
                known.next().unwrap_or(Meaning::Plain)
            }
            _ => of(field.node),
        }
    }
}

/// Compiles the row.
fn row_steps(writer: &Schema, row: &Record, target: &Target<'_>) -> Vec<Step> {
    let mut columns: Vec<Option<usize>> = vec![None; row.fields.len()];
    for (index, column) in target.columns.fields().iter().enumerate() {
        let field = row.field_of(column.name(), target.planned_field(column.name()));
        if let Some(place) = field.and_then(|field| columns.get_mut(field)) {
            *place = Some(index);
        }
    }
    let mut steps = Vec::new();
    for (field, column) in row.fields.iter().zip(columns) {
        match column {
            Some(column) => {
                let of = target.columns.field(column);
                steps.push(Step::Read(Read {
                    column,
                    name: of.name().clone(),
                    kind: of.data_type().clone(),
                    node: field.node,
                    planned: target.planned_meaning(of.name()),
                }));
            }
            None if field.name == DELETED => steps.push(Step::Skip(field.node)),
            None => skip(&mut steps, writer, field.node),
        }
        if field.name == DELETED
            && target.envelope == Envelope::Upsert
            && let Some(step) = steps.pop()
        {
            steps.push(Step::Deleted(field.node, Box::new(step)));
        }
    }
    steps
}

/// Appends the step that skips a node. Consecutive skips of one kind become one step.
fn skip(steps: &mut Vec<Step>, writer: &Schema, node: usize) {
    match (writer.node(node), steps.last_mut()) {
        (Node::Bytes(_) | Node::String(_), Some(Step::SkipPrefixed(count)))
        | (Node::Int(_) | Node::Long(_) | Node::Enum(_), Some(Step::SkipNumbers(count))) => {
            *count += 1;
        }
        (Node::Bytes(_) | Node::String(_), _) => steps.push(Step::SkipPrefixed(1)),
        (Node::Int(_) | Node::Long(_) | Node::Enum(_), _) => steps.push(Step::SkipNumbers(1)),
        _ => steps.push(Step::Skip(node)),
    }
}

/// Compiles a Debezium envelope.
fn envelope_steps(
    writer: &Schema,
    envelope: &Record,
    target: &Target<'_>,
) -> Result<Vec<Step>, String> {
    let op = envelope.fields.iter().find(|field| field.name == "op");
    if !op.is_some_and(|op| matches!(writer.node(op.node), Node::String(_))) {
        return Err("it is no Debezium envelope: it has no string `op`".into());
    }
    let fields = envelope.fields.iter();
    let steps = fields.map(|field| match field.name.as_str() {
        "op" => Ok(Step::Op),
        "after" => match writer.node(field.node) {
            Node::Record(row) => Ok(Step::BareRow(row_steps(writer, row, target))),
            Node::Union(branches) => {
                let branches = branches.iter().map(|branch| match writer.node(*branch) {
                    Node::Null => Ok(RowBranch::Null),
                    Node::Record(row) => Ok(RowBranch::Record(row_steps(writer, row, target))),
                    _ => Err("its `after` is neither a record nor null".to_owned()),
                });
                Ok(Step::Row(branches.collect::<Result<_, _>>()?))
            }
            _ => Err("its `after` is no record".to_owned()),
        },
        "source" => Ok(match writer.node(field.node) {
            Node::Record(source) => Step::Source(source_steps(writer, &source.fields)),
            _ => Step::Skip(field.node),
        }),
        _ => Ok(Step::Skip(field.node)),
    });
    steps.collect()
}

/// Compiles the fields of `source`.
fn source_steps(writer: &Schema, fields: &[Field]) -> Vec<Step> {
    let mut steps = Vec::new();
    for field in fields {
        let about = match field.name.as_str() {
            "version" => About::Version,
            "connector" => About::Connector,
            "sequence" => About::Sequence,
            "snapshot" => About::Snapshot,
            "ts_us" => About::AtUs,
            "lsn" => About::Lsn,
            _ => {
                skip(&mut steps, writer, field.node);
                continue;
            }
        };
        steps.push(Step::Said(about, field.node));
    }
    steps
}

/// The default of a planned field, as a cell of the column.
fn default_cell(
    planned: &Schema,
    node: usize,
    json: &Value,
    kind: &DataType,
    utc: &Tz,
) -> Option<DecodedValue<'static>> {
    let node = match planned.node(node) {
        // A union's default belongs to the branch that takes it: the first one in the Avro
        // specification, any branch in its newer versions.
        Node::Union(branches) => {
            let cells = branches.iter();
            return cells
                .copied()
                .find_map(|b| default_cell(planned, b, json, kind, utc));
        }
        other => other,
    };
    let wire = match (node, json) {
        (Node::Null, Value::Null) => return Some(DecodedValue::Null),
        (Node::Boolean, Value::Bool(value)) => Wire::Bool(*value),
        (Node::Int(meaning) | Node::Long(meaning), json) => Wire::Int(json.as_i64()?, *meaning),
        (Node::Float, json) => Wire::Float(f64::from(json.as_f64()? as f32), true),
        (Node::Double, json) => Wire::Float(json.as_f64()?, false),
        (Node::String(_) | Node::Enum(_), Value::String(text)) => {
            Wire::Text(Cow::Owned(text.clone()))
        }
        (Node::Bytes(meaning) | Node::Fixed(_, meaning), Value::String(text)) => {
            // The code points 0 to 255 stand for bytes.
            let points = text
                .chars()
                .map(|point| u8::try_from(u32::from(point)).ok());
            Wire::Bytes(Cow::Owned(points.collect::<Option<_>>()?), *meaning)
        }
        _ => return None,
    };
    wire.cell(kind, utc)
}
