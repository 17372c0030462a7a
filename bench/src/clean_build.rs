//! Benchmark `build`: a clean release build of the binary, like a new user's first one.
//!
//! What is measured: wall time and CPU time in seconds of `cargo build --release -p tidemill` with
//! an empty target folder. Crates that are not in cargo's cache are downloaded meanwhile. There is
//! no baseline; the bar is 12 minutes of wall time on 2 cores. CPU time is that of `cargo` and all
//! compilers, which the kernel adds to this process when they have ended.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, bail};

use crate::harness::child::cpu_seconds;
use crate::harness::report::{Report, Row};

/// Builds in an empty target folder, which is removed afterwards.
///
/// A compiler cache (`RUSTC_WRAPPER`) is switched off, because a new user has none.
///
/// # Errors
/// `cargo` cannot be started, or the build fails.
pub(crate) fn run(work: &Path) -> anyhow::Result<Report> {
    let mut report = Report::new("build");
    let target = tempfile::tempdir_in(work)?;
    let own = Path::new("/proc/self/stat");
    let (_, before) = cpu_seconds(own)?;
    let started = Instant::now();
    let status = Command::new("cargo")
        .args(["build", "--release", "--locked", "-p", "tidemill"])
        .arg("--manifest-path")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml"))
        .arg("--target-dir")
        .arg(target.path())
        .env_remove("RUSTC_WRAPPER")
        .env_remove("CARGO_INCREMENTAL")
        .status()
        .context("starting cargo")?;
    let wall_s = started.elapsed().as_secs_f64();
    if !status.success() {
        bail!("the build ended with {status}");
    }
    let (_, after) = cpu_seconds(own)?;
    report.row(Row {
        name: "clean release build".to_owned(),
        values: vec![("wall s", vec![wall_s]), ("CPU s", vec![after - before])],
    });
    report.at_most("minutes of wall time", wall_s / 60.0, 12.0);
    Ok(report)
}
