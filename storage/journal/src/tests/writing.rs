//! The writer in good weather: modes, groups, rotation, frames that carry the durable LSN.

use std::path::Path;
use std::sync::Arc;
use std::thread;

use cairn_disk::{Disk, RealDisk};
use cairn_format::manifest::SegmentEntry;

use super::*;
use crate::durable_prefix;

fn round_trip(fsync: Fsync, encrypted: bool) {
    let world = World::new(fsync, encrypted);
    let journal = world.begin();
    let mut model = Model::default();
    let mut random = Random(7);
    for number in 0..300 {
        let effects = effect(number, random.below(3000));
        let database = [0, 0, 0, 5, 12][random.below(5)];
        let end = model.append(&journal, database, effects, 1_000 + number);
        if number % 50 == 49 {
            journal.block_until_durable(end).expect("durable");
            assert!(journal.durable() >= end);
        }
    }
    journal.shutdown().expect("shutdown");
    assert_eq!(journal.durable(), journal.end_lsn());
    let (stream, report) = world.scan(Lsn::ZERO).expect("scan");
    assert_eq!(report.end, journal.end_lsn());
    assert_eq!(report.durable, report.end, "the last frame carries the durable LSN");
    assert_eq!(report.cut, None);
    assert!(report.resume.tail.bytes.is_empty());
    assert!(Names::load(&world.disk).len() > 2, "the segments were rotated by size");
    model.check(&stream, report.end);
    if encrypted {
        let needle = &model.commits[100].2[..60];
        for entry in world.disk.list(Path::new(DIR)).expect("list") {
            let map = world.disk.map(&Path::new(DIR).join(&entry.name)).expect("map");
            assert!(!map.bytes().windows(needle.len()).any(|window| window == needle), "{}", entry.name);
        }
    }
}

#[test]
fn effects_come_back_in_each_mode_plain_and_encrypted() {
    for fsync in [Fsync::Always, Fsync::EverySec, Fsync::No] {
        round_trip(fsync, false);
        round_trip(fsync, true);
    }
}

#[test]
fn no_temporary_file_is_left_after_a_shutdown() {
    let world = World::new(Fsync::Always, false);
    let journal = world.begin();
    journal.append(0, &effect(1, 10), 1);
    journal.shutdown().expect("shutdown");
    journal.shutdown().expect("a second shutdown does nothing");
    let names = world.disk.list(Path::new(DIR)).expect("list");
    assert!(names.iter().all(|entry| !entry.name.ends_with(".tmp")), "{names:?}");
    assert!(matches!(journal.admit(10), Admission::Refused(_)));
}

#[test]
fn concurrent_appenders_hear_only_of_what_is_durable() {
    let world = World::new(Fsync::Always, true);
    let journal = world.begin();
    let commits = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for thread in 0..8u64 {
            let (journal, commits) = (&journal, &commits);
            scope.spawn(move || {
                for number in 0..50 {
                    let effects = effect(thread * 1000 + number, 100);
                    let end = loop {
                        match journal.admit(effects.len()) {
                            Admission::Granted(permit) => {
                                let end = journal.append(0, &effects, number);
                                drop(permit);
                                break end;
                            }
                            Admission::Wait(wait) => {
                                journal.kick();
                                wait.block();
                            }
                            Admission::Refused(error) => panic!("{error}"),
                        }
                    };
                    journal.kick();
                    journal.wait_durable(end).block().expect("durable");
                    assert!(journal.durable() >= end);
                    commits.lock().push((end, 0, effects));
                }
            });
        }
    });
    // As after SIGKILL: nothing of what was acknowledged depends on a shutdown.
    let image = world.disk.crash(cairn_disk::Survival::Nothing);
    let (stream, report) = world.scan_image(&image).expect("scan");
    let mut model = Model { commits: commits.into_inner() };
    model.commits.sort();
    assert_eq!(model.commits.len(), 400);
    assert_eq!(report.end, model.commits.last().expect("commits").0);
    model.check(&stream, report.end);
}

#[test]
fn what_nobody_kicks_for_becomes_durable_all_the_same() {
    let world = World::new(Fsync::Always, false);
    let journal = world.begin();
    for number in 0..3 {
        let end = journal.append(0, &effect(number, 10), 1);
        journal.wait_durable(end).block().expect("durable");
        // The second time the writer sleeps deeply, having recorded what is durable.
        let frames = journal.status().frames_total;
        eventually("an empty frame", || journal.status().frames_total > frames);
    }
}

