//! What the engine counts and knows of itself, as numbers, for whoever shows them other than INFO does.

use std::sync::atomic::Ordering;

use cairn_commands::numbered;
use cairn_commands::observed::usage::CommandUsage;
use cairn_format::Lsn;
use cairn_keyspace::SHARDS;

use crate::engine::{Engine, Inner};
use crate::snapshots;

/// Figures of about one moment; counts are since the start, or since CONFIG RESETSTAT.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Keys that were looked up and found.
    pub hits_total: u64,
    /// And not found.
    pub misses_total: u64,
    /// Keys that went because they had expired.
    pub expired_total: u64,
    /// Keys that went because memory was short.
    pub evicted_total: u64,
    /// The databases that have keys; `None` while a script keeps everybody from counting them.
    pub databases: Option<Vec<DatabaseFigures>>,
    /// How far loading is, from 0 to 1; 1 once it has ended.
    pub loaded: f64,
    /// Changes since the last snapshot began.
    pub changes: u64,
    /// End of what was appended.
    pub end: Lsn,
    /// End of what is durable.
    pub durable: Lsn,
    /// Of the journal, where there is one.
    pub journal: Option<JournalFigures>,
    /// Of the snapshots.
    pub snapshots: SnapshotFigures,
    /// The commands that were called, with their names.
    pub commands: Vec<(&'static str, CommandUsage)>,
    /// How many errors were answered, by their first word.
    pub errors: Vec<(String, u64)>,
}

/// What a database holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DatabaseFigures {
    /// Its number.
    pub database: u16,
    /// How many keys.
    pub keys: u64,
    /// How many of them expire.
    pub expiring: u64,
}

/// Of the journal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JournalFigures {
    /// Syncs since the start.
    pub syncs_total: u64,
    /// Frames written since the start.
    pub frames_total: u64,
    /// Bytes written since the start, padding included.
    pub written_bytes_total: u64,
    /// How long the last sync took, in microseconds.
    pub last_sync_us: u64,
    /// Bytes of effects that are not durable.
    pub pending_bytes: u64,
    /// Age of the oldest of them, in milliseconds; 0 when all is durable.
    pub oldest_unsynced_ms: u64,
    /// It takes what it is given.
    pub is_well: bool,
    /// Bytes of the snapshot and of the effects since.
    pub since_snapshot_bytes: u64,
}

/// Of the snapshots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SnapshotFigures {
    /// One is being written.
    pub is_running: bool,
    /// How much of the running one is written, from 0 to 1 in thousandths.
    pub progress_thousandths: u64,
    /// The last one went well, or there was none.
    pub is_last_ok: bool,
    /// When the last one was written, in seconds since the Unix epoch.
    pub last_unixtime: i64,
    /// How long the last one took, in seconds.
    pub last_seconds: u64,
    /// Written since the start.
    pub written_total: u64,
    /// Failed since one went well.
    pub failures_in_a_row: u64,
    /// Where the last one ends.
    pub lsn: Lsn,
    /// Its size.
    pub bytes: u64,
    /// Its keys.
    pub entries: u64,
    /// How long the last fork held up every command, in microseconds.
    pub fork_us: u64,
    /// Bytes of memory that were copied because of the last one.
    pub copied_bytes: u64,
}

impl Engine {
    /// The figures of now. Takes the lock of each shard in turn; not for the path of a command.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let inner = &*self.0;
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let statistics = &inner.statistics;
        let usage = |command: &'static cairn_commands::Command| {
            let usage = inner.observed.usage.of(command.number());
            (usage.calls + usage.rejected + usage.failed > 0).then_some((command.name, usage))
        };
        Figures {
            hits_total: count(&statistics.hits),
            misses_total: count(&statistics.misses),
            expired_total: count(&statistics.expired),
            evicted_total: count(&inner.eviction.evicted),
            databases: inner.count_keys(),
            loaded: inner.loading.progress().map_or(1.0, |progress| progress.percent() / 100.0),
            changes: count(&statistics.dirty),
            end: inner.log.end(),
            durable: inner.log.durable(),
            journal: journal(inner),
            snapshots: snapshots(inner),
            commands: numbered().iter().filter_map(|command| usage(command)).collect(),
            errors: inner.observed.errors.kinds(),
        }
    }
}

impl Inner {
    /// What each database holds; `None` where somebody holds a shard for long, or it is being loaded.
    fn count_keys(&self) -> Option<Vec<DatabaseFigures>> {
        if self.loading.is_on() {
            return None;
        }
        let databases = self.keyspace.databases();
        let mut counted: Vec<_> = (0..databases)
            .map(|database| DatabaseFigures { database, ..DatabaseFigures::default() })
            .collect();
        for shard in 0..SHARDS {
            let locked = self.keyspace.try_lock_shard(shard)?;
            for figures in &mut counted {
                let database = locked.shard_at(shard).database(figures.database);
                figures.keys += database.len() as u64;
                figures.expiring += database.expiring() as u64;
            }
        }
        counted.retain(|figures| figures.keys > 0);
        Some(counted)
    }
}

fn journal(inner: &Inner) -> Option<JournalFigures> {
    let status = inner.log.journal()?.status();
    Some(JournalFigures {
        syncs_total: status.syncs_total,
        frames_total: status.frames_total,
        written_bytes_total: status.bytes_total,
        last_sync_us: status.sync_micros_last,
        pending_bytes: status.pending_bytes,
        oldest_unsynced_ms: status.oldest_unsynced_ms.unwrap_or(0),
        is_well: status.poisoned.is_none() && status.disk_full_since_unix_ms.is_none(),
        since_snapshot_bytes: inner.journal_bytes(),
    })
}

fn snapshots(inner: &Inner) -> SnapshotFigures {
    let status = inner.snapshots.status();
    let done = if status.running { status.progress_entries * 1000 / status.total_entries.max(1) } else { 0 };
    SnapshotFigures {
        is_running: status.running,
        progress_thousandths: done,
        is_last_ok: !matches!(status.last, snapshots::Outcome::Failed(_)),
        last_unixtime: status.last_unixtime,
        last_seconds: status.last_seconds.unwrap_or(0),
        written_total: status.written_total,
        failures_in_a_row: status.failures_in_a_row,
        lsn: inner.snapshot_lsn(),
        bytes: status.bytes,
        entries: status.entries,
        fork_us: status.fork_micros,
        copied_bytes: status.cow_bytes,
    }
}
