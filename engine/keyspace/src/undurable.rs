//! What of a shard is not durable yet.

use std::collections::VecDeque;
use std::hash::{BuildHasherDefault, Hasher};

use hashbrown::HashMap;

/// Key hashes with the journal position at which each becomes durable.
///
/// With `appendfsync always` nobody may learn of a value that a power cut could still take away, so a reply waits for
/// the positions of the keys it looked at.
///
/// The positions are kept in generations. One goes as a whole once all of it is durable, so none is ever searched for what
/// may go; and none grows past a bound, so that even when all keys fall into one shard no command pays for moving many.
#[derive(Default)]
pub struct Undurable {
    newest: u64,
    /// Of the last change of the whole shard, which concerns keys that are no longer there to be named.
    whole: u64,
    recent: Generation,
    /// The oldest first.
    older: VecDeque<Generation>,
}

#[derive(Default)]
struct Generation {
    newest: u64,
    positions: HashMap<u64, u64, BuildHasherDefault<AsIs>>,
}

/// Key hashes need no hashing.
#[derive(Default)]
struct AsIs(u64);

impl Hasher for AsIs {
    #[inline]
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only key hashes are looked up here");
    }

    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }
}

/// From this size on a generation gives way to the next once the one before it is durable.
const GENERATION_MIN: usize = 64;
/// At this size it gives way in any case: a map of this many positions grows in some hundredths of a millisecond.
const GENERATION_MAX: usize = 4_096;

impl Undurable {
    /// Notes that `hash` changed and is durable once the journal is up to `position`.
    #[inline]
    pub fn mark(&mut self, hash: u64, position: u64, durable: u64) {
        if self.newest <= durable {
            self.older.clear();
            self.recent.empty();
        } else if self.recent.positions.len() >= GENERATION_MIN {
            self.turn(durable);
        }
        self.newest = position;
        self.recent.newest = position;
        self.recent.positions.insert(hash, position);
    }

    /// Lets go what is durable, and begins a generation when it is time to.
    fn turn(&mut self, durable: u64) {
        let mut spare = None;
        while self.older.front().is_some_and(|generation| generation.newest <= durable) {
            spare = self.older.pop_front();
        }
        if self.older.is_empty() || self.recent.positions.len() >= GENERATION_MAX {
            let mut next = spare.unwrap_or_default();
            next.empty();
            self.older.push_back(std::mem::replace(&mut self.recent, next));
        }
    }

    /// Notes a change of the whole shard.
    pub fn mark_all(&mut self, position: u64) {
        self.newest = position;
        self.whole = position;
    }

    /// The position a reply about `hash` has to wait for; 0 when it need not wait.
    #[inline]
    #[must_use]
    pub fn position_of(&self, hash: u64, durable: u64) -> u64 {
        if self.newest <= durable {
            return 0;
        }
        let newest_first = std::iter::once(&self.recent).chain(self.older.iter().rev());
        let position = newest_first
            .take_while(|generation| generation.newest > durable)
            .find_map(|generation| generation.positions.get(&hash).copied());
        let position = position.unwrap_or(0).max(self.whole);
        if position > durable { position } else { 0 }
    }
}

impl Generation {
    fn empty(&mut self) {
        if self.positions.capacity() > 4 * GENERATION_MIN {
            self.positions = HashMap::default();
        } else {
            self.positions.clear();
        }
        self.newest = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_waits_for_its_own_last_change_and_for_nothing_else() {
        for (keys, behind) in [(10, 3), (1_000, 100), (1_000, 5_000), (100_000, 60_000)] {
            let (mut undurable, mut model) = (Undurable::default(), std::collections::HashMap::new());
            let (mut state, mut durable, mut whole) = (1u64, 0, 0);
            for position in 1..200_000u64 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let hash = (state >> 33) % keys;
                // Syncs come in groups, and now and then all is durable.
                if position % (behind / 2 + 1) == 0 {
                    durable = durable.max(position.saturating_sub(behind));
                }
                if position % 50_000 == 0 {
                    durable = position - 1;
                }
                if position % 30_011 == 0 {
                    undurable.mark_all(position);
                    whole = position;
                } else {
                    undurable.mark(hash, position, durable);
                    model.insert(hash, position);
                }
                let asked = (state >> 13) % keys;
                let expected = model.get(&asked).copied().unwrap_or(0).max(whole);
                let expected = if expected > durable { expected } else { 0 };
                assert_eq!(undurable.position_of(asked, durable), expected);
            }
            assert!(undurable.recent.positions.len() <= GENERATION_MAX);
            let held: usize = undurable.older.iter().map(|generation| generation.positions.len()).sum();
            assert!(held <= (2 * behind as usize).max(GENERATION_MAX), "{held} positions are held");
        }
    }
}
