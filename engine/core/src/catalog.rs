//! The manifest: which files make up the data, and the one place that changes it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cairn_disk::{Disk, File, RealDisk, temporary_name};
use cairn_format::header::{Identity, Magic};
use cairn_format::manifest::{Manifest, SegmentEntry, SnapshotEntry};
use cairn_format::{LineageId, Lsn, PAGE};
use cairn_journal::durable_prefix;
use cairn_seal::{Keyring, SealError, open_manifest, seal_manifest};
use parking_lot::Mutex;

use crate::error::OpenError;

/// The manifest's name in a data directory.
pub(crate) const MANIFEST: &str = "manifest";

/// Keeps the manifest. Each change is durable before the call that makes it returns; readers never wait for the disk.
pub(crate) struct Catalog {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    /// What the next manifest is sealed with.
    sealing: Mutex<Sealing>,
    lineage: LineageId,
    /// What is on the disk.
    manifest: Mutex<Manifest>,
    /// Held while the manifest is changed. An empty file with room for the next one: when the disk is full, the journal
    /// can still go on in the segment that was prepared for it, which has to be named first.
    spare: Mutex<Option<Arc<dyn File>>>,
}

struct Sealing {
    keyring: Option<Arc<Keyring>>,
    /// Names of files from before encryption was switched on. While the manifest names one it cannot be sealed: a sealed
    /// manifest says that everything it names is sealed too. Without a keyring nobody asks, and all of them are.
    plain: Vec<String>,
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
            if let Some(orphan) =
                names.iter().find(|name| Kind::of(name).is_some_and(|kind| kind != Kind::Temporary))
            {
                return Err(OpenError::NoManifest { path, orphan: orphan.clone() });
            }
            if let Some(foreign) = names.iter().find(|name| REDIS_FILES.contains(&name.as_str())) {
                return Err(OpenError::RedisData { path: dir.join(foreign) });
            }
            empty_manifest(databases).map_err(|source| OpenError::Seal { path: path.clone(), source })?
        };
        let plain =
            if manifest.encrypted { Vec::new() } else { names_in(&manifest).map(str::to_owned).collect() };
        if keyring.is_some() && !plain.is_empty() {
            tracing::warn!(
                files = plain.len(),
                "the data was written without encryption; a snapshot replaces it by encrypted files now"
            );
        }
        let catalog = Self {
            disk,
            dir: dir.to_owned(),
            sealing: Mutex::new(Sealing { keyring, plain }),
            lineage: manifest.lineage,
            manifest: Mutex::new(manifest),
            spare: Mutex::new(None),
        };
        Ok((catalog, found))
    }

    pub(crate) fn manifest(&self) -> Manifest {
        self.manifest.lock().clone()
    }

    /// Whether somebody is about changing it.
    #[cfg(test)]
    pub(crate) fn is_changing(&self) -> bool {
        self.spare.is_locked()
    }

    /// Counts this start and writes the manifest, so that no file of data is ever there without one.
    pub(crate) fn begin_epoch(&self) -> io::Result<u64> {
        self.change(None, |manifest| {
            manifest.epoch += 1;
            manifest.epoch
        })
    }

    /// Changes the manifest on the disk, then what readers see. `named`: the file that it names from then on.
    fn change<R>(&self, named: Option<&str>, change: impl FnOnce(&mut Manifest) -> R) -> io::Result<R> {
        let mut spare = self.spare.lock();
        named.map_or(Ok(()), |name| self.note_new(name))?;
        let mut next = self.manifest();
        let result = change(&mut next);
        next.number += 1;
        let keyring = self.keyring_for(&next);
        let bytes = seal_manifest(&mut next, keyring.as_deref()).map_err(io::Error::other)?;
        self.replace_manifest(&bytes, &mut spare)?;
        let mut sealing = self.sealing.lock();
        sealing.plain.retain(|plain| names_in(&next).any(|name| name == plain));
        drop(sealing);
        *self.manifest.lock() = next;
        Ok(result)
    }

    /// What a manifest is to be sealed with, if it may be.
    fn keyring_for(&self, manifest: &Manifest) -> Option<Arc<Keyring>> {
        let sealing = self.sealing.lock();
        let is_plain = |name| sealing.plain.iter().any(|plain| plain == name);
        sealing.keyring.clone().filter(|_| !names_in(manifest).any(is_plain))
    }

    /// Notes where a file that is about to be named is in clear although there is a keyring: it was begun before there was one.
    fn note_new(&self, name: &str) -> io::Result<()> {
        if self.sealing.lock().keyring.is_none() {
            return Ok(());
        }
        let mut page = [0; PAGE];
        self.disk.open_read(&self.dir.join(name))?.read_exact_at(&mut page, 0)?;
        let magic = if Kind::of(name) == Some(Kind::Snapshot) { Magic::Snapshot } else { Magic::Journal };
        if !Identity::decode(&page, magic).map_err(io::Error::other)?.encrypted {
            self.sealing.lock().plain.push(name.to_owned());
        }
        Ok(())
    }

    /// Seals with another keyring from here on, and writes the manifest so. What was written before there was any is known
    /// to be in clear.
    pub(crate) fn set_keyring(&self, keyring: Arc<Keyring>) -> io::Result<()> {
        {
            // No manifest is being written meanwhile.
            let _alone = self.spare.lock();
            let mut sealing = self.sealing.lock();
            if sealing.keyring.replace(keyring).is_none() {
                sealing.plain = names_in(&self.manifest.lock()).map(str::to_owned).collect();
            }
        }
        self.rewrite()
    }

    /// Writes the manifest again, under the active key.
    pub(crate) fn rewrite(&self) -> io::Result<()> {
        self.change(None, |_| ())
    }

    /// How many files in clear the data has although there is a keyring.
    pub(crate) fn files_in_clear(&self) -> usize {
        let sealing = self.sealing.lock();
        if sealing.keyring.is_some() { sealing.plain.len() } else { 0 }
    }

    /// Puts `bytes` in the manifest's place, in the room kept for it, so that after a crash either they are there or what
    /// was there before; then keeps room for the next one.
    fn replace_manifest(&self, bytes: &[u8], spare: &mut Option<Arc<dyn File>>) -> io::Result<()> {
        let path = self.dir.join(MANIFEST);
        let temporary = temporary_name(&path);
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

    /// Names a new snapshot and lets go of the snapshot before, and of the journal below `keep_from`. Without a journal being
    /// written the snapshot holds all there is, and what is left of an earlier one goes as a whole (`None`).
    pub(crate) fn snapshot_installed(&self, entry: SnapshotEntry, keep_from: Option<Lsn>) -> io::Result<()> {
        let name = entry.name.clone();
        let unneeded = self.change(Some(&name), |manifest| {
            let old = manifest.snapshot.replace(entry).map(|old| old.name);
            let unneeded = keep_from.map_or(manifest.segments.len(), |from| segments_below(manifest, from));
            let trimmed = manifest.segments.drain(..unneeded).map(|segment| segment.name);
            old.into_iter().chain(trimmed).collect::<Vec<_>>()
        })?;
        unneeded.iter().for_each(|name| self.remove(name));
        Ok(())
    }

    /// Lets go of the journal below `keep_from`, which lies at the snapshot or before it.
    pub(crate) fn trim(&self, keep_from: Lsn) -> io::Result<()> {
        if segments_below(&self.manifest.lock(), keep_from) == 0 {
            return Ok(());
        }
        let trimmed = self.change(None, |manifest| {
            let below = segments_below(manifest, keep_from);
            manifest.segments.drain(..below).map(|segment| segment.name).collect::<Vec<_>>()
        })?;
        trimmed.iter().for_each(|name| self.remove(name));
        Ok(())
    }

    /// Where the oldest segment ends, where it is not the only one.
    pub(crate) fn end_of_oldest(&self) -> Option<Lsn> {
        self.manifest.lock().segments.get(1).map(|segment| segment.first_lsn)
    }

    /// Where the journal begins that the manifest names; `None` where it names none.
    pub(crate) fn journal_from(&self) -> Option<Lsn> {
        self.manifest.lock().segments.first().map(|segment| segment.first_lsn)
    }

    fn remove(&self, name: &str) {
        // The data no longer needs the file; if it stays, the next start removes it.
        if let Err(error) = self.disk.remove(&self.dir.join(name)) {
            tracing::warn!(file = name, %error, "a file that is no longer needed could not be removed");
        }
    }

    /// Removes the [`Catalog::leftovers`]. To be called when all that the manifest names has been read up to `end`, so that
    /// nothing goes while anything is in doubt.
    pub(crate) fn remove_leftovers(&self, end: Lsn) -> Result<(), OpenError> {
        for name in self.leftovers(end)? {
            tracing::info!(file = %name, "removing a leftover that the manifest does not name");
            self.remove(&name);
        }
        Ok(())
    }

    /// Files of ours that the manifest, whose data ends at `end`, does not name: leftovers of a crash between two steps.
    ///
    /// # Errors
    /// A segment that holds more than what the manifest names is no leftover: the manifest beside it is an old one.
    pub(crate) fn leftovers(&self, end: Lsn) -> Result<Vec<String>, OpenError> {
        let io = |source| OpenError::Io { path: self.dir.clone(), source };
        let names: Vec<String> =
            self.disk.list(&self.dir).map_err(io)?.into_iter().map(|entry| entry.name).collect();
        let manifest = self.manifest();
        let mut leftovers = Vec::new();
        for name in names.into_iter().filter(|name| names_in(&manifest).all(|named| named != name)) {
            match Kind::of(&name) {
                None => continue,
                Some(Kind::Journal) => {
                    let path = self.dir.join(&name);
                    // One without effects may lie beyond: it was begun within a commit whose rest was never written.
                    let holds = durable_prefix(&*self.disk, &path, Lsn::ZERO)
                        .ok()
                        .filter(|prefix| prefix.end > prefix.first_lsn)
                        .map_or(Lsn::ZERO, |prefix| prefix.end);
                    if holds > end {
                        return Err(OpenError::OldManifest { path, holds, end });
                    }
                }
                Some(Kind::Snapshot | Kind::Temporary) => {}
            }
            leftovers.push(name);
        }
        Ok(leftovers)
    }

    /// The lineage that the data belongs to.
    pub(crate) fn lineage(&self) -> LineageId {
        self.lineage
    }

    /// Where the snapshot that the manifest names begins the journal; 0 without one.
    pub(crate) fn snapshot_lsn(&self) -> Lsn {
        self.manifest.lock().snapshot.as_ref().map_or(Lsn::ZERO, |snapshot| snapshot.lsn)
    }
}