#[test]
fn after_idleness_the_files_alone_tell_the_durable_lsn() {
    for fsync in [Fsync::Always, Fsync::EverySec] {
        let world = World::new(fsync, true);
        let journal = world.begin();
        let end = journal.append(0, &effect(1, 10), 1);
        journal.block_until_durable(end).expect("durable");
        let path = world.last_segment();
        let at_once = durable_prefix(&world.disk, &path, Lsn::ZERO).expect("prefix");
        let told = durable_prefix(&world.disk, &path, end).expect("prefix");
        assert_eq!(told.end, end);
        assert!(at_once.end == end || at_once.file_bytes == 12_288);
        eventually("the frame", || durable_prefix(&world.disk, &path, Lsn::ZERO).expect("prefix").end == end);
        let prefix = durable_prefix(&world.disk, &path, Lsn::ZERO).expect("prefix");
        assert_eq!(prefix.allocated_bytes, Some(128 << 10));
    }
}

#[test]
fn everysec_becomes_durable_within_a_second_by_itself() {
    let world = World::new(Fsync::EverySec, false);
    let journal = world.begin();
    let end = journal.append(0, &effect(1, 10), 1);
    assert!(journal.durable() < end);
    journal.wait_durable(end).block().expect("durable");
    assert!(journal.status().syncs_total >= 2, "the segment's own and one more");
}

#[test]
fn without_fsync_only_a_request_syncs_and_a_new_mode_does() {
    let world = World::new(Fsync::No, false);
    let journal = world.begin();
    let end = journal.append(0, &effect(1, 10), 1);
    eventually("a write", || journal.status().frames_total > 0);
    assert!(journal.durable() < end);
    journal.sync();
    journal.wait_durable(end).block().expect("durable");
    let end = journal.append(0, &effect(2, 10), 1);
    journal.set_fsync(Fsync::Always);
    journal.wait_durable(end).block().expect("durable");
}

#[test]
fn a_rotation_splits_where_it_was_asked_for() {
    let world = World::new(Fsync::EverySec, false);
    let journal = world.begin();
    let mut model = Model::default();
    model.append(&journal, 3, effect(1, 10), 1);
    let boundary = journal.rotate();
    assert_eq!(boundary, journal.end_lsn());
    model.append(&journal, 3, effect(2, 10), 1);
    let again = journal.rotate();
    assert_eq!(journal.rotate(), again, "twice at the same place is once");
    journal.block_until_durable(again).expect("durable");
    model.append(&journal, 3, effect(3, 10), 1);
    journal.shutdown().expect("shutdown");
    let firsts: Vec<_> = Names::load(&world.disk).iter().map(|entry| entry.first_lsn).collect();
    assert_eq!(firsts, [Lsn::ZERO, boundary, again]);

    let (stream, _) = world.scan(Lsn::ZERO).expect("scan");
    model.check(&stream, journal.end_lsn());
    // From a snapshot at the boundary, the older segment may be gone.
    let entries = Names::load(&world.disk);
    world.disk.remove(&Path::new(DIR).join(&entries[0].name)).expect("remove");
    let (rest, report) = world.scan(boundary).expect("scan");
    assert_eq!(rest, &stream[boundary.0 as usize..]);
    assert_eq!(report.database, 3);
    let error = world.scan(Lsn::ZERO).expect_err("the first segment is gone");
    assert!(matches!(error, JournalError::Missing { from: Lsn(0), .. }), "{error}");
    assert!(error.is_damage());
}

#[test]
fn finished_segments_are_cut_to_their_length() {
    let world = World::new(Fsync::EverySec, false);
    let journal = world.begin();
    journal.append(0, &effect(1, 10), 1);
    let boundary = journal.rotate();
    journal.block_until_durable(boundary).expect("durable");
    let name = Names::load(&world.disk)[0].name.clone();
    eventually("the cut", || world.disk.len(&Path::new(DIR).join(&name)).expect("length") == 12_288 + 4096);
}

