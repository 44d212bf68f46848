//! Bringing a data directory under the newest master key while no server runs on it. Headers alone are written; the law is
//! section 1 of `storage/docs/seal.md`.

use std::io;
use std::path::{Path, PathBuf};

use cairn_disk::{Disk, LockGuard, write_file_atomically};
use cairn_format::header::Magic;
use cairn_format::{FileId, HEADER_BYTES};
use cairn_seal::{Keyring, next_rewrap, seal_manifest};
use serde::Serialize;

use crate::progress::{Phase, Progress};
use crate::source::{MANIFEST, read_manifest};
use crate::target::LOCK;
use crate::{JobError, files};

/// What became of a directory's files, or would.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RewrappedDirectory {
    /// The directory.
    pub dir: PathBuf,
    /// The master key that all of them are under now.
    pub key: String,
    /// The files the data consists of, the manifest among them.
    pub files: usize,
    /// Those that were under another key.
    pub rewrapped: usize,
}

/// Brings every file of a data directory under the keyring's active key, or with `dry_run` says which are not. Blocks.
///
/// One that ends early has left some files under the one key and some under the other; the next one goes on from there.
///
/// # Errors
/// [`JobError::ServerRuns`], [`JobError::NoData`], a wrong key, damage, the disk's.
pub fn rewrap_directory(
    disk: &dyn Disk,
    dir: &Path,
    keyring: &Keyring,
    dry_run: bool,
    progress: &dyn Progress,
) -> Result<RewrappedDirectory, JobError> {
    let _lock = lock(disk, dir)?;
    let mut manifest = read_manifest(disk, dir, Some(keyring))?;
    let key = keyring.active().name().to_owned();
    let snapshot = manifest.snapshot.iter().map(|entry| (&entry.name, Magic::Snapshot));
    let segments = manifest.segments.iter().map(|entry| (&entry.name, Magic::Journal));
    let named: Vec<(PathBuf, Magic)> =
        snapshot.chain(segments).map(|(name, magic)| (dir.join(name), magic)).collect();
    progress.begin(Phase::Rewrap, (named.len() * HEADER_BYTES) as u64);
    let mut rewrapped = 0;
    for (path, magic) in &named {
        rewrapped += usize::from(rewrap_file(disk, path, *magic, keyring, dry_run)?);
        progress.advance(HEADER_BYTES as u64);
    }
    // It has a data key of its own each time it is written.
    if manifest.key.as_ref().is_some_and(|slot| slot.key_name != key) {
        rewrapped += 1;
        if !dry_run {
            let path = dir.join(MANIFEST);
            manifest.number += 1;
            let bytes = seal_manifest(&mut manifest, Some(keyring))
                .map_err(|source| JobError::Seal { place: path.display().to_string(), source })?;
            write_file_atomically(disk, &path, &bytes)
                .map_err(|source| JobError::write(&path, bytes.len() as u64, source))?;
        }
    }
    progress.end();
    Ok(RewrappedDirectory { dir: dir.to_owned(), key, files: named.len() + 1, rewrapped })
}

/// Keeps servers away. Where no lock was ever taken there is none, and nothing is to be made in the directory.
fn lock(disk: &dyn Disk, dir: &Path) -> Result<Option<Box<dyn LockGuard>>, JobError> {
    let path = dir.join(LOCK);
    if !files::io(&path, "look for", disk.exists(&path))? {
        return Ok(None);
    }
    match disk.lock(&path) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            Err(JobError::ServerRuns { dir: dir.to_owned() })
        }
        other => files::io(&path, "lock", other).map(Some),
    }
}

/// Brings one file under the active key; whether it was not, or not wholly.
pub(crate) fn rewrap_file(
    disk: &dyn Disk,
    path: &Path,
    magic: Magic,
    keyring: &Keyring,
    dry_run: bool,
) -> Result<bool, JobError> {
    let mut header = vec![0; HEADER_BYTES];
    let file = files::io(path, "open", disk.open_read(path))?;
    files::io(path, "read the header of", file.read_exact_at(&mut header, 0))?;
    let sealed = |source| JobError::Seal { place: path.display().to_string(), source };
    let mut was_needed = false;
    while let Some(write) = next_rewrap(&header, magic, keyring).map_err(sealed)? {
        was_needed = true;
        if dry_run {
            break;
        }
        let file = files::io(path, "open", disk.open_write(path))?;
        // Synced before the next, which writes over what this one replaces.
        let written = file.write_at(&*write.page, write.offset).and_then(|()| file.sync_data());
        written.map_err(|source| JobError::write(path, write.page.len() as u64, source))?;
        write.apply(&mut header);
    }
    Ok(was_needed)
}

