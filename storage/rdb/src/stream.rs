//! Streams, in the three forms that Redis 5.0, 7.0 and 7.2 write: nodes of entries, what the stream counted, and its
//! consumer groups with what is pending in them.

use std::fmt;

use crate::error::RdbError;
use crate::listpack::Listpack;
use crate::primitives::{Source, write_length, write_string_plain};
use crate::value::{elements, kind};

/// The id of an entry: a moment in milliseconds, and a number that tells apart what came within it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId {
    /// Milliseconds since 1970, as a rule.
    pub ms: u64,
    /// The number within the millisecond.
    pub seq: u64,
}

impl StreamId {
    /// The smallest id, which no entry has.
    pub const MIN: Self = Self { ms: 0, seq: 0 };
    /// The largest id.
    pub const MAX: Self = Self { ms: u64::MAX, seq: u64::MAX };

    /// The id behind this one.
    #[must_use]
    pub fn next(self) -> Option<Self> {
        match self.seq.checked_add(1) {
            Some(seq) => Some(Self { seq, ..self }),
            None => Some(Self { ms: self.ms.checked_add(1)?, seq: 0 }),
        }
    }

    /// The id before this one.
    #[must_use]
    pub fn previous(self) -> Option<Self> {
        match self.seq.checked_sub(1) {
            Some(seq) => Some(Self { seq, ..self }),
            None => Some(Self { ms: self.ms.checked_sub(1)?, seq: u64::MAX }),
        }
    }

    /// Its sixteen bytes, which sort as ids do.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        (u128::from(self.ms) << 64 | u128::from(self.seq)).to_be_bytes()
    }

    /// The id of sixteen bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = bytes;
        Self {
            ms: u64::from_be_bytes([a, b, c, d, e, f, g, h]),
            seq: u64::from_be_bytes([i, j, k, l, m, n, o, p]),
        }
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

/// A stream as it was read. Nothing is said about the order of nodes, what is in them, or whose the pending entries are:
/// the keyspace that adopts it checks that.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredStream {
    /// The nodes: the id that the ids in the listpack count from, and the listpack.
    pub nodes: Vec<(StreamId, Listpack)>,
    /// How many entries there are.
    pub len: u64,
    /// The greatest id an entry ever had, or was said to have had.
    pub last_id: StreamId,
    /// What Redis counts from 7.0 on.
    pub counters: Option<StoredCounters>,
    /// The consumer groups.
    pub groups: Vec<StoredGroup>,
}

/// What the first form of streams does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredCounters {
    /// The id of the first entry.
    pub first_id: StreamId,
    /// The greatest id of an entry that was deleted by name.
    pub max_deleted_id: StreamId,
    /// How many entries were ever added.
    pub entries_added: u64,
}

/// A consumer group.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredGroup {
    /// Its name.
    pub name: Vec<u8>,
    /// The last entry it was given.
    pub last_id: StreamId,
    /// How many entries it was given, where the form holds that; `u64::MAX` where the writer did not know.
    pub entries_read: Option<u64>,
    /// What was given to consumers and not acknowledged.
    pub pending: Vec<StoredPending>,
    /// The consumers.
    pub consumers: Vec<StoredConsumer>,
}

/// An entry that waits for its acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredPending {
    /// The entry.
    pub id: StreamId,
    /// When it was last given to a consumer, in milliseconds since 1970.
    pub delivered_at_ms: i64,
    /// How often it was given to one.
    pub deliveries: u64,
}

/// A consumer.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredConsumer {
    /// Its name.
    pub name: Vec<u8>,
    /// When it last asked for something, in milliseconds since 1970.
    pub seen_at_ms: i64,
    /// The pending entries that are its own.
    pub pending: Vec<StreamId>,
}

/// Reads a stream of one of the three forms.
pub(crate) fn decode(code: u8, source: &mut impl Source) -> Result<StoredStream, RdbError> {
    let has_counters = code != kind::STREAM_LISTPACKS;
    let nodes = elements(source, |source| {
        let key = source.string()?;
        let Ok(key) = <[u8; 16]>::try_from(key.as_slice()) else {
            return Err(RdbError::malformed(source.offset(), "stream", "a node whose key is no id"));
        };
        Ok((StreamId::from_bytes(key), Listpack::from_bytes(source.string()?)?))
    })?;
    let (len, last_id) = (source.length()?, id(source)?);
    let mut counters = None;
    if has_counters {
        let (first_id, max_deleted_id) = (id(source)?, id(source)?);
        counters = Some(StoredCounters { first_id, max_deleted_id, entries_added: source.length()? });
    }
    let groups = elements(source, |source| {
        Ok(StoredGroup {
            name: source.string()?,
            last_id: id(source)?,
            entries_read: if has_counters { Some(source.length()?) } else { None },
            pending: elements(source, pending)?,
            consumers: elements(source, |source| consumer(code, source))?,
        })
    })?;
    Ok(StoredStream { nodes, len, last_id, counters, groups })
}

