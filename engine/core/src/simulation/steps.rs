//! The power goes after every single call that changes the disk in a scripted run: after each sync and each rename of a
//! snapshot, a rotation, a trim, a first encryption, and after all between them.

use std::sync::atomic::{AtomicU64, Ordering};

use cairn_disk::{FaultyDisk, Survival};

use super::digest;
use super::history::Promise;
use super::script::{Keys, Script, options};
use super::time::Time;
use crate::engine::Engine;

/// What may survive at each of them, beside nothing and everything.
const IMAGES: u64 = 3;

fn survivals(operations: u64) -> impl Iterator<Item = Survival> {
    let some = (0..IMAGES).map(move |number| Survival::Sectors(operations * IMAGES + number));
    [Survival::Nothing, Survival::Everything].into_iter().chain(some)
}

/// Runs the script until the power goes and recovers from what may be left; whether it came to its end.
fn cut_after(operations: u64, keys: &Keys) -> bool {
    let (time, _own_time) = Time::begin();
    let disk = FaultyDisk::new();
    disk.power_off_after(operations);
    let mut script = Script::new(disk, time, keys);
    let engine = script.run();
    let ended = engine.is_some();
    let images: Vec<_> =
        survivals(operations).map(|survival| (survival, script.disk.crash(survival))).collect();
    drop(engine);
    for (survival, image) in images {
        let what = || format!("the power went after {operations} operations and left {survival:?}");
        let engine = Engine::open(options(&image, Some(&keys.rotated), Some(&script.time)))
            .unwrap_or_else(|error| panic!("{}: {error}", what()));
        let checked = script.history.check(engine.recovery().end, &digest(&engine), Promise::Order);
        checked.unwrap_or_else(|broken| panic!("{}: {broken}", what()));
    }
    ended
}

#[test]
fn a_power_cut_after_any_step_loses_nothing_acknowledged() {
    let keys = Keys::draw();
    let (next, last) = (AtomicU64::new(0), AtomicU64::new(u64::MAX));
    let work = || loop {
        let operations = next.fetch_add(1, Ordering::Relaxed);
        if operations > last.load(Ordering::Relaxed) {
            break;
        }
        if cut_after(operations, &keys) {
            last.fetch_min(operations, Ordering::Relaxed);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let operations = last.into_inner();
    println!("{operations} operations, {} images after each", IMAGES + 2);
    assert!(operations > 100, "the script does hardly anything");
}
