//! `/metrics`: what Prometheus collects.
//!
//! The table is the one place where a metric is described. What Redis has too bears the name that redis_exporter gives it, so
//! that dashboards made for it work; what only Cairn has begins with `cairn_`.

use crate::alloc;
use crate::backup;
use crate::config::MaxmemoryPolicy;
use crate::info::REDIS_VERSION;
use crate::server::Server;
use crate::sys::{self, CpuTime, Whose, cpu_time};
use cairn_engine::{Figures, HubCounts, JournalUsage};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use std::fmt;
use std::sync::atomic::Ordering::Relaxed;

/// The format of what [`render`] gives.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Everything that metrics are read from, of one scrape.
#[derive(Debug)]
struct Scrape {
    engine: Figures,
    hub: HubCounts,
    journal_usage: JournalUsage,
    not_ready: Option<&'static str>,
    backup: backup::Status,
    clients: u64,
    blocked: u64,
    clients_bytes: u64,
    heap: alloc::Memory,
    resident_bytes: u64,
    cpu: CpuTime,
    cpu_children: CpuTime,
    uptime_seconds: u64,
    slowlog_length: u64,
    counts: Counts,
    settings: Settings,
}

/// What the server counts.
#[derive(Debug)]
struct Counts {
    connections: u64,
    rejected: u64,
    evicted_clients: u64,
    commands: u64,
    input_bytes: u64,
    output_bytes: u64,
    protocol_errors: u64,
    commands_per_second: f64,
}

/// What the configuration says.
#[derive(Debug)]
struct Settings {
    maxclients: u64,
    maxmemory: u64,
    policy: &'static str,
    port: u64,
    is_encrypted: bool,
    has_journal: bool,
}

impl Scrape {
    fn of(server: &Server) -> Scrape {
        let stats = &server.stats;
        let config = server.config.read();
        let settings = Settings {
            maxclients: config.maxclients.unsigned_abs(),
            maxmemory: config.maxmemory,
            policy: MaxmemoryPolicy::NAMES[config.maxmemory_policy as usize],
            port: config.port.unsigned_abs(),
            is_encrypted: !config.encryption_key_file.is_empty() || !config.encryption_key_command.is_empty(),
            has_journal: config.appendonly,
        };
        drop(config);
        Scrape {
            engine: server.engine.figures(),
            hub: server.engine.hub().counts(),
            journal_usage: server.engine.journal_usage(),
            not_ready: server.engine.readiness().err().map(|not_ready| not_ready.reason.name()),
            backup: server.backup_status(),
            clients: server.clients.count() as u64,
            blocked: server.clients.blocked() as u64,
            clients_bytes: server.clients.memory_bytes() as u64,
            heap: alloc::memory(),
            resident_bytes: sys::resident_bytes(),
            cpu: cpu_time(Whose::Process),
            cpu_children: cpu_time(Whose::Children),
            uptime_seconds: server.uptime_seconds(),
            slowlog_length: server.engine.observed().slowlog.len() as u64,
            counts: Counts {
                connections: stats.connections_received_total.load(Relaxed),
                rejected: stats.connections_rejected_total.load(Relaxed),
                evicted_clients: server.clients.memory.evicted_total.load(Relaxed),
                commands: stats.commands_total.load(Relaxed),
                input_bytes: stats.input_bytes_total.load(Relaxed),
                output_bytes: stats.output_bytes_total.load(Relaxed),
                protocol_errors: stats.protocol_errors_total.load(Relaxed),
                commands_per_second: stats.rates()[0],
            },
            settings,
        }
    }
}

type Labels<'a> = &'a [(&'static str, &'a str)];
/// Takes a value with its labels.
type Sink<'a> = dyn FnMut(Labels<'_>, f64) + 'a;

/// A row of the table.
struct Metric {
    /// Without `_total`, which counters bear.
    name: &'static str,
    kind: MetricType,
    help: &'static str,
    read: Read,
}

