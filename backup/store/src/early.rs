//! Syncing a long file while it is still being written, so that its end does not wait for all of it.

use std::io;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

/// So much is written between two syncs.
const EVERY_BYTES: usize = 16 << 20;

/// Syncs on a thread of its own what is being written; a short file never begins one.
pub struct EarlySync {
    /// Taken by the thread when it begins.
    sync: Option<Box<dyn Fn() -> io::Result<()> + Send>>,
    running: Option<(SyncSender<()>, JoinHandle<io::Result<()>>)>,
    unsynced_bytes: usize,
}

impl EarlySync {
    /// `sync` makes durable what was written so far.
    pub fn new(sync: impl Fn() -> io::Result<()> + Send + 'static) -> Self {
        Self { sync: Some(Box::new(sync)), running: None, unsynced_bytes: 0 }
    }

    /// Tells that so many more bytes were written.
    pub fn wrote(&mut self, bytes: usize) {
        self.unsynced_bytes = self.unsynced_bytes.saturating_add(bytes);
        if self.unsynced_bytes < EVERY_BYTES {
            return;
        }
        self.unsynced_bytes = 0;
        if let Some(sync) = self.sync.take() {
            let (wake, woken) = sync_channel(1);
            let work = move || woken.iter().try_for_each(|()| sync());
            // Without a thread all is synced at the end.
            self.running = thread::Builder::new().spawn(work).ok().map(|thread| (wake, thread));
        }
        if let Some((wake, _)) = &self.running {
            // One that is busy finds all of it when it looks again.
            let _ = wake.try_send(());
        }
    }

    /// Waits for the thread. What was written last is not synced by it: that is the caller's to do.
    ///
    /// # Errors
    /// That of a sync which failed: the file must be abandoned, for a later sync may tell nothing of it.
    pub fn end(self) -> io::Result<()> {
        let Some((wake, thread)) = self.running else { return Ok(()) };
        drop(wake);
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread that syncs panicked")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn a_short_file_is_left_alone_and_a_long_one_is_synced_before_its_end() {
        let syncs = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&syncs);
        let mut early = EarlySync::new(move || {
            counted.fetch_add(1, Ordering::Relaxed);
            Ok(())
        });
        early.wrote(EVERY_BYTES - 1);
        assert!(early.running.is_none());
        early.wrote(1);
        early.wrote(EVERY_BYTES);
        early.end().unwrap();
        assert!((1..=2).contains(&syncs.load(Ordering::Relaxed)));
    }

    #[test]
    fn a_sync_that_failed_is_told() {
        let mut early = EarlySync::new(|| Err(io::ErrorKind::StorageFull.into()));
        (0..3).for_each(|_| early.wrote(EVERY_BYTES));
        assert_eq!(early.end().unwrap_err().kind(), io::ErrorKind::StorageFull);
    }
}
