//! The texts of `string_agg`, and the documents of `json_agg` and the like, put together while a
//! group's values are read.

use arrow::array::{Array, AsArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use tidemill_ir::json::{Document, elements};
use tidemill_ir::row::{Row, RowCodec};
use tidemill_log::{Error, Kind, Result};

use super::wanted::{Form, Wanted};

/// Bytes of a `string_agg`; a group whose text is longer is a dead letter.
pub(crate) const STRING_AGG_BYTES_MAX: usize = 1 << 20;
/// Values that are decoded together.
const DECODED: usize = 256;

/// One text that grows.
struct Growing<'a> {
    /// Which aggregate it is.
    index: usize,
    /// What is between two texts.
    separator: &'a str,
    /// The form of documents; `None` for plain texts.
    form: Option<Form>,
    /// Whether equal texts are taken once.
    distinct: bool,
    /// The text so far; `None` before the first one.
    text: Option<String>,
}

/// The texts of all `string_agg` of a part.
pub(crate) struct Texts<'a> {
    /// The texts.
    growing: Vec<Growing<'a>>,
    /// The codec of values.
    codec: &'a RowCodec,
    /// Which column of a value is the text.
    column: usize,
    /// Values that are not decoded yet, and how often each is there.
    waiting: Vec<(&'a Row, u64)>,
    /// The index of the first aggregate whose text is too long.
    refused: Option<usize>,
}

impl<'a> Texts<'a> {
    /// The texts before the first value.
    pub(crate) fn new(wanted: &'a [Wanted], (codec, column): (&'a RowCodec, usize)) -> Self {
        let growing = wanted.iter().enumerate();
        let growing = growing.filter_map(|(index, wanted)| match wanted {
            Wanted::Text {
                separator,
                distinct,
            } => Some(Growing {
                index,
                separator,
                form: None,
                distinct: *distinct,
                text: None,
            }),
            Wanted::Document(form) => Some(Growing {
                index,
                separator: ", ",
                form: Some(*form),
                distinct: form.distinct,
                text: None,
            }),
            _ => None,
        });
        Self {
            growing: growing.collect(),
            codec,
            column,
            waiting: Vec::new(),
            refused: None,
        }
    }

    /// Adds a value that is there `count` times. Returns false if a text has become too long, so
    /// that no further value is needed.
    ///
    /// # Errors
    /// `Bug` when a value cannot be decoded.
    pub(crate) fn add(&mut self, value: &'a Row, count: u64) -> Result<bool> {
        if self.growing.is_empty() {
            return Ok(true);
        }
        self.waiting.push((value, count));
        if self.waiting.len() == DECODED {
            self.decode()?;
        }
        Ok(self.refused.is_none())
    }

    /// The texts with the indices of their aggregates; the inner error is the index of one that is
    /// too long.
    ///
    /// # Errors
    /// `Bug` when a value cannot be decoded.
    pub(crate) fn finish(mut self) -> Result<std::result::Result<Vec<(usize, String)>, usize>> {
        self.decode()?;
        if let Some(index) = self.refused {
            return Ok(Err(index));
        }
        let mut texts = Vec::with_capacity(self.growing.len());
        for growing in self.growing {
            let index = growing.index;
            if let Some(text) = growing.finished()? {
                texts.push((index, text));
            }
        }
        Ok(Ok(texts))
    }

    /// Decodes the values that wait, and appends them.
    fn decode(&mut self) -> Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let rows = self
            .codec
            .decode(self.waiting.iter().map(|(row, _)| *row))?;
        let column = cast(rows.column(self.column), &DataType::Utf8);
        let column = column.map_err(tidemill_ir::row::bug)?;
        let Some(texts) = column.as_string_opt::<i32>() else {
            let what = format!("string_agg of {}", column.data_type());
            return Err(Error::new(Kind::Bug, what));
        };
        for ((_, count), text) in self.waiting.drain(..).zip(texts) {
            for growing in &mut self.growing {
                let fits = growing.append(text.unwrap_or_default(), count);
                if !fits {
                    self.refused.get_or_insert(growing.index);
                }
            }
        }
        Ok(())
    }
}

impl Growing<'_> {
    /// The whole text; a document in its brackets.
    ///
    /// # Errors
    /// `Bug` when what was collected is no document.
    fn finished(self) -> Result<Option<String>> {
        let (Some(text), Some(form)) = (&self.text, self.form) else {
            return Ok(self.text);
        };
        let array = format!("[{text}]");
        if !form.object {
            return Ok(Some(array));
        }
        let bug = |why: String| Error::new(Kind::Bug, format!("members of an object: {why}"));
        let mut members = Vec::new();
        for member in elements(&array).map_err(bug)? {
            let parts = elements(member).map_err(bug)?;
            let [key, value] = parts.as_slice() else {
                return Err(bug(format!("`{member}` is no key and value")));
            };
            members.push((*key, *value));
        }
        if !form.binary {
            let written = members
                .iter()
                .map(|(key, value)| format!("{key} : {value}"));
            let written: Vec<String> = written.collect();
            return Ok(Some(format!("{{ {} }}", written.join(", "))));
        }
        let parsed = members.into_iter().map(|(key, value)| {
            let key = tidemill_ir::json::string(key).map_err(bug)?;
            Ok((key, Document::parse(value).map_err(bug)?))
        });
        let object = Document::object(parsed.collect::<Result<_>>()?);
        Ok(Some(object.to_string()))
    }

    /// Appends a text `count` times. Returns false if the whole becomes too long.
    fn append(&mut self, text: &str, count: u64) -> bool {
        let times = if self.distinct { 1 } else { count };
        for _ in 0..times {
            let whole = match &mut self.text {
                Some(whole) => {
                    whole.push_str(self.separator);
                    whole
                }
                none => none.insert(String::new()),
            };
            whole.push_str(text);
            if whole.len() > STRING_AGG_BYTES_MAX {
                return false;
            }
        }
        true
    }
}
