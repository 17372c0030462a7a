//! Programs: a writer's schema compiled against a source's columns into steps of read and skip.
//!
//! In: an Avro body. Out: one cell a column, and what a Debezium envelope says.
//!
//! 1. A body is read to its last byte; bytes left over refuse it.
//! 2. For one schema, work is bounded by the body's length: nesting has a limit, and items without
//!    bytes are not counted one by one.

use std::borrow::Cow;

use arrow::array::timezone::Tz;
use arrow::datatypes::{DataType, SchemaRef, TimeUnit};
use serde_json::Value;
use tidemill_log::envelope::{CONNECTOR, is_withheld, position_of};
use tidemill_log::event::Position;

use super::super::columns::{Cell, Cells};
use super::super::place::Said;
use super::super::text;
use super::input::{Checked, Input};
use super::schema::{Field, Meaning, Node, Schema};

/// Types nested deeper than this in one record refuse it.
const DEPTH_MAX: usize = 128;

/// What a body's envelope says, with the row in the cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Change<'a> {
    /// Debezium's letter; none outside an envelope.
    pub(super) op: Option<&'a str>,
    /// Whether there is a row.
    pub(super) row: bool,
    source: Origin<'a>,
}

/// What the envelope's `source` says; empty where it says nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Origin<'a> {
    connector: &'a [u8],
    sequence: &'a [u8],
    snapshot: &'a [u8],
    at_us: Option<i64>,
    lsn: Option<i64>,
}

/// `source.connector` of Debezium's connector for PostgreSQL.
const DEBEZIUM_POSTGRES: &[u8] = b"postgresql";

