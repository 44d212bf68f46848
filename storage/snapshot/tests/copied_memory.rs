//! Memory that is copied because of a child bounds its life. In a program of its own, since children share the memory of all
//! tests of a program, and one at a time.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use cairn_snapshot::{ChildError, ChildLimits, Progress, fork_child};

const LIMIT: ChildLimits = ChildLimits { stall: Duration::from_secs(30), copied_bytes: None };

static MEMORY: Mutex<()> = Mutex::new(());

#[test]
fn a_child_for_which_too_much_is_copied_is_killed() {
    let _alone = MEMORY.lock().unwrap_or_else(PoisonError::into_inner);
    let mut block = vec![1_u8; 64 << 20];
    let child = fork_child(|_| {
        loop {
            std::thread::park()
        }
    })
    .unwrap();
    let limits = ChildLimits { copied_bytes: Some(32 << 20), ..LIMIT };
    let mut looks = 0;
    let ended = child.wait(limits, &mut |_| {
        looks += 1;
        // Within the limit at first.
        let share = if looks < 3 { 2 << 20 } else { 64 << 20 };
        block[..share].iter_mut().step_by(4096).for_each(|byte| *std::hint::black_box(byte) += 1);
    });
    let Err(ChildError::CopiedTooMuch { copied_bytes, limit_bytes }) = ended else {
        panic!("{ended:?}");
    };
    assert!(looks >= 3 && copied_bytes > limit_bytes && limit_bytes == 32 << 20, "{copied_bytes}, {looks}");
}

/// Memory that is merely new makes the estimate grow, and nothing of it is there twice.
#[test]
fn new_memory_is_not_taken_for_copied_memory() {
    let _alone = MEMORY.lock().unwrap_or_else(PoisonError::into_inner);
    let child = fork_child(|pipe| {
        for entries in 0..10 {
            let progress = Progress { entries, ..Progress::default() };
            pipe.progress(progress).map_err(|error| error.to_string())?;
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(Vec::new())
    })
    .unwrap();
    let mut kept = Vec::new();
    let limits = ChildLimits { copied_bytes: Some(64 << 20), ..LIMIT };
    child.wait(limits, &mut |_| kept.push(std::hint::black_box(vec![1_u8; 32 << 20]))).unwrap();
    assert!(child.copied_bytes() > 64 << 20 || kept.len() < 3, "{}", child.copied_bytes());
}

/// What the parent gives back while the child still has it is not there twice: nothing more is used than before.
#[test]
fn memory_that_is_given_back_is_not_taken_for_copied_memory() {
    let _alone = MEMORY.lock().unwrap_or_else(PoisonError::into_inner);
    let mut block = Some(std::hint::black_box(vec![1_u8; 64 << 20]));
    let child = fork_child(|pipe| {
        for entries in 0..20 {
            let progress = Progress { entries, ..Progress::default() };
            pipe.progress(progress).map_err(|error| error.to_string())?;
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(Vec::new())
    })
    .unwrap();
    let (mut looks, mut scratch) = (0, vec![0_u8; 8 << 20]);
    let limits = ChildLimits { copied_bytes: Some(4 << 20), ..LIMIT };
    let mut most = 0;
    let ended = child.wait(limits, &mut |_| {
        looks += 1;
        if looks == 3 {
            drop(block.take());
            // Enough to be looked at closely.
            scratch.iter_mut().step_by(4096).for_each(|byte| *std::hint::black_box(byte) += 1);
            drop(std::mem::take(&mut scratch));
        }
        most = most.max(child.private_bytes().unwrap_or(0));
    });
    assert!(most > 64 << 20, "the child has what was given back: {most}");
    ended.unwrap();
}
