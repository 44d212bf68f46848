//! Object stores: where the backups of Cairn lie.
//!
//! One trait, [`ObjectStore`], over a local directory ([`LocalStore`]) and any S3-compatible endpoint ([`S3Store`], the
//! only user of the AWS SDK), and a store for tests that errs on purpose ([`FaultyStore`]).
//!
//! Invariants:
//! - Every put is create-only: an object that exists is never overwritten, whoever else writes at the same moment.
//! - An object is either wholly there or not there: a put that fails or is dropped leaves nothing under its name.
//! - Bodies are streams; memory does not grow with the size of an object.
//! - An error names the object by its full address, and says by its variant whether trying again may help.
//!
//! It must never know what the objects mean: no journal, no snapshot, no key of an encryption comes here.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

mod body;
mod early;
mod error;
mod faulty;
mod local;
mod location;
mod retry;
mod s3;
#[cfg(test)]
mod suite;

use std::future::Future;
use std::ops::Range;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;

pub use body::{Body, BoxBody, BytesBody, read_all};
pub use early::EarlySync;
pub use error::StoreError;
pub use faulty::{Fault, FaultyStore};
pub use local::LocalStore;
pub use location::Location;
pub use retry::{RetryPolicy, Retrying};
pub use s3::S3Store;

/// A future that can be held in a trait object.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What a store says about one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectMeta {
    /// The object's name within the store, its folders separated by `/`.
    pub key: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// When the store says it was written, by the store's own clock, in milliseconds since 1970.
    pub modified_unix_ms: u64,
}

/// A place where objects are kept under names. All names are relative to the store's address.
pub trait ObjectStore: Send + Sync {
    /// The store's address as a person types it, without a trailing slash.
    fn url(&self) -> &str;

    /// Stores `body` under `key` if nothing has that name yet, and returns its size in bytes.
    ///
    /// # Errors
    /// [`StoreError::AlreadyExists`] if the name is taken; [`StoreError::Source`] if the body could not be read;
    /// [`StoreError::Length`] if it was shorter or longer than it announced. Nothing is left under the name then.
    fn put_stream<'a>(&'a self, key: &'a str, body: BoxBody) -> BoxFuture<'a, Result<u64, StoreError>>;

    /// Opens the object, or the given byte range of it.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::NoSuchBucket`] when the store answered so.
    fn get_range<'a>(
        &'a self,
        key: &'a str,
        range: Option<Range<u64>>,
    ) -> BoxFuture<'a, Result<BoxBody, StoreError>>;

    /// All objects whose names begin with `prefix`, in ascending order of name.
    ///
    /// # Errors
    /// [`StoreError::NoSuchBucket`] when there is no such place; an empty place is an empty list.
    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<ObjectMeta>, StoreError>>;

    /// The names directly below the folder `prefix` (which ends in `/`) that have objects below them, ascending,
    /// without the prefix and without a slash.
    ///
    /// # Errors
    /// As [`ObjectStore::list`].
    fn list_folders<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<String>, StoreError>>;

    /// Size and time of one object.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    fn head<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<ObjectMeta, StoreError>>;

    /// Removes an object. One that is not there is no error, so that a deletion can be tried again.
    ///
    /// # Errors
    /// Those of the transport.
    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<(), StoreError>>;

    /// Where the object lies as a file of this machine, if it does: it can then be mapped instead of copied.
    fn local_path(&self, key: &str) -> Option<PathBuf>;

    /// Waits, a few seconds at most, until uploads that were dropped half-way have been cleared away at the store.
    fn settle(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }

    /// The full address of an object, for messages.
    fn address(&self, key: &str) -> String {
        format!("{}/{key}", self.url())
    }
}

impl dyn ObjectStore {
    /// Stores a small object from memory.
    ///
    /// # Errors
    /// As [`ObjectStore::put_stream`].
    pub async fn put_bytes(&self, key: &str, bytes: impl Into<Bytes>) -> Result<u64, StoreError> {
        self.put_stream(key, Box::new(BytesBody::new(bytes.into()))).await
    }

    /// Opens the whole object.
    ///
    /// # Errors
    /// As [`ObjectStore::get_range`].
    pub async fn get_stream(&self, key: &str) -> Result<BoxBody, StoreError> {
        self.get_range(key, None).await
    }

    /// Reads a small object whole; one larger than `bytes_max` is refused, so that a damaged repository cannot fill the memory.
    ///
    /// # Errors
    /// As [`ObjectStore::get_range`], and [`StoreError::TooLarge`].
    pub async fn get_bytes(&self, key: &str, bytes_max: u64) -> Result<Bytes, StoreError> {
        let body = self.get_range(key, None).await?;
        read_all(body, &self.address(key), bytes_max).await
    }
}

/// Opens the store at `url` (`file:///path` or `s3://bucket/prefix`). Nothing is asked of it yet and nothing created.
///
/// # Errors
/// [`StoreError::BadUrl`].
pub async fn open(url: &str, policy: RetryPolicy) -> Result<Arc<dyn ObjectStore>, StoreError> {
    Ok(match Location::parse(url)? {
        Location::Local(path) => Arc::new(LocalStore::new(path)),
        Location::S3 { bucket, prefix } => {
            let store = S3Store::connect(&bucket, &prefix, policy).await;
            Arc::new(Retrying::new(Arc::new(store), policy))
        }
    })
}