impl cairn_journal::Catalog for Catalog {
    fn segment_opened(&self, entry: SegmentEntry) -> io::Result<()> {
        let name = entry.name.clone();
        let dropped = self.change(Some(&name), |manifest| {
            // A file that begins no earlier than this one holds nothing that counts: it was abandoned, or stayed empty.
            let earlier = manifest.segments.iter().take_while(|segment| segment.first_lsn < entry.first_lsn);
            let dropped = manifest.segments.split_off(earlier.count());
            manifest.segments.push(entry);
            dropped
        })?;
        dropped.iter().for_each(|segment| self.remove(&segment.name));
        Ok(())
    }
}

/// How many segments lie below a position as a whole. A segment ends where the next one begins; the last one is open and
/// stays.
fn segments_below(manifest: &Manifest, lsn: Lsn) -> usize {
    manifest.segments.windows(2).take_while(|pair| pair[1].first_lsn <= lsn).count()
}

fn names_in(manifest: &Manifest) -> impl Iterator<Item = &str> {
    let snapshot = manifest.snapshot.iter().map(|snapshot| snapshot.name.as_str());
    snapshot.chain(manifest.segments.iter().map(|segment| segment.name.as_str()))
}

/// What Redis keeps its data in: a directory with these is not empty, and not ours.
const REDIS_FILES: [&str; 3] = ["dump.rdb", "appendonly.aof", "appendonlydir"];

