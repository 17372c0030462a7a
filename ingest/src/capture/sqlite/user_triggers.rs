//! User triggers: refuses tables whose own triggers would hide changes from the capture triggers.
//!
//! In: the SQL of the triggers in the file. Out: an error for a table that cannot be captured.
//! SQLite runs the triggers of one event in an undefined order, so a capture trigger may run before
//! or after any other. Two kinds of triggers hide a change in some order:
//!
//! 1. An AFTER trigger with `RAISE(IGNORE)` keeps the change and skips the triggers after it.
//! 2. A BEFORE trigger that changes the table itself, directly or by other triggers and foreign
//!    keys, creates rows that `REPLACE` then deletes, after the capture trigger has noted which
//!    rows it may delete.

use std::collections::BTreeSet;

use rusqlite::Transaction;
use tidemill_log::schema::TableSchema;

use super::sql_error;
use crate::{Error, Kind, Result};

/// A user's trigger.
struct Trigger {
    /// Its name.
    name: String,
    /// Its table, in lower case, as all table names in this module.
    table: String,
    /// Whether it is an AFTER trigger.
    is_after: bool,
    /// Whether it has `RAISE(IGNORE)`.
    ignores: bool,
    /// The tables that its statements change.
    changes: BTreeSet<String>,
}

/// A token of SQL. String literals and comments give none.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    /// A keyword or a plain name, in upper case.
    Word(String),
    /// A quoted name.
    Quoted(String),
    /// Any other character but white space.
    Sign(char),
}

/// Checks the user's triggers of a table. `is_unique` says whether `REPLACE` may delete rows with
/// another key.
///
/// # Errors
/// [`Kind::Data`] for a trigger that would hide changes, with the remedy.
pub(super) fn check(
    transaction: &Transaction<'_>,
    table: &TableSchema,
    is_unique: bool,
) -> Result<()> {
    let failed = |error| sql_error("reading the user's triggers", error);
    let all = triggers(transaction).map_err(failed)?;
    let table_name = table.name.to_lowercase();
    let refused = |trigger: &Trigger, what: &str| {
        let what = format!("table `{}`: trigger `{}` {what}", table.name, trigger.name);
        Err(Error::new(Kind::Data, what))
    };
    for trigger in all.iter().filter(|it| it.table == table_name) {
        if trigger.is_after && trigger.ignores {
            let what = "is an AFTER trigger with RAISE(IGNORE), behind which SQLite skips the \
                        capture's triggers, so changes would be missed; make it a BEFORE trigger";
            return refused(trigger, what);
        }
        if is_unique && !trigger.is_after && !trigger.changes.is_empty() {
            let reached = reached(transaction, &all, trigger).map_err(failed)?;
            if reached.contains(&table_name) {
                let what = "is a BEFORE trigger that changes the table itself, which has UNIQUE \
                            columns, so rows that REPLACE removes would be missed; make it an \
                            AFTER trigger";
                return refused(trigger, what);
            }
        }
    }
    Ok(())
}

/// The triggers in the file, without those of captures.
fn triggers(transaction: &Transaction<'_>) -> rusqlite::Result<Vec<Trigger>> {
    let mut statement = transaction.prepare(
        "SELECT name, tbl_name, sql FROM sqlite_schema
         WHERE type = 'trigger' AND name NOT GLOB '_tidemill_*' ORDER BY name",
    )?;
    let rows = statement.query_map([], |row| {
        let (name, table, sql): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok(Trigger::of(name, &table, &sql))
    })?;
    rows.collect()
}

/// The tables that a trigger changes, directly, by other triggers and by foreign keys.
fn reached(
    transaction: &Transaction<'_>,
    all: &[Trigger],
    first: &Trigger,
) -> rusqlite::Result<BTreeSet<String>> {
    let mut children = transaction.prepare(
        "SELECT lower(child.name), lower(other.\"table\")
         FROM sqlite_schema AS child, pragma_foreign_key_list(child.name) AS other
         WHERE child.type = 'table'",
    )?;
    let children = children.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let children: Vec<(String, String)> = children.collect::<rusqlite::Result<_>>()?;
    let mut reached = BTreeSet::new();
    let mut next: Vec<String> = first.changes.iter().cloned().collect();
    while let Some(table) = next.pop() {
        if reached.insert(table.clone()) {
            let of = all.iter().filter(|it| it.table == table);
            next.extend(of.flat_map(|it| it.changes.iter().cloned()));
            let below = children.iter().filter(|(_, parent)| *parent == table);
            next.extend(below.map(|(child, _)| child.clone()));
        }
    }
    Ok(reached)
}