enum Read {
    One(fn(&Scrape) -> f64),
    /// `None` where it is not known, or there is no such thing.
    Known(fn(&Scrape) -> Option<f64>),
    Many(fn(&Scrape, &mut Sink<'_>)),
}

const fn gauge(name: &'static str, help: &'static str, read: Read) -> Metric {
    Metric { name, kind: MetricType::Gauge, help, read }
}

const fn counter(name: &'static str, help: &'static str, read: Read) -> Metric {
    Metric { name, kind: MetricType::Counter, help, read }
}

use Read::{Known, Many, One};

fn flag(is_set: bool) -> f64 {
    f64::from(u8::from(is_set))
}

/// Milliseconds since the Unix epoch as seconds.
fn seconds(unix_ms: Option<u64>) -> Option<f64> {
    unix_ms.map(|unix_ms| unix_ms as f64 / 1000.0)
}

#[rustfmt::skip]
static METRICS: &[Metric] = &[
    // The server.
    gauge("redis_up", "1: the server answers", One(|_| 1.0)),
    gauge("cairn_ready", "Whether clients should be sent here, as /readyz says", One(|s| flag(s.not_ready.is_none()))),
    gauge("cairn_not_ready", "1, with the reason, while clients should not be sent here", Many(|s, to| {
        if let Some(reason) = s.not_ready { to(&[("reason", reason)], 1.0) }
    })),
    gauge("redis_instance_info", "1, with what the server is", Many(|s, to| {
        let port = s.settings.port.to_string();
        to(&[
            ("redis_version", REDIS_VERSION), ("cairn_version", env!("CARGO_PKG_VERSION")), ("redis_mode", "standalone"),
            ("role", "master"), ("tcp_port", &port), ("maxmemory_policy", s.settings.policy),
        ], 1.0);
    })),
    gauge("redis_uptime_in_seconds", "Seconds since the start", One(|s| s.uptime_seconds as f64)),
    gauge("redis_loading_dump_file", "Whether data is being loaded", One(|s| flag(s.engine.loaded < 1.0))),
    gauge("cairn_loaded_ratio", "How much of the data is loaded, from 0 to 1", One(|s| s.engine.loaded)),
    counter("redis_cpu_sys_seconds", "Processor time in the kernel", One(|s| s.cpu.system)),
    counter("redis_cpu_user_seconds", "Processor time outside the kernel", One(|s| s.cpu.user)),
    counter("redis_cpu_sys_children_seconds", "Processor time in the kernel of child processes that have ended", One(|s| s.cpu_children.system)),
    counter("redis_cpu_user_children_seconds", "Processor time outside the kernel of child processes that have ended", One(|s| s.cpu_children.user)),

    // Clients and commands.
    gauge("redis_connected_clients", "Connections", One(|s| s.clients as f64)),
    gauge("redis_blocked_clients", "Connections that wait in a blocking command", One(|s| s.blocked as f64)),
    gauge("redis_tracking_clients", "Connections that are told of keys that change", One(|s| s.hub.trackers as f64)),
    gauge("redis_config_maxclients", "How many connections may be", One(|s| s.settings.maxclients as f64)),
    counter("redis_connections_received", "Connections that were accepted", One(|s| s.counts.connections as f64)),
    counter("redis_rejected_connections", "Connections that were turned away", One(|s| s.counts.rejected as f64)),
    counter("cairn_evicted_clients", "Connections that were ended because clients took too much memory", One(|s| s.counts.evicted_clients as f64)),
    counter("cairn_protocol_errors", "Connections that were ended because they sent what is no request", One(|s| s.counts.protocol_errors as f64)),
    counter("redis_commands_processed", "Commands that were answered", One(|s| s.counts.commands as f64)),
    gauge("redis_instantaneous_ops_per_sec", "Commands a second, over the last 1.6 s", One(|s| s.counts.commands_per_second)),
    counter("redis_net_input_bytes", "Bytes read from clients", One(|s| s.counts.input_bytes as f64)),
    counter("redis_net_output_bytes", "Bytes written to clients", One(|s| s.counts.output_bytes as f64)),
    counter("redis_commands", "Runs, by command", Many(|s, to| {
        s.engine.commands.iter().for_each(|(name, usage)| to(&[("cmd", name)], usage.calls as f64));
    })),
    counter("redis_commands_duration_seconds", "Time that all runs took, by command", Many(|s, to| {
        s.engine.commands.iter().for_each(|(name, usage)| to(&[("cmd", name)], usage.duration_us as f64 / 1e6));
    })),
    counter("redis_commands_rejected_calls", "Calls that were refused before they ran, by command", Many(|s, to| {
        s.engine.commands.iter().for_each(|(name, usage)| to(&[("cmd", name)], usage.rejected as f64));
    })),
    counter("redis_commands_failed_calls", "Runs that answered an error, by command", Many(|s, to| {
        s.engine.commands.iter().for_each(|(name, usage)| to(&[("cmd", name)], usage.failed as f64));
    })),
    counter("redis_errors", "Errors that were answered, by their first word", Many(|s, to| {
        s.engine.errors.iter().for_each(|(kind, count)| to(&[("err", kind)], *count as f64));
    })),
    gauge("redis_slowlog_length", "Entries of SLOWLOG", One(|s| s.slowlog_length as f64)),
    gauge("redis_pubsub_channels", "Channels that somebody listens to", One(|s| s.hub.channels as f64)),
    gauge("redis_pubsub_patterns", "Patterns of channels that somebody listens to", One(|s| s.hub.patterns as f64)),

    // Keys and memory.
    gauge("redis_db_keys", "Keys, by database; absent while a script keeps them from being counted", Many(|s, to| {
        for db in s.engine.databases.iter().flatten() { to(&[("db", &format!("db{}", db.database))], db.keys as f64) }
    })),
    gauge("redis_db_keys_expiring", "Keys that expire, by database", Many(|s, to| {
        for db in s.engine.databases.iter().flatten() { to(&[("db", &format!("db{}", db.database))], db.expiring as f64) }
    })),
    counter("redis_keyspace_hits", "Keys that were looked up and found", One(|s| s.engine.hits_total as f64)),
    counter("redis_keyspace_misses", "Keys that were looked up and not found", One(|s| s.engine.misses_total as f64)),
    counter("redis_expired_keys", "Keys that went because they had expired", One(|s| s.engine.expired_total as f64)),
    counter("redis_evicted_keys", "Keys that went because memory was short", One(|s| s.engine.evicted_total as f64)),
    gauge("redis_memory_used_bytes", "Memory in use by the program", One(|s| s.heap.used as f64)),
    gauge("redis_memory_used_peak_bytes", "The most memory that was ever in use", One(|s| s.heap.peak as f64)),
    gauge("redis_memory_used_rss_bytes", "Physical memory of the process", One(|s| s.resident_bytes as f64)),
    gauge("redis_memory_max_bytes", "maxmemory; 0 for no limit", One(|s| s.settings.maxmemory as f64)),
    gauge("redis_mem_fragmentation_ratio", "Physical memory beside memory in use", One(|s| s.resident_bytes as f64 / (s.heap.used as f64).max(1.0))),
    gauge("redis_mem_clients_normal", "Memory of the buffers of clients, in bytes", One(|s| s.clients_bytes as f64)),

    // Snapshots.
    gauge("redis_rdb_bgsave_in_progress", "Whether a snapshot is being written", One(|s| flag(s.engine.snapshots.is_running))),
    gauge("cairn_snapshot_progress_ratio", "How much of the running snapshot is written, from 0 to 1", One(|s| s.engine.snapshots.progress_thousandths as f64 / 1000.0)),
    gauge("redis_rdb_changes_since_last_save", "Changes since the last snapshot began", One(|s| s.engine.changes as f64)),
    gauge("redis_rdb_last_save_timestamp_seconds", "When the last snapshot was written", One(|s| s.engine.snapshots.last_unixtime as f64)),
    gauge("redis_rdb_last_bgsave_status", "Whether the last snapshot went well", One(|s| flag(s.engine.snapshots.is_last_ok))),
    gauge("redis_rdb_last_bgsave_duration_sec", "Seconds that the last snapshot took", One(|s| s.engine.snapshots.last_seconds as f64)),
    gauge("redis_rdb_last_cow_size_bytes", "Memory that was copied because of the last snapshot", One(|s| s.engine.snapshots.copied_bytes as f64)),
    gauge("redis_latest_fork_seconds", "For how long the last fork held up every command", One(|s| s.engine.snapshots.fork_us as f64 / 1e6)),
    counter("cairn_snapshots", "Snapshots written", One(|s| s.engine.snapshots.written_total as f64)),
    gauge("cairn_snapshot_failures_in_a_row", "Snapshots that have failed since one went well", One(|s| s.engine.snapshots.failures_in_a_row as f64)),
    gauge("cairn_snapshot_bytes", "Size of the last snapshot", One(|s| s.engine.snapshots.bytes as f64)),
    gauge("cairn_snapshot_keys", "Keys of the last snapshot", One(|s| s.engine.snapshots.entries as f64)),
    gauge("cairn_snapshot_lsn", "Where the journal goes on behind the last snapshot", One(|s| s.engine.snapshots.lsn.0 as f64)),

    // The journal.
    gauge("redis_aof_enabled", "Whether effects are written to a journal", One(|s| flag(s.settings.has_journal))),
    gauge("redis_aof_last_write_status", "Whether the journal takes what it is given", Known(|s| s.engine.journal.map(|j| flag(j.is_well)))),
    gauge("redis_aof_current_size_bytes", "Bytes of the snapshot and of the effects since", Known(|s| s.engine.journal.map(|j| j.since_snapshot_bytes as f64))),
    gauge("redis_master_repl_offset", "Where the stream of effects ends, in bytes", One(|s| s.engine.end.0 as f64)),
    gauge("cairn_journal_durable_lsn", "Up to where it is durable", One(|s| s.engine.durable.0 as f64)),
    gauge("cairn_journal_pending_bytes", "Bytes of effects that are not durable", Known(|s| s.engine.journal.map(|j| j.pending_bytes as f64))),
    gauge("cairn_journal_oldest_unsynced_seconds", "Age of the oldest effect that is not durable", Known(|s| s.engine.journal.map(|j| j.oldest_unsynced_ms as f64 / 1000.0))),
    gauge("cairn_journal_last_sync_seconds", "How long the last sync took", Known(|s| s.engine.journal.map(|j| j.last_sync_us as f64 / 1e6))),
    counter("cairn_journal_syncs", "Syncs", Known(|s| s.engine.journal.map(|j| j.syncs_total as f64))),
    counter("cairn_journal_frames", "Frames written: commits that share a sync share one", Known(|s| s.engine.journal.map(|j| j.frames_total as f64))),
    counter("cairn_journal_written_bytes", "Bytes written to the journal, padding included", Known(|s| s.engine.journal.map(|j| j.written_bytes_total as f64))),
    gauge("cairn_journal_segments", "Segments of the journal", One(|s| s.journal_usage.segments as f64)),
    gauge("cairn_journal_disk_bytes", "Bytes of all segments", One(|s| s.journal_usage.bytes as f64)),
    gauge("cairn_journal_kept_bytes", "Bytes of segments that recovery does not need: they wait for the archive, or are held", One(|s| s.journal_usage.kept_bytes as f64)),
    gauge("cairn_journal_disk_limit_bytes", "journal-disk-limit; 0 for none", One(|s| s.journal_usage.limit_bytes as f64)),
    gauge("cairn_journal_disk_near_limit", "Whether journal-disk-limit is near", One(|s| flag(s.journal_usage.is_near_limit()))),
    counter("cairn_journal_dropped_segments", "Segments that went although they were not archived", One(|s| s.journal_usage.dropped_total as f64)),
    gauge("cairn_encrypted", "Whether what is written is encrypted", One(|s| flag(s.settings.is_encrypted))),

    // The backup.
    gauge("cairn_backup_enabled", "Whether there is a backup-url", One(|s| flag(s.backup.is_enabled))),
    gauge("cairn_backup_failing", "Whether the backup fails; INFO backup says why", One(|s| flag(s.backup.trouble.is_some()))),
    gauge("cairn_backup_lag_seconds", "Age of the oldest durable effect that is not archived", Known(|s| s.backup.lag.map(|lag| lag.age.as_secs_f64()))),
    gauge("cairn_backup_lag_bytes", "Bytes of durable effects that are not archived", Known(|s| s.backup.lag.map(|lag| lag.bytes as f64))),
    gauge("cairn_backup_archived_lsn", "Up to where the journal is archived, as the agent told", Known(|s| s.backup.archived_lsn.map(|lsn| lsn as f64))),
    gauge("cairn_backup_last_success_timestamp_seconds", "When the archive last held all that was durable", Known(|s| seconds(s.backup.report.last_success_unix_ms))),
    gauge("cairn_backup_last_verified_timestamp_seconds", "When the last verification began that found everything whole", Known(|s| seconds(s.backup.report.last_verified_unix_ms))),
    gauge("cairn_backup_stored_bytes", "Bytes that the repository holds", Known(|s| s.backup.report.stored_bytes.map(|bytes| bytes as f64))),
    gauge("cairn_backup_pending_bytes", "Bytes that wait to be uploaded", Known(|s| s.backup.report.pending_bytes.map(|bytes| bytes as f64))),
    gauge("cairn_backup_writes_refused", "Whether writes are refused because of backup-max-lag", One(|s| flag(s.backup.are_writes_refused))),
    gauge("cairn_backup_max_lag_seconds", "backup-max-lag; 0 for none", One(|s| s.backup.max_lag_ms as f64 / 1000.0)),
    gauge("cairn_backup_agent_up", "Whether the backup's agent runs", One(|s| flag(s.backup.agent_pid.is_some()))),
    counter("cairn_backup_agent_restarts", "How often the backup's agent was started again", One(|s| s.backup.agent_restarts_total as f64)),
];

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        METRICS.iter().try_for_each(|metric| metric.encode(self, &mut encoder))
    }
}

