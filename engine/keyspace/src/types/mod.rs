//! The value types: pure data structures, small ones flat (listpack or intset), large ones in tables and trees.
//!
//! Every getter hands out [`Item`]s, which borrow: a flat collection may store a text as an integer, and
//! [`Item::with_bytes`] gives its bytes without allocating. Mutating calls take the [`Limits`] at which a flat form becomes
//! the large one; it never turns back, as in Redis. Randomness comes from the caller, so that a test can replay it.
//! A collection that has become empty is still a value here: removing its key is the caller's work.

mod blob;
mod dict;
mod field_expiries;
mod hash;
mod list;
#[cfg(test)]
mod model_tests;
mod rank_tree;
mod set;
pub mod stream;
mod zset;

pub use cairn_rdb::integer::{Digits, parse_i64};
pub use cairn_rdb::{Intset, Item, Listpack};
pub use hash::Hash;
pub use list::{List, NodeRef, Side};
pub use set::{Set, SetForm};
pub use stream::{Stream, StreamId};
pub use zset::{LexBound, ScoreBound, Zset};

/// A source of random 64-bit numbers.
pub trait Random {
    /// The next number.
    fn next_u64(&mut self) -> u64;

    /// A number below `bound`, uniform but for a bias below `bound` / 2^64. 0 when `bound` is 0.
    fn below(&mut self, bound: usize) -> usize {
        let product = u128::from(self.next_u64()) * bound as u128;
        (product >> 64) as usize
    }
}

impl<F: FnMut() -> u64> Random for F {
    fn next_u64(&mut self) -> u64 {
        self()
    }
}

/// Where a flat collection becomes a large one, and how long strings may be. The defaults are Redis's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// `hash-max-listpack-entries`: fields of a flat hash.
    pub hash_entries: usize,
    /// `hash-max-listpack-value`: bytes of a field or value of a flat hash.
    pub hash_value: usize,
    /// `zset-max-listpack-entries`: members of a flat sorted set.
    pub zset_entries: usize,
    /// `zset-max-listpack-value`: bytes of a member of a flat sorted set.
    pub zset_value: usize,
    /// `set-max-intset-entries`: members of a set of integers.
    pub set_intset_entries: usize,
    /// `set-max-listpack-entries`: members of a flat set.
    pub set_listpack_entries: usize,
    /// `set-max-listpack-value`: bytes of a member of a flat set.
    pub set_listpack_value: usize,
    /// `list-max-listpack-size`, where negative: bytes of one node of a list.
    pub list_listpack_bytes: usize,
    /// `list-max-listpack-size`, where positive: elements of one node of a list.
    pub list_listpack_entries: usize,
    /// `hll-sparse-max-bytes`: bytes of a sparse HyperLogLog.
    pub hll_sparse_bytes: usize,
    /// `proto-max-bulk-len`: bytes of a string that grows where it is.
    pub string_bytes: usize,
    /// `stream-node-max-bytes`: bytes of one node of a stream; 0 for as many as there is room for.
    pub stream_node_bytes: usize,
    /// `stream-node-max-entries`: entries of one node of a stream; 0 for any number.
    pub stream_node_entries: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            hash_entries: 512,
            hash_value: 64,
            zset_entries: 128,
            zset_value: 64,
            set_intset_entries: 512,
            set_listpack_entries: 128,
            set_listpack_value: 64,
            list_listpack_bytes: 8_192,
            list_listpack_entries: usize::MAX,
            hll_sparse_bytes: 3_000,
            string_bytes: 512 << 20,
            stream_node_bytes: 4_096,
            stream_node_entries: 100,
        }
    }
}

/// A value that is not a small string.
#[derive(Clone, Debug)]
pub enum Object {
    /// A string.
    Str(Vec<u8>),
    /// A list.
    List(List),
    /// A set.
    Set(Set),
    /// A hash.
    Hash(Hash),
    /// A sorted set.
    Zset(Zset),
    /// A stream.
    Stream(Box<Stream>),
}

