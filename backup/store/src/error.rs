//! What can go wrong with a store.

use std::io;

/// An error of an object store. Every variant carries the address it is about.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The address of a repository cannot be understood.
    #[error("{url:?} is not a repository address: {why}; use file:///path or s3://bucket/prefix")]
    BadUrl {
        /// The address as it was given.
        url: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// No answer came: the network, the name, the connection or the time.
    #[error("{url}: cannot be reached: {why}; check the address, the network and AWS_ENDPOINT_URL")]
    Unreachable {
        /// The object or store.
        url: String,
        /// The transport's own words.
        why: String,
    },
    /// The store answered that it cannot serve now.
    #[error("{url}: the store is busy (status {status}, {code}): {why}")]
    Busy {
        /// The object or store.
        url: String,
        /// The HTTP status.
        status: u16,
        /// The store's error code.
        code: String,
        /// The store's own words.
        why: String,
    },
    /// The bucket, or the directory of a local store, does not exist.
    #[error("{url}: there is no such bucket or directory; create it, or correct the address")]
    NoSuchBucket {
        /// The store.
        url: String,
    },
    /// The object does not exist.
    #[error("{url}: there is no such object")]
    NotFound {
        /// The object.
        url: String,
    },
    /// The name is taken; objects are never overwritten.
    #[error("{url}: exists already, and objects are never overwritten")]
    AlreadyExists {
        /// The object.
        url: String,
    },
    /// The store refuses these credentials, or there are none.
    #[error("{url}: access denied: {why}; check the credentials and their permissions")]
    AccessDenied {
        /// The object or store.
        url: String,
        /// The store's own words.
        why: String,
    },
    /// The store refused the request for a reason that trying again does not mend.
    #[error("{url}: the store refused the request (status {status}, {code}): {why}")]
    Rejected {
        /// The object or store.
        url: String,
        /// The HTTP status, 0 if there was none.
        status: u16,
        /// The store's error code.
        code: String,
        /// The store's own words.
        why: String,
    },
    /// A download ended before its announced length.
    #[error("{url}: the download ended after {found} of {expected} bytes")]
    Cut {
        /// The object.
        url: String,
        /// The announced length in bytes.
        expected: u64,
        /// The bytes that came.
        found: u64,
    },
    /// A body to be uploaded was not as long as it announced.
    #[error("{url}: the data to store has {found} bytes where {expected} were announced; nothing was stored")]
    Length {
        /// The object.
        url: String,
        /// The announced length in bytes.
        expected: u64,
        /// The length found.
        found: u64,
    },
    /// An object that is read whole is larger than any of its kind.
    #[error("{url}: is larger than the {bytes_max} bytes such an object can have")]
    TooLarge {
        /// The object.
        url: String,
        /// The bound.
        bytes_max: u64,
    },
    /// The data to be uploaded could not be read.
    #[error("{url}: the data to store could not be read: {source}")]
    Source {
        /// What was being read.
        url: String,
        /// Why.
        source: io::Error,
    },
    /// A local store's file system failed.
    #[error("{url}: {source}")]
    Io {
        /// The object, or the file.
        url: String,
        /// Why.
        source: io::Error,
    },
    /// All tries failed within the time given for them.
    #[error("gave up after {attempts} attempts in {seconds} s: {last}")]
    GaveUp {
        /// How many tries there were.
        attempts: u32,
        /// How long they took in all.
        seconds: u64,
        /// The last error.
        last: Box<StoreError>,
    },
}

impl StoreError {
    /// Whether the same request may succeed when it is sent again.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Busy { .. } | Self::Cut { .. })
    }

    /// The error without the tries around it.
    pub fn root(&self) -> &StoreError {
        match self {
            Self::GaveUp { last, .. } => last.root(),
            other => other,
        }
    }
}
