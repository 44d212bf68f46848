//! Letting go of journal: what recovery, the archive and holds do not need, and, where there is too much of it, what only the
//! archive and holds would need.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use cairn_commands::SnapshotReason;
use cairn_format::Lsn;
use parking_lot::Mutex;

use crate::archive::{Held, Trimming};
use crate::catalog::Catalog;
use crate::engine::{Engine, Inner};
use crate::snapshots;

/// From this share of the limit on, in percent, the log warns.
const NEAR_PERCENT: u64 = 80;
/// And below this one it says that there is room again.
const FAR_PERCENT: u64 = 70;

/// How much journal there is, and how much there may be.
#[derive(Default)]
pub(crate) struct JournalSpace {
    /// In bytes; 0 for no limit.
    limit: AtomicU64,
    /// As found when the journal was last trimmed.
    usage: Mutex<JournalUsage>,
    /// The log has said that the limit is near.
    is_near: AtomicBool,
}

/// What the journal's files take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JournalUsage {
    /// Bytes of all segments.
    pub bytes: u64,
    /// Bytes of those that recovery does not need: they are there for the archive, or held.
    pub kept_bytes: u64,
    /// How many segments.
    pub segments: u64,
    /// `journal-disk-limit`; 0 for none.
    pub limit_bytes: u64,
    /// How many segments went although they were wanted, since the start.
    pub dropped_total: u64,
}

impl JournalUsage {
    /// Whether the limit is near or reached.
    #[must_use]
    pub fn is_near_limit(&self) -> bool {
        self.reaches(NEAR_PERCENT)
    }

    fn reaches(&self, percent: u64) -> bool {
        self.limit_bytes > 0
            && u128::from(self.bytes) * 100 >= u128::from(self.limit_bytes) * u128::from(percent)
    }
}

impl Engine {
    /// Lets go of journal that is not needed any more, and of the oldest that is only wanted where there is too much. To be
    /// called about once a second, where waiting for the disk is allowed.
    ///
    /// # Errors
    /// Those of the disk; what was not let go of is still there.
    pub fn trim(&self) -> io::Result<()> {
        if self.is_loading() {
            return Ok(());
        }
        let (inner, catalog) = (&*self.0, self.0.catalog());
        let trimming = inner.archive.begin_trim();
        let snapshot = inner.snapshot_lsn();
        let held = trimming.held(snapshot);
        catalog.trim(held.needed_from)?;
        let mut usage = inner.measure_journal(snapshot)?;
        // One that went from a full disk is given some time to help.
        let mut is_full = inner.is_disk_full();
        while usage.kept_bytes > 0 && (usage.reaches(100) || std::mem::take(&mut is_full)) {
            inner.drop_oldest(catalog, &trimming, held)?;
            usage = inner.measure_journal(snapshot)?;
        }
        inner.space.note(usage);
        drop(trimming);
        if held.is_wanted && usage.reaches(100) && inner.needs_snapshot(&usage, snapshot) {
            // Only a running one could refuse, and then it is done already.
            let _ = snapshots::start(&self.0, SnapshotReason::Rewrite);
        }
        Ok(())
    }

    /// What the journal's files take, as of the last [`Engine::trim`].
    #[must_use]
    pub fn journal_usage(&self) -> JournalUsage {
        self.0.space.usage()
    }

    /// Changes how many bytes of journal there may be, where some is kept that recovery does not need; 0 for no limit.
    pub fn set_journal_disk_limit(&self, bytes: u64) {
        self.0.space.limit.store(bytes, Ordering::Relaxed);
        self.0.space.usage.lock().limit_bytes = bytes;
    }
}

impl Inner {
    fn measure_journal(&self, snapshot: Lsn) -> io::Result<JournalUsage> {
        let mut usage = self.space.usage();
        (usage.bytes, usage.kept_bytes, usage.segments) = (0, 0, 0);
        let segments = self.catalog().manifest().segments;
        for (index, segment) in segments.iter().enumerate() {
            let bytes = match self.options.disk.len(&self.options.dir.join(&segment.name)) {
                Ok(bytes) => bytes,
                // It was abandoned this moment.
                Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
                Err(error) => return Err(error),
            };
            usage.bytes += bytes;
            usage.segments += 1;
            if segments.get(index + 1).is_some_and(|next| next.first_lsn <= snapshot) {
                usage.kept_bytes += bytes;
            }
        }
        Ok(usage)
    }

    /// Whether the disk has no room for a segment: writes go on rather than wait for an archive that is away.
    fn is_disk_full(&self) -> bool {
        let status = self.log.journal().map(|journal| journal.status());
        status.is_some_and(|status| status.disk_full_since_unix_ms.is_some())
    }

    /// Whether a snapshot would make a good part of the journal unneeded.
    fn needs_snapshot(&self, usage: &JournalUsage, snapshot: Lsn) -> bool {
        self.log.end().0.saturating_sub(snapshot.0) >= usage.limit_bytes / 2
    }

    /// Lets the oldest segment go that recovery does not need, although somebody wants it.
    fn drop_oldest(&self, catalog: &Catalog, trimming: &Trimming<'_>, held: Held) -> io::Result<()> {
        let Some(end) = catalog.end_of_oldest() else { return Ok(()) };
        let from = catalog.journal_from().unwrap_or(end);
        catalog.trim(end)?;
        self.space.usage.lock().dropped_total += 1;
        tracing::error!(
            from = from.0,
            to = end.0,
            archived = held.archived.map(|lsn| lsn.0),
            "a segment of the journal went that is not archived: journal-disk-limit is reached, or the disk is full. The moments it \
             covers cannot be restored, and the archive has to begin anew with a base; see what keeps the backup, INFO backup"
        );
        trimming.forget_below(end);
        Ok(())
    }
}

impl JournalSpace {
    pub(crate) fn usage(&self) -> JournalUsage {
        *self.usage.lock()
    }

    /// Keeps what was found, and tells the log where the limit comes near.
    fn note(&self, usage: JournalUsage) {
        *self.usage.lock() = JournalUsage { limit_bytes: self.limit.load(Ordering::Relaxed), ..usage };
        if usage.is_near_limit() && usage.kept_bytes > 0 {
            if !self.is_near.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    bytes = usage.bytes,
                    limit_bytes = usage.limit_bytes,
                    "journal that is not archived comes near journal-disk-limit; at the limit the oldest goes, and with it the \
                     moments it covers: see what keeps the backup, INFO backup"
                );
            }
        } else if !usage.reaches(FAR_PERCENT) && self.is_near.swap(false, Ordering::Relaxed) {
            tracing::info!(
                bytes = usage.bytes,
                limit_bytes = usage.limit_bytes,
                "the journal is well below journal-disk-limit again"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_near_before_it_is_reached() {
        let usage = |bytes, limit_bytes| JournalUsage { bytes, limit_bytes, ..JournalUsage::default() };
        assert!(!usage(79, 100).is_near_limit() && usage(80, 100).is_near_limit());
        assert!(!usage(99, 100).reaches(100) && usage(100, 100).reaches(100));
        assert!(!usage(u64::MAX, 0).is_near_limit(), "0 is no limit");
        assert!(usage(u64::MAX, u64::MAX).reaches(100));
    }
}
