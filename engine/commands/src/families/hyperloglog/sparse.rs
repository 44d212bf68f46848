//! Runs of equal registers.
//!
//! ```text
//! 00xxxxxx           xxxxxx + 1 registers that are zero
//! 01xxxxxx yyyyyyyy  xxxxxxyyyyyyyy + 1 registers that are zero
//! 1vvvvvxx           xx + 1 registers of rank vvvvv + 1
//! ```

use super::dense::REGISTERS;

/// The greatest rank there is a run for.
const RANK_MAX: u8 = 32;

/// The most registers in one run of a rank.
const RANKED_MAX: usize = 4;

/// The most zeros in a run of one byte.
const SHORT_ZEROS_MAX: usize = 64;

/// A change leaves at most so many runs in a row that may become fewer.
const RUNS_TO_MERGE: usize = 5;

/// The bytes do not describe all registers, each once.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Corrupted;

/// Registers of equal rank, one behind the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Run {
    pub(super) rank: u8,
    pub(super) registers: usize,
    /// Bytes that describe it.
    bytes: usize,
}

impl Run {
    /// The run that begins the bytes.
    fn read(bytes: &[u8]) -> Option<Self> {
        let first = *bytes.first()?;
        let low = usize::from(first & 0x3f);
        Some(match first >> 6 {
            0 => Self { rank: 0, registers: low + 1, bytes: 1 },
            1 => {
                // A second byte that is missing counts as zero, as it does in Redis.
                let second = usize::from(bytes.get(1).copied().unwrap_or_default());
                Self { rank: 0, registers: (low << 8 | second) + 1, bytes: 2 }
            }
            _ => Self { rank: (first >> 2 & 0x1f) + 1, registers: usize::from(first & 3) + 1, bytes: 1 },
        })
    }

    /// Appends the bytes of a run, which may be empty.
    fn write(rank: u8, registers: usize, out: &mut Vec<u8>) {
        let Some(more) = registers.checked_sub(1) else { return };
        match rank {
            0 if registers <= SHORT_ZEROS_MAX => out.push(more as u8),
            0 => out.extend_from_slice(&[0x40 | (more >> 8) as u8, more as u8]),
            rank => out.push(0x80 | (rank - 1) << 2 | more as u8),
        }
    }
}

/// The bytes of registers that are all zero.
pub(super) fn zeros() -> Vec<u8> {
    let mut bytes = Vec::new();
    Run::write(0, REGISTERS, &mut bytes);
    bytes
}

/// The runs in order; they may describe more or fewer registers than there are.
pub(super) fn runs(bytes: &[u8]) -> impl Iterator<Item = Run> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let run = Run::read(rest)?;
        rest = rest.get(run.bytes..).unwrap_or_default();
        Some(run)
    })
}

/// The runs as PFDEBUG shows them.
pub(super) fn describe(bytes: &[u8]) -> String {
    let shown = runs(bytes).map(|Run { rank, registers, bytes }| match (rank, bytes) {
        (0, 1) => format!("z:{registers}"),
        (0, _) => format!("Z:{registers}"),
        _ => format!("v:{rank},{registers}"),
    });
    shown.collect::<Vec<_>>().join(" ")
}

/// Calls `each` with the first register and the rank of every run that is not zero.
pub(super) fn for_each_ranked(bytes: &[u8], mut each: impl FnMut(usize, u8)) -> Result<(), Corrupted> {
    let mut register = 0;
    for run in runs(bytes) {
        let end = register + run.registers;
        if end > REGISTERS {
            return Err(Corrupted);
        }
        if run.rank > 0 {
            (register..end).for_each(|register| each(register, run.rank));
        }
        register = end;
    }
    if register == REGISTERS { Ok(()) } else { Err(Corrupted) }
}

/// What came of [`raise`].
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Raised {
    /// The register is as great already.
    Unchanged,
    Changed,
    /// There is no run for the rank, or the runs would take more room than they may; nothing is changed.
    TooLarge,
}

