//! Passwords: found when connections are resolved, kept out of everything that is printed.
//!
//! Flows in: the connections' URLs. Flows out: nothing. [`text`] is applied to every line of
//! output and log, so that a library that prints a URL cannot leak a password either.

use std::borrow::Cow;
use std::sync::OnceLock;

/// Secrets shorter than this, or that also occur outside of the password's place in their own URL
/// (`postgres:postgres@`), are only replaced where they stand as a password.
const ANYWHERE_LENGTH_MIN: usize = 6;

/// Usual passwords that are names as well, and so are only masked where they stand as a password.
const NAMES: [&str; 4] = ["cassandra", "password", "postgres", "tidemill"];

const MASK: &str = "***";

static SECRETS: OnceLock<Vec<Secret>> = OnceLock::new();

#[derive(Debug)]
struct Secret {
    text: String,
    anywhere: bool,
}

/// Remembers the passwords of these URLs, and one given by itself, once for the process.
pub(crate) fn remember<'a>(urls: impl IntoIterator<Item = &'a str>, alone: Option<String>) {
    let mut secrets: Vec<Secret> = urls.into_iter().flat_map(secrets_of).collect();
    secrets.extend(alone.filter(|text| !text.is_empty()).map(|text| {
        let anywhere = text.len() >= ANYWHERE_LENGTH_MIN && !NAMES.contains(&text.as_str());
        Secret { text, anywhere }
    }));
    // A second call would mean that connections were resolved twice; the first set stays.
    let _ = SECRETS.set(secrets);
}

/// The text with all remembered passwords masked.
pub(crate) fn text(text: &str) -> Cow<'_, str> {
    mask(text, SECRETS.get().map_or(&[], Vec::as_slice))
}

/// A URL with its password masked.
pub(crate) fn url(url: &str) -> String {
    mask(url, &secrets_of(url)).into_owned()
}

fn secrets_of(url: &str) -> Vec<Secret> {
    let mut found = Vec::new();
    let mut add = |raw: &str| {
        for text in [raw.to_owned(), percent_decoded(raw)] {
            if !text.is_empty() {
                let rest = url.replacen(raw, "", 1);
                let name = rest.contains(&text) || NAMES.contains(&text.as_str());
                let anywhere = text.len() >= ANYWHERE_LENGTH_MIN && !name;
                found.push(Secret { text, anywhere });
            }
        }
    };
    let after_scheme = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = after_scheme.split(['/', '?']).next().unwrap_or_default();
    if let Some((user, _)) = authority.rsplit_once('@')
        && let Some((_, password)) = user.split_once(':')
    {
        add(password);
    }
    for pair in url.split(['?', '&']).skip(1) {
        if let Some((name, value)) = pair.split_once('=')
            && name.to_ascii_lowercase().contains("password")
        {
            add(value);
        }
    }
    found
}

fn mask<'a>(text: &'a str, secrets: &[Secret]) -> Cow<'a, str> {
    let mut masked = Cow::Borrowed(text);
    for secret in secrets {
        if masked.contains(&secret.text) {
            masked = Cow::Owned(mask_one(&masked, secret));
        }
    }
    masked
}

fn mask_one(text: &str, secret: &Secret) -> String {
    let mut out = String::with_capacity(text.len());
    let mut from = 0;
    for (at, found) in text.match_indices(&secret.text) {
        let before = text[..at].chars().next_back();
        let after = text[at + found.len()..].chars().next();
        let stands_as_password = before.is_some_and(|c| ":=\"'".contains(c))
            && after.is_none_or(|c| c.is_whitespace() || "@\"'&\\,;)".contains(c));
        out.push_str(&text[from..at]);
        let masks = secret.anywhere || stands_as_password;
        out.push_str(if masks { MASK } else { found });
        from = at + found.len();
    }
    out.push_str(&text[from..]);
    out
}

fn percent_decoded(text: &str) -> String {
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
    fn passwords_are_masked_in_urls() {
        assert_eq!(
            url("postgres://u:s3cr%40t@h:1/db"),
            "postgres://u:***@h:1/db"
        );
        assert_eq!(
            url("postgres://u:u@h/db?password=abc"),
            "postgres://u:***@h/db?password=***"
        );
        assert_eq!(url("kafka://a:9092,b:9092"), "kafka://a:9092,b:9092");
        assert_eq!(url("http://u:p@h/x"), "http://u:***@h/x");
    }

    #[test]
    fn a_password_that_is_also_a_name_leaves_the_name_readable() {
        let secrets = secrets_of("postgres://postgres:postgres@h/postgres");
        let log = "connect to postgres://postgres:postgres@h, user postgres";
        assert_eq!(
            mask(log, &secrets),
            "connect to postgres://postgres:***@h, user postgres"
        );
    }

    #[test]
    fn a_strong_password_is_masked_anywhere_also_decoded() {
        let secrets = secrets_of("postgres://u:hunter%402x@h/db");
        assert_eq!(mask("said hunter@2x loudly", &secrets), "said *** loudly");
        assert_eq!(mask("said hunter%402x", &secrets), "said ***");
    }
}
