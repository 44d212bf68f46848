//! When the keys of one table expire, the next one first.
//!
//! A place in the index is eight bytes: the moment and, below it, the lowest bits of the key's hash. Keys that agree in both
//! share a place; the table tells whether one of them is left. Places lie in sorted chunks, so that a key costs 8 bytes
//! where expiries are set in the order they come (the same time to live for all) and 12 where they are not.

use std::collections::BTreeMap;

/// How many bits of a key's hash a place holds.
pub(crate) const HASH_BITS: u32 = 19;

/// The latest moment that a place can hold, in ms: in the year 3084. Later ones are taken for it.
const MOMENT_MAX: i64 = (1 << (u64::BITS - HASH_BITS)) - 1;

/// With its length, 512 bytes: a size that allocators do not round up.
const CHUNK: usize = 63;

/// A moment and a part of a key's hash.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Place(u64);

impl Place {
    pub(crate) fn new(at_ms: i64, hash: u64) -> Self {
        let moment = at_ms.clamp(0, MOMENT_MAX) as u64;
        Self(moment << HASH_BITS | hash & ((1 << HASH_BITS) - 1))
    }

    pub(crate) fn hash_bits(self) -> u64 {
        self.0 & ((1 << HASH_BITS) - 1)
    }

    /// Whether a key with this expiry is one of this place, if the bits of its hash agree.
    pub(crate) fn is_at(self, at_ms: i64) -> bool {
        self.0 >> HASH_BITS == at_ms.clamp(0, MOMENT_MAX) as u64
    }

    /// Whether its moment is past.
    pub(crate) fn is_past(self, now_ms: i64) -> bool {
        (self.0 >> HASH_BITS) as i64 <= now_ms
    }
}

/// A set of places.
#[derive(Default)]
pub(crate) struct Expiries {
    /// By the lowest place that may lie in each; the first chunk's is 0, and only that one may be empty.
    chunks: BTreeMap<u64, Box<Chunk>>,
}

struct Chunk {
    len: usize,
    /// Ascending, as far as `len`.
    places: [u64; CHUNK],
}

impl Expiries {
    pub(crate) fn insert(&mut self, place: Place) {
        if self.chunks.is_empty() {
            self.chunks.insert(0, Box::default());
        }
        let (_, chunk) = self.chunks.range_mut(..=place.0).next_back().expect("a chunk begins at 0");
        let Err(at) = chunk.filled().binary_search(&place.0) else { return };
        if chunk.len < CHUNK {
            chunk.insert(at, place.0);
            return;
        }
        // Behind the end of a full chunk begins a new one, so that places that come in order fill theirs.
        let keep = if at == CHUNK { CHUNK } else { CHUNK / 2 };
        let mut upper = chunk.split_off(keep);
        let bound = chunk.places[keep - 1] + 1;
        if at < keep {
            chunk.insert(at, place.0);
        } else {
            upper.insert(at - keep, place.0);
        }
        self.chunks.insert(bound, upper);
    }

    pub(crate) fn remove(&mut self, place: Place) {
        let Some((&bound, chunk)) = self.chunks.range_mut(..=place.0).next_back() else { return };
        let Ok(at) = chunk.filled().binary_search(&place.0) else { return };
        chunk.remove(at);
        let len = chunk.len;
        if len <= CHUNK / 4 {
            self.join(bound, len);
        }
    }

    /// Puts a chunk that is nearly empty to the one before it, if there is room.
    fn join(&mut self, bound: u64, len: usize) {
        let Some((_, before)) = self.chunks.range_mut(..bound).next_back() else { return };
        if before.len + len > CHUNK * 3 / 4 && len > 0 {
            return;
        }
        let start = before.len;
        if let Some(chunk) = self.chunks.remove(&bound)
            && let Some((_, before)) = self.chunks.range_mut(..bound).next_back()
        {
            before.places[start..start + len].copy_from_slice(chunk.filled());
            before.len += len;
        }
    }

    /// The bytes of its chunks.
    pub(crate) fn bytes(&self) -> usize {
        self.chunks.len() * (size_of::<Chunk>() + size_of::<(u64, Box<Chunk>)>())
    }

    /// The places from the earliest on.
    fn iter(&self) -> impl Iterator<Item = Place> {
        self.chunks.values().flat_map(|chunk| chunk.filled()).map(|place| Place(*place))
    }

    /// A place chosen by `random`; not quite evenly, as a chunk is chosen first.
    pub(crate) fn sample(&self, mut random: impl FnMut() -> u64) -> Option<Place> {
        // The first chunk alone may be empty, and then the next will do.
        let chosen = (random() % self.chunks.len().max(1) as u64) as usize;
        let chunk =
            self.chunks.values().skip(chosen).chain(self.chunks.values()).find(|chunk| chunk.len > 0)?;
        Some(Place(chunk.places[(random() % chunk.len as u64) as usize]))
    }

    /// The earliest place.
    pub(crate) fn first(&self) -> Option<Place> {
        self.iter().next()
    }
}

impl Default for Chunk {
    fn default() -> Self {
        Self { len: 0, places: [0; CHUNK] }
    }
}

impl Chunk {
    fn filled(&self) -> &[u64] {
        &self.places[..self.len]
    }

    fn insert(&mut self, at: usize, place: u64) {
        self.places.copy_within(at..self.len, at + 1);
        self.places[at] = place;
        self.len += 1;
    }

    fn remove(&mut self, at: usize) {
        self.places.copy_within(at + 1..self.len, at);
        self.len -= 1;
    }

    fn split_off(&mut self, at: usize) -> Box<Self> {
        let mut upper = Box::<Self>::default();
        upper.len = self.len - at;
        upper.places[..upper.len].copy_from_slice(&self.places[at..self.len]);
        self.len = at;
        upper
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn holds_what_a_set_would_in_whatever_order_it_comes_and_goes() {
        for pattern in ["random", "ascending", "descending"] {
            let (mut expiries, mut model, mut state) = (Expiries::default(), BTreeSet::new(), 3u64);
            for step in 0..60_000u64 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let moment = match pattern {
                    "random" => (state >> 40) % 9_000,
                    "ascending" => step,
                    _ => 60_000 - step,
                };
                let place = Place::new(moment as i64, (state >> 33) % 3);
                // First more come than go, then more go than come.
                if (state >> 20) % 10 < if step < 30_000 { 7 } else { 3 } {
                    expiries.insert(place);
                    model.insert(place);
                } else if let Some(gone) = model.range(place..).next().or(model.first()).copied() {
                    expiries.remove(gone);
                    model.remove(&gone);
                }
                assert_eq!(expiries.first(), model.first().copied());
                if step % 5_000 == 0 {
                    assert!(expiries.iter().eq(model.iter().copied()));
                }
            }
            assert!(expiries.iter().eq(model.iter().copied()));
            assert!(expiries.chunks.len() <= model.len() * 5 / CHUNK + 2, "{pattern}: chunks stay filled");
            for place in model {
                expiries.remove(place);
            }
            assert!(expiries.first().is_none() && expiries.chunks.len() == 1);
        }
    }

    #[test]
    fn moments_out_of_range_are_held_at_its_ends() {
        for at in [i64::MIN, -1, 0] {
            let place = Place::new(at, 5);
            assert!(place.is_at(at) && place.is_past(0) && place.hash_bits() == 5);
        }
        assert!(Place::new(i64::MAX, 0).is_at(i64::MAX) && !Place::new(i64::MAX, 0).is_past(1 << 44));
    }
}
