//! Restoring: from a repository or a single snapshot into a data directory.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cairn_disk::{Disk, File};
use cairn_format::manifest::{Manifest, SegmentEntry, SnapshotEntry};
use cairn_format::{FileId, LineageId, Lsn};
use cairn_seal::Keyring;
use cairn_snapshot::{Passed, Passing};
use serde::Serialize;
use tokio::task::spawn_blocking;

use crate::JobError;
use crate::files::{self, SnapshotFacts};
use crate::keys::magic;
use crate::manifest::{BackupManifest, ObjectEntry, ObjectKind};
use crate::progress::{Phase, Progress};
use crate::repository::{self, Repository};
use crate::rewrap::take_key;
use crate::stream::{self, FileBody, Received};
use crate::target::{Placed, Target, refuse_filled};
use crate::verify::{self, VerifyOptions};

/// How a restore is done.
#[derive(Clone)]
pub struct RestoreOptions {
    /// The directory to restore into.
    pub dir: PathBuf,
    /// The disk it lies on.
    pub disk: Arc<dyn Disk>,
    /// The master keys; needed where anything is encrypted.
    pub keyring: Option<Arc<Keyring>>,
    /// Replaces data that is in the directory.
    pub force: bool,
}

/// What a restore has made, or would make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Restored {
    /// The backup it comes from, or the file.
    pub from: String,
    /// When that was made, in milliseconds since 1970.
    pub created_unix_ms: u64,
    /// The directory.
    pub dir: PathBuf,
    /// The new lineage, 32 hex digits; none in a dry run.
    pub lineage: Option<String>,
    /// Files that were written, the manifest not counted.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Keys in the snapshot.
    pub entries: u64,
    /// The effects below this LSN are there.
    pub to_lsn: u64,
}

/// Says what [`restore`] would do, having read every byte of the backup and found it whole. Nothing is written but a copy in
/// `scratch` of what cannot be looked into where it lies, which goes again.
///
/// # Errors
/// As [`restore`].
pub async fn plan(
    repository: &Repository,
    id: Option<&str>,
    options: &RestoreOptions,
    scratch: &Path,
    progress: Arc<dyn Progress>,
) -> Result<Restored, JobError> {
    refuse_filled(&*options.disk, &options.dir, options.force)?;
    let backup = repository.find_backup(id).await?;
    if let Ok(manifest) = &backup.manifest {
        let place = repository.store().address(&backup.folder);
        need_keys(&place, &manifest.keys, options.keyring.as_deref())?;
    }
    let (disk, keyring) = (Arc::clone(&options.disk), options.keyring.clone());
    let verify = VerifyOptions { disk, keyring, scratch: scratch.to_owned() };
    let verdict = verify::verify(repository, &backup, &verify, progress).await?;
    let manifest = backup.manifest?;
    if !verdict.ok {
        let (backup, faults, exit_code) = (verdict.backup, verdict.faults, verdict.exit_code);
        return Err(JobError::NotWhole { backup, faults, exit_code });
    }
    Ok(summary(&manifest, options, None, manifest.to_lsn))
}

