//! Files written by redis-server itself. What they hold is told in `fixtures/README.md`.

use std::collections::BTreeMap;

use cairn_rdb::file::{Entry, FileReader, Record, Usage};
use cairn_rdb::value::Value;
use cairn_rdb::{RdbError, StreamId, VERSION_WRITTEN};

const ALL_TYPES: &[u8] = include_bytes!("fixtures/redis-7.0.rdb");
const LFU_FUNCTION: &[u8] = include_bytes!("fixtures/redis-7.0-lfu-function.rdb");
const STREAM: &[u8] = include_bytes!("fixtures/redis-7.0-stream.rdb");

fn read(file: &[u8]) -> Vec<Record> {
    let reader = FileReader::open(file).expect("a header");
    assert_eq!(reader.version(), VERSION_WRITTEN);
    reader.map(|record| record.expect("redis-server wrote it")).collect()
}

fn entries(file: &[u8]) -> BTreeMap<String, Entry> {
    let entries = read(file).into_iter().filter_map(|record| match record {
        Record::Entry(entry) => Some((String::from_utf8_lossy(&entry.key).into_owned(), *entry)),
        _ => None,
    });
    entries.collect()
}

#[test]
fn every_type_and_encoding_is_read() {
    let entries = entries(ALL_TYPES);
    assert_eq!(entries.len(), 22);
    let value = |key: &str| entries[key].value.clone();
    assert_eq!(value("text"), Value::String(b"hello world".to_vec()));
    assert_eq!(value("number"), Value::String(b"-123456".to_vec()));
    assert_eq!(value("long:number"), Value::String(b"12345678901234".to_vec()));
    assert_eq!(value("compressible"), Value::String(b"abc".repeat(300)));
    assert_eq!(value("binary"), Value::String((0..=255).collect()));
    assert_eq!(value("empty"), Value::String(Vec::new()));
    assert_eq!(entries["expiring"].expire_at_ms, Some(4_102_444_800_123));
    assert_eq!(entries["zset:small"].expire_at_ms, Some(4_102_444_800_123));
    assert_eq!(entries["text"].expire_at_ms, None);
    assert_eq!((entries["elsewhere"].database, entries["text"].database), (5, 0));
    assert!(matches!(value("list:large"), Value::ListNodes(nodes) if nodes.len() > 3));
    assert!(matches!(value("set:integers:16"), Value::SetIntset(set) if set.iter().eq([-5, 1, 2, 3])));
    assert!(
        matches!(value("set:integers:64"), Value::SetIntset(set) if set.iter().eq([i64::MIN, 1, i64::MAX]))
    );
    assert!(matches!(value("set:large"), Value::Set(members) if members.len() == 300));
    assert!(matches!(value("hash:small"), Value::HashListpack(listpack) if listpack.len() == 6));
    assert!(matches!(value("hash:large"), Value::Hash(fields) if fields.len() == 600));
    assert!(matches!(value("zset:small"), Value::ZsetListpack(listpack) if listpack.len() == 16));
    assert!(matches!(value("zset:large"), Value::Zset(members) if members.len() == 200));
}

#[test]
fn use_statistics_functions_and_a_checksum_switched_off_are_read() {
    let records = read(LFU_FUNCTION);
    assert!(
        records
            .iter()
            .any(|record| matches!(record, Record::Function(text) if text.starts_with(b"#!lua name=mylib")))
    );
    assert!(matches!(entries(LFU_FUNCTION)["frequent"].usage, Some(Usage::Frequency(_))));
    let mut switched_off = LFU_FUNCTION.to_vec();
    let end = switched_off.len();
    switched_off[end - 8..].fill(0);
    assert_eq!(read(&switched_off), read(LFU_FUNCTION));
}

#[test]
fn a_stream_is_read_with_its_groups() {
    let entries = entries(STREAM);
    let Some(Value::Stream(stream)) = entries.values().next().map(|entry| &entry.value) else {
        panic!("a stream in it")
    };
    let id = |ms, seq| StreamId { ms, seq };
    let [(base, node)] = &stream.nodes[..] else { panic!("one node") };
    assert_eq!((*base, node.get(0).and_then(|item| item.as_i64())), (id(1, 1), Some(2)));
    assert_eq!((stream.len, stream.last_id), (2, id(2, 5)));
    let counters = stream.counters.expect("Redis 7.0 counts");
    assert_eq!((counters.first_id, counters.max_deleted_id), (id(1, 1), id(2, 1)));
    assert_eq!(counters.entries_added, 3);
    let [group] = &stream.groups[..] else { panic!("one group") };
    assert_eq!(
        (&group.name[..], group.last_id, group.entries_read),
        (&b"group"[..], id(1, 1), Some(u64::MAX))
    );
    let [pending] = group.pending[..] else { panic!("one pending entry") };
    assert_eq!((pending.id, pending.delivered_at_ms, pending.deliveries), (id(1, 1), 1_795_457_700_654, 1));
    let [consumer] = &group.consumers[..] else { panic!("one consumer") };
    assert_eq!((&consumer.name[..], &consumer.pending[..]), (&b"consumer"[..], &[id(1, 1)][..]));
}

#[test]
fn a_flipped_bit_never_panics_and_is_never_served() {
    for at in (9..ALL_TYPES.len()).step_by(149) {
        let mut damaged = ALL_TYPES.to_vec();
        damaged[at] ^= 1 << (at % 8);
        let result: Result<Vec<Record>, RdbError> =
            FileReader::open(&damaged[..]).expect("the header is whole").collect();
        assert!(result.is_err(), "flip at {at}");
    }
}
