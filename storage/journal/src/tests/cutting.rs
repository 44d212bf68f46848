//! Following a journal that grows, and cutting it between two commits.

use cairn_disk::Survival;

use super::*;
use crate::{CutTo, Follower, Until, cut_segment};

/// Commits of all kinds over some segments: single ones, transactions, ones longer than a frame and than a segment's rest.
fn many_commits(world: &World) -> Model {
    let journal = world.begin();
    let mut model = Model::default();
    let mut last = Lsn::ZERO;
    for number in 0..40 {
        let bytes = if number % 13 == 5 { 90_000 } else { 300 };
        let effects = if number % 4 == 1 {
            let inner = [effect(number, 60), effect(number + 100, bytes)].concat();
            [b"*1\r\n$5\r\nMULTI\r\n".to_vec(), inner, b"*1\r\n$4\r\nEXEC\r\n".to_vec()].concat()
        } else {
            effect(number, bytes)
        };
        last = model.append(&journal, (number / 3 % 3) as u32, effects, 1_000 + number / 2 * 10);
        if number % 5 == 4 {
            journal.block_until_durable(last).expect("durable");
        }
    }
    journal.block_until_durable(last).expect("durable");
    journal.shutdown().expect("an end");
    model
}

/// A world whose journal was cut: the segments below the end as they were, the last of them written anew.
fn cut(world: &World, until: Until, at: Lsn) -> (Vec<u8>, ScanReport) {
    let image = world.disk.crash(Survival::Everything);
    let mut entries = Names::load(&image);
    let path = |entry: &SegmentEntry| Path::new(DIR).join(&entry.name);
    let mut limit = (until, at);
    let made = loop {
        let index = entries.iter().rposition(|entry| entry.first_lsn <= limit.1).expect("a segment");
        entries.truncate(index + 1);
        let before = index.checked_sub(1).map(|before| path(&entries[before]));
        let target = Path::new(DIR).join(format!("cut-{index}"));
        let file = image.create_new(&target).expect("a file");
        let to = CutTo { file, path: target.clone(), lineage: LineageId([9; 16]), seal: false };
        let keyring = world.keyring.as_deref();
        let made = cut_segment(&image, before.as_deref(), &path(&entries[index]), keyring, limit.0, to)
            .expect("a cut");
        if made.end >= made.first_lsn {
            let name = target.file_name().expect("a name").to_string_lossy().into_owned();
            entries[index] = SegmentEntry { name, file_id: made.file_id, first_lsn: made.first_lsn };
            break made;
        }
        limit = (Until::Lsn(made.end), made.end);
    };
    let mut stream = Vec::new();
    let mut take = |bytes: &[u8], _: Lsn, _: u32| {
        stream.extend_from_slice(bytes);
        Ok::<(), ()>(())
    };
    let zero = Lsn::ZERO;
    let report = scan(&image, Path::new(DIR), &entries, zero, made.end, world.keyring.as_deref(), &mut take)
        .unwrap_or_else(|error| panic!("{until:?}: {error:?}"));
    (stream, report)
}

#[test]
fn a_cut_gives_all_commits_up_to_an_lsn_and_no_other() {
    for encrypted in [false, true] {
        let world = World::new(Fsync::Always, encrypted);
        let model = many_commits(&world);
        assert!(Names::load(&world.disk).len() > 2, "commits cross segments");
        let (whole, _) = world.scan(Lsn::ZERO).expect("scan");
        let end = whole.len() as u64;
        for (commit, _, effects) in &model.commits {
            for lsn in [commit.0 - effects.len() as u64 / 2, commit.0 - 1, commit.0, commit.0 + 1] {
                let lsn = lsn.min(end);
                let (stream, report) = cut(&world, Until::Lsn(Lsn(lsn)), Lsn(lsn));
                assert_eq!(stream, whole[..stream.len()], "cut at {lsn}");
                let wanted = model.commits.iter().map(|commit| commit.0.0).filter(|end| *end <= lsn).max();
                // A SELECT that stands between is an effect of its own.
                let selected = wanted.unwrap_or(0)..=wanted.unwrap_or(0) + 23;
                assert!(
                    selected.contains(&report.end.0) && report.end.0 <= lsn,
                    "cut at {lsn}: {}",
                    report.end
                );
                assert_eq!(
                    (report.cut, report.resume.lsn),
                    (None, report.end),
                    "all of it counts as durable"
                );
            }
        }
    }
}

