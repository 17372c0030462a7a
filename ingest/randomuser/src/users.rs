//! Generated users: the same seed, page and index give the same user on every machine.
//!
//! Each user has a random generator of its own, seeded with a hash of seed, page and index. So a
//! page does not depend on its size, and no two users share a `login.uuid`. Ages are computed for
//! [`TODAY`], a fixed date, so that data fetched in different years is equal. The digests have the
//! right length but are digests of nothing.

use std::sync::LazyLock;

use jiff::Timestamp;
use serde::Serialize;
use uuid::Uuid;

/// 2026-01-01T00:00:00Z in seconds since 1970: the day for which ages are computed.
pub(super) const TODAY: i64 = 1_767_225_600;
/// Seconds of a day.
const DAY: i64 = 86_400;
/// Days of an average year.
const YEAR_DAYS: f64 = 365.2425;
/// Namespace of the users' UUIDs.
const USERS: Uuid = Uuid::from_u128(0x7469_6465_6d69_6c6c_8000_7573_6572_7300);

/// A nationality with its words, from `nations.txt`.
#[derive(Debug)]
pub(super) struct Nation {
    /// Two letters, as in the field `nat`.
    pub(super) code: &'static str,
    /// The name of the country.
    country: &'static str,
    /// First names of women.
    women: Vec<&'static str>,
    /// First names of men.
    men: Vec<&'static str>,
    /// Last names.
    last: Vec<&'static str>,
    /// Names of streets.
    streets: Vec<&'static str>,
    /// Names of cities.
    cities: Vec<&'static str>,
    /// Names of states.
    states: Vec<&'static str>,
}

/// The 21 nationalities.
pub(super) static NATIONS: LazyLock<Vec<Nation>> = LazyLock::new(|| {
    let lines = include_str!("nations.txt").lines();
    lines
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let mut fields = line.split('\t');
            let mut field = || fields.next().unwrap_or_default();
            let (code, country) = (field(), field());
            let mut list = || field().split('|').collect();
            Nation {
                code,
                country,
                women: list(),
                men: list(),
                last: list(),
                streets: list(),
                cities: list(),
                states: list(),
            }
        })
        .collect()
});

/// First words of user names.
const ADJECTIVES: [&str; 12] = [
    "angry",
    "beautiful",
    "blue",
    "brown",
    "crazy",
    "golden",
    "happy",
    "lazy",
    "red",
    "tiny",
    "white",
    "yellow",
];
/// Second words of user names.
const ANIMALS: [&str; 12] = [
    "bear",
    "butterfly",
    "elephant",
    "frog",
    "goose",
    "koala",
    "ladybug",
    "leopard",
    "ostrich",
    "peacock",
    "wolf",
    "zebra",
];
/// Passwords.
const PASSWORDS: [&str; 12] = [
    "charter", "concrete", "dogpound", "history", "keywest", "million", "ninjas", "rover", "speed",
    "success", "tekken", "truelove",
];
/// Time zones: offset and description.
const ZONES: [(&str, &str); 10] = [
    ("-10:00", "Hawaii"),
    ("-8:00", "Pacific Time (US & Canada)"),
    ("-5:00", "Eastern Time (US & Canada), Bogota, Lima"),
    ("-3:30", "Newfoundland"),
    ("0:00", "Western Europe Time, London, Lisbon, Casablanca"),
    ("+1:00", "Brussels, Copenhagen, Madrid, Paris"),
    ("+3:00", "Baghdad, Riyadh, Moscow, St. Petersburg"),
    ("+5:45", "Kathmandu"),
    ("+9:00", "Tokyo, Seoul, Osaka, Sapporo, Yakutsk"),
    ("+10:00", "Eastern Australia, Guam, Vladivostok"),
];

