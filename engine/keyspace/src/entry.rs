//! One key and its value in one allocation.
//!
//! ```text
//! header 8 B | expiry i64, if it expires | Object, if not a short string | key length u32, if > 65,535 | key | short string
//! ```
//!
//! The header holds flags (8 bits), what is recorded of its uses (24 bits, see [`crate::access`]), and the lengths of key and short string (16 bits each).
//! A string up to [`INLINE_MAX`] bytes lies behind its key; anything else is an [`Object`] in front of it. Which parts
//! are there follows from the flags alone, so the size of the allocation needs no field of its own.
//!
//! The pointer to an entry has 16 bits to spare, as no user address is longer than 48. The table keeps a part of the key's
//! hash there, so that it need not touch the entries that are not the one it looks for.
#![allow(unsafe_code)]

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error, realloc};
use std::ptr::{self, NonNull};

use crate::prefetch::{CACHE_LINE, prefetch};
use crate::types::Object;

/// The longest string, in bytes, that lies in the entry itself; longer ones are an [`Object::Str`].
pub const INLINE_MAX: usize = 4096;

const EXPIRES: u8 = 1;
const OBJECT: u8 = 2;
const LONG_KEY: u8 = 4;
/// The string was edited in place. It changes no layout; OBJECT ENCODING tells of it.
const EDITED: u8 = 8;

/// What a key costs in the table: its slot, and its share of those that are free.
const TABLE_BYTES: usize = 11;

const OBJECT_BYTES: usize = size_of::<Object>();
const _: () = assert!(align_of::<Object>() <= align_of::<u64>() && INLINE_MAX <= u16::MAX as usize);

#[derive(Clone, Copy)]
#[repr(C)]
struct Header {
    flags: u8,
    clock: [u8; 3],
    key_len: u16,
    value_len: u16,
}

/// Where a pointer's tag begins.
pub(crate) const TAG_SHIFT: u32 = 48;

/// An owned key with its value and, when it has one, its expiry. One pointer wide: the address of the allocation and, in
/// the upper 16 bits, the tag.
pub struct Entry(NonNull<Header>);

// SAFETY: an Entry owns its allocation alone, and what lies in it (bytes, an i64, an Object) may move between threads.
unsafe impl Send for Entry {}
// SAFETY: a shared Entry gives out only shared references to bytes and to an Object, which is itself Sync.
unsafe impl Sync for Entry {}

