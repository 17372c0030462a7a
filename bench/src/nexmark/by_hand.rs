//! The hand-written programs: one thread that polls librdkafka, parses the fields that its query
//! uses, and keeps the answer in hash maps.
//!
//! They hold what is correct in whatever order the topics are read, because Kafka orders records
//! only within a partition. Events are only added: none of the programs could take a row back.
//! Nothing is durable.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::hint::black_box;

use anyhow::Context;
use serde::Deserialize;

use super::events::{Kind, parsed};

/// Length of a window in ms.
const WINDOW_MS: u64 = 10_000;
/// Distance of q5's windows in ms.
const SLIDE_MS: u64 = 2_000;

/// The queries with a hand-written program.
pub(super) const QUERIES: [&str; 8] = ["q0", "q1", "q2", "q3", "q4", "q5", "q7", "q8"];

#[derive(Deserialize)]
struct Person<'a> {
    id: u64,
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    city: Cow<'a, str>,
    #[serde(borrow)]
    state: Cow<'a, str>,
    #[serde(borrow, rename = "dateTime")]
    at: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Auction<'a> {
    id: u64,
    seller: u64,
    category: u64,
    #[serde(borrow, rename = "dateTime")]
    at: Cow<'a, str>,
    #[serde(borrow)]
    expires: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Bid<'a> {
    id: u64,
    auction: u64,
    bidder: u64,
    price: u64,
    #[serde(borrow, rename = "dateTime")]
    at: Cow<'a, str>,
    #[serde(borrow)]
    extra: Cow<'a, str>,
}

/// The fields of a bid that q2 and the windows use.
#[derive(Deserialize)]
struct ShortBid<'a> {
    id: u64,
    auction: u64,
    price: u64,
    #[serde(borrow, rename = "dateTime")]
    at: Cow<'a, str>,
}

/// A query's program.
pub(super) trait Program {
    /// The tables that it reads.
    fn tables(&self) -> &'static [Kind];

    /// Takes one event.
    ///
    /// # Errors
    /// The value is not the JSON that the generator writes.
    fn take(&mut self, kind: Kind, value: &[u8]) -> anyhow::Result<()>;

    /// The rows of the query's answer now.
    fn rows(&self) -> u64;
}

/// The program of a query; `None` for one that has none.
pub(super) fn program(query: &str) -> Option<Box<dyn Program>> {
    Some(match query {
        "q0" => Box::new(PassThrough(0)),
        "q1" => Box::new(Currency(0)),
        "q2" => Box::new(Selection(0)),
        "q3" => Box::<Sellers>::default(),
        "q4" => Box::<Categories>::default(),
        "q5" => Box::<HotItems>::default(),
        "q7" => Box::<Highest>::default(),
        "q8" => Box::<NewUsers>::default(),
        _ => return None,
    })
}

/// A time of the generator in ms.
fn ms(text: &str) -> anyhow::Result<u64> {
    parsed(text).with_context(|| format!("not a time: {text}"))
}

/// q0.
struct PassThrough(u64);

impl Program for PassThrough {
    fn tables(&self) -> &'static [Kind] {
        &[Kind::Bid]
    }

    fn take(&mut self, _: Kind, value: &[u8]) -> anyhow::Result<()> {
        let bid: Bid<'_> = serde_json::from_slice(value)?;
        let at = ms(&bid.at)?;
        black_box((bid.id, bid.auction, bid.bidder, bid.price, at, bid.extra));
        self.0 += 1;
        Ok(())
    }

    fn rows(&self) -> u64 {
        self.0
    }
}

/// q1.
struct Currency(u64);

impl Program for Currency {
    fn tables(&self) -> &'static [Kind] {
        &[Kind::Bid]
    }

    fn take(&mut self, _: Kind, value: &[u8]) -> anyhow::Result<()> {
        let bid: Bid<'_> = serde_json::from_slice(value)?;
        // Thousandths, so that nothing is rounded.
        let price = u128::from(bid.price) * 908;
        let at = ms(&bid.at)?;
        black_box((bid.id, bid.auction, bid.bidder, price, at, bid.extra));
        self.0 += 1;
        Ok(())
    }

    fn rows(&self) -> u64 {
        self.0
    }
}

