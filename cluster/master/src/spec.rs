//! Validation of submitted jobs.
//!
//! In: the job as it was sent. Out: the same job, with its state store as an absolute URL, or what
//! is wrong and what would be right.
//!
//! The client checks a job too. It is checked again here, because any program may send one.

use std::path::{Component, Path};

use tidemill_config::args;
use tidemill_protocol::{JobSpec, redact, urls};

/// The name under which the master keeps its own state, in the same store as the jobs' state.
const OWN: &str = "cluster";
/// The file that every pipeline has.
const VIEWS: &str = "views.sql";
/// The connection that names the store of journal and checkpoints.
const STATE: &str = "state";

/// Checks a job, and gives it the master's store if it names none.
///
/// # Errors
///
/// A sentence for the user (HTTP 400): the name, a file name or a path is invalid, `views.sql` is
/// missing, or a setting contains a password.
pub(super) fn check(spec: &mut JobSpec, state: &str) -> Result<(), String> {
    args::name(&spec.name).map_err(|why| format!("name `{}`: {why}", spec.name))?;
    if spec.name == OWN {
        return Err(format!(
            "name `{OWN}`: the master's own; take another with --name"
        ));
    }
    for name in spec.files.keys() {
        let plain = |it: Component<'_>| matches!(it, Component::Normal(_));
        if name.is_empty() || !Path::new(name).components().all(plain) {
            return Err(format!(
                "file `{name}`: expected a name relative to the pipeline"
            ));
        }
    }
    if !spec.files.contains_key(VIEWS) {
        return Err(format!("files: `{VIEWS}` is missing"));
    }
    for (name, value) in spec.connections.iter().chain(&spec.flags) {
        if redact::holds_password(value) || redact::is_secret_setting(name) {
            return Err(format!(
                "{name}: a password in it; leave it out of the job and give it to the workers, in \
                 their environment or a file of theirs"
            ));
        }
    }
    let given = spec.connections.get(STATE).map_or(state, String::as_str);
    let url = urls::state(given).map_err(|why| format!("{STATE} `{given}`: {why}"))?;
    let local = url
        .strip_prefix("file://")
        .or(url.strip_prefix("sqlite://"));
    if local.is_some_and(|path| !path.starts_with('/')) {
        return Err(format!(
            "{STATE} `{given}`: expected an absolute path, which means the same to the master and \
             all workers"
        ));
    }
    spec.connections.insert(STATE.to_owned(), url);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> JobSpec {
        JobSpec {
            name: "users".to_owned(),
            files: [(VIEWS.to_owned(), "SELECT 1".to_owned())].into(),
            connections: [("kafka".to_owned(), "a:9092".to_owned())].into(),
            workers: 2,
            wait_for_slots: false,
            ingest: false,
            flags: [].into(),
        }
    }

    #[test]
    fn a_job_without_a_store_gets_the_masters() {
        let mut it = spec();
        check(&mut it, "file:///var/tidemill").unwrap();
        assert_eq!(it.connections["state"], "file:///var/tidemill");
        check(&mut it, "s3://other").unwrap();
        assert_eq!(it.connections["state"], "file:///var/tidemill");
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        type Change = fn(&mut JobSpec);
        let wrong: [(Change, &str); 7] = [
            (|it| it.name = "Users!".into(), "name `Users!`"),
            (|it| it.name = "cluster".into(), "the master's own"),
            (|it| it.files.clear(), "`views.sql` is missing"),
            (
                |it| drop(it.files.insert("../x".into(), String::new())),
                "file `../x`",
            ),
            (
                |it| drop(it.files.insert("/etc/x".into(), String::new())),
                "file `/etc/x`",
            ),
            (
                |it| {
                    drop(
                        it.connections
                            .insert("postgres".into(), "postgres://u:p@h/d".into()),
                    )
                },
                "postgres: a password",
            ),
            (
                |it| drop(it.connections.insert("state".into(), "file://here".into())),
                "an absolute path",
            ),
        ];
        for (change, part) in wrong {
            let mut it = spec();
            change(&mut it);
            let said = check(&mut it, "file:///x").unwrap_err();
            assert!(said.contains(part), "{said}");
        }
    }
}
