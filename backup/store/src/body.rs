//! Bodies: streams of bytes on their way into or out of a store.

use bytes::{Bytes, BytesMut};

use crate::{BoxFuture, StoreError};

/// A stream of bytes. It is read to its end once.
pub trait Body: Send {
    /// How many bytes come in all, if that is known beforehand.
    fn length(&self) -> Option<u64>;

    /// The next bytes, never empty; `None` at the end. After an error nothing more may be asked.
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, StoreError>>;
}

/// A body in a box.
pub type BoxBody = Box<dyn Body>;

/// A body that lies in memory.
#[derive(Debug)]
pub struct BytesBody {
    length: u64,
    bytes: Option<Bytes>,
}

impl BytesBody {
    /// A body of these bytes.
    pub fn new(bytes: Bytes) -> Self {
        Self { length: bytes.len() as u64, bytes: (!bytes.is_empty()).then_some(bytes) }
    }
}

impl Body for BytesBody {
    fn length(&self) -> Option<u64> {
        Some(self.length)
    }

    fn next(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, StoreError>> {
        let bytes = self.bytes.take();
        Box::pin(async move { Ok(bytes) })
    }
}

/// Reads a body to its end into memory, `bytes_max` at most.
///
/// # Errors
/// Those of the body, and [`StoreError::TooLarge`].
pub async fn read_all(mut body: BoxBody, url: &str, bytes_max: u64) -> Result<Bytes, StoreError> {
    let mut all = BytesMut::new();
    while let Some(bytes) = body.next().await? {
        if (all.len() + bytes.len()) as u64 > bytes_max {
            return Err(StoreError::TooLarge { url: url.to_owned(), bytes_max });
        }
        all.extend_from_slice(&bytes);
    }
    Ok(all.freeze())
}

/// Cuts a body into parts of a fixed size and holds it to the length it announced.
pub(crate) struct Parts {
    body: BoxBody,
    url: String,
    part_bytes: usize,
    rest: Bytes,
    seen: u64,
    ended: bool,
}

impl Parts {
    pub(crate) fn new(body: BoxBody, url: String, part_bytes: usize) -> Self {
        Self { body, url, part_bytes, rest: Bytes::new(), seen: 0, ended: false }
    }

    /// The next part: exactly `part_bytes` long, or shorter (perhaps empty) when it is the last.
    pub(crate) async fn next(&mut self) -> Result<Bytes, StoreError> {
        let expected = self.body.length();
        let room = match expected {
            Some(length) => length.saturating_sub(self.seen).min(self.part_bytes as u64) as usize,
            None => self.part_bytes,
        };
        let mut part = BytesMut::with_capacity(room);
        loop {
            let take = self.rest.len().min(self.part_bytes - part.len());
            part.extend_from_slice(&self.rest.split_to(take));
            if part.len() == self.part_bytes || self.ended {
                break;
            }
            match self.body.next().await? {
                Some(bytes) => {
                    self.seen += bytes.len() as u64;
                    self.rest = bytes;
                }
                None => self.ended = true,
            }
            self.check(expected)?;
        }
        Ok(part.freeze())
    }

    /// How many bytes came in all. Asked when the last part was taken.
    pub(crate) fn total(&self) -> u64 {
        self.seen
    }

    fn check(&self, expected: Option<u64>) -> Result<(), StoreError> {
        match expected {
            Some(expected) if self.seen > expected || (self.ended && self.seen != expected) => {
                Err(StoreError::Length { url: self.url.clone(), expected, found: self.seen })
            }
            _ => Ok(()),
        }
    }
}
