//! Values to RDB bytes and back, and Redis's digests of values.
//!
//! Flat collections are copied as they are. The types written are those of Redis 7.0, so a small set of strings is
//! written member by member: its flat form came with 7.2.

mod hash;
mod stream;

use std::borrow::Cow;

use cairn_rdb::primitives::{
    write_double, write_length, write_string, write_string_of_integer, write_string_plain,
};
use cairn_rdb::value::{ListNode, Value as Decodable, kind};
use cairn_rdb::{Item, RdbError, Reader, Source};
use sha1::{Digest, Sha1};

use crate::entry::Value;
use crate::types::{Hash, Limits, List, NodeRef, Object, Set, SetForm, Stream, Zset};

/// A decoded value.
#[derive(Debug)]
pub enum Decoded<'a> {
    /// A string, borrowed where it stands as it is in what was read.
    String(Cow<'a, [u8]>),
    /// A collection; never [`Object::Str`], and never empty where an empty one is none.
    Object(Object),
}

/// The RDB type code under which a value is written.
pub fn type_of(value: Value<'_>) -> u8 {
    match value {
        Value::Str(_) | Value::Object(Object::Str(_)) => kind::STRING,
        Value::Object(Object::List(_)) => kind::LIST_QUICKLIST_2,
        Value::Object(Object::Set(set)) => match set.form() {
            SetForm::Integers(_) => kind::SET_INTSET,
            SetForm::Other => kind::SET,
        },
        Value::Object(Object::Hash(hash)) => hash::kind_of(hash),
        Value::Object(Object::Zset(zset)) if zset.is_flat() => kind::ZSET_LISTPACK,
        Value::Object(Object::Zset(_)) => kind::ZSET_2,
        Value::Object(Object::Stream(_)) => kind::STREAM_LISTPACKS_2,
    }
}

/// Appends a value, without its type code, and returns the code.
pub fn encode(value: Value<'_>, out: &mut Vec<u8>) -> u8 {
    match value {
        Value::Str(bytes) => {
            write_string(out, bytes);
            kind::STRING
        }
        Value::Object(object) => encode_object(object, out),
    }
}

/// Appends an object, without its type code, and returns the code.
pub fn encode_object(object: &Object, out: &mut Vec<u8>) -> u8 {
    match object {
        Object::Str(bytes) => write_string(out, bytes),
        Object::List(list) => encode_list(list, out),
        Object::Set(set) => match set.form() {
            SetForm::Integers(integers) => write_string_plain(out, integers.as_bytes()),
            SetForm::Other => {
                write_length(out, set.len() as u64);
                set.iter().for_each(|member| write_item(out, member));
            }
        },
        Object::Hash(hash) => hash::encode(hash, out),
        Object::Zset(zset) => match zset.as_listpack() {
            Some(listpack) => write_string_plain(out, listpack.as_bytes()),
            None => {
                write_length(out, zset.len() as u64);
                for (member, score) in zset.iter() {
                    write_item(out, member);
                    write_double(out, score);
                }
            }
        },
        Object::Stream(stream) => stream::encode(stream, out),
    }
    type_of(Value::Object(object))
}

fn write_item(out: &mut Vec<u8>, item: Item<'_>) {
    match item {
        Item::Int(value) => write_string_of_integer(out, value),
        Item::Bytes(bytes) => write_string(out, bytes),
    }
}

fn encode_list(list: &List, out: &mut Vec<u8>) {
    write_length(out, list.nodes() as u64);
    list.for_each_node(|node| match node {
        NodeRef::Packed(listpack) => {
            write_length(out, kind::NODE_PACKED);
            write_string_plain(out, listpack.as_bytes());
        }
        NodeRef::Plain(element) => {
            write_length(out, kind::NODE_PLAIN);
            write_string_plain(out, element);
        }
    });
}

