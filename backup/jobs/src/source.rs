//! A data directory as the source of a backup.
//!
//! A server may be writing in it and trimming it all the while. What is needed is opened first; a file that is open stays
//! readable when its name goes, so once every file the manifest names is open (and is the one meant, by its id), the set
//! is consistent whatever happens to the directory. If one is gone by then, the manifest has changed and is read again.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cairn_disk::{Disk, File};
use cairn_format::header::{Magic, decode_header};
use cairn_format::manifest::Manifest;
use cairn_format::{FileId, HEADER_BYTES, Lsn};
use cairn_journal::OpenSegment;
use cairn_seal::Keyring;

use crate::manifest::ObjectKind;
use crate::{JobError, files};

/// The name of the manifest of a data directory.
pub(crate) const MANIFEST: &str = "manifest";
const ATTEMPTS: u32 = 20;

/// The files of a data directory that make a backup, open.
pub(crate) struct Source {
    pub(crate) manifest: Manifest,
    pub(crate) files: Vec<SourceFile>,
}

/// One of them.
pub(crate) struct SourceFile {
    pub(crate) kind: ObjectKind,
    pub(crate) path: PathBuf,
    pub(crate) name: String,
    pub(crate) file: Arc<dyn File>,
    pub(crate) file_id: FileId,
    pub(crate) key: Option<String>,
    /// How many of its bytes belong to the backup.
    pub(crate) bytes: u64,
    /// How long the file is.
    pub(crate) file_bytes: u64,
    pub(crate) first_lsn: Lsn,
    pub(crate) end_lsn: Lsn,
    pub(crate) entries: u64,
}

impl Source {
    /// Opens everything that the manifest of `dir` names; `told` is the durable LSN its server told, if asked. Blocks.
    pub(crate) fn open(
        disk: &dyn Disk,
        dir: &Path,
        keyring: Option<&Keyring>,
        told: Option<Lsn>,
    ) -> Result<Self, JobError> {
        let mut manifest = read_manifest(disk, dir, keyring)?;
        for _ in 0..ATTEMPTS {
            let error = match Self::open_named(disk, dir, &manifest, told) {
                Ok(files) => return Ok(Self { manifest, files }),
                Err(error) => error,
            };
            let again = read_manifest(disk, dir, keyring)?;
            if again.number == manifest.number && again.file_id == manifest.file_id {
                return Err(error);
            }
            manifest = again;
        }
        Err(JobError::Changing { dir: dir.to_owned(), attempts: ATTEMPTS })
    }

    fn open_named(
        disk: &dyn Disk,
        dir: &Path,
        manifest: &Manifest,
        told: Option<Lsn>,
    ) -> Result<Vec<SourceFile>, JobError> {
        let from = manifest.snapshot.as_ref().map_or(Lsn::ZERO, |snapshot| snapshot.lsn);
        let mut opened = Vec::new();
        if let Some(entry) = &manifest.snapshot {
            let mut source = open_file(disk, dir, &entry.name, ObjectKind::Snapshot, entry.file_id)?;
            if source.file_bytes != entry.bytes {
                return Err(damaged(&source.path, "length", entry.bytes, source.file_bytes));
            }
            (source.bytes, source.end_lsn, source.entries) = (entry.bytes, entry.lsn, entry.entries);
            opened.push(source);
        }
        // All are opened before the first is read: only that has to be quicker than the server's trimming.
        let mut segments = Vec::new();
        for (index, entry) in manifest.segments.iter().enumerate() {
            let next = manifest.segments.get(index + 1).map(|next| next.first_lsn);
            // Everything in it is in the snapshot already; the server is about to remove it.
            if next.is_some_and(|next| next <= from) {
                continue;
            }
            let mut source = open_file(disk, dir, &entry.name, ObjectKind::Journal, entry.file_id)?;
            source.first_lsn = entry.first_lsn;
            segments.push((OpenSegment::open(disk, &source.path)?, source, next));
        }
        for (mut segment, mut source, next) in segments {
            let mut part = files::segment_part(&mut segment, &source.path, next, told)?;
            if next.is_none() && part.end < from {
                // A snapshot is named only when the journal up to it is durable, so it tells what no frame tells yet.
                part = files::segment_part(&mut segment, &source.path, next, Some(from))?;
                if part.end < from {
                    return Err(damaged(
                        &source.path,
                        "end of the journal behind the snapshot",
                        from.0,
                        part.end.0,
                    ));
                }
            }
            (source.bytes, source.end_lsn) = (part.bytes, part.end);
            if next.is_none() {
                // It may have been cut to its frames by now: as the last one of a directory it has its first length.
                source.file_bytes = part.allocated_bytes.unwrap_or(source.file_bytes);
            }
            opened.push(source);
        }
        Ok(opened)
    }

