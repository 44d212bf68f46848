//! The tail rules: what never arrived is cut, what was changed is damage, and nothing is ever served wrongly.

use std::path::Path;

use super::*;

/// Three groups of one small frame each, then one of several frames, all synced, without the empty frame that a quiet
/// moment or a shutdown would add.
fn journal_without_last_word(encrypted: bool) -> (World, Model) {
    let world = World::new(Fsync::Always, encrypted);
    let journal = world.begin();
    let mut model = Model::default();
    for number in 0..3 {
        let end = model.append(&journal, 0, effect(number, 30), number);
        journal.block_until_durable(end).expect("durable");
    }
    let end = model.append(&journal, 1, effect(9, 3_000), 9);
    journal.block_until_durable(end).expect("durable");
    let image = world.disk.crash(cairn_disk::Survival::Everything);
    drop(journal);
    let world = world.into_disk(image);
    // A slow machine may have been idle all the same.
    let frames = world.frames();
    let last = frames.iter().find(|frame| frame.2 == end).expect("the last frame with effects");
    let from = last.0 + last.1;
    world.disk.damage(&world.last_segment(), |bytes| bytes[from..].fill(0));
    (world, model)
}

#[test]
fn a_last_frame_without_some_of_its_blocks_is_cut() {
    for encrypted in [false, true] {
        let (world, model) = journal_without_last_word(encrypted);
        let path = world.last_segment();
        let frames = world.frames();
        let (offset, length, _) = *frames.last().expect("frames");
        let before = frames[frames.len() - 2].2;
        let blocks = length / 512;
        assert_eq!(blocks, 8);
        let (_, whole) = world.scan(Lsn::ZERO).expect("scan");
        assert_eq!(whole.end, model.commits.last().expect("commits").0);
        assert_eq!(whole.resume.lsn, before);
        assert_eq!(whole.resume.end(), whole.end, "what is past the durable LSN is kept for a copy");
        for missing in 1u32..1 << blocks {
            let image = world.disk.crash(cairn_disk::Survival::Everything);
            image.damage(&path, |bytes| {
                for block in (0..blocks).filter(|block| missing & (1 << block) != 0) {
                    bytes[offset + block * 512..][..512].fill(0);
                }
            });
            let (stream, report) = world.scan_image(&image).expect("a cut, not damage");
            assert_eq!(report.end, before, "blocks {missing:08b}");
            model.check(&stream, report.end);
            if missing != (1 << blocks) - 1 {
                let cut = report.cut.expect("a cut");
                assert_eq!((cut.offset, cut.from), (offset as u64, before));
                assert!(cut.bytes > 0);
            }
        }
    }
}

/// The same loss below the durable LSN that a later frame carries is damage.
#[test]
fn a_hole_below_the_durable_lsn_is_damage() {
    let (world, _) = journal_without_last_word(true);
    let path = world.last_segment();
    let frames = world.frames();
    // The frames with effects: an empty one may be missing without any loss.
    let with_effects = frames.iter().enumerate().filter(|(at, frame)| *at == 0 || frames[at - 1].2 < frame.2);
    for (_, (offset, length, _)) in with_effects.take(3) {
        for block in 0..length / 512 {
            let image = world.disk.crash(cairn_disk::Survival::Everything);
            image.damage(&path, |bytes| bytes[offset + block * 512..][..512].fill(0));
            match world.scan_image(&image) {
                Err(JournalError::Damaged(damage)) => {
                    assert_eq!(damage.file, path);
                    assert!(damage.lost_to.is_some());
                }
                Err(other) => panic!("{other}"),
                // The frame before the last is covered by the last one's durable LSN: never served short.
                Ok((_, report)) => panic!("frame at {offset}, block {block}: served up to {}", report.end),
            }
        }
    }
}

fn assert_refused(world: &World, image: &FaultyDisk, what: &str) {
    match world.scan_image(image) {
        Ok((_, report)) => panic!("{what}: served up to {} with {:?}", report.end, report.cut),
        Err(error) => assert!(error.is_damage() || error.is_wrong_key(), "{what}: {error}"),
    }
}

