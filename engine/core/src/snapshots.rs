//! Snapshots: one cut of all data, written by a forked child while the server goes on.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use cairn_commands::script::load_library;
use cairn_commands::{Reload, SnapshotReason};
use cairn_disk::DirEntry;
use cairn_format::header::{Body, Identity, KeySlot, Magic, SnapshotBody};
use cairn_format::manifest::SnapshotEntry;
use cairn_format::{FileId, Lsn};
use cairn_journal::{Fsync, Resume};
use cairn_keyspace::{Access, Entry, Keyspace, LibraryMap, Locked, SHARDS, Shard, Stored};
use cairn_seal::DataKey;
use cairn_snapshot::{
    BlockWriter, ChildLimits, Container, InProgress, LEVEL_DEFAULT, Progress, SnapshotError, Source, Summary,
    WriteParams, free_name, write_container,
};
use parking_lot::{Condvar, Mutex};

use crate::engine::{Inner, now_ms};
use crate::error::SaveError;
use crate::loading::Loading;
use crate::options::Options;
use crate::recovery::{self, Recovery};

/// A child that gets nowhere for so long is ended.
const STALL_LIMIT: Duration = Duration::from_secs(60);

/// After a failure the next snapshot that is due waits for so long, twice as long after each further one, and no longer than
/// the greatest: a full disk is not hammered, and one that has room again is not left without a snapshot.
const RETRY_AFTER: Duration = Duration::from_secs(5);
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);

/// So long the end of the server waits for a child that was killed: one that the disk holds fast cannot end.
const CANCEL_LIMIT: Duration = Duration::from_secs(10);

/// How long the next one that is due waits after so many failures in a row.
fn backoff(failures: u64) -> Duration {
    let doublings = u32::try_from(failures.saturating_sub(1)).unwrap_or(u32::MAX).min(16);
    (RETRY_AFTER * (1 << doublings)).min(RETRY_AFTER_MAX)
}

/// A file's key and its wrapping.
type FileKey = Option<(DataKey, KeySlot)>;

/// A snapshot that was written and is named by the manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// The file.
    pub path: PathBuf,
    /// It holds the effects below this position.
    pub lsn: Lsn,
    /// How many keys it holds.
    pub entries: u64,
    /// Its size in bytes.
    pub bytes: u64,
    /// How long the fork held up every command, in microseconds.
    pub fork_micros: u64,
    /// How long it took in all.
    pub duration: Duration,
}

/// How the last snapshot went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Outcome {
    #[default]
    None,
    Written,
    Failed(String),
}

/// What INFO shows of snapshots.
#[derive(Clone, Debug, Default)]
pub(crate) struct Status {
    pub(crate) running: bool,
    pub(crate) last: Outcome,
    pub(crate) last_unixtime: i64,
    pub(crate) last_seconds: Option<u64>,
    pub(crate) current_seconds: Option<u64>,
    pub(crate) cow_bytes: u64,
    /// How much of it would end the running one, or would have ended the last; `None` for no limit.
    pub(crate) cow_limit_bytes: Option<u64>,
    pub(crate) fork_micros: u64,
    pub(crate) bytes: u64,
    pub(crate) entries: u64,
    pub(crate) progress_entries: u64,
    /// How many keys the running one will hold.
    pub(crate) total_entries: u64,
    /// How many have failed since one went well.
    pub(crate) failures_in_a_row: u64,
    /// How long the next one that is due still waits because of that.
    pub(crate) retry_in_seconds: u64,
    /// When the first of those failed, in milliseconds since the Unix epoch.
    pub(crate) failing_since_unix_ms: u64,
    /// Another one follows the running one.
    pub(crate) scheduled: bool,
    pub(crate) forks_total: u64,
    pub(crate) written_total: u64,
}

#[derive(Default)]
struct State {
    status: Status,
    started: Option<Instant>,
    /// After a failure: before this none is begun because it is due.
    retry_at: Option<Instant>,
    /// Another one is wanted as soon as the running one ends.
    scheduled: bool,
    child: Option<Arc<dyn InProgress>>,
    /// The running one is not wanted any more.
    cancelled: bool,
    /// How many have ended, well or not, and how the last one did.
    ended_total: u64,
    last: Option<Result<SnapshotInfo, String>>,
    /// The running one was asked for to trim the journal.
    rewriting: bool,
}

