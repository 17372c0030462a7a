//! Generated users that the benchmarks count: flat, 14 fields, about 440 bytes as JSON, and equal
//! for the same index on every machine. Also their expected aggregates.
//!
//! The fields are modelled on those of randomuser.me.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;

use crate::harness::random::Random;

/// Version of what [`Users`] generates. Raise it with every change, so that a topic with older
/// users is not reused.
pub(crate) const VERSION: u32 = 1;

/// The groups of the benchmarks' view.
const COUNTRIES: [&str; 21] = [
    "Australia",
    "Brazil",
    "Canada",
    "Denmark",
    "Finland",
    "France",
    "Germany",
    "India",
    "Iran",
    "Ireland",
    "Mexico",
    "Netherlands",
    "New Zealand",
    "Norway",
    "Serbia",
    "Spain",
    "Switzerland",
    "Turkey",
    "Ukraine",
    "United Kingdom",
    "United States",
];
/// First names, some of them with letters beyond ASCII.
const FIRST: [&str; 12] = [
    "Ada", "Björn", "Carmen", "Dylan", "Elif", "Florian", "Gisela", "Hanna", "Ivan", "Jasmine",
    "Konsta", "Ludovic",
];
/// Last names.
const LAST: [&str; 12] = [
    "Andersen",
    "Bakker",
    "Castillo",
    "Dubois",
    "Edwards",
    "Fernández",
    "Gautier",
    "Hughes",
    "Iyer",
    "Johansen",
    "Koskela",
    "Lambert",
];
/// Streets of the addresses.
const STREETS: [&str; 8] = [
    "Avenue de l'Abbaye",
    "Calle de Alcalá",
    "Hauptstraße",
    "High Street",
    "Kirkkokatu",
    "Rua São Paulo",
    "South Parade",
    "Valley View Lane",
];
/// Cities of the addresses.
const CITIES: [&str; 8] = [
    "Albuquerque",
    "Ballarat",
    "Coimbatore",
    "Düsseldorf",
    "Eindhoven",
    "Frederikshavn",
    "Guadalajara",
    "Hämeenlinna",
];
/// Second halves of user names.
const ANIMALS: [&str; 6] = ["bear", "duck", "koala", "leopard", "panda", "swan"];
/// First halves of user names.
const COLOURS: [&str; 6] = ["angry", "crazy", "golden", "purple", "silver", "yellow"];

/// The Avro schema of [`User`].
pub(crate) fn avro_schema() -> String {
    let text = [
        "id",
        "first_name",
        "last_name",
        "gender",
        "address",
        "post_code",
        "email",
        "username",
        "dob",
        "registered_date",
        "phone",
        "picture",
        "country",
    ];
    let mut fields: Vec<_> = text
        .iter()
        .map(|name| serde_json::json!({"name": name, "type": "string"}))
        .collect();
    fields.push(serde_json::json!({"name": "age", "type": "int"}));
    serde_json::json!({"type": "record", "name": "User", "fields": fields}).to_string()
}

/// The same fields as column definitions of `CREATE TABLE`.
pub(crate) const COLUMNS: &str = "id text, first_name text, last_name text, gender text, \
     address text, post_code text, email text, username text, dob text, registered_date text, \
     phone text, picture text, country text, age int";

/// One user.
#[derive(Debug, Default, Serialize)]
pub(crate) struct User {
    id: String,
    first_name: &'static str,
    last_name: &'static str,
    gender: &'static str,
    address: String,
    post_code: String,
    email: String,
    username: String,
    dob: String,
    registered_date: String,
    phone: String,
    picture: String,
    pub(crate) country: &'static str,
    pub(crate) age: i32,
}

/// Generates users one after the other, reusing the memory of one user.
#[derive(Default)]
pub(crate) struct Users {
    /// Where the fields come from.
    random: Random,
    /// The user that was made last.
    user: User,
}

impl Users {
    /// The next user.
    pub(crate) fn next(&mut self) -> &User {
        // Writing to strings cannot fail.
        let _ = self.fill();
        &self.user
    }

