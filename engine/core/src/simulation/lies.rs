//! What mistakes in the engine would do, and that a run finds each: the engine is right, and the disk below it makes of its
//! calls what a mistaken one would have called.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use cairn_disk::{DirEntry, Disk, FaultyDisk, File, LockGuard, Mapping};
use cairn_format::frame::{
    BLOCK_BYTES, BLOCK_LOGICAL_BYTES, FrameHeader, TAG_BYTES, gather, lay_out, seal_crc,
};
use cairn_format::header::{Body, Identity, Magic, decode_header, encode_header};
use cairn_format::{FileId, HEADER_BYTES, Lsn};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use super::run::Ground;
use super::seeds::run_all;

/// A mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lie {
    /// Replies do not wait for a sync: none of a segment is made.
    NoSyncBeforeReply,
    /// Each frame says that all before it is durable, synced or not.
    DurableTooEarly,
    /// A frame that ends within a commit says that the commit ends there.
    CutInsideTransaction,
    /// A segment is named in the manifest before it is synced.
    ManifestBeforeJournal,
    /// A file that was renamed is taken to be there without a sync of the directory.
    NamesNotSynced,
}

impl Lie {
    /// Whether it is told in the frames of the journal.
    fn is_in_frames(self) -> bool {
        matches!(self, Lie::DurableTooEarly | Lie::CutInsideTransaction)
    }
}

/// The first of a thousand seeds that finds it, which must be there, and must find it for what it is: in words of the refusal or
/// of the broken promise.
#[track_caller]
fn is_found(lie: Lie, words: &[&str]) {
    let disk = move |disk: &FaultyDisk| -> Arc<dyn Disk> { Arc::new(LyingDisk::over(disk, lie)) };
    // A frame that is sealed cannot be written otherwise than it is.
    let ground = Ground { disk: &disk, plain: lie.is_in_frames() };
    let (seed, broken) = run_all(1..=1_000, ground).expect_err("a thousand runs did not find it");
    let broken = broken.lines().next().unwrap_or_default();
    println!("{lie:?}: seed {seed}: {broken}");
    assert!(
        words.iter().any(|words| broken.contains(words)),
        "seed {seed} has found something else: {broken}"
    );
}

#[test]
fn a_reply_before_its_sync_is_found() {
    is_found(Lie::NoSyncBeforeReply, &["was acknowledged", "would be lost"]);
}

#[test]
fn a_durable_lsn_written_too_early_is_found() {
    is_found(Lie::DurableTooEarly, &["effects up to the durable LSN", "the manifest does not name it"]);
}

#[test]
fn a_cut_inside_a_transaction_is_found() {
    is_found(Lie::CutInsideTransaction, &["the stream ends within an effect", "which is within a commit"]);
}

#[test]
fn a_manifest_before_its_journal_is_found() {
    // It is named, and what it begins with or holds is not there.
    let words = [
        "expected the magic",
        "cut short",
        "found zeros",
        "the file header",
        "would be lost",
        "was acknowledged",
    ];
    is_found(Lie::ManifestBeforeJournal, &words);
}

#[test]
fn a_name_that_was_not_synced_is_found() {
    is_found(Lie::NamesNotSynced, &["was acknowledged", "would be lost", "the manifest does not name it"]);
}

type Chains = BTreeMap<(FileId, Lsn), [u8; 32]>;

#[derive(Clone)]
struct LyingDisk {
    disk: FaultyDisk,
    lie: Lie,
    /// The chain of each segment as the bytes on disk have it, by file and LSN: successors must name that one.
    chains: Arc<Mutex<Chains>>,
}

struct LyingFile {
    file: Arc<dyn File>,
    disk: LyingDisk,
    is_journal: bool,
    segment: Mutex<Option<Segment>>,
}

/// A segment that is being written, in clear.
struct Segment {
    file_id: FileId,
    /// The chain before each frame, by its number.
    chain: Vec<[u8; 32]>,
}

impl LyingDisk {
    fn over(disk: &FaultyDisk, lie: Lie) -> LyingDisk {
        LyingDisk { disk: disk.clone(), lie, chains: Arc::default() }
    }
}

