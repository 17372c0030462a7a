//! Token of the control plane: read once from the environment or a file, and compared with what
//! requests show.
//!
//! Invariant: the time of a comparison reveals nothing about the token.

use std::fmt::Write;

use anyhow::Context;
use axum::http::{HeaderMap, header};
use ring::hmac;
use ring::rand::SystemRandom;

use crate::exit::Usage;

/// Variables of the environment: the token, and a file with the token.
const TOKEN: &str = "TIDEMILL_TOKEN";
const TOKEN_FILE: &str = "TIDEMILL_TOKEN_FILE";

/// The name of the cookie in which a browser keeps the token.
pub const COOKIE: &str = "tidemill_session";

/// The token that a request must show to change state. Only a keyed hash of the token is kept.
#[derive(Clone)]
pub struct Token {
    key: hmac::Key,
    tag: hmac::Tag,
}

impl Token {
    /// Hashes a token with a random key.
    ///
    /// # Errors
    ///
    /// The system has no random numbers.
    pub fn new(token: &str) -> anyhow::Result<Self> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new());
        let key = key.map_err(|_| anyhow::anyhow!("the system has no random numbers"))?;
        let tag = hmac::sign(&key, token.as_bytes());
        Ok(Self { key, tag })
    }

    /// Whether this text is the token, in constant time.
    pub fn is(&self, shown: &str) -> bool {
        hmac::verify(&self.key, shown.as_bytes(), self.tag.as_ref()).is_ok()
    }

    /// Whether a request shows the token, in its header or in the cookie of a browser.
    pub fn is_shown(&self, headers: &HeaderMap) -> bool {
        shown(headers).is_some_and(|shown| self.is(shown))
            || cookie(headers).is_some_and(|shown| self.is(&shown))
    }
}

/// The token in the cookie, which holds its bytes as hexadecimal digits.
pub fn cookie(headers: &HeaderMap) -> Option<String> {
    let all = headers.get_all(header::COOKIE).iter();
    let all = all.filter_map(|it| it.to_str().ok());
    let mut pairs = all.flat_map(|it| it.split(';'));
    let digits = pairs.find_map(|it| it.trim().strip_prefix(COOKIE)?.strip_prefix('='))?;
    let bytes: Option<Vec<u8>> = digits
        .as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect();
    String::from_utf8(bytes?).ok()
}

/// The token as the cookie holds it: its bytes as hexadecimal digits.
pub fn digits(token: &str) -> String {
    token.bytes().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _written = write!(text, "{byte:02x}");
        text
    })
}

/// The token in the header `Authorization: Bearer TOKEN`; `None` if there is none.
pub fn shown(headers: &HeaderMap) -> Option<&str> {
    let shown = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    shown.strip_prefix("Bearer ")
}

/// The token from `TIDEMILL_TOKEN`, else from the file that `TIDEMILL_TOKEN_FILE` names.
///
/// # Errors
///
/// The file cannot be read, or the token contains spaces or other characters that a header cannot
/// carry ([`Usage`], exit code 2).
pub fn given() -> anyhow::Result<Option<String>> {
    let variable = |name| std::env::var(name).ok().filter(|text| !text.is_empty());
    let token = match (variable(TOKEN), variable(TOKEN_FILE)) {
        (Some(token), _) => token,
        (None, Some(file)) => std::fs::read_to_string(&file)
            .with_context(|| format!("{TOKEN_FILE}: cannot read {file}"))?,
        (None, None) => return Ok(None),
    };
    let token = token.trim().to_owned();
    if token.is_empty() || !token.chars().all(|c| c.is_ascii_graphic()) {
        let right = "expected letters, digits and signs, without spaces";
        return Err(Usage(format!("{TOKEN}, {TOKEN_FILE}: {right}")).into());
    }
    Ok(Some(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cookie_holds_the_token() {
        let headers = |text: &str| {
            let value = axum::http::HeaderValue::from_str(text).unwrap();
            HeaderMap::from_iter([(header::COOKIE, value)])
        };
        let given = headers("a=b; tidemill_session=733b20; c=d");
        assert_eq!(cookie(&given).as_deref(), Some("s; "));
        assert_eq!(digits("s; "), "733b20");
        let token = Token::new("s; ").unwrap();
        assert!(token.is_shown(&given));
        for wrong in [
            "tidemill_session=7",
            "tidemill_session=zz",
            "tidemill_sessions=733b20",
        ] {
            assert!(!token.is_shown(&headers(wrong)), "{wrong}");
        }
    }

    #[test]
    fn only_the_whole_token_is_it() {
        let token = Token::new("s3cret").unwrap();
        assert!(token.is("s3cret"));
        for wrong in ["", "s3cre", "s3crets", "S3cret"] {
            assert!(!token.is(wrong), "{wrong}");
        }
    }
}
