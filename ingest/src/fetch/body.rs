//! Response bodies: content encoding, charset, and the list of records in the JSON.
//!
//! Invariants:
//! 1. A body that cannot be read is an error that says why, and what would be right. No byte is
//!    replaced.
//! 2. At most [`BODY_BYTES_MAX`] bytes are decompressed.

use std::io::Read;

use encoding_rs::{Encoding, UTF_8};
use serde_json::value::RawValue;

use super::BODY_BYTES_MAX;
use crate::json::{Path, Text, described, fields_of};

/// The headers that describe a body.
#[derive(Debug, Default)]
pub(super) struct About {
    /// `Content-Type`.
    pub(super) kind: Option<String>,
    /// `Content-Encoding`.
    pub(super) packed: Option<String>,
}

impl About {
    /// Whether the body is JSON lines: one record a line, without a list.
    fn is_lines(&self) -> bool {
        let kind = self.kind.as_deref().unwrap_or_default();
        let media = kind.split(';').next().unwrap_or_default().trim();
        let lines = ["ndjson", "jsonl", "jsonlines", "json-lines"];
        let media = media.to_ascii_lowercase();
        lines.iter().any(|name| media.ends_with(name))
    }

    /// The parameter `charset` of the content type.
    fn charset(&self) -> Option<&str> {
        let mut parameters = self.kind.as_deref()?.split(';').skip(1);
        parameters.find_map(|parameter| {
            let (name, value) = parameter.split_once('=')?;
            let is_it = name.trim().eq_ignore_ascii_case("charset");
            is_it.then(|| value.trim().trim_matches(['"', '\'']))
        })
    }
}

/// The records in a body: the list at the path `list`, or the lines of JSON lines.
///
/// # Errors
/// A fragment that says what is wrong with the answer.
pub(super) fn records(
    bytes: &[u8],
    about: &About,
    list: &Path,
) -> Result<Vec<Box<RawValue>>, String> {
    let unpacked = unpacked(bytes, about.packed.as_deref())?;
    let text = text(unpacked.as_deref().unwrap_or(bytes), about.charset())?;
    if about.is_lines() {
        let lines = serde_json::Deserializer::from_str(&text).into_iter::<Box<RawValue>>();
        let lines: Result<_, _> = lines.collect();
        return lines.map_err(|error| format!("the answer is not JSON in each line ({error})"));
    }
    let whole: &RawValue = serde_json::from_str(&text)
        .map_err(|error| format!("the answer is not whole JSON ({error})"))?;
    let found = Text::new(whole).at(list);
    let found = found.map_err(|why| {
        let instead = instead(whole);
        format!("the answer has no `{list}`: {why}; {instead}")
    })?;
    let Some(found) = found else {
        return Err(format!("the answer has no `{list}`; {}", instead(whole)));
    };
    serde_json::from_str(found.get()).map_err(|_| match list.is_top() {
        true => format!("the answer is not a list; {}", instead(found)),
        false => format!("`{list}` is not a list; it is {}", described(found)),
    })
}

/// What the answer holds instead of the list, with the remedy.
fn instead(whole: &RawValue) -> String {
    match (fields_of(whole), whole.get().starts_with('[')) {
        (Some(fields), _) => format!(
            "it has {fields}: `records` in [fetch] names the list, as in `records = \"data.items\"`"
        ),
        (None, true) => "it is itself a list: leave `records` out of [fetch]".to_owned(),
        (None, false) => format!("it is {}", described(whole)),
    }
}

/// The decompressed body; `None` when it was not compressed. The first bytes decide about gzip, not
/// the header: some servers compress unasked, and some proxies decompress and leave the header.
fn unpacked(bytes: &[u8], packed: Option<&str>) -> Result<Option<Vec<u8>>, String> {
    let is_gzip = |bytes: &[u8]| bytes.starts_with(&[0x1f, 0x8b]);
    let names = packed.unwrap_or_default().split(',').map(str::trim).rev();
    let mut whole: Option<Vec<u8>> = None;
    for name in names {
        let bytes = whole.as_deref().unwrap_or(bytes);
        let deflated = match name.to_ascii_lowercase().as_str() {
            "" | "identity" | "gzip" | "x-gzip" => continue,
            "zstd" => zstd::stream::read::Decoder::with_buffer(bytes)
                .map_err(|error| format!("the packed answer is damaged: {error}"))
                .and_then(inflated),
            "deflate" => inflated(flate2::bufread::ZlibDecoder::new(bytes))
                .or_else(|_| inflated(flate2::bufread::DeflateDecoder::new(bytes))),
            other => Err(format!(
                "its Content-Encoding `{other}`, which was not asked for, is not one that can be \
                 read: gzip, deflate, zstd or none"
            )),
        };
        whole = Some(deflated?);
    }
    if is_gzip(whole.as_deref().unwrap_or(bytes)) {
        let bytes = whole.as_deref().unwrap_or(bytes);
        whole = Some(inflated(flate2::bufread::MultiGzDecoder::new(bytes))?);
    }
    Ok(whole)
}

/// Reads a decompressor to its end, up to the limit.
fn inflated(from: impl Read) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let mut limited = from.take(BODY_BYTES_MAX as u64 + 1);
    let read = limited.read_to_end(&mut bytes);
    read.map_err(|error| format!("the packed answer is damaged: {error}"))?;
    match bytes.len() > BODY_BYTES_MAX {
        true => Err(format!(
            "the answer is larger than {BODY_BYTES_MAX} bytes when it is unpacked"
        )),
        false => Ok(bytes),
    }
}

