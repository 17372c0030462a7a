//! Asks a process over HTTP.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::exposition::Scrape;
use super::{PATIENCE, Process, exposition, until};

/// Where a process answers.
pub(crate) struct Web(pub(crate) String);

/// An answer: its status, its head and its body.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Web {
    /// Waits until a process has said where it answers.
    pub(crate) fn of(process: &mut Process) -> Self {
        process.says("/metrics");
        let said = process.said();
        let (before, _) = said.split_once("/metrics").unwrap();
        let port = before.rsplit_once("http://127.0.0.1:").unwrap().1;
        Self(format!("127.0.0.1:{port}"))
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.0).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Asks once.
    pub(crate) fn get(&self, path: &str) -> Answer {
        self.asked(path)
            .unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    fn asked(&self, path: &str) -> std::io::Result<Answer> {
        let mut stream = TcpStream::connect(&self.0)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
        Ok(Answer {
            status: status.unwrap_or(0),
            head: head.to_owned(),
            body: body.to_owned(),
        })
    }

    /// Asks until the status is this one.
    #[track_caller]
    pub(crate) fn until(&self, path: &str, status: u16) -> Answer {
        until(&format!("{path} says {status}"), PATIENCE, || {
            let answer = self.asked(path).ok()?;
            (answer.status == status).then_some(answer)
        })
    }

    /// The metrics now.
    #[track_caller]
    pub(crate) fn scrape(&self) -> Scrape {
        let answer = self.get("/metrics");
        assert_eq!(answer.status, 200, "{}", answer.body);
        let kind = "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8";
        assert!(answer.head.to_lowercase().contains(kind), "{}", answer.head);
        let scrape = exposition::parse(&answer.body);
        scrape.unwrap_or_else(|why| panic!("{why}\nin:\n{}", answer.body))
    }

    /// The metrics once they are so.
    #[track_caller]
    pub(crate) fn scrape_until(&self, what: &str, is: impl Fn(&Scrape) -> bool) -> Scrape {
        let mut last = None;
        let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            until(what, PATIENCE, || {
                let scrape = self.scrape();
                let right = is(&scrape);
                last = Some(scrape);
                right.then_some(())
            })
        }));
        let last = last.unwrap();
        assert!(
            found.is_ok(),
            "not: {what}; the last was {:#?}",
            last.samples
        );
        last
    }
}
