//! What can go wrong with a backup or a restore.

use std::io;
use std::path::{Path, PathBuf};

use cairn_format::FormatError;
use cairn_journal::JournalError;
use cairn_seal::SealError;
use cairn_snapshot::SnapshotError;
use cairn_store::StoreError;

/// An error of a job. [`JobError::exit_code`] says what a program ends with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JobError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store answered, and there is no repository.
    #[error("{url}: there is no repository here; `cairn-backup create` makes one, or correct the address")]
    NoRepository {
        /// The repository's address.
        url: String,
    },
    /// Something was written by a newer program.
    #[error(
        "{place}: version {found} is not known to this program, which knows version {known}; use the newer program"
    )]
    UnknownVersion {
        /// The object.
        place: String,
        /// Its version.
        found: u32,
        /// The version this program knows.
        known: u32,
    },
    /// The repository holds no such backup.
    #[error("{url}: there is no backup {id}; `cairn-backup list` shows those there are")]
    NoSuchBackup {
        /// The repository's address.
        url: String,
        /// The backup asked for.
        id: String,
    },
    /// The repository holds no backup at all.
    #[error("{url}: the repository holds no backup yet")]
    NoBackups {
        /// The repository's address.
        url: String,
    },
    /// Bytes are not what they were when they were written.
    #[error("{place}{}: {what} is damaged: expected {expected}, found {found}", offset_text(*offset))]
    Damaged {
        /// The object or file.
        place: String,
        /// Where in it, in bytes, if that is known.
        offset: Option<u64>,
        /// What is damaged.
        what: &'static str,
        /// What should be there.
        expected: String,
        /// What is there.
        found: String,
    },
    /// The files of a data directory or a backup are not what they should be.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The journal is not what it should be.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The keyring itself is not to be had.
    #[error("{place}: {source}")]
    NoKeyring {
        /// The file or command it should come from.
        place: String,
        /// Why.
        source: SealError,
    },
    /// A file could not be opened with the keys there are.
    #[error("{place}: {source}")]
    Seal {
        /// The file.
        place: String,
        /// Why.
        source: SealError,
    },
    /// A file is not of the format it should have.
    #[error("{place}: {source}")]
    Format {
        /// The file.
        place: String,
        /// Why.
        source: FormatError,
    },
    /// The data is encrypted and no key was given.
    #[error("{place}: it is encrypted with the key {}; give --encryption-key-file or --encryption-key-command", keys.join(", "))]
    KeyNeeded {
        /// The backup or directory.
        place: String,
        /// The names of the keys needed.
        keys: Vec<String>,
    },
    /// There is no data in a directory.
    #[error("{}: there is no manifest, so it holds no data of Cairn", dir.display())]
    NoData {
        /// The directory.
        dir: PathBuf,
    },
    /// The journal is off: there would be nothing behind the snapshot.
    #[error(
        "{place}: no journal is kept (appendonly no), so a backup would miss every write since the last snapshot; switch it on with `appendonly yes`"
    )]
    JournalOff {
        /// The directory or server.
        place: String,
    },
    /// The data directory did not hold still.
    #[error("{}: its files changed during each of {attempts} attempts to open them; try again", dir.display())]
    Changing {
        /// The directory.
        dir: PathBuf,
        /// How often it was tried.
        attempts: u32,
    },
    /// A backup that could not be restored.
    #[error("{backup} is not whole: {}; choose another backup (cairn-backup list)", faults.join("; "))]
    NotWhole {
        /// The backup.
        backup: String,
        /// What is wrong, each with file or object, expected and found.
        faults: Vec<String>,
        /// The exit code that the worst of them asks for.
        exit_code: u8,
    },
    /// A restore would meet what is there already.
    #[error("{}: the directory holds {found} already; choose an empty one, or give --force to replace the data in it", dir.display())]
    NotEmpty {
        /// The directory.
        dir: PathBuf,
        /// The first name found in it.
        found: String,
    },
    /// A server runs on the directory.
    #[error("{}: the directory is locked: a server or a restore is using it; stop that first, or choose another directory", dir.display())]
    Locked {
        /// The directory.
        dir: PathBuf,
    },
    /// Another agent writes the repository.
    #[error(
        "{url}: the repository is written by {holder}, whose lease lasts until {until}; stop that agent, or wait until then"
    )]
    LeaseHeld {
        /// The repository's address.
        url: String,
        /// Who holds the lease.
        holder: String,
        /// When it runs out if it is not renewed, as text.
        until: String,
    },
    /// Another agent follows the data directory.
    #[error("{}: another cairn-backup run follows this directory already", dir.display())]
    AgentRunning {
        /// The directory.
        dir: PathBuf,
    },
    /// The lease is not ours any more.
    #[error("{url}: the lease on the repository was lost: {why}; nothing more was written")]
    LeaseLost {
        /// The repository's address.
        url: String,
        /// How.
        why: String,
    },
    /// The lease may have run out.
    #[error(
        "{url}: the lease on the repository could not be renewed for {seconds} s; nothing is written until it is"
    )]
    LeaseStale {
        /// The repository's address.
        url: String,
        /// How long.
        seconds: u64,
    },
    /// What is asked for lies outside of what can be restored, or could be more than one state.
    #[error("{asked} cannot be restored: {why}; {}", restorable_text(restorable))]
    NotRestorable {
        /// What was asked for.
        asked: String,
        /// What stands against it.
        why: String,
        /// What can be restored, as text.
        restorable: Vec<String>,
    },
    /// A server runs on the directory, and can do itself what was asked for.
    #[error(
        "{}: a server is using the directory; have it do this while it runs, with CAIRN KEY RELOAD and CAIRN KEY REWRAP, or stop it first",
        dir.display()
    )]
    ServerRuns {
        /// The directory.
        dir: PathBuf,
    },
    /// Somebody else did the same at the same moment.
    #[error(
        "{place}: another cairn-backup has just written this document; when it has ended, run this again"
    )]
    Overtaken {
        /// The document's address.
        place: String,
    },
    /// There is no room for the files.
    #[error("{}: no space left for {bytes} bytes; free some, or choose another directory", path.display())]
    NoSpace {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// The file system failed.
    #[error("{}: cannot {operation}: {source}{}", path.display(), cairn_disk::advice(source))]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was attempted.
        operation: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// A file that is there already and would be replaced.
    #[error("{} is there already; choose another name, or give --force to replace it", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// Whoever was given entries takes no more; that one's own error is told instead.
    #[error("nobody takes more entries")]
    Abandoned,
    /// What a program does beside the jobs failed.
    #[error("{error}")]
    Program {
        /// Its own error.
        error: Box<dyn std::error::Error + Send + Sync>,
        /// What the program ends with.
        exit_code: u8,
    },
    /// A file that cannot be restored from.
    #[error("{}: {found}; --from reads snapshot containers (.cairn), .rdb files and append-only directories", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What it is.
        found: &'static str,
    },
    /// A server did not do what it was asked.
    #[error("{server}: {why}")]
    Server {
        /// The server's address.
        server: String,
        /// What it said, and what to do.
        why: String,
    },
    /// Options that contradict each other, or one that is missing.
    #[error("{0}")]
    Usage(String),
    /// JSON could not be written, which is a mistake of this program.
    #[error("a document could not be written as JSON: {0}")]
    Json(serde_json::Error),
    /// A task of this program ended before its time, which is a mistake of this program.
    #[error("a task ended unexpectedly: {0}")]
    Task(String),
    /// The person at the terminal said no, or the program was told to stop.
    #[error("interrupted")]
    Interrupted,
}

