//! The hash table of one shard and database: linear hashing over 64-byte buckets of seven entries.
//!
//! It grows and shrinks by one bucket at a time, so no command ever pays for a whole rehash, the load factor (and with
//! it the memory a key costs) does not depend on how many keys there are, and a scan cursor stays valid throughout.
//!
//! Each entry carries 16 bits of its hash as a tag in its pointer: a look-up touches no entry whose tag differs, and a
//! split none at all, as a rule. For that the tag begins at or below the hash's bit that the next split goes by; since
//! those bits tell less and less apart, it moves up by eight bits at every eighth doubling (see [`tag_base`]).

use crate::entry::Entry;
use crate::prefetch::prefetch;
use crate::spill::Spill;

const SLOTS: usize = 7;
/// Buckets are allocated in pages of this many, so that growth moves no bucket; only the first page begins with few.
const PAGE_BUCKETS: usize = 64;
const MIN_LEVEL: u32 = 3;
/// Halves of an entry per bucket above which the table grows: at 6.5 entries a bucket the table costs 11 bytes a key
/// and one key in six lies in a spill, one cache line further away.
const GROW_HALVES: usize = 13;
/// Halves of an entry per bucket below which it shrinks: so far down that a table swinging around one size does no work.
const SHRINK_HALVES: usize = 9;

/// Seven entries and, when more fall here, the rest of them: one cache line.
#[repr(C, align(64))]
#[derive(Default)]
struct Bucket {
    slots: [Option<Entry>; SLOTS],
    /// Has entries only while every slot is taken.
    spill: Spill,
}

const _: () = assert!(size_of::<Bucket>() == 64);

/// Where an entry lies: found once, it is reached again without a search, as long as the table does not change.
#[derive(Clone, Copy, Debug)]
pub struct Spot {
    bucket: usize,
    /// Its slot, or behind the slots its place in the spill.
    at: usize,
}

/// Entries by key hash. The caller computes hashes, always with the same function.
#[derive(Default)]
pub(crate) struct Table {
    pages: Vec<Box<[Bucket]>>,
    /// There are `2^level + split` buckets, or none while the table never held a key.
    level: u32,
    split: usize,
    len: usize,
}

fn new_page(buckets: usize) -> Box<[Bucket]> {
    (0..buckets).map(|_| Bucket::default()).collect()
}

/// Where in the hash the tags begin of a bucket that the lowest `level` bits of the hash name: at bit `level`, by which
/// the bucket will be split, or up to seven bits below, which leaves nine or more that tell its entries apart.
#[inline]
fn tag_base(level: u32) -> u32 {
    ((level + 2) & !7).saturating_sub(2).max(MIN_LEVEL)
}

#[inline]
fn tag_at(hash: u64, level: u32) -> u16 {
    (hash >> tag_base(level)) as u16
}

impl Bucket {
    /// The slots whose tag is `tag`, bit i set for slot i. A free slot counts as 0; the keys decide.
    #[inline]
    fn candidates(&self, tag: u16) -> u32 {
        let mut mask = 0;
        for (at, slot) in self.slots.iter().enumerate() {
            let there = slot.as_ref().map_or(0, Entry::tag);
            mask |= u32::from(there == tag) << at;
        }
        mask
    }

    #[inline]
    fn find(&self, tag: u16, key: &[u8]) -> Option<usize> {
        let mut mask = self.candidates(tag);
        while mask != 0 {
            let slot = mask.trailing_zeros() as usize;
            if self.slots[slot].as_ref().is_some_and(|entry| entry.key() == key) {
                return Some(slot);
            }
            mask &= mask - 1;
        }
        None
    }

    #[inline]
    fn find_spilled(&self, tag: u16, key: &[u8]) -> Option<usize> {
        self.spill.as_slice().iter().position(|entry| entry.tag() == tag && entry.key() == key)
    }

    #[inline]
    fn get(&self, tag: u16, key: &[u8]) -> Option<&Entry> {
        match self.find(tag, key) {
            Some(slot) => self.slots[slot].as_ref(),
            None => self.find_spilled(tag, key).map(|at| &self.spill.as_slice()[at]),
        }
    }

