//! Master keys of a running engine: another keyring takes effect, and older files are brought under its active key.
//!
//! A file is changed in its header alone, one slot at a time, each synced before the next (`storage/docs/seal.md`, section 1):
//! wherever this ends, every file opens with the keyring in force, and doing it again goes on from there.

use std::collections::BTreeMap;
use std::fmt::Arguments;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cairn_commands::{KeyJob, Reply};
use cairn_format::HEADER_BYTES;
use cairn_format::header::{KeySlot, Magic, decode_header};
use cairn_journal::JournalError;
use cairn_seal::{Keyring, SealError, next_rewrap, unwrap};
use parking_lot::{Mutex, RwLock};

use crate::catalog::MANIFEST;
use crate::engine::{Engine, Inner};
use crate::process::Process;

/// Why a keyring does not take effect, or files stay under older keys. The keyring in force before stays then, and every
/// file opens with it.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// There is no keyring.
    #[error(
        "encryption is off; CONFIG SET encryption-key-file FILE switches it on (cairn-backup key generate makes one)"
    )]
    Off,
    /// A keyring is in force, and none is given.
    #[error("encryption cannot be switched off: the files are encrypted, and stay so")]
    StillOn,
    /// Data is still being loaded.
    #[error("the data is being loaded; try again when it is there")]
    Loading,
    /// The keyring is being changed, or files are being rewrapped.
    #[error(
        "the keyring is in use by another CAIRN KEY RELOAD or REWRAP; CAIRN KEY STATUS shows how far that is"
    )]
    Busy,
    /// The new keyring does not open what is there.
    #[error(
        "{} is under the key {key:?}, which the new keyring lacks or has another key for; put its line back, have \
         CAIRN KEY REWRAP finish, and remove it then; the keyring before stays in force",
        path.display()
    )]
    Needed {
        /// The file.
        path: PathBuf,
        /// The master key's name.
        key: String,
    },
    /// A file's header cannot be read.
    #[error("{}: {source}", path.display())]
    Seal {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: SealError,
    },
    /// The disk refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The journal could not go on in a file under the new key.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The keyring itself is not to be had.
    #[error("the keyring cannot be had: {0}")]
    NoKeyring(String),
    /// There is no room for another thread.
    #[error("no thread could be started for it: {0}")]
    NoThread(io::Error),
}

/// A master key, and what it is needed for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyUse {
    /// Its name.
    pub name: String,
    /// Whether new files are under it.
    pub active: bool,
    /// How many files of the data directory are under it, the manifest among them.
    pub files: usize,
}

/// The keyring in force, and what is being done about files under older keys.
pub(crate) struct Keys {
    keyring: RwLock<Option<Arc<Keyring>>>,
    /// Held by whoever changes the keyring or rewraps.
    alone: Mutex<()>,
    rewrapping: Mutex<Rewrapping>,
}

/// How far a rewrapping is, or how the last one ended.
#[derive(Clone, Default)]
struct Rewrapping {
    state: State,
    files_done: usize,
    files_total: usize,
    error: Option<String>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Never,
    Running,
    Done,
    Failed,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            State::Never => "never",
            State::Running => "running",
            State::Done => "done",
            State::Failed => "failed",
        }
    }
}

impl Keys {
    pub(crate) fn new(keyring: Option<Arc<Keyring>>) -> Self {
        Self { keyring: RwLock::new(keyring), alone: Mutex::default(), rewrapping: Mutex::default() }
    }

    /// The keyring in force.
    pub(crate) fn keyring(&self) -> Option<Arc<Keyring>> {
        self.keyring.read().clone()
    }
}

impl Engine {
    /// Lets another keyring take effect: new files are under its active key from here on, the journal's next one at once.
    /// Where there was none, encryption is switched on by that, and a snapshot, which housekeeping takes, ends it: until
    /// then there are files in clear. Blocks for as long as the disk takes.
    ///
    /// # Errors
    /// [`KeyError`]. Where only the journal or the manifest could not be written under it, it is in force all the same.
    pub fn set_keyring(&self, keyring: Keyring) -> Result<(), KeyError> {
        set_keyring(&self.0, keyring)
    }