#[test]
fn every_flipped_byte_of_frames_and_room_is_found() {
    for encrypted in [false, true] {
        let (world, _) = journal_without_last_word(encrypted);
        let path = world.last_segment();
        let frames = world.frames();
        let (offset, length, _) = *frames.last().expect("frames");
        let end = offset + length;
        let total = world.disk.len(&path).expect("length") as usize;
        let step = if encrypted { 3 } else { 7 };
        let places = (12_288..offset).step_by(step).chain(offset..end).chain((end..total).step_by(509));
        for at in places {
            let image = world.disk.crash(cairn_disk::Survival::Everything);
            image.damage(&path, |bytes| bytes[at] ^= 1 << (at % 8));
            assert_refused(&world, &image, &format!("encrypted {encrypted}, byte {at}"));
        }
    }
}

#[test]
fn a_flipped_byte_of_the_header_is_found_or_harmless() {
    for encrypted in [false, true] {
        let (world, model) = journal_without_last_word(encrypted);
        let path = world.last_segment();
        for at in (0..200).chain((200..12_288).step_by(31)).chain([4095, 4096, 8191, 8192]) {
            let image = world.disk.crash(cairn_disk::Survival::Everything);
            image.damage(&path, |bytes| bytes[at] ^= 0x10);
            match world.scan_image(&image) {
                Err(error) => {
                    let version = matches!(&error, JournalError::Format { .. });
                    assert!(error.is_damage() || error.is_wrong_key() || version, "byte {at}: {error}");
                }
                Ok((stream, report)) => {
                    assert!(at >= 8192, "byte {at} is of the identity or the key");
                    model.check(&stream, report.end);
                    assert_eq!(report.end, model.commits.last().expect("commits").0);
                }
            }
        }
    }
}

#[test]
fn a_file_cut_anywhere_is_damage() {
    let (world, _) = journal_without_last_word(true);
    let path = world.last_segment();
    let total = world.disk.len(&path).expect("length") as usize;
    let (offset, length, _) = *world.frames().last().expect("frames");
    let near = offset - 600..offset + length + 600;
    for to in (0..total).step_by(1009).chain(near.step_by(13)).chain([12_287, 12_288, 12_289, total - 1]) {
        let image = world.disk.crash(cairn_disk::Survival::Everything);
        image.damage(&path, |bytes| bytes.truncate(to));
        assert_refused(&world, &image, &format!("cut to {to}"));
    }
}

/// A group of several frames, of which any subset of blocks arrived: the cut never falls inside the transaction.
#[test]
fn a_commit_over_several_frames_is_kept_whole_or_not_at_all() {
    let world = World { segment_bytes: 1 << 20, ..World::new(Fsync::No, true) };
    let journal = world.begin();
    let mut model = Model::default();
    let before = model.append(&journal, 0, effect(1, 100), 1);
    journal.block_until_durable(before).expect("durable");
    journal.shutdown().expect("shutdown");
    drop(journal);
    let (_, report) = world.scan(Lsn::ZERO).expect("scan");
    let journal = world.start(report.resume).expect("start");
    model.append(&journal, 0, effect(2, 600_000), 2);
    let end = model.append(&journal, 0, effect(3, 100), 3);
    // Whether written at once or not, one sync covers both.
    journal.block_until_durable(end).expect("durable");
    let disk = world.disk.crash(cairn_disk::Survival::Everything);
    drop(journal);
    let world = world.into_disk(disk);
    let path = world.last_segment();
    let frames: Vec<_> = world.frames().into_iter().filter(|frame| frame.2 > before).collect();
    assert!(frames.len() >= 2);
    let (begin, to) = (frames[0].0, frames.last().map(|frame| frame.0 + frame.1).expect("frames"));
    world.disk.damage(&path, |bytes| bytes[to..].fill(0));
    for seed in 0..60 {
        let image = world.disk.crash(cairn_disk::Survival::Everything);
        let mut random = Random(seed);
        image.damage(&path, |bytes| {
            for _ in 0..=random.below(4) {
                let block = begin / 512 + random.below((to - begin) / 512);
                bytes[block * 512..][..512].fill(0);
            }
        });
        let (stream, report) =
            world.scan_image(&image).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert!(report.end >= before, "seed {seed}");
        model.check(&stream, report.end);
        assert!(report.cut.is_some());
    }
}