fn pending(source: &mut impl Source) -> Result<StoredPending, RdbError> {
    Ok(StoredPending {
        id: raw_id(source)?,
        delivered_at_ms: source.u64()?.cast_signed(),
        deliveries: source.length()?,
    })
}

fn consumer(code: u8, source: &mut impl Source) -> Result<StoredConsumer, RdbError> {
    let (name, seen_at_ms) = (source.string()?, source.u64()?.cast_signed());
    if code == kind::STREAM_LISTPACKS_3 {
        // When it was last given something: the forms that are written have no place for it.
        source.u64()?;
    }
    Ok(StoredConsumer { name, seen_at_ms, pending: elements(source, raw_id)? })
}

/// An id as two lengths.
fn id(source: &mut impl Source) -> Result<StreamId, RdbError> {
    Ok(StreamId { ms: source.length()?, seq: source.length()? })
}

/// An id in its sixteen bytes.
fn raw_id(source: &mut impl Source) -> Result<StreamId, RdbError> {
    let mut bytes = [0; 16];
    source.fill(&mut bytes)?;
    Ok(StreamId::from_bytes(bytes))
}

/// Appends an id as two lengths.
pub fn write_id(out: &mut Vec<u8>, id: StreamId) {
    write_length(out, id.ms);
    write_length(out, id.seq);
}

/// Appends a node.
pub fn write_node(out: &mut Vec<u8>, base: StreamId, entries: &Listpack) {
    write_string_plain(out, &base.to_bytes());
    write_string_plain(out, entries.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Reader;

    #[test]
    fn ids_have_neighbours_and_sort_as_their_bytes_do() {
        let ids = [
            StreamId::MIN,
            StreamId { ms: 0, seq: 1 },
            StreamId { ms: 0, seq: u64::MAX },
            StreamId { ms: 1, seq: 0 },
            StreamId { ms: 256, seq: 7 },
            StreamId::MAX,
        ];
        for pair in ids.windows(2) {
            assert!(pair[0] < pair[1] && pair[0].to_bytes() < pair[1].to_bytes());
        }
        for id in ids {
            assert_eq!(StreamId::from_bytes(id.to_bytes()), id);
            assert_eq!(id.next().and_then(StreamId::previous), (id != StreamId::MAX).then_some(id));
        }
        assert_eq!(ids[2].next(), Some(ids[3]));
        assert_eq!((StreamId::MIN.previous(), StreamId::MAX.next()), (None, None));
        assert_eq!(ids[4].to_string(), "256-7");
    }

    /// A stream without nodes, with one group, one pending entry and one consumer, in each form.
    #[test]
    fn each_form_is_read() {
        for (code, counters, active) in [(15, false, false), (19, true, false), (21, true, true)] {
            let (last, pending) = (StreamId { ms: 70_000, seq: 3 }, StreamId { ms: 5, seq: 1 });
            let mut bytes = vec![0, 0];
            write_id(&mut bytes, last);
            if counters {
                write_id(&mut bytes, StreamId::MIN);
                write_id(&mut bytes, pending);
                bytes.push(9);
            }
            bytes.extend_from_slice(&[1, 1, b'g']);
            write_id(&mut bytes, pending);
            if counters {
                write_length(&mut bytes, u64::MAX);
            }
            bytes.push(1);
            bytes.extend_from_slice(&pending.to_bytes());
            bytes.extend_from_slice(&1_000i64.to_le_bytes());
            bytes.extend_from_slice(&[2, 1, 1, b'c']);
            bytes.extend_from_slice(&2_000i64.to_le_bytes());
            if active {
                bytes.extend_from_slice(&3_000i64.to_le_bytes());
            }
            bytes.push(1);
            bytes.extend_from_slice(&pending.to_bytes());

            let mut reader = Reader::new(&bytes);
            let stream = decode(code, &mut reader).expect("well formed");
            assert!(reader.is_at_end());
            assert_eq!((stream.len, stream.last_id, stream.counters.is_some()), (0, last, counters));
            let [group] = &stream.groups[..] else { panic!("one group") };
            assert_eq!(group.entries_read, counters.then_some(u64::MAX));
            let expected = StoredPending { id: pending, delivered_at_ms: 1_000, deliveries: 2 };
            assert_eq!(group.pending, [expected]);
            let consumer = StoredConsumer { name: b"c".to_vec(), seen_at_ms: 2_000, pending: vec![pending] };
            assert_eq!(group.consumers, [consumer]);
            for cut in 0..bytes.len() {
                assert!(decode(code, &mut Reader::new(&bytes[..cut])).is_err(), "cut at {cut}");
            }
        }
    }
}
