//! The end of an engine: what is on disk then, and what keeps it from ending.

use crate::engine::{Engine, Inner, JobDone};
use crate::error::ShutdownError;
use crate::snapshots;

impl Engine {
    /// Ends the engine: a snapshot where asked for (`None`: where save points are configured), then the journal is
    /// flushed, synced and closed. A snapshot that is being written is called off: it would not hold what came after.
    ///
    /// Where nobody asked for the snapshot by name and the journal holds everything, one that fails, or that a script which
    /// does not end stands in the way of, is done without: nothing is lost.
    ///
    /// # Errors
    /// What did not go through. After [`ShutdownError::Snapshot`] the engine still runs; after [`ShutdownError::Journal`]
    /// it takes no more writes.
    pub fn shutdown(&self, save: Option<bool>) -> Result<(), ShutdownError> {
        let inner = &*self.0;
        inner.snapshots.cancel();
        if save.unwrap_or_else(|| !inner.settings.save_points.lock().is_empty()) {
            self.save_at_end(save.is_some())?;
        }
        inner.log.shutdown().map_err(ShutdownError::Journal)
    }

    fn save_at_end(&self, is_demanded: bool) -> Result<(), ShutdownError> {
        let inner = &*self.0;
        if inner.log.journal().is_some_and(|journal| journal.status().poisoned.is_some()) {
            // It would be named only when the journal up to it is durable, and that will not be.
            tracing::warn!("ending without a snapshot, since the journal has stopped");
            return Ok(());
        }
        if inner.scripts.is_busy() {
            if !is_demanded && inner.journal_holds_everything() {
                tracing::warn!(
                    "ending without a snapshot, since a script holds keys; the journal holds everything"
                );
                return Ok(());
            }
            // A snapshot needs every key. One that has written cannot be ended, so its end is waited for.
            if inner.scripts.end_longest() {
                tracing::warn!("a script was ended, since the server ends");
            }
        }
        match snapshots::take_after_running(inner) {
            Ok(_) => Ok(()),
            Err(error) if !is_demanded && inner.journal_holds_everything() => {
                tracing::warn!(%error, "ending without a snapshot; the journal holds everything");
                Ok(())
            }
            Err(error) => Err(ShutdownError::Snapshot(error)),
        }
    }

    /// SHUTDOWN. An error, which is in the log too, leaves the engine running.
    pub(crate) fn end(&self, save: Option<bool>, force: bool) -> Result<JobDone, ShutdownError> {
        let error = match self.shutdown(save) {
            Ok(()) => return Ok(JobDone::Exit),
            Err(error) => error,
        };
        if !force && matches!(error, ShutdownError::Snapshot(_)) {
            tracing::error!(%error, "SHUTDOWN did not go through");
            return Err(error);
        }
        tracing::error!(%error, "ending all the same");
        match error {
            ShutdownError::Journal(error) => Ok(JobDone::ExitFailed(error.to_string())),
            // Without a snapshot there is still the journal.
            ShutdownError::Snapshot(_) => match self.0.log.shutdown() {
                Ok(()) => Ok(JobDone::Exit),
                Err(error) => Ok(JobDone::ExitFailed(error.to_string())),
            },
        }
    }
}

impl Inner {
    /// Whether there is a journal, and everything that was done is durable in it.
    fn journal_holds_everything(&self) -> bool {
        self.log.journal().is_some_and(|journal| journal.block_until_durable(journal.end_lsn()).is_ok())
    }
}
