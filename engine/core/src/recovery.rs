//! From a data directory to a keyspace: lock, manifest, snapshot, journal, and a journal that goes on.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, SyncSender};
use std::time::{Duration, Instant};

use cairn_commands::{Piece, ReplayError, replay};
use cairn_disk::LockGuard;
use cairn_format::Lsn;
use cairn_format::container::Index;
use cairn_format::manifest::{Manifest, SnapshotEntry};
use cairn_journal::{Cut, Fsync, Journal, JournalError, Resume, ScanError, ScanReport, SegmentReader, scan};
use cairn_keyspace::types::Limits;
use cairn_keyspace::{Batch, Entry, Keyspace, Stored};
use cairn_snapshot::{Block, Container, LoadError};
use parking_lot::Mutex;

use crate::catalog::Catalog;
use crate::engine::now_ms;
use crate::error::OpenError;
use crate::loading::Loading;
use crate::options::Options;
use crate::snapshots::load_libraries;

/// What was found when a directory was opened.
#[derive(Clone, Debug, Default)]
pub struct Recovery {
    /// The directory held no data.
    pub fresh: bool,
    /// Keys that the snapshot held.
    pub snapshot_entries: u64,
    /// The position of the snapshot; zero without one.
    pub snapshot_lsn: Lsn,
    /// Effects that were replayed from the journal.
    pub replayed: u64,
    /// Where the data ends.
    pub end: Lsn,
    /// What was cut from the journal's end because it had never been finished.
    pub cut: Option<Cut>,
    /// How long it took.
    pub duration: Duration,
}

impl std::fmt::Display for Recovery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.fresh {
            return f.write_str("the directory held no data");
        }
        let Self { snapshot_entries, snapshot_lsn, replayed, end, .. } = self;
        let ms = self.duration.as_millis();
        write!(
            f,
            "{snapshot_entries} keys from the snapshot at LSN {snapshot_lsn}, {replayed} effects replayed to LSN {end}, in {ms} ms"
        )?;
        if let Some(cut) = &self.cut {
            write!(f, "; {} unfinished bytes cut behind LSN {}", cut.bytes, cut.from)?;
        }
        Ok(())
    }
}

pub(crate) struct Opened {
    pub(crate) catalog: Arc<Catalog>,
    /// None with `appendonly no`.
    pub(crate) journal: Option<Arc<Journal>>,
    pub(crate) snapshot: Option<SnapshotEntry>,
    pub(crate) recovery: Recovery,
}

/// Makes the directory where it is absent, and keeps other processes from it.
pub(crate) fn claim(options: &Options) -> Result<Box<dyn LockGuard>, OpenError> {
    let dir = &options.dir;
    options.disk.create_dir_all(dir).map_err(|source| OpenError::Io { path: dir.clone(), source })?;
    lock(options)
}

/// Loads a directory that was claimed.
pub(crate) fn open(options: &Options, keyspace: &Keyspace, loading: &Loading) -> Result<Opened, OpenError> {
    let started = Instant::now();
    let dir = &options.dir;
    let io = |source| OpenError::Io { path: dir.clone(), source };
    let (catalog, found) =
        Catalog::open(options.disk.clone(), dir, options.keyring.clone(), options.databases)?;
    let catalog = Arc::new(catalog);
    let manifest = catalog.manifest();
    let mut recovery = Recovery { fresh: !found, ..Recovery::default() };
    let resume = read(options, keyspace, &manifest, &mut recovery, loading)?;
    catalog.remove_leftovers(recovery.end)?;
    catalog.begin_epoch().map_err(io)?;
    let journal = if options.append_only {
        Some(start_journal(options, options.fsync, resume, &catalog)?)
    } else {
        if !manifest.segments.is_empty() {
            tracing::warn!(
                "appendonly is off although the data has a journal: it was replayed, and what is written from now on \
                 survives only in snapshots"
            );
        }
        None
    };
    recovery.duration = started.elapsed();
    Ok(Opened { catalog, journal, snapshot: manifest.snapshot, recovery })
}

/// Begins to write the journal where it is to go on.
pub(crate) fn start_journal(
    options: &Options,
    fsync: Fsync,
    resume: Resume,
    catalog: &Arc<Catalog>,
) -> Result<Arc<Journal>, JournalError> {
    let manifest = catalog.manifest();
    let journal = cairn_journal::Options {
        dir: options.dir.clone(),
        disk: options.disk.clone(),
        keyring: options.keyring.clone(),
        fsync,
        segment_bytes: options.segment_bytes,
        lineage: manifest.lineage,
        epoch: manifest.epoch,
        queue_bytes_max: 64 * 1024 * 1024,
        driver: options.journal_driver.clone(),
    };
    Journal::start(journal, resume, catalog.clone())
}

pub(crate) fn lock_path(options: &Options) -> PathBuf {
    options.dir.join("lock")
}

