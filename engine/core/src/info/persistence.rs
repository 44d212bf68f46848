//! How the data gets to the disk, and how it came from there.

use std::fmt::Arguments;
use std::sync::atomic::Ordering;

use crate::engine::Inner;
use crate::keys;
use crate::snapshots::{Outcome, Status};

pub(super) fn section(inner: &Inner, line: &mut dyn FnMut(Arguments<'_>)) {
    let status = inner.snapshots.status();
    loading(inner, line);
    readiness(inner, line);
    snapshots(inner, &status, line);
    rewrites(inner, &status, line);
    keys::section(inner, line);
    line(format_args!("cairn_lineage:{}", inner.lineage()));
    line(format_args!("cairn_journal_end_lsn:{}", inner.log.end()));
    line(format_args!("cairn_journal_durable_lsn:{}", inner.log.durable()));
    let space = inner.space.usage();
    line(format_args!("cairn_journal_disk_bytes:{}", space.bytes));
    line(format_args!("cairn_journal_disk_limit:{}", space.limit_bytes));
    line(format_args!("cairn_journal_disk_near_limit:{}", u8::from(space.is_near_limit())));
    line(format_args!("cairn_journal_kept_bytes:{}", space.kept_bytes));
    line(format_args!("cairn_journal_dropped_segments:{}", space.dropped_total));
    journal(inner, &status, line);
}

fn ok(good: bool) -> &'static str {
    if good { "ok" } else { "err" }
}

fn seconds(seconds: Option<u64>) -> i64 {
    seconds.map_or(-1, |seconds| seconds as i64)
}

/// What others have said, without ends of lines.
fn one_line(text: &str) -> String {
    text.replace(['\r', '\n'], " ")
}