/// At most one snapshot at a time.
pub(crate) struct Snapshots {
    state: Mutex<State>,
    ended: Condvar,
    /// Whether the last one failed; apart, since each write asks.
    failing: AtomicBool,
}

impl Snapshots {
    pub(crate) fn new() -> Self {
        let mut state = State::default();
        // As in Redis: what was there at the start counts as saved at the start.
        state.status.last_unixtime = unixtime();
        Self { state: Mutex::new(state), ended: Condvar::new(), failing: AtomicBool::new(false) }
    }

    /// Notes the snapshot that was loaded.
    pub(crate) fn loaded(&self, entry: &SnapshotEntry) {
        let status = &mut self.state.lock().status;
        (status.bytes, status.entries) = (entry.bytes, entry.entries);
    }

    /// Whether the last snapshot failed.
    #[inline]
    pub(crate) fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }

    /// Since when snapshots have been failing, in milliseconds since the Unix epoch, and what the last one said.
    pub(crate) fn failure(&self) -> (u64, String) {
        let status = &self.state.lock().status;
        let error = if let Outcome::Failed(error) = &status.last { error.clone() } else { String::new() };
        (status.failing_since_unix_ms, error)
    }

    pub(crate) fn status(&self) -> Status {
        let state = self.state.lock();
        let current_seconds = state.started.map(|started| started.elapsed().as_secs());
        let retry_in = state.retry_at.map(|at| at.saturating_duration_since(Instant::now()));
        let retry_in_seconds = retry_in.map_or(0, |left| left.as_secs_f64().ceil() as u64);
        Status { current_seconds, retry_in_seconds, scheduled: state.scheduled, ..state.status.clone() }
    }

    pub(crate) fn last_unixtime(&self) -> i64 {
        self.state.lock().status.last_unixtime
    }

    pub(crate) fn begin(&self) -> Result<(), SaveError> {
        let mut state = self.state.lock();
        if state.status.running {
            return Err(SaveError::Running);
        }
        state.status.running = true;
        (state.cancelled, state.rewriting) = (false, false);
        state.status.progress_entries = 0;
        state.started = Some(Instant::now());
        Ok(())
    }

    /// As `begin`, once a running one has ended.
    fn begin_after_running(&self) {
        while self.begin().is_err() {
            self.wait_for_running();
        }
    }

    /// Waits for the running one, and tells how it went; `None` where what ran was no snapshot, or has ended already.
    fn join(&self) -> Option<Result<SnapshotInfo, String>> {
        let mut state = self.state.lock();
        let before = state.ended_total;
        while state.status.running && state.ended_total == before {
            self.ended.wait(&mut state);
        }
        (state.ended_total != before).then(|| state.last.clone())?
    }

    /// Waits for the snapshot that runs, if one does; whether it had to.
    pub(crate) fn wait_for_running(&self) -> bool {
        let mut state = self.state.lock();
        let was_running = state.status.running;
        while state.status.running {
            self.ended.wait(&mut state);
        }
        was_running
    }

    /// Ends what `begin` began and that was no snapshot; whether one is wanted.
    fn end_without(&self) -> bool {
        let mut state = self.state.lock();
        state.started = None;
        state.status.running = false;
        self.ended.notify_all();
        std::mem::take(&mut state.scheduled)
    }

    /// Notes how a snapshot went; whether another one is wanted.
    fn end(&self, result: &Result<SnapshotInfo, SaveError>) -> bool {
        let mut state = self.state.lock();
        let started = state.started.take();
        state.child = None;
        state.status.running = false;
        state.status.last_seconds = started.map(|started| started.elapsed().as_secs());
        state.ended_total += 1;
        state.last = Some(match result {
            Ok(info) => Ok(info.clone()),
            Err(error) => Err(error.to_string()),
        });
        match result {
            Ok(info) => {
                self.failing.store(false, Ordering::Relaxed);
                state.retry_at = None;
                state.status.last = Outcome::Written;
                state.status.failures_in_a_row = 0;
                state.status.written_total += 1;
                state.status.last_unixtime = unixtime();
                (state.status.bytes, state.status.entries) = (info.bytes, info.entries);
            }
            // Nobody wants it any more, so it is not missing.
            Err(SaveError::Cancelled) => {}
            Err(error) => {
                self.failing.store(true, Ordering::Relaxed);
                state.status.last = Outcome::Failed(error.to_string());
                if state.status.failures_in_a_row == 0 {
                    state.status.failing_since_unix_ms = now_ms() as u64;
                }
                state.status.failures_in_a_row += 1;
                state.retry_at = Some(Instant::now() + backoff(state.status.failures_in_a_row));
            }
        }
        self.ended.notify_all();
        // What has been asked for since one was called off is no less wanted.
        std::mem::take(&mut state.scheduled) && (result.is_ok() || state.cancelled)
    }

    /// Ends the child that writes if it does so to trim the journal, which is about to end.
    pub(crate) fn cancel_rewrite(&self) {
        let mut state = self.state.lock();
        if state.status.running && state.rewriting {
            tracing::info!("Killing the AOF rewrite's child: there is no journal to trim any more");
            (state.cancelled, state.scheduled) = (true, false);
            state.child.iter().for_each(|child| child.kill());
        }
    }

    /// Whether the running one is not wanted any more.
    fn is_cancelled(&self) -> bool {
        self.state.lock().cancelled
    }

    /// Ends the child that writes, if there is one, and waits for that, though not for ever.
    pub(crate) fn cancel(&self) {
        let mut state = self.state.lock();
        state.cancelled = true;
        state.scheduled = false;
        if let Some(child) = &state.child {
            child.kill();
        }
        let deadline = Instant::now() + CANCEL_LIMIT;
        while state.status.running && !self.ended.wait_until(&mut state, deadline).timed_out() {}
    }
}

