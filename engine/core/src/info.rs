//! INFO: what the engine knows, behind what the process knows, section by section.

mod usage;

use std::fmt::Write;
use std::sync::atomic::Ordering;

use cairn_commands::lookup;
use cairn_keyspace::Locked;

use crate::engine::Inner;
use crate::process::Process;
use crate::snapshots::Outcome;

/// Sections in the order INFO shows them, and whether plain INFO does.
const SECTIONS: &[(&str, bool)] = &[
    ("server", true),
    ("clients", true),
    ("memory", true),
    ("persistence", true),
    ("stats", true),
    ("replication", true),
    ("cpu", true),
    ("modules", true),
    ("commandstats", false),
    ("errorstats", true),
    ("latencystats", false),
    ("cluster", true),
    ("keyspace", true),
];

pub(crate) fn render(inner: &Inner, process: &dyn Process, wanted: &[&str], keyspace: &Locked<'_>) -> String {
    let all = wanted.iter().any(|word| matches!(*word, "all" | "everything"));
    let default = wanted.is_empty() || wanted.contains(&"default");
    let mut text = String::new();
    for (section, by_default) in SECTIONS {
        if !(all || (default && *by_default) || wanted.contains(section)) {
            continue;
        }
        if !text.is_empty() {
            text.push_str("\r\n");
        }
        let (first, rest) = section.split_at(1);
        let title = if *section == "cpu" { "CPU".to_owned() } else { first.to_uppercase() + rest };
        line(&mut text, format_args!("# {title}"));
        for (name, value) in process.info(section) {
            line(&mut text, format_args!("{name}:{value}"));
        }
        match *section {
            "memory" => scripts(inner, &mut text),
            "persistence" => persistence(inner, &mut text),
            "stats" => stats(inner, &mut text),
            "replication" => replication(inner, &mut text),
            "commandstats" => usage::commands(&inner.observed, &mut text),
            "errorstats" => usage::errors(&inner.observed, &mut text),
            "latencystats" => usage::latencies(&inner.observed, &process.latency_percentiles(), &mut text),
            "cluster" => line(&mut text, format_args!("cluster_enabled:0")),
            "keyspace" => databases(inner, keyspace, &mut text),
            _ => {}
        }
    }
    text
}

fn line(text: &mut String, what: std::fmt::Arguments<'_>) {
    write!(text, "{what}\r\n").expect("writing to a String does not fail");
}

/// What scripts and function libraries take.
fn scripts(inner: &Inner, text: &mut String) {
    let libraries = inner.keyspace.libraries.get();
    let functions: usize = libraries.values().map(|library| library.functions.len()).sum();
    let library_bytes: usize = libraries.values().map(|library| library.code.len()).sum();
    let (interpreters, sources) = (inner.scripts.interpreter_bytes(), inner.scripts.source_bytes());
    for (name, value) in [
        ("used_memory_lua", interpreters),
        ("used_memory_vm_total", interpreters),
        ("used_memory_scripts_eval", sources),
        ("number_of_cached_scripts", inner.scripts.len()),
        ("number_of_functions", functions),
        ("number_of_libraries", libraries.len()),
        ("used_memory_functions", library_bytes),
        ("used_memory_scripts", sources + library_bytes),
    ] {
        line(text, format_args!("{name}:{value}"));
    }
}

