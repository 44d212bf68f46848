//! Files as streams: read into a store, written out of one, with their checksums, in bounded memory.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use cairn_disk::File;
use cairn_store::{Body, BoxBody, BoxFuture, StoreError};
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

/// The CRC-32 of a body that has been read to its end.
#[derive(Clone, Default)]
pub(crate) struct Checksum(Arc<Mutex<Option<u32>>>);

impl Checksum {
    pub(crate) fn get(&self) -> Option<u32> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FileBody {
    pub(crate) fn new(
        file: Arc<dyn File>,
        path: PathBuf,
        length: u64,
        progress: Arc<dyn Progress>,
    ) -> (Self, Checksum) {
        let (sender, chunks) = mpsc::channel(CHUNKS_WAITING);
        let checksum = Checksum::default();
        let result = checksum.clone();
        spawn_blocking(move || {
            let mut crc = crc32fast::Hasher::new();
            let mut at = 0;
            while at < length {
                let mut chunk = vec![0; usize::try_from(CHUNK_BYTES.min(length - at)).unwrap_or_default()];
                let read = file.read_exact_at(&mut chunk, at);
                crc.update(&chunk);
                at += chunk.len() as u64;
                let failed = read.is_err();
                if at == length && !failed {
                    *result.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(crc.clone().finalize());
                }
                let sent = read
                    .map(|()| Bytes::from(chunk))
                    .map_err(|source| StoreError::Source { url: path.display().to_string(), source });
                if sender.blocking_send(sent).is_err() || failed {
                    return;
                }
            }
        });
        (Self { length, chunks, progress }, checksum)
    }
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
/// manifest says is damaged, and shall not fill the disk.
pub(crate) async fn receive(
    mut body: BoxBody,
    file: Arc<dyn File>,
    path: PathBuf,
    bytes_max: u64,
    progress: &dyn Progress,
) -> Result<Received, JobError> {
    let (sender, mut chunks) = mpsc::channel::<Bytes>(CHUNKS_WAITING);
    let writer = spawn_blocking(move || {
        let failed = |source| JobError::write(&path, bytes_max, source);
        // A disk that is too small says so now, not when most has been copied.
        if bytes_max > 0 {
            file.allocate(bytes_max).map_err(failed)?;
        }
        let mut crc = crc32fast::Hasher::new();
        let mut at = 0;
        while let Some(chunk) = chunks.blocking_recv() {
            file.write_at(&chunk, at).map_err(failed)?;
            crc.update(&chunk);
            at += chunk.len() as u64;
        }
        files::io(&path, "sync", file.sync_all())?;
        Ok::<_, JobError>(Received { bytes: at, crc: crc.finalize() })
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
    let written = writer.await.map_err(|error| JobError::Task(error.to_string()))??;
    read?;
    Ok(Received { bytes, ..written })
}
