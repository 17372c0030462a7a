//! What the declared type of a JSON table asks of a value beside the type that it is kept in:
//! `smallint`, `varchar(n)` and `uuid`.
//!
//! In: a column's cell. Out: the cell as PostgreSQL's type has it, or none.

use std::borrow::Cow;

use super::columns::Cell;
use super::wire;

/// A declared type that takes less than the column's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// 16 bits.
    SmallInt,
    /// At most so many characters.
    Varchar(usize),
    /// Written in one way, so that equal ones are equal texts.
    Uuid,
}

impl Asked {
    /// The type that the planner names; none for one that asks nothing of its values.
    pub(super) fn named(name: &str) -> Option<Self> {
        match name {
            "smallint" => Some(Self::SmallInt),
            "uuid" => Some(Self::Uuid),
            _ => {
                let most = name.strip_prefix("varchar ")?;
                most.trim().parse().ok().map(Self::Varchar)
            }
        }
    }

    /// The cell as the type has it; none for one that it does not take.
    pub(super) fn kept(self, cell: Cell<'_>) -> Option<Cell<'_>> {
        match (self, cell) {
            (Self::SmallInt, Cell::Int(value)) => {
                i16::try_from(value).ok().map(|it| Cell::Int(it.into()))
            }
            (Self::Varchar(most), Cell::Text(text)) => {
                (text.chars().count() <= most).then_some(Cell::Text(text))
            }
            (Self::Uuid, Cell::Text(text)) => {
                let text = wire::uuid_text(&text)?.into_owned();
                Some(Cell::Text(Cow::Owned(text)))
            }
            (_, cell) => Some(cell),
        }
    }

    /// What it takes, for the text of a refusal.
    pub(super) fn expected(self) -> String {
        match self {
            Self::SmallInt => "a whole number from -32768 to 32767".into(),
            Self::Varchar(most) => format!("a string of at most {most} characters"),
            Self::Uuid => "a UUID".into(),
        }
    }
}
