//! When, or how often, entries are used: what the eviction policies go by.
//!
//! An entry has 24 bits for it. They hold the second of its last use, or, where frequency is asked for, the minute (16 bits)
//! and a counter of uses (8 bits): the higher it stands the less likely a use raises it, and it falls by one for each
//! period without a use, as Redis counts (<http://antirez.com/news/109>). 0 says that nothing was recorded since the start.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use cairn_rdb::file::Usage;

/// How many values 24 bits hold.
const SECONDS: u32 = 1 << 24;
/// How many values 16 bits hold.
const MINUTES: u32 = 1 << 16;

/// The counter of an entry that is new: high enough that it is not the next to go.
const COUNTER_AT_FIRST: u8 = 5;

/// Whether uses are recorded by frequency, and how the counter moves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AccessSettings {
    /// Record the frequency of use instead of the last use.
    pub by_frequency: bool,
    /// `lfu-log-factor`: how much less likely each step of the counter is than the one before.
    pub log_factor: u32,
    /// `lfu-decay-time`: minutes without a use after which the counter falls by one; 0: it never falls.
    pub decay_minutes: u32,
}

impl Default for AccessSettings {
    fn default() -> Self {
        Self { by_frequency: false, log_factor: 10, decay_minutes: 1 }
    }
}

const BY_FREQUENCY: u64 = 1;
const PAUSED: u64 = 1 << 1;
const LOG_FACTOR_SHIFT: u32 = 2;
const DECAY_SHIFT: u32 = 33;
const FIELD: u32 = (1 << 31) - 1;

/// How the uses of a keyspace's entries are recorded.
pub struct Access {
    /// The settings in one word, so that a command reads them at once.
    packed: AtomicU64,
    /// When entries were last used of which nothing is recorded.
    started_ms: AtomicI64,
}

impl Default for Access {
    fn default() -> Self {
        let access = Self { packed: AtomicU64::new(0), started_ms: AtomicI64::new(0) };
        access.set(AccessSettings::default());
        access
    }
}

impl Access {
    /// Changes how uses are recorded. What is recorded already is read anew, so that it takes some time until it is right.
    pub fn set(&self, settings: AccessSettings) {
        let field = |value: u32| u64::from(value.min(FIELD));
        let by_frequency = if settings.by_frequency { BY_FREQUENCY } else { 0 };
        let log_factor = field(settings.log_factor) << LOG_FACTOR_SHIFT;
        let fields = by_frequency | log_factor | field(settings.decay_minutes) << DECAY_SHIFT;
        // Whoever pauses or resumes meanwhile changes only that bit.
        let keep = |packed: u64| Some(packed & PAUSED | fields);
        let _ = self.packed.fetch_update(Ordering::Relaxed, Ordering::Relaxed, keep);
    }

    /// Records no uses of entries that are there for as long as the pause lives: while a child process shares their
    /// memory, each would copy a page. At most one pause at a time.
    #[must_use]
    pub fn pause(&self) -> Pause<'_> {
        self.packed.fetch_or(PAUSED, Ordering::Relaxed);
        Pause(self)
    }

    /// Says when entries count as used of which nothing is recorded.
    pub fn start_at(&self, now_ms: i64) {
        self.started_ms.store(now_ms, Ordering::Relaxed);
    }

    /// The clock of a command that runs now.
    #[inline]
    #[must_use]
    pub fn clock(&self, now_ms: i64) -> Clock {
        let packed = self.packed.load(Ordering::Relaxed);
        let by_frequency = packed & BY_FREQUENCY != 0;
        Clock { packed, now: if by_frequency { minute(now_ms) } else { second(now_ms) } }
    }

    /// For how long an entry was not used, in seconds.
    #[must_use]
    pub fn idle_seconds(&self, clock: u32, now_ms: i64) -> u32 {
        let last = if clock == 0 { second(self.started_ms.load(Ordering::Relaxed)) } else { clock };
        second(now_ms).wrapping_sub(last) % SECONDS
    }

    /// What is known of an entry's use, for a snapshot or a file; nothing where nothing was recorded.
    #[must_use]
    pub fn usage(&self, clock: u32, now_ms: i64) -> Option<Usage> {
        if clock == 0 {
            return None;
        }
        Some(if self.clock(now_ms).by_frequency() {
            Usage::Frequency(self.frequency(clock, now_ms))
        } else {
            Usage::IdleSeconds(u64::from(self.idle_seconds(clock, now_ms)))
        })
    }

    /// What to record of an entry that was used so; nothing (0) where the other kind of use is recorded.
    #[must_use]
    pub fn recorded(&self, usage: Usage, now_ms: i64) -> u32 {
        let clock = self.clock(now_ms);
        match usage {
            Usage::Frequency(counter) if clock.by_frequency() => clock.of_frequency(counter),
            Usage::IdleSeconds(seconds) if !clock.by_frequency() => clock.of_idle(seconds),
            Usage::Frequency(_) | Usage::IdleSeconds(_) => 0,
        }
    }

    /// How often an entry is used: its counter as of now.
    #[must_use]
    pub fn frequency(&self, clock: u32, now_ms: i64) -> u8 {
        let now = self.clock(now_ms);
        match clock {
            0 => now
                .decayed(minute(self.started_ms.load(Ordering::Relaxed)) << 8 | u32::from(COUNTER_AT_FIRST)),
            recorded => now.decayed(recorded),
        }
    }
}