/// A user as in the API's answer. Fields that `inc` or `exc` remove are `None`.
#[derive(Debug, Serialize)]
pub(super) struct User {
    /// `female` or `male`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) gender: Option<&'static str>,
    /// Title, first and last name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<Name>,
    /// Address and time zone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) location: Option<Location>,
    /// Address made of the name, at example.com.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) email: Option<String>,
    /// User name, password and digests; `login.uuid` identifies the user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) login: Option<Login>,
    /// Birth.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) dob: Option<Dated>,
    /// Registration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) registered: Option<Dated>,
    /// Phone number in the national form.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) phone: Option<String>,
    /// Cell phone number in the national form.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cell: Option<String>,
    /// National identity number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<Id>,
    /// URLs of a portrait.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) picture: Option<Picture>,
    /// The nationality's two letters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) nat: Option<&'static str>,
}

/// The field `name`.
#[derive(Debug, Serialize)]
pub(super) struct Name {
    /// `Mr`, `Ms`, ….
    title: &'static str,
    first: &'static str,
    last: &'static str,
}

/// The field `location`.
#[derive(Debug, Serialize)]
pub(super) struct Location {
    street: Street,
    city: &'static str,
    state: &'static str,
    country: &'static str,
    postcode: Postcode,
    coordinates: Coordinates,
    timezone: Zone,
}

/// The field `location.street`.
#[derive(Debug, Serialize)]
struct Street {
    number: u64,
    name: &'static str,
}

/// The field `location.postcode`: text in Canada, Britain and Norway, a number elsewhere, as in the
/// real API.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Postcode {
    /// Digits only.
    Number(u64),
    /// Letters and digits.
    Text(String),
}

/// The field `location.coordinates`, in degrees as text.
#[derive(Debug, Serialize)]
struct Coordinates {
    /// Degrees north, with four decimal places.
    latitude: String,
    /// Degrees east, with four decimal places.
    longitude: String,
}

/// The field `location.timezone`.
#[derive(Debug, Serialize)]
struct Zone {
    /// Offset from UTC, as `+5:45`.
    offset: &'static str,
    /// Names of places in the zone.
    description: &'static str,
}

/// The field `login`.
#[derive(Debug, Serialize)]
pub(super) struct Login {
    /// A version 4 UUID; `None` for the fault that lacks it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) uuid: Option<Uuid>,
    username: String,
    password: &'static str,
    /// 8 hexadecimal digits.
    salt: String,
    /// 32 hexadecimal digits.
    md5: String,
    /// 40 hexadecimal digits.
    sha1: String,
    /// 64 hexadecimal digits.
    sha256: String,
}

/// A date in ISO 8601 and the age in years.
#[derive(Debug, Serialize)]
pub(super) struct Dated {
    /// The moment, with milliseconds, in UTC.
    date: String,
    /// Full years until [`TODAY`].
    age: i64,
}

/// The field `id`: its kind, and the number if the nation has one.
#[derive(Debug, Serialize)]
pub(super) struct Id {
    name: &'static str,
    /// The number, in the national form.
    value: Option<String>,
}

/// The field `picture`.
#[derive(Debug, Serialize)]
pub(super) struct Picture {
    /// 128 pixels wide.
    large: String,
    /// 72 pixels wide.
    medium: String,
    /// 48 pixels wide.
    thumbnail: String,
}

/// A SplitMix64 generator (Steele, Lea and Flood, 2014). The default generator of a library may
/// change; this one does not.
struct Dice(u64);

