//! The keyspace: databases cut into shards, each behind a lock of its own; entries, value types, expiry.
//!
//! Invariants:
//! - An entry lies in the shard that its key's hash names, in every database alike; one lock covers it.
//! - Locks are taken in ascending order of shard, so no two commands can wait for each other.
//! - The indexes of expiries name exactly the keys that have one, and the hashes that have fields with one.
//!
//! It knows values, bytes and milliseconds. It must never know sockets, files, the journal or the command table.

pub mod access;
mod discards;
pub mod dumped;
pub mod encode;
pub mod entry;
mod expiries;
mod libraries;
mod load;
mod lock;
mod prefetch;
pub mod rdb_file;
pub mod shard;
mod spill;
mod stored;
mod table;
pub mod types;
mod undurable;
pub mod waiting;

pub use access::{Access, AccessSettings, Clock};
pub use cairn_rdb::file::Usage;
pub use discards::Discards;
pub use entry::{Entry, Value};
pub use libraries::{FunctionInfo, Libraries, Library, LibraryMap, read_libraries};
pub use load::Batch;
pub use lock::Locked;
pub use shard::{Database, Shard};
pub use stored::{Stored, store_library};
pub use table::Spot;
pub use types::Object;
pub use undurable::Undurable;

use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering, Ordering::Relaxed};

use parking_lot::Mutex;

/// How many shards a keyspace has. Shards are named by eight bits of the hash that a table's buckets and tags come to
/// only with 2^26 buckets in one shard.
pub const SHARDS: usize = 256;

/// Keeps neighbouring locks out of each other's cache line.
#[repr(align(64))]
struct Padded(Mutex<Shard>);

/// All databases.
pub struct Keyspace {
    shards: Box<[Padded]>,
    hasher: ahash::RandomState,
    databases: u16,
    access: Access,
    /// How many holders of locks are known to keep them for long.
    held_long: AtomicUsize,
    /// Until then, in milliseconds since the Unix epoch, reads leave keys in place that have expired.
    expiry_held_until_ms: AtomicI64,
    /// The function libraries: data beside the keys.
    pub libraries: Libraries,
    /// What has been removed and takes long to free.
    pub discards: Arc<Discards>,
}

/// A key's hash, seeded anew for each process, so that no client can choose keys that collide.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct KeyHash(pub u64);

impl KeyHash {
    /// The shard the key lies in.
    #[inline]
    #[must_use]
    pub fn shard(self) -> usize {
        (self.0 >> 48) as usize % SHARDS
    }
}

impl Keyspace {
    /// An empty keyspace of so many databases.
    #[must_use]
    pub fn new(databases: u16) -> Self {
        let shards = (0..SHARDS).map(|_| Padded(Mutex::new(Shard::new(databases)))).collect();
        Self {
            shards,
            hasher: ahash::RandomState::new(),
            databases,
            access: Access::default(),
            held_long: AtomicUsize::new(0),
            expiry_held_until_ms: AtomicI64::new(0),
            libraries: Libraries::default(),
            discards: Arc::default(),
        }
    }

    /// How many databases there are.
    #[must_use]
    pub fn databases(&self) -> u16 {
        self.databases
    }

    /// How uses of its entries are recorded.
    #[inline]
    #[must_use]
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// Lets reads leave keys in place that have expired, for as long as clients that write are paused: as long as the
    /// longest of the pauses lasts.
    pub fn hold_expiry_until(&self, unix_ms: i64) {
        self.expiry_held_until_ms.fetch_max(unix_ms, Relaxed);
    }

    /// Ends that, whatever was asked for.
    pub fn end_expiry_hold(&self) {
        self.expiry_held_until_ms.store(0, Relaxed);
    }

    /// Whether reads leave keys in place that have expired.
    #[cold]
    #[must_use]
    pub fn holds_expiry(&self, now_ms: i64) -> bool {
        now_ms < self.expiry_held_until_ms.load(Relaxed)
    }

    /// The hash of a key.
    #[inline]
    #[must_use]
    pub fn hash(&self, key: &[u8]) -> KeyHash {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(key);
        KeyHash(hasher.finish())
    }

    /// Asks for the memory that the keys of these hashes lie in to be brought near, all at once instead of one after the
    /// other. A hint: a shard that somebody holds is passed over.
    pub fn prefetch(&self, db: u16, hashes: impl Iterator<Item = KeyHash> + Clone) {
        for hash in hashes.clone() {
            if let Some(shard) = self.shards[hash.shard()].0.try_lock() {
                shard.database(db).prefetch_bucket(hash.0);
            }
        }
        for hash in hashes {
            if let Some(shard) = self.shards[hash.shard()].0.try_lock() {
                shard.database(db).prefetch_entries(hash.0);
            }
        }
    }

    /// Locks the shard of one key; `None` when it is held by somebody who is known to hold it for long.
    #[inline]
    #[must_use]
    pub fn try_lock_one(&self, hash: KeyHash) -> Option<Locked<'_>> {
        Locked::one(self, hash.shard())
    }

    /// As [`Keyspace::try_lock_one`], for the shards of several keys, in ascending order.
    #[must_use]
    pub fn try_lock_many(&self, hashes: impl IntoIterator<Item = KeyHash>) -> Option<Locked<'_>> {
        Locked::many(self, hashes.into_iter().map(KeyHash::shard))
    }

    /// As [`Keyspace::try_lock_one`], for every shard.
    #[must_use]
    pub fn try_lock_all(&self) -> Option<Locked<'_>> {
        Locked::all(self)
    }

    /// As [`Keyspace::try_lock_one`], for a shard by number.
    #[must_use]
    pub fn try_lock_shard(&self, shard: usize) -> Option<Locked<'_>> {
        Locked::one(self, shard)
    }

    /// Locks the shard of one key, however long that takes.
    #[must_use]
    pub fn lock_one(&self, hash: KeyHash) -> Locked<'_> {
        patiently(|| self.try_lock_one(hash))
    }

    /// Locks every shard, however long that takes.
    #[must_use]
    pub fn lock_all(&self) -> Locked<'_> {
        patiently(|| self.try_lock_all())
    }

    /// Locks nothing: for commands that have no keys.
    #[must_use]
    pub fn lock_none(&self) -> Locked<'_> {
        Locked::none(self)
    }

    /// Locks one shard by number, however long that takes.
    #[must_use]
    pub fn lock_shard(&self, shard: usize) -> Locked<'_> {
        patiently(|| self.try_lock_shard(shard))
    }

    /// Says that a holder of locks will keep them for long (true), or has let them go (false): meanwhile nobody waits
    /// for them, or holds others while it would.
    pub fn note_held_long(&self, begins: bool) {
        if begins {
            self.held_long.fetch_add(1, Ordering::SeqCst);
        } else {
            self.held_long.fetch_sub(1, Ordering::SeqCst);
        }
    }

    fn is_held_long(&self) -> bool {
        self.held_long.load(Relaxed) > 0
    }
}

/// Tries until it succeeds, with nothing held meanwhile.
fn patiently<'k>(mut attempt: impl FnMut() -> Option<Locked<'k>>) -> Locked<'k> {
    loop {
        if let Some(locked) = attempt() {
            return locked;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_holds_the_longest_counts_until_all_end() {
        let keyspace = Keyspace::new(1);
        keyspace.hold_expiry_until(100);
        keyspace.hold_expiry_until(50);
        assert!(keyspace.holds_expiry(99) && !keyspace.holds_expiry(100));
        keyspace.end_expiry_hold();
        assert!(!keyspace.holds_expiry(0));
    }
}
