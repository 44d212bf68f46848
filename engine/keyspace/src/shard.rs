//! One shard: a slice of every database's keys behind one lock.

use std::collections::HashMap;
use std::sync::Arc;

use crate::entry::Entry;
use crate::expiries::{Expiries, HASH_BITS, Place};
use crate::table::{Spot, Table};
use crate::undurable::Undurable;
use crate::waiting::{Awaited, Ready, Ticket, Waiter, Waiting};
use crate::{KeyHash, Object};

/// The keys of one database that fall into one shard, and when they expire.
#[derive(Default)]
pub struct Database {
    table: Table,
    /// The places of all keys that expire.
    expiries: Expiries,
    expiring: usize,
    /// The places of all hashes with fields that expire, each at its next moment.
    field_expiries: Expiries,
}

/// A slice of the keyspace: every database's keys whose hash falls here.
pub struct Shard {
    databases: Box<[Database]>,
    /// Key hashes with effects that are not durable yet; see [`Undurable`].
    pub undurable: Undurable,
    watched: HashMap<(u16, Box<[u8]>), Watched>,
    /// Nothing where nobody waits.
    waiting: Option<Box<Waiting>>,
}

#[derive(Default)]
struct Watched {
    watchers: u32,
    version: u64,
}

impl Shard {
    pub(crate) fn new(databases: u16) -> Self {
        let databases = (0..databases).map(|_| Database::default()).collect();
        Self { databases, undurable: Undurable::default(), watched: HashMap::new(), waiting: None }
    }

    /// How many databases there are.
    #[must_use]
    pub fn databases(&self) -> u16 {
        self.databases.len() as u16
    }

    /// One database's part of this shard.
    #[inline]
    #[must_use]
    pub fn database(&self, db: u16) -> &Database {
        &self.databases[usize::from(db)]
    }

    /// One database's part of this shard, to change it.
    #[inline]
    pub fn database_mut(&mut self, db: u16) -> &mut Database {
        &mut self.databases[usize::from(db)]
    }

    /// Exchanges the contents of two databases.
    pub fn swap(&mut self, a: u16, b: u16) {
        self.databases.swap(usize::from(a), usize::from(b));
    }

    /// Starts to watch a key for changes; returns the version to compare with later.
    pub fn watch(&mut self, db: u16, key: &[u8]) -> u64 {
        let watched = self.watched.entry((db, key.into())).or_default();
        watched.watchers += 1;
        watched.version
    }

    /// The version of a watched key now.
    #[must_use]
    pub fn watched_version(&self, db: u16, key: &[u8]) -> u64 {
        self.watched.get(&(db, key.into())).map_or(0, |watched| watched.version)
    }

    /// The keys that are watched in these databases.
    pub fn watched_in(&self, databases: [u16; 2]) -> impl Iterator<Item = &[u8]> {
        self.watched.keys().filter(move |(db, _)| databases.contains(db)).map(|(_, key)| &key[..])
    }

    /// Ends one watch of a key.
    pub fn unwatch(&mut self, db: u16, key: &[u8]) {
        let id = (db, key.into());
        if let Some(watched) = self.watched.get_mut(&id) {
            watched.watchers -= 1;
            if watched.watchers == 0 {
                self.watched.remove(&id);
            }
        }
    }

    /// Notes that a key changed, for those who watch it or wait for it.
    #[inline]
    pub fn touch(&mut self, db: u16, key: &[u8]) {
        if self.waiting.is_some() || !self.watched.is_empty() {
            self.tell_of_change(db, key);
        }
    }

    #[cold]
    fn tell_of_change(&mut self, db: u16, key: &[u8]) {
        if let Some(waiting) = &mut self.waiting {
            waiting.note_change(db, key);
        }
        if let Some(watched) = self.watched.get_mut(&(db, key.into())) {
            watched.version += 1;
        }
    }

