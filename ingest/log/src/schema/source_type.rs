//! Source types: types of the source database whose values are published as text, and which SQL
//! comparisons that text allows.
//!
//! The Avro schema of such a column names the type, so that the planner knows when equality and
//! order of the texts agree with those of the database. [`TYPES`] is the only table of these types:
//! capture and planner look them up here, and `docs/types.md` lists them.

/// Which comparisons of the texts agree with the comparisons of the values in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// Equality and order, byte by byte.
    Order,
    /// Equality only: equal values have equal texts, but the database orders them differently.
    Equality,
    /// Equality and order, after the blanks at the end are removed (`char(n)`).
    Blanks,
    /// None, but the text is a number, and a cast makes it comparable.
    Number,
    /// None: a view can only pass the text on.
    Nothing,
}

/// One entry of [`TYPES`]: the name in PostgreSQL, the comparisons, and the reason why there are
/// not more, as a fragment for messages.
#[derive(Debug)]
struct Entry {
    name: &'static str,
    comparison: Comparison,
    why: &'static str,
}

/// A type of the source database whose values are published as the text that the database writes
/// for them. Two source types are equal when their names are.
#[derive(Debug, Clone, Copy)]
pub struct SourceType(&'static Entry);

impl PartialEq for SourceType {
    fn eq(&self, other: &Self) -> bool {
        self.0.name == other.0.name
    }
}

impl Eq for SourceType {}

/// An entry of [`TYPES`].
const fn entry(name: &'static str, comparison: Comparison, why: &'static str) -> Entry {
    Entry {
        name,
        comparison,
        why,
    }
}

const CANONICAL: &str = "it is written in one way only, in an order of its own";
const CONTINUOUS: &str = "bounds are written in one way only, in an order of their own";
const NUMBERS_INSIDE: &str = "`1.0` and `1.00` inside are equal, and their texts differ";
const BY_NAME: &str = "its text is a name, which changes when the object is renamed";
const SHAPE: &str = "it is compared by size or not at all";
const DOCUMENT: &str = "equal documents may be written differently";

/// All types with a name of their own, by their names in PostgreSQL.
static TYPES: &[Entry] = &[
    entry("uuid", Comparison::Order, "written in lower case"),
    entry("time", Comparison::Order, "written as `HH:MM:SS.ffffff`"),
    entry("bit", Comparison::Order, "written as zeros and ones"),
    entry("varbit", Comparison::Order, "written as zeros and ones"),
    entry("macaddr", Comparison::Order, "written in lower case"),
    entry("macaddr8", Comparison::Order, "written in lower case"),
    entry(
        "name",
        Comparison::Order,
        "always in the order of its bytes",
    ),
    entry(
        "enum",
        Comparison::Equality,
        "its labels are in the order of their declaration",
    ),
    entry("inet", Comparison::Equality, CANONICAL),
    entry("cidr", Comparison::Equality, CANONICAL),
    entry(
        "timetz",
        Comparison::Equality,
        "ordered by the instant, then by the zone",
    ),
    entry("int4range", Comparison::Equality, CONTINUOUS),
    entry("int8range", Comparison::Equality, CONTINUOUS),
    entry("daterange", Comparison::Equality, CONTINUOUS),
    entry("tsrange", Comparison::Equality, CONTINUOUS),
    entry("tstzrange", Comparison::Equality, CONTINUOUS),
    entry("int4multirange", Comparison::Equality, CONTINUOUS),
    entry("int8multirange", Comparison::Equality, CONTINUOUS),
    entry("datemultirange", Comparison::Equality, CONTINUOUS),
    entry("tsmultirange", Comparison::Equality, CONTINUOUS),
    entry("tstzmultirange", Comparison::Equality, CONTINUOUS),
    entry("\"char\"", Comparison::Equality, CANONICAL),
    entry("xid", Comparison::Equality, "transaction numbers go round"),
    entry("xid8", Comparison::Equality, CANONICAL),
    entry("cid", Comparison::Equality, CANONICAL),
    entry("tid", Comparison::Equality, CANONICAL),
    entry("pg_lsn", Comparison::Equality, CANONICAL),
    entry(
        "char(n)",
        Comparison::Blanks,
        "blanks at the end do not count",
    ),
    entry(
        "numeric",
        Comparison::Number,
        "`9` and `9.00` are equal, and their texts differ",
    ),
    entry(
        "bpchar",
        Comparison::Nothing,
        "blanks at the end do not count",
    ),
    entry(
        "citext",
        Comparison::Nothing,
        "`A` and `a` are equal, and their texts differ",
    ),
    entry(
        "text of its own collation",
        Comparison::Nothing,
        "its collation holds different texts equal",
    ),
    entry(
        "interval",
        Comparison::Nothing,
        "`1 mon` and `30 days` are equal, and their texts differ",
    ),
    entry(
        "money",
        Comparison::Nothing,
        "its text depends on the server's locale",
    ),
    entry(
        "array",
        Comparison::Nothing,
        "it is ordered element by element",
    ),
    entry(
        "composite",
        Comparison::Nothing,
        "it is ordered field by field",
    ),
    entry("json", Comparison::Nothing, DOCUMENT),
    entry("jsonb", Comparison::Nothing, DOCUMENT),
    entry("xml", Comparison::Nothing, DOCUMENT),
    entry("jsonpath", Comparison::Nothing, DOCUMENT),
    entry("hstore", Comparison::Nothing, DOCUMENT),
    entry(
        "tsvector",
        Comparison::Nothing,
        "it has an order of its own",
    ),
    entry("tsquery", Comparison::Nothing, "it has an order of its own"),
    entry("numrange", Comparison::Nothing, NUMBERS_INSIDE),
    entry("nummultirange", Comparison::Nothing, NUMBERS_INSIDE),
    entry(
        "range",
        Comparison::Nothing,
        "equal bounds may be written differently",
    ),
    entry("point", Comparison::Nothing, SHAPE),
    entry("line", Comparison::Nothing, SHAPE),
    entry("lseg", Comparison::Nothing, SHAPE),
    entry("box", Comparison::Nothing, SHAPE),
    entry("path", Comparison::Nothing, SHAPE),
    entry("polygon", Comparison::Nothing, SHAPE),
    entry("circle", Comparison::Nothing, SHAPE),
    entry("regclass", Comparison::Nothing, BY_NAME),
    entry("regcollation", Comparison::Nothing, BY_NAME),
    entry("regconfig", Comparison::Nothing, BY_NAME),
    entry("regdictionary", Comparison::Nothing, BY_NAME),
    entry("regnamespace", Comparison::Nothing, BY_NAME),
    entry("regoper", Comparison::Nothing, BY_NAME),
    entry("regoperator", Comparison::Nothing, BY_NAME),
    entry("regproc", Comparison::Nothing, BY_NAME),
    entry("regprocedure", Comparison::Nothing, BY_NAME),
    entry("regrole", Comparison::Nothing, BY_NAME),
    entry("regtype", Comparison::Nothing, BY_NAME),
];

/// Stands for all types that are not listed, above all those of extensions.
static OTHER: Entry = entry(
    "another type",
    Comparison::Nothing,
    "only PostgreSQL knows how it compares",
);

impl SourceType {
    /// The type with this name. A name that is not listed gives the type that only the source
    /// database can compare.
    ///
    /// ```
    /// use tidemill_log::schema::{Comparison, SourceType};
    ///
    /// assert_eq!(SourceType::named("uuid").comparison(), Comparison::Order);
    /// assert_eq!(SourceType::named("geometry").comparison(), Comparison::Nothing);
    /// ```
    pub fn named(name: &str) -> Self {
        Self(
            TYPES
                .iter()
                .find(|entry| entry.name == name)
                .unwrap_or(&OTHER),
        )
    }

    /// All types, in the order of the documentation.
    pub fn all() -> impl Iterator<Item = Self> {
        TYPES.iter().chain([&OTHER]).map(Self)
    }

    /// The name in schemas and messages.
    pub fn name(self) -> &'static str {
        self.0.name
    }

    /// Which comparisons agree with those of the source database.
    pub fn comparison(self) -> Comparison {
        self.0.comparison
    }

    /// Why no more comparisons agree, as a fragment for messages.
    pub fn why(self) -> &'static str {
        self.0.why
    }

    /// Whether PostgreSQL removes blanks at the end when it casts a value to text.
    pub fn is_padded(self) -> bool {
        matches!(self.0.name, "char(n)" | "bpchar")
    }

    /// Whether a value has fields, and is `IS NULL` when all of them are.
    pub fn has_fields(self) -> bool {
        self.0.name == "composite"
    }

    /// Whether a value is a JSON document.
    pub fn is_document(self) -> bool {
        matches!(self.0.name, "json" | "jsonb")
    }

    /// Whether equal stored values always have the same text, so that the text can identify a row.
    pub fn identifies(self) -> bool {
        self.0.name != "money" && !self.0.name.starts_with("reg")
    }

    /// Whether the database writes some value of the type exactly as `text`. False when that is not
    /// known here.
    pub fn writes(self, text: &str) -> bool {
        match self.0.name {
            "enum" | "name" | "char(n)" => true,
            "uuid" => is_hex_groups(text, &[8, 4, 4, 4, 12], "-"),
            "macaddr" => is_hex_groups(text, &[2; 6], ":"),
            "macaddr8" => is_hex_groups(text, &[2; 8], ":"),
            "bit" | "varbit" => text.bytes().all(|digit| matches!(digit, b'0' | b'1')),
            "time" => is_time(text),
            "inet" => is_inet(text),
            "cidr" => text.contains('/') && is_network(text),
            "xid" | "xid8" | "cid" => text
                .parse::<u64>()
                .is_ok_and(|number| number.to_string() == text),
            _ => false,
        }
    }
}

