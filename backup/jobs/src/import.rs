//! Writing a data directory out of entries that come one by one: what another program's file holds, or a choice of keys.
//!
//! The entries go into a snapshot container, encrypted where there is a keyring, and a manifest names it last. What an entry
//! means stays with the caller; here it is bytes, of some database.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use cairn_format::Lsn;
use cairn_format::header::{Body, Identity, Magic, SnapshotBody};
use cairn_format::manifest::SnapshotEntry;
use cairn_seal::{Keyring, new_data_key, new_file_id, wrap};
use cairn_snapshot::{
    BLOCK_RAW_BYTES, BlockWriter, LEVEL_DEFAULT, SnapshotError, Source, Summary, WriteParams, write_container,
};

use crate::restore::{blocking, new_manifest};
use crate::target::{Placed, Target, refuse_filled};
use crate::{JobError, RestoreOptions, Restored, moment};

/// Batches that wait for each thread that compresses, at most.
const BATCHES_WAITING: usize = 2;

/// What the entries are told to be.
#[derive(Debug, Clone)]
pub struct ImportFacts {
    /// Where they come from, as a person names it.
    pub from: String,
    /// The LSN below which they hold every effect; at least 1, since nothing lies below 0.
    pub lsn: u64,
    /// How many databases the server they come from has, if that is known.
    pub databases: u32,
}

/// Takes entries on their way into a container.
pub struct EntrySink {
    /// None in a dry run, where they are only counted.
    batches: Option<SyncSender<Batch>>,
    open: Batch,
    entries: u64,
    bytes: u64,
    databases: u32,
    cancelled: Arc<AtomicBool>,
}

/// Entries of one database, encoded.
#[derive(Default)]
struct Batch {
    database: u32,
    raw: Vec<u8>,
    ends: Vec<usize>,
}

impl EntrySink {
    /// Adds an entry: `encode` appends its bytes, in the form of `storage/docs/snapshot.md`.
    ///
    /// # Errors
    /// [`JobError::Interrupted`]; [`JobError::Abandoned`] where nobody takes entries any more, of which the import itself
    /// tells the reason.
    pub fn entry(&mut self, database: u32, encode: impl FnOnce(&mut Vec<u8>)) -> Result<(), JobError> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(JobError::Interrupted);
        }
        if database != self.open.database || self.open.raw.len() >= BLOCK_RAW_BYTES {
            self.hand_over()?;
            self.open.database = database;
        }
        encode(&mut self.open.raw);
        self.open.ends.push(self.open.raw.len());
        self.entries += 1;
        self.databases = self.databases.max(database.saturating_add(1));
        Ok(())
    }

    fn hand_over(&mut self) -> Result<(), JobError> {
        let batch = std::mem::take(&mut self.open);
        self.bytes += batch.raw.len() as u64;
        match &self.batches {
            Some(batches) if !batch.ends.is_empty() => batches.send(batch).map_err(|_| JobError::Abandoned),
            _ => Ok(()),
        }
    }
}

/// The other end: each thread that writes blocks takes batches until no more come.
struct Feed {
    batches: Mutex<Receiver<Batch>>,
    threads: usize,
    /// The entries ended early, so that what was written is of no use.
    failed: Arc<AtomicBool>,
}

impl Source for Feed {
    fn partitions(&self) -> usize {
        self.threads
    }

    fn encode(&self, _: usize, out: &mut BlockWriter<'_>) -> Result<(), SnapshotError> {
        loop {
            // A statement of its own, so that others take the next batch while this one is compressed.
            let batch = self.batches.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(batch) = batch else { break };
            let mut start = 0;
            for end in batch.ends {
                let entry = batch.raw.get(start..end).unwrap_or_default();
                out.entry(batch.database, |raw| raw.extend_from_slice(entry))?;
                start = end;
            }
        }
        if self.failed.load(Ordering::SeqCst) {
            return Err(SnapshotError::NoResources(io::ErrorKind::Interrupted.into()));
        }
        Ok(())
    }
}