pub(crate) fn unixtime() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}

/// Takes a snapshot and waits for it.
pub(crate) fn take(inner: &Inner) -> Result<SnapshotInfo, SaveError> {
    inner.snapshots.begin()?;
    run(inner)
}

/// Takes a snapshot, or waits for the one that is being taken.
pub(crate) fn take_or_join(inner: &Inner) -> Result<SnapshotInfo, SaveError> {
    loop {
        if inner.snapshots.begin().is_ok() {
            return run(inner);
        }
        if let Some(result) = inner.snapshots.join() {
            return result.map_err(SaveError::Joined);
        }
    }
}

/// Takes a snapshot when the running one, if one runs, has ended.
pub(crate) fn take_after_running(inner: &Inner) -> Result<SnapshotInfo, SaveError> {
    inner.snapshots.begin_after_running();
    run(inner)
}

/// Starts a snapshot in the background; the reply, or the error as a reply.
pub(crate) fn start(inner: &Arc<Inner>, why: SnapshotReason) -> Result<&'static str, String> {
    if inner.snapshots.begin().is_err() {
        if why == SnapshotReason::BgSave {
            return Err("ERR Background save already in progress".to_owned());
        }
        let mut state = inner.snapshots.state.lock();
        if why == SnapshotReason::Rewrite && state.rewriting && !state.cancelled {
            return Err("ERR Background append only file rewriting already in progress".to_owned());
        }
        state.scheduled = true;
        return Ok(match why {
            SnapshotReason::Rewrite => "Background append only file rewriting scheduled",
            _ => "Background saving scheduled",
        });
    }
    inner.snapshots.state.lock().rewriting = why == SnapshotReason::Rewrite;
    let engine = Arc::clone(inner);
    let spawned = std::thread::Builder::new()
        .name("cairn-snapshot".to_owned())
        .spawn(move || run_in_background(&engine));
    match spawned {
        Ok(_) if why == SnapshotReason::Rewrite => Ok("Background append only file rewriting started"),
        Ok(_) => Ok("Background saving started"),
        Err(error) => {
            let error = SaveError::Fork(error);
            let text = format!("ERR {error}");
            inner.snapshots.end(&Err(error));
            Err(text)
        }
    }
}

fn run_in_background(inner: &Arc<Inner>) {
    // A failure is noted in INFO and logged by `run`; there is nobody else to tell.
    let _ = run(inner);
}

