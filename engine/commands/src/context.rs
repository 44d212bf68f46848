//! What a handler works with.

mod notify;
mod typed;

pub use typed::Collection;
pub(crate) use typed::bulk_item;

use cairn_keyspace::types::Limits;
use cairn_keyspace::{Clock, Entry, KeyHash, Keyspace, Locked, Object, Spot};
use cairn_resp::Reply;

use crate::dispatch::{Strayed, Tools};
use crate::effects::Effects;
use crate::error::{CommandError, CommandResult};
use crate::host::{Host, Job};
use crate::hub::Interest;
use crate::session::Session;
use crate::waiting::Wait;

/// Everything a handler may touch while its command runs.
///
/// `data`, `reply`, `session` and `host` are apart, so that a value borrowed from the one can go into the other.
pub struct Context<'a, 'k> {
    /// The keys, locked.
    pub data: Data<'a, 'k>,
    /// Where the reply goes.
    pub reply: Reply<'a>,
    /// The client.
    pub session: &'a mut Session,
    /// The process around the keyspace.
    pub host: &'a dyn Host,
    /// Long work that the command asks for instead of replying; see [`Job`].
    pub job: Option<Job>,
    /// What the command waits for instead of replying; see [`Context::wait`].
    pub wait: Option<Box<Wait>>,
    /// Whether the command runs as part of EXEC, or of a script.
    pub in_transaction: bool,
    /// Whether a script calls it.
    pub in_script: bool,
    /// What a script touches beyond the keys it declared.
    pub strayed: Strayed,
}

impl Context<'_, '_> {
    /// With more bytes of replies than this the client is disconnected (`client-output-buffer-limit`).
    pub fn reply_max(&self) -> usize {
        match self.host.hub().output_limits().normal.hard_bytes {
            0 => usize::MAX,
            bytes => usize::try_from(bytes).unwrap_or(usize::MAX),
        }
    }

    /// Ends a command early whose reply has become longer than that, so that no memory goes into what nobody will read: the
    /// connection ends without it.
    ///
    /// # Errors
    /// For a script, which goes on.
    #[cold]
    pub fn give_up_reply(&mut self) -> CommandResult {
        if self.in_script {
            return Err(CommandError::other(
                "ERR the reply is longer than client-output-buffer-limit allows",
            ));
        }
        (self.session.reply_given_up, self.session.closing) = (true, true);
        Ok(())
    }
}

/// Counters of keyspace lookups, as INFO shows them.
#[derive(Default, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lookups {
    /// Reads that found their key.
    pub hits: u64,
    /// Reads that did not.
    pub misses: u64,
    /// Keys removed because they had expired.
    pub expired: u64,
    /// Fields of hashes removed because they had expired.
    pub expired_fields: u64,
}

/// The locked part of the keyspace, as one database, with what changes there on the way to the journal.
pub struct Data<'a, 'k> {
    locked: &'a mut Locked<'k>,
    effects: &'a mut Effects,
    /// The selected database.
    pub db: u16,
    /// The clock, read once for the command: milliseconds since the Unix epoch.
    pub now_ms: i64,
    /// When small collections change their encoding.
    pub limits: &'a Limits,
    /// What is recorded of the entries that are used.
    pub(crate) clock: Clock,
    /// Counters of this command's lookups.
    pub lookups: Lookups,
    /// Replaying the journal: nothing expires, since what did is in the journal.
    replaying: bool,
    /// The command that runs only reads, so that what it finds expired may stay while clients that write are paused. One
    /// that writes removes it: its effect may name the key, which in a replay nobody finds expired.
    keeps_expired: bool,
    /// A key whose hash is known: an argument of the command that runs.
    known_key: Option<(&'a [u8], KeyHash)>,
    random: &'a mut u64,
}

impl<'a, 'k> Data<'a, 'k> {
    #[inline]
    pub(crate) fn new(
        locked: &'a mut Locked<'k>,
        effects: &'a mut Effects,
        db: u16,
        tools: Tools<'a>,
    ) -> Self {
        let Tools { now_ms, limits, random, replaying, known_key } = tools;
        let lookups = Lookups::default();
        let clock = if replaying { Clock::OFF } else { locked.keyspace().access().clock(now_ms) };
        let keeps_expired = false;
        Self {
            locked,
            effects,
            db,
            now_ms,
            limits,
            clock,
            lookups,
            replaying,
            keeps_expired,
            known_key,
            random,
        }
    }

