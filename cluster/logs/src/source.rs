//! Reads the log files of one process entry by entry. An entry is a line with a time and the lines
//! without a time after it, such as a backtrace.
//!
//! In: a folder, a process's name, and where to begin. Out: entries in the order of the files.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use jiff::Timestamp;
use serde::Deserialize;

use super::page::{LINE_BYTES_MAX, Line, SCAN_BYTES_MAX, level};
use crate::rotate;

/// The log files of one process and the position in them.
pub(super) struct Source<'a> {
    /// The worker's name, for the entries.
    worker: &'a str,
    /// The process's name, which begins the names of its files.
    stem: String,
    /// The files after the one that is open, the newest first.
    files: Vec<(u64, PathBuf)>,
    /// The open file and its number.
    reader: Option<(u64, BufReader<File>)>,
    /// The offset of the next entry in the open file, in bytes.
    offset: u64,
    /// The next entry, if it was read ahead.
    peeked: Option<Line>,
    /// The first line after `peeked`, which was read to find its end.
    ahead: Option<Vec<u8>>,
}

impl<'a> Source<'a> {
    /// Opens the files of process `stem` at a cursor's position, or at the first file that may have
    /// lines from `since_ms` on.
    ///
    /// # Errors
    /// The folder or a file cannot be read.
    pub(super) fn open(
        folder: &Path,
        worker: &'a str,
        stem: String,
        from: Option<(u64, u64)>,
        since_ms: Option<i64>,
    ) -> io::Result<Self> {
        let mut files = rotate::files(folder, &stem)?;
        if let Some((number, _)) = from {
            files.retain(|(its, _)| *its >= number);
        } else if let Some(since) = since_ms.and_then(|since| u64::try_from(since).ok()) {
            // A file that was last written before `since_ms` has no newer lines.
            let since = UNIX_EPOCH + Duration::from_millis(since);
            let old = |path: &Path| {
                let written = fs::metadata(path).and_then(|file| file.modified());
                written.is_ok_and(|written| written < since)
            };
            files.retain(|(_, path)| !old(path));
        }
        files.reverse();
        let mut source = Self {
            worker,
            stem,
            files,
            reader: None,
            offset: 0,
            peeked: None,
            ahead: None,
        };
        source.open_next()?;
        if let (Some((number, offset)), Some((open, reader))) = (from, &mut source.reader)
            && *open == number
        {
            reader.seek(SeekFrom::Start(offset))?;
            source.offset = offset;
        }
        Ok(source)
    }

