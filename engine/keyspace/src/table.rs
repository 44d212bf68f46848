//! The hash table of one shard and database: linear hashing over 64-byte buckets of six entries.
//!
//! It grows and shrinks by one bucket at a time, so no command ever pays for a whole rehash, the load factor (and with
//! it the memory a key costs) does not depend on how many keys there are, and a scan cursor stays valid throughout.

use crate::entry::Entry;

const SLOTS: usize = 6;
/// Buckets are allocated in pages of this many, so that growth moves no bucket.
const PAGE_BUCKETS: usize = 64;
const MIN_LEVEL: u32 = 3;

/// Six entries, their tags and, when more fall here, the next bucket of the chain: one cache line.
#[repr(C, align(64))]
#[derive(Default)]
struct Bucket {
    /// The upper bits of each entry's hash, never 0; 0 marks a free slot. The last two bytes are always 0.
    tags: [u8; 8],
    slots: [Option<Entry>; SLOTS],
    next: Option<Box<Bucket>>,
}

const _: () = assert!(size_of::<Bucket>() == 64);

/// Entries by key hash. The caller computes hashes, always with the same function.
#[derive(Default)]
pub(crate) struct Table {
    pages: Vec<Box<[Bucket; PAGE_BUCKETS]>>,
    /// There are `2^level + split` buckets, or none while the table never held a key.
    level: u32,
    split: usize,
    len: usize,
}

#[inline]
fn tag_of(hash: u64) -> u8 {
    ((hash >> 56) as u8).max(1)
}

impl Bucket {
    /// The slots of this bucket whose tag is `tag`, as a mask with the top bit of byte i set for slot i. May name a
    /// slot too many (a borrow between bytes), never one too few; the keys decide.
    #[inline]
    fn candidates(&self, tag: u8) -> u64 {
        const LOW: u64 = 0x0000_0101_0101_0101;
        const HIGH: u64 = 0x0000_8080_8080_8080;
        let differing = u64::from_le_bytes(self.tags) ^ (LOW * u64::from(tag));
        differing.wrapping_sub(LOW) & !differing & HIGH
    }

    #[inline]
    fn find(&self, tag: u8, key: &[u8]) -> Option<usize> {
        let mut mask = self.candidates(tag);
        while mask != 0 {
            let slot = (mask.trailing_zeros() / 8) as usize;
            if self.slots[slot].as_ref().is_some_and(|entry| entry.key() == key) {
                return Some(slot);
            }
            mask &= mask - 1;
        }
        None
    }

    fn put(&mut self, tag: u8, entry: Entry) {
        let mut bucket = self;
        loop {
            if let Some(slot) = bucket.slots.iter().position(Option::is_none) {
                bucket.tags[slot] = tag;
                bucket.slots[slot] = Some(entry);
                return;
            }
            bucket = bucket.next.get_or_insert_default();
        }
    }

    fn take_chain(&mut self) -> Bucket {
        std::mem::take(self)
    }

    /// Moves every entry of this chain to where `place` wants it.
    fn drain_into(mut self, mut place: impl FnMut(u8, Entry)) {
        loop {
            for slot in 0..SLOTS {
                if let Some(entry) = self.slots[slot].take() {
                    place(self.tags[slot], entry);
                }
            }
            match self.next.take() {
                Some(next) => self = *next,
                None => return,
            }
        }
    }

    fn entries(&self) -> impl Iterator<Item = &Entry> {
        std::iter::successors(Some(self), |bucket| bucket.next.as_deref())
            .flat_map(|bucket| bucket.slots.iter().flatten())
    }
}

impl Table {
    /// How many entries there are.
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no entry.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn buckets(&self) -> usize {
        if self.pages.is_empty() { 0 } else { (1 << self.level) + self.split }
    }

    #[inline]
    fn index(&self, hash: u64) -> usize {
        let low = hash as usize & ((1 << self.level) - 1);
        if low < self.split { hash as usize & ((2 << self.level) - 1) } else { low }
    }

    #[inline]
    fn bucket(&self, index: usize) -> &Bucket {
        &self.pages[index / PAGE_BUCKETS][index % PAGE_BUCKETS]
    }

    #[inline]
    fn bucket_mut(&mut self, index: usize) -> &mut Bucket {
        &mut self.pages[index / PAGE_BUCKETS][index % PAGE_BUCKETS]
    }