    /// Notes that every watched key of a database changed that is there, and every key that somebody waits for.
    pub fn touch_all(&mut self, db: u16, hash_of: impl Fn(&[u8]) -> u64) {
        if let Some(waiting) = &mut self.waiting {
            waiting.note_change_of_all(db);
        }
        let table = &self.databases[usize::from(db)].table;
        for ((_, key), watched) in self.watched.iter_mut().filter(|((of, _), _)| *of == db) {
            if table.get(hash_of(key), key).is_some() {
                watched.version += 1;
            }
        }
    }

    /// Queues a waiter at a key; false when it stands there already.
    pub fn await_key(&mut self, hash: KeyHash, key: &[u8], ticket: Ticket) -> bool {
        self.waiting.get_or_insert_default().add(hash, key, ticket)
    }

    /// Takes a waiter out of the queue of a key, where it still is there.
    pub fn end_await(&mut self, hash: KeyHash, key: &[u8], awaited: Awaited, waiter: &Waiter) {
        let Some(waiting) = &mut self.waiting else { return };
        waiting.remove(hash, key, awaited, waiter);
        if waiting.is_empty() {
            self.waiting = None;
        }
    }

    /// The first who waits for a key behind the one that arrived as number `after`.
    #[must_use]
    pub fn next_waiter(&self, db: u16, key: &[u8], awaited: Awaited, after: u64) -> Option<Arc<Ticket>> {
        self.waiting.as_ref()?.next(db, key, awaited, after)
    }

    /// Whether a key has changed that somebody waits for.
    #[inline]
    #[must_use]
    pub fn has_ready(&self) -> bool {
        self.waiting.as_ref().is_some_and(|waiting| waiting.has_ready())
    }

    /// Hands out the keys that have changed and that somebody waits for.
    pub fn take_ready(&mut self) -> Vec<Ready> {
        self.waiting.as_mut().map_or_else(Vec::new, |waiting| waiting.take_ready())
    }

    /// Notes that everybody who waits for a key has been looked at as it is now.
    pub fn settle_ready(&mut self, db: u16, key: &[u8]) {
        if let Some(waiting) = &mut self.waiting {
            waiting.settle(db, key);
        }
    }

    /// Whether anybody waits for a key here and needs another one too.
    #[inline]
    #[must_use]
    pub fn has_destinations(&self) -> bool {
        self.waiting.as_ref().is_some_and(|waiting| waiting.has_destinations())
    }

    /// The other keys that those need who wait for one.
    #[must_use]
    pub fn destinations(&self, hash: KeyHash) -> &[KeyHash] {
        self.waiting.as_ref().map_or(&[], |waiting| waiting.destinations(hash))
    }
}

impl Database {
    /// How many keys there are, expired ones not yet removed included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there is no key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// How many of the keys have an expiry.
    #[must_use]
    pub fn expiring(&self) -> usize {
        self.expiring
    }

    /// Asks for what look-ups of these hashes will read to be brought near, for all at once.
    pub fn prefetch(&self, hashes: impl Iterator<Item = u64> + Clone) {
        hashes.clone().for_each(|hash| self.prefetch_bucket(hash));
        hashes.for_each(|hash| self.prefetch_entries(hash));
    }

    /// Asks for the bucket of a hash to be brought near.
    #[inline]
    pub(crate) fn prefetch_bucket(&self, hash: u64) {
        self.table.prefetch_bucket(hash);
    }

    /// Asks for the entries that a hash may mean to be brought near, once their bucket is.
    #[inline]
    pub(crate) fn prefetch_entries(&self, hash: u64) {
        self.table.prefetch_entries(hash);
    }

    /// The entry of `key`, expired or not.
    #[inline]
    #[must_use]
    pub fn get(&self, hash: u64, key: &[u8]) -> Option<&Entry> {
        self.table.get(hash, key)
    }

    /// The entry of `key`, to change its value. Whoever changes when the fields of a hash expire calls
    /// [`Database::reindex_fields`].
    #[inline]
    pub fn get_mut(&mut self, hash: u64, key: &[u8]) -> Option<&mut Entry> {
        self.table.get_mut(hash, key)
    }

