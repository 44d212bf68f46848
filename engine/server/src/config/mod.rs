//! The configuration: `redis.conf` files, `--directive value` arguments, CONFIG GET and CONFIG SET.
//!
//! Every directive is a row of [`table`] or, where only one value of it is provided, of [`foreign`]. What is not there is refused, never ignored: a server that
//! silently drops a directive about durability or access is worse than one that does not start.

mod backup;
mod clients;
mod ending;
mod file;
mod foreign;
mod memory;
mod rewrite;
mod table;
mod value;

pub(crate) use backup::{Seed, Span, contradiction};
pub(crate) use ending::Ending;
pub(crate) use file::load;
pub(crate) use rewrite::{Written, rewrite};
pub(crate) use value::{DebugCommand, Fsync, LogFormat, LogLevel, MaxmemoryPolicy, PubsubDefault};

use cairn_engine::{CopyLimit, Interest, UserLine, glob_matches};
use std::collections::BTreeMap;
use std::path::PathBuf;
use table::{Directive, When};

/// The value of every directive.
#[derive(Debug, Clone, Default)]
pub(crate) struct Settings {
    pub(crate) bind: Vec<String>,
    pub(crate) port: i64,
    pub(crate) protected_mode: bool,
    pub(crate) tcp_backlog: i64,
    pub(crate) timeout_seconds: i64,
    pub(crate) tcp_keepalive_seconds: i64,
    pub(crate) unixsocket: String,
    pub(crate) unixsocketperm: u32,
    pub(crate) loglevel: LogLevel,
    pub(crate) logfile: String,
    pub(crate) log_format: LogFormat,
    pub(crate) pidfile: String,
    pub(crate) databases: i64,
    /// Pairs of seconds and changes.
    pub(crate) save: Vec<(u64, u64)>,
    pub(crate) dir: String,
    pub(crate) appendonly: bool,
    pub(crate) appendfsync: Fsync,
    pub(crate) auto_rewrite_percentage: i64,
    pub(crate) auto_rewrite_min_bytes: u64,
    pub(crate) journal_segment_bytes: u64,
    pub(crate) maxmemory: u64,
    pub(crate) maxmemory_policy: MaxmemoryPolicy,
    pub(crate) maxmemory_samples: i64,
    pub(crate) maxmemory_eviction_tenacity: i64,
    pub(crate) lfu_log_factor: i64,
    pub(crate) lfu_decay_minutes: i64,
    pub(crate) requirepass: String,
    pub(crate) aclfile: String,
    pub(crate) acl_pubsub_default: PubsubDefault,
    pub(crate) acl_log_length: i64,
    /// The `user` lines, with where they stand.
    pub(crate) users: Vec<(Place, UserLine)>,
    pub(crate) maxclients: i64,
    pub(crate) max_bulk_bytes: u64,
    pub(crate) query_buffer_bytes: u64,
    pub(crate) enable_debug_command: DebugCommand,
    pub(crate) hash_entries: i64,
    pub(crate) hash_value: u64,
    pub(crate) zset_entries: i64,
    pub(crate) zset_value: u64,
    pub(crate) set_intset_entries: i64,
    pub(crate) set_entries: i64,
    pub(crate) set_value: u64,
    /// -1 to -5: 4, 8, 16, 32 or 64 KiB a node; otherwise so many elements.
    pub(crate) list_size: i64,
    pub(crate) hll_sparse_bytes: u64,
    pub(crate) stream_node_bytes: u64,
    pub(crate) stream_node_entries: i64,
    pub(crate) hz: i64,
    pub(crate) busy_reply_ms: i64,
    /// 0: chosen from the number of cores.
    pub(crate) server_threads: i64,
    pub(crate) encryption_key_file: String,
    pub(crate) encryption_key_command: String,
    pub(crate) shutdown_timeout_seconds: i64,
    pub(crate) shutdown_on_sigint: Ending,
    pub(crate) shutdown_on_sigterm: Ending,
    pub(crate) stop_writes_on_snapshot_error: bool,
    pub(crate) copy_limit: CopyLimit,
    /// Microseconds for each key of a snapshot, or, where negative, keys for each microsecond.
    pub(crate) key_save_delay: i64,
    /// Negative: none is.
    pub(crate) slowlog_slower_than_us: i64,
    pub(crate) slowlog_len_max: i64,
    /// 0: off.
    pub(crate) latency_threshold_ms: i64,
    pub(crate) latency_tracking: bool,
    pub(crate) latency_percentiles: Vec<String>,
    /// Directives whose usual value in other servers' files was given and is not followed; why.
    pub(crate) unfollowed: Vec<(&'static str, &'static str)>,
    /// Values of directives that change nothing here, by name.
    pub(crate) kept: BTreeMap<&'static str, String>,
    pub(crate) output_limits: clients::Limits,
    pub(crate) client_memory: clients::ClientMemoryLimit,
    pub(crate) events: Interest,
    pub(crate) tracked_keys_max: i64,
    /// 0: no HTTP.
    pub(crate) http_port: i64,
    /// 0: no limit.
    pub(crate) journal_disk_limit: u64,
    /// Empty: no backup.
    pub(crate) backup_url: String,
    pub(crate) backup_interval: Span,
    /// Empty: the agent's own.
    pub(crate) backup_schedule: String,
    /// 0: no bound.
    pub(crate) backup_max_lag: Span,
    /// Empty: nothing is run.
    pub(crate) backup_on_failure: String,
    pub(crate) seed: Seed,
    /// Empty: the latest moment there is.
    pub(crate) seed_time: String,
}

