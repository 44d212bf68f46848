//! Containers written and read, damaged in every place, on disks that fail.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cairn_disk::{Disk, FaultyDisk, RealDisk, Survival};
use cairn_format::container::{BLOCK_HEADER_BYTES, FOOTER_BYTES};
use cairn_format::header::{Body, Identity, Magic, SnapshotBody};
use cairn_format::{FormatError, HEADER_BYTES, LineageId, Lsn, PAGE};
use cairn_seal::{Keyring, new_data_key, new_file_id, wrap};

use super::*;

/// More than any of these children takes.
const LIMITS: ChildLimits = ChildLimits { stall: Duration::from_secs(60), copied_bytes: None };

/// Partitions of entries: database and bytes.
struct Parts(Vec<Vec<(u32, Vec<u8>)>>);

impl Source for Parts {
    fn partitions(&self) -> usize {
        self.0.len()
    }

    fn encode(&self, partition: usize, out: &mut BlockWriter<'_>) -> Result<(), SnapshotError> {
        self.0[partition]
            .iter()
            .try_for_each(|(database, bytes)| out.entry(*database, |raw| raw.extend_from_slice(bytes)))
    }
}

impl Parts {
    /// Some hundred entries of two databases: a block or two.
    fn small() -> Parts {
        let entry = |number: u32| (number / 40, format!("<entry {number}>\n").into_bytes());
        Parts((0..4).map(|part| (part * 20..part * 20 + 20).map(entry).collect()).collect())
    }

    /// Several blocks, and one entry longer than a block.
    fn large() -> Parts {
        let mut parts: Vec<Vec<_>> = (0..16_u32)
            .map(|part| {
                (0..600)
                    .map(|number| (part / 8, format!("<{part}.{number}:{}>\n", "x".repeat(90)).into_bytes()))
                    .collect()
            })
            .collect();
        let mut long = noise(BLOCK_RAW_BYTES);
        long.pop();
        long = long.repeat(20);
        long.push(b'\n');
        parts[3].push((0, long));
        Parts(parts)
    }

    fn bytes_by_database(&self) -> BTreeMap<u32, usize> {
        let mut sums = BTreeMap::new();
        for (database, bytes) in self.0.iter().flatten() {
            *sums.entry(*database).or_default() += bytes.len();
        }
        sums
    }
}

/// Bytes that do not compress, and no end of a line but the last.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let random = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    let no_line_end = |byte| if byte == b'\n' { 0 } else { byte };
    random.flatten().map(no_line_end).take(length - 1).chain([b'\n']).collect()
}

fn params(dir: &Path, keyring: Option<&Keyring>) -> WriteParams {
    let file_id = new_file_id().unwrap();
    let key = keyring.map(|keyring| {
        let key = new_data_key().unwrap();
        let slot = wrap(keyring, Magic::Snapshot, file_id, &key, 1).unwrap();
        (key, slot)
    });
    WriteParams {
        path_tmp: dir.join("snapshot-7.cairn.tmp"),
        path_final: dir.join("snapshot-7.cairn"),
        identity: Identity {
            magic: Magic::Snapshot,
            encrypted: key.is_some(),
            file_id,
            lineage: LineageId([1; 16]),
            created_unix_ms: 1_795_000_000_000,
            body: Body::Snapshot(SnapshotBody { lsn: Lsn(7) }),
        },
        key,
        threads: 2,
        level: LEVEL_DEFAULT,
    }
}

fn disk() -> FaultyDisk {
    let disk = FaultyDisk::new();
    disk.create_dir_all(Path::new("/d")).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    disk
}

fn write(disk: &dyn Disk, dir: &Path, keyring: Option<&Keyring>, parts: &Parts) -> PathBuf {
    let params = params(dir, keyring);
    write_container(disk, &params, parts, &|_| {}).unwrap();
    params.path_final
}

/// Entries by database, sorted: each ends a line.
type Entries = BTreeMap<u32, Vec<Vec<u8>>>;

/// What a load delivers.
fn load(container: &Container) -> Result<Entries, LoadError<String>> {
    let all = Mutex::new(Entries::new());
    container.load_parallel(3, &|block: Block<'_>| {
        let entries: Vec<_> = block.raw.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
        assert_eq!(entries.len() as u32, block.entries);
        all.lock().unwrap().entry(block.database).or_default().extend(entries);
        Ok(())
    })?;
    let mut all = all.into_inner().unwrap();
    all.values_mut().for_each(|entries| entries.sort_unstable());
    Ok(all)
}

