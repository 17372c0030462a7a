//! Logs of a whole cluster: the master sends the same query to all workers at the same time, and
//! merges their pages into one.
//!
//! In: the workers' addresses and a query. Out: a page, which names the workers that did not
//! answer.

use std::path::PathBuf;
use std::thread;

use tidemill_protocol::api::Master;

use super::folder::read;
use super::page::{Page, Query, merge};

/// The worker name under which the master's own lines appear.
const MASTER: &str = "master";

/// The HTTP client for the workers, and the master's own log folder if it has one.
#[derive(Debug, Clone)]
pub struct Peers {
    /// The client, with the token, that [`Peers::at`] copies for each worker.
    way: Master,
    /// The master's log folder.
    own: Option<PathBuf>,
}

impl Peers {
    /// `token` is sent to the workers; `own` is the master's log folder.
    ///
    /// # Errors
    /// The HTTP client cannot be made, or the token cannot be sent in a header.
    pub fn new(token: Option<String>, own: Option<PathBuf>) -> anyhow::Result<Self> {
        let way = Master::plain(token)?;
        Ok(Self { way, own })
    }

    /// A client for another process of the cluster, at `host:port`.
    ///
    /// # Errors
    /// When that is no address.
    pub fn at(&self, http: &str) -> anyhow::Result<Master> {
        self.way.other(http)
    }

    /// One merged page of the workers with these names and addresses. Waits for all of them.
    pub fn page(&self, workers: &[(String, String)], query: &Query) -> Page {
        let mut pages = Vec::with_capacity(workers.len() + 1);
        if let Some(own) = &self.own {
            pages.push(read(own, MASTER, query).unwrap_or_else(|error| missing(MASTER, &error)));
        }
        pages.extend(thread::scope(|scope| {
            let asked: Vec<_> = workers
                .iter()
                .map(|(name, http)| {
                    let ask = || match self.way.other(http) {
                        Ok(worker) => worker
                            .get(super::PATH, &query.pairs())
                            .unwrap_or_else(|failure| missing(name, &failure)),
                        Err(error) => missing(name, &error),
                    };
                    scope.spawn(ask)
                })
                .collect();
            // A panic would have ended the process already.
            let answers = asked.into_iter().filter_map(|asked| asked.join().ok());
            answers.collect::<Vec<_>>()
        }));
        merge(query, pages)
    }
}

/// A page without lines that says why a worker's lines are missing.
fn missing(worker: &str, why: &dyn std::fmt::Display) -> Page {
    Page {
        missing: [(worker.to_owned(), why.to_string())].into(),
        ..Page::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_does_not_answer_is_named_and_the_others_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let line = "2026-11-22T21:14:01Z  INFO x: said\n";
        std::fs::write(folder.path().join("master.000001.log"), line).unwrap();
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let at = nobody.local_addr().unwrap().to_string();
        drop(nobody);
        let peers = Peers::new(None, Some(folder.path().to_owned())).unwrap();
        let workers = [("w1".to_owned(), at)];
        let page = peers.page(&workers, &Query::default());
        assert_eq!(page.lines.len(), 1);
        assert_eq!(page.lines[0].worker, "master");
        assert!(page.missing["w1"].contains("does not answer"), "{page:?}");
        assert_eq!(page.cursor.len(), 1);
    }
}