/// The text of a body. The charset is that of the byte order mark; else UTF-8, which JSON is in
/// (RFC 8259), whatever the header says; else that of the header.
fn text(bytes: &[u8], charset: Option<&str>) -> Result<String, String> {
    let named = charset.and_then(|charset| Encoding::for_label(charset.as_bytes()));
    // In such a charset valid UTF-8 can mean something else.
    let is_sure = named.is_some_and(|encoding| !encoding.is_ascii_compatible());
    let (encoding, mark) = match Encoding::for_bom(bytes) {
        Some(marked) => marked,
        None if is_sure || std::str::from_utf8(bytes).is_err() => (named.unwrap_or(UTF_8), 0),
        None => (UTF_8, 0),
    };
    let bytes = bytes.get(mark..).unwrap_or_default();
    match encoding.decode_without_bom_handling_and_without_replacement(bytes) {
        Some(text) => Ok(text.into_owned()),
        None => Err(match charset {
            Some(charset) if named.is_none() => {
                format!("the answer is not valid UTF-8, and its charset `{charset}` is not known")
            }
            _ => format!("the answer is not valid {}", encoding.name()),
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const J: &str = r#"{"results":[{"v":"é"},2]}"#;

    fn about(kind: &str, packed: &str) -> About {
        let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        About {
            kind: some(kind),
            packed: some(packed),
        }
    }

    fn read(bytes: &[u8], about: &About, list: &str) -> Result<Vec<String>, String> {
        let found = records(bytes, about, &Path::parse(list).unwrap())?;
        Ok(found.iter().map(|raw| raw.get().to_owned()).collect())
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packer.write_all(bytes).unwrap();
        packer.finish().unwrap()
    }

    #[test]
    fn content_encoding_and_charset_are_decoded() {
        let zlib = {
            let mut packer =
                flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
            packer.write_all(J.as_bytes()).unwrap();
            packer.finish().unwrap()
        };
        let raw = zlib[2..zlib.len() - 4].to_vec();
        let utf16: Vec<u8> = [0xfeffu16]
            .into_iter()
            .chain(J.encode_utf16())
            .flat_map(u16::to_le_bytes)
            .collect();
        let latin1: Vec<u8> = J.chars().map(|sign| sign as u32 as u8).collect();
        let zstd = zstd::stream::encode_all(J.as_bytes(), 1).unwrap();
        let cases: [(Vec<u8>, About); 15] = [
            (zstd, about("application/json", "zstd")),
            (J.into(), about("", "")),
            (J.into(), about("application/json", "identity")),
            (J.into(), about("text/plain; charset=\"UTF-8\"", "")),
            ([b"\xef\xbb\xbf", J.as_bytes()].concat(), about("", "")),
            (gzip(J.as_bytes()), about("application/json", "gzip")),
            (gzip(J.as_bytes()), about("application/gzip", "")),
            (J.into(), about("", "gzip")),
            (zlib, about("", "deflate")),
            (raw, about("", "Deflate")),
            (latin1, about("application/json;Charset=ISO-8859-1", "")),
            (utf16.clone(), about("application/json", "")),
            (utf16[2..].to_vec(), about("a/b; charset=utf-16le", "")),
            // A header that the server adds to every answer.
            (J.into(), about("application/json; charset=iso-8859-1", "")),
            (J.into(), about("application/json; charset=null", "")),
        ];
        for (bytes, about) in &cases {
            let found = read(bytes, about, "results");
            assert_eq!(found.unwrap(), [r#"{"v":"é"}"#, "2"], "{about:?}");
        }
    }

    #[test]
    fn records_are_found_at_a_path_or_in_lines() {
        let plain = about("application/json", "");
        for top in ["", "."] {
            assert_eq!(read(b" [1, 2.50 ] ", &plain, top).unwrap(), ["1", "2.50"]);
        }
        let nested = br#"{"data":{"items":[1]},"pages":[{"rows":[2]}]}"#;
        assert_eq!(read(nested, &plain, "data.items").unwrap(), ["1"]);
        assert_eq!(read(nested, &plain, "pages.0.rows").unwrap(), ["2"]);
        let lines = about("application/x-ndjson", "");
        assert_eq!(read(b"{}\n\n[1]\r\n", &lines, "").unwrap(), ["{}", "[1]"]);
        assert!(read(b"{}\n{\"a\"", &lines, "").is_err());
    }

    #[test]
    fn unreadable_bodies_are_explained() {
        let plain = about("application/json", "");
        let says = |bytes: &[u8], about: &About, list: &str, part: &str| {
            let why = read(bytes, about, list).unwrap_err();
            assert!(why.contains(part), "{why}");
        };
        says(b"", &plain, "results", "not whole JSON");
        says(b"[1]", &plain, "results", "leave `records` out of [fetch]");
        says(b"{\"results\":{}}", &plain, "results", "is not a list");
        says(b"{\"results\":[1", &plain, "results", "not whole JSON");
        says(
            b"{\"a\":1,\"b\":2}",
            &plain,
            "results",
            "it has `a`, `b`: `records`",
        );
        says(b"{\"a\":[]}", &plain, "", "it has `a`: `records`");
        says(b"\"\xff\"", &plain, "", "not valid UTF-8");
        says(
            b"[\"\xff\"]",
            &about("a/b; charset=klingon", ""),
            "",
            "`klingon` is not known",
        );
        says(b"[]", &about("", "br"), "", "`br`, which was not asked for");
        says(b"[]", &about("", "zstd"), "", "damaged");
        let cut = gzip(J.as_bytes());
        says(&cut[..cut.len() - 9], &plain, "results", "damaged");
        let bomb = gzip(&vec![b' '; BODY_BYTES_MAX + 1]);
        says(&bomb, &plain, "", "when it is unpacked");
    }
}