fn expected(parts: &Parts) -> Entries {
    let mut all = Entries::new();
    for (database, bytes) in parts.0.iter().flatten() {
        all.entry(*database).or_default().push(bytes.clone());
    }
    all.values_mut().for_each(|entries| entries.sort_unstable());
    all
}

#[test]
fn what_is_written_is_read() {
    let keyring = Keyring::generate().unwrap();
    let dir = tempfile::tempdir().unwrap();
    for (number, keyring) in [None, Some(&keyring)].into_iter().enumerate() {
        for (size, parts) in [Parts(Vec::new()), Parts::small(), Parts::large()].into_iter().enumerate() {
            let dir = dir.path().join(format!("{number}-{size}"));
            RealDisk.create_dir_all(&dir).unwrap();
            let params = params(&dir, keyring);
            let seen = Mutex::new(Progress::default());
            let summary =
                write_container(&RealDisk, &params, &parts, &|progress| *seen.lock().unwrap() = progress)
                    .unwrap();
            let container = Container::open(&RealDisk, &params.path_final, keyring).unwrap();
            assert_eq!(load(&container).unwrap(), expected(&parts));
            assert_eq!(*container.identity(), params.identity);
            assert_eq!((container.lsn(), container.bytes()), (Lsn(7), summary.bytes));
            assert_eq!(summary.entries, parts.0.iter().map(|part| part.len() as u64).sum::<u64>());
            assert_eq!(summary.raw_bytes, parts.bytes_by_database().values().sum::<usize>() as u64);
            assert_eq!(seen.lock().unwrap().raw_bytes, summary.raw_bytes);
            container.verify(2, Depth::Contents, &|_| {}).unwrap();
            let sum: usize = (0..container.index().blocks.len())
                .map(|number| container.read_block(number).unwrap().len())
                .sum();
            assert_eq!(sum as u64, summary.raw_bytes);
            let names: Vec<String> =
                RealDisk.list(&dir).unwrap().into_iter().map(|entry| entry.name).collect();
            assert_eq!(names, ["snapshot-7.cairn"], "nothing else is left");
        }
    }
}

/// Values that do not compress switch a thread to a quicker level, and those that do switch it back.
#[test]
fn incompressible_entries_cost_little_and_do_not_spoil_the_others() {
    let disk = disk();
    let noisy = noise(BLOCK_RAW_BYTES);
    let plain = b"the same line again and again\n".repeat(BLOCK_RAW_BYTES / 30 + 1);
    let part = |entry: &Vec<u8>, count| vec![(0, entry.clone()); count];
    let parts = Parts(vec![part(&noisy, 20), part(&plain, 40)]);
    let params = WriteParams { threads: 1, ..params(Path::new("/d"), None) };
    write_container(&disk, &params, &parts, &|_| {}).unwrap();
    let container = Container::open(&disk, &params.path_final, None).unwrap();
    container.verify(1, Depth::Contents, &|_| {}).unwrap();
    let stored: u64 = container.index().blocks.iter().skip(20).map(|block| block.header.stored_bytes).sum();
    assert!(stored < 40 * BLOCK_RAW_BYTES as u64 / 100, "{stored} bytes");
}

#[test]
fn entries_stay_in_order_within_a_partition_and_blocks_are_of_one_database() {
    let disk = disk();
    let parts = Parts(vec![Parts::small().0.concat()]);
    let path = write(&disk, Path::new("/d"), None, &parts);
    let container = Container::open(&disk, &path, None).unwrap();
    let databases: Vec<u32> = container.index().blocks.iter().map(|block| block.header.database).collect();
    assert_eq!(databases, [0, 1]);
    let bytes: Vec<u8> = parts.0[0].iter().flat_map(|(_, bytes)| bytes.clone()).collect();
    assert_eq!([container.read_block(0).unwrap(), container.read_block(1).unwrap()].concat(), bytes);
    assert!(container.read_block(2).unwrap_err().is_damage());
}

