//! Service URLs: percent-encoded connection settings in the query of a URL.
//!
//! Each engine is opened by one text, credentials included: `kafka://HOST:PORT?sasl.username=U`.
//! The caller builds the text with [`with`], the engine takes it apart with [`parse`]. Such a text
//! holds passwords: mask it before it is printed.
//!
//! The encoding is that of RFC 3986, section 2.1, in both directions.

pub mod tls;

/// Splits a URL into the part before the `?` and the settings of the query, decoded and in their
/// order. A name without `=` has an empty value.
///
/// ```
/// use tidemill_log::address;
///
/// let url = address::with("kafka://a:9092", "sasl.password", "p&q");
/// let (place, settings) = address::parse(&url);
/// assert_eq!(place, "kafka://a:9092");
/// assert_eq!(settings, [("sasl.password".to_owned(), "p&q".to_owned())]);
/// ```
pub fn parse(url: &str) -> (&str, Vec<(String, String)>) {
    let (place, query) = url.split_once('?').unwrap_or((url, ""));
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let settings = pairs.map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(name), decoded(value))
    });
    (place, settings.collect())
}

/// The URL with one more setting at its end. Name and value are percent-encoded.
pub fn with(url: &str, name: &str, value: &str) -> String {
    let sign = if url.contains('?') { '&' } else { '?' };
    format!("{url}{sign}{}={}", encoded(name), encoded(value))
}

/// Percent-encodes a text, so that it may stand in any part of a URL: all bytes but the unreserved
/// characters of RFC 3986 (`A-Z a-z 0-9 - . _ ~`) become `%XX`.
pub fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// Decodes percent-encoding. A `%` without two hexadecimal digits behind it stays as it is. A `+`
/// also stays: libpq does not read it as a blank. Bytes that are not UTF-8 become U+FFFD.
pub fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let hex = tail.get(..2).filter(|_| first == b'%');
        let code = hex.and_then(|hex| std::str::from_utf8(hex).ok());
        match code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_round_trip() {
        let value = "a b&c=d?e%f+g@ü/\n";
        let url = with("kafka://a:1,b:2", "ssl.key.pem", value);
        let url = with(&url, "x", "");
        let (place, settings) = parse(&url);
        assert_eq!(place, "kafka://a:1,b:2");
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(settings, [pair("ssl.key.pem", value), pair("x", "")]);
        assert_eq!(parse("h/d"), ("h/d", vec![]));
    }

    #[test]
    fn invalid_percent_codes_stay() {
        assert_eq!(decoded("100%, %4, %zz, %40"), "100%, %4, %zz, @");
    }
}
