//! What the engine does for an archive that follows its journal: it keeps journal that is not archived yet, and knows when
//! effects were appended.
//!
//! The archive itself is somebody else's: here it is a position that only an agent tells. Nothing of this is on the way of
//! a command; what happened when is sampled by the clock.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cairn_format::Lsn;
use parking_lot::{Mutex, MutexGuard};

use crate::engine::{Engine, Inner, now_ms};
use crate::error::SaveError;
use crate::snapshots::{self, SnapshotInfo};

/// What the archive needs of the journal.
#[derive(Default)]
pub(crate) struct Archive {
    state: Mutex<State>,
    /// Held while journal goes, and while somebody asks for some to stay: whoever was told that it stays can rely on that.
    trimming: Mutex<()>,
    /// Whether it is further behind than it may be; apart, since each write asks.
    is_behind: AtomicBool,
}

#[derive(Default)]
struct State {
    /// Journal below a snapshot stays until it is archived.
    is_awaited: bool,
    /// How far behind the archive may be before writes are refused.
    lag_max: Option<Duration>,
    /// Since when it has been further behind, in milliseconds since the Unix epoch.
    behind_since: Option<u64>,
    /// As an agent told last.
    archived: Option<Archived>,
    /// What is held from where on, by number.
    holds: BTreeMap<u64, Lsn>,
    next_hold: u64,
    samples: Samples,
}

/// How far the archive is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Archived {
    /// It holds all effects below this position.
    pub lsn: Lsn,
    /// When the newest of them was appended, in milliseconds since the Unix epoch.
    pub unix_ms: u64,
}

/// What the archive lacks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ArchiveLag {
    /// Bytes of effects that are durable and not archived.
    pub bytes: u64,
    /// Age of the oldest of them: never less than it is, and more by no more than the clock's tick while the archive follows
    /// closely. Until an agent has told of the archive, the time since the data was loaded. Zero where nothing is lacking.
    pub age: Duration,
}

/// The data as somebody sees it who follows the journal's files.
#[derive(Clone, Debug)]
pub struct Position {
    /// The history that the data belongs to, in hexadecimal digits.
    pub lineage: String,
    /// The number of this start.
    pub epoch: u64,
    /// How many databases there are.
    pub databases: u32,
    /// Whether new files are encrypted.
    pub is_encrypted: bool,
    /// Whether there is a journal at all.
    pub has_journal: bool,
    /// End of what is durable.
    pub durable: Lsn,
    /// All that was appended until then is durable, in milliseconds since the Unix epoch.
    pub durable_unix_ms: u64,
    /// End of what was appended.
    pub end: Lsn,
    /// Where the journal begins that the directory holds.
    pub journal_from: Lsn,
    /// How far the archive is, where an agent has told.
    pub archived: Option<Archived>,
    /// The snapshot that a start would load.
    pub snapshot: Option<NamedSnapshot>,
}

/// A snapshot that the manifest names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedSnapshot {
    /// Its file in the data directory.
    pub file: String,
    /// It holds the effects below this position.
    pub lsn: Lsn,
    /// How many keys it holds.
    pub entries: u64,
}

/// Why what an agent said of positions cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PositionError {
    /// Ahead of the data.
    #[error(
        "LSN {lsn} is beyond {end}, where the data ends that is durable here; does it belong to another lineage?"
    )]
    Beyond {
        /// What was told.
        lsn: Lsn,
        /// Where the data ends.
        end: Lsn,
    },
    /// The journal has been trimmed already.
    #[error("the journal from LSN {lsn} on is gone: it begins at {from}; take a new base")]
    Gone {
        /// What was wanted.
        lsn: Lsn,
        /// Where the journal begins.
        from: Lsn,
    },
}

/// Keeps the journal from a position on, whatever snapshots are taken, until it is dropped.
pub struct JournalHold {
    engine: Engine,
    number: u64,
}

impl Drop for JournalHold {
    fn drop(&mut self) {
        self.engine.0.archive.state.lock().holds.remove(&self.number);
    }
}

impl Engine {
    /// Where the data is, and in which files. Takes some locks; not for the path of a command. `None` while it is loaded.
    #[must_use]
    pub fn position(&self) -> Option<Position> {
        if self.is_loading() {
            return None;
        }
        let inner = &*self.0;
        let manifest = inner.catalog().manifest();
        let (durable, state) = (inner.log.durable(), inner.archive.state.lock());
        let end = inner.log.end();
        Some(Position {
            lineage: manifest.lineage.to_string(),
            epoch: manifest.epoch,
            databases: manifest.databases,
            is_encrypted: inner.keys.keyring().is_some(),
            has_journal: inner.log.journal().is_some(),
            durable,
            // What is loaded is durable, and sampled.
            durable_unix_ms: state.samples.last_within(durable).map_or(0, |sample| sample.unix_ms),
            end,
            journal_from: manifest.segments.first().map_or(end, |segment| segment.first_lsn),
            archived: state.archived,
            snapshot: manifest.snapshot.map(|entry| NamedSnapshot {
                file: entry.name,
                lsn: entry.lsn,
                entries: entry.entries,
            }),
        })
    }

