//! Counters of the server for INFO. Counted a batch of commands at a time, so they cost a command nothing.

use parking_lot::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

/// Counts since the start, or since CONFIG RESETSTAT.
#[derive(Default)]
pub(crate) struct Stats {
    pub(crate) connections_received_total: AtomicU64,
    pub(crate) connections_rejected_total: AtomicU64,
    pub(crate) commands_total: AtomicU64,
    pub(crate) input_bytes_total: AtomicU64,
    pub(crate) output_bytes_total: AtomicU64,
    pub(crate) reads_total: AtomicU64,
    pub(crate) writes_total: AtomicU64,
    pub(crate) protocol_errors_total: AtomicU64,
    rates: Mutex<Rates>,
}

/// How many samples a momentary rate is the mean of.
const SAMPLES: usize = 16;

#[derive(Default)]
struct Rates {
    last: Option<(Instant, [u64; 3])>,
    samples: [[f64; 3]; SAMPLES],
    next: usize,
}

impl Stats {
    fn counts(&self) -> [u64; 3] {
        [
            self.commands_total.load(Relaxed),
            self.input_bytes_total.load(Relaxed),
            self.output_bytes_total.load(Relaxed),
        ]
    }

    /// Takes a sample of the rates; to be called about ten times a second.
    pub(crate) fn sample(&self, now: Instant) {
        let counts = self.counts();
        let mut rates = self.rates.lock();
        if let Some((then, before)) = rates.last {
            let seconds = now.duration_since(then).as_secs_f64();
            if seconds > 0.0 {
                let next = rates.next;
                rates.samples[next] =
                    std::array::from_fn(|i| counts[i].saturating_sub(before[i]) as f64 / seconds);
                rates.next = (next + 1) % SAMPLES;
            }
        }
        rates.last = Some((now, counts));
    }

    /// Commands, bytes in and bytes out a second, lately.
    pub(crate) fn rates(&self) -> [f64; 3] {
        let rates = self.rates.lock();
        std::array::from_fn(|i| rates.samples.iter().map(|sample| sample[i]).sum::<f64>() / SAMPLES as f64)
    }

    /// Back to zero.
    pub(crate) fn reset(&self) {
        for counter in [
            &self.connections_received_total,
            &self.connections_rejected_total,
            &self.commands_total,
            &self.input_bytes_total,
            &self.output_bytes_total,
            &self.reads_total,
            &self.writes_total,
            &self.protocol_errors_total,
        ] {
            counter.store(0, Relaxed);
        }
        *self.rates.lock() = Rates::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn rates_are_means_of_the_last_samples() {
        let (stats, start) = (Stats::default(), Instant::now());
        for tenth in 0..=SAMPLES as u32 {
            stats.commands_total.fetch_add(100, Relaxed);
            stats.sample(start + Duration::from_millis(100) * tenth);
        }
        assert!((stats.rates()[0] - 1000.0).abs() < 1.0);
        stats.reset();
        assert_eq!(stats.rates(), [0.0; 3]);
    }
}
