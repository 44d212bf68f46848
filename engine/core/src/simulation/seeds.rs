//! Many runs: as many as `make test` has time for, ten thousand where it is to be proven (`CAIRN_PROVE=1`), or those that
//! `SEEDS=from..to` names.

use std::ops::RangeInclusive;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use super::run::{Ground, Outcome, TRUTHFUL, run};

const SEEDS: u64 = 1_000;
const SEEDS_TO_PROVE: u64 = 10_000;
/// A soak tells how it is getting on each time so many runs have ended.
const PROGRESS_EVERY: u64 = 10_000;

/// The first seed of a range that breaks a promise, and which.
pub(super) type Found = (u64, String);

/// Runs seeds on all cores until one breaks a promise; the sum of what they were otherwise.
pub(super) fn run_all(seeds: RangeInclusive<u64>, ground: Ground<'_>) -> Result<Outcome, Found> {
    let (next, stop) = (AtomicU64::new(*seeds.start()), AtomicBool::new(false));
    let (total, found) = (Mutex::new(Outcome::default()), Mutex::new(None::<Found>));
    let began = Instant::now();
    let work = || {
        while !stop.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if !seeds.contains(&seed) {
                break;
            }
            match run_caught(seed, ground) {
                Ok(outcome) => total.lock().add(&outcome),
                Err(broken) => {
                    stop.store(true, Ordering::Relaxed);
                    let mut found = found.lock();
                    if found.as_ref().is_none_or(|(first, _)| seed < *first) {
                        *found = Some((seed, broken));
                    }
                }
            }
            let done = seed - seeds.start() + 1;
            if done.is_multiple_of(PROGRESS_EVERY) {
                println!("{done} runs, {} s", began.elapsed().as_secs());
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    match found.into_inner() {
        Some(found) => Err(found),
        None => Ok(total.into_inner()),
    }
}

/// A panic is a broken promise like any other.
fn run_caught(seed: u64, ground: Ground<'_>) -> Result<Outcome, String> {
    catch_unwind(AssertUnwindSafe(|| run(seed, ground))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
        Err(format!("it panicked: {}", text.unwrap_or_default()))
    })
}

/// The seeds that are asked for.
fn seeds() -> RangeInclusive<u64> {
    match std::env::var("SEEDS") {
        Ok(text) => {
            let number =
                |text: &str| text.parse().unwrap_or_else(|_| panic!("SEEDS is from..to or one seed: {text}"));
            match text.split_once("..") {
                Some((from, to)) => number(from)..=number(to.trim_start_matches('=')),
                None => number(&text)..=number(&text),
            }
        }
        Err(_) if super::is_to_be_proven() => 1..=SEEDS_TO_PROVE,
        Err(_) => 1..=SEEDS,
    }
}

/// What is acknowledged survives whatever the disk does, and nothing is ever served that was not.
#[test]
fn no_promise_is_broken() {
    let (seeds, began) = (seeds(), Instant::now());
    match run_all(seeds.clone(), TRUTHFUL) {
        Ok(outcome) => println!(
            "seeds {}..{}: no promise broken in {} s; {} recoveries, {} snapshots, {} journals poisoned, {} refusals of what \
             was damaged",
            seeds.start(),
            seeds.end(),
            began.elapsed().as_secs(),
            outcome.recoveries,
            outcome.snapshots,
            outcome.poisoned,
            outcome.refusals,
        ),
        Err((seed, broken)) => panic!("SEEDS={seed} replays it: {broken}"),
    }
}

/// Without that a seed says nothing.
#[test]
fn one_seed_is_one_run() {
    for seed in 1..=20 {
        let first = run(seed, TRUTHFUL).unwrap_or_else(|broken| panic!("SEEDS={seed}: {broken}"));
        let again = run(seed, TRUTHFUL).unwrap_or_else(|broken| panic!("SEEDS={seed}: {broken}"));
        // Whether a rotten bit is one that matters depends on what was drawn for keys and names.
        assert_eq!(again.refusals_aside(), first.refusals_aside(), "seed {seed}");
    }
}
