//! Generated events of an auction house: people, auctions and bids, equal for the same index on
//! every machine.
//!
//! The shape is that of Nexmark's generator (Tucker, Tufte, Papadimos, Maier: *NEXMark – A
//! Benchmark for Queries over Data Streams*, and its version for Beam and Flink): of 50 events one
//! is a person, 3 are auctions and 46 are bids; 10,000 events make a second; half of the bids go to
//! one hot auction, and three of four to the auctions of hot sellers; prices are log-uniform.

use std::fmt::Write;

use crate::harness::random::Random;

/// Version of what [`Events`] generates. Raise it with every change, so that topics with older
/// events are not reused.
pub(crate) const VERSION: u32 = 1;

/// Events of which one is a person, [`AUCTIONS`] are auctions, and the others are bids.
const PROPORTION: u64 = 50;
/// Auctions of [`PROPORTION`] events.
const AUCTIONS: u64 = 3;
/// The first id of a person and of an auction.
const FIRST_ID: u64 = 1000;
/// The first category of an auction.
const FIRST_CATEGORY: u64 = 10;
/// Auctions that are open at a time, and the distance of hot ones.
const OPEN: u64 = 100;
/// People who bid and sell at a time, and the distance of hot ones.
const ACTIVE: u64 = 100;
/// 2024-01-01 in milliseconds since 1970.
const START: u64 = 1_704_067_200_000;
/// Events in a millisecond.
const RATE: u64 = 10;

const STATES: [&str; 6] = ["AZ", "CA", "ID", "OR", "WA", "WY"];
const CITIES: [&str; 10] = [
    "Phoenix",
    "Los Angeles",
    "San Francisco",
    "Boise",
    "Portland",
    "Bend",
    "Redmond",
    "Seattle",
    "Kent",
    "Cheyenne",
];
const FIRST: [&str; 11] = [
    "Peter", "Paul", "Luke", "John", "Saul", "Vicky", "Kate", "Julie", "Sarah", "Deiter", "Walter",
];
const LAST: [&str; 9] = [
    "Shultz", "Abrams", "Spencer", "White", "Bartels", "Walton", "Smith", "Jones", "Noris",
];
const HOT_CHANNELS: [&str; 4] = ["Google", "Facebook", "Baidu", "Apple"];
/// What descriptions and extra columns are cut from.
const LETTERS: &str = "khdyscqvbnmwerjufgaoxlptiz cocoaabchdkeikdlsoeirmfnhdkssbbdnmwpouyt\
     cvbnrtyolkjhgfdsaqwertzuiopxcvbncdcdcdhhfjkeueiwomnbvcxylkjhgfd";

/// The topic of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A row of `person`.
    Person,
    /// A row of `auction`.
    Auction,
    /// A row of `bid`.
    Bid,
}

/// Generates events one after the other.
#[derive(Debug, Default)]
pub(crate) struct Events {
    /// The number of the next event.
    next: u64,
    /// Where the fields come from.
    random: Random,
}

impl Kind {
    /// All tables.
    pub(crate) const ALL: [Kind; 3] = [Kind::Person, Kind::Auction, Kind::Bid];

    /// The table's name.
    pub(crate) fn table(self) -> &'static str {
        match self {
            Kind::Person => "person",
            Kind::Auction => "auction",
            Kind::Bid => "bid",
        }
    }
}

impl Events {
    /// Writes the next event as JSON into `out`, in place of what is there.
    pub(crate) fn next(&mut self, out: &mut String) -> Kind {
        out.clear();
        let (group, place) = (self.next / PROPORTION, self.next % PROPORTION);
        let at = self.next / RATE;
        self.next += 1;
        // Writing to strings cannot fail.
        let (kind, _) = match place {
            0 => (Kind::Person, self.person(group, at, out)),
            1..=AUCTIONS => (
                Kind::Auction,
                self.auction(group, group * AUCTIONS + place - 1, at, out),
            ),
            _ => (Kind::Bid, self.bid(group, at, out)),
        };
        kind
    }