fn persistence(inner: &Inner, text: &mut String) {
    let snapshots = inner.snapshots.status();
    let ok = |good: bool| if good { "ok" } else { "err" };
    line(text, format_args!("loading:0"));
    line(text, format_args!("async_loading:0"));
    let copying = if snapshots.running { snapshots.cow_bytes } else { 0 };
    line(text, format_args!("current_cow_size:{copying}"));
    line(text, format_args!("current_save_keys_processed:{}", snapshots.progress_entries));
    line(
        text,
        format_args!("rdb_changes_since_last_save:{}", inner.statistics.dirty.load(Ordering::Relaxed)),
    );
    line(text, format_args!("rdb_bgsave_in_progress:{}", u8::from(snapshots.running)));
    line(text, format_args!("rdb_last_save_time:{}", snapshots.last_unixtime));
    line(text, format_args!("rdb_last_bgsave_status:{}", ok(!matches!(snapshots.last, Outcome::Failed(_)))));
    line(text, format_args!("rdb_last_bgsave_time_sec:{}", snapshots.last_seconds.map_or(-1, |s| s as i64)));
    line(
        text,
        format_args!("rdb_current_bgsave_time_sec:{}", snapshots.current_seconds.map_or(-1, |s| s as i64)),
    );
    line(text, format_args!("rdb_last_cow_size:{}", snapshots.cow_bytes));
    line(text, format_args!("rdb_saves:{}", snapshots.written_total));
    line(text, format_args!("rdb_last_load_keys_loaded:{}", inner.recovery.snapshot_entries));
    line(text, format_args!("rdb_last_load_keys_expired:0"));
    line(text, format_args!("aof_enabled:{}", u8::from(inner.log.journal().is_some())));
    line(text, format_args!("aof_rewrite_in_progress:{}", u8::from(snapshots.running)));
    line(text, format_args!("aof_rewrite_scheduled:{}", u8::from(snapshots.scheduled)));
    line(text, format_args!("aof_rewrites:{}", snapshots.written_total));
    line(
        text,
        format_args!("aof_last_bgrewrite_status:{}", ok(!matches!(snapshots.last, Outcome::Failed(_)))),
    );
    if let Outcome::Failed(error) = &snapshots.last {
        line(text, format_args!("cairn_snapshot_last_error:{}", error.replace(['\r', '\n'], " ")));
    }
    line(text, format_args!("cairn_snapshot_lsn:{}", inner.catalog.snapshot_lsn()));
    line(text, format_args!("cairn_snapshot_bytes:{}", snapshots.bytes));
    line(text, format_args!("cairn_snapshot_entries:{}", snapshots.entries));
    line(text, format_args!("cairn_snapshot_progress_entries:{}", snapshots.progress_entries));
    line(text, format_args!("cairn_encrypted:{}", u8::from(inner.options.keyring.is_some())));
    line(text, format_args!("cairn_lineage:{}", inner.catalog.lineage()));
    line(text, format_args!("cairn_journal_end_lsn:{}", inner.log.end()));
    line(text, format_args!("cairn_journal_durable_lsn:{}", inner.log.durable()));
    let Some(journal) = inner.log.journal() else { return };
    let status = journal.status();
    let well = status.poisoned.is_none() && status.disk_full_since_unix_ms.is_none();
    line(text, format_args!("aof_last_write_status:{}", ok(well)));
    line(text, format_args!("aof_current_size:{}", inner.journal_bytes()));
    line(text, format_args!("aof_base_size:{}", snapshots.bytes));
    line(text, format_args!("aof_buffer_length:{}", status.pending_bytes));
    line(text, format_args!("cairn_journal_syncs:{}", status.syncs_total));
    line(text, format_args!("cairn_journal_frames:{}", status.frames_total));
    line(text, format_args!("cairn_journal_last_sync_us:{}", status.sync_micros_last));
    line(text, format_args!("cairn_journal_oldest_unsynced_ms:{}", status.oldest_unsynced_ms.unwrap_or(0)));
    if let Some(since) = status.disk_full_since_unix_ms {
        line(text, format_args!("cairn_journal_disk_full_since:{}", since / 1000));
    }
    if let Some(reason) = status.poisoned {
        line(text, format_args!("cairn_journal_stopped:{}", reason.replace(['\r', '\n'], " ")));
    }
}

fn stats(inner: &Inner, text: &mut String) {
    let statistics = &inner.statistics;
    line(text, format_args!("keyspace_hits:{}", statistics.hits.load(Ordering::Relaxed)));
    line(text, format_args!("keyspace_misses:{}", statistics.misses.load(Ordering::Relaxed)));
    line(text, format_args!("expired_keys:{}", statistics.expired.load(Ordering::Relaxed)));
    let counts = inner.hub.counts();
    line(text, format_args!("pubsub_channels:{}", counts.channels));
    line(text, format_args!("pubsub_patterns:{}", counts.patterns));
    line(text, format_args!("pubsubshard_channels:{}", counts.shard_channels));
    // There is no MIGRATE, and so nothing to keep open for it.
    line(text, format_args!("migrate_cached_sockets:0"));
    line(text, format_args!("tracking_total_keys:{}", counts.tracked_keys));
    line(text, format_args!("tracking_total_items:{}", counts.tracked_items));
    line(text, format_args!("tracking_total_prefixes:{}", counts.tracked_prefixes));
    let (current, total) = inner.eviction.exceeded();
    line(text, format_args!("evicted_keys:{}", inner.eviction.evicted.load(Ordering::Relaxed)));
    line(text, format_args!("total_eviction_exceeded_time:{}", total.as_millis()));
    line(text, format_args!("current_eviction_exceeded_time:{}", current.as_millis()));
    let snapshots = inner.snapshots.status();
    line(text, format_args!("latest_fork_usec:{}", snapshots.fork_micros));
    line(text, format_args!("total_forks:{}", snapshots.forks_total));
    line(text, format_args!("total_error_replies:{}", inner.observed.errors.total()));
    for (name, count) in inner.acl.denied() {
        line(text, format_args!("{name}:{count}"));
    }
}

fn replication(inner: &Inner, text: &mut String) {
    line(text, format_args!("role:master"));
    line(text, format_args!("connected_slaves:0"));
    line(text, format_args!("master_failover_state:no-failover"));
    line(text, format_args!("master_replid:{}00000000", inner.catalog.lineage()));
    line(text, format_args!("master_replid2:{:0>40}", 0));
    line(text, format_args!("master_repl_offset:{}", inner.log.end()));
    line(text, format_args!("second_repl_offset:-1"));
    // There is no replica for whom a backlog would be kept.
    for field in ["active", "size", "first_byte_offset", "histlen"] {
        line(text, format_args!("repl_backlog_{field}:0"));
    }
}

fn databases(inner: &Inner, keyspace: &Locked<'_>, text: &mut String) {
    debug_assert!(lookup(b"info").is_some_and(|spec| spec.keys.is_whole()));
    for db in 0..inner.keyspace.databases() {
        let keys = keyspace.len(db);
        if keys > 0 {
            line(text, format_args!("db{db}:keys={keys},expires={},avg_ttl=0", keyspace.expiring(db)));
        }
    }
}