/// Starts a snapshot when a save point or the journal's growth asks for one.
pub(crate) fn start_if_due(inner: &Arc<Inner>) {
    {
        let state = inner.snapshots.state.lock();
        if state.status.running || state.retry_at.is_some_and(|at| Instant::now() < at) {
            return;
        }
    }
    if inner.log.journal().is_some_and(|journal| journal.status().poisoned.is_some()) {
        // A snapshot is named only when the journal up to it is durable, and that will not be.
        return;
    }
    let dirty = inner.statistics.dirty.load(Ordering::Relaxed);
    let age = unixtime().saturating_sub(inner.snapshots.last_unixtime()).max(0) as u64;
    let due =
        inner.settings.save_points.lock().iter().any(|point| dirty >= point.changes && age > point.seconds);
    if due {
        // Only a running one could refuse, and then it is done already.
        let _ = start(inner, SnapshotReason::BgSave);
    } else if journal_outgrown(inner) || inner.catalog().files_in_clear() > 0 {
        let _ = start(inner, SnapshotReason::Rewrite);
    }
}

fn journal_outgrown(inner: &Inner) -> bool {
    let rewrite = *inner.settings.auto_rewrite.lock();
    if inner.log.journal().is_none() || rewrite.percentage == 0 {
        return false;
    }
    let base = inner.snapshots.state.lock().status.bytes;
    let current = inner.journal_bytes();
    let growth = current.saturating_sub(base);
    current >= rewrite.min_bytes
        && u128::from(growth) * 100 >= u128::from(base.max(1)) * u128::from(rewrite.percentage)
}

impl Inner {
    /// Bytes of the snapshot and of the effects since: what a log that is rewritten would hold.
    pub(crate) fn journal_bytes(&self) -> u64 {
        let since = self.log.end().0.saturating_sub(self.snapshot_lsn().0);
        self.snapshots.state.lock().status.bytes + since
    }
}

/// Writes a snapshot that `begin` has announced, and another one if that was asked for meanwhile.
fn run(inner: &Inner) -> Result<SnapshotInfo, SaveError> {
    loop {
        let result = write(inner);
        match &result {
            Ok(info) => tracing::info!(
                lsn = info.lsn.0,
                entries = info.entries,
                bytes = info.bytes,
                fork_us = info.fork_micros,
                duration_ms = info.duration.as_millis() as u64,
                "snapshot written"
            ),
            Err(error @ SaveError::Cancelled) => tracing::info!("{error}"),
            Err(error) => {
                let failures = inner.snapshots.state.lock().status.failures_in_a_row + 1;
                tracing::error!(
                    %error,
                    retry_after_seconds = backoff(failures).as_secs(),
                    "the snapshot failed; the one before stays, and one that is due is tried again"
                );
            }
        }
        if !(inner.snapshots.end(&result) && inner.snapshots.begin().is_ok()) {
            return result;
        }
    }
}

/// Everything about the file that must be drawn before the fork, since the child shares its randomness with the parent.
struct Target {
    params: WriteParams,
    name: String,
    file_id: FileId,
}

fn target(inner: &Inner, lsn: Lsn, name: String, file_id: FileId, key: FileKey) -> Target {
    let dir = &inner.options.dir;
    let identity = Identity {
        magic: Magic::Snapshot,
        encrypted: key.is_some(),
        file_id,
        lineage: inner.catalog().lineage(),
        created_unix_ms: now_ms() as u64,
        body: Body::Snapshot(SnapshotBody { lsn }),
    };
    let params = WriteParams {
        path_tmp: dir.join(format!("{name}.tmp")),
        path_final: dir.join(&name),
        identity,
        key,
        threads: inner.options.threads,
        level: LEVEL_DEFAULT,
    };
    Target { params, name, file_id }
}

fn draw_key(inner: &Inner) -> Result<(FileId, FileKey), SaveError> {
    let file_id = cairn_seal::new_file_id()?;
    let key = match &inner.keys.keyring() {
        None => None,
        Some(keyring) => {
            let key = cairn_seal::new_data_key()?;
            let slot = cairn_seal::wrap(keyring, Magic::Snapshot, file_id, &key, 1)?;
            Some((key, slot))
        }
    };
    Ok((file_id, key))
}