/// Reads a value of a type code. What a server of any version wrote becomes this server's form of it.
pub fn decode<'a>(code: u8, reader: &mut Reader<'a>, limits: &Limits) -> Result<Decoded<'a>, RdbError> {
    let object = match code {
        kind::STRING => return Ok(Decoded::String(reader.string_borrowed()?)),
        // The large forms: element by element, without a vector of vectors between.
        kind::LIST => {
            let mut list = List::new();
            for _ in 0..reader.length()? {
                list.push_back(&reader.string_borrowed()?, limits);
            }
            Object::List(list)
        }
        kind::SET => {
            let count = reader.length()?;
            let mut set = Set::with_capacity(believable(count, reader, 1), limits);
            for _ in 0..count {
                if !set.add(&reader.string_borrowed()?, limits) {
                    return Err(malformed(reader.offset(), "set", "a member stands twice"));
                }
            }
            Object::Set(set)
        }
        kind::HASH => {
            let count = reader.length()?;
            let mut hash = Hash::with_capacity(believable(count, reader, 2), limits);
            for _ in 0..count {
                let field = reader.string_borrowed()?;
                if !hash.set(&field, &reader.string_borrowed()?, limits) {
                    return Err(malformed(reader.offset(), "hash", "a field stands twice"));
                }
            }
            Object::Hash(hash)
        }
        kind::ZSET | kind::ZSET_2 => {
            let count = reader.length()?;
            let mut zset = Zset::with_capacity(believable(count, reader, 2), limits);
            for _ in 0..count {
                let member = reader.string_borrowed()?;
                let score = if code == kind::ZSET { reader.double_text()? } else { reader.double()? };
                add_member(&mut zset, &member, score, reader.offset(), limits)?;
            }
            Object::Zset(zset)
        }
        _ => {
            let value = cairn_rdb::value::decode(code, reader)?;
            return from_value(value, reader.offset(), limits);
        }
    };
    not_empty(object, reader.offset())
}

/// Makes a value that was read from a file this server's own. `offset` is where it ended, for the error.
pub fn from_value(value: Decodable, offset: u64, limits: &Limits) -> Result<Decoded<'static>, RdbError> {
    let object = match value {
        Decodable::String(bytes) => return Ok(Decoded::String(Cow::Owned(bytes))),
        Decodable::List(elements) => {
            let mut list = List::new();
            elements.iter().for_each(|element| list.push_back(element, limits));
            Object::List(list)
        }
        Decodable::ListNodes(nodes) => {
            let mut list = List::new();
            for node in nodes {
                match node {
                    ListNode::Packed(listpack) => list.push_packed_node(listpack),
                    ListNode::Plain(element) => list.push_plain_node(element),
                }
            }
            Object::List(list)
        }
        Decodable::Set(members) => {
            let mut set = Set::with_capacity(members.len(), limits);
            if !members.iter().all(|member| set.add(member, limits)) {
                return Err(malformed(offset, "set", "a member stands twice"));
            }
            Object::Set(set)
        }
        Decodable::SetIntset(integers) => Object::Set(Set::from_intset(integers, limits)),
        Decodable::SetListpack(listpack) => {
            let mut set = Set::with_capacity(listpack.len(), limits);
            if !listpack.iter().all(|member| member.with_bytes(|member| set.add(member, limits))) {
                return Err(malformed(offset, "set", "a member stands twice"));
            }
            Object::Set(set)
        }
        Decodable::Hash(fields) => {
            let mut hash = Hash::with_capacity(fields.len(), limits);
            if !fields.iter().all(|(field, value)| hash.set(field, value, limits)) {
                return Err(malformed(offset, "hash", "a field stands twice"));
            }
            Object::Hash(hash)
        }
        Decodable::HashListpack(listpack) => Object::Hash(
            Hash::from_listpack(listpack, limits)
                .ok_or_else(|| malformed(offset, "hash", "a field stands twice or has no value"))?,
        ),
        Decodable::HashWithExpiry(fields) => Object::Hash(hash::from_fields(&fields, offset, limits)?),
        Decodable::Zset(members) => {
            let mut zset = Zset::with_capacity(members.len(), limits);
            for (member, score) in &members {
                add_member(&mut zset, member, *score, offset, limits)?;
            }
            Object::Zset(zset)
        }
        Decodable::ZsetListpack(listpack) => Object::Zset(
            Zset::from_listpack(listpack, limits)
                .ok_or_else(|| malformed(offset, "sorted set", "a member stands twice or has no score"))?,
        ),
        Decodable::Stream(stored) => {
            let stream = Stream::from_stored(*stored);
            Object::Stream(Box::new(stream.map_err(|reason| malformed(offset, "stream", reason))?))
        }
        _ => return Err(RdbError::Unsupported { what: "a value of this kind", offset }),
    };
    not_empty(object, offset)
}

