//! Snapshots: containers of compressed, sealed blocks; written in parallel by a forked child, read in parallel through a
//! mapping, verified block by block.
//!
//! Invariants: a container bears its name only after it was synced, read back and verified; every byte of it is covered
//! by a checksum, and by its key when encrypted; a container is never overwritten; a file that was damaged, cut or
//! changed while it is read is an error with file and offset, never a wrong entry. The child of a fork touches nothing
//! that another thread of its parent may hold.
//!
//! This crate must never know what an entry means: entries are bytes in RDB encoding, made and read by others. The law:
//! `storage/docs/snapshot.md`.
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
mod fork;
mod origin;
mod passing;
mod progress;
mod reader;
#[cfg(test)]
mod tests;
mod watch;
mod writer;

use cairn_disk::DirEntry;
use cairn_format::Lsn;

pub use error::{ChildError, LoadError, SnapshotError};
pub use fork::{Child, ChildPipe, fork_child, fork_writer};
pub use origin::{Forked, InProgress, Origin, Unforked};
pub use passing::{Passed, Passing};
pub use progress::{Progress, Summary};
pub use reader::{Block, Container, Depth};
pub use watch::ChildLimits;
pub use writer::{BlockWriter, Source, WriteParams, write_container};

/// A block is closed when its entries are this long before compression; one long entry may make it longer.
pub const BLOCK_RAW_BYTES: usize = 256 * 1024;

/// Compression at this zstd level is quick enough for two cores to write some hundred megabytes a second.
pub const LEVEL_DEFAULT: i32 = 1;

/// Threads here have this much stack: stated, so that std does not read the environment in a forked child.
const STACK_BYTES: usize = 4 << 20;

/// A file name for a snapshot at this LSN that none of `taken` has: `snapshot-<LSN, 20 digits>.cairn`, with `.1`, `.2` …
/// before the ending when there is a snapshot of the same LSN. That one must stay: the manifest may name it. Asks no
/// disk, since the LSN is known only while everything stands still.
#[must_use]
pub fn free_name(taken: &[DirEntry], lsn: Lsn) -> String {
    let mut name = format!("snapshot-{lsn:020}.cairn");
    let mut number = 0_u64;
    while taken.iter().any(|entry| entry.name == name) {
        number = number.saturating_add(1);
        name = format!("snapshot-{lsn:020}.{number}.cairn");
    }
    name
}