impl Metric {
    /// Nothing where there is no value.
    fn encode(&self, scrape: &Scrape, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let values = self.values(scrape);
        if values.is_empty() {
            return Ok(());
        }
        let mut family = encoder.encode_descriptor(self.name, self.help, None, self.kind)?;
        values.iter().try_for_each(|(labels, value)| match labels.as_slice() {
            [] => self.encode_value(&mut family, *value),
            _ => self.encode_value(&mut family.encode_family(labels)?, *value),
        })
    }

    fn values(&self, scrape: &Scrape) -> Vec<(Vec<(&'static str, String)>, f64)> {
        let mut values = Vec::new();
        match self.read {
            One(read) => values.push((Vec::new(), read(scrape))),
            Known(read) => values.extend(read(scrape).map(|value| (Vec::new(), value))),
            Many(read) => read(scrape, &mut |labels, value| {
                values.push((labels.iter().map(|(name, text)| (*name, (*text).to_owned())).collect(), value));
            }),
        }
        values
    }

    fn encode_value(&self, encoder: &mut MetricEncoder<'_>, value: f64) -> fmt::Result {
        match self.kind {
            MetricType::Counter => encoder.encode_counter::<NoLabelSet, f64, f64>(&value, None),
            _ => encoder.encode_gauge(&value),
        }
    }
}

/// The metrics of now. Looks at each shard and reads files of the system; not for a thread that serves clients.
pub(crate) fn render(server: &Server) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Scrape::of(server)));
    let mut text = String::new();
    text::encode(&mut text, &registry)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn each_metric_is_described_once() {
        let names: HashSet<&str> = METRICS.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), METRICS.len());
        for Metric { name, help, .. } in METRICS {
            assert!(name.starts_with("redis_") || name.starts_with("cairn_"), "{name}");
            assert!(!name.ends_with("_total") && !help.is_empty() && !help.ends_with('.'), "{name}");
        }
    }
}
