//! How often each command ran, how long it took, how often it failed.
//!
//! Each thread counts for itself, in memory that only it writes, so that counting costs a few plain instructions; whoever
//! asks adds the threads up.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

use crate::table::numbered;

/// Steps of a power of two that durations are told apart by: within one eighth.
const STEPS: usize = 8;
/// Powers of two: the longest told apart is beyond an hour.
const OCTAVES: usize = 32;
const BUCKETS: usize = OCTAVES * STEPS;

thread_local! {
    /// What this thread counts, and for whom.
    static COUNTS: RefCell<Option<(*const Usage, Arc<Counts>)>> = const { RefCell::new(None) };
}

/// What all threads have counted.
#[derive(Default)]
pub struct Usage {
    threads: Mutex<Vec<Arc<Counts>>>,
    /// Durations are not told apart (`latency-tracking no`).
    untracked: AtomicBool,
}

/// What one thread has counted: of each command, by its number in the table.
struct Counts {
    commands: Box<[CommandCounts]>,
}

struct CommandCounts {
    calls: AtomicU64,
    duration_us: AtomicU64,
    rejected: AtomicU64,
    failed: AtomicU64,
    /// By duration, in steps; made with the first call.
    histogram: std::sync::OnceLock<Box<[AtomicU32; BUCKETS]>>,
}

/// What is known of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandUsage {
    /// How often it ran.
    pub calls: u64,
    /// How long all runs took, in microseconds.
    pub duration_us: u64,
    /// How often it was refused before it ran.
    pub rejected: u64,
    /// How often it ran and answered an error.
    pub failed: u64,
    /// Runs by duration.
    pub durations: Durations,
}

/// How many runs took how long.
#[derive(Clone, PartialEq, Eq)]
pub struct Durations([u64; BUCKETS]);

/// Adds to a counter that no other thread writes.
#[inline]
fn add(counter: &AtomicU64, n: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(n), Relaxed);
}

/// The bucket of a duration in microseconds.
#[inline]
fn bucket(duration_us: u64) -> usize {
    // Below the number of steps each microsecond has a bucket of its own.
    if duration_us < STEPS as u64 {
        return duration_us as usize;
    }
    let octave = 63 - duration_us.leading_zeros() as usize;
    let step = (duration_us >> (octave - 3)) as usize & (STEPS - 1);
    ((octave - 2) * STEPS + step).min(BUCKETS - 1)
}

/// The longest duration in microseconds that belongs into a bucket.
fn longest(bucket: usize) -> u64 {
    let (octave, step) = (bucket / STEPS, (bucket % STEPS) as u64);
    if octave == 0 { step } else { ((STEPS as u64 + step + 1) << (octave - 1)) - 1 }
}

impl Counts {
    fn new(commands: usize) -> Self {
        let one = || CommandCounts {
            calls: AtomicU64::new(0),
            duration_us: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            histogram: std::sync::OnceLock::new(),
        };
        Self { commands: (0..commands).map(|_| one()).collect() }
    }

    /// Notes a run of a command; its duration among others' only where durations are `tracked`. Only the thread these
    /// counts belong to may call this.
    #[inline]
    fn note(&self, command: usize, duration_us: u64, failed: bool, tracked: bool) {
        let Some(counts) = self.commands.get(command) else { return };
        add(&counts.calls, 1);
        add(&counts.duration_us, duration_us);
        if failed {
            add(&counts.failed, 1);
        }
        if !tracked {
            return;
        }
        let histogram = counts.histogram.get_or_init(|| Box::new(std::array::from_fn(|_| AtomicU32::new(0))));
        let count = &histogram[bucket(duration_us)];
        count.store(count.load(Relaxed).wrapping_add(1), Relaxed);
    }

    /// Notes a command that was refused before it ran. Only the thread these counts belong to may call this.
    fn note_rejected(&self, command: usize) {
        if let Some(counts) = self.commands.get(command) {
            add(&counts.rejected, 1);
        }
    }
}

impl Usage {
    /// Whether durations are told apart from now on.
    pub fn set_tracked(&self, tracked: bool) {
        self.untracked.store(!tracked, Relaxed);
    }

    /// Notes a run of a command, by its number in the table.
    #[inline]
    pub fn note(&self, command: usize, duration_us: u64, failed: bool) {
        let tracked = !self.untracked.load(Relaxed);
        self.count(|counts| counts.note(command, duration_us, failed, tracked));
    }

    /// Notes a command that was refused before it ran.
    #[cold]
    pub fn note_rejected(&self, command: usize) {
        self.count(|counts| counts.note_rejected(command));
    }

    /// Counts in what belongs to this thread alone.
    #[inline]
    fn count(&self, count: impl FnOnce(&Counts)) {
        COUNTS.with_borrow_mut(|counts| match counts {
            Some((of, counts)) if std::ptr::eq(*of, self) => count(counts),
            _ => count(&counts.insert((self, self.register(numbered().len()))).1),
        });
    }

