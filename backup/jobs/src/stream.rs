//! Files as streams: read into a store, written out of one, with their checksums, in bounded memory.

use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use cairn_disk::File;
use cairn_snapshot::{Passed, Passing};
use cairn_store::{Body, BoxBody, BoxFuture, EarlySync, StoreError};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use crate::progress::Progress;
use crate::{JobError, files};

/// Bytes read from a file at a time.
const CHUNK_BYTES: u64 = 1 << 20;
/// Chunks that wait between a disk and a store, at most.
const CHUNKS_WAITING: usize = 4;

/// The first bytes of a file as a body; its checksum can be asked for when it has been read to its end.
pub(crate) struct FileBody {
    length: u64,
    chunks: mpsc::Receiver<Result<Bytes, StoreError>>,
    progress: Arc<dyn Progress>,
}

/// What became of a body: the CRC-32 of one that was read to its end, or what is wrong with it.
#[derive(Clone, Default)]
pub(crate) struct Outcome(Arc<Mutex<Option<Result<u32, JobError>>>>);

impl Outcome {
    pub(crate) fn take(&self) -> Option<Result<u32, JobError>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn set(&self, outcome: Result<u32, JobError>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
    }
}

/// A look at the bytes of a body while they pass, with a verdict at the end.
pub(crate) struct Check {
    pub(crate) passing: Passing,
    /// Says what is wrong. Until it has spoken the body does not end, so that nothing bad gets a name.
    pub(crate) verdict: Box<dyn FnOnce(Passed) -> Result<(), JobError> + Send>,
}

impl FileBody {
    /// With a `check`, a body that does not pass it ends with an error, which the outcome tells.
    pub(crate) fn new(
        file: Arc<dyn File>,
        path: PathBuf,
        length: u64,
        check: Option<Check>,
        progress: Arc<dyn Progress>,
    ) -> (Self, Outcome) {
        Self::of_part(file, path, 0..length, check, progress)
    }

    /// As [`FileBody::new`], of the bytes in `part`.
    pub(crate) fn of_part(
        file: Arc<dyn File>,
        path: PathBuf,
        part: Range<u64>,
        check: Option<Check>,
        progress: Arc<dyn Progress>,
    ) -> (Self, Outcome) {
        let (sender, chunks) = mpsc::channel(CHUNKS_WAITING);
        let outcome = Outcome::default();
        let told = outcome.clone();
        let length = part.end.saturating_sub(part.start);
        spawn_blocking(move || {
            let failed = |source| StoreError::Source { url: path.display().to_string(), source };
            let read = read(&*file, part, check, &told, |chunk| sender.blocking_send(Ok(chunk)).is_ok());
            if let Err(source) = read {
                let _ = sender.blocking_send(Err(failed(source)));
            }
        });
        (Self { length, chunks, progress }, outcome)
    }
}

/// Reads a part of a file to its end, or until nobody takes it any more.
fn read(
    file: &dyn File,
    part: Range<u64>,
    mut check: Option<Check>,
    outcome: &Outcome,
    mut give: impl FnMut(Bytes) -> bool,
) -> io::Result<()> {
    let mut crc = crc32fast::Hasher::new();
    let mut at = part.start;
    while at < part.end {
        let mut chunk = vec![0; usize::try_from(CHUNK_BYTES.min(part.end - at)).unwrap_or_default()];
        file.read_exact_at(&mut chunk, at)?;
        crc.update(&chunk);
        at += chunk.len() as u64;
        if let Some(check) = &mut check {
            check.passing.take(&chunk);
        }
        if at == part.end {
            let verdict = check.take().map_or(Ok(()), |check| (check.verdict)(check.passing.finish()));
            let sound = verdict.is_ok();
            outcome.set(verdict.map(|()| crc.clone().finalize()));
            if !sound {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
        if !give(Bytes::from(chunk)) {
            break;
        }
    }
    Ok(())
}

impl Body for FileBody {
    fn length(&self) -> Option<u64> {
        Some(self.length)
    }

    fn next(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, StoreError>> {
        Box::pin(async {
            let chunk = self.chunks.recv().await.transpose()?;
            self.progress.advance(chunk.as_ref().map_or(0, |chunk| chunk.len() as u64));
            Ok(chunk)
        })
    }
}

/// What came out of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) bytes: u64,
    pub(crate) crc: u32,
}

/// Reads a body to its end for its length and checksum.
pub(crate) async fn digest(mut body: BoxBody, progress: &dyn Progress) -> Result<Received, JobError> {
    let mut crc = crc32fast::Hasher::new();
    let mut bytes = 0;
    while let Some(chunk) = body.next().await? {
        crc.update(&chunk);
        bytes += chunk.len() as u64;
        progress.advance(chunk.len() as u64);
    }
    Ok(Received { bytes, crc: crc.finalize() })
}

/// Writes a body into an empty file and syncs it. No more than `bytes_max` are written: an object that is longer than its
/// manifest says is damaged, and shall not fill the disk. `passing` sees what was written.
pub(crate) async fn receive(
    mut body: BoxBody,
    file: Arc<dyn File>,
    path: PathBuf,
    bytes_max: u64,
    mut passing: Option<Passing>,
    progress: &dyn Progress,
) -> Result<(Received, Option<Passed>), JobError> {
    let (sender, mut chunks) = mpsc::channel::<Bytes>(CHUNKS_WAITING);
    let writer = spawn_blocking(move || {
        let failed = |source| JobError::write(&path, bytes_max, source);
        // A disk that is too small says so now, not when most has been copied.
        if bytes_max > 0 {
            file.allocate(bytes_max).map_err(failed)?;
        }
        let mut crc = crc32fast::Hasher::new();
        let mut at = 0;
        let syncing = Arc::clone(&file);
        let mut early = EarlySync::new(move || syncing.sync_data());
        while let Some(chunk) = chunks.blocking_recv() {
            file.write_at(&chunk, at).map_err(failed)?;
            early.wrote(chunk.len());
            crc.update(&chunk);
            at += chunk.len() as u64;
            if let Some(passing) = &mut passing {
                passing.take(&chunk);
            }
        }
        files::io(&path, "sync", early.end())?;
        files::io(&path, "sync", file.sync_all())?;
        let passed = passing.map(Passing::finish);
        Ok::<_, JobError>((Received { bytes: at, crc: crc.finalize() }, passed))
    });
    let mut bytes = 0;
    let mut read = Ok(());
    while bytes <= bytes_max {
        match body.next().await {
            Ok(Some(chunk)) => {
                bytes += chunk.len() as u64;
                progress.advance(chunk.len() as u64);
                // The writer's own error says why it no longer listens.
                if bytes > bytes_max || sender.send(chunk).await.is_err() {
                    break;
                }
            }
            Ok(None) => break,
            Err(error) => {
                read = Err(error);
                break;
            }
        }
    }
    drop(sender);
    let (written, passed) = writer.await.map_err(|error| JobError::Task(error.to_string()))??;
    read?;
    Ok((Received { bytes, ..written }, passed))
}