    /// The LSN up to which the files reach.
    pub(crate) fn end_lsn(&self) -> Lsn {
        self.files.last().map_or(Lsn::ZERO, |file| file.end_lsn)
    }
}

/// Reads the manifest of a data directory. Without a keyring an encrypted one is read by its checksum alone: enough to
/// copy files, though not to trust them.
pub(crate) fn read_manifest(
    disk: &dyn Disk,
    dir: &Path,
    keyring: Option<&Keyring>,
) -> Result<Manifest, JobError> {
    let path = dir.join(MANIFEST);
    let file = match disk.open_read(&path) {
        Err(error)
            if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) =>
        {
            return Err(JobError::NoData { dir: dir.to_owned() });
        }
        other => files::io(&path, "open", other)?,
    };
    let length = files::io(&path, "read the length of", file.len())?;
    let mut bytes = vec![0; usize::try_from(length.min(64 << 20)).unwrap_or_default()];
    files::io(&path, "read", file.read_exact_at(&mut bytes, 0))?;
    let place = path.display().to_string();
    match keyring {
        Some(_) => {
            cairn_seal::open_manifest(&bytes, keyring).map_err(|source| JobError::Seal { place, source })
        }
        None => Manifest::decode(&bytes)
            .map(|decoded| decoded.manifest)
            .map_err(|source| JobError::Format { place, source }),
    }
}

/// Opens a file and makes sure that it is the one meant.
pub(crate) fn open_file(
    disk: &dyn Disk,
    dir: &Path,
    name: &str,
    kind: ObjectKind,
    expected: FileId,
) -> Result<SourceFile, JobError> {
    let path = dir.join(name);
    let file = match disk.open_read(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(JobError::Damaged {
                place: path.display().to_string(),
                offset: None,
                what: "file named by the manifest",
                expected: "to be there".to_owned(),
                found: "nothing".to_owned(),
            });
        }
        other => files::io(&path, "open", other)?,
    };
    let mut header = vec![0; HEADER_BYTES];
    let length = files::io(&path, "read the length of", file.len())?;
    if length < HEADER_BYTES as u64 {
        return Err(damaged(&path, "length", format!("at least {HEADER_BYTES}"), length));
    }
    files::io(&path, "read", file.read_exact_at(&mut header, 0))?;
    let magic = if kind == ObjectKind::Snapshot { Magic::Snapshot } else { Magic::Journal };
    let (identity, slot) = decode_header(&header, magic)
        .map_err(|source| JobError::Format { place: path.display().to_string(), source })?;
    if identity.file_id != expected {
        return Err(damaged(&path, "file id", expected, identity.file_id));
    }
    let key = slot.filter(|_| identity.encrypted).map(|slot| slot.key_name);
    Ok(SourceFile {
        kind,
        path,
        name: name.to_owned(),
        file,
        file_id: expected,
        key,
        bytes: 0,
        file_bytes: length,
        first_lsn: Lsn::ZERO,
        end_lsn: Lsn::ZERO,
        entries: 0,
    })
}

pub(crate) fn damaged(
    path: &Path,
    what: &'static str,
    expected: impl ToString,
    found: impl ToString,
) -> JobError {
    JobError::Damaged {
        place: path.display().to_string(),
        offset: None,
        what,
        expected: expected.to_string(),
        found: found.to_string(),
    }
}