/// Restores a backup: the one of this name, or the newest.
///
/// # Errors
/// [`JobError::NotEmpty`], [`JobError::Locked`], [`JobError::KeyNeeded`], damage, no space. The directory then holds what
/// it held before.
pub async fn restore(
    repository: &Repository,
    id: Option<&str>,
    options: RestoreOptions,
    progress: Arc<dyn Progress>,
) -> Result<Restored, JobError> {
    refuse_filled(&*options.disk, &options.dir, options.force)?;
    let (folder, backup) = repository.find(id).await?;
    need_keys(&repository.store().address(&folder), &backup.keys, options.keyring.as_deref())?;
    let keyring = repository.unlocking(&backup.lineage, options.keyring.clone()).await?;
    let options = RestoreOptions { keyring, ..options };
    let mut target = Target::open(Arc::clone(&options.disk), &options.dir, options.force)?;
    let keyring = options.keyring.as_ref();
    let (placed, passed) = download(repository, &folder, &backup, &mut target, keyring, &*progress).await?;
    let verified =
        Verify { options: options.clone(), backup: backup.clone(), placed: placed.clone(), passed, progress };
    let end = blocking(move || verified.run()).await?;
    let mut manifest = new_manifest(backup.epoch, backup.databases)?;
    for (object, placed) in backup.objects.iter().zip(&placed) {
        let file_id = object.file_id().unwrap_or_default();
        let name = placed.name.clone();
        match object.kind {
            ObjectKind::Snapshot => {
                let (lsn, bytes, entries) = (Lsn(object.end_lsn), object.bytes, object.entries);
                manifest.snapshot = Some(SnapshotEntry { name, file_id, lsn, bytes, entries });
            }
            ObjectKind::Journal => {
                manifest.segments.push(SegmentEntry { name, file_id, first_lsn: Lsn(object.first_lsn) });
            }
        }
    }
    let lineage = manifest.lineage.to_string();
    let keyring = options.keyring.clone().filter(|_| backup.encrypted);
    // The commit owns the target: an interruption from here on finds it either not begun or done.
    blocking(move || target.commit(&placed, &mut manifest, keyring.as_deref())).await?;
    Ok(summary(&backup, &options, Some(lineage), end.0))
}

/// Restores a single snapshot file, or with `dry_run` reads all of it and says what that would do.
///
/// # Errors
/// As [`restore`]; [`JobError::Unsupported`] for a file of another kind.
pub async fn restore_file(
    path: &Path,
    options: RestoreOptions,
    dry_run: bool,
    progress: Arc<dyn Progress>,
) -> Result<Restored, JobError> {
    refuse_filled(&*options.disk, &options.dir, options.force)?;
    let facts = blocking({
        let (path, options) = (path.to_owned(), options.clone());
        move || {
            recognise(&*options.disk, &path)?;
            files::open_snapshot(&*options.disk, &path, options.keyring.as_deref())
        }
    })
    .await?;
    if let Some(key) = &facts.key {
        need_keys(&path.display().to_string(), std::slice::from_ref(key), options.keyring.as_deref())?;
    }
    let restored = |lineage| Restored {
        from: path.display().to_string(),
        created_unix_ms: facts.created_unix_ms,
        dir: options.dir.clone(),
        lineage,
        objects: 1,
        bytes: facts.bytes,
        entries: facts.entries,
        to_lsn: facts.lsn.0,
    };
    if dry_run {
        let (path, disk, keyring) = (path.to_owned(), Arc::clone(&options.disk), options.keyring.clone());
        progress.begin(Phase::Verify, facts.bytes);
        let told = Arc::clone(&progress);
        blocking(move || files::check_snapshot(&*disk, &path, keyring.as_deref(), &*told)).await?;
        progress.end();
        return Ok(restored(None));
    }
    let mut target = Target::open(Arc::clone(&options.disk), &options.dir, options.force)?;
    let placed = copy_in(path, &facts, &options, &mut target, &progress).await?;
    let mut manifest = new_manifest(0, facts.databases)?;
    let (file_id, lsn, bytes, entries) = (facts.file_id, facts.lsn, facts.bytes, facts.entries);
    manifest.snapshot = Some(SnapshotEntry { name: placed.name.clone(), file_id, lsn, bytes, entries });
    let lineage = manifest.lineage.to_string();
    let keyring = options.keyring.clone().filter(|_| facts.key.is_some());
    blocking(move || target.commit(&[placed], &mut manifest, keyring.as_deref())).await?;
    Ok(restored(Some(lineage)))
}

/// Copies a snapshot into the target and checks the copy.
async fn copy_in(
    path: &Path,
    facts: &SnapshotFacts,
    options: &RestoreOptions,
    target: &mut Target,
    progress: &Arc<dyn Progress>,
) -> Result<Placed, JobError> {
    let from = files::io(path, "open", options.disk.open_read(path))?;
    let (file, placed) = target.create(&format!("snapshot-{:020}.cairn", facts.lsn.0))?;
    progress.begin(Phase::Download, facts.bytes);
    let silent = Arc::new(crate::progress::Silent);
    let (body, _) = FileBody::new(from, path.to_owned(), facts.bytes, None, silent);
    let passing = Some(files::passing(options.keyring.as_ref()));
    let temporary = placed.temporary.clone();
    let (_, passed) =
        stream::receive(Box::new(body), file, temporary, facts.bytes, passing, &**progress).await?;
    let passed = passed.unwrap_or_default();
    progress.end();
    let (options, progress, copy, bytes) =
        (options.clone(), Arc::clone(progress), placed.temporary.clone(), facts.bytes);
    blocking(move || {
        progress.begin(Phase::Verify, bytes);
        files::check_passed(&*options.disk, &copy, options.keyring.as_deref(), &passed, &*progress)?;
        progress.end();
        Ok(())
    })
    .await?;
    Ok(placed)
}

