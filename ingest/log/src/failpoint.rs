//! Failpoints: named places between two durable steps, where a crash test ends the process.
//!
//! `TIDEMILL_FAILPOINT=NAME[:COUNT]` ends the process at once, as SIGKILL would (nothing is
//! dropped, flushed or caught), when it passes the point NAME for the COUNTth time; COUNT is 1
//! unless given. The variable is read once a process: without it a point costs one load of memory,
//! so that crash tests run the binary that users run.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The variable that arms a point.
const VARIABLE: &str = "TIDEMILL_FAILPOINT";

static ARMED: OnceLock<Option<Armed>> = OnceLock::new();

/// The point that ends this process.
#[derive(Debug)]
struct Armed {
    name: String,
    left: AtomicU64,
}

/// Ends the process when this point is armed and due.
pub fn hit(name: &str) {
    let armed = ARMED.get_or_init(|| {
        std::env::var(VARIABLE)
            .ok()
            .map(|given| Armed::parse(&given))
    });
    if let Some(armed) = armed
        && armed.is_due(name)
    {
        tracing::error!(name, "failpoint: this process ends here");
        std::process::abort();
    }
}

impl Armed {
    fn parse(given: &str) -> Self {
        let counted = given.rsplit_once(':');
        let counted = counted.and_then(|(name, count)| Some((name, count.parse().ok()?)));
        let (name, count) = counted.unwrap_or((given, 1));
        Self {
            name: name.to_owned(),
            left: AtomicU64::new(count),
        }
    }

    fn is_due(&self, name: &str) -> bool {
        self.name == name && self.left.fetch_sub(1, Ordering::Relaxed) == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_due_once_at_its_count() {
        for (given, due_at) in [("a.b", 1), ("a.b:1", 1), ("a.b:3", 3)] {
            let armed = Armed::parse(given);
            assert!(!armed.is_due("a.c"));
            let due: Vec<_> = (1..6).filter(|_| armed.is_due("a.b")).collect();
            assert_eq!(due.len(), 1, "{given}");
            let armed = Armed::parse(given);
            assert_eq!(
                (1..6).find(|_| armed.is_due("a.b")),
                Some(due_at),
                "{given}"
            );
        }
    }

    #[test]
    fn an_armed_process_dies_at_once() {
        // The test's own binary, asked for this very test, is the process that dies.
        const INSIDE: &str = "TIDEMILL_FAILPOINT_INSIDE";
        if std::env::var(INSIDE).is_ok() {
            hit("another");
            hit("here");
            std::process::exit(0);
        }
        let status = |armed: &str| {
            std::process::Command::new(std::env::current_exe().unwrap())
                .args(["an_armed_process_dies_at_once", "--test-threads=1"])
                .env(INSIDE, "1")
                .env(VARIABLE, armed)
                .output()
                .unwrap()
                .status
        };
        assert!(status("elsewhere").success());
        assert_eq!(status("here").code(), None, "ended by a signal");
        assert!(status("here:2").success());
    }
}