/// Whether a text is groups of these lengths, of hexadecimal digits in lower case, separated by
/// `between`.
fn is_hex_groups(text: &str, lengths: &[usize], between: &str) -> bool {
    let mut groups = text.split(between);
    let fits = |&length: &usize| {
        groups.next().is_some_and(|group| {
            let digit = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f');
            group.len() == length && group.bytes().all(digit)
        })
    };
    lengths.iter().all(fits) && groups.next().is_none()
}

/// Whether a text is `HH:MM:SS`, without a fraction or with one of one to six digits whose last is
/// not zero.
fn is_time(text: &str) -> bool {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "1"));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let parts: Vec<&str> = whole.split(':').collect();
    let pairs = parts.len() == 3 && parts.iter().all(|part| part.len() == 2 && digits(part));
    let tail = (1..=6).contains(&fraction.len()) && digits(fraction) && !fraction.ends_with('0');
    let in_day = whole < "24:00:00" || text == "24:00:00";
    let below = |part: Option<&&str>| part.is_some_and(|part| *part < "60");
    pairs && tail && in_day && below(parts.get(1)) && below(parts.get(2))
}

/// Whether a text is an address, or a network that is not a single address.
fn is_inet(text: &str) -> bool {
    match text.contains('/') {
        true => is_network(text) && !text.ends_with("/32") && !text.ends_with("/128"),
        false => is_address(text),
    }
}

