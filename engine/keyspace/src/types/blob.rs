//! One string behind one word: the length stands before the bytes, in the same allocation. A large collection holds
//! millions of these, and a fat pointer would cost eight bytes more for each.
#![allow(unsafe_code)]

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ptr::NonNull;

/// Lengths up to this take one byte; longer ones put this mark plus one there and eight bytes after it.
const SHORT_MAX: usize = 254;
const LONG_MARK: u8 = 255;
const LONG_HEADER: usize = 9;

/// An immutable-length byte string of one pointer's size.
pub(crate) struct Blob {
    start: NonNull<u8>,
}

// SAFETY: a blob owns its allocation alone, and the bytes in it are plain data.
unsafe impl Send for Blob {}
// SAFETY: through a shared reference the bytes are only read.
unsafe impl Sync for Blob {}

impl Blob {
    /// A copy of `bytes`.
    pub(crate) fn new(bytes: &[u8]) -> Self {
        Self::concat(&[bytes])
    }

    /// A copy of `parts`, one after the other.
    pub(crate) fn concat(parts: &[&[u8]]) -> Self {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        let layout = layout(len);
        // SAFETY: the layout is never of size zero: it holds the length at least.
        let Some(start) = NonNull::new(unsafe { alloc(layout) }) else { handle_alloc_error(layout) };
        let header = if len <= SHORT_MAX { 1 } else { LONG_HEADER };
        // SAFETY: `layout` has room for the header and for `len` bytes after it, the parts are `len` bytes together, and
        // a fresh allocation overlaps none of them. The eight length bytes are written without alignment.
        unsafe {
            if len <= SHORT_MAX {
                start.write(len as u8);
            } else {
                start.write(LONG_MARK);
                start.add(1).cast::<u64>().write_unaligned(len as u64);
            }
            let mut at = start.add(header);
            for part in parts {
                at.copy_from_nonoverlapping(NonNull::from(*part).cast(), part.len());
                at = at.add(part.len());
            }
        }
        Self { start }
    }

    /// Where the bytes begin, and how many there are.
    #[inline]
    fn span(&self) -> (NonNull<u8>, usize) {
        // SAFETY: `concat` wrote the header as it is read here, and only `Drop` frees it.
        unsafe {
            match self.start.read() {
                LONG_MARK => {
                    (self.start.add(LONG_HEADER), self.start.add(1).cast::<u64>().read_unaligned() as usize)
                }
                len => (self.start.add(1), usize::from(len)),
            }
        }
    }

    /// The bytes.
    #[inline]
    pub(crate) fn as_bytes(&self) -> &[u8] {
        let (start, len) = self.span();
        // SAFETY: `concat` initialized `len` bytes from `start` on, which live and stay as long as `self` is borrowed.
        unsafe { std::slice::from_raw_parts(start.as_ptr(), len) }
    }

    /// The bytes, to be overwritten by as many others.
    pub(crate) fn as_bytes_mut(&mut self) -> &mut [u8] {
        let (start, len) = self.span();
        // SAFETY: as in `as_bytes`, and `self` is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), len) }
    }

    /// Bytes allocated, without the allocator's rounding.
    pub(crate) fn heap_bytes(&self) -> usize {
        layout(self.span().1).size()
    }
}

fn layout(len: usize) -> Layout {
    let size = if len <= SHORT_MAX { 1 + len } else { LONG_HEADER + len };
    match Layout::from_size_align(size, 1) {
        Ok(layout) => layout,
        // No slices of that many bytes exist to be copied.
        Err(_) => unreachable!("a string longer than the address space"),
    }
}

impl Drop for Blob {
    fn drop(&mut self) {
        let layout = layout(self.span().1);
        // SAFETY: `concat` allocated `start` with this very layout, and nobody uses it afterwards.
        unsafe { dealloc(self.start.as_ptr(), layout) }
    }
}

impl Clone for Blob {
    fn clone(&self) -> Self {
        Self::new(self.as_bytes())
    }
}

impl std::fmt::Debug for Blob {
    /// Shows the length only: the bytes are a user's data and belong in no log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Blob").field(&self.as_bytes().len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_every_length() {
        for len in [0usize, 1, 15, 253, 254, 255, 256, 70_000] {
            let bytes: Vec<u8> = (0..len).map(|at| at as u8).collect();
            let mut blob = Blob::new(&bytes);
            assert_eq!(blob.as_bytes(), bytes);
            assert_eq!(blob.clone().as_bytes(), bytes);
            let (front, back) = bytes.split_at(len / 3);
            assert_eq!(Blob::concat(&[front, b"", back]).as_bytes(), bytes);
            blob.as_bytes_mut().fill(7);
            assert!(blob.as_bytes().iter().all(|byte| *byte == 7));
        }
        assert_eq!(size_of::<Option<Blob>>(), size_of::<usize>());
    }
}
