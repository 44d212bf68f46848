//! A store in a directory of this machine.
//!
//! An upload is written under a temporary name in `.tmp`, synced, and given its name by link(2), which fails where the
//! name is taken: so puts are create-only and objects appear whole. A writer holds a lock on its temporary file; one
//! that is not locked was left by a process that died, and the next upload removes it.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::UNIX_EPOCH;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use crate::{Body, BoxBody, BoxFuture, EarlySync, ObjectMeta, ObjectStore, StoreError};

/// Bytes read from a file at a time.
const CHUNK_BYTES: usize = 1 << 20;
/// Chunks that wait between the file and its reader or writer, at most.
const CHUNKS_WAITING: usize = 4;
/// The folder of unfinished uploads.
const TEMPORARY: &str = ".tmp";

/// A directory as a store. Files have mode 0600, directories 0700.
#[derive(Debug)]
pub struct LocalStore {
    url: String,
    root: Arc<Path>,
    swept: AtomicBool,
}

impl LocalStore {
    /// The store in this directory, which need not exist before the first put.
    pub fn new(root: PathBuf) -> Self {
        let url = format!("file://{}", root.display()).trim_end_matches('/').to_owned();
        Self { url, root: root.into(), swept: AtomicBool::new(false) }
    }

    fn path(&self, key: &str) -> PathBuf {
        debug_assert!(key.split('/').all(|part| !part.is_empty() && part != "." && part != ".."), "{key:?}");
        self.root.join(key)
    }

    /// Runs file work off the async threads; a missing file below a missing root means a missing store.
    async fn run<T: Send + 'static>(
        &self,
        url: String,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let root = Arc::clone(&self.root);
        let store = self.url.clone();
        let joined = spawn_blocking(move || {
            work().map_err(|source| match source.kind() {
                ErrorKind::NotFound if !root.exists() => StoreError::NoSuchBucket { url: store },
                _ => classify(url, source),
            })
        });
        joined.await.unwrap_or_else(|error| Err(broken(&self.url, &error.to_string())))
    }
}

fn classify(url: String, source: io::Error) -> StoreError {
    match source.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => StoreError::NotFound { url },
        ErrorKind::AlreadyExists => StoreError::AlreadyExists { url },
        ErrorKind::PermissionDenied => StoreError::AccessDenied { url, why: source.to_string() },
        _ => StoreError::Io { url, source },
    }
}

fn broken(url: &str, why: &str) -> StoreError {
    StoreError::Io { url: url.to_owned(), source: io::Error::other(why.to_owned()) }
}

impl ObjectStore for LocalStore {
    fn url(&self) -> &str {
        &self.url
    }

    fn put_stream<'a>(&'a self, key: &'a str, mut body: BoxBody) -> BoxFuture<'a, Result<u64, StoreError>> {
        Box::pin(async move {
            let url = self.address(key);
            let (root, path) = (Arc::clone(&self.root), self.path(key));
            let sweep = !self.swept.swap(true, Ordering::Relaxed);
            let (chunks, waiting) = mpsc::channel(CHUNKS_WAITING);
            let task = spawn_blocking({
                let url = url.clone();
                move || write_object(&root, &path, waiting, sweep).map_err(|source| classify(url, source))
            });
            let expected = body.length();
            let mut found = 0;
            loop {
                match body.next().await? {
                    Some(bytes) => {
                        found += bytes.len() as u64;
                        // A closed channel means that writing failed; the task's result says why.
                        if chunks.send(Message::Bytes(bytes)).await.is_err() {
                            break;
                        }
                    }
                    None => {
                        if let Some(expected) = expected.filter(|expected| *expected != found) {
                            return Err(StoreError::Length { url, expected, found });
                        }
                        let _ = chunks.send(Message::Commit).await;
                        break;
                    }
                }
            }
            drop(chunks);
            task.await.unwrap_or_else(|error| Err(broken(&url, &error.to_string())))?;
            Ok(found)
        })
    }

