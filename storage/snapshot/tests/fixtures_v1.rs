//! Snapshots of format version 1, plain and encrypted, as a released program wrote them: they stay readable for ever.
//! They are of the journals in `storage/journal/fixtures/v1`. They are never written again: a new version of the format
//! gets fixtures of its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use cairn_disk::{Disk, FaultyDisk, RealDisk};
use cairn_format::container::{BlockHeader, Index, IndexEntry};
use cairn_format::header::{Body, Identity, Magic, SnapshotBody};
use cairn_format::{FileId, FormatError, LineageId, Lsn, PAGE};
use cairn_seal::Keyring;
use cairn_snapshot::{Block, Container, Depth, SnapshotError};

const NAME: &str = "snapshot-00000000000000000221.cairn";
const CREATED_UNIX_MS: u64 = 1_795_000_000_035;

/// The entries of databases 0 and 3 as the block holds them: a string, a list of "a", "b" and 7, a string that expires at
/// 1,900,000,000,000; and the string 42.
const BLOCKS: [&[u8]; 2] = [
    b"\x00\x08greeting\x05hello\
      \x12\x04list\x01\x02\x0f\x0f\x00\x00\x00\x03\x00\x81a\x02\x81b\x02\x07\x01\xff\
      \xfc\x00\x38\xd3\x60\xba\x01\x00\x00\x00\x07session\x01x",
    b"\x00\x01n\xc0\x2a",
];

struct Fixture {
    dir: &'static str,
    encrypted: bool,
    file: u128,
    /// Of each block: its offset, stored bytes and CRC.
    stored: [(u64, u64, u32); 2],
    bytes: u64,
}

const PLAIN: Fixture = Fixture {
    dir: "plain",
    encrypted: false,
    file: 0x90bc6875_6c6f50df_914bb76c_19336358,
    stored: [(12_288, 69, 1_276_742_987), (12_397, 14, 1_173_187_029)],
    bytes: 12_631,
};

const ENCRYPTED: Fixture = Fixture {
    dir: "encrypted",
    encrypted: true,
    file: 0xc5942144_d46779fd_f1f1f46b_f8115d30,
    stored: [(12_288, 85, 1_617_874_492), (12_413, 30, 2_328_409_538)],
    bytes: 12_679,
};

impl Fixture {
    fn path(&self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/v1").join(self.dir).join(NAME)
    }

    fn index(&self) -> Index {
        let block = |number: usize| {
            let (offset, stored_bytes, crc) = self.stored[number];
            let header = BlockHeader {
                number: number as u64,
                database: [0, 3][number],
                entries: [3, 1][number],
                raw_bytes: BLOCKS[number].len() as u64,
                stored_bytes,
            };
            IndexEntry { offset, header, crc }
        };
        Index { lsn: Lsn(221), created_unix_ms: CREATED_UNIX_MS, blocks: vec![block(0), block(1)] }
    }
}

fn keyring() -> Keyring {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../seal/fixtures/v1/keyring");
    Keyring::parse(&std::fs::read(path).expect("the keyring")).expect("a keyring")
}

fn assert_opens(fixture: &Fixture) {
    let container = Container::open(&RealDisk, &fixture.path(), Some(&keyring())).expect("it opens");
    let identity = Identity {
        magic: Magic::Snapshot,
        encrypted: fixture.encrypted,
        file_id: FileId(fixture.file.to_be_bytes()),
        lineage: LineageId(*b"fixture lineage."),
        created_unix_ms: CREATED_UNIX_MS,
        body: Body::Snapshot(SnapshotBody { lsn: Lsn(221) }),
    };
    assert_eq!(*container.identity(), identity);
    assert_eq!((container.lsn(), container.bytes()), (Lsn(221), fixture.bytes));
    assert_eq!(*container.index(), fixture.index());
    let key = container.key_slot().map(|slot| (slot.key_name.as_str(), slot.sequence));
    assert_eq!(key, fixture.encrypted.then_some(("fixture-v1", 1)));
    for (number, expected) in BLOCKS.iter().enumerate() {
        assert_eq!(container.read_block(number).expect("a whole block"), *expected);
    }
    container.verify(2, Depth::Contents, &|_| {}).expect("it is whole");
    let loaded = Mutex::new(BTreeMap::new());
    let load = container.load_parallel(2, &|block: Block<'_>| {
        let entries = (block.number, block.entries, block.raw.to_vec());
        loaded.lock().map_err(|_| ())?.insert(block.database, entries);
        Ok::<(), ()>(())
    });
    load.expect("it is whole");
    let expected = BTreeMap::from([(0, (0, 3, BLOCKS[0].to_vec())), (3, (1, 1, BLOCKS[1].to_vec()))]);
    assert_eq!(loaded.into_inner().expect("no thread panicked"), expected);
}

#[test]
fn the_plain_snapshot_of_version_1_opens() {
    assert_opens(&PLAIN);
}

#[test]
fn the_encrypted_snapshot_of_version_1_opens() {
    assert_opens(&ENCRYPTED);
    let locked = Container::open_without_key(&RealDisk, &ENCRYPTED.path()).expect("checksums need no key");
    assert_eq!(*locked.index(), ENCRYPTED.index());
    locked.verify(1, Depth::Checksums, &|_| {}).expect("it is whole");
    let refused = Container::open(&RealDisk, &ENCRYPTED.path(), None).expect_err("no key");
    assert!(refused.is_wrong_key() && refused.to_string().contains("fixture-v1"), "{refused}");
}

#[test]
fn an_unknown_version_is_refused_with_both_versions_named() {
    for fixture in [PLAIN, ENCRYPTED] {
        let mut bytes = std::fs::read(fixture.path()).expect("the fixture");
        let mut page = bytes[..PAGE - 4].to_vec();
        page[8..12].copy_from_slice(&7_u32.to_le_bytes());
        cairn_format::wire::push_crc(&mut page);
        bytes[..PAGE].copy_from_slice(&page);
        let (disk, path) = (FaultyDisk::new(), Path::new("/data").join(NAME));
        disk.create_dir_all(Path::new("/data")).expect("a directory");
        disk.create_new(&path).and_then(|file| file.write_at(&bytes, 0)).expect("a file");
        for refused in [
            Container::open(&disk, &path, Some(&keyring())).expect_err("it is refused"),
            Container::open_without_key(&disk, &path).expect_err("it is refused"),
        ] {
            let newer = FormatError::UnknownVersion { found: 7, known: 1 };
            assert!(
                matches!(&refused, SnapshotError::Format { source, .. } if *source == newer),
                "{refused}"
            );
            assert!(!refused.is_damage(), "the file is whole");
            let said = refused.to_string();
            assert!(
                said.contains("version 7") && said.contains("version 1") && said.contains(NAME),
                "{said}"
            );
        }
    }
}