impl Change<'_> {
    /// Whether it stands for a row that could not be published.
    pub(super) fn is_withheld(&self) -> bool {
        let source = &self.source;
        source.connector == CONNECTOR.as_bytes() && is_withheld(source.sequence)
    }

    /// Where in the source a record comes from, of the own ingest or of Debezium's connector for
    /// PostgreSQL: there the LSN of the change itself grows with each change of a row.
    pub(super) fn said(&self) -> Option<Said> {
        let source = &self.source;
        if source.connector == DEBEZIUM_POSTGRES {
            let (commit, index) = (source.lsn?.cast_unsigned(), 0);
            return Some(Said {
                position: Position { commit, index },
                begins_us: None,
                is_foreign: true,
            });
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

/// A writer's schema, ready to decode its records.
#[derive(Debug)]
pub(super) struct Program {
    writer: Schema,
    steps: Vec<Step>,
    /// How many columns there are, and what stands in those that the writer does not have.
    columns: usize,
    defaults: Vec<(usize, Cell<'static>)>,
    utc: Tz,
}

/// One field of the outermost record, or of the row.
#[derive(Debug)]
enum Step {
    /// So many strings or bytes in a row that no one needs.
    SkipPrefixed(usize),
    /// So many numbers in a row that no one needs.
    SkipNumbers(usize),
    /// No one needs it: the node's value is passed over.
    Skip(usize),
    /// A column's value.
    Read(Read),
    /// The envelope's `op`.
    Op,
    /// The envelope's row: the union's branches, or one record.
    Row(Vec<RowBranch>),
    /// The row in an envelope that holds it without a union.
    BareRow(Vec<Step>),
    /// The envelope's `source`.
    Source(Vec<Step>),
    /// A field of it, and its node.
    Said(About, usize),
}

/// The fields of `source` that say where a record comes from.
#[derive(Debug, Clone, Copy)]
enum About {
    Connector,
    Sequence,
    Snapshot,
    AtUs,
    Lsn,
}

#[derive(Debug)]
enum RowBranch {
    Null,
    Record(Vec<Step>),
}

/// How a column's value is read.
#[derive(Debug)]
struct Read {
    column: usize,
    name: String,
    kind: DataType,
    node: usize,
}

impl Program {
    /// Compiles the text of a writer's schema. `planned` is the record that the columns were
    /// planned from: its defaults stand in for fields that the writer does not have.
    pub(super) fn compile(
        writer: &str,
        planned: &Schema,
        columns: &SchemaRef,
        debezium: bool,
        utc: Tz,
    ) -> Result<Self, String> {
        let writer = Schema::parse(writer)?;
        let Node::Record(fields) = writer.node(writer.root) else {
            return Err("it is no record".into());
        };
        let planned_row = match debezium {
            true => planned.record(planned.root).and_then(|f| after(planned, f)),
            false => planned.record(planned.root),
        };
        let planned_row = planned_row.unwrap_or_default();
        let (steps, row) = if debezium {
            (
                envelope(&writer, fields, planned_row, columns)?,
                after(&writer, fields),
            )
        } else {
            (
                row_steps(&writer, fields, planned_row, columns),
                Some(fields.as_slice()),
            )
        };
        let row = row.ok_or("its `after` is no record")?;
        let mut defaults = Vec::new();
        for (index, column) in columns.fields().iter().enumerate() {
            let field = planned_row.iter().find(|f| f.name == *column.name());
            let written = row.iter().any(|f| answers(&f.name, column.name(), field));
            if let Some(field) = field.filter(|_| !written)
                && let Some(json) = &field.default
            {
                let cell = default(planned, field.node, json, column.data_type(), &utc);
                let cell =
                    cell.ok_or_else(|| format!("field `{}` has the default {json}", field.name))?;
                defaults.push((index, cell));
            }
        }
        Ok(Self {
            steps,
            columns: columns.fields().len(),
            defaults,
            writer,
            utc,
        })
    }

    /// Decodes one body. `cells` is cleared and filled with one cell a column.
    pub(super) fn run<'a>(&'a self, body: &'a [u8], cells: &mut Cells<'a>) -> Checked<Change<'a>> {
        cells.clear();
        cells.extend(std::iter::repeat_n(Cell::Null, self.columns));
        for (column, cell) in &self.defaults {
            if let Some(place) = cells.get_mut(*column) {
                *place = cell.clone();
            }
        }
        let mut input = Input { rest: body };
        let mut change = Change {
            op: None,
            row: false,
            source: Origin::default(),
        };
        self.steps(&self.steps, &mut input, cells, &mut change)?;
        match input.rest.len() {
            0 => Ok(change),
            left => Err(format!("{left} bytes are left after the record's last field").into()),
        }
    }

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
                    let cell = self.read(read, read.node, input)?;
                    if let Some(place) = cells.get_mut(read.column) {
                        *place = cell;
                    }
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

    /// Reads a field of `source`; one of another type says nothing.
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
            (Node::String, About::Connector) => &mut source.connector,
            (Node::String, About::Sequence) => &mut source.sequence,
            (Node::String, About::Snapshot) => &mut source.snapshot,
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

    fn read<'a>(&'a self, read: &Read, node: usize, input: &mut Input<'a>) -> Checked<Cell<'a>> {
        let node = match self.writer.node(node) {
            Node::Union(branches) => self.writer.node(*input.branch(branches)?),
            other => other,
        };
        let wire = match node {
            Node::Null => return Ok(Cell::Null),
            Node::Boolean => Wire::Bool(input.boolean()?),
            Node::Int(meaning) => Wire::Int(input.int()?, *meaning),
            Node::Long(meaning) => Wire::Int(input.long()?, *meaning),
            Node::Float => Wire::Float(f64::from(f32::from_le_bytes(input.array()?)), true),
            Node::Double => Wire::Float(f64::from_le_bytes(input.array()?), false),
            Node::Bytes(meaning) => Wire::Bytes(input.prefixed()?, *meaning),
            Node::Fixed(size, meaning) => Wire::Bytes(input.take(*size)?, *meaning),
            Node::String => Wire::Text(input.text()?),
            Node::Enum(symbols) => Wire::Text(input.branch(symbols)?),
            Node::Array(_) | Node::Map(_) | Node::Record(_) | Node::Union(_) => {
                let (name, expected) = (&read.name, text::expected(&read.kind));
                return Err(
                    format!("field `{name}`: found a nested value, expected {expected}").into(),
                );
            }
        };
        wire.cell(&read.kind, &self.utc).ok_or_else(|| {
            let (name, expected) = (&read.name, text::expected(&read.kind));
            format!(
                "field `{name}`: found {}, expected {expected}",
                wire.excerpt()
            )
            .into()
        })
    }

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
            Node::Bytes(_) | Node::String => input.prefixed().map(drop),
            Node::Fixed(size, _) => input.take(*size).map(drop),
            Node::Union(branches) => {
                let branch = *input.branch(branches)?;
                self.skip(branch, input, depth + 1)
            }
            Node::Record(fields) => fields
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

/// Whether the writer's field `name` is the column's: by its name, or by an alias of the planned
/// field.
fn answers(name: &str, column: &str, planned: Option<&Field>) -> bool {
    name == column || planned.is_some_and(|field| field.aliases.iter().any(|alias| alias == name))
}

fn row_steps(
    writer: &Schema,
    fields: &[Field],
    planned: &[Field],
    columns: &SchemaRef,
) -> Vec<Step> {
    let column_of = |name: &str| {
        columns.fields().iter().position(|column| {
            let field = planned.iter().find(|f| f.name == *column.name());
            // An alias counts only where the writer has no field of the name itself.
            let exact = fields.iter().any(|f| f.name == *column.name());
            answers(name, column.name(), field.filter(|_| !exact))
        })
    };
    let mut steps = Vec::new();
    for field in fields {
        match column_of(&field.name) {
            Some(column) => steps.push(Step::Read(Read {
                column,
                name: field.name.clone(),
                kind: columns.field(column).data_type().clone(),
                node: field.node,
            })),
            None => skip(&mut steps, writer, field.node),
        }
    }
    steps
}

/// Adds what passes over a node's value: runs of like ones are one step.
fn skip(steps: &mut Vec<Step>, writer: &Schema, node: usize) {
    match (writer.node(node), steps.last_mut()) {
        (Node::Bytes(_) | Node::String, Some(Step::SkipPrefixed(count)))
        | (Node::Int(_) | Node::Long(_) | Node::Enum(_), Some(Step::SkipNumbers(count))) => {
            *count += 1;
        }
        (Node::Bytes(_) | Node::String, _) => steps.push(Step::SkipPrefixed(1)),
        (Node::Int(_) | Node::Long(_) | Node::Enum(_), _) => steps.push(Step::SkipNumbers(1)),
        _ => steps.push(Step::Skip(node)),
    }
}

fn after<'s>(schema: &'s Schema, fields: &[Field]) -> Option<&'s [Field]> {
    let after = fields.iter().find(|field| field.name == "after")?;
    schema.record(after.node)
}

