//! What was noted of commands: commandstats, latencystats, errorstats.

use cairn_commands::observed::Observed;
use cairn_commands::{Command, numbered};

use super::line;

pub(super) fn commands(observed: &Observed, text: &mut String) {
    for (name, usage) in numbered().iter().map(|command| (command.name, observed.usage.of(command.number())))
    {
        if usage.calls + usage.rejected + usage.failed == 0 {
            continue;
        }
        let mean = if usage.calls == 0 { 0.0 } else { usage.duration_us as f64 / usage.calls as f64 };
        line(
            text,
            format_args!(
                "cmdstat_{name}:calls={},usec={},usec_per_call={mean:.2},rejected_calls={},failed_calls={}",
                usage.calls, usage.duration_us, usage.rejected, usage.failed
            ),
        );
    }
}

pub(super) fn latencies(observed: &Observed, percentiles: &[f64], text: &mut String) {
    let ran = |command: &&'static Command| {
        let durations = observed.usage.of(command.number()).durations;
        (durations.runs() > 0).then_some((command.name, durations))
    };
    for (name, durations) in numbered().iter().filter_map(ran) {
        let shown: Vec<String> = percentiles
            .iter()
            .map(|percent| format!("p{percent}={:.3}", durations.percentile(*percent) as f64))
            .collect();
        line(text, format_args!("latency_percentiles_usec_{name}:{}", shown.join(",")));
    }
}

pub(super) fn errors(observed: &Observed, text: &mut String) {
    for (kind, count) in observed.errors.kinds() {
        line(text, format_args!("errorstat_{kind}:count={count}"));
    }
}
