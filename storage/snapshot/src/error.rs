//! The crate's errors.

use std::io;
use std::path::{Path, PathBuf};

use cairn_disk::MapFault;
use cairn_format::FormatError;
use cairn_seal::SealError;
use thiserror::Error;

/// Why a container could not be written or read.
#[derive(Debug, Error)]
pub enum SnapshotError {
    /// The container is not what was written.
    #[error(
        "{}: offset {offset}: {what}: expected {expected}, found {found}; the snapshot is damaged, restore it from a backup",
        file.display()
    )]
    Damaged {
        /// The container.
        file: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong.
        what: &'static str,
        /// What should be there.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A part of the container is damaged, of another kind or of an unknown version.
    #[error("{}: {source}", file.display())]
    Format {
        /// The container.
        file: PathBuf,
        /// What is wrong and where.
        source: FormatError,
    },
    /// The container could not be unlocked.
    #[error("{}: {source}", file.display())]
    Seal {
        /// The container.
        file: PathBuf,
        /// A wrong key, in the first place.
        source: SealError,
    },
    /// The container was cut or became unreadable while it was read.
    #[error(transparent)]
    Unreadable(#[from] MapFault),
    /// The disk refused.
    #[error("{}: {source}{}", file.display(), cairn_disk::advice(source))]
    Io {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// An entry is too long for the memory there is.
    #[error("{}: offset {offset}: no memory for a block of {bytes} bytes", file.display())]
    NoMemory {
        /// The container.
        file: PathBuf,
        /// The block's offset.
        offset: u64,
        /// Its length once decompressed.
        bytes: u64,
    },
    /// A thread could not be started, or zstd could not be set up.
    #[error(
        "the system has no room for another thread or compressor: {0}; give the machine more memory, or raise the limits of \
         memory and threads (ulimit -v, ulimit -u)"
    )]
    NoResources(io::Error),
    /// A thread ended in a panic: a mistake in the program.
    #[error("a thread that worked on {} panicked: {message}", file.display())]
    Panicked {
        /// The container.
        file: PathBuf,
        /// What the panic said.
        message: String,
    },
}

impl SnapshotError {
    /// Whether another key would help: exit code 12.
    pub fn is_wrong_key(&self) -> bool {
        matches!(self, SnapshotError::Seal { source: SealError::WrongKey { .. }, .. })
    }

    /// Whether the container itself is at fault: exit code 13.
    pub fn is_damage(&self) -> bool {
        match self {
            SnapshotError::Damaged { .. } | SnapshotError::Unreadable(_) => true,
            // A newer program wrote it, and it is whole.
            SnapshotError::Format { source, .. } => !matches!(source, FormatError::UnknownVersion { .. }),
            SnapshotError::Seal { source, .. } => {
                matches!(source, SealError::Forged { .. } | SealError::Format(_))
            }
            _ => false,
        }
    }

    pub(crate) fn io(file: &Path) -> impl FnOnce(io::Error) -> SnapshotError {
        move |source| SnapshotError::Io { file: file.to_owned(), source }
    }

    pub(crate) fn format(file: &Path) -> impl FnOnce(FormatError) -> SnapshotError {
        move |source| SnapshotError::Format { file: file.to_owned(), source }
    }

    pub(crate) fn seal(file: &Path) -> impl FnOnce(SealError) -> SnapshotError {
        move |source| SnapshotError::Seal { file: file.to_owned(), source }
    }

    pub(crate) fn panicked(file: &Path, payload: &(dyn std::any::Any + Send)) -> SnapshotError {
        SnapshotError::Panicked { file: file.to_owned(), message: panic_message(payload) }
    }
}

pub(crate) fn panic_message(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

/// Why a load ended early.
#[derive(Debug, Error)]
pub enum LoadError<E> {
    /// The container is at fault.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The one who takes the entries said no.
    #[error("{0}")]
    Sink(E),
}

/// Why a forked child gave no result. As text each says what to do.
#[derive(Debug, Error)]
pub enum ChildError {
    /// The child said why it failed.
    #[error("{message}")]
    Reported {
        /// Its words.
        message: String,
    },
    /// The child ended without a result.
    #[error(
        "the snapshot process ended with status {status} and no result; its last words may be in the server's output"
    )]
    Exited {
        /// Its exit status.
        status: i32,
    },
    /// A signal ended the child.
    #[error("the snapshot process was ended by signal {signal}{}", hint_of_signal(*signal))]
    Signalled {
        /// The signal.
        signal: i32,
    },
    /// The child was stopped for too long and was killed.
    #[error(
        "the snapshot process had been stopped for {seconds} s, by SIGSTOP or a debugger, and was ended, since memory is \
         copied for as long as it is there; let it run next time"
    )]
    Stopped {
        /// For how long.
        seconds: u64,
    },
    /// The child got nowhere for too long and was killed.
    #[error(
        "the snapshot process made no progress for {seconds} s and was ended; where the disk is slow or does not answer look \
         at that, otherwise the next snapshot may succeed"
    )]
    Stalled {
        /// For how long it made none.
        seconds: u64,
    },
    /// More was copied because of the child than was allowed, and it was killed.
    #[error(
        "{copied_bytes} bytes of memory were copied, because of writes while the snapshot process was at work; that is more \
         than the {limit_bytes} that snapshot-cow-limit allows, so it was ended before memory ran out; take snapshots when \
         less is written, give the server more memory, or raise snapshot-cow-limit"
    )]
    CopiedTooMuch {
        /// What was there twice, in bytes.
        copied_bytes: u64,
        /// What was allowed.
        limit_bytes: u64,
    },
    /// The pipe or the process could not be waited for.
    #[error("the snapshot process could not be waited for: {0}")]
    Io(#[from] io::Error),
}

/// What a signal from outside is a sign of.
fn hint_of_signal(signal: i32) -> &'static str {
    match signal {
        libc::SIGKILL => {
            " (SIGKILL): by the system for want of memory, or by somebody; where the kernel's log tells of memory, give the \
             machine more or lower maxmemory"
        }
        libc::SIGABRT => " (SIGABRT): most likely it got no memory; give the machine more or lower maxmemory",
        libc::SIGBUS => {
            " (SIGBUS): most likely it got no memory, or the disk failed under a file it had mapped"
        }
        libc::SIGTERM => " (SIGTERM): somebody ended it",
        _ => "; if nobody sent it, that is a mistake in this program worth reporting",
    }
}