fn envelope(
    writer: &Schema,
    fields: &[Field],
    planned: &[Field],
    columns: &SchemaRef,
) -> Result<Vec<Step>, String> {
    let op = fields.iter().find(|field| field.name == "op");
    if !op.is_some_and(|op| matches!(writer.node(op.node), Node::String)) {
        return Err("it is no Debezium envelope: it has no string `op`".into());
    }
    let steps = fields.iter().map(|field| match field.name.as_str() {
        "op" => Ok(Step::Op),
        "after" => match writer.node(field.node) {
            Node::Record(row) => Ok(Step::BareRow(row_steps(writer, row, planned, columns))),
            Node::Union(branches) => {
                let branches = branches.iter().map(|branch| match writer.node(*branch) {
                    Node::Null => Ok(RowBranch::Null),
                    Node::Record(row) => {
                        Ok(RowBranch::Record(row_steps(writer, row, planned, columns)))
                    }
                    _ => Err("its `after` is neither a record nor null".to_owned()),
                });
                Ok(Step::Row(branches.collect::<Result<_, _>>()?))
            }
            _ => Err("its `after` is no record".to_owned()),
        },
        "source" => Ok(match writer.node(field.node) {
            Node::Record(fields) => Step::Source(source_steps(writer, fields)),
            _ => Step::Skip(field.node),
        }),
        _ => Ok(Step::Skip(field.node)),
    });
    steps.collect()
}

