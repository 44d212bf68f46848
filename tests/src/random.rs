//! A small seeded generator (SplitMix64, Steele et al. 2014), so that a failure can be replayed from one number.

use std::time::{SystemTime, UNIX_EPOCH};

/// A seeded source of numbers; equal seeds give equal sequences on every machine.
#[derive(Clone, Debug)]
pub struct Random(u64);

/// The seed of this run: `CAIRN_SEED` when set, else drawn from the clock. It is printed, so a failing run names it.
pub fn seed(test: &str) -> u64 {
    let seed = match std::env::var("CAIRN_SEED") {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("CAIRN_SEED must be a number, not {text:?}")),
        Err(_) => {
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_nanos() as u64 >> 8)
        }
    };
    println!("{test}: CAIRN_SEED={seed}");
    seed
}

impl Random {
    /// A generator that starts from `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `0..end`; `end` must not be zero.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next_u64() % end as u64) as usize
    }

    /// A number in `low..=high`.
    pub fn between(&mut self, low: i64, high: i64) -> i64 {
        low + (self.next_u64() % (high - low + 1) as u64) as i64
    }

    /// True once in `times` calls on average.
    pub fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// One of `choices`.
    pub fn pick<'a, T: ?Sized>(&mut self, choices: &[&'a T]) -> &'a T {
        choices[self.below(choices.len())]
    }

    /// `length` random bytes.
    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length + 8);
        while bytes.len() < length {
            bytes.extend_from_slice(&self.next_u64().to_le_bytes());
        }
        bytes.truncate(length);
        bytes
    }

    /// `length` random letters and digits: bytes that no log or report would escape.
    pub fn word(&mut self, length: usize) -> Vec<u8> {
        const LETTERS: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
        (0..length).map(|_| LETTERS[self.below(LETTERS.len())]).collect()
    }

    /// `length` random lower-case hexadecimal digits.
    pub fn hex(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| b"0123456789abcdef"[self.below(16)]).collect()
    }
}
