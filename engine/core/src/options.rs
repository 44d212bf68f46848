//! How an engine is opened.

use std::path::PathBuf;
use std::sync::Arc;

use cairn_disk::{Disk, RealDisk};
use cairn_journal::{Driver, Fsync};
use cairn_keyspace::types::Limits;
use cairn_seal::Keyring;
use cairn_snapshot::{Forked, Origin};

use crate::eviction::MemoryLimit;
use crate::mending::Heap;

/// How an engine is opened. [`Options::new`] gives the defaults of `cairn-server`, with the journal on.
#[derive(Clone)]
pub struct Options {
    /// The data directory; made where it is absent.
    pub dir: PathBuf,
    /// The disk it lies on.
    pub disk: Arc<dyn Disk>,
    /// How many databases SELECT can choose from.
    pub databases: u16,
    /// Whether writes go to the journal.
    pub append_only: bool,
    /// When the journal is synced.
    pub fsync: Fsync,
    /// Size of a journal segment, in bytes.
    pub segment_bytes: u64,
    /// The keys to seal with; without any nothing is encrypted.
    pub keyring: Option<Arc<Keyring>>,
    /// When the journal is trimmed by itself.
    pub auto_rewrite: AutoRewrite,
    /// When a snapshot is taken by itself.
    pub save_points: Vec<SavePoint>,
    /// Whether writes are refused while the last snapshot that save points asked for failed.
    pub stop_writes_on_snapshot_error: bool,
    /// How much memory may be copied because of a snapshot.
    pub copy_limit: CopyLimit,
    /// When small collections change their encoding.
    pub limits: Limits,
    /// Threads that load and write snapshots.
    pub threads: usize,
    /// How much memory may be in use.
    pub memory: MemoryLimit,
    /// The heap to mend after each snapshot, and to limit.
    pub heap: Option<Arc<dyn Heap>>,
    /// Where snapshots come from.
    pub snapshot_origin: Arc<dyn Origin>,
    /// Who drives the journal; without a driver it has threads of its own.
    pub journal_driver: Option<Arc<dyn Driver>>,
}

/// When the journal is trimmed by itself (`auto-aof-rewrite-*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AutoRewrite {
    /// By how much snapshot and journal may outgrow the last snapshot, in percent; 0 is never.
    pub percentage: u32,
    /// Below this size, in bytes, it is not worth the work.
    pub min_bytes: u64,
}

/// How much memory may be copied because of a snapshot (`snapshot-cow-limit`). The process that writes it shares the
/// server's memory; what is written to meanwhile is there twice, up to all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyLimit {
    /// So many bytes; 0 for any number.
    Bytes(u64),
    /// So many hundredths of the memory that is available when the snapshot begins; 0 for any number.
    PercentOfAvailable(u64),
}

impl Default for CopyLimit {
    /// What is left then is for the clients, and for what else grows on the machine meanwhile.
    fn default() -> Self {
        Self::PercentOfAvailable(80)
    }
}

impl CopyLimit {
    /// In bytes, where so many are available; `None` for no limit, and where nobody knows what is available.
    pub(crate) fn bytes(self, available_bytes: impl FnOnce() -> Option<u64>) -> Option<u64> {
        match self {
            Self::Bytes(0) | Self::PercentOfAvailable(0) => None,
            Self::Bytes(bytes) => Some(bytes),
            Self::PercentOfAvailable(percent) => Some(available_bytes()? / 100 * percent),
        }
    }
}

/// A snapshot is taken when so many changes are that old (`save`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SavePoint {
    /// Seconds since the last snapshot.
    pub seconds: u64,
    /// Changes since then.
    pub changes: u64,
}

impl Options {
    /// The defaults, for a directory.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            disk: Arc::new(RealDisk),
            databases: 16,
            append_only: true,
            fsync: Fsync::EverySec,
            segment_bytes: 64 * 1024 * 1024,
            keyring: None,
            auto_rewrite: AutoRewrite { percentage: 100, min_bytes: 64 * 1024 * 1024 },
            save_points: Vec::new(),
            stop_writes_on_snapshot_error: true,
            copy_limit: CopyLimit::default(),
            limits: Limits::default(),
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            memory: MemoryLimit::default(),
            heap: None,
            snapshot_origin: Arc::new(Forked),
            journal_driver: None,
        }
    }
}
