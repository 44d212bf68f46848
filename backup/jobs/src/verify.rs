//! Proving that backups can be restored.
//!
//! In tiers, each as far as the one before it allows: every object is there in its size; every byte has its checksum; the
//! container and the journal are whole as such; and with a keyring, everything decrypts.

use std::path::PathBuf;
use std::sync::Arc;

use cairn_disk::Disk;
use cairn_seal::Keyring;
use serde::Serialize;

use crate::files;
use crate::keys::LineageKeys;
use crate::manifest::{BackupManifest, ObjectEntry, ObjectKind};
use crate::progress::{Phase, Progress};
use crate::repository::{self, Backup, Repository};
use crate::restore::{blocking, extend, fetch, hold_to, open_object};
use crate::{JobError, stream};

/// How backups are verified.
#[derive(Clone)]
pub struct VerifyOptions {
    /// The disk with the scratch directory.
    pub disk: Arc<dyn Disk>,
    /// The master keys; without them an encrypted backup is verified by its checksums.
    pub keyring: Option<Arc<Keyring>>,
    /// Where the objects of one backup are put while they are looked into, if the repository is not a local directory.
    pub scratch: PathBuf,
}

/// How far a backup was proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// Not even its manifest could be read.
    None,
    /// All objects are there and have their sizes.
    Sizes,
    /// All bytes have their checksums.
    Checksums,
    /// The files are whole as snapshot and journal; nothing in them is encrypted, or all of it decrypts.
    Contents,
}

/// The verdict on one backup.
#[derive(Debug, Serialize)]
pub struct Verdict {
    /// The backup.
    pub backup: String,
    /// Whether nothing is wrong with it.
    pub ok: bool,
    /// How far that was proven.
    pub tier: Tier,
    /// How many objects its manifest names.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What is wrong: an object or file each, with what was expected and found.
    pub faults: Vec<String>,
    /// The exit code that the worst fault asks for.
    #[serde(skip)]
    pub exit_code: u8,
}

/// Verifies one backup. Damage is a verdict; an error is what kept us from one.
///
/// # Errors
/// Those of the store and the scratch directory.
pub async fn verify(
    repository: &Repository,
    backup: &Backup,
    options: &VerifyOptions,
    progress: Arc<dyn Progress>,
) -> Result<Verdict, JobError> {
    let mut verdict = Verdict::begin(backup.id.clone());
    let manifest = match &backup.manifest {
        Ok(manifest) => manifest,
        Err(error) => {
            verdict.faults.push(error.to_string());
            verdict.exit_code = error.exit_code();
            return Ok(verdict);
        }
    };
    verdict.objects = manifest.objects.len() as u64;
    verdict.bytes = manifest.bytes();
    let sizes = sizes(repository, backup, manifest);
    let whole = sizes.is_empty();
    verdict.note(sizes)?;
    if whole {
        verdict.tier = Tier::Sizes;
    }
    let mut keys = LineageKeys::read(repository.store(), &manifest.lineage).await?;
    verdict.note(std::mem::take(&mut keys.faults))?;
    let options = &VerifyOptions { keyring: keys.unlocking(options.keyring.clone()), ..options.clone() };
    let contents = look_inside(repository, backup, manifest, options, &progress, &mut verdict).await;
    if let Err(error) = contents {
        verdict.note(vec![error])?;
    }
    verdict.ok = verdict.faults.is_empty();
    Ok(verdict)
}

impl Verdict {
    /// Nothing is known yet.
    pub(crate) fn begin(backup: String) -> Self {
        let (objects, bytes, exit_code) = (0, 0, 0);
        Self { backup, ok: false, tier: Tier::None, objects, bytes, faults: Vec::new(), exit_code }
    }

    /// Takes damage and wrong keys into the verdict; anything else is an error.
    pub(crate) fn note(&mut self, errors: Vec<JobError>) -> Result<(), JobError> {
        for error in errors {
            if !error.is_damage() && !error.is_wrong_key() {
                return Err(error);
            }
            self.faults.push(error.to_string());
            self.exit_code = self.exit_code.max(error.exit_code());
        }
        Ok(())
    }
}