fn write(inner: &Inner) -> Result<SnapshotInfo, SaveError> {
    let started = Instant::now();
    let (file_id, key) = draw_key(inner)?;
    let taken = taken_names(inner)?;
    inner.mending.finish();
    let available = || inner.options.heap.as_ref().and_then(|heap| heap.available_bytes());
    let copied_bytes = inner.settings.copy_limit.lock().bytes(available);
    let pause = inner.keyspace.access().pause();
    let (target, child, dirty, entries, fork_micros) = {
        let stopped = Instant::now();
        let locked = inner.keyspace.lock_all();
        let lsn = inner.log.rotate();
        let dirty = inner.statistics.dirty.load(Ordering::Relaxed);
        let entries = (0..inner.keyspace.databases()).map(|db| locked.len(db) as u64).sum();
        let target = target(inner, lsn, free_name(&taken, lsn), file_id, key);
        // Forked while every shard is locked, so that the child holds exactly the state at that position.
        let source = Shards::of(inner, &locked);
        let origin = &inner.options.snapshot_origin;
        let child = origin.begin(&*inner.options.disk, &target.params, &source).map_err(SaveError::Fork)?;
        drop(locked);
        let fork_micros = stopped.elapsed().as_micros() as u64;
        (target, Arc::<dyn InProgress>::from(child), dirty, entries, fork_micros)
    };
    {
        let mut state = inner.snapshots.state.lock();
        if state.cancelled {
            child.kill();
        }
        state.child = Some(child.clone());
        state.status.cow_limit_bytes = copied_bytes;
        state.status.fork_micros = fork_micros;
        state.status.forks_total += 1;
        state.status.total_entries = entries;
    }
    let limits = ChildLimits { stall: STALL_LIMIT, copied_bytes };
    let summary = wait_for(inner, &*child, limits, &target);
    drop(pause);
    inner.mending.start();
    let summary = summary?;
    install(inner, &target, &summary)?;
    inner.statistics.dirty.fetch_sub(dirty, Ordering::Relaxed);
    Ok(info(&target, &summary, fork_micros, started.elapsed()))
}

fn info(target: &Target, summary: &Summary, fork_micros: u64, duration: Duration) -> SnapshotInfo {
    SnapshotInfo {
        path: target.params.path_final.clone(),
        lsn: lsn_of(&target.params),
        entries: summary.entries,
        bytes: summary.bytes,
        fork_micros,
        duration,
    }
}

fn lsn_of(params: &WriteParams) -> Lsn {
    match &params.identity.body {
        Body::Snapshot(body) => body.lsn,
        Body::Journal(body) => body.first_lsn,
    }
}

/// The names that are taken, read before anything is locked. Nobody else makes snapshots while this one is made.
fn taken_names(inner: &Inner) -> Result<Vec<DirEntry>, SaveError> {
    let dir = &inner.options.dir;
    inner.options.disk.list(dir).map_err(|source| SaveError::Io { path: dir.clone(), source })
}

fn wait_for(
    inner: &Inner,
    child: &dyn InProgress,
    limits: ChildLimits,
    target: &Target,
) -> Result<Summary, SaveError> {
    let result = child.wait(limits, &mut |progress: Progress| {
        let mut state = inner.snapshots.state.lock();
        state.status.progress_entries = progress.entries;
        state.status.cow_bytes = child.copied_bytes();
    });
    let error = match result {
        Ok(summary) => return Ok(summary),
        Err(error) => error,
    };
    // A child that ended by itself has removed its file; one that was killed could not, and may have named it just before.
    // The name was free, so it is nobody else's.
    remove(inner, &target.params.path_tmp);
    remove(inner, &target.params.path_final);
    Err(if inner.snapshots.is_cancelled() { SaveError::Cancelled } else { SaveError::Child(error) })
}

/// Removes a snapshot that nothing will ever name.
fn remove(inner: &Inner, path: &Path) {
    if inner.options.disk.exists(path).unwrap_or(false)
        && let Err(error) = inner.options.disk.remove(path)
    {
        tracing::warn!(file = %path.display(), %error, "a snapshot of no use could not be removed; the next start will");
    }
}

