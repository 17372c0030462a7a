//! A service's address as the engines take it: a URL whose query holds the connection's settings.
//!
//! Flows in: what the user gave, put together by the caller with [`with`]. Flows out, by [`parse`]:
//! the place and its settings. So an engine is opened by one text, credentials included; whoever
//! prints one masks it first.

/// The URL without its query, and the query's settings, decoded, in their order.
pub fn parse(url: &str) -> (&str, Vec<(String, String)>) {
    let (place, query) = url.split_once('?').unwrap_or((url, ""));
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let settings = pairs.map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(name), decoded(value))
    });
    (place, settings.collect())
}

/// The URL with one more setting.
pub fn with(url: &str, name: &str, value: &str) -> String {
    let sign = if url.contains('?') { '&' } else { '?' };
    format!("{url}{sign}{}={}", encoded(name), encoded(value))
}

/// The text as it may stand anywhere in a URL.
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

/// The text with `%40` and the like taken back. (`+` stays: libpq means it as it stands.)
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
    fn what_is_put_in_comes_out() {
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
    fn what_is_no_code_stays() {
        assert_eq!(decoded("100%, %4, %zz, %40"), "100%, %4, %zz, @");
    }
}