fn readiness(inner: &Inner, line: &mut dyn FnMut(Arguments<'_>)) {
    let found = inner.readiness();
    line(format_args!("cairn_ready:{}", u8::from(found.is_ok())));
    let Err(not_ready) = found else { return };
    line(format_args!("cairn_not_ready:{}", not_ready.reason.name()));
    line(format_args!("cairn_not_ready_since:{}", not_ready.since_unix_ms / 1000));
    line(format_args!("cairn_not_ready_reason:{}", one_line(&not_ready.reason.to_string())));
}

fn loading(inner: &Inner, line: &mut dyn FnMut(Arguments<'_>)) {
    let loading = inner.loading.progress();
    line(format_args!("loading:{}", u8::from(loading.is_some())));
    line(format_args!("async_loading:0"));
    let Some(loading) = loading else { return };
    line(format_args!("loading_start_time:{}", loading.start_unixtime));
    line(format_args!("loading_total_bytes:{}", loading.bytes_total));
    line(format_args!("loading_loaded_bytes:{}", loading.bytes));
    line(format_args!("loading_loaded_perc:{:.2}", loading.percent()));
    line(format_args!("loading_eta_seconds:{}", loading.seconds_left()));
}

fn snapshots(inner: &Inner, status: &Status, line: &mut dyn FnMut(Arguments<'_>)) {
    let copying = if status.running { status.cow_bytes } else { 0 };
    let done = if status.running { status.progress_entries } else { 0 };
    let total = if status.running { status.total_entries } else { 0 };
    let percent = if total == 0 { 0.0 } else { done as f64 * 100.0 / total as f64 };
    line(format_args!("current_cow_peak:{copying}"));
    line(format_args!("current_cow_size:{copying}"));
    line(format_args!("current_cow_size_age:0"));
    line(format_args!("current_fork_perc:{percent:.2}"));
    line(format_args!("current_save_keys_processed:{done}"));
    line(format_args!("current_save_keys_total:{total}"));
    let changes = inner.statistics.dirty.load(Ordering::Relaxed);
    line(format_args!("rdb_changes_since_last_save:{changes}"));
    line(format_args!("rdb_bgsave_in_progress:{}", u8::from(status.running)));
    line(format_args!("rdb_last_save_time:{}", status.last_unixtime));
    line(format_args!("rdb_last_bgsave_status:{}", ok(!matches!(status.last, Outcome::Failed(_)))));
    line(format_args!("rdb_last_bgsave_time_sec:{}", seconds(status.last_seconds)));
    line(format_args!("rdb_current_bgsave_time_sec:{}", seconds(status.current_seconds)));
    line(format_args!("rdb_last_cow_size:{}", status.cow_bytes));
    line(format_args!("rdb_saves:{}", status.written_total));
    // Keys that have expired are loaded too, and go afterwards.
    line(format_args!("rdb_last_load_keys_expired:0"));
    line(format_args!("rdb_last_load_keys_loaded:{}", inner.recovery().snapshot_entries));
    if let Outcome::Failed(error) = &status.last {
        line(format_args!("cairn_snapshot_last_error:{}", one_line(error)));
    }
    line(format_args!("cairn_snapshot_retry_in_seconds:{}", status.retry_in_seconds));
    line(format_args!("cairn_snapshot_cow_limit:{}", status.cow_limit_bytes.unwrap_or(0)));
    line(format_args!("cairn_snapshot_lsn:{}", inner.snapshot_lsn()));
    line(format_args!("cairn_snapshot_bytes:{}", status.bytes));
    line(format_args!("cairn_snapshot_entries:{}", status.entries));
    line(format_args!("cairn_snapshot_progress_entries:{}", status.progress_entries));
}

/// A snapshot trims the journal: it is what a rewrite is for.
fn rewrites(inner: &Inner, status: &Status, line: &mut dyn FnMut(Arguments<'_>)) {
    let is_journaled =
        if inner.loading.is_on() { inner.options.append_only } else { inner.log.journal().is_some() };
    line(format_args!("aof_enabled:{}", u8::from(is_journaled)));
    line(format_args!("aof_rewrite_in_progress:{}", u8::from(status.running)));
    line(format_args!("aof_rewrite_scheduled:{}", u8::from(status.scheduled)));
    line(format_args!("aof_last_rewrite_time_sec:{}", seconds(status.last_seconds)));
    line(format_args!("aof_current_rewrite_time_sec:{}", seconds(status.current_seconds)));
    line(format_args!("aof_last_bgrewrite_status:{}", ok(!matches!(status.last, Outcome::Failed(_)))));
    line(format_args!("aof_rewrites:{}", status.written_total));
    line(format_args!("aof_rewrites_consecutive_failures:{}", status.failures_in_a_row));
    line(format_args!("aof_last_cow_size:{}", status.cow_bytes));
    line(format_args!("module_fork_in_progress:0"));
    line(format_args!("module_fork_last_cow_size:0"));
}

fn journal(inner: &Inner, snapshots: &Status, line: &mut dyn FnMut(Arguments<'_>)) {
    let Some(journal) = inner.log.journal() else {
        line(format_args!("aof_last_write_status:ok"));
        return;
    };
    let status = journal.status();
    let well = status.poisoned.is_none() && status.disk_full_since_unix_ms.is_none();
    line(format_args!("aof_last_write_status:{}", ok(well)));
    line(format_args!("aof_current_size:{}", inner.journal_bytes()));
    line(format_args!("aof_base_size:{}", snapshots.bytes));
    line(format_args!("aof_pending_rewrite:{}", u8::from(snapshots.scheduled)));
    line(format_args!("aof_buffer_length:{}", status.pending_bytes));
    // No thread that serves clients hands a sync to another one, or waits for one that is late.
    line(format_args!("aof_pending_bio_fsync:0"));
    line(format_args!("aof_delayed_fsync:0"));
    line(format_args!("cairn_journal_syncs:{}", status.syncs_total));
    line(format_args!("cairn_journal_frames:{}", status.frames_total));
    line(format_args!("cairn_journal_last_sync_us:{}", status.sync_micros_last));
    line(format_args!("cairn_journal_oldest_unsynced_ms:{}", status.oldest_unsynced_ms.unwrap_or(0)));
    if let Some(since) = status.disk_full_since_unix_ms {
        line(format_args!("cairn_journal_disk_full_since:{}", since / 1000));
    }
    if let Some(poisoned) = status.poisoned {
        line(format_args!("cairn_journal_stopped:{}", one_line(&poisoned.reason)));
        line(format_args!("cairn_journal_stopped_since:{}", poisoned.since_unix_ms / 1000));
    }
}
