//! Whether there is anything to look at before a command beside the command itself.

use std::sync::atomic::{AtomicU8, Ordering};

use cairn_commands::{Replies, Reply, Session};

use crate::engine::Inner;
use crate::loading;

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

/// What comes before a command while the data is being loaded, or memory is limited; whether that was the answer.
#[cold]
pub(crate) fn attend(inner: &Inner, session: &mut Session, args: &[&[u8]], reply: &mut Reply<'_>) -> bool {
    if inner.loading.is_on() && loading::refuse(&inner.acl, session, args, reply) {
        inner.observed.errors.note(loading::ERROR);
        return true;
    }
    // As in Redis any command makes room, so that none shows more in use than may be, and a client hears of what it had read
    // and that had to go before it has its reply.
    if inner.is_over_limit() {
        inner.is_out_of_memory();
        if session.replies == Replies::On && session.inbox.is_filled() {
            let mut messages = Vec::new();
            session.inbox.take(&mut messages);
            reply.raw(&messages);
        }
    }
    false
}
