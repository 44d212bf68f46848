//! `maxmemory`: what happens when the heap has grown beyond it.
//!
//! A command that may need more memory asks before it takes its locks. If there is too much in use, keys go: the policy
//! gives each a score, some are sampled at random, and the best of those seen lately lie in a pool, the next to go last
//! (as in Redis, <https://redis.io/docs/latest/develop/reference/eviction/>). Sampling holds one shard, and so does each
//! removal, whose effect is a DEL.
//!
//! How much is in use is known exactly only to the allocator, and asking it takes as long as several commands. In between
//! each thread adds what it has allocated and freed since it last looked, which costs next to nothing.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cairn_commands::{Effects, Tools, evict_key, next_random};
use cairn_journal::Admission;
use cairn_keyspace::types::Limits;
use cairn_keyspace::{AccessSettings, Database, Entry, KeyHash, Keyspace, SHARDS};
use parking_lot::{Mutex, RwLock};

use crate::engine::{AbortOnPanic, Engine, Inner, now_ms};
use crate::mending::Heap;

/// How many candidates are remembered.
const POOL: usize = 16;

/// The allocator is asked again when its last answer is so old and keys would have to go.
const ANSWER_HOLDS: Duration = Duration::from_millis(1);

/// How many keys may go before the clock is looked at.
const KEYS_BETWEEN_LOOKS: usize = 16;

/// For so long the housekeeping evicts at a time.
const TICK_BUDGET: Duration = Duration::from_millis(25);

/// So much of the journal's room is asked for before a key is evicted, in bytes beyond the key.
const EFFECT_BYTES: usize = 64;

/// Which keys go when memory is short (`maxmemory-policy`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum EvictionPolicy {
    /// Those not used for longest, among those that expire.
    VolatileLru,
    /// Those used least often, among those that expire.
    VolatileLfu,
    /// Any that expire.
    VolatileRandom,
    /// Those that expire first.
    VolatileTtl,
    /// Those not used for longest.
    AllKeysLru,
    /// Those used least often.
    AllKeysLfu,
    /// Any.
    AllKeysRandom,
    /// None: commands that need memory are refused.
    #[default]
    NoEviction,
}

impl EvictionPolicy {
    /// Whether it goes by how often a key is used.
    #[must_use]
    pub fn is_by_frequency(self) -> bool {
        matches!(self, Self::VolatileLfu | Self::AllKeysLfu)
    }

    fn is_volatile(self) -> bool {
        matches!(self, Self::VolatileLru | Self::VolatileLfu | Self::VolatileRandom | Self::VolatileTtl)
    }

    fn is_random(self) -> bool {
        matches!(self, Self::VolatileRandom | Self::AllKeysRandom)
    }
}

/// So much is kept free for what INFO itself holds while it looks, the locks of all shards, so that it does not find more in
/// use than may be.
const WORKING_BYTES: u64 = 4 << 10;

/// How much memory may be in use, and what happens beyond.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryLimit {
    /// `maxmemory`, in bytes; 0: no limit.
    pub bytes: u64,
    /// `maxmemory-policy`.
    pub policy: EvictionPolicy,
    /// `maxmemory-samples`: how many keys are looked at for each that goes.
    pub samples: usize,
    /// `maxmemory-eviction-tenacity`, 0 to 100: how long a command may be held up by eviction.
    pub tenacity: u32,
    /// `lfu-log-factor`: how much less likely each step of a key's counter is than the one before.
    pub log_factor: u32,
    /// `lfu-decay-time`: after how many minutes without a use a key's counter falls by one.
    pub decay_minutes: u32,
}

impl Default for MemoryLimit {
    fn default() -> Self {
        let AccessSettings { log_factor, decay_minutes, .. } = AccessSettings::default();
        let policy = EvictionPolicy::NoEviction;
        Self { bytes: 0, policy, samples: 5, tenacity: 10, log_factor, decay_minutes }
    }
}

impl MemoryLimit {
    /// How uses of keys are recorded for the policy.
    pub(crate) fn access(&self) -> AccessSettings {
        AccessSettings {
            by_frequency: self.policy.is_by_frequency(),
            log_factor: self.log_factor,
            decay_minutes: self.decay_minutes,
        }
    }

