//! Segments prepared ahead: a thread of its own preallocates them, so that a write is admitted only against room that
//! is really there, and trims those that are done.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cairn_disk::File;
use cairn_format::HEADER_BYTES;
use parking_lot::MutexGuard;

use crate::Fsync;
use crate::error::AdmitError;
use crate::shared::Shared;

/// How long after a failure the next attempt is made.
pub(crate) const RETRY_AFTER: Duration = Duration::from_millis(200);
/// Zeros are written in pieces of this size, each synced, so that they do not hold up the syncs of the writer for long.
const FILL_BYTES: usize = 1 << 20;

/// A preallocated file without a header.
pub(crate) struct Prepared {
    pub(crate) file: Arc<dyn File>,
    pub(crate) path: PathBuf,
    pub(crate) file_bytes: u64,
}

/// Why no segment could be prepared.
#[derive(Clone)]
struct Failure {
    no_space: bool,
    passing: bool,
    kind: io::ErrorKind,
    reason: String,
    /// What to do about it, to be put behind the reason.
    advice: &'static str,
    since_unix_ms: u64,
}

/// What the preparing thread has and is asked for.
#[derive(Default)]
pub(crate) struct Supply {
    prepared: VecDeque<Prepared>,
    /// Room that somebody waits for; 0 when nobody does.
    pub(crate) demand: u64,
    /// The first segment must hold at least this.
    pub(crate) first_bytes: u64,
    /// Files to be cut after their last frame.
    pub(crate) done: Vec<(Arc<dyn File>, PathBuf, u64)>,
    failure: Option<Failure>,
    pub(crate) stop: bool,
    prepared_count: u64,
}

impl Supply {
    /// Why admission refuses; `None` when all is well.
    pub(crate) fn refusal(&self, dir: &Path) -> Option<AdmitError> {
        let failure = self.failure.as_ref()?;
        Some(if failure.no_space {
            AdmitError::NoSpace { dir: dir.to_path_buf() }
        } else {
            AdmitError::NoSegment {
                dir: dir.to_path_buf(),
                reason: format!("{}{}", failure.reason, failure.advice),
            }
        })
    }

    /// Since when (unix ms) no segment can be prepared, for whatever reason.
    pub(crate) fn failing_since(&self) -> Option<u64> {
        self.failure.as_ref().map(|failure| failure.since_unix_ms)
    }

    /// Since when (unix ms) the disk has been full.
    pub(crate) fn full_since(&self) -> Option<u64> {
        self.failure.as_ref().filter(|failure| failure.no_space).map(|failure| failure.since_unix_ms)
    }
}

/// Whether an error means that space is what lacks, so that waiting may help.
pub(crate) fn is_no_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Whether waiting may help: room on the disk, file handles and memory come back by themselves. After any other error
/// the disk is not trusted again.
pub(crate) fn is_passing(error: &io::Error) -> bool {
    const ENOMEM: i32 = 12;
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    is_no_space(error) || matches!(error.raw_os_error(), Some(ENOMEM | ENFILE | EMFILE))
}

/// Hands out the next prepared segment, waiting for it. Failures that pass are waited out if `patient`, unless the
/// journal is being shut down; admission refuses meanwhile with the reason.
pub(crate) fn obtain(shared: &Shared, patient: bool) -> io::Result<Prepared> {
    let mut supply = shared.supply.lock();
    loop {
        if let Some(prepared) = supply.prepared.pop_front() {
            shared.supply_wanted.notify_one();
            return Ok(prepared);
        }
        if let Some(failure) = &supply.failure
            && (!(patient && failure.passing) || shared.stopping.load(Ordering::SeqCst))
        {
            return Err(io::Error::new(failure.kind, failure.reason.clone()));
        }
        if supply.stop {
            return Err(io::Error::other("the journal was shut down"));
        }
        wait_until_ready(shared, &mut supply);
    }
}

/// Whether the next segment is prepared, or is not going to be for now; waits while neither is known. Only the writer
/// takes segments, so what is ready for it stays so.
pub(crate) fn is_ready(shared: &Shared) -> bool {
    let mut supply = shared.supply.lock();
    loop {
        if !supply.prepared.is_empty() {
            return true;
        }
        if supply.failure.is_some() || supply.stop {
            return false;
        }
        wait_until_ready(shared, &mut supply);
    }
}

/// Waits for the preparing thread; a journal that is driven prepares the segment here.
fn wait_until_ready(shared: &Shared, supply: &mut MutexGuard<'_, Supply>) {
    let Some(driver) = &shared.options.driver else {
        shared.supply_ready.wait(supply);
        return;
    };
    if supply.failure.is_some() {
        MutexGuard::unlocked(supply, || driver.rest(RETRY_AFTER));
    }
    step(shared, supply);
}