    /// Opens the next file.
    fn open_next(&mut self) -> io::Result<()> {
        self.offset = 0;
        self.reader = None;
        while let Some((number, path)) = self.files.pop() {
            match File::open(path) {
                Ok(file) => {
                    self.reader = Some((number, BufReader::new(file)));
                    break;
                }
                // The oldest file was deleted meanwhile to make room.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The time of the next entry, reading it if necessary; `None` at the end.
    pub(super) fn time(&mut self) -> io::Result<Option<i64>> {
        if self.peeked.is_none() {
            self.peeked = self.read()?;
        }
        Ok(self.peeked_time())
    }

    /// The time of the entry that was read ahead.
    pub(super) fn peeked_time(&self) -> Option<i64> {
        self.peeked.as_ref().map(|line| line.time_us)
    }

    /// Takes the entry that was read ahead.
    pub(super) fn take(&mut self) -> Option<Line> {
        self.peeked.take()
    }

    /// Reads one entry, from the next file if this one is at its end.
    fn read(&mut self) -> io::Result<Option<Line>> {
        let first = loop {
            if let Some(line) = self.raw()? {
                break line;
            }
            if self.files.is_empty() {
                return Ok(None);
            }
            self.open_next()?;
        };
        self.offset += first.len() as u64;
        let mut bytes = first;
        let head = head(&String::from_utf8_lossy(&bytes));
        while let Some(next) = self.raw()? {
            if self::head(&String::from_utf8_lossy(&next)).is_some() {
                self.ahead = Some(next);
                break;
            }
            self.offset += next.len() as u64;
            if bytes.len() < LINE_BYTES_MAX {
                bytes.extend(next);
            }
        }
        bytes.truncate(LINE_BYTES_MAX);
        let (time_us, level) = head.unwrap_or_default();
        let number = self.reader.as_ref().map_or(0, |(number, _)| *number);
        Ok(Some(Line {
            worker: self.worker.to_owned(),
            process: self.stem.clone(),
            time_us,
            level,
            text: String::from_utf8_lossy(&bytes).trim_end().to_owned(),
            next: (number, self.offset),
        }))
    }

    /// One line of the open file; `None` at its end, and while the last line is not complete.
    fn raw(&mut self) -> io::Result<Option<Vec<u8>>> {
        if let Some(line) = self.ahead.take() {
            return Ok(Some(line));
        }
        let Some((_, reader)) = &mut self.reader else {
            return Ok(None);
        };
        let mut line = Vec::new();
        reader.read_until(b'\n', &mut line)?;
        Ok(line.ends_with(b"\n").then_some(line))
    }
}

/// Time (µs) and level of a line that begins an entry, in text or JSON; `None` for any other line.
fn head(line: &str) -> Option<(i64, String)> {
    #[derive(Deserialize)]
    struct Json {
        timestamp: Timestamp,
        level: String,
    }
    if line.starts_with('{') {
        let Json { timestamp, level } = serde_json::from_str(line).ok()?;
        return Some((timestamp.as_microsecond(), level));
    }
    let (time, rest) = line.split_once(' ')?;
    let word = rest.split_whitespace().next()?;
    let level = level(word).filter(|level| *level == word)?;
    let time: Timestamp = time.parse().ok()?;
    Some((time.as_microsecond(), level.to_owned()))
}

/// The last lines of one generation of a process, at most `count`. Files that cannot be read are
/// skipped.
///
/// `stem` is the process's name as in the files, and `generation` the one whose lines are wanted.
/// At most the last 8 MiB of each file are read. They are shown with the failure of a process.
pub fn tail(folder: &Path, stem: &str, generation: u64, count: usize) -> Vec<String> {
    let (text, json) = (
        format!(" generation={generation} "),
        format!("\"generation\":{generation},"),
    );
    let Ok(mut files) = rotate::files(folder, stem) else {
        return Vec::new();
    };
    let mut lines = Vec::new();
    while let Some((_, path)) = files.pop() {
        let Ok(mut file) = File::open(path) else {
            continue;
        };
        let length = file.metadata().map_or(0, |file| file.len());
        let from = length.saturating_sub(SCAN_BYTES_MAX);
        let mut bytes = Vec::new();
        if file.seek(SeekFrom::Start(from)).is_err()
            || io::Read::read_to_end(&mut file, &mut bytes).is_err()
        {
            continue;
        }
        let read = String::from_utf8_lossy(&bytes);
        let read: Vec<&str> = read.lines().collect();
        // All lines from the generation's first line on, because lines without a generation belong
        // to the line before.
        let starts = |line: &&str| line.contains(&text) || line.contains(&json);
        let first = read.iter().position(starts);
        let own = first.map_or(&[][..], |first| &read[first..]);
        lines.splice(0..0, own.iter().map(|line| cut(line)));
        if lines.len() >= count || first != Some(0) {
            break;
        }
    }
    let surplus = lines.len().saturating_sub(count);
    lines.drain(..surplus);
    lines
}

/// Cuts a line to [`LINE_BYTES_MAX`].
fn cut(line: &str) -> String {
    line.get(..line.floor_char_boundary(LINE_BYTES_MAX))
        .unwrap_or(line)
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_those_of_the_generation() {
        let folder = tempfile::tempdir().unwrap();
        let of = |generation: u64, said: &str| {
            format!("T  INFO job=a generation={generation} process=0 x: {said}\n")
        };
        let text = of(3, "old") + &of(4, "one") + &of(4, "panic: no") + "  at a.rs:1\n";
        fs::write(folder.path().join("a.dataflow.0.000001.log"), &text).unwrap();
        let last = tail(folder.path(), "a.dataflow.0", 4, 2);
        assert_eq!(last[1], "  at a.rs:1");
        assert!(last[0].ends_with("panic: no"), "{last:?}");
        assert_eq!(tail(folder.path(), "a.dataflow.0", 4, 20).len(), 3);
        assert_eq!(
            tail(folder.path(), "a.dataflow.0", 5, 20),
            [] as [String; 0]
        );
    }
}