    /// Whether journal below a snapshot stays until it is archived; and how far behind the archive may be before writes are
    /// refused.
    pub fn await_archive(&self, is_awaited: bool, lag_max: Option<Duration>) {
        let mut state = self.0.archive.state.lock();
        (state.is_awaited, state.lag_max) = (is_awaited, lag_max.filter(|_| is_awaited));
    }

    /// Whether the archive is further behind than it may be, so that writes are refused.
    #[must_use]
    pub fn is_archive_behind(&self) -> bool {
        self.0.archive.is_behind()
    }

    /// Notes how far the archive is. Journal that is not needed any more goes with the next [`Engine::trim`].
    ///
    /// # Errors
    /// What is not durable here cannot be archived.
    pub fn note_archived(&self, archived: Archived) -> Result<(), PositionError> {
        let durable = self.durable();
        if archived.lsn > durable {
            return Err(PositionError::Beyond { lsn: archived.lsn, end: durable });
        }
        self.0.archive.state.lock().archived = Some(archived);
        Ok(())
    }

    /// How far the archive is, where an agent has told since the start.
    #[must_use]
    pub fn archived(&self) -> Option<Archived> {
        self.0.archive.state.lock().archived
    }

    /// Keeps the journal from `lsn` on for as long as the hold lives. Waits for a trim that is under way.
    ///
    /// # Errors
    /// Where the journal does not reach back so far, or not so far ahead.
    pub fn hold_journal(&self, lsn: Lsn) -> Result<JournalHold, PositionError> {
        let archive = &self.0.archive;
        let _no_trimming = archive.trimming.lock();
        let end = self.0.log.end();
        if lsn > end {
            return Err(PositionError::Beyond { lsn, end });
        }
        let from = self.0.catalog().journal_from().unwrap_or(end);
        if lsn < from {
            return Err(PositionError::Gone { lsn, from });
        }
        let mut state = archive.state.lock();
        let number = state.next_hold;
        state.next_hold += 1;
        state.holds.insert(number, lsn);
        Ok(JournalHold { engine: self.clone(), number })
    }

    /// As [`Engine::snapshot`]; but where one is being taken, that one.
    ///
    /// # Errors
    /// See [`SaveError`]; the snapshot before is untouched.
    pub fn snapshot_or_join(&self) -> Result<SnapshotInfo, SaveError> {
        snapshots::take_or_join(&self.0)
    }

    /// What the archive lacks of what is durable.
    #[must_use]
    pub fn archive_lag(&self) -> ArchiveLag {
        if self.is_loading() {
            return ArchiveLag::default();
        }
        let durable = self.0.log.durable();
        let from = self.0.catalog().journal_from().unwrap_or(durable);
        self.0.archive.state.lock().lag(durable, from)
    }
}

/// What clients and probes hear of an archive that is too far behind.
pub(crate) fn archive_behind(max: Duration) -> String {
    format!(
        "the backup is further behind than backup-max-lag allows ({} s), so writes are refused; they resume by themselves \
         once it has caught up. INFO backup and the log say what keeps it",
        max.as_secs_f64()
    )
}

impl Inner {
    /// Notes where the journal ends now; to be called when it is there, and with every tick.
    pub(crate) fn sample_position(&self) {
        // The time first: what was appended until then lies below the position.
        let (at, unix_ms) = (Instant::now(), now_ms().unsigned_abs());
        let lsn = self.log.end();
        let mut state = self.archive.state.lock();
        state.samples.note(Sample { lsn, at, unix_ms });
        if state.lag_max.is_some() || state.behind_since.is_some() {
            let durable = self.log.durable();
            self.archive.is_behind.store(state.judge(durable, unix_ms), Ordering::Relaxed);
        }
    }
}

impl Archive {
    /// Whether writes are refused because the archive is too far behind.
    #[inline]
    pub(crate) fn is_behind(&self) -> bool {
        self.is_behind.load(Ordering::Relaxed)
    }

    /// Since when (unix ms) it has been too far behind, and how far it may be.
    pub(crate) fn behind(&self) -> Option<(u64, Duration)> {
        let state = self.state.lock();
        state.behind_since.zip(state.lag_max)
    }

    /// Nobody asks for journal to stay from here on, until what this gives is dropped.
    pub(crate) fn begin_trim(&self) -> Trimming<'_> {
        Trimming { archive: self, _alone: self.trimming.lock() }
    }
}

