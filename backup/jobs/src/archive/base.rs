//! Bases: the snapshots that the archived journal continues.

use std::sync::Arc;

use cairn_format::Lsn;
use cairn_format::manifest::Manifest;
use cairn_store::StoreError;

use super::control::Control;
use super::ship::Context;
use crate::create::{object, on_its_way};
use crate::files::{self, SnapshotFacts};
use crate::manifest::{self, BackupManifest, ObjectKind};
use crate::progress::Silent;
use crate::repository::FIRST_MANIFEST;
use crate::restore::blocking;
use crate::source::{self, SourceFile};
use crate::stream::FileBody;
use crate::{JobError, moment};

/// How often a snapshot that another takes the place of is opened again.
const ATTEMPTS: u32 = 20;

/// Where a base goes, and what is known of it.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    /// The folder of the archive.
    pub(crate) folder: String,
    /// A snapshot at or below this LSN is there already.
    pub(crate) above: Option<u64>,
    /// Since when the directory has had its history, in milliseconds since 1970.
    pub(crate) since_unix_ms: u64,
    /// When its first segment was begun.
    pub(crate) begun_unix_ms: u64,
}

/// A snapshot of the directory, open.
struct Found {
    file: SourceFile,
    facts: SnapshotFacts,
}

/// Puts a base into the archive: a snapshot that the server takes now, or where none runs, the one that the directory holds. `None` if
/// there is none to be had.
///
/// # Errors
/// Those of the server, the store and the disk; damage; [`JobError::LeaseLost`].
pub(crate) async fn make(context: Context, wanted: Wanted) -> Result<Option<BackupManifest>, JobError> {
    let mut digest = None;
    if let Some(mut control) = Control::connect(&context.dir).await {
        digest = control.snapshot().await?.digest;
    }
    let (disk, dir, keyring) = (Arc::clone(&context.disk), context.dir.clone(), context.keyring.clone());
    let opened = blocking(move || {
        for _ in 0..ATTEMPTS {
            let manifest = source::read_manifest(&*disk, &dir, keyring.as_deref())?;
            let Some(entry) = manifest.snapshot.clone() else { return Ok((manifest, None)) };
            let opened = source::open_file(&*disk, &dir, &entry.name, ObjectKind::Snapshot, entry.file_id)
                .and_then(|file| Ok((file, files::open_snapshot(&*disk, &dir.join(&entry.name), None)?)));
            match opened {
                Ok((mut file, facts)) if facts.file_id == entry.file_id => {
                    (file.bytes, file.end_lsn, file.entries) = (entry.bytes, entry.lsn, entry.entries);
                    return Ok((manifest, Some(Found { file, facts })));
                }
                Err(error) if source::read_manifest(&*disk, &dir, None)?.number == manifest.number => {
                    return Err(error);
                }
                _ => {}
            }
        }
        Err(JobError::Changing { dir, attempts: ATTEMPTS })
    });
    match opened.await? {
        (_, Some(found)) if wanted.above.is_some_and(|above| found.facts.lsn.0 <= above) => Ok(None),
        (manifest, Some(found)) => put(&context, &wanted, &manifest, found, digest).await.map(Some),
        // A journal that begins the history goes on from an empty dataset.
        (manifest, None) if wanted.above.is_none() && begins_history(&manifest) => {
            let from_unix_ms = wanted.since_unix_ms.max(wanted.begun_unix_ms);
            let base = describe(&wanted, &manifest, Lsn::ZERO, from_unix_ms);
            put_manifest(&context, &wanted.folder, base).await.map(Some)
        }
        (_, None) => Ok(None),
    }
}

fn begins_history(manifest: &Manifest) -> bool {
    manifest.segments.first().is_some_and(|first| first.first_lsn == Lsn::ZERO)
}

fn describe(wanted: &Wanted, manifest: &Manifest, lsn: Lsn, from_unix_ms: u64) -> BackupManifest {
    let created_unix_ms = moment::now_unix_ms();
    BackupManifest {
        format: manifest::FORMAT.to_owned(),
        version: manifest::VERSION,
        id: format!("{}-{lsn}", moment::compact(created_unix_ms)),
        lineage: wanted.folder.clone(),
        epoch: manifest.epoch,
        created_unix_ms,
        databases: manifest.databases,
        encrypted: manifest.encrypted,
        keys: Vec::new(),
        from_lsn: lsn.0,
        to_lsn: lsn.0,
        entries: 0,
        snapshot_unix_ms: Some(from_unix_ms),
        digest: None,
        objects: Vec::new(),
    }
}

async fn put(
    context: &Context,
    wanted: &Wanted,
    manifest: &Manifest,
    found: Found,
    digest: Option<String>,
) -> Result<BackupManifest, JobError> {
    let Found { file, facts } = found;
    // The header is written behind the barrier: what is in the snapshot was appended before.
    let mut from_unix_ms = facts.created_unix_ms.max(wanted.since_unix_ms);
    if facts.lineage != manifest.lineage {
        // It was restored, and this history is younger than it.
        from_unix_ms = from_unix_ms.max(wanted.begun_unix_ms);
    }
    let mut base = describe(wanted, manifest, facts.lsn, from_unix_ms);
    let mut entry = object(&file);
    base.keys = file.key.clone().into_iter().collect();
    (base.entries, base.digest) = (facts.entries, digest);
    let key = format!("lineage/{}/snapshot/{}/{}", base.lineage, base.id, entry.name);
    let check = on_its_way(&context.disk, &file, context.keyring.as_ref());
    let (body, outcome) = FileBody::new(file.file, file.path.clone(), file.bytes, check, Arc::new(Silent));
    let body = match &context.rate {
        Some(rate) => rate.bound(Box::new(body)),
        None => Box::new(body),
    };
    context.lease.check()?;
    let stored = context.repository.store().put_stream(&key, body).await;
    let outcome = outcome.take().transpose()?;
    stored.map_err(|error| match error {
        StoreError::Source { source, .. } => JobError::io(&file.path, "read", source),
        error => error.into(),
    })?;
    let crc = outcome.ok_or_else(|| JobError::Task("a body ended without a checksum".to_owned()))?;
    entry.crc32 = format!("{crc:08x}");
    base.objects = vec![entry];
    put_manifest(context, &wanted.folder, base).await
}

async fn put_manifest(
    context: &Context,
    folder: &str,
    base: BackupManifest,
) -> Result<BackupManifest, JobError> {
    context.lease.check()?;
    let key = format!("lineage/{folder}/snapshot/{}/{FIRST_MANIFEST}", base.id);
    context.repository.store().put_bytes(&key, base.encode()?).await?;
    Ok(base)
}
