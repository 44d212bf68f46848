use super::*;
use crate::write_file_atomically;

fn disk() -> FaultyDisk {
    let disk = FaultyDisk::new();
    disk.create_dir_all(Path::new("/d")).unwrap();
    disk
}

fn contents(disk: &FaultyDisk, path: &str) -> Option<Vec<u8>> {
    disk.map(Path::new(path)).ok().map(|mapping| mapping.bytes().to_vec())
}

#[test]
fn only_what_was_synced_survives_a_crash() {
    let disk = disk();
    let file = disk.create_new(Path::new("/d/a")).unwrap();
    file.write_at(b"one", 0).unwrap();
    file.sync_data().unwrap();
    assert_eq!(contents(&disk.crash(Survival::Nothing), "/d/a"), None, "the name was not synced");
    disk.sync_dir(Path::new("/d")).unwrap();
    file.write_at(b"two", 0).unwrap();
    assert_eq!(contents(&disk.crash(Survival::Nothing), "/d/a").unwrap(), b"one");
    assert_eq!(contents(&disk.crash(Survival::Everything), "/d/a").unwrap(), b"two");
}

#[test]
fn sectors_survive_each_for_itself_and_the_same_by_the_same_seed() {
    let disk = disk();
    let file = disk.create_new(Path::new("/d/a")).unwrap();
    file.allocate(64 * 512).unwrap();
    file.sync_all().unwrap();
    disk.sync_dir(Path::new("/d")).unwrap();
    file.write_at(&[1; 64 * 512], 0).unwrap();
    let image = contents(&disk.crash(Survival::Sectors(7)), "/d/a").unwrap();
    let whole = image.chunks(512).filter(|sector| sector.iter().all(|byte| *byte == 1)).count();
    let none = image.chunks(512).filter(|sector| sector.iter().all(|byte| *byte == 0)).count();
    assert_eq!(whole + none, 64);
    assert!(whole > 10 && none > 10, "{whole} sectors of 64 survived");
    assert_eq!(contents(&disk.crash(Survival::Sectors(7)), "/d/a").unwrap(), image);
    assert_ne!(contents(&disk.crash(Survival::Sectors(8)), "/d/a").unwrap(), image);
}

/// Linux reports a failed write-back once and marks the pages clean: the next sync succeeds without them.
#[test]
fn a_failed_sync_loses_its_bytes_although_a_later_one_succeeds() {
    let disk = disk();
    let file = disk.create_new(Path::new("/d/a")).unwrap();
    disk.sync_dir(Path::new("/d")).unwrap();
    disk.fail_syncs(0, 1);
    file.write_at(b"lost", 0).unwrap();
    assert_eq!(file.sync_data().unwrap_err().raw_os_error(), Some(libc::EIO));
    file.write_at(b"kept", 4).unwrap();
    file.sync_data().unwrap();
    assert_eq!(contents(&disk, "/d/a").unwrap(), b"lostkept");
    assert_eq!(contents(&disk.crash(Survival::Nothing), "/d/a").unwrap(), b"\0\0\0\0kept");
}

#[test]
fn writes_fail_when_told_and_leave_half() {
    let disk = disk();
    let file = disk.create_new(Path::new("/d/a")).unwrap();
    disk.fail_writes(1, 2);
    file.write_at(b"good", 0).unwrap();
    file.write_at(b"half", 4).unwrap_err();
    file.write_at(b"half", 4).unwrap_err();
    assert_eq!(contents(&disk, "/d/a").unwrap(), b"goodha");
    file.write_at(b"full", 4).unwrap();
    assert_eq!(contents(&disk, "/d/a").unwrap(), b"goodfull");
}

#[test]
fn a_full_disk_refuses_growth_and_takes_it_once_there_is_room() {
    let disk = disk();
    let file = disk.create_new(Path::new("/d/a")).unwrap();
    file.write_at(&[1; 100], 0).unwrap();
    disk.limit_space(Some(4096));
    file.write_at(&[2; 5000], 0).unwrap();
    let error = file.write_at(&[3; 5000], 5000).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    let written = contents(&disk, "/d/a").unwrap();
    assert_eq!(written.len(), 8192, "a write is cut where the disk is full");
    assert_eq!(written.last(), Some(&3));
    assert_eq!(file.allocate(8193).unwrap_err().kind(), io::ErrorKind::StorageFull);
    disk.limit_space(None);
    file.allocate(8193).unwrap();
    let other = disk.create_new(Path::new("/d/b")).unwrap();
    disk.limit_space(Some(0));
    other.write_at(b"x", 0).unwrap_err();
    disk.remove(Path::new("/d/a")).unwrap();
    other.write_at(b"x", 0).unwrap();
}