/// Keeps other processes from the directory.
pub(crate) fn lock(options: &Options) -> Result<Box<dyn LockGuard>, OpenError> {
    let path = lock_path(options);
    options.disk.lock(&path).map_err(|source| match source.kind() {
        std::io::ErrorKind::WouldBlock => OpenError::Locked { path },
        _ => OpenError::Io { path, source },
    })
}

/// Reads all that the manifest names into the keyspace and changes nothing on the disk; says where the journal goes on.
pub(crate) fn read(
    options: &Options,
    keyspace: &Keyspace,
    manifest: &Manifest,
    recovery: &mut Recovery,
    loading: &Loading,
) -> Result<Resume, OpenError> {
    loading.expect(bytes_to_read(options, manifest));
    if let Some(entry) = &manifest.snapshot {
        load_snapshot(options, keyspace, manifest, entry, loading)?;
        recovery.snapshot_entries = entry.entries;
        recovery.snapshot_lsn = entry.lsn;
    }
    let resume = replay_journal(options, keyspace, manifest, recovery, loading)?;
    recovery.end = resume.end();
    Ok(resume)
}

/// About how much the manifest's files hold: the journal's last one may not be full.
fn bytes_to_read(options: &Options, manifest: &Manifest) -> u64 {
    let snapshot = manifest.snapshot.as_ref();
    let from = snapshot.map_or(Lsn::ZERO, |entry| entry.lsn);
    let journal = manifest.segments.last().map_or(0, |last| {
        // A file that is not there is reported by who reads it.
        let bytes = options.disk.len(&options.dir.join(&last.name)).unwrap_or(0);
        last.first_lsn.0.saturating_sub(from.0) + bytes
    });
    snapshot.map_or(0, |entry| entry.bytes) + journal
}

fn load_snapshot(
    options: &Options,
    keyspace: &Keyspace,
    manifest: &Manifest,
    entry: &SnapshotEntry,
    loading: &Loading,
) -> Result<(), OpenError> {
    let path = options.dir.join(&entry.name);
    if !options.disk.exists(&path).map_err(|source| OpenError::Io { path: path.clone(), source })? {
        return Err(OpenError::MissingSnapshot { path, lsn: entry.lsn, entries: entry.entries });
    }
    let container = Container::open(&*options.disk, &path, options.keyring.as_deref())?;
    let differs = |what, expected: &dyn ToString, found: &dyn ToString| OpenError::OtherSnapshot {
        path: path.clone(),
        what,
        expected: expected.to_string(),
        found: found.to_string(),
    };
    // The file id alone says which file it is: after a restore the files still bear the lineage they came from.
    let file_id = container.identity().file_id;
    if file_id != entry.file_id {
        return Err(differs("file id", &entry.file_id, &file_id));
    }
    if manifest.encrypted && !container.identity().encrypted {
        return Err(OpenError::NotEncrypted { path });
    }
    if container.lsn() != entry.lsn {
        return Err(differs("LSN", &entry.lsn, &container.lsn()));
    }
    let per_shard = keys_per_shard(container.index());
    let libraries = Mutex::new(Vec::new());
    let load = |block: Block<'_>| {
        loading.add(
            container.index().blocks.get(block.number as usize).map_or(0, |one| one.header.stored_bytes),
        );
        load_block(keyspace, &options.limits, &block, &per_shard, &libraries).map_err(|why| {
            OpenError::Replay { place: format!("{}: offset {}", path.display(), block.offset), why }
        })
    };
    container.load_parallel(options.threads, &load).map_err(|error| match error {
        LoadError::Snapshot(error) => error.into(),
        LoadError::Sink(error) => error,
    })?;
    load_libraries(keyspace, &libraries.into_inner())
        .map_err(|why| OpenError::Replay { place: format!("{}: a function library", path.display()), why })
}

/// How many keys each shard will hold of each database, so that tables can be laid out before they are filled.
fn keys_per_shard(index: &Index) -> HashMap<u32, usize> {
    let mut keys: HashMap<u32, u64> = HashMap::new();
    for block in &index.blocks {
        *keys.entry(block.header.database).or_default() += u64::from(block.header.entries);
    }
    keys.into_iter().map(|(db, keys)| (db, Batch::per_shard(keys))).collect()
}

/// Puts a block's entries into the keyspace, which nobody else uses yet but other threads that load.
fn load_block(
    keyspace: &Keyspace,
    limits: &Limits,
    block: &Block<'_>,
    per_shard: &HashMap<u32, usize>,
    libraries: &Mutex<Vec<Vec<u8>>>,
) -> Result<(), String> {
    let db = database(keyspace, block.database)?;
    let (mut batch, now_ms) = (Batch::default(), now_ms());
    let stored = |stored| match stored {
        Stored::Entry(entry) => batch.push(keyspace, entry),
        Stored::Used(mut entry, usage) => {
            entry.set_clock(keyspace.access().recorded(usage, now_ms));
            batch.push(keyspace, entry);
        }
        Stored::Library(source) => libraries.lock().push(source),
    };
    Entry::load_all(block.raw, limits, stored).map_err(|error| error.to_string())?;
    batch.insert_into(keyspace, db, per_shard.get(&block.database).copied().unwrap_or(0));
    Ok(())
}

