//! Log rotation: files `STEM.NUMBER.log`. A new file is begun when one is full, and the newest few
//! are kept.
//!
//! In: whole lines. Out: files that are only appended to and never renamed, so an offset in a file
//! stays valid for a reader ([`crate`]).
//!
//! Invariants:
//! 1. A line is in one file. Two processes that write under one stem mix whole lines, never parts
//!    of lines.
//! 2. A full disk loses lines and stops nothing.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The suffix of all log files.
const ENDING: &str = ".log";
/// Minimum digits of a file's number, so that names sort.
const DIGITS: usize = 6;

/// The log file being written.
#[derive(Debug)]
pub(crate) struct Rotating {
    /// The folder of the files.
    folder: PathBuf,
    /// The begin of the files' names, as [`crate::logging`] makes it.
    stem: String,
    /// Size at which the next file is begun, in bytes.
    size: u64,
    /// Number of files to keep.
    keep: usize,
    /// The number of the open file.
    number: u64,
    /// The open file, in append mode, so that lines of two processes do not overwrite each other.
    file: File,
    /// Size of the open file, in bytes.
    written: u64,
}

impl Rotating {
    /// Continues the newest file of this stem, or begins the first one.
    ///
    /// # Errors
    ///
    /// The folder cannot be created or written.
    pub(crate) fn open(folder: &Path, stem: &str, size: u64, keep: usize) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let number = files(folder, stem)?.last().map_or(1, |(number, _)| *number);
        let (file, written) = append(folder, stem, number)?;
        let (folder, stem) = (folder.to_owned(), stem.to_owned());
        Ok(Self {
            folder,
            stem,
            size,
            keep,
            number,
            file,
            written,
        })
    }

    /// Writes one line, in the next file if this one is full.
    ///
    /// A line that is longer than a file gets a file of its own.
    ///
    /// # Errors
    /// The disk does not take the line, or an old file cannot be deleted.
    pub(crate) fn write(&mut self, line: &str) -> io::Result<()> {
        let length = line.len() as u64;
        if self.written > 0 && self.written + length > self.size {
            self.next()?;
        }
        self.written += length;
        self.file.write_all(line.as_bytes())
    }

    /// Begins the next file and deletes the oldest ones.
    ///
    /// # Errors
    /// The new file cannot be opened, or an old one cannot be deleted.
    fn next(&mut self) -> io::Result<()> {
        let (file, written) = append(&self.folder, &self.stem, self.number + 1)?;
        self.number += 1;
        (self.file, self.written) = (file, written);
        let all = files(&self.folder, &self.stem)?;
        let old = all.len().saturating_sub(self.keep);
        for (_, path) in all.iter().take(old) {
            fs::remove_file(path)?;
        }
        Ok(())
    }
}

/// Opens a file for appending; also returns its size.
fn append(folder: &Path, stem: &str, number: u64) -> io::Result<(File, u64)> {
    let path = folder.join(format!("{stem}.{number:0DIGITS$}{ENDING}"));
    let file = OpenOptions::new().create(true).append(true).open(path)?;
    let written = file.metadata()?.len();
    Ok((file, written))
}

/// Splits the name of a log file into stem and number; `None` for any other file.
pub(crate) fn parse(name: &str) -> Option<(&str, u64)> {
    let (stem, number) = name.strip_suffix(ENDING)?.rsplit_once('.')?;
    let digits = number.len() >= DIGITS && number.bytes().all(|digit| digit.is_ascii_digit());
    let number = number.parse().ok().filter(|_| digits)?;
    Some((stem, number))
}

/// The files of one stem with their numbers, oldest first.
///
/// # Errors
/// The folder cannot be read.
pub(crate) fn files(folder: &Path, stem: &str) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if let Some((its, number)) = name.to_str().and_then(parse)
            && its == stem
        {
            found.push((number, entry.path()));
        }
    }
    found.sort_unstable();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_files_are_followed_by_new_ones_and_the_oldest_go() {
        let folder = tempfile::tempdir().unwrap();
        let line = |n: usize| format!("{n:09}\n");
        for from in [0, 5] {
            // Opened again it goes on in the file where it was.
            let mut log = Rotating::open(folder.path(), "a.b.0", 25, 3).unwrap();
            for n in from..from + 5 {
                log.write(&line(n)).unwrap();
            }
        }
        let kept = files(folder.path(), "a.b.0").unwrap();
        let numbers: Vec<u64> = kept.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, [3, 4, 5]);
        let all: String = kept
            .iter()
            .map(|(_, path)| fs::read_to_string(path).unwrap())
            .collect();
        assert_eq!(all, (4..10).map(line).collect::<String>());
    }

    #[test]
    fn names_are_told_from_others() {
        assert_eq!(parse("a.dataflow.0.000012.log"), Some(("a.dataflow.0", 12)));
        assert_eq!(parse("worker.1000000.log"), Some(("worker", 1_000_000)));
        for other in ["worker.log", "a.0.log", "a.000001.txt", "a.00000x.log"] {
            assert_eq!(parse(other), None, "{other}");
        }
    }
}
