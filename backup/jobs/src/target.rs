//! A directory as the target of a restore.
//!
//! Files come under temporary names. Only when all of them are whole and checked do they get their names, and the
//! manifest that names them is written last: until then the directory holds nothing, or what it held before. Whatever
//! ends a restore early removes what it made.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cairn_disk::{Disk, File, LockGuard, temporary_name, write_file_atomically};
use cairn_format::manifest::Manifest;
use cairn_seal::{Keyring, seal_manifest};

use crate::source::MANIFEST;
use crate::{JobError, files};

pub(crate) const LOCK: &str = "lock";

/// Names the files that are about to get their names, one a line: what a restore that died among them leaves is known by it.
const PLACING: &str = "restore.placing";

/// A directory being restored into, locked.
pub(crate) struct Target {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    /// Held against servers and other restores; dropped with the target.
    lock: Option<Box<dyn LockGuard>>,
    made_dir: bool,
    made_lock: bool,
    /// What to remove if this ends early.
    made_files: Vec<PathBuf>,
    /// What the manifest that is there names; with `force` alone there can be one.
    old_files: Vec<PathBuf>,
}

/// A file of the target under its temporary name.
#[derive(Debug, Clone)]
pub(crate) struct Placed {
    pub(crate) temporary: PathBuf,
    /// The name it will have.
    pub(crate) name: String,
}

impl Target {
    /// Makes the directory if it is missing, locks it, and refuses one that holds anything but the leftovers of a restore
    /// that died, unless `force`.
    pub(crate) fn open(disk: Arc<dyn Disk>, dir: &Path, force: bool) -> Result<Self, JobError> {
        refuse_filled(&*disk, dir, force)?;
        let made_dir = !files::io(dir, "look for", disk.exists(dir))?;
        files::io(dir, "create", disk.create_dir_all(dir))?;
        let lock_path = dir.join(LOCK);
        let made_lock = !files::io(&lock_path, "look for", disk.exists(&lock_path))?;
        let mut target = Self {
            disk,
            dir: dir.to_owned(),
            lock: None,
            made_dir,
            made_lock: false,
            made_files: Vec::new(),
            old_files: Vec::new(),
        };
        match target.disk.lock(&lock_path) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                return Err(JobError::Locked { dir: dir.to_owned() });
            }
            other => target.lock = Some(files::io(&lock_path, "lock", other)?),
        }
        target.made_lock = made_lock;
        // Now that nobody else can fill it, it is looked at again.
        refuse_filled(&*target.disk, dir, force)?;
        target.old_files = target.named_by_old_manifest()?;
        target.clear_leftovers()?;
        Ok(target)
    }

    /// Removes what a restore that died left behind, and never what the manifest names.
    fn clear_leftovers(&self) -> Result<(), JobError> {
        let placing = placing(&*self.disk, &self.dir)?;
        let manifest = self.dir.join(MANIFEST);
        // With a manifest that cannot be read nobody knows which of the files it names.
        let is_known =
            !files::io(&manifest, "look for", self.disk.exists(&manifest))? || !self.old_files.is_empty();
        for entry in files::io(&self.dir, "list", self.disk.list(&self.dir))? {
            let path = self.dir.join(&entry.name);
            let is_placed = is_known && placing.contains(&entry.name) && !self.old_files.contains(&path);
            if is_leftover(&entry.name) || is_placed {
                files::io(&path, "remove", self.disk.remove(&path))?;
            }
        }
        self.end_placing()
    }

    /// Says which files are about to get their names.
    fn begin_placing(&self, placed: &[Placed]) -> Result<(), JobError> {
        let path = self.dir.join(PLACING);
        let names: String = placed.iter().flat_map(|file| [file.name.as_str(), "\n"]).collect();
        let written = write_file_atomically(&*self.disk, &path, names.as_bytes());
        written.map_err(|source| JobError::write(&path, names.len() as u64, source))
    }

    fn end_placing(&self) -> Result<(), JobError> {
        let path = self.dir.join(PLACING);
        match self.disk.remove(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            other => files::io(&path, "remove", other),
        }
    }

    /// What would be replaced. A manifest that cannot be read names nothing: its files then stay beside the new ones.
    fn named_by_old_manifest(&self) -> Result<Vec<PathBuf>, JobError> {
        let Ok(old) = crate::source::read_manifest(&*self.disk, &self.dir, None) else {
            return Ok(Vec::new());
        };
        let snapshot = old.snapshot.into_iter().map(|entry| entry.name);
        Ok(snapshot
            .chain(old.segments.into_iter().map(|entry| entry.name))
            .map(|name| self.dir.join(name))
            .collect())
    }

    /// Creates the file that will have this name, or one like it where that is taken.
    pub(crate) fn create(&mut self, name: &str) -> Result<(Arc<dyn File>, Placed), JobError> {
        let placed = self.reserve(name)?;
        let temporary = &placed.temporary;
        let file = self.disk.create_new(temporary).map_err(|source| JobError::write(temporary, 0, source))?;
        Ok((file, placed))
    }

    /// As [`Target::create`], for a file that somebody else creates.
    pub(crate) fn reserve(&mut self, name: &str) -> Result<Placed, JobError> {
        let mut free = name.to_owned();
        let mut number = 0;
        while files::io(&self.dir.join(&free), "look for", self.disk.exists(&self.dir.join(&free)))? {
            number += 1;
            free = match name.strip_suffix(".cairn") {
                Some(stem) => format!("{stem}.{number}.cairn"),
                None => format!("{name}.{number}"),
            };
        }
        let temporary = temporary_name(&self.dir.join(&free));
        self.made_files.push(temporary.clone());
        Ok(Placed { temporary, name: free })
    }

    /// Removes a file that is not wanted after all.
    pub(crate) fn discard(&mut self, placed: &Placed) -> Result<(), JobError> {
        self.made_files.retain(|made| *made != placed.temporary);
        files::io(&placed.temporary, "remove", self.disk.remove(&placed.temporary))
    }

    /// Gives the files their names and writes the manifest that names them. Blocks.
    pub(crate) fn commit(
        mut self,
        placed: &[Placed],
        manifest: &mut Manifest,
        keyring: Option<&Keyring>,
    ) -> Result<(), JobError> {
        self.begin_placing(placed)?;
        self.made_files.push(self.dir.join(PLACING));
        for file in placed {
            let path = self.dir.join(&file.name);
            files::io(&path, "rename to", self.disk.rename(&file.temporary, &path))?;
            self.made_files.push(path);
        }
        files::io(&self.dir, "sync", self.disk.sync_dir(&self.dir))?;
        let path = self.dir.join(MANIFEST);
        let bytes = seal_manifest(manifest, keyring)
            .map_err(|source| JobError::Seal { place: path.display().to_string(), source })?;
        let had_manifest = files::io(&path, "look for", self.disk.exists(&path))?;
        if let Err(source) = write_file_atomically(&*self.disk, &path, &bytes) {
            if had_manifest {
                // Which of the two manifests the disk holds is unknown; both must stay usable.
                self.made_files.clear();
            } else {
                let _ = self.disk.remove(&path);
            }
            return Err(JobError::write(&path, bytes.len() as u64, source));
        }
        self.made_files.clear();
        (self.made_dir, self.made_lock) = (false, false);
        if let Err(error) = self.end_placing() {
            tracing::warn!(%error, "the restore is complete, and a note of it stays behind");
        }
        for path in std::mem::take(&mut self.old_files) {
            // The restore is complete: an old file that stays is only in the way.
            if let Err(error) = self.disk.remove(&path) {
                tracing::warn!(path = %path.display(), %error, "a file of the replaced data could not be removed");
            }
        }
        Ok(())
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        for path in self.made_files.drain(..) {
            // It has another name by now, or the disk is worse off than we can mend.
            let _ = self.disk.remove(&path);
        }
        if self.made_lock {
            let _ = self.disk.remove(&self.dir.join(LOCK));
        }
        if self.made_dir {
            // Only an empty one goes.
            let _ = std::fs::remove_dir(&self.dir);
        }
    }
}