fn add_member(
    zset: &mut Zset,
    member: &[u8],
    score: f64,
    offset: u64,
    limits: &Limits,
) -> Result<(), RdbError> {
    if score.is_nan() {
        return Err(malformed(offset, "sorted set", "a score that is not a number"));
    }
    if zset.add_ascending(member, score, limits).is_some() {
        return Err(malformed(offset, "sorted set", "a member stands twice"));
    }
    Ok(())
}

fn malformed(offset: u64, structure: &'static str, reason: &'static str) -> RdbError {
    RdbError::Malformed { offset, structure, reason }
}

/// A stated count, as far as the bytes that are left can hold so many elements.
fn believable(count: u64, reader: &Reader<'_>, bytes_each: usize) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX).min(reader.rest().len() / bytes_each)
}

fn not_empty(object: Object, offset: u64) -> Result<Decoded<'static>, RdbError> {
    if object.is_empty() {
        return Err(malformed(offset, object.type_name(), "it has no elements"));
    }
    Ok(Decoded::Object(object))
}

/// A digest as DEBUG DIGEST-VALUE shows it, in hexadecimal.
pub type Digest20 = [u8; 20];

/// Redis's two ways to take something into a digest.
#[derive(Clone, Copy)]
struct Mixer(Digest20);

impl Mixer {
    /// Order does not matter: the digest ^= SHA-1 of the bytes.
    fn xor(&mut self, bytes: &[u8]) {
        let hash = Sha1::digest(bytes);
        self.0.iter_mut().zip(hash).for_each(|(own, other)| *own ^= other);
    }

    /// Order matters: as `xor`, then the digest becomes the SHA-1 of itself.
    fn mix(&mut self, bytes: &[u8]) {
        self.xor(bytes);
        self.0 = Sha1::digest(self.0).into();
    }

    fn mix_item(&mut self, item: Item<'_>) {
        item.with_bytes(|bytes| self.mix(bytes));
    }

    fn value(&mut self, value: Value<'_>, expires: bool) {
        // Redis's numbers of types, in network order.
        let type_number: u32 = match value {
            Value::Str(_) | Value::Object(Object::Str(_)) => 0,
            Value::Object(Object::List(_)) => 1,
            Value::Object(Object::Set(_)) => 2,
            Value::Object(Object::Zset(_)) => 3,
            Value::Object(Object::Hash(_)) => 4,
            Value::Object(Object::Stream(_)) => 6,
        };
        self.mix(&type_number.to_be_bytes());
        match value {
            Value::Str(bytes) => self.mix(bytes),
            Value::Object(Object::Str(bytes)) => self.mix(bytes),
            Value::Object(Object::List(list)) => list.iter().for_each(|element| self.mix_item(element)),
            Value::Object(Object::Set(set)) => {
                set.iter().for_each(|member| member.with_bytes(|bytes| self.xor(bytes)))
            }
            Value::Object(Object::Hash(hash)) => {
                for (field, value) in hash.iter() {
                    let mut element = Self([0; 20]);
                    element.mix_item(field);
                    element.mix_item(value);
                    if field.with_bytes(|field| hash.expire_at_ms(field)).is_some() {
                        element.xor(b"!!hexpire!!");
                    }
                    self.xor(&element.0);
                }
            }
            Value::Object(Object::Zset(zset)) => {
                for (member, score) in zset.iter() {
                    let mut element = Self([0; 20]);
                    element.mix_item(member);
                    element.mix(format_g17(score).as_bytes());
                    self.xor(&element.0);
                }
            }
            Value::Object(Object::Stream(stream)) => self.stream(stream),
        }
        if expires {
            self.xor(b"!!expire!!");
        }
    }
}

