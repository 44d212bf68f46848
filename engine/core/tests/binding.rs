//! What is sealed is bound to its place: chunks, frames, key slots and whole files that are swapped, dropped, put in another
//! order or taken from another directory under the same master key are refused, with the file's name. Every checksum that needs
//! no key is mended, as somebody would who knows the format.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cairn_disk::{Disk, FaultyDisk, Survival};
use cairn_engine::{Embedded, Engine, Fsync, OpenError, Options, Outcome, Protocol, Reply, check};
use cairn_format::container::{BLOCK_CLEAR_BYTES, BLOCK_HEADER_BYTES, IndexEntry};
use cairn_format::frame::{BLOCK_LOGICAL_BYTES, FrameHeader, gather, lay_out, seal_crc};
use cairn_format::header::{Identity, Magic};
use cairn_format::{FileId, HEADER_BYTES, PAGE};
use cairn_journal::SegmentReader;
use cairn_seal::Keyring;
use cairn_snapshot::Container;

const DIR: &str = "/data";

fn options(disk: &FaultyDisk, keyring: &Keyring) -> Options {
    let mut options = Options::new(DIR);
    options.disk = Arc::new(disk.clone());
    options.fsync = Fsync::Always;
    options.segment_bytes = 128 << 10;
    options.keyring = Some(Arc::new(keyring.clone()));
    options.threads = 1;
    options
}

/// Runs requests of one client, each durable before the next.
fn run(engine: &Engine, requests: &[&[&[u8]]]) {
    let (mut session, mut out) = (engine.session(), Vec::new());
    for args in requests {
        out.clear();
        match engine.execute(&mut session, &Embedded, args, &mut Reply::new(&mut out, Protocol::Resp2)) {
            Outcome::Done { hold } => engine.block_until_durable(hold).expect("durable"),
            Outcome::Blocking(job) => {
                engine.run_job(&job, &Embedded, &mut Reply::new(&mut out, Protocol::Resp2));
            }
            _ => unreachable!("there is room, and nobody else"),
        }
        assert_eq!(out, b"+OK\r\n", "{}", out.escape_ascii());
    }
}

/// A data directory at rest, to be tampered with.
struct Directory {
    disk: FaultyDisk,
    keyring: Keyring,
}

impl Directory {
    /// A snapshot of four blocks of one size, and three segments behind it, the first with frames of one size.
    fn filled(keyring: &Keyring) -> Directory {
        let disk = FaultyDisk::new();
        let engine = Engine::open(options(&disk, keyring)).expect("an empty directory");
        // Random, so that compression leaves one length.
        let mut value = [0; 600];
        let mut state = 7_u64;
        for db in [&b"0"[..], b"1", b"2", b"3"] {
            for byte in &mut value {
                state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
                *byte = state.to_be_bytes()[0];
            }
            run(&engine, &[&[b"SELECT", db], &[b"SET", b"key", &value]]);
        }
        run(&engine, &[&[b"DEBUG", b"RELOAD"]]);
        for _ in 0..3 {
            run(
                &engine,
                &[&[b"SET", b"k1", b"value"], &[b"SET", b"k2", b"other"], &[b"SET", b"k3", b"third"]],
            );
        }
        engine.shutdown(Some(false)).expect("shutdown");
        drop(engine);
        for _ in 0..2 {
            let engine = Engine::open(options(&disk, keyring)).expect("what was written");
            run(&engine, &[&[b"SET", b"later", b"value"]]);
            engine.shutdown(Some(false)).expect("shutdown");
        }
        Directory { disk: disk.crash(Survival::Everything), keyring: keyring.clone() }
    }

    fn copy(&self) -> Directory {
        Directory { disk: self.disk.crash(Survival::Everything), keyring: self.keyring.clone() }
    }

    fn check(&self) -> Result<String, OpenError> {
        check(&options(&self.disk, &self.keyring), true).map(|checked| checked.digest.expect("a digest"))
    }

    /// Files whose names begin so, in order.
    fn named(&self, prefix: &str) -> Vec<PathBuf> {
        let names = self.disk.list(Path::new(DIR)).expect("a directory").into_iter().map(|entry| entry.name);
        names.filter(|name| name.starts_with(prefix)).map(|name| Path::new(DIR).join(name)).collect()
    }

    fn snapshot(&self) -> PathBuf {
        self.named("snapshot-").remove(0)
    }

