//! What a file holds: what programs see, what would survive a power cut, and what is on its way from the one to the other.

use super::chance::Chance;
use super::{SECTOR, Survival};

/// One file, which may have a name or not.
#[derive(Clone, Default)]
pub(super) struct Contents {
    /// What programs read.
    pub(super) seen: Vec<u8>,
    /// What was synced.
    durable: Vec<u8>,
    /// The changes since, in order.
    pending: Vec<Change>,
}

#[derive(Clone)]
pub(super) enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Length(usize),
}

impl Contents {
    /// A file of these bytes, synced.
    pub(super) fn of(bytes: Vec<u8>) -> Contents {
        Contents { seen: bytes.clone(), durable: bytes, pending: Vec::new() }
    }

    pub(super) fn change(&mut self, change: Change) {
        change.apply(&mut self.seen);
        self.pending.push(change);
    }

    /// All that was changed is durable.
    pub(super) fn sync(&mut self) {
        for change in self.pending.drain(..) {
            change.apply(&mut self.durable);
        }
    }

    /// A sync that failed: Linux marks the pages clean all the same, so no later one saves them. Which of their sectors
    /// got through is a matter of chance; without any none did.
    pub(super) fn fail_sync(&mut self, chance: Option<Chance>) {
        for (number, change) in self.pending.drain(..).enumerate() {
            if let Some(chance) = chance {
                change.apply_sectors(&mut self.durable, chance.of(number as u64));
            }
        }
    }

    /// The bytes that are there after a crash.
    pub(super) fn after_crash(&self, survival: Survival, chance: Chance) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        match survival {
            Survival::Nothing => {}
            // A write that a failed sync gave up is still seen after SIGKILL.
            Survival::Everything => bytes.clone_from(&self.seen),
            Survival::Sectors(_) | Survival::Torn(_) => {
                for (number, change) in self.pending.iter().enumerate() {
                    change.apply_sectors(&mut bytes, chance.of(number as u64));
                }
            }
        }
        bytes
    }

    /// Tears a sector of the last write that is on its way; false when none is.
    pub(super) fn tear(&self, bytes: &mut Vec<u8>, chance: Chance) -> bool {
        let writes = self.pending.iter().rev().filter_map(|change| match change {
            Change::Write { offset, bytes } if !bytes.is_empty() => Some((*offset, bytes)),
            _ => None,
        });
        let Some((offset, written)) = writes.take(1).next() else { return false };
        let at = chance.of(0).below(written.len());
        let sector_end = (offset + at) / SECTOR * SECTOR + SECTOR - offset;
        let (at, sector_end) = (at.min(written.len()), sector_end.min(written.len()));
        let sector_start = ((offset + at) / SECTOR * SECTOR).max(offset) - offset;
        // Either part may be the new one.
        let new = if chance.of(1).below(2) == 0 { sector_start..at } else { at..sector_end };
        overwrite(bytes, offset + new.start, &written[new]);
        true
    }
}

impl Change {
    fn apply(&self, contents: &mut Vec<u8>) {
        match self {
            Change::Write { offset, bytes } => overwrite(contents, *offset, bytes),
            Change::Length(len) => contents.resize(*len, 0),
        }
    }

    /// Applies it as far as it got: each sector by chance.
    fn apply_sectors(&self, contents: &mut Vec<u8>, chance: Chance) {
        match self {
            Change::Length(_) => {
                if chance.below(2) == 0 {
                    self.apply(contents);
                }
            }
            Change::Write { offset, bytes } => {
                let mut at = 0;
                while at < bytes.len() {
                    let start = offset + at;
                    let end = (start / SECTOR + 1) * SECTOR;
                    let count = (end - start).min(bytes.len() - at);
                    if chance.of((start / SECTOR) as u64).below(2) == 0 {
                        overwrite(contents, start, &bytes[at..at + count]);
                    }
                    at += count;
                }
            }
        }
    }
}

fn overwrite(contents: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if contents.len() < end {
        contents.resize(end, 0);
    }
    contents[offset..end].copy_from_slice(bytes);
}
