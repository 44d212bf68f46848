//! INFO: what the engine knows, behind what the process knows, section by section.

mod memory;
mod persistence;
mod usage;

use std::fmt::Write;
use std::sync::atomic::Ordering;

use cairn_commands::{lookup, next_random};
use cairn_keyspace::Locked;

use crate::engine::{Inner, now_ms};
use crate::process::Process;

pub(crate) use memory::figures;
pub use memory::human_bytes;

/// Fields of INFO stats about what does not happen here: replication, moving values about in memory,
/// checking payloads other than always, reading and writing apart from the threads that run commands, and
/// keys that have expired but stay.
const NEVER_COUNTED: &[&str] = &[
    "total_net_repl_input_bytes",
    "total_net_repl_output_bytes",
    "instantaneous_input_repl_kbps",
    "instantaneous_output_repl_kbps",
    "sync_full",
    "sync_partial_ok",
    "sync_partial_err",
    "slave_expires_tracked_keys",
    "active_defrag_hits",
    "active_defrag_misses",
    "active_defrag_key_hits",
    "active_defrag_key_misses",
    "total_active_defrag_time",
    "current_active_defrag_time",
    "expired_stale_perc",
    "unexpected_error_replies",
    "dump_payload_sanitizations",
    "io_threaded_reads_processed",
    "io_threaded_writes_processed",
    "reply_buffer_shrinks",
    "reply_buffer_expands",
];

/// Sections in the order INFO shows them, and whether plain INFO does.
const SECTIONS: &[(&str, bool)] = &[
    ("server", true),
    ("clients", true),
    ("memory", true),
    ("persistence", true),
    ("backup", true),
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
    let is_wanted = |section: &str, by_default| all || (default && by_default) || wanted.contains(&section);
    // Before the text takes memory itself.
    let figures = is_wanted("memory", true).then(|| figures(inner, process, keyspace));
    let mut text = String::new();
    for (section, by_default) in SECTIONS {
        if !is_wanted(section, *by_default) {
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
            "memory" => {
                figures.iter().for_each(|figures| {
                    memory::section(inner, figures, &mut |what| line(&mut text, what));
                });
            }
            "persistence" => persistence::section(inner, &mut |what| line(&mut text, what)),
            "clients" => line(&mut text, format_args!("clients_in_timeout_table:{}", inner.waiters.timed())),
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

fn stats(inner: &Inner, text: &mut String) {
    let statistics = &inner.statistics;
    line(text, format_args!("keyspace_hits:{}", statistics.hits.load(Ordering::Relaxed)));
    line(text, format_args!("keyspace_misses:{}", statistics.misses.load(Ordering::Relaxed)));
    line(text, format_args!("expired_keys:{}", statistics.expired.load(Ordering::Relaxed)));
    line(text, format_args!("expired_subkeys:{}", statistics.expired_fields.load(Ordering::Relaxed)));
    let cut_short = statistics.expiry_cut_short.load(Ordering::Relaxed);
    line(text, format_args!("expired_time_cap_reached_count:{cut_short}"));
    let expiry_ms = statistics.expiry_micros.load(Ordering::Relaxed) / 1000;
    line(text, format_args!("expire_cycle_cpu_milliseconds:{expiry_ms}"));
    let counts = inner.hub.counts();
    line(text, format_args!("pubsub_channels:{}", counts.channels));
    line(text, format_args!("pubsub_patterns:{}", counts.patterns));
    line(text, format_args!("pubsubshard_channels:{}", counts.shard_channels));
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
    for name in NEVER_COUNTED {
        line(text, format_args!("{name}:0"));
    }
    for (name, count) in inner.acl.denied() {
        line(text, format_args!("{name}:{count}"));
    }
}

fn replication(inner: &Inner, text: &mut String) {
    line(text, format_args!("role:master"));
    line(text, format_args!("connected_slaves:0"));
    line(text, format_args!("master_failover_state:no-failover"));
    line(text, format_args!("master_replid:{}00000000", inner.lineage()));
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
            let (expiring, mean) = (keyspace.expiring(db), mean_ttl_ms(keyspace, db, now_ms()));
            line(text, format_args!("db{db}:keys={keys},expires={expiring},avg_ttl={mean}"));
        }
    }
}

/// For how long keys that expire have yet to live: the mean of some of each shard.
fn mean_ttl_ms(keyspace: &Locked<'_>, db: u16, now_ms: i64) -> i64 {
    const SAMPLES: usize = 2;
    let (mut sum, mut count, mut random) = (0, 0, now_ms as u64);
    for shard in keyspace.all_shards() {
        let database = shard.database(db);
        if database.expiring() > 0 {
            database.sample_expiring(
                SAMPLES,
                || next_random(&mut random),
                |entry| {
                    let left = entry.expire_at_ms().map_or(0, |at| at.saturating_sub(now_ms));
                    if left > 0 {
                        sum += i128::from(left);
                        count += 1;
                    }
                },
            );
        }
    }
    if count == 0 { 0 } else { i64::try_from(sum / count).unwrap_or(i64::MAX) }
}