/// While journal goes.
pub(crate) struct Trimming<'a> {
    archive: &'a Archive,
    _alone: MutexGuard<'a, ()>,
}

/// What somebody needs of the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    /// From here on it has to stay.
    pub(crate) needed_from: Lsn,
    /// Whether anybody but recovery wants any.
    pub(crate) is_wanted: bool,
    /// Below this it is archived, where an agent has told.
    pub(crate) archived: Option<Lsn>,
}

impl Trimming<'_> {
    /// What has to stay, where recovery needs the journal from `snapshot` on.
    pub(crate) fn held(&self, snapshot: Lsn) -> Held {
        let state = self.archive.state.lock();
        let archived = state.archived.map(|archived| archived.lsn);
        let awaited = state.is_awaited.then_some(archived.unwrap_or(Lsn::ZERO));
        let needed_from = state.holds.values().copied().chain(awaited).fold(snapshot, Lsn::min);
        let is_wanted = state.is_awaited || !state.holds.is_empty();
        Held { needed_from, is_wanted, archived }
    }

    /// What lies below a position is gone: nobody holds it any more.
    pub(crate) fn forget_below(&self, lsn: Lsn) {
        self.archive.state.lock().holds.retain(|_, held| *held >= lsn);
    }
}

impl State {
    /// Whether the archive is too far behind now; tells the log when that changes.
    fn judge(&mut self, durable: Lsn, now_unix_ms: u64) -> bool {
        let age = self.lag(durable, Lsn::ZERO).age;
        let is_behind = self.lag_max.is_some_and(|max| age > max);
        if is_behind && self.behind_since.is_none() {
            self.behind_since = Some(now_unix_ms);
        } else if !is_behind {
            self.behind_since = None;
        }
        is_behind
    }

    fn lag(&self, durable: Lsn, journal_from: Lsn) -> ArchiveLag {
        let archived = self.archived.map_or(Lsn::ZERO, |archived| archived.lsn);
        if archived >= durable {
            return ArchiveLag::default();
        }
        let age = match (self.samples.last_within(archived), self.archived) {
            // What is not archived was appended after this.
            (Some(sample), _) => sample.at.elapsed(),
            // The archive ends before this start.
            (None, Some(archived)) => {
                Duration::from_millis(now_ms().unsigned_abs().saturating_sub(archived.unix_ms))
            }
            (None, None) => self.samples.first().map_or(Duration::ZERO, |sample| sample.at.elapsed()),
        };
        let from = if self.archived.is_some() { archived } else { journal_from };
        ArchiveLag { bytes: durable.0.saturating_sub(from.0), age }
    }
}

/// A moment, and where the journal ended then.
#[derive(Clone, Copy)]
struct Sample {
    lsn: Lsn,
    at: Instant,
    unix_ms: u64,
}

/// Where the journal ended at moments of the past: every tick of the last half minute, ever fewer further back, so that how
/// old an effect is stays known to the hundredth.
#[derive(Default)]
struct Samples(Vec<Sample>);

impl Samples {
    /// Months fit, at ten a second.
    const MOST: usize = 4096;
    /// The distance between two samples, as a share of their age, that none between them makes up for.
    const SHARE: u32 = 256;

    fn note(&mut self, sample: Sample) {
        match self.0.last_mut() {
            // Nothing was appended since: it is the later moment that says more.
            Some(last) if last.lsn == sample.lsn => *last = sample,
            _ => self.0.push(sample),
        }
        let mut share = Self::SHARE;
        while self.0.len() > Self::MOST {
            self.thin(sample.at, share);
            share = (share / 2).max(1);
        }
    }

    /// Lets those go that lie so close between two others. What is asked of one that is gone, the one before it answers.
    fn thin(&mut self, now: Instant, share: u32) {
        let mut kept: Vec<Sample> = Vec::with_capacity(self.0.len());
        for (index, sample) in self.0.iter().enumerate() {
            let is_close = match (kept.last(), self.0.get(index + 1)) {
                (Some(before), Some(after)) => {
                    after.at.duration_since(before.at) <= now.duration_since(after.at) / share
                }
                _ => false,
            };
            if !is_close {
                kept.push(*sample);
            }
        }
        self.0 = kept;
    }

    fn first(&self) -> Option<&Sample> {
        self.0.first()
    }