impl Object {
    /// What TYPE answers.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Str(_) => "string",
            Self::List(_) => "list",
            Self::Set(_) => "set",
            Self::Hash(_) => "hash",
            Self::Zset(_) => "zset",
            Self::Stream(_) => "stream",
        }
    }

    /// What OBJECT ENCODING answers, in the names of Redis 7.0.
    pub fn encoding(&self) -> &'static str {
        match self {
            Self::Str(bytes) if parse_i64(bytes).is_some() => "int",
            Self::Str(bytes) if bytes.len() <= 44 => "embstr",
            Self::Str(_) => "raw",
            Self::List(list) => list.encoding(),
            Self::Set(set) => set.encoding(),
            Self::Hash(hash) => hash.encoding(),
            Self::Zset(zset) => zset.encoding(),
            Self::Stream(_) => "stream",
        }
    }

    /// Elements of a collection; 1 for a string.
    pub fn len(&self) -> usize {
        match self {
            Self::Str(_) => 1,
            Self::List(list) => list.len(),
            Self::Set(set) => set.len(),
            Self::Hash(hash) => hash.len(),
            Self::Zset(zset) => zset.len(),
            Self::Stream(stream) => stream.len(),
        }
    }

    /// Whether this is a collection without elements, whose key must go. A stream never is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0 && !matches!(self, Self::Stream(_))
    }

    /// Bytes allocated beyond the object itself; that of a large collection is reckoned from so many of its
    /// elements.
    pub fn heap_bytes(&self, samples: usize) -> usize {
        match self {
            Self::Str(bytes) => bytes.capacity(),
            Self::List(list) => list.heap_bytes(samples),
            Self::Set(set) => set.heap_bytes(samples),
            Self::Hash(hash) => hash.heap_bytes(samples),
            Self::Zset(zset) => zset.heap_bytes(samples),
            Self::Stream(stream) => stream.heap_bytes(samples),
        }
    }

    /// Whether freeing it takes long enough to be done elsewhere than under a lock: more than 64 allocations, as Redis's
    /// lazy freeing counts.
    pub fn is_expensive_to_free(&self) -> bool {
        match self {
            Self::Str(_) => false,
            Self::List(list) => list.nodes() > 64,
            Self::Set(set) => !set.is_flat() && set.len() > 64,
            Self::Hash(hash) => !hash.is_flat() && hash.len() > 64,
            Self::Zset(zset) => !zset.is_flat() && zset.len() > 64,
            Self::Stream(stream) => stream.allocations() > 64,
        }
    }
}

/// Redis's way to read a pair of indexes that may be negative (-1 is the last): the first index and the count of the
/// elements meant, or `None` when there are none.
///
/// ```
/// # use cairn_keyspace::types::normalize_range;
/// assert_eq!(normalize_range(-3, -1, 10), Some((7, 3)));
/// assert_eq!(normalize_range(0, 99, 10), Some((0, 10)));
/// assert_eq!(normalize_range(5, 2, 10), None);
/// ```
pub fn normalize_range(start: i64, stop: i64, len: usize) -> Option<(usize, usize)> {
    let len = i64::try_from(len).ok()?;
    let from_end = |index: i64| if index < 0 { len.saturating_add(index) } else { index };
    let start = from_end(start).max(0);
    let stop = from_end(stop).min(len - 1);
    if start > stop {
        return None;
    }
    Some((usize::try_from(start).ok()?, usize::try_from(stop - start + 1).ok()?))
}

/// `count` distinct indexes below `len`, each set of them equally likely, ascending. All when `count` reaches `len`.
fn distinct_indexes(len: usize, count: usize, random: &mut impl Random) -> Vec<usize> {
    if count >= len {
        return (0..len).collect();
    }
    // Floyd's sampling: exactly `count` draws.
    let mut chosen = hashbrown::HashSet::with_capacity(count);
    for bound in len - count..len {
        let drawn = random.below(bound + 1);
        if !chosen.insert(drawn) {
            chosen.insert(bound);
        }
    }
    let mut indexes: Vec<usize> = chosen.into_iter().collect();
    indexes.sort_unstable();
    indexes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_stays_small() {
        assert_eq!(size_of::<Object>(), 32);
        assert_eq!(size_of::<Hash>(), 24);
        assert_eq!(size_of::<Zset>(), 24);
        assert_eq!(size_of::<List>(), 24);
        assert_eq!(size_of::<stream::Pending>(), 24);
    }

    #[test]
    fn ranges_are_read_as_in_redis() {
        assert_eq!(normalize_range(0, -1, 3), Some((0, 3)));
        assert_eq!(normalize_range(-100, 100, 3), Some((0, 3)));
        assert_eq!(normalize_range(3, 5, 3), None);
        assert_eq!(normalize_range(0, -4, 3), None);
        assert_eq!(normalize_range(0, -1, 0), None);
        assert_eq!(normalize_range(i64::MIN, i64::MAX, 2), Some((0, 2)));
    }

    #[test]
    fn samples_are_distinct_and_below_the_bound() {
        let mut state = 7u64;
        let mut random = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state ^ (state >> 29)
        };
        for count in [0, 1, 5, 9, 10, 20] {
            let indexes = distinct_indexes(10, count, &mut random);
            assert_eq!(indexes.len(), count.min(10));
            assert!(indexes.windows(2).all(|pair| pair[0] < pair[1]));
        }
    }
}