/// A temporary file of a restore, a server or a manifest.
fn is_leftover(name: &str) -> bool {
    let known = ["journal-", "snapshot-", MANIFEST, PLACING].iter().any(|prefix| name.starts_with(prefix));
    known && name.ends_with(".tmp")
}

/// The files that a restore was giving their names when it died.
fn placing(disk: &dyn Disk, dir: &Path) -> Result<Vec<String>, JobError> {
    let path = dir.join(PLACING);
    let file = match disk.open_read(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => files::io(&path, "open", other)?,
    };
    let length = files::io(&path, "read the length of", file.len())?;
    let mut bytes = vec![0; usize::try_from(length.min(1 << 20)).unwrap_or_default()];
    files::io(&path, "read", file.read_exact_at(&mut bytes, 0))?;
    let names = String::from_utf8_lossy(&bytes);
    // Only names that a restore gives: whatever else stands there, nothing else is touched.
    let is_ours = |name: &&str| name.starts_with("journal-") || name.starts_with("snapshot-");
    Ok(names.lines().filter(is_ours).map(str::to_owned).collect())
}

/// Refuses a directory that holds something, unless `force`, and a path that is no directory.
///
/// # Errors
/// [`JobError::NotEmpty`], those of the disk.
pub fn refuse_filled(disk: &dyn Disk, dir: &Path, force: bool) -> Result<(), JobError> {
    if force || !files::io(dir, "look for", disk.exists(dir))? {
        return Ok(());
    }
    let mut entries = files::io(dir, "list", disk.list(dir))?;
    let placing = placing(disk, dir)?;
    let is_of_no_use = |name: &str| {
        name == LOCK || name == PLACING || is_leftover(name) || placing.iter().any(|one| one == name)
    };
    entries.retain(|entry| !is_of_no_use(&entry.name));
    entries.sort();
    // Its manifest says most about what is there.
    let shown = entries.iter().find(|entry| entry.name == MANIFEST).or(entries.first());
    match shown {
        None => Ok(()),
        Some(entry) => Err(JobError::NotEmpty { dir: dir.to_owned(), found: entry.name.clone() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_disk::RealDisk;
    use cairn_format::{FileId, LineageId};

    fn manifest() -> Manifest {
        Manifest {
            lineage: LineageId([1; 16]),
            epoch: 1,
            number: 1,
            encrypted: false,
            file_id: FileId::default(),
            key: None,
            databases: 16,
            snapshot: None,
            segments: Vec::new(),
        }
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn what_ends_early_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("a/data");
        let mut target = Target::open(Arc::new(RealDisk), &data, false).unwrap();
        let (file, _) = target.create("journal-1").unwrap();
        file.write_at(b"x", 0).unwrap();
        assert_eq!(names(&data), ["journal-1.tmp", "lock"]);
        assert!(matches!(Target::open(Arc::new(RealDisk), &data, false), Err(JobError::Locked { .. })));
        drop(target);
        assert!(!data.exists());
        assert!(dir.path().join("a").exists(), "a directory above it may have others in it");
    }

    #[test]
    fn what_is_there_is_refused_or_replaced_whole() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let restore = |force| {
            let mut target = Target::open(Arc::new(RealDisk), &data, force)?;
            let (_, placed) = target.create("snapshot-1.cairn")?;
            let mut manifest = manifest();
            manifest.snapshot = Some(cairn_format::manifest::SnapshotEntry {
                name: placed.name.clone(),
                file_id: FileId::default(),
                lsn: cairn_format::Lsn(1),
                bytes: 0,
                entries: 0,
            });
            target.commit(&[placed], &mut manifest, None)
        };
        restore(false).unwrap();
        assert_eq!(names(&data), ["lock", "manifest", "snapshot-1.cairn"]);
        let refused: Result<(), JobError> = restore(false);
        assert!(matches!(refused, Err(JobError::NotEmpty { found, .. }) if found == "manifest"));
        std::fs::write(data.join("mine.txt"), "x").unwrap();
        restore(true).unwrap();
        assert_eq!(names(&data), ["lock", "manifest", "mine.txt", "snapshot-1.1.cairn"]);
        // One that ends early leaves the old data as it was.
        let mut target = Target::open(Arc::new(RealDisk), &data, true).unwrap();
        target.create("snapshot-1.1.cairn").unwrap();
        drop(target);
        assert_eq!(names(&data), ["lock", "manifest", "mine.txt", "snapshot-1.1.cairn"]);
    }

    #[test]
    fn a_restore_that_died_while_it_named_files_is_begun_again() {
        let dir = tempfile::tempdir().unwrap();
        let fill = |names: &[&str], placing: &str| {
            names.iter().for_each(|name| std::fs::write(dir.path().join(name), "x").unwrap());
            std::fs::write(dir.path().join(PLACING), placing).unwrap();
        };
        let placing = "snapshot-1.cairn\njournal-1\nmine.txt\n../up\n";
        fill(&["snapshot-1.cairn", "journal-1.tmp", "lock"], placing);
        drop(Target::open(Arc::new(RealDisk), dir.path(), false).unwrap());
        assert_eq!(names(dir.path()), ["lock"]);
        // What the note does not name is somebody's, and what it may not name too.
        for other in ["snapshot-2.cairn", "mine.txt"] {
            fill(&["snapshot-1.cairn", other], placing);
            let refused = Target::open(Arc::new(RealDisk), dir.path(), false).err().unwrap();
            assert!(matches!(refused, JobError::NotEmpty { found, .. } if found == other));
            std::fs::remove_file(dir.path().join(other)).unwrap();
        }
        // With a manifest it was complete, and that names its files.
        drop(Target::open(Arc::new(RealDisk), dir.path(), false).unwrap());
        fill(&["snapshot-1.cairn", MANIFEST], placing);
        assert!(Target::open(Arc::new(RealDisk), dir.path(), false).is_err());
        drop(Target::open(Arc::new(RealDisk), dir.path(), true).unwrap());
        assert!(dir.path().join("snapshot-1.cairn").exists(), "the manifest cannot be read");
    }

    #[test]
    fn leftovers_of_a_restore_that_died_are_cleared() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["journal-1.tmp", "snapshot-1.cairn.tmp", "manifest.tmp", "lock"] {
            std::fs::write(dir.path().join(name), "x").unwrap();
        }
        let target = Target::open(Arc::new(RealDisk), dir.path(), false).unwrap();
        assert_eq!(names(dir.path()), ["lock"]);
        drop(target);
        assert_eq!(names(dir.path()), ["lock"], "a lock file that was there stays");
        std::fs::write(dir.path().join("notes.tmp"), "x").unwrap();
        assert!(Target::open(Arc::new(RealDisk), dir.path(), false).is_err());
    }
}
