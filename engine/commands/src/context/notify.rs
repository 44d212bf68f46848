//! Keyspace events: what handlers tell of keys, for those who listen.

use super::{Collection, Data};
use crate::hub::Interest;

impl Data<'_, '_> {
    /// Tells those who listen for this class of events what happened to a key of the selected database.
    #[inline]
    pub fn notify(&mut self, class: Interest, event: &'static str, key: &[u8]) {
        self.notify_in(self.db, class, event, key);
    }

    /// As [`Data::notify`], for a key of any database.
    #[inline]
    pub fn notify_in(&mut self, db: u16, class: Interest, event: &'static str, key: &[u8]) {
        self.effects.news().event(class, event, db, key);
    }

    /// As [`Data::notify`], of a command that took something out of a collection: where it was the last, the key is gone,
    /// and that is told too.
    #[inline]
    pub fn notify_taken(&mut self, class: Interest, event: &'static str, key: &[u8]) {
        self.notify(class, event, key);
        if self.effects.news().is_wanted(Interest::GENERIC) && self.settled(key).is_none() {
            self.notify(Interest::GENERIC, "del", key);
        }
    }

    /// As [`Data::store`], and tells of it: a result as `event`, an empty one as the end of what was there.
    pub fn store_as<T: Collection>(&mut self, class: Interest, event: &'static str, key: &[u8], value: T) {
        if value.count() > 0 {
            self.store(key, value);
            self.notify(class, event, key);
        } else if self.remove(key).is_some() {
            self.notify(Interest::GENERIC, "del", key);
        }
    }

    /// Tells of a string that was set.
    #[inline]
    pub(super) fn tell_set(&mut self, key: &[u8], is_new: bool) {
        if self.effects.news().is_wanted(Interest::NEW.and(Interest::TRACKING)) {
            self.tell_set_to_listeners(key, is_new);
        }
    }

    #[cold]
    fn tell_set_to_listeners(&mut self, key: &[u8], is_new: bool) {
        if is_new {
            self.notify(Interest::NEW, "new", key);
        }
        self.effects.news().changed(key);
    }

    /// Tells of a key that is about to come into being, unless it is there.
    #[inline]
    pub(super) fn notify_new_in(&mut self, db: u16, key: &[u8]) {
        if self.effects.news().is_wanted(Interest::NEW) {
            self.notify_if_new(db, key);
        }
    }

    #[cold]
    fn notify_if_new(&mut self, db: u16, key: &[u8]) {
        let hash = self.hash(key);
        if self.locked.shard(hash).database(db).get(hash.0, key).is_none() {
            self.notify_in(db, Interest::NEW, "new", key);
        }
    }
}