    /// Where the entry of `key` lies, expired or not.
    #[inline]
    #[must_use]
    pub fn locate(&self, hash: u64, key: &[u8]) -> Option<Spot> {
        self.table.locate(hash, key)
    }

    /// The entry that lies there; nothing may have changed since it was located.
    #[inline]
    #[must_use]
    pub fn entry(&self, spot: Spot) -> Option<&Entry> {
        self.table.entry(spot)
    }

    /// As [`Database::entry`], to change its value.
    #[inline]
    pub fn entry_mut(&mut self, spot: Spot) -> Option<&mut Entry> {
        self.table.entry_mut(spot)
    }

    /// Makes room for so many keys at once, where there are none yet.
    pub fn reserve(&mut self, keys: usize) {
        self.table.reserve(keys);
    }

    /// Puts an entry in; returns the one of the same key that it replaces.
    #[inline]
    pub fn insert(&mut self, hash: u64, entry: Entry, hash_of: impl Fn(&[u8]) -> u64) -> Option<Entry> {
        let (at, fields_at) = (entry.expire_at_ms(), entry.fields_expire_at_ms());
        let old = self.table.insert(hash, entry, hash_of);
        self.reindex(hash, old.as_ref().and_then(Entry::expire_at_ms), at);
        self.reindex_fields(hash, old.as_ref().and_then(Entry::fields_expire_at_ms), fields_at);
        old
    }

    /// Sets a string value: in place where the key is there. `expire_at_ms` is the expiry from now on; `record` says what
    /// is to be recorded of its uses, given what was where the key was there. Returns whether the key is new.
    #[inline]
    pub fn set_string(
        &mut self,
        hash: u64,
        key: &[u8],
        value: &[u8],
        expire_at_ms: Option<i64>,
        hash_of: impl Fn(&[u8]) -> u64,
        record: impl FnOnce(Option<u32>) -> u32,
    ) -> bool {
        let Some(entry) = self.table.get_mut(hash, key) else {
            let mut entry = Entry::string(key, value, expire_at_ms);
            entry.set_clock(record(None));
            self.table.insert_new(hash, entry, hash_of);
            self.reindex(hash, None, expire_at_ms);
            return true;
        };
        let (before, fields_before) = (entry.expire_at_ms(), entry.fields_expire_at_ms());
        entry.set_string(value);
        entry.set_clock(record(Some(entry.clock())));
        if before != expire_at_ms {
            entry.set_expire_at_ms(expire_at_ms);
            self.reindex(hash, before, expire_at_ms);
        }
        self.reindex_fields(hash, fields_before, None);
        false
    }

    /// Takes the entry of `key` out.
    #[inline]
    pub fn remove(&mut self, hash: u64, key: &[u8]) -> Option<Entry> {
        let entry = self.table.remove(hash, key)?;
        self.reindex(hash, entry.expire_at_ms(), None);
        self.reindex_fields(hash, entry.fields_expire_at_ms(), None);
        Some(entry)
    }

    /// Sets or clears the expiry of `key`; false when there is no such key.
    pub fn set_expire_at_ms(&mut self, hash: u64, key: &[u8], at: Option<i64>) -> bool {
        let Some(entry) = self.table.get_mut(hash, key) else { return false };
        let before = entry.expire_at_ms();
        entry.set_expire_at_ms(at);
        self.reindex(hash, before, at);
        true
    }

    /// Brings the index in step with the table, in which the expiry of a key has already changed.
    #[inline]
    fn reindex(&mut self, hash: u64, before: Option<i64>, after: Option<i64>) {
        if let Some(at) = before {
            self.expiring -= 1;
            let place = Place::new(at, hash);
            if self.entry_at(place).is_none() {
                self.expiries.remove(place);
            }
        }
        if let Some(at) = after {
            self.expiring += 1;
            self.expiries.insert(Place::new(at, hash));
        }
    }

    /// Brings the index of fields in step with a hash, whose next moment has changed.
    #[inline]
    pub fn reindex_fields(&mut self, hash: u64, before: Option<i64>, after: Option<i64>) {
        if before != after {
            self.move_fields(hash, before, after);
        }
    }

