//! CLIENT PAUSE: for some time commands, or those that write, wait.

use cairn_engine::Pause;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// Whether commands wait, and until when.
pub(crate) struct Paused {
    /// Whether anything might have to wait; looked at for every command.
    is_on: AtomicBool,
    now: Mutex<Option<(Pause, Instant)>>,
    changed: watch::Sender<()>,
}

/// The longest pause: what is longer would overflow the clock, and nobody lives to see it end.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

impl Paused {
    pub(crate) fn new() -> Paused {
        Paused { is_on: AtomicBool::new(false), now: Mutex::new(None), changed: watch::Sender::new(()) }
    }

    /// Begins a pause. One that is on becomes neither shorter nor less strict.
    pub(crate) fn begin(&self, time: Duration, what: Pause) {
        let until = Instant::now() + time.min(LONGEST);
        let mut now = self.now.lock();
        *now = Some(match *now {
            Some((before, end)) => (before.max(what), end.max(until)),
            None => (what, until),
        });
        self.is_on.store(true, Relaxed);
        drop(now);
        self.changed.send_replace(());
    }

    /// Ends the pause.
    pub(crate) fn end(&self) {
        *self.now.lock() = None;
        self.is_on.store(false, Relaxed);
        self.changed.send_replace(());
    }

    /// Whether there may be a pause. One that is over is noticed by [`Paused::wait`].
    #[inline]
    pub(crate) fn is_on(&self) -> bool {
        self.is_on.load(Relaxed)
    }

    /// Whether keys may be removed because they expired: nothing changes during a pause.
    pub(crate) fn lets_expire(&self) -> bool {
        !self.is_on() || self.current().is_none()
    }

    /// The pause that is on.
    fn current(&self) -> Option<(Pause, Instant)> {
        let mut now = self.now.lock();
        if now.is_some_and(|(_, until)| until <= Instant::now()) {
            *now = None;
            self.is_on.store(false, Relaxed);
        }
        *now
    }

    /// Whether a command has to wait now.
    pub(crate) fn holds(&self, may_write: bool) -> bool {
        self.current().is_some_and(|(what, _)| may_write || what == Pause::All)
    }

    /// Waits until a command may run.
    pub(crate) async fn wait(&self, may_write: bool) {
        loop {
            let mut changed = self.changed.subscribe();
            let Some((_, until)) = self.current().filter(|(what, _)| may_write || *what == Pause::All) else {
                return;
            };
            // Either is a reason to look again.
            let _ = tokio::time::timeout_at(until, changed.changed()).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_pause_is_neither_shortened_nor_loosened() {
        let paused = Paused::new();
        assert!(!paused.is_on() && paused.lets_expire());
        let start = Instant::now();
        paused.begin(Duration::from_millis(50), Pause::Write);
        assert!(paused.holds(true) && !paused.holds(false) && !paused.lets_expire());
        paused.begin(Duration::from_millis(1), Pause::All);
        assert!(paused.holds(false));
        paused.wait(false).await;
        assert!(start.elapsed() >= Duration::from_millis(50));
        assert!(!paused.is_on());
        paused.begin(Duration::MAX, Pause::All);
        paused.end();
        paused.wait(true).await;
    }
}
