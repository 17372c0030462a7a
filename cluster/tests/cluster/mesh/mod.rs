//! The real binary as processes of one job: who is let into their mesh, and what a worker's child
//! does that is told where the others are.

mod child;
mod ordered;
mod strangers;

use std::collections::BTreeSet;

use arrow::datatypes::DataType;
use tidemill_log::log::Record;

use crate::harness::{Place, View};

/// A pipeline that counts clicks, embedded.
struct Clicks {
    place: Place,
    count: usize,
}

impl Clicks {
    fn new(name: &str) -> Self {
        let place = Place::embedded(name);
        place.topic(&place.name, 2);
        place.write(
            "views.sql",
            &format!(
                "CREATE TABLE clicks (page text) WITH (topic = '{}', format = 'json');
                 CREATE MATERIALIZED VIEW counts WITH (primary_key = 'page') AS
                   SELECT page, count(*) AS n FROM clicks GROUP BY page;",
                place.name
            ),
        );
        let mut clicks = Self { place, count: 0 };
        clicks.append(1000);
        clicks
    }

    fn append(&mut self, count: usize) {
        let records: Vec<_> = (self.count..self.count + count)
            .map(|number| Record {
                topic: self.place.name.clone(),
                partition: Some((number % 2) as u32),
                key: None,
                value: Some(format!(r#"{{"page": "/{}"}}"#, number % 10).into_bytes()),
                timestamp_ms: 1,
            })
            .collect();
        self.place.append(&records);
        self.count += count;
    }

    /// Waits until the view counts all that was appended.
    #[track_caller]
    fn expect_all(&self) {
        let columns = [("page", DataType::Utf8), ("n", DataType::Int64)];
        let rows = (0..10).map(|page| {
            let n = (self.count + 9 - page) / 10;
            vec![format!("/{page}"), n.to_string()]
        });
        let rows: BTreeSet<_> = rows.collect();
        self.place.expect(&View::new("counts", &columns), &rows);
    }
}
