//! How many elements a sketch has seen: Otmar Ertl, "New cardinality estimation algorithms for HyperLogLog sketches",
//! <https://arxiv.org/abs/1702.01284>, in the order of operations that Redis uses, so that the counts are equal.

use super::dense::{self, INDEX_BITS, REGISTERS};
use super::sketch::{HEADER, is_dense};
use super::sparse::{self, Corrupted};

/// The greatest rank an element has but for the one whose hash is all zeros there.
const RANK_MAX: usize = (u64::BITS - INDEX_BITS) as usize;

/// Half of the reciprocal of the natural logarithm of 2.
const ALPHA: f64 = 0.721_347_520_444_481_7;

/// How many registers there are of each rank.
pub(super) struct Histogram([u32; 64]);

impl Default for Histogram {
    fn default() -> Self {
        Self([0; 64])
    }
}

impl Histogram {
    /// That of a valid sketch.
    pub(super) fn of(value: &[u8]) -> Result<Self, Corrupted> {
        let (mut histogram, registers) = (Self::default(), value.get(HEADER..).unwrap_or_default());
        if is_dense(value) {
            dense::ranks(registers).for_each(|rank| histogram.add(rank, 1));
            return Ok(histogram);
        }
        let mut total = 0;
        for run in sparse::runs(registers) {
            histogram.add(run.rank, run.registers as u32);
            total += run.registers;
        }
        if total == REGISTERS { Ok(histogram) } else { Err(Corrupted) }
    }

    pub(super) fn add(&mut self, rank: u8, registers: u32) {
        if let Some(count) = self.0.get_mut(usize::from(rank)) {
            *count = count.saturating_add(registers);
        }
    }

    /// The number of distinct elements, nearly.
    pub(super) fn estimate(&self) -> u64 {
        let registers = REGISTERS as f64;
        let of_rank = |rank: usize| f64::from(self.0[rank]);
        let mut z = registers * tau((registers - of_rank(RANK_MAX + 1)) / registers);
        for rank in (1..=RANK_MAX).rev() {
            z += of_rank(rank);
            z *= 0.5;
        }
        z += registers * sigma(of_rank(0) / registers);
        (ALPHA * registers * registers / z).round() as u64
    }
}

fn sigma(mut x: f64) -> f64 {
    if x == 1.0 {
        return f64::INFINITY;
    }
    let (mut y, mut z) = (1.0, x);
    loop {
        x *= x;
        let before = z;
        z += x * y;
        y += y;
        if z == before {
            return z;
        }
    }
}

fn tau(mut x: f64) -> f64 {
    if x == 0.0 || x == 1.0 {
        return 0.0;
    }
    let (mut y, mut z) = (1.0, 1.0 - x);
    loop {
        x = x.sqrt();
        let before = z;
        y *= 0.5;
        z -= (1.0 - x) * (1.0 - x) * y;
        if z == before {
            return z / 3.0;
        }
    }
}