/// Whether a text is an address and a number of bits.
fn is_network(text: &str) -> bool {
    text.split_once('/').is_some_and(|(address, bits)| {
        let most = if address.contains(':') { 128 } else { 32 };
        let plain = |bits: u8| bits.to_string();
        is_address(address)
            && bits
                .parse::<u8>()
                .is_ok_and(|it| it <= most && plain(it) == bits)
    })
}

/// Whether a text is an address as PostgreSQL writes it. Rust writes the same text for all but IPv6
/// addresses that end in IPv4 form, which are not accepted.
fn is_address(text: &str) -> bool {
    let parsed = text.parse::<std::net::IpAddr>();
    parsed.is_ok_and(|address| address.to_string() == text)
        && !(text.contains(':') && text.contains('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_names_resolve_and_unknown_ones_do_not_compare() {
        for kind in SourceType::all() {
            assert_eq!(SourceType::named(kind.name()), kind);
        }
        let unknown = SourceType::named("geometry");
        assert_eq!(unknown.comparison(), Comparison::Nothing);
        assert_eq!(unknown.name(), "another type");
    }

    #[test]
    fn only_postgresqls_own_output_is_a_value() {
        for (name, text, is) in [
            ("uuid", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", true),
            ("uuid", "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", false),
            ("uuid", "a0eebc999c0b4ef8bb6d6bb9bd380a11", false),
            ("time", "12:00:00", true),
            ("time", "12:00:00.5", true),
            ("time", "24:00:00", true),
            ("time", "12:00", false),
            ("time", "12:00:00.50", false),
            ("time", "12:60:00", false),
            ("macaddr", "08:00:2b:01:02:03", true),
            ("macaddr", "08-00-2b-01-02-03", false),
            ("bit", "0101", true),
            ("bit", "x5", false),
            ("inet", "10.0.0.1", true),
            ("inet", "10.0.0.1/32", false),
            ("inet", "10.0.0.1/24", true),
            ("inet", "2001:DB8::1", false),
            ("inet", "2001:db8::1", true),
            ("cidr", "10.0.0.0/8", true),
            ("cidr", "10.0.0.0", false),
            ("xid", "7", true),
            ("xid", "07", false),
            ("interval", "1 day", false),
        ] {
            assert_eq!(SourceType::named(name).writes(text), is, "{name} {text}");
        }
    }
}