    /// Brings all files under the active master key, without writing data again; gives how many it has looked at. Blocks
    /// for as long as the disk takes, and for a snapshot that is being written.
    ///
    /// # Errors
    /// [`KeyError`]; calling it again goes on from there.
    pub fn rewrap(&self) -> Result<usize, KeyError> {
        let alone = self.0.keys.alone.try_lock().ok_or(KeyError::Busy)?;
        let done = rewrap(&self.0);
        drop(alone);
        done
    }

    /// The master keys of the keyring in force, the active one last, with what each is needed for.
    ///
    /// # Errors
    /// [`KeyError`], where headers cannot be read.
    pub fn keys(&self) -> Result<Vec<KeyUse>, KeyError> {
        uses(&self.0)
    }

    /// How many files in clear there are although there is a keyring: encryption was switched on, and the snapshot that
    /// ends it is not there yet.
    #[must_use]
    pub fn files_in_clear(&self) -> usize {
        if self.is_loading() { 0 } else { self.0.catalog().files_in_clear() }
    }
}

fn set_keyring(inner: &Inner, keyring: Keyring) -> Result<(), KeyError> {
    if inner.loading.is_on() {
        return Err(KeyError::Loading);
    }
    let _alone = inner.keys.alone.try_lock().ok_or(KeyError::Busy)?;
    let before = inner.keys.keyring();
    // What is being written at this moment is under the key that was active.
    if let Some(active) = before.as_deref().map(Keyring::active)
        && !keyring.holds(active)
    {
        return Err(KeyError::Needed { path: inner.options.dir.clone(), key: active.name().to_owned() });
    }
    for (path, magic) in files(inner) {
        let Some((file_id, slot)) = key_of(inner, &path, magic)? else { continue };
        if unwrap(&keyring, magic, file_id, &slot).is_err() {
            return Err(KeyError::Needed { path, key: slot.key_name });
        }
    }
    let keyring = Arc::new(keyring);
    *inner.keys.keyring.write() = Some(Arc::clone(&keyring));
    // First the manifest: whatever is named from here on is looked at, for it may have been begun in clear.
    let path = inner.options.dir.join(MANIFEST);
    let named = inner.catalog().set_keyring(Arc::clone(&keyring));
    let journal = inner.log.journal();
    journal.iter().for_each(|journal| journal.set_keyring(Some(Arc::clone(&keyring))));
    tracing::info!(active = keyring.active().name(), "the keyring took effect");
    if before.is_none() {
        tracing::info!(
            files = inner.catalog().files_in_clear(),
            "encryption was switched on; the snapshot that follows replaces the files in clear"
        );
    }
    named.map_err(|source| KeyError::Io { path, source })?;
    journal.map_or(Ok(()), |journal| journal.renew())?;
    Ok(())
}

/// The files that the manifest names.
fn files(inner: &Inner) -> Vec<(PathBuf, Magic)> {
    let manifest = inner.catalog().manifest();
    let snapshot = manifest.snapshot.into_iter().map(|entry| (entry.name, Magic::Snapshot));
    let segments = manifest.segments.into_iter().map(|entry| (entry.name, Magic::Journal));
    snapshot.chain(segments).map(|(name, magic)| (inner.options.dir.join(name), magic)).collect()
}

/// Whether a file is not needed any more: a snapshot has taken its place since the manifest was read.
fn is_gone(inner: &Inner, path: &Path, error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound && files(inner).iter().all(|(named, _)| named != path)
}

/// A file's header; `None` where the file is not needed any more.
fn header(inner: &Inner, path: &Path) -> Result<Option<Vec<u8>>, KeyError> {
    let mut header = vec![0; HEADER_BYTES];
    match inner.options.disk.open_read(path).and_then(|file| file.read_exact_at(&mut header, 0)) {
        Ok(()) => Ok(Some(header)),
        Err(error) if is_gone(inner, path, &error) => Ok(None),
        Err(source) => Err(KeyError::Io { path: path.to_owned(), source }),
    }
}

/// The id of a file and its wrapped key, where it has one.
fn key_of(
    inner: &Inner,
    path: &Path,
    magic: Magic,
) -> Result<Option<(cairn_format::FileId, KeySlot)>, KeyError> {
    let Some(header) = header(inner, path)? else { return Ok(None) };
    let (identity, slot) = decode_header(&header, magic)
        .map_err(|error| KeyError::Seal { path: path.to_owned(), source: error.into() })?;
    Ok(slot.map(|slot| (identity.file_id, slot)))
}

