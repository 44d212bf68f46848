//! What the kernel says of a server, CPU time and memory, and what it is asked of threads of our own.

use std::fs;
use std::process::Command;

/// Linux counts CPU time for user space in hundredths of a second on every architecture we run on.
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU seconds of a process and of its children that have ended: a snapshot or a log rewritten by a child counts too.
pub(crate) fn cpu_seconds(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name in parentheses may hold anything; the numbers follow it. utime is the 12th of them, then stime, cutime, cstime.
    let numbers = stat.rsplit(')').next().unwrap_or_default();
    let ticks: f64 =
        numbers.split_whitespace().skip(11).take(4).filter_map(|word| word.parse::<f64>().ok()).sum();
    ticks / TICKS_PER_SECOND
}

/// Bytes of a process in physical memory.
pub(crate) fn resident_bytes(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|word| word.parse::<f64>().ok()).unwrap_or(0.0) * 1024.0
}

/// Before servers: who measures must not wait for a turn on the CPU, or measures that.
pub(crate) const FIRST: i32 = -10;
/// After servers: who only makes work.
pub(crate) const LAST: i32 = 10;

/// Asks the kernel to run this thread before others, or after. Before others needs root; without, both servers are measured
/// with the same disadvantage.
pub(crate) fn prefer(nice: i32) {
    let own = fs::read_link("/proc/thread-self").unwrap_or_default();
    let Some(id) = own.file_name().and_then(|name| name.to_str()) else { return };
    let _ = Command::new("renice").args(["-n", &nice.to_string(), "-p", id]).output();
}
