//! The value as a whole.
//!
//! ```text
//! "HYLL" | form: 0 dense, 1 sparse | 3 zeros | count u64 little-endian, its highest bit set when it is not known
//! ```

use super::dense::{self, REGISTERS};
use super::estimate::Histogram;
use super::sparse::{self, Corrupted, Raised};

const MAGIC: &[u8; 4] = b"HYLL";
const FORM_AT: usize = 4;
const COUNT_AT: usize = 8;

/// Bytes before the registers.
pub(super) const HEADER: usize = 16;

const DENSE: u8 = 0;
const SPARSE: u8 = 1;
const DENSE_BYTES: usize = HEADER + dense::BYTES;

/// Of the count's last byte: it is not known.
const UNKNOWN: u8 = 0x80;

/// Whether a string is a sketch, as far as its header and its length tell.
pub(super) fn is_valid(value: &[u8]) -> bool {
    value.starts_with(MAGIC)
        && match value.get(FORM_AT) {
            Some(&DENSE) => value.len() == DENSE_BYTES,
            Some(&SPARSE) => value.len() >= HEADER,
            _ => false,
        }
}

/// Whether a valid sketch is dense.
pub(super) fn is_dense(value: &[u8]) -> bool {
    value.get(FORM_AT) == Some(&DENSE)
}

/// The count a valid sketch remembers.
pub(super) fn known_count(value: &[u8]) -> Option<u64> {
    let bytes: [u8; 8] = value.get(COUNT_AT..HEADER)?.try_into().ok()?;
    (bytes[7] & UNKNOWN == 0).then_some(u64::from_le_bytes(bytes))
}

/// Lets a valid sketch remember its count.
pub(super) fn remember_count(value: &mut [u8], count: u64) {
    value[COUNT_AT..HEADER].copy_from_slice(&count.to_le_bytes());
}

/// Raises registers of a valid dense sketch where it lies; whether any was less. Its count is then no longer known.
pub(super) fn raise_dense(value: &mut [u8], elements: impl Iterator<Item = (usize, u8)>) -> bool {
    let (header, registers) = value.split_at_mut(HEADER);
    let raised = elements.filter(|(register, rank)| dense::raise(registers, *register, *rank)).count();
    if raised > 0 {
        header[HEADER - 1] |= UNKNOWN;
    }
    raised > 0
}

/// A sketch taken out to be changed.
pub(super) struct Sketch(Vec<u8>);

impl Sketch {
    /// An empty one, sparse.
    pub(super) fn new() -> Self {
        let mut bytes = vec![0; HEADER];
        bytes[..MAGIC.len()].copy_from_slice(MAGIC);
        bytes[FORM_AT] = SPARSE;
        bytes.extend(sparse::zeros());
        Self(bytes)
    }

    /// A copy of a valid one.
    pub(super) fn of(value: &[u8]) -> Self {
        Self(value.to_vec())
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Says that the count is not known.
    pub(super) fn forget_count(&mut self) {
        self.0[HEADER - 1] |= UNKNOWN;
    }

    /// Raises a register; whether it was less. A sparse sketch that would be longer than `sparse_max` bytes becomes dense.
    pub(super) fn raise(&mut self, register: usize, rank: u8, sparse_max: usize) -> Result<bool, Corrupted> {
        if !is_dense(&self.0) {
            match sparse::raise(&mut self.0, HEADER, register, rank, sparse_max)? {
                Raised::Unchanged => return Ok(false),
                Raised::Changed => return Ok(true),
                Raised::TooLarge => self.make_dense()?,
            }
        }
        Ok(raise_dense(&mut self.0, std::iter::once((register, rank))))
    }

    /// Makes a sparse sketch dense.
    pub(super) fn make_dense(&mut self) -> Result<(), Corrupted> {
        if is_dense(&self.0) {
            return Ok(());
        }
        let (header, runs) = self.0.split_at(HEADER);
        let mut dense = vec![0; DENSE_BYTES];
        dense[..HEADER].copy_from_slice(header);
        dense[FORM_AT] = DENSE;
        let registers = &mut dense[HEADER..];
        sparse::for_each_ranked(runs, |register, rank| dense::set(registers, register, rank))?;
        self.0 = dense;
        Ok(())
    }
}

/// Registers of a byte each, to merge sketches in.
pub(super) struct Registers(Box<[u8; REGISTERS]>);

impl Default for Registers {
    fn default() -> Self {
        Self(Box::new([0; REGISTERS]))
    }
}

impl Registers {
    /// Takes in the registers of a valid sketch where they are greater.
    pub(super) fn raise_by(&mut self, value: &[u8]) -> Result<(), Corrupted> {
        let registers = value.get(HEADER..).unwrap_or_default();
        if is_dense(value) {
            let pairs = self.0.iter_mut().zip(dense::ranks(registers));
            pairs.for_each(|(own, rank)| *own = rank.max(*own));
            return Ok(());
        }
        sparse::for_each_ranked(registers, |register, rank| {
            if let Some(own) = self.0.get_mut(register) {
                *own = rank.max(*own);
            }
        })
    }

    /// The registers that are not zero.
    pub(super) fn ranks(&self) -> impl Iterator<Item = (usize, u8)> {
        self.0.iter().copied().enumerate().filter(|(_, rank)| *rank > 0)
    }

    pub(super) fn histogram(&self) -> Histogram {
        let mut histogram = Histogram::default();
        self.0.iter().for_each(|rank| histogram.add(*rank, 1));
        histogram
    }
}
