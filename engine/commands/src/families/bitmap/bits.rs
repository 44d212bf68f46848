//! Counting and finding bits, eight bytes at a time.

use std::ops::Range;

/// The whole bytes of a range of bits, and what of its first and last byte does not belong to it.
fn edges(range: &Range<usize>) -> (Range<usize>, u8, u8) {
    let bytes = range.start / 8..range.end.div_ceil(8);
    let before = !(0xff_u8 >> (range.start % 8));
    let behind = match range.end % 8 {
        0 => 0,
        used => 0xff >> used,
    };
    (bytes, before, behind)
}

/// How many bits of a range, which lies within the bitmap, are set.
pub(super) fn count_ones(bitmap: &[u8], range: Range<usize>) -> u64 {
    let (bytes, before, behind) = edges(&range);
    let [first, .., last] = &bitmap[bytes.clone()] else {
        return bitmap[bytes].first().map_or(0, |byte| u64::from((byte & !before & !behind).count_ones()));
    };
    let outside = (first & before).count_ones() + (last & behind).count_ones();
    let (words, rest) = bitmap[bytes].as_chunks::<8>();
    let in_words: u64 = words.iter().map(|word| u64::from(u64::from_ne_bytes(*word).count_ones())).sum();
    let in_rest: u64 = rest.iter().map(|byte| u64::from(byte.count_ones())).sum();
    in_words + in_rest - u64::from(outside)
}

/// The first bit of a range, which lies within the bitmap, that is set (or not, where `bit` is false).
pub(super) fn find(bitmap: &[u8], range: Range<usize>, bit: bool) -> Option<usize> {
    if range.is_empty() {
        return None;
    }
    let (bytes, before, behind) = edges(&range);
    let (last, flip) = (bytes.end - 1, if bit { 0 } else { 0xff });
    // Looked for is always a set bit; what lies outside the range is cleared.
    let edge = |at: usize| {
        let mut byte = bitmap[at] ^ flip;
        byte &= if at == bytes.start { !before } else { 0xff };
        byte & if at == last { !behind } else { 0xff }
    };
    let found = |at: usize, byte: u8| at * 8 + byte.leading_zeros() as usize;
    match edge(bytes.start) {
        0 if bytes.len() == 1 => return None,
        0 => {}
        byte => return Some(found(bytes.start, byte)),
    }
    let inner = bytes.start + 1..last;
    let (words, _) = bitmap[inner.clone()].as_chunks::<8>();
    let skipped = words.iter().take_while(|word| **word == [flip; 8]).count() * 8;
    let byte_at = bitmap[inner.start + skipped..inner.end].iter().position(|byte| *byte != flip);
    match byte_at.map(|at| inner.start + skipped + at) {
        Some(at) => Some(found(at, bitmap[at] ^ flip)),
        None => Some(edge(last)).filter(|byte| *byte != 0).map(|byte| found(last, byte)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::next_random;

    #[test]
    fn counts_and_finds_as_one_would_bit_by_bit() {
        let mut state = 1;
        for round in 0..3_000 {
            let mut below = |bound: usize| (next_random(&mut state) % bound as u64) as usize;
            let filled = [0, 0xff, 0x5a][round % 3];
            let mut bitmap = vec![filled; below(40) + 1];
            for _ in 0..below(4) {
                let at = below(bitmap.len());
                bitmap[at] = below(256) as u8;
            }
            let bits = bitmap.len() * 8;
            let start = below(bits);
            let end = start + below(bits - start + 1);
            let is_set = |at: &usize| bitmap[at / 8] & (0x80 >> (at % 8)) != 0;
            assert_eq!(count_ones(&bitmap, start..end), (start..end).filter(is_set).count() as u64);
            for bit in [false, true] {
                assert_eq!(find(&bitmap, start..end, bit), (start..end).find(|at| is_set(at) == bit));
            }
        }
        assert_eq!(count_ones(&[], 0..0), 0);
    }
}
