//! The texts of `string_agg`, put together while a group's values are read.

use arrow::array::{Array, AsArray};
use tidemill_ir::row::{Row, RowCodec};
use tidemill_log::{Error, Kind, Result};

use super::wanted::Wanted;

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
                distinct: *distinct,
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
        let texts = self.growing.into_iter();
        Ok(Ok(texts
            .filter_map(|growing| Some((growing.index, growing.text?)))
            .collect()))
    }

    /// Decodes the values that wait, and appends them.
    fn decode(&mut self) -> Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let rows = self
            .codec
            .decode(self.waiting.iter().map(|(row, _)| *row))?;
        let column = rows.column(self.column);
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
