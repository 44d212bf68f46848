//! Journals of format version 1, plain and encrypted, as a released program wrote them: they stay readable for ever. Each
//! is of two segments, split at the LSN of the snapshot in `storage/snapshot/fixtures/v1`; the manifests that name them
//! are in `storage/seal/fixtures/v1`. They are never written again: a new version of the format gets fixtures of its own.

use std::path::{Path, PathBuf};

use cairn_disk::{Disk, FaultyDisk, RealDisk};
use cairn_format::header::{JournalBody, Magic, Predecessor};
use cairn_format::manifest::SegmentEntry;
use cairn_format::{FileId, FormatError, LineageId, Lsn, PAGE};
use cairn_journal::{Frame, JournalError, SegmentReader, durable_prefix, scan};
use cairn_seal::{Keyring, SealError};

/// Milliseconds since 1970 at the first commit; one every ten later.
const FIRST_MS: u64 = 1_795_000_000_000;
const LINEAGE: LineageId = LineageId(*b"fixture lineage.");
const SPLIT: Lsn = Lsn(221);
const END: Lsn = Lsn(5364);

/// What was drawn at random or read from a clock when a fixture was written.
struct Fixture {
    dir: &'static str,
    encrypted: bool,
    files: [u128; 2],
    created_unix_ms: [u64; 2],
    /// Hash chain at the end of each segment.
    chains: [[u8; 32]; 2],
}

const PLAIN: Fixture = Fixture {
    dir: "plain",
    encrypted: false,
    files: [0xb2f257ec_57a0c270_93e344ec_9930720e, 0x25a3d6ed_c9f37d9d_a62ff0b8_1d3b997c],
    created_unix_ms: [1_795_459_770_533, 1_795_459_770_547],
    chains: [
        [
            0x7b, 0xc3, 0xf9, 0xde, 0xd3, 0x80, 0xd0, 0x7a, 0x18, 0x82, 0x01, 0xc1, 0x89, 0x5d, 0x7c, 0xcf,
            0x51, 0x42, 0xd9, 0xa9, 0x5b, 0xd9, 0x9a, 0x9f, 0x56, 0xdc, 0x0a, 0xcd, 0xdd, 0x44, 0x8b, 0x09,
        ],
        [
            0x64, 0xc8, 0xa4, 0xc4, 0x89, 0xbf, 0xdd, 0x89, 0x6f, 0x2f, 0x2d, 0xfb, 0x58, 0xc4, 0xa8, 0xcc,
            0x2f, 0xfd, 0xe6, 0x97, 0xef, 0x21, 0x96, 0x5b, 0x38, 0xc8, 0xad, 0xca, 0x8d, 0x6c, 0x92, 0xdf,
        ],
    ],
};

const ENCRYPTED: Fixture = Fixture {
    dir: "encrypted",
    encrypted: true,
    files: [0xde744af7_8842b3c7_4f284758_94c1a933, 0x57b9fe08_fe65fd99_e7506a96_68eb15df],
    created_unix_ms: [1_795_459_770_587, 1_795_459_770_598],
    chains: [
        [
            0x75, 0xf8, 0x1c, 0x61, 0x2f, 0x99, 0xd2, 0x5d, 0xa5, 0x49, 0x7a, 0xa3, 0x42, 0x69, 0xaf, 0x5e,
            0xa0, 0x46, 0x07, 0x3f, 0xdc, 0x2e, 0x87, 0x20, 0x0d, 0x72, 0x6d, 0x7f, 0x35, 0x28, 0xbe, 0xea,
        ],
        [
            0x44, 0x2b, 0xa9, 0x9c, 0x49, 0x08, 0x8a, 0xf9, 0x83, 0x87, 0x8d, 0xa8, 0x19, 0x82, 0x60, 0x13,
            0xff, 0x8a, 0x0d, 0x22, 0x04, 0x50, 0x3c, 0xcf, 0x9a, 0x84, 0xac, 0xc3, 0x5c, 0x5a, 0xef, 0x5a,
        ],
    ],
};

impl Fixture {
    fn file_id(&self, segment: usize) -> FileId {
        FileId(self.files[segment].to_be_bytes())
    }