/// Why the server does not start with this configuration. Never holds a value: it may be a password.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// A directive that is unknown, not provided, or given a wrong value.
    #[error("{place}: '{directive}': {why}")]
    Directive { place: Place, directive: String, why: String },
    /// A line that cannot be split into words.
    #[error("{place}: unbalanced quotes")]
    Quotes { place: Place },
    /// A file that cannot be read.
    #[error("{path}: cannot read the configuration file: {source}", path = path.display())]
    Read { path: PathBuf, source: std::io::Error },
    /// Files that include each other.
    #[error("{place}: 'include': more than {depth} files deep; do they include each other?")]
    IncludeDepth { place: Place, depth: usize },
}

/// Where a directive stands.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    File { path: PathBuf, line: usize },
    CommandLine,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Place::File { path, line } => write!(f, "{}:{line}", path.display()),
            Place::CommandLine => f.write_str("command line"),
        }
    }
}

impl Settings {
    /// The defaults of the table.
    pub(crate) fn defaults() -> Settings {
        let mut settings = Settings::default();
        for directive in table::all() {
            let words: Vec<&str> = directive.default.split(' ').filter(|w| !w.is_empty()).collect();
            let words = if words.is_empty() { vec![""] } else { words };
            if let Err(why) = directive.kind.set(&mut settings, &words) {
                unreachable!("the default of {}: {why}", directive.name);
            }
        }
        settings
    }

    /// Names and values of the directives that match a pattern, aliases included, as CONFIG GET shows them.
    pub(crate) fn matching(&self, patterns: &[&[u8]]) -> Vec<(String, String)> {
        let patterns: Vec<Vec<u8>> = patterns.iter().map(|p| p.to_ascii_lowercase()).collect();
        let wanted = |name: &str| patterns.iter().any(|p| glob_matches(p, name.as_bytes()));
        let named = |name: &str| patterns.iter().any(|p| p == name.as_bytes());
        let names = |d: &'static Directive| std::iter::once(d.name).chain(d.alias).map(move |name| (name, d));
        table::all()
            .flat_map(names)
            .filter(|(name, d)| if d.is_hidden { named(name) } else { wanted(name) })
            .map(|(name, d)| (name.to_owned(), d.kind.show(self)))
            .collect()
    }

    /// These settings with all `pairs` changed, for CONFIG SET; the error is its reply.
    pub(crate) fn with(&self, pairs: &[(&[u8], &[u8])]) -> Result<Settings, String> {
        let mut changed = self.clone();
        let mut seen: Vec<&str> = Vec::new();
        for (name, value) in pairs {
            let shown = String::from_utf8_lossy(name).to_lowercase();
            let Some(directive) = table::find(&shown) else {
                return Err(format!("ERR Unknown option or number of arguments for CONFIG SET - '{shown}'"));
            };
            let failed = |why: &str| {
                Err(format!("ERR CONFIG SET failed (possibly related to argument '{shown}') - {why}"))
            };
            if seen.contains(&directive.name) {
                return failed("duplicate parameter");
            }
            seen.push(directive.name);
            if directive.is_protected {
                return failed("can't set protected config");
            }
            if directive.when == When::Start {
                return failed("can't set immutable config");
            }
            let Ok(text) = std::str::from_utf8(value) else { return failed("the value is not text") };
            if let Err(why) = directive.kind.set_one(&mut changed, text) {
                return failed(&why);
            }
            if directive.when == When::Same && directive.kind.show(&changed) != directive.kind.show(self) {
                return failed("can't set immutable config");
            }
        }
        Ok(changed)
    }

