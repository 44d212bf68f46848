//! The table of directives.

use super::foreign::FOREIGN;
use super::value::{DebugCommand, Field, Fsync, Kind, LogFormat, LogLevel, MaxmemoryPolicy, PubsubDefault};
use super::{Settings, backup, clients, ending, memory};

/// When a directive may be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// In the file or on the command line only.
    Start,
    /// As `Start`; but CONFIG SET may say what is so already, for those who set all that CONFIG GET shows them and know
    /// only of Redis's directives that some cannot be set.
    Same,
    /// By CONFIG SET too.
    Always,
}

/// One directive.
pub(crate) struct Directive {
    pub(crate) name: &'static str,
    /// An older name that means the same.
    pub(crate) alias: Option<&'static str>,
    pub(crate) kind: Kind,
    /// As a file would say it.
    pub(crate) default: &'static str,
    pub(crate) when: When,
    /// Redis lets it be set only where `enable-protected-configs` says so, which is never the case here.
    pub(crate) is_protected: bool,
    /// Shown only to those who know its whole name.
    pub(crate) is_hidden: bool,
}

/// The row of this name, or of this alias.
pub(crate) fn find(name: &str) -> Option<&'static Directive> {
    all().find(|d| d.name == name || d.alias == Some(name))
}

/// Every directive there is.
pub(crate) fn all() -> impl Iterator<Item = &'static Directive> {
    DIRECTIVES.iter().chain(FOREIGN)
}

/// Why a name that is not in the table is refused.
pub(crate) fn why_refused(name: &str) -> &'static str {
    if NOT_PROVIDED.contains(&name) { "not provided by this version" } else { "unknown directive" }
}

macro_rules! field {
    ($name:ident) => {
        Field { get: |s: &Settings| &s.$name, get_mut: |s: &mut Settings| &mut s.$name }
    };
}

macro_rules! choice {
    ($name:ident, $kind:ident) => {
        Kind::Choice {
            names: $kind::NAMES,
            get: |s| s.$name as usize,
            set: |s, chosen| s.$name = $kind::ALL[chosen],
        }
    };
}

pub(super) const fn row(name: &'static str, kind: Kind, default: &'static str, when: When) -> Directive {
    Directive { name, alias: None, kind, default, when, is_protected: false, is_hidden: false }
}

impl Directive {
    pub(super) const fn or(mut self, alias: &'static str) -> Directive {
        self.alias = Some(alias);
        self
    }

    pub(super) const fn hidden(mut self) -> Directive {
        self.is_hidden = true;
        self
    }

    pub(super) const fn protected(mut self) -> Directive {
        self.is_protected = true;
        self
    }
}

const INT_MAX: i64 = 0x7fff_ffff;
const MIB: u64 = 1 << 20;
/// Enough for any machine, and far from where sums of such numbers overflow.
const BYTES_MAX: u64 = 1 << 50;
/// The length of a key is stored in 32 bits, and a key may be as long as any argument.
const KEY_BYTES_MAX: u64 = u32::MAX as u64;

use Kind::{Bytes, Custom, Flag, Integer, Mode, Percentiles, SavePoints, Text, Words};
use When::{Always, Same, Start};

