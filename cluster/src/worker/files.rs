//! Pipeline files of a worker's children: the files of a job's definition, written to a folder per
//! process.
//!
//! In: the files of a job, by name. Out: a folder of its own for each process, which is removed
//! when the process is forgotten.
//!
//! Invariant: nothing is written outside of that folder, whatever the names of the files are.

use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, bail};
use tidemill_protocol::exit::Usage;
use tidemill_protocol::{JobSpec, ProcessKey};

/// Limit of files of one pipeline.
pub(crate) const FILES_MAX: usize = 1000;
/// Limit of the size of a pipeline's files together, in bytes.
pub(crate) const FILES_BYTES_MAX: usize = 3 * 1024 * 1024;

/// `JOB.PART.INDEX`: the name of a process in its folder's name and in the names of its log files.
pub(crate) fn stem(key: &ProcessKey) -> String {
    format!("{}.{}.{}", key.job, key.part.name(), key.index)
}

/// Checks the name and the files of a job. `submit` checks the same before it sends a job.
///
/// # Errors
///
/// [`Usage`] (exit code 2), with the limit or the name that is wrong.
pub(crate) fn check(spec: &JobSpec) -> anyhow::Result<()> {
    tidemill_config::args::name(&spec.name)
        .map_err(|right| Usage(format!("the job's name `{}`: {right}", spec.name)))?;
    let count = spec.files.len();
    let bytes: usize = spec.files.values().map(String::len).sum();
    if count > FILES_MAX || bytes > FILES_BYTES_MAX {
        let why = format!(
            "the pipeline has {count} files with {bytes} bytes; expected at most {FILES_MAX} \
             with {FILES_BYTES_MAX}"
        );
        bail!(Usage(why));
    }
    for name in spec.files.keys() {
        if !is_inside(name) {
            bail!(Usage(format!(
                "the pipeline's file `{name}`: expected a name within its folder"
            )));
        }
    }
    Ok(())
}

/// Whether a file name stays inside its folder.
fn is_inside(name: &str) -> bool {
    let plain = |part| matches!(part, Component::Normal(_));
    !name.is_empty() && !name.contains(['\0', '\\']) && Path::new(name).components().all(plain)
}

/// Writes the files of a process, and removes what an earlier worker left in the same folder.
///
/// # Errors
///
/// The job is invalid, or the folder cannot be written.
pub(crate) fn write(folder: &Path, key: &ProcessKey, spec: &JobSpec) -> anyhow::Result<PathBuf> {
    check(spec)?;
    let place = folder.join(format!("{}.{}", stem(key), key.generation));
    remove(&place);
    let written = || -> std::io::Result<()> {
        fs::create_dir_all(&place)?;
        for (name, text) in &spec.files {
            let file = place.join(name);
            if let Some(parent) = file.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::write(file, text)?;
        }
        Ok(())
    };
    written().with_context(|| format!("cannot write the pipeline to {}", place.display()))?;
    Ok(place)
}

/// Removes the files of a process. Files that cannot be removed do no harm.
pub(crate) fn remove(place: &Path) {
    if let Err(error) = fs::remove_dir_all(place)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!("cannot remove {}: {error}", place.display());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use tidemill_protocol::Part;

    fn spec(file: &str) -> JobSpec {
        JobSpec {
            name: "users".to_owned(),
            files: BTreeMap::from([(file.to_owned(), "SELECT 1".to_owned())]),
            connections: BTreeMap::new(),
            workers: 1,
            wait_for_slots: false,
            ingest: true,
            flags: BTreeMap::new(),
        }
    }

    fn key() -> ProcessKey {
        ProcessKey {
            job: "users".to_owned(),
            part: Part::Dataflow,
            generation: 7,
            index: 1,
        }
    }

    #[test]
    fn files_are_written_within_the_folder_alone() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("in");
        let place = write(&inner, &key(), &spec("seeds/a.csv")).unwrap();
        assert_eq!(place, inner.join("users.dataflow.1.7"));
        let text = fs::read_to_string(place.join("seeds/a.csv")).unwrap();
        assert_eq!(text, "SELECT 1");
        for outside in ["/etc/x", "../x", "a/../../x", "", ".", "a\\..\\x"] {
            let refused = write(&inner, &key(), &spec(outside)).unwrap_err();
            assert!(refused.is::<Usage>(), "{outside}: {refused}");
        }
        remove(&place);
        remove(&place);
        assert_eq!(fs::read_dir(&inner).unwrap().count(), 0);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_job_with_a_strange_name_or_too_much_is_refused() {
        let mut strange = spec("views.sql");
        strange.name = "../users".to_owned();
        assert!(check(&strange).unwrap_err().is::<Usage>());
        let mut big = spec("views.sql");
        big.files
            .insert("a".to_owned(), "x".repeat(FILES_BYTES_MAX));
        assert!(check(&big).unwrap_err().is::<Usage>());
        assert!(check(&spec("views.sql")).is_ok());
    }
}