    #[inline]
    fn get_mut(&mut self, tag: u16, key: &[u8]) -> Option<&mut Entry> {
        match self.find(tag, key) {
            Some(slot) => self.slots[slot].as_mut(),
            None => self.find_spilled(tag, key).map(|at| &mut self.spill.as_mut_slice()[at]),
        }
    }

    /// Puts an entry in that carries its tag.
    #[inline]
    fn put(&mut self, entry: Entry) {
        match self.slots.iter_mut().find(|slot| slot.is_none()) {
            Some(slot) => *slot = Some(entry),
            None => self.spill.push(entry),
        }
    }

    fn remove(&mut self, tag: u16, key: &[u8]) -> Option<Entry> {
        if let Some(slot) = self.find(tag, key) {
            let refill = self.spill.pop();
            return std::mem::replace(&mut self.slots[slot], refill);
        }
        self.find_spilled(tag, key).map(|at| self.spill.swap_remove(at))
    }

    /// Takes every entry out.
    fn drain(mut self, mut place: impl FnMut(Entry)) {
        self.slots.iter_mut().filter_map(Option::take).for_each(&mut place);
        while let Some(entry) = self.spill.pop() {
            place(entry);
        }
    }

    /// Turns the tags of bucket `index` into those that `level` asks for, one below its own: the bits of the hash that
    /// they lack are the bucket's number.
    fn lower_tags(&mut self, index: usize, level: u32) {
        let (base, lower) = (tag_base(level + 1), tag_base(level));
        if base == lower {
            return;
        }
        let missing = (index >> lower) as u16;
        self.entries_mut().for_each(|entry| entry.set_tag(entry.tag() << (base - lower) | missing));
    }

    fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.slots.iter().flatten().chain(self.spill.as_slice())
    }

    fn entries_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.slots.iter_mut().flatten().chain(self.spill.as_mut_slice())
    }
}

impl Table {
    /// The bytes of its buckets, those that more entries spilled into not counted.
    pub(crate) fn bytes(&self) -> usize {
        self.pages.iter().map(|page| size_of_val(&**page)).sum()
    }

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

    /// The bucket of a hash, and how many of the hash's lowest bits name it.
    #[inline]
    fn place(&self, hash: u64) -> (usize, u32) {
        let low = hash as usize & ((1 << self.level) - 1);
        if low < self.split {
            (hash as usize & ((2 << self.level) - 1), self.level + 1)
        } else {
            (low, self.level)
        }
    }

    #[inline]
    fn bucket(&self, index: usize) -> &Bucket {
        &self.pages[index / PAGE_BUCKETS][index % PAGE_BUCKETS]
    }

    #[inline]
    fn bucket_mut(&mut self, index: usize) -> &mut Bucket {
        &mut self.pages[index / PAGE_BUCKETS][index % PAGE_BUCKETS]
    }

    /// Asks for the bucket of a hash to be brought near.
    #[inline]
    pub(crate) fn prefetch_bucket(&self, hash: u64) {
        if self.len > 0 {
            prefetch(self.bucket(self.place(hash).0), 0);
        }
    }

    /// Asks for the entries that a hash may mean to be brought near. Reads their bucket, so that should be near already.
    #[inline]
    pub(crate) fn prefetch_entries(&self, hash: u64) {
        if self.len == 0 {
            return;
        }
        let (index, level) = self.place(hash);
        let bucket = self.bucket(index);
        let mut mask = bucket.candidates(tag_at(hash, level));
        while mask != 0 {
            if let Some(entry) = &bucket.slots[mask.trailing_zeros() as usize] {
                entry.prefetch();
            }
            mask &= mask - 1;
        }
    }

    /// The entry of `key`.
    #[inline]
    #[must_use]
    pub(crate) fn get(&self, hash: u64, key: &[u8]) -> Option<&Entry> {
        if self.len == 0 {
            return None;
        }
        let (index, level) = self.place(hash);
        self.bucket(index).get(tag_at(hash, level), key)
    }