/// The directives that change what the server does.
#[rustfmt::skip]
static DIRECTIVES: &[Directive] = &[
    // Where clients connect.
    row("bind", Words(field!(bind)), "127.0.0.1 -::1", Always),
    row("port", Integer(field!(port), 0..=65_535), "6379", Always),
    row("protected-mode", Flag(field!(protected_mode)), "yes", Always),
    row("tcp-backlog", Integer(field!(tcp_backlog), 1..=INT_MAX), "511", Start),
    row("timeout", Integer(field!(timeout_seconds), 0..=INT_MAX), "0", Always),
    row("tcp-keepalive", Integer(field!(tcp_keepalive_seconds), 0..=INT_MAX), "300", Always),
    row("unixsocket", Text(field!(unixsocket)), "", Start),
    row("unixsocketperm", Mode(field!(unixsocketperm)), "0", Start),
    row("http-port", Integer(field!(http_port), 0..=65_535), "0", Same),
    row("maxclients", Integer(field!(maxclients), 1..=INT_MAX), "10000", Always),
    row("requirepass", Text(field!(requirepass)), "", Always),
    row("aclfile", Text(field!(aclfile)), "", Start),
    row("acl-pubsub-default", choice!(acl_pubsub_default, PubsubDefault), "resetchannels", Always),
    row("acllog-max-len", Integer(field!(acl_log_length), 0..=INT_MAX), "128", Always),
    row("proto-max-bulk-len", Bytes(field!(max_bulk_bytes), MIB..=KEY_BYTES_MAX), "512mb", Always),
    row("client-query-buffer-limit", Bytes(field!(query_buffer_bytes), MIB..=BYTES_MAX), "1gb", Always),
    row("client-output-buffer-limit", Custom { set: clients::set_output_limits, show: clients::show_output_limits }, "normal 0 0 0 slave 256mb 64mb 60 pubsub 32mb 8mb 60", Always),
    row("maxmemory-clients", Custom { set: clients::set_client_memory, show: clients::show_client_memory }, "0", Always),
    row("notify-keyspace-events", Custom { set: clients::set_events, show: clients::show_events }, "", Always),
    row("tracking-table-max-keys", Integer(field!(tracked_keys_max), 0..=i64::MAX), "1000000", Always),
    row("enable-debug-command", choice!(enable_debug_command, DebugCommand), "no", Start),

    // The process.
    row("loglevel", choice!(loglevel, LogLevel), "notice", Always),
    row("logfile", Text(field!(logfile)), "", Start),
    row("log-format", choice!(log_format, LogFormat), "text", Same),
    row("pidfile", Text(field!(pidfile)), "", Start),
    row("hz", Integer(field!(hz), 1..=500), "10", Always),
    row("server-threads", Integer(field!(server_threads), 0..=256), "0", Same),
    row("busy-reply-threshold", Integer(field!(busy_reply_ms), 0..=i64::MAX), "5000", Always).or("lua-time-limit"),
    row("shutdown-on-sigint", Custom { set: ending::set_sigint, show: ending::show_sigint }, "default", Always),
    row("shutdown-on-sigterm", Custom { set: ending::set_sigterm, show: ending::show_sigterm }, "default", Always),
    row("shutdown-timeout", Integer(field!(shutdown_timeout_seconds), 0..=INT_MAX), "10", Always),

    // What is noted of commands.
    row("slowlog-log-slower-than", Integer(field!(slowlog_slower_than_us), -1..=i64::MAX), "10000", Always),
    row("slowlog-max-len", Integer(field!(slowlog_len_max), 0..=i64::MAX), "128", Always),
    row("latency-monitor-threshold", Integer(field!(latency_threshold_ms), 0..=i64::MAX), "0", Always),
    row("latency-tracking", Flag(field!(latency_tracking)), "yes", Always),
    row("latency-tracking-info-percentiles", Percentiles(field!(latency_percentiles)), "50 99 99.9", Always),

    // The data and how it is kept.
    row("databases", Integer(field!(databases), 1..=65_535), "16", Start),
    row("dir", Text(field!(dir)), "./", Start).protected(),
    row("save", SavePoints(field!(save)), "3600 1 300 100 60 10000", Always),
    row("rdb-key-save-delay", Integer(field!(key_save_delay), -INT_MAX - 1..=INT_MAX), "0", Always).hidden(),
    row("stop-writes-on-bgsave-error", Flag(field!(stop_writes_on_snapshot_error)), "yes", Always),
    row("snapshot-cow-limit", Custom { set: memory::set_copy_limit, show: memory::show_copy_limit }, "80%", Always),
    row("appendonly", Flag(field!(appendonly)), "no", Always),
    row("appendfsync", choice!(appendfsync, Fsync), "everysec", Always),
    row("auto-aof-rewrite-percentage", Integer(field!(auto_rewrite_percentage), 0..=INT_MAX), "100", Always),
    row("auto-aof-rewrite-min-size", Bytes(field!(auto_rewrite_min_bytes), 0..=BYTES_MAX), "64mb", Always),
    row("journal-segment-size", Bytes(field!(journal_segment_bytes), MIB..=(1 << 40)), "64mb", Same),
    row("encryption-key-file", Text(field!(encryption_key_file)), "", Always),
    // A command that clients could set would be run for them.
    row("encryption-key-command", Text(field!(encryption_key_command)), "", Same),
    row("journal-disk-limit", Bytes(field!(journal_disk_limit), 0..=BYTES_MAX), "0", Always),

    // Where copies of the data go, and where data comes from. What runs a command, or sends the data elsewhere, is not for
    // whoever may use CONFIG SET.
    row("backup-url", Custom { set: backup::set_url, show: backup::show_url }, "", Same),
    row("backup-interval", Custom { set: backup::set_interval, show: backup::show_interval }, "1s", Always),
    row("backup-schedule", Custom { set: backup::set_schedule, show: backup::show_schedule }, "", Always),
    row("backup-max-lag", Custom { set: backup::set_max_lag, show: backup::show_max_lag }, "0", Always),
    row("backup-on-failure", Text(field!(backup_on_failure)), "", Same),
    row("seed-from", Custom { set: backup::set_seed, show: backup::show_seed }, "", Same),
    row("seed-time", Text(field!(seed_time)), "", Same),

    // How much memory, and what goes when it is short.
    row("maxmemory", Bytes(field!(maxmemory), 0..=BYTES_MAX), "0", Always),
    row("maxmemory-policy", choice!(maxmemory_policy, MaxmemoryPolicy), "noeviction", Always),
    row("maxmemory-samples", Integer(field!(maxmemory_samples), 1..=INT_MAX), "5", Always),
    row("maxmemory-eviction-tenacity", Integer(field!(maxmemory_eviction_tenacity), 0..=100), "10", Always),
    row("lfu-log-factor", Integer(field!(lfu_log_factor), 0..=INT_MAX), "10", Always),
    row("lfu-decay-time", Integer(field!(lfu_decay_minutes), 0..=INT_MAX), "1", Always),

    // When small collections become large ones.
    row("hash-max-listpack-entries", Integer(field!(hash_entries), 0..=INT_MAX), "512", Always).or("hash-max-ziplist-entries"),
    row("hash-max-listpack-value", Bytes(field!(hash_value), 0..=BYTES_MAX), "64", Always).or("hash-max-ziplist-value"),
    row("zset-max-listpack-entries", Integer(field!(zset_entries), 0..=INT_MAX), "128", Always).or("zset-max-ziplist-entries"),
    row("zset-max-listpack-value", Bytes(field!(zset_value), 0..=BYTES_MAX), "64", Always).or("zset-max-ziplist-value"),
    row("set-max-intset-entries", Integer(field!(set_intset_entries), 0..=INT_MAX), "512", Always),
    row("set-max-listpack-entries", Integer(field!(set_entries), 0..=INT_MAX), "128", Always),
    row("set-max-listpack-value", Bytes(field!(set_value), 0..=BYTES_MAX), "64", Always),
    row("list-max-listpack-size", Integer(field!(list_size), -INT_MAX - 1..=INT_MAX), "-2", Always).or("list-max-ziplist-size"),
    row("hll-sparse-max-bytes", Bytes(field!(hll_sparse_bytes), 0..=BYTES_MAX), "3000", Always),
    row("stream-node-max-bytes", Bytes(field!(stream_node_bytes), 0..=BYTES_MAX), "4096", Always),
    row("stream-node-max-entries", Integer(field!(stream_node_entries), 0..=i64::MAX), "100", Always),
];

/// Directives that are known, from Redis or from the plans of Cairn, but do nothing yet.
const NOT_PROVIDED: &[&str] = &["backup-retention", "loadmodule", "rename-command"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_lower_case() {
        let mut names: Vec<&str> = all().flat_map(|d| [Some(d.name), d.alias]).flatten().collect();
        names.extend(NOT_PROVIDED);
        let count = names.len();
        assert!(names.iter().all(|n| n.bytes().all(|b| b.is_ascii_lowercase() || b"-_".contains(&b))));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
