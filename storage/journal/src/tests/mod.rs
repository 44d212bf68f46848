//! Tests of the journal as a whole, over disks in memory that fail and forget.

mod crash;
mod cutting;
mod driven;
mod faults;
mod leading;
mod renewing;
mod tail;
mod writing;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cairn_disk::{Disk, FaultyDisk, write_file_atomically};
use cairn_format::manifest::{Manifest, SegmentEntry};
use cairn_format::{FileId, LineageId, Lsn};
use cairn_seal::Keyring;
use parking_lot::Mutex;

use crate::{
    Admission, Catalog, Fsync, Journal, JournalError, Options, Resume, ScanError, ScanReport, SegmentReader,
    scan,
};

pub(crate) const DIR: &str = "/data";

/// Keeps the segments' names in a file as the engine does.
pub(crate) struct Names {
    disk: Arc<dyn Disk>,
    entries: Mutex<Vec<SegmentEntry>>,
}

impl Names {
    pub(crate) fn new(disk: Arc<dyn Disk>, entries: Vec<SegmentEntry>) -> Arc<Names> {
        Arc::new(Names { disk, entries: Mutex::new(entries) })
    }

    pub(crate) fn load(disk: &dyn Disk) -> Vec<SegmentEntry> {
        match disk.map(&Path::new(DIR).join("manifest")) {
            Ok(map) => Manifest::decode(map.bytes()).expect("the manifest is whole").manifest.segments,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => panic!("manifest: {error}"),
        }
    }
}

impl Catalog for Names {
    fn segment_opened(&self, entry: SegmentEntry) -> io::Result<()> {
        let mut entries = self.entries.lock();
        entries.retain(|older| older.first_lsn < entry.first_lsn);
        entries.push(entry);
        let manifest = Manifest {
            lineage: LineageId([1; 16]),
            epoch: 1,
            number: 1,
            encrypted: false,
            file_id: FileId([2; 16]),
            key: None,
            databases: 16,
            snapshot: None,
            segments: entries.clone(),
        };
        let path = Path::new(DIR).join("manifest");
        write_file_atomically(&*self.disk, &path, &manifest.encode(|_| [0; 16]))
    }
}

/// A journal over a disk in memory, and what was appended to it.
pub(crate) struct World {
    pub(crate) disk: FaultyDisk,
    pub(crate) keyring: Option<Arc<Keyring>>,
    pub(crate) fsync: Fsync,
    pub(crate) segment_bytes: u64,
    pub(crate) queue_bytes_max: u64,
}

impl World {
    pub(crate) fn new(fsync: Fsync, encrypted: bool) -> World {
        let disk = FaultyDisk::new();
        disk.create_dir_all(Path::new(DIR)).expect("directory");
        let keyring = encrypted.then(|| Arc::new(Keyring::generate().expect("keyring")));
        World { disk, keyring, fsync, segment_bytes: 128 << 10, queue_bytes_max: 64 << 20 }
    }

    pub(crate) fn options(&self) -> Options {
        Options {
            dir: PathBuf::from(DIR),
            disk: Arc::new(self.disk.clone()),
            keyring: self.keyring.clone(),
            fsync: self.fsync,
            segment_bytes: self.segment_bytes,
            lineage: LineageId([1; 16]),
            epoch: 1,
            queue_bytes_max: self.queue_bytes_max,
            driver: None,
        }
    }

    pub(crate) fn start(&self, resume: Resume) -> Result<Arc<Journal>, JournalError> {
        let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
        let entries = Names::load(&*disk);
        Journal::start(self.options(), resume, Names::new(disk, entries))
    }

    pub(crate) fn begin(&self) -> Arc<Journal> {
        self.start(Resume::at(Lsn::ZERO)).expect("start")
    }

    pub(crate) fn scan(&self, from: Lsn) -> Result<(Vec<u8>, ScanReport), JournalError> {
        scan_disk(&self.disk, self.keyring.as_deref(), from)
    }

    pub(crate) fn scan_image(&self, disk: &FaultyDisk) -> Result<(Vec<u8>, ScanReport), JournalError> {
        scan_disk(disk, self.keyring.as_deref(), Lsn::ZERO)
    }