/// q2.
struct Selection(u64);

impl Program for Selection {
    fn tables(&self) -> &'static [Kind] {
        &[Kind::Bid]
    }

    fn take(&mut self, _: Kind, value: &[u8]) -> anyhow::Result<()> {
        let bid: ShortBid<'_> = serde_json::from_slice(value)?;
        if bid.auction.is_multiple_of(123) {
            black_box((bid.id, bid.auction, bid.price));
            self.0 += 1;
        }
        Ok(())
    }

    fn rows(&self) -> u64 {
        self.0
    }
}

/// q3: people of three states, and the auctions that wait for their seller.
#[derive(Default)]
struct Sellers {
    people: HashMap<u64, (String, String, String)>,
    auctions: HashMap<u64, Vec<u64>>,
    rows: u64,
}

impl Program for Sellers {
    fn tables(&self) -> &'static [Kind] {
        &[Kind::Person, Kind::Auction]
    }

    fn take(&mut self, kind: Kind, value: &[u8]) -> anyhow::Result<()> {
        if kind == Kind::Person {
            let person: Person<'_> = serde_json::from_slice(value)?;
            if matches!(person.state.as_ref(), "OR" | "ID" | "CA") {
                let auctions = self.auctions.get(&person.id);
                self.rows += auctions.map_or(0, Vec::len) as u64;
                let texts = (person.name, person.city, person.state);
                let texts = (texts.0.into(), texts.1.into(), texts.2.into());
                self.people.insert(person.id, texts);
            }
            return Ok(());
        }
        let auction: Auction<'_> = serde_json::from_slice(value)?;
        if auction.category == 10 {
            if let Some(person) = self.people.get(&auction.seller) {
                black_box((person, auction.id));
                self.rows += 1;
            }
            // The seller's row may come later.
            let waiting = self.auctions.entry(auction.seller).or_default();
            waiting.push(auction.id);
        }
        Ok(())
    }

    fn rows(&self) -> u64 {
        self.rows
    }
}

/// q4: the highest bid of each auction, and the sums of each category.
#[derive(Default)]
struct Categories {
    auctions: HashMap<u64, Open>,
    early: HashMap<u64, Vec<(u64, u64)>>,
    sums: HashMap<u64, (u64, u64)>,
}

/// An auction of q4.
struct Open {
    from: u64,
    until: u64,
    category: u64,
    highest: Option<u64>,
}

impl Categories {
    /// Counts a bid for an auction that is known.
    fn bid(&mut self, auction: u64, price: u64, at: u64) {
        let Some(open) = self.auctions.get_mut(&auction) else {
            return;
        };
        let higher = open.highest.is_none_or(|highest| price > highest);
        if !higher || !(open.from..=open.until).contains(&at) {
            return;
        }
        let (sum, count) = self.sums.entry(open.category).or_default();
        match open.highest.replace(price) {
            Some(before) => *sum -= before,
            None => *count += 1,
        }
        *sum += price;
        black_box(*sum as f64 / *count as f64);
    }
}

impl Program for Categories {
    fn tables(&self) -> &'static [Kind] {
        &[Kind::Auction, Kind::Bid]
    }

    fn take(&mut self, kind: Kind, value: &[u8]) -> anyhow::Result<()> {
        if kind == Kind::Bid {
            let bid: ShortBid<'_> = serde_json::from_slice(value)?;
            let at = ms(&bid.at)?;
            if self.auctions.contains_key(&bid.auction) {
                self.bid(bid.auction, bid.price, at);
            } else {
                let early = self.early.entry(bid.auction).or_default();
                early.push((bid.price, at));
            }
            return Ok(());
        }
        let auction: Auction<'_> = serde_json::from_slice(value)?;
        let open = Open {
            from: ms(&auction.at)?,
            until: ms(&auction.expires)?,
            category: auction.category,
            highest: None,
        };
        self.auctions.insert(auction.id, open);
        for (price, at) in self.early.remove(&auction.id).unwrap_or_default() {
            self.bid(auction.id, price, at);
        }
        Ok(())
    }

    fn rows(&self) -> u64 {
        self.sums.len() as u64
    }
}