impl LyingFile {
    fn begin(&self, identity: Identity, header: &[u8]) -> Vec<u8> {
        let Body::Journal(mut body) = identity.body.clone() else { return header.to_vec() };
        assert!(!identity.encrypted, "no run that lies in frames has a key");
        let mut before = [0; 32];
        if let Some(predecessor) = &mut body.predecessor {
            let place = (predecessor.file_id, predecessor.end_lsn);
            predecessor.chain = self.disk.chains.lock().get(&place).copied().unwrap_or(predecessor.chain);
            before = predecessor.chain;
        }
        let chain: [u8; 32] =
            Sha256::new().chain_update(identity.file_id.0).chain_update(before).finalize().into();
        self.disk.chains.lock().insert((identity.file_id, body.first_lsn), chain);
        *self.segment.lock() = Some(Segment { file_id: identity.file_id, chain: vec![chain] });
        encode_header(&Identity { body: Body::Journal(body), ..identity }, None)
    }

    /// The frames as the mistaken engine would have written them.
    fn frames(&self, segment: &mut Segment, bytes: &[u8], offset: u64) -> Vec<u8> {
        let (mut out, mut logical) = (Vec::with_capacity(bytes.len()), Vec::new());
        while out.len() < bytes.len() {
            let rest = &bytes[out.len()..];
            gather(&rest[..BLOCK_BYTES], BLOCK_LOGICAL_BYTES, &mut logical);
            let mut header =
                FrameHeader::decode(&logical, &segment.file_id).expect("the engine writes frames");
            gather(&rest[..header.physical_bytes()], header.logical_bytes(), &mut logical);
            let stamps: Vec<_> = header.stamps(&logical).collect();
            let end = header.end_lsn().expect("it ends somewhere");
            match self.disk.lie {
                Lie::DurableTooEarly => header.durable = header.first_lsn,
                Lie::CutInsideTransaction => header.commit_lsn = end,
                _ => {}
            }
            let mut lie = Vec::with_capacity(logical.len());
            header.encode(&segment.file_id, &stamps, &mut lie);
            lie.extend_from_slice(&logical[header.payload_from()..]);
            let crc = seal_crc(&mut lie);
            let place = offset + out.len() as u64;
            lay_out(&lie, &segment.file_id, place, &mut out);
            segment.chain.truncate(header.number as usize + 1);
            let chain = Sha256::new()
                .chain_update(segment.chain[header.number as usize])
                .chain_update(header.number.to_le_bytes())
                .chain_update(header.first_lsn.0.to_le_bytes())
                .chain_update(header.payload_bytes.to_le_bytes())
                .chain_update(crc.to_le_bytes())
                .chain_update([0; TAG_BYTES])
                .finalize()
                .into();
            segment.chain.push(chain);
            // Empty frames that follow at the same LSN may not get to the disk.
            self.disk.chains.lock().entry((segment.file_id, end)).or_insert(chain);
        }
        out
    }
}

impl File for LyingFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if !self.disk.lie.is_in_frames() || !self.is_journal {
            return self.file.write_at(bytes, offset);
        }
        if offset == 0 && bytes.len() == HEADER_BYTES {
            let (identity, _) = decode_header(bytes, Magic::Journal).expect("the engine writes a header");
            return self.file.write_at(&self.begin(identity, bytes), offset);
        }
        match &mut *self.segment.lock() {
            Some(segment) => self.file.write_at(&self.frames(segment, bytes, offset), offset),
            None => self.file.write_at(bytes, offset),
        }
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buf, offset)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.file.allocate(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        match self.disk.lie {
            Lie::NoSyncBeforeReply if self.is_journal => Ok(()),
            _ => self.file.sync_data(),
        }
    }

    fn sync_all(&self) -> io::Result<()> {
        match self.disk.lie {
            Lie::ManifestBeforeJournal if self.is_journal => Ok(()),
            _ => self.file.sync_all(),
        }
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }
}

impl Disk for LyingDisk {
    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let is_journal = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("journal-"));
        let file = self.disk.create_new(path)?;
        Ok(Arc::new(LyingFile { file, disk: self.clone(), is_journal, segment: Mutex::new(None) }))
    }

    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.disk.open_read(path)
    }

    fn open_write(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.disk.open_write(path)
    }

    fn map(&self, path: &Path) -> io::Result<Mapping> {
        self.disk.map(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        if self.lie == Lie::NamesNotSynced { Ok(()) } else { self.disk.sync_dir(dir) }
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.disk.create_dir_all(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        self.disk.list(dir)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.disk.exists(path)
    }

    fn len(&self, path: &Path) -> io::Result<u64> {
        self.disk.len(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn LockGuard>> {
        self.disk.lock(path)
    }
}