    #[cold]
    fn move_fields(&mut self, hash: u64, before: Option<i64>, after: Option<i64>) {
        if let Some(place) = before.map(|at| Place::new(at, hash))
            && self.hash_at(place).is_none()
        {
            self.field_expiries.remove(place);
        }
        if let Some(at) = after {
            self.field_expiries.insert(Place::new(at, hash));
        }
    }

    /// A hash whose next field expires at this place.
    fn hash_at(&self, place: Place) -> Option<&Entry> {
        let matches = |entry: &Entry| entry.fields_expire_at_ms().is_some_and(|at| place.is_at(at));
        self.table.find_by_bits(place.hash_bits(), HASH_BITS, matches)
    }

    /// Whether any hash has fields that expire.
    #[must_use]
    pub fn has_expiring_fields(&self) -> bool {
        self.field_expiries.first().is_some()
    }

    /// The hash with the field that expired longest ago, if any has by `now_ms`; for the active expiry.
    #[must_use]
    pub fn next_with_due_fields(&self, now_ms: i64) -> Option<&Entry> {
        let first = self.field_expiries.first().filter(|place| place.is_past(now_ms))?;
        self.hash_at(first)
    }

    /// Removes up to `most` fields that have expired by `now_ms` from the hash of `key`, and the key with the last of them;
    /// returns the fields.
    pub fn remove_due_fields(&mut self, hash: u64, key: &[u8], now_ms: i64, most: usize) -> Vec<Vec<u8>> {
        let Some(Object::Hash(value)) = self.table.get_mut(hash, key).and_then(Entry::as_object_mut) else {
            return Vec::new();
        };
        let before = value.next_expiry_ms();
        let removed = value.remove_due(now_ms, most);
        let (after, empty) = (value.next_expiry_ms(), value.is_empty());
        self.reindex_fields(hash, before, after);
        if empty {
            self.remove(hash, key);
        }
        removed
    }

    /// A key whose expiry has this place.
    fn entry_at(&self, place: Place) -> Option<&Entry> {
        let matches = |entry: &Entry| entry.expire_at_ms().is_some_and(|at| place.is_at(at));
        self.table.find_by_bits(place.hash_bits(), HASH_BITS, matches)
    }

    /// The key that expired longest ago, if any has by `now_ms`; for the active expiry.
    #[must_use]
    pub fn next_expired(&self, now_ms: i64) -> Option<&Entry> {
        let first = self.expiries.first().filter(|place| place.is_past(now_ms))?;
        self.entry_at(first)
    }

