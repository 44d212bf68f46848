//! Values as DUMP hands them out and RESTORE takes them: in Redis's own encoding, with its version and checksum.

use cairn_rdb::dump;

use crate::encode::{Decoded, decode, encode, type_of};
use crate::entry::Value;
use crate::types::{Limits, Object};

/// Why a payload is no value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// It is too short, was written by a version from the future, or is not what its checksum says.
    #[error("version or checksum are wrong")]
    Footer,
    /// What stands before the footer is no value of its type.
    #[error("the value is damaged")]
    Value,
}

/// The payload that stands for a value.
#[must_use]
pub fn dump(value: Value<'_>) -> Vec<u8> {
    let mut payload = vec![type_of(value)];
    encode(value, &mut payload);
    dump::finish(&mut payload);
    payload
}

/// The value a payload stands for, in the form that `limits` give it.
///
/// # Errors
/// [`RestoreError`], whatever the bytes.
pub fn restore(payload: &[u8], limits: &Limits) -> Result<Object, RestoreError> {
    let (code, mut reader) = dump::open(payload).map_err(|_| RestoreError::Footer)?;
    let object = match decode(code, &mut reader, limits).map_err(|_| RestoreError::Value)? {
        Decoded::String(bytes) => Object::Str(bytes.into_owned()),
        Decoded::Object(object) => object,
    };
    if reader.is_at_end() { Ok(object) } else { Err(RestoreError::Value) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Zset;

    #[test]
    fn a_value_comes_back_and_damage_is_found() {
        let limits = Limits::default();
        let mut zset = Zset::new();
        zset.add(b"member", 1.5, &limits);
        for object in [Object::Zset(zset), Object::Str(b"text".to_vec())] {
            let payload = dump(Value::Object(&object));
            let back = restore(&payload, &limits).expect("an own payload");
            assert_eq!((back.type_name(), back.len()), (object.type_name(), object.len()));
            for at in 0..payload.len() {
                let mut damaged = payload.clone();
                damaged[at] ^= 0x10;
                assert_eq!(restore(&damaged, &limits).err(), Some(RestoreError::Footer));
                assert_eq!(restore(&payload[..at], &limits).err(), Some(RestoreError::Footer));
            }
        }
    }

    #[test]
    fn what_stands_behind_a_value_is_damage() {
        let mut payload = b"\x00\x05hello!".to_vec();
        dump::finish(&mut payload);
        assert_eq!(restore(&payload, &Limits::default()).err(), Some(RestoreError::Value));
    }
}
