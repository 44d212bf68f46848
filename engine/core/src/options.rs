//! How an engine is opened.

use std::path::PathBuf;
use std::sync::Arc;

use cairn_disk::{Disk, RealDisk};
use cairn_journal::Fsync;
use cairn_keyspace::types::Limits;
use cairn_seal::Keyring;

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
    /// When small collections change their encoding.
    pub limits: Limits,
    /// Threads that load and write snapshots.
    pub threads: usize,
    /// How much memory may be in use.
    pub memory: MemoryLimit,
    /// The heap to mend after each snapshot, and to limit.
    pub heap: Option<Arc<dyn Heap>>,
}

/// When the journal is trimmed by itself (`auto-aof-rewrite-*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AutoRewrite {
    /// By how much snapshot and journal may outgrow the last snapshot, in percent; 0 is never.
    pub percentage: u32,
    /// Below this size, in bytes, it is not worth the work.
    pub min_bytes: u64,
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
            limits: Limits::default(),
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            memory: MemoryLimit::default(),
            heap: None,
        }
    }
}