    /// The entry of `key`.
    #[inline]
    #[must_use]
    pub(crate) fn get(&self, hash: u64, key: &[u8]) -> Option<&Entry> {
        if self.len == 0 {
            return None;
        }
        let tag = tag_of(hash);
        let mut bucket = self.bucket(self.index(hash));
        loop {
            if let Some(slot) = bucket.find(tag, key) {
                return bucket.slots[slot].as_ref();
            }
            bucket = bucket.next.as_deref()?;
        }
    }

    /// The entry of `key`, to change its value.
    #[inline]
    pub(crate) fn get_mut(&mut self, hash: u64, key: &[u8]) -> Option<&mut Entry> {
        if self.len == 0 {
            return None;
        }
        let tag = tag_of(hash);
        let index = self.index(hash);
        let mut bucket = self.bucket_mut(index);
        loop {
            if let Some(slot) = bucket.find(tag, key) {
                return bucket.slots[slot].as_mut();
            }
            bucket = bucket.next.as_deref_mut()?;
        }
    }

    /// The first entry with this hash for which `matches` holds: for callers that know the hash and not the key.
    #[must_use]
    pub(crate) fn find_by_hash(&self, hash: u64, matches: impl Fn(&Entry) -> bool) -> Option<&Entry> {
        if self.len == 0 {
            return None;
        }
        self.bucket(self.index(hash)).entries().find(|entry| matches(entry))
    }

    /// Puts an entry in and returns the one of the same key that it replaces. `hash_of` is the caller's hash function.
    pub(crate) fn insert(
        &mut self,
        hash: u64,
        entry: Entry,
        hash_of: impl Fn(&[u8]) -> u64,
    ) -> Option<Entry> {
        if let Some(old) = self.get_mut(hash, entry.key()) {
            return Some(std::mem::replace(old, entry));
        }
        self.insert_new(hash, entry, hash_of);
        None
    }

    /// Puts an entry in whose key the caller knows to be absent.
    pub(crate) fn insert_new(&mut self, hash: u64, entry: Entry, hash_of: impl Fn(&[u8]) -> u64) {
        debug_assert!(self.get(hash, entry.key()).is_none(), "the key is already there");
        if self.pages.is_empty() {
            self.pages.push(Box::new(std::array::from_fn(|_| Bucket::default())));
            self.level = MIN_LEVEL;
            self.split = 0;
        }
        // Nine entries for two buckets: 4.5 of six slots taken on average, so that about one bucket in six chains.
        if (self.len + 1) * 2 > self.buckets() * 9 {
            self.grow(hash_of);
        }
        let index = self.index(hash);
        self.bucket_mut(index).put(tag_of(hash), entry);
        self.len += 1;
    }

    /// Takes the entry of `key` out.
    pub(crate) fn remove(&mut self, hash: u64, key: &[u8]) -> Option<Entry> {
        if self.len == 0 {
            return None;
        }
        let tag = tag_of(hash);
        let index = self.index(hash);
        let mut bucket = self.bucket_mut(index);
        let entry = loop {
            if let Some(slot) = bucket.find(tag, key) {
                bucket.tags[slot] = 0;
                break bucket.slots[slot].take();
            }
            bucket = bucket.next.as_deref_mut()?;
        };
        let head = self.bucket_mut(index);
        if head.next.is_some() {
            compact(head);
        }
        self.len -= 1;
        // Far below the load at which it grows, so that a table swinging around one size does no work.
        if self.level > MIN_LEVEL && self.len < self.buckets() {
            self.shrink();
        }
        entry
    }

    /// Splits the next bucket in turn.
    fn grow(&mut self, hash_of: impl Fn(&[u8]) -> u64) {
        let target = self.buckets();
        if target / PAGE_BUCKETS == self.pages.len() {
            self.pages.push(Box::new(std::array::from_fn(|_| Bucket::default())));
        }
        let source = self.split;
        let high_bit = 1u64 << self.level;
        self.split += 1;
        if self.split == 1 << self.level {
            self.level += 1;
            self.split = 0;
        }
        let chain = self.bucket_mut(source).take_chain();
        chain.drain_into(|tag, entry| {
            let index = if hash_of(entry.key()) & high_bit == 0 { source } else { target };
            self.bucket_mut(index).put(tag, entry);
        });
    }

