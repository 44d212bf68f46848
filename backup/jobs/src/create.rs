//! Making a backup.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use cairn_disk::Disk;
use cairn_format::Lsn;
use cairn_seal::Keyring;
use cairn_snapshot::Passed;
use cairn_store::StoreError;

use crate::manifest::{self, BackupManifest, ObjectEntry, ObjectKind};
use crate::progress::{Phase, Progress, Silent};
use crate::repository::{FIRST_MANIFEST, Repository};
use crate::restore::blocking;
use crate::source::{Source, SourceFile};
use crate::stream::{Check, FileBody};
use crate::{JobError, files, moment};

/// What to back up.
pub struct CreateOptions {
    /// The data directory.
    pub dir: PathBuf,
    /// The disk it lies on.
    pub disk: Arc<dyn Disk>,
    /// With a keyring, everything is decrypted before it is copied; without one, checksums must do.
    pub keyring: Option<Arc<Keyring>>,
    /// The durable LSN that the running server told; what the files state counts where none was asked.
    pub durable_lsn: Option<u64>,
}

/// A data directory, opened: what a backup would consist of.
pub struct Prepared {
    source: Source,
    manifest: BackupManifest,
    disk: Arc<dyn Disk>,
    keyring: Option<Arc<Keyring>>,
}

impl Prepared {
    /// Opens the directory's files.
    ///
    /// # Errors
    /// [`JobError::NoData`], [`JobError::JournalOff`], damage.
    pub async fn new(options: CreateOptions) -> Result<Self, JobError> {
        blocking(move || {
            let CreateOptions { dir, disk, keyring, durable_lsn } = options;
            let source = Source::open(&*disk, &dir, keyring.as_deref(), durable_lsn.map(Lsn))?;
            if source.manifest.segments.is_empty() {
                return Err(JobError::JournalOff { place: dir.display().to_string() });
            }
            let manifest = describe(&source);
            Ok(Self { source, manifest, disk, keyring })
        })
        .await
    }

    /// Reads what would be copied, and copies nothing.
    ///
    /// # Errors
    /// Damage.
    pub async fn check(self, progress: Arc<dyn Progress>) -> Result<BackupManifest, JobError> {
        blocking(move || {
            let Self { source, manifest, disk, keyring } = self;
            check(&*disk, &source, keyring.as_deref(), &*progress)?;
            Ok(manifest)
        })
        .await
    }

    /// The manifest as it would be; checksums are filled in by the upload.
    pub fn manifest(&self) -> &BackupManifest {
        &self.manifest
    }

    /// Copies the files into the repository, the manifest last, and returns it. What is copied is checked on its way, so
    /// that damage is found now and not when it is restored: what is damaged gets no name.
    ///
    /// # Errors
    /// Damage; those of the store and of the disk. Without its manifest a backup does not exist, whatever was copied.
    pub async fn upload(
        self,
        repository: &Repository,
        progress: Arc<dyn Progress>,
    ) -> Result<BackupManifest, JobError> {
        let Self { source, mut manifest, disk, keyring } = self;
        let folder = format!("lineage/{}/snapshot/{}/", manifest.lineage, manifest.id);
        progress.begin(Phase::Upload, manifest.bytes());
        for (file, entry) in source.files.into_iter().zip(&mut manifest.objects) {
            let key = format!("{folder}{}", entry.name);
            let check = on_its_way(&disk, &file, keyring.as_ref());
            let (body, outcome) =
                FileBody::new(file.file, file.path.clone(), file.bytes, check, Arc::clone(&progress));
            let stored = repository.store().put_stream(&key, Box::new(body)).await;
            let outcome = outcome.take().transpose()?;
            let stored = stored.map_err(|error| match error {
                StoreError::Source { source, .. } => JobError::io(&file.path, "read", source),
                error => error.into(),
            })?;
            debug_assert_eq!(stored, entry.bytes);
            let crc = outcome.ok_or_else(|| JobError::Task("a body ended without a checksum".to_owned()))?;
            entry.crc32 = format!("{crc:08x}");
        }
        progress.end();
        let key = format!("{folder}{FIRST_MANIFEST}");
        repository.store().put_bytes(&key, manifest.encode()?).await?;
        Ok(manifest)
    }
}

