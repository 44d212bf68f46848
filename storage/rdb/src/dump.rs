//! What DUMP answers and RESTORE takes: type code, value, RDB version (u16 LE), CRC-64 of all before (u64 LE).

use crate::crc64;
use crate::error::RdbError;
use crate::primitives::Reader;
use crate::{VERSION_READ_MAX, VERSION_WRITTEN};

/// Version and checksum.
const FOOTER: usize = 10;

/// Appends version and checksum to `payload`, which holds a type code and a value and nothing else.
pub fn finish(payload: &mut Vec<u8>) {
    let [low, high, ..] = VERSION_WRITTEN.to_le_bytes();
    payload.extend_from_slice(&[low, high]);
    let checksum = crc64::update(0, payload);
    payload.extend_from_slice(&checksum.to_le_bytes());
}

/// Checks version and checksum, and returns the type code with a reader of the value. The caller checks that the value
/// ends where the reader does.
pub fn open(payload: &[u8]) -> Result<(u8, Reader<'_>), RdbError> {
    let cut = || RdbError::Truncated { offset: payload.len() as u64, needed: 1 };
    let body_len = payload.len().checked_sub(FOOTER).ok_or_else(cut)?;
    let (body, footer) = payload.split_at_checked(body_len).ok_or_else(cut)?;
    let (version, checksum) = footer.split_first_chunk::<2>().ok_or_else(cut)?;
    let version = u32::from(u16::from_le_bytes(*version));
    if version > VERSION_READ_MAX {
        return Err(RdbError::FutureVersion { found: version, supported: VERSION_READ_MAX });
    }
    let expected = u64::from_le_bytes(*checksum.first_chunk().ok_or_else(cut)?);
    let found = crc64::update(crc64::update(0, body), &version.to_le_bytes()[..2]);
    if expected != found {
        return Err(RdbError::Checksum { offset: body_len as u64 + 2, expected, found });
    }
    let (code, _) = body.split_first().ok_or_else(cut)?;
    Ok((*code, Reader::new(body.get(1..).unwrap_or_default())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::primitives::Source;

    #[test]
    fn opens_what_redis_7_0_dumped() {
        // SET k hello; DUMP k
        let payload = b"\x00\x05hello\x0a\x00\x63\x72\xdf\x76\x65\x34\x20\x0a";
        let mut own = b"\x00\x05hello".to_vec();
        finish(&mut own);
        assert_eq!(own, payload);
        let (code, mut reader) = open(payload).expect("Redis wrote it");
        assert_eq!((code, reader.string().expect("a string")), (0, b"hello".to_vec()));
        for at in 0..payload.len() {
            let mut damaged = payload.to_vec();
            damaged[at] ^= 1;
            assert!(open(&damaged).is_err());
            assert!(open(&payload[..at]).is_err());
        }
    }
}