/// Ends the pause when it goes.
pub struct Pause<'a>(&'a Access);

impl Drop for Pause<'_> {
    fn drop(&mut self) {
        self.0.packed.fetch_and(!PAUSED, Ordering::Relaxed);
    }
}

#[inline]
fn second(now_ms: i64) -> u32 {
    ((now_ms / 1000) as u32 % SECONDS).max(1)
}

#[inline]
fn minute(now_ms: i64) -> u32 {
    (now_ms / 60_000) as u32 % MINUTES
}

/// What a command records of the entries it uses.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    packed: u64,
    /// The second or the minute.
    now: u32,
}

impl Clock {
    /// One that records nothing, not even of new entries: for a replay.
    pub const OFF: Self = Self { packed: PAUSED, now: 0 };

    /// Records nothing of entries that are there.
    #[must_use]
    pub fn paused(self) -> Self {
        Self { packed: self.packed | PAUSED, ..self }
    }

    /// Records uses, even if they were not to be recorded.
    #[must_use]
    pub fn resumed(self) -> Self {
        Self { packed: self.packed & !PAUSED, ..self }
    }

    /// Whether the frequency of use is recorded.
    #[must_use]
    pub fn by_frequency(self) -> bool {
        self.packed & BY_FREQUENCY != 0
    }

    /// What to record of a new entry.
    #[inline]
    #[must_use]
    pub fn of_new(self) -> u32 {
        if self.by_frequency() { self.of_frequency(COUNTER_AT_FIRST) } else { self.now }
    }

    /// What to record of an entry that is used and of which `before` was recorded.
    #[inline]
    #[must_use]
    pub fn of_used(self, before: u32, random: impl FnOnce() -> u64) -> u32 {
        if self.packed & (PAUSED | BY_FREQUENCY) == 0 { self.now } else { self.of_counted(before, random) }
    }

    /// What to record of an entry with this counter.
    #[must_use]
    pub fn of_frequency(self, counter: u8) -> u32 {
        (self.now << 8 | u32::from(counter)).max(1)
    }

    /// What to record of an entry that was not used for so many seconds.
    #[must_use]
    pub fn of_idle(self, seconds: u64) -> u32 {
        let seconds = (seconds % u64::from(SECONDS)) as u32;
        (self.now.wrapping_sub(seconds) % SECONDS).max(1)
    }

    #[cold]
    fn of_counted(self, before: u32, random: impl FnOnce() -> u64) -> u32 {
        if self.packed & PAUSED != 0 {
            return before;
        }
        let counter = if before == 0 { COUNTER_AT_FIRST } else { self.decayed(before) };
        let log_factor = (self.packed >> LOG_FACTOR_SHIFT) as u32 & FIELD;
        let steps = u64::from(counter.saturating_sub(COUNTER_AT_FIRST)) * u64::from(log_factor) + 1;
        // Once in so many uses.
        let raised = random().is_multiple_of(steps);
        self.of_frequency(counter.saturating_add(u8::from(raised)))
    }

