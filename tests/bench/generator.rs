//! redis-benchmark, the load generator of every figure of CPU, throughput and latency of single commands.

use crate::process::cpu_seconds;
use cairn_tests::programs;
use cairn_tests::server::Server;
use std::process::Command;

/// Connections of every run.
pub(crate) const CLIENTS: &str = "50";

/// One run of redis-benchmark: which of its tests, at which depth, and how many operations.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub(crate) test: &'static str,
    pub(crate) pipeline: usize,
    pub(crate) operations: usize,
    /// How many different keys it draws from.
    pub(crate) keys: usize,
}

/// What one run gave.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measured {
    /// Microseconds of server CPU per operation.
    pub(crate) cpu_us: f64,
    /// Thousands of operations a second.
    pub(crate) rate: f64,
    /// Latencies in milliseconds, of a whole pipeline where there is one.
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) p999_ms: f64,
}

impl Run {
    /// Drives `server` and reads its CPU time before and after.
    pub(crate) fn against(&self, server: &Server) -> Measured {
        let before = cpu_seconds(server.pid());
        let output = Command::new(programs::system("redis-benchmark"))
            .args(["-p", &server.address().port().to_string(), "-c", CLIENTS])
            .args(["-P", &self.pipeline.to_string(), "-t", self.test, "-d", "100"])
            .args(["-r", &self.keys.to_string(), "-n", &self.operations.to_string(), "--precision", "3"])
            .output()
            .expect("redis-benchmark starts");
        let cpu = cpu_seconds(server.pid()) - before;
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success(),
            "redis-benchmark: {text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let figures = (|| {
            Some(Measured {
                cpu_us: cpu * 1e6 / self.operations as f64,
                rate: throughput(&text)? / 1e3,
                p50_ms: percentile(&text, 50.0)?,
                p99_ms: percentile(&text, 99.0)?,
                p999_ms: percentile(&text, 99.9)?,
            })
        })();
        figures.unwrap_or_else(|| panic!("redis-benchmark printed something else: {text}"))
    }
}

/// From `throughput summary: 347222.25 requests per second`.
fn throughput(text: &str) -> Option<f64> {
    text.split("throughput summary:").nth(1)?.split_whitespace().next()?.parse().ok()
}

/// From the cumulative lines `99.902% <= 5.247 milliseconds (cumulative count 49952)` of the distribution by percentile, which
/// halve the rest at each step: the first at or past `wanted`. The 50th is exact, the 99th is the line at 99.219 % and the
/// 99.9th that at 99.902 %, so both are told no better than they are.
fn percentile(text: &str, wanted: f64) -> Option<f64> {
    let lines = text.split("Latency by percentile distribution:").nth(1)?.lines();
    lines
        .filter_map(|line| line.trim().split_once("% <= "))
        .filter_map(|(percent, rest)| Some((percent.parse::<f64>().ok()?, rest.split(' ').next()?)))
        .find(|(percent, _)| *percent >= wanted)
        .and_then(|(_, milliseconds)| milliseconds.parse().ok())
}
