//! When to sync in `always` mode, and on which thread.
//!
//! A sync costs as much for one commit as for a hundred, so a small group waits for company as long as company may be
//! expected: those whose writes the last sync carried have just been answered and will be back. It waits no longer than
//! that sync took, so the disk rests at most as long as it works, and whoever writes alone does not wait at all.

use std::time::{Duration, Instant};

/// What was seen of the disk and of those who write.
pub(crate) struct Pace {
    /// Quick syncs still to be seen before anybody leads.
    doubts: u32,
    /// The end of the last sync, and how long it took.
    last_sync: Option<(Instant, Duration)>,
    /// Commits of the last group and of the one before. In a steady state those who wrote either are all there are.
    last_commits: [u32; 2],
}

/// A leader is a thread that others would use meanwhile, so it leads only where syncs take no longer than a few commands do.
const QUICK: Duration = Duration::from_micros(500);
/// A sync that was not quick sends all to the writer thread until so many were.
const DOUBTS: u32 = 200;
/// Nothing is known of a disk at first.
const DOUBTS_AT_FIRST: u32 = 8;
/// Of fewer writers none waits for the others.
const COMPANY_MIN: u32 = 8;
/// No group waits for company longer.
const REST_MAX: Duration = Duration::from_micros(300);

impl Pace {
    pub(crate) fn note_sync(&mut self, begun: Instant, ended: Instant) {
        let took = ended.saturating_duration_since(begun);
        self.doubts = if took > QUICK { DOUBTS } else { self.doubts.saturating_sub(1) };
        self.last_sync = Some((ended, took));
    }

    pub(crate) fn note_group(&mut self, commits: u32) {
        self.last_commits = [commits, self.last_commits[0]];
    }

    /// Whether a thread that has other work may sync.
    pub(crate) fn is_quick(&self) -> bool {
        self.doubts == 0
    }

    /// When a group of so many commits is to be written; a moment in the past for at once.
    pub(crate) fn due(&self, commits: u32) -> Option<Instant> {
        let [last, before] = self.last_commits;
        let writers = last.saturating_add(before);
        if writers < COMPANY_MIN || commits >= writers / 4 * 3 {
            return None;
        }
        self.last_sync.map(|(ended, took)| ended + took.min(REST_MAX))
    }
}

impl Default for Pace {
    fn default() -> Self {
        Self { doubts: DOUBTS_AT_FIRST, last_sync: None, last_commits: [0; 2] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn synced(micros: u64) -> (Pace, Instant) {
        let (mut pace, begun) = (Pace::default(), Instant::now());
        let ended = begun + Duration::from_micros(micros);
        pace.note_sync(begun, ended);
        (pace, ended)
    }

    #[test]
    fn who_writes_alone_does_not_wait_and_others_wait_as_long_as_the_disk_worked() {
        let (mut pace, ended) = synced(100);
        pace.note_group(1);
        pace.note_group(1);
        assert_eq!(pace.due(1), None);
        pace.note_group(25);
        pace.note_group(25);
        assert_eq!(pace.due(10), Some(ended + Duration::from_micros(100)));
        assert_eq!(pace.due(40), None, "nearly all there are");
        let (mut slow, ended) = synced(20_000);
        slow.note_group(50);
        assert_eq!(slow.due(1), Some(ended + REST_MAX));
    }

    #[test]
    fn one_slow_sync_is_remembered_for_many() {
        let (mut pace, now) = synced(100);
        let quick = |pace: &mut Pace| pace.note_sync(now, now + QUICK);
        (0..DOUBTS_AT_FIRST).for_each(|_| quick(&mut pace));
        assert!(pace.is_quick());
        pace.note_sync(now, now + QUICK * 2);
        (0..DOUBTS - 1).for_each(|_| quick(&mut pace));
        assert!(!pace.is_quick());
        quick(&mut pace);
        assert!(pace.is_quick());
    }
}
