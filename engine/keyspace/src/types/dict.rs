//! A hash table that grows by small steps and can be scanned while it changes.
//!
//! It is extendible hashing: segments of at most [`SEGMENT_MAX`] elements, found through a directory by the leading bits
//! of an element's *order* (48 bits of its hash). A full segment splits into two by the next bit, which moves a hundred
//! elements however large the whole is: no insertion ever stalls for a rehash of everything.
//!
//! A scan walks the elements by ascending order, and its cursor is the order it has reached. An element's order never
//! changes, so whatever is there during the whole scan is met, whether segments split or merge meanwhile.

use std::hash::{BuildHasher, Hasher};
use std::sync::LazyLock;

use ahash::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::Random;

/// Elements of a full segment: seven eighths of 128 buckets.
const SEGMENT_MAX: usize = 112;
const SEGMENT_BUCKETS: usize = 128;
/// Two neighbours that hold no more than this together become one.
const MERGE_MAX: usize = 40;
/// Bits of an element's order.
const ORDER_BITS: u32 = 48;
/// Splitting stops here: with a keyed hash nobody gets this far, and a directory of 2^28 entries would not fit.
const DEPTH_MAX: u32 = 28;
/// Segments of one chunk of the arena.
const CHUNK: usize = 1_024;

/// Keyed by chance once a process, so that nobody can choose members that collide.
static HASH_STATE: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// The hash of an element's bytes.
#[inline]
pub(crate) fn hash_of(bytes: &[u8]) -> u64 {
    let mut hasher = HASH_STATE.build_hasher();
    hasher.write(bytes);
    hasher.finish()
}

/// The bits that place an element in the scan. hashbrown tells elements apart by the top seven bits and spreads them by
/// the lowest: neither takes part here, or the elements of one segment would look alike to it.
#[inline]
fn order_of(hash: u64) -> u64 {
    (hash << 7) >> (64 - ORDER_BITS)
}

#[derive(Clone, Debug)]
struct Segment<T> {
    table: HashTable<T>,
    /// How many leading bits of the order all its elements share.
    depth: u32,
}

/// The table. Elements are compared and hashed by the caller, who may keep their bytes elsewhere.
#[derive(Clone, Debug)]
pub(crate) struct Dict<T> {
    /// Segment of each value of the leading `depth` bits.
    directory: Vec<u32>,
    /// Leading bits of the order that index the directory.
    depth: u32,
    /// Chunked, so that a new segment never moves the others.
    segments: Vec<Vec<Segment<T>>>,
    free: Vec<u32>,
    len: usize,
}