/// What DEBUG DIGEST-VALUE answers for a value. `expires`: whether its key has an expiry.
pub fn value_digest(value: Value<'_>, expires: bool) -> Digest20 {
    let mut mixer = Mixer([0; 20]);
    mixer.value(value, expires);
    mixer.0
}

/// The digest of a key with its value, to be taken into a [`DatasetDigest`].
pub fn key_digest(key: &[u8], value: Value<'_>, expires: bool) -> Digest20 {
    let mut mixer = Mixer([0; 20]);
    mixer.mix(key);
    mixer.value(value, expires);
    Sha1::digest(mixer.0).into()
}

/// What DEBUG DIGEST answers: databases in ascending order, the keys of each in any.
#[derive(Clone, Copy)]
pub struct DatasetDigest {
    mixer: Mixer,
}

impl Default for DatasetDigest {
    fn default() -> Self {
        Self::new()
    }
}

impl DatasetDigest {
    /// The digest of nothing.
    pub fn new() -> Self {
        Self { mixer: Mixer([0; 20]) }
    }

    /// The keys taken in from now on are those of this database, which must have some.
    pub fn database(&mut self, index: u32) {
        self.mixer.mix(&index.to_be_bytes());
    }

    /// Takes in a key's digest.
    pub fn key(&mut self, key: &Digest20) {
        self.mixer.0.iter_mut().zip(key).for_each(|(own, other)| *own ^= other);
    }

    /// The digest.
    pub fn finish(&self) -> Digest20 {
        self.mixer.0
    }
}

