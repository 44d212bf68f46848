//! Shards that one command, or one transaction, holds.

use std::time::Duration;

use parking_lot::MutexGuard;

use crate::encode::{DatasetDigest, Digest20};
use crate::shard::Shard;
use crate::waiting::Ready;
use crate::{KeyHash, Keyspace, SHARDS};

/// Shards locked together. Reaching for a shard that is not held is a bug in a command's key specification.
pub struct Locked<'k> {
    keyspace: &'k Keyspace,
    guards: Guards<'k>,
}

enum Guards<'k> {
    None,
    One(usize, MutexGuard<'k, Shard>),
    /// Ascending by shard.
    Many(Vec<(usize, MutexGuard<'k, Shard>)>),
    All(Vec<MutexGuard<'k, Shard>>),
}

impl<'k> Locked<'k> {
    pub(crate) fn none(keyspace: &'k Keyspace) -> Self {
        Self { keyspace, guards: Guards::None }
    }

    #[inline]
    pub(crate) fn one(keyspace: &'k Keyspace, shard: usize) -> Option<Self> {
        Some(Self { keyspace, guards: Guards::One(shard, hold(keyspace, shard)?) })
    }

    pub(crate) fn many(keyspace: &'k Keyspace, shards: impl Iterator<Item = usize>) -> Option<Self> {
        let mut shards: Vec<usize> = shards.collect();
        shards.sort_unstable();
        shards.dedup();
        let guards = match shards[..] {
            [] => Guards::None,
            [shard] => Guards::One(shard, hold(keyspace, shard)?),
            _ => {
                let held = shards.into_iter().map(|shard| Some((shard, hold(keyspace, shard)?)));
                Guards::Many(held.collect::<Option<_>>()?)
            }
        };
        Some(Self { keyspace, guards })
    }

    pub(crate) fn all(keyspace: &'k Keyspace) -> Option<Self> {
        let held = (0..SHARDS).map(|shard| hold(keyspace, shard)).collect::<Option<_>>()?;
        Some(Self { keyspace, guards: Guards::All(held) })
    }

    /// Takes more shards beside those held, in no order; false, and nothing changes, when one is held by somebody else
    /// for longer than `patience`. Two holders that wait for each other thus both give up.
    pub fn extend(&mut self, shards: impl IntoIterator<Item = usize>, patience: Duration) -> bool {
        let mut more = Vec::new();
        for shard in shards {
            if self.holds(shard) || more.iter().any(|(taken, _)| *taken == shard) {
                continue;
            }
            match self.keyspace.shards[shard].0.try_lock_for(patience) {
                Some(guard) => more.push((shard, guard)),
                None => return false,
            }
        }
        if more.is_empty() {
            return true;
        }
        let mut guards = match std::mem::replace(&mut self.guards, Guards::None) {
            Guards::Many(guards) => guards,
            Guards::One(shard, guard) => vec![(shard, guard)],
            Guards::None | Guards::All(_) => Vec::new(),
        };
        guards.append(&mut more);
        guards.sort_unstable_by_key(|(shard, _)| *shard);
        self.guards = match guards.len() {
            SHARDS => Guards::All(guards.into_iter().map(|(_, guard)| guard).collect()),
            _ => Guards::Many(guards),
        };
        true
    }

    /// As [`Locked::extend`], to every shard.
    pub fn extend_to_all(&mut self, patience: Duration) -> bool {
        self.holds_all() || self.extend(0..SHARDS, patience)
    }

    /// The keyspace these shards belong to.
    #[must_use]
    pub fn keyspace(&self) -> &'k Keyspace {
        self.keyspace
    }

    /// The shard of a key.
    #[inline]
    #[must_use]
    pub fn shard(&self, hash: KeyHash) -> &Shard {
        self.shard_at(hash.shard())
    }

    /// The shard of a key, to change it.
    #[inline]
    pub fn shard_mut(&mut self, hash: KeyHash) -> &mut Shard {
        self.shard_at_mut(hash.shard())
    }

    /// A shard by number.
    ///
    /// # Panics
    /// When it is not held.
    #[inline]
    #[must_use]
    pub fn shard_at(&self, shard: usize) -> &Shard {
        match &self.guards {
            Guards::One(held, guard) if *held == shard => guard,
            Guards::Many(guards) => &guards[position(guards, shard)].1,
            Guards::All(guards) => &guards[shard],
            _ => not_held(shard),
        }
    }

    /// A shard by number, to change it.
    ///
    /// # Panics
    /// When it is not held.
    #[inline]
    pub fn shard_at_mut(&mut self, shard: usize) -> &mut Shard {
        match &mut self.guards {
            Guards::One(held, guard) if *held == shard => guard,
            Guards::Many(guards) => {
                let at = position(guards, shard);
                &mut guards[at].1
            }
            Guards::All(guards) => &mut guards[shard],
            _ => not_held(shard),
        }
    }

    /// Whether every shard is held.
    #[must_use]
    pub fn holds_all(&self) -> bool {
        matches!(self.guards, Guards::All(_))
    }

    /// Whether a shard is held.
    #[must_use]
    pub fn holds(&self, shard: usize) -> bool {
        match &self.guards {
            Guards::None => false,
            Guards::One(held, _) => *held == shard,
            Guards::Many(guards) => guards.binary_search_by_key(&shard, |(held, _)| *held).is_ok(),
            Guards::All(_) => true,
        }
    }

    /// Whether a key of the held shards has changed that somebody waits for.
    #[inline]
    #[must_use]
    pub fn has_ready(&self) -> bool {
        match &self.guards {
            Guards::None => false,
            Guards::One(_, guard) => guard.has_ready(),
            Guards::Many(guards) => guards.iter().any(|(_, guard)| guard.has_ready()),
            Guards::All(guards) => guards.iter().any(|guard| guard.has_ready()),
        }
    }

    /// Hands out the keys of the held shards that have changed and that somebody waits for, in the order they did.
    #[must_use]
    pub fn take_ready(&mut self) -> Vec<Ready> {
        let mut ready: Vec<Ready> = match &mut self.guards {
            Guards::None => Vec::new(),
            Guards::One(_, guard) => guard.take_ready(),
            Guards::Many(guards) => guards.iter_mut().flat_map(|(_, guard)| guard.take_ready()).collect(),
            Guards::All(guards) => guards.iter_mut().flat_map(|guard| guard.take_ready()).collect(),
        };
        ready.sort_unstable();
        ready
    }

    /// Whether anybody waits in the held shards who needs a key beside the one waited for, so that more shards may have
    /// to be held before it can be served. Never so when all are.
    #[inline]
    #[must_use]
    pub fn has_destinations(&self) -> bool {
        match &self.guards {
            Guards::None | Guards::All(_) => false,
            Guards::One(_, guard) => guard.has_destinations(),
            Guards::Many(guards) => guards.iter().any(|(_, guard)| guard.has_destinations()),
        }
    }

    /// Every shard, ascending, when all are held: what a snapshot reads.
    ///
    /// # Panics
    /// When not all are held.
    #[must_use]
    pub fn all_shards(&self) -> Vec<&Shard> {
        assert!(
            self.holds_all(),
            "a command that looks at the whole keyspace must say so in its key specification"
        );
        (0..SHARDS).map(|shard| self.shard_at(shard)).collect()
    }

    /// How many keys a database has, expired ones not yet removed included.
    ///
    /// # Panics
    /// When not all shards are held.
    #[must_use]
    pub fn len(&self, db: u16) -> usize {
        self.all_shards().iter().map(|shard| shard.database(db).len()).sum()
    }

    /// Whether a database has no key.
    ///
    /// # Panics
    /// When not all shards are held.
    #[must_use]
    pub fn is_empty(&self, db: u16) -> bool {
        self.len(db) == 0
    }

    /// How many keys of a database have an expiry.
    ///
    /// # Panics
    /// When not all shards are held.
    #[must_use]
    pub fn expiring(&self, db: u16) -> usize {
        self.all_shards().iter().map(|shard| shard.database(db).expiring()).sum()
    }

    /// Redis's digest of all data: equal data gives an equal value, whatever the order it came in. Expired keys that
    /// nobody has looked at since count, as they do there.
    ///
    /// # Panics
    /// When not all shards are held.
    #[must_use]
    pub fn digest(&self) -> Digest20 {
        let mut digest = DatasetDigest::new();
        for db in (0..self.keyspace.databases()).filter(|db| !self.is_empty(*db)) {
            digest.database(u32::from(db));
            for shard in self.all_shards() {
                shard.database(db).iter().for_each(|entry| digest.key(&entry.key_digest()));
            }
        }
        digest.finish()
    }

    /// Removes every key of a database; returns how many there were. Their memory is free when this returns, or, where
    /// `later` lets it, soon after.
    ///
    /// # Panics
    /// When not all shards are held.
    pub fn flush(&mut self, db: u16, later: bool) -> usize {
        let removed = self.len(db);
        let keyspace = self.keyspace;
        let mut databases = Vec::new();
        for shard in 0..SHARDS {
            let shard = self.shard_at_mut(shard);
            shard.touch_all(db, |key| keyspace.hash(key).0);
            let database = std::mem::take(shard.database_mut(db));
            if later && !database.is_empty() {
                databases.push(database);
            }
        }
        if !databases.is_empty() {
            keyspace.discards.put_databases(databases);
        }
        removed
    }

    /// Visits some keys of a database from `cursor` on and returns the next cursor, 0 at the end. The cursor holds the
    /// shard in its lowest eight bits and the place within that shard's table above them.
    ///
    /// # Panics
    /// When not all shards are held.
    pub fn scan(&self, db: u16, cursor: u64, mut visit: impl FnMut(&crate::Entry)) -> u64 {
        let shard = cursor as usize % SHARDS;
        let inner = self.shard_at(shard).database(db).scan(cursor / SHARDS as u64, &mut visit);
        match inner {
            0 if shard + 1 == SHARDS => 0,
            0 => shard as u64 + 1,
            inner => inner.wrapping_mul(SHARDS as u64) | shard as u64,
        }
    }

    /// A key chosen at random from a database.
    ///
    /// # Panics
    /// When not all shards are held.
    pub fn sample(&self, db: u16, random: &mut impl FnMut() -> u64) -> Option<&crate::Entry> {
        let total = self.len(db) as u64;
        if total == 0 {
            return None;
        }
        let mut at = (random() % total) as usize;
        for shard in self.all_shards() {
            let database = shard.database(db);
            if at < database.len() {
                return database.sample(&mut *random);
            }
            at -= database.len();
        }
        None
    }
}

/// How long a lock that is held is waited for before it is asked whether that will end soon.
const GLANCE: Duration = Duration::from_millis(1);

/// Takes a shard; `None` when it is taken while some holder is known to keep its shards for long.
#[inline]
fn hold(keyspace: &Keyspace, shard: usize) -> Option<MutexGuard<'_, Shard>> {
    keyspace.shards[shard].0.try_lock_for(GLANCE).or_else(|| hold_contended(keyspace, shard))
}

#[cold]
fn hold_contended(keyspace: &Keyspace, shard: usize) -> Option<MutexGuard<'_, Shard>> {
    while !keyspace.is_held_long() {
        if let Some(guard) = keyspace.shards[shard].0.try_lock_for(GLANCE) {
            return Some(guard);
        }
    }
    keyspace.shards[shard].0.try_lock()
}

#[inline]
fn position(guards: &[(usize, MutexGuard<'_, Shard>)], shard: usize) -> usize {
    guards.binary_search_by_key(&shard, |(held, _)| *held).unwrap_or_else(|_| not_held(shard))
}

#[cold]
fn not_held(shard: usize) -> ! {
    panic!("shard {shard} is not held: the command's key specification does not name all the keys it touches")
}