impl<T> Dict<T> {
    /// An empty one with room for `capacity` elements in its first segment.
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        let table = HashTable::with_capacity(capacity.min(SEGMENT_MAX));
        Self {
            directory: vec![0],
            depth: 0,
            segments: vec![vec![Segment { table, depth: 0 }]],
            free: Vec::new(),
            len: 0,
        }
    }

    /// How many elements there are.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    fn slot_of(&self, order: u64) -> usize {
        (order >> (ORDER_BITS - self.depth)) as usize
    }

    #[inline]
    fn segment(&self, id: u32) -> &Segment<T> {
        &self.segments[id as usize / CHUNK][id as usize % CHUNK]
    }

    #[inline]
    fn segment_mut(&mut self, id: u32) -> &mut Segment<T> {
        &mut self.segments[id as usize / CHUNK][id as usize % CHUNK]
    }

    #[inline]
    fn segment_of(&self, hash: u64) -> &Segment<T> {
        self.segment(self.directory[self.slot_of(order_of(hash))])
    }

    /// The element of this hash for which `is` holds.
    #[inline]
    pub(crate) fn find(&self, hash: u64, is: impl FnMut(&T) -> bool) -> Option<&T> {
        self.segment_of(hash).table.find(hash, is)
    }

    /// The element of this hash for which `is` holds. Its hash must not be changed.
    #[inline]
    pub(crate) fn find_mut(&mut self, hash: u64, is: impl FnMut(&T) -> bool) -> Option<&mut T> {
        let id = self.directory[self.slot_of(order_of(hash))];
        self.segment_mut(id).table.find_mut(hash, is)
    }

    /// Adds an element that is not there yet.
    #[inline]
    pub(crate) fn insert_unique(&mut self, hash: u64, element: T, hash_of: impl Fn(&T) -> u64) {
        let order = order_of(hash);
        loop {
            let id = self.directory[self.slot_of(order)];
            let segment = self.segment_mut(id);
            if segment.table.len() < SEGMENT_MAX || segment.depth >= DEPTH_MAX {
                segment.table.insert_unique(hash, element, &hash_of);
                self.len += 1;
                return;
            }
            self.split(id, order, &hash_of);
        }
    }

    /// Takes the element of this hash for which `is` holds.
    #[inline]
    pub(crate) fn remove(
        &mut self,
        hash: u64,
        is: impl FnMut(&T) -> bool,
        hash_of: impl Fn(&T) -> u64,
    ) -> Option<T> {
        let order = order_of(hash);
        let id = self.directory[self.slot_of(order)];
        let segment = self.segment_mut(id);
        let element = segment.table.find_entry(hash, is).ok()?.remove().0;
        let (len, depth) = (segment.table.len(), segment.depth);
        self.len -= 1;
        if len <= MERGE_MAX / 2 && depth > 0 {
            self.merge(order, &hash_of);
        }
        Some(element)
    }

    /// All elements, in no order worth naming.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> + Clone {
        self.segments.iter().flatten().flat_map(|segment| segment.table.iter())
    }

    /// An element, each equally likely. `None` when there are none.
    pub(crate) fn random(&self, random: &mut impl Random) -> Option<&T> {
        if self.len == 0 {
            return None;
        }
        let last = self.segments.last().map_or(0, Vec::len);
        let ids = (self.segments.len() - 1) * CHUNK + last;
        loop {
            // Any bucket of any segment, empty or not, is as likely as any other: what is found first is fair.
            let id = random.below(ids) as u32;
            let table = &self.segment(id).table;
            let buckets =
                if ids == 1 { table.num_buckets() } else { table.num_buckets().max(SEGMENT_BUCKETS) };
            let bucket = random.below(buckets);
            if bucket < table.num_buckets()
                && let Some(element) = table.get_bucket(bucket)
            {
                return Some(element);
            }
        }
    }

    /// Calls `visit` with about `count` elements from `cursor` on (0 begins) and returns the cursor to go on with, 0 at the
    /// end. What is there from the first call to the last is visited at least once.
    pub(crate) fn scan<'a>(
        &'a self,
        cursor: u64,
        count: usize,
        hash_of: impl Fn(&T) -> u64,
        mut visit: impl FnMut(&'a T),
    ) -> u64 {
        let mut cursor = cursor;
        let mut wanted = count.max(1);
        let mut met: Vec<(u64, &T)> = Vec::new();
        while cursor < 1 << ORDER_BITS {
            let segment = self.segment(self.directory[self.slot_of(cursor)]);
            let span = ORDER_BITS - segment.depth;
            let end = ((cursor >> span) + 1) << span;
            met.clear();
            let orders = segment.table.iter().map(|element| (order_of(hash_of(element)), element));
            met.extend(orders.filter(|(order, _)| *order >= cursor));
            if met.len() > wanted {
                met.sort_unstable_by_key(|(order, _)| *order);
                let last = met[wanted - 1].0;
                // Elements of one order go together: a cursor cannot stand between them.
                met.iter().take_while(|(order, _)| *order <= last).for_each(|(_, element)| visit(element));
                return if last + 1 < 1 << ORDER_BITS { last + 1 } else { 0 };
            }
            met.iter().for_each(|(_, element)| visit(element));
            wanted -= met.len();
            cursor = end;
            if wanted == 0 {
                break;
            }
        }
        if cursor < 1 << ORDER_BITS { cursor } else { 0 }
    }

    /// Bytes allocated for tables and directory, without the elements' own.
    pub(crate) fn heap_bytes(&self) -> usize {
        let tables: usize =
            self.segments.iter().flatten().map(|segment| segment.table.allocation_size()).sum();
        let chunks: usize =
            self.segments.iter().map(|chunk| chunk.capacity() * size_of::<Segment<T>>()).sum();
        tables + chunks + self.directory.capacity() * 4 + self.free.capacity() * 4
    }

    fn add_segment(&mut self, segment: Segment<T>) -> u32 {
        if let Some(id) = self.free.pop() {
            *self.segment_mut(id) = segment;
            return id;
        }
        if self.segments.last().is_none_or(|chunk| chunk.len() == CHUNK) {
            self.segments.push(Vec::new());
        }
        let chunks = self.segments.len();
        let chunk = &mut self.segments[chunks - 1];
        chunk.push(segment);
        ((chunks - 1) * CHUNK + chunk.len() - 1) as u32
    }

    /// Splits a full segment, to which `order` belongs, by its next bit.
    #[cold]
    fn split(&mut self, id: u32, order: u64, hash_of: &impl Fn(&T) -> u64) {
        let depth = self.segment(id).depth + 1;
        if depth > self.depth {
            self.directory = self.directory.iter().flat_map(|id| [*id, *id]).collect();
            self.depth += 1;
        }
        let bit = 1u64 << (ORDER_BITS - depth);
        let empty = HashTable::with_capacity(SEGMENT_MAX);
        let segment = self.segment_mut(id);
        segment.depth = depth;
        let elements = std::mem::replace(&mut segment.table, empty);
        let mut upper = HashTable::with_capacity(SEGMENT_MAX);
        for element in elements {
            let hash = hash_of(&element);
            let half = if order_of(hash) & bit == 0 { &mut self.segment_mut(id).table } else { &mut upper };
            half.insert_unique(hash, element, hash_of);
        }
        let upper = self.add_segment(Segment { table: upper, depth });
        self.point((order | bit) & !(bit - 1), depth, upper);
    }

    /// Merges the segment to which `order` belongs with its sibling while both are nearly empty.
    #[cold]
    fn merge(&mut self, order: u64, hash_of: &impl Fn(&T) -> u64) {
        loop {
            let id = self.directory[self.slot_of(order)];
            let depth = self.segment(id).depth;
            if depth == 0 {
                return;
            }
            let bit = 1u64 << (ORDER_BITS - depth);
            let sibling = self.directory[self.slot_of(order ^ bit)];
            let other = self.segment(sibling);
            if other.depth != depth || other.table.len() + self.segment(id).table.len() > MERGE_MAX {
                return;
            }
            let gone = Segment { table: HashTable::new(), depth };
            let moved = std::mem::replace(self.segment_mut(sibling), gone).table;
            self.free.push(sibling);
            let segment = self.segment_mut(id);
            segment.depth = depth - 1;
            for element in moved {
                segment.table.insert_unique(hash_of(&element), element, hash_of);
            }
            self.point(order & !((bit << 1) - 1), depth - 1, id);
        }
    }

    /// Lets all directory entries of the range of `depth` bits that begins at `start` name segment `id`.
    fn point(&mut self, start: u64, depth: u32, id: u32) {
        let first = self.slot_of(start);
        let count = 1usize << (self.depth - depth);
        self.directory[first..first + count].fill(id);
    }

    /// The element of this hash for which `is` holds, or what to put in its place; true when it was put there.
    #[inline]
    pub(crate) fn insert_with(
        &mut self,
        hash: u64,
        is: impl Fn(&T) -> bool,
        make: impl FnOnce() -> T,
        hash_of: impl Fn(&T) -> u64,
    ) -> bool {
        let id = self.directory[self.slot_of(order_of(hash))];
        let segment = self.segment_mut(id);
        if segment.table.len() < SEGMENT_MAX {
            // One probe finds the element or the place for it.
            return match segment.table.entry(hash, is, &hash_of) {
                Entry::Occupied(_) => false,
                Entry::Vacant(vacant) => {
                    vacant.insert(make());
                    self.len += 1;
                    true
                }
            };
        }
        if segment.table.find(hash, is).is_some() {
            return false;
        }
        self.insert_unique(hash, make(), hash_of);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn hash(value: &u64) -> u64 {
        hash_of(&value.to_le_bytes())
    }

    fn filled(count: u64) -> Dict<u64> {
        let mut dict = Dict::with_capacity(0);
        for value in 0..count {
            assert!(dict.insert_with(hash(&value), |other| *other == value, || value, hash));
            assert!(!dict.insert_with(hash(&value), |other| *other == value, || value, hash));
        }
        dict
    }

    #[test]
    fn finds_what_was_put_in_and_nothing_else() {
        let mut dict = filled(50_000);
        assert_eq!(dict.len(), 50_000);
        assert!((0..50_000).all(|value| dict.find(hash(&value), |other| *other == value).is_some()));
        assert!(dict.find(hash(&50_000), |other| *other == 50_000).is_none());
        for value in 0..49_990 {
            assert_eq!(dict.remove(hash(&value), |other| *other == value, hash), Some(value));
        }
        assert_eq!(dict.iter().copied().collect::<HashSet<_>>(), (49_990..50_000).collect());
        let live = dict.segments.iter().flatten().count() - dict.free.len();
        assert_eq!(live, 1, "segments that empty merge again");
        for value in 0..10_000 {
            dict.insert_unique(hash(&value), value, hash);
        }
        assert_eq!(dict.len(), 10_010);
        assert_eq!(dict.iter().count(), 10_010);
    }

    #[test]
    fn a_scan_meets_everything_that_stays_while_the_table_grows_and_shrinks() {
        for count in [1, 7, 100, 1_000] {
            let mut dict = filled(5_000);
            let mut met = HashSet::new();
            let mut cursor = 0;
            let mut calls = 0u64;
            loop {
                cursor = dict.scan(cursor, count, hash, |value| {
                    met.insert(*value);
                });
                if cursor == 0 {
                    break;
                }
                calls += 1;
                // 0..1,000 stay. Others come, and later go.
                for step in 0..40 {
                    let value = 10_000 + calls * 40 + step;
                    if calls < 100 {
                        dict.insert_unique(hash(&value), value, hash);
                    }
                    let gone = 1_000 + (calls * 40 + step) % 4_000;
                    dict.remove(hash(&gone), |other| *other == gone, hash);
                }
            }
            assert!((0..1_000).all(|value| met.contains(&value)));
        }
    }

    #[test]
    fn an_undisturbed_scan_gives_each_element_once_and_about_as_many_as_asked() {
        let dict = filled(10_000);
        let mut met = Vec::new();
        let mut cursor = 0;
        loop {
            let before = met.len();
            cursor = dict.scan(cursor, 10, hash, |value| met.push(*value));
            assert!(met.len() - before <= 12);
            if cursor == 0 {
                break;
            }
        }
        assert_eq!(met.len(), 10_000);
        assert_eq!(met.into_iter().collect::<HashSet<_>>().len(), 10_000);
    }

    #[test]
    fn every_element_is_as_likely() {
        let dict = filled(1_000);
        let mut state = 1u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state.rotate_left(32) ^ state
        };
        let mut counts = vec![0u32; 1_000];
        for _ in 0..200_000 {
            counts[*dict.random(&mut random).expect("not empty") as usize] += 1;
        }
        // Poisson of mean 200: six deviations are 85.
        assert!(counts.iter().all(|count| (110..300).contains(count)), "{counts:?}");
    }
}