    /// All entries, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.table.iter()
    }

    /// See [`Table::scan`].
    pub fn scan(&self, cursor: u64, visit: impl FnMut(&Entry)) -> u64 {
        self.table.scan(cursor, visit)
    }

    /// Gives back the memory that a database without keys still holds for those that come.
    pub fn release(&mut self) {
        if self.is_empty() {
            *self = Self::default();
        }
    }

    /// Up to `count` random entries; one may be given twice.
    pub fn sample_some(&self, count: usize, random: impl FnMut() -> u64, visit: impl FnMut(&Entry)) {
        self.table.sample_some(count, random, |_| true, visit);
    }

    /// Up to `count` random entries among those that expire; one may be given twice.
    pub fn sample_expiring(
        &self,
        count: usize,
        mut random: impl FnMut() -> u64,
        mut visit: impl FnMut(&Entry),
    ) {
        // Where most do not, looking for one that does takes longer than to ask the index.
        const RARE: usize = 8;
        if self.expiring * RARE >= self.len() {
            self.table.sample_some(count, random, |entry| entry.expire_at_ms().is_some(), visit);
            return;
        }
        for _ in 0..count {
            let place = self.expiries.sample(&mut random);
            place.and_then(|place| self.entry_at(place)).into_iter().for_each(&mut visit);
        }
    }

    /// The bytes of its table, and of what knows when its keys and fields expire.
    #[must_use]
    pub fn table_bytes(&self) -> (usize, usize) {
        (self.table.bytes(), self.expiries.bytes() + self.field_expiries.bytes())
    }

    /// The entry that expires first.
    #[must_use]
    pub fn soonest(&self) -> Option<&Entry> {
        self.entry_at(self.expiries.first()?)
    }

    /// An entry chosen at random; see [`Table::sample`].
    #[must_use]
    pub fn sample(&self, random: impl FnMut() -> u64) -> Option<&Entry> {
        self.table.sample(random)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Few of the bits that a place of the index holds differ, so that many keys share theirs.
    fn hash(key: &[u8]) -> u64 {
        let n = u64::from(key[0]) | u64::from(key[1]) << 8;
        n.wrapping_mul(0x9e37_79b9_7f4a_7c15) & !0xfff0
    }

    #[test]
    fn samples_are_of_those_that_expire_and_come_to_all_of_them() {
        // SplitMix64, as hash and as random numbers.
        let mix = |z: u64| {
            let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        };
        let hash = |key: &[u8]| mix(u64::from(key[0]) | u64::from(key[1]) << 8 | 1 << 40);
        for one_in in [2, 40] {
            let mut database = Database::default();
            for n in 0..4_000u16 {
                let at = (n % one_in == 0).then_some(i64::from(n) + 1_000);
                database.set_string(hash(&n.to_le_bytes()), &n.to_le_bytes(), b"", at, hash, |_| 0);
            }
            let (mut state, mut seen) = (1u64, HashMap::<Vec<u8>, usize>::new());
            for _ in 0..20_000 {
                let random = || {
                    state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                    mix(state)
                };
                database.sample_expiring(5, random, |entry| {
                    assert!(entry.expire_at_ms().is_some());
                    *seen.entry(entry.key().to_vec()).or_default() += 1;
                });
            }
            assert_eq!(seen.len(), database.expiring());
            let mean = seen.values().sum::<usize>() / seen.len();
            let most = seen.values().max().copied().unwrap_or(0);
            assert!(most < mean * 5, "one key in {one_in}: chosen {mean} times on average, {most} at most");
            assert_eq!(database.soonest().and_then(Entry::expire_at_ms), Some(1_000));
        }
    }

    #[test]
    fn every_expiring_key_is_found_in_order_of_expiry_even_where_places_are_shared() {
        let (mut database, mut model) = (Database::default(), HashMap::<Vec<u8>, Option<i64>>::new());
        let mut state = 5u64;
        for _ in 0..60_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let key = ((state >> 50) as u16 % 2_000).to_le_bytes().to_vec();
            let at = Some((state >> 40) as i64 % 50).filter(|at| *at < 40);
            match (state >> 33) % 5 {
                0 => {
                    let is_new = database.set_string(hash(&key), &key, b"value", at, hash, |_| 0);
                    assert_eq!(is_new, !model.contains_key(&key));
                }
                1 => drop(database.insert(hash(&key), Entry::string(&key, b"", at), hash)),
                2 => {
                    assert_eq!(database.set_expire_at_ms(hash(&key), &key, at), model.contains_key(&key));
                    model.entry(key).and_modify(|expiry| *expiry = at);
                    continue;
                }
                _ => {
                    let entry = database.remove(hash(&key), &key);
                    assert_eq!(entry.map(|entry| entry.expire_at_ms()), model.remove(&key));
                    continue;
                }
            }
            model.insert(key, at);
        }
        let mut expected: Vec<i64> = model.values().copied().flatten().collect();
        expected.sort_unstable();
        assert!(expected.len() > 300 && database.expiring() == expected.len());
        for at in expected {
            assert!(database.next_expired(at - 1).is_none());
            let key =
                database.next_expired(at).map(|entry| entry.key().to_vec()).expect("a key that expires");
            assert_eq!(database.remove(hash(&key), &key).and_then(|entry| entry.expire_at_ms()), Some(at));
        }
        assert_eq!(database.expiring(), 0);
        assert!(database.next_expired(i64::MAX).is_none());
    }
}
