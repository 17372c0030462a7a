//! The sinks that views name: `--sink NAME=URL`, `TIDEMILL_SINK_NAME_URL`, and `[sinks]` in
//! `tidemill.toml`.
//!
//! For each name, the flag wins over the environment, and the environment over the file. A sink's
//! password is `TIDEMILL_SINK_NAME_PASSWORD`, or in a file that `TIDEMILL_SINK_NAME_PASSWORD_FILE`
//! names, or in the URL of the environment or of the file.

use std::collections::BTreeMap;

use tidemill_ir::is_sink_name;
use tidemill_protocol::exit::Usage;
use tidemill_protocol::{redact, urls};

use super::credentials::Service;
use super::file::Found;
use super::given::Given;
use super::{engine, refuse_in_flag};

/// Most sinks of a pipeline beside the default one.
const SINKS_MAX: usize = 16;
/// What the name of a variable with a sink's URL begins and ends with.
const VARIABLE: (&str, &str) = ("TIDEMILL_SINK_", "_URL");

/// The sinks' URLs by name, with credentials.
type Resolved = BTreeMap<String, String>;

/// Resolves all sinks. The second result holds them as they were given, by the names of
/// connections of a job: `sink.NAME`.
///
/// # Errors
///
/// A name or a URL is not valid, a flag contains a password, or there are too many ([`Usage`], exit
/// code 2).
pub(super) fn resolve(
    flags: &[String],
    found: Option<&Found>,
) -> anyhow::Result<(Resolved, Vec<(String, String)>)> {
    let mut given = of_file(found);
    given.extend(of_environment(std::env::vars()));
    given.extend(of_flags(flags)?);
    if given.len() > SINKS_MAX {
        let why = format!(
            "{} sinks are given, expected at most {SINKS_MAX}",
            given.len()
        );
        return Err(Usage(why).into());
    }
    let (mut sinks, mut named) = (Resolved::new(), Vec::new());
    for (name, said) in given {
        if !is_sink_name(&name) {
            let why = format!("{}: a sink's name has a to z, 0 to 9 and _", said.place);
            return Err(Usage(why).into());
        }
        redact::remember(&said.value);
        refuse_in_flag(&said)?;
        named.push((format!("sink.{name}"), said.value.clone()));
        let service = Service::new(format!("sink_{name}"), found);
        let url = engine(Some(said), urls::sink, "")?;
        let url = service.postgres(service.cassandra(url)?)?;
        sinks.insert(name, url);
    }
    Ok((sinks, named))
}

/// The sinks in `tidemill.toml`.
fn of_file(found: Option<&Found>) -> BTreeMap<String, Given> {
    let Some(found) = found else {
        return BTreeMap::new();
    };
    let sinks = found.file.sinks.iter().map(|(name, url)| {
        let given = Given {
            value: url.get_ref().trim().to_owned(),
            place: format!("{}: sinks.{name}", found.place(url.span().start)),
            flag: None,
        };
        (name.clone(), given)
    });
    sinks.collect()
}

/// The sinks in the environment. An empty value is none.
fn of_environment(variables: impl Iterator<Item = (String, String)>) -> BTreeMap<String, Given> {
    let sinks = variables.filter_map(|(variable, value)| {
        let name = variable
            .strip_prefix(VARIABLE.0)?
            .strip_suffix(VARIABLE.1)?;
        let name = name.to_ascii_lowercase();
        let given = Given {
            value: value.trim().to_owned(),
            place: variable,
            flag: None,
        };
        (!given.value.is_empty()).then_some((name, given))
    });
    sinks.collect()
}

/// The sinks in flags, `NAME=URL` each.
///
/// # Errors
///
/// A flag has another form, or two have one name ([`Usage`]).
fn of_flags(flags: &[String]) -> anyhow::Result<BTreeMap<String, Given>> {
    let mut sinks = BTreeMap::new();
    for flag in flags {
        let Some((name, url)) = flag.split_once('=') else {
            let shown = redact::url(flag);
            return Err(Usage(format!("--sink: `{shown}`: expected NAME=URL")).into());
        };
        let given = Given {
            value: url.trim().to_owned(),
            place: format!("--sink {name}"),
            flag: Some(format!("sink_{name}")),
        };
        if sinks.insert(name.to_owned(), given).is_some() {
            return Err(Usage(format!("--sink {name} is given twice")).into());
        }
    }
    Ok(sinks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_urls_of_flags_and_variables() {
        let flags = ["a=postgres://h/d?x=1".to_owned()];
        let of_flags = of_flags(&flags).unwrap();
        assert_eq!(of_flags["a"].value, "postgres://h/d?x=1");
        let variables = [
            ("TIDEMILL_SINK_WARE_HOUSE_URL", " postgres://h/d "),
            ("TIDEMILL_SINK_WARE_HOUSE_PASSWORD", "secret"),
            ("TIDEMILL_SINK_WAIT_SECONDS", "5"),
            ("TIDEMILL_SINK_UNSET_URL", ""),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let found = of_environment(variables.into_iter());
        assert_eq!(found.keys().collect::<Vec<_>>(), ["ware_house"]);
        assert_eq!(found["ware_house"].value, "postgres://h/d");
    }

    #[test]
    fn what_is_no_sink_is_refused() {
        for (flags, part) in [
            (&["nope"][..], "expected NAME=URL"),
            (&["a=sqlite://x", "a=sqlite://y"], "given twice"),
            (&["A=sqlite://x"], "a sink's name"),
            (&["a=mysql://h/d"], "unknown scheme `mysql://`"),
            (&["a=h/d"], "expected postgres://"),
            (&["a=postgres://u:hunter22@h/d"], "TIDEMILL_SINK_A_PASSWORD"),
        ] {
            let flags: Vec<String> = flags.iter().map(ToString::to_string).collect();
            let said = resolve(&flags, None).unwrap_err().to_string();
            assert!(said.contains(part), "{said}");
            assert!(!said.contains("hunter22"), "{said}");
        }
    }
}