    fn dir(&self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/v1").join(self.dir)
    }

    fn path(&self, segment: usize) -> PathBuf {
        self.dir().join(name(segment))
    }

    fn entries(&self) -> Vec<SegmentEntry> {
        let entry = |segment| SegmentEntry {
            name: name(segment),
            file_id: self.file_id(segment),
            first_lsn: [Lsn::ZERO, SPLIT][segment],
        };
        vec![entry(0), entry(1)]
    }
}

fn name(segment: usize) -> String {
    ["journal-00000000000000000000", "journal-00000000000000000221"][segment].to_owned()
}

fn keyring() -> Keyring {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../seal/fixtures/v1/keyring");
    Keyring::parse(&std::fs::read(path).expect("the keyring")).expect("a keyring")
}

fn effect(words: &[&str]) -> Vec<u8> {
    let words = words.iter().map(|word| format!("${}\r\n{word}\r\n", word.len())).collect::<String>();
    format!("*{}\r\n{words}", words.matches('$').count()).into_bytes()
}

/// The commits of each segment with the database selected after them; a SELECT stands before those that change it.
fn commits() -> [Vec<(Vec<u8>, u32)>; 2] {
    let long = "cairn".repeat(1000);
    [
        vec![
            ([effect(&["SELECT", "0"]), effect(&["SET", "greeting", "hello"])].concat(), 0),
            (effect(&["RPUSH", "list", "a", "b", "7"]), 0),
            (effect(&["SET", "session", "x", "PXAT", "1900000000000"]), 0),
            ([effect(&["SELECT", "3"]), effect(&["SET", "n", "42"])].concat(), 3),
        ],
        vec![
            (effect(&["SET", "n", "43"]), 3),
            (
                [effect(&["SELECT", "0"]), effect(&["DEL", "list"]), effect(&["SADD", "set", "1", "2"])]
                    .concat(),
                0,
            ),
            (effect(&["SET", "long", &long]), 0),
        ],
    ]
}

/// The frames of a segment: each commit waited for the sync of the one before it, so each has a frame of its own.
fn frames(segment: usize) -> Vec<Frame> {
    use cairn_format::frame::TimeStamp;
    let (mut frames, mut offset) = (Vec::new(), 12_288);
    let (mut lsn, mut database, mut unix_ms) = [(Lsn::ZERO, 0, FIRST_MS), (SPLIT, 3, FIRST_MS + 40)][segment];
    for (payload, commit_database) in commits()[segment].clone() {
        let end = lsn.advance(payload.len());
        let file_bytes = if payload.len() > 4000 { 8192 } else { 4096 };
        let stamps = vec![TimeStamp { lsn, unix_ms }];
        let number = frames.len() as u64;
        frames.push(Frame {
            number,
            first_lsn: lsn,
            payload,
            database,
            durable: lsn,
            commit_lsn: end,
            commit_database,
            stamps,
            offset,
            file_bytes,
        });
        (lsn, database, unix_ms, offset) = (end, commit_database, unix_ms + 10, offset + file_bytes);
    }
    if segment == 1 {
        // The shutdown leaves a frame that says what is durable.
        frames.push(Frame {
            number: 3,
            first_lsn: END,
            payload: Vec::new(),
            database: 0,
            durable: END,
            commit_lsn: END,
            commit_database: 0,
            stamps: Vec::new(),
            offset,
            file_bytes: 4096,
        });
    }
    frames
}