/// Refuses what is no container.
fn recognise(disk: &dyn Disk, path: &Path) -> Result<(), JobError> {
    if is_container_of(disk, path)? {
        return Ok(());
    }
    Err(JobError::Unsupported { path: path.to_owned(), found: "it is no snapshot container" })
}

/// Whether a path is a snapshot container, by how it begins; a directory is none.
///
/// # Errors
/// Those of the file system.
pub fn is_container(path: &Path) -> Result<bool, JobError> {
    is_container_of(&cairn_disk::RealDisk, path)
}

fn is_container_of(disk: &dyn Disk, path: &Path) -> Result<bool, JobError> {
    if path.is_dir() {
        return Ok(false);
    }
    let file = files::io(path, "open", disk.open_read(path))?;
    let mut start = [0; 8];
    let read = files::io(path, "read", file.read_at(&mut start, 0))?;
    Ok(start.get(..read) == Some(b"CAIRNSNP"))
}

/// Says before anything is downloaded which key is missing.
pub(crate) fn need_keys(place: &str, keys: &[String], keyring: Option<&Keyring>) -> Result<(), JobError> {
    if keys.is_empty() {
        return Ok(());
    }
    let Some(keyring) = keyring else {
        return Err(JobError::KeyNeeded { place: place.to_owned(), keys: keys.to_vec() });
    };
    match keys.iter().find(|key| keyring.get(key).is_none()) {
        None => Ok(()),
        Some(needed) => {
            let have = keyring.names().map(str::to_owned).collect();
            let source = cairn_seal::SealError::WrongKey { needed: needed.clone(), have };
            Err(JobError::Seal { place: place.to_owned(), source })
        }
    }
}

async fn download(
    repository: &Repository,
    folder: &str,
    backup: &BackupManifest,
    target: &mut Target,
    keyring: Option<&Arc<Keyring>>,
    progress: &dyn Progress,
) -> Result<(Vec<Placed>, Option<Passed>), JobError> {
    progress.begin(Phase::Download, backup.bytes());
    let mut all = Vec::new();
    let mut snapshot = None;
    for object in &backup.objects {
        let (file, placed) = target.create(&object.file)?;
        let passing = (object.kind == ObjectKind::Snapshot).then(|| files::passing(keyring));
        let temporary = placed.temporary.clone();
        let passed =
            fetch(repository, folder, object, Arc::clone(&file), temporary, passing, progress).await?;
        snapshot = snapshot.or(passed);
        let last = all.len() + 1 == backup.objects.len();
        if last {
            extend(object, file, placed.temporary.clone()).await?;
        }
        all.push(placed);
    }
    progress.end();
    Ok((all, snapshot))
}

/// Gives the last segment its full length: a shorter one would count as cut.
pub(crate) async fn extend(object: &ObjectEntry, file: Arc<dyn File>, path: PathBuf) -> Result<(), JobError> {
    if object.kind != ObjectKind::Journal || object.file_bytes == object.bytes {
        return Ok(());
    }
    let length = object.file_bytes;
    blocking(move || {
        // With real room behind it: on a full disk this fails here, and not later as a file that cannot be read.
        let extended = file.allocate(length).and_then(|()| file.sync_all());
        extended.map_err(|source| JobError::write(&path, length, source))
    })
    .await
}

