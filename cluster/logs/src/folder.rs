//! Reads one page from the log files of one folder.
//!
//! In: a folder that [`crate::rotate`] writes, and a query. Out: the next page of its lines. The
//! files are read again for each page; nothing is kept in between.

use std::path::Path;
use std::{fs, io};

use super::page::{LINES_MAX, Page, Query, SCAN_BYTES_MAX};
use super::source::Source;
use crate::rotate;

/// The next lines of all processes of a folder, merged by time. `worker` is the name in their
/// cursors.
///
/// # Errors
///
/// The folder or a file cannot be read.
///
/// Of all processes the one with the oldest next line is taken. The page ends at [`LINES_MAX`]
/// lines or [`SCAN_BYTES_MAX`] bytes, whichever comes first.
pub(crate) fn read(folder: &Path, worker: &str, query: &Query) -> io::Result<Page> {
    let mut cursor = query.cursor();
    let mine = format!("{worker}/");
    cursor.retain(|source, _| source.starts_with(&mine));
    let mut sources = Vec::new();
    for stem in stems(folder)? {
        if query.wants(worker, &stem) {
            let from = cursor.get(&format!("{mine}{stem}")).copied();
            sources.push(Source::open(folder, worker, stem, from, query.since_ms)?);
        }
    }
    let mut page = Page {
        cursor,
        ..Page::default()
    };
    let mut scanned = 0;
    loop {
        let mut first: Option<&mut Source<'_>> = None;
        for source in &mut sources {
            let Some(time) = source.time()? else {
                continue;
            };
            let before = first.as_ref().and_then(|first| first.peeked_time());
            if before.is_none_or(|before| time < before) {
                first = Some(source);
            }
        }
        let Some(line) = first.and_then(Source::take) else {
            break;
        };
        if page.lines.len() == LINES_MAX || scanned >= SCAN_BYTES_MAX {
            page.more = true;
            break;
        }
        scanned += line.text.len() as u64;
        page.cursor.insert(line.source(), line.next);
        if query.takes(&line) {
            page.lines.push(line);
        }
    }
    Ok(page)
}

/// The names of the processes that have log files in the folder, sorted.
///
/// Other files in the folder are ignored.
///
/// # Errors
/// The folder cannot be read.
fn stems(folder: &Path) -> io::Result<Vec<String>> {
    let mut stems = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        if let Some((stem, _)) = name.to_str().and_then(rotate::parse) {
            stems.push(stem.to_owned());
        }
    }
    stems.sort_unstable();
    stems.dedup();
    Ok(stems)
}
