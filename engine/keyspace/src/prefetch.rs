//! Asking the processor for memory before it is needed: a key's bucket and its entry lie anywhere, and to wait for each
//! costs as much as the rest of a short command.
#![allow(unsafe_code)]

/// The distance between two places that are fetched apart.
pub(crate) const CACHE_LINE: usize = 64;

/// Asks for the cache line `offset` bytes behind `place`. A hint: nothing is read, and any address will do.
#[inline]
pub(crate) fn prefetch<T>(place: *const T, offset: usize) {
    let address = place.cast::<i8>().wrapping_add(offset);
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch has no effect that a program could see, whatever the address; SSE is part of x86-64.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(address);
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}
