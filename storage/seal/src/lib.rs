//! Encryption at rest: the keyring of master keys, one wrapped data key for each file, chunks sealed with AES-256-GCM.
//!
//! Invariants: a data key is used for one file; a chunk number is used once in it, so no nonce repeats; a chunk is bound
//! to its file, its number, its finality and its clear header; keys are zeroized when dropped and never shown.
//!
//! This crate must never know what it seals, and touches no file but the keyring's. The law and the threat model:
//! `storage/docs/seal.md`.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::cast_possible_truncation
    )
)]

mod chunk;
mod data_key;
mod keyring;
mod manifest;
mod rewrap;
mod rotate;
#[cfg(test)]
mod vectors;

use std::io;
use std::path::PathBuf;

use cairn_format::{FileId, FormatError, LineageId};
use thiserror::Error;

pub use chunk::Sealer;
pub use data_key::{DataKey, new_data_key, unwrap, wrap};
pub use keyring::{Keyring, MasterKey};
pub use manifest::{open_manifest, seal_manifest};
pub use rewrap::{SlotWrite, next_rewrap};

/// The length of the tag that each sealed chunk carries, in bytes.
pub const TAG_BYTES: usize = 16;

/// Why something could not be sealed or opened.
#[derive(Debug, Error)]
pub enum SealError {
    /// The keyring lacks the key, or has another one under its name.
    #[error(
        "the key {needed:?} is needed, {}; give the right encryption-key-file or encryption-key-command, or put the \
         line of that key back into it",
        describe_keys(have)
    )]
    WrongKey {
        /// The name of the master key the file was wrapped under.
        needed: String,
        /// The names in the keyring; empty without one.
        have: Vec<String>,
    },
    /// A chunk does not bear the tag of its key, place and contents: it was changed, moved or cut.
    #[error(
        "chunk {chunk} is not what was sealed: it was changed, moved or cut; take the file from a backup"
    )]
    Forged {
        /// The chunk's number.
        chunk: u64,
    },
    /// The keyring's text is not one.
    #[error("line {line} of the keyring: {why}; a line is a name, a space and 64 hexadecimal digits")]
    BadKeyring {
        /// The line, from 1; 0 for the keyring as a whole.
        line: usize,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The command that should print the keyring failed.
    #[error("the encryption-key-command {command:?} failed with {status}; its own output says why")]
    CommandFailed {
        /// The command as configured.
        command: String,
        /// How it ended.
        status: std::process::ExitStatus,
    },
    /// The keyring could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The keyring file, or the shell.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The system gives no random numbers.
    #[error("the system gives no random numbers: {0}")]
    NoRandomness(String),
    /// The bytes around what is sealed are damaged.
    #[error(transparent)]
    Format(#[from] FormatError),
}

fn describe_keys(have: &[String]) -> String {
    if have.is_empty() {
        "no keyring is given".to_owned()
    } else {
        format!("the keyring's {have:?} do not open it")
    }
}

/// A new random file id.
///
/// # Errors
/// [`SealError::NoRandomness`]; so for all that draws random numbers here.
pub fn new_file_id() -> Result<FileId, SealError> {
    random().map(FileId)
}

/// A new random lineage id.
///
/// # Errors
/// [`SealError::NoRandomness`].
pub fn new_lineage_id() -> Result<LineageId, SealError> {
    random().map(LineageId)
}

fn random<const N: usize>() -> Result<[u8; N], SealError> {
    let mut bytes = [0; N];
    fill_random(&mut bytes)?;
    Ok(bytes)
}

fn fill_random(bytes: &mut [u8]) -> Result<(), SealError> {
    getrandom::fill(bytes).map_err(|error| SealError::NoRandomness(error.to_string()))
}
