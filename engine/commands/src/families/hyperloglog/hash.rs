//! From an element to its register: MurmurHash64A with Redis's seed.

use super::dense::{INDEX_BITS, REGISTERS};

const SEED: u64 = 0xadc8_3b19;
const MULTIPLIER: u64 = 0xc6a4_a793_5bd1_e995;
const SHIFT: u32 = 47;

fn murmur_hash_64a(bytes: &[u8]) -> u64 {
    let mut hash = SEED ^ (bytes.len() as u64).wrapping_mul(MULTIPLIER);
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        let mut word = u64::from_le_bytes(*word).wrapping_mul(MULTIPLIER);
        word ^= word >> SHIFT;
        hash = (hash ^ word.wrapping_mul(MULTIPLIER)).wrapping_mul(MULTIPLIER);
    }
    if !rest.is_empty() {
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        hash = (hash ^ u64::from_le_bytes(last)).wrapping_mul(MULTIPLIER);
    }
    hash ^= hash >> SHIFT;
    hash = hash.wrapping_mul(MULTIPLIER);
    hash ^ hash >> SHIFT
}

/// The register that an element counts in, and its rank there: one more than the zeros that the rest of its hash ends in.
pub(super) fn place_of(element: &[u8]) -> (usize, u8) {
    let hash = murmur_hash_64a(element);
    let register = hash as usize % REGISTERS;
    let rest = hash >> INDEX_BITS | 1 << (u64::BITS - INDEX_BITS);
    (register, rest.trailing_zeros() as u8 + 1)
}