#[test]
fn nothing_written_is_plain_when_encrypted() {
    let disk = disk();
    let path = write(&disk, Path::new("/d"), Some(&Keyring::generate().unwrap()), &Parts::small());
    let mapping = disk.map(&path).unwrap();
    assert!(!mapping.bytes().windows(7).any(|window| window == b"<entry "));
}

#[test]
fn a_wrong_or_missing_key_is_told_and_checksums_need_none() {
    let keyring = Keyring::generate().unwrap();
    let disk = disk();
    let path = write(&disk, Path::new("/d"), Some(&keyring), &Parts::small());
    let missing = Container::open(&disk, &path, None).unwrap_err();
    assert!(missing.is_wrong_key() && missing.to_string().contains(keyring.active().name()), "{missing}");
    assert!(Container::open(&disk, &path, Some(&Keyring::generate().unwrap())).unwrap_err().is_wrong_key());

    let locked = Container::open_without_key(&disk, &path).unwrap();
    locked.verify(2, Depth::Contents, &|_| {}).unwrap();
    assert!(locked.read_block(0).unwrap_err().is_wrong_key());
    let open = Container::open(&disk, &path, Some(&keyring)).unwrap();
    assert_eq!(locked.index(), open.index());
}

/// Opens, loads and verifies; gives what was loaded.
fn read_all(disk: &FaultyDisk, path: &Path, keyring: Option<&Keyring>) -> Result<Entries, SnapshotError> {
    let container = Container::open(disk, path, keyring)?;
    container.verify(1, Depth::Checksums, &|_| {})?;
    load(&container).map_err(|error| match error {
        LoadError::Snapshot(error) => error,
        LoadError::Sink(sink) => panic!("{sink}"),
    })
}

/// Every byte of a small container; of the padding in the header's pages, which one checksum covers, each 17th.
fn places(length: usize) -> impl Iterator<Item = usize> {
    let is_padding = |at: &usize| *at < HEADER_BYTES && (160..PAGE - 8).contains(&(at % PAGE));
    (0..length).filter(move |at| !is_padding(at) || at % 17 == 0)
}

#[test]
fn every_flipped_byte_is_refused() {
    let keyring = Keyring::generate().unwrap();
    for keyring in [None, Some(&keyring)] {
        let disk = disk();
        let parts = Parts::small();
        let path = write(&disk, Path::new("/d"), keyring, &parts);
        let length = usize::try_from(disk.len(&path).unwrap()).unwrap();
        for at in places(length) {
            disk.damage(&path, |bytes| bytes[at] ^= 1 << (at % 8));
            let read = read_all(&disk, &path, keyring);
            let spare_slot = keyring.is_some() && (2 * PAGE..3 * PAGE).contains(&at);
            if spare_slot {
                // A torn rewrapping is no damage while the other slot is whole.
                assert_eq!(read.unwrap(), expected(&parts), "byte {at}");
            } else {
                assert!(
                    read.as_ref().is_err_and(SnapshotError::is_damage),
                    "byte {at} of {length}: {read:?}"
                );
            }
            disk.damage(&path, |bytes| bytes[at] ^= 1 << (at % 8));
        }
        assert_eq!(read_all(&disk, &path, keyring).unwrap(), expected(&parts));
    }
}

fn passed(bytes: &[u8], pieces: usize, keyring: Option<&Arc<Keyring>>) -> Passed {
    let mut passing = Passing::new(keyring.cloned(), 2);
    bytes.chunks(pieces).for_each(|piece| passing.take(piece));
    passing.finish()
}

#[test]
fn a_container_that_passes_by_is_verified_like_one_that_lies_there() {
    let keyring = Arc::new(Keyring::generate().unwrap());
    let other = Arc::new(Keyring::generate().unwrap());
    for keyring in [None, Some(&keyring)] {
        for parts in [Parts(Vec::new()), Parts::small(), Parts::large()] {
            let disk = disk();
            let path = write(&disk, Path::new("/d"), keyring.map(|keyring| &**keyring), &parts);
            let container = Container::open(&disk, &path, keyring.map(|keyring| &**keyring)).unwrap();
            let bytes = disk.map(&path).unwrap().bytes().to_vec();
            for pieces in [7, 4096, 1 << 20, bytes.len()] {
                assert!(container.is_passed(&passed(&bytes, pieces, keyring)), "{pieces}");
            }
            assert!(!container.is_passed(&Passed::default()));
            let mut longer = bytes.clone();
            longer.push(0);
            assert!(!container.is_passed(&passed(&longer, 4096, keyring)));
            for at in places(bytes.len()).step_by(bytes.len() / 300) {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1;
                assert!(!container.is_passed(&passed(&flipped, 65_536, keyring)), "byte {at}");
                assert!(!container.is_passed(&passed(&bytes[..at], 65_536, keyring)), "cut at {at}");
            }
            if keyring.is_some() {
                assert!(!container.is_passed(&passed(&bytes, 4096, Some(&other))), "another key");
                let closed = Container::open_without_key(&disk, &path).unwrap();
                assert!(closed.is_passed(&passed(&bytes, 4096, None)), "its checksums are right");
            }
        }
    }
}