/// A double as C's `%.17g` writes it.
fn format_g17(value: f64) -> String {
    if value.is_infinite() {
        return if value > 0.0 { "inf".into() } else { "-inf".into() };
    }
    // One digit, the point, sixteen digits, and the exponent, rounded exactly as C rounds.
    let scientific = format!("{value:.16e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let without_zeros = |text: &str| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text.to_owned(),
    };
    if !(-4..17).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{}e{sign}{:02}", without_zeros(mantissa), exponent.abs());
    }
    // 0..=20 decimals.
    without_zeros(&format!("{value:.*}", (16 - exponent) as usize))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Random;
    use crate::types::stream::{Pending, StreamId};
    use cairn_rdb::file::{FileReader, Record};

    #[test]
    fn doubles_as_c_writes_them() {
        // Written by C's printf("%.17g").
        for (value, text) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (1.5, "1.5"),
            (0.1, "0.10000000000000001"),
            (-2.7, "-2.7000000000000002"),
            (1e16, "10000000000000000"),
            (1e17, "1e+17"),
            (123_456_789_012_345_678.0, "1.2345678901234568e+17"),
            (1e-4, "0.0001"),
            (1e-5, "1.0000000000000001e-05"),
            (1e300, "1.0000000000000001e+300"),
            (f64::MAX, "1.7976931348623157e+308"),
            (5e-324, "4.9406564584124654e-324"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
        ] {
            assert_eq!(format_g17(value), text);
        }
    }

    fn hex(digest: Digest20) -> String {
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// What DEBUG DIGEST-VALUE of redis-server 7.0.15 answered for the keys of this file, and DEBUG DIGEST for the whole.
    #[test]
    fn digests_are_those_of_redis() {
        let file = include_bytes!("../../../storage/rdb/tests/fixtures/redis-7.0.rdb");
        let of_values = [
            ("binary", "c8fe06ff459b38d0a3c8fc5cd3ddef4e3174a5a8"),
            ("compressible", "573f96742c08fae7248166da4579dd2b80569424"),
            ("empty", "8b3447c33a834b810e3e181b6fd6a2ee1020921c"),
            ("expiring", "3165200877d3190912cace229788627a60a379ef"),
            ("hash:large", "735cb8e3071dc670e1abfc2d1475abace31c8b21"),
            ("hash:long", "dff737407c338bfbfaef8c6e984d260fb9854864"),
            ("hash:small", "148f9e54874d9a7af49c758886a3f0d14d50b51e"),
            ("list:large", "b394ce1839928d349096817f2ef54e8c63938849"),
            ("list:small", "5834a40b5f973f2777af43407d010b8b58ae08d5"),
            ("long:number", "4af011cd4926901877e03e153d63e144d48443e4"),
            ("number", "9bd36e8bf9d776ed443894efb97046c21a06916d"),
            ("set:integers:16", "5e497276f46b9037a75afe0286ef7a77cbed85e4"),
            ("set:integers:32", "66a3d01a5f9af581f8af357e695e97f42356df69"),
            ("set:integers:64", "a3826c3c2bfd543824393b162ceab56f9a0e4ce3"),
            ("set:large", "ebaa60c854271c990e00ba3af9bcff47ef725bb0"),
            ("set:many:integers", "8fa303b04e2b5fa9685e0d005feceebc45a02562"),
            ("set:text", "dae7c8b8fcd461781f4e696a174f6d8bda12357a"),
            ("text", "19bfad8f2007c7c5d8559839d8798339f62ccc52"),
            ("zset:large", "2b704be547f4c2ff3b7feb4752535db41e3a9166"),
            ("zset:small", "b81980f3cc9712dad3be60fa493c674973c3b847"),
            ("elsewhere", "d59ec93db87f4cd915db3cdf44bb63755bc4a635"),
            ("elsewhere:set", "a34f6477bb8cac0aabc1e59ba2388f7bdf3ec994"),
        ];
        let mut whole = DatasetDigest::new();
        let mut database = None;
        let mut met = 0;
        for record in FileReader::open(&file[..]).expect("a header") {
            let Record::Entry(entry) = record.expect("redis-server wrote it") else { continue };
            if database != Some(entry.database) {
                database = Some(entry.database);
                whole.database(entry.database as u32);
            }
            let decoded = from_value(entry.value, 0, &Limits::default()).expect("redis-server wrote it");
            let value = match &decoded {
                Decoded::String(bytes) => Value::Str(bytes),
                Decoded::Object(object) => Value::Object(object),
            };
            let expires = entry.expire_at_ms.is_some();
            let key = String::from_utf8(entry.key).expect("ASCII");
            let (_, expected) = of_values.iter().find(|(name, _)| *name == key).expect("a key of the table");
            assert_eq!(hex(value_digest(value, expires)), *expected, "{key}");
            whole.key(&key_digest(key.as_bytes(), value, expires));
            met += 1;
        }
        assert_eq!(met, of_values.len());
        assert_eq!(hex(whole.finish()), "bb98bdb6e35e2cfd3b5bcd5fb31f98a354507cce");
    }

    /// What DEBUG DIGEST-VALUE of redis-server 7.0.15 answered for the stream of this file.
    #[test]
    fn a_stream_has_the_digest_of_redis() {
        let file = include_bytes!("../../../storage/rdb/tests/fixtures/redis-7.0-stream.rdb");
        let digests = FileReader::open(&file[..]).expect("a header").filter_map(|record| {
            let Ok(Record::Entry(entry)) = record else { return None };
            let Ok(Decoded::Object(object)) = from_value(entry.value, 0, &Limits::default()) else {
                return None;
            };
            Some(hex(value_digest(Value::Object(&object), false)))
        });
        assert!(digests.eq(["c513e98ab4cc68f7d22b2b89c964030f5f788bca"]));
    }

    /// Entries of two shapes, some of them deleted, and a group with what two consumers have of them.
    fn stream(count: u64, limits: &Limits) -> Object {
        let mut stream = Stream::new();
        for at in 1..=count {
            let id = StreamId { ms: at / 3, seq: at };
            match at % 7 {
                0 => stream.append(id, &[b"other", b"12", b"field", b""], limits),
                _ => stream.append(id, &[b"field", at.to_string().as_bytes()], limits),
            }
        }
        (5..count).step_by(11).for_each(|at| assert!(stream.delete(StreamId { ms: at / 3, seq: at })));
        assert!(stream.create_group(b"group", StreamId::MIN, Some(0)));
        for (name, most) in [(b"a", 3), (b"b", 70)] {
            let group = stream.group_mut(b"group").expect("just made");
            let (consumer, _) = group.see(name, 1_700_000_000_000);
            let pending = Pending { consumer, delivered_at_ms: 1_700_000_000_123, deliveries: most as u64 };
            stream.deliver(b"group", most, Some(pending), |_| ());
        }
        Object::Stream(Box::new(stream))
    }

    fn samples() -> Vec<Object> {
        let limits = Limits::default();
        let mut objects = vec![Object::Str(b"text".to_vec()), Object::Str(b"-12".to_vec())];
        for count in [1usize, 3, 100, 130, 600, 5_000] {
            let mut list = List::new();
            let (mut integers, mut strings) = (Set::new(), Set::new());
            let (mut hash, mut zset) = (Hash::new(), Zset::new());
            for at in 0..count {
                let text = if at % 3 == 0 { at.to_string() } else { format!("member:{at}") };
                list.push_back(text.as_bytes(), &limits);
                integers.add((at * at).to_string().as_bytes(), &limits);
                strings.add(text.as_bytes(), &limits);
                hash.set(text.as_bytes(), format!("{}", at * 7).as_bytes(), &limits);
                zset.add(text.as_bytes(), (at % 11) as f64 / 4.0, &limits);
            }
            list.push_back(&vec![b'x'; 10_000], &limits);
            objects.extend([Object::List(list), Object::Set(integers), Object::Set(strings)]);
            objects.extend([Object::Hash(hash), Object::Zset(zset), stream(count as u64, &limits)]);
        }
        objects
    }

    #[test]
    fn every_object_comes_back() {
        for object in samples() {
            let mut bytes = Vec::new();
            let code = encode_object(&object, &mut bytes);
            let mut reader = Reader::new(&bytes);
            let back = match decode(code, &mut reader, &Limits::default()).expect("own bytes") {
                Decoded::Object(back) => back,
                Decoded::String(bytes) => Object::Str(bytes.into_owned()),
            };
            assert!(reader.is_at_end());
            assert_eq!((back.len(), back.encoding()), (object.len(), object.encoding()));
            let digest = |object| value_digest(Value::Object(object), false);
            assert_eq!(digest(&back), digest(&object));
            // What a digest leaves out, such as groups, is in the bytes.
            let mut again = Vec::new();
            encode_object(&back, &mut again);
            let unordered = matches!(back.encoding(), "hashtable" | "skiplist");
            assert!(unordered || again == bytes);
        }
    }

    #[test]
    fn damaged_bytes_are_errors_and_no_panics() {
        let mut state = 99u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state ^ (state >> 31)
        };
        for object in samples() {
            let mut bytes = Vec::new();
            let code = encode_object(&object, &mut bytes);
            for _ in 0..200 {
                let mut damaged = bytes.clone();
                damaged.truncate(random.below(bytes.len() + 1));
                if !damaged.is_empty() {
                    let at = random.below(damaged.len().min(40));
                    damaged[at] = random.next_u64() as u8;
                }
                let code = if random.below(4) == 0 { random.below(27) as u8 } else { code };
                if let Ok(Decoded::Object(object)) =
                    decode(code, &mut Reader::new(&damaged), &Limits::default())
                {
                    assert!(!object.is_empty());
                    value_digest(Value::Object(&object), true);
                }
            }
        }
    }
}