    /// How long a command may be held up: up to 10 half a millisecond, then 15 % more for each step, and at 100 until
    /// enough is free.
    fn patience(&self) -> Duration {
        match self.tenacity {
            tenacity @ 0..=10 => Duration::from_micros(50 * u64::from(tenacity)),
            tenacity @ 11..=99 => Duration::from_micros(500).mul_f64(1.15_f64.powi(tenacity as i32 - 10)),
            _ => Duration::MAX,
        }
    }
}

/// What became of an attempt to free memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Room {
    /// No more is in use than may be.
    Enough,
    /// It was tried for as long as it may take; it goes on later.
    Later,
    /// There is nothing that may go.
    None,
}

/// The limit and what is known of the memory in use.
pub(crate) struct Eviction {
    /// Apart, so that without a limit nothing else is looked at.
    limited: AtomicBool,
    /// The limit again where keys go when it is exceeded, for those who only look; 0: none.
    limit_bytes: AtomicU64,
    settings: RwLock<Arc<MemoryLimit>>,
    heap: Option<Arc<dyn Heap>>,
    usage: Usage,
    pool: Mutex<Pool>,
    /// Keys evicted, for INFO.
    pub(crate) evicted: AtomicU64,
    exceeded: Mutex<Exceeded>,
}

/// For how long the limit was exceeded.
#[derive(Default)]
struct Exceeded {
    since: Option<Instant>,
    before: Duration,
}

impl Eviction {
    pub(crate) fn new(limit: &MemoryLimit, heap: Option<Arc<dyn Heap>>) -> Self {
        let eviction = Self {
            limited: AtomicBool::new(false),
            limit_bytes: AtomicU64::new(0),
            settings: RwLock::default(),
            heap,
            usage: Usage::default(),
            pool: Mutex::default(),
            evicted: AtomicU64::new(0),
            exceeded: Mutex::default(),
        };
        eviction.set(limit.clone());
        eviction
    }

    pub(crate) fn set(&self, limit: MemoryLimit) {
        let changed = self.settings.read().policy != limit.policy;
        if changed {
            // The scores of different policies do not compare.
            *self.pool.lock() = Pool::default();
        }
        let limited = limit.bytes > 0;
        let evicting = if limit.policy == EvictionPolicy::NoEviction { 0 } else { limit.bytes };
        self.limit_bytes.store(evicting, Ordering::Relaxed);
        *self.settings.write() = Arc::new(limit);
        // Before a limit counts, it must be known how much is in use.
        self.heap.iter().filter(|_| limited).for_each(|heap| _ = self.usage.ask(&**heap));
        self.limited.store(limited, Ordering::Relaxed);
    }

    /// Whether keys go by when or how often they were used.
    pub(crate) fn goes_by_use(&self) -> bool {
        use EvictionPolicy::{AllKeysLfu, AllKeysLru, VolatileLfu, VolatileLru};
        matches!(self.settings.read().policy, VolatileLru | AllKeysLru | VolatileLfu | AllKeysLfu)
    }

    /// How long the limit has been exceeded, and how long it was in all.
    pub(crate) fn exceeded(&self) -> (Duration, Duration) {
        let exceeded = self.exceeded.lock();
        let current = exceeded.since.map_or(Duration::ZERO, |since| since.elapsed());
        (current, exceeded.before + current)
    }

    pub(crate) fn reset_statistics(&self) {
        self.evicted.store(0, Ordering::Relaxed);
        let mut exceeded = self.exceeded.lock();
        exceeded.before = Duration::ZERO;
        exceeded.since = exceeded.since.map(|_| Instant::now());
    }

    fn note_exceeded(&self, room: Room) {
        let mut exceeded = self.exceeded.lock();
        match (room, exceeded.since) {
            (Room::Enough, Some(since)) => {
                exceeded.before += since.elapsed();
                exceeded.since = None;
            }
            (Room::Later | Room::None, None) => exceeded.since = Some(Instant::now()),
            _ => {}
        }
    }
}

/// Bytes in use: what the allocator last said, and what threads have added since.
#[derive(Default)]
struct Usage {
    bytes: AtomicI64,
    /// Counts the allocator's answers: what a thread did before the last one is in it.
    answer: AtomicU64,
    answered_at: Mutex<Option<Instant>>,
}

