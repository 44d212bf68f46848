//! What CONFIG SET may change while the engine runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use cairn_format::Lsn;
use cairn_journal::Fsync;
use cairn_keyspace::types::Limits;
use parking_lot::{Mutex, RwLock};

use crate::options::{AutoRewrite, CopyLimit, Options, SavePoint};

/// The settings as they are now.
pub(crate) struct Settings {
    always: AtomicBool,
    /// What was appended before `always` was switched on is marked nowhere, so until it is durable every reply waits.
    always_from: AtomicU64,
    pub(crate) fsync: Mutex<Fsync>,
    /// Whether there is to be a journal.
    pub(crate) append_only: AtomicBool,
    limits: RwLock<Arc<Limits>>,
    /// Of the limits: no two of a process have the same, so threads keep a copy and look at nothing but this.
    limits_version: AtomicU64,
    pub(crate) auto_rewrite: Mutex<AutoRewrite>,
    pub(crate) save_points: Mutex<Vec<SavePoint>>,
    pub(crate) stop_writes_on_snapshot_error: AtomicBool,
    pub(crate) key_save_delay: AtomicI64,
    pub(crate) copy_limit: Mutex<CopyLimit>,
}

impl Settings {
    pub(crate) fn new(options: &Options) -> Self {
        Self {
            always: AtomicBool::new(options.append_only && options.fsync == Fsync::Always),
            always_from: AtomicU64::new(0),
            fsync: Mutex::new(options.fsync),
            append_only: AtomicBool::new(options.append_only),
            limits: RwLock::new(Arc::new(options.limits.clone())),
            limits_version: AtomicU64::new(next_limits_version()),
            auto_rewrite: Mutex::new(options.auto_rewrite),
            save_points: Mutex::new(options.save_points.clone()),
            stop_writes_on_snapshot_error: AtomicBool::new(options.stop_writes_on_snapshot_error),
            key_save_delay: AtomicI64::new(0),
            copy_limit: Mutex::new(options.copy_limit),
        }
    }

    /// When the journal is synced, or would be if there were one.
    pub(crate) fn fsync(&self) -> Fsync {
        *self.fsync.lock()
    }

    /// Whether replies wait for what they tell of to be durable.
    #[inline]
    pub(crate) fn is_always(&self) -> bool {
        // Asked behind an append, and not to be read before it: one of the two sees the other.
        self.always.load(Ordering::SeqCst)
    }

    /// Says whether replies wait from now on; `end` reads where the journal ends. Only then, for what has been appended
    /// before somebody is seen to wait is marked nowhere, and has to lie below that.
    pub(crate) fn set_always(&self, always: bool, end: impl FnOnce() -> Lsn) {
        self.always.store(always, Ordering::SeqCst);
        self.always_from.store(end().0, Ordering::SeqCst);
    }

    /// Up to here every reply waits.
    pub(crate) fn always_from(&self) -> Lsn {
        Lsn(self.always_from.load(Ordering::SeqCst))
    }

    /// Where snapshots are asked for by save points, whether one that failed stops writes.
    pub(crate) fn stops_writes_on_snapshot_error(&self) -> bool {
        self.stop_writes_on_snapshot_error.load(Ordering::Relaxed) && !self.save_points.lock().is_empty()
    }

    /// The limits as they are now.
    pub(crate) fn limits(&self) -> Arc<Limits> {
        self.limits.read().clone()
    }

    /// Changes the limits.
    pub(crate) fn set_limits(&self, limits: Limits) {
        *self.limits.write() = Arc::new(limits);
        self.limits_version.store(next_limits_version(), Ordering::Release);
    }

    /// Brings a thread's copy of the limits up to date.
    #[inline]
    pub(crate) fn refresh(&self, copy: &mut (u64, Arc<Limits>)) {
        let version = self.limits_version.load(Ordering::Acquire);
        if copy.0 != version {
            *copy = (version, self.limits.read().clone());
        }
    }
}

/// Versions of limits handed out so far; the first is 1.
static LIMITS_VERSIONS: AtomicU64 = AtomicU64::new(0);

fn next_limits_version() -> u64 {
    LIMITS_VERSIONS.fetch_add(1, Ordering::Relaxed) + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_wait_before_it_is_asked_what_was_appended_without() {
        let settings = Settings::new(&Options::new("/nowhere"));
        assert!(!settings.is_always());
        let end = || {
            assert!(settings.is_always(), "what is appended from here on is marked");
            Lsn(5)
        };
        settings.set_always(true, end);
        assert_eq!(settings.always_from(), Lsn(5));
    }
}