#[test]
fn segments_of_another_history_are_refused() {
    let world = World::new(Fsync::Always, false);
    let mut resume = Resume::at(Lsn::ZERO);
    for round in 0..3 {
        let journal = world.start(resume).expect("start");
        journal.append(0, &effect(round, 30), 1);
        journal.shutdown().expect("shutdown");
        drop(journal);
        resume = world.scan(Lsn::ZERO).expect("scan").1.resume;
    }
    let entries = Names::load(&world.disk);
    let path = |index: usize| Path::new(DIR).join(&entries[index].name);

    let image = world.disk.crash(cairn_disk::Survival::Everything);
    image.remove(&path(1)).expect("remove");
    let error = world.scan_image(&image).expect_err("missing");
    assert!(matches!(&error, JournalError::Missing { file, .. } if *file == path(1)), "{error}");

    let image = world.disk.crash(cairn_disk::Survival::Everything);
    let other = image.map(&path(1)).expect("map").bytes().to_vec();
    image.damage(&path(2), |bytes| *bytes = other);
    assert_refused(&world, &image, "another file under the name");

    // A frame of an earlier segment replaced by another of the same length and a right CRC: the chain tells.
    let image = world.disk.crash(cairn_disk::Survival::Everything);
    let file_id = entries[1].file_id;
    image.damage(&path(1), |bytes| {
        let header =
            cairn_format::frame::FrameHeader::decode(&bytes[12_288..12_288 + 504], &file_id).expect("header");
        let mut logical = Vec::new();
        cairn_format::frame::gather(&bytes[12_288..12_288 + 4096], header.logical_bytes(), &mut logical);
        let last = logical.len() - 3;
        logical[last] ^= 1;
        cairn_format::frame::seal_crc(&mut logical);
        let mut physical = Vec::new();
        cairn_format::frame::lay_out(&logical, &file_id, 12_288, &mut physical);
        bytes[12_288..12_288 + 4096].copy_from_slice(&physical);
    });
    let error = world.scan_image(&image).expect_err("forged");
    assert!(error.to_string().contains("predecessor"), "{error}");

    // Effects known to be durable that no file holds.
    let end = world.scan(Lsn::ZERO).expect("scan").1.end;
    let beyond = end.advance(1);
    let error =
        scan::<()>(&world.disk, Path::new(DIR), &entries, Lsn::ZERO, beyond, None, &mut |_, _, _| Ok(()));
    assert!(matches!(error, Err(ScanError::Journal(JournalError::Damaged(_)))));
}

#[test]
fn another_key_is_told_apart_from_damage() {
    let world = World::new(Fsync::Always, true);
    let journal = world.begin();
    journal.append(0, &effect(1, 30), 1);
    journal.shutdown().expect("shutdown");
    let other = Keyring::generate().expect("keyring");
    let error = scan_disk(&world.disk, Some(&other), Lsn::ZERO).expect_err("another key");
    assert!(error.is_wrong_key() && !error.is_damage(), "{error}");
    let error = scan_disk(&world.disk, None, Lsn::ZERO).expect_err("no key");
    assert!(error.is_wrong_key(), "{error}");
}

/// With a key at hand, a frame whose CRC was made right after a change is still found out.
#[test]
fn a_forged_frame_is_found_by_its_seal() {
    let (world, _) = journal_without_last_word(true);
    let path = world.last_segment();
    let file_id = Names::load(&world.disk).last().expect("a segment").file_id;
    let (offset, length, _) = *world.frames().last().expect("frames");
    world.disk.damage(&path, |bytes| {
        let frame = &bytes[offset..offset + length];
        let header = cairn_format::frame::FrameHeader::decode(&frame[..504], &file_id).expect("header");
        let mut logical = Vec::new();
        cairn_format::frame::gather(frame, header.logical_bytes(), &mut logical);
        let at = header.payload_from() + 5;
        logical[at] ^= 1;
        cairn_format::frame::seal_crc(&mut logical);
        let mut physical = Vec::new();
        cairn_format::frame::lay_out(&logical, &file_id, offset as u64, &mut physical);
        bytes[offset..offset + length].copy_from_slice(&physical);
    });
    assert_refused(&world, &world.disk.crash(cairn_disk::Survival::Everything), "a forged frame");
}