/// Sets one register of the runs behind the first `header` bytes, unless it is as great already.
pub(super) fn raise(
    bytes: &mut Vec<u8>,
    header: usize,
    register: usize,
    rank: u8,
    bytes_max: usize,
) -> Result<Raised, Corrupted> {
    if rank > RANK_MAX {
        return Ok(Raised::TooLarge);
    }
    let (mut at, mut first, mut before) = (header, 0, header);
    let run = loop {
        let run = Run::read(bytes.get(at..).unwrap_or_default()).ok_or(Corrupted)?;
        if register < first + run.registers {
            break run;
        }
        (before, at, first) = (at, at + run.bytes, first + run.registers);
    };
    if run.rank >= rank {
        return Ok(Raised::Unchanged);
    }
    let end = (at + run.bytes).min(bytes.len());
    let mut parts = Vec::with_capacity(5);
    Run::write(run.rank, register - first, &mut parts);
    Run::write(rank, 1, &mut parts);
    Run::write(run.rank, first + run.registers - register - 1, &mut parts);
    // A last run whose second byte is missing counts as whole here, so that the end of what stands for it is lost: as in
    // Redis, and nothing else may come of a value that is damaged.
    let grown = bytes.len() + parts.len() - run.bytes;
    if grown > bytes.len() && grown > bytes_max {
        return Ok(Raised::TooLarge);
    }
    bytes.splice(at..end, parts);
    bytes.truncate(grown);
    merge(bytes, before);
    Ok(Raised::Changed)
}

/// Makes one run of neighbours of equal rank, as far as a change may have left such behind `at`.
fn merge(bytes: &mut Vec<u8>, mut at: usize) {
    for _ in 0..RUNS_TO_MERGE {
        let Some(run) = bytes.get(at..).and_then(Run::read) else { return };
        let next = bytes.get(at + run.bytes..).and_then(Run::read);
        match next {
            Some(next)
                if run.rank > 0 && run.rank == next.rank && run.registers + next.registers <= RANKED_MAX =>
            {
                let mut merged = Vec::with_capacity(1);
                Run::write(run.rank, run.registers + next.registers, &mut merged);
                bytes.splice(at..at + 2, merged);
            }
            _ => at += run.bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::next_random;

    #[test]
    fn any_order_of_changes_leaves_the_greatest_ranks() {
        let (mut bytes, mut model, mut state) = (zeros(), vec![0u8; REGISTERS], 5);
        assert_eq!(bytes, [0x7f, 0xff]);
        for step in 0..3_000 {
            let random = next_random(&mut state);
            let register = if step % 2 == 0 { random as usize % REGISTERS } else { random as usize % 90 };
            let rank = (random >> 50) as u8 % 4 + 1;
            let raised = raise(&mut bytes, 0, register, rank, usize::MAX).expect("valid");
            assert_eq!(raised == Raised::Changed, model[register] < rank);
            model[register] = model[register].max(rank);
            assert_eq!(runs(&bytes).map(|run| run.registers).sum::<usize>(), REGISTERS);
        }
        let mut ranks = vec![0; REGISTERS];
        for_each_ranked(&bytes, |register, rank| ranks[register] = rank).expect("valid");
        assert_eq!(ranks, model);
        let before = bytes.clone();
        assert_eq!(raise(&mut bytes, 0, 5, RANK_MAX + 1, usize::MAX), Ok(Raised::TooLarge));
        assert_eq!(raise(&mut zeros(), 0, 5, 1, 3), Ok(Raised::TooLarge));
        assert_eq!(bytes, before);
    }

    #[test]
    fn what_does_not_add_up_is_told() {
        for bytes in [&[][..], &[0x00], &[0x7f], &[0x7f, 0xff, 0x00], &[0x80; 16_385]] {
            assert_eq!(for_each_ranked(bytes, |_, _| {}), Err(Corrupted), "{bytes:?}");
        }
        assert_eq!(raise(&mut vec![0x00], 0, 9, 1, 3_000), Err(Corrupted));
    }
}
