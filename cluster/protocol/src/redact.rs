//! Redaction: passwords are collected when connections are resolved, and masked in everything that
//! is printed.
//!
//! In: the URLs of connections, and single secrets. [`text`] is applied to every line of output and
//! log, so a library that prints a URL cannot leak a password either.

use std::borrow::Cow;
use std::sync::{PoisonError, RwLock};

use tidemill_log::address;

use crate::urls;

/// Secrets that are shorter than this, or that also occur elsewhere in their own URL
/// (`postgres:postgres@`), are masked only where they stand as a password.
const ANYWHERE_LENGTH_MIN: usize = 6;

/// Common passwords that are also names: they are masked only where they stand as a password.
const NAMES: [&str; 4] = ["cassandra", "password", "postgres", "tidemill"];

/// Parts of the names of settings whose values are secrets.
const SECRET_SETTINGS: [&str; 7] = [
    "password", "secret", "jaas", "key.pem", "token", "api_key", "apikey",
];

/// What is printed in place of a secret.
const MASK: &str = "***";

/// All secrets of this process, the longest first.
static SECRETS: RwLock<Vec<Secret>> = RwLock::new(Vec::new());

#[derive(Debug, Clone, PartialEq, Eq)]
/// A secret. `anywhere`: whether it is masked wherever it occurs.
struct Secret {
    text: String,
    anywhere: bool,
}

/// Remembers the passwords in a URL. Lines that are printed later do not show them.
pub fn remember(url: &str) {
    keep(secrets_of(url));
}

/// Remembers a single secret: a password or a token.
///
/// ```
/// use tidemill_protocol::redact;
///
/// redact::remember_alone("hunter2hunter2");
/// assert_eq!(redact::text("refused: hunter2hunter2"), "refused: ***");
/// ```
pub fn remember_alone(secret: &str) {
    let anywhere = secret.len() >= ANYWHERE_LENGTH_MIN && !NAMES.contains(&secret);
    keep(forms(secret, anywhere));
}

/// Adds secrets to [`SECRETS`].
fn keep(found: Vec<Secret>) {
    let mut secrets = SECRETS.write().unwrap_or_else(PoisonError::into_inner);
    for secret in found {
        if !secrets.contains(&secret) {
            secrets.push(secret);
        }
    }
    // A secret that contains another one is masked first, as a whole.
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.text.len()));
}

/// Whether a connection contains a password. Such a connection may be in a file or in the
/// environment, but not in a flag or in a job.
///
/// ```
/// use tidemill_protocol::redact::holds_password;
///
/// assert!(holds_password("postgres://me:s3cret@db/shop"));
/// assert!(!holds_password("postgres://me@db/shop"));
/// ```
pub fn holds_password(connection: &str) -> bool {
    !secrets_of(connection).is_empty()
}

/// Whether the value of a setting of this name is a secret.
pub fn is_secret_setting(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    // `password_file` names a file, and `sasl.oauthbearer.token.endpoint.url` an address.
    let place = name.ends_with("_file") || name.ends_with("url");
    !place && SECRET_SETTINGS.iter().any(|part| name.contains(part))
}

/// The text with all remembered secrets masked.
pub fn text(text: &str) -> Cow<'_, str> {
    mask(
        text,
        &SECRETS.read().unwrap_or_else(PoisonError::into_inner),
    )
}

/// A URL with its own passwords masked.
///
/// ```
/// use tidemill_protocol::redact;
///
/// assert_eq!(redact::url("postgres://me:s3cret@db/shop"), "postgres://me:***@db/shop");
/// ```
pub fn url(url: &str) -> String {
    mask(url, &secrets_of(url)).into_owned()
}

/// A URL for messages: user and address, without settings and passwords.
pub fn place(given: &str) -> String {
    url(address::parse(given).0)
}

/// The secrets in a URL or in libpq's keywords: the password of the user, and the values of secret
/// settings.
fn secrets_of(url: &str) -> Vec<Secret> {
    let mut found = Vec::new();
    let mut add = |raw: &str| {
        for text in [raw.to_owned(), address::decoded(raw)] {
            let rest = url.replacen(raw, "", 1);
            let name = rest.contains(&text) || NAMES.contains(&text.as_str());
            let anywhere = text.len() >= ANYWHERE_LENGTH_MIN && !name;
            found.extend(forms(&text, anywhere));
        }
    };
    if !url.contains("://") && url.contains('=') {
        for (name, value) in urls::words(url).unwrap_or_default() {
            if is_secret_setting(&name) {
                add(&value);
            }
        }
    }
    let after_scheme = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = after_scheme.split(['/', '?']).next().unwrap_or_default();
    if let Some((user, _)) = authority.rsplit_once('@')
        && let Some((_, password)) = user.split_once(':')
    {
        add(password);
    }
    for pair in url.split(['?', '&']).skip(1) {
        if let Some((name, value)) = pair.split_once('=')
            && is_secret_setting(&address::decoded(name))
        {
            add(value);
        }
    }
    found
}

/// A secret as it is, and as it appears within quotes in a log. Each line of a secret of several
/// lines, such as a private key, is a secret of its own.
fn forms(secret: &str, anywhere: bool) -> Vec<Secret> {
    let mut texts: Vec<String> = secret.lines().map(str::to_owned).collect();
    let quoted = format!("{secret:?}");
    texts.push(secret.to_owned());
    texts.push(quoted.trim_matches('"').to_owned());
    texts.retain(|text| !text.is_empty());
    texts.sort();
    texts.dedup();
    let texts = texts.into_iter();
    texts.map(|text| Secret { text, anywhere }).collect()
}

/// Masks the given secrets.
fn mask<'a>(text: &'a str, secrets: &[Secret]) -> Cow<'a, str> {
    let mut masked = Cow::Borrowed(text);
    for secret in secrets {
        if masked.contains(&secret.text) {
            masked = Cow::Owned(mask_one(&masked, secret));
        }
    }
    masked
}

/// Masks one secret: everywhere, or only between the characters that surround a password.
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

    #[test]
    fn what_holds_a_password() {
        for holds in [
            "postgres://u:p@h/d",
            "u:p@h/d",
            "postgres://h/d?user=u&password=p",
            "host=h user=u password = 'a b'",
            "kafka://h:1?sasl.username=u&sasl.password=p",
            "https://k:s@h:8081",
            "h:1?ssl.key.pem=x",
        ] {
            assert!(holds_password(holds), "{holds}");
        }
        for holds_none in [
            "postgres://u@h/d?sslmode=verify-full&sslrootcert=ca.pem",
            "host=h user=u dbname=d",
            "a:9092,b:9092",
            "kafka://h:1?sasl.username=u&ssl.key.location=key.pem",
            "http://h:8081/apis",
            "cassandra://ada@h:9042,i/keyspace",
            "s3://bucket/prefix",
            "sqlite://tidemill.sqlite",
        ] {
            assert!(!holds_password(holds_none), "{holds_none}");
        }
    }

    #[test]
    fn a_password_of_keywords_and_one_in_quotes_are_masked() {
        assert_eq!(
            url("host=h password='hunter 22' user=u"),
            "host=h password='***' user=u"
        );
        let secrets = secrets_of(r"postgres://h/d?password=hun%22ter%5C22");
        let json = serde_json::json!({ "url": r#"hun"ter\22"# }).to_string();
        assert!(!mask(&json, &secrets).contains("ter"), "{json}");
    }

    #[test]
    fn a_file_of_a_password_is_no_secret() {
        assert!(!is_secret_setting("password_file"));
        assert!(is_secret_setting("sasl.oauthbearer.client.secret"));
    }
}
