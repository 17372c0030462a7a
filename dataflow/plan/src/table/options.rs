//! Statement options: `WITH (name = 'value', …)`. Each is known, given at most once, and a string.
//!
//! Input: the options as parsed, and the names that the statement knows. Output: the values with
//! their places, for errors about a value.

use datafusion_sql::sqlparser::ast::{CreateTableOptions, Expr, SqlOption, Value};
use datafusion_sql::sqlparser::ast::{Ident, Spanned};
use datafusion_sql::sqlparser::tokenizer::Location;
use tidemill_log::Result;

use crate::script::{Script, did_you_mean, normal};

/// The options of one statement.
pub(crate) struct Options {
    /// Name, value, and the value's place.
    given: Vec<(String, String, Location)>,
}

impl Options {
    /// Reads the options of a statement.
    ///
    /// # Errors
    /// `Data` with the place, when an option is not in `known`, is given twice or is not a string.
    pub(crate) fn read(
        options: &CreateTableOptions,
        known: &[&str],
        script: Script<'_>,
        at: Location,
    ) -> Result<Self> {
        let options = match options {
            CreateTableOptions::None => [].as_slice(),
            CreateTableOptions::With(options) => options,
            _ => return Err(script.error(at, "options are written WITH (name = 'value')")),
        };
        let mut given: Vec<(String, String, Location)> = Vec::new();
        for option in options {
            let (key, value) = key_value(option).ok_or_else(|| {
                script.error(
                    at,
                    format!("option `{option}` is not of the form name = 'value'"),
                )
            })?;
            let name = normal(key);
            let place = key.span.start;
            if !known.contains(&name.as_str()) {
                let hint = did_you_mean(&name, known);
                let known = known.join(", ");
                let what = format!("unknown option `{name}`{hint} (there are: {known})");
                return Err(script.error(place, what));
            }
            if given.iter().any(|(other, ..)| *other == name) {
                return Err(script.error(place, format!("option `{name}` is given twice")));
            }
            let Some(text) = string(value) else {
                let what = format!("option `{name}` must be a string: {name} = '…'");
                return Err(script.error(value.span().start, what));
            };
            given.push((name, text, value.span().start));
        }
        Ok(Self { given })
    }

    /// The value of an option and its place.
    ///
    /// `name` is in lower case.
    pub(crate) fn get(&self, name: &str) -> Option<(&str, Location)> {
        let found = self.given.iter().find(|(other, ..)| other == name);
        found.map(|(_, value, at)| (value.as_str(), *at))
    }

    /// The choice that an option names; `None` if the option is not given.
    ///
    /// # Errors
    /// `Data` with the place, when the value is not one of the choices.
    pub(crate) fn choice<T: Copy>(
        &self,
        name: &str,
        choices: &[(&str, T)],
        script: Script<'_>,
    ) -> Result<Option<T>> {
        let Some((value, at)) = self.get(name) else {
            return Ok(None);
        };
        let found = choices.iter().find(|(choice, _)| *choice == value);
        match found {
            Some((_, choice)) => Ok(Some(*choice)),
            None => {
                let names: Vec<&str> = choices.iter().map(|(choice, _)| *choice).collect();
                let hint = did_you_mean(value, &names);
                let names = names.join("', '");
                Err(script.error(
                    at,
                    format!("{name} = '{value}' is not known{hint} (there are: '{names}')"),
                ))
            }
        }
    }
}

/// The name and value of an option.
fn key_value(option: &SqlOption) -> Option<(&Ident, &Expr)> {
    match option {
        SqlOption::KeyValue { key, value } => Some((key, value)),
        _ => None,
    }
}

/// The text of a string literal.
///
/// `None` for numbers, booleans and names, which are not quoted.
fn string(value: &Expr) -> Option<String> {
    match value {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) => Some(text.clone()),
            _ => None,
        },
        _ => None,
    }
}
