//! A store that errs on purpose, for tests.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use crate::{Body, BoxBody, BoxFuture, ObjectMeta, ObjectStore, StoreError};

/// One thing that goes wrong. Calls of the store are counted from 1.
#[derive(Debug, Clone)]
pub enum Fault {
    /// Calls `first..=last` get no answer, whatever they ask.
    Unreachable {
        /// The first call that fails.
        first: u64,
        /// The last call that fails.
        last: u64,
    },
    /// The downloads that calls `first..=last` open break off after so many bytes.
    Cut {
        /// The first call that is cut.
        first: u64,
        /// The last call that is cut.
        last: u64,
        /// The bytes that still come.
        after: u64,
    },
    /// Downloads of objects whose name contains `key` have the bits of `mask` flipped in the byte at `offset`.
    Flip {
        /// A part of the name.
        key: String,
        /// The byte's place in the object.
        offset: u64,
        /// The bits to flip.
        mask: u8,
    },
    /// Uploads of objects whose name contains `key` fail after so many bytes; nothing is stored.
    FailPut {
        /// A part of the name.
        key: String,
        /// The bytes that are still taken.
        after: u64,
    },
    /// Every chunk, of uploads and downloads, takes this long.
    Slow {
        /// The pause before each chunk.
        pause: Duration,
    },
}

/// A store with faults.
pub struct FaultyStore {
    inner: Arc<dyn ObjectStore>,
    faults: Vec<Fault>,
    calls: AtomicU64,
}

impl FaultyStore {
    /// Wraps a store; all the faults given are active.
    pub fn new(inner: Arc<dyn ObjectStore>, faults: Vec<Fault>) -> Self {
        Self { inner, faults, calls: AtomicU64::new(0) }
    }

    /// How many calls there have been.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    fn call(&self, key: &str) -> Result<u64, StoreError> {
        let call = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
        let silent = |fault: &Fault| matches!(fault, Fault::Unreachable { first, last } if (*first..=*last).contains(&call));
        if self.faults.iter().any(silent) {
            return Err(StoreError::Unreachable {
                url: self.address(key),
                why: format!("fault of call {call}"),
            });
        }
        Ok(call)
    }

    fn pause(&self) -> Option<Duration> {
        self.faults.iter().find_map(|fault| match fault {
            Fault::Slow { pause } => Some(*pause),
            _ => None,
        })
    }

    fn bent(&self, body: BoxBody, call: u64, key: &str, start: u64) -> BoxBody {
        let mut bent = BentBody {
            url: self.address(key),
            inner: body,
            at: start,
            start,
            cut: None,
            put: false,
            flips: Vec::new(),
            pause: self.pause(),
        };
        for fault in &self.faults {
            match fault {
                Fault::Cut { first, last, after } if (*first..=*last).contains(&call) => {
                    bent.cut = Some(*after)
                }
                Fault::Flip { key: part, offset, mask } if key.contains(part.as_str()) => {
                    bent.flips.push((*offset, *mask));
                }
                _ => {}
            }
        }
        Box::new(bent)
    }
}

impl ObjectStore for FaultyStore {
    fn url(&self) -> &str {
        self.inner.url()
    }

    fn put_stream<'a>(&'a self, key: &'a str, body: BoxBody) -> BoxFuture<'a, Result<u64, StoreError>> {
        Box::pin(async move {
            self.call(key)?;
            let cut = self.faults.iter().find_map(|fault| match fault {
                Fault::FailPut { key: part, after } if key.contains(part.as_str()) => Some(*after),
                _ => None,
            });
            let body = BentBody {
                url: self.address(key),
                inner: body,
                at: 0,
                start: 0,
                cut,
                put: true,
                flips: Vec::new(),
                pause: self.pause(),
            };
            self.inner.put_stream(key, Box::new(body)).await
        })
    }

    fn get_range<'a>(
        &'a self,
        key: &'a str,
        range: Option<Range<u64>>,
    ) -> BoxFuture<'a, Result<BoxBody, StoreError>> {
        Box::pin(async move {
            let call = self.call(key)?;
            let start = range.as_ref().map_or(0, |range| range.start);
            let body = self.inner.get_range(key, range).await?;
            Ok(self.bent(body, call, key, start))
        })
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<ObjectMeta>, StoreError>> {
        Box::pin(async move {
            self.call(prefix)?;
            self.inner.list(prefix).await
        })
    }

    fn list_folders<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<String>, StoreError>> {
        Box::pin(async move {
            self.call(prefix)?;
            self.inner.list_folders(prefix).await
        })
    }

    fn head<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<ObjectMeta, StoreError>> {
        Box::pin(async move {
            self.call(key)?;
            self.inner.head(key).await
        })
    }

    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            self.call(key)?;
            self.inner.delete(key).await
        })
    }

    /// None: a file that is mapped would pass by the faults.
    fn local_path(&self, _key: &str) -> Option<PathBuf> {
        None
    }

    fn settle(&self) -> BoxFuture<'_, ()> {
        self.inner.settle()
    }
}

struct BentBody {
    url: String,
    inner: BoxBody,
    at: u64,
    start: u64,
    cut: Option<u64>,
    put: bool,
    flips: Vec<(u64, u8)>,
    pause: Option<Duration>,
}

impl BentBody {
    async fn step(&mut self) -> Result<Option<Bytes>, StoreError> {
        if let Some(pause) = self.pause {
            tokio::time::sleep(pause).await;
        }
        let done = self.at - self.start;
        if self.cut.is_some_and(|after| done >= after) {
            return Err(self.broken(done));
        }
        let Some(mut bytes) = self.inner.next().await? else { return Ok(None) };
        if let Some(after) = self.cut {
            bytes.truncate(usize::try_from(after - done).unwrap_or(usize::MAX));
        }
        let range = self.at..self.at + bytes.len() as u64;
        if self.flips.iter().any(|(offset, _)| range.contains(offset)) {
            let mut changed = BytesMut::from(&bytes[..]);
            for (offset, mask) in self.flips.iter().filter(|(offset, _)| range.contains(offset)) {
                if let Some(byte) = changed.get_mut((offset - range.start) as usize) {
                    *byte ^= mask;
                }
            }
            bytes = changed.freeze();
        }
        self.at = range.end;
        Ok(Some(bytes))
    }

    fn broken(&self, found: u64) -> StoreError {
        let expected = self.inner.length().unwrap_or(u64::MAX);
        let url = self.url.clone();
        if self.put {
            return StoreError::Unreachable { url, why: format!("fault after {found} bytes of an upload") };
        }
        StoreError::Cut { url, expected, found }
    }
}

impl Body for BentBody {
    fn length(&self) -> Option<u64> {
        self.inner.length()
    }

    fn next(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, StoreError>> {
        Box::pin(self.step())
    }
}