impl Trigger {
    /// Finds out what matters of a trigger.
    fn of(name: String, table: &str, sql: &str) -> Self {
        let tokens = tokens(sql);
        let word = |token: &Token, word: &str| matches!(token, Token::Word(it) if it == word);
        let begin = tokens.iter().position(|token| word(token, "BEGIN"));
        let (head, body) = tokens.split_at(begin.unwrap_or(tokens.len()));
        let ignores = body.windows(3).any(|it| match it {
            [raise, Token::Sign('('), ignore] => word(raise, "RAISE") && word(ignore, "IGNORE"),
            _ => false,
        });
        Self {
            name,
            table: table.to_lowercase(),
            is_after: head.iter().any(|token| word(token, "AFTER")),
            ignores,
            changes: changes(body),
        }
    }
}

/// The tables that statements change: `INTO t`, `UPDATE [OR …] t`, `DELETE FROM t`.
fn changes(body: &[Token]) -> BTreeSet<String> {
    let name = |token: Option<&Token>| match token {
        Some(Token::Word(name) | Token::Quoted(name)) => Some(name.to_lowercase()),
        _ => None,
    };
    let word = |token: Option<&Token>| match token {
        Some(Token::Word(word)) => word.as_str().to_owned(),
        _ => String::new(),
    };
    let mut found = BTreeSet::new();
    for (at, token) in body.iter().enumerate() {
        let after = |n: usize| body.get(at + n);
        let changed = match token {
            Token::Word(it) if it == "INTO" => name(after(1)),
            Token::Word(it) if it == "DELETE" && word(after(1)) == "FROM" => name(after(2)),
            Token::Word(it) if it == "UPDATE" => match word(after(1)).as_str() {
                "OR" => name(after(3)),
                "SET" => None, // ON CONFLICT DO UPDATE SET
                _ => name(after(1)),
            },
            _ => None,
        };
        found.extend(changed);
    }
    found
}

/// Splits SQL into tokens.
fn tokens(sql: &str) -> Vec<Token> {
    let mut rest = sql;
    let mut found = Vec::new();
    while let Some(first) = rest.chars().next() {
        let quoted = |close: char| {
            let inside = rest.get(first.len_utf8()..).unwrap_or_default();
            let end = inside.find(close).unwrap_or(inside.len());
            let after = inside.get(end + close.len_utf8()..).unwrap_or_default();
            (inside.get(..end).unwrap_or_default(), after)
        };
        let is_name = |sign: char| sign.is_alphanumeric() || sign == '_' || sign == '$';
        rest = match first {
            '\'' => quoted('\'').1,
            '"' | '`' | '[' => {
                let (name, after) = quoted(if first == '[' { ']' } else { first });
                found.push(Token::Quoted(name.to_owned()));
                after
            }
            '-' if rest.starts_with("--") => rest.split_once('\n').map_or("", |it| it.1),
            '/' if rest.starts_with("/*") => rest.split_once("*/").map_or("", |it| it.1),
            _ if is_name(first) => {
                let end = rest.find(|sign| !is_name(sign)).unwrap_or(rest.len());
                let (word, after) = rest.split_at(end);
                found.push(Token::Word(word.to_uppercase()));
                after
            }
            _ => {
                if !first.is_whitespace() {
                    found.push(Token::Sign(first));
                }
                rest.get(first.len_utf8()..).unwrap_or_default()
            }
        };
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trigger_sql_is_analysed() {
        let of = |sql| Trigger::of("x".to_owned(), "T", sql);
        let it = of("CREATE TRIGGER \"AFTER all\" BEFORE INSERT ON t BEGIN
             -- INSERT INTO comment VALUES (1);
             INSERT INTO a SELECT 'UPDATE text' FROM b; UPDATE OR IGNORE [C d] SET e = 1;
             INSERT INTO f VALUES (1) ON CONFLICT DO UPDATE SET g = 2; /* DELETE FROM h */
             REPLACE INTO i VALUES (1); DELETE FROM `j`; SELECT raise ( ignore ); END");
        let changes: Vec<&str> = it.changes.iter().map(String::as_str).collect();
        assert_eq!(changes, ["a", "c d", "f", "i", "j"]);
        assert!(!it.is_after && it.ignores && it.table == "t");
        let it = of("CREATE TRIGGER x AFTER UPDATE ON t BEGIN SELECT RAISE(ABORT, 'no'); END");
        assert!(it.is_after && !it.ignores && it.changes.is_empty());
    }
}