#[test]
fn a_commit_larger_than_segments_comes_back_whole() {
    for encrypted in [false, true] {
        let world = World::new(Fsync::Always, encrypted);
        let journal = world.begin();
        let mut model = Model::default();
        model.append(&journal, 0, effect(1, 10), 1);
        model.append(&journal, 2, effect(2, 700_000), 2);
        let end = model.append(&journal, 2, effect(3, 10), 3);
        journal.block_until_durable(end).expect("durable");
        journal.shutdown().expect("shutdown");
        assert!(Names::load(&world.disk).len() >= 6);
        let (stream, report) = world.scan(Lsn::ZERO).expect("scan");
        assert_eq!(report.end, end);
        model.check(&stream, end);
    }
}

#[test]
fn time_stamps_are_kept_and_a_frame_holds_a_bounded_number() {
    let world = World::new(Fsync::No, false);
    let journal = world.begin();
    let mut ends = vec![Lsn::ZERO];
    for number in 0..5_000 {
        ends.push(journal.append(0, b"*1\r\n$4\r\nPING\r\n", number));
    }
    journal.shutdown().expect("shutdown");
    let mut stamps = Vec::new();
    for entry in Names::load(&world.disk) {
        let path = Path::new(DIR).join(&entry.name);
        for frame in SegmentReader::open(&world.disk, &path, None).expect("open") {
            let frame = frame.expect("frame");
            assert!(frame.stamps.len() <= 1024);
            if !frame.payload.is_empty() {
                assert_eq!(frame.stamps[0].lsn, frame.first_lsn);
            }
            stamps.extend(frame.stamps);
        }
    }
    stamps.dedup_by_key(|stamp| stamp.unix_ms);
    assert_eq!(stamps.len(), 5_000);
    for (number, stamp) in stamps.iter().enumerate() {
        assert_eq!((stamp.lsn, stamp.unix_ms), (ends[number], number as u64));
    }
}

#[test]
fn the_journal_goes_on_where_it_ended() {
    let world = World::new(Fsync::Always, true);
    let mut model = Model::default();
    let mut resume = Resume::at(Lsn::ZERO);
    for round in 0..5 {
        let journal = world.start(resume).expect("start");
        for number in 0..20 {
            model.append(&journal, 4, effect(round * 100 + number, 50), 10);
        }
        journal.shutdown().expect("shutdown");
        drop(journal);
        let (stream, report) = world.scan(Lsn::ZERO).expect("scan");
        model.check(&stream, report.end);
        assert_eq!(report.resume.last_ms, 10);
        resume = report.resume;
    }
    assert_eq!(Names::load(&world.disk).len(), 5);
}

/// A start at an LSN that an earlier start began at too (nothing was written in between) must not take its name.
#[test]
fn starts_at_the_same_lsn_get_names_of_their_own() {
    let world = World::new(Fsync::Always, false);
    for expected in ["journal-00000000000000000000", "journal-00000000000000000000.1"] {
        let journal = world.begin();
        assert_eq!(journal.status().segments.len(), 1);
        journal.shutdown().expect("shutdown");
        let names: Vec<_> =
            Names::load(&world.disk).into_iter().map(|entry: SegmentEntry| entry.name).collect();
        assert_eq!(names, [expected]);
    }
}

#[test]
fn it_works_on_a_real_disk() {
    let dir = tempfile::tempdir().expect("directory");
    let world = World::new(Fsync::Always, true);
    struct Quiet;
    impl Catalog for Quiet {
        fn segment_opened(&self, _: SegmentEntry) -> io::Result<()> {
            Ok(())
        }
    }
    let options = Options { dir: dir.path().to_path_buf(), disk: Arc::new(RealDisk), ..world.options() };
    let journal = Journal::start(options, Resume::at(Lsn(77)), Arc::new(Quiet)).expect("start");
    let mut end = Lsn::ZERO;
    for number in 0..500 {
        end = journal.append(0, &effect(number, 2_000), number);
        if number % 10 == 0 {
            journal.block_until_durable(end).expect("durable");
        }
    }
    journal.shutdown().expect("shutdown");
    let entries = journal.status().segments;
    assert!(entries.len() > 5);
    let mut length = 0;
    let keyring = world.keyring.as_deref();
    let report =
        scan::<()>(&RealDisk, dir.path(), &entries, Lsn(77), Lsn(77), keyring, &mut |bytes, _, _| {
            length += bytes.len() as u64;
            Ok(())
        })
        .expect("scan");
    assert_eq!(report.end, end);
    assert_eq!(length, end.0 - 77);
}