    /// The entry of `key`, to change its value. Always inlined: every SET of a key that is there goes through it, and what
    /// the compiler thinks of its size depends on its callers.
    #[inline(always)]
    pub(crate) fn get_mut(&mut self, hash: u64, key: &[u8]) -> Option<&mut Entry> {
        if self.len == 0 {
            return None;
        }
        let (index, level) = self.place(hash);
        self.bucket_mut(index).get_mut(tag_at(hash, level), key)
    }

    /// Where the entry of `key` lies.
    #[inline]
    pub(crate) fn locate(&self, hash: u64, key: &[u8]) -> Option<Spot> {
        if self.len == 0 {
            return None;
        }
        let (index, level) = self.place(hash);
        let (bucket, tag) = (self.bucket(index), tag_at(hash, level));
        let at = bucket.find(tag, key).or_else(|| bucket.find_spilled(tag, key).map(|at| SLOTS + at))?;
        Some(Spot { bucket: index, at })
    }

    /// The entry that lies there. The table must not have changed since it was located.
    #[inline]
    pub(crate) fn entry(&self, spot: Spot) -> Option<&Entry> {
        let bucket = self.bucket(spot.bucket);
        match bucket.slots.get(spot.at) {
            Some(slot) => slot.as_ref(),
            None => bucket.spill.as_slice().get(spot.at - SLOTS),
        }
    }

    /// As [`Table::entry`], to change it.
    #[inline]
    pub(crate) fn entry_mut(&mut self, spot: Spot) -> Option<&mut Entry> {
        let bucket = self.bucket_mut(spot.bucket);
        match bucket.slots.get_mut(spot.at) {
            Some(slot) => slot.as_mut(),
            None => bucket.spill.as_mut_slice().get_mut(spot.at - SLOTS),
        }
    }

    /// The first entry whose hash ends in these bits, for which `matches` holds: for callers that do not know the key.
    #[must_use]
    pub(crate) fn find_by_bits(
        &self,
        low: u64,
        bits: u32,
        matches: impl Fn(&Entry) -> bool,
    ) -> Option<&Entry> {
        if self.len == 0 {
            return None;
        }
        // Only a table of more buckets than the bits can name has more than one to look at.
        (0..1 << (self.level + 1).saturating_sub(bits)).find_map(|high: u64| {
            let hash = high << bits | low;
            let (index, level) = self.place(hash);
            let known = bits.saturating_sub(tag_base(level)).min(u16::BITS);
            let mask = ((1u32 << known) - 1) as u16;
            self.bucket(index)
                .entries()
                .find(|entry| (entry.tag() ^ tag_at(hash, level)) & mask == 0 && matches(entry))
        })
    }

    /// Lays out the buckets for so many entries at once, where there are none yet: filling them then splits none.
    pub(crate) fn reserve(&mut self, entries: usize) {
        if !self.pages.is_empty() {
            return;
        }
        let buckets = (entries * 2).div_ceil(GROW_HALVES).max(1 << MIN_LEVEL);
        self.level = buckets.ilog2();
        self.split = buckets - (1 << self.level);
        self.pages = (0..buckets.div_ceil(PAGE_BUCKETS)).map(|_| new_page(PAGE_BUCKETS)).collect();
    }

    /// Puts an entry in and returns the one of the same key that it replaces. `hash_of` is the caller's hash function.
    pub(crate) fn insert(
        &mut self,
        hash: u64,
        entry: Entry,
        hash_of: impl Fn(&[u8]) -> u64,
    ) -> Option<Entry> {
        if let Some(old) = self.get_mut(hash, entry.key()) {
            let tag = old.tag();
            let replaced = std::mem::replace(old, entry);
            old.set_tag(tag);
            return Some(replaced);
        }
        self.insert_new(hash, entry, hash_of);
        None
    }