thread_local! {
    /// The answer since which this thread has counted, and its balance then.
    static COUNTED: Cell<(u64, i64)> = const { Cell::new((0, 0)) };
}

impl Usage {
    /// Adds what this thread has allocated and freed since it last did this; returns the bytes in use.
    fn update(&self, heap: &dyn Heap) -> i64 {
        let (answer, balance) = (self.answer.load(Ordering::Relaxed), heap.thread_balance());
        let (counted_since, before) = COUNTED.replace((answer, balance));
        if counted_since == answer && balance != before {
            self.bytes.fetch_add(balance - before, Ordering::Relaxed) + (balance - before)
        } else {
            self.bytes.load(Ordering::Relaxed)
        }
    }

    /// Asks the allocator.
    fn ask(&self, heap: &dyn Heap) -> i64 {
        let mut answered_at = self.answered_at.lock();
        let bytes = i64::try_from(heap.used_bytes()).unwrap_or(i64::MAX);
        let answer = self.answer.fetch_add(1, Ordering::Relaxed) + 1;
        self.bytes.store(bytes, Ordering::Relaxed);
        COUNTED.set((answer, heap.thread_balance()));
        *answered_at = Some(Instant::now());
        bytes
    }

    fn is_stale(&self) -> bool {
        self.answered_at.lock().is_none_or(|at| at.elapsed() > ANSWER_HOLDS)
    }
}

/// A key that may go.
struct Candidate {
    /// The higher, the sooner it goes.
    score: u64,
    db: u16,
    key: Vec<u8>,
}

/// The best candidates seen, by score, the next to go last.
#[derive(Default)]
struct Pool {
    candidates: Vec<Candidate>,
    random: u64,
}

/// What was found to fill the pool with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Filled {
    /// Keys that may go.
    Found,
    /// None, but somebody keeps shards for long who may hold some.
    Contended,
    /// None.
    None,
}

impl Pool {
    fn offer(&mut self, score: u64, db: u16, key: &[u8]) {
        let at = self.candidates.partition_point(|other| other.score < score);
        if self.candidates.len() == POOL {
            if at == 0 {
                return;
            }
            self.candidates.remove(0);
            self.candidates.insert(at - 1, Candidate { score, db, key: key.to_vec() });
        } else {
            self.candidates.insert(at, Candidate { score, db, key: key.to_vec() });
        }
    }

    /// Adds keys of one shard of every database, from a random shard on the first that has any.
    fn fill(&mut self, keyspace: &Keyspace, settings: &MemoryLimit) -> Filled {
        let (now_ms, first) = (now_ms(), next_random(&mut self.random) as usize);
        let mut state = next_random(&mut self.random);
        let mut contended = false;
        let found = (0..SHARDS).any(|offset| {
            let shard = first.wrapping_add(offset) % SHARDS;
            let Some(mut locked) = keyspace.try_lock_shard(shard) else {
                contended = true;
                return false;
            };
            let mut found = false;
            for db in 0..keyspace.databases() {
                // A page for each database of each shard adds up.
                locked.shard_at_mut(shard).database_mut(db).release();
                sample(locked.shard_at(shard).database(db), settings, &mut state, |entry| {
                    self.offer(score(entry, keyspace, settings.policy, now_ms), db, entry.key());
                    found = true;
                });
            }
            found
        });
        match (found, contended) {
            (true, _) => Filled::Found,
            (false, true) => Filled::Contended,
            (false, false) => Filled::None,
        }
    }
}

/// Gives some keys of a database, chosen as the policy asks.
fn sample(database: &Database, settings: &MemoryLimit, state: &mut u64, mut visit: impl FnMut(&Entry)) {
    let random = || next_random(state);
    match settings.policy {
        EvictionPolicy::NoEviction => {}
        EvictionPolicy::VolatileTtl => database.soonest().into_iter().for_each(visit),
        policy => {
            let count = if policy.is_random() { 1 } else { settings.samples };
            if policy.is_volatile() {
                database.sample_expiring(count, random, &mut visit);
            } else {
                database.sample_some(count, random, &mut visit);
            }
        }
    }
}