#[test]
fn a_container_cut_anywhere_is_refused() {
    let keyring = Keyring::generate().unwrap();
    for keyring in [None, Some(&keyring)] {
        let disk = disk();
        let path = write(&disk, Path::new("/d"), keyring, &Parts::small());
        let whole = disk.map(&path).unwrap().bytes().to_vec();
        for length in places(whole.len()) {
            disk.damage(&path, |bytes| bytes.truncate(length));
            assert!(read_all(&disk, &path, keyring).unwrap_err().is_damage(), "cut at {length}");
            assert!(Container::open_without_key(&disk, &path).unwrap_err().is_damage(), "cut at {length}");
            disk.damage(&path, |bytes| bytes.clone_from(&whole));
        }
        disk.damage(&path, |bytes| bytes.push(0));
        assert!(read_all(&disk, &path, keyring).unwrap_err().is_damage());
    }
}

/// Mends all checksums after a change, as one who knows the format but not the key can.
#[test]
fn changes_under_right_checksums_are_forgeries() {
    let keyring = Keyring::generate().unwrap();
    let disk = disk();
    let path = write(&disk, Path::new("/d"), Some(&keyring), &Parts::small());
    let container = Container::open(&disk, &path, Some(&keyring)).unwrap();
    let blocks = container.index().blocks.clone();
    let whole = disk.map(&path).unwrap().bytes().to_vec();
    let refused = |change: &dyn Fn(&mut Vec<u8>)| {
        disk.damage(&path, |bytes| {
            bytes.clone_from(&whole);
            change(bytes);
        });
        let error = read_all(&disk, &path, Some(&keyring)).unwrap_err();
        assert!(matches!(error, SnapshotError::Damaged { .. }), "{error}");
    };
    let page_crc = |bytes: &mut [u8]| {
        let mut covered = bytes[..PAGE - 4].to_vec();
        cairn_format::wire::push_crc(&mut covered);
        bytes[..PAGE].copy_from_slice(&covered);
    };
    // The lineage and the time of creation.
    refused(&|bytes| {
        bytes[32] ^= 1;
        page_crc(bytes);
    });
    // One bit of a block and its checksum.
    refused(&|bytes| {
        let entry = blocks[0];
        let start = usize::try_from(entry.offset).unwrap() + BLOCK_HEADER_BYTES;
        let end = usize::try_from(entry.end()).unwrap();
        bytes[start] ^= 1;
        let crc = entry.header.crc(&bytes[start..end]);
        bytes[start - BLOCK_HEADER_BYTES..start].copy_from_slice(&entry.header.encode(crc));
    });
    // Two blocks of equal length change places: their numbers stay with them, so only the index can tell.
    refused(&|bytes| {
        let start = usize::try_from(blocks.iter().map(|block| block.offset).min().unwrap()).unwrap();
        let end = usize::try_from(blocks.iter().map(|block| block.end()).max().unwrap()).unwrap();
        let first = blocks.iter().min_by_key(|block| block.offset).unwrap();
        bytes[start..end].rotate_left(usize::try_from(first.end() - first.offset).unwrap());
    });
    // One bit of the index and its checksum.
    refused(&|bytes| {
        let end = bytes.len() - FOOTER_BYTES;
        let start = usize::try_from(blocks.iter().map(|block| block.end()).max().unwrap()).unwrap();
        let mut index = bytes[start..end - 4].to_vec();
        index[3] ^= 1;
        cairn_format::wire::push_crc(&mut index);
        bytes[start..end].copy_from_slice(&index);
    });
}