    /// Begins a command; `only_reads`: it changes nothing.
    #[inline]
    pub(crate) fn begin_command(&mut self, only_reads: bool) {
        self.keeps_expired = only_reads;
        self.effects.begin_command();
    }

    /// The keyspace the keys belong to.
    #[must_use]
    pub fn keyspace(&self) -> &'k Keyspace {
        self.locked.keyspace()
    }

    /// The locked shards.
    #[must_use]
    pub fn locked(&self) -> &Locked<'k> {
        self.locked
    }

    /// The locked shards, to change them beside the journal: for watches only.
    pub(crate) fn locked_mut(&mut self) -> &mut Locked<'k> {
        self.locked
    }

    #[inline]
    fn hash(&self, key: &[u8]) -> KeyHash {
        match self.known_key {
            // The very same bytes, which stay for as long as the command runs: they need not be compared.
            Some((known, hash)) if std::ptr::eq(known, key) => hash,
            _ => self.locked.keyspace().hash(key),
        }
    }

    /// Whether an entry with this expiry is gone for those who look.
    #[inline]
    #[must_use]
    pub fn is_expired(&self, entry: &Entry) -> bool {
        !self.replaying && entry.expire_at_ms().is_some_and(|at| at <= self.now_ms)
    }

    /// Removes the key, or fields of it, if they have expired; returns its hash and where what is left of it lies.
    #[inline]
    fn expire(&mut self, db: u16, key: &[u8]) -> (KeyHash, Option<Spot>) {
        let hash = self.hash(key);
        let database = self.locked.shard(hash).database(db);
        let spot = database.locate(hash.0, key);
        match spot.and_then(|spot| database.entry(spot)) {
            Some(entry) if self.is_expired(entry) => {
                self.remove_expired(db, hash, key);
                (hash, None)
            }
            Some(entry) if self.has_due_fields(entry) => {
                self.remove_due_fields(db, hash, key, usize::MAX);
                // The last of its fields may have been among them.
                (hash, self.locked.shard(hash).database(db).locate(hash.0, key))
            }
            _ => (hash, spot),
        }
    }

    /// Whether an entry is a hash with fields that are gone for those who look.
    #[inline]
    fn has_due_fields(&self, entry: &Entry) -> bool {
        entry.fields_expire_at_ms().is_some_and(|at| at <= self.now_ms && !self.replaying)
    }

    /// Removes up to `most` fields of a hash that have expired, and the key with the last of its fields; returns how many.
    #[cold]
    fn remove_due_fields(&mut self, db: u16, hash: KeyHash, key: &[u8], most: usize) -> usize {
        let now_ms = self.now_ms;
        let shard = self.locked.shard_mut(hash);
        let removed = shard.database_mut(db).remove_due_fields(hash.0, key, now_ms, most);
        shard.touch(db, key);
        let is_gone = shard.database(db).get(hash.0, key).is_none();
        self.effects.note_expired_fields(db, hash, key, &removed);
        if is_gone {
            self.notify_in(db, Interest::GENERIC, "del", key);
        }
        self.lookups.expired_fields += removed.len() as u64;
        removed.len()
    }

    #[cold]
    fn remove_expired(&mut self, db: u16, hash: KeyHash, key: &[u8]) {
        let shard = self.locked.shard_mut(hash);
        shard.touch(db, key);
        let removed = shard.database_mut(db).remove(hash.0, key);
        removed.into_iter().for_each(|entry| self.locked.keyspace().discards.put(entry));
        self.effects.note_removed(db, hash, key, (Interest::EXPIRED, "expired"));
        self.lookups.expired += 1;
    }

    /// Removes a key that no command asked to remove; its effect is its own.
    pub(crate) fn evict(&mut self, key: &[u8]) -> Option<Entry> {
        let (hash, db) = (self.hash(key), self.db);
        let shard = self.locked.shard_mut(hash);
        let entry = shard.database_mut(db).remove(hash.0, key)?;
        shard.touch(db, key);
        self.effects.note_removed(db, hash, key, (Interest::EVICTED, "evicted"));
        Some(entry)
    }

    /// Removes the key that expired longest ago in a shard, if any has; whether one was there. For the active expiry.
    pub(crate) fn expire_next(&mut self, shard: usize, db: u16) -> bool {
        let keyspace = self.keyspace();
        let database = self.locked.shard_at(shard).database(db);
        let Some(entry) = database.next_expired(self.now_ms) else {
            return false;
        };
        let key = entry.key().to_vec();
        self.remove_expired(db, keyspace.hash(&key), &key);
        true
    }

    /// Removes up to `most` fields of the hash in a shard that has the one that expired longest ago; returns how many, 0
    /// when none has. For the active expiry.
    pub(crate) fn expire_next_fields(&mut self, shard: usize, db: u16, most: usize) -> usize {
        let keyspace = self.keyspace();
        let Some(entry) = self.locked.shard_at(shard).database(db).next_with_due_fields(self.now_ms) else {
            return 0;
        };
        let key = entry.key().to_vec();
        self.remove_due_fields(db, keyspace.hash(&key), &key, most)
    }

    /// The entry of a key, to read it. Counts as a hit or a miss, and as a use.
    #[inline]
    pub fn get(&mut self, key: &[u8]) -> Option<&Entry> {
        self.find(key, self.clock)
    }

    /// As [`Data::get`], for commands that tell of a key without using it.
    pub fn inspect(&mut self, key: &[u8]) -> Option<&Entry> {
        self.find(key, self.clock.paused())
    }

    /// As [`Data::inspect`], for those whose miss is counted but no event.
    pub fn inspect_quietly(&mut self, key: &[u8]) -> Option<&Entry> {
        if !self.exists(key) {
            self.lookups.misses += 1;
            return None;
        }
        self.inspect(key)
    }

    #[inline]
    fn find(&mut self, key: &[u8], clock: Clock) -> Option<&Entry> {
        let hash = self.hash(key);
        let database = self.locked.shard(hash).database(self.db);
        let Some(spot) = database.locate(hash.0, key) else {
            self.lookups.misses += 1;
            self.notify(Interest::KEY_MISS, "keymiss", key);
            return None;
        };
        let entry = database.entry(spot)?;
        if self.is_expired(entry) {
            self.lookups.misses += 1;
            if !(self.keeps_expired && self.locked.keyspace().holds_expiry(self.now_ms)) {
                self.remove_expired(self.db, hash, key);
            }
            self.notify(Interest::KEY_MISS, "keymiss", key);
            return None;
        }
        if self.has_due_fields(entry) {
            self.remove_due_fields(self.db, hash, key, usize::MAX);
            // The last of its fields may have been among them.
            if self.locked.shard(hash).database(self.db).get(hash.0, key).is_none() {
                self.lookups.misses += 1;
                self.notify(Interest::KEY_MISS, "keymiss", key);
                return None;
            }
        }
        self.lookups.hits += 1;
        // Fields that went have left the entry where it was.
        let entry = self.locked.shard_mut(hash).database_mut(self.db).entry_mut(spot)?;
        use_entry(entry, clock, self.random);
        Some(entry)
    }

    /// The entry of a key as it lies there, were it long expired: for those who debug.
    pub(crate) fn find_even_expired(&self, key: &[u8]) -> Option<&Entry> {
        let hash = self.hash(key);
        self.locked.shard(hash).database(self.db).get(hash.0, key)
    }

    /// The entry of a key that the command is about to change, or in another database; counts nothing.
    pub fn peek(&mut self, key: &[u8]) -> Option<&Entry> {
        self.peek_in(self.db, key)
    }

    /// The entry of a key in any database; counts nothing.
    pub fn peek_in(&mut self, db: u16, key: &[u8]) -> Option<&Entry> {
        let (hash, spot) = self.expire(db, key);
        self.locked.shard(hash).database(db).entry(spot?)
    }

    /// Whether a key is there; counts nothing.
    pub fn exists(&mut self, key: &[u8]) -> bool {
        self.peek(key).is_some()
    }

    /// The string of a key, to read it.
    ///
    /// # Errors
    /// [`CommandError::WrongType`] when the key holds a collection.
    #[inline]
    pub fn get_str(&mut self, key: &[u8]) -> Result<Option<&[u8]>, CommandError> {
        self.get(key).map(|entry| entry.as_str().ok_or(CommandError::WrongType)).transpose()
    }

    /// The entry of a key, to change its value; the caller then calls [`Data::changed`].
    pub fn get_mut(&mut self, key: &[u8]) -> Option<&mut Entry> {
        let (hash, spot) = self.expire(self.db, key);
        let entry = self.locked.shard_mut(hash).database_mut(self.db).entry_mut(spot?)?;
        use_entry(entry, self.clock, self.random);
        Some(entry)
    }

    /// Notes that the value of a key changed: for those who watch it, for the journal, and so that no reply about it is
    /// sent before the change is durable. [`Data::set_string`], [`Data::insert`], [`Data::remove`] and
    /// [`Data::set_expire_at_ms`] do so themselves.
    #[inline]
    pub fn changed(&mut self, key: &[u8]) {
        self.changed_in(self.db, key);
    }

    fn changed_in(&mut self, db: u16, key: &[u8]) {
        let hash = self.hash(key);
        self.locked.shard_mut(hash).touch(db, key);
        self.effects.note_change(hash);
        self.effects.news().changed(key);
    }

    /// Whether this command, or what it is part of, has changed a key.
    pub(crate) fn has_changed(&self, key: &[u8]) -> bool {
        self.effects.changed_whole() || self.effects.changed().contains(&self.hash(key))
    }

    /// Sets a string; `expire_at_ms` is the key's expiry from now on.
    #[inline]
    pub fn set_string(&mut self, key: &[u8], value: &[u8], expire_at_ms: Option<i64>) {
        let keyspace = self.keyspace();
        let hash = self.hash(key);
        let (clock, random) = (self.clock, &mut *self.random);
        let record = |before: Option<u32>| match before {
            Some(before) => clock.of_used(before, || next_random(random)),
            None => clock.of_new(),
        };
        let shard = self.locked.shard_mut(hash);
        let database = shard.database_mut(self.db);
        let is_new =
            database.set_string(hash.0, key, value, expire_at_ms, |key| keyspace.hash(key).0, record);
        shard.touch(self.db, key);
        self.effects.note_change(hash);
        self.tell_set(key, is_new);
    }

    /// Puts a value in, in place of what was there.
    pub fn insert(&mut self, key: &[u8], object: Object, expire_at_ms: Option<i64>) {
        self.insert_in(self.db, key, object, expire_at_ms);
    }

    /// Puts a value into any database, in place of what was there.
    pub fn insert_in(&mut self, db: u16, key: &[u8], object: Object, expire_at_ms: Option<i64>) {
        let hash = self.hash(key);
        let before = self.locked.shard(hash).database(db).get(hash.0, key).map(Entry::clock);
        let (clock, random) = (self.clock, &mut *self.random);
        let mut entry = Entry::object(key, object, expire_at_ms);
        entry
            .set_clock(before.map_or(clock.of_new(), |before| clock.of_used(before, || next_random(random))));
        self.insert_entry_in(db, entry);
    }

    /// Puts an entry into any database as it is, in place of that of the same key.
    pub fn insert_entry_in(&mut self, db: u16, entry: Entry) {
        let keyspace = self.keyspace();
        let hash = self.hash(entry.key());
        self.notify_new_in(db, entry.key());
        self.changed_in(db, entry.key());
        let database = self.locked.shard_mut(hash).database_mut(db);
        let replaced = database.insert(hash.0, entry, |key| keyspace.hash(key).0);
        replaced.into_iter().for_each(|entry| keyspace.discards.put(entry));
    }

    /// Says what is recorded of a key's uses.
    pub fn set_clock(&mut self, key: &[u8], clock: u32) {
        let hash = self.hash(key);
        if let Some(entry) = self.locked.shard_mut(hash).database_mut(self.db).get_mut(hash.0, key) {
            entry.set_clock(clock);
        }
    }

    /// Takes a key out; an expired one counts as not there.
    pub fn remove(&mut self, key: &[u8]) -> Option<Entry> {
        let (hash, spot) = self.expire(self.db, key);
        spot?;
        let entry = self.locked.shard_mut(hash).database_mut(self.db).remove(hash.0, key)?;
        self.changed_in(self.db, key);
        Some(entry)
    }

    /// Removes a key; false when there is no such key. A value that takes long to free is freed elsewhere.
    pub fn delete(&mut self, key: &[u8]) -> bool {
        let removed = self.remove(key);
        let found = removed.is_some();
        removed.into_iter().for_each(|entry| self.keyspace().discards.put(entry));
        found
    }

    /// Sets or clears the expiry of a key; false when there is no such key.
    pub fn set_expire_at_ms(&mut self, key: &[u8], at: Option<i64>) -> bool {
        let (hash, _) = self.expire(self.db, key);
        let database = self.locked.shard_mut(hash).database_mut(self.db);
        let found = database.set_expire_at_ms(hash.0, key, at);
        if found {
            database
                .get_mut(hash.0, key)
                .into_iter()
                .for_each(|entry| use_entry(entry, self.clock, self.random));
            self.changed(key);
        }
        found
    }

    /// Removes every key of a database; returns how many there were. All shards are held. The memory goes back at once, or
    /// soon after where `later` lets it.
    pub fn flush(&mut self, db: u16, later: bool) -> usize {
        let removed = self.locked.flush(db, later);
        self.effects.news().flushed();
        self.effects.note_whole(removed as u64);
        removed
    }

    /// Exchanges two databases. All shards are held.
    pub fn swap_databases(&mut self, a: u16, b: u16) {
        let keyspace = self.keyspace();
        self.expire_watched(a, b);
        for shard in 0..cairn_keyspace::SHARDS {
            let shard = self.locked.shard_at_mut(shard);
            for db in [a, b] {
                shard.touch_all(db, |key| keyspace.hash(key).0);
            }
            shard.swap(a, b);
            for db in [a, b] {
                shard.touch_all(db, |key| keyspace.hash(key).0);
            }
        }
        self.effects.note_whole(1);
    }

    /// Removes what has expired under the watched keys of two databases that are about to be exchanged: an expired key is
    /// no key, so it changes nothing for those who watch where it comes to, nor does its removal later.
    fn expire_watched(&mut self, a: u16, b: u16) {
        for shard in 0..cairn_keyspace::SHARDS {
            let watched: Vec<Vec<u8>> =
                self.locked.shard_at(shard).watched_in([a, b]).map(<[u8]>::to_vec).collect();
            for key in &watched {
                self.expire(a, key);
                self.expire(b, key);
            }
        }
    }

    /// Writes an effect in place of the command's own words. May be called several times; all of a command's effects
    /// replay as one transaction.
    pub fn effect(&mut self, args: &[&[u8]]) {
        self.effects.push_explicit(self.db, args);
    }

    /// Whether the journal is being replayed.
    #[must_use]
    pub fn is_replaying(&self) -> bool {
        self.replaying
    }

    /// A random number.
    #[inline]
    pub fn random(&mut self) -> u64 {
        next_random(self.random)
    }

    pub(crate) fn effects(&mut self) -> &mut Effects {
        self.effects
    }
}

/// Records that an entry is used.
#[inline]
fn use_entry(entry: &mut Entry, clock: Clock, random: &mut u64) {
    entry.set_clock(clock.of_used(entry.clock(), || next_random(random)));
}

/// SplitMix64: passes the usual statistical tests and needs one word of state, which is enough to choose members.
#[inline]
pub fn next_random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