    /// The segment with three frames of one size.
    fn segment(&self) -> PathBuf {
        let segments = self.named("journal-");
        segments.into_iter().max_by_key(|path| self.frames(path).len()).expect("a segment")
    }

    fn bytes(&self, path: &Path) -> Vec<u8> {
        self.disk.map(path).expect("a file").bytes().to_vec()
    }

    fn put(&self, path: &Path, bytes: Vec<u8>) {
        if !self.disk.exists(path).expect("a disk in memory") {
            self.disk.create_new(path).expect("a disk in memory");
        }
        self.disk.damage(path, |file| *file = bytes);
    }

    fn change(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        self.disk.damage(path, change);
    }

    fn blocks(&self, path: &Path) -> Vec<IndexEntry> {
        Container::open(&self.disk, path, Some(&self.keyring)).expect("a snapshot").index().blocks.clone()
    }

    /// Where each frame with effects begins, and how long it is.
    fn frames(&self, path: &Path) -> Vec<(usize, usize)> {
        let reader = SegmentReader::open(&self.disk, path, Some(&self.keyring)).expect("a segment");
        let frames = reader.map(|frame| frame.expect("a frame")).filter(|frame| !frame.payload.is_empty());
        let place = |number: u64| usize::try_from(number).expect("it fits");
        frames.map(|frame| (place(frame.offset), place(frame.file_bytes))).collect()
    }
}

fn mend_page(page: &mut [u8]) {
    let (covered, crc) = page.split_last_chunk_mut::<4>().expect("a page");
    *crc = crc32(covered).to_le_bytes();
}

/// By the bit: nobody waits for it here.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    })
}

/// The logical bytes of a frame that stands there.
fn logical(bytes: &[u8], (offset, length): (usize, usize), file: FileId) -> Frame {
    let physical = &bytes[offset..offset + length];
    let header = FrameHeader::decode(&physical[..BLOCK_LOGICAL_BYTES], &file).expect("a frame");
    let mut logical = Vec::new();
    assert!(gather(physical, header.logical_bytes(), &mut logical), "its blocks are of one frame");
    (header, logical)
}

/// A frame: its header, and its logical bytes.
type Frame = (FrameHeader, Vec<u8>);

/// Puts a frame where another one stands, with right stamps and checksums: header and time stamps, by which readers walk, are
/// those of the place, payload and tag the other frame's.
fn put_frame(bytes: &mut [u8], offset: usize, file: FileId, place: &Frame, sealed: &Frame) {
    let from = place.0.payload_from();
    assert_eq!((from, place.1.len()), (sealed.0.payload_from(), sealed.1.len()), "frames of one size");
    let mut logical = [&place.1[..from], &sealed.1[from..]].concat();
    seal_crc(&mut logical);
    let mut physical = Vec::new();
    lay_out(&logical, &file, offset as u64, &mut physical);
    bytes[offset..offset + physical.len()].copy_from_slice(&physical);
}

fn file_id(bytes: &[u8]) -> FileId {
    FileId(bytes[16..32].try_into().expect("sixteen bytes"))
}

/// What somebody does to a directory who also has another one under the same key, with the same data in it.
type Attempt = fn(&Directory, &Directory);