/// How soon an entry should go.
fn score(entry: &Entry, keyspace: &Keyspace, policy: EvictionPolicy, now_ms: i64) -> u64 {
    let access = keyspace.access();
    match policy {
        EvictionPolicy::VolatileTtl => {
            u64::MAX - entry.expire_at_ms().map_or(u64::MAX, |at| at.max(0).unsigned_abs())
        }
        EvictionPolicy::VolatileLfu | EvictionPolicy::AllKeysLfu => {
            u64::from(u8::MAX - access.frequency(entry.clock(), now_ms))
        }
        EvictionPolicy::VolatileLru | EvictionPolicy::AllKeysLru => {
            u64::from(access.idle_seconds(entry.clock(), now_ms))
        }
        EvictionPolicy::VolatileRandom | EvictionPolicy::AllKeysRandom | EvictionPolicy::NoEviction => 0,
    }
}

impl Engine {
    /// Makes room where memory is short because of what clients send: no command of theirs may come that would.
    pub fn relieve_memory(&self) {
        if self.0.is_over_limit() {
            self.0.is_out_of_memory();
        }
    }
}

impl Inner {
    /// Frees memory where too much is in use, as far as the policy lets it; whether that is not enough. Takes locks, so
    /// nobody may call it who holds one.
    #[inline]
    pub(crate) fn is_out_of_memory(&self) -> bool {
        // Of keys that are being loaded none may go: the journal that is read goes on to change them.
        self.eviction.limited.load(Ordering::Relaxed)
            && !self.loading.is_on()
            && self.make_room(None) == Room::None
    }

    /// Whether more seems to be in use than may be: quick, and close enough to ask before any command.
    pub(crate) fn is_over_limit(&self) -> bool {
        let eviction = &self.eviction;
        let Some(heap) = &eviction.heap else { return false };
        let limit = eviction.limit_bytes.load(Ordering::Relaxed);
        limit > 0 && u64::try_from(eviction.usage.update(&**heap)).unwrap_or(0) + WORKING_BYTES > limit
    }

    /// Frees memory that no command has asked for, as after a lower limit was set.
    pub(crate) fn evict_some(&self) {
        if self.eviction.limited.load(Ordering::Relaxed) {
            self.make_room(Some(TICK_BUDGET));
        }
    }

    #[cold]
    fn make_room(&self, budget: Option<Duration>) -> Room {
        let eviction = &self.eviction;
        let Some(heap) = &eviction.heap else { return Room::Enough };
        let settings = Arc::clone(&eviction.settings.read());
        if budget.is_some() {
            eviction.usage.ask(&**heap);
        }
        let mut room = self.room(eviction.usage.update(&**heap), &settings);
        if room != Room::Enough && eviction.usage.is_stale() {
            room = self.room(eviction.usage.ask(&**heap), &settings);
        }
        if room != Room::Enough {
            room = self.evict(&**heap, &settings, budget.unwrap_or_else(|| settings.patience()));
        }
        if room != Room::Enough || budget.is_some() {
            eviction.note_exceeded(room);
        }
        room
    }

    /// Whether so many bytes in use are too many. What waits to be written to the journal does not count: it goes by
    /// itself, and the effects of evictions would add to it.
    fn room(&self, used: i64, settings: &MemoryLimit) -> Room {
        let pending = self.log.end().0.saturating_sub(self.log.durable().0);
        let used = u64::try_from(used).unwrap_or(0).saturating_sub(pending);
        if used + WORKING_BYTES <= settings.bytes { Room::Enough } else { Room::None }
    }

    fn evict(&self, heap: &dyn Heap, settings: &MemoryLimit, patience: Duration) -> Room {
        if settings.policy == EvictionPolicy::NoEviction {
            return Room::None;
        }
        let begun = Instant::now();
        for evicted in 1.. {
            match self.evict_one(settings) {
                Room::Enough => {}
                // What is left may be what other threads have freed and not told of yet.
                Room::None => return self.room(self.eviction.usage.ask(heap), settings),
                Room::Later => return Room::Later,
            }
            if self.room(self.eviction.usage.update(heap), settings) == Room::Enough {
                break;
            }
            if evicted % KEYS_BETWEEN_LOOKS == 0 && begun.elapsed() > patience {
                return Room::Later;
            }
        }
        Room::Enough
    }

