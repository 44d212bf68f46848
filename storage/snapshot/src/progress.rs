//! How far a snapshot has come, and what came of it.

use std::sync::atomic::{AtomicU64, Ordering};

/// How far a snapshot has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Entries in blocks that are written (or read).
    pub entries: u64,
    /// Their length before compression.
    pub raw_bytes: u64,
    /// The length of the blocks in the file.
    pub stored_bytes: u64,
    /// Whatever else was done, in steps: syncs, blocks read back. Who waits sees in it that the work goes on.
    pub steps: u64,
}

impl Progress {
    pub(crate) fn encode(&self) -> [u8; 32] {
        join([self.entries, self.raw_bytes, self.stored_bytes, self.steps])
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Progress> {
        let [entries, raw_bytes, stored_bytes, steps] = split(bytes)?;
        Some(Progress { entries, raw_bytes, stored_bytes, steps })
    }
}

/// A container that is whole and bears its name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// The length of the file.
    pub bytes: u64,
    /// How many entries it holds.
    pub entries: u64,
    /// Their length before compression.
    pub raw_bytes: u64,
    /// How many blocks they are in.
    pub blocks: u64,
}

impl Summary {
    /// The summary as bytes, to cross a pipe.
    pub fn encode(&self) -> [u8; 32] {
        join([self.bytes, self.entries, self.raw_bytes, self.blocks])
    }

    /// Reads what [`Summary::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Option<Summary> {
        let [bytes, entries, raw_bytes, blocks] = split(bytes)?;
        Some(Summary { bytes, entries, raw_bytes, blocks })
    }
}

/// Progress that several threads add to.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    entries: AtomicU64,
    raw_bytes: AtomicU64,
    stored_bytes: AtomicU64,
    steps: AtomicU64,
}

impl Counters {
    pub(crate) fn add(&self, entries: u64, raw_bytes: u64, stored_bytes: u64) {
        self.entries.fetch_add(entries, Ordering::Relaxed);
        self.raw_bytes.fetch_add(raw_bytes, Ordering::Relaxed);
        self.stored_bytes.fetch_add(stored_bytes, Ordering::Relaxed);
    }

    /// Notes that something was done that the other figures do not show.
    pub(crate) fn step(&self) {
        self.steps.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> Progress {
        Progress {
            entries: self.entries.load(Ordering::Relaxed),
            raw_bytes: self.raw_bytes.load(Ordering::Relaxed),
            stored_bytes: self.stored_bytes.load(Ordering::Relaxed),
            steps: self.steps.load(Ordering::Relaxed),
        }
    }
}

fn join<const NUMBERS: usize, const BYTES: usize>(numbers: [u64; NUMBERS]) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    for (place, number) in bytes.chunks_exact_mut(8).zip(numbers) {
        place.copy_from_slice(&number.to_le_bytes());
    }
    bytes
}

fn split<const NUMBERS: usize>(bytes: &[u8]) -> Option<[u64; NUMBERS]> {
    let (chunks, rest) = bytes.as_chunks::<8>();
    let numbers: Vec<u64> = chunks.iter().map(|chunk| u64::from_le_bytes(*chunk)).collect();
    if rest.is_empty() { numbers.try_into().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_cross_a_pipe() {
        let progress = Progress { entries: 1, raw_bytes: 2, stored_bytes: 3, steps: 4 };
        assert_eq!(Progress::decode(&progress.encode()), Some(progress));
        let summary = Summary { bytes: 4, entries: 5, raw_bytes: 6, blocks: 7 };
        assert_eq!(Summary::decode(&summary.encode()), Some(summary));
        assert_eq!(Summary::decode(&summary.encode()[1..]), None);
        assert_eq!(Progress::decode(&summary.encode()[1..]), None);
    }
}
