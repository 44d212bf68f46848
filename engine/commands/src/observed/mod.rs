//! What is noted of commands that have run: how often and how long, the slow ones, and what took the server's time beside
//! them. Plain data; whoever runs the commands measures and notes.

pub mod errors;
pub mod latency;
pub mod slowlog;
pub mod usage;

use errors::Errors;
use latency::LatencyMonitor;
use slowlog::SlowLog;
use usage::Usage;

/// All that is noted, for one engine.
#[derive(Default)]
pub struct Observed {
    /// SLOWLOG.
    pub slowlog: SlowLog,
    /// LATENCY, but for its histograms.
    pub latency: LatencyMonitor,
    /// Calls, errors and durations of each command.
    pub usage: Usage,
    /// Error replies by kind.
    pub errors: Errors,
}
