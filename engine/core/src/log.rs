//! Where effects go: to the journal, or, without one, into the count of what a snapshot will hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cairn_format::Lsn;
use cairn_journal::{Admission, Journal, JournalError};

/// The stream of effects.
pub(crate) enum Log {
    /// Written down.
    Journal(Arc<Journal>),
    /// `appendonly no`: only the position moves, so that each snapshot has one of its own.
    Counted(AtomicU64),
}

impl Log {
    pub(crate) fn journal(&self) -> Option<&Arc<Journal>> {
        match self {
            Log::Journal(journal) => Some(journal),
            Log::Counted(_) => None,
        }
    }

    /// Asks for room before a write takes its locks.
    pub(crate) fn admit(&self, bytes: usize) -> Option<Admission<'_>> {
        self.journal().map(|journal| journal.admit(bytes))
    }

    #[inline]
    pub(crate) fn append(&self, db: u16, effects: &[u8], now_ms: i64) -> Lsn {
        match self {
            Log::Journal(journal) => journal.append(u32::from(db), effects, now_ms as u64),
            Log::Counted(position) => {
                let bytes = effects.len() as u64;
                Lsn(position.fetch_add(bytes, Ordering::Relaxed) + bytes)
            }
        }
    }

    pub(crate) fn end(&self) -> Lsn {
        match self {
            Log::Journal(journal) => journal.end_lsn(),
            Log::Counted(position) => Lsn(position.load(Ordering::Relaxed)),
        }
    }

    pub(crate) fn durable(&self) -> Lsn {
        match self {
            Log::Journal(journal) => journal.durable(),
            Log::Counted(_) => self.end(),
        }
    }

    /// Marks the end as a boundary between segments; all shards are locked.
    pub(crate) fn rotate(&self) -> Lsn {
        match self {
            Log::Journal(journal) => journal.rotate(),
            Log::Counted(_) => self.end(),
        }
    }

    pub(crate) fn shutdown(&self) -> Result<(), JournalError> {
        match self {
            Log::Journal(journal) => journal.shutdown(),
            Log::Counted(_) => Ok(()),
        }
    }
}
