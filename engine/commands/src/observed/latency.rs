//! Events that took longer than `latency-monitor-threshold`: for each, the last samples and the worst.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

/// Samples kept of an event.
const SAMPLES: usize = 160;

/// The events by name.
#[derive(Default)]
pub struct LatencyMonitor {
    /// `latency-monitor-threshold`, in milliseconds; 0: off.
    threshold_ms: AtomicU64,
    events: Mutex<BTreeMap<&'static str, Event>>,
}

/// What is known of an event.
#[derive(Clone, Debug, Default)]
pub struct Event {
    /// The newest last.
    pub samples: VecDeque<Sample>,
    /// The worst since the last reset, in milliseconds.
    pub worst_ms: u64,
}

/// One occurrence; of several in one second, the worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Seconds since the Unix epoch.
    pub unixtime: i64,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
}

impl LatencyMonitor {
    /// Changes the threshold, in milliseconds; 0 switches the monitor off.
    pub fn set_threshold(&self, threshold_ms: u64) {
        self.threshold_ms.store(threshold_ms, Relaxed);
    }

    /// The threshold, in milliseconds; 0: off.
    pub fn threshold_ms(&self) -> u64 {
        self.threshold_ms.load(Relaxed)
    }

    /// Whether an event that took so long is noted.
    #[inline]
    pub fn is_slow(&self, duration_us: u64) -> bool {
        let threshold = self.threshold_ms.load(Relaxed);
        threshold > 0 && duration_us / 1000 >= threshold
    }

    /// Notes an event, if it took long enough.
    #[inline]
    pub fn note(&self, event: &'static str, unixtime: i64, duration_us: u64) {
        if self.is_slow(duration_us) {
            self.add(event, Sample { unixtime, duration_ms: duration_us / 1000 });
        }
    }

    #[cold]
    fn add(&self, event: &'static str, sample: Sample) {
        let mut events = self.events.lock();
        let known = events.entry(event).or_default();
        known.worst_ms = known.worst_ms.max(sample.duration_ms);
        match known.samples.back_mut() {
            Some(last) if last.unixtime == sample.unixtime => {
                last.duration_ms = last.duration_ms.max(sample.duration_ms);
            }
            _ => {
                if known.samples.len() == SAMPLES {
                    known.samples.pop_front();
                }
                known.samples.push_back(sample);
            }
        }
    }

    /// Every event with what is known of it.
    pub fn events(&self) -> Vec<(&'static str, Event)> {
        self.events.lock().iter().map(|(name, event)| (*name, event.clone())).collect()
    }

    /// What is known of one event.
    pub fn event(&self, name: &[u8]) -> Option<Event> {
        let events = self.events.lock();
        events.iter().find(|(known, _)| known.as_bytes().eq_ignore_ascii_case(name)).map(|(_, e)| e.clone())
    }

    /// Forgets the events of these names, or all where none is given; returns how many were forgotten.
    pub fn reset(&self, names: &[&[u8]]) -> usize {
        let mut events = self.events.lock();
        let before = events.len();
        let is_named = |event: &str| names.iter().any(|name| name.eq_ignore_ascii_case(event.as_bytes()));
        events.retain(|event, _| !names.is_empty() && !is_named(event));
        before - events.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_quick_or_not_asked_for_is_not_noted() {
        let monitor = LatencyMonitor::default();
        monitor.note("command", 1, 5_000_000);
        monitor.set_threshold(10);
        monitor.note("command", 1, 9_999);
        assert!(monitor.events().is_empty());
        monitor.note("command", 1, 10_000);
        assert_eq!(monitor.event(b"COMMAND").map(|event| event.worst_ms), Some(10));
    }

    #[test]
    fn a_second_has_one_sample_and_the_oldest_go() {
        let monitor = LatencyMonitor::default();
        monitor.set_threshold(1);
        for ms in [5, 9, 7] {
            monitor.note("fork", 40, ms * 1000);
        }
        let event = monitor.event(b"fork").unwrap_or_default();
        assert_eq!(event.samples, [Sample { unixtime: 40, duration_ms: 9 }]);
        for second in 0..200 {
            monitor.note("fork", 100 + second, 2000);
        }
        let event = monitor.event(b"fork").unwrap_or_default();
        assert_eq!((event.samples.len(), event.samples[0].unixtime, event.worst_ms), (160, 140, 9));
        monitor.note("command", 1, 2000);
        assert_eq!(monitor.reset(&[b"FORK", b"nothing"]), 1);
        assert_eq!(monitor.reset(&[]), 1);
    }
}