fn assert_segments(fixture: &Fixture) {
    let keyring = keyring();
    let mut point: Option<Predecessor> = None;
    for segment in [0, 1] {
        let path = fixture.path(segment);
        let mut reader = SegmentReader::open(&RealDisk, &path, Some(&keyring)).expect("it opens");
        let first_lsn = [Lsn::ZERO, SPLIT][segment];
        let identity = reader.identity().clone();
        assert_eq!(identity.magic, Magic::Journal);
        assert_eq!(identity.encrypted, fixture.encrypted);
        assert_eq!(identity.file_id, fixture.file_id(segment));
        assert_eq!(identity.lineage, LINEAGE);
        assert_eq!(identity.created_unix_ms, fixture.created_unix_ms[segment]);
        assert_eq!(*reader.body(), JournalBody { first_lsn, epoch: 1, predecessor: point });
        let read: Vec<Frame> = reader.by_ref().map(|frame| frame.expect("a whole frame")).collect();
        assert_eq!(read, frames(segment));
        let end_lsn = [SPLIT, END][segment];
        let expected =
            Predecessor { file_id: fixture.file_id(segment), end_lsn, chain: fixture.chains[segment] };
        assert_eq!(reader.point(), expected);

        let prefix = durable_prefix(&RealDisk, &path, end_lsn).expect("no key is needed");
        assert_eq!(
            (prefix.first_lsn, prefix.end, prefix.chain),
            (first_lsn, end_lsn, fixture.chains[segment])
        );
        assert_eq!((prefix.file_bytes, prefix.allocated_bytes), ([28_672, 32_768][segment], Some(128 << 10)));
        point = Some(expected);
    }
}

fn assert_scan(fixture: &Fixture) {
    for from in [Lsn::ZERO, SPLIT] {
        let mut delivered = Vec::new();
        let report = scan::<()>(
            &RealDisk,
            &fixture.dir(),
            &fixture.entries(),
            from,
            from,
            Some(&keyring()),
            &mut |bytes, _, _| {
                delivered.extend_from_slice(bytes);
                Ok(())
            },
        )
        .expect("it is whole");
        let skipped = usize::from(from == SPLIT);
        let expected: Vec<u8> =
            commits().into_iter().skip(skipped).flatten().flat_map(|(effects, _)| effects).collect();
        assert_eq!(delivered, expected);
        assert_eq!((report.end, report.durable, report.database), (END, END, 0));
        assert_eq!((report.cut, report.frames), (None, [8, 4][skipped]));
        assert_eq!((report.resume.lsn, report.resume.last_ms), (END, FIRST_MS + 60));
    }
}

#[test]
fn the_plain_journal_of_version_1_opens() {
    assert_segments(&PLAIN);
    assert_scan(&PLAIN);
}

#[test]
fn the_encrypted_journal_of_version_1_opens() {
    assert_segments(&ENCRYPTED);
    assert_scan(&ENCRYPTED);
}

#[test]
fn the_encrypted_journal_of_version_1_needs_its_key() {
    for segment in [0, 1] {
        let refused = SegmentReader::open(&RealDisk, &ENCRYPTED.path(segment), None).err().expect("no key");
        assert!(
            matches!(&refused, JournalError::Seal { source: SealError::WrongKey { needed, .. }, .. } if needed == "fixture-v1"),
            "{refused}"
        );
        let bytes = std::fs::read(ENCRYPTED.path(segment)).expect("the fixture");
        assert!(!bytes.windows(5).any(|window| window == b"hello" || window == b"cairn"));
    }
}

#[test]
fn an_unknown_version_is_refused_with_both_versions_named() {
    for fixture in [PLAIN, ENCRYPTED] {
        let mut bytes = std::fs::read(fixture.path(1)).expect("the fixture");
        let mut page = bytes[..PAGE - 4].to_vec();
        page[8..12].copy_from_slice(&7_u32.to_le_bytes());
        cairn_format::wire::push_crc(&mut page);
        bytes[..PAGE].copy_from_slice(&page);
        let (disk, path) = (FaultyDisk::new(), Path::new("/data").join(name(1)));
        disk.create_dir_all(Path::new("/data")).expect("a directory");
        disk.create_new(&path).and_then(|file| file.write_at(&bytes, 0)).expect("a file");
        for refused in [
            SegmentReader::open(&disk, &path, Some(&keyring())).err().expect("it is refused"),
            durable_prefix(&disk, &path, Lsn::ZERO).expect_err("it is refused"),
        ] {
            let newer = FormatError::UnknownVersion { found: 7, known: 1 };
            assert!(matches!(&refused, JournalError::Format { source, .. } if *source == newer), "{refused}");
            assert!(!refused.is_damage(), "the file is whole");
            let said = refused.to_string();
            assert!(
                said.contains("version 7") && said.contains("version 1") && said.contains(&name(1)),
                "{said}"
            );
        }
    }
}