/// The loop of the thread "cairn-journal-prepare".
pub(crate) fn run(shared: &Shared) {
    let mut supply = shared.supply.lock();
    while !supply.stop {
        if !step(shared, &mut supply) {
            shared.supply_wanted.wait(&mut supply);
        } else if supply.failure.is_some() && !supply.stop {
            // The condition is the disk's, which nobody signals.
            shared.supply_wanted.wait_for(&mut supply, RETRY_AFTER);
        }
    }
    remove_prepared(shared, &mut supply);
}

/// Trims what is done, or prepares a segment if one is wanted; false when there was nothing to do.
pub(crate) fn step(shared: &Shared, supply: &mut MutexGuard<'_, Supply>) -> bool {
    if !supply.done.is_empty() {
        let done = std::mem::take(&mut supply.done);
        MutexGuard::unlocked(supply, || trim(done));
        return true;
    }
    let room = shared.room.load(Ordering::SeqCst);
    if room >= supply.demand {
        supply.demand = 0;
    }
    if !supply.prepared.is_empty() && supply.demand == 0 {
        return false;
    }
    supply.prepared_count += 1;
    let number = supply.prepared_count;
    let file_bytes = shared.options.segment_bytes.max(std::mem::take(&mut supply.first_bytes));
    let outcome = MutexGuard::unlocked(supply, || prepare(shared, number, file_bytes));
    record(shared, supply, outcome);
    true
}

/// Segments that nobody will take.
pub(crate) fn remove_prepared(shared: &Shared, supply: &mut Supply) {
    for prepared in supply.prepared.drain(..) {
        remove(shared, &prepared.path);
    }
}

fn record(shared: &Shared, supply: &mut Supply, outcome: io::Result<Prepared>) {
    match outcome {
        Ok(prepared) => {
            shared.room.fetch_add(prepared.file_bytes - HEADER_BYTES as u64, Ordering::SeqCst);
            supply.prepared.push_back(prepared);
            if supply.failure.take().is_some() {
                tracing::info!("journal segments can be prepared again; writes are taken");
            }
            shared.supply_failed.store(false, Ordering::SeqCst);
        }
        Err(error) => {
            if supply.failure.is_none() {
                tracing::error!(
                    dir = %shared.dir.display(), %error, room_bytes = shared.room.load(Ordering::SeqCst),
                    "cannot prepare a journal segment: writes are refused once the room is used up, reads go on, and it is \
                     tried again until it succeeds{}",
                    cairn_disk::advice(&error)
                );
            }
            let since = supply.failure.as_ref().map_or_else(unix_ms, |failure| failure.since_unix_ms);
            supply.failure = Some(Failure {
                no_space: is_no_space(&error),
                passing: is_passing(&error),
                kind: error.kind(),
                reason: error.to_string(),
                advice: cairn_disk::advice(&error),
                since_unix_ms: since,
            });
            shared.supply_failed.store(true, Ordering::SeqCst);
        }
    }
    shared.supply_ready.notify_all();
    shared.wake_admission();
}

fn prepare(shared: &Shared, number: u64, file_bytes: u64) -> io::Result<Prepared> {
    let file_id = cairn_seal::new_file_id().map_err(io::Error::other)?;
    let path = shared.dir.join(format!("journal-{file_id}-{number}.tmp"));
    let file = shared.disk.create_new(&path)?;
    let filled = file.allocate(file_bytes).and_then(|()| match shared.fsync() {
        Fsync::Always => fill(&*file, file_bytes),
        Fsync::EverySec | Fsync::No => Ok(()),
    });
    if let Err(error) = filled {
        drop(file);
        remove(shared, &path);
        return Err(error);
    }
    Ok(Prepared { file, path, file_bytes })
}

/// Writes the zeros out: a sync of blocks that were written before need not change the file's map of blocks.
fn fill(file: &dyn File, file_bytes: u64) -> io::Result<()> {
    let zeros = vec![0; FILL_BYTES];
    let mut offset = 0;
    while offset < file_bytes {
        let length = zeros.len().min(usize::try_from(file_bytes - offset).unwrap_or(usize::MAX));
        file.write_at(zeros.get(..length).unwrap_or(&zeros), offset)?;
        file.sync_data()?;
        offset += length as u64;
    }
    file.sync_all()
}

/// Gives back the room that a finished segment did not use. The successor is named already, so its end is known.
fn trim(done: Vec<(Arc<dyn File>, PathBuf, u64)>) {
    for (file, path, end) in done {
        if let Err(error) = file.set_len(end) {
            tracing::warn!(file = %path.display(), %error, "cannot cut a finished journal segment to its length");
        }
    }
}

pub(crate) fn remove(shared: &Shared, path: &Path) {
    if let Err(error) = shared.disk.remove(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(file = %path.display(), %error, "cannot remove a journal file that is not needed");
    }
}

pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
