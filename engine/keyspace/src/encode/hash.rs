//! Hashes. Those with fields that expire are written in the forms of Redis 7.4.

use cairn_rdb::primitives::{write_length, write_string_plain};
use cairn_rdb::value::{FieldWithExpiry, kind};
use cairn_rdb::{Item, Listpack, RdbError};

use super::{malformed, write_item};
use crate::types::{Hash, Limits};

/// The type code under which a hash is written.
pub(super) fn kind_of(hash: &Hash) -> u8 {
    match (hash.next_expiry_ms().is_some(), hash.is_flat()) {
        (false, true) => kind::HASH_LISTPACK,
        (false, false) => kind::HASH,
        (true, true) => kind::HASH_LISTPACK_EX,
        (true, false) => kind::HASH_METADATA,
    }
}

/// Appends a hash, without its type code.
pub(super) fn encode(hash: &Hash, out: &mut Vec<u8>) {
    if let Some(soonest) = hash.next_expiry_ms() {
        out.extend_from_slice(&soonest.to_le_bytes());
        return if hash.is_flat() {
            encode_flat_expiring(hash, out)
        } else {
            encode_expiring(hash, soonest, out)
        };
    }
    match hash.as_listpack() {
        Some(listpack) => write_string_plain(out, listpack.as_bytes()),
        None => {
            write_length(out, hash.len() as u64);
            for (field, value) in hash.iter() {
                write_item(out, field);
                write_item(out, value);
            }
        }
    }
}

fn expiry_of(hash: &Hash, field: Item<'_>) -> Option<i64> {
    field.with_bytes(|field| hash.expire_at_ms(field))
}

/// Fields, values and expiries in turn. Those that expire come first and in order: Redis looks for the next at the front.
fn encode_flat_expiring(hash: &Hash, out: &mut Vec<u8>) {
    let mut fields: Vec<_> =
        hash.iter().map(|(field, value)| (expiry_of(hash, field), field, value)).collect();
    fields.sort_by_key(|(at, ..)| at.unwrap_or(i64::MAX));
    let mut listpack = Listpack::new();
    for (at, field, value) in fields {
        listpack.push_back_item(field);
        listpack.push_back_item(value);
        listpack.push_back_integer(at.unwrap_or(0));
    }
    write_string_plain(out, listpack.as_bytes());
}

/// Before each field stands how much later than the soonest it expires, plus one; or zero.
fn encode_expiring(hash: &Hash, soonest: i64, out: &mut Vec<u8>) {
    write_length(out, hash.len() as u64);
    for (field, value) in hash.iter() {
        write_length(out, expiry_of(hash, field).map_or(0, |at| at.abs_diff(soonest) + 1));
        write_item(out, field);
        write_item(out, value);
    }
}

/// Makes a hash of fields some of which expire. `offset` is where they ended, for the error.
pub(super) fn from_fields(
    fields: &[FieldWithExpiry],
    offset: u64,
    limits: &Limits,
) -> Result<Hash, RdbError> {
    let mut hash = Hash::with_capacity(fields.len(), limits);
    for (field, value, expiry) in fields {
        if !hash.set(field, value, limits) {
            return Err(malformed(offset, "hash", "a field stands twice"));
        }
        if let Some(at) = expiry {
            let at =
                i64::try_from(*at).map_err(|_| malformed(offset, "hash", "an expiry that is no time"))?;
            // Both are long past, and in a listpack zero says that a field does not expire.
            hash.set_expire_at_ms(field, Some(at.max(1)));
        }
    }
    Ok(hash)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::{Decoded, decode, encode_object, value_digest};
    use crate::{Object, Value};
    use cairn_rdb::Reader;

    /// Found by fuzzing RESTORE's values: a field that had expired at the moment zero was written as one that never does, so
    /// that the next snapshot would have brought it back for good.
    #[test]
    fn a_field_that_expired_at_zero_stays_expired() {
        let payload = [0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1, b'a', 1, b'b', 1, 1, b'c', 1, b'd'];
        let limits = Limits::default();
        let mut from = payload.to_vec();
        let mut code = kind::HASH_METADATA;
        for _ in 0..2 {
            let decoded = decode(code, &mut Reader::new(&from), &limits).expect("it is whole");
            let Decoded::Object(Object::Hash(hash)) = decoded else { panic!("a hash") };
            assert_eq!((hash.expire_at_ms(b"a"), hash.expire_at_ms(b"c")), (None, Some(1)));
            from.clear();
            code = encode_object(&Object::Hash(hash), &mut from);
        }
    }

    #[test]
    fn fields_that_expire_come_back_with_their_moments() {
        for (count, code) in [(3, kind::HASH_LISTPACK_EX), (600, kind::HASH_METADATA)] {
            let (mut hash, limits) = (Hash::new(), Limits::default());
            let expiry = |number: i64| (number % 3 > 0).then_some(1_700_000_000_000 - number);
            for number in 0..count {
                hash.set(number.to_string().as_bytes(), b"value", &limits);
                hash.set_expire_at_ms(number.to_string().as_bytes(), expiry(number));
            }
            let (object, mut bytes) = (Object::Hash(hash), Vec::new());
            assert_eq!(encode_object(&object, &mut bytes), code);
            let decoded = decode(code, &mut Reader::new(&bytes), &limits).expect("just encoded");
            let Decoded::Object(Object::Hash(back)) = decoded else { panic!("a hash") };
            for number in 0..count {
                assert_eq!(back.expire_at_ms(number.to_string().as_bytes()), expiry(number));
            }
            let digest = |object| value_digest(Value::Object(object), false);
            assert_eq!(digest(&Object::Hash(back)), digest(&object));
        }
    }
}