fn source_steps(writer: &Schema, fields: &[Field]) -> Vec<Step> {
    let mut steps = Vec::new();
    for field in fields {
        let about = match field.name.as_str() {
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

/// A planned field's default as the column's cell.
fn default(
    planned: &Schema,
    node: usize,
    json: &Value,
    kind: &DataType,
    utc: &Tz,
) -> Option<Cell<'static>> {
    let node = match planned.node(node) {
        // A union's default is of the branch that takes it: the first one by the letter of the
        // specification, any one in its newer versions.
        Node::Union(branches) => {
            let cells = branches.iter();
            return cells
                .copied()
                .find_map(|b| default(planned, b, json, kind, utc));
        }
        other => other,
    };
    let bytes: Vec<u8>;
    let wire = match (node, json) {
        (Node::Null, Value::Null) => return Some(Cell::Null),
        (Node::Boolean, Value::Bool(value)) => Wire::Bool(*value),
        (Node::Int(meaning) | Node::Long(meaning), json) => Wire::Int(json.as_i64()?, *meaning),
        (Node::Float, json) => Wire::Float(f64::from(json.as_f64()? as f32), true),
        (Node::Double, json) => Wire::Float(json.as_f64()?, false),
        (Node::String | Node::Enum(_), Value::String(text)) => Wire::Text(text),
        (Node::Bytes(meaning) | Node::Fixed(_, meaning), Value::String(text)) => {
            // Code points 0 to 255 stand for bytes.
            let points = text
                .chars()
                .map(|point| u8::try_from(u32::from(point)).ok());
            bytes = points.collect::<Option<_>>()?;
            if *kind == DataType::Binary {
                return text
                    .is_ascii()
                    .then(|| Cell::Text(Cow::Owned(text.clone())));
            }
            Wire::Bytes(&bytes, *meaning)
        }
        _ => return None,
    };
    Some(match wire.cell(kind, utc)? {
        Cell::Text(text) => Cell::Text(Cow::Owned(text.into_owned())),
        Cell::Bytes(_) => return None,
        Cell::Null => Cell::Null,
        Cell::Bool(value) => Cell::Bool(value),
        Cell::Int(value) => Cell::Int(value),
        Cell::Float(value) => Cell::Float(value),
        Cell::Decimal(value) => Cell::Decimal(value),
    })
}

/// A value as it was written.
enum Wire<'a> {
    Bool(bool),
    Int(i64, Meaning),
    /// The flag says that it was written with 32 bits.
    Float(f64, bool),
    Bytes(&'a [u8], Meaning),
    Text(&'a str),
}

impl<'a> Wire<'a> {
    /// The cell of a column of this type, none when the column does not take the value.
    fn cell(&self, kind: &DataType, utc: &Tz) -> Option<Cell<'a>> {
        Some(match (self, kind) {
            (Self::Bool(value), DataType::Boolean) => Cell::Bool(*value),
            (Self::Int(value, meaning), kind) => return whole(*value, *meaning, kind),
            (Self::Float(value, _), DataType::Float64)
            | (Self::Float(value, true), DataType::Float32) => Cell::Float(*value),
            (Self::Text(value), DataType::Utf8) => Cell::Text(Cow::Borrowed(value)),
            (Self::Text(value), DataType::Binary) => Cell::Bytes(value.as_bytes()),
            (Self::Text(value), DataType::Date32) => Cell::Int(i64::from(text::date(value)?)),
            (Self::Text(value), DataType::Timestamp(_, _)) => {
                Cell::Int(text::timestamp(value, utc)?)
            }
            (Self::Text(value), DataType::Decimal128(precision, scale)) => {
                Cell::Decimal(text::decimal(value, *precision, *scale)?)
            }
            (Self::Bytes(value, Meaning::Decimal { scale }), DataType::Decimal128(p, to)) => {
                let value = text::rescale(twos_complement(value)?, *scale, i64::from(*to))?;
                Cell::Decimal(text::in_precision(value, *p)?)
            }
            (Self::Bytes(value, _), DataType::Binary) => Cell::Bytes(value),
            (Self::Bytes(value, Meaning::Plain), DataType::Utf8) => {
                Cell::Text(Cow::Borrowed(std::str::from_utf8(value).ok()?))
            }
            _ => return None,
        })
    }

    fn excerpt(&self) -> String {
        match self {
            Self::Bool(value) => value.to_string(),
            Self::Int(value, _) => value.to_string(),
            Self::Float(value, _) => value.to_string(),
            Self::Bytes(value, _) => format!("{} bytes", value.len()),
            Self::Text(value) => format!("{:?}", text::excerpt(value)),
        }
    }
}

/// An `int`'s or `long`'s cell.
fn whole(value: i64, meaning: Meaning, kind: &DataType) -> Option<Cell<'static>> {
    const DAY: i64 = 86_400_000_000;
    Some(match kind {
        DataType::Int64 => Cell::Int(value),
        DataType::Int32 => Cell::Int(i64::from(i32::try_from(value).ok()?)),
        DataType::Float64 => Cell::Float(value as f64),
        DataType::Float32 => Cell::Float(f64::from(value as f32)),
        DataType::Date32 => match meaning {
            Meaning::Days | Meaning::Plain => Cell::Int(i64::from(i32::try_from(value).ok()?)),
            _ => return None,
        },
        DataType::Timestamp(TimeUnit::Microsecond, _) => Cell::Int(match meaning {
            Meaning::Micros | Meaning::Plain => value,
            Meaning::Millis => value.checked_mul(1000)?,
            Meaning::Nanos => value.div_euclid(1000),
            Meaning::Days => value.checked_mul(DAY)?,
            Meaning::Decimal { .. } => return None,
        }),
        DataType::Decimal128(precision, scale) => {
            let value = text::rescale(i128::from(value), 0, i64::from(*scale))?;
            Cell::Decimal(text::in_precision(value, *precision)?)
        }
        _ => return None,
    })
}

/// A big-endian number of any length that fits; bytes that only repeat the sign are passed over.
fn twos_complement(bytes: &[u8]) -> Option<i128> {
    let negative = bytes.first().is_some_and(|first| first & 0x80 != 0);
    let sign = if negative { 0xff } else { 0 };
    let (spare, used) = bytes.split_at(bytes.len().saturating_sub(16));
    let used_negative = used.first().is_some_and(|first| first & 0x80 != 0);
    if spare.iter().any(|byte| *byte != sign) || used_negative != negative {
        return None;
    }
    let start = if negative { -1 } else { 0 };
    Some(
        used.iter()
            .fold(start, |value: i128, byte| (value << 8) | i128::from(*byte)),
    )
}
