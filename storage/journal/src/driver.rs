//! A journal without threads: whoever drives it is its writer, and tells it what time it is.

use std::time::{Duration, Instant};

/// Who drives a journal that has no threads of its own, so that a test decides what happens between any two steps and sees
/// the same happen again: see [`crate::Options::driver`]. All calls of such a journal are to come from one thread.
pub trait Driver: Send + Sync {
    /// What time it is: the journal reads no other clock.
    fn now(&self) -> Instant;

    /// Lets `time` pass, or less, when nothing but time can help: the disk is full, or it is too early to write. What the
    /// driver does meanwhile must not wait for the journal.
    fn rest(&self, time: Duration);
}