#[test]
fn a_cut_gives_all_commits_up_to_a_moment_and_no_other() {
    for encrypted in [false, true] {
        let world = World::new(Fsync::Always, encrypted);
        let model = many_commits(&world);
        let (whole, _) = world.scan(Lsn::ZERO).expect("scan");
        for moment in (990..1_210).step_by(5) {
            let of_moment = (0..40).filter(|number| 1_000 + number / 2 * 10 <= moment).count();
            let wanted = of_moment.checked_sub(1).map_or(Lsn::ZERO, |last| model.commits[last].0);
            let (stream, report) = cut(&world, Until::UnixMs(moment), segment_of(&world, moment));
            assert_eq!(report.end, wanted, "at {moment}");
            assert_eq!(stream, whole[..stream.len()]);
        }
        let (stream, _) = cut(&world, Until::End, Lsn(u64::MAX));
        assert_eq!(stream, whole);
    }
}

/// The first LSN of the segment in which the first effect after a moment lies, or the last one's.
fn segment_of(world: &World, moment: u64) -> Lsn {
    let entries = Names::load(&world.disk);
    let after = entries.iter().find(|entry| {
        let path = Path::new(DIR).join(&entry.name);
        let reader = SegmentReader::open(&world.disk, &path, world.keyring.as_deref()).expect("open");
        reader.flat_map(|frame| frame.expect("frame").stamps).any(|stamp| stamp.unix_ms > moment)
    });
    after.or(entries.last()).expect("a segment").first_lsn
}

#[test]
fn a_follower_sees_what_is_durable_and_no_more() {
    for encrypted in [false, true] {
        let world = World::new(Fsync::Always, encrypted);
        let journal = world.begin();
        let path = world.last_segment();
        let mut last = Lsn::ZERO;
        let mut seen = Lsn::ZERO;
        for number in 0..20 {
            last = journal.append(0, &effect(number, 500), 1_000 + number);
            journal.block_until_durable(last).expect("durable");
            // The disk in memory gives a map of what is written at the moment.
            let mut follower = Follower::open(&world.disk, &path).expect("open");
            let boundary = follower.advance(Lsn::ZERO, u64::MAX).expect("read");
            assert!(boundary.lsn <= journal.durable() && boundary.lsn >= seen);
            let frames = world.frames();
            let known = frames.iter().find(|(_, _, end)| *end == boundary.lsn);
            assert!(boundary.lsn == Lsn::ZERO || known.is_some(), "{boundary:?} is a boundary");
            seen = boundary.lsn;
            assert_eq!(follower.advance(last, u64::MAX).expect("read").lsn, last, "what is told counts too");
            assert_eq!(follower.durable().unix_ms, 1_000 + number);
        }
        assert!(seen > Lsn::ZERO, "each frame tells of those before");
        let image = world.disk.crash(Survival::Everything);
        // A few bytes at a time is the same.
        let mut follower = Follower::open(&image, &path).expect("open");
        let mut boundary = follower.durable();
        for _ in 0..1_000 {
            boundary = follower.advance(last, 1).expect("read");
        }
        assert_eq!(boundary.lsn, last);
        // A durable byte that was changed is damage; one past it is nobody's yet.
        let (offset, ..) = world.frames()[10];
        let damaged = world.disk.crash(Survival::Everything);
        damaged.damage(&path, |bytes| bytes[offset + 100] ^= 1);
        let mut follower = Follower::open(&damaged, &path).expect("open");
        assert!(follower.advance(last, u64::MAX).is_err());
        let mut follower = Follower::open(&damaged, &path).expect("open");
        assert!(follower.advance(Lsn::ZERO, u64::MAX).is_ok_and(|boundary| boundary.offset <= offset as u64));
    }
}