    /// Puts an entry in whose key the caller knows to be absent.
    pub(crate) fn insert_new(&mut self, hash: u64, mut entry: Entry, hash_of: impl Fn(&[u8]) -> u64) {
        debug_assert!(self.get(hash, entry.key()).is_none(), "the key is already there");
        if self.pages.is_empty() {
            self.pages.push(new_page(1 << MIN_LEVEL));
            self.level = MIN_LEVEL;
            self.split = 0;
        }
        if (self.len + 1) * 2 > self.buckets() * GROW_HALVES {
            self.grow(hash_of);
        }
        let (index, level) = self.place(hash);
        entry.set_tag(tag_at(hash, level));
        self.bucket_mut(index).put(entry);
        self.len += 1;
    }

    /// Takes the entry of `key` out.
    pub(crate) fn remove(&mut self, hash: u64, key: &[u8]) -> Option<Entry> {
        if self.len == 0 {
            return None;
        }
        let (index, level) = self.place(hash);
        let entry = self.bucket_mut(index).remove(tag_at(hash, level), key)?;
        self.len -= 1;
        if self.level > MIN_LEVEL && self.len * 2 < self.buckets() * SHRINK_HALVES {
            self.shrink();
        }
        Some(entry)
    }

    /// Makes sure that a bucket is there, that follows the last one.
    fn lay_out(&mut self, bucket: usize) {
        if bucket / PAGE_BUCKETS == self.pages.len() {
            self.pages.push(new_page(PAGE_BUCKETS));
        } else if let [first] = &mut self.pages[..]
            && bucket == first.len()
        {
            let more = first.len();
            let buckets = std::mem::take(first).into_iter().chain((0..more).map(|_| Bucket::default()));
            *first = buckets.collect();
        }
    }

    /// Splits the next bucket in turn.
    fn grow(&mut self, hash_of: impl Fn(&[u8]) -> u64) {
        let target = self.buckets();
        self.lay_out(target);
        let (source, level) = (self.split, self.level);
        self.split += 1;
        if self.split == 1 << self.level {
            self.level += 1;
            self.split = 0;
        }
        let (base, next_base) = (tag_base(level), tag_base(level + 1));
        std::mem::take(self.bucket_mut(source)).drain(|mut entry| {
            let index = if entry.tag() >> (level - base) & 1 == 0 { source } else { target };
            if base != next_base {
                entry.set_tag(tag_at(hash_of(entry.key()), level + 1));
            }
            self.bucket_mut(index).put(entry);
        });
    }