#[test]
fn a_plain_block_that_claims_to_be_huge_allocates_nothing() {
    let disk = disk();
    let path = write(&disk, Path::new("/d"), None, &Parts(vec![vec![(0, b"tiny".to_vec())]]));
    let container = Container::open(&disk, &path, None).unwrap();
    let (entry, mut index) = (container.index().blocks[0], container.index().clone());
    disk.damage(&path, |bytes| {
        let start = HEADER_BYTES + BLOCK_HEADER_BYTES;
        let end = usize::try_from(entry.end()).unwrap();
        let mut header = entry.header;
        header.raw_bytes = 1 << 50;
        let crc = header.crc(&bytes[start..end]);
        bytes[HEADER_BYTES..start].copy_from_slice(&header.encode(crc));
        (index.blocks[0].header, index.blocks[0].crc) = (header, crc);
        let mut encoded = index.encode();
        cairn_format::wire::push_crc(&mut encoded);
        bytes[end..end + encoded.len()].copy_from_slice(&encoded);
    });
    let error = read_all(&disk, &path, None).unwrap_err();
    assert!(matches!(error, SnapshotError::Damaged { what: "length of a block", .. }), "{error}");
}

#[test]
fn a_container_cut_while_it_is_read_is_an_error_with_file_and_offset() {
    let dir = tempfile::tempdir().unwrap();
    let path = write(&RealDisk, dir.path(), None, &Parts::large());
    let container = Container::open(&RealDisk, &path, None).unwrap();
    RealDisk.open_write(&path).unwrap().set_len(HEADER_BYTES as u64).unwrap();
    let error = load(&container).unwrap_err();
    assert!(matches!(error, LoadError::Snapshot(SnapshotError::Unreadable(_))), "{error}");
    assert!(error.to_string().contains("snapshot-7.cairn: offset "), "{error}");
}

#[test]
fn a_full_disk_leaves_nothing_behind() {
    for room in [0, 5000, 13_000, 20_000, 100_000] {
        let disk = disk();
        disk.limit_space(Some(room));
        let failed =
            write_container(&disk, &params(Path::new("/d"), None), &Parts::large(), &|_| {}).unwrap_err();
        let is_full = |error: &io::Error| error.kind() == io::ErrorKind::StorageFull;
        assert!(matches!(&failed, SnapshotError::Io { source, .. } if is_full(source)), "{failed}");
        assert_eq!(disk.list(Path::new("/d")).unwrap(), [], "{room} bytes of room");
    }
}

#[test]
fn a_name_means_a_whole_container_wherever_the_power_goes() {
    let keyring = Keyring::generate().unwrap();
    let parts = Parts::small();
    let mut named = 0;
    for operations in 0.. {
        let disk = disk();
        disk.power_off_after(operations);
        let written = write_container(&disk, &params(Path::new("/d"), Some(&keyring)), &parts, &|_| {});
        for survival in [Survival::Nothing, Survival::Everything, Survival::Sectors(operations)] {
            let after = disk.crash(survival);
            let path = Path::new("/d/snapshot-7.cairn");
            if after.exists(path).unwrap() {
                assert_eq!(read_all(&after, path, Some(&keyring)).unwrap(), expected(&parts));
                named += 1;
            } else {
                assert!(written.is_err(), "{survival:?} lost a finished container");
            }
        }
        if written.is_ok() {
            break;
        }
    }
    assert!(named >= 3);
}

#[test]
fn a_failed_sync_ends_the_snapshot() {
    for skip in 0..2 {
        let disk = disk();
        disk.fail_syncs(skip, 1);
        let failed = write_container(&disk, &params(Path::new("/d"), None), &Parts::small(), &|_| {});
        assert!(matches!(failed, Err(SnapshotError::Io { .. })));
    }
}

#[test]
fn a_container_is_never_overwritten_and_a_free_name_is_found() {
    let disk = disk();
    let path = write(&disk, Path::new("/d"), None, &Parts::small());
    let before = disk.map(&path).unwrap().bytes().to_vec();
    let taken = write_container(&disk, &params(Path::new("/d"), None), &Parts::large(), &|_| {});
    assert!(matches!(taken, Err(SnapshotError::Io { .. })));
    assert_eq!(disk.map(&path).unwrap().bytes(), before);
    let free = || free_name(&disk.list(Path::new("/d")).unwrap(), Lsn(7));
    assert_eq!(free(), "snapshot-00000000000000000007.cairn");
    disk.create_new(&Path::new("/d").join(free())).unwrap();
    assert_eq!(free(), "snapshot-00000000000000000007.1.cairn");
}

