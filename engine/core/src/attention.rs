//! Whether there is anything to look at before a command beside the command itself.

use std::sync::atomic::{AtomicU8, Ordering};

/// One flag for all that may come before a command: each looks at it.
pub(crate) struct Attention(AtomicU8);

impl Attention {
    /// The data is being loaded.
    pub(crate) const LOADING: u8 = 1;
    /// There is a `maxmemory`.
    pub(crate) const MEMORY: u8 = 2;

    pub(crate) fn new(what: u8) -> Self {
        Self(AtomicU8::new(what))
    }

    #[inline]
    pub(crate) fn is_asked_for(&self) -> bool {
        self.0.load(Ordering::Acquire) != 0
    }

    pub(crate) fn set(&self, what: u8, on: bool) {
        if on {
            self.0.fetch_or(what, Ordering::AcqRel);
        } else {
            self.0.fetch_and(!what, Ordering::AcqRel);
        }
    }
}