    /// The person number `group`, at `at` ms after the start.
    fn person(&mut self, group: u64, at: u64, out: &mut String) -> std::fmt::Result {
        let random = &mut self.random;
        let (first, last) = (random.one_of(&FIRST), random.one_of(&LAST));
        let (city, state) = (random.one_of(&CITIES), random.one_of(&STATES));
        let (card, mail) = (random.below(10_000_000_000_000_000), random.below(100_000));
        let id = FIRST_ID + group;
        write!(out, r#"{{"id":{id},"name":"{first} {last}","#)?;
        write!(out, r#""emailAddress":"{last}{mail}@example.com","#)?;
        write!(out, r#""creditCard":"{card:016}","city":"{city}","#)?;
        write!(out, r#""state":"{state}","dateTime":"{}","#, moment(at))?;
        write!(out, r#""extra":"{}"}}"#, text(random, 60))
    }

    /// The auction number `index`, which one of the last people sells.
    fn auction(&mut self, group: u64, index: u64, at: u64, out: &mut String) -> std::fmt::Result {
        let random = &mut self.random;
        let seller = recent(random, group, ACTIVE, 3);
        let (price, reserve) = (price(random), price(random));
        // As long as OPEN auctions take to begin, on average.
        let open = OPEN * PROPORTION / AUCTIONS / RATE;
        let expires = at + 1 + random.below(2 * open);
        let category = FIRST_CATEGORY + random.below(5);
        let id = FIRST_ID + index;
        write!(out, r#"{{"id":{id},"itemName":"{}","#, text(random, 20))?;
        write!(out, r#""description":"{}","#, text(random, 100))?;
        write!(
            out,
            r#""initialBid":{price},"reserve":{},"#,
            price + reserve
        )?;
        write!(out, r#""dateTime":"{}","#, moment(at))?;
        write!(out, r#""expires":"{}","#, moment(expires))?;
        write!(
            out,
            r#""seller":{},"category":{category},"#,
            FIRST_ID + seller
        )?;
        write!(out, r#""extra":"{}"}}"#, text(random, 100))
    }

    /// A bid for one of the last auctions by one of the last people. Its id is its number.
    fn bid(&mut self, group: u64, at: u64, out: &mut String) -> std::fmt::Result {
        let random = &mut self.random;
        let auction = recent(random, (group + 1) * AUCTIONS - 1, OPEN, 1);
        let bidder = recent(random, group, ACTIVE, 3);
        let price = price(random);
        let id = self.next - 1;
        write!(out, r#"{{"id":{id},"auction":{},"#, FIRST_ID + auction)?;
        write!(out, r#""bidder":{},"price":{price},"#, FIRST_ID + bidder)?;
        if random.below(2) == 0 {
            let channel = random.one_of(&HOT_CHANNELS);
            write!(out, r#""channel":"{channel}","#)?;
            write!(
                out,
                r#""url":"https://www.nexmark.com/a/b/item.htm?query=1","#
            )?;
        } else {
            let channel = random.below(10_000);
            write!(out, r#""channel":"channel-{channel}","#)?;
            write!(
                out,
                r#""url":"https://www.nexmark.com/c/d/e/item.htm?query=1"#
            )?;
            write!(out, r#"&channel_id={channel}","#)?;
        }
        write!(
            out,
            r#""dateTime":"{}","extra":"{}"}}"#,
            moment(at),
            text(random, 30)
        )
    }
}

/// One of the `most` numbers up to `last`. `hot` of `hot + 1` are the last multiple of `most`.
fn recent(random: &mut Random, last: u64, most: u64, hot: u64) -> u64 {
    if random.below(hot + 1) > 0 {
        return last / most * most;
    }
    let oldest = last.saturating_sub(most);
    oldest + random.below(last - oldest + 1)
}

/// A price in cents, log-uniform from 1 to 10 million.
fn price(random: &mut Random) -> u64 {
    let power = random.below(6_000_000) as f64 / 1_000_000.0;
    (10_f64.powf(power) * 100.0).round() as u64
}

/// A text of half to one and a half times this many letters.
fn text(random: &mut Random, letters: u64) -> &'static str {
    let length = letters / 2 + random.below(letters);
    let length = (length as usize).min(LETTERS.len() - 1);
    let begin = random.below((LETTERS.len() - length) as u64) as usize;
    LETTERS.get(begin..begin + length).unwrap_or_default()
}

/// A time after the start as text with milliseconds. A run lasts less than a month of event time.
fn moment(ms: u64) -> impl std::fmt::Display {
    let (seconds, ms) = (ms / 1000, ms % 1000);
    let day = 1 + seconds / 86_400;
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    std::fmt::from_fn(move |out| {
        write!(
            out,
            "2024-01-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}"
        )
    })
}

/// A time that [`Events`] wrote, in ms since 1970, as one reads it who knows the form.
pub(crate) fn parsed(text: &str) -> Option<u64> {
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<u64>().ok();
    let day = number(8, 10)?.checked_sub(1)?;
    let seconds = day * 86_400 + number(11, 13)? * 3600 + number(14, 16)? * 60 + number(17, 19)?;
    Some(START + seconds * 1000 + number(20, 23)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_rows_of_the_three_tables_in_their_proportions() {
        let (mut events, mut row) = (Events::default(), String::new());
        let mut counts = [0; 3];
        let mut last = 0;
        for _ in 0..10_000 {
            let kind = events.next(&mut row);
            let json: serde_json::Value = serde_json::from_str(&row).unwrap();
            counts[kind as usize] += 1;
            let at = parsed(json["dateTime"].as_str().unwrap()).unwrap();
            assert!(at >= last, "time goes back: {row}");
            last = at;
        }
        assert_eq!(counts, [200, 600, 9200]);
        assert_eq!(last, START + 9_999 / RATE);
    }
}
