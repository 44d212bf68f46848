//! Where effects go: to the journal, or, without one, into the count of what a snapshot will hold.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use cairn_format::Lsn;
use cairn_journal::{Admission, Journal, JournalError};

/// The stream of effects.
///
/// It may begin and end to be written down while the engine runs. Both happen while all shards are held, and so between two
/// appends; who asks for the journal otherwise may still see the one that has just ended, which has all it was given.
#[derive(Default)]
pub(crate) struct Log {
    /// The number of the journal that is written; 0: none is.
    current: AtomicUsize,
    journals: Journals,
    /// `appendonly no`, and before the data is loaded: only the position moves, so that each snapshot has one of its own.
    counted: AtomicU64,
}

/// Every journal since the start, in their order: nobody has to count who looks at one, and few servers ever have a second.
#[derive(Default)]
struct Journals {
    journal: OnceLock<Arc<Journal>>,
    later: OnceLock<Box<Journals>>,
}

impl Journals {
    #[inline]
    fn get(&self, number: usize) -> Option<&Arc<Journal>> {
        if number == 1 { self.journal.get() } else { self.later.get()?.get(number - 1) }
    }

    /// Puts a journal behind those that are there; gives its number.
    fn push(&self, journal: Arc<Journal>) -> usize {
        match self.journal.set(journal) {
            Ok(()) => 1,
            Err(journal) => 1 + self.later.get_or_init(Box::default).push(journal),
        }
    }
}

impl Log {
    /// From here on effects count as lying behind `end`.
    pub(crate) fn count_from(&self, end: Lsn) {
        self.counted.store(end.0, Ordering::Relaxed);
    }

    /// Writes down what comes from now on; all shards are locked.
    pub(crate) fn begin(&self, journal: Arc<Journal>) {
        self.current.store(self.journals.push(journal), Ordering::Release);
    }

    /// Closes the journal with all it was given; all shards are locked.
    pub(crate) fn end_journal(&self) -> Result<(), JournalError> {
        let Some(journal) = self.journal() else { return Ok(()) };
        journal.sync();
        journal.block_until_durable(journal.end_lsn())?;
        // Nobody is refused for want of a journal that has been closed: from here on none is asked.
        self.counted.store(journal.end_lsn().0, Ordering::Relaxed);
        self.current.store(0, Ordering::Release);
        journal.shutdown()
    }

    #[inline]
    pub(crate) fn journal(&self) -> Option<&Arc<Journal>> {
        match self.current.load(Ordering::Acquire) {
            0 => None,
            number => self.journals.get(number),
        }
    }

    /// Asks for room before a write takes its locks.
    pub(crate) fn admit(&self, bytes: usize) -> Option<Admission<'_>> {
        self.journal().map(|journal| journal.admit(bytes))
    }

    #[inline]
    pub(crate) fn append(&self, db: u16, effects: &[u8], now_ms: i64) -> Lsn {
        match self.journal() {
            Some(journal) => journal.append(u32::from(db), effects, now_ms as u64),
            None => {
                let bytes = effects.len() as u64;
                Lsn(self.counted.fetch_add(bytes, Ordering::Relaxed) + bytes)
            }
        }
    }

    pub(crate) fn end(&self) -> Lsn {
        match self.journal() {
            Some(journal) => journal.end_lsn(),
            None => Lsn(self.counted.load(Ordering::Relaxed)),
        }
    }

    pub(crate) fn durable(&self) -> Lsn {
        match self.journal() {
            Some(journal) => journal.durable(),
            None => self.end(),
        }
    }

    /// Marks the end as a boundary between segments; all shards are locked.
    pub(crate) fn rotate(&self) -> Lsn {
        match self.journal() {
            Some(journal) => journal.rotate(),
            None => self.end(),
        }
    }

    pub(crate) fn shutdown(&self) -> Result<(), JournalError> {
        self.journal().map_or(Ok(()), |journal| journal.shutdown())
    }
}
