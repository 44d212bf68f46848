//! The JSON documents of a repository, each with the checksum of its own text.
//!
//! A document is `{"crc32":"xxxxxxxx","content":{…}}`: the CRC-32 covers the exact bytes of `content`, so that a reader in
//! any language can check it without knowing how we write numbers or order fields.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::JobError;

/// No document of a repository is larger.
pub(crate) const DOCUMENT_BYTES_MAX: u64 = 64 << 20;

#[derive(Serialize, Deserialize)]
struct Envelope<'a> {
    crc32: String,
    #[serde(borrow)]
    content: &'a RawValue,
}

/// The part every content has, read first so that an unknown version is named as such.
#[derive(Deserialize)]
struct Versioned {
    format: String,
    version: u32,
}

/// The text of a document.
pub(crate) fn encode<T: Serialize>(content: &T) -> Result<Vec<u8>, JobError> {
    let text = serde_json::to_string(content).map_err(JobError::Json)?;
    let crc32 = format!("{:08x}", crc32fast::hash(text.as_bytes()));
    let content: &RawValue = serde_json::from_str(&text).map_err(JobError::Json)?;
    let mut bytes = serde_json::to_vec(&Envelope { crc32, content }).map_err(JobError::Json)?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Reads a document of the given format and version. `url` is its address, for the error.
pub(crate) fn decode<T: DeserializeOwned>(
    bytes: &[u8],
    url: &str,
    format: &'static str,
    known: u32,
) -> Result<T, JobError> {
    let damaged = |what: &'static str, expected: String, found: String| JobError::Damaged {
        place: url.to_owned(),
        offset: None,
        what,
        expected,
        found,
    };
    let malformed = |error: serde_json::Error| damaged("document", format!("a {format}"), error.to_string());
    let envelope: Envelope<'_> = serde_json::from_slice(bytes).map_err(malformed)?;
    let text = envelope.content.get();
    let crc32 = format!("{:08x}", crc32fast::hash(text.as_bytes()));
    if crc32 != envelope.crc32 {
        return Err(damaged("checksum of the document", envelope.crc32, crc32));
    }
    let versioned: Versioned = serde_json::from_str(text).map_err(malformed)?;
    if versioned.format != format {
        return Err(damaged("format of the document", format.to_owned(), versioned.format));
    }
    if versioned.version != known {
        return Err(JobError::UnknownVersion { place: url.to_owned(), found: versioned.version, known });
    }
    serde_json::from_str(text).map_err(malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Serialize, Deserialize, PartialEq)]
    struct Content {
        format: String,
        version: u32,
        text: String,
    }

    #[test]
    fn every_changed_byte_is_seen() {
        let content = Content { format: "test".into(), version: 1, text: "a \"quoted\" text".into() };
        let bytes = encode(&content).unwrap();
        assert_eq!(decode::<Content>(&bytes, "u", "test", 1).unwrap(), content);
        for at in 0..bytes.len() - 1 {
            for mask in [1, 0x20, 0x80] {
                let mut bad = bytes.clone();
                bad[at] ^= mask;
                let read = decode::<Content>(&bad, "u", "test", 1);
                assert!(read.is_err(), "byte {at} of {:?}", String::from_utf8_lossy(&bad));
            }
            assert!(decode::<Content>(&bytes[..at], "u", "test", 1).is_err(), "cut at {at}");
        }
        let newer = decode::<Content>(&bytes, "u", "test", 2);
        assert!(matches!(newer, Err(JobError::UnknownVersion { found: 1, known: 2, .. })));
    }
}
