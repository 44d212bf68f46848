//! What a write did, as commands that do the same again: the journal's content.
//!
//! An effect is deterministic: it replays to the same state whatever the clock, the random numbers or the hash seed.

use cairn_keyspace::KeyHash;
use cairn_resp::push_command;

use crate::hub::{Hub, Interest, News};

/// Memory for effects that is kept for those of the next command.
const BYTES_KEPT: usize = 64 << 10;

/// How many fields one effect removes that expired at once.
const FIELDS_MAX: usize = 256;

/// The effects of one command or one transaction, and the keys they changed.
#[derive(Default)]
pub struct Effects {
    bytes: Vec<u8>,
    count: usize,
    /// The database the stream is in, where an effect has been written.
    db: Option<u16>,
    first_db: u16,
    changed: Vec<KeyHash>,
    whole: bool,
    /// The running command wrote its own effect, or has none.
    explicit: bool,
    /// The running command changed something.
    dirty: bool,
    changes: u64,
    /// What others are told of it.
    news: News,
}

impl Effects {
    /// Says for whom news are collected; to be called under the locks, before the command runs.
    #[inline]
    pub fn listen(&mut self, interest: Interest) {
        self.news.begin(interest);
    }

    /// Tells the news of what client `origin` did, to be seen once the journal is durable up to `after`.
    #[inline]
    pub fn tell(&mut self, hub: &Hub, origin: u64, after: u64) {
        if !self.news.is_empty() {
            hub.tell(&mut self.news, origin, after);
        }
    }

    #[inline]
    pub(crate) fn news(&mut self) -> &mut News {
        &mut self.news
    }

    /// Forgets everything, keeping the memory.
    #[inline]
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.changed.clear();
        (self.count, self.db, self.whole, self.explicit, self.dirty, self.changes) =
            (0, None, false, false, false, 0);
    }

    /// Gives back the memory of large effects, once they are appended: each thread keeps what it has for the next command.
    #[inline]
    pub fn release(&mut self) {
        if self.bytes.capacity() > BYTES_KEPT {
            self.bytes = Vec::new();
        }
    }

    #[inline]
    pub(crate) fn begin_command(&mut self) {
        self.explicit = false;
        self.dirty = false;
    }

    /// Ends one command: what it changed without writing an effect of its own replays as the command itself.
    #[inline]
    pub(crate) fn end_command(&mut self, db: u16, args: &[&[u8]]) {
        if self.dirty && !self.explicit {
            self.push(db, args);
        }
    }

    /// Whether the running command has changed something.
    pub(crate) fn is_dirty(&self) -> bool {
        self.dirty
    }

    #[inline]
    pub(crate) fn note_change(&mut self, hash: KeyHash) {
        self.dirty = true;
        self.changes += 1;
        self.changed.push(hash);
    }

    pub(crate) fn note_whole(&mut self, changes: u64) {
        self.dirty = true;
        self.whole = true;
        self.changes += changes;
    }

    /// Notes a key that has expired or was evicted, as the event says: an effect beside that of the running command.
    pub(crate) fn note_removed(
        &mut self,
        db: u16,
        hash: KeyHash,
        key: &[u8],
        (class, event): (Interest, &'static str),
    ) {
        self.news.changed(key);
        self.news.event(class, event, db, key);
        self.changed.push(hash);
        self.push(db, &[b"DEL", key]);
    }

    /// Notes fields of a hash removed because they expired: effects beside that of the running command.
    pub(crate) fn note_expired_fields(&mut self, db: u16, hash: KeyHash, key: &[u8], fields: &[Vec<u8>]) {
        self.news.changed(key);
        self.news.event(Interest::HASH, "hexpired", db, key);
        self.changed.push(hash);
        for fields in fields.chunks(FIELDS_MAX) {
            let mut words: Vec<&[u8]> = vec![b"HDEL", key];
            words.extend(fields.iter().map(Vec::as_slice));
            self.push(db, &words);
        }
    }

    pub(crate) fn push_explicit(&mut self, db: u16, args: &[&[u8]]) {
        self.explicit = true;
        self.push(db, args);
    }

    #[inline]
    fn push(&mut self, db: u16, args: &[&[u8]]) {
        match self.db {
            None => self.first_db = db,
            Some(current) if current != db => self.push_select(db),
            Some(_) => {}
        }
        self.db = Some(db);
        self.count += 1;
        push_command(&mut self.bytes, args);
    }

    #[cold]
    fn push_select(&mut self, db: u16) {
        push_command(&mut self.bytes, &[b"SELECT", db.to_string().as_bytes()]);
    }

    /// Whether nothing is to be journaled.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The bytes of one atomic append and the database they begin and end in. Several effects stand in MULTI and EXEC.
    #[inline]
    pub fn finish(&mut self) -> (u16, &[u8]) {
        if self.count > 1 {
            self.enclose();
        }
        (self.first_db, &self.bytes)
    }

    #[cold]
    fn enclose(&mut self) {
        const MULTI: &[u8] = b"*1\r\n$5\r\nMULTI\r\n";
        if self.db.is_some_and(|db| db != self.first_db) {
            self.push_select(self.first_db);
        }
        self.bytes.splice(0..0, MULTI.iter().copied());
        self.bytes.extend_from_slice(b"*1\r\n$4\r\nEXEC\r\n");
    }

    /// The hashes of the keys that changed.
    #[must_use]
    pub fn changed(&self) -> &[KeyHash] {
        &self.changed
    }

    /// Whether the whole keyspace changed (FLUSHALL, SWAPDB).
    #[must_use]
    pub fn changed_whole(&self) -> bool {
        self.whole
    }

    /// How many changes there were, for the `save` points.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_effects_are_one_transaction_that_ends_in_the_database_it_began_in() {
        let mut effects = Effects::default();
        effects.begin_command();
        effects.push_explicit(3, &[b"SET", b"a", b"1"]);
        effects.push_explicit(5, &[b"DEL", b"b"]);
        let (db, bytes) = effects.finish();
        assert_eq!(db, 3);
        let text = String::from_utf8_lossy(bytes).replace("\r\n", " ");
        assert_eq!(
            text,
            "*1 $5 MULTI *3 $3 SET $1 a $1 1 *2 $6 SELECT $1 5 *2 $3 DEL $1 b *2 $6 SELECT $1 3 *1 $4 EXEC "
        );
    }
}
