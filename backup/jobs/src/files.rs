//! What snapshot and journal say about the files of a backup. The only place that asks them.

use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cairn_disk::Disk;
use cairn_format::header::{Identity, Magic};
use cairn_format::manifest::SegmentEntry;
use cairn_format::{FileId, LineageId, Lsn, PAGE};
use cairn_journal::{DurablePrefix, OpenSegment, ScanError, durable_prefix, scan};
use cairn_seal::Keyring;
use cairn_snapshot::{Container, Depth, Passed, Passing};

use crate::JobError;
use crate::manifest::{BackupManifest, ObjectKind};
use crate::progress::{Phase, Progress};

/// A running server states what is durable within this time; one that was killed never will.
const STATED_WITHIN: Duration = Duration::from_millis(500);
/// Databases a server has when nobody says otherwise.
const DATABASES: u32 = 16;

/// Names a file and what was done to it in an I/O error.
pub(crate) fn io<T>(path: &Path, operation: &'static str, result: io::Result<T>) -> Result<T, JobError> {
    result.map_err(|source| JobError::io(path, operation, source))
}

/// What a snapshot container says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SnapshotFacts {
    pub(crate) file_id: FileId,
    /// The history that it was taken in.
    pub(crate) lineage: LineageId,
    pub(crate) lsn: Lsn,
    pub(crate) bytes: u64,
    pub(crate) entries: u64,
    pub(crate) databases: u32,
    pub(crate) created_unix_ms: u64,
    /// The master key it needs.
    pub(crate) key: Option<String>,
}

/// Opens a container, its header and index verified. Without a keyring an encrypted one is opened for its checksums.
pub(crate) fn open_snapshot(
    disk: &dyn Disk,
    path: &Path,
    keyring: Option<&Keyring>,
) -> Result<SnapshotFacts, JobError> {
    Ok(facts(&open_container(disk, path, keyring)?))
}

fn open_container(disk: &dyn Disk, path: &Path, keyring: Option<&Keyring>) -> Result<Container, JobError> {
    Ok(match keyring {
        Some(_) => Container::open(disk, path, keyring)?,
        None => Container::open_without_key(disk, path)?,
    })
}

fn facts(container: &Container) -> SnapshotFacts {
    let identity = container.identity();
    let blocks = &container.index().blocks;
    let last_database = blocks.iter().map(|block| block.header.database).max().unwrap_or(0);
    SnapshotFacts {
        file_id: identity.file_id,
        lineage: identity.lineage,
        lsn: container.lsn(),
        bytes: container.bytes(),
        entries: blocks.iter().map(|block| u64::from(block.header.entries)).sum(),
        databases: last_database.saturating_add(1).max(DATABASES),
        created_unix_ms: identity.created_unix_ms,
        key: container.key_slot().filter(|_| identity.encrypted).map(|slot| slot.key_name.clone()),
    }
}

/// Verifies a whole container; decrypts and decompresses it where the keyring allows.
pub(crate) fn check_snapshot(
    disk: &dyn Disk,
    path: &Path,
    keyring: Option<&Keyring>,
    progress: &dyn Progress,
) -> Result<SnapshotFacts, JobError> {
    let container = open_container(disk, path, keyring)?;
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let told = AtomicU64::new(0);
    container.verify(threads, Depth::Contents, &|done| {
        // The threads' reports may overtake each other; each byte is told once.
        let before = told.fetch_max(done.stored_bytes, Ordering::Relaxed);
        progress.advance(done.stored_bytes.saturating_sub(before));
    })?;
    Ok(facts(&container))
}

/// As [`check_snapshot`], of a container whose bytes passed by on their way here or from here: where they prove nothing
/// the file is read, which tells what is wrong.
pub(crate) fn check_passed(
    disk: &dyn Disk,
    path: &Path,
    keyring: Option<&Keyring>,
    passed: &Passed,
    progress: &dyn Progress,
) -> Result<SnapshotFacts, JobError> {
    let container = open_container(disk, path, keyring)?;
    if container.is_passed(passed) {
        return Ok(facts(&container));
    }
    drop(container);
    check_snapshot(disk, path, keyring, progress)
}

/// Takes the bytes of a container that is on its way.
pub(crate) fn passing(keyring: Option<&Arc<Keyring>>) -> Passing {
    Passing::new(keyring.cloned(), thread::available_parallelism().map_or(1, usize::from))
}

