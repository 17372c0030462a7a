//! The journal's tail: a preallocated append-only file of bindings, for stores in a local
//! directory.
//!
//! One object per binding would create a new file name each time. That costs the file system a
//! metadata transaction, for which other processes wait too. A tail is written in place instead:
//! its blocks are allocated in advance, so a binding costs one write and one `fdatasync`.
//!
//! ```text
//! ┌────────┬───────────────┬────────────────┬─────────┬────────┬─────┬───────┐
//! │ "TMJT" │ length u32 LE │ XXH3-64 u64 LE │ payload │ "TMJT" │ ... │ zeros │
//! └────────┴───────────────┴────────────────┴─────────┴────────┴─────┴───────┘
//! ```
//!
//! Zeros, or a frame that was cut off by a crash, end the tail. A whole frame after that means that
//! the file was damaged.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use xxhash_rust::xxh3::xxh3_64;

/// The first bytes of every frame.
const MAGIC: &[u8; 4] = b"TMJT";
/// Bytes of a frame before its payload: magic, length, checksum.
const LEAD: usize = 16;
/// Bytes that are allocated, and made durable, at a time ahead of the frames.
const CHUNK: u64 = 512 * 1024;

/// A tail that this process writes. Frames are appended one after the other.
pub(super) struct TailFile {
    /// The open file.
    file: File,
    /// The offset of the next frame, in bytes.
    at: u64,
    /// The offset up to which blocks are allocated, in bytes.
    allocated: u64,
}

impl TailFile {
    /// Creates the file, or empties it, and makes its name durable.
    ///
    /// # Errors
    /// When the file or its folder cannot be created or made durable.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let folder = path.parent().unwrap_or(path);
        std::fs::create_dir_all(folder)?;
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).open(path)?;
        let mut tail = Self {
            file,
            at: 0,
            allocated: 0,
        };
        tail.allocate(CHUNK)?;
        // The file's name must survive a crash, and so must the folder's own name.
        File::open(folder)?.sync_all()?;
        folder
            .parent()
            .map_or(Ok(()), |above| File::open(above)?.sync_all())?;
        Ok(tail)
    }

    /// Appends a payload durably. After an error, the next call writes at the same offset again.
    ///
    /// # Errors
    /// When the file cannot be written or made durable, as on a full disk.
    pub(super) fn append(&mut self, payload: &[u8]) -> io::Result<()> {
        let mut frame = Vec::with_capacity(LEAD + payload.len());
        frame.extend(MAGIC);
        let length = u32::try_from(payload.len()).map_err(io::Error::other)?;
        frame.extend(length.to_le_bytes());
        frame.extend(xxh3_64(payload).to_le_bytes());
        frame.extend(payload);
        let end = self.at + frame.len() as u64;
        // Zeros follow the last frame, so that earlier content cannot be taken for a frame.
        self.allocate(end + LEAD as u64)?;
        self.file.write_all_at(&frame, self.at)?;
        self.file.sync_data()?;
        self.at = end;
        Ok(())
    }

    /// Extends the file by zeros until `end` is allocated.
    fn allocate(&mut self, end: u64) -> io::Result<()> {
        while self.allocated < end {
            let zeros = vec![0; CHUNK as usize];
            self.file.write_all_at(&zeros, self.allocated)?;
            self.file.sync_all()?;
            self.allocated += CHUNK;
        }
        Ok(())
    }
}

/// Reads the payloads of a tail; none if there is no file. The inner error says what is damaged.
///
/// # Errors
/// The outer error is the file system's; the inner one describes the damage.
pub(super) fn read(path: &Path) -> io::Result<Result<Vec<Vec<u8>>, String>> {
    let bytes = match std::fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Ok(Vec::new())),
        bytes => bytes?,
    };
    let mut payloads = Vec::new();
    let mut at = 0;
    while let Some((payload, next)) = frame(&bytes, at) {
        payloads.push(payload.to_vec());
        at = next;
    }
    // Frames are written one at a time, so no whole frame can follow an incomplete one.
    let rest = bytes.get(at + 1..).unwrap_or_default();
    let mut places = rest.windows(MAGIC.len()).enumerate();
    if places.any(|(place, four)| four == MAGIC && frame(&bytes, at + 1 + place).is_some()) {
        return Ok(Err(format!(
            "its frame at byte {at} is not what was written"
        )));
    }
    Ok(Ok(payloads))
}

/// The payload of the frame at `at`, and the offset of the next frame; `None` if no whole frame is
/// there.
fn frame(bytes: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let lead = bytes.get(at..at + LEAD)?;
    let (magic, rest) = lead.split_at_checked(4)?;
    let (length, checksum) = rest.split_at_checked(4)?;
    let length = u32::from_le_bytes(length.try_into().ok()?) as usize;
    let end = at.checked_add(LEAD)?.checked_add(length)?;
    let payload = bytes.get(at + LEAD..end)?;
    let whole = magic == MAGIC && xxh3_64(payload).to_le_bytes() == checksum;
    whole.then_some((payload, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(payloads: &[&[u8]]) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("tails/1");
        let mut tail = TailFile::create(&path).unwrap();
        for payload in payloads {
            tail.append(payload).unwrap();
        }
        (folder, path)
    }

    #[test]
    fn payloads_are_read_as_they_were_written_over_many_chunks() {
        let large = vec![7_u8; 400_000];
        let payloads: [&[u8]; 5] = [b"a", b"", &large, &large, b"end"];
        let (_folder, path) = written(&payloads);
        assert_eq!(read(&path).unwrap().unwrap(), payloads);
        assert!(
            read(Path::new("/nowhere/at/all"))
                .unwrap()
                .unwrap()
                .is_empty()
        );
    }

    #[test]
    fn a_frame_that_was_cut_off_ends_it_and_one_in_the_middle_is_damage() {
        let (_folder, path) = written(&[b"first", b"second", b"third"]);
        let whole = std::fs::read(&path).unwrap();
        let ends = [5, 6, 5].into_iter().scan(0, |at, length| {
            *at += LEAD + length;
            Some(*at)
        });
        let ends: Vec<usize> = ends.collect();
        for at in 0..ends[2] {
            let mut flipped = whole.clone();
            flipped[at] ^= 4;
            std::fs::write(&path, &flipped).unwrap();
            let found = read(&path).unwrap();
            if at < ends[1] {
                found.unwrap_err();
            } else {
                assert_eq!(found.unwrap(), [&b"first"[..], b"second"], "byte {at}");
            }
            let mut cut = whole.clone();
            cut[at..].fill(0);
            std::fs::write(&path, &cut).unwrap();
            let left = ends.iter().filter(|end| **end <= at).count();
            assert_eq!(read(&path).unwrap().unwrap().len(), left, "cut at {at}");
        }
    }
}