    /// Counts for a thread of its own, of so many commands.
    fn register(&self, commands: usize) -> Arc<Counts> {
        let counts = Arc::new(Counts::new(commands));
        self.threads.lock().push(Arc::clone(&counts));
        counts
    }

    /// What all threads have counted of a command.
    pub fn of(&self, command: usize) -> CommandUsage {
        let mut sum = CommandUsage {
            calls: 0,
            duration_us: 0,
            rejected: 0,
            failed: 0,
            durations: Durations([0; BUCKETS]),
        };
        for thread in self.threads.lock().iter() {
            let Some(counts) = thread.commands.get(command) else { continue };
            sum.calls += counts.calls.load(Relaxed);
            sum.duration_us += counts.duration_us.load(Relaxed);
            sum.rejected += counts.rejected.load(Relaxed);
            sum.failed += counts.failed.load(Relaxed);
            if let Some(histogram) = counts.histogram.get() {
                for (sum, count) in sum.durations.0.iter_mut().zip(histogram.iter()) {
                    *sum += u64::from(count.load(Relaxed));
                }
            }
        }
        sum
    }

    /// Sets everything back to zero; a run that is counted at this moment may stay.
    pub fn reset(&self) {
        for counts in self.threads.lock().iter().flat_map(|thread| &thread.commands) {
            for counter in [&counts.calls, &counts.duration_us, &counts.rejected, &counts.failed] {
                counter.store(0, Relaxed);
            }
            counts.histogram.get().into_iter().flat_map(|all| all.iter()).for_each(|n| n.store(0, Relaxed));
        }
    }

    /// Forgets the durations of a command, and keeps its counts.
    pub fn reset_durations(&self, command: usize) {
        for counts in self.threads.lock().iter().filter_map(|thread| thread.commands.get(command)) {
            counts.histogram.get().into_iter().flat_map(|all| all.iter()).for_each(|n| n.store(0, Relaxed));
        }
    }
}

impl Durations {
    /// How many runs there were.
    pub fn runs(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The duration in microseconds that `percent` of the runs did not exceed, rounded up by at most an eighth.
    pub fn percentile(&self, percent: f64) -> u64 {
        let wanted = (self.runs() as f64 * percent / 100.0).ceil().max(1.0) as u64;
        let mut seen = 0;
        let reached = self.0.iter().position(|count| {
            seen += count;
            seen >= wanted
        });
        reached.map_or(0, longest)
    }

    /// Pairs of a duration in microseconds, a power of two, and how many runs took no longer; from the first that has any
    /// to the one that has all.
    pub fn cumulative(&self) -> Vec<(u64, u64)> {
        let total = self.runs();
        let mut pairs = Vec::new();
        for power in 0..=OCTAVES as u32 {
            let limit = 1_u64 << power;
            let up_to: u64 = (0..BUCKETS)
                .take_while(|bucket| longest(*bucket) <= limit)
                .map(|bucket| self.0[bucket])
                .sum();
            if up_to > 0 {
                pairs.push((limit, up_to));
            }
            if up_to == total {
                break;
            }
        }
        pairs
    }
}

impl std::fmt::Debug for Durations {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.cumulative()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_each_other_and_hold_what_they_say() {
        let mut last = 0;
        for duration in (0..5000).chain((13..32).map(|power| (1_u64 << power) + 3)) {
            let bucket = bucket(duration);
            assert!(bucket >= last, "{duration} is in bucket {bucket}, behind {last}");
            assert!(longest(bucket) >= duration, "{duration} is longer than bucket {bucket}");
            assert!(bucket == 0 || longest(bucket - 1) < duration, "{duration} belongs before {bucket}");
            last = bucket;
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn threads_are_added_up() {
        let usage = Usage::default();
        let (one, two) = (usage.register(3), usage.register(3));
        (1..=99).for_each(|n| one.note(1, n, false, true));
        two.note(1, 5000, true, true);
        two.note_rejected(2);
        two.note(9, 1, false, true);
        two.note(0, 1, false, false);
        assert_eq!((usage.of(0).calls, usage.of(0).durations.runs()), (1, 0));
        let of = usage.of(1);
        assert_eq!((of.calls, of.duration_us, of.failed, of.rejected), (100, 9950, 1, 0));
        assert_eq!(usage.of(2).rejected, 1);
        let median = of.durations.percentile(50.0);
        assert!((50..=56).contains(&median), "{median}");
        assert!(of.durations.percentile(100.0) >= 5000 && of.durations.percentile(99.0) < 120);
        assert_eq!(of.durations.cumulative().last(), Some(&(8192, 100)));
        usage.reset_durations(1);
        assert_eq!((usage.of(1).durations.runs(), usage.of(1).calls), (0, 100));
        usage.reset();
        assert_eq!(usage.of(1).calls, 0);
    }
}
