//! Chance that is the same for the same seed on every machine, and for the same thing whatever was drawn before: one
//! sector more in one file changes nothing of what becomes of the others.

/// A place in a tree of draws.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chance(pub(super) u64);

impl Chance {
    /// The draws for the `number`th thing below this one.
    pub(super) fn of(self, number: u64) -> Chance {
        Chance(mix(self.0 ^ mix(number)))
    }

    /// A number below `bound`; 0 for none.
    pub(super) fn below(self, bound: usize) -> usize {
        usize::try_from(mix(self.0) % bound.max(1) as u64).unwrap_or(0)
    }
}

/// The step of SplitMix64.
fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
