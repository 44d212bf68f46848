//! Disks that fail: what is retried, what is written again, and when the journal gives up.

use std::thread;

use super::*;
use crate::AdmitError;

#[test]
fn a_failed_write_is_repeated() {
    let world = World::new(Fsync::Always, true);
    let journal = world.begin();
    let mut model = Model::default();
    eventually("the next segment", || granted(&journal, 100_000));
    world.disk.fail_writes(0, 1);
    let end = model.append(&journal, 0, effect(1, 100), 1);
    journal.block_until_durable(end).expect("durable");
    assert_eq!(Names::load(&world.disk).len(), 1);
    journal.shutdown().expect("shutdown");
    let (stream, report) = world.scan(Lsn::ZERO).expect("scan");
    model.check(&stream, report.end);
    assert_eq!(report.end, end);
}

#[test]
fn a_failed_sync_takes_what_is_not_durable_to_a_new_file() {
    for fsync in [Fsync::Always, Fsync::EverySec] {
        let world = World::new(fsync, true);
        let journal = world.begin();
        let mut model = Model::default();
        eventually("the next segment", || granted(&journal, 100_000));
        let first = model.append(&journal, 0, effect(1, 100), 1);
        journal.block_until_durable(first).expect("durable");
        eventually("the frame with it", || journal.status().frames_total == 2);
        let abandoned = world.last_segment();
        world.disk.fail_syncs(0, 1);
        let second = model.append(&journal, 0, effect(2, 100), 2);
        journal.block_until_durable(second).expect("durable");
        assert_ne!(world.last_segment(), abandoned);
        let third = model.append(&journal, 0, effect(3, 100), 3);
        journal.block_until_durable(third).expect("durable");
        assert_eq!(journal.status().poisoned, None);
        // Bytes of a failed sync are not there after a power cut.
        let image = world.disk.crash(cairn_disk::Survival::Nothing);
        let (stream, report) = world.scan_image(&image).expect("scan");
        assert_eq!(report.end, third);
        model.check(&stream, report.end);
        let entries = Names::load(&world.disk);
        assert_eq!(entries.iter().map(|entry| entry.first_lsn).collect::<Vec<_>>(), [Lsn::ZERO, first]);
    }
}

/// The first group's sync fails: nothing of the file is durable, so the new one takes its place wholly.
#[test]
fn a_file_that_never_synced_leaves_the_manifest() {
    let world = World::new(Fsync::Always, false);
    let journal = world.begin();
    let mut model = Model::default();
    eventually("the next segment", || granted(&journal, 100_000));
    let abandoned = world.last_segment();
    world.disk.fail_syncs(0, 1);
    let end = model.append(&journal, 0, effect(1, 100), 1);
    journal.block_until_durable(end).expect("durable");
    assert_eq!(Names::load(&world.disk).len(), 1);
    assert_eq!(journal.status().segments, Names::load(&world.disk));
    assert!(!world.disk.exists(&abandoned).expect("exists"), "the abandoned file is removed");
    let (stream, report) = world.scan_image(&world.disk.crash(cairn_disk::Survival::Nothing)).expect("scan");
    assert_eq!(report.end, end);
    model.check(&stream, end);
}

#[test]
fn a_second_failure_poisons() {
    let world = World::new(Fsync::Always, false);
    let journal = world.begin();
    eventually("the next segment", || granted(&journal, 100_000));
    let durable = journal.append(0, &effect(1, 100), 1);
    journal.block_until_durable(durable).expect("durable");
    world.disk.fail_syncs(0, u64::MAX);
    let lost = journal.append(0, &effect(2, 100), 1);
    let waiter = {
        let wait = journal.wait_durable(lost);
        thread::spawn(move || wait.block())
    };
    journal.kick();
    let poisoned = waiter.join().expect("thread").expect_err("never durable");
    assert!(poisoned.to_string().contains("unknown"), "{poisoned}");
    assert!(journal.wait_durable(lost).block().is_err());
    assert!(journal.wait_durable(durable).block().is_ok(), "what is durable stays so");
    assert!(matches!(journal.admit(10), Admission::Refused(AdmitError::Poisoned(_))));
    assert!(journal.status().poisoned.is_some());
    let after = journal.append(0, &effect(3, 100), 1);
    assert_eq!(after, journal.end_lsn(), "an append never fails");
    assert!(journal.shutdown().is_err());
}

