//! Intsets: sorted integers in one allocation, in exactly the bytes Redis keeps and writes.
//!
//! Layout: bytes per integer (u32 LE: 2, 4 or 8), count (u32 LE), the integers ascending, little-endian.

use crate::error::RdbError;

const HEADER: usize = 8;

/// A sorted set of integers.
#[derive(Clone, PartialEq, Eq)]
pub struct Intset {
    bytes: Vec<u8>,
}

impl Default for Intset {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Intset {
    /// Shows sizes only: elements are a user's data and belong in no log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Intset").field("len", &self.len()).field("width", &self.width()).finish()
    }
}

fn width_of(value: i64) -> usize {
    if i16::try_from(value).is_ok() {
        2
    } else if i32::try_from(value).is_ok() {
        4
    } else {
        8
    }
}

impl Intset {
    /// An empty one.
    pub fn new() -> Self {
        Self { bytes: vec![2, 0, 0, 0, 0, 0, 0, 0] }
    }

    /// Adopts bytes from outside after checking their shape and order.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, RdbError> {
        let malformed = |reason| Err(RdbError::malformed(0, "intset", reason));
        let Some(([a, b, c, d, e, f, g, h], rest)) = bytes.split_first_chunk::<HEADER>() else {
            return malformed("shorter than its header");
        };
        let width = u32::from_le_bytes([*a, *b, *c, *d]);
        let count = u32::from_le_bytes([*e, *f, *g, *h]);
        if !matches!(width, 2 | 4 | 8) {
            return malformed("integers of an unknown width");
        }
        if u64::from(width) * u64::from(count) != rest.len() as u64 {
            return malformed("its count is not that of the bytes");
        }
        let set = Self { bytes };
        let mut values = set.iter();
        let Some(mut last) = values.next() else { return malformed("no integers") };
        for value in values {
            if value <= last {
                return malformed("integers out of order");
            }
            last = value;
        }
        Ok(set)
    }

    /// The bytes, as they stand in a snapshot.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many bytes are allocated.
    pub fn heap_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    /// How many integers there are.
    #[inline]
    pub fn len(&self) -> usize {
        match self.bytes.first_chunk::<HEADER>() {
            Some([_, _, _, _, e, f, g, h]) => u32::from_le_bytes([*e, *f, *g, *h]) as usize,
            None => 0,
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.bytes.len() == HEADER
    }

    /// The integer at `index` in ascending order.
    #[inline]
    pub fn get(&self, index: usize) -> Option<i64> {
        let width = self.width();
        let start = HEADER.checked_add(index.checked_mul(width)?)?;
        read(self.bytes.get(start..start.checked_add(width)?)?)
    }

    /// The integers, ascending.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = i64> + ExactSizeIterator + Clone + '_ {
        let integers = self.bytes.get(HEADER..).unwrap_or_default().chunks_exact(self.width());
        integers.map(|integer| read(integer).unwrap_or_default())
    }

    /// Whether `value` is there. O(log n).
    #[inline]
    pub fn contains(&self, value: i64) -> bool {
        width_of(value) <= self.width() && self.search(value).is_ok()
    }

    /// Adds `value`; false when it was there.
    pub fn insert(&mut self, value: i64) -> bool {
        if width_of(value) > self.width() {
            self.widen(width_of(value));
        }
        let Err(index) = self.search(value) else { return false };
        let width = self.width();
        let at = HEADER + index * width;
        let total = self.bytes.len();
        if total + width > self.bytes.capacity() {
            // A quarter more, and never less than one integer: sets of integers are many and small.
            self.bytes.reserve_exact((total / 4).max(width).next_multiple_of(8));
        }
        self.bytes.resize(total + width, 0);
        self.bytes.copy_within(at..total, at + width);
        if let Some(room) = self.bytes.get_mut(at..at + width) {
            for (slot, byte) in room.iter_mut().zip(value.to_le_bytes()) {
                *slot = byte;
            }
        }
        self.write_count();
        true
    }

    /// Removes `value`; false when it was not there.
    pub fn remove(&mut self, value: i64) -> bool {
        if width_of(value) > self.width() {
            return false;
        }
        let Ok(index) = self.search(value) else { return false };
        let at = HEADER + index * self.width();
        self.bytes.drain(at..at + self.width());
        self.write_count();
        true
    }

    #[inline]
    fn width(&self) -> usize {
        self.bytes.first().copied().map_or(2, usize::from)
    }

    fn search(&self, value: i64) -> Result<usize, usize> {
        let (mut low, mut high) = (0, self.len());
        // Appending in order is the common way to fill a set.
        if high > 0 && self.get(high - 1).is_some_and(|last| last < value) {
            return Err(high);
        }
        while low < high {
            let middle = low.midpoint(high);
            match self.get(middle).unwrap_or_default().cmp(&value) {
                std::cmp::Ordering::Equal => return Ok(middle),
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        Err(low)
    }

    fn widen(&mut self, width: usize) {
        let mut bytes = Vec::with_capacity(HEADER + (self.len() + 1) * width);
        bytes.extend_from_slice(self.bytes.get(..HEADER).unwrap_or_default());
        for value in self.iter() {
            bytes.extend(value.to_le_bytes().into_iter().take(width));
        }
        if let Some(first) = bytes.first_mut() {
            *first = if width == 4 { 4 } else { 8 };
        }
        self.bytes = bytes;
    }

    #[allow(clippy::cast_possible_truncation, reason = "converted to a table long before 2^32 integers")]
    fn write_count(&mut self) {
        let count = ((self.bytes.len() - HEADER) / self.width()) as u32;
        if let Some([_, _, _, _, e, f, g, h]) = self.bytes.first_chunk_mut::<HEADER>() {
            [*e, *f, *g, *h] = count.to_le_bytes();
        }
    }
}

#[inline]
fn read(integer: &[u8]) -> Option<i64> {
    match integer.len() {
        2 => Some(i64::from(i16::from_le_bytes(*integer.first_chunk()?))),
        4 => Some(i64::from(i32::from_le_bytes(*integer.first_chunk()?))),
        _ => Some(i64::from_le_bytes(*integer.first_chunk()?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn keeps_redis_bytes() {
        let mut set = Intset::new();
        for value in [3, 1, 2] {
            assert!(set.insert(value));
        }
        assert!(!set.insert(2));
        assert_eq!(set.as_bytes(), [2, 0, 0, 0, 3, 0, 0, 0, 1, 0, 2, 0, 3, 0]);
        set.insert(70_000);
        assert_eq!(set.as_bytes().len(), 8 + 16);
        set.insert(i64::MIN);
        assert_eq!(set.iter().collect::<Vec<_>>(), [i64::MIN, 1, 2, 3, 70_000]);
        assert_eq!(Intset::from_bytes(set.as_bytes().to_vec()).expect("own bytes"), set);
    }

    #[test]
    fn refuses_damage() {
        for bytes in [
            &[][..],
            &[2, 0, 0, 0, 0, 0, 0, 0],
            &[3, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0],
            &[2, 0, 0, 0, 2, 0, 0, 0, 1, 0],
            &[2, 0, 0, 0, 2, 0, 0, 0, 2, 0, 1, 0],
            &[2, 0, 0, 0, 2, 0, 0, 0, 1, 0, 1, 0],
            &[8, 0, 0, 0, 255, 255, 255, 255, 1, 0],
        ] {
            assert!(Intset::from_bytes(bytes.to_vec()).is_err(), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn behaves_as_a_sorted_set(steps in prop::collection::vec((any::<bool>(), prop_oneof![-20i64..20, any::<i64>(), -40_000i64..40_000]), 0..200)) {
            let mut set = Intset::new();
            let mut model = BTreeSet::new();
            for (add, value) in steps {
                if add {
                    prop_assert_eq!(set.insert(value), model.insert(value));
                } else {
                    prop_assert_eq!(set.remove(value), model.remove(&value));
                }
                prop_assert_eq!(set.contains(value), model.contains(&value));
            }
            prop_assert_eq!(set.len(), model.len());
            prop_assert!(set.iter().eq(model.iter().copied()));
        }
    }
}
