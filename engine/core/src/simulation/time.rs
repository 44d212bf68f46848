//! The time of a run: it passes only when the run says so.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cairn_journal::Driver;

use super::life;

/// When every run begins, in microseconds since the Unix epoch.
const BEGIN_US: i64 = 1_800_000_000_000_000;

thread_local! {
    static TIME: RefCell<Option<Arc<Time>>> = const { RefCell::new(None) };
}

/// What the engine takes for the time on a thread that runs a simulation, in microseconds since the Unix epoch.
pub(crate) fn now_us() -> Option<i64> {
    TIME.with_borrow(|time| time.as_ref().map(|time| BEGIN_US + (time.now_ns() / 1_000) as i64))
}

/// The time of the run on this thread.
pub(super) struct Time {
    origin: Instant,
    passed_ns: AtomicU64,
}

/// Gives the thread its own time back, when the life that may be under way is over.
pub(super) struct OwnTime;

impl Drop for OwnTime {
    fn drop(&mut self) {
        life::forget();
        TIME.set(None);
    }
}

impl Time {
    pub(super) fn begin() -> (Arc<Time>, OwnTime) {
        let time = Arc::new(Time { origin: Instant::now(), passed_ns: AtomicU64::new(0) });
        TIME.set(Some(Arc::clone(&time)));
        (time, OwnTime)
    }

    /// Nanoseconds since the run began.
    pub(super) fn now_ns(&self) -> u64 {
        self.passed_ns.load(Ordering::Relaxed)
    }

    pub(super) fn advance(&self, time: Duration) {
        self.passed_ns.fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
    }
}

impl Driver for Time {
    fn now(&self) -> Instant {
        self.origin + Duration::from_nanos(self.now_ns())
    }

    fn rest(&self, time: Duration) {
        self.advance(time);
        life::rest();
    }
}
