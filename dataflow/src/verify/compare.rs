//! Comparison of a table with its view: missing, extra and different rows, and their repair.
//!
//! Input: what the table contains, and what it may contain. Output: the keys that differ, as texts
//! for people and as writes that correct them.

use std::collections::BTreeMap;

use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use hashbrown::HashMap;
use tidemill_ir::Epoch;
use tidemill_ir::row::{Row, bug};
use tidemill_log::Result;
use tidemill_sinks::{Odd, Scanned, Sink, Writes};

use super::expected::{ExpectedRows, Keyed, Only};

/// What a table contains, by primary key.
#[derive(Default)]
pub(super) struct Found {
    /// The rows.
    rows: HashMap<Row, Row>,
    /// Values that the view's columns cannot hold, by the row's key.
    odd: HashMap<Row, Vec<Odd>>,
}

impl Found {
    /// Reads a table, or only some of its keys.
    ///
    /// # Errors
    /// As [`tidemill_sinks::ReadBack::scan`].
    pub(super) fn read(sink: &dyn Sink, keyed: &Keyed, only: &Only) -> Result<Self> {
        let mut found = Self::default();
        let keys = only.as_ref().map(|only| keyed.decode(only.values()));
        let keys = keys.transpose()?;
        if keys.as_ref().is_some_and(|keys| keys.num_rows() == 0) {
            return Ok(found);
        }
        sink.read_back()?
            .scan(&keyed.table, keys.as_ref(), &mut |scanned: Scanned| {
                let rows = keyed.encode(&scanned.rows)?;
                for odd in scanned.odd {
                    if let Some((key, _)) = rows.get(odd.row) {
                        found.odd.entry(key.clone()).or_default().push(odd);
                    }
                }
                found.rows.extend(rows);
                Ok(())
            })?;
        Ok(found)
    }

    /// The keys whose row is not one that the table may contain.
    pub(super) fn compare(&self, expected: &ExpectedRows) -> Differing {
        let mut differing = Differing::new();
        let unexpected = expected.keys().filter(|key| !self.rows.contains_key(*key));
        for key in self.rows.keys().chain(unexpected) {
            let is = self.rows.get(key);
            let odd = self.odd.get(key);
            if odd.is_none() && expected.allow(key, is) {
                continue;
            }
            let difference = Wrong {
                is: is.cloned(),
                odd: odd.cloned().unwrap_or_default(),
                should: expected.last(key).cloned(),
            };
            differing.insert(key.clone(), difference);
        }
        differing
    }
}

/// The differing rows, by key.
pub(super) type Differing = BTreeMap<Row, Wrong>;

/// What a table contains for a key, and what it should contain. At least one of the two is a row.
pub(super) struct Wrong {
    /// The row in the table.
    is: Option<Row>,
    /// Its values that the view cannot have.
    odd: Vec<Odd>,
    /// The row that the view has.
    should: Option<Row>,
}

impl Wrong {
    /// A row with this key: the table's, or else the view's.
    pub(super) fn any(&self) -> Option<&Row> {
        self.is.as_ref().or(self.should.as_ref())
    }
}

/// The differences between a table and its view.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Differences {
    /// The number of rows of the view that the table lacks.
    pub missing: u64,
    /// The number of rows of the table that the view does not have.
    pub extra: u64,
    /// The number of rows whose values differ.
    pub different: u64,
    /// The first differences, in the order of their keys.
    pub first: Vec<Difference>,
}

impl Differences {
    /// The number of rows that differ.
    pub fn count(&self) -> u64 {
        self.missing + self.extra + self.different
    }

    /// The differences for people: all are counted, the first `limit` are described.
    pub(super) fn new(keyed: &Keyed, differing: &Differing, limit: usize) -> Result<Self> {
        let mut differences = Self::default();
        for wrong in differing.values() {
            match (&wrong.is, &wrong.should) {
                (None, _) => differences.missing += 1,
                (_, None) => differences.extra += 1,
                _ => differences.different += 1,
            }
        }
        let first = differing.values().take(limit);
        let first = first.map(|wrong| Difference::new(keyed, wrong));
        differences.first = first.collect::<Result<_>>()?;
        Ok(differences)
    }
}

/// A row that differs, as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The values of the primary key.
    pub key: Vec<String>,
    /// How the row differs.
    pub what: What,
}

/// How a row differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// The view has the row, the table does not.
    Missing,
    /// The table has the row, the view does not.
    Extra,
    /// The table has other values in these columns.
    Different(Vec<Cell>),
}

/// A value that differs. `None` is null.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    /// The column's name.
    pub column: String,
    /// The value in the table.
    pub is: Option<String>,
    /// The value in the view.
    pub should_be: Option<String>,
}

impl Difference {
    /// Describes a row that differs.
    fn new(keyed: &Keyed, wrong: &Wrong) -> Result<Self> {
        let table = &keyed.table;
        let texts = |row: Option<&Row>| texts(&keyed.decode(row.into_iter())?);
        let key = texts(wrong.any())?;
        let key = table.primary_key.iter().map(|column| {
            let value = key.get(*column).cloned().flatten();
            value.unwrap_or_default()
        });
        let what = match (&wrong.is, &wrong.should) {
            (None, _) => What::Missing,
            (_, None) => What::Extra,
            (is, should) => {
                let (mut is, should) = (texts(is.as_ref())?, texts(should.as_ref())?);
                for odd in &wrong.odd {
                    if let Some(is) = is.get_mut(odd.column) {
                        *is = Some(odd.text.clone());
                    }
                }
                let is_odd = |column| wrong.odd.iter().any(|odd| odd.column == column);
                let cells = is.into_iter().zip(should).enumerate();
                let cells = cells.filter(|(column, (is, should))| is != should || is_odd(*column));
                let cells = cells.map(|(column, (is, should_be))| Cell {
                    column: table.schema.field(column).name().clone(),
                    is,
                    should_be,
                });
                What::Different(cells.collect())
            }
        };
        Ok(Self {
            key: key.collect(),
            what,
        })
    }
}

/// The values of the single row of a batch, as text.
fn texts(row: &RecordBatch) -> Result<Vec<Option<String>>> {
    let options = FormatOptions::default().with_timestamp_format(Some("%F %T%.f"));
    let texts = row.columns().iter().map(|column| {
        if column.is_empty() || column.is_null(0) {
            return Ok(None);
        }
        let formatter = ArrayFormatter::try_new(column.as_ref(), &options).map_err(bug)?;
        formatter.value(0).try_to_string().map(Some).map_err(bug)
    });
    texts.collect()
}

/// The writes that correct a table at the end of `epoch`.
///
/// # Errors
/// `Bug` when the rows cannot be decoded.
pub(super) fn repairs(
    keyed: &Keyed,
    table: usize,
    epoch: Epoch,
    differing: &Differing,
) -> Result<Writes> {
    let all = || differing.values();
    let upserts = all().filter(|wrong| wrong.should.is_some());
    let deletes = all().filter(|wrong| wrong.should.is_none());
    Ok(Writes {
        table,
        epoch,
        replaced: keyed.decode_or_null(upserts.clone().map(|wrong| wrong.is.as_ref()))?,
        upserts: keyed.decode(upserts.filter_map(|wrong| wrong.should.as_ref()))?,
        deletes: keyed.decode(deletes.filter_map(|wrong| wrong.is.as_ref()))?,
    })
}