/// Which sectors a failed sync saved nobody knows, and the later ones save none of the others.
#[test]
fn a_failed_sync_may_have_saved_a_part() {
    let image = |seed| {
        let disk = FaultyDisk::seeded(seed);
        disk.create_dir_all(Path::new("/d")).unwrap();
        let file = disk.create_new(Path::new("/d/a")).unwrap();
        file.allocate(64 * 512).unwrap();
        file.sync_all().unwrap();
        disk.sync_dir(Path::new("/d")).unwrap();
        file.write_at(&[1; 64 * 512], 0).unwrap();
        disk.fail_syncs(0, 1);
        file.sync_data().unwrap_err();
        file.sync_data().unwrap();
        contents(&disk.crash(Survival::Sectors(1)), "/d/a").unwrap()
    };
    let saved = image(3).chunks(512).filter(|sector| sector[0] == 1).count();
    assert!((10..54).contains(&saved), "{saved} sectors of 64 were saved");
    assert_eq!(image(3), image(3));
    assert_ne!(image(3), image(4));
}

#[test]
fn a_torn_sector_is_neither_old_nor_new() {
    let disk = disk();
    let file = disk.create_new(Path::new("/d/a")).unwrap();
    file.allocate(8 * 512).unwrap();
    file.sync_all().unwrap();
    disk.sync_dir(Path::new("/d")).unwrap();
    file.write_at(&[1; 8 * 512], 0).unwrap();
    let torn = (0..20).filter(|seed| {
        let image = contents(&disk.crash(Survival::Torn(*seed)), "/d/a").unwrap();
        image.chunks(512).any(|sector| sector.contains(&0) && sector.contains(&1))
    });
    // The part that is put in place may be the sector's own.
    assert!(torn.count() > 5);
}

#[test]
fn reads_fail_when_told() {
    let disk = disk();
    let file = disk.create_new(Path::new("/d/a")).unwrap();
    file.write_at(b"good", 0).unwrap();
    disk.fail_reads(1, 2);
    let mut buf = [0; 4];
    file.read_exact_at(&mut buf, 0).unwrap();
    file.read_exact_at(&mut buf, 0).unwrap_err();
    assert_eq!(disk.map(Path::new("/d/a")).unwrap_err().raw_os_error(), Some(libc::EIO));
    file.read_exact_at(&mut buf, 0).unwrap();
    assert_eq!(&buf, b"good");
}

#[test]
fn syncs_take_the_time_they_are_told_to() {
    use std::sync::atomic::{AtomicU64, Ordering};
    let disk = disk();
    let file = disk.create_new(Path::new("/d/a")).unwrap();
    let waits = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&waits);
    disk.slow_syncs(Some(Arc::new(move || _ = counted.fetch_add(1, Ordering::Relaxed))));
    file.sync_data().unwrap();
    disk.sync_dir(Path::new("/d")).unwrap();
    disk.mend();
    file.sync_data().unwrap();
    assert_eq!(waits.load(Ordering::Relaxed), 2);
}

#[test]
fn rot_changes_one_bit_for_good() {
    let disk = disk();
    let file = disk.create_new(Path::new("/d/a")).unwrap();
    file.write_at(&[0; 100], 0).unwrap();
    let (path, offset) = disk.rot(5).unwrap();
    let rotten = contents(&disk, "/d/a").unwrap();
    assert_eq!((path.as_path(), rotten[offset].count_ones()), (Path::new("/d/a"), 1));
    assert_eq!(rotten.iter().map(|byte| byte.count_ones()).sum::<u32>(), 1);
}

#[test]
fn an_atomic_write_is_whole_or_not_there_wherever_the_power_goes() {
    let path = Path::new("/d/manifest");
    for survival in (0..20).map(Survival::Sectors).chain([Survival::Nothing, Survival::Everything]) {
        for operations in 0..=6 {
            let disk = disk();
            write_file_atomically(&disk, path, &[1; 2000]).unwrap();
            disk.power_off_after(operations);
            let written = write_file_atomically(&disk, path, &[2; 3000]);
            assert_eq!(written.is_ok(), operations >= 5, "{operations}");
            let found = contents(&disk.crash(survival), "/d/manifest").unwrap();
            assert!(
                found == [2; 3000] || (found == [1; 2000] && written.is_err()),
                "{survival:?} {operations}"
            );
        }
    }
}