/// Writes a data directory of the entries that `fill` gives. In a dry run they are only counted, and nothing is written.
///
/// # Errors
/// [`JobError::NotEmpty`], [`JobError::Locked`], no space; those of `fill`. The directory then holds what it held before.
pub async fn import<F>(
    facts: ImportFacts,
    options: RestoreOptions,
    dry_run: bool,
    fill: F,
) -> Result<Restored, JobError>
where
    F: FnOnce(&mut EntrySink) -> Result<(), JobError> + Send + 'static,
{
    let guard = CancelOnDrop::default();
    let cancelled = guard.flag();
    blocking(move || {
        refuse_filled(&*options.disk, &options.dir, options.force)?;
        if dry_run {
            count(facts, &options, cancelled, fill)
        } else {
            write(facts, &options, cancelled, fill)
        }
    })
    .await
}

/// Tells work that blocks that nobody waits for it any more: where a future that holds this is dropped, the work behind it
/// ends at its next entry and clears away what it made.
#[derive(Debug, Default)]
pub struct CancelOnDrop(Arc<AtomicBool>);

impl CancelOnDrop {
    /// True once nobody waits any more.
    pub fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn count(
    facts: ImportFacts,
    options: &RestoreOptions,
    cancelled: Arc<AtomicBool>,
    fill: impl FnOnce(&mut EntrySink) -> Result<(), JobError>,
) -> Result<Restored, JobError> {
    let mut sink = new_sink(None, cancelled);
    fill(&mut sink)?;
    sink.hand_over()?;
    Ok(restored(facts, options, None, sink.bytes, sink.entries))
}

fn write(
    facts: ImportFacts,
    options: &RestoreOptions,
    cancelled: Arc<AtomicBool>,
    fill: impl FnOnce(&mut EntrySink) -> Result<(), JobError>,
) -> Result<Restored, JobError> {
    let mut target = Target::open(Arc::clone(&options.disk), &options.dir, options.force)?;
    let mut manifest = new_manifest(0, facts.databases)?;
    let placed = target.reserve(&format!("snapshot-{:020}.cairn", facts.lsn))?;
    let params = params(&placed, &facts, &manifest.lineage, options.keyring.as_deref())?;
    let (summary, databases) = write_entries(options, &params, cancelled, fill)?;
    manifest.databases = manifest.databases.max(databases);
    manifest.snapshot = Some(SnapshotEntry {
        name: placed.name.clone(),
        file_id: params.identity.file_id,
        lsn: Lsn(facts.lsn),
        bytes: summary.bytes,
        entries: summary.entries,
    });
    let lineage = manifest.lineage.to_string();
    target.commit(&[placed], &mut manifest, options.keyring.as_deref())?;
    Ok(restored(facts, options, Some(lineage), summary.bytes, summary.entries))
}

/// The container as it will be: written and verified under one temporary name, kept under another until it is committed.
fn params(
    placed: &Placed,
    facts: &ImportFacts,
    lineage: &cairn_format::LineageId,
    keyring: Option<&Keyring>,
) -> Result<WriteParams, JobError> {
    let seal = |source| JobError::Seal { place: placed.temporary.display().to_string(), source };
    let file_id = new_file_id().map_err(seal)?;
    let key = keyring
        .map(|keyring| {
            let key = new_data_key()?;
            let slot = wrap(keyring, Magic::Snapshot, file_id, &key, 1)?;
            Ok((key, slot))
        })
        .transpose()
        .map_err(seal)?;
    Ok(WriteParams {
        path_tmp: unfinished(&placed.temporary),
        path_final: placed.temporary.clone(),
        identity: Identity {
            magic: Magic::Snapshot,
            encrypted: key.is_some(),
            file_id,
            lineage: *lineage,
            created_unix_ms: moment::now_unix_ms(),
            body: Body::Snapshot(SnapshotBody { lsn: Lsn(facts.lsn) }),
        },
        key,
        threads: thread::available_parallelism().map_or(1, usize::from),
        level: LEVEL_DEFAULT,
    })
}

/// A name that counts as a leftover too.
fn unfinished(temporary: &Path) -> PathBuf {
    cairn_disk::temporary_name(temporary)
}

/// Runs `fill` on this thread while others write what it gives; how many databases there are at least.
fn write_entries(
    options: &RestoreOptions,
    params: &WriteParams,
    cancelled: Arc<AtomicBool>,
    fill: impl FnOnce(&mut EntrySink) -> Result<(), JobError>,
) -> Result<(Summary, u32), JobError> {
    let (batches, taken) = sync_channel(BATCHES_WAITING * params.threads);
    let failed = Arc::new(AtomicBool::new(false));
    let feed = Feed { batches: Mutex::new(taken), threads: params.threads, failed: Arc::clone(&failed) };
    thread::scope(|scope| {
        let disk = &*options.disk;
        // The feed goes with the writer, so that whoever fills hears at once when nobody takes any more.
        let writing = scope.spawn(move || write_container(disk, params, &feed, &|_| {}));
        let mut sink = new_sink(Some(batches), cancelled);
        let filled = fill(&mut sink).and_then(|()| sink.hand_over());
        failed.store(filled.is_err(), Ordering::SeqCst);
        let databases = sink.databases;
        drop(sink);
        let written = writing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        match (filled, written) {
            (Ok(()), Ok(summary)) => Ok((summary, databases)),
            (Ok(()) | Err(JobError::Abandoned), Err(error)) => Err(write_error(error)),
            (Err(error), _) => Err(error),
        }
    })
}

/// No room is the one failure of a disk that has a name.
fn write_error(error: SnapshotError) -> JobError {
    match error {
        SnapshotError::Io { file, source } => JobError::write(&file, 0, source),
        error => error.into(),
    }
}

fn new_sink(batches: Option<SyncSender<Batch>>, cancelled: Arc<AtomicBool>) -> EntrySink {
    EntrySink { batches, open: Batch::default(), entries: 0, bytes: 0, databases: 0, cancelled }
}

fn restored(
    facts: ImportFacts,
    options: &RestoreOptions,
    lineage: Option<String>,
    bytes: u64,
    entries: u64,
) -> Restored {
    Restored {
        from: facts.from,
        created_unix_ms: moment::now_unix_ms(),
        dir: options.dir.clone(),
        lineage,
        objects: 1,
        bytes,
        entries,
        to_lsn: facts.lsn,
    }
}

#[cfg(test)]
mod tests {
    use cairn_disk::RealDisk;
    use cairn_snapshot::Container;