/// The check of a snapshot while it is copied.
pub(crate) fn on_its_way(
    disk: &Arc<dyn Disk>,
    file: &SourceFile,
    keyring: Option<&Arc<Keyring>>,
) -> Option<Check> {
    if file.kind != ObjectKind::Snapshot {
        return None;
    }
    let (disk, path, file_id) = (Arc::clone(disk), file.path.clone(), file.file_id);
    let keyring = keyring.cloned();
    let passing = files::passing(keyring.as_ref());
    let verdict = move |passed: Passed| {
        let checked = files::check_passed(&*disk, &path, keyring.as_deref(), &passed, &Silent).map(drop);
        if checked.is_ok() || files::is_still(&*disk, &path, file_id) {
            return checked;
        }
        // A newer snapshot took its place meanwhile, so there is no file any more to say what is wrong with.
        if passed.blocks_are_sound() {
            return Ok(());
        }
        let why = "what was copied could not be verified, and a newer snapshot has taken its place: run the backup again";
        Err(JobError::io(&path, "verify", io::Error::other(why)))
    };
    Some(Check { passing, verdict: Box::new(verdict) })
}

/// Reads what is about to be copied.
fn check(
    disk: &dyn Disk,
    source: &Source,
    keyring: Option<&Keyring>,
    progress: &dyn Progress,
) -> Result<(), JobError> {
    let snapshots = || source.files.iter().filter(|file| file.kind == ObjectKind::Snapshot);
    progress.begin(Phase::Check, snapshots().map(|file| file.bytes).sum());
    for file in snapshots() {
        // A snapshot that was replaced meanwhile, even while it is read here, was checked by the server when it was
        // written; the copy that would be made is open.
        let checked = files::check_snapshot(disk, &file.path, keyring, progress);
        if checked.is_err() && files::is_still(disk, &file.path, file.file_id) {
            checked?;
        }
    }
    progress.end();
    Ok(())
}

fn describe(source: &Source) -> BackupManifest {
    let created_unix_ms = moment::now_unix_ms();
    let to_lsn = source.end_lsn();
    let snapshot = source.manifest.snapshot.as_ref();
    let keys: BTreeSet<&String> = source.files.iter().filter_map(|file| file.key.as_ref()).collect();
    BackupManifest {
        format: manifest::FORMAT.to_owned(),
        version: manifest::VERSION,
        id: format!("{}-{to_lsn}", moment::compact(created_unix_ms)),
        lineage: source.manifest.lineage.to_string(),
        epoch: source.manifest.epoch,
        created_unix_ms,
        databases: source.manifest.databases,
        encrypted: source.manifest.encrypted,
        keys: keys.into_iter().cloned().collect(),
        from_lsn: snapshot.map_or(0, |snapshot| snapshot.lsn.0),
        to_lsn: to_lsn.0,
        entries: snapshot.map_or(0, |snapshot| snapshot.entries),
        snapshot_unix_ms: None,
        digest: None,
        objects: source.files.iter().map(object).collect(),
    }
}

/// What a manifest says of a file; its checksum comes with the upload.
pub(crate) fn object(file: &SourceFile) -> ObjectEntry {
    let name = match file.kind {
        ObjectKind::Snapshot => "snapshot.cairn".to_owned(),
        ObjectKind::Journal => file.name.clone(),
    };
    ObjectEntry {
        name,
        kind: file.kind,
        file: file.name.clone(),
        file_id: file.file_id.to_string(),
        key: file.key.clone(),
        bytes: file.bytes,
        file_bytes: file.file_bytes,
        crc32: String::new(),
        first_lsn: file.first_lsn.0,
        end_lsn: file.end_lsn.0,
        entries: file.entries,
    }
}