/// All files under the active key; to be called by whoever holds [`Keys::alone`].
fn rewrap(inner: &Inner) -> Result<usize, KeyError> {
    *inner.keys.rewrapping.lock() = Rewrapping { state: State::Running, ..Rewrapping::default() };
    let mut result = pass(inner);
    // A snapshot that was begun before the keyring changed is named under the key it was begun with.
    if result.is_ok() && inner.snapshots.wait_for_running() {
        result = pass(inner);
    }
    let mut status = inner.keys.rewrapping.lock();
    status.state = if result.is_ok() { State::Done } else { State::Failed };
    match &result {
        Ok(files) => tracing::info!(files, "all files are under the active master key"),
        Err(error) => {
            status.error = Some(error.to_string());
            tracing::error!(%error, "not all files could be brought under the active master key");
        }
    }
    result
}

fn pass(inner: &Inner) -> Result<usize, KeyError> {
    if inner.loading.is_on() {
        return Err(KeyError::Loading);
    }
    let keyring = inner.keys.keyring().ok_or(KeyError::Off)?;
    if let Some(journal) = inner.log.journal() {
        journal.renew()?;
    }
    let files = files(inner);
    {
        let mut status = inner.keys.rewrapping.lock();
        (status.files_done, status.files_total) = (0, files.len() + 1);
    }
    let mut failed = None;
    for (path, magic) in &files {
        match rewrap_file(inner, path, *magic, &keyring) {
            Ok(()) => inner.keys.rewrapping.lock().files_done += 1,
            // The others need not stay as they are for it.
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    let is_under = |slot: &KeySlot| slot.key_name == keyring.active().name();
    if !inner.catalog().manifest().key.as_ref().is_none_or(is_under) {
        let path = inner.options.dir.join(MANIFEST);
        inner.catalog().rewrite().map_err(|source| KeyError::Io { path, source })?;
    }
    inner.keys.rewrapping.lock().files_done += 1;
    failed.map_or(Ok(files.len() + 1), Err)
}

fn rewrap_file(inner: &Inner, path: &Path, magic: Magic, keyring: &Keyring) -> Result<(), KeyError> {
    let Some(mut header) = header(inner, path)? else { return Ok(()) };
    let seal = |source| KeyError::Seal { path: path.to_owned(), source };
    while let Some(write) = next_rewrap(&header, magic, keyring).map_err(seal)? {
        let written = inner.options.disk.open_write(path).and_then(|file| {
            file.write_at(&*write.page, write.offset)?;
            file.sync_data()
        });
        match written {
            Ok(()) => write.apply(&mut header),
            Err(error) if is_gone(inner, path, &error) => return Ok(()),
            Err(source) => return Err(KeyError::Io { path: path.to_owned(), source }),
        }
    }
    Ok(())
}

fn uses(inner: &Inner) -> Result<Vec<KeyUse>, KeyError> {
    if inner.loading.is_on() {
        return Err(KeyError::Loading);
    }
    let keyring = inner.keys.keyring().ok_or(KeyError::Off)?;
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for (path, magic) in files(inner) {
        if let Some((_, slot)) = key_of(inner, &path, magic)? {
            *counts.entry(slot.key_name).or_default() += 1;
        }
    }
    if let Some(slot) = inner.catalog().manifest().key {
        *counts.entry(slot.key_name).or_default() += 1;
    }
    let named = |name: &str| KeyUse {
        name: name.to_owned(),
        active: name == keyring.active().name(),
        files: counts.get(name).copied().unwrap_or(0),
    };
    Ok(keyring.names().map(named).collect())
}

/// CAIRN KEY; blocks for as long as the disk takes.
pub(crate) fn run_job(inner: &Arc<Inner>, what: KeyJob, process: &dyn Process, out: &mut Reply<'_>) {
    let done = match what {
        KeyJob::List => uses(inner).map(|keys| list(&keys, out)),
        KeyJob::Status => status(inner, out),
        KeyJob::Reload => reload(inner, process).map(|()| out.ok()),
        KeyJob::Rewrap => start_rewrap(inner).map(|()| out.simple("Rewrapping started")),
    };
    if let Err(error) = done {
        out.error(&format!("ERR {error}"));
    }
}

fn reload(inner: &Inner, process: &dyn Process) -> Result<(), KeyError> {
    match process.load_keyring().map_err(KeyError::NoKeyring)? {
        Some(keyring) => {
            let before = inner.keys.keyring();
            let done = set_keyring(inner, keyring);
            // It may be in force although not all could be written under it.
            if before.as_ref().map(Arc::as_ptr) != inner.keys.keyring().as_ref().map(Arc::as_ptr) {
                process.keyring_changed();
            }
            done
        }
        None if inner.keys.keyring().is_some() => Err(KeyError::StillOn),
        None => Err(KeyError::Off),
    }
}

fn start_rewrap(inner: &Arc<Inner>) -> Result<(), KeyError> {
    inner.keys.keyring().ok_or(KeyError::Off)?;
    if inner.keys.alone.is_locked() {
        return Err(KeyError::Busy);
    }
    let engine = Arc::clone(inner);
    let work = move || {
        let _alone = engine.keys.alone.lock();
        // How it went is in the log, in INFO and in CAIRN KEY STATUS.
        let _ = rewrap(&engine);
    };
    // From here on it is seen to run.
    inner.keys.rewrapping.lock().state = State::Running;
    let spawned = std::thread::Builder::new().name("cairn-rewrap".to_owned()).spawn(work);
    spawned.map(drop).map_err(|error| {
        inner.keys.rewrapping.lock().state = State::Failed;
        KeyError::NoThread(error)
    })
}

fn list(keys: &[KeyUse], out: &mut Reply<'_>) {
    out.array(keys.len());
    for key in keys {
        out.map(3);
        out.bulk(b"name");
        out.bulk(key.name.as_bytes());
        out.bulk(b"active");
        out.integer(i64::from(key.active));
        out.bulk(b"files");
        out.integer(key.files as i64);
    }
}

fn status(inner: &Inner, out: &mut Reply<'_>) -> Result<(), KeyError> {
    let keyring = inner.keys.keyring();
    let in_clear = if inner.loading.is_on() { 0 } else { inner.catalog().files_in_clear() };
    let keys = if keyring.is_some() { uses(inner)? } else { Vec::new() };
    let older: usize = keys.iter().filter(|key| !key.active).map(|key| key.files).sum();
    let rewrapping = inner.keys.rewrapping.lock().clone();
    let encryption = match (&keyring, in_clear) {
        (None, _) => "off",
        (Some(_), 0) => "on",
        (Some(_), _) => "switching on",
    };
    let active = keyring.as_deref().map_or("", |keyring| keyring.active().name());
    out.map(8);
    let mut text = |name: &str, value: &str| {
        out.bulk(name.as_bytes());
        out.bulk(value.as_bytes());
    };
    text("encryption", encryption);
    text("active", active);
    text("rewrap", rewrapping.state.name());
    text("last-error", rewrapping.error.as_deref().unwrap_or(""));
    for (name, count) in [
        ("files-in-clear", in_clear),
        ("files-under-older-keys", older),
        ("files-done", rewrapping.files_done),
        ("files-total", rewrapping.files_total),
    ] {
        out.bulk(name.as_bytes());
        out.integer(count as i64);
    }
    Ok(())
}

/// What INFO persistence says of all this.
pub(crate) fn section(inner: &Inner, line: &mut dyn FnMut(Arguments<'_>)) {
    let keyring = inner.keys.keyring();
    line(format_args!("cairn_encrypted:{}", u8::from(keyring.is_some())));
    let Some(keyring) = keyring else { return };
    let in_clear = if inner.loading.is_on() { 0 } else { inner.catalog().files_in_clear() };
    let rewrapping = inner.keys.rewrapping.lock().clone();
    line(format_args!("cairn_files_in_clear:{in_clear}"));
    line(format_args!("cairn_key_active:{}", keyring.active().name()));
    line(format_args!("cairn_key_rewrap:{}", rewrapping.state.name()));
    line(format_args!("cairn_key_rewrap_files_done:{}", rewrapping.files_done));
    line(format_args!("cairn_key_rewrap_files_total:{}", rewrapping.files_total));
    if let Some(error) = rewrapping.error {
        line(format_args!("cairn_key_rewrap_last_error:{}", error.replace(['\r', '\n'], " ")));
    }
}
