//! Whether clients should be sent here: one answer for CAIRN READY, `/readyz`, INFO and the log.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cairn_journal::{AdmitError, Fsync};
use parking_lot::Mutex;

use crate::archive::archive_behind;
use crate::engine::{Engine, Inner, SNAPSHOT_FAILED, now_ms};

/// An effect that has waited for its sync for so long tells of a disk that hangs. Slow ones take seconds at worst.
const HANGS_AFTER_MS: u64 = 10_000;

/// Why clients should not be sent here, and since when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotReady {
    /// Since when, in milliseconds since the Unix epoch.
    pub since_unix_ms: u64,
    /// Why.
    pub reason: NotReadyReason,
}

/// Why clients should not be sent here; as text, what is wrong and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotReadyReason {
    /// Not all keys are there yet.
    #[error("the data is being loaded, {percent} % so far; nothing needs to be done")]
    Loading {
        /// How far it is.
        percent: u64,
    },
    /// Writes are refused; reads go on.
    #[error("writes are refused: {0}")]
    Refused(AdmitError),
    /// A sync does not return; with `appendfsync always` and `everysec` writes wait for it.
    #[error(
        "the disk does not answer: the oldest write has waited {seconds} s to be synced, and others wait behind it; look at \
         the disk of the data directory, what waits is told once it answers"
    )]
    DiskHangs {
        /// How long the oldest effect that is not durable has waited.
        seconds: u64,
    },
    /// `stop-writes-on-bgsave-error`, and the last snapshot failed.
    #[error("{SNAPSHOT_FAILED}: {error}")]
    SnapshotFailed {
        /// What it said.
        error: String,
    },
    /// `backup-max-lag`, and the archive is further behind.
    #[error("{}", archive_behind(*max))]
    BackupBehind {
        /// How far behind it may be.
        max: Duration,
    },
    /// A script has run for longer than `busy-reply-threshold`; most requests are answered with BUSY.
    #[error(
        "a script has run for {seconds} s; SCRIPT KILL or FUNCTION KILL ends it if it has written nothing"
    )]
    Busy {
        /// How long.
        seconds: u64,
    },
    /// A shutdown is under way.
    #[error("the server is ending; connect to another, or again when it has been started anew")]
    Ending,
}

impl NotReadyReason {
    /// One word for programs; it never changes.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Loading { .. } => "loading",
            Self::Refused(AdmitError::NoSpace { .. }) => "disk-full",
            Self::Refused(AdmitError::NoSegment { .. }) => "disk-failing",
            Self::Refused(AdmitError::Poisoned(_)) => "journal-stopped",
            Self::DiskHangs { .. } => "disk-hangs",
            Self::SnapshotFailed { .. } => "snapshot-failed",
            Self::BackupBehind { .. } => "backup-behind",
            Self::Busy { .. } => "busy",
            Self::Ending => "ending",
        }
    }
}

/// In one line: the word for programs, the reason, since when.
impl std::fmt::Display for NotReady {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let seconds = (now_ms() as u64).saturating_sub(self.since_unix_ms) / 1000;
        write!(f, "{}: {} (for {seconds} s)", self.reason.name(), self.reason)
    }
}

impl Engine {
    /// Whether clients should be sent here. Takes a few locks that nothing long holds, none of a shard: not for the path of
    /// a command, but a probe may ask as often as it likes.
    ///
    /// # Errors
    /// Why not, and since when. What is told once stays told until it is over.
    pub fn readiness(&self) -> Result<(), NotReady> {
        self.0.readiness()
    }

    /// Notes that the process has begun to end the engine, or has given that up: readiness tells.
    pub fn set_ending(&self, is_ending: bool) {
        let since = if is_ending { now_ms() as u64 } else { 0 };
        self.0.ending.since_unix_ms.store(since, Ordering::Relaxed);
    }
}

/// When the end began; 0 where there is none.
#[derive(Default)]
pub(crate) struct Ending {
    since_unix_ms: AtomicU64,
}

impl Inner {
    pub(crate) fn readiness(&self) -> Result<(), NotReady> {
        let not_ready = |since_unix_ms, reason| Err(NotReady { since_unix_ms, reason });
        let ending = self.ending.since_unix_ms.load(Ordering::Relaxed);
        if ending != 0 {
            return not_ready(ending, NotReadyReason::Ending);
        }
        if let Some(loading) = self.loading.progress() {
            let percent = loading.percent() as u64;
            return not_ready(self.loading.started_unix_ms(), NotReadyReason::Loading { percent });
        }
        if let Some(journal) = self.log.journal() {
            if let Some(refusal) = journal.refusal() {
                return not_ready(refusal.since_unix_ms, NotReadyReason::Refused(refusal.error));
            }
            let waited_ms = journal.status().oldest_unsynced_ms.unwrap_or(0);
            if waited_ms >= HANGS_AFTER_MS && self.settings.fsync() != Fsync::No {
                let seconds = waited_ms / 1000;
                return not_ready(
                    ago(Duration::from_millis(waited_ms)),
                    NotReadyReason::DiskHangs { seconds },
                );
            }
        }
        if self.snapshots.is_failing() && self.settings.stops_writes_on_snapshot_error() {
            let (since_unix_ms, error) = self.snapshots.failure();
            return not_ready(since_unix_ms, NotReadyReason::SnapshotFailed { error });
        }
        if let Some((since_unix_ms, max)) = self.archive.behind() {
            return not_ready(since_unix_ms, NotReadyReason::BackupBehind { max });
        }
        if let Some(busy) = self.scripts.busy_for() {
            return not_ready(ago(busy), NotReadyReason::Busy { seconds: busy.as_secs() });
        }
        Ok(())
    }
}

fn ago(duration: Duration) -> u64 {
    (now_ms() as u64).saturating_sub(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

/// Tells the log when readiness is lost, changes its reason and comes back.
#[derive(Default)]
pub(crate) struct ReadinessLog {
    last: Mutex<Option<NotReady>>,
}

impl ReadinessLog {
    pub(crate) fn note(&self, found: Result<(), NotReady>) {
        let mut last = self.last.lock();
        let found = found.err();
        let name = |not_ready: &Option<NotReady>| not_ready.as_ref().map(|found| found.reason.name());
        if name(&found) == name(&last) {
            return;
        }
        match (&found, last.as_ref()) {
            (Some(now), _) => {
                tracing::error!(
                    since_unix_ms = now.since_unix_ms,
                    what = now.reason.name(),
                    "not ready: {}",
                    now.reason
                );
            }
            (None, Some(before)) => {
                let seconds = (now_ms() as u64).saturating_sub(before.since_unix_ms) / 1000;
                tracing::info!(after_seconds = seconds, what = before.reason.name(), "ready again");
            }
            (None, None) => {}
        }
        *last = found;
    }
}
