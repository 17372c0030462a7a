//! A process that takes its orders from a test, as from a worker.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child as System, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{PATIENCE, Place, unique};

/// How a child is to run.
pub(crate) struct Begin {
    pub(crate) part: &'static str,
    pub(crate) generation: u64,
    pub(crate) index: usize,
    pub(crate) processes: usize,
}

/// A running child; killed when dropped.
pub(crate) struct Child {
    system: System,
    stdin: Option<ChildStdin>,
    told: Receiver<String>,
    said: std::path::PathBuf,
}

impl Child {
    /// Starts one, and gives it its first order.
    pub(crate) fn begin(place: &Place, begin: &Begin) -> Self {
        let said = place.folder().join(unique("said"));
        let mut command = place.command(&[begin.part], &["--orders"]);
        for (name, _) in std::env::vars() {
            if name.starts_with("TIDEMILL_") || name == "RUST_LOG" {
                command.env_remove(name);
            }
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        command.stderr(std::fs::File::create(&said).unwrap());
        let mut system = command.spawn().unwrap();
        let stdout = BufReader::new(system.stdout.take().unwrap());
        let (tell, told) = channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let _over = tell.send(line);
            }
        });
        let mut child = Self {
            stdin: system.stdin.take(),
            system,
            told,
            said,
        };
        let key = json!({
            "job": place.name, "part": begin.part,
            "generation": begin.generation, "index": begin.index,
        });
        child.order(&json!({ "begin": {
            "key": key, "threads": 2, "processes": begin.processes,
            "secret": "00112233445566778899aabbccddeeff", "host": "127.0.0.1",
        }}));
        child
    }

    /// Gives it an order.
    pub(crate) fn order(&mut self, order: &Value) {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(format!("{order}\n").as_bytes()).unwrap();
        stdin.flush().unwrap();
    }

    /// Its worker is gone.
    pub(crate) fn abandon(&mut self) {
        self.stdin = None;
    }

    pub(crate) fn said(&self) -> String {
        std::fs::read_to_string(&self.said).unwrap()
    }

    /// The next line that `found` makes something of; each must be JSON.
    #[track_caller]
    pub(crate) fn tells<T>(&self, what: &str, found: impl Fn(&Value) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.told.recv_timeout(left);
            let line = line.unwrap_or_else(|error| panic!("no {what}: {error}\n{}", self.said()));
            let value: Value = serde_json::from_str(&line).unwrap();
            if let Some(found) = found(&value) {
                return found;
            }
        }
    }

    /// Waits until it tells where it listens.
    #[track_caller]
    pub(crate) fn listens(&self) -> String {
        self.tells("address", |line| {
            Some(line["listening"]["address"].as_str()?.to_owned())
        })
    }

    #[track_caller]
    pub(crate) fn is_live(&self) {
        self.tells("word that it is live", |line| {
            assert!(line.get("listening").is_none(), "{line}");
            (line == "live").then_some(())
        });
    }

    /// Waits for its end; the lines that it told since.
    #[track_caller]
    pub(crate) fn ends(&mut self, code: i32, patience: Duration) -> Vec<Value> {
        let deadline = Instant::now() + patience;
        let mut lines = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.told.recv_timeout(left) {
                Ok(line) => lines.push(serde_json::from_str(&line).unwrap()),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("it goes on:\n{}", self.said()),
            }
        }
        let ended = self.system.wait().unwrap();
        assert_eq!(ended.code(), Some(code), "{ended}:\n{}", self.said());
        lines
    }

    pub(crate) fn kill(&mut self) {
        self.system.kill().unwrap();
        self.system.wait().unwrap();
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It may have ended already.
        let _ended = self.system.kill();
        let _ended = self.system.wait();
    }
}
