//! What does not fit into a bucket: a vector of entries behind one word.
//!
//! The length lies in the spare upper bits of the pointer and the capacity follows from it, so that an entry here costs
//! hardly more than its eight bytes, and a bucket without any costs nothing.
#![allow(unsafe_code)]

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error, realloc};
use std::ptr::NonNull;

use crate::entry::{Entry, TAG_SHIFT, untagged};

/// Capacity comes in steps of this many entries: allocators hand out 16 bytes at least.
const STEP: usize = 2;

/// Entries in no order.
#[derive(Default)]
pub(crate) struct Spill(Option<NonNull<Entry>>);

// SAFETY: a spill owns its entries alone, and they may move between threads.
unsafe impl Send for Spill {}
// SAFETY: a shared spill gives out only shared entries, which are Sync.
unsafe impl Sync for Spill {}

impl Spill {
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    #[inline]
    fn len(&self) -> usize {
        self.0.map_or(0, |tagged| tagged.addr().get() >> TAG_SHIFT)
    }

    #[inline]
    fn pointer(&self) -> NonNull<Entry> {
        match self.0 {
            // SAFETY: the address without the length is that of an allocation, so it is not null.
            Some(tagged) => unsafe {
                NonNull::new_unchecked(tagged.as_ptr().map_addr(|address| address & ((1 << TAG_SHIFT) - 1)))
            },
            None => NonNull::dangling(),
        }
    }

    #[inline]
    pub(crate) fn as_slice(&self) -> &[Entry] {
        // SAFETY: `len` initialised entries lie there as long as self is borrowed; a dangling pointer is good for none.
        unsafe { std::slice::from_raw_parts(self.pointer().as_ptr(), self.len()) }
    }

    #[inline]
    pub(crate) fn as_mut_slice(&mut self) -> &mut [Entry] {
        // SAFETY: as in `as_slice`, and self is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.pointer().as_ptr(), self.len()) }
    }

    pub(crate) fn push(&mut self, entry: Entry) {
        let len = self.len();
        // Hashes are seeded, so chains are short; a length that did not fit would have cost every look-up dearly before.
        assert!(len < usize::from(u16::MAX), "one bucket got all keys");
        let start = if len.is_multiple_of(STEP) { self.resize(len, len + STEP) } else { self.pointer() };
        // SAFETY: there is room for an entry behind the first `len`.
        unsafe { start.add(len).write(entry) };
        self.set(start, len + 1);
    }

    /// Takes an entry out; the last one takes its place.
    pub(crate) fn swap_remove(&mut self, at: usize) -> Entry {
        let last = self.len() - 1;
        self.as_mut_slice().swap(at, last);
        // SAFETY: the last entry is initialised, and the length set below no longer counts it.
        let entry = unsafe { self.pointer().add(last).read() };
        let start = if last.is_multiple_of(STEP) { self.resize(last + STEP, last) } else { self.pointer() };
        self.set(start, last);
        entry
    }

    /// Takes any entry out.
    pub(crate) fn pop(&mut self) -> Option<Entry> {
        if self.is_empty() { None } else { Some(self.swap_remove(self.len() - 1)) }
    }

    fn set(&mut self, start: NonNull<Entry>, len: usize) {
        self.0 = match len {
            0 => None,
            len => NonNull::new(start.as_ptr().map_addr(|address| address | len << TAG_SHIFT)),
        };
    }

    /// Moves the entries to an allocation of another capacity; dangling at 0.
    fn resize(&mut self, old: usize, new: usize) -> NonNull<Entry> {
        let (old_layout, new_layout) = (layout(old), layout(new));
        let start = self.pointer().cast::<u8>();
        // SAFETY: an allocation of capacity `old` was made with the layout of `old`, and is not used again after it was
        // freed or moved; a layout that is allocated is not of size zero.
        let raw = unsafe {
            match (old, new) {
                (0, _) => alloc(new_layout),
                (_, 0) => {
                    dealloc(start.as_ptr(), old_layout);
                    return NonNull::dangling();
                }
                _ => realloc(start.as_ptr(), old_layout, new_layout.size()),
            }
        };
        let Some(start) = NonNull::new(raw) else { handle_alloc_error(new_layout) };
        untagged(start).cast()
    }
}

fn layout(capacity: usize) -> Layout {
    Layout::array::<Entry>(capacity).expect("a length of 16 bits")
}

impl Drop for Spill {
    fn drop(&mut self) {
        if self.is_empty() {
            return;
        }
        let (start, len) = (self.pointer(), self.len());
        // SAFETY: the entries are initialised and dropped once; the allocation was made for the capacity of this length.
        unsafe {
            std::ptr::slice_from_raw_parts_mut(start.as_ptr(), len).drop_in_place();
            dealloc(start.as_ptr().cast(), layout(len.next_multiple_of(STEP)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_what_was_put_in_until_it_is_taken_out() {
        let mut spill = Spill::default();
        assert!(spill.pop().is_none() && spill.as_slice().is_empty());
        for n in 0..9u8 {
            spill.push(Entry::string(&[n], b"value", None));
            assert_eq!(spill.as_slice().len(), usize::from(n) + 1);
        }
        spill.as_mut_slice()[4].set_string(b"another");
        assert_eq!(spill.swap_remove(0).key(), [0]);
        assert_eq!(spill.as_slice()[0].key(), [8]);
        assert_eq!(spill.swap_remove(4).as_str(), Some(&b"another"[..]));
        let mut left: Vec<u8> = std::iter::from_fn(|| spill.pop()).map(|entry| entry.key()[0]).collect();
        left.sort_unstable();
        assert_eq!(left, [1, 2, 3, 5, 6, 7, 8]);
        assert!(spill.is_empty());
        // What is still in is freed with it.
        spill.push(Entry::string(b"a", b"b", None));
    }
}