/// Names the snapshot in the manifest, once the journal up to it is durable.
fn install(inner: &Inner, target: &Target, summary: &Summary) -> Result<(), SaveError> {
    let lsn = lsn_of(&target.params);
    if let Some(journal) = inner.log.journal() {
        journal.sync();
        if let Err(error) = journal.block_until_durable(lsn) {
            remove(inner, &target.params.path_final);
            return Err(SaveError::Journal(error.to_string()));
        }
    }
    let entry = SnapshotEntry {
        name: target.name.clone(),
        file_id: target.file_id,
        lsn,
        bytes: summary.bytes,
        entries: summary.entries,
    };
    let trimming = inner.archive.begin_trim();
    let keep_from = inner.log.journal().map(|_| trimming.held(lsn).needed_from);
    inner
        .catalog()
        .snapshot_installed(entry, keep_from)
        .map_err(|source| SaveError::Io { path: inner.options.dir.join(crate::catalog::MANIFEST), source })
}

/// The keyspace as a snapshot sees it: a part is what one shard holds of one database.
struct Shards<'a> {
    shards: Vec<&'a Shard>,
    /// Those that hold keys: found out when they are asked for, in the child, since everything waits before that.
    databases: OnceLock<Vec<u16>>,
    /// The function libraries, in a part of their own behind those of the shards.
    libraries: Arc<LibraryMap>,
    /// How keys were used is written where eviction goes by it: the moment it counts from, in ms since 1970.
    uses_at_ms: Option<i64>,
    access: &'a Access,
    /// Microseconds for each key, or keys for each microsecond where negative.
    key_delay: i64,
}

impl<'a> Shards<'a> {
    fn of(inner: &Inner, locked: &'a Locked<'_>) -> Self {
        let libraries = locked.keyspace().libraries.get();
        let key_delay = inner.settings.key_save_delay.load(Ordering::Relaxed);
        let uses_at_ms = inner.eviction.goes_by_use().then(now_ms);
        let access = locked.keyspace().access();
        let databases = OnceLock::new();
        Self { shards: locked.all_shards(), databases, libraries, uses_at_ms, access, key_delay }
    }

    /// Takes the time that so many keys are to take.
    fn dawdle(&self, keys: usize, out: &BlockWriter<'_>) {
        /// So that who waits sees that it is no standstill.
        const STEP: Duration = Duration::from_secs(1);
        let keys = keys as u64;
        let micros = match self.key_delay {
            0 => return,
            each @ 1.. => keys.saturating_mul(each.unsigned_abs()),
            each => keys / each.unsigned_abs(),
        };
        let mut left = Duration::from_micros(micros);
        while !left.is_zero() {
            std::thread::sleep(left.min(STEP));
            left = left.saturating_sub(STEP);
            out.note_step();
        }
    }

    fn databases(&self) -> &[u16] {
        self.databases.get_or_init(|| {
            let count = self.shards.first().map_or(0, |shard| shard.databases());
            (0..count).filter(|db| self.shards.iter().any(|shard| !shard.database(*db).is_empty())).collect()
        })
    }
}

impl Source for Shards<'_> {
    fn partitions(&self) -> usize {
        SHARDS * self.databases().len() + 1
    }

    fn encode(&self, partition: usize, out: &mut BlockWriter<'_>) -> Result<(), SnapshotError> {
        let Some(db) = self.databases().get(partition / SHARDS).copied() else {
            return self.libraries.values().try_for_each(|library| out.entry(0, |raw| library.store(raw)));
        };
        let shard = self.shards[partition % SHARDS];
        self.dawdle(shard.database(db).len(), out);
        shard.database(db).iter().try_for_each(|entry| {
            let usage = self.uses_at_ms.and_then(|now_ms| self.access.usage(entry.clock(), now_ms));
            out.entry(u32::from(db), |raw| entry.store_used(usage, raw))
        })
    }
}

/// Puts the libraries of a snapshot in place of those that are there.
pub(crate) fn load_libraries(keyspace: &Keyspace, sources: &[Vec<u8>]) -> Result<(), String> {
    keyspace.libraries.set(LibraryMap::new());
    sources.iter().try_for_each(|source| load_library(keyspace, source))
}

