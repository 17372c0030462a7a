//! Declared types of JSON columns that allow less than the stored type: `smallint`, `varchar(n)`,
//! `uuid`, `jsonb`; and `json`, which allows objects and arrays.
//!
//! Input: the cell of a column. Output: the cell as PostgreSQL's type has it, or none.

use std::borrow::Cow;

use tidemill_ir::json::Document;

use crate::columns::DecodedValue;
use crate::wire;

/// A declared type that allows less than the column's stored type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Integers of 16 bits.
    SmallInt,
    /// Texts of at most this many characters.
    Varchar(usize),
    /// JSON documents, as they are written.
    Json,
    /// JSON documents, written as PostgreSQL's `jsonb` writes them.
    Jsonb,
    /// UUIDs, written in one form, so that equal ones are equal texts.
    Uuid,
}

impl Asked {
    /// The type that the planner names; `None` for a type that allows all values.
    pub(crate) fn named(name: &str) -> Option<Self> {
        match name {
            "smallint" => Some(Self::SmallInt),
            "uuid" => Some(Self::Uuid),
            "json" => Some(Self::Json),
            "jsonb" => Some(Self::Jsonb),
            _ => {
                let most = name.strip_prefix("varchar ")?;
                most.trim().parse().ok().map(Self::Varchar)
            }
        }
    }

    /// The cell of an object or an array, which only a column of documents takes. A document in a
    /// string is taken like other strings.
    pub(crate) fn whole(self, raw: &str) -> Option<DecodedValue<'_>> {
        let document = matches!(self, Self::Json | Self::Jsonb) && raw.starts_with(['{', '[']);
        document.then_some(DecodedValue::Text(Cow::Borrowed(raw)))
    }

    /// The cell in the type's form; `None` if the type does not allow the value.
    pub(crate) fn kept(self, cell: DecodedValue<'_>) -> Option<DecodedValue<'_>> {
        match (self, cell) {
            (Self::SmallInt, DecodedValue::Int(value)) => i16::try_from(value)
                .ok()
                .map(|it| DecodedValue::Int(it.into())),
            (Self::Varchar(most), DecodedValue::Text(text)) => {
                (text.chars().count() <= most).then_some(DecodedValue::Text(text))
            }
            (Self::Uuid, DecodedValue::Text(text)) => {
                let text = wire::uuid_text(&text)?.into_owned();
                Some(DecodedValue::Text(Cow::Owned(text)))
            }
            (Self::Jsonb, DecodedValue::Text(text)) => {
                let document = Document::parse(&text).ok()?;
                Some(DecodedValue::Text(Cow::Owned(document.to_string())))
            }
            (_, cell) => Some(cell),
        }
    }

    /// What the type allows, for the text of a refusal.
    pub(crate) fn expected(self) -> String {
        match self {
            Self::SmallInt => "a whole number from -32768 to 32767".into(),
            Self::Varchar(most) => format!("a string of at most {most} characters"),
            Self::Uuid => "a UUID".into(),
            Self::Json => "a document".into(),
            Self::Jsonb => "a document that a jsonb can hold".into(),
        }
    }
}