    /// Makes the next user. The order of the draws is part of [`VERSION`].
    fn fill(&mut self) -> std::fmt::Result {
        let (a, b) = (self.random.draw(), self.random.draw());
        let (first, last) = (self.random.one_of(&FIRST), self.random.one_of(&LAST));
        let country = self.random.one_of(&COUNTRIES);
        let (street, city) = (self.random.one_of(&STREETS), self.random.one_of(&CITIES));
        let (colour, animal) = (self.random.one_of(&COLOURS), self.random.one_of(&ANIMALS));
        let age = 18 + self.random.below(63);
        let man = self.random.below(2) == 0;
        let (n, month, day) = (
            self.random.below(10_000),
            1 + self.random.below(12),
            1 + self.random.below(28),
        );
        let (hour, minute, second) = (
            self.random.below(24),
            self.random.below(60),
            self.random.below(60),
        );
        let user = &mut self.user;
        for text in [
            &mut user.id,
            &mut user.address,
            &mut user.post_code,
            &mut user.email,
            &mut user.username,
            &mut user.dob,
            &mut user.registered_date,
            &mut user.phone,
            &mut user.picture,
        ] {
            text.clear();
        }
        let (time_low, time_mid, version) = (a >> 32, (a >> 16) & 0xffff, a & 0xfff);
        let (variant, node) = (0x8000 | (b >> 50), b & 0xffff_ffff_ffff);
        write!(
            user.id,
            "{time_low:08x}-{time_mid:04x}-4{version:03x}-{variant:04x}-{node:012x}"
        )?;
        (user.first_name, user.last_name, user.country) = (first, last, country);
        user.gender = if man { "male" } else { "female" };
        user.age = age as i32;
        write!(user.address, "{n} {street}, {city}, {country}")?;
        write!(user.post_code, "{:05}", b % 100_000)?;
        write!(user.email, "{first}.{last}{n}@example.com")?;
        write!(user.username, "{colour}{animal}{n}")?;
        let born = 2026 - age;
        write!(
            user.dob,
            "{born}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.000Z"
        )?;
        let year = 2002 + n % 24;
        let date = &mut user.registered_date;
        write!(
            date,
            "{year}-{month:02}-{day:02}T{minute:02}:{second:02}:{hour:02}.000Z"
        )?;
        write!(user.phone, "({:03}) 555-{n:04}", a % 1000)?;
        let (folder, portrait) = (if man { "men" } else { "women" }, n % 100);
        let picture = &mut user.picture;
        write!(
            picture,
            "https://randomuser.me/api/portraits/{folder}/{portrait}.jpg"
        )
    }
}

/// By country: the number of users and the sum of their ages.
pub(crate) type Totals = BTreeMap<String, (u64, i64)>;

/// The expected totals of the first `count` users.
pub(crate) fn totals(count: u64) -> Totals {
    let mut users = Users::default();
    let mut by_country: BTreeMap<&str, (u64, i64)> = BTreeMap::new();
    for _ in 0..count {
        let user = users.next();
        let (count, ages) = by_country.entry(user.country).or_default();
        *count += 1;
        *ages += i64::from(user.age);
    }
    let owned = by_country
        .into_iter()
        .map(|(country, sums)| (country.to_owned(), sums));
    owned.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_as_large_as_the_peers_and_always_the_same() {
        let mut users = Users::default();
        let bytes: usize = (0..10_000)
            .map(|_| serde_json::to_vec(users.next()).unwrap().len())
            .sum();
        let mean = bytes / 10_000;
        assert!((420..460).contains(&mean), "{mean} bytes");
        assert_eq!(totals(10_000), totals(10_000));
        assert_eq!(totals(10_000).len(), COUNTRIES.len());
    }

    #[test]
    fn the_avro_schema_fits_the_user() {
        let schema = apache_avro::Schema::parse_str(&avro_schema()).unwrap();
        let writer = apache_avro::writer::datum::GenericDatumWriter::builder(&schema);
        let writer = writer.build().unwrap();
        let mut users = Users::default();
        assert!(writer.write_ser_to_vec(users.next()).unwrap().len() > 200);
    }
}