/// Reads a container block by block, in the order of their numbers, and gives each with its database and its entries as they
/// are encoded. The memory used is that of one block.
///
/// # Errors
/// Damage, a missing key; the first of `each`.
pub fn read_blocks<E: From<JobError>>(
    disk: &dyn Disk,
    path: &Path,
    keyring: Option<&Keyring>,
    progress: &dyn Progress,
    mut each: impl FnMut(u32, &[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let container = Container::open(disk, path, keyring).map_err(JobError::from)?;
    progress.begin(Phase::Import, container.bytes());
    for (number, block) in container.index().blocks.iter().enumerate() {
        each(block.header.database, &container.read_block(number).map_err(JobError::from)?)?;
        progress.advance(block.header.stored_bytes);
    }
    progress.end();
    Ok(())
}

/// Whether the file of this name is still the one with this id.
pub(crate) fn is_still(disk: &dyn Disk, path: &Path, file_id: FileId) -> bool {
    let mut page = [0; PAGE];
    let read = disk.open_read(path).and_then(|file| file.read_exact_at(&mut page, 0));
    read.is_ok_and(|()| {
        Identity::decode(&page, Magic::Snapshot).is_ok_and(|identity| identity.file_id == file_id)
    })
}

/// The part of a journal segment that belongs to a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentPart {
    pub(crate) end: Lsn,
    pub(crate) bytes: u64,
    /// The length it was preallocated with, where a frame tells it.
    pub(crate) allocated_bytes: Option<u64>,
}

/// How much of a segment is durable for certain; of a segment that has a successor, what lies before that.
///
/// A frame states only what was durable when it was written, so the newest effects are known to be durable once the frame
/// after them says so, which on a quiet server is an empty one a moment later. That moment is waited for.
/// `told` is the durable LSN that the server told, if one was asked.
pub(crate) fn segment_part(
    segment: &mut OpenSegment,
    path: &Path,
    next: Option<Lsn>,
    told: Option<Lsn>,
) -> Result<SegmentPart, JobError> {
    let part = |prefix: &DurablePrefix| SegmentPart {
        end: prefix.end,
        bytes: prefix.file_bytes,
        allocated_bytes: prefix.allocated_bytes,
    };
    if let Some(next) = next {
        let prefix = segment.durable_prefix(next)?;
        agree(path, "end of the segment", next.0, prefix.end.0)?;
        return Ok(part(&prefix));
    }
    let began = Instant::now();
    // Whole frames there are now; a half-written one ends them, and is nobody's fault.
    let written = segment.durable_prefix(Lsn(u64::MAX)).map(|prefix| prefix.end);
    loop {
        let prefix = segment.durable_prefix(told.unwrap_or(Lsn::ZERO))?;
        let known = told.is_some() || written.as_ref().is_ok_and(|written| prefix.end >= *written);
        if known || began.elapsed() >= STATED_WITHIN {
            return Ok(part(&prefix));
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// What a check of a backup's files found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Checked {
    /// The LSN up to which effects will be there.
    pub(crate) end: Lsn,
    /// Whether everything was read, not only its checksums.
    pub(crate) decrypted: bool,
}

/// Checks the files of a backup, which lie under `paths` in the manifest's order: each is what its manifest says, and they
/// are whole as a snapshot and the journal that continues it. The last segment has its full length. `passed` is what the
/// snapshot's bytes were when they were written there.
pub(crate) fn check_backup(
    disk: &dyn Disk,
    backup: &BackupManifest,
    paths: &[PathBuf],
    passed: Option<&Passed>,
    keyring: Option<&Keyring>,
    progress: &dyn Progress,
) -> Result<Checked, JobError> {
    for (object, path) in backup.objects.iter().zip(paths) {
        if object.kind == ObjectKind::Snapshot {
            let facts = match passed {
                Some(passed) => check_passed(disk, path, keyring, passed, progress)?,
                None => check_snapshot(disk, path, keyring, progress)?,
            };
            agree(path, "file id of the snapshot", object.file_id().unwrap_or_default(), facts.file_id)?;
            agree(path, "LSN of the snapshot", backup.from_lsn, facts.lsn.0)?;
            agree(path, "number of keys in the snapshot", backup.entries, facts.entries)?;
        }
    }
    let segments =
        || backup.objects.iter().zip(paths).filter(|(object, _)| object.kind == ObjectKind::Journal);
    if keyring.is_none() && segments().any(|(object, _)| object.key.is_some()) {
        for (object, path) in segments() {
            let prefix = durable_prefix(disk, path, Lsn(object.end_lsn))?;
            agree(path, "end of the segment", object.end_lsn, prefix.end.0)?;
            progress.advance(object.bytes);
        }
        return Ok(Checked { end: Lsn(backup.to_lsn), decrypted: false });
    }
    let mut entries = Vec::new();
    for (object, path) in segments() {
        // An absolute name stands for itself wherever the directory is.
        let name = path
            .to_str()
            .ok_or_else(|| JobError::Usage(format!("{}: the path is not UTF-8", path.display())))?;
        let file_id = object.file_id().unwrap_or_default();
        entries.push(SegmentEntry { name: name.to_owned(), file_id, first_lsn: Lsn(object.first_lsn) });
    }
    let end = check_journal(disk, backup, &entries, keyring, progress)?;
    let locked = keyring.is_none() && backup.objects.iter().any(|object| object.key.is_some());
    Ok(Checked { end, decrypted: !locked })
}

/// Reads the journal as a server would, and gives the LSN it would recover to.
fn check_journal(
    disk: &dyn Disk,
    backup: &BackupManifest,
    entries: &[SegmentEntry],
    keyring: Option<&Keyring>,
    progress: &dyn Progress,
) -> Result<Lsn, JobError> {
    let (from, to) = (Lsn(backup.from_lsn), Lsn(backup.to_lsn));
    let mut count = |effects: &[u8], _: Lsn, _: u32| {
        progress.advance(effects.len() as u64);
        Ok::<(), Infallible>(())
    };
    match scan(disk, Path::new("/"), entries, from, to, keyring, &mut count) {
        Ok(report) => Ok(report.end),
        Err(ScanError::Journal(error)) => Err(error.into()),
        Err(ScanError::Sink(never)) => match never {},
    }
}

pub(crate) fn agree<T: PartialEq + ToString>(
    path: &Path,
    what: &'static str,
    expected: T,
    found: T,
) -> Result<(), JobError> {
    if expected == found {
        return Ok(());
    }
    Err(JobError::Damaged {
        place: path.display().to_string(),
        offset: None,
        what,
        expected: expected.to_string(),
        found: found.to_string(),
    })
}