impl Dice {
    /// The next 64 random bits.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number in `low..=high`.
    fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low + 1)
    }

    /// An item of a list.
    fn of<T: Copy + Default>(&mut self, list: &[T]) -> T {
        let at = self.next() % (list.len().max(1) as u64);
        list.get(at as usize).copied().unwrap_or_default()
    }

    /// A text by a pattern: `#` becomes a digit and `A` a capital letter.
    fn pattern(&mut self, pattern: &str) -> String {
        let mut bits = self.next();
        let mut used = 0;
        let mut draw = |below: u64| {
            used += 1;
            if used % 10 == 0 {
                bits = self.next();
            }
            let digit = bits % below;
            bits /= below;
            digit as u8
        };
        pattern
            .chars()
            .map(|sign| match sign {
                '#' => char::from(b'0' + draw(10)),
                'A' => char::from(b'A' + draw(26)),
                other => other,
            })
            .collect()
    }

    /// Eight hexadecimal digits for each word.
    fn hex(&mut self, words: usize) -> String {
        use std::fmt::Write as _;
        let mut text = String::with_capacity(words * 8);
        for _ in 0..words {
            // Writing to a string cannot fail.
            let _ = write!(text, "{:08x}", self.next() as u32);
        }
        text
    }

    /// A coordinate with four decimal places, within ±`limit` degrees.
    fn degrees(&mut self, limit: i64) -> String {
        let ten_thousandths = self.between(0, limit as u64 * 20_000) as i64 - limit * 10_000;
        format!("{:.4}", ten_thousandths as f64 / 10_000.0)
    }

    /// A moment between two numbers of days before [`TODAY`], and its age in years.
    fn dated(&mut self, nearest: i64, farthest: i64) -> Dated {
        let seconds = self.between((nearest * DAY) as u64, (farthest * DAY) as u64) as i64;
        let millis = (TODAY - seconds) * 1000 + self.between(0, 999) as i64;
        let date = Timestamp::from_millisecond(millis)
            .map_or_else(|_| String::new(), |instant| format!("{instant:.3}"));
        let age = ((TODAY * 1000 - millis) as f64 / (YEAR_DAYS * DAY as f64 * 1000.0)) as i64;
        Dated { date, age }
    }
}

/// Generates one user; `nations` are the indexes into [`NATIONS`] to choose from.
pub(super) fn user(
    seed: &str,
    page: u64,
    index: u64,
    nations: &[usize],
    gender: Option<&'static str>,
) -> User {
    let hash = Uuid::new_v5(&USERS, format!("{page}/{index}/{seed}").as_bytes());
    let (high, low) = hash.as_u64_pair();
    let mut dice = Dice(high ^ low.rotate_left(32));
    let uuid = uuid::Builder::from_random_bytes(hash.into_bytes()).into_uuid();
    let nation = &NATIONS[dice.of(nations)];
    let gender = gender.unwrap_or_else(|| dice.of(&["female", "male"]));
    let name = name(&mut dice, nation, gender);
    let username = format!(
        "{}{}{}",
        dice.of(&ADJECTIVES),
        dice.of(&ANIMALS),
        dice.between(100, 999)
    );
    let (phone, cell, id) = numbers(&mut dice, nation.code);
    User {
        gender: Some(gender),
        email: Some(email(&name, &username)),
        name: Some(name),
        location: Some(location(&mut dice, nation)),
        login: Some(Login {
            uuid: Some(uuid),
            username,
            password: dice.of(&PASSWORDS),
            salt: dice.hex(1),
            md5: dice.hex(4),
            sha1: dice.hex(5),
            sha256: dice.hex(8),
        }),
        dob: Some(dice.dated(21 * 366, 80 * 365)),
        registered: Some(dice.dated(1, 20 * 365)),
        phone: Some(phone),
        cell: Some(cell),
        id: Some(id),
        picture: Some(picture(&mut dice, gender)),
        nat: Some(nation.code),
    }
}

/// A name by nationality and gender.
fn name(dice: &mut Dice, nation: &Nation, gender: &str) -> Name {
    let titles: &[&str] = match (nation.code, gender) {
        ("CH", "male") => &["Monsieur"],
        ("CH", _) => &["Mademoiselle", "Madame"],
        (_, "male") => &["Mr"],
        _ => &["Miss", "Ms", "Mrs"],
    };
    let first = if gender == "male" {
        &nation.men
    } else {
        &nation.women
    };
    Name {
        title: dice.of(titles),
        first: dice.of(first),
        last: dice.of(&nation.last),
    }
}