const ATTEMPTS: &[(&str, Attempt)] = &[
    ("two blocks of a snapshot swapped", |one, _| swap_blocks(one, &one.snapshot())),
    ("a block of another snapshot", |one, other| {
        let (path, theirs) = (one.snapshot(), other.snapshot());
        let (entry, their_entry) = (one.blocks(&path)[1], other.blocks(&theirs)[1]);
        let bytes = other.bytes(&theirs);
        let stored = &bytes[span(&their_entry)];
        one.change(&path, |file| put_block(file, &entry, &stored[BLOCK_HEADER_BYTES..]));
    }),
    ("a block twice", |one, _| {
        let path = one.snapshot();
        let blocks = one.blocks(&path);
        let bytes = one.bytes(&path);
        let stored = bytes[span(&blocks[0])][BLOCK_HEADER_BYTES..].to_vec();
        one.change(&path, |file| put_block(file, &blocks[1], &stored));
    }),
    ("the last block dropped", |one, _| {
        let path = one.snapshot();
        let last = span(one.blocks(&path).last().expect("blocks"));
        one.change(&path, |file| drop(file.drain(last)));
    }),
    ("index and footer of another snapshot", |one, other| {
        let (path, theirs) = (one.snapshot(), other.snapshot());
        let tail = |at: &Directory, path: &Path| span(at.blocks(path).last().expect("blocks")).end;
        let their_tail = other.bytes(&theirs)[tail(other, &theirs)..].to_vec();
        let from = tail(one, &path);
        one.change(&path, |file| {
            file.truncate(from);
            file.extend_from_slice(&their_tail);
        });
    }),
    ("a snapshot's LSN changed", |one, _| {
        one.change(&one.snapshot(), |file| {
            file[56] ^= 1;
            mend_page(&mut file[..PAGE]);
        });
    }),
    ("a snapshot's time changed", |one, _| {
        one.change(&one.snapshot(), |file| {
            file[48] ^= 1;
            mend_page(&mut file[..PAGE]);
        });
    }),
    ("the wrapped key of another snapshot", |one, other| {
        slot_from(one, &one.snapshot(), other, &other.snapshot())
    }),
    ("the wrapped key of a segment in a snapshot", |one, _| {
        slot_from(one, &one.snapshot(), one, &one.segment())
    }),
    ("the wrapped key of another segment", |one, other| {
        slot_from(one, &one.segment(), other, &other.segment())
    }),
    ("another directory's snapshot", |one, other| one.put(&one.snapshot(), other.bytes(&other.snapshot()))),
    ("another directory's snapshot under the file id that is wanted", |one, other| {
        let (path, mut theirs) = (one.snapshot(), other.bytes(&other.snapshot()));
        let own = one.bytes(&path);
        theirs[16..32].copy_from_slice(&own[16..32]);
        mend_page(&mut theirs[..PAGE]);
        one.put(&path, theirs);
    }),
    ("another directory's segment", |one, other| one.put(&one.segment(), other.bytes(&other.segment()))),
    ("two segments swapped", |one, _| {
        let segments = one.named("journal-");
        let bytes: Vec<_> = segments.iter().map(|path| one.bytes(path)).collect();
        one.put(&segments[segments.len() - 2], bytes[bytes.len() - 1].clone());
        one.put(&segments[segments.len() - 1], bytes[bytes.len() - 2].clone());
    }),
    ("a segment dropped", |one, _| {
        let segments = one.named("journal-");
        one.disk.remove(&segments[segments.len() - 2]).expect("a disk in memory");
    }),
    ("another directory's manifest", |one, other| {
        let manifest = Path::new(DIR).join("manifest");
        one.put(&manifest, other.bytes(&manifest));
    }),
    ("a manifest that drops the last segment", |one, _| {
        one.change(&Path::new(DIR).join("manifest"), |file| {
            // Whatever is cut, tag and checksum at its end are put back behind it.
            let tail = file.split_off(file.len() - 20);
            file.truncate(file.len() - 40);
            file.extend_from_slice(&tail);
            mend_page(file);
        });
    }),
    ("two frames swapped", |one, _| {
        let path = one.segment();
        let frames = equal_frames(one, &path);
        one.change(&path, |file| {
            let id = file_id(file);
            let (first, second) = (logical(file, frames[0], id), logical(file, frames[1], id));
            put_frame(file, frames[0].0, id, &first, &second);
            put_frame(file, frames[1].0, id, &second, &first);
        });
    }),
    ("a frame twice", |one, _| {
        let path = one.segment();
        let frames = equal_frames(one, &path);
        one.change(&path, |file| {
            let id = file_id(file);
            let sealed = logical(file, frames[0], id);
            let place = logical(file, frames[1], id);
            put_frame(file, frames[1].0, id, &place, &sealed);
        });
    }),
    ("a frame dropped and those behind it moved up", |one, _| {
        let path = one.segment();
        let frames = equal_frames(one, &path);
        one.change(&path, |file| {
            let id = file_id(file);
            let place = logical(file, frames[0], id);
            let sealed = logical(file, frames[1], id);
            put_frame(file, frames[0].0, id, &place, &sealed);
            file[frames[1].0..frames[1].0 + frames[1].1].fill(0);
        });
    }),
    ("a frame of another directory's journal", |one, other| {
        let (path, theirs) = (one.segment(), other.segment());
        let (frame, their_frame) = (equal_frames(one, &path)[0], equal_frames(other, &theirs)[0]);
        let bytes = other.bytes(&theirs);
        let sealed = logical(&bytes, their_frame, file_id(&bytes));
        one.change(&path, |file| {
            let id = file_id(file);
            let place = logical(file, frame, id);
            put_frame(file, frame.0, id, &place, &sealed);
        });
    }),
];

fn span(entry: &IndexEntry) -> std::ops::Range<usize> {
    let place = |number: u64| usize::try_from(number).expect("it fits");
    place(entry.offset)..place(entry.end())
}

