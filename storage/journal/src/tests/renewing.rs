//! A new master key, or the first, while the journal is written: the next segment is begun at once, wherever the power goes.

use cairn_disk::Survival;

use super::*;

/// The key of each segment that is named, in order.
fn keys(disk: &FaultyDisk) -> Vec<Option<String>> {
    let key = |entry: SegmentEntry| {
        let map = disk.map(&Path::new(DIR).join(&entry.name)).expect("a segment");
        let magic = cairn_format::header::Magic::Journal;
        let (_, slot) = cairn_format::header::decode_header(map.bytes(), magic).expect("a header");
        slot.map(|slot| slot.key_name)
    };
    Names::load(disk).into_iter().map(key).collect()
}

fn name(keyring: &Keyring) -> Option<String> {
    Some(keyring.active().name().to_owned())
}

#[test]
fn what_is_written_after_it_lies_under_the_new_key() {
    for fsync in [Fsync::Always, Fsync::EverySec, Fsync::No] {
        let mut world = World::new(fsync, true);
        let old = world.keyring.clone().expect("a keyring");
        let new = Arc::new(old.rotated().expect("a new key"));
        let journal = world.begin();
        let mut model = Model::default();
        model.append(&journal, 0, effect(1, 100), 1);
        journal.renew().expect("nothing to do");
        journal.set_keyring(Some(Arc::clone(&new)));
        eventually("what was appended is written", || {
            journal.sync();
            journal.durable() == journal.end_lsn()
        });
        assert_eq!(keys(&world.disk), [name(&old)]);
        eventually("the next segment", || granted(&journal, 100_000));
        journal.renew().expect("a new segment");
        assert_eq!(keys(&world.disk), [name(&old), name(&new)], "nobody has to write for it");
        // One that holds nothing yet gives way wholly.
        let newest = Arc::new(new.rotated().expect("a new key"));
        journal.set_keyring(Some(Arc::clone(&newest)));
        journal.renew().expect("a new segment");
        assert_eq!(keys(&world.disk), [name(&old), name(&newest)]);
        model.append(&journal, 3, effect(2, 300), 2);
        journal.shutdown().expect("shutdown");
        world.keyring = Some(newest);
        let (stream, report) = world.scan(Lsn::ZERO).expect("scan");
        model.check(&stream, report.end);
        assert_eq!(model.commits.len(), 2);
    }
}

#[test]
fn the_first_key_takes_effect_at_once() {
    let mut world = World::new(Fsync::Always, false);
    let journal = world.begin();
    let mut model = Model::default();
    let end = model.append(&journal, 0, effect(1, 100), 1);
    journal.block_until_durable(end).expect("durable");
    world.keyring = Some(Arc::new(Keyring::generate().expect("a keyring")));
    journal.set_keyring(world.keyring.clone());
    eventually("the next segment", || granted(&journal, 100_000));
    journal.renew().expect("a new segment");
    assert_eq!(keys(&world.disk), [None, world.keyring.as_deref().and_then(name)]);
    let end = model.append(&journal, 0, effect(2, 100), 1);
    journal.block_until_durable(end).expect("durable");
    let (stream, report) = world.scan_image(&world.disk.crash(Survival::Nothing)).expect("scan");
    model.check(&stream, report.end);
    assert_eq!(report.end, end);
}

/// The power goes at every call that changes the disk, in a segment that holds something and in one that does not.
#[test]
fn nothing_is_lost_wherever_the_power_goes() {
    for is_empty in [false, true] {
        for operations in 0..14 {
            let mut world = World::new(Fsync::Always, true);
            let journal = world.begin();
            let mut model = Model::default();
            let mut end = Lsn::ZERO;
            if !is_empty {
                end = model.append(&journal, 0, effect(1, 100), 1);
                journal.block_until_durable(end).expect("durable");
            }
            eventually("the next segment", || granted(&journal, 100_000));
            let new = world.keyring.as_ref().expect("a keyring").rotated().expect("a new key");
            world.keyring = Some(Arc::new(new));
            journal.set_keyring(world.keyring.clone());
            world.disk.power_off_after(operations);
            let _ = journal.renew();
            for survival in (0..6).map(Survival::Sectors).chain([Survival::Nothing, Survival::Everything]) {
                let found = world.scan_image(&world.disk.crash(survival));
                let (stream, report) =
                    found.unwrap_or_else(|error| panic!("{is_empty} {operations} {survival:?}: {error}"));
                model.check(&stream, report.end);
                assert_eq!(report.end, end, "{is_empty} {operations} {survival:?}");
            }
        }
    }
}

#[test]
fn a_disk_that_is_full_or_fails_is_told_and_writing_goes_on() {
    // In this mode no segment that is prepared is synced, so the sync that fails is the one of whoever begins the next.
    let world = World::new(Fsync::EverySec, true);
    let journal = world.begin();
    let mut model = Model::default();
    eventually("the next segment", || granted(&journal, 100_000));
    let new = world.keyring.as_ref().expect("a keyring").rotated().expect("a new key");
    journal.set_keyring(Some(Arc::new(new.clone())));
    let end = model.append(&journal, 0, effect(1, 100), 1);
    journal.block_until_durable(end).expect("durable");
    // The frame that says so is counted before its sync.
    let is_idle = |status: crate::Status| status.frames_total == 2 && status.syncs_total == 3;
    eventually("the frame with it", || is_idle(journal.status()));
    world.disk.fail_syncs(0, 1);
    let refused = journal.renew().expect_err("the sync fails").to_string();
    assert!(refused.contains("another key") && refused.contains(DIR), "{refused}");
    // What a failed sync leaves behind is abandoned, and the file that follows is under the new key.
    let end = model.append(&journal, 0, effect(2, 100), 1);
    journal.block_until_durable(end).expect("durable");
    assert_eq!(keys(&world.disk).last(), Some(&name(&new)));
    let world = World { keyring: Some(Arc::new(new)), ..world };
    let (stream, report) = world.scan_image(&world.disk.crash(Survival::Nothing)).expect("scan");
    model.check(&stream, report.end);
    assert_eq!(report.end, end);
}