    /// The one segment that the manifest names last.
    pub(crate) fn last_segment(&self) -> PathBuf {
        let entries = Names::load(&self.disk);
        Path::new(DIR).join(&entries.last().expect("a segment").name)
    }

    /// Where the frames of the last segment begin, and how long each is, with its end LSN.
    pub(crate) fn frames(&self) -> Vec<(usize, usize, Lsn)> {
        let reader =
            SegmentReader::open(&self.disk, &self.last_segment(), self.keyring.as_deref()).expect("open");
        let frames = reader.map(|frame| frame.expect("frame"));
        let end = |frame: &crate::Frame| frame.first_lsn.advance(frame.payload.len());
        frames.map(|frame| (frame.offset as usize, frame.file_bytes as usize, end(&frame))).collect()
    }

    pub(crate) fn into_disk(self, disk: FaultyDisk) -> World {
        World { disk, ..self }
    }
}

pub(crate) fn scan_disk(
    disk: &FaultyDisk,
    keyring: Option<&Keyring>,
    from: Lsn,
) -> Result<(Vec<u8>, ScanReport), JournalError> {
    let entries = Names::load(disk);
    let mut stream = Vec::new();
    let mut next = from;
    let report = scan::<()>(disk, Path::new(DIR), &entries, from, from, keyring, &mut |bytes, first, _| {
        assert_eq!(first, next, "each byte once and in order");
        next = next.advance(bytes.len());
        stream.extend_from_slice(bytes);
        Ok(())
    })
    .map_err(|error| match error {
        ScanError::Journal(error) => error,
        ScanError::Sink(()) => unreachable!("the sink takes all"),
    })?;
    assert_eq!(report.end, next, "the report's end is that of what was delivered");
    assert_eq!(report.resume.end(), report.end);
    Ok((stream, report))
}

/// What was appended: each commit with its end.
#[derive(Default)]
pub(crate) struct Model {
    pub(crate) commits: Vec<(Lsn, u32, Vec<u8>)>,
}

impl Model {
    pub(crate) fn append(&mut self, journal: &Journal, database: u32, effects: Vec<u8>, now_ms: u64) -> Lsn {
        let end = journal.append(database, &effects, now_ms);
        self.commits.push((end, database, effects));
        end
    }

    /// Holds a recovered stream (from LSN 0) against what was appended, up to where it ends; nothing else may be in it
    /// but SELECTs, and it must end between commits.
    pub(crate) fn check(&self, stream: &[u8], end: Lsn) {
        assert_eq!(stream.len() as u64, end.0);
        let mut at = 0;
        for (commit_end, database, effects) in &self.commits {
            if *commit_end > end {
                break;
            }
            let to = commit_end.0 as usize;
            let from = to - effects.len();
            assert_eq!(&stream[from..to], effects, "commit that ends at {commit_end}");
            let between = String::from_utf8(stream[at..from].to_vec()).expect("a SELECT is text");
            let digits = database.to_string();
            let select = format!("*2\r\n$6\r\nSELECT\r\n${}\r\n{digits}\r\n", digits.len());
            assert!(between.is_empty() || between == select, "{between:?}");
            at = to;
        }
        assert_eq!(at as u64, end.0, "the stream ends between commits");
    }

    /// Forgets what was lost in a crash.
    pub(crate) fn cut(&mut self, end: Lsn) {
        self.commits.retain(|commit| commit.0 <= end);
    }
}

pub(crate) fn effect(seed: u64, bytes: usize) -> Vec<u8> {
    let mut random = Random(seed);
    let mut effect = format!("*3\r\n$3\r\nSET\r\n$8\r\n{seed:08}\r\n${bytes}\r\n").into_bytes();
    effect.extend((0..bytes).map(|_| random.below(256) as u8));
    effect.extend_from_slice(b"\r\n");
    effect
}

/// SplitMix64: the same numbers for the same seed on every machine.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

pub(crate) fn granted(journal: &Journal, bytes: usize) -> bool {
    matches!(journal.admit(bytes), Admission::Granted(_))
}

/// Waits for another thread to bring something about; fails after ten seconds.
pub(crate) fn eventually(what: &str, mut happened: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !happened() {
        assert!(Instant::now() < deadline, "{what} never came about");
        std::thread::yield_now();
        std::thread::park_timeout(Duration::from_millis(1));
    }
}