    /// Merges the last bucket back into the one it was split from.
    fn shrink(&mut self) {
        if self.split == 0 {
            self.level -= 1;
            self.split = 1 << self.level;
        }
        self.split -= 1;
        let (source, target, level) = ((1 << self.level) + self.split, self.split, self.level);
        let mut merged = std::mem::take(self.bucket_mut(source));
        merged.lower_tags(source, level);
        self.bucket_mut(target).lower_tags(target, level);
        merged.drain(|entry| self.bucket_mut(target).put(entry));
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

    /// Visits up to `count` random entries that are `wanted`, all or some of a random bucket and then of another; at least
    /// one where there is any. An entry may be met twice.
    pub(crate) fn sample_some(
        &self,
        count: usize,
        mut random: impl FnMut() -> u64,
        wanted: impl Fn(&Entry) -> bool,
        mut visit: impl FnMut(&Entry),
    ) {
        /// More buckets than that for each entry are not worth looking at.
        const TRIES: usize = 16;
        if self.len == 0 {
            return;
        }
        let (buckets, mut left) = (self.buckets(), count);
        let mut at = 0;
        for step in 0..count * TRIES + buckets {
            if step < count * TRIES {
                at = (random() % buckets as u64) as usize;
            } else if left < count {
                break;
            } else {
                // Nothing yet: then one bucket after the other.
                at = (at + 1) % buckets;
            }
            let entries = || self.bucket(at).entries().filter(|entry| wanted(entry));
            let found = entries().count();
            if found == 0 {
                continue;
            }
            let (taken, skip) = (found.min(left), (random() % found as u64) as usize);
            entries().skip(skip).chain(entries().take(skip)).take(taken).for_each(&mut visit);
            left -= taken;
            if left == 0 {
                break;
            }
        }
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

    /// Every entry lies where its hash says, with the tag of its bucket, and spills hold only what finds no slot.
    fn check(table: &Table) {
        for index in 0..table.buckets() {
            let bucket = table.bucket(index);
            assert!(bucket.spill.is_empty() || bucket.slots.iter().all(Option::is_some));
            for entry in bucket.entries() {
                let (expected, level) = table.place(hash(entry.key()));
                assert_eq!((index, entry.tag()), (expected, tag_at(hash(entry.key()), level)));
            }
        }
        assert_eq!(table.iter().count(), table.len());
    }

    #[test]
    fn tags_hold_the_bit_of_the_next_split_and_tell_apart_by_eight_bits_or_more() {
        for level in MIN_LEVEL..40 {
            let base = tag_base(level);
            assert!(level >= base && level - base < 8, "level {level}: tags begin at {base}");
            assert!(
                tag_base(level + 1) - base <= 8
                    && (tag_base(level + 1) == base || tag_base(level + 1) == level + 1)
            );
        }
    }

    #[test]
    fn every_entry_stays_in_its_place_while_the_table_grows_far_and_shrinks_back() {
        let mut table = Table::default();
        // Past level 14, where the tags of all entries move for the second time.
        let keys: Vec<Vec<u8>> = (0..130_000).map(|i| format!("key:{i}").into_bytes()).collect();
        for (at, key) in keys.iter().enumerate() {
            table.insert_new(hash(key), Entry::string(key, b"", None), hash);
            if at.is_power_of_two() {
                check(&table);
            }
        }
        check(&table);
        assert!(table.level > 13, "the test no longer reaches what it is for");
        for (at, key) in keys.iter().enumerate() {
            assert!(table.remove(hash(key), key).is_some_and(|entry| entry.key() == key));
            if (keys.len() - at).is_power_of_two() {
                check(&table);
            }
        }
        assert!(table.is_empty() && table.level == MIN_LEVEL && table.pages.len() <= 2);
    }

    #[test]
    fn keys_whose_hashes_agree_are_told_apart() {
        let same = |_: &[u8]| 7;
        let mut table = Table::default();
        for n in 0..200u8 {
            assert!(table.insert(7, Entry::string(&[n], &[n], None), same).is_none());
        }
        for n in (0..200u8).filter(|n| n % 3 == 0) {
            assert_eq!(table.remove(7, &[n]).map(|entry| entry.key().to_vec()), Some(vec![n]));
        }
        for n in 0..200u8 {
            assert_eq!(table.get(7, &[n]).and_then(Entry::as_str), (n % 3 != 0).then_some(&[n][..]));
        }
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
            if round % 1_000 == 0 {
                check(&table);
            }
        }
        check(&table);
        assert_eq!(table.iter().count(), model.len());
        for (key, value) in &model {
            assert_eq!(table.get(hash(key), key).and_then(Entry::as_str), Some(&value[..]));
        }
    }

    #[test]
    fn a_table_laid_out_beforehand_is_the_one_that_grows() {
        for reserved in [0, 1, 36, 37, 500, 5_000] {
            let (mut table, mut grown) = (Table::default(), Table::default());
            table.reserve(reserved);
            let laid_out = table.buckets();
            for number in 0..2_000 {
                let key = format!("key:{number}").into_bytes();
                table.insert(hash(&key), Entry::string(&key, b"", None), hash);
                grown.insert(hash(&key), Entry::string(&key, b"", None), hash);
            }
            assert_eq!(table.buckets(), grown.buckets().max(laid_out));
            table.reserve(1);
            assert_eq!((table.len(), table.iter().count()), (2_000, 2_000));
            for number in 0..2_000 {
                let key = format!("key:{number}").into_bytes();
                assert!(table.remove(hash(&key), &key).is_some());
            }
            assert!(table.is_empty());
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
