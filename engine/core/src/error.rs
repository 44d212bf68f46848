//! Why an engine does not open, or a snapshot is not written.

use std::io;
use std::path::PathBuf;

use cairn_format::Lsn;
use cairn_journal::JournalError;
use cairn_seal::SealError;
use cairn_snapshot::{ChildError, SnapshotError};

/// Why the data in a directory was not opened. Nothing was changed then, and nothing started empty.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has the directory.
    #[error("{} is locked: another cairn-server runs on this directory; stop it, or give another dir", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// Files of data without the manifest that says what they are.
    #[error(
        "{} is missing although {orphan} is there: the directory holds data that cannot be trusted without it. \
         Restore the directory with cairn-restore, or move its files away to start empty",
        path.display()
    )]
    NoManifest {
        /// Where the manifest should be.
        path: PathBuf,
        /// A file that proves there was data.
        orphan: String,
    },
    /// The data uses more databases than are configured.
    #[error(
        "the data was written with {stored} databases, and only {configured} are configured; set databases {stored}"
    )]
    FewerDatabases {
        /// How many the data was written with.
        stored: u32,
        /// How many are configured.
        configured: u16,
    },
    /// The key or the manifest is not right.
    #[error("{}: {source}", path.display())]
    Seal {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: SealError,
    },
    /// The snapshot cannot be loaded.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// Data of Redis itself, which this program does not read.
    #[error(
        "{} is data of Redis, which this version does not load; give cairn-server a dir of its own, so that nothing \
         starts empty beside it",
        path.display()
    )]
    RedisData {
        /// The file.
        path: PathBuf,
    },
    /// There is no data where some is to be read.
    #[error("{} holds no data of Cairn: there is no manifest in it", path.display())]
    NoData {
        /// The directory.
        path: PathBuf,
    },
    /// A file that the manifest does not name holds more than those it does.
    #[error(
        "{} holds effects up to LSN {holds}, and the manifest does not name it; what the manifest names ends at LSN {end}. \
         The manifest is older than the directory: put the newer one back, or restore the directory from a backup",
        path.display()
    )]
    OldManifest {
        /// The segment.
        path: PathBuf,
        /// Up to where it is durable.
        holds: Lsn,
        /// Where the data that the manifest names ends.
        end: Lsn,
    },
    /// A file in clear that a sealed manifest names.
    #[error(
        "{} is not encrypted, and the manifest says that it is: it was exchanged; restore the directory from a backup",
        path.display()
    )]
    NotEncrypted {
        /// The file.
        path: PathBuf,
    },
    /// The snapshot that the manifest names is not there.
    #[error(
        "{} is missing; it holds {entries} keys, all that was written before LSN {lsn}; put the file back or restore the \
         directory from a backup with cairn-restore",
        path.display()
    )]
    MissingSnapshot {
        /// The file.
        path: PathBuf,
        /// It held the effects below this position.
        lsn: Lsn,
        /// How many keys it held.
        entries: u64,
    },
    /// A snapshot is not the one the manifest names.
    #[error(
        "{} is not the snapshot the manifest names ({what}: expected {expected}, found {found}); \
         take the directory from a backup with cairn-restore",
        path.display()
    )]
    OtherSnapshot {
        /// The file.
        path: PathBuf,
        /// What differs.
        what: &'static str,
        /// What the manifest says.
        expected: String,
        /// What the file says.
        found: String,
    },
    /// The journal cannot be replayed, or not be continued.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A record is whole and authentic, and yet this program cannot apply it.
    #[error(
        "{place}: an effect cannot be replayed: {why}; the program that wrote it may be newer than this one"
    )]
    Replay {
        /// File or position in the journal.
        place: String,
        /// What is wrong.
        why: String,
    },
    /// The disk refused.
    #[error("{}: {source}{}", path.display(), cairn_disk::advice(source))]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl OpenError {
    /// The exit code a program ends with: 1 failed, 2 usage, 11 locked, 12 wrong key, 13 damaged.
    #[must_use]
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::Locked { .. } => 11,
            Self::Seal { source, .. } => seal_exit_code(source),
            Self::Snapshot(error) if error.is_wrong_key() => 12,
            Self::Snapshot(error) if error.is_damage() => 13,
            Self::Journal(error) if error.is_wrong_key() => 12,
            Self::Journal(error) if error.is_damage() => 13,
            Self::Snapshot(_) | Self::Journal(_) => 1,
            Self::NoManifest { .. }
            | Self::OldManifest { .. }
            | Self::NotEncrypted { .. }
            | Self::MissingSnapshot { .. }
            | Self::OtherSnapshot { .. }
            | Self::Replay { .. } => 13,
            Self::FewerDatabases { .. } => 2,
            Self::RedisData { .. } | Self::NoData { .. } | Self::Io { .. } => 1,
        }
    }
}

fn seal_exit_code(error: &SealError) -> i32 {
    match error {
        SealError::WrongKey { .. } => 12,
        SealError::Forged { .. } | SealError::Format(_) => 13,
        _ => 1,
    }
}

/// Why a snapshot was not written. The one before is untouched.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// One is being written.
    #[error("Background save already in progress")]
    Running,
    /// The one that was being written already did not come about.
    #[error("{0}")]
    Joined(String),
    /// The process could not be forked.
    #[error(
        "fork failed: {0}; the system has no memory or no process left for it: set vm.overcommit_memory to 1, or lower \
         maxmemory, or raise the limit of processes"
    )]
    Fork(io::Error),
    /// The child that wrote it failed.
    #[error("the snapshot was not written: {0}")]
    Child(#[from] ChildError),
    /// It was written while everything stood still, and that failed.
    #[error("the snapshot was not written: {0}")]
    Stopped(String),
    /// It was not wanted any more.
    #[error("the snapshot was called off, since the server ends")]
    Cancelled,
    /// The journal behind it never became durable.
    #[error("the snapshot was written, and is of no use, since the journal up to it is not durable: {0}")]
    Journal(String),
    /// The disk refused.
    #[error("{}: {source}{}", path.display(), cairn_disk::advice(source))]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No key could be drawn.
    #[error(transparent)]
    Seal(#[from] SealError),
}

/// Why an engine did not end as it should.
#[derive(Debug, thiserror::Error)]
pub enum ShutdownError {
    /// The snapshot at the end was not written; nothing has ended.
    #[error("{0}; SHUTDOWN NOSAVE ends without one")]
    Snapshot(SaveError),
    /// The journal could not be closed with all it was given.
    #[error(transparent)]
    Journal(JournalError),
}