/// q5: the bids of each auction in each window, and how many auctions have the most.
#[derive(Default)]
struct HotItems(HashMap<u64, Counted>);

/// A window of q5.
#[derive(Default)]
struct Counted {
    bids: HashMap<u64, u64>,
    most: u64,
    auctions: u64,
}

impl Program for HotItems {
    fn tables(&self) -> &'static [Kind] {
        &[Kind::Bid]
    }

    fn take(&mut self, _: Kind, value: &[u8]) -> anyhow::Result<()> {
        let bid: ShortBid<'_> = serde_json::from_slice(value)?;
        let last = ms(&bid.at)? / SLIDE_MS * SLIDE_MS;
        for start in (0..WINDOW_MS / SLIDE_MS).map(|back| last - back * SLIDE_MS) {
            let window = self.0.entry(start).or_default();
            let bids = window.bids.entry(bid.auction).or_default();
            *bids += 1;
            if *bids > window.most {
                (window.most, window.auctions) = (*bids, 1);
            } else if *bids == window.most {
                window.auctions += 1;
            }
        }
        Ok(())
    }

    fn rows(&self) -> u64 {
        self.0.values().map(|window| window.auctions).sum()
    }
}

/// q7: the highest bids of each window.
#[derive(Default)]
struct Highest(HashMap<u64, Best>);

/// A window of q7.
#[derive(Default)]
struct Best {
    price: u64,
    bids: Vec<u64>,
    /// Prices of the bids in the window's last instant, which belong to the next window; the query
    /// compares them with both.
    at_end: Vec<u64>,
}

impl Program for Highest {
    fn tables(&self) -> &'static [Kind] {
        &[Kind::Bid]
    }

    fn take(&mut self, _: Kind, value: &[u8]) -> anyhow::Result<()> {
        let bid: Bid<'_> = serde_json::from_slice(value)?;
        let at = ms(&bid.at)?;
        black_box((bid.auction, bid.bidder, bid.extra));
        let start = at / WINDOW_MS * WINDOW_MS;
        if at == start {
            let before = self.0.entry(start - WINDOW_MS).or_default();
            before.at_end.push(bid.price);
        }
        let window = self.0.entry(start).or_default();
        if bid.price > window.price {
            window.price = bid.price;
            window.bids.clear();
        }
        if bid.price == window.price {
            window.bids.push(bid.id);
        }
        Ok(())
    }

    fn rows(&self) -> u64 {
        let rows = self.0.values().map(|window| {
            let at_end = window.at_end.iter();
            window.bids.len() + at_end.filter(|price| **price == window.price).count()
        });
        // A window without a bid of its own has no highest price.
        rows.sum::<usize>() as u64
    }
}

/// q8: people, and sellers, each with the window.
#[derive(Default)]
struct NewUsers {
    people: HashMap<(u64, u64), String>,
    sellers: HashSet<(u64, u64)>,
    rows: u64,
}

impl Program for NewUsers {
    fn tables(&self) -> &'static [Kind] {
        &[Kind::Person, Kind::Auction]
    }

    fn take(&mut self, kind: Kind, value: &[u8]) -> anyhow::Result<()> {
        if kind == Kind::Person {
            let person: Person<'_> = serde_json::from_slice(value)?;
            let key = (person.id, ms(&person.at)? / WINDOW_MS);
            self.rows += u64::from(self.sellers.contains(&key));
            self.people.insert(key, person.name.into());
            return Ok(());
        }
        let auction: Auction<'_> = serde_json::from_slice(value)?;
        let key = (auction.seller, ms(&auction.at)? / WINDOW_MS);
        if self.sellers.insert(key) {
            self.rows += u64::from(self.people.contains_key(&key));
        }
        Ok(())
    }

    fn rows(&self) -> u64 {
        self.rows
    }
}
