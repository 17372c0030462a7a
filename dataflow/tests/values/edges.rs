//! The values that columns of each type hold: where answers change.

use tidemill_dataflow::plan::functions::Kind;

/// A column of the table: name, kind, and the type that PostgreSQL declares.
pub(crate) const COLUMNS: [(&str, Kind, &str); 26] = [
    ("o1", Kind::Bool, "boolean"),
    ("o2", Kind::Bool, "boolean"),
    ("i1", Kind::Int, "int"),
    ("i2", Kind::Int, "int"),
    ("i3", Kind::Int, "int"),
    ("l1", Kind::Long, "bigint"),
    ("l2", Kind::Long, "bigint"),
    ("n1", Kind::Numeric, "numeric(10,2)"),
    ("n2", Kind::Numeric, "numeric(12,4)"),
    ("n3", Kind::Numeric, "numeric(6,0)"),
    ("r1", Kind::Real, "real"),
    ("r2", Kind::Real, "real"),
    ("f1", Kind::Double, "double precision"),
    ("f2", Kind::Double, "double precision"),
    ("s1", Kind::Text, "text"),
    ("s2", Kind::Text, "text"),
    ("s3", Kind::Text, "text"),
    ("y1", Kind::Bytes, "bytea"),
    ("y2", Kind::Bytes, "bytea"),
    ("d1", Kind::Date, "date"),
    ("d2", Kind::Date, "date"),
    ("t1", Kind::Timestamp, "timestamp"),
    ("t2", Kind::Timestamp, "timestamp"),
    ("z1", Kind::Timestamptz, "timestamptz"),
    ("z2", Kind::Timestamptz, "timestamptz"),
    ("s4", Kind::Text, "text"),
];

const INTS: &[&str] = &[
    "0", "1", "-1", "2", "3", "-2", "5", "7", "-7", "10", "12", "31", "32", "33", "63", "64", "100",
    "255", "256", "-128", "32767", "-32768", "32768", "65535", "1000000", "2147483647",
    "-2147483648", "2147483646", "46341", "-46341", "59", "2024",
];

const LONGS: &[&str] = &[
    "0", "1", "-1", "2", "-3", "7", "10", "255", "2147483647", "2147483648", "-2147483648",
    "-2147483649", "4294967296", "9007199254740991", "9007199254740993", "-9007199254740993",
    "9223372036854775807", "-9223372036854775808", "9223372036854775806", "1000000007",
    "3037000500", "999999999999999999",
];

const NUMERICS: &[&str] = &[
    "0", "0.01", "-0.01", "1", "-1", "0.5", "-0.5", "1.5", "2.5", "-2.5", "2.49", "2.51", "0.05",
    "3.14", "10", "100", "99.99", "99.5", "-99.5", "12345.67", "0.99", "-0.99", "3", "7", "1234",
    "999999", "-999999",
];

const DOUBLES: &[&str] = &[
    "0", "-0", "1", "-1", "0.1", "0.2", "0.3", "0.5", "-0.5", "1.5", "2.5", "-2.5", "3.5", "2.4999",
    "1e15", "1e16", "123456789012345680", "1e-4", "1e-5", "0.00012345", "1e14", "999999999999999.9",
    "1e100", "1e300", "-1e300", "1e-300", "5e-324", "1.7976931348623157e308", "NaN", "Infinity",
    "-Infinity", "2147483647.5", "2147483647.4", "-2147483648.5", "9.223372036854775e18", "1e19",
    "3.141592653589793", "100", "255", "12345.678",
];

const REALS: &[&str] = &[
    "0", "-0", "1", "-1", "0.1", "0.5", "1.5", "2.5", "-2.5", "1e5", "1e6", "1234567", "1e-4", "1e-5",
    "1e30", "3.4028235e38", "1e-45", "1e-38", "NaN", "Infinity", "-Infinity", "16777217", "2147483648",
    "123.456", "7",
];