/// Downloads one object into an empty file and holds it to its manifest; gives what `passing` saw of it.
pub(crate) async fn fetch(
    repository: &Repository,
    folder: &str,
    object: &ObjectEntry,
    file: Arc<dyn File>,
    path: PathBuf,
    passing: Option<Passing>,
    progress: &dyn Progress,
) -> Result<Option<Passed>, JobError> {
    let key = format!("{folder}{}", object.name);
    let url = repository.store().address(&key);
    let body = open_object(repository, &key).await?;
    let (received, passed) = stream::receive(body, file, path, object.bytes, passing, progress).await?;
    hold_to(object, received, url)?;
    Ok(passed)
}

/// Opens an object that a manifest names: that it is not there is damage.
pub(crate) async fn open_object(
    repository: &Repository,
    key: &str,
) -> Result<cairn_store::BoxBody, JobError> {
    match repository.store().get_stream(key).await {
        Err(error) if matches!(error.root(), cairn_store::StoreError::NotFound { .. }) => {
            Err(repository::missing(repository.store().address(key)))
        }
        other => Ok(other?),
    }
}

/// Compares what came with what the manifest says.
pub(crate) fn hold_to(object: &ObjectEntry, received: Received, url: String) -> Result<(), JobError> {
    let damaged = |what, expected: String, found: String| {
        Err(JobError::Damaged { place: url, offset: None, what, expected, found })
    };
    if received.bytes != object.bytes {
        let found =
            if received.bytes > object.bytes { "more".to_owned() } else { received.bytes.to_string() };
        return damaged("size in bytes", object.bytes.to_string(), found);
    }
    if Some(received.crc) != object.crc() {
        return damaged("checksum of the object", object.crc32.clone(), format!("{:08x}", received.crc));
    }
    Ok(())
}

/// The check of what was downloaded, before any of it is named.
struct Verify {
    options: RestoreOptions,
    backup: BackupManifest,
    placed: Vec<Placed>,
    /// The snapshot, as it was seen when it was written.
    passed: Option<Passed>,
    progress: Arc<dyn Progress>,
}

impl Verify {
    fn run(self) -> Result<Lsn, JobError> {
        // Absolute, so that they mean the same wherever they are joined to.
        let absolute =
            |placed: &Placed| files::io(&placed.temporary, "find", std::path::absolute(&placed.temporary));
        let paths = self.placed.iter().map(absolute).collect::<Result<Vec<_>, _>>()?;
        self.progress.begin(Phase::Verify, self.backup.bytes());
        let checked = files::check_backup(
            &*self.options.disk,
            &self.backup,
            &paths,
            self.passed.as_ref(),
            self.options.keyring.as_deref(),
            &*self.progress,
        )?;
        self.progress.end();
        self.take_keys(&paths)?;
        Ok(checked.end)
    }
}

impl Verify {
    /// Puts wrapped keys that stand beside the objects into the files, which are alone from here on.
    fn take_keys(&self, paths: &[PathBuf]) -> Result<(), JobError> {
        let (disk, keyring) = (&*self.options.disk, self.options.keyring.as_deref());
        let mut files = self.backup.objects.iter().zip(paths);
        files.try_for_each(|(object, path)| {
            take_key(disk, path, magic(object.kind), object.file_id().unwrap_or_default(), keyring)
        })
    }
}

/// The manifest of a history that begins now.
pub(crate) fn new_manifest(epoch: u64, databases: u32) -> Result<Manifest, JobError> {
    Ok(Manifest {
        lineage: LineageId(crate::random()?),
        epoch,
        number: 1,
        encrypted: false,
        file_id: FileId::default(),
        key: None,
        databases,
        snapshot: None,
        segments: Vec::new(),
    })
}

fn summary(
    backup: &BackupManifest,
    options: &RestoreOptions,
    lineage: Option<String>,
    to_lsn: u64,
) -> Restored {
    Restored {
        from: backup.id.clone(),
        created_unix_ms: backup.created_unix_ms,
        dir: options.dir.clone(),
        lineage,
        objects: backup.objects.len() as u64,
        bytes: backup.bytes(),
        entries: backup.entries,
        to_lsn,
    }
}

/// Runs work that blocks where blocking is allowed.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, JobError> + Send + 'static,
) -> Result<T, JobError> {
    spawn_blocking(work).await.map_err(|error| JobError::Task(error.to_string()))?
}
