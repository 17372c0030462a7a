//! Nexmark as standing views (`examples/nexmark`): small random auctions, with people, bids and a
//! side input that are inserted, changed and deleted. After each round all 23 views are what
//! PostgreSQL answers, whose queries have their windows written by hand.

use std::collections::BTreeSet;

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use serde_json::{Value as Json, json};

use crate::views::example::{Example, Tables};
use crate::views::river::PATIENCE;

const EXAMPLE: Example = Example {
    folder: "nexmark",
    keys: &[
        ("person", &["id"]),
        ("auction", &["id"]),
        ("bid", &["id"]),
        ("side_input", &["key"]),
    ],
    by_hand: &WINDOWS,
    rounds: 5,
    patience: PATIENCE,
    indexes: &[],
    empty_max: 0,
};

const WINDOWS: [(&str, &str); 6] = [
    (
        "FROM TABLE(
             HOP(TABLE bid, DESCRIPTOR(\"dateTime\"), INTERVAL '2' SECOND, INTERVAL '10' SECOND))",
        "FROM (SELECT bid.*, at AS window_start, at + INTERVAL '10' SECOND AS window_end
             FROM bid, generate_series(date_bin('2 seconds', \"dateTime\", '1970-01-01')
                 - INTERVAL '8 seconds', \"dateTime\", INTERVAL '2 seconds') AS at) AS windows",
    ),
    (
        "FROM TABLE(
          TUMBLE(TABLE bid, DESCRIPTOR(\"dateTime\"), INTERVAL '10' SECOND))",
        TUMBLED_BIDS,
    ),
    (
        "FROM TABLE(
        TUMBLE(TABLE bid, DESCRIPTOR(\"dateTime\"), INTERVAL '10' SECOND))",
        TUMBLED_BIDS,
    ),
    (
        "FROM TABLE(
            TUMBLE(TABLE person, DESCRIPTOR(\"dateTime\"), INTERVAL '10' SECOND))",
        "FROM (SELECT *, date_bin('10 seconds', \"dateTime\", '1970-01-01') AS window_start,
             date_bin('10 seconds', \"dateTime\", '1970-01-01 00:00:10') + INTERVAL '10 seconds'
             AS window_end FROM person) AS windows",
    ),
    (
        "FROM TABLE(
        TUMBLE(TABLE auction, DESCRIPTOR(\"dateTime\"), INTERVAL '10' SECOND))",
        "FROM (SELECT *, date_bin('10 seconds', \"dateTime\", '1970-01-01') AS window_start,
             date_bin('10 seconds', \"dateTime\", '1970-01-01 00:00:10') + INTERVAL '10 seconds'
             AS window_end FROM auction) AS windows",
    ),
    (
        "FROM TABLE(
        SESSION(TABLE bid PARTITION BY bidder, DESCRIPTOR(\"dateTime\"), INTERVAL '10' SECOND))",
        "FROM (SELECT bidder, min(\"dateTime\") OVER (PARTITION BY bidder, nr) AS window_start,
             max(\"dateTime\") OVER (PARTITION BY bidder, nr) + INTERVAL '10 seconds' AS window_end
             FROM (SELECT *, count(*) FILTER (WHERE later) OVER own AS nr FROM (SELECT *,
                 \"dateTime\" - lag(\"dateTime\") OVER own > INTERVAL '10 seconds' AS later
                 FROM bid WINDOW own AS (PARTITION BY bidder ORDER BY \"dateTime\")) AS bids
                 WINDOW own AS (PARTITION BY bidder ORDER BY \"dateTime\")) AS bids) AS windows",
    ),
];

const TUMBLED_BIDS: &str = "FROM (SELECT *,
    to_timestamp(div(extract(epoch FROM \"dateTime\"), 10)::int * 10) AT TIME ZONE 'UTC'
    AS window_start,
    to_timestamp(div(extract(epoch FROM \"dateTime\"), 10)::int * 10 + 10) AT TIME ZONE 'UTC'
    AS window_end FROM bid) AS windows";

const PEOPLE: i64 = 12;
const AUCTIONS: i64 = 30;
const BIDS: i64 = 160;
/// 2024-01-01 23:59:20, so that the events are on two days.
const START_MS: i64 = 1_704_153_560_000;

/// What no two bids share, so that no query leaves their order open.
#[derive(Default)]
struct Taken {
    moments: BTreeSet<i64>,
    prices: BTreeSet<i64>,
}

fn pick<'a>(rng: &mut StdRng, of: &[&'a str]) -> &'a str {
    of.choose(rng).copied().unwrap_or_default()
}

/// A moment in milliseconds as text.
fn moment(ms: i64) -> String {
    let (seconds, ms) = (ms.div_euclid(1000), ms.rem_euclid(1000));
    let (days, of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // The first days of January 2024.
    let day = days - 19_722;
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("2024-01-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}")
}

/// When the first auction of a person begins; people come 4 seconds apart.
fn arrival(person: i64) -> i64 {
    START_MS + person * 4000
}

fn person(rng: &mut StdRng, id: i64) -> Json {
    json!({
        "id": id,
        "name": pick(rng, &["Peter Jones", "Kate Smith", "Paul Noris"]),
        "emailAddress": format!("{id}@example.com"),
        "creditCard": "1234 5678",
        "city": pick(rng, &["Phoenix", "Portland", "Boise"]),
        "state": pick(rng, &["AZ", "CA", "ID", "OR", "WA"]),
        "dateTime": moment(arrival(id) + rng.random_range(0..3000)),
        "extra": "none",
    })
}

/// The id of an auction: some are multiples of 123.
fn auction_id(index: i64) -> i64 {
    if index % 3 == 0 {
        index * 41
    } else {
        10_000 + index
    }
}

fn auction(rng: &mut StdRng, index: i64) -> Json {
    let seller = rng.random_range(0..PEOPLE);
    let start = arrival(seller) + rng.random_range(0..8000);
    json!({
        "id": auction_id(index),
        "itemName": pick(rng, &["vase", "chair"]),
        "description": "old",
        "initialBid": rng.random_range(1..100),
        "reserve": rng.random_range(100..200),
        "dateTime": moment(start),
        "expires": moment(start + rng.random_range(5_000..60_000)),
        "seller": seller,
        "category": rng.random_range(10..13),
        "extra": pick(rng, &["none", "some"]),
    })
}

fn bid(rng: &mut StdRng, id: i64, taken: &mut Taken) -> Json {
    let (price, at) = loop {
        let most = *[10_000, 1_000_000, 80_000_000].choose(rng).unwrap();
        let price = rng.random_range(most / 100..most);
        // Most bids come in two minutes, some hours later.
        let later = *[0, 0, 0, 0, 5, 9, 19].choose(rng).unwrap() * 3_600_000;
        let at = START_MS + later + rng.random_range(0..120) * 1000 + rng.random_range(0..1000);
        if !taken.prices.contains(&price) && !taken.moments.contains(&at) {
            break (price, at);
        }
    };
    taken.prices.insert(price);
    taken.moments.insert(at);
    let query = pick(
        rng,
        &[
            "?query=1",
            "?query=1&channel_id=77",
            "?channel_id=8&x=1&channel_id=",
        ],
    );
    let directory = pick(rng, &["a/b", "c", "d/e/f"]);
    json!({
        "id": id,
        "auction": auction_id(rng.random_range(0..AUCTIONS)),
        "bidder": rng.random_range(0..PEOPLE),
        "price": price,
        "channel": pick(rng, &["Apple", "Google", "facebook", "Baidu", "channel-1", "channel-2"]),
        "url": format!("https://www.nexmark.com/{directory}/item.htm{query}"),
        "dateTime": moment(at),
        "extra": pick(rng, &["", "cold cocoa", "abc", "none"]),
    })
}

/// Puts a row in place of the one with its key, or takes it away.
fn put(tables: &mut Tables, table: &str, key: i64, row: Option<Json>) {
    let rows = tables.get_mut(table).unwrap();
    match row {
        Some(row) => rows.insert(vec![key], row),
        None => rows.remove(&vec![key]),
    };
}

/// Fills the tables in the first round. Later, some rows of each table change and some go.
fn traded(rng: &mut StdRng, tables: &mut Tables, round: usize, taken: &mut Taken) {
    let chance = |rng: &mut StdRng, of: f64| round == 0 || rng.random_bool(of);
    let gone = |rng: &mut StdRng| round > 0 && rng.random_bool(0.3);
    for id in 0..PEOPLE {
        if chance(rng, 0.3) {
            let row = (!gone(rng)).then(|| person(rng, id));
            put(tables, "person", id, row);
        }
    }
    for index in 0..AUCTIONS {
        let id = auction_id(index);
        if chance(rng, 0.2) {
            let row = (!gone(rng)).then(|| auction(rng, index));
            put(tables, "auction", id, row);
        }
        if chance(rng, 0.1) {
            let value = pick(rng, &["one", "two", "three"]);
            let row = (!gone(rng)).then(|| json!({"key": id % 10_000, "value": value}));
            put(tables, "side_input", id % 10_000, row);
        }
    }
    for id in 0..BIDS {
        if chance(rng, 0.25) {
            let row = (!gone(rng)).then(|| bid(rng, id, taken));
            put(tables, "bid", id, row);
        }
    }
}

fn compared(name: &str, workers: usize, restarts: bool) {
    let mut taken = Taken::default();
    EXAMPLE.compared(name, (workers, restarts), |rng, tables, round| {
        traded(rng, tables, round, &mut taken);
    });
}

#[test]
fn nexmark_is_what_postgresql_says_after_each_round() {
    compared("nexmark", 1, false);
}

#[test]
fn nexmark_on_3_workers_restarted_is_what_postgresql_says() {
    compared("nexmark_restarted", 3, true);
}
