//! Directives of which this server provides one value: files written for Redis hold them, and mean no harm.
//!
//! Asking for that value is fine, asking for another is refused with the reason. A few have a usual value that is not
//! followed and that nobody relies on: it is accepted, and the log says so at the start. Others tune what is not there, so
//! that any value does the same: it is kept and shown, and the log says that nothing follows.

use super::table::{Directive, When, row};
use super::value::{Check, Kind};

const fn fixed(name: &'static str, value: &'static str, why: &'static str) -> Directive {
    row(name, Kind::Fixed { value, usual: None, why }, value, When::Always)
}

const fn unfollowed(
    name: &'static str,
    value: &'static str,
    usual: &'static str,
    why: &'static str,
) -> Directive {
    row(name, Kind::Fixed { value, usual: Some(usual), why }, value, When::Always)
}

impl Directive {
    const fn at_start(mut self) -> Directive {
        self.when = When::Start;
        self
    }
}

/// A directive whose value is kept for those who set and read it: it tunes what is not there, and nobody's data or access
/// depends on it. The log says so where it is set.
const fn kept(name: &'static str, value: &'static str, check: Check, why: &'static str) -> Directive {
    row(name, Kind::Kept { name, check, why }, value, When::Always)
}

const COUNT: Check = Check::Integer(0..=0x7fff_ffff);

const NO_REPLICATION: &str = "there is no replication";
const NO_CLUSTER: &str = "there is no cluster mode";
const NO_TLS: &str = "there is no TLS";