/// DEBUG RELOAD: writes all data where it is to, and loads a snapshot, while everything stands still.
pub(crate) fn reload(inner: &Arc<Inner>, how: Reload) -> Result<(), String> {
    alone(inner, || {
        let mut locked = inner.keyspace.lock_all();
        let written = how.save.then(|| write_stopped(inner, &locked)).transpose()?;
        load_snapshot(inner, &mut locked, how)?;
        // What is in memory now is no result of what is in the journal: it is where the journal goes on from.
        match written {
            Some(written) if how.flush => Ok(Some(written)),
            _ => write_stopped(inner, &locked).map(Some),
        }
    })
}

/// DEBUG LOADAOF: loads what a restart would find, while everything stands still.
pub(crate) fn load_journal(inner: &Arc<Inner>) -> Result<(), String> {
    alone(inner, || {
        let mut locked = inner.keyspace.lock_all();
        if let Some(journal) = inner.log.journal() {
            journal.sync();
            journal.block_until_durable(journal.end_lsn())?;
        }
        let limits = (*inner.settings.limits()).clone();
        let options = Options { limits, keyring: inner.keys.keyring(), ..inner.options.clone() };
        let read = || {
            let (found, manifest) = (Keyspace::new(inner.keyspace.databases()), inner.catalog().manifest());
            recovery::read(&options, &found, &manifest, &mut Recovery::default(), &Loading::default())
                .map(|_| found)
        };
        // A segment that ended a moment ago may be cut to its length just while it is read; that happens once.
        let found = read().or_else(|_| read())?;
        inner.keyspace.libraries.set((*found.libraries.get()).clone());
        let found = found.lock_all();
        for db in 0..inner.keyspace.databases() {
            locked.flush(db, false);
            for shard in found.all_shards() {
                shard
                    .database(db)
                    .iter()
                    .for_each(|entry| insert(&mut locked, db, entry.copied(entry.key())));
            }
        }
        Ok(None)
    })
}

/// Lets the journal begin, or end, as is wanted by now: while everything stands still, and at a snapshot of its own, so that
/// both together hold all there is at any moment.
/// `is_announced`: [`Snapshots::begin`] has gone through already.
pub(crate) fn switch_journal(inner: &Arc<Inner>, is_announced: bool) -> Result<(), String> {
    let work = || {
        let locked = inner.keyspace.lock_all();
        let on = inner.settings.append_only.load(Ordering::SeqCst);
        if on == inner.log.journal().is_some() {
            return Ok(None);
        }
        let written = if on { Some(write_stopped(inner, &locked)?) } else { None };
        let fsync = inner.settings.fsync();
        if on {
            inner.catalog().begin_epoch()?;
            let resume = Resume::at(inner.log.end());
            let options = Options { keyring: inner.keys.keyring(), ..inner.options.clone() };
            inner.log.begin(recovery::start_journal(&options, fsync, resume, inner.catalog())?);
        } else {
            inner.log.end_journal()?;
        }
        inner.settings.set_always(on && fsync == Fsync::Always, || inner.log.end());
        Ok(written)
    };
    if is_announced { finish(inner, work()) } else { alone(inner, work) }
}

/// Does what needs to be the only one that makes snapshots, and notes in INFO how that went.
fn alone(
    inner: &Arc<Inner>,
    work: impl FnOnce() -> Result<Option<SnapshotInfo>, Box<dyn std::error::Error>>,
) -> Result<(), String> {
    inner.snapshots.begin_after_running();
    finish(inner, work())
}

/// Ends what `begin` has announced and that was no snapshot, and starts one if it was asked for meanwhile.
pub(crate) fn end_without(inner: &Arc<Inner>) {
    let is_wanted = inner.snapshots.end_without();
    start_if_wanted(inner, is_wanted);
}

fn start_if_wanted(inner: &Arc<Inner>, is_wanted: bool) {
    if is_wanted {
        // Whoever asked has been answered. Where another one is being written already, this one follows it.
        let _ = start(inner, SnapshotReason::BgSaveSchedule);
    }
}

/// Ends what `begin` has announced, and starts a snapshot if one was asked for meanwhile.
fn finish(
    inner: &Arc<Inner>,
    result: Result<Option<SnapshotInfo>, Box<dyn std::error::Error>>,
) -> Result<(), String> {
    let text = result.as_ref().err().map(ToString::to_string);
    let is_wanted = match result {
        Ok(Some(info)) => inner.snapshots.end(&Ok(info)),
        Ok(None) => inner.snapshots.end_without(),
        Err(error) => inner.snapshots.end(&Err(SaveError::Stopped(error.to_string()))),
    };
    start_if_wanted(inner, is_wanted);
    text.map_or(Ok(()), Err)
}

