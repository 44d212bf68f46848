//! The manifest: which files make up the data, and the one place that changes it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cairn_disk::{Disk, File, temporary_name};
use cairn_format::manifest::{Manifest, SegmentEntry, SnapshotEntry};
use cairn_format::{LineageId, Lsn};
use cairn_seal::{Keyring, SealError, open_manifest, seal_manifest};
use parking_lot::Mutex;

use crate::error::OpenError;

/// The manifest's name in a data directory.
pub(crate) const MANIFEST: &str = "manifest";

/// Keeps the manifest. Each change is durable before the call that makes it returns.
pub(crate) struct Catalog {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    keyring: Option<Arc<Keyring>>,
    manifest: Mutex<Manifest>,
    /// An empty file with room for the next manifest: when the disk is full, the journal can still go on in the segment
    /// that was prepared for it, which has to be named first.
    spare: Mutex<Option<Arc<dyn File>>>,
}

/// Room kept for the next manifest, in bytes: for some hundred segments.
const SPARE_BYTES: u64 = 64 * 1024;

impl Catalog {
    /// Reads the manifest of a directory; also whether there was one. Without one the directory provably holds no data.
    pub(crate) fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        keyring: Option<Arc<Keyring>>,
        databases: u16,
    ) -> Result<(Self, bool), OpenError> {
        let path = dir.join(MANIFEST);
        let io = |source| OpenError::Io { path: path.clone(), source };
        let names: Vec<String> = disk.list(dir).map_err(io)?.into_iter().map(|entry| entry.name).collect();
        let found = names.iter().any(|name| name == MANIFEST);
        let manifest = if found {
            let file = disk.open_read(&path).map_err(io)?;
            let mut bytes = vec![0; usize::try_from(file.len().map_err(io)?).unwrap_or(usize::MAX)];
            file.read_exact_at(&mut bytes, 0).map_err(io)?;
            let mut manifest = open_manifest(&bytes, keyring.as_deref())
                .map_err(|source| OpenError::Seal { path: path.clone(), source })?;
            if manifest.databases > u32::from(databases) {
                return Err(OpenError::FewerDatabases { stored: manifest.databases, configured: databases });
            }
            manifest.databases = u32::from(databases);
            manifest
        } else {
            if let Some(orphan) = names.iter().find(|name| is_data_file(name)) {
                return Err(OpenError::NoManifest { path, orphan: orphan.clone() });
            }
            empty_manifest(databases).map_err(|source| OpenError::Seal { path: path.clone(), source })?
        };
        Ok((
            Self {
                disk,
                dir: dir.to_owned(),
                keyring,
                manifest: Mutex::new(manifest),
                spare: Mutex::new(None),
            },
            found,
        ))
    }

    pub(crate) fn manifest(&self) -> Manifest {
        self.manifest.lock().clone()
    }

    /// Counts this start and writes the manifest, so that no file of data is ever there without one.
    pub(crate) fn begin_epoch(&self) -> io::Result<u64> {
        let mut manifest = self.manifest.lock();
        let mut next = manifest.clone();
        next.epoch += 1;
        self.write(&mut next)?;
        *manifest = next;
        Ok(manifest.epoch)
    }

    fn write(&self, manifest: &mut Manifest) -> io::Result<()> {
        manifest.number += 1;
        let bytes = seal_manifest(manifest, self.keyring.as_deref()).map_err(io::Error::other)?;
        self.replace_manifest(&bytes)
    }

    /// Puts `bytes` in the manifest's place, in the room kept for it, so that after a crash either they are there or what
    /// was there before; then keeps room for the next one.
    fn replace_manifest(&self, bytes: &[u8]) -> io::Result<()> {
        let path = self.dir.join(MANIFEST);
        let temporary = temporary_name(&path);
        let mut spare = self.spare.lock();
        let file = match spare.take() {
            Some(file) => file,
            None => self.new_spare(&temporary)?,
        };
        file.write_at(bytes, 0)?;
        file.set_len(bytes.len() as u64)?;
        file.sync_all()?;
        self.disk.rename(&temporary, &path)?;
        self.disk.sync_dir(&self.dir)?;
        // Without room for the next one this one is there all the same; the next one tries again.
        *spare = self.new_spare(&temporary).ok();
        Ok(())
    }

    fn new_spare(&self, temporary: &Path) -> io::Result<Arc<dyn File>> {
        if self.disk.exists(temporary)? {
            self.disk.remove(temporary)?;
        }
        let file = self.disk.create_new(temporary)?;
        file.allocate(SPARE_BYTES)?;
        Ok(file)
    }

    /// Names a new snapshot and lets go of the journal below it and of the snapshot before.
    pub(crate) fn snapshot_installed(&self, entry: SnapshotEntry) -> io::Result<()> {
        let mut manifest = self.manifest.lock();
        let mut next = manifest.clone();
        let lsn = entry.lsn;
        let old = next.snapshot.replace(entry);
        // A segment ends where the next one begins; the last one is open and stays.
        let needed = next.segments.windows(2).take_while(|pair| pair[1].first_lsn <= lsn).count();
        let trimmed: Vec<_> = next.segments.drain(..needed).collect();
        self.write(&mut next)?;
        *manifest = next;
        drop(manifest);
        for name in old.into_iter().map(|old| old.name).chain(trimmed.into_iter().map(|segment| segment.name))
        {
            self.remove(&name);
        }
        Ok(())
    }

    fn remove(&self, name: &str) {
        // The data no longer needs the file; if it stays, the next start removes it.
        if let Err(error) = self.disk.remove(&self.dir.join(name)) {
            tracing::warn!(file = name, %error, "a file that is no longer needed could not be removed");
        }
    }

    /// Removes files that the manifest does not name: leftovers of a crash between two steps. To be called when all
    /// that it does name has been read, so that nothing goes while anything is in doubt.
    pub(crate) fn remove_leftovers(&self) -> io::Result<()> {
        let names: Vec<String> = self.disk.list(&self.dir)?.into_iter().map(|entry| entry.name).collect();
        let manifest = self.manifest.lock().clone();
        let named = |name: &str| {
            manifest.snapshot.as_ref().is_some_and(|snapshot| snapshot.name == name)
                || manifest.segments.iter().any(|segment| segment.name == name)
        };
        for name in names.iter().filter(|name| name.ends_with(".tmp") || (is_data_file(name) && !named(name)))
        {
            tracing::info!(file = %name, "removing a leftover that the manifest does not name");
            self.remove(name);
        }
        Ok(())
    }

    /// The lineage that the data belongs to.
    pub(crate) fn lineage(&self) -> LineageId {
        self.manifest.lock().lineage
    }

    /// Where the snapshot that the manifest names begins the journal; 0 without one.
    pub(crate) fn snapshot_lsn(&self) -> Lsn {
        self.manifest.lock().snapshot.as_ref().map_or(Lsn::ZERO, |snapshot| snapshot.lsn)
    }
}

impl cairn_journal::Catalog for Catalog {
    fn segment_opened(&self, entry: SegmentEntry) -> io::Result<()> {
        let mut manifest = self.manifest.lock();
        let mut next = manifest.clone();
        // A file that begins no earlier than this one holds nothing that counts: it was abandoned, or stayed empty.
        let kept = next.segments.iter().take_while(|segment| segment.first_lsn < entry.first_lsn).count();
        let dropped = next.segments.split_off(kept);
        next.segments.push(entry);
        self.write(&mut next)?;
        *manifest = next;
        drop(manifest);
        dropped.iter().for_each(|segment| self.remove(&segment.name));
        Ok(())
    }
}

fn is_data_file(name: &str) -> bool {
    name.starts_with("journal-") || name.starts_with("snapshot-")
}

fn empty_manifest(databases: u16) -> Result<Manifest, SealError> {
    Ok(Manifest {
        lineage: cairn_seal::new_lineage_id()?,
        epoch: 0,
        number: 0,
        encrypted: false,
        file_id: cairn_format::FileId::default(),
        key: None,
        databases: u32::from(databases),
        snapshot: None,
        segments: Vec::new(),
    })
}