const TEXTS: &[&str] = &[
    "", " ", "a", "A", "b", "ab", "abc", "ABC", "aBc dEf", "hello world", "  both  ", "a,b,c",
    ",a,,b,", "a%b", "a_b", "%", "_", "\\", "a\\b", "a.b", "ß", "ẞ", "Straße", "É", "éa", "İ", "ı",
    "ŉ", "ﬁ", "Σίσυφος", "ΣΑΣ", "日本語", "🦀", "e\u{301}", "1", "-1", " 12 ", "1.5", "1e3", "abcabc",
    "aaa", "t", "true", "no", "0", "2024-02-29", "2024-02-29 10:20:30.5", "NaN", "x'y", "tab\there",
    "line\nbreak", "a1b2c3", "foo-bar_baz", "ǆ", "Ǆ", "ǅ", "2147483648", "infinity", "1234567890123",
];

const BYTES: &[&str] = &["\\x", "\\x00", "\\xff", "\\x616263", "\\x5c", "\\x0a27", "\\xdeadbeef"];

const DATES: &[&str] = &[
    "1970-01-01", "1969-12-31", "2000-02-29", "1900-02-28", "2024-02-29", "2023-03-01", "2024-12-30",
    "2021-01-03", "2020-12-31", "2000-01-01", "2001-01-01", "1999-12-31", "0001-01-01", "0099-12-31",
    "0101-01-01", "9999-12-31", "10000-01-01", "2024-03-31", "2024-10-27", "2024-01-31", "1582-10-10",
    "0044-03-15 BC", "0001-12-31 BC", "0100-01-01 BC", "0101-01-01 BC", "5874897-12-31", "4713-01-01 BC",
];

const STAMPS: &[&str] = &[
    "1970-01-01 00:00:00", "1969-12-31 23:59:59.999999", "2024-02-29 10:20:30.5",
    "2000-01-01 00:00:00", "1999-12-31 23:59:59", "2024-03-31 01:30:00", "2024-03-31 02:30:00",
    "2024-10-27 00:30:00", "2024-10-27 01:30:00", "2024-10-27 02:30:00", "2024-12-31 12:00:00",
    "2024-01-31 12:34:56.000001", "0001-01-01 00:00:00", "9999-12-31 23:59:59.999999",
    "12024-06-01 05:06:07.08", "0044-03-15 10:00:00 BC", "0001-12-31 00:00:01 BC",
    "2023-01-01 13:00:00.1", "2021-01-03 00:00:00.123456", "1900-01-01 00:00:00",
    "2038-01-19 03:14:08", "1995-05-11 11:11:11", "2012-12-12 12:12:12.12", "1583-03-22 03:03:03",
];

/// The edge values of a kind, as PostgreSQL reads them.
pub(crate) fn of(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Bool => &["true", "false"],
        Kind::Int => INTS,
        Kind::Long => LONGS,
        Kind::Numeric => NUMERICS,
        Kind::Real => REALS,
        Kind::Double => DOUBLES,
        Kind::Text => TEXTS,
        Kind::Bytes => BYTES,
        Kind::Date => DATES,
        Kind::Timestamp | Kind::Timestamptz => STAMPS,
        Kind::Interval => INTERVALS,
    }
}

/// Intervals are literals: no column holds them.
pub(crate) const INTERVALS: &[&str] = &[
    "0 seconds", "1 second", "1 day", "-1 day", "1 month", "-1 month", "13 months", "1 year",
    "1 year 2 months 3 days 04:05:06", "36 hours", "90 minutes", "1.5 seconds", "100 years",
    "30 days", "24 hours", "1.5 days", "1.5 months", "0.5 year", "1 decade", "1 h", "5 m",
    "1 mon", "-1.5 days", "1", "1 century", "1 min", "2 hours 30 minutes", "1 day 1 second", "1 week", "-36 hours", "00:00:00.000001", "2 days -3 hours", "11 months",
];