    /// The last moment at which the journal ended at `lsn` or before.
    fn last_within(&self, lsn: Lsn) -> Option<&Sample> {
        let behind = self.0.partition_point(|sample| sample.lsn <= lsn);
        self.0.get(behind.checked_sub(1)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(lsn: u64, seconds_ago: u64) -> Sample {
        let at = Instant::now().checked_sub(Duration::from_secs(seconds_ago)).unwrap();
        Sample { lsn: Lsn(lsn), at, unix_ms: now_ms().unsigned_abs() - seconds_ago * 1000 }
    }

    fn state(samples: &[Sample]) -> State {
        let mut state = State::default();
        samples.iter().for_each(|sample| state.samples.note(*sample));
        state
    }

    fn age(state: &State, durable: u64) -> u64 {
        state.lag(Lsn(durable), Lsn(100)).age.as_secs()
    }

    #[test]
    fn the_lag_is_the_age_of_the_oldest_effect_that_is_not_archived() {
        // Idle at 200 until 60 s ago, then written to.
        let mut state = state(&[sample(200, 90), sample(200, 60), sample(300, 30), sample(400, 1)]);
        for (archived, expected) in [(400, 0), (399, 30), (300, 30), (299, 60), (200, 60)] {
            state.archived = Some(Archived { lsn: Lsn(archived), unix_ms: 0 });
            assert_eq!(age(&state, 400), expected, "archived up to {archived}");
        }
        assert_eq!(state.lag(Lsn(400), Lsn(100)).bytes, 200);
        // What is not durable yet is not missing yet.
        assert_eq!(state.lag(Lsn(200), Lsn(100)), ArchiveLag::default());
    }

    #[test]
    fn before_this_start_the_time_of_the_newest_archived_effect_counts() {
        let mut state = state(&[sample(200, 60), sample(300, 30)]);
        let unix_ms = now_ms().unsigned_abs() - 3_600_000;
        state.archived = Some(Archived { lsn: Lsn(150), unix_ms });
        assert_eq!(age(&state, 300), 3600);
    }

    #[test]
    fn an_archive_nobody_has_told_of_lacks_everything_since_the_start() {
        let state = state(&[sample(200, 60), sample(300, 30)]);
        let lag = state.lag(Lsn(300), Lsn(100));
        assert_eq!((lag.bytes, lag.age.as_secs()), (200, 60));
        assert_eq!(State::default().lag(Lsn::ZERO, Lsn::ZERO), ArchiveLag::default());
    }

    #[test]
    fn samples_are_bounded_and_never_make_an_effect_younger() {
        let mut samples = Samples::default();
        let begun = Instant::now();
        for tick in 0..50_000_u64 {
            let at = begun + Duration::from_millis(tick * 100);
            samples.note(Sample { lsn: Lsn(tick), at, unix_ms: tick * 100 });
        }
        assert!(samples.0.len() <= Samples::MOST);
        let newest = samples.last_within(Lsn(u64::MAX)).unwrap();
        assert_eq!((newest.lsn, samples.first().unwrap().lsn), (Lsn(49_999), Lsn(0)));
        for lsn in [0, 1, 777, 25_000, 40_000, 49_000, 49_900, 49_998] {
            let found = samples.last_within(Lsn(lsn)).unwrap();
            assert!(found.lsn.0 <= lsn, "an effect behind LSN {lsn} was appended before LSN {}", found.lsn);
            let (off, age) = (lsn - found.lsn.0, 50_000 - lsn);
            assert!(off <= age / 100, "LSN {lsn}, {age} ticks old, is known as {}", found.lsn);
        }
    }

    #[test]
    fn an_archive_may_be_so_far_behind_and_no_further() {
        let mut state = state(&[sample(200, 60), sample(300, 30)]);
        assert!(!state.judge(Lsn(300), 1), "nobody asked for a bound");
        state.lag_max = Some(Duration::from_secs(45));
        assert!(state.judge(Lsn(300), 1) && state.judge(Lsn(300), 2));
        assert_eq!(state.behind_since, Some(1));
        state.archived = Some(Archived { lsn: Lsn(250), unix_ms: 0 });
        assert!(state.judge(Lsn(300), 3), "what was appended 60 s ago is still missing");
        state.archived = Some(Archived { lsn: Lsn(300), unix_ms: 0 });
        assert!(!state.judge(Lsn(300), 4));
        assert_eq!(state.behind_since, None);
    }

    #[test]
    fn journal_stays_for_whoever_needs_it() {
        let archive = Archive::default();
        let needed = |archive: &Archive| archive.begin_trim().held(Lsn(500)).needed_from;
        assert_eq!(needed(&archive), Lsn(500));
        archive.state.lock().is_awaited = true;
        assert_eq!(needed(&archive), Lsn::ZERO);
        archive.state.lock().archived = Some(Archived { lsn: Lsn(450), unix_ms: 0 });
        assert_eq!(needed(&archive), Lsn(450));
        archive.state.lock().holds.insert(0, Lsn(300));
        assert_eq!(needed(&archive), Lsn(300));
        archive.state.lock().holds.clear();
        archive.state.lock().archived = Some(Archived { lsn: Lsn(900), unix_ms: 0 });
        assert_eq!(needed(&archive), Lsn(500), "recovery needs it all the same");
    }
}
