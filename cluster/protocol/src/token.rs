//! Token of the control plane: read once from the environment or a file, and compared with what
//! requests show.
//!
//! Invariant: the time of a comparison reveals nothing about the token.

use anyhow::Context;
use axum::http::{HeaderMap, header};
use ring::hmac;
use ring::rand::SystemRandom;

use crate::exit::Usage;

/// Variables of the environment: the token, and a file with the token.
const TOKEN: &str = "TIDEMILL_TOKEN";
const TOKEN_FILE: &str = "TIDEMILL_TOKEN_FILE";

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

    /// Whether a request shows the token.
    pub fn is_shown(&self, headers: &HeaderMap) -> bool {
        shown(headers).is_some_and(|shown| self.is(shown))
    }
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
    fn only_the_whole_token_is_it() {
        let token = Token::new("s3cret").unwrap();
        assert!(token.is("s3cret"));
        for wrong in ["", "s3cre", "s3crets", "S3cret"] {
            assert!(!token.is(wrong), "{wrong}");
        }
    }
}
