//! What is noted of commands that have run: how often and how long, the slow ones, and what took the server's time beside
//! them. Plain data; whoever runs the commands measures and notes.

pub mod errors;
pub mod latency;
pub mod slowlog;
pub mod usage;

use std::time::{SystemTime, UNIX_EPOCH};

use errors::Errors;
use latency::LatencyMonitor;
use slowlog::SlowLog;
use usage::Usage;

use crate::spec::Flags;
use crate::table::Command;

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

/// Who asked for a command, as the slow log tells it.
pub struct Asker<'a> {
    /// Where it is connected from.
    pub address: &'a str,
    /// CLIENT SETNAME.
    pub name: &'a [u8],
}

impl Observed {
    /// Notes a run of a command; `details` gives its arguments and who asked, where it was slow.
    #[inline]
    pub fn note(
        &self,
        command: &Command,
        duration_us: u64,
        failed: bool,
        details: impl FnOnce(&mut dyn FnMut(&[&[u8]], &Asker<'_>)),
    ) {
        self.usage.note(command.number(), duration_us, failed);
        if self.slowlog.is_slow(duration_us) || self.latency.is_slow(duration_us) {
            details(&mut |args, asker| self.note_slow(command, duration_us, args, asker));
        }
    }

    #[cold]
    fn note_slow(&self, command: &Command, duration_us: u64, args: &[&[u8]], asker: &Asker<'_>) {
        let event = if command.flags.has(Flags::FAST) { "fast-command" } else { "command" };
        self.note_event(event, duration_us);
        if self.slowlog.is_slow(duration_us) && !command.flags.has(Flags::SKIP_SLOWLOG) {
            let args = slowlog::redacted(command.name, args);
            self.slowlog.note(unixtime(), duration_us, &args, asker.address, asker.name);
        }
    }

    /// Notes how long something took that LATENCY tells of.
    pub fn note_event(&self, event: &'static str, duration_us: u64) {
        self.latency.note(event, unixtime(), duration_us);
    }
}

fn unixtime() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}