    fn get_range<'a>(
        &'a self,
        key: &'a str,
        range: Option<Range<u64>>,
    ) -> BoxFuture<'a, Result<BoxBody, StoreError>> {
        Box::pin(async move {
            let path = self.path(key);
            let open = move || {
                let mut file = File::open(path)?;
                if file.metadata()?.is_dir() {
                    return Err(ErrorKind::NotFound.into());
                }
                let length = file.metadata()?.len();
                let range = range.unwrap_or(0..length);
                let range = range.start.min(length)..range.end.min(length);
                file.seek(SeekFrom::Start(range.start))?;
                Ok((file, range.end.saturating_sub(range.start)))
            };
            let url = self.address(key);
            let (file, length) = self.run(url.clone(), open).await?;
            let (sender, chunks) = mpsc::channel(CHUNKS_WAITING);
            spawn_blocking(move || read_object(file, length, url, &sender));
            Ok(Box::new(FileBody { length, chunks }) as BoxBody)
        })
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<ObjectMeta>, StoreError>> {
        let (root, prefix) = (Arc::clone(&self.root), prefix.to_owned());
        Box::pin(self.run(self.url.clone(), move || {
            fs::metadata(&root)?;
            let mut found = Vec::new();
            let folder = prefix.rsplit_once('/').map_or("", |(folder, _)| folder);
            walk(&root, folder, &prefix, &mut found)?;
            found.sort_by(|a: &ObjectMeta, b| a.key.cmp(&b.key));
            Ok(found)
        }))
    }

    fn list_folders<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<String>, StoreError>> {
        let (root, prefix) = (Arc::clone(&self.root), prefix.to_owned());
        Box::pin(self.run(self.url.clone(), move || {
            fs::metadata(&root)?;
            let mut names: Vec<String> = entries(&root.join(prefix.trim_end_matches('/')))?
                .into_iter()
                .filter(|(name, kind)| kind.is_dir() && name != TEMPORARY)
                .map(|(name, _)| name)
                .collect();
            names.sort();
            Ok(names)
        }))
    }

    fn head<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<ObjectMeta, StoreError>> {
        let (path, key) = (self.path(key), key.to_owned());
        Box::pin(self.run(self.address(&key), move || meta(&path, key)))
    }

    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<(), StoreError>> {
        let (root, path) = (Arc::clone(&self.root), self.path(key));
        Box::pin(self.run(self.address(key), move || {
            match fs::remove_file(&path) {
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
                other => other?,
            }
            let mut folder = path.parent();
            while let Some(parent) = folder.filter(|parent| **parent != *root && parent.starts_with(&root)) {
                sync_dir(parent)?;
                // A folder is kept while something is in it; an empty one would show as a backup that is none.
                if fs::remove_dir(parent).is_err() {
                    return Ok(());
                }
                folder = parent.parent();
            }
            sync_dir(&root)
        }))
    }

    fn local_path(&self, key: &str) -> Option<PathBuf> {
        Some(self.path(key))
    }
}

enum Message {
    Bytes(Bytes),
    Commit,
}

/// The body of a put: everything up to `Commit` becomes the object. A channel that closes without it was abandoned.
fn write_object(
    root: &Path,
    path: &Path,
    mut chunks: mpsc::Receiver<Message>,
    sweep: bool,
) -> io::Result<()> {
    let folder = path.parent().unwrap_or(root);
    make_dirs(folder)?;
    let temporaries = root.join(TEMPORARY);
    make_dirs(&temporaries)?;
    if sweep {
        sweep_temporaries(&temporaries)?;
    }
    let temporary = Temporary::create(&temporaries)?;
    let mut file = &temporary.file;
    let syncing = file.try_clone()?;
    let mut early = EarlySync::new(move || syncing.sync_data());
    loop {
        match chunks.blocking_recv() {
            Some(Message::Bytes(bytes)) => {
                file.write_all(&bytes)?;
                early.wrote(bytes.len());
            }
            Some(Message::Commit) => break,
            None => return Ok(()),
        }
    }
    early.end()?;
    file.sync_all()?;
    fs::hard_link(&temporary.path, path)?;
    sync_dir(folder)
}

