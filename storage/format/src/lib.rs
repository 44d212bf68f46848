//! The bytes of Cairn's files: headers, key slots, journal frames, snapshot blocks and the manifest, as plain data.
//!
//! Invariants: every integer is little-endian and sized; every byte of a structure is covered by a checksum; decoding
//! never panics and never allocates more than its input justifies; what was encoded decodes to an equal value.
//!
//! This crate must never know files, clocks, randomness or keys: it turns bytes into data and data into bytes. The
//! documents `storage/docs/{journal,snapshot,seal,manifest}.md` are the law it follows.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::cast_possible_truncation
    )
)]

mod error;
mod ids;

pub mod container;
pub mod frame;
pub mod header;
pub mod manifest;
pub mod wire;

pub use error::FormatError;
pub use ids::{FileId, LineageId, Lsn};

/// The size of a page, the unit headers are made of.
pub const PAGE: usize = 4096;

/// The size of the header that opens every journal segment and snapshot: an identity page and two key slots.
pub const HEADER_BYTES: usize = 3 * PAGE;

/// The version of every format in this crate.
pub const FORMAT_VERSION: u32 = 1;
