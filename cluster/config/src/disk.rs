//! Free space of the disks on which a pipeline keeps its state and its embedded files.

use std::path::Path;

use crate::connections::Connections;

/// A disk (a mounted file system).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disk {
    /// Bytes that this process can still write.
    pub free: u64,
    /// Bytes of the whole disk.
    pub size: u64,
}

impl Disk {
    /// The share that is in use, from 0 to 1.
    fn used(self) -> f64 {
        match self.size {
            0 => 1.0,
            size => 1.0 - self.free as f64 / size as f64,
        }
    }
}

/// The fullest disk of those that hold the state and the embedded files of a pipeline; `None` when
/// all of that is elsewhere, for example on S3, or the system does not tell.
pub fn fullest(connections: &Connections) -> Option<Disk> {
    let urls = [
        &connections.state,
        &connections.sink,
        &connections.log,
        &connections.database,
    ];
    let disks = urls.into_iter().filter_map(|url| of(url));
    disks.max_by(|a, b| a.used().total_cmp(&b.used()))
}

/// The disk of a `file://` or `sqlite://` URL. What does not exist yet will be on the disk of the
/// nearest folder above it.
fn of(url: &str) -> Option<Disk> {
    let path = ["file://", "sqlite://"]
        .iter()
        .find_map(|scheme| url.strip_prefix(scheme))?;
    let path = std::path::absolute(Path::new(path)).ok()?;
    let found = path
        .ancestors()
        .find_map(|path| rustix::fs::statvfs(path).ok())?;
    Some(Disk {
        free: found.f_bavail.saturating_mul(found.f_frsize),
        size: found.f_blocks.saturating_mul(found.f_frsize),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_does_not_exist_yet_has_the_disk_above_it() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().display();
        let disk = of(&format!("file://{at}/not/yet")).unwrap();
        assert!(disk.size > 0 && disk.free <= disk.size, "{disk:?}");
        let same = of(&format!("sqlite://{at}/data.sqlite")).unwrap();
        assert_eq!(same.size, disk.size);
        assert_eq!(of("s3://bucket/prefix"), None);
    }

    #[test]
    fn a_disk_without_a_size_counts_as_full() {
        let disk = |free, size| Disk { free, size };
        assert!((disk(1, 4).used() - 0.75).abs() < 1e-9);
        assert!((disk(0, 0).used() - 1.0).abs() < 1e-9);
    }
}