/// Puts other stored bytes into a block, under a right checksum.
fn put_block(file: &mut [u8], entry: &IndexEntry, stored: &[u8]) {
    let block = &mut file[span(entry)];
    assert_eq!(block.len(), BLOCK_HEADER_BYTES + stored.len(), "blocks of one size");
    block[BLOCK_HEADER_BYTES..].copy_from_slice(stored);
    let crc = entry.header.crc(stored).to_le_bytes();
    block[BLOCK_CLEAR_BYTES..BLOCK_HEADER_BYTES].copy_from_slice(&crc);
}

fn swap_blocks(one: &Directory, path: &Path) {
    let blocks = one.blocks(path);
    assert_eq!(blocks.len(), 4);
    let bytes = one.bytes(path);
    let stored = |block: usize| bytes[span(&blocks[block])][BLOCK_HEADER_BYTES..].to_vec();
    one.change(path, |file| {
        put_block(file, &blocks[1], &stored(2));
        put_block(file, &blocks[2], &stored(1));
    });
}

fn slot_from(one: &Directory, path: &Path, other: &Directory, theirs: &Path) {
    let slots = other.bytes(theirs)[PAGE..HEADER_BYTES].to_vec();
    one.change(path, |file| file[PAGE..HEADER_BYTES].copy_from_slice(&slots));
}

/// Two frames of one length, one right behind the other.
fn equal_frames(one: &Directory, path: &Path) -> [(usize, usize); 2] {
    let bytes = one.bytes(path);
    let id = file_id(&bytes);
    let frames = one.frames(path);
    let length = |frame: &(usize, usize)| logical(&bytes, *frame, id).1.len();
    let pairs = frames.windows(2).find(|pair| length(&pair[0]) == length(&pair[1]));
    let pair = pairs.expect("two frames of one size");
    [pair[0], pair[1]]
}

#[test]
fn whatever_is_moved_is_refused_with_the_name_of_a_file() {
    let keyring = Keyring::generate().expect("a keyring");
    let (one, other) = (Directory::filled(&keyring), Directory::filled(&keyring));
    let digest = one.check().expect("whole");
    assert_eq!(other.check().expect("whole"), digest, "the same data, so that nothing else gives it away");
    for (what, attempt) in ATTEMPTS {
        let (one, other) = (one.copy(), other.copy());
        attempt(&one, &other);
        let refused = match one.check() {
            Ok(found) => panic!("{what}: it opens, with digest {found} where {digest} is right"),
            Err(error) => error,
        };
        let text = refused.to_string();
        assert!(matches!(refused.exit_code(), 12 | 13), "{what}: exit code {}: {text}", refused.exit_code());
        assert!(text.contains("/data/"), "{what}: {text}");
    }
}

/// What a whole old directory is, only the repository can tell; beside newer files it is found out.
#[test]
fn an_older_manifest_beside_newer_files_is_refused() {
    let keyring = Keyring::generate().expect("a keyring");
    let one = Directory::filled(&keyring);
    let manifest = Path::new(DIR).join("manifest");
    let older = one.bytes(&manifest);
    let engine = Engine::open(options(&one.disk, &keyring)).expect("whole");
    run(&engine, &[&[b"SET", b"newer", b"value"]]);
    engine.shutdown(Some(false)).expect("shutdown");
    drop(engine);
    one.put(&manifest, older);
    let refused = one.check().expect_err("it is older than the directory");
    assert!(matches!(refused, OpenError::OldManifest { .. }), "{refused}");
    assert_eq!(refused.exit_code(), 13);
}

/// The checksums alone would let all of it pass: it is the tags that do not.
#[test]
fn the_attempts_bear_right_checksums() {
    let keyring = Keyring::generate().expect("a keyring");
    let one = Directory::filled(&keyring);
    let path = one.segment();
    let frames = equal_frames(&one, &path);
    one.change(&path, |file| {
        let id = file_id(file);
        let frame = logical(file, frames[0], id);
        put_frame(file, frames[0].0, id, &frame, &frame);
    });
    swap_blocks(&one, &one.snapshot());
    swap_blocks(&one, &one.snapshot());
    one.change(&one.snapshot(), |file| mend_page(&mut file[..PAGE]));
    assert!(Identity::decode(&one.bytes(&one.snapshot())[..PAGE], Magic::Snapshot).is_ok());
    one.check().expect("what was put back as it was is whole");
}
