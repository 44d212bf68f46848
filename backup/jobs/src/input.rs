//! A file to read once from its beginning to its end: on this machine, or an object of a store.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use bytes::{Buf, Bytes};
use cairn_store::{BoxBody, RetryPolicy, StoreError};
use tokio::sync::mpsc;

use crate::JobError;

/// Pieces that wait between the store and who reads, at most.
const PIECES_WAITING: usize = 4;

/// Something that is read once. Reading blocks.
pub struct Input {
    /// How long it is, where that is known.
    pub bytes: Option<u64>,
    kind: Kind,
}

enum Kind {
    File(File),
    Object { pieces: mpsc::Receiver<Result<Bytes, StoreError>>, piece: Bytes },
}

impl Input {
    /// Opens a file of this machine.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn open_file(path: &Path) -> Result<Self, JobError> {
        let opened = File::open(path).and_then(|file| Ok((file.metadata()?.len(), file)));
        let (bytes, file) = opened.map_err(|source| JobError::io(path, "open", source))?;
        Ok(Self { bytes: Some(bytes), kind: Kind::File(file) })
    }

    /// Opens the object at an address (`s3://bucket/folder/name` or `file:///path`).
    ///
    /// # Errors
    /// A bad address, [`StoreError::NotFound`], those of the store.
    pub async fn open_url(url: &str, policy: RetryPolicy) -> Result<Self, JobError> {
        let bad = || StoreError::BadUrl { url: url.to_owned(), why: "it names no object" };
        let (folder, name) = url.rsplit_once('/').filter(|(_, name)| !name.is_empty()).ok_or_else(bad)?;
        if folder.ends_with('/') {
            return Err(bad().into());
        }
        let store = cairn_store::open(folder, policy).await?;
        let body = store.get_stream(name).await?;
        let bytes = body.length();
        let (given, pieces) = mpsc::channel(PIECES_WAITING);
        tokio::spawn(async move {
            // The body may borrow from it.
            let _store = store;
            pump(body, given).await;
        });
        Ok(Self { bytes, kind: Kind::Object { pieces, piece: Bytes::new() } })
    }

    /// Whether this names an object of a store and no file.
    pub fn is_url(from: &str) -> bool {
        from.contains("://")
    }
}

/// Gives on what comes until it ends or nobody wants more.
async fn pump(mut body: BoxBody, given: mpsc::Sender<Result<Bytes, StoreError>>) {
    while let Some(piece) = body.next().await.transpose() {
        let ended = piece.is_err();
        if given.send(piece).await.is_err() || ended {
            break;
        }
    }
}

impl Read for Input {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match &mut self.kind {
            Kind::File(file) => file.read(out),
            Kind::Object { pieces, piece } => {
                if piece.is_empty() {
                    match pieces.blocking_recv() {
                        None => return Ok(0),
                        Some(next) => *piece = next.map_err(io::Error::other)?,
                    }
                }
                let length = piece.len().min(out.len());
                piece.copy_to_slice(out.get_mut(..length).unwrap_or_default());
                Ok(length)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_file_and_an_object_give_their_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.rdb");
        let bytes: Vec<u8> = (0..3_000_000u32).map(|number| number as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        let policy = RetryPolicy::within(Duration::from_secs(1));
        let object = Input::open_url(&format!("file://{}", path.display()), policy).await.unwrap();
        let file = Input::open_file(&path).unwrap();
        for mut input in [object, file] {
            let expected = bytes.clone();
            let read = tokio::task::spawn_blocking(move || {
                let mut all = Vec::new();
                input.read_to_end(&mut all).map(|_| (input.bytes, all))
            });
            let (length, all) = read.await.unwrap().unwrap();
            assert!(all == expected && length == Some(3_000_000));
        }
    }

    #[tokio::test]
    async fn what_is_not_there_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let policy = RetryPolicy::within(Duration::from_secs(1));
        let gone = Input::open_url(&format!("file://{}/none.rdb", dir.path().display()), policy).await;
        assert!(matches!(gone.err(), Some(JobError::Store(_))));
        for bad in ["s3://bucket/", "s3://bucket"] {
            let error = Input::open_url(bad, policy).await.err().unwrap();
            assert_eq!(error.exit_code(), 2, "{bad}: {error}");
        }
        assert_eq!(Input::open_file(&dir.path().join("none")).err().unwrap().exit_code(), 1);
    }
}
