//! `always`: a thread with work of its own that writes and syncs for all.

use super::*;
use crate::writer::LEAD_BYTES_MIN;

/// A journal that has seen its disk be quick, so that it lets others lead.
fn trusting(world: &mut World, model: &mut Model) -> Arc<Journal> {
    world.segment_bytes = 16 << 20;
    let journal = world.begin();
    // Until the next segment is there too, its syncs are among those that a test lets fail.
    eventually("the next segment", || granted(&journal, 20 << 20));
    for seed in 0..50 {
        let end = model.append(&journal, 0, effect(seed, 100), seed);
        journal.block_until_durable(end).expect("durable");
    }
    journal
}

/// Appends enough to be led, and leads; whether it is durable at once.
fn lead(journal: &Journal, model: &mut Model, seed: u64) -> (Lsn, bool) {
    let end = model.append(journal, 0, effect(seed, LEAD_BYTES_MIN), seed);
    assert!(journal.is_worth_leading() || journal.durable() >= end);
    journal.lead(|write| write());
    (end, journal.durable() >= end)
}

#[test]
fn what_is_led_is_durable_when_the_call_returns() {
    let (mut world, mut model) = (World::new(Fsync::Always, true), Model::default());
    let journal = trusting(&mut world, &mut model);
    // The writer thread may be quicker now and then, or the machine so slow that nobody leads for a while.
    let led = (100..2_000).filter(|seed| {
        let (end, at_once) = lead(&journal, &mut model, *seed);
        journal.block_until_durable(end).expect("durable");
        at_once
    });
    assert_eq!(led.take(20).count(), 20);
    let image = world.disk.crash(cairn_disk::Survival::Nothing);
    let (stream, report) = world.scan_image(&image).expect("scan");
    assert_eq!(report.end, journal.durable());
    model.check(&stream, report.end);
    journal.shutdown().expect("shutdown");
}

#[test]
fn little_waits_for_the_writer_thread() {
    let (mut world, mut model) = (World::new(Fsync::Always, false), Model::default());
    let journal = trusting(&mut world, &mut model);
    let end = model.append(&journal, 0, effect(100, 10), 100);
    assert!(!journal.is_worth_leading());
    journal.kick();
    journal.wait_durable(end).block().expect("durable");
    journal.set_fsync(Fsync::EverySec);
    model.append(&journal, 0, effect(101, LEAD_BYTES_MIN), 101);
    assert!(!journal.is_worth_leading(), "only `always` is led");
}

#[test]
fn a_leader_whose_sync_fails_leaves_the_file_to_the_writer_thread() {
    let (mut world, mut model) = (World::new(Fsync::Always, true), Model::default());
    let journal = trusting(&mut world, &mut model);
    let abandoned = world.last_segment();
    world.disk.fail_syncs(0, 1);
    let (end, _) = lead(&journal, &mut model, 100);
    journal.block_until_durable(end).expect("durable in a new file");
    assert_ne!(world.last_segment(), abandoned);
    let (last, _) = lead(&journal, &mut model, 101);
    journal.block_until_durable(last).expect("durable");
    let image = world.disk.crash(cairn_disk::Survival::Nothing);
    let (stream, report) = world.scan_image(&image).expect("scan");
    assert_eq!(report.end, last);
    model.check(&stream, report.end);

    world.disk.fail_syncs(0, u64::MAX);
    let (end, _) = lead(&journal, &mut model, 102);
    journal.wait_durable(end).block().expect_err("nothing becomes durable any more");
    assert!(journal.status().poisoned.is_some());
}
