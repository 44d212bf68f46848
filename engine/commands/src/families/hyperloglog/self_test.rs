//! PFSELFTEST: whether registers and estimates are what they should be on this machine.

use super::dense::{self, REGISTERS};
use super::estimate::Histogram;
use super::hash::place_of;
use super::sketch::{Sketch, is_dense};
use crate::context::next_random;

/// How many elements are counted: powers of ten up to it are looked at.
const ELEMENTS: u64 = if cfg!(test) { 10_000 } else { 1_000_000 };

/// The relative standard error of an estimate.
const ERROR: f64 = 1.04 / 128.0;

/// The error says what failed.
pub(super) fn run(mut seed: u64, sparse_max: usize) -> Result<(), String> {
    check_registers(&mut seed)?;
    check_estimates(seed, sparse_max)
}

fn check_registers(seed: &mut u64) -> Result<(), String> {
    let mut registers = vec![0; dense::BYTES];
    let ranks: Vec<u8> = (0..REGISTERS).map(|_| next_random(seed) as u8 & 63).collect();
    ranks.iter().enumerate().for_each(|(index, rank)| dense::set(&mut registers, index, *rank));
    match (0..REGISTERS).find(|index| dense::get(&registers, *index) != ranks[*index]) {
        None => Ok(()),
        Some(index) => Err(format!(
            "TESTFAILED Register {index} should be {} but is {}",
            ranks[index],
            dense::get(&registers, index)
        )),
    }
}

fn check_estimates(seed: u64, sparse_max: usize) -> Result<(), String> {
    let (mut sketch, mut dense) = (Sketch::new(), Sketch::new());
    let corrupted = |_| "TESTFAILED an encoding of the registers is corrupted".to_owned();
    dense.make_dense().map_err(corrupted)?;
    let mut checkpoint = 1;
    for number in 1..=ELEMENTS {
        let (register, rank) = place_of(&(number ^ seed).to_le_bytes());
        sketch.raise(register, rank, sparse_max).map_err(corrupted)?;
        dense.raise(register, rank, sparse_max).map_err(corrupted)?;
        if number < checkpoint {
            continue;
        }
        if number < sparse_max as u64 / 2 && is_dense(sketch.as_bytes()) {
            return Err("TESTFAILED sparse encoding not used".to_owned());
        }
        let estimate = Histogram::of(dense.as_bytes()).map_err(corrupted)?.estimate();
        let other = Histogram::of(sketch.as_bytes()).map_err(corrupted)?.estimate();
        if estimate != other {
            return Err("TESTFAILED dense/sparse disagree".to_owned());
        }
        // Six standard errors, and one more element where two may fall into one register.
        let error = estimate.abs_diff(number);
        if error as f64 > (ERROR * 6.0 * number as f64).ceil().max(1.0) {
            return Err(format!("TESTFAILED Too big error. card:{number} abserr:{error}"));
        }
        checkpoint *= 10;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_passes() {
        for seed in 0..20 {
            assert_eq!(super::run(seed, 3_000), Ok(()), "seed {seed}");
        }
    }
}