    /// Merges the last bucket back into the one it was split from.
    fn shrink(&mut self) {
        if self.split == 0 {
            self.level -= 1;
            self.split = 1 << self.level;
        }
        self.split -= 1;
        let (source, target) = ((1 << self.level) + self.split, self.split);
        let chain = self.bucket_mut(source).take_chain();
        chain.drain_into(|tag, entry| self.bucket_mut(target).put(tag, entry));
        // One page is kept in reserve, so that a size that swings around a page's edge does not allocate each time.
        if self.pages.len() > source.div_ceil(PAGE_BUCKETS) + 1 {
            self.pages.pop();
        }
    }

    /// All entries, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Entry> {
        (0..self.buckets()).flat_map(|index| self.bucket(index).entries())
    }

    /// Visits the entries at `cursor` and returns the next cursor, 0 at the end. An entry that is there from the first
    /// call to the last is visited at least once, however the table grows or shrinks in between: the cursor counts in
    /// the upper bits first (reversed), which orders buckets by what a split keeps together.
    pub(crate) fn scan(&self, cursor: u64, mut visit: impl FnMut(&Entry)) -> u64 {
        if self.pages.is_empty() {
            return 0;
        }
        let mut mask = (1u64 << self.level) - 1;
        let mut index = (cursor & mask) as usize;
        if index < self.split {
            mask = mask << 1 | 1;
            index = (cursor & mask) as usize;
        }
        self.bucket(index).entries().for_each(&mut visit);
        (cursor | !mask).reverse_bits().wrapping_add(1).reverse_bits()
    }

    /// An entry chosen by `random`; not quite evenly, as a bucket is chosen first.
    #[must_use]
    pub(crate) fn sample(&self, mut random: impl FnMut() -> u64) -> Option<&Entry> {
        if self.len == 0 {
            return None;
        }
        loop {
            let bucket = self.bucket((random() % self.buckets() as u64) as usize);
            let count = bucket.entries().count();
            if count > 0 {
                return bucket.entries().nth((random() % count as u64) as usize);
            }
        }
    }
}

/// Fills holes at the front of a chain from its end and lets the empty tail go.
fn compact(head: &mut Bucket) {
    let chain = head.take_chain();
    chain.drain_into(|tag, entry| head.put(tag, entry));
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashMap};

    use super::*;

    fn hash(key: &[u8]) -> u64 {
        key.iter()
            .fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3))
            .rotate_left(17)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    fn next(state: &mut u64) -> u64 {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *state >> 33
    }

    #[test]
    fn behaves_as_a_map_through_growth_and_shrinking() {
        let (mut table, mut model, mut state) = (Table::default(), HashMap::new(), 1);
        for round in 0..30_000u64 {
            // Rises to some thousands of keys, then falls back to few.
            let span = if round < 15_000 { 6_000 } else { 40 };
            let key = format!("key:{}", next(&mut state) % 6_000).into_bytes();
            if next(&mut state) % 6_000 < span {
                let value = round.to_string().into_bytes();
                let old = table.insert(hash(&key), Entry::string(&key, &value, None), hash);
                assert_eq!(old.map(|e| e.as_str().unwrap().to_vec()), model.insert(key, value));
            } else {
                let old = table.remove(hash(&key), &key);
                assert_eq!(old.map(|e| e.as_str().unwrap().to_vec()), model.remove(&key));
            }
            assert_eq!(table.len(), model.len());
        }
        assert_eq!(table.iter().count(), model.len());
        for (key, value) in &model {
            assert_eq!(table.get(hash(key), key).and_then(Entry::as_str), Some(&value[..]));
        }
    }

    #[test]
    fn a_scan_misses_nothing_that_stays_while_the_table_grows_or_shrinks() {
        for growing in [true, false] {
            let (mut table, mut seen, mut cursor) = (Table::default(), BTreeSet::new(), 0);
            let stays: Vec<Vec<u8>> = (0..500).map(|i| format!("stays:{i}").into_bytes()).collect();
            let comes: Vec<Vec<u8>> = (0..5_000).map(|i| format!("comes:{i}").into_bytes()).collect();
            for key in stays.iter().chain(comes.iter().filter(|_| !growing)) {
                table.insert(hash(key), Entry::string(key, b"", None), hash);
            }
            let mut turn = comes.iter();
            loop {
                cursor = table.scan(cursor, |entry| {
                    seen.insert(entry.key().to_vec());
                });
                if cursor == 0 {
                    break;
                }
                for key in turn.by_ref().take(9) {
                    if growing {
                        table.insert(hash(key), Entry::string(key, b"", None), hash);
                    } else {
                        table.remove(hash(key), key);
                    }
                }
            }
            assert!(stays.iter().all(|key| seen.contains(key)));
        }
    }
}