/// The email address: the ASCII letters of the name, or the user name if there are none.
fn email(name: &Name, username: &str) -> String {
    let plain = |text: &str| -> String {
        let letters = text.chars().filter(char::is_ascii_alphabetic);
        letters.map(|letter| letter.to_ascii_lowercase()).collect()
    };
    let (first, last) = (plain(name.first), plain(name.last));
    if first.is_empty() || last.is_empty() {
        format!("{username}@example.com")
    } else {
        format!("{first}.{last}@example.com")
    }
}

/// An address by nationality.
fn location(dice: &mut Dice, nation: &Nation) -> Location {
    let postcode = match nation.code {
        "CA" => Postcode::Text(dice.pattern("A#A #A#")),
        "GB" => Postcode::Text(dice.pattern("AA## #AA")),
        "NO" => Postcode::Text(dice.pattern("####")),
        "AU" | "CH" | "DK" => Postcode::Number(dice.between(1000, 9999)),
        _ => Postcode::Number(dice.between(10_000, 99_999)),
    };
    let (offset, description) = dice.of(&ZONES);
    Location {
        street: Street {
            number: dice.between(1, 9999),
            name: dice.of(&nation.streets),
        },
        city: dice.of(&nation.cities),
        state: dice.of(&nation.states),
        country: nation.country,
        postcode,
        coordinates: Coordinates {
            latitude: dice.degrees(90),
            longitude: dice.degrees(180),
        },
        timezone: Zone {
            offset,
            description,
        },
    }
}

/// Phone, cell phone and identity number by nationality.
fn numbers(dice: &mut Dice, code: &str) -> (String, String, Id) {
    let (phone, cell) = match code {
        "AU" => ("0#-####-####", "04##-###-###"),
        "CA" => ("A## A##-####", "A## A##-####"),
        "CH" => ("07# ### ## ##", "07# ### ## ##"),
        "DE" => ("0###-#######", "017#-#######"),
        "DK" | "NO" => ("########", "########"),
        "FR" => ("0#-##-##-##-##", "06-##-##-##-##"),
        "GB" => ("0### #### ####", "07### ######"),
        "US" | "MX" => ("(###) ###-####", "(###) ###-####"),
        _ => ("0##-###-####", "0##-###-####"),
    };
    let (name, value) = match code {
        "AU" => ("TFN", "#########"),
        "BR" => ("CPF", "###.###.###-##"),
        "CA" => ("SIN", "#########"),
        "CH" => ("AVS", "756.####.####.##"),
        "DE" => ("SVNR", "## ###### A ###"),
        "DK" => ("CPR", "######-####"),
        "ES" => ("DNI", "########-A"),
        "FI" => ("HETU", "######-###A"),
        "FR" => ("INSEE", "############# ##"),
        "GB" => ("NINO", "AA ## ## ## A"),
        "IE" => ("PPS", "#######AA"),
        "IN" => ("UIDAI", "############"),
        "MX" => ("NSS", "## ## ## #### #"),
        "NL" => ("BSN", "########"),
        "NO" => ("FN", "###########"),
        "RS" => ("SID", "#########"),
        "US" => ("SSN", "###-##-####"),
        _ => ("", ""),
    };
    let id = Id {
        name,
        value: (!name.is_empty()).then(|| dice.pattern(value)),
    };
    (dice.pattern(phone), dice.pattern(cell), id)
}

/// The URLs of a portrait.
fn picture(dice: &mut Dice, gender: &str) -> Picture {
    let folder = if gender == "male" { "men" } else { "women" };
    let number = dice.between(0, 99);
    let url =
        |size: &str| format!("https://randomuser.me/api/portraits/{size}{folder}/{number}.jpg");
    Picture {
        large: url(""),
        medium: url("med/"),
        thumbnail: url("thumb/"),
    }
}
