//! The crate's errors.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use cairn_disk::MapFault;
use cairn_format::{FormatError, Lsn};
use cairn_seal::SealError;

/// Bytes that are not what was written, with all a person needs to judge the loss.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The segment.
    pub file: PathBuf,
    /// Where in the file, in bytes.
    pub offset: u64,
    /// What is wrong there.
    pub what: &'static str,
    /// What should stand there.
    pub expected: String,
    /// What stands there.
    pub found: String,
    /// First LSN that cannot be read.
    pub lost_from: Lsn,
    /// LSN up to which effects are known to have been lost with it, where that is known.
    pub lost_to: Option<Lsn>,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Damage { file, offset, what, expected, found, lost_from, lost_to } = self;
        write!(
            f,
            "{}: offset {offset}: {what}: expected {expected}, found {found}; effects from LSN {lost_from}",
            file.display()
        )?;
        match lost_to {
            Some(to) => write!(f, " to {to} would be lost")?,
            None => write!(f, " on would be lost")?,
        }
        f.write_str("; restore the file or the dataset from a backup")
    }
}

/// What can go wrong with a journal.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// A segment was changed, cut or mixed up after it was written.
    #[error("the journal is damaged: {0}")]
    Damaged(Box<Damage>),
    /// A segment that the manifest names is not there.
    #[error(
        "the journal segment {} is missing; it holds the effects from LSN {from}{}; put the file back or restore the dataset from a backup",
        file.display(),
        to.map(|to| format!(" to {to}")).unwrap_or_default()
    )]
    Missing {
        /// The file that should be there.
        file: PathBuf,
        /// First LSN of what is missing.
        from: Lsn,
        /// End of what is missing, where it is known.
        to: Option<Lsn>,
    },
    /// The header of a segment cannot be read.
    #[error("{}: {source}", file.display())]
    Format {
        /// The segment.
        file: PathBuf,
        /// What is wrong with its header.
        #[source]
        source: FormatError,
    },
    /// The key of a segment is missing or another.
    #[error("{}: {source}", file.display())]
    Seal {
        /// The segment.
        file: PathBuf,
        /// What the keyring lacks.
        #[source]
        source: SealError,
    },
    /// The disk answered with an error.
    #[error("{}: cannot {operation}: {source}{}", file.display(), cairn_disk::advice(source))]
    Io {
        /// The file or directory.
        file: PathBuf,
        /// What was attempted.
        operation: &'static str,
        /// The disk's answer.
        #[source]
        source: io::Error,
    },
    /// A mapped file could not be read.
    #[error(transparent)]
    Map(#[from] MapFault),
    /// The journal is poisoned or was shut down before all was durable.
    #[error(transparent)]
    Poisoned(#[from] Poisoned),
}

impl JournalError {
    /// Whether this is damage to what was stored (as against a wrong key or a disk that does not answer).
    pub fn is_damage(&self) -> bool {
        match self {
            JournalError::Damaged(_) | JournalError::Missing { .. } | JournalError::Map(_) => true,
            JournalError::Format { source, .. } => !matches!(source, FormatError::UnknownVersion { .. }),
            JournalError::Seal { source, .. } => matches!(source, SealError::Forged { .. }),
            JournalError::Io { .. } | JournalError::Poisoned(_) => false,
        }
    }

    /// Whether the key to the segment is missing or another.
    pub fn is_wrong_key(&self) -> bool {
        matches!(self, JournalError::Seal { source: SealError::WrongKey { .. }, .. })
    }
}

/// The journal accepts nothing more: whether effects past the durable LSN survive is unknown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the journal stopped: {reason}; whether effects past the durable LSN survive is unknown; restart the server once the disk is well"
)]
pub struct Poisoned {
    /// Why.
    pub reason: Arc<str>,
    /// Since when (unix ms).
    pub since_unix_ms: u64,
}

/// That writes are not admitted at all, and since when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub error: AdmitError,
    /// Since when (unix ms).
    pub since_unix_ms: u64,
}

/// Why a write is not admitted. Nothing was applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdmitError {
    /// The disk is full.
    #[error("no space left for the journal in {}: free some; writes resume by themselves", dir.display())]
    NoSpace {
        /// The data directory.
        dir: PathBuf,
    },
    /// No segment can be prepared, for another reason than space.
    #[error("no journal segment can be prepared in {}: {reason}; writes resume by themselves once it can", dir.display())]
    NoSegment {
        /// The data directory.
        dir: PathBuf,
        /// The disk's answer.
        reason: String,
    },
    /// The journal accepts nothing more.
    #[error(transparent)]
    Poisoned(Poisoned),
}

/// Why a scan ended early.
#[derive(Debug, thiserror::Error)]
pub enum ScanError<E> {
    /// The journal cannot be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The receiver of the effects refused them.
    #[error("effects could not be applied: {0}")]
    Sink(E),
}