/// Puts the wrapped key that the keyring knows beside a restored file, if it knows one, into the file's header.
pub(crate) fn take_key(
    disk: &dyn Disk,
    path: &Path,
    magic: Magic,
    file_id: FileId,
    keyring: Option<&Keyring>,
) -> Result<(), JobError> {
    let knows = |keyring: &&Keyring| keyring.slot_of(file_id).is_some();
    keyring.filter(knows).map_or(Ok(()), |keyring| rewrap_file(disk, path, magic, keyring, false).map(drop))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Silent;
    use cairn_disk::{FaultyDisk, Survival};
    use cairn_format::header::{Body, Identity, JournalBody, SnapshotBody, decode_header, encode_header};
    use cairn_format::manifest::{Manifest, SegmentEntry, SnapshotEntry};
    use cairn_format::{LineageId, Lsn};
    use cairn_seal::{new_data_key, open_manifest, unwrap, wrap};

    const DIR: &str = "/data";
    const NAMES: [(&str, Magic); 3] =
        [("snapshot-0.cairn", Magic::Snapshot), ("journal-0", Magic::Journal), ("journal-9", Magic::Journal)];

    /// Headers alone: nothing else of a file is looked at.
    fn directory(keyring: &Keyring) -> FaultyDisk {
        let (disk, dir) = (FaultyDisk::new(), Path::new(DIR));
        disk.create_dir_all(dir).unwrap();
        for (number, (name, magic)) in (1_u8..).zip(NAMES) {
            let file_id = FileId([number; 16]);
            let body = match magic {
                Magic::Snapshot => Body::Snapshot(SnapshotBody { lsn: Lsn(0) }),
                _ => Body::Journal(JournalBody { first_lsn: Lsn(0), epoch: 1, predecessor: None }),
            };
            let (lineage, created_unix_ms) = (LineageId([1; 16]), 1);
            let identity = Identity { magic, encrypted: true, file_id, lineage, created_unix_ms, body };
            let slot = wrap(keyring, magic, file_id, &new_data_key().unwrap(), 1).unwrap();
            let file = disk.create_new(&dir.join(name)).unwrap();
            file.write_at(&encode_header(&identity, Some(&slot)), 0).unwrap();
            file.sync_all().unwrap();
        }
        let segment = |number: u8, lsn| SegmentEntry {
            name: NAMES[usize::from(number) - 1].0.into(),
            file_id: FileId([number; 16]),
            first_lsn: Lsn(lsn),
        };
        let (name, file_id) = (NAMES[0].0.into(), FileId([1; 16]));
        let mut manifest = Manifest {
            lineage: LineageId([1; 16]),
            epoch: 1,
            number: 1,
            encrypted: true,
            file_id: FileId::default(),
            key: None,
            databases: 16,
            snapshot: Some(SnapshotEntry { name, file_id, lsn: Lsn(0), bytes: 12_288, entries: 0 }),
            segments: vec![segment(2, 0), segment(3, 9)],
        };
        let bytes = seal_manifest(&mut manifest, Some(keyring)).unwrap();
        write_file_atomically(&disk, &dir.join(MANIFEST), &bytes).unwrap();
        disk
    }

    fn opens(disk: &FaultyDisk, keyring: &Keyring) -> bool {
        let bytes = |name: &str| disk.map(&Path::new(DIR).join(name)).unwrap().bytes().to_vec();
        let file = |(name, magic): &(&str, Magic)| {
            let (identity, slot) = decode_header(&bytes(name), *magic).unwrap();
            unwrap(keyring, *magic, identity.file_id, &slot.unwrap()).is_ok()
        };
        NAMES.iter().all(file) && open_manifest(&bytes(MANIFEST), Some(keyring)).is_ok()
    }

    #[test]
    fn wherever_the_power_goes_every_file_opens_and_the_next_run_ends_it() {
        let old = Keyring::generate().unwrap();
        let both = old.rotated().unwrap();
        let alone = Keyring::parse(both.encode().lines().last().unwrap().as_bytes()).unwrap();
        for operations in 0.. {
            let disk = directory(&old);
            disk.power_off_after(operations);
            let done = rewrap_directory(&disk, Path::new(DIR), &both, false, &Silent);
            for survival in (0..4).map(Survival::Sectors).chain([Survival::Nothing, Survival::Everything]) {
                let image = disk.crash(survival);
                assert!(opens(&image, &both), "{operations} {survival:?}");
                assert!(done.is_err() || (opens(&image, &alone) && !opens(&image, &old)));
                rewrap_directory(&image, Path::new(DIR), &both, false, &Silent).unwrap();
                assert!(opens(&image, &alone), "{operations} {survival:?}");
                let again = rewrap_directory(&image, Path::new(DIR), &both, false, &Silent).unwrap();
                assert_eq!((again.files, again.rewrapped), (4, 0));
            }
            if let Ok(done) = done {
                assert_eq!((done.files, done.rewrapped, &*done.key), (4, 4, alone.active().name()));
                assert!(operations > 10, "{operations} calls changed the disk");
                break;
            }
        }
    }
}
