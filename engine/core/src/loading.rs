//! The time before every key is served: what may run then, and how far it is.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use cairn_commands::acl::Acl;
use cairn_commands::{Flags, Keys, Reply, Session, resolve};

use crate::snapshots::unixtime;

/// What clients hear of commands that need the data.
pub(crate) const ERROR: &str = "LOADING Redis is loading the dataset in memory";

/// How far loading is; it is going on from the beginning on.
pub(crate) struct Loading {
    is_on: AtomicBool,
    started: (i64, Instant),
    bytes_total: AtomicU64,
    bytes: AtomicU64,
}

/// A look at it.
pub(crate) struct Progress {
    pub(crate) start_unixtime: i64,
    pub(crate) bytes_total: u64,
    pub(crate) bytes: u64,
    seconds: f64,
}

impl Default for Loading {
    fn default() -> Self {
        Self {
            is_on: AtomicBool::new(true),
            started: (unixtime(), Instant::now()),
            bytes_total: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        }
    }
}

impl Loading {
    #[inline]
    pub(crate) fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Acquire)
    }

    pub(crate) fn end(&self) {
        self.is_on.store(false, Ordering::Release);
    }

    /// Notes how much there is to read in all.
    pub(crate) fn expect(&self, bytes: u64) {
        self.bytes_total.store(bytes, Ordering::Relaxed);
    }

    /// Notes that so much more has been loaded.
    pub(crate) fn add(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// When it began, in milliseconds since the Unix epoch.
    pub(crate) fn started_unix_ms(&self) -> u64 {
        u64::try_from(self.started.0).unwrap_or(0) * 1000
    }

    /// How far it is, while it is going on.
    pub(crate) fn progress(&self) -> Option<Progress> {
        let (start_unixtime, started) = self.started;
        let bytes_total = self.bytes_total.load(Ordering::Relaxed);
        let bytes = self.bytes.load(Ordering::Relaxed).min(bytes_total);
        let seconds = started.elapsed().as_secs_f64();
        self.is_on().then_some(Progress { start_unixtime, bytes_total, bytes, seconds })
    }
}

impl Progress {
    pub(crate) fn percent(&self) -> f64 {
        if self.bytes_total == 0 { 0.0 } else { self.bytes as f64 * 100.0 / self.bytes_total as f64 }
    }

    /// At the speed so far; 1 where that is not known yet, as in Redis.
    pub(crate) fn seconds_left(&self) -> u64 {
        if self.bytes == 0 {
            return 1;
        }
        let left = (self.bytes_total - self.bytes) as f64;
        (left * self.seconds / self.bytes as f64) as u64
    }
}

/// Answers for data that is not there yet; false for what may run without it. What is no command at all, or not for who
/// has not said who they are, is left to those who say so.
#[cold]
pub(crate) fn refuse(acl: &Acl, session: &mut Session, args: &[&[u8]], reply: &mut Reply<'_>) -> bool {
    let Some(spec) = resolve(args) else { return false };
    // Whatever looks at keys might find that one has expired, of which the journal that is being read knows nothing.
    let asks_for_no_key = matches!(spec.keys, Keys::None) || spec.name == "info";
    let may_run = spec.flags.has(Flags::LOADING) && asks_for_no_key;
    if may_run || spec.flags.has(Flags::GROUP) || !spec.arity.allows(args.len()) || acl.is_stranger(session) {
        return false;
    }
    if let Some(transaction) = &mut session.transaction {
        transaction.broken = true;
    }
    reply.error(ERROR);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_follows_from_what_is_done() {
        let progress = Progress { start_unixtime: 0, bytes_total: 100, bytes: 25, seconds: 3.0 };
        assert_eq!((progress.percent(), progress.seconds_left()), (25.0, 9));
        let nothing = Progress { start_unixtime: 0, bytes_total: 0, bytes: 0, seconds: 3.0 };
        assert_eq!((nothing.percent(), nothing.seconds_left()), (0.0, 1));
    }
}