/// A restore names here what it is giving names to; without a manifest it died there, and the next one begins again.
const PLACING: &str = "restore.placing";

/// Whether a directory holds data, of ours or of Redis, whole or not: where it does not, nothing can be lost by filling it. What
/// a restore left that died is none; whoever fills it refuses what else is there.
///
/// # Errors
/// Where it cannot be read.
pub fn holds_data(dir: &Path) -> Result<bool, OpenError> {
    let io = |source| OpenError::Io { path: dir.to_owned(), source };
    if !RealDisk.exists(dir).map_err(io)? {
        return Ok(false);
    }
    let is_data = |name: &str| {
        name == MANIFEST
            || REDIS_FILES.contains(&name)
            || matches!(Kind::of(name), Some(Kind::Journal | Kind::Snapshot))
    };
    let entries = RealDisk.list(dir).map_err(io)?;
    let is_there = |name: &str| entries.iter().any(|entry| entry.name == name);
    if is_there(PLACING) && !is_there(MANIFEST) {
        return Ok(false);
    }
    Ok(entries.iter().any(|entry| is_data(&entry.name)))
}

/// A file of ours, by its name. Anything else in the directory is somebody else's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// `journal-<20 digits>`, with `.<number>` where that name was taken.
    Journal,
    /// `snapshot-<20 digits>.cairn`, with `.<number>` before the ending where that name was taken.
    Snapshot,
    /// `manifest.tmp`, `journal-<32 hexadecimal digits>-<number>.tmp`, a snapshot's name with `.tmp`.
    Temporary,
}

