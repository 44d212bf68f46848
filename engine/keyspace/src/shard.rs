//! One shard: a slice of every database's keys behind one lock.

use std::collections::{BTreeSet, HashMap};

use crate::entry::Entry;
use crate::table::Table;
use crate::undurable::Undurable;

/// The keys of one database that fall into one shard, and when they expire.
#[derive(Default)]
pub struct Database {
    table: Table,
    /// (expiry in ms, key hash) of every key that expires, the next one first.
    expiries: BTreeSet<(i64, u64)>,
}

/// A slice of the keyspace: every database's keys whose hash falls here.
pub struct Shard {
    databases: Box<[Database]>,
    /// Key hashes with effects that are not durable yet; see [`Undurable`].
    pub undurable: Undurable,
    watched: HashMap<(u16, Box<[u8]>), Watched>,
}

#[derive(Default)]
struct Watched {
    watchers: u32,
    version: u64,
}

impl Shard {
    pub(crate) fn new(databases: u16) -> Self {
        let databases = (0..databases).map(|_| Database::default()).collect();
        Self { databases, undurable: Undurable::default(), watched: HashMap::new() }
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

    /// Notes that a key changed, for those who watch it.
    #[inline]
    pub fn touch(&mut self, db: u16, key: &[u8]) {
        if !self.watched.is_empty()
            && let Some(watched) = self.watched.get_mut(&(db, key.into()))
        {
            watched.version += 1;
        }
    }

    /// Notes that every watched key of a database changed that is there.
    pub fn touch_all(&mut self, db: u16, hash_of: impl Fn(&[u8]) -> u64) {
        let table = &self.databases[usize::from(db)].table;
        for ((_, key), watched) in self.watched.iter_mut().filter(|((of, _), _)| *of == db) {
            if table.get(hash_of(key), key).is_some() {
                watched.version += 1;
            }
        }
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
        self.expiries.len()
    }

    /// The entry of `key`, expired or not.
    #[inline]
    #[must_use]
    pub fn get(&self, hash: u64, key: &[u8]) -> Option<&Entry> {
        self.table.get(hash, key)
    }

    /// The entry of `key`, to change its value.
    #[inline]
    pub fn get_mut(&mut self, hash: u64, key: &[u8]) -> Option<&mut Entry> {
        self.table.get_mut(hash, key)
    }

    /// Makes room for so many keys at once, where there are none yet.
    pub fn reserve(&mut self, keys: usize) {
        self.table.reserve(keys);
    }

    /// Puts an entry in; returns the one of the same key that it replaces.
    #[inline]
    pub fn insert(&mut self, hash: u64, entry: Entry, hash_of: impl Fn(&[u8]) -> u64) -> Option<Entry> {
        let at = entry.expire_at_ms();
        let old = self.table.insert(hash, entry, hash_of);
        if let Some(old_at) = old.as_ref().and_then(Entry::expire_at_ms) {
            self.expiries.remove(&(old_at, hash));
        }
        if let Some(at) = at {
            self.expiries.insert((at, hash));
        }
        old
    }

    /// Sets a string value: in place where the key is there. `expire_at_ms` is the expiry from now on.
    #[inline]
    pub fn set_string(
        &mut self,
        hash: u64,
        key: &[u8],
        value: &[u8],
        expire_at_ms: Option<i64>,
        hash_of: impl Fn(&[u8]) -> u64,
    ) {
        let Some(entry) = self.table.get_mut(hash, key) else {
            self.table.insert_new(hash, Entry::string(key, value, expire_at_ms), hash_of);
            if let Some(at) = expire_at_ms {
                self.expiries.insert((at, hash));
            }
            return;
        };
        let before = entry.expire_at_ms();
        entry.set_string(value);
        if before != expire_at_ms {
            entry.set_expire_at_ms(expire_at_ms);
            self.reindex(hash, before, expire_at_ms);
        }
    }

    /// Takes the entry of `key` out.
    #[inline]
    pub fn remove(&mut self, hash: u64, key: &[u8]) -> Option<Entry> {
        let entry = self.table.remove(hash, key)?;
        if let Some(at) = entry.expire_at_ms() {
            self.expiries.remove(&(at, hash));
        }
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

    fn reindex(&mut self, hash: u64, before: Option<i64>, after: Option<i64>) {
        // Two keys of one shard may share hash and expiry; the set then holds them as one, and active expiry finds the
        // second when it is asked for. That costs nothing but a late removal.
        if let Some(at) = before {
            self.expiries.remove(&(at, hash));
        }
        if let Some(at) = after {
            self.expiries.insert((at, hash));
        }
    }

    /// The key that expired longest ago, if any has by `now_ms`; for the active expiry.
    #[must_use]
    pub fn next_expired(&self, now_ms: i64, hash_of: impl Fn(&[u8]) -> u64) -> Option<&Entry> {
        let (at, hash) = *self.expiries.first()?;
        if at > now_ms {
            return None;
        }
        self.table
            .find_by_hash(hash, |entry| entry.expire_at_ms() == Some(at) && hash_of(entry.key()) == hash)
    }

    /// All entries, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.table.iter()
    }

    /// See [`Table::scan`].
    pub fn scan(&self, cursor: u64, visit: impl FnMut(&Entry)) -> u64 {
        self.table.scan(cursor, visit)
    }

    /// An entry chosen at random; see [`Table::sample`].
    #[must_use]
    pub fn sample(&self, random: impl FnMut() -> u64) -> Option<&Entry> {
        self.table.sample(random)
    }
}