    /// Why directives whose values are kept, and differ from those before, change nothing.
    pub(crate) fn unfollowed_since(&self, before: &Settings) -> Vec<(&'static str, &'static str)> {
        let changed = |d: &&'static Directive| self.kept.get(d.name) != before.kept.get(d.name);
        let why = |d: &'static Directive| match d.kind {
            value::Kind::Kept { why, .. } => Some((d.name, why)),
            _ => None,
        };
        table::all().filter(changed).filter_map(why).collect()
    }

    /// The lines a configuration file needs for what differs from `other`: name and words, quoted.
    pub(crate) fn lines_differing_from(&self, other: &Settings) -> Vec<(&'static str, String)> {
        table::all()
            .filter(|d| d.kind.show(self) != d.kind.show(other))
            .map(|d| (d.name, format!("{} {}", d.name, d.kind.line(self))))
            .collect()
    }

    /// The lines of a configuration file that says everything.
    pub(crate) fn lines(&self) -> Vec<(&'static str, String)> {
        table::all().map(|d| (d.name, format!("{} {}", d.name, d.kind.line(self)))).collect()
    }

    /// How many threads serve connections. More than two gain little beside the load they share the cores with.
    pub(crate) fn worker_threads(&self) -> usize {
        match usize::try_from(self.server_threads) {
            Ok(0) | Err(_) => {
                let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
                (cores / 2).clamp(1, 2)
            }
            Ok(threads) => threads,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(settings: &Settings, pattern: &str) -> Vec<(String, String)> {
        settings.matching(&[pattern.as_bytes()])
    }

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.into(), value.into())
    }

    #[test]
    fn values_read_back_as_redis_shows_them() {
        let settings = Settings::defaults();
        for (name, value) in [
            ("port", "6379"),
            ("bind", "127.0.0.1 -::1"),
            ("save", "3600 1 300 100 60 10000"),
            ("appendfsync", "everysec"),
            ("auto-aof-rewrite-min-size", "67108864"),
            ("proto-max-bulk-len", "536870912"),
            ("hash-max-ziplist-entries", "512"),
            ("list-max-listpack-size", "-2"),
            ("requirepass", ""),
            ("unixsocketperm", "0"),
            ("maxmemory", "0"),
        ] {
            assert_eq!(get(&settings, name), [pair(name, value)]);
        }
        assert_eq!(get(&settings, "*max-intset*"), [pair("set-max-intset-entries", "512")]);
        assert_eq!(get(&settings, "PORT"), [pair("port", "6379")]);
        assert!(get(&settings, "nothing").is_empty());
    }

    #[test]
    fn a_set_changes_all_or_nothing() {
        let settings = Settings::defaults();
        let changed = settings.with(&[(b"timeout", b"5"), (b"MAXCLIENTS", b"7"), (b"save", b"")]).unwrap();
        assert_eq!((changed.timeout_seconds, changed.maxclients, changed.save.len()), (5, 7, 0));
        let error = |pairs: &[(&[u8], &[u8])]| settings.with(pairs).unwrap_err();
        assert_eq!(
            error(&[(b"timeout", b"5"), (b"databases", b"1")]),
            "ERR CONFIG SET failed (possibly related to argument 'databases') - can't set immutable config"
        );
        assert_eq!(
            error(&[(b"nope", b"5")]),
            "ERR Unknown option or number of arguments for CONFIG SET - 'nope'"
        );
        assert_eq!(
            error(&[(b"timeout", b"5"), (b"timeout", b"6")]),
            "ERR CONFIG SET failed (possibly related to argument 'timeout') - duplicate parameter"
        );
        assert_eq!(
            error(&[(b"hash-max-listpack-entries", b"5"), (b"hash-max-ziplist-entries", b"6")]),
            "ERR CONFIG SET failed (possibly related to argument 'hash-max-ziplist-entries') - duplicate parameter"
        );
        assert!(error(&[(b"timeout", b"x")]).ends_with("argument couldn't be parsed into an integer"));
        assert!(error(&[(b"maxclients", b"0")]).contains("argument must be between 1 and "));
        assert!(error(&[(b"protected-mode", b"maybe")]).ends_with("argument must be 'yes' or 'no'"));
        assert!(error(&[(b"auto-aof-rewrite-min-size", b"x")]).ends_with("argument must be a memory value"));
        assert!(
            error(&[(b"appendfsync", b"x")])
                .ends_with("argument(s) must be one of the following: always, everysec, no")
        );
    }

    #[test]
    fn what_changed_can_be_written_down() {
        let settings = Settings::defaults();
        let changed =
            settings.with(&[(b"requirepass", b"a \"b\""), (b"save", b""), (b"timeout", b"9")]).unwrap();
        let lines: Vec<String> = changed.lines_differing_from(&settings).into_iter().map(|l| l.1).collect();
        assert_eq!(lines, ["timeout 9", "requirepass \"a \\\"b\\\"\"", "save \"\""]);
    }
}