/// Writes a snapshot of all that is held.
fn write_stopped(inner: &Inner, locked: &Locked<'_>) -> Result<SnapshotInfo, Box<dyn std::error::Error>> {
    let started = Instant::now();
    let (file_id, key) = draw_key(inner)?;
    let lsn = inner.log.rotate();
    let target = target(inner, lsn, free_name(&taken_names(inner)?, lsn), file_id, key);
    let summary = write_container(&*inner.options.disk, &target.params, &Shards::of(inner, locked), &|_| {})?;
    install(inner, &target, &summary)?;
    inner.statistics.dirty.store(0, Ordering::Relaxed);
    Ok(info(&target, &summary, 0, started.elapsed()))
}

const NOT_LOADED: &str = "Error trying to load the RDB dump, check server logs.";

/// Loads the last snapshot, all of it or nothing.
fn load_snapshot(
    inner: &Inner,
    locked: &mut Locked<'_>,
    how: Reload,
) -> Result<(), Box<dyn std::error::Error>> {
    let entry = inner.catalog().manifest().snapshot.ok_or(NOT_LOADED)?;
    let path = inner.options.dir.join(&entry.name);
    let container = Container::open(&*inner.options.disk, &path, inner.keys.keyring().as_deref())?;
    let limits = inner.settings.limits();
    let (mut entries, mut libraries) = (Vec::new(), Vec::new());
    for (number, block) in container.index().blocks.iter().enumerate() {
        let db = u16::try_from(block.header.database)?;
        Entry::load_all(&container.read_block(number)?, &limits, |stored| match stored {
            Stored::Entry(entry) | Stored::Used(entry, _) => entries.push((db, entry)),
            Stored::Library(source) => libraries.push(source),
        })?;
    }
    if !how.flush && !how.merge {
        let is_there = |(db, entry): &(u16, Entry)| {
            let hash = inner.keyspace.hash(entry.key());
            locked.shard(hash).database(*db).get(hash.0, entry.key()).is_some()
        };
        if entries.iter().any(is_there)
            || !(libraries.is_empty() || inner.keyspace.libraries.get().is_empty())
        {
            return Err(NOT_LOADED.into());
        }
    }
    if how.flush {
        load_libraries(&inner.keyspace, &libraries)?;
        // Everything could be read, so nothing can be lost between here and the end.
        (0..inner.keyspace.databases()).for_each(|db| _ = locked.flush(db, false));
    } else {
        libraries.iter().try_for_each(|source| load_library(&inner.keyspace, source))?;
    }
    entries.into_iter().for_each(|(db, entry)| insert(locked, db, entry));
    Ok(())
}

fn insert(locked: &mut Locked<'_>, db: u16, entry: Entry) {
    let keyspace = locked.keyspace();
    let hash = keyspace.hash(entry.key());
    locked.shard_mut(hash).database_mut(db).insert(hash.0, entry, |key| keyspace.hash(key).0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_try_waits_longer_each_time_and_not_for_ever() {
        let seconds: Vec<u64> = [1, 2, 3, 6, 7, 100, u64::MAX].map(|n| backoff(n).as_secs()).to_vec();
        assert_eq!(seconds, [5, 10, 20, 160, 300, 300, 300]);
    }

    #[test]
    fn one_that_is_asked_for_while_something_else_runs_is_taken_behind_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut options = Options::new(dir.path());
        options.snapshot_origin = Arc::new(cairn_snapshot::Unforked);
        let engine = crate::Engine::open(options).expect("an empty directory");
        let inner = &engine.0;
        let ends: [fn(&Arc<Inner>); 2] =
            [end_without, |inner| finish(inner, Ok(None)).expect("nothing has failed")];
        for (end, written) in ends.into_iter().zip(1..) {
            inner.snapshots.begin().expect("nothing runs");
            let said = start(inner, SnapshotReason::BgSaveSchedule);
            assert_eq!(said, Ok("Background saving scheduled"));
            end(inner);
            inner.snapshots.wait_for_running();
            assert_eq!(inner.snapshots.status().written_total, written);
        }
    }
}