#[rustfmt::skip]
pub(super) static FOREIGN: &[Directive] = &[
    // Files and processes.
    fixed("dbfilename", "dump.rdb", "snapshots and journal have names of their own in dir").protected(),
    fixed("appendfilename", "appendonly.aof", "snapshots and journal have names of their own in dir").at_start(),
    fixed("appenddirname", "appendonlydir", "snapshots and journal have names of their own in dir").at_start(),
    fixed("lua-enable-deprecated-api", "no", "scripts reach nothing that outlives them").at_start().hidden(),
    fixed("daemonize", "no", "a service manager or a shell's & puts the server into the background").at_start(),
    fixed("supervised", "no", "the server does not report to a supervisor").at_start(),
    fixed("syslog-enabled", "no", "the log is standard output or a file; a service manager carries it to syslog").at_start(),
    fixed("syslog-ident", "redis", "the log is standard output or a file; a service manager carries it to syslog").at_start(),
    fixed("syslog-facility", "local0", "the log is standard output or a file; a service manager carries it to syslog").at_start(),
    unfollowed("set-proc-title", "no", "yes", "the name of the process stays as it was started").at_start(),
    kept("proc-title-template", "{title} {listen-addr} {server-mode}", Check::Text, "the name of the process stays as it was started"),
    unfollowed("always-show-logo", "no", "yes", "there is no logo").at_start(),
    unfollowed("crash-log-enabled", "no", "yes", "what ends the process is written by the log alone"),
    unfollowed("crash-memcheck-enabled", "no", "yes", "what ends the process is written by the log alone"),
    fixed("oom-score-adj", "no", "the system's own choice when memory runs out is not changed"),
    fixed("oom-score-adj-values", "0 200 800", "the system's own choice when memory runs out is not changed"),
    fixed("server_cpulist", "", "threads run on whatever processor is free").at_start(),
    fixed("bio_cpulist", "", "threads run on whatever processor is free").at_start(),
    fixed("aof_rewrite_cpulist", "", "threads run on whatever processor is free").at_start(),
    fixed("bgsave_cpulist", "", "threads run on whatever processor is free").at_start(),
    fixed("io-threads", "1", "server-threads says how many threads serve clients").at_start(),
    fixed("io-threads-do-reads", "no", "server-threads says how many threads serve clients").at_start(),
    fixed("enable-module-command", "no", "there are no modules").at_start(),
    fixed("enable-protected-configs", "no", "directives that are fixed at the start stay so").at_start(),
    fixed("ignore-warnings", "", "every warning is worth reading"),
    unfollowed("dynamic-hz", "no", "yes", "the housekeeping is the same for one client and for thousands"),
    fixed("bind-source-addr", "", "connections come in and none go out"),
    fixed("socket-mark-id", "0", "connections come in and none go out").at_start(),

    // Snapshots and journal.
    kept("rdbcompression", "yes", Check::Flag, "snapshots are always compressed"),
    fixed("rdbchecksum", "yes", "snapshots always carry checksums").at_start(),
    kept("key-load-delay", "0", Check::Integer(-0x8000_0000..=0x7fff_ffff), "what is loaded is loaded without delay").hidden(),
    fixed("aof-load-truncated", "yes", "an unfinished tail of the journal is always cut off and logged"),
    kept("aof-use-rdb-preamble", "yes", Check::Flag, "the journal always begins at a snapshot"),
    unfollowed("aof-timestamp-enabled", "no", "yes", "each effect in the journal has its time"),
    fixed("aof-disable-auto-gc", "no", "the journal is trimmed after each snapshot"),
    fixed("no-appendfsync-on-rewrite", "no", "a snapshot never keeps the journal from being synced"),
    kept("rdb-save-incremental-fsync", "yes", Check::Flag, "a snapshot is given to the disk as it is written"),
    kept("aof-rewrite-incremental-fsync", "yes", Check::Flag, "a snapshot is given to the disk as it is written"),
    unfollowed("sanitize-dump-payload", "yes", "no", "values are checked whenever they are read"),
    fixed("propagation-error-behavior", "ignore", "an effect that cannot be replayed stops the start"),

    // Memory.
    kept("list-compress-depth", "0", COUNT, "lists are not compressed in memory"),
    fixed("activedefrag", "no", "memory is not defragmented"),
    fixed("active-defrag-cycle-max", "25", "memory is not defragmented"),
    fixed("active-defrag-cycle-min", "1", "memory is not defragmented"),
    unfollowed("active-defrag-ignore-bytes", "104857600", "100mb", "memory is not defragmented"),
    fixed("active-defrag-max-scan-fields", "1000", "memory is not defragmented"),
    fixed("active-defrag-threshold-lower", "10", "memory is not defragmented"),
    fixed("active-defrag-threshold-upper", "100", "memory is not defragmented"),
    unfollowed("disable-thp", "no", "yes", "the heap lies in huge pages, put together again after each snapshot, so that fork() does not stall").at_start(),
    unfollowed("jemalloc-bg-thread", "no", "yes", "memory goes back to the system without threads of the allocator"),
    kept("activerehashing", "yes", Check::Flag, "tables grow a bucket at a time, with each write"),
    kept("active-expire-effort", "1", Check::Integer(1..=10), "what expires is removed as it falls due"),
    unfollowed("lazyfree-lazy-eviction", "yes", "no", "what is evicted is always freed apart from the locks"),
    unfollowed("lazyfree-lazy-expire", "yes", "no", "large values are always freed apart from the command that removes them"),
    unfollowed("lazyfree-lazy-server-del", "yes", "no", "large values are always freed apart from the command that removes them"),
    unfollowed("lazyfree-lazy-user-del", "yes", "no", "large values are always freed apart from the command that removes them"),
    unfollowed("lazyfree-lazy-user-flush", "yes", "no", "large values are always freed apart from the command that removes them"),

    // Replication, cluster, TLS.
    fixed("replicaof", "", NO_REPLICATION).or("slaveof").at_start(),
    kept("masterauth", "", Check::Text, NO_REPLICATION),
    kept("masteruser", "", Check::Text, NO_REPLICATION),
    fixed("min-replicas-max-lag", "10", NO_REPLICATION).or("min-slaves-max-lag"),
    fixed("min-replicas-to-write", "0", NO_REPLICATION).or("min-slaves-to-write"),
    kept("repl-backlog-size", "1048576", Check::Bytes, NO_REPLICATION),
    kept("repl-backlog-ttl", "3600", COUNT, NO_REPLICATION),
    kept("repl-disable-tcp-nodelay", "no", Check::Flag, NO_REPLICATION),
    fixed("repl-diskless-load", "disabled", NO_REPLICATION),
    kept("repl-diskless-sync", "yes", Check::Flag, NO_REPLICATION),
    kept("repl-diskless-sync-delay", "5", COUNT, NO_REPLICATION),
    kept("repl-diskless-sync-max-replicas", "0", COUNT, NO_REPLICATION),
    kept("repl-ping-replica-period", "10", COUNT, NO_REPLICATION).or("repl-ping-slave-period"),
    kept("repl-timeout", "60", COUNT, NO_REPLICATION),
    fixed("replica-announce-ip", "", NO_REPLICATION).or("slave-announce-ip"),
    fixed("replica-announce-port", "0", NO_REPLICATION).or("slave-announce-port"),
    fixed("replica-announced", "yes", NO_REPLICATION),
    fixed("replica-ignore-disk-write-errors", "no", NO_REPLICATION),
    kept("replica-ignore-maxmemory", "yes", Check::Flag, NO_REPLICATION).or("slave-ignore-maxmemory"),
    kept("replica-lazy-flush", "no", Check::Flag, NO_REPLICATION).or("slave-lazy-flush"),
    kept("replica-priority", "100", COUNT, NO_REPLICATION).or("slave-priority"),
    fixed("replica-read-only", "yes", NO_REPLICATION).or("slave-read-only"),
    fixed("replica-serve-stale-data", "yes", NO_REPLICATION).or("slave-serve-stale-data"),
    fixed("rdb-del-sync-files", "no", NO_REPLICATION),
    fixed("cluster-enabled", "no", NO_CLUSTER).at_start(),
    fixed("cluster-allow-pubsubshard-when-down", "yes", NO_CLUSTER),
    fixed("cluster-allow-reads-when-down", "no", NO_CLUSTER),
    fixed("cluster-allow-replica-migration", "yes", NO_CLUSTER),
    fixed("cluster-announce-bus-port", "0", NO_CLUSTER),
    fixed("cluster-announce-hostname", "", NO_CLUSTER),
    fixed("cluster-announce-ip", "", NO_CLUSTER),
    fixed("cluster-announce-port", "0", NO_CLUSTER),
    fixed("cluster-announce-tls-port", "0", NO_CLUSTER),
    fixed("cluster-config-file", "nodes.conf", NO_CLUSTER).at_start(),
    fixed("cluster-link-sendbuf-limit", "0", NO_CLUSTER),
    fixed("cluster-migration-barrier", "1", NO_CLUSTER),
    fixed("cluster-node-timeout", "15000", NO_CLUSTER),
    fixed("cluster-port", "0", NO_CLUSTER).at_start(),
    fixed("cluster-preferred-endpoint-type", "ip", NO_CLUSTER),
    fixed("cluster-replica-no-failover", "no", NO_CLUSTER).or("cluster-slave-no-failover"),
    fixed("cluster-replica-validity-factor", "10", NO_CLUSTER).or("cluster-slave-validity-factor"),
    fixed("cluster-require-full-coverage", "yes", NO_CLUSTER),
    fixed("tls-port", "0", NO_TLS),
    fixed("tls-auth-clients", "yes", NO_TLS),
    fixed("tls-ca-cert-dir", "", NO_TLS),
    fixed("tls-ca-cert-file", "", NO_TLS),
    fixed("tls-cert-file", "", NO_TLS),
    fixed("tls-ciphers", "", NO_TLS),
    fixed("tls-ciphersuites", "", NO_TLS),
    fixed("tls-client-cert-file", "", NO_TLS),
    fixed("tls-client-key-file", "", NO_TLS),
    fixed("tls-client-key-file-pass", "", NO_TLS),
    fixed("tls-cluster", "no", NO_TLS),
    fixed("tls-dh-params-file", "", NO_TLS),
    fixed("tls-key-file", "", NO_TLS),
    fixed("tls-key-file-pass", "", NO_TLS),
    fixed("tls-prefer-server-ciphers", "no", NO_TLS),
    fixed("tls-protocols", "", NO_TLS),
    fixed("tls-replication", "no", NO_TLS),
    fixed("tls-session-cache-size", "20480", NO_TLS),
    fixed("tls-session-cache-timeout", "300", NO_TLS),
    fixed("tls-session-caching", "yes", NO_TLS),
];