/// The first tier, from the listing alone.
fn sizes(repository: &Repository, backup: &Backup, manifest: &BackupManifest) -> Vec<JobError> {
    let fault = |object: &ObjectEntry| {
        let place = repository.store().address(&format!("{}{}", backup.folder, object.name));
        match backup.stored.get(&object.name) {
            None => Some(repository::missing(place)),
            Some(bytes) if *bytes != object.bytes => Some(JobError::Damaged {
                place,
                offset: None,
                what: "size in bytes",
                expected: object.bytes.to_string(),
                found: bytes.to_string(),
            }),
            Some(_) => None,
        }
    };
    manifest.objects.iter().filter_map(fault).collect()
}

/// The tiers that read the objects. Those of a local repository are read where they lie; others are copied to the scratch
/// directory first, and so is the last segment of a journal, which must be given its full length.
async fn look_inside(
    repository: &Repository,
    backup: &Backup,
    manifest: &BackupManifest,
    options: &VerifyOptions,
    progress: &Arc<dyn Progress>,
    verdict: &mut Verdict,
) -> Result<(), JobError> {
    let scratch = tempfile::Builder::new()
        .prefix("cairn-verify-")
        .tempdir_in(&options.scratch)
        .map_err(|error| JobError::io(&options.scratch, "create a directory in", error))?;
    let (store, mut faults, mut paths) = (repository.store(), Vec::new(), Vec::new());
    progress.begin(Phase::Download, manifest.bytes());
    for (index, object) in manifest.objects.iter().enumerate() {
        let key = format!("{}{}", backup.folder, object.name);
        let path = scratch.path().join(&object.name);
        let last = object.kind == ObjectKind::Journal && index + 1 == manifest.objects.len();
        let checked = match store.local_path(&key).filter(|_| !last) {
            Some(local) => {
                paths.push(local);
                digest(repository, &key, object, &**progress).await
            }
            None => {
                paths.push(path.clone());
                copy(repository, &backup.folder, object, options, path, last, &**progress).await
            }
        };
        match checked {
            // What is missing was noted already.
            Err(_) if !backup.stored.contains_key(&object.name) => {}
            Err(error) if error.is_damage() => faults.push(error),
            other => other?,
        }
    }
    progress.end();
    let whole = faults.is_empty() && verdict.faults.is_empty();
    verdict.note(faults)?;
    if verdict.tier == Tier::None {
        return Ok(());
    }
    if whole {
        verdict.tier = Tier::Checksums;
    }
    // Even where a checksum was wrong: the file's own checksums say at which offset.
    let (manifest, options, progress) = (manifest.clone(), options.clone(), Arc::clone(progress));
    let checked = blocking(move || {
        progress.begin(Phase::Verify, manifest.bytes());
        let checked = {
            let keyring = options.keyring.as_deref();
            files::check_backup(&*options.disk, &manifest, &paths, None, keyring, &*progress)?
        };
        progress.end();
        Ok(checked)
    })
    .await?;
    if whole && checked.decrypted {
        verdict.tier = Tier::Contents;
    }
    Ok(())
}

async fn digest(
    repository: &Repository,
    key: &str,
    object: &ObjectEntry,
    progress: &dyn Progress,
) -> Result<(), JobError> {
    let received = stream::digest(open_object(repository, key).await?, progress).await?;
    hold_to(object, received, repository.store().address(key))
}

async fn copy(
    repository: &Repository,
    folder: &str,
    object: &ObjectEntry,
    options: &VerifyOptions,
    path: PathBuf,
    last: bool,
    progress: &dyn Progress,
) -> Result<(), JobError> {
    let file = files::io(&path, "create", options.disk.create_new(&path))?;
    let fetched = fetch(repository, folder, object, Arc::clone(&file), path.clone(), None, progress).await;
    if last {
        extend(object, file, path).await?;
    }
    fetched.map(|_| ())
}
