//! Many entries put in at once: what a start does with a snapshot's blocks.

use crate::{Entry, KeyHash, Keyspace, SHARDS};

/// Entries on their way into one database. Reused for batch after batch by one thread; several threads may each fill
/// the keyspace with one of their own.
#[derive(Default)]
pub struct Batch {
    entries: Vec<(KeyHash, Entry)>,
}

impl Batch {
    /// Adds an entry, which is hashed while its key is still at hand.
    #[inline]
    pub fn push(&mut self, keyspace: &Keyspace, entry: Entry) {
        self.entries.push((keyspace.hash(entry.key()), entry));
    }

    /// Puts all entries into a database, shard by shard, so that each lock is taken once, and keeps the memory.
    ///
    /// A shard that has no key of the database yet is laid out for `expected_per_shard` of them. Of two entries with one
    /// key, the one that was added later stays.
    pub fn insert_into(&mut self, keyspace: &Keyspace, db: u16, expected_per_shard: usize) {
        // Stable: the later of two entries with one key must come later.
        self.entries.sort_by_key(|(hash, _)| hash.shard());
        let mut shards: Vec<(KeyHash, usize)> = Vec::with_capacity(SHARDS);
        for same in self.entries.chunk_by(|(a, _), (b, _)| a.shard() == b.shard()) {
            shards.extend(same.first().map(|(hash, _)| (*hash, same.len())));
        }
        let mut entries = self.entries.drain(..);
        for (first, count) in shards {
            let mut locked = keyspace.lock_one(first);
            let database = locked.shard_mut(first).database_mut(db);
            database.reserve(expected_per_shard);
            database.prefetch(entries.as_slice()[..count].iter().map(|(hash, _)| hash.0));
            for (hash, entry) in entries.by_ref().take(count) {
                database.insert(hash.0, entry, |key| keyspace.hash(key).0);
            }
        }
    }

    /// How many of `entries` keys, evenly spread, one shard gets.
    #[must_use]
    pub fn per_shard(entries: u64) -> usize {
        usize::try_from(entries / SHARDS as u64).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_fills_every_shard_and_the_later_of_two_stays() {
        let keyspace = Keyspace::new(2);
        let mut batch = Batch::default();
        for round in [b"first", b"later"] {
            for number in 0..3_000 {
                batch.push(&keyspace, Entry::string(format!("key:{number}").as_bytes(), round, Some(number)));
            }
        }
        batch.insert_into(&keyspace, 1, Batch::per_shard(3_000));
        let locked = keyspace.lock_all();
        assert_eq!((locked.len(0), locked.len(1), locked.expiring(1)), (0, 3_000, 3_000));
        for number in 0..3_000 {
            let key = format!("key:{number}").into_bytes();
            let hash = keyspace.hash(&key);
            let found = locked.shard(hash).database(1).get(hash.0, &key).and_then(Entry::as_str);
            assert_eq!(found, Some(&b"later"[..]));
        }
        drop(locked);
        batch.insert_into(&keyspace, 0, 10);
        assert!(keyspace.lock_all().is_empty(0), "what was inserted is no longer in the batch");
    }
}