fn restorable_text(restorable: &[String]) -> String {
    if restorable.is_empty() {
        return "nothing can be restored yet".to_owned();
    }
    format!("what can be: {}", restorable.join("; "))
}

fn offset_text(offset: Option<u64>) -> String {
    offset.map(|offset| format!(": offset {offset}")).unwrap_or_default()
}

impl JobError {
    /// An I/O error of a file, named for what it is.
    pub(crate) fn io(path: &Path, operation: &'static str, source: io::Error) -> Self {
        Self::Io { path: path.to_owned(), operation, source }
    }

    /// As [`JobError::io`], where `bytes` were about to be written.
    pub(crate) fn write(path: &Path, bytes: u64, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::NoSpace { path: path.to_owned(), bytes }
            }
            _ => Self::io(path, "write", source),
        }
    }

    /// Whether what was stored is not what was written.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Damaged { .. } => true,
            Self::Snapshot(error) => snapshot_is_damaged(error),
            Self::Journal(error) => error.is_damage(),
            Self::Seal { source, .. } => seal_is_damage(source),
            Self::Format { source, .. } => !matches!(source, FormatError::UnknownVersion { .. }),
            _ => false,
        }
    }

    /// Whether a key is missing or another.
    pub fn is_wrong_key(&self) -> bool {
        match self {
            Self::KeyNeeded { .. } => true,
            Self::Snapshot(error) => error.is_wrong_key(),
            Self::Journal(error) => error.is_wrong_key(),
            Self::NoKeyring { .. } => true,
            Self::Seal { source, .. } => matches!(source, SealError::WrongKey { .. }),
            _ => false,
        }
    }

    /// What a program that failed with this ends with: 1 failed, 2 usage, 10 no repository, 11 locked, 12 wrong key,
    /// 13 damaged, 14 not restorable, 130 interrupted.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Store(StoreError::BadUrl { .. }) => 2,
            Self::NoRepository { .. } => 10,
            Self::Store(error) if matches!(error.root(), StoreError::NoSuchBucket { .. }) => 10,
            Self::Locked { .. }
            | Self::ServerRuns { .. }
            | Self::AgentRunning { .. }
            | Self::LeaseHeld { .. }
            | Self::LeaseLost { .. } => 11,
            Self::NotRestorable { .. } => 14,
            Self::NotWhole { exit_code, .. } => *exit_code,
            Self::Interrupted => 130,
            Self::Program { exit_code, .. } => *exit_code,
            error if error.is_wrong_key() => 12,
            error if error.is_damage() => 13,
            _ => 1,
        }
    }
}

fn seal_is_damage(error: &SealError) -> bool {
    match error {
        SealError::Forged { .. } => true,
        SealError::Format(error) => !matches!(error, FormatError::UnknownVersion { .. }),
        _ => false,
    }
}

fn snapshot_is_damaged(error: &SnapshotError) -> bool {
    // A version from the future is whole; another program reads it.
    !matches!(error, SnapshotError::Format { source: FormatError::UnknownVersion { .. }, .. })
        && error.is_damage()
}