/// A value as a reader sees it; a string looks the same wherever it lies.
#[derive(Clone, Copy)]
pub enum Value<'a> {
    /// A string's bytes.
    Str(&'a [u8]),
    /// A collection; never [`Object::Str`].
    Object(&'a Object),
}

impl Entry {
    /// An entry with a string value.
    #[must_use]
    pub fn string(key: &[u8], value: &[u8], expire_at_ms: Option<i64>) -> Self {
        if value.len() <= INLINE_MAX {
            Self::build(key, None, value, expire_at_ms)
        } else {
            Self::build(key, Some(Object::Str(value.to_vec())), &[], expire_at_ms)
        }
    }

    /// An entry with any value. A short [`Object::Str`] is stored in line.
    #[must_use]
    pub fn object(key: &[u8], object: Object, expire_at_ms: Option<i64>) -> Self {
        match object {
            Object::Str(bytes) if bytes.len() <= INLINE_MAX => Self::build(key, None, &bytes, expire_at_ms),
            object => Self::build(key, Some(object), &[], expire_at_ms),
        }
    }

    fn build(key: &[u8], object: Option<Object>, value: &[u8], expire_at_ms: Option<i64>) -> Self {
        let long_key = key.len() > usize::from(u16::MAX);
        let mut flags = 0;
        flags |= if expire_at_ms.is_some() { EXPIRES } else { 0 };
        flags |= if object.is_some() { OBJECT } else { 0 };
        flags |= if long_key { LONG_KEY } else { 0 };
        let header = Header {
            flags,
            clock: [0; 3],
            key_len: if long_key { 0 } else { key.len() as u16 },
            value_len: value.len() as u16,
        };
        let key_at = key_offset(flags);
        let layout = layout_of(key_at + key.len() + value.len());
        // SAFETY: the layout is never of size zero: it holds at least the header.
        let raw = unsafe { alloc(layout) };
        let Some(base) = NonNull::new(raw) else { handle_alloc_error(layout) };
        // SAFETY: every write lies inside the fresh allocation, whose size was computed from the same parts in the same
        // order; header, expiry and object sit at offsets that are multiples of 8, as the layout's alignment is.
        unsafe {
            base.cast::<Header>().write(header);
            if let Some(at) = expire_at_ms {
                base.add(8).cast::<i64>().write(at);
            }
            if let Some(object) = object {
                base.add(object_offset(flags)).cast::<Object>().write(object);
            }
            if long_key {
                let len = u32::try_from(key.len()).expect("the wire codec bounds a key to 512 MiB");
                base.add(key_at - 4).cast::<u32>().write_unaligned(len);
            }
            ptr::copy_nonoverlapping(key.as_ptr(), base.add(key_at).as_ptr(), key.len());
            ptr::copy_nonoverlapping(value.as_ptr(), base.add(key_at + key.len()).as_ptr(), value.len());
        }
        Self(untagged(base).cast())
    }

    /// What is recorded of its uses; see [`crate::access`].
    #[inline]
    #[must_use]
    pub fn clock(&self) -> u32 {
        let [low, middle, high] = self.header().clock;
        u32::from_le_bytes([low, middle, high, 0])
    }

    /// Records a use. Writes nothing where nothing changes, so that memory stays shared and caches stay clean.
    #[inline]
    pub fn set_clock(&mut self, clock: u32) {
        if clock != self.clock() {
            let [low, middle, high, _] = clock.to_le_bytes();
            // SAFETY: the header is initialised and self is borrowed mutably.
            unsafe { (*self.pointer()).clock = [low, middle, high] };
        }
    }

    /// Whether the string was edited in place since it was set.
    #[must_use]
    pub fn is_edited(&self) -> bool {
        self.header().flags & EDITED != 0
    }

    fn set_edited(&mut self, edited: bool) {
        let flags = self.header().flags & !EDITED | if edited { EDITED } else { 0 };
        // SAFETY: the header is initialised and self is borrowed mutably; the flag says nothing about the layout.
        unsafe { (*self.pointer()).flags = flags };
    }

    /// A copy of it under another key. Nothing is recorded of its uses.
    #[must_use]
    pub fn copied(&self, key: &[u8]) -> Self {
        let mut copy = Self::build(key, self.object_ref().cloned(), self.inline_bytes(), self.expire_at_ms());
        copy.set_edited(self.is_edited());
        copy
    }

    /// The same value under another key, with its expiry and what is recorded of its uses.
    #[must_use]
    pub fn renamed(mut self, key: &[u8]) -> Self {
        let object = self.take_object();
        let mut renamed = Self::build(key, object, self.inline_bytes(), self.expire_at_ms());
        renamed.set_edited(self.is_edited());
        renamed.set_clock(self.clock());
        renamed
    }

    /// What the table noted here; 0 at first.
    #[inline]
    pub(crate) fn tag(&self) -> u16 {
        (self.0.addr().get() >> TAG_SHIFT) as u16
    }

    /// Notes something for the table; it stays through every change of the value.
    #[inline]
    pub(crate) fn set_tag(&mut self, tag: u16) {
        let tagged = self.pointer().map_addr(|address| address | usize::from(tag) << TAG_SHIFT);
        // SAFETY: the address without its tag is that of an allocation, so with or without a tag it is not null.
        self.0 = unsafe { NonNull::new_unchecked(tagged) };
    }

    /// Where the allocation is: the pointer without its tag.
    #[inline]
    fn pointer(&self) -> *mut Header {
        self.0.as_ptr().map_addr(|address| address & ((1 << TAG_SHIFT) - 1))
    }

    /// Asks for key and value to be brought near, as far as those of a short string reach.
    #[inline]
    pub(crate) fn prefetch(&self) {
        prefetch(self.pointer(), 0);
        prefetch(self.pointer(), CACHE_LINE);
    }

    #[inline]
    fn header(&self) -> Header {
        // SAFETY: the pointer is to a live allocation that begins with an initialised Header.
        unsafe { *self.pointer() }
    }

    #[inline]
    fn base(&self) -> *mut u8 {
        self.pointer().cast()
    }

    #[inline]
    fn key_len(&self) -> usize {
        let header = self.header();
        if header.flags & LONG_KEY == 0 {
            return usize::from(header.key_len);
        }
        // SAFETY: LONG_KEY says that a u32 with the key's length lies right before the key.
        unsafe { self.base().add(key_offset(header.flags) - 4).cast::<u32>().read_unaligned() as usize }
    }

    fn total_bytes(&self) -> usize {
        let header = self.header();
        key_offset(header.flags) + self.key_len() + usize::from(header.value_len)
    }

    /// The key.
    #[inline]
    #[must_use]
    pub fn key(&self) -> &[u8] {
        // SAFETY: key_len bytes of the key lie at key_offset for as long as self lives.
        unsafe {
            std::slice::from_raw_parts(self.base().add(key_offset(self.header().flags)), self.key_len())
        }
    }

    /// When the key expires, in milliseconds since the Unix epoch.
    #[inline]
    #[must_use]
    pub fn expire_at_ms(&self) -> Option<i64> {
        if self.header().flags & EXPIRES == 0 {
            return None;
        }
        // SAFETY: EXPIRES says that an aligned i64 lies behind the header.
        Some(unsafe { *self.base().add(8).cast::<i64>() })
    }

    /// When the first of a hash's fields expires, in milliseconds since the Unix epoch.
    #[inline]
    #[must_use]
    pub fn fields_expire_at_ms(&self) -> Option<i64> {
        match self.object_ref() {
            Some(Object::Hash(hash)) => hash.next_expiry_ms(),
            _ => None,
        }
    }

    /// The value.
    #[inline]
    #[must_use]
    pub fn value(&self) -> Value<'_> {
        match self.object_ref() {
            None => Value::Str(self.inline_bytes()),
            Some(Object::Str(bytes)) => Value::Str(bytes),
            Some(object) => Value::Object(object),
        }
    }

    /// The string's bytes, or `None` when the value is a collection.
    #[inline]
    #[must_use]
    pub fn as_str(&self) -> Option<&[u8]> {
        match self.value() {
            Value::Str(bytes) => Some(bytes),
            Value::Object(_) => None,
        }
    }

    /// The string's bytes, to change them where they lie, or `None` when the value is a collection.
    #[must_use]
    pub fn as_str_mut(&mut self) -> Option<&mut [u8]> {
        match self.object_ptr() {
            // SAFETY: the object is initialised and self is borrowed mutably for as long as the reference lives.
            Some(object) => match unsafe { &mut *object } {
                Object::Str(bytes) => Some(bytes),
                _ => None,
            },
            None => {
                let header = self.header();
                let at = key_offset(header.flags) + self.key_len();
                // SAFETY: value_len bytes of the short string lie behind the key, and self is borrowed mutably for as
                // long as the slice lives.
                Some(unsafe {
                    std::slice::from_raw_parts_mut(self.base().add(at), usize::from(header.value_len))
                })
            }
        }
    }

    /// The collection, or `None` when the value is a string.
    #[must_use]
    pub fn as_object_mut(&mut self) -> Option<&mut Object> {
        match self.object_ptr() {
            // SAFETY: the object is initialised and self is borrowed mutably for as long as the reference lives.
            Some(object) => match unsafe { &mut *object } {
                Object::Str(_) => None,
                object => Some(object),
            },
            None => None,
        }
    }

    #[inline]
    fn object_ptr(&self) -> Option<*mut Object> {
        let flags = self.header().flags;
        // SAFETY: OBJECT says that an initialised Object lies at this offset, inside the allocation.
        (flags & OBJECT != 0).then(|| unsafe { self.base().add(object_offset(flags)).cast::<Object>() })
    }

    #[inline]
    fn object_ref(&self) -> Option<&Object> {
        // SAFETY: as for object_ptr; self is borrowed for as long as the reference lives.
        self.object_ptr().map(|object| unsafe { &*object })
    }

    #[inline]
    fn inline_bytes(&self) -> &[u8] {
        let header = self.header();
        let at = key_offset(header.flags) + self.key_len();
        // SAFETY: value_len bytes of the short string lie behind the key for as long as self lives.
        unsafe { std::slice::from_raw_parts(self.base().add(at), usize::from(header.value_len)) }
    }

    /// Replaces the value by a string; the expiry stays as it is.
    pub fn set_string(&mut self, value: &[u8]) {
        let header = self.header();
        if header.flags & OBJECT != 0 || value.len() > INLINE_MAX {
            let replacement = Self::string(self.key(), value, self.expire_at_ms());
            self.replace_with(replacement);
            return;
        }
        if header.flags & EDITED != 0 {
            self.set_edited(false);
        }
        let at = key_offset(header.flags) + self.key_len();
        if value.len() != usize::from(header.value_len) {
            self.resize(at + value.len());
            // SAFETY: the header is initialised and self is borrowed mutably.
            unsafe { (*self.pointer()).value_len = value.len() as u16 };
        }
        // SAFETY: the allocation now holds value.len() bytes behind the key; value cannot overlap it, since self is
        // borrowed mutably.
        unsafe { ptr::copy_nonoverlapping(value.as_ptr(), self.base().add(at), value.len()) };
    }

    /// Lets `edit` change the string in place; does nothing and returns `None` when the value is a collection.
    pub fn edit_string<R>(&mut self, edit: impl FnOnce(&mut Vec<u8>) -> R) -> Option<R> {
        if let Some(object) = self.object_ptr() {
            // SAFETY: the object is initialised and self is borrowed mutably.
            return match unsafe { &mut *object } {
                Object::Str(bytes) => {
                    let result = edit(bytes);
                    self.set_edited(true);
                    Some(result)
                }
                _ => None,
            };
        }
        let mut bytes = self.inline_bytes().to_vec();
        let result = edit(&mut bytes);
        if bytes.len() <= INLINE_MAX {
            self.set_string(&bytes);
        } else {
            let replacement = Self::build(self.key(), Some(Object::Str(bytes)), &[], self.expire_at_ms());
            self.replace_with(replacement);
        }
        self.set_edited(true);
        Some(result)
    }

    /// Sets or clears the expiry. Only the table may call this: it keeps the index of expiries in step.
    pub(crate) fn set_expire_at_ms(&mut self, at: Option<i64>) {
        match (self.expire_at_ms().is_some(), at) {
            // SAFETY: EXPIRES is set, so the aligned i64 behind the header is initialised; self is borrowed mutably.
            (true, Some(at)) => unsafe { self.base().add(8).cast::<i64>().write(at) },
            (false, None) => {}
            _ => {
                let (object, edited) = (self.take_object(), self.is_edited());
                let replacement = Self::build(self.key(), object, self.inline_bytes(), at);
                self.replace_with(replacement);
                self.set_edited(edited);
            }
        }
    }

    /// Takes the value out.
    #[must_use]
    pub fn into_object(mut self) -> Object {
        match self.take_object() {
            Some(object) => object,
            None => Object::Str(self.inline_bytes().to_vec()),
        }
    }

    /// Moves the object out and leaves an empty string object in its place, so that dropping stays sound.
    fn take_object(&mut self) -> Option<Object> {
        self.object_ptr().map(|object| {
            // SAFETY: the object is initialised and self is borrowed mutably; the replacement is a valid Object.
            unsafe { ptr::replace(object, Object::Str(Vec::new())) }
        })
    }

    /// Becomes another entry of the same key, which takes over tag and clock.
    fn replace_with(&mut self, mut replacement: Self) {
        replacement.set_tag(self.tag());
        replacement.set_clock(self.clock());
        *self = replacement;
    }

    fn resize(&mut self, bytes: usize) {
        let old = layout_of(self.total_bytes());
        // SAFETY: the allocation was made with exactly `old`; the new size is at least a header and, both lengths being
        // bounded by the wire codec, below isize::MAX.
        let raw = unsafe { realloc(self.base(), old, bytes) };
        let Some(base) = NonNull::new(raw) else { handle_alloc_error(layout_of(bytes)) };
        let tag = self.tag();
        self.0 = untagged(base).cast();
        self.set_tag(tag);
    }

    /// The bytes that key and value take in all, the key's share of the table included. Those of a large collection are
    /// reckoned from so many of its elements.
    #[must_use]
    pub fn memory_bytes(&self, samples: usize) -> usize {
        self.allocated_bytes()
            + TABLE_BYTES
            + self.object_ref().map_or(0, |object| object.heap_bytes(samples))
    }

    /// The bytes this entry takes in its own allocation (what an object points to is not counted).
    #[must_use]
    pub fn allocated_bytes(&self) -> usize {
        self.total_bytes()
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let layout = layout_of(self.total_bytes());
        // SAFETY: the object, when there is one, is dropped once; the allocation was made with exactly this layout.
        unsafe {
            if let Some(object) = self.object_ptr() {
                ptr::drop_in_place(object);
            }
            dealloc(self.base(), layout);
        }
    }
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Keys and values are user data and never printed.
        f.debug_struct("Entry").field("bytes", &self.total_bytes()).finish_non_exhaustive()
    }
}