#[test]
fn a_full_disk_refuses_writes_before_they_are_applied_and_they_resume() {
    let world = World::new(Fsync::Always, true);
    let journal = world.begin();
    let mut model = Model::default();
    eventually("the next segment", || granted(&journal, 150_000));
    // The manifest of a few hundred bytes still finds room, a segment does not.
    world.disk.limit_space(Some(20_000));
    let mut number = 0;
    let error = loop {
        number += 1;
        assert!(number < 1_000, "it was never refused");
        let effects = effect(number, 4_000);
        match journal.admit(effects.len()) {
            Admission::Granted(permit) => {
                let end = model.append(&journal, 0, effects, number);
                drop(permit);
                journal.block_until_durable(end).expect("what was admitted becomes durable");
            }
            Admission::Wait(wait) => wait.block(),
            Admission::Refused(error) => break error,
        }
    };
    assert!(matches!(error, AdmitError::NoSpace { .. }), "{error}");
    assert!(error.to_string().contains("free some"));
    assert!(journal.status().disk_full_since_unix_ms.is_some());
    assert!(number > 20, "the prepared room was used: {number}");
    let (stream, report) = world.scan(Lsn::ZERO).expect("scan");
    assert_eq!(report.end, journal.end_lsn());
    model.check(&stream, report.end);

    world.disk.limit_space(None);
    eventually("resumption", || granted(&journal, 4_000));
    assert_eq!(journal.status().disk_full_since_unix_ms, None);
    let end = model.append(&journal, 0, effect(5_000, 4_000), 1);
    journal.block_until_durable(end).expect("durable");
    journal.shutdown().expect("shutdown");
    let (stream, report) = world.scan(Lsn::ZERO).expect("scan");
    model.check(&stream, report.end);
}

/// Appends beyond all admitted room (a script that writes more than it said) wait for space and are not lost.
#[test]
fn what_exceeds_the_room_waits_for_space() {
    let world = World::new(Fsync::Always, false);
    let journal = world.begin();
    let mut model = Model::default();
    eventually("the next segment", || granted(&journal, 150_000));
    world.disk.limit_space(Some(20_000));
    let end = model.append(&journal, 0, effect(1, 400_000), 1);
    journal.sync();
    eventually("the refusal", || matches!(journal.admit(1), Admission::Refused(AdmitError::NoSpace { .. })));
    assert!(journal.durable() < end);
    world.disk.limit_space(None);
    journal.wait_durable(end).block().expect("durable");
    let (stream, report) = world.scan(Lsn::ZERO).expect("scan");
    assert_eq!(report.end, end);
    model.check(&stream, end);
}

#[test]
fn a_full_queue_makes_writes_wait_until_it_is_synced() {
    let world = World { queue_bytes_max: 10_000, ..World::new(Fsync::Always, false) };
    let journal = world.begin();
    eventually("the next segment", || granted(&journal, 100));
    journal.append(0, &effect(1, 10_000), 1);
    let Admission::Wait(wait) = journal.admit(100) else { panic!("the queue is full") };
    journal.kick();
    wait.block();
    assert!(granted(&journal, 100));
    // One that is larger than the queue is let in when the queue is empty.
    eventually("room for a large one", || granted(&journal, 50_000));
}

#[test]
fn permits_hold_their_room_until_they_are_dropped() {
    let world = World { queue_bytes_max: 1_000, ..World::new(Fsync::Always, false) };
    let journal = world.begin();
    eventually("the next segment", || granted(&journal, 100));
    let Admission::Granted(permit) = journal.admit(1_000) else { panic!("granted") };
    let Admission::Wait(wait) = journal.admit(1) else { panic!("must wait") };
    let waiter = thread::spawn(move || wait.block());
    drop(permit);
    waiter.join().expect("thread");
    assert!(granted(&journal, 1));
}

#[test]
fn a_start_on_a_full_disk_says_so() {
    let world = World::new(Fsync::Always, false);
    world.disk.limit_space(Some(1_000));
    let error = world.start(Resume::at(Lsn::ZERO)).err().expect("no space");
    assert!(
        matches!(&error, JournalError::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull),
        "{error}"
    );
}