    /// The counter after the time since it was recorded.
    fn decayed(self, recorded: u32) -> u8 {
        let (then, counter) = (recorded >> 8, recorded as u8);
        let elapsed = self.now.wrapping_sub(then) % MINUTES;
        let periods = elapsed.checked_div((self.packed >> DECAY_SHIFT) as u32).unwrap_or(0);
        counter.saturating_sub(u8::try_from(periods).unwrap_or(u8::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_700_000_000_000;

    #[test]
    fn uses_come_back_where_the_same_kind_is_recorded() {
        let access = Access::default();
        let idle = Usage::IdleSeconds(86_400);
        assert_eq!(access.usage(access.recorded(idle, NOW), NOW), Some(idle));
        assert_eq!(access.usage(access.recorded(idle, NOW), NOW + 5_000), Some(Usage::IdleSeconds(86_405)));
        assert_eq!(access.recorded(Usage::Frequency(7), NOW), 0);
        assert_eq!(access.usage(0, NOW), None);
        access.set(AccessSettings { by_frequency: true, ..AccessSettings::default() });
        let often = Usage::Frequency(200);
        assert_eq!(access.usage(access.recorded(often, NOW), NOW), Some(often));
        assert_eq!(access.recorded(idle, NOW), 0);
    }

    #[test]
    fn idle_time_is_counted_from_the_last_use_even_where_the_clock_has_wrapped() {
        let access = Access::default();
        access.start_at(NOW - 5_000);
        let used = access.clock(NOW).of_used(7, || 0);
        assert_eq!(access.idle_seconds(used, NOW + 90_500), 90);
        assert_eq!(access.idle_seconds(0, NOW), 5, "nothing is recorded");
        let wraps = (i64::from(SECONDS) - 3) * 1000;
        let used = access.clock(wraps).of_new();
        assert_eq!(access.idle_seconds(used, wraps + 10_000), 10);
        assert_eq!(access.idle_seconds(access.clock(NOW).of_idle(1_000), NOW), 1_000);
    }

    #[test]
    fn the_counter_rises_ever_less_likely_and_falls_with_time() {
        let access = Access::default();
        access.set(AccessSettings { by_frequency: true, log_factor: 10, decay_minutes: 2 });
        access.start_at(NOW);
        let clock = access.clock(NOW);
        let mut recorded = clock.of_new();
        assert_eq!((access.frequency(recorded, NOW), access.frequency(0, NOW + 240_000)), (5, 3));
        let mut state = 1;
        let mut random = || {
            state =
                u64::wrapping_mul(state, 6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state >> 20
        };
        for _ in 0..1_000 {
            recorded = clock.of_used(recorded, &mut random);
        }
        // Redis names 18 for a thousand uses at this factor.
        let counter = access.frequency(recorded, NOW);
        assert!((15..=22).contains(&counter), "{counter}");
        assert_eq!(access.frequency(recorded, NOW + 5 * 60_000), counter - 2);
        assert_eq!(access.frequency(recorded, NOW + 1_000 * 60_000), 0);
        access.set(AccessSettings { by_frequency: true, log_factor: 0, decay_minutes: 0 });
        for _ in 0..1_000 {
            recorded = access.clock(NOW).of_used(recorded, &mut random);
        }
        assert_eq!(access.frequency(recorded, NOW + 1_000 * 60_000), 255);
    }

    #[test]
    fn while_paused_only_new_entries_are_recorded() {
        let access = Access::default();
        let pause = access.pause();
        access.set(AccessSettings::default());
        let clock = access.clock(NOW);
        assert_eq!(clock.of_used(7, || 0), 7);
        assert_ne!(clock.of_new(), 0);
        assert_eq!(clock.resumed().of_used(7, || 0), clock.of_new());
        drop(pause);
        assert_eq!(access.clock(NOW).of_used(7, || 0), clock.of_new());
        assert_eq!((Clock::OFF.of_new(), Clock::OFF.of_used(0, || 0)), (0, 0));
    }
}