/// A fresh allocation's pointer, which must leave the bits of the tag free.
#[inline]
pub(crate) fn untagged(base: NonNull<u8>) -> NonNull<u8> {
    assert!(base.addr().get() >> TAG_SHIFT == 0, "user addresses have at most 48 bits");
    base
}

#[inline]
const fn object_offset(flags: u8) -> usize {
    if flags & EXPIRES == 0 { 8 } else { 16 }
}

#[inline]
const fn key_offset(flags: u8) -> usize {
    let mut at = object_offset(flags);
    if flags & OBJECT != 0 {
        at += OBJECT_BYTES;
    }
    if flags & LONG_KEY != 0 {
        at += 4;
    }
    at
}

#[inline]
fn layout_of(bytes: usize) -> Layout {
    Layout::from_size_align(bytes, align_of::<u64>()).expect("lengths are bounded by the wire codec")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_string_keeps_key_value_and_expiry_through_changes() {
        let mut entry = Entry::string(b"key", b"value", None);
        assert_eq!(
            (entry.key(), entry.as_str(), entry.expire_at_ms()),
            (&b"key"[..], Some(&b"value"[..]), None)
        );
        entry.set_expire_at_ms(Some(42));
        assert_eq!(
            (entry.key(), entry.as_str(), entry.expire_at_ms()),
            (&b"key"[..], Some(&b"value"[..]), Some(42))
        );
        entry.set_string(b"a longer value than before");
        assert_eq!(entry.as_str(), Some(&b"a longer value than before"[..]));
        entry.set_string(b"");
        assert_eq!(
            (entry.key(), entry.as_str(), entry.expire_at_ms()),
            (&b"key"[..], Some(&b""[..]), Some(42))
        );
        entry.set_expire_at_ms(None);
        assert_eq!((entry.key(), entry.as_str(), entry.expire_at_ms()), (&b"key"[..], Some(&b""[..]), None));
    }

    #[test]
    fn a_string_is_changed_where_it_lies() {
        for (len, expire_at_ms) in
            [(3, None), (3, Some(1)), (INLINE_MAX + 1, None), (INLINE_MAX + 1, Some(1))]
        {
            let mut entry = Entry::string(b"key", &vec![b'v'; len], expire_at_ms);
            let bytes = entry.as_str_mut().expect("a string");
            assert_eq!(bytes.len(), len);
            bytes[2] = b'w';
            assert_eq!(entry.key(), b"key");
            assert!(entry.as_str().is_some_and(|bytes| bytes.starts_with(b"vvw") && bytes.len() == len));
        }
        let list = Object::List(crate::types::List::new());
        assert!(Entry::object(b"key", list, None).as_str_mut().is_none());
    }

    #[test]
    fn a_tag_stays_through_every_change() {
        for tag in [0, 1, 0x8000, u16::MAX] {
            let mut entry = Entry::string(b"key", b"value", None);
            entry.set_tag(0x5555);
            entry.set_tag(tag);
            entry.set_string(&[b'v'; 1_000]);
            entry.set_expire_at_ms(Some(42));
            entry.edit_string(|bytes| bytes.resize(INLINE_MAX + 1, b'w'));
            entry.set_string(b"short");
            assert_eq!((entry.tag(), entry.key(), entry.as_str()), (tag, &b"key"[..], Some(&b"short"[..])));
        }
    }

    #[test]
    fn what_is_recorded_stays_until_a_string_is_set_anew() {
        let mut entry = Entry::string(b"key", b"value", None);
        entry.set_clock(0x00ab_cdef);
        entry.edit_string(|bytes| bytes.push(b'!'));
        entry.set_expire_at_ms(Some(42));
        assert_eq!((entry.clock(), entry.is_edited()), (0x00ab_cdef, true));
        let copy = entry.copied(b"copy");
        assert_eq!(
            (copy.key(), copy.as_str(), copy.expire_at_ms()),
            (&b"copy"[..], entry.as_str(), Some(42))
        );
        assert_eq!((copy.clock(), copy.is_edited()), (0, true));
        let mut renamed = entry.renamed(b"a longer key");
        assert_eq!((renamed.key(), renamed.as_str()), (&b"a longer key"[..], copy.as_str()));
        assert_eq!(
            (renamed.expire_at_ms(), renamed.clock(), renamed.is_edited()),
            (Some(42), 0x00ab_cdef, true)
        );
        renamed.set_string(&[b'v'; INLINE_MAX + 1]);
        assert!(!renamed.is_edited());
        renamed.edit_string(|bytes| bytes.push(b'!'));
        assert!(renamed.is_edited() && renamed.copied(b"k").is_edited());
        renamed.set_string(b"short");
        assert_eq!((renamed.is_edited(), renamed.clock()), (false, 0x00ab_cdef));
    }

    #[test]
    fn a_string_crosses_the_inline_limit_both_ways() {
        let mut entry = Entry::string(b"k", &[7; INLINE_MAX], Some(1));
        entry.edit_string(|bytes| bytes.push(8));
        assert_eq!(entry.as_str().map(<[u8]>::len), Some(INLINE_MAX + 1));
        assert!(entry.as_object_mut().is_none(), "a long string is no collection");
        entry.edit_string(|bytes| bytes.push(9));
        entry.set_string(b"short");
        assert_eq!((entry.as_str(), entry.expire_at_ms()), (Some(&b"short"[..]), Some(1)));
    }

    #[test]
    fn a_long_key_and_an_object_survive_a_change_of_expiry() {
        let key = vec![b'k'; 70_000];
        let mut entry = Entry::object(&key, Object::Str(vec![1; 10_000]), None);
        entry.set_expire_at_ms(Some(-1));
        assert_eq!(
            (entry.key(), entry.as_str().map(<[u8]>::len), entry.expire_at_ms()),
            (&key[..], Some(10_000), Some(-1))
        );
        assert!(matches!(entry.into_object(), Object::Str(bytes) if bytes.len() == 10_000));
    }
}
