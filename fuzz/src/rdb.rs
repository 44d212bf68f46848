//! RDB values and files, and what the keyspace makes of values.

use cairn_keyspace::encode::{Decoded, encode_object, from_value, value_digest};
use cairn_keyspace::types::Limits;
use cairn_keyspace::{Object, Value as Stored};
use cairn_rdb::file::{FileReader, Record};
use cairn_rdb::primitives::{write_double, write_length, write_string, write_string_plain};
use cairn_rdb::stream::{StoredStream, write_id, write_node};
use cairn_rdb::value::{ListNode, Value, decode, kind};
use cairn_rdb::{Intset, Listpack, Reader, dump};

/// Reads `data` as a value after its type code, and as what DUMP answers.
pub fn rdb_value(data: &[u8]) {
    if let Some((&code, value)) = data.split_first() {
        match decode(code, &mut Reader::new(value)) {
            Ok(value) => check(&value),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
        let mut payload = data.to_vec();
        dump::finish(&mut payload);
        let (again, rest) = dump::open(&payload).expect("what was finished opens");
        assert_eq!((again, rest.rest()), (code, value));
    }
    if let Ok((code, mut value)) = dump::open(data) {
        let _ = decode(code, &mut value).map(|value| check(&value));
    }
}

/// Reads `data` as a whole `.rdb` file.
pub fn rdb_file(data: &[u8]) {
    let mut reader = match FileReader::open(data) {
        Ok(reader) => reader,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    loop {
        let before = reader.offset();
        match reader.next_record() {
            Ok(Some(Record::Entry(entry))) => check(&entry.value),
            Ok(Some(_)) => {}
            Ok(None) => break,
            Err(error) => {
                assert!(!error.to_string().is_empty());
                break;
            }
        }
        assert!(reader.offset() > before, "a record has bytes");
    }
    assert!(reader.offset() <= data.len() as u64);
    assert!(matches!(reader.next_record(), Ok(None)), "nothing follows the end or an error");
}

/// A value that was read can be walked, and is read again as it was once it is written.
fn check(value: &Value) {
    let mut written = Vec::new();
    let Some(code) = encode(value, &mut written) else { return };
    let mut reader = Reader::new(&written);
    match decode(code, &mut reader) {
        Ok(again) => assert_eq!(again, *value),
        Err(error) => panic!("{value:?} was written and is refused: {error}"),
    }
    assert!(reader.is_at_end());
    adopt(value);
}

/// What the keyspace adopts of a value it writes, and reads again as the same.
fn adopt(value: &Value) {
    let Ok(Decoded::Object(object)) = from_value(value.clone(), 0, &Limits::default()) else { return };
    let mut written = Vec::new();
    let code = encode_object(&object, &mut written);
    let again = decode(code, &mut Reader::new(&written)).expect("what was written is read");
    let Ok(Decoded::Object(again)) = from_value(again, 0, &Limits::default()) else {
        panic!("{object:?} was written and is refused")
    };
    let digest = |object: &Object| value_digest(Stored::Object(object), false);
    assert_eq!(digest(&again), digest(&object));
    if matches!(object, Object::Stream(_)) {
        // What a digest leaves out, such as groups, is in the bytes.
        let mut rewritten = Vec::new();
        encode_object(&again, &mut rewritten);
        assert_eq!(rewritten, written);
    }
}

/// Writes a value in the newest form of its type and gives its code; `None` for expiries too far apart for that form.
pub(crate) fn encode(value: &Value, out: &mut Vec<u8>) -> Option<u8> {
    Some(match value {
        Value::String(string) => {
            write_string(out, string);
            kind::STRING
        }
        Value::List(elements) => {
            strings(elements, out);
            kind::LIST
        }
        Value::ListNodes(nodes) => {
            write_length(out, nodes.len() as u64);
            for node in nodes {
                match node {
                    ListNode::Plain(element) => {
                        write_length(out, kind::NODE_PLAIN);
                        write_string_plain(out, element);
                    }
                    ListNode::Packed(elements) => {
                        write_length(out, kind::NODE_PACKED);
                        listpack(elements, out);
                    }
                }
            }
            kind::LIST_QUICKLIST_2
        }
        Value::Set(members) => {
            strings(members, out);
            kind::SET
        }
        Value::SetIntset(members) => {
            intset(members, out);
            kind::SET_INTSET
        }
        Value::SetListpack(members) => {
            listpack(members, out);
            kind::SET_LISTPACK
        }
        Value::Hash(fields) => {
            write_length(out, fields.len() as u64);
            for (field, value) in fields {
                write_string(out, field);
                write_string(out, value);
            }
            kind::HASH
        }
        Value::HashListpack(fields) => {
            listpack(fields, out);
            kind::HASH_LISTPACK
        }
        Value::HashWithExpiry(fields) => {
            let soonest = fields.iter().filter_map(|field| field.2).min().unwrap_or(0);
            out.extend_from_slice(&soonest.to_le_bytes());
            write_length(out, fields.len() as u64);
            for (field, value, expiry) in fields {
                let stored = expiry.map_or(Some(0), |expiry| (expiry - soonest).checked_add(1))?;
                write_length(out, stored);
                write_string(out, field);
                write_string(out, value);
            }
            kind::HASH_METADATA
        }
        Value::Zset(members) => {
            write_length(out, members.len() as u64);
            for (member, score) in members {
                write_string(out, member);
                write_double(out, *score);
            }
            kind::ZSET_2
        }
        Value::ZsetListpack(members) => {
            listpack(members, out);
            kind::ZSET_LISTPACK
        }
        Value::Stream(value) => {
            stream(value, out);
            if value.counters.is_some() { kind::STREAM_LISTPACKS_2 } else { kind::STREAM_LISTPACKS }
        }
        // The enum may grow; a new form must be written here before it is checked.
        other => unreachable!("{other:?} cannot be written"),
    })
}

/// Writes a stream in the first form where it has no counters, else in the second.
fn stream(stream: &StoredStream, out: &mut Vec<u8>) {
    write_length(out, stream.nodes.len() as u64);
    stream.nodes.iter().for_each(|(base, entries)| write_node(out, *base, entries));
    write_length(out, stream.len);
    write_id(out, stream.last_id);
    if let Some(counters) = stream.counters {
        write_id(out, counters.first_id);
        write_id(out, counters.max_deleted_id);
        write_length(out, counters.entries_added);
    }
    write_length(out, stream.groups.len() as u64);
    for group in &stream.groups {
        write_string(out, &group.name);
        write_id(out, group.last_id);
        group.entries_read.into_iter().for_each(|read| write_length(out, read));
        write_length(out, group.pending.len() as u64);
        for pending in &group.pending {
            out.extend_from_slice(&pending.id.to_bytes());
            out.extend_from_slice(&pending.delivered_at_ms.to_le_bytes());
            write_length(out, pending.deliveries);
        }
        write_length(out, group.consumers.len() as u64);
        for consumer in &group.consumers {
            write_string(out, &consumer.name);
            out.extend_from_slice(&consumer.seen_at_ms.to_le_bytes());
            write_length(out, consumer.pending.len() as u64);
            consumer.pending.iter().for_each(|id| out.extend_from_slice(&id.to_bytes()));
        }
    }
}

fn strings(strings: &[Vec<u8>], out: &mut Vec<u8>) {
    write_length(out, strings.len() as u64);
    strings.iter().for_each(|string| write_string(out, string));
}

/// Writes a listpack that was walked from both ends, and is the same when it is built anew.
fn listpack(listpack: &Listpack, out: &mut Vec<u8>) {
    let items: Vec<_> = listpack.iter().collect();
    assert_eq!(items.len(), listpack.len());
    let mut built = Listpack::new();
    let mut backwards = listpack.clone();
    for (index, item) in items.iter().enumerate() {
        let found = listpack.get(index as i64).expect("it was counted");
        assert_eq!(found, *item);
        built.push_back(&item.to_vec());
    }
    assert_eq!(built.iter().map(|item| item.to_vec()).collect::<Vec<_>>(), texts(listpack));
    for item in items.iter().rev() {
        assert_eq!(backwards.pop_back(), Some(item.to_vec()));
    }
    assert!(backwards.is_empty() && backwards.pop_back().is_none());
    write_string_plain(out, listpack.as_bytes());
}

fn texts(listpack: &Listpack) -> Vec<Vec<u8>> {
    listpack.iter().map(|item| item.to_vec()).collect()
}

/// Writes an intset whose integers are found where they are.
fn intset(intset: &Intset, out: &mut Vec<u8>) {
    let integers: Vec<i64> = intset.iter().collect();
    assert_eq!(integers.len(), intset.len());
    assert!(integers.is_sorted() && integers.iter().all(|integer| intset.contains(*integer)));
    let mut built = Intset::new();
    assert!(integers.iter().all(|integer| built.insert(*integer)), "an intset has no member twice");
    assert_eq!(built.iter().collect::<Vec<_>>(), integers);
    write_string_plain(out, intset.as_bytes());
}
