//! Keys by the type of their value.

use cairn_keyspace::types::{Hash, Item, List, Set, Stream, Zset};
use cairn_keyspace::{Entry, Object, Value};
use cairn_resp::Reply;

use super::{Data, next_random, use_entry};
use crate::error::CommandError;

/// A collection that a key may hold. A void one is never stored.
pub trait Collection: Default {
    /// The collection in an object, unless it holds another type.
    fn of(object: &Object) -> Option<&Self>;
    /// As [`Collection::of`], to change it.
    fn of_mut(object: &mut Object) -> Option<&mut Self>;
    /// The object that holds it.
    fn into_object(self) -> Object;
    /// How many elements it has.
    fn count(&self) -> usize;
    /// Whether nothing is left of it that would be worth a key.
    fn is_void(&self) -> bool {
        self.count() == 0
    }
}

macro_rules! collections {
    ($($name:ident),*) => {$(
        impl Collection for $name {
            fn of(object: &Object) -> Option<&Self> {
                if let Object::$name(value) = object { Some(value) } else { None }
            }
            fn of_mut(object: &mut Object) -> Option<&mut Self> {
                if let Object::$name(value) = object { Some(value) } else { None }
            }
            fn into_object(self) -> Object {
                Object::$name(self)
            }
            fn count(&self) -> usize {
                self.len()
            }
        }
    )*};
}

collections!(List, Set, Hash, Zset);

impl Collection for Stream {
    fn of(object: &Object) -> Option<&Self> {
        if let Object::Stream(stream) = object { Some(stream) } else { None }
    }
    fn of_mut(object: &mut Object) -> Option<&mut Self> {
        if let Object::Stream(stream) = object { Some(stream) } else { None }
    }
    fn into_object(self) -> Object {
        Object::Stream(Box::new(self))
    }
    fn count(&self) -> usize {
        self.len()
    }
    /// Without entries it still has its last id and its groups.
    fn is_void(&self) -> bool {
        false
    }
}

fn typed<T: Collection>(entry: &Entry) -> Result<&T, CommandError> {
    match entry.value() {
        Value::Object(object) => T::of(object).ok_or(CommandError::WrongType),
        Value::Str(_) => Err(CommandError::WrongType),
    }
}

impl Data<'_, '_> {
    /// The collection of a key, to read it. Counts as a hit or a miss.
    ///
    /// # Errors
    /// [`CommandError::WrongType`] when the key holds another type.
    #[inline]
    pub fn read<T: Collection>(&mut self, key: &[u8]) -> Result<Option<&T>, CommandError> {
        self.get(key).map(typed).transpose()
    }

    /// The collection of a key that the command may be about to change; counts nothing.
    ///
    /// # Errors
    /// [`CommandError::WrongType`] when the key holds another type.
    #[inline]
    pub fn look<T: Collection>(&mut self, key: &[u8]) -> Result<Option<&T>, CommandError> {
        self.peek(key).map(typed).transpose()
    }

    /// The entry of a key that this command has read or peeked at, so that fields of it that had expired are gone. Several
    /// may be held at once.
    #[must_use]
    pub fn settled(&self, key: &[u8]) -> Option<&Entry> {
        let hash = self.hash(key);
        let entry = self.locked.shard(hash).database(self.db).get(hash.0, key);
        // While clients that write are paused, one that has expired lies there still.
        entry.filter(|entry| !self.is_expired(entry))
    }

    /// As [`Data::settled`], when it is a collection of this type.
    #[must_use]
    pub fn settled_as<T: Collection>(&self, key: &[u8]) -> Option<&T> {
        self.settled(key).and_then(|entry| typed(entry).ok())
    }

    /// Lets `edit` change the collection of a key, if there is one; `edit` returns how many changes it made, and so does
    /// this. A key whose collection has become void is removed.
    ///
    /// # Errors
    /// [`CommandError::WrongType`] when the key holds another type.
    #[inline]
    pub fn edit<T: Collection>(
        &mut self,
        key: &[u8],
        edit: impl FnOnce(&mut T) -> usize,
    ) -> Result<usize, CommandError> {
        self.edit_or(key, edit, |_, _| 0)
    }

    /// As [`Data::edit`]; where the key is absent, `edit` is given an empty collection, which is stored unless it stays
    /// void.
    ///
    /// # Errors
    /// [`CommandError::WrongType`] when the key holds another type.
    #[inline]
    pub fn edit_or_create<T: Collection>(
        &mut self,
        key: &[u8],
        edit: impl FnOnce(&mut T) -> usize,
    ) -> Result<usize, CommandError> {
        self.edit_or(key, edit, |data, edit| {
            let mut value = T::default();
            let changes = edit(&mut value);
            if !value.is_void() {
                data.insert(key, value.into_object(), None);
            }
            changes
        })
    }

    #[inline]
    fn edit_or<T: Collection, E: FnOnce(&mut T) -> usize>(
        &mut self,
        key: &[u8],
        edit: E,
        absent: impl FnOnce(&mut Self, E) -> usize,
    ) -> Result<usize, CommandError> {
        let (hash, spot) = self.expire(self.db, key);
        let shard = self.locked.shard_mut(hash);
        let Some(entry) = spot.and_then(|spot| shard.database_mut(self.db).entry_mut(spot)) else {
            return Ok(absent(self, edit));
        };
        let fields_before = entry.fields_expire_at_ms();
        use_entry(entry, self.clock, self.random);
        let value = entry.as_object_mut().and_then(T::of_mut).ok_or(CommandError::WrongType)?;
        let changes = edit(value);
        if changes > 0 {
            let (empty, fields_after) = (value.is_void(), entry.fields_expire_at_ms());
            shard.database_mut(self.db).reindex_fields(hash.0, fields_before, fields_after);
            if empty {
                shard.database_mut(self.db).remove(hash.0, key);
            }
            shard.touch(self.db, key);
            self.effects.note_change(hash);
            self.effects.news().changed(key);
        }
        Ok(changes)
    }

    /// Stores a result in place of what the key held; an empty one leaves no key.
    pub fn store<T: Collection>(&mut self, key: &[u8], value: T) {
        if value.is_void() {
            self.remove(key);
        } else {
            self.insert(key, value.into_object(), None);
        }
    }

    /// Random numbers of their own, for use while a value is borrowed.
    pub fn random_source(&mut self) -> impl FnMut() -> u64 + use<> {
        let mut state = self.random();
        move || next_random(&mut state)
    }
}

/// Replies with an element.
#[inline]
pub(crate) fn bulk_item(reply: &mut Reply<'_>, item: Item<'_>) {
    item.with_bytes(|bytes| reply.bulk(bytes));
}
