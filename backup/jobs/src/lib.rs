//! The work of backups, as a library: what a repository is, and how one is written, read, proven and restored from.
//!
//! Invariants:
//! - A backup exists when its manifest does, which is written after every object it names.
//! - Nothing past the journal's durable LSN is copied.
//! - A restore names nothing in its target before all of it was downloaded and checked; one that fails leaves the target as
//!   it was.
//! - Data is streamed: the memory used does not grow with the dataset.
//!
//! It must never know the engine: no command, no keyspace and no effect's meaning. It reads a data directory as files, so
//! that the server need not link it, nor it the server. The law: `storage/docs/repository.md`.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

pub mod archive;
pub mod cli;
mod create;
mod document;
mod error;
mod files;
#[cfg(test)]
mod hostile;
mod import;
mod input;
mod keys;
pub mod manifest;
mod moment;
mod output;
mod progress;
mod repository;
mod restore;
mod rewrap;
mod source;
mod stream;
mod target;
#[cfg(test)]
mod tests;
mod verify;

pub use cairn_disk::RealDisk;
pub use cairn_seal::Keyring;
pub use cairn_store::{ObjectStore, RetryPolicy, StoreError, open as open_store};
pub use create::{CreateOptions, Prepared};
pub use error::JobError;
pub use files::read_blocks;
pub use import::{CancelOnDrop, EntrySink, ImportFacts, import};
pub use input::Input;
pub use keys::{RewrappedRepository, rewrap_repository};
pub use manifest::BackupManifest;
pub use moment::rfc3339;
pub use output::Output;
pub use progress::{Phase, Progress, Silent};
pub use repository::{Backup, Repository};
pub use restore::{RestoreOptions, Restored, is_container, plan, restore, restore_file};
pub use rewrap::{RewrappedDirectory, rewrap_directory};
pub use target::refuse_filled;
pub use verify::{Tier, Verdict, VerifyOptions, verify};

/// Sixteen random bytes.
fn random() -> Result<[u8; 16], JobError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| JobError::Task(format!("the system gives no random numbers: {error}")))?;
    Ok(bytes)
}

/// Thirty-two random hex digits.
fn random_hex() -> Result<String, JobError> {
    Ok(format!("{:032x}", u128::from_be_bytes(random()?)))
}