#[test]
fn a_leftover_of_an_earlier_try_is_no_hindrance() {
    let disk = disk();
    disk.create_new(Path::new("/d/snapshot-7.cairn.tmp")).unwrap().write_at(&noise(100_000), 0).unwrap();
    let path = write(&disk, Path::new("/d"), None, &Parts::small());
    assert_eq!(read_all(&disk, &path, None).unwrap(), expected(&Parts::small()));
}

#[test]
fn errors_of_the_sink_and_panics_of_the_source_come_back() {
    struct Panicking;
    impl Source for Panicking {
        fn partitions(&self) -> usize {
            3
        }
        fn encode(&self, _: usize, _: &mut BlockWriter<'_>) -> Result<(), SnapshotError> {
            panic!("no entries today")
        }
    }
    let disk = disk();
    let failed = write_container(&disk, &params(Path::new("/d"), None), &Panicking, &|_| {}).unwrap_err();
    assert!(failed.to_string().contains("no entries today"), "{failed}");
    assert_eq!(disk.list(Path::new("/d")).unwrap(), []);

    let path = write(&disk, Path::new("/d"), None, &Parts::large());
    let container = Container::open(&disk, &path, None).unwrap();
    let refused = container.load_parallel(2, &|block: Block<'_>| Err(block.offset));
    assert!(matches!(refused, Err(LoadError::Sink(offset)) if offset >= HEADER_BYTES as u64));
}

#[test]
fn a_forked_child_writes_the_memory_as_it_was() {
    let keyring = Keyring::generate().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let params = params(dir.path(), Some(&keyring));
    let mut parts = Parts::large();
    let before = expected(&parts);
    let child = fork_writer(&RealDisk, &params, &parts).unwrap();
    for (_, bytes) in parts.0.iter_mut().flatten() {
        bytes.fill(b'\n');
    }
    let mut entries = 0;
    let summary = child.wait_summary(LIMITS, &mut |progress| entries = progress.entries).unwrap();
    assert_eq!((summary.entries, entries), (9601, 9601));
    let container = Container::open(&RealDisk, &params.path_final, Some(&keyring)).unwrap();
    assert_eq!(load(&container).unwrap(), before);
}

#[test]
fn a_child_reports_its_error_and_one_that_is_killed_leaves_no_named_file() {
    let dir = tempfile::tempdir().unwrap();
    let absent = params(&dir.path().join("absent"), None);
    let child = fork_writer(&RealDisk, &absent, &Parts::small()).unwrap();
    let failed = child.wait_summary(LIMITS, &mut |_| {}).unwrap_err();
    assert!(matches!(&failed, ChildError::Reported { message } if message.contains("absent")), "{failed}");

    struct Endless;
    impl Source for Endless {
        fn partitions(&self) -> usize {
            usize::MAX
        }
        fn encode(&self, _: usize, out: &mut BlockWriter<'_>) -> Result<(), SnapshotError> {
            out.entry(0, |raw| raw.extend_from_slice(&[7; 1000]))
        }
    }
    let params = params(dir.path(), None);
    let child = fork_writer(&RealDisk, &params, &Endless).unwrap();
    let killed = child.wait_summary(LIMITS, &mut |progress| {
        if progress.entries > 0 {
            child.kill();
        }
    });
    assert!(matches!(killed, Err(ChildError::Signalled { signal: 9 })), "{killed:?}");
    assert!(!RealDisk.exists(&params.path_final).unwrap());
}

#[test]
fn a_newer_version_is_named_not_called_damage_of_a_block() {
    let disk = disk();
    let path = write(&disk, Path::new("/d"), None, &Parts::small());
    disk.damage(&path, |bytes| {
        let mut page = bytes[..PAGE - 4].to_vec();
        page[8] = 9;
        cairn_format::wire::push_crc(&mut page);
        bytes[..PAGE].copy_from_slice(&page);
    });
    let refused = Container::open(&disk, &path, None).unwrap_err();
    let newer = FormatError::UnknownVersion { found: 9, known: 1 };
    assert!(matches!(refused, SnapshotError::Format { source, .. } if source == newer));
}
