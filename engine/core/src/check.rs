//! What is in a data directory, and whether a start would get through: reads all that a start reads, changes nothing.

use std::io;
use std::path::{Path, PathBuf};

use cairn_keyspace::Keyspace;

use crate::catalog::{Catalog, MANIFEST};
use crate::error::OpenError;
use crate::loading::Loading;
use crate::options::Options;
use crate::recovery::{self, Recovery};

/// What a start would find. Everything in it was read and verified.
#[derive(Clone, Debug)]
pub struct Checked {
    /// What recovery would give.
    pub recovery: Recovery,
    /// The lineage the data belongs to; of a directory without data, nothing.
    pub lineage: Option<String>,
    /// Whether the manifest, and so everything it names, is sealed.
    pub encrypted: bool,
    /// The files that make up the data, in the order they are read.
    pub files: Vec<CheckedFile>,
    /// Files of ours that belong to nothing any more: a start removes them.
    pub leftovers: Vec<String>,
    /// Keys in all databases, expired ones that nobody has removed yet included.
    pub keys: u64,
    /// What DEBUG DIGEST would answer, where it was asked for.
    pub digest: Option<String>,
}

/// One of the files.
#[derive(Clone, Debug)]
pub struct CheckedFile {
    /// Its name in the directory.
    pub name: String,
    /// What it takes there, in bytes.
    pub bytes: u64,
    /// Of a snapshot the LSN it was taken at, of a journal segment the LSN it begins at.
    pub lsn: u64,
}

/// Reads a data directory as [`crate::Engine::open`] does, and says what is there. No other process may have it open.
///
/// # Errors
/// What would keep an engine from opening it; that there is no such directory.
pub fn check(options: &Options, with_digest: bool) -> Result<Checked, OpenError> {
    let (dir, disk) = (&options.dir, &options.disk);
    let io = |path: PathBuf| move |source: io::Error| OpenError::Io { path, source };
    disk.list(dir).map_err(io(dir.clone()))?;
    // Where no lock was ever taken there is nobody to keep out, and nothing is to be made in the directory.
    let is_used = disk.exists(&recovery::lock_path(options)).map_err(io(dir.clone()))?;
    let _lock = is_used.then(|| recovery::lock(options)).transpose()?;
    let (catalog, found) = Catalog::open(disk.clone(), dir, options.keyring.clone(), options.databases)?;
    let manifest = catalog.manifest();
    let keyspace = Keyspace::new(options.databases);
    let mut recovery = Recovery { fresh: !found, ..Recovery::default() };
    recovery::read(options, &keyspace, &manifest, &mut recovery, &Loading::default())?;
    let snapshot = manifest.snapshot.iter().map(|entry| (&entry.name, entry.lsn));
    let segments = manifest.segments.iter().map(|entry| (&entry.name, entry.first_lsn));
    let files = snapshot
        .chain(segments)
        .map(|(name, lsn)| {
            let path = dir.join(name);
            let bytes = disk.len(&path).map_err(io(path))?;
            Ok(CheckedFile { name: name.clone(), bytes, lsn: lsn.0 })
        })
        .collect::<Result<_, OpenError>>()?;
    let mut leftovers = catalog.leftovers(recovery.end)?;
    // Room kept for the next manifest: every server leaves it.
    let spare = cairn_disk::temporary_name(Path::new(MANIFEST));
    leftovers.retain(|name| Path::new(name) != spare);
    let locked = keyspace.lock_all();
    let hex = |digest: [u8; 20]| digest.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Checked {
        lineage: found.then(|| manifest.lineage.to_string()),
        encrypted: manifest.encrypted,
        files,
        leftovers,
        keys: (0..keyspace.databases()).map(|db| locked.len(db) as u64).sum(),
        digest: with_digest.then(|| hex(locked.digest())),
        recovery,
    })
}