/// A temporary file, removed when it is dropped: once linked, its other name stays.
struct Temporary {
    path: PathBuf,
    file: File,
}

impl Temporary {
    fn create(folder: &Path) -> io::Result<Self> {
        let unique = getrandom::u64().map_err(|error| io::Error::other(error.to_string()))?;
        let path = folder.join(format!("{unique:016x}"));
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        let this = Self { path, file };
        // A file system without locks is still a place for backups.
        let _ = this.file.try_lock();
        Ok(this)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

fn sweep_temporaries(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let Ok(file) = OpenOptions::new().write(true).open(&path) else { continue };
        // Between its creation and its lock a young file looks abandoned; an hour is far beyond that moment.
        let old = file.metadata()?.modified()?.elapsed().is_ok_and(|age| age.as_secs() >= 3600);
        match file.try_lock() {
            Ok(()) if old => fs::remove_file(&path)?,
            Ok(()) | Err(TryLockError::WouldBlock | TryLockError::Error(_)) => {}
        }
    }
    Ok(())
}

fn read_object(mut file: File, length: u64, url: String, sender: &mpsc::Sender<Result<Bytes, StoreError>>) {
    let mut done = 0;
    while done < length {
        let mut chunk = vec![0; CHUNK_BYTES.min(usize::try_from(length - done).unwrap_or(CHUNK_BYTES))];
        let read = file.read_exact(&mut chunk).map_err(|source| match source.kind() {
            ErrorKind::UnexpectedEof => StoreError::Cut { url: url.clone(), expected: length, found: done },
            _ => StoreError::Io { url: url.clone(), source },
        });
        done += chunk.len() as u64;
        let failed = read.is_err();
        if sender.blocking_send(read.map(|()| chunk.into())).is_err() || failed {
            return;
        }
    }
}

struct FileBody {
    length: u64,
    chunks: mpsc::Receiver<Result<Bytes, StoreError>>,
}

impl Body for FileBody {
    fn length(&self) -> Option<u64> {
        Some(self.length)
    }

    fn next(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, StoreError>> {
        Box::pin(async { self.chunks.recv().await.transpose() })
    }
}

fn meta(path: &Path, key: String) -> io::Result<ObjectMeta> {
    let meta = fs::metadata(path)?;
    if meta.is_dir() {
        return Err(ErrorKind::NotFound.into());
    }
    let age = meta.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(ObjectMeta {
        key,
        bytes: meta.len(),
        modified_unix_ms: u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
    })
}

/// The names in a folder; none if it does not exist.
fn entries(folder: &Path) -> io::Result<Vec<(String, fs::FileType)>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        other => other?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        // A name that is not UTF-8 is none of ours.
        if let Ok(name) = entry.file_name().into_string() {
            found.push((name, entry.file_type()?));
        }
    }
    Ok(found)
}

fn walk(root: &Path, folder: &str, prefix: &str, found: &mut Vec<ObjectMeta>) -> io::Result<()> {
    for (name, kind) in entries(&root.join(folder))? {
        let key = if folder.is_empty() { name } else { format!("{folder}/{name}") };
        if key == TEMPORARY {
            continue;
        }
        if kind.is_dir() {
            if key.starts_with(prefix) || prefix.starts_with(&key) {
                walk(root, &key, prefix, found)?;
            }
        } else if key.starts_with(prefix) {
            match meta(&root.join(&key), key) {
                // It was deleted between the listing and here.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                other => found.push(other?),
            }
        }
    }
    Ok(())
}

/// Creates the folders that are missing, each one's name synced in its parent.
fn make_dirs(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let parent = folder.parent();
    if let Some(parent) = parent {
        make_dirs(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
        Err(error) => Err(error),
        Ok(()) => parent.map_or(Ok(()), sync_dir),
    }
}

fn sync_dir(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
