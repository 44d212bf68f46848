//! What can be set from outside, all of it by environment variables; see README.md beside this file.

/// The settings of one run.
pub(crate) struct Settings {
    /// `CAIRN_BENCH_ONLY`: the groups to run, all where it is not set.
    pub(crate) only: Option<Vec<String>>,
    /// `CAIRN_BENCH_ROUNDS`: how often each server is measured where rounds alternate.
    pub(crate) rounds: usize,
    /// `CAIRN_BENCH_OPERATIONS`: of a redis-benchmark run at pipeline 16, for a row with a target.
    pub(crate) operations: usize,
    /// `CAIRN_BENCH_KEYS`: of the datasets of the groups `snapshot` and `backup`.
    pub(crate) keys: usize,
    /// `CAIRN_BENCH_RECORDS`: in the journal that is replayed.
    pub(crate) records: usize,
    /// `CAIRN_BENCH_STALL_KEYS`: of the dataset whose snapshot is taken under load.
    pub(crate) stall_keys: usize,
    /// `CAIRN_BENCH_RATE`: requests a second of that load.
    pub(crate) rate: usize,
    /// `CAIRN_BENCH_GROWTH`: the largest number of keys that is grown to.
    pub(crate) growth: usize,
    /// `CAIRN_BENCH_FORK_GB`: the largest dataset whose fork is timed, in GB; 0 for none.
    pub(crate) fork_gb: usize,
}

impl Settings {
    pub(crate) fn from_environment() -> Self {
        let only = std::env::var("CAIRN_BENCH_ONLY").ok().filter(|text| !text.trim().is_empty());
        Self {
            only: only.map(|text| text.split(',').map(|name| name.trim().to_owned()).collect()),
            rounds: number("CAIRN_BENCH_ROUNDS", 3).max(1),
            operations: number("CAIRN_BENCH_OPERATIONS", 1_500_000),
            keys: number("CAIRN_BENCH_KEYS", 2_600_000),
            records: number("CAIRN_BENCH_RECORDS", 5_000_000),
            stall_keys: number("CAIRN_BENCH_STALL_KEYS", 2_600_000),
            rate: number("CAIRN_BENCH_RATE", 20_000),
            growth: number("CAIRN_BENCH_GROWTH", 10_000_000),
            fork_gb: number("CAIRN_BENCH_FORK_GB", 4),
        }
    }

    /// A name asked for that is none of `groups`.
    pub(crate) fn unknown(&self, groups: &[&str]) -> Option<&str> {
        self.only.iter().flatten().map(String::as_str).find(|name| !groups.contains(name))
    }

    /// Whether this group is to run.
    pub(crate) fn wants(&self, group: &str) -> bool {
        self.only.as_ref().is_none_or(|names| names.iter().any(|name| name == group))
    }
}

fn number(name: &str, otherwise: usize) -> usize {
    match std::env::var(name) {
        Ok(text) => {
            text.replace('_', "").parse().unwrap_or_else(|_| panic!("{name} must be a number, not {text:?}"))
        }
        Err(_) => otherwise,
    }
}