    /// Evicts the best candidate that still is one.
    fn evict_one(&self, settings: &MemoryLimit) -> Room {
        loop {
            let candidate = {
                let mut pool = self.eviction.pool.lock();
                match pool.fill(&self.keyspace, settings) {
                    Filled::Found => pool.candidates.pop(),
                    // What may go is not to be had just now.
                    Filled::Contended => return Room::Later,
                    Filled::None => {
                        pool.candidates.clear();
                        return Room::None;
                    }
                }
            };
            let Some(candidate) = candidate else { return Room::None };
            // Like any write it waits where the journal has no room; the command that asked will be told so itself.
            let _permit = match self.log.admit(candidate.key.len() + EFFECT_BYTES) {
                None => None,
                Some(Admission::Granted(permit)) => Some(permit),
                Some(_) => return Room::Later,
            };
            if self.remove(&candidate, settings) {
                self.eviction.evicted.fetch_add(1, Ordering::Relaxed);
                return Room::Enough;
            }
        }
    }

    /// Removes a candidate, unless it has been used since, or is gone.
    fn remove(&self, candidate: &Candidate, settings: &MemoryLimit) -> bool {
        let (hash, now_ms) = (self.keyspace.hash(&candidate.key), now_ms());
        let Some(mut locked) = self.keyspace.try_lock_one(hash) else { return false };
        let entry = locked.shard(hash).database(candidate.db).get(hash.0, &candidate.key);
        let still = |entry: &Entry| {
            (!settings.policy.is_volatile() || entry.expire_at_ms().is_some())
                && score(entry, &self.keyspace, settings.policy, now_ms) >= candidate.score
        };
        if !entry.is_some_and(still) {
            return false;
        }
        let (mut effects, limits, mut random) = (Effects::default(), Limits::default(), 0);
        let known_key = Some((&candidate.key[..], KeyHash(hash.0)));
        let tools = Tools { now_ms, limits: &limits, random: &mut random, replaying: false, known_key };
        effects.listen(self.hub.interest());
        let guard = AbortOnPanic::armed();
        let evicted = evict_key(&mut locked, candidate.db, &candidate.key, &mut effects, tools);
        let after = self.commit(&mut locked, &mut effects, now_ms);
        guard.disarm();
        effects.tell(&self.hub, 0, after.0);
        locked.shard_mut(hash).database_mut(candidate.db).release();
        drop(locked);
        // A large value is freed when nobody waits for the shard.
        evicted.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pool_keeps_the_best_and_gives_the_best_first() {
        let mut pool = Pool::default();
        for score in [5, 9, 1, 7].into_iter().chain(100..116).chain([2, 50, 115]) {
            pool.offer(score, 0, &score.to_le_bytes());
        }
        let scores: Vec<u64> = std::iter::from_fn(|| pool.candidates.pop()).map(|best| best.score).collect();
        assert_eq!(scores, [115, 115, 114, 113, 112, 111, 110, 109, 108, 107, 106, 105, 104, 103, 102, 101]);
    }

    #[test]
    fn keys_that_somebody_holds_are_not_taken_for_none() {
        let keyspace = Keyspace::new(1);
        let settings = MemoryLimit { policy: EvictionPolicy::AllKeysLru, ..MemoryLimit::default() };
        assert_eq!(Pool::default().fill(&keyspace, &settings), Filled::None);
        let hash = keyspace.hash(b"held");
        let mut locked = keyspace.lock_one(hash);
        let entry = Entry::string(b"held", b"value", None);
        locked.shard_mut(hash).database_mut(0).insert(hash.0, entry, |key| keyspace.hash(key).0);
        keyspace.note_held_long(true);
        assert_eq!(Pool::default().fill(&keyspace, &settings), Filled::Contended);
        keyspace.note_held_long(false);
        drop(locked);
        assert_eq!(Pool::default().fill(&keyspace, &settings), Filled::Found);
    }

    #[test]
    fn patience_grows_with_tenacity() {
        let patience = |tenacity| MemoryLimit { tenacity, ..MemoryLimit::default() }.patience();
        assert_eq!((patience(0), patience(10)), (Duration::ZERO, Duration::from_micros(500)));
        assert_eq!((patience(50).as_millis(), patience(99).as_secs()), (133, 126));
        assert_eq!(patience(100), Duration::MAX);
    }
}