fn database(keyspace: &Keyspace, db: u32) -> Result<u16, String> {
    u16::try_from(db)
        .ok()
        .filter(|db| *db < keyspace.databases())
        .ok_or_else(|| format!("it belongs to database {db}, and there are {}", keyspace.databases()))
}

/// Replays the journal behind the snapshot and says where it goes on.
fn replay_journal(
    options: &Options,
    keyspace: &Keyspace,
    manifest: &Manifest,
    recovery: &mut Recovery,
    loading: &Loading,
) -> Result<Resume, OpenError> {
    let from = recovery.snapshot_lsn;
    if manifest.segments.is_empty() {
        return Ok(Resume::at(from));
    }
    // What a sealed manifest names is sealed, or was put there by somebody without the key.
    for segment in manifest.segments.iter().filter(|_| manifest.encrypted) {
        let path = options.dir.join(&segment.name);
        // What cannot be opened is explained by the scan, with what would be lost.
        if let Ok(reader) = SegmentReader::open(&*options.disk, &path, options.keyring.as_deref())
            && !reader.identity().encrypted
        {
            return Err(OpenError::NotEncrypted { path });
        }
    }
    let (report, replayed) = scan_and_replay(options, keyspace, manifest, from, loading)?;
    if let Some(cut) = &report.cut {
        tracing::warn!(
            file = %cut.file.display(),
            offset = cut.offset,
            bytes = cut.bytes,
            from = cut.from.0,
            to = cut.to.0,
            "the journal's end had not been written whole and was cut; none of it had been acknowledged as durable"
        );
    }
    recovery.replayed = replayed;
    recovery.cut = report.cut;
    Ok(report.resume)
}

/// Pieces that are read ahead.
const PIECES_AHEAD: usize = 2;

/// Why reading ended although the journal is whole.
enum Unread {
    /// Nobody wants more.
    Unwanted,
    /// The journal names a database that is not there.
    Database(Lsn, String),
}

/// Reads, verifies and opens the journal on one thread while what was read is replayed on others; gives how many effects
/// there were.
fn scan_and_replay(
    options: &Options,
    keyspace: &Keyspace,
    manifest: &Manifest,
    from: Lsn,
    loading: &Loading,
) -> Result<(ScanReport, u64), OpenError> {
    let (filled, pieces) = mpsc::sync_channel(PIECES_AHEAD);
    std::thread::scope(|scope| {
        let reading = std::thread::Builder::new()
            .name("cairn-scan".to_owned())
            .spawn_scoped(scope, move || read_pieces(options, keyspace, manifest, from, &filled))
            .map_err(|source| OpenError::Io { path: options.dir.clone(), source })?;
        let replayed = replay(keyspace, &options.limits, options.threads, |replayer| {
            // The receiver goes with this closure, so that reading ends when replaying has.
            for piece in pieces {
                loading.add(piece.len() as u64);
                replayer.feed(piece)?;
            }
            replayer.finish()?;
            Ok(replayer.commands)
        });
        let read = reading.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        // What fails in the replay lies before whatever ended the reading.
        let failed = |lsn, why| OpenError::Replay { place: format!("the journal at LSN {lsn}"), why };
        let commands = replayed.map_err(|error: ReplayError| failed(Lsn(error.position), error.why))?;
        match read {
            Ok(report) => Ok((report, commands)),
            Err(ScanError::Journal(error)) => Err(OpenError::Journal(error)),
            Err(ScanError::Sink(Unread::Database(lsn, why))) => Err(failed(lsn, why)),
            Err(ScanError::Sink(Unread::Unwanted)) => unreachable!("replaying ends early only with an error"),
        }
    })
}

fn read_pieces(
    options: &Options,
    keyspace: &Keyspace,
    manifest: &Manifest,
    from: Lsn,
    filled: &SyncSender<Piece>,
) -> Result<ScanReport, ScanError<Unread>> {
    let mut piece = Piece::default();
    let report = scan(
        &*options.disk,
        &options.dir,
        &manifest.segments,
        from,
        from,
        options.keyring.as_deref(),
        &mut |bytes: &[u8], first: Lsn, db: u32| {
            let db = database(keyspace, db).map_err(|why| Unread::Database(first, why))?;
            piece.push(bytes, first.0, db);
            if !piece.is_full() {
                return Ok(());
            }
            filled.send(std::mem::take(&mut piece)).map_err(|_| Unread::Unwanted)
        },
    );
    // What lies before damage is replayed too: if that fails, it is what a person has to hear of first.
    if !piece.is_empty() && filled.send(piece).is_err() {
        return report.and(Err(ScanError::Sink(Unread::Unwanted)));
    }
    report
}
