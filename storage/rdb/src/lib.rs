//! The value encodings of Redis RDB files, as the public format documentation describes them: what DUMP and RESTORE
//! carry, what a snapshot entry holds, what an `.rdb` file of Redis, Valkey or ElastiCache is made of.
//!
//! Invariants:
//! - Bytes from outside never panic, never allocate more than a small factor of what is really there, and never loop.
//! - A [`Listpack`] or an [`Intset`] that exists is well formed: its constructor walked every byte.
//! - What is written is loadable by Redis 7.0 (RDB version 10).
//!
//! This crate must never know: files by name, sockets, the keyspace's own types, clocks, encryption.

#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::cast_possible_truncation
    )
)]

pub mod crc64;
pub mod dump;
mod error;
pub mod file;
pub mod integer;
pub mod intset;
pub mod listpack;
pub mod lzf;
pub mod primitives;
pub mod stream;
pub mod value;
pub mod ziplist;

pub use error::RdbError;
pub use intset::Intset;
pub use listpack::{Item, Listpack};
pub use primitives::{Reader, Source};
pub use stream::StreamId;

/// The RDB version written: that of Redis 7.0.
pub const VERSION_WRITTEN: u32 = 10;

/// The first RDB version that knows hashes with fields that expire: that of Redis 7.4.
pub const VERSION_OF_FIELD_EXPIRY: u32 = 12;

/// The newest RDB version of a value read: that of Redis 7.4 and the versions before.
pub const VERSION_READ_MAX: u32 = 12;

/// The newest RDB version of a file read. What versions 13 and 14 (Redis 8.6 and 8.8) added is refused where it occurs.
pub const FILE_VERSION_READ_MAX: u32 = 14;