    use super::*;

    fn options(dir: &Path, keyring: Option<Arc<Keyring>>) -> RestoreOptions {
        RestoreOptions { dir: dir.to_owned(), disk: Arc::new(RealDisk), keyring, force: false }
    }

    fn facts() -> ImportFacts {
        ImportFacts { from: "test".to_owned(), lsn: 1, databases: 16 }
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(dir)
            .into_iter()
            .flatten()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn fill(sink: &mut EntrySink) -> Result<(), JobError> {
        for number in 0..40_000u32 {
            sink.entry(number / 20_000 * 20, |raw| raw.extend_from_slice(&[number as u8; 30]))?;
        }
        Ok(())
    }

    #[tokio::test]
    async fn every_entry_arrives_once_and_in_its_database() {
        for keyring in [None, Some(Arc::new(Keyring::generate().unwrap()))] {
            let home = tempfile::tempdir().unwrap();
            let dir = home.path().join("data");
            let made = import(facts(), options(&dir, keyring.clone()), false, fill).await.unwrap();
            assert_eq!((made.entries, made.to_lsn), (40_000, 1));
            assert_eq!(names(&dir), ["lock", "manifest", "snapshot-00000000000000000001.cairn"]);
            let path = dir.join("snapshot-00000000000000000001.cairn");
            let container = Container::open(&RealDisk, &path, keyring.as_deref()).unwrap();
            assert_eq!(container.identity().encrypted, keyring.is_some());
            let mut bytes = std::collections::BTreeMap::new();
            for (number, block) in container.index().blocks.iter().enumerate() {
                *bytes.entry(block.header.database).or_default() +=
                    container.read_block(number).unwrap().len();
            }
            assert_eq!(bytes, [(0, 600_000), (20, 600_000)].into());
        }
    }

    #[tokio::test]
    async fn what_ends_early_leaves_nothing_and_tells_its_own_reason() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("data");
        let failing = |sink: &mut EntrySink| {
            fill(sink)?;
            Err(JobError::Usage("enough".to_owned()))
        };
        let error = import(facts(), options(&dir, None), false, failing).await.unwrap_err();
        assert!(matches!(error, JobError::Usage(why) if why == "enough"));
        assert!(!dir.exists());
    }

    #[tokio::test]
    async fn a_dry_run_counts_and_writes_nothing() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("data");
        let counted = import(facts(), options(&dir, None), true, fill).await.unwrap();
        assert_eq!((counted.entries, counted.bytes, counted.lineage), (40_000, 1_200_000, None));
        assert!(!dir.exists());
    }
}