impl Kind {
    fn of(name: &str) -> Option<Kind> {
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
        let numbered = |text: &str| {
            let (lsn, number) = text.split_once('.').unwrap_or((text, "0"));
            lsn.len() == 20 && digits(lsn) && digits(number)
        };
        if let Some(name) = name.strip_suffix(".tmp") {
            let prepared = |text: &str| {
                text.split_once('-').is_some_and(|(id, number)| {
                    id.len() == 32 && id.bytes().all(|c| c.is_ascii_hexdigit()) && digits(number)
                })
            };
            let ours = name == MANIFEST
                || name.strip_prefix("journal-").is_some_and(prepared)
                || Kind::of(name) == Some(Kind::Snapshot);
            return ours.then_some(Kind::Temporary);
        }
        if let Some(rest) = name.strip_prefix("journal-") {
            return numbered(rest).then_some(Kind::Journal);
        }
        let rest = name.strip_prefix("snapshot-")?.strip_suffix(".cairn")?;
        numbered(rest).then_some(Kind::Snapshot)
    }
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

#[cfg(test)]
mod tests {
    use super::Kind;

    #[test]
    fn only_names_of_our_own_are_ours() {
        for (name, kind) in [
            ("journal-00000000000000000093", Some(Kind::Journal)),
            ("journal-00000000000000000093.2", Some(Kind::Journal)),
            ("snapshot-00000000000000000093.cairn", Some(Kind::Snapshot)),
            ("snapshot-00000000000000000093.1.cairn", Some(Kind::Snapshot)),
            ("snapshot-00000000000000000093.cairn.tmp", Some(Kind::Temporary)),
            ("journal-cab1e3bdf55761a78d134d1bf410f3d8-2.tmp", Some(Kind::Temporary)),
            ("manifest.tmp", Some(Kind::Temporary)),
            ("manifest", None),
            ("notes.tmp", None),
            ("journal-of-my-summer", None),
            ("journal-00000000000000000093.bak", None),
            ("snapshot-00000000000000000093.cairn.bak", None),
        ] {
            assert_eq!(Kind::of(name), kind, "{name}");
        }
    }
}
