//! Registers of six bits each, one behind the other from the lowest bit of the first byte on.

/// How many bits of a hash choose the register.
pub(super) const INDEX_BITS: u32 = 14;

/// How many registers there are.
pub(super) const REGISTERS: usize = 1 << INDEX_BITS;

/// Bits of a register.
const BITS: usize = 6;

const RANK_MAX: u8 = (1 << BITS) - 1;

/// Bytes of all registers.
pub(super) const BYTES: usize = REGISTERS * BITS / 8;

/// One register.
pub(super) fn get(registers: &[u8], index: usize) -> u8 {
    let (byte, shift) = (index * BITS / 8, index * BITS % 8);
    // Only the last register ends where the bytes do, and it needs none of a further one.
    let pair = [registers[byte], registers.get(byte + 1).copied().unwrap_or_default()];
    (u16::from_le_bytes(pair) >> shift) as u8 & RANK_MAX
}

/// Sets one register.
pub(super) fn set(registers: &mut [u8], index: usize, rank: u8) {
    let (byte, shift) = (index * BITS / 8, index * BITS % 8);
    let mask = u16::from(RANK_MAX) << shift;
    let pair = [registers[byte], registers.get(byte + 1).copied().unwrap_or_default()];
    let [low, high] = (u16::from_le_bytes(pair) & !mask | u16::from(rank) << shift).to_le_bytes();
    registers[byte] = low;
    if let Some(next) = registers.get_mut(byte + 1) {
        *next = high;
    }
}

/// Sets one register unless it is as great already; whether it was not.
pub(super) fn raise(registers: &mut [u8], index: usize, rank: u8) -> bool {
    let less = get(registers, index) < rank;
    if less {
        set(registers, index, rank);
    }
    less
}

/// All registers in order.
pub(super) fn ranks(registers: &[u8]) -> impl Iterator<Item = u8> {
    // Four of them lie in three bytes.
    registers.as_chunks::<3>().0.iter().flat_map(|[a, b, c]| {
        [a & RANK_MAX, (a >> 6 | b << 2) & RANK_MAX, (b >> 4 | c << 4) & RANK_MAX, c >> 2]
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::next_random;

    #[test]
    fn registers_do_not_disturb_each_other() {
        let (mut registers, mut model, mut state) = (vec![0; BYTES], vec![0; REGISTERS], 8);
        for _ in 0..100_000 {
            let random = next_random(&mut state);
            let (index, rank) = (random as usize % REGISTERS, (random >> 40) as u8 & RANK_MAX);
            set(&mut registers, index, rank);
            model[index] = rank;
        }
        set(&mut registers, REGISTERS - 1, RANK_MAX);
        model[REGISTERS - 1] = RANK_MAX;
        assert!(ranks(&registers).eq(model.iter().copied()));
        assert!((0..REGISTERS).all(|index| get(&registers, index) == model[index]));
        assert!(!raise(&mut registers, REGISTERS - 1, RANK_MAX));
    }
}
